"""The files of a TFRecord split: found by name, complete, unpacked where they are compressed."""

import hashlib
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from data.files import open_data
from data.formats.tfrecord_index import HEADER, header_problem, masked_sum
from data.records import DatasetError
from data.storage import address, is_file, join, matching, names_in_folder, stamp
from utils.files import cache_folder, whole_file

BLOCK = 2**20  # bytes unpacked at a time
RESERVE = 2**28  # bytes that unpacking leaves free on the disk
SUFFIXES = (".tfrecord", ".tfrecords", ".record", ".records", ".tfrec")

_SUFFIX = "|".join(map(re.escape, sorted(SUFFIXES, reverse=True)))
_NAME = re.compile(
    rf"([^.].*?)({_SUFFIX})?(?:-(\d{{3,6}})-of-(\d{{3,6}})({_SUFFIX})?)?(\.(?:gz|gzip|zlib|z))?",
    re.IGNORECASE,
)
_AUTOMATIC = 32 + zlib.MAX_WBITS  # gzip or zlib, as the first bytes say


class _File(NamedTuple):
    """name: of a file of records. base: less suffixes and number. number, total: of a shard."""

    name: str
    base: str
    number: int | None
    total: int | None


def find_shards(root: str | Path, split: str) -> list[str]:
    """The addresses of a split's files, in order.

    split: a name, whose file is <split>.tfrecord, .tfrecords, .record, .records or .tfrec, or of
    which shards <split>-00000-of-00010 are there, with such a suffix before the number or behind,
    each perhaps with .gz; else all such files in the folder <split>; else the only ones whose name
    ends in _<split> or -<split>. Or a path below root, or a pattern of `glob`.
    Raises DatasetError naming what is there, shards that are missing, and files of which only one
    can be meant.
    """
    root = address(root)
    if any(sign in split for sign in "*?["):
        return _matching(root, split)
    if is_file(join(root, split)):
        return [join(root, split)]
    inner, _, name = split.rpartition("/")
    folder = join(root, inner) if inner else root
    groups = _groups(folder)
    if name not in groups:
        inside = _groups(join(folder, name))
        if inside:
            folder = join(folder, name)
            return [join(folder, n) for group in inside.values() for n in _whole(folder, group)]
        ends = [base for base in groups if re.search(rf"[_.-]{re.escape(name)}$", base)]
        if len(ends) != 1:
            raise DatasetError(_not_found(root, folder, name, groups))
        name = ends[0]
    return [join(folder, n) for n in _whole(folder, groups[name])]


def record_splits(root: str | Path) -> list[str]:
    """The splits that files of records below a folder have, by their names alone.

    A folder that TFDS has made is passed over, as are the files TensorBoard reads.
    """
    root = address(root)
    found = list(_groups(root))
    for folder in names_in_folder(root):
        inside = _groups(join(root, folder)) if not folder.startswith(".") else {}
        found += [folder] if len(inside) == 1 else [f"{folder}/{base}" for base in inside]
    return list(dict.fromkeys(found))


def _groups(folder: str) -> dict[str, list[_File]]:
    """{base: files} of a folder."""
    groups: dict[str, list[_File]] = {}
    names = names_in_folder(folder)
    if {"dataset_info.json", "features.json"} & set(names):
        return {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match and (match[2] or match[3]):
            number, total = (int(text) if text else None for text in match.group(3, 4))
            groups.setdefault(match[1], []).append(_File(name, match[1], number, total))
    return groups


def _matching(root: str, pattern: str) -> list[str]:
    found = matching(root, pattern)
    if not found:
        raise DatasetError(f"{root}: expected files of the pattern {pattern}, found none")
    if "[" not in pattern:  # which chooses some on purpose
        by_folder: dict[str, list[str]] = {}
        for path in found:
            by_folder.setdefault(os.path.dirname(path), []).append(os.path.basename(path))
        for folder, names in by_folder.items():
            for group in _groups(folder).values():
                chosen = [file for file in group if file.name in names and file.total]
                if chosen:
                    _whole(folder, chosen)
    return found


def _whole(folder: str, files: Sequence[_File]) -> list[str]:
    """The names of one file, or of all shards of a set. Raises DatasetError for anything else."""
    first = files[0]
    if len(files) == 1 and first.total is None:
        return [first.name]
    names = [file.name for file in files]
    if len({file.total for file in files}) > 1 or first.total is None:
        expected = f"expected one file or one set of shards of {first.base!r}"
        raise DatasetError(f"{folder}: {expected}, found {_shown(names)}")
    by_number: dict[int | None, str] = {}
    for file in files:
        other = by_number.setdefault(file.number, file.name)
        if other != file.name:
            raise DatasetError(f"{folder}: expected one of {other} and {file.name}, found both")
    missing = [number for number in range(first.total) if number not in by_number]
    if missing or len(by_number) > first.total:
        expected = f"expected {first.total} shards of {first.base!r}, found {len(by_number)}"
        which = ", ".join(f"{number:05d}" for number in missing[:10])
        more = " ..." if len(missing) > 10 else ""
        raise DatasetError(f"{folder}: {expected}; missing: {which or 'none'}{more}")
    return [by_number[number] for number in range(first.total)]


def _not_found(root: str, folder: str, name: str, groups: dict[str, list[_File]]) -> str:
    expected = f"{name}.tfrecord, {name}.record, {name}-?????-of-????? or a folder {name} of them"
    names = [file.name for group in groups.values() for file in group]
    for inner in names_in_folder(root):
        names += [f"{inner}/{f.name}" for fs in _groups(join(root, inner)).values() for f in fs]
    return f"{folder}: expected {expected}, found {_shown(names) if names else 'no such file'}"


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


# ------------------------------------------------------------------------------------------------
# Contents
# ------------------------------------------------------------------------------------------------


def first_record(path: str) -> bytes:
    """The data of a file's first record, its sum unchecked; b"" of an empty file.

    Raises DatasetError where the file does not begin with a record.
    """
    with open_data(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        begin = file.read(HEADER)
        if not _is_packed(begin):
            length = _length(begin, size, path)
            return file.read(length)
        file.seek(0)
        data = bytearray()
        for block in _inflated(file, path):
            data += block
            if len(data) >= HEADER and len(data) >= HEADER + _length(data[:HEADER], 2**63, path):
                break
        return bytes(data[HEADER : HEADER + _length(data[:HEADER], 2**63, path)])


def _length(header: bytes | bytearray, size: int, path: str) -> int:
    if not header:
        return 0
    problem = header_problem(header, size)
    if problem:
        raise DatasetError(f"{path}, record 0, byte 0: {problem}")
    return int.from_bytes(header[:8], "little")


def _is_packed(header: bytes) -> bool:
    """Whether a file that begins so is of gzip or zlib, and no record of such a length."""
    if len(header) == HEADER and masked_sum(header[:8]) == int.from_bytes(header[8:], "little"):
        return False
    is_zlib = header[:1] == b"\x78" and int.from_bytes(header[:2], "big") % 31 == 0
    return is_zlib or header[:3] == b"\x1f\x8b\x08"


def unpacked(shards: Sequence[str], name: str) -> list[str]:
    """The shards, in place of compressed ones their contents, unpacked into the cache once.

    An offset in a compressed file leads nowhere. name: of the split, for the folder and the diary.
    Raises DatasetError for a damaged file and for too little room, WriteError as `whole_file`.
    """
    packed = {shard: _ending(shard) for shard in shards}
    if not any(ending is not None for ending in packed.values()):
        return list(shards)
    stamps = {shard: stamp(shard) for shard in shards}
    digest = hashlib.blake2b(repr(stamps).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    name_there = re.sub(r"[^\w.-]", "_", name)[:60]
    folder = cache_folder() / "records" / f"{name_there}-{digest}"
    places = {
        shard: folder / f"{number:05d}-{os.path.splitext(os.path.basename(shard))[0]}"
        for number, shard in enumerate(shards)
        if packed[shard] is not None
    }
    missing = [shard for shard, place in places.items() if not place.is_file()]
    if missing:
        size, needed = sum(stamps[s].size for s in missing), sum(packed[s] or 0 for s in missing)
        about = f", {needed / 1e6:,.0f} MB unpacked" if all(packed[s] for s in missing) else ""
        said = f"{len(missing)} compressed files, {size / 1e6:,.0f} MB{about}"
        logger.info("{}: unpacking {}, once, into {}", name, said, folder)
        folder.mkdir(parents=True, exist_ok=True)
        _require_room(folder, max(needed, size))
        for shard in missing:
            _unpack(shard, places[shard])
    return [str(places.get(shard, shard)) for shard in shards]


def _ending(path: str) -> int | None:
    """Of a compressed file the bytes it says it unpacks to, 0 where it says nothing; else None."""
    with open_data(path) as file:
        header = file.read(HEADER)
        if not _is_packed(header):
            return None
        if header[:1] == b"\x78":
            return 0
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")


def _unpack(shard: str, path: Path) -> None:
    with open_data(shard) as file, whole_file(path) as part, open(part, "wb") as target:
        for number, block in enumerate(_inflated(file, shard)):
            if number % 64 == 0:
                _require_room(path.parent, 0)
            target.write(block)


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + RESERVE:
        message = f"expected {(needed + RESERVE) / 1e6:,.0f} MB free to unpack, found "
        message += f"{free / 1e6:,.0f}; set RETINANET_CACHE to a folder elsewhere"
        raise DatasetError(f"{folder}: {message}")


def _inflated(file: BufferedReader, path: str) -> Iterator[bytes]:
    """Yields what a gzip or zlib file holds, in blocks; gzip's files may follow each other."""
    inflate, is_begun = zlib.decompressobj(_AUTOMATIC), False
    data = file.read(BLOCK)
    while data:
        try:
            block = inflate.decompress(data, BLOCK)
        except zlib.error as error:
            where = f"{path}, near byte {file.tell() - len(data)}"
            raise DatasetError(f"{where}: expected gzip or zlib data, found {error}") from error
        is_begun = True
        if block:
            yield block
        data = inflate.unconsumed_tail
        if inflate.eof:
            data = (inflate.unused_data or file.read(BLOCK)).lstrip(b"\0")
            if data:
                inflate = zlib.decompressobj(_AUTOMATIC)
                is_begun = False
            continue
        data = data or file.read(BLOCK)
    if is_begun and not inflate.eof and (block := inflate.flush()):
        yield block
    if is_begun and not inflate.eof:
        raise DatasetError(
            f"{path}: expected the end of the compressed data, found none: cut short"
        )
