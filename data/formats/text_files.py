"""What stands in text files: lines, fields, numbers, and how texts are quoted in messages."""

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path

from data.files import read_data_text
from data.records import DatasetError

SHOWN = 60  # characters of a text of the file in a message
OF_ONE_IMAGE, OF_DATASET = 2**26, 2**31  # bytes of an annotation file at most
NO_VALUE = frozenset(("", "nan", "none", "null", "na", "n/a", "<na>", "#n/a"))  # less case
_TRUE, _FALSE = ("true", "yes", "t", "y"), ("false", "no", "f", "n", *NO_VALUE)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def text_lines(
    path: str | Path,
    most: int = OF_DATASET,
    reject: Callable[[DatasetError], None] | None = None,
) -> list[str]:
    """The lines of a UTF-8 file, with or without BOM, ended by LF, CRLF or CR.

    reject: called with the error of each line that holds a NUL, which is then empty.
    Raises DatasetError if it is no regular file, has more than `most` bytes, cannot be read, is
    not UTF-8 or, without reject, holds a NUL, with the line.
    """
    text = read_data_text(path, most).removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for index in (
        [index for index, line in enumerate(lines) if "\0" in line] if "\0" in text else ()
    ):
        message = f"{path}, line {index + 1}: expected text, found a NUL character"
        error = DatasetError(message, "malformed line")
        if reject is None:
            raise error
        reject(error)
        lines[index] = ""
    return lines


def numbered_lines(path: str | Path, most: int = OF_DATASET) -> list[tuple[int, str]]:
    """(number from 1, trimmed text) of the lines that are not blank. Errors as `text_lines`."""
    return [(n, line.strip()) for n, line in enumerate(text_lines(path, most), 1) if line.strip()]


def csv_fields(line: str, delimiter: str = ",") -> list[str]:
    """The fields of one line, trimmed; one that holds the delimiter is in double quotes.

    Raises csv.Error for quotes that are not closed, and for a field of more than csv's limit.
    """
    line = line.strip(" ")  # a closing quote must be the last
    if '"' not in line and 0 < len(line) < csv.field_size_limit():
        return [field.strip() for field in line.split(delimiter)]  # csv takes five times as long
    reader = csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True)
    return [field.strip() for field in next(reader)]


def has_no_value(text: str) -> bool:
    """Whether a text is empty or what tools write for nothing, such as nan."""
    return text.casefold() in NO_VALUE


def flag(value: object) -> bool | None:
    """Whether a flag is set: true, yes and numbers but 0 are, false, no and nothing are not.

    None for what is none of them.
    """
    if isinstance(value, str):
        text, number = value.strip().lower(), decimal(value.strip())
        is_set = True if text in _TRUE else False if text in _FALSE else None
        return is_set if math.isnan(number) else number != 0
    return bool(value) if value is None or isinstance(value, (bool, int, float)) else None


def decimal(text: str | None) -> float:
    """A finite decimal number, nan for other texts; float() alone takes 'inf' and '1_0'."""
    if text is None or len(text) > 100 or not _NUMBER.fullmatch(text):
        return math.nan
    value = float(text)
    return value if math.isfinite(value) else math.nan


def number_in(text: str | None, where: str) -> float:
    """As `decimal`, but raises DatasetError for other texts; where: file, object and field."""
    value = decimal(text)
    if math.isnan(value):
        raise DatasetError(f"{where}: expected a number, found {quoted(text)}", "bad number")
    return value


def number_or_text(text: str) -> int | str:
    """The whole number that is written as this text: 139 for "139", but not for "0139"."""
    is_short = len(text) <= 20  # digits of 64 bits and a sign
    return int(text) if is_short and re.fullmatch("0|-?[1-9][0-9]*", text) else text


def quoted(text: str | None) -> str:
    """A text of the file for a message: one line, not endless."""
    if text is None:
        return "nothing"
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 3] + "...")
