"""The container of a PNG: its chunks, what its header promises, what a decoder must not inflate.

Portable Network Graphics Specification, https://www.w3.org/TR/png/. Letters: W H pixels as stored.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from data.images.exif import Buffer, exif_orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> values a pixel; of a palette its index
MAX_CHUNKS = 2**17  # writers put 8 KB and more into one: as many are a GiB
# Compressed, these hold texts, each of which libpng inflates to 8 MB and then drops.
TEXTS = (b"zTXt", b"iTXt")
# Of the bytes a header promises, how many compressed ones may take at most, and so many more: what
# does not compress is stored with 5 bytes for each block, of 64 KB or, flushed often, of less.
MOST_STORED, MORE_STORED = 2, 2**16
PORTION = 2**16  # bytes inflated at a time
# Adam7: first column and row of each pass, and the steps to the next.
PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip
_HEADER = struct.Struct(">IIBBBBB")


@dataclass(frozen=True)
class Png:
    """What the chunks of a file say.

    bits: of a value, 8 where there are fewer. raw_bytes: of the pixels once inflated.
    packed_bytes: of all IDAT chunks. orientation: the EXIF value. is_complete: whether it ends with
    IEND. has_texts: whether it has compressed texts.
    """

    width: int
    height: int
    bits: int
    raw_bytes: int
    packed_bytes: int
    orientation: int
    is_complete: bool
    has_texts: bool
    notes: tuple[str, ...] = ()

    @property
    def is_overfull(self) -> bool:
        """Whether its pixels take more bytes compressed than they can: the rest is a bomb."""
        return self.packed_bytes > self.raw_bytes * MOST_STORED + MORE_STORED


def chunks(data: Buffer) -> Iterator[tuple[bytes, int, int]]:
    """Yields (type, offset of the contents, length) of each chunk that is there in full.

    Raises ValueError at more than MAX_CHUNKS.
    """
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if position + 12 > len(data):
            return
        length = int.from_bytes(data[position : position + 4], "big")
        if position + 12 + length > len(data):
            return
        yield data[position + 4 : position + 8], position + 8, length
        position += 12 + length
    if position + 12 <= len(data):
        raise ValueError(f"expected at most {MAX_CHUNKS} chunks, found more")


def parse(data: Buffer) -> Png:
    """Takes the chunks of a PNG apart; of no size where it has no header.

    Raises ValueError for too many chunks and for a header that no version of the format has.
    """
    header, packed, exif, is_complete, has_texts = b"", 0, b"", False, False
    for kind, start, length in chunks(data):
        if kind == b"IHDR" and not header:  # the first is what decoders go by
            header = data[start : start + length].ljust(_HEADER.size, b"\0")
        elif kind == b"IDAT":
            packed += length
        elif kind == b"eXIf":  # it may come after the pixels
            exif = data[start : start + length].removeprefix(b"Exif\0\0")
        elif kind == b"IEND":
            is_complete = True
            break
        has_texts |= kind in TEXTS
    fields = _HEADER.unpack_from(header or bytes(_HEADER.size))
    width, height, bits, color_type, _, _, interlace = fields
    if color_type not in BANDS:
        raise ValueError(f"expected the colour type 0, 2, 3, 4 or 6, found {color_type}")
    bits_a_pixel = bits * BANDS[color_type]
    raw = sum(h * (1 + (w * bits_a_pixel + 7) // 8) for w, h in _pictures(width, height, interlace))
    orientation, bits = exif_orientation(exif), max(bits, 8)
    return Png(width, height, bits, raw, packed, orientation, is_complete, has_texts)


def _pictures(width: int, height: int, interlace: int) -> list[tuple[int, int]]:
    """(width, height) of what is stored one after another: the image, or its interlaced passes."""
    if not interlace:
        return [(width, height)]
    sizes = [
        (math.ceil((width - x) / step_x), math.ceil((height - y) / step_y))
        for x, y, step_x, step_y in PASSES
    ]
    return [(w, h) for w, h in sizes if w > 0 and h > 0]


def inflates_beyond(data: Buffer, raw_bytes: int) -> bool:
    """Whether the pixels of a PNG inflate to more than `raw_bytes`.

    Stops there, whatever follows; takes two thirds of the time that decoding does.
    """
    inflater, count = zlib.decompressobj(), 0
    try:
        for kind, start, length in chunks(data):
            if kind != b"IDAT":
                continue
            for at in range(start, start + length, PORTION):
                waiting = data[at : min(at + PORTION, start + length)]
                while waiting and not inflater.eof:
                    count += len(inflater.decompress(waiting, PORTION))
                    waiting = inflater.unconsumed_tail
                    if count > raw_bytes:
                        return True
    except zlib.error:  # the decoder says what is wrong
        return False
    return False


def without_texts(data: bytes) -> bytes:
    """The file without the chunks of `TEXTS` and without what follows its end."""
    parts = [SIGNATURE]
    for kind, start, length in chunks(data):
        if kind not in TEXTS:
            parts.append(data[start - 8 : start + length + 4])
        if kind == b"IEND":
            break
    return b"".join(parts)
