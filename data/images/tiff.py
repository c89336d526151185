"""TIFF images: the first directory of a file, and its pixels.

TIFF 6.0, https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf; BigTIFF,
https://www.awaresystems.be/imaging/tiff/bigtiff.html. OpenCV and Pillow each read a part of what is
common (16 bits a value, alpha, tiles), not always rightly, and OpenCV passes over damage. So the
directory is read here; Pillow only undoes the compression, of a file that says of its bytes that
each is a grey pixel. Letters: H W pixels as stored, S bands.
"""

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import TiffImagePlugin

from data.images.exif import BYTE_ORDERS, ORIENTATION_TAG, Buffer, ByteOrder, orientation_of, uint

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF's
FIRST_PAGE = "first of several pages"
MAX_ENTRIES = 2**12  # of a directory
MAX_PARTS = 2**17  # strips or tiles: writers put 8 KB and more into one
MAX_PADDED = 2**29  # pixels of all tiles, which may reach beyond the image

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _BANDS, _ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_PALETTE, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _FORMAT = 320, 322, 323, 324, 325, 339
_DEFAULTS = {_BITS: 1, _COMPRESSION: 1, _FILL_ORDER: 1, _BANDS: 1, _PLANAR: 1, _PREDICTOR: 1}
_DEFAULTS |= {ORIENTATION_TAG: 1, _FORMAT: 1, _ROWS: 2**32 - 1}
_SIZES = {1: 1, 3: 2, 4: 4, 16: 8}  # type of an entry -> bytes of a value; all are whole numbers
_MARKS: dict[ByteOrder, Literal["<", ">"]] = {"little": "<", "big": ">"}

_READ = (1, 5, 8, 32946, 32773)  # none, LZW, deflate by two numbers, PackBits
_PREDICTED = (5, 8, 32946)
_COMPRESSIONS = {2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG", 7: "JPEG", 34925: "LZMA"}
_COMPRESSIONS |= {33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 50000: "Zstandard"}
_COMPRESSIONS |= {34887: "LERC", 50001: "WebP", 52546: "JPEG XL"}
_WHITE_IS_0, _BLACK_IS_0, _RGB, _INDEX = 0, 1, 2, 3  # photometric interpretations
_BANDS_OF = {_WHITE_IS_0: (1, 2), _BLACK_IS_0: (1, 2), _RGB: (3, 4), _INDEX: (1,)}  # with alpha
_COLORS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "a mask", 5: "CMYK", 6: "YCbCr"}
_COLORS |= {8: "Lab", 9: "Lab", 10: "Lab", 32803: "a sensor's raw values"}
_FORMATS = {2: "signed", 3: "floating point", 5: "complex", 6: "complex"}
_WAY_OUT = "; convert it to PNG"

Entry: TypeAlias = tuple[int, int, int]  # type, count, offset of the values
_NONE: Entry = (0, 0, 0)


@dataclass(frozen=True)
class Tiff:
    """The first directory of a file.

    bits: of a value: 1, 2, 4, 8 or 16. bands: alpha among them. colors: the photometric
    interpretation, 0 to 3.
    tile: width, height in pixels; of an image in strips W and the rows of one. parts: where the
    offsets and lengths of the strips or tiles stand. palette: where it stands, if there is one.
    """

    width: int
    height: int
    orientation: int
    bits: int
    bands: int
    colors: int
    compression: int
    predictor: int
    order: ByteOrder
    tile: tuple[int, int]
    is_tiled: bool
    parts: tuple[Entry, Entry]
    palette: Entry
    notes: tuple[str, ...]

    @property
    def mode(self) -> str:
        """Its colours as Pillow calls them."""
        return "P" if self.colors == _INDEX else ("L", "LA", "RGB", "RGBA")[self.bands - 1]

    def decode(self, data: bytes) -> np.ndarray:
        """(H, W, 3) uint8 RGB, or uint16 where bits is 16; alpha is dropped.

        Raises ValueError for pixels that are corrupt or not all there.
        """
        values = self._values(_undone(self._plain(data)))
        if self.colors == _INDEX:
            return self._palette(data)[values[..., 0]]
        if self.colors == _RGB:
            return values[..., :3].copy()
        grey = values[..., :1]
        if self.bits < 8:
            grey = grey * np.uint8(255 // (2**self.bits - 1))
        return np.repeat(~grey if self.colors == _WHITE_IS_0 else grey, 3, axis=2)

    def _values(self, rows: np.ndarray) -> np.ndarray:
        """(H, bytes) uint8 -> (H, W, S) uint8 or uint16."""
        if self.bits < 8:
            shifts = np.arange(8 - self.bits, -1, -self.bits, dtype=np.uint8)
            values = (rows[..., None] >> shifts & (2**self.bits - 1)).reshape(self.height, -1)
            return values[:, : self.width, None]
        dtype = np.dtype(f"u{self.bits // 8}")
        values = rows.view(dtype.newbyteorder(_MARKS[self.order]))
        values = values.reshape(self.height, self.width, self.bands)
        if self.predictor == 1 or self.compression not in _PREDICTED:
            return values.astype(dtype, copy=False)
        values = values.astype(dtype)
        for x in range(0, self.width, self.tile[0]):  # each is the difference to its left
            part = values[:, x : x + self.tile[0]]
            np.add.accumulate(part, axis=1, dtype=dtype, out=part)
        return values

    def _plain(self, data: bytes) -> bytes:
        """A TIFF of the same strips or tiles, one grey pixel for each of their bytes."""
        across, down = _num_parts(self)
        offsets, lengths = (_values(data, part, self.order, across * down) for part in self.parts)
        if (offsets > len(data)).any() or (lengths > len(data) - offsets).any():
            raise ValueError(f"truncated: the image data ends early ({len(data)} bytes)")
        row_bytes, part_bytes = (
            -(-pixels * self.bands * self.bits // 8) for pixels in (self.width, self.tile[0])
        )
        rows = np.full(across * down, self.tile[1], np.uint64)
        if not self.is_tiled:
            rows[-1] = self.height - (down - 1) * self.tile[1]
        if self.compression == 1 and (lengths < rows * np.uint64(part_bytes)).any():
            raise ValueError("truncated: a strip or tile has fewer bytes than its pixels")
        tags = {_WIDTH: row_bytes, _HEIGHT: self.height, _BITS: 8, _COMPRESSION: self.compression}
        tags |= {_PHOTOMETRIC: _BLACK_IS_0, _BANDS: 1}
        if self.is_tiled:
            tags |= {_TILE_WIDTH: part_bytes, _TILE_HEIGHT: self.tile[1]}
            return _with_directory(data, tags, {_TILES: offsets, _TILE_BYTES: lengths})
        tags[_ROWS] = self.tile[1]
        return _with_directory(data, tags, {_STRIPS: offsets, _STRIP_BYTES: lengths})

    def _palette(self, data: bytes) -> np.ndarray:
        """(colours, 3) uint8."""
        values = _values(data, self.palette, self.order, 3 * 2**self.bits)
        if (values > 255).any():  # else a writer gave 8 bits where 16 are meant, as for libtiff
            values >>= np.uint64(8)
        return values.reshape(3, -1).T.astype(np.uint8)


def parse(data: Buffer) -> Tiff:
    """Takes the first directory apart; raises ValueError, by name, for what is not read."""
    order = BYTE_ORDERS[data[:2]]
    entries, is_last = _directory(data, order)

    def value(tag: int) -> int:
        kind, _, start = entries.get(tag, _NONE)
        return uint(data, start, _SIZES[kind], order) if kind else _DEFAULTS.get(tag, 0)

    _require_readable(value)
    count = entries.get(_BITS, _NONE)[1]
    if count > 1 and (_values(data, entries[_BITS], order, count) != value(_BITS)).any():
        raise ValueError(f"expected a TIFF with as many bits in all bands, found others{_WAY_OUT}")
    width, height, is_tiled = value(_WIDTH), value(_HEIGHT), _TILE_WIDTH in entries
    tile = (width, min(value(_ROWS), height))
    if is_tiled:
        tile = value(_TILE_WIDTH), value(_TILE_HEIGHT)
    tags = (_TILES, _TILE_BYTES) if is_tiled else (_STRIPS, _STRIP_BYTES)
    tiff = Tiff(
        width=width,
        height=height,
        orientation=orientation_of(value(ORIENTATION_TAG)),
        bits=value(_BITS),
        bands=value(_BANDS),
        colors=value(_PHOTOMETRIC),
        compression=value(_COMPRESSION),
        predictor=value(_PREDICTOR),
        order=order,
        tile=tile,
        is_tiled=is_tiled,
        parts=(entries.get(tags[0], _NONE), entries.get(tags[1], _NONE)),
        palette=entries.get(_PALETTE, _NONE),
        notes=() if is_last else (FIRST_PAGE,),
    )
    if width * height:  # what has no pixels is refused like any other image
        _require_parts(tiff)
    return tiff


def _directory(data: Buffer, order: ByteOrder) -> tuple[dict[int, Entry], bool]:
    """{tag: entry} of whole numbers in the first directory, and whether no other follows."""
    mark, is_big = _MARKS[order], uint(data, 2, 2, order) == 43
    start = uint(data, 8, 8, order) if is_big else uint(data, 4, 4, order)
    layout = struct.Struct(f"{mark}HHQ8s" if is_big else f"{mark}HHI4s")
    size, count_size = (8, 8) if is_big else (4, 2)
    count = uint(data, start, count_size, order)
    first, end = start + count_size, start + count_size + count * layout.size
    if not 0 < count <= MAX_ENTRIES or end > len(data):
        raise ValueError(f"expected a TIFF with a directory of 1 to {MAX_ENTRIES} entries in it")
    entries: dict[int, Entry] = {}
    for i, (tag, kind, num, raw) in enumerate(layout.iter_unpack(data[first:end])):
        if kind in _SIZES and num:
            inside = num * _SIZES[kind] <= size
            at = first + (i + 1) * layout.size - size if inside else int.from_bytes(raw, order)
            entries.setdefault(tag, (kind, num, at))
    return entries, not uint(data, end, size, order)


def _require_readable(value: Callable[[int], int]) -> None:
    """Raises ValueError for an image that is none of 1, 3 or 4 bands of 1 to 16 bits.

    value: tag -> the first of its values.
    """
    colors, bits, bands, compression = map(value, (_PHOTOMETRIC, _BITS, _BANDS, _COMPRESSION))
    form, planar, predictor = map(value, (_FORMAT, _PLANAR, _PREDICTOR))
    is_predicted = predictor != 1 and compression in _PREDICTED
    most, least = (8 if colors == _INDEX else 16), (8 if bands > 1 or is_predicted else 1)
    widths = [width for width in (1, 2, 4, 8, 16) if least <= width <= most]
    color = _COLORS.get(colors, f"colours {colors}")
    method = _COMPRESSIONS.get(compression, f"compression {compression}")
    for is_read, expected, found in (
        (form in (1, 4), "unsigned values", _FORMATS.get(form, f"format {form}")),
        (colors in _BANDS_OF, "grey, RGB or a palette", color),
        (bands in _BANDS_OF.get(colors, ()), "1, 3 or 4 bands", f"{bands} of {color}"),
        (bits in widths, f"{', '.join(map(str, widths))} bits a value", f"{bits}"),
        (planar == 1 or bands == 1, "all bands of a pixel together", "one band after another"),
        (compression in _READ, "no compression, LZW, deflate or PackBits", method),
        (not is_predicted or predictor == 2, "the predictor 1 or 2", f"{predictor}"),
        (value(_FILL_ORDER) == 1, "bytes that begin with their highest bit", "others"),
    ):
        if not is_read:
            raise ValueError(f"expected a TIFF with {expected}, found {found}{_WAY_OUT}")


def _num_parts(tiff: Tiff) -> tuple[int, int]:
    """Strips or tiles across and down the image."""
    return -(-tiff.width // tiff.tile[0]), -(-tiff.height // tiff.tile[1])


def _require_parts(tiff: Tiff) -> None:
    """Raises ValueError for strips or tiles that no writer would make."""
    width, height = tiff.tile
    if not width * height or (tiff.is_tiled and width * tiff.bits % 8):
        raise ValueError(f"expected a TIFF in strips or tiles, found some of {width}x{height}")
    across, down = _num_parts(tiff)
    if across * down > MAX_PARTS:
        expected = f"expected at most {MAX_PARTS} strips or tiles"
        raise ValueError(f"{expected}, found {across * down}{_WAY_OUT}")
    if tiff.is_tiled and across * width * down * height > MAX_PADDED:
        expected = f"expected tiles of at most {MAX_PADDED} pixels in all"
        raise ValueError(f"{expected}, found {across * down} of {width}x{height}")


def _values(data: Buffer, entry: Entry, order: ByteOrder, count: int) -> np.ndarray:
    """(count,) uint64. Raises ValueError where an entry has others or reaches beyond the file."""
    kind, found, start = entry
    if found != count:
        raise ValueError(f"expected {count} values in an entry of the directory, found {found}")
    size = _SIZES[kind]
    raw = data[start : start + count * size]
    if len(raw) < count * size:
        raise ValueError("truncated: an entry of the directory reaches beyond the file")
    return np.frombuffer(raw, f"{_MARKS[order]}u{size}").astype(np.uint64)


def _with_directory(data: bytes, tags: Mapping[int, int], lists: Mapping[int, np.ndarray]) -> bytes:
    """The file with a directory of these alone, tags in any order."""
    start = len(data) + len(data) % 2
    lists = {tag: values.astype("<u4") for tag, values in lists.items()}
    behind = start + 2 + 12 * (len(tags) + len(lists)) + 4
    entries, tail = dict(tags), b""
    for tag, values in lists.items():
        entries[tag] = int(values[0]) if len(values) == 1 else behind + len(tail)
        tail += values.tobytes()
    packed = b"".join(
        struct.pack("<HHII", tag, 4, len(lists.get(tag, (0,))), entries[tag])
        for tag in sorted(entries)
    )
    head = b"II*\0" + struct.pack("<I", start) + data[8:] + bytes(len(data) % 2)
    return head + struct.pack("<H", len(entries)) + packed + bytes(4) + tail


def _undone(file: bytes) -> np.ndarray:
    """(H, W) uint8 of a grey TIFF. Raises ValueError for corrupt pixels."""
    try:
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(file))
        image.load()
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"cannot be decoded ({error})") from error
    return np.asarray(image)
