"""The container of a WebP: its size, orientation and first picture, which is all that is read.

RFC 9649, https://www.rfc-editor.org/rfc/rfc9649.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from data.images.exif import Buffer, exif_orientation, uint
from data.images.gif import FIRST_FRAME

MAX_CHUNKS = 2**17  # a frame of an animation is one
_PICTURES = (b"VP8 ", b"VP8L")
_EXIF, _ALPHA = 0x08, 0x10  # flags


@dataclass(frozen=True)
class Webp:
    """What the chunks of a file say.

    width, height: of the canvas; place: x, y, width, height of the picture on it. start, end:
    offsets of the chunk with its pixels; is_complete: whether that is there in full.
    """

    width: int
    height: int
    place: tuple[int, int, int, int]
    start: int
    end: int
    orientation: int
    has_alpha: bool
    is_complete: bool
    notes: tuple[str, ...]
    bits: int = 8

    @property
    def mode(self) -> str:
        """Its colours as Pillow calls them."""
        return "RGBA" if self.has_alpha else "RGB"

    def decode(self, data: bytes) -> np.ndarray:
        """(height, width, 3) uint8 RGB, black beside the picture; alpha is dropped.

        Raises ValueError for corrupt pixels.
        """
        # A file of this picture alone: neither alpha nor frames nor texts reach the decoder.
        chunk = data[self.start : self.end]
        chunk += bytes(len(chunk) % 2)
        file = b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        picture = cv2.imdecode(np.frombuffer(file, np.uint8), flags)
        x, y, width, height = self.place
        if picture is None or picture.shape != (height, width, 3):
            raise ValueError("cannot be decoded: corrupt image data")
        if (width, height) == (self.width, self.height):
            return picture
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        canvas[y : y + height, x : x + width] = picture
        return canvas


def parse(data: Buffer) -> Webp:
    """Finds the first picture.

    Raises ValueError where there is none, where it does not fit the canvas, or for more than
    MAX_CHUNKS.
    """
    canvas, picture, frame, orientation, flags, frames = None, None, (0, 0), 1, 0, 0
    for kind, start, length in _chunks(data, 12, len(data)):
        if kind == b"VP8X":
            flags, canvas = uint(data, start, 1), _sides(data, start + 4)
        elif kind in _PICTURES and picture is None:
            picture = kind, start, length
        elif kind == b"ANMF":
            frames += 1
            if picture is None:
                frame = 2 * uint(data, start, 3), 2 * uint(data, start + 3, 3)
                inside = _chunks(data, start + 16, min(start + length, len(data)))
                picture = next((chunk for chunk in inside if chunk[0] in _PICTURES), None)
        elif kind == b"EXIF" and flags & _EXIF:
            orientation = exif_orientation(data[start : start + length].removeprefix(b"Exif\0\0"))
        if picture and canvas is None:  # the simple kind of file ends with its picture
            break
    if picture is None:
        raise ValueError("expected a WebP with a picture, found none")
    kind, start, length = picture
    width, height = _picture_sides(data, kind, start)
    canvas = canvas or (width, height)
    fits = frame[0] + width <= canvas[0] and frame[1] + height <= canvas[1]
    if not fits or (not frames and (width, height) != canvas):
        size = "{}x{}".format(*canvas)
        raise ValueError(f"expected a picture of {size} pixels, found {width}x{height}")
    has_alpha = bool(flags & _ALPHA) or (kind == b"VP8L" and bool(uint(data, start + 4, 1) & 0x10))
    return Webp(
        width=canvas[0],
        height=canvas[1],
        place=(*frame, width, height),
        start=start - 8,
        end=start + length,
        orientation=orientation,
        has_alpha=has_alpha,
        is_complete=start + length <= len(data),
        notes=(FIRST_FRAME,) if frames > 1 else (),
    )


def _chunks(data: Buffer, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields (type, offset of the contents, length), the last perhaps cut off."""
    for _ in range(MAX_CHUNKS):
        if position + 8 > end:
            return
        length = uint(data, position + 4, 4)
        yield data[position : position + 4], position + 8, length
        position += 8 + length + length % 2
    if position + 8 <= end:
        raise ValueError(f"expected at most {MAX_CHUNKS} chunks, found more")


def _sides(data: Buffer, start: int) -> tuple[int, int]:
    return 1 + uint(data, start, 3), 1 + uint(data, start + 3, 3)


def _picture_sides(data: Buffer, kind: bytes, start: int) -> tuple[int, int]:
    """(width, height) in the header of a chunk with pixels."""
    if kind == b"VP8 ":
        return uint(data, start + 6, 2) & 0x3FFF, uint(data, start + 8, 2) & 0x3FFF
    bits = uint(data, start + 1, 4)
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
