"""Image files -> arrays: the one decoder that training, evaluation and pictures share.

The types of `IMAGE_TYPES`, told apart by content: datasets are full of PNGs named .jpg. Sizes come
from the headers, by the code that also orients the decoded pixels, so the two cannot disagree.
Letters: H W pixels, after EXIF orientation.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from data.files import map_data, read_data
from data.images import gif, jpeg, png, tiff, webp
from data.images.exif import Buffer, uint
from data.images.gif import Gif
from data.images.png import Png
from data.images.tiff import Tiff
from data.images.webp import Webp
from data.records import DatasetError

IMAGE_TYPES = "JPEG, PNG, BMP, WebP, TIFF or GIF"
IMAGE_SUFFIXES = (  # taken for images in a folder
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"
)  # fmt: skip
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
Container: TypeAlias = Png | Tiff | Webp | Gif | None  # None of a JPEG or BMP


@dataclass(frozen=True)
class ImageHeader:
    """width, height: pixels once oriented; orientation: the EXIF value, 1 to 8, 1 where none is.

    bits: of a value in the file, 8 (or fewer) or 16; how many of the 16 are used, it does not say.
    format: one of `IMAGE_TYPES`. notes: what was mended in the file or is left out of it.
    """

    width: int
    height: int
    orientation: int
    bits: int = 8
    format: str = "JPEG"
    notes: tuple[str, ...] = ()

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

    data: mended, see `ImageHeader.notes`. container: what is said in it beside the header.
    """

    path: str | Path
    data: bytes
    header: ImageHeader
    container: Container

    @property
    def can_be_reduced(self) -> bool:
        """Whether it is a JPEG: only that decodes at a reduced size for less."""
        return self.header.format == "JPEG"

    def values(self, reduction: int = 1) -> np.ndarray:
        """The pixels as they are stored, before EXIF orientation.

        reduction: of `REDUCTIONS`, other than 1 if it `can_be_reduced`. A pixel of the result is
            the mean of so many each way, at 2 and 4 but for JPEG's high frequencies.
        Returns (h, w, 3) RGB, each side divided by the reduction and rounded up: uint8, of a file
        of 16 bits uint16, see `in_8_bits`. Raises DatasetError as `decode_image` does.
        """
        if isinstance(self.container, (Tiff, Webp, Gif)):
            try:
                return self.container.decode(self.data)
            except ValueError as error:
                raise _unreadable(self.path, str(error)) from error
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
    data, header, container = _parse(read_data(path, MAX_BYTES, UNREADABLE), path)
    return EncodedImage(path, _harmless(bytes(data), header, container, path), header, container)


def decode_image(path: str | Path, bits: int | None = None) -> np.ndarray:
    """Decodes an image file.

    Grey is repeated over the channels, palettes are looked up, alpha is dropped (not blended),
    16-bit values keep the highest 8 of the `bits` in use, None: their high byte, EXIF orientation
    (JPEG, PNG, WebP, TIFF) is applied. Of several pages or frames it is the first.
    Returns (H, W, 3) uint8 RGB, contiguous.
    Raises DatasetError, naming the file, if it is missing, no regular file, empty, truncated,
    corrupt, none of `IMAGE_TYPES`, has more than MAX_BYTES or claims more than MAX_PIXELS, or holds
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
    chunks = image.container
    if isinstance(chunks, Png) and png.inflates_beyond(image.data, chunks.raw_bytes):
        raise _overfull(path, chunks)


def read_header(path: str | Path) -> ImageHeader:
    """Like `image_size`, with all else that the header says."""
    with map_data(path, MAX_BYTES, UNREADABLE) as data:
        return parse_header(data, path)


def parse_header(data: Buffer, path: str | Path) -> ImageHeader:
    """As `read_header` of an image file in memory; path: names it in messages."""
    return _parse(data, path)[1]


def _unreadable(path: str | Path, problem: str) -> DatasetError:
    return DatasetError(f"{path}: {problem}", UNREADABLE)


def _overfull(path: str | Path, chunks: Png) -> DatasetError:
    expected = f"expected {chunks.raw_bytes} bytes of pixels"
    return _unreadable(path, f"{expected}, found more: refused unread")


def _parse(data: Buffer, path: str | Path) -> tuple[Buffer, ImageHeader, Container]:
    """The file, mended, its header, and what else its container says."""
    if not len(data):
        raise _unreadable(path, "the file is empty")
    container: Container = None
    notes: tuple[str, ...] = ()
    orientation, bits = 1, 8
    try:
        if data[: jpeg.MOST_STRAY].lstrip(jpeg.STRAY)[:3] == jpeg.START:
            data, notes = jpeg.mended(data)
            kind, (width, height, orientation) = "JPEG", jpeg.parse(data)
        elif data[:2] == b"BM":
            kind, (width, height) = "BMP", _bmp_size(data)
        else:
            kind, container = _container(data)
            width, height, bits = container.width, container.height, max(container.bits, 8)
            orientation, notes = container.orientation, container.notes
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    if not 0 < width * height <= MAX_PIXELS:
        expected = f"expected a header with 1 to {MAX_PIXELS} pixels"
        raise _unreadable(path, f"{expected}, found {width}x{height}")
    if _ORIENTATIONS[orientation][0]:
        width, height = height, width
    return data, ImageHeader(width, height, orientation, bits, kind, notes), container


def _container(data: Buffer) -> tuple[str, Png | Tiff | Webp | Gif]:
    """The type of the file and what it says; ValueError where it is none of ours."""
    if data[:8] == png.SIGNATURE:
        return "PNG", png.parse(data)
    if data[:4] in tiff.SIGNATURES:
        return "TIFF", tiff.parse(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP", webp.parse(data)
    if data[:6] in gif.SIGNATURES:
        return "GIF", gif.parse(data)
    raise ValueError(f"expected a {IMAGE_TYPES} image, found {data[:12]!r}")


def _harmless(data: bytes, header: ImageHeader, container: Container, path: str | Path) -> bytes:
    """The file without what would keep a decoder busy for nothing.

    Raises DatasetError for pixels that take more bytes or scans than there can be, and for a file
    without its end: not every decoder minds. OpenCV counts the rows of a BMP, and a TIFF's
    parts are looked up when it is decoded.
    """
    if isinstance(container, (Png, Webp, Gif)) and not container.is_complete:
        raise _truncated(path, len(data))
    if header.format == "JPEG":
        scans = sum(marker == jpeg.SCAN for marker, _ in jpeg.segments(data))
        most = max(MIN_SCANS, MAX_SCANNED // (header.width * header.height))
        if scans > most:
            expected = f"expected at most {most} scans of {header.width}x{header.height} pixels"
            raise _unreadable(path, f"{expected}, found {scans}")
        if jpeg.NO_END in header.notes and not jpeg.is_whole(data):
            raise _truncated(path, len(data) - len(jpeg.END))
    if isinstance(container, Png):
        if container.is_overfull:
            raise _overfull(path, container)
        if container.has_texts:
            return png.without_texts(data)
    return data


def _truncated(path: str | Path, num_bytes: int) -> DatasetError:
    return _unreadable(path, f"truncated: the image data ends early ({num_bytes} bytes)")


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (h, w, 3) as they are to be seen; a view of them, not a copy."""
    transpose, flip_rows, flip_columns = _ORIENTATIONS[orientation]
    if transpose:
        image = image.transpose(1, 0, 2)
    return image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _bmp_size(data: Buffer) -> tuple[int, int]:
    if uint(data, 14, 4) == 12:  # OS/2 header
        return uint(data, 18, 2), uint(data, 20, 2)
    width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
    return max(width, 0), abs(height)  # a negative height means rows from the top down
