"""Orientation in an EXIF block, which several types of image files carry.

EXIF 2.32, https://www.cipa.jp/std/documents/e/DC-008-Translation-2019-E.pdf: a small TIFF of tags.
"""

import mmap
from typing import Literal, TypeAlias

Buffer: TypeAlias = bytes | mmap.mmap
ByteOrder: TypeAlias = Literal["little", "big"]

BYTE_ORDERS: dict[bytes, ByteOrder] = {b"II": "little", b"MM": "big"}
ORIENTATION_TAG = 274


def exif_orientation(tiff: bytes) -> int:
    """The orientation in an EXIF block; 1 where there is none or it is not one of the eight."""
    if tiff[:2] not in BYTE_ORDERS:
        return 1
    order = BYTE_ORDERS[tiff[:2]]
    directory = uint(tiff, 4, 4, order)
    first, count = directory + 2, uint(tiff, directory, 2, order)
    for entry in range(first, min(first + 12 * count, len(tiff)), 12):
        if uint(tiff, entry, 2, order) == ORIENTATION_TAG:
            return orientation_of(uint(tiff, entry + 8, 2, order))
    return 1


def orientation_of(value: int) -> int:
    """The value, or 1 where it is not one of the eight."""
    return value if 1 <= value <= 8 else 1


def uint(data: Buffer, start: int, size: int, order: ByteOrder = "little") -> int:
    return int.from_bytes(data[start : start + size], order)
