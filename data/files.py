"""Opens the files of a dataset: regular ones of a bounded size, anything else is a DatasetError.

Every reader of `data` goes through here, so that a pipe, a device, an endless or an absent file is
refused with the same message everywhere.
"""

import contextlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from data.records import DatasetError
from utils.safe_reading import ReadError, open_regular, read_bytes, read_text


@contextlib.contextmanager
def open_data(
    path: str | Path, most: int | None = None, kind: str = "unreadable"
) -> Iterator[BufferedReader]:
    """Opens a regular file of at most `most` bytes for reading; None: of any size.

    kind: of the DatasetError, raised if the file is absent, of another kind, larger, or fails while
    the caller reads it.
    """
    with _refused_as(kind), open_regular(path, most) as file:
        yield file


def read_data(path: str | Path, most: int, kind: str = "unreadable") -> bytes:
    """Returns what is in a regular file of at most `most` bytes; DatasetError as `open_data`."""
    with _refused_as(kind):
        return read_bytes(path, most)


def read_data_text(path: str | Path, most: int, kind: str = "unreadable") -> str:
    """Returns a file's text; DatasetError as `open_data`, and for a line that is not UTF-8."""
    with _refused_as(kind):
        return read_text(path, most)


@contextlib.contextmanager
def _refused_as(kind: str) -> Iterator[None]:
    try:
        yield
    except (ReadError, UnicodeEncodeError) as error:  # of a path that no file can have
        raise DatasetError(str(error), kind) from error
