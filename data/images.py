"""Image files -> arrays: the one decoder that training, evaluation and pictures share.

JPEG, PNG and BMP, told apart by content: datasets are full of PNGs named .jpg. Sizes come from the
headers, by the code that also orients the decoded pixels, so the two cannot disagree.
Letters: H W pixels, after EXIF orientation.
"""

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np

from data.records import DatasetError

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".bmp",
)  # what a folder listing takes for images
MAX_PIXELS = 2**28  # beyond this a header is broken or hostile: 0.8 GB decoded

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
_EXIF_ORIENTATION_TAG = 274
ByteOrder: TypeAlias = Literal["little", "big"]
_BYTE_ORDERS: dict[bytes, ByteOrder] = {b"II": "little", b"MM": "big"}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# In compressed data a byte FF is followed by 00 or a restart marker; before a marker it is fill.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_APP1, _JPEG_END = 0xE1, 0xD9

Buffer = bytes | mmap.mmap


@dataclass(frozen=True)
class ImageHeader:
    """width, height: pixels once oriented; orientation: the EXIF value, 1 to 8, 1 where none is."""

    width: int
    height: int
    orientation: int

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
    """An image file in memory, found to be complete as far as that shows without decoding."""

    path: str | Path
    data: bytes
    header: ImageHeader

    @property
    def can_be_reduced(self) -> bool:
        """Whether it is a JPEG: only that decodes at a reduced size for less."""
        return self.data[:2] == b"\xff\xd8"

    def decode(self, reduction: int = 1) -> np.ndarray:
        """The pixels as they are stored, before EXIF orientation.

        reduction: of `REDUCTIONS`, other than 1 if it `can_be_reduced`. A pixel of the result is
            the mean of so many each way, at 2 and 4 but for JPEG's high frequencies.
        Returns (h, w, 3) uint8 RGB, each side divided by the reduction and rounded up.
        Raises DatasetError as `decode_image` does.
        """
        try:
            # OpenCV's own orientation differs between formats and releases: `orient` does it.
            flags = cv2.IMREAD_COLOR_RGB | _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
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


def read_image(path: str | Path) -> EncodedImage:
    """Raises DatasetError as `decode_image` does, but does not notice corrupt pixels."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    header = _parse_header(data, path)
    if not _is_complete(data):
        raise _unreadable(path, f"truncated: the image data ends early ({len(data)} bytes)")
    return EncodedImage(path, data, header)


def decode_image(path: str | Path) -> np.ndarray:
    """Decodes an image file.

    Grey is repeated over the channels, palettes are looked up, alpha is dropped (not blended),
    16-bit values keep their high byte, EXIF orientation (JPEG, PNG) is applied.
    Returns (H, W, 3) uint8 RGB, contiguous.
    Raises DatasetError, naming the file, if it is missing, empty, truncated, corrupt, no JPEG,
    PNG or BMP, or claims more than MAX_PIXELS.
    """
    image = read_image(path)
    return np.ascontiguousarray(orient(image.decode(), image.header.orientation))


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in pixels of what `decode_image` returns, read from the header only.

    Raises DatasetError as `decode_image` does, but does not notice truncated or corrupt pixels.
    """
    header = read_header(path)
    return header.width, header.height


def read_header(path: str | Path) -> ImageHeader:
    """Like `image_size`, with the EXIF orientation."""
    try:
        with open(path, "rb") as file:
            if not file.seek(0, 2):  # mmap refuses an empty file
                return _parse_header(b"", path)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse_header(data, path)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error


def _unreadable(path: str | Path, problem: str) -> DatasetError:
    return DatasetError(f"{path}: {problem}", kind="unreadable image")


def _parse_header(data: Buffer, path: str | Path) -> ImageHeader:
    if not len(data):
        raise _unreadable(path, "the file is empty")
    if data[:3] == b"\xff\xd8\xff":
        width, height, orientation = _jpeg_header(data)
    elif data[:8] == _PNG_SIGNATURE:
        width, height, orientation = _png_header(data)
    elif data[:2] == b"BM":
        width, height, orientation = *_bmp_size(data), 1
    else:
        raise _unreadable(path, f"expected a JPEG, PNG or BMP image, found {data[:12]!r}")
    if not 0 < width * height <= MAX_PIXELS:
        expected = f"expected a header with 1 to {MAX_PIXELS} pixels"
        raise _unreadable(path, f"{expected}, found {width}x{height}")
    if _ORIENTATIONS[orientation][0]:
        width, height = height, width
    return ImageHeader(width, height, orientation)


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (h, w, 3) as they are to be seen; a view of them, not a copy."""
    transpose, flip_rows, flip_columns = _ORIENTATIONS[orientation]
    if transpose:
        image = image.transpose(1, 0, 2)
    return image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _is_complete(data: bytes) -> bool:
    """Whether a JPEG or PNG goes on to its end mark: not every decoder minds if it does not.

    A BMP has no such mark; OpenCV counts its rows.
    """
    if data[:8] == _PNG_SIGNATURE:
        return any(kind == b"IEND" for kind, _, _ in _png_chunks(data))
    if data[:2] == b"BM":
        return True
    return any(marker == _JPEG_END for marker, _ in _jpeg_segments(data))


def _jpeg_segments(data: Buffer) -> Iterator[tuple[int, int]]:
    """Yields (marker, offset of its length field), past thumbnails inside segments."""
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        marker, start = match[0][1], match.end()
        yield marker, start
        position = start + _uint(data, start, 2, "big")


def _jpeg_header(data: Buffer) -> tuple[int, int, int]:
    """(stored width, stored height, orientation); 0x0 if there is no frame."""
    orientation = None
    for marker, start in _jpeg_segments(data):
        if (
            marker == _JPEG_APP1
            and orientation is None
            and data[start + 2 : start + 8] == b"Exif\0\0"
        ):
            orientation = exif_orientation(data[start + 8 : start + _uint(data, start, 2, "big")])
        elif marker in _JPEG_FRAMES:
            width, height = _uint(data, start + 5, 2, "big"), _uint(data, start + 3, 2, "big")
            return width, height, orientation or 1
        elif marker == _JPEG_END:
            break
    return 0, 0, 1


def _png_chunks(data: Buffer) -> Iterator[tuple[bytes, int, int]]:
    """Yields (type, offset of the contents, length) of each chunk that is there in full."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length = _uint(data, position, 4, "big")
        if position + 12 + length > len(data):
            return
        yield data[position + 4 : position + 8], position + 8, length
        position += 12 + length


def _png_header(data: Buffer) -> tuple[int, int, int]:
    """(stored width, stored height, orientation); the EXIF chunk may come after the pixels."""
    width = height = 0
    orientation = 1
    for kind, start, length in _png_chunks(data):
        if kind == b"IHDR" and not width:  # the first is what decoders go by
            width, height = _uint(data, start, 4, "big"), _uint(data, start + 4, 4, "big")
        elif kind == b"eXIf":
            orientation = exif_orientation(data[start : start + length].removeprefix(b"Exif\0\0"))
    return width, height, orientation


def _bmp_size(data: Buffer) -> tuple[int, int]:
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


def _uint(data: Buffer, start: int, size: int, order: ByteOrder = "little") -> int:
    return int.from_bytes(data[start : start + size], order)
