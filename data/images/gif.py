"""The container of a GIF: its size and its first frame, which is all that is read.

GIF89a, https://www.w3.org/Graphics/GIF/spec-gif89a.txt.
"""

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import GifImagePlugin

from data.images.exif import Buffer

SIGNATURES = (b"GIF87a", b"GIF89a")
FIRST_FRAME = "first of several frames"
MAX_BLOCKS = 2**20  # encoders put 255 bytes into one: as many are 0.26 GB
_EXTENSION, _FRAME, _TRAILER = 0x21, 0x2C, b";"
_SCREEN, _PLACE = struct.Struct("<6sHHBBB"), struct.Struct("<HHHHB")


@dataclass(frozen=True)
class Gif:
    """What the blocks of a file say.

    width, height: of the screen, which is no smaller than its first frame. place: the frame's x, y,
    width, height and flags. start, end: offsets of its own colours and pixels. is_complete: whether
    these are there. background: RGB, what the screen shows beside the frame.
    """

    width: int
    height: int
    place: tuple[int, int, int, int, int]
    start: int
    end: int
    is_complete: bool
    background: bytes
    notes: tuple[str, ...]
    mode: str = "P"  # Pillow's name for a palette
    bits: int = 8
    orientation: int = 1

    def decode(self, data: bytes) -> np.ndarray:
        """(height, width, 3) uint8 RGB; a transparent pixel has the colour that its index names.

        Raises ValueError for corrupt pixels.
        """
        x, y, width, height, flags = self.place
        # A file of this frame alone: what else is there concerns no pixel of it.
        signature, _, _, packed, background, ratio = _SCREEN.unpack_from(data)
        head = _SCREEN.pack(signature, width, height, packed, background, ratio)
        head += data[_SCREEN.size : _SCREEN.size + _table_bytes(packed)]
        head += bytes([_FRAME]) + _PLACE.pack(0, 0, width, height, flags)
        try:
            image = GifImagePlugin.GifImageFile(
                io.BytesIO(head + data[self.start : self.end] + _TRAILER)
            )
            frame = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, EOFError) as error:
            raise ValueError(f"cannot be decoded ({error})") from error
        if (width, height) == (self.width, self.height):
            return frame
        screen = np.empty((self.height, self.width, 3), np.uint8)
        screen[:] = list(self.background)
        screen[y : y + height, x : x + width] = frame
        return screen


def parse(data: Buffer) -> Gif:
    """Finds the first frame, and whether there is another.

    Raises ValueError where there is none, where it has no pixels, or at more than MAX_BLOCKS.
    """
    width, height, packed, background = _SCREEN.unpack(data[:13].ljust(13, b"\0"))[1:5]
    colors = data[13 : 13 + _table_bytes(packed)]
    start, blocks = _next_frame(data, 13 + _table_bytes(packed), MAX_BLOCKS)
    place = _PLACE.unpack(data[start : start + 9].ljust(9, b"\0"))
    if not start or not place[2] * place[3]:
        raise ValueError("expected a GIF with a frame, found none")
    pixels = start + 9 + _table_bytes(place[4]) + 1  # one byte says how they are packed
    end, blocks = _skip(data, pixels, blocks)
    is_complete = pixels < end <= len(data)
    return Gif(
        width=max(width, place[0] + place[2]),
        height=max(height, place[1] + place[3]),
        place=place,
        start=start + 9,
        end=end,
        is_complete=is_complete,
        background=colors[3 * background :][:3].ljust(3, b"\0"),
        notes=(FIRST_FRAME,) if is_complete and _next_frame(data, end, blocks)[0] else (),
    )


def _table_bytes(flags: int) -> int:
    return 3 * 2 ** (1 + flags % 8) if flags & 0x80 else 0


def _next_frame(data: Buffer, position: int, blocks: int) -> tuple[int, int]:
    """Where the next frame's place stands, 0 where none follows; the blocks that are left."""
    while position < len(data) and data[position] == _EXTENSION:
        position, blocks = _skip(data, position + 2, blocks)
    is_frame = position < len(data) and data[position] == _FRAME
    return (position + 1 if is_frame else 0), blocks


def _skip(data: Buffer, position: int, blocks: int) -> tuple[int, int]:
    """The offset behind a row of blocks, beyond the file where they do not end; those left."""
    size = len(data)
    while position < size and (length := data[position]):
        position += 1 + length
        blocks -= 1
        if not blocks:
            raise ValueError(f"expected at most {MAX_BLOCKS} blocks, found more")
    return position + 1, blocks
