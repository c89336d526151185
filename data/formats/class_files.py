"""Class names in text files: `name,id` lines as yhenon and fizyr write, a name a line, or pbtxt."""

import csv
import re
from pathlib import Path

from data.formats.label_map import read_label_map
from data.formats.text_files import csv_fields, numbered_lines
from data.records import DatasetError, require_fit_names

_ID = re.compile(r"\d{1,9}", re.ASCII)
_ITEM = re.compile(r"item\s*[{<]")  # the first line of a label map


def read_class_file(path: str | Path) -> tuple[str, ...]:
    """The class names of a file, in label order.

    Either every line is `name,id`, in any order, with each id from 0 to K - 1 once, or every line
    is a name, the first one that of label 0. A name with a comma is put in double quotes; blanks
    around names are trimmed, blank lines passed over. A label map of the TF Object Detection API
    (.pbtxt) is read, too: its names in the order of their ids.
    Raises DatasetError, naming file and line, for anything else: a name or id twice, an id left
    out, no name at all, no UTF-8.
    """
    lines = numbered_lines(path)
    if str(path).lower().endswith(".pbtxt") or (lines and _ITEM.match(lines[0][1])):
        return tuple(name for _, name in sorted(read_label_map(path).items()))
    rows: dict[str, list[str]] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        rows[where] = _fields(line, where)
    if not rows:
        raise DatasetError(f"{path}: expected name,id lines or a class name a line, found none")
    first_of: dict[str, str] = {}
    for where, (name, *_) in rows.items():
        if not name:
            raise DatasetError(f"{where}: expected a class name, found none", "missing name")
        require_fit_names([name], where)
        if name in first_of:
            message = f"class {name[:60]!r} is listed twice, first in {first_of[name]}"
            raise DatasetError(f"{where}: {message}")
        first_of[name] = where
    width = len(next(iter(rows.values())))
    expected = "name,id like the lines before"
    if width == 1:
        expected = "a class name like the lines before (one with a comma quoted)"
    for where, row in rows.items():
        if len(row) != width:
            raise DatasetError(f"{where}: expected {expected}, found {','.join(row)[:60]!r}")
    return tuple(first_of) if width == 1 else _by_id(rows)


def _fields(line: str, where: str) -> list[str]:
    try:
        fields = csv_fields(line)
    except csv.Error as error:
        raise DatasetError(f"{where}: {error}, found {line[:60]!r}") from error
    if len(fields) > 2:
        expected = "expected name,id or a class name, one with a comma in quotes"
        raise DatasetError(f"{where}: {expected}, found {line[:60]!r}")
    return fields


def _by_id(rows: dict[str, list[str]]) -> tuple[str, ...]:
    """Names in the order of their ids, which must be 0 to K - 1."""
    names: dict[int, str] = {}
    numbers = sorted(int(text) for _, text in rows.values() if _ID.fullmatch(text))
    hint = ""
    if numbers == list(range(1, len(rows) + 1)):
        hint = "; all count from 1: subtract 1 from each, or write the names alone, a line each"
    for where, (name, text) in rows.items():
        expected = f"expected an id from 0 to {len(rows) - 1}, each once"
        if not _ID.fullmatch(text) or int(text) >= len(rows) or int(text) in names:
            raise DatasetError(f"{where} ({name[:60]!r}): {expected}, found {text[:60]!r}{hint}")
        names[int(text)] = name
    return tuple(names[label] for label in range(len(names)))
