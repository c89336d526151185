"""An index of records: where in a TFRecord each image lies, and what stands beside it.

It is made once, by reading all shards (TensorFlow does that, in C++, and checks their sums), and
kept beside them, or in the cache folder where that cannot be written or is a store. After that a
dataset begins without a look at the shards, and images are read at their offset.
A record is 8 bytes of length, 4 of its sum, the data, 4 of their sum; the data are a tf.Example.
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
Letters: M records, N values of a key in all records.
"""

import hashlib
import os
import re
import stat
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import msgspec
import numpy as np
from loguru import logger

from data.files import open_data, read_data
from data.formats.text_files import quoted
from data.images.decode import MAX_BYTES, ImageHeader, parse_header
from data.records import DatasetError
from data.storage import Stamp, is_remote, join, stamp
from utils.files import cache_folder, spare, write_bytes

VERSION = 1  # raise it when an index of the same shards no longer holds the same
MAX_RECORD = MAX_BYTES + 2**26  # bytes
MAX_INDEX = 2**32  # bytes; of 100,000 images with ten objects each some 2**26
HEADER, FOOTER = 12, 4  # bytes around a record's data
DAMAGED = "damaged record"  # a kind of defect
Kind = Literal["float", "int", "bytes"]  # of the values of a key
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_CODES: dict[str, Literal["f", "q", "i"]] = {"float": "f", "int": "q", "bytes": "i"}


@dataclass(frozen=True)
class Column:
    """The values of one key in all records.

    values: (N,) float32 or int64; of bytes int32, indices of `table`. row_splits: (M + 1,) int64;
    those of record i are values[row_splits[i]:row_splits[i + 1]], none where it lacks the key.
    """

    values: np.ndarray
    row_splits: np.ndarray
    table: tuple[bytes, ...] = ()

    @property
    def counts(self) -> np.ndarray:
        """(M,) int64: the values of each record."""
        return np.diff(self.row_splits)

    def first(self, default: Any) -> list:
        """The first value of each record, `default` where it has none."""
        starts, has_any = self.row_splits[:-1], self.counts > 0
        found = self.values[starts[has_any]].tolist()
        if self.table:
            found = [self.table[code] for code in found]
        result = [default] * len(starts)
        for place, value in zip(np.flatnonzero(has_any).tolist(), found, strict=True):
            result[place] = value
        return result


@dataclass(frozen=True)
class Index:
    """What the records of some shards hold; those that cannot be read are only in `problems`.

    shards: their addresses. shard: (M,) indices of them; number: (M,) of the record in its shard,
    from 0. offset, length: (M,) of the image's bytes; length 0: there is none.
    headers: (M, 4) width, height, orientation and bits of the image, zeros where its header was
    not understood. columns: by key. keys: those of the first record.
    problems: an error each of records that cannot be read.
    """

    shards: tuple[str, ...]
    shard: np.ndarray
    number: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    headers: np.ndarray
    columns: dict[str, Column]
    keys: tuple[str, ...]
    problems: tuple[DatasetError, ...]

    def __len__(self) -> int:
        return len(self.shard)

    def header(self, record: int) -> ImageHeader | None:
        """Of an image; None where it was not understood."""
        row = self.headers[record].tolist()
        return ImageHeader(*row) if row[0] else None

    def where(self, record: int) -> str:
        """File and number of a record, for messages."""
        return f"{self.shards[self.shard[record]]}, record {self.number[record]}"


class _Values(msgspec.Struct):
    """A `Column` of one shard as bytes: counts int32; table: its entries one behind another."""

    counts: bytes
    values: bytes
    table: list[bytes]


class _Shard(msgspec.Struct):
    """What is kept of one shard; numbers as bytes of int64 and, headers, int32."""

    stamp: Stamp
    keys: list[str]
    number: bytes
    offset: bytes
    length: bytes
    headers: bytes
    columns: dict[str, _Values]


class _File(msgspec.Struct):
    version: int
    shards: dict[str, _Shard]


def read_index(
    shards: Sequence[str],
    image_key: str,
    keys: Mapping[str, Kind],
    *,
    name: str = "records",
    go_on: bool = False,
) -> Index:
    """Returns the index of shards, made where there is none, or for those that have changed.

    shards: addresses of files that are not compressed. image_key: the image's encoded bytes.
    keys: what else is wanted, and of which kind it is; whole numbers do as floats.
    name: of the split, for the file and the diary. go_on: looks behind the first damaged record of
    a shard for whole ones, at 0.1 s a megabyte.
    Raises DatasetError for a file that cannot be read at all. Shards with problems are looked at
    again each time.
    """
    stamps = {shard: stamp(shard) for shard in shards}
    places = _places(shards, image_key, keys, name)
    known = _load(places, stamps, keys)
    missing = [shard for shard in stamps if shard not in known]
    problems: list[DatasetError] = []
    if missing:
        size = sum(stamps[shard].size for shard in missing) / 1e6
        logger.info("{}: indexing {} files, {:,.0f} MB, once", name, len(missing), size)
        start = time.perf_counter()
        made = _index_all(missing, stamps, image_key, keys, go_on)
        for shard, (found, errors) in made.items():
            known[shard] = found
            problems += errors
        whole = {shard: known[shard] for shard in stamps if not made.get(shard, (0, ()))[1]}
        number = sum(len(found.number) // 8 for found, _ in made.values())
        spent = time.perf_counter() - start
        kept = _keep(places, _File(VERSION, whole)) if whole else "nothing kept"
        logger.info("{}: {:,} records indexed in {:.1f} s, {}", name, number, spent, kept)
    return _joined(shards, [known[shard] for shard in shards], keys, problems)


# ------------------------------------------------------------------------------------------------
# The file
# ------------------------------------------------------------------------------------------------


def _places(
    shards: Sequence[str], image_key: str, keys: Mapping[str, Kind], name: str
) -> list[str]:
    """Where the index may be: beside the shards, then in the cache."""
    layout = repr((VERSION, image_key, sorted(keys.items()))).encode()
    name = _file_name(name)
    whole = hashlib.blake2b(layout + "\n".join(shards).encode("utf-8", "surrogateescape"))
    cached = str(cache_folder() / "indexes" / f"{name}-{whole.hexdigest()[:16]}.index")
    if is_remote(shards[0]):
        return [cached]
    # The folder may be moved and renamed: only the files' names count.
    names = "\n".join(map(os.path.basename, shards)).encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(layout + names).hexdigest()[:8]
    name = f".{_file_name(os.path.basename(shards[0]))}-{digest}.index"
    return [join(os.path.dirname(shards[0]) or ".", name), cached]


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text)[:60]


def _load(
    places: Sequence[str], stamps: Mapping[str, Stamp], keys: Mapping[str, Kind]
) -> dict[str, _Shard]:
    """The shards of the first index that is there, those that have not changed since."""
    for place in filter(os.path.isfile, places):
        try:
            file = msgspec.msgpack.decode(read_data(place, MAX_INDEX), type=_File)
        except (DatasetError, msgspec.DecodeError, RecursionError) as error:
            logger.debug("{}: no index, made anew: {}", place, error)
            continue
        names = {os.path.basename(shard): shard for shard in stamps}
        found = {names[key]: kept for key, kept in file.shards.items() if key in names}
        if file.version == VERSION and len(names) == len(stamps):
            return {
                shard: kept
                for shard, kept in found.items()
                if kept.stamp == stamps[shard] and _is_sound(kept, keys)
            }
    return {}


def _is_sound(kept: _Shard, keys: Mapping[str, Kind]) -> bool:
    """Whether the parts of a kept index fit together: files can be cut, and made by anybody."""
    sizes = {len(kept.number), len(kept.offset), len(kept.length), len(kept.headers) // 2}
    num_records = len(kept.number) // 8
    if sizes != {8 * num_records} or len(kept.headers) % 16 or kept.columns.keys() != keys.keys():
        return False
    offset, length = (np.frombuffer(data, np.int64) for data in (kept.offset, kept.length))
    if ((offset < 0) | (length < 0) | (offset > kept.stamp.size - length)).any():
        return False
    if (np.frombuffer(kept.headers, np.int32) < 0).any():
        return False
    for key, column in kept.columns.items():
        item = 4 if keys[key] != "int" else 8
        if len(column.counts) != 4 * num_records or len(column.values) % item:
            return False
        counts = np.frombuffer(column.counts, np.int32)
        if (counts < 0).any() or counts.sum(dtype=np.int64) != len(column.values) // item:
            return False
        if keys[key] == "bytes":
            codes = np.frombuffer(column.values, np.int32)
            if len(codes) and not 0 <= codes.min() <= codes.max() < len(column.table):
                return False
    return True


def _keep(places: Sequence[str], file: _File) -> str:
    """Writes the index to the first place that takes it; says where it is."""
    names = {os.path.basename(shard): kept for shard, kept in file.shards.items()}
    if len(names) < len(file.shards):
        return "not kept: two files have one name"
    data = msgspec.msgpack.encode(_File(file.version, names))
    for place in places[:-1]:
        # What is marked as read-only stays so, though root may write there.
        if os.stat(os.path.dirname(place)).st_mode & _WRITABLE:
            try:
                write_bytes(place, data)
            except OSError as error:
                logger.debug("{}", error)
                continue
            return f"kept as {place}"
    with spare("the index, which is made again next time"):
        write_bytes(places[-1], data)
        return f"kept as {places[-1]}"
    return "not kept"


def _joined(
    shards: Sequence[str],
    parts: Sequence[_Shard],
    keys: Mapping[str, Kind],
    problems: Sequence[DatasetError],
) -> Index:
    def joined(field: str, dtype: type) -> np.ndarray:
        return np.frombuffer(b"".join(getattr(part, field) for part in parts), dtype)

    counts = [len(part.number) // 8 for part in parts]
    return Index(
        shards=tuple(shards),
        shard=np.repeat(np.arange(len(parts)), counts),
        number=joined("number", np.int64),
        offset=joined("offset", np.int64),
        length=joined("length", np.int64),
        headers=joined("headers", np.int32).reshape(-1, 4),
        columns={key: _column([p.columns[key] for p in parts], kind) for key, kind in keys.items()},
        keys=tuple(next((part.keys for part in parts if part.keys), ())),
        problems=tuple(problems),
    )


def _column(parts: Sequence[_Values], kind: Kind) -> Column:
    counts = np.frombuffer(b"".join(part.counts for part in parts), np.int32)
    splits = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    if kind != "bytes":
        dtype = np.float32 if kind == "float" else np.int64
        return Column(np.frombuffer(b"".join(part.values for part in parts), dtype), splits)
    code_of: dict[bytes, int] = {}
    codes = []
    for part in parts:
        new = [code_of.setdefault(text, len(code_of)) for text in part.table]
        codes.append(np.array(new, np.int32)[np.frombuffer(part.values, np.int32)])
    return Column(np.concatenate(codes), splits, tuple(code_of))


# ------------------------------------------------------------------------------------------------
# Shards -> their index
# ------------------------------------------------------------------------------------------------


def _index_all(
    shards: Sequence[str],
    stamps: Mapping[str, Stamp],
    image_key: str,
    keys: Mapping[str, Kind],
    go_on: bool,
) -> dict[str, tuple[_Shard, list[DatasetError]]]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    def one(shard: str) -> tuple[_Shard, list[DatasetError]]:
        problems: list[DatasetError] = []
        builder = _Builder(shard, image_key, keys)
        for number, start, data in _records(shard, stamps[shard].size, problems, go_on):
            try:
                example = tf.train.Example.FromString(data)
            except DecodeError:
                where = f"{shard}, record {number}, byte {start - HEADER}"
                message = f"{where}: expected a tf.Example, found {quoted_bytes(data)}"
                problems.append(DatasetError(message, DAMAGED))
                continue
            try:
                builder.add(number, start, data, example.features.feature)
            except DatasetError as error:
                problems.append(error)
        return builder.built(stamps[shard]), problems

    with ThreadPoolExecutor(max_workers=4) as pool:  # reading and sums need no interpreter
        return dict(zip(shards, pool.map(one, shards), strict=True))


class _Builder:
    """Collects the records of a shard."""

    def __init__(self, shard: str, image_key: str, keys: Mapping[str, Kind]):
        self.shard, self.image_key, self.kinds = shard, image_key, keys
        self.keys: list[str] = []
        self.places = array("q")  # number, offset, length of each record
        self.headers = array("i")
        self.counts = {key: array("i") for key in keys}
        self.values: dict[str, array] = {key: array(_CODES[kind]) for key, kind in keys.items()}
        self.codes: dict[str, dict[bytes, int]] = {
            key: {} for key, kind in keys.items() if kind == "bytes"
        }

    def add(self, number: int, start: int, data: bytes, features: Any) -> None:
        """Raises DatasetError for a key of another kind; then nothing of the record is kept."""
        if not self.keys:
            self.keys = sorted(features)
        where = f"{self.shard}, record {number}"
        found = {
            key: _values_of(features[key], kind, key, where) if key in features else ()
            for key, kind in self.kinds.items()
        }
        image: Sequence[bytes] = ()
        if self.image_key in features:
            image = _values_of(features[self.image_key], "bytes", self.image_key, where)
        if len(image) > 1:
            expected = f"expected one image in {self.image_key}"
            raise DatasetError(f"{where}: {expected}, found {len(image)}", DAMAGED)
        encoded = image[0] if image else b""
        place = _find(data, self.image_key, encoded)
        self.places.extend((number, start + place, len(encoded)))
        self.headers.extend(_header(encoded, where))
        for key, values in found.items():
            self.counts[key].append(len(values))
            if key in self.codes:
                codes = self.codes[key]
                values = [codes.setdefault(value, len(codes)) for value in values]
            self.values[key].extend(values)

    def built(self, of_file: Stamp) -> _Shard:
        places = np.frombuffer(self.places, np.int64).reshape(-1, 3)
        number, offset, length = (column.tobytes() for column in places.T)
        return _Shard(
            of_file,
            self.keys,
            number,
            offset,
            length,
            self.headers.tobytes(),
            {
                key: _Values(
                    self.counts[key].tobytes(),
                    values.tobytes(),
                    list(self.codes.get(key, ())),
                )
                for key, values in self.values.items()
            },
        )


def _values_of(feature: Any, kind: Kind, key: str, where: str) -> Sequence[Any]:
    found = feature.WhichOneof("kind")
    values = getattr(feature, found).value if found else ()
    is_fit = found == f"{kind}_list" or (found == "int64_list" and kind != "bytes")
    if is_fit or not values:
        return values
    expected = {"int": "whole numbers", "float": "numbers", "bytes": "texts"}[kind]
    raise DatasetError(f"{where}: {key}: expected {expected}, found a {found}", "bad number")


def _find(data: bytes, key: str, encoded: bytes) -> int:
    """The offset of a key's only value in the bytes of an Example.

    Behind the key stand the lengths of its feature, its list and its value. Where something else
    stands between, as other writers may have it, the value itself is looked for.
    """
    name = key.encode()
    for match in re.finditer(re.escape(name) + rb"\x12" + rb"\n".join([_VARINT] * 3), data):
        start = match.end()
        if data[start : start + len(encoded)] == encoded:
            return start
    return max(data.find(encoded), 0)


_VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"


def _header(encoded: bytes, where: str) -> tuple[int, int, int, int]:
    try:
        header = parse_header(encoded, where)
    except DatasetError:  # the reader looks again, and says why
        return 0, 0, 0, 0
    if header.notes:  # to be looked at again, and counted
        return 0, 0, 0, 0
    return header.width, header.height, header.orientation, header.bits


# ------------------------------------------------------------------------------------------------
# Files -> records
# ------------------------------------------------------------------------------------------------


def _records(
    shard: str, size: int, problems: list[DatasetError], go_on: bool
) -> Iterator[tuple[int, int, bytes]]:
    """Yields (number from 0, offset of the data, data) of the records that are whole.

    TensorFlow reads up to the first that is not; from there on this module does, to say what is
    wrong and, where that is wanted, to go on behind it as far as lengths can be trusted.
    """
    import tensorflow as tf

    # The only reader that says record by record how far it came; the warning is of its name.
    read = tf.compat.v1.io.tf_record_iterator
    number, start = 0, HEADER
    try:
        for data in getattr(read, "__wrapped__", read)(shard):
            yield number, start, data
            number, start = number + 1, start + len(data) + FOOTER + HEADER
    except tf.errors.OpError as error:
        logger.debug("{}: {}", shard, error.message)
    if start - HEADER != size:
        yield from _walk(shard, number, start - HEADER, size, problems, go_on)


def _walk(
    shard: str, first: int, start: int, size: int, problems: list[DatasetError], go_on: bool
) -> Iterator[tuple[int, int, bytes]]:
    """Yields what is whole from the record `first` on, which begins at `start`."""
    with open_data(shard) as file:
        for number in count(first):
            where = f"{shard}, record {number}, byte {start}"
            file.seek(start)
            header = file.read(HEADER)
            if not header:
                return
            problem = header_problem(header, size - start)
            if problem:
                lost = f"the rest of the file, {size - start:,} bytes, is lost"
                problems.append(DatasetError(f"{where}: {problem}: {lost}", DAMAGED))
                return
            length = int.from_bytes(header[:8], "little")
            data = file.read(length)
            expected, found = int.from_bytes(file.read(FOOTER), "little"), masked_sum(data)
            if expected == found:
                yield number, start + HEADER, data
            else:
                sums = f"expected data of the sum {expected:#010x}, found {found:#010x}"
                problems.append(DatasetError(f"{where}: {sums}: the record is damaged", DAMAGED))
                if not go_on:
                    return
            start += HEADER + length + FOOTER


def header_problem(header: bytes | bytearray, left: int) -> str:
    """What is wrong with the beginning of a record of which, at most, `left` bytes are there."""
    if len(header) < HEADER:
        return f"expected a record, found {len(header)} bytes: the file is cut short"
    length = int.from_bytes(header[:8], "little")
    expected, found = int.from_bytes(header[8:], "little"), masked_sum(header[:8])
    if expected != found:
        sums = f"its length has the sum {found:#010x}, found {expected:#010x}"
        return f"expected a record, {sums}: no TFRecord or damaged"
    if length > MAX_RECORD:
        return f"expected a record of at most {MAX_RECORD} bytes, found {length}"
    if length + HEADER + FOOTER > left:
        whole = length + HEADER + FOOTER
        return f"expected a record of {whole} bytes, found {left}: the file is cut short"
    return ""


def masked_sum(data: bytes | bytearray) -> int:
    """The sum a TFRecord has of bytes: CRC-32C (Castagnoli), rotated by 15 bits, plus a constant.

    A byte at a time, 0.1 s a megabyte: for headers, and for files that are damaged.
    """
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    entries = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


_TABLE = _table()


def quoted_bytes(data: bytes) -> str:
    """The beginning of some bytes, for a message."""
    return quoted(data[:20].decode("ascii", "backslashreplace")) if data else "none"
