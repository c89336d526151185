"""How many of the 16 bits of a value the images of a split use: cameras fill 10 or 12 of them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from data.files import open_data
from data.images import tiff
from data.images.decode import UNREADABLE, read_header, read_image
from data.images.png import SIGNATURE

# In a PNG the header's chunk comes first: of its 25 bytes the 17th says how many bits a value has.
_START, _DEPTH = SIGNATURE + b"\0\0\0\rIHDR", 24
PORTION = 64  # images looked at together: those of another portion are left when 16 bits are found


class Depth(NamedTuple):
    """Images of 16 bits a value; most: the largest value, or at least 2**15, where it stopped."""

    num_images: int
    most: int

    @property
    def bits(self) -> int:
        return bits_of(self.most)

    def describe(self, num_images: int) -> str:
        """How many of so many images there are, and their values."""
        values = "all 16 bits in use" if self.bits == 16 else f"values up to {self.most}"
        return f"{self.num_images} of {num_images}, {values}"


def bits_of(value: int) -> int:
    """The bits that a value takes, at least 8."""
    return max(int(value).bit_length(), 8)


def is_deep(path: str) -> bool:
    """Whether a file is a PNG or TIFF of 16 bits a value.

    Raises DatasetError if it cannot be read or is a TIFF that is not.
    """
    with open_data(path, kind=UNREADABLE) as file:
        start = file.read(_DEPTH + 1)
    if start.startswith(tiff.SIGNATURES):
        return read_header(path).bits == 16
    return start.startswith(_START) and start[_DEPTH] == 16


def depth_of(images: Sequence[str]) -> Depth | None:
    """Looks at the first bytes of each file, and decodes those of 16 bits; None: there are none.

    It stops decoding at the first value that needs all 16. Raises DatasetError for a file that
    cannot be read or decoded.
    """
    deep = [path for path in images if is_deep(path)]  # 60 us each; threads only fight over it
    if not deep:
        return None
    most = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(deep), PORTION):
            most = max(most, *pool.map(largest_value, deep[start : start + PORTION]))
            if bits_of(most) == 16:
                break
    return Depth(len(deep), most)


def largest_value(path: str) -> int:
    """Of a file's pixels, alpha aside, as they are stored."""
    return int(read_image(path).values().max())


def depth_problem(values: np.ndarray, bits: int | None) -> str | None:
    """What is lost where uint16 values are read as `bits` of them, in words; None: nothing much.

    bits: None where a model knows of no such images, which it was not trained on then.
    """
    most = int(values.max())
    if bits is None and bits_of(most) < 16:
        bits = bits_of(most)
        return f"values up to {most} keep their high byte only; model.bits={bits} uses them"
    if bits is not None and bits_of(most) > bits:
        return f"values up to {most}; what is above {2**bits - 1} (model.bits={bits}) becomes white"
    return None
