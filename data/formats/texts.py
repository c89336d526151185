"""What stands in text files: lines, fields, numbers, class names, and how they are quoted.

Letters: K classes.
"""

import csv
import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data.files import read_data_text
from data.records import BAD_NAME, DatasetError, Defects
from utils.names import name_problem

SHOWN = 60  # characters of a text of the file in a message
OF_ONE_IMAGE, OF_DATASET = 2**26, 2**31  # bytes of an annotation file at most
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def text_lines(path: str | Path, most: int = OF_DATASET) -> list[str]:
    """The lines of a UTF-8 file, with or without BOM, ended by LF, CRLF or CR.

    Raises DatasetError if it is no regular file, has more than `most` bytes, cannot be read, is
    not UTF-8 or holds a NUL, with the line.
    """
    text = read_data_text(path, most).removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if "\0" in text:
        line = next(number for number, line in enumerate(lines, start=1) if "\0" in line)
        raise DatasetError(f"{path}, line {line}: expected text, found a NUL character")
    return lines


def numbered_lines(path: str | Path, most: int = OF_DATASET) -> list[tuple[int, str]]:
    """(number from 1, trimmed text) of the lines that are not blank. Errors as `text_lines`."""
    return [(n, line.strip()) for n, line in enumerate(text_lines(path, most), 1) if line.strip()]


def csv_fields(line: str, delimiter: str = ",") -> list[str]:
    """The fields of one line, trimmed; one that holds the delimiter is in double quotes.

    Raises csv.Error for quotes that are not closed, and for a field of more than csv's limit.
    """
    line = line.strip(" ")  # a closing quote must be the last
    reader = csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True)
    return [field.strip() for field in next(reader)]


def decimal(text: str | None) -> float:
    """A finite decimal number, nan for other texts; float() alone takes 'inf' and '1_0'."""
    if text is None or len(text) > 100 or not _NUMBER.fullmatch(text):
        return math.nan
    value = float(text)
    return value if math.isfinite(value) else math.nan


def quoted(text: str | None) -> str:
    """A text of the file for a message: one line, not endless."""
    if text is None:
        return "nothing"
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 3] + "...")


def class_label(name: str | None, label_of: Mapping[str, int], where: str) -> int:
    """The label of a class.

    where: file, object and field. Raises DatasetError of kind "missing name", BAD_NAME or "unknown
    class", with the close match.
    """
    if not name:
        raise DatasetError(f"{where}: expected a class name, found none", "missing name")
    if name in label_of:
        return label_of[name]
    problem = name_problem(name)
    if problem:
        raise DatasetError(f"{where}: {problem}", BAD_NAME)
    raise DatasetError(f"{where}: {expected_one_of(label_of, name)}", "unknown class")


def fit_names(names: Iterable[str | None]) -> tuple[str, ...]:
    """Those of the names found with objects that a class can have, sorted.

    The others are judged object by object, by `class_label`.
    """
    return tuple(sorted({name for name in names if name and not name_problem(name)}))


def choose_classes(
    declared: Sequence[str], classes: Sequence[str] | None, where: str | Path, defects: Defects
) -> np.ndarray:
    """(number of declared,) int64: the label each declared class gets, -1 for those left out.

    classes: names in label order, None for all as declared. where: names the file in messages. A
    name that is not declared has no objects here; another split may have some: it is counted.
    Raises ValueError for no name or one given twice.
    """
    if classes is None:
        return np.arange(len(declared))
    if not classes or len(set(classes)) != len(classes):
        raise ValueError(f"classes: expected different names, found {list(classes)}")
    for name in classes:
        if name not in declared:
            message = f"{where}: class: {expected_one_of(declared, name)}"
            defects.add("class not declared", message)
    label_of = {name: label for label, name in enumerate(classes)}
    return np.array([label_of.get(name, -1) for name in declared])


def expected_one_of(names: Collection[str], found: str) -> str:
    """ "expected one of cat, dog, found 'cta'; did you mean 'cat'?" """
    close = difflib.get_close_matches(found[:SHOWN], names, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"expected one of {', '.join(names)}, found {quoted(found)}{hint}"
