"""Reads text and JSON files that may be anything: no devices, no endless files, no deep nesting.

Standard library only, as configs imports it.
"""

import contextlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES = 16 * 2**20  # of a text file: parsed, it takes some 20 times as much
MOST_LEVELS = 64  # of objects and lists inside each other in JSON; ours have fewer than ten
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
NO_BRACKETS = bytes({*range(256)} - {*b"[]{}"})
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class ReadError(ValueError):
    """A file that is not there, of another kind or too large, or that fails while it is read."""


@contextlib.contextmanager
def open_regular(path: str | Path, most: int | None = None) -> Iterator[BufferedReader]:
    """Opens a regular file of at most `most` bytes; None: of any size.

    Raises ReadError naming the file, also for an OSError while the caller reads it.
    """
    if "\0" in str(path):
        raise ReadError(f"{str(path)!r}: expected the path of a file, found a NUL in it")
    try:
        found = os.stat(path)  # before it is opened, which would wait for a pipe's writer
        if not stat.S_ISREG(found.st_mode):
            kind = next((name for is_kind, name in KINDS if is_kind(found.st_mode)), "another")
            raise ReadError(f"{path}: expected a regular file, found {kind}")
        if most is not None and found.st_size > most:
            raise too_large(path, most, found.st_size)
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise ReadError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_bytes(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """Returns what is in a regular file of at most `most` bytes; raises ReadError as above."""
    with open_regular(path, most) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1)  # not most + 1, which would be allocated
        if len(data) > size:  # it grows, or is one of /proc, which have no size
            data += file.read(most + 1 - len(data))
    if len(data) > most:
        raise too_large(path, most)
    return data


def too_large(path: str | Path, most: int, found: int | None = None) -> ReadError:
    """The error of a file of more than `most` bytes; found: how many, None: not known."""
    limit = f"{most / 2**20:g} MiB" if most >= 2**16 else f"{most} bytes"
    size = "more" if found is None else _size(found)
    return ReadError(f"{path}: expected at most {limit}, found {size}")


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count} bytes"


def read_text(path: str | Path, most: int = MOST_BYTES) -> str:
    """Returns a regular file's text. Raises ReadError naming it, and the line that is no UTF-8."""
    return decoded(read_bytes(path, most), path)


def decoded(data: bytes, path: str | Path) -> str:
    """Returns the text of a file's bytes. Raises ReadError as `read_text`."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"found the byte {data[error.start]:#04x}"
        raise ReadError(f"{path}, line {line}: expected text in UTF-8, {found}") from None


def read_json(path: str | Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises ValueError naming the file, and the line if there is one, for what is no such object, has
    a key twice, a number that JSON does not know (NaN) or more than `MOST_LEVELS` levels.
    """
    text = read_text(path, most)
    if _is_deep(text.encode()):
        raise ValueError(f"{path}: expected at most {MOST_LEVELS} levels of nesting, found more")
    try:
        value = json.loads(text, object_pairs_hook=_each_key_once, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: expected JSON, found {error.msg}") from None
    except ValueError as error:  # of the hooks, or a number of thousands of digits
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        found = "null" if value is None else type(value).__name__
        raise ValueError(f"{path}: expected a JSON object, found {found}")
    return value


def _is_deep(text: bytes) -> bool:
    """Whether more than `MOST_LEVELS` brackets are open at once, found without recursion."""
    brackets = STRING.sub(b"", text).translate(bytes.maketrans(b"{}", b"[]"), NO_BRACKETS)
    for _ in range(MOST_LEVELS):  # the innermost level goes each time
        brackets = brackets.replace(b"[]", b"")
    # A few that never close are left to the parser, which names the line.
    return b"[]" in brackets or brackets.count(b"[") > MOST_LEVELS


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"expected each key once, found {twice[:80]!r} twice")
    return values


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"expected JSON, which has no {constant}")
