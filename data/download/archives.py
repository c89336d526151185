"""Archives that are unpacked without trusting them: nothing leaves the folder, sizes are bounded.

Members are written to a hidden folder `.part-ARCHIVE` first and moved into place when all came
whole. Beside them stays the marker `.ARCHIVE.extracted`: which files came into which folder.
"""

import contextlib
import json
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from loguru import logger

from utils.download import alone_in, reporter
from utils.files import naming, write_text

MAX_DEPTH = 32  # folders in folders: removing them again is recursive
LOCAL_HEADER = 30  # bytes before the name, at least, of what a zip holds before each file
ENCRYPTED = 1  # of a zip member's flags


class ArchiveError(ValueError):
    """An archive is broken, holds what it must not, or cannot be unpacked here."""


@dataclass(frozen=True)
class _Member:
    """What stands in an archive.

    size: declared bytes. refused: why it may not come out, if so. extract: writes a file below a
    folder, with the rights of a new one and no more bytes than declared.
    """

    name: str
    size: int
    is_folder: bool
    refused: str
    extract: Callable[[Path], object]


def extract(archive: Path, folder: Path, *, max_bytes: int, max_files: int) -> None:
    """Unpacks a .tar or .zip below `folder`, unless its marker says that this was done.

    Only plain files and folders come out, with the rights that new files get here. `max_bytes`
    bounds what the files take together, `max_files` the number of files and folders. A file that
    is there already is replaced by one of its size, by no other. Raises ArchiveError, and has
    changed nothing then, unless the disk fails while files are moved into place.
    """
    try:
        with alone_in(folder):
            if not extracted(archive.name, folder):
                _extract(archive, folder, max_bytes, max_files)
    except OSError as error:
        raise ArchiveError(f"{archive}: cannot be unpacked to {folder} ({error})") from error


def extracted(name: str, folder: Path) -> bool:
    """Whether an archive of this name was unpacked below `folder` and no file has gone since."""
    try:
        names = json.loads(_marker(name, folder).read_text(encoding="utf-8"))
        return all(set(own) <= set(os.listdir(folder / sub)) for sub, own in names.items())
    except (OSError, ValueError, AttributeError, TypeError):  # no marker, or not one of ours
        return False


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raises ArchiveError if fewer than `needed` bytes are free on the disk of `folder`."""
    free = shutil.disk_usage(next(f for f in (folder, *folder.parents) if f.exists())).free
    if free < needed:
        raise ArchiveError(
            f"{folder}: {purpose} needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        )


def _extract(archive: Path, folder: Path, max_bytes: int, max_files: int) -> None:
    part = folder / f".part-{archive.name}"
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    try:
        size = _declared_size(archive)
        require_space(folder, size, f"unpacking {archive.name}")
        with naming(folder, part):
            part.mkdir()
            with reporter(archive.name) as report:
                names = _unpack(
                    archive, part, max_bytes, max_files, lambda done: report(done, size)
                )
            _check_clashes(archive, part, folder)
            _move(part, folder)
        write_text(_marker(archive.name, folder), json.dumps(names))
    finally:
        shutil.rmtree(part, ignore_errors=True)
    logger.info("{}: {} files unpacked to {}", archive.name, sum(map(len, names.values())), folder)


def _unpack(
    archive: Path, part: Path, max_bytes: int, max_files: int, report: Callable[[int], None]
) -> dict[str, list[str]]:
    """Writes all members below `part`; returns {folder: names of the files directly in it}."""
    names: dict[str, list[str]] = {}
    total = 0
    for number, member in enumerate(_members(archive), 1):
        where = f"{archive}: {member.name!r}"
        path = part.joinpath(*_checked_parts(member, where))
        total += member.size
        if number > max_files:
            raise ArchiveError(f"{where}: expected {max_files} files and folders at most")
        if total > max_bytes:
            raise ArchiveError(f"{where}: expected {max_bytes} bytes at most, now {total}")
        if member.is_folder:
            path.mkdir(parents=True, exist_ok=True)
            continue
        if path.exists():
            raise ArchiveError(f"{where}: is in the archive twice")
        with _broken(where), naming(path, path):
            member.extract(part)
        if (written := path.stat().st_size) != member.size:
            raise ArchiveError(f"{where}: expected {member.size} bytes, found {written}")
        names.setdefault(path.parent.relative_to(part).as_posix(), []).append(path.name)
        report(total)
    return names


# ------------------------------------------------------------------------------------------------
# Members
# ------------------------------------------------------------------------------------------------


def _checked_parts(member: _Member, where: str) -> tuple[str, ...]:
    """The member's path below the archive's root, in parts. Raises ArchiveError."""
    path = PurePosixPath(member.name)
    if (
        path.is_absolute()
        or ".." in path.parts
        or (not path.parts and not member.is_folder)
        or len(path.parts) > MAX_DEPTH
        or re.search(r"[\\\0]|(^|/)[A-Za-z]:", member.name)
    ):
        raise ArchiveError(f"{where}: expected a path that stays in the folder")
    if member.refused:
        raise ArchiveError(f"{where}: {member.refused}")
    if member.size < 0:
        raise ArchiveError(f"{where}: expected a size of 0 or more, found {member.size}")
    return path.parts


def _members(archive: Path) -> Iterator[_Member]:
    with _broken(str(archive)):
        if archive.suffix.lower() == ".tar":
            yield from _tar_members(archive)
        else:
            yield from _zip_members(archive)


def _declared_size(archive: Path) -> int:
    """Bytes that its files take by the archive's own account."""
    if archive.suffix.lower() == ".tar":
        return archive.stat().st_size
    if archive.suffix.lower() != ".zip":
        raise ArchiveError(f"{archive}: expected a .tar or .zip")
    with _broken(str(archive)), zipfile.ZipFile(archive) as file:
        return sum(info.file_size for info in file.infolist())


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, "r:") as file:
        # It refuses less than is refused here; before Python 3.11.4 there is none.
        file.extraction_filter = getattr(tarfile, "data_filter", None)
        for info in file:
            refused = ""
            if info.issym() or info.islnk():
                refused = "expected a file or folder, found a link"
            elif not (info.isreg() or info.isdir()) or info.issparse():
                refused = f"expected a file or folder, found type {info.type!r}"
            writer = partial(file.extract, info, set_attrs=False)
            yield _Member(info.name, info.size, info.isdir(), refused, writer)
        # A header that cannot be read passes for the end, which is zeros or the file's own.
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"expected a header or the end at byte {file.offset}")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        _check_overlaps(file)
        for info in file.infolist():
            refused = ""
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                refused = "expected a file or folder, found a link or device"
            elif info.flag_bits & ENCRYPTED:
                refused = "expected no encryption"
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                refused = f"expected stored or deflated, found method {info.compress_type}"
            name = info.orig_filename  # `filename` ends at the first NUL
            writer = partial(file.extract, info)
            yield _Member(name, info.file_size, name.endswith("/"), refused, writer)


def _check_overlaps(file: zipfile.ZipFile) -> None:
    """Refuses members that share bytes: a small file could unpack to a huge one."""
    end, before = 0, ""
    for info in sorted(file.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise zipfile.BadZipFile(f"{before!r} and {info.filename!r} overlap")
        name = len(info.orig_filename)  # in bytes, or fewer
        end = info.header_offset + LOCAL_HEADER + name + info.compress_size
        before = info.filename


@contextlib.contextmanager
def _broken(where: str) -> Iterator[None]:
    """Tells what the readers raise on broken or cut archives as ArchiveError."""
    try:
        yield
    except (ArchiveError, OSError):
        raise
    except Exception as error:  # broken bytes make the standard library raise nearly anything
        raise ArchiveError(f"{where}: broken or cut ({error})") from error


# ------------------------------------------------------------------------------------------------
# Files
# ------------------------------------------------------------------------------------------------


def _check_clashes(archive: Path, part: Path, folder: Path) -> None:
    """Refuses to replace a file by one of another size, or a file by a folder."""
    for path in sorted(part.rglob("*")):
        target = folder / path.relative_to(part)
        if not os.path.lexists(target) or (path.is_dir() and target.is_dir()):
            continue
        if not (path.is_file() and target.is_file()):
            raise ArchiveError(f"{archive}: {target} is there and is of another kind")
        new, old = path.stat().st_size, target.stat().st_size
        if new != old:
            raise ArchiveError(
                f"{archive}: {target} is there with {old} bytes, the archive's has {new}"
            )


def _move(source: Path, target: Path) -> None:
    """Moves a file or folder into place; what a folder there already holds stays."""
    if source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            _move(child, target / child.name)
    else:
        os.replace(source, target)


def _marker(name: str, folder: Path) -> Path:
    return folder / f".{name}.extracted"
