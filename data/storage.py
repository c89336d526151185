"""Folders and files by address: on this machine, or in a store that TensorFlow opens, as gs://.

TensorFlow is imported where an address needs it, and only there.
"""

import errno
import glob
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from data.records import DatasetError

Result = TypeVar("Result")

_STORE = re.compile(r"([A-Za-z][\w+.-]+):/+(?=[^/])")


class Stamp(NamedTuple):
    """What changes with a file: its size in bytes, its time of change in ns."""

    size: int
    changed: int


def address(path: str | Path) -> str:
    """Returns a path as text; a store's address with both slashes, of which `Path` leaves one."""
    text = os.fspath(path)
    match = _STORE.match(text)
    if match is None:
        return text
    rest = text[match.end() :]
    return f"/{rest}" if match[1].lower() == "file" else f"{match[1]}://{rest}"


def is_remote(path: str) -> bool:
    """Whether an address is a store's."""
    return bool(_STORE.match(path))


def join(folder: str, *names: str) -> str:
    return "/".join([folder.rstrip("/"), *names])


def names_in_folder(folder: str) -> list[str]:
    """Names of files and folders, in order; none where there is no such folder."""
    if not is_remote(folder):
        try:
            return sorted(os.listdir(folder))
        except (OSError, ValueError):  # ValueError: a name that no folder can have
            return []
    if not is_folder(folder):
        return []
    return sorted(name.rstrip("/") for name in ask(folder, lambda g: g.listdir(folder)))


def is_file(path: str) -> bool:
    if is_remote(path):
        return ask(path, lambda g: g.exists(path) and not g.isdir(path))
    return os.path.isfile(path)


def is_folder(path: str) -> bool:
    return ask(path, lambda g: g.isdir(path)) if is_remote(path) else os.path.isdir(path)


def matching(folder: str, pattern: str) -> list[str]:
    """Addresses of the files that a pattern of `glob` below a folder stands for, in order."""
    if is_remote(folder):
        found = ask(folder, lambda g: g.glob(join(folder, pattern)))
    else:
        found = glob.glob(os.path.join(glob.escape(folder), pattern), recursive=True)
    return sorted(path for path in found if is_file(path))


def stamp(path: str) -> Stamp:
    """Raises DatasetError where the file is not there."""
    if is_remote(path):
        found = ask(path, lambda g: g.stat(path))
        return Stamp(int(found.length), int(found.mtime_nsec))
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path}: cannot be read ({reason})") from error
    return Stamp(status.st_size, status.st_mtime_ns)


def ask(path: str, what: Callable[[Any], Result]) -> Result:
    """Calls `what` with tf.io.gfile. Raises DatasetError, naming `path`, where the store refuses.

    So it does for a scheme that TensorFlow does not know, by its name.
    """
    import tensorflow as tf

    scheme = path.split("://")[0]
    known = sorted(filter(None, tf.io.gfile.get_registered_schemes()))
    if scheme not in known:
        expected = f"a path of this machine or one of {', '.join(known)}, which TensorFlow opens"
        message = f"expected {expected}, found {scheme}://: copy the files or mount the store"
        raise DatasetError(f"{path}: {message}")
    try:
        return what(tf.io.gfile)
    except tf.errors.OpError as error:
        reason = error.message or type(error).__name__
        raise DatasetError(f"{path}: cannot be read ({reason[:200]})") from error


class RemoteFile(io.RawIOBase):
    """A file in a store, for reading. Raises OSError where the store fails."""

    def __init__(self, path: str):
        super().__init__()
        self.size = stamp(path).size
        self._file = ask(path, lambda g: g.GFile(path, "rb"))
        self._path, self._position = path, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self.size - self._position), 0)

        def read(_: Any) -> bytes:
            self._file.seek(self._position)
            return self._file.read(count)

        try:
            data = ask(self._path, read) if count else b""
        except DatasetError as error:
            raise OSError(errno.EIO, str(error)) from error
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
