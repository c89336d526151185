"""Opens the files of a dataset: regular ones of a bounded size, anything else is a DatasetError.

Every reader of `data` goes through here, so that a pipe, a device, an endless or an absent file is
refused with the same message everywhere. An image inside a larger file (`data.slices`) and a file
in a store (`data.storage`) are opened as if they were files of this machine.
"""

import contextlib
import io
import mmap
import os
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from data.records import DatasetError
from data.slices import Slice, find_slice
from data.storage import RemoteFile, address, is_remote
from utils.safe_reading import ReadError, decoded, open_regular, read_bytes, too_large


@contextlib.contextmanager
def open_data(
    path: str | Path, most: int | None = None, kind: str = "unreadable"
) -> Iterator[BufferedReader]:
    """Opens a regular file of at most `most` bytes for reading; None: of any size.

    kind: of the DatasetError, raised if the file is absent, of another kind, larger, or fails while
    the caller reads it.
    """
    part = find_slice(path)
    with _refused_as(kind):
        if part is None:
            with _open_whole(path, most) as file:
                yield file
            return
        with _open_around(part, path, most) as whole:
            yield BufferedReader(_Window(whole, part))


def read_data(path: str | Path, most: int, kind: str = "unreadable") -> bytes:
    """Returns what is in a regular file of at most `most` bytes; DatasetError as `open_data`."""
    part = find_slice(path)
    with _refused_as(kind):
        if part is not None:
            with _open_around(part, path, most) as whole:
                whole.seek(part.offset)
                return whole.read(part.length)
        if is_remote(address(path)):
            with _open_whole(path, most) as file:
                return file.read()
        return read_bytes(path, most)


def read_data_text(path: str | Path, most: int, kind: str = "unreadable") -> str:
    """Returns a file's text; DatasetError as `open_data`, and for a line that is not UTF-8."""
    data = read_data(path, most, kind)
    with _refused_as(kind):
        return decoded(data, path)


@contextlib.contextmanager
def map_data(path: str | Path, most: int, kind: str = "unreadable") -> Iterator[bytes | mmap.mmap]:
    """The bytes of a file for who looks at few of them: mapped, where it lies on this machine.

    Errors as `open_data`.
    """
    if find_slice(path) is not None or is_remote(address(path)):
        yield read_data(path, most, kind)
        return
    with open_data(path, most, kind) as file:
        if not file.seek(0, os.SEEK_END):  # mmap refuses an empty file
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


@contextlib.contextmanager
def _open_whole(path: str | Path, most: int | None) -> Iterator[BufferedReader]:
    place = address(path)
    if not is_remote(place):
        with open_regular(path, most) as file:
            yield file
        return
    try:
        with RemoteFile(place) as raw:
            if most is not None and raw.size > most:
                raise too_large(place, most, raw.size)
            yield BufferedReader(raw)
    except OSError as error:
        raise ReadError(f"{place}: cannot be read ({error.strerror or error})") from error


@contextlib.contextmanager
def _open_around(part: Slice, path: str | Path, most: int | None) -> Iterator[BufferedReader]:
    """Opens the file that a slice, called `path`, lies in."""
    if most is not None and part.length > most:
        raise too_large(path, most, part.length)
    with _open_whole(part.file, None) as file:
        found = file.seek(0, os.SEEK_END) - part.offset
        if found < part.length:
            expected = f"expected {part.length} bytes from byte {part.offset} on"
            raise ReadError(
                f"{part.file}: {expected} ({part.name}), found {max(found, 0)}: "
                "the file has changed since it was indexed"
            )
        yield file


class _Window(io.RawIOBase):
    """The bytes of a slice as a file of their own."""

    def __init__(self, file: BufferedReader, part: Slice):
        super().__init__()
        self._file, self._part, self._position = file, part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        length = self._part.length
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: length}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self._part.length - self._position), 0)
        self._file.seek(self._part.offset + self._position)
        count = self._file.readinto(memoryview(buffer)[:count])
        self._position += count
        return count


@contextlib.contextmanager
def _refused_as(kind: str) -> Iterator[None]:
    try:
        yield
    except (ReadError, UnicodeEncodeError) as error:  # of a path that no file can have
        raise DatasetError(str(error), kind) from error
