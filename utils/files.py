"""Files and folders that are whole or not there at all, and what is said where a disk refuses."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

IN_THE_WAY = "a file is in the place of a folder: remove it or choose another folder"
# What to do about it, by the error's number; {folder} is where the file was to be.
ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there or raise the quota",
    errno.EACCES: "make {folder} writable or choose another folder",
    errno.EPERM: "make {folder} writable or choose another folder",
    errno.EROFS: "choose a folder on a disk that is not read-only",
    errno.ENOTDIR: IN_THE_WAY,
    errno.EEXIST: IN_THE_WAY,
    errno.EISDIR: "a folder is in the place of the file: remove it or choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
}
FULL = (errno.ENOSPC, errno.EDQUOT)
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)  # what systems say of a rename onto a filled folder


def cache_folder() -> Path:
    """Where what can be made again goes: $RETINANET_CACHE, else a folder in the user's cache."""
    if chosen := os.environ.get("RETINANET_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinanet-tensorflow"


class WriteError(OSError):
    """A file or folder that could not be written, in one line: why, what is there, what to do.

    number: errno, or None where the library that wrote it gives none. reason: in words.
    path: the file by the name under which the user knows it.
    """

    def __init__(self, number: int | None, reason: str, path: str | Path):
        super().__init__(number, reason, str(path))
        self._text = "; ".join(filter(None, (f"{path}: {reason}", *_remarks(number, Path(path)))))

    def __str__(self) -> str:
        return self._text

    def also(self, remark: str) -> "WriteError":
        """The same error with one more remark at the end of its line."""
        self._text += f"; {remark}"
        return self


def _remarks(number: int | None, path: Path) -> list[str]:
    """Free space, where that may be the reason; whether an older file is there; what to do."""
    path = path.absolute()
    folder = next(folder for folder in path.parents if os.path.isdir(folder))
    parts = []
    if number is None or number in FULL:
        parts.append(f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free in {folder}")
    advice = ADVICE.get(number or 0, "")
    if os.path.isfile(path) and advice != IN_THE_WAY:
        parts.append("the older file is still whole")
    return [*parts, advice.format(folder=folder)]


def write_error(path: str | Path, error: Exception | str) -> WriteError:
    """The WriteError of `path` for another exception, or for a reason in words.

    Libraries in C++ give no number, but the text that belongs to it.
    """
    number: int | None
    if isinstance(error, OSError) and error.errno:
        reason, number = error.strerror or os.strerror(error.errno), error.errno
    else:
        reason = str(error).strip().partition("\n")[0]
        number = next((n for n in errno.errorcode if os.strerror(n) in reason), None)
        reason = os.strerror(number) if number else reason
    if isinstance(error, str | WriteError):
        return WriteError(number, reason, path)
    return WriteError(number, f"cannot be written: {reason}", path)


@contextlib.contextmanager
def naming(path: str | Path, part: Path) -> Iterator[None]:
    """Makes any OSError of writing to `part` (a file or folder) a WriteError of `path`.

    Errors of a full disk name no file. An error that names a file elsewhere is left as it is.
    """
    try:
        yield
    except OSError as error:
        names = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str)]
        inside = [name for name in names if name.is_relative_to(part)]
        is_its_own = any(part.is_relative_to(name) or name == Path(path) for name in names)
        if inside or (not isinstance(error, WriteError) and (is_its_own or not names)):
            place = Path(path) / inside[0].relative_to(part) if inside else path
            raise write_error(place, error) from error
        raise


def _beside(path: Path, kind: str = "part") -> Path:
    """A hidden name of this call alone; it ends as `path` does and is no longer than allowed."""
    return path.with_name(f".{kind}-{secrets.token_hex(4)}-{path.name[-60:]}")


@contextlib.contextmanager
def whole_file(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """Yields a path beside `path` to write to; it takes the place of `path` if all goes well.

    Its name ends as that of `path` and is of this call alone: of several writers the last to end
    wins. Makes the folder. durable: waits until the disk has it, so that it survives a power cut.
    After an exception nothing is left; after a kill, a file named .part-*. Raises WriteError for
    any OSError of writing it.
    """
    path = Path(path)
    part = _beside(path)
    try:
        with naming(path, part):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            if durable:
                _sync(part)
            os.replace(part, path)
    finally:
        # It must not hide the error that says what happened; what is left is hidden, too.
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    if durable:
        # Not every file system can sync a folder; the file is whole either way.
        with contextlib.suppress(OSError):
            _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole_folder(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """Yields a folder beside `path` to fill; it takes the place of `path` if all goes well.

    path: new, or an empty folder; with `replace` also a filled one, which is removed once the new
    one is in its place. Else as `whole_file`; an error names the file below `path`.
    Replacing takes two renames, and between them nothing is at `path`. After a kill at that moment
    both folders are whole beside it, the older one as `.old-*` and the new one as `.part-*`, and
    the user has to rename one of them. A kill later may leave an `.old-*`, which may be deleted.
    """
    target = Path(path).resolve()  # not to replace a link
    part = _beside(target)
    try:
        with naming(path, part):
            part.mkdir(parents=True)
            yield part
            if replace:
                _replace_folder(part, target, path)
            else:
                os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace_folder(part: Path, target: Path, path: str | Path) -> None:
    """Renames `part` to `target`, the resolved `path`, and removes the folder that was there.

    Moves the older folder back if that fails or is interrupted. Raises WriteError, which says
    where the older folder is if it cannot be moved back.
    """
    old = _beside(target, "old")
    try:
        if target.is_dir():
            # Another writer may have moved it aside since.
            with naming(path, target), contextlib.suppress(FileNotFoundError):
                os.replace(target, old)
        os.replace(part, target)
    except BaseException as error:  # Ctrl-C, too
        if not isinstance(error, OSError) or error.errno not in OCCUPIED:
            _move_back(old, target, path)
            raise
        # Another writer put a whole folder there between the two renames: that one goes, too.
        shutil.rmtree(old, ignore_errors=True)
        _replace_folder(part, target, path)
    else:
        shutil.rmtree(old, ignore_errors=True)


def _move_back(old: Path, target: Path, path: str | Path) -> None:
    if not old.exists():  # the rename that failed is the one that moves it aside
        return
    try:
        os.replace(old, target)
    except OSError as error:
        raise write_error(path, error).also(f"the older folder is now {old}") from error


def write_bytes(path: str | Path, data: bytes, durable: bool = False) -> None:
    """Writes a file as `whole_file` does."""
    with whole_file(path, durable) as part:
        part.write_bytes(data)


def write_text(path: str | Path, text: str, durable: bool = False) -> None:
    """Writes a text file, UTF-8."""
    write_bytes(path, text.encode("utf-8"), durable)


@contextlib.contextmanager
def spare(what: str) -> Iterator[None]:
    """Inside `with`, a file that cannot be written is a warning: a run is worth more than that.

    what: what is lost, for the warning.
    """
    try:
        yield
    except WriteError as error:
        logger.warning("{}; goes on without {}", error, what)
