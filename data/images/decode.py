"""Image files -> arrays: the one decoder that training, evaluation and pictures share.

JPEG, PNG and BMP, told apart by content: datasets are full of PNGs named .jpg. Sizes come from the
headers, by the code that also orients the decoded pixels, so the two cannot disagree.
Letters: H W pixels, after EXIF orientation.
"""

import mmap
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np

from data.files import open_data, read_data
from data.images import png
from data.images.png import Png
from data.records import DatasetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp")  # taken for images in a folder
MAX_PIXELS = 2**28  # beyond this a header is broken or hostile: 0.8 GB decoded
MAX_BYTES = 2**30  # of a file
# A scan of a progressive JPEG goes over all pixels, and takes 3 ns for each even where it holds
# nothing. Encoders write ten scans, some 20; more are taken as far as they go over so many pixels.
MIN_SCANS, MAX_SCANNED = 20, 2**30

# EXIF orientation -> (transpose, then flip rows, flip columns)
_ORIENTATIONS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
# What both sides can be divided by while decoding. Named for grey in OpenCV, these bits go with any
# colours.
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
REDUCTIONS = tuple(_REDUCED)
UNREADABLE = "unreadable image"  # the kind of what is wrong with an image file
_EXIF_ORIENTATION_TAG = 274
ByteOrder: TypeAlias = Literal["little", "big"]
_BYTE_ORDERS: dict[bytes, ByteOrder] = {b"II": "little", b"MM": "big"}
# In compressed data a byte FF is followed by 00 or a restart marker; before a marker it is fill.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_APP1, _JPEG_SCAN, _JPEG_END = 0xE1, 0xDA, 0xD9


@dataclass(frozen=True)
class ImageHeader:
    """width, height: pixels once oriented; orientation: the EXIF value, 1 to 8, 1 where none is.

    bits: of a value in the file, 8 (or fewer) or 16; how many of the 16 are used, it does not say.
    """

    width: int
    height: int
    orientation: int
    bits: int = 8

    @property
    def swaps_sides(self) -> bool:
        """Whether the stored image is `height` wide and `width` high."""
        return _ORIENTATIONS[self.orientation][0]

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the pixels before they are oriented."""
        return (self.width, self.height) if self.swaps_sides else (self.height, self.width)

    def stored(self, y: int, x: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Where a rectangle of the oriented image lies before: y, x, height, width."""
        transpose, flip_rows, flip_columns = _ORIENTATIONS[self.orientation]
        y = self.height - y - height if flip_rows else y
        x = self.width - x - width if flip_columns else x
        return (x, y, width, height) if transpose else (y, x, height, width)


@dataclass(frozen=True)
class EncodedImage:
    """An image file in memory, found to be complete as far as that shows without decoding.

    png: what its chunks say if it is one.
    """

    path: str | Path
    data: bytes
    header: ImageHeader
    png: Png | None

    @property
    def can_be_reduced(self) -> bool:
        """Whether it is a JPEG: only that decodes at a reduced size for less."""
        return self.data[:2] == b"\xff\xd8"

    def values(self, reduction: int = 1) -> np.ndarray:
        """The pixels as they are stored, before EXIF orientation.

        reduction: of `REDUCTIONS`, other than 1 if it `can_be_reduced`. A pixel of the result is
            the mean of so many each way, at 2 and 4 but for JPEG's high frequencies.
        Returns (h, w, 3) RGB, each side divided by the reduction and rounded up: uint8, of a file
        of 16 bits uint16, see `in_8_bits`. Raises DatasetError as `decode_image` does.
        """
        # OpenCV's own orientation differs between formats and releases: `orient` does it.
        flags = cv2.IMREAD_COLOR_RGB | _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        if self.header.bits == 16:
            flags |= cv2.IMREAD_ANYDEPTH
        try:
            image = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
        except cv2.error as error:
            raise _unreadable(self.path, f"cannot be decoded ({error.err})") from error
        if image is None:
            raise _unreadable(self.path, "cannot be decoded: corrupt image data")
        height, width = (-(-side // reduction) for side in self.header.stored_size)
        if image.shape != (height, width, 3):
            found = f"{image.shape[1]}x{image.shape[0]}"
            raise _unreadable(self.path, f"expected {width}x{height} pixels, found {found} pixels")
        return image


def in_8_bits(values: np.ndarray, bits: int | None) -> np.ndarray:
    """uint16 values as uint8: the highest 8 of their lowest `bits`, None: of all 16.

    What has more bits becomes white. uint8 values stay as they are.
    """
    if values.dtype == np.uint8:
        return values
    values = values >> ((bits or 16) - 8)
    return np.minimum(values, 255, out=values).astype(np.uint8)


def read_image(path: str | Path) -> EncodedImage:
    """Raises DatasetError as `decode_image` does, but does not notice corrupt pixels."""
    data = read_data(path, MAX_BYTES, UNREADABLE)
    header, chunks = _parse(data, path)
    return EncodedImage(path, _harmless(data, header, chunks, path), header, chunks)


def decode_image(path: str | Path, bits: int | None = None) -> np.ndarray:
    """Decodes an image file.

    Grey is repeated over the channels, palettes are looked up, alpha is dropped (not blended),
    16-bit values keep the highest 8 of the `bits` in use, None: their high byte, EXIF orientation
    (JPEG, PNG) is applied.
    Returns (H, W, 3) uint8 RGB, contiguous.
    Raises DatasetError, naming the file, if it is missing, no regular file, empty, truncated,
    corrupt, no JPEG, PNG or BMP, has more than MAX_BYTES or claims more than MAX_PIXELS, or holds
    what would keep a decoder busy beyond that.
    """
    image = read_image(path)
    pixels = in_8_bits(image.values(), bits)
    return np.ascontiguousarray(orient(pixels, image.header.orientation))


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in pixels of what `decode_image` returns, read from the header only.

    Raises DatasetError as `decode_image` does, but does not notice truncated or corrupt pixels.
    """
    header = read_header(path)
    return header.width, header.height


def check_inflation(path: str | Path) -> None:
    """Raises DatasetError for a PNG whose pixels inflate to more than its header promises.

    `decode_image` refuses what cannot be by the number of compressed bytes; this inflates them,
    which takes two thirds of the time of decoding: for what strangers send.
    """
    image = read_image(path)
    if image.png and png.inflates_beyond(image.data, image.png.raw_bytes):
        raise _overfull(path, image.png)


def read_header(path: str | Path) -> ImageHeader:
    """Like `image_size`, with the EXIF orientation and the bits of a value."""
    with open_data(path, MAX_BYTES, UNREADABLE) as file:
        if not file.seek(0, 2):  # mmap refuses an empty file
            return _parse(b"", path)[0]
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(data, path)[0]


def _unreadable(path: str | Path, problem: str) -> DatasetError:
    return DatasetError(f"{path}: {problem}", UNREADABLE)


def _overfull(path: str | Path, chunks: Png) -> DatasetError:
    expected = f"expected {chunks.raw_bytes} bytes of pixels"
    return _unreadable(path, f"{expected}, found more: refused unread")


def _parse(data: png.Buffer, path: str | Path) -> tuple[ImageHeader, Png | None]:
    """The header, and what the chunks say if it is a PNG."""
    if not len(data):
        raise _unreadable(path, "the file is empty")
    bits, chunks = 8, None
    if data[:3] == b"\xff\xd8\xff":
        width, height, orientation = _jpeg_header(data, path)
    elif data[:8] == png.SIGNATURE:
        try:
            chunks = png.parse(data)
        except ValueError as error:
            raise _unreadable(path, str(error)) from error
        width, height, orientation = chunks.width, chunks.height, exif_orientation(chunks.exif)
        bits = max(chunks.bits, 8)
    elif data[:2] == b"BM":
        width, height, orientation = *_bmp_size(data), 1
    else:
        raise _unreadable(path, f"expected a JPEG, PNG or BMP image, found {data[:12]!r}")
    if not 0 < width * height <= MAX_PIXELS:
        expected = f"expected a header with 1 to {MAX_PIXELS} pixels"
        raise _unreadable(path, f"{expected}, found {width}x{height}")
    if _ORIENTATIONS[orientation][0]:
        width, height = height, width
    return ImageHeader(width, height, orientation, bits), chunks


def _harmless(data: bytes, header: ImageHeader, chunks: Png | None, path: str | Path) -> bytes:
    """The file without what would keep a decoder busy for nothing.

    Raises DatasetError for pixels that take more bytes or scans than there can be, and for a JPEG
    or PNG without its end mark: not every decoder minds. A BMP has none; OpenCV counts its rows.
    """
    if data[:2] == b"BM":
        return data
    if chunks:
        is_complete, num_scans = chunks.is_complete, 0
    else:
        markers = Counter(marker for marker, _ in _jpeg_image(data))
        is_complete, num_scans = markers[_JPEG_END] > 0, markers[_JPEG_SCAN]
    if not is_complete:
        raise _unreadable(path, f"truncated: the image data ends early ({len(data)} bytes)")
    most = max(MIN_SCANS, MAX_SCANNED // (header.width * header.height))
    if num_scans > most:
        expected = f"expected at most {most} scans of {header.width}x{header.height} pixels"
        raise _unreadable(path, f"{expected}, found {num_scans}")
    if chunks and chunks.is_overfull:
        raise _overfull(path, chunks)
    return png.without_texts(data) if chunks and chunks.has_texts else data


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (h, w, 3) as they are to be seen; a view of them, not a copy."""
    transpose, flip_rows, flip_columns = _ORIENTATIONS[orientation]
    if transpose:
        image = image.transpose(1, 0, 2)
    return image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _jpeg_image(data: png.Buffer) -> Iterator[tuple[int, int]]:
    """Yields (marker, offset of its length field), past thumbnails inside segments.

    Ends with the first end mark: behind it may be another's, of a motion photo's video.
    """
    position, marker = 2, 0
    while marker != _JPEG_END and (match := _JPEG_MARKER.search(data, position)):
        marker, start = match[0][1], match.end()
        yield marker, start
        position = start + _uint(data, start, 2, "big")


def _jpeg_header(data: png.Buffer, path: str | Path) -> tuple[int, int, int]:
    """(stored width, stored height, orientation); 0x0 if there is no frame."""
    orientation = None
    for marker, start in _jpeg_image(data):
        if (
            marker == _JPEG_APP1
            and orientation is None
            and data[start + 2 : start + 8] == b"Exif\0\0"
        ):
            orientation = exif_orientation(data[start + 8 : start + _uint(data, start, 2, "big")])
        elif marker in _JPEG_FRAMES:
            width, height = _uint(data, start + 5, 2, "big"), _uint(data, start + 3, 2, "big")
            bands = _uint(data, start + 7, 1)
            if bands not in (1, 3, 4):
                raise _unreadable(path, f"expected 1, 3 or 4 bands, found {bands}")
            return width, height, orientation or 1
    return 0, 0, 1


def _bmp_size(data: png.Buffer) -> tuple[int, int]:
    if _uint(data, 14, 4) == 12:  # OS/2 header
        return _uint(data, 18, 2), _uint(data, 20, 2)
    width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
    return max(width, 0), abs(height)  # a negative height means rows from the top down


def exif_orientation(tiff: bytes) -> int:
    """The orientation in an EXIF block; 1 where there is none or it is not one of the eight."""
    if tiff[:2] not in _BYTE_ORDERS:
        return 1
    order = _BYTE_ORDERS[tiff[:2]]
    directory = _uint(tiff, 4, 4, order)
    first, count = directory + 2, _uint(tiff, directory, 2, order)
    for entry in range(first, min(first + 12 * count, len(tiff)), 12):
        if _uint(tiff, entry, 2, order) == _EXIF_ORIENTATION_TAG:
            value = _uint(tiff, entry + 8, 2, order)
            return value if value in _ORIENTATIONS else 1
    return 1


def _uint(data: png.Buffer, start: int, size: int, order: ByteOrder = "little") -> int:
    return int.from_bytes(data[start : start + size], order)
