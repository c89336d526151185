"""The pixels of a view: decoded no larger than they must be, cut, resized, recoloured, placed.

NumPy and OpenCV, which lets go of the interpreter's lock: tf.data calls this from many threads.
Letters: H W pixels of the oriented image, h w of the result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from loguru import logger

from data.images.bit_depth import depth_problem
from data.images.decode import REDUCTIONS, EncodedImage, ImageHeader, in_8_bits, orient, read_image
from data.images.views import View
from data.records import Dataset, DatasetError

cv2.setNumThreads(1)  # of the whole process: tf.data works on many images at once already
Reader: TypeAlias = Callable[[int, np.ndarray, np.ndarray, bool, int], np.ndarray]
GREY = 116  # ImageNet's mean, near zero once normalised: what lies beyond an image


@dataclass(frozen=True)
class Decoded:
    """pixels: (h, w, 3) uint8 as stored, sides divided by `reduction` and rounded up."""

    pixels: np.ndarray
    reduction: int
    header: ImageHeader

    def part(self, source: np.ndarray, size: np.ndarray, antialias: bool) -> np.ndarray:
        """The rectangle `source` (y, x, height, width in pixels of the image) at (h, w) `size`.

        Its beginning must be a whole reduced pixel, see `is_whole`; its end need not be.
        Returns (h, w, 3), uint8 with `antialias`, float32 without.
        """
        y, x, height, width = self.header.stored(*source.tolist())
        rows = slice(y // self.reduction, -(-(y + height) // self.reduction))
        columns = slice(x // self.reduction, -(-(x + width) // self.reduction))
        extent = np.array([height, width]) / self.reduction
        size = size[::-1] if self.header.swaps_sides else size
        pixels = resample(self.pixels[rows, columns], size, antialias, extent)
        return orient(pixels, self.header.orientation)


def image_reader(dataset: Dataset, cache: bool = False) -> Reader:
    """A function (index, source, size, antialias, kept) -> pixels, as `Decoded.part`.

    cache: each image is decoded once and kept, reduced by up to `kept` (of REDUCTIONS; JPEG only).
    Files of 16 bits are read as `dataset.bits` says; the first with other values is a warning.
    The function raises DatasetError for a file that cannot be decoded or whose size has changed.
    """
    memory: dict[int, Decoded] = {}
    told: list[str] = []

    def decode(index: int, antialias: bool, reduction: Callable[[ImageHeader], int]) -> Decoded:
        image = read_image(dataset.images[index])
        _check_size(image, dataset.sizes[index])
        by = reduction(image.header) if antialias and image.can_be_reduced else 1
        values = image.values(by)
        if values.dtype == np.uint16 and not told:
            problem = depth_problem(values, dataset.bits)
            if problem:
                told.append(problem)
                logger.warning("{}: {}; further images are not named", image.path, problem)
        return Decoded(in_8_bits(values, dataset.bits), by, image.header)

    def read(
        index: int, source: np.ndarray, size: np.ndarray, antialias: bool, kept: int
    ) -> np.ndarray:
        if cache and index not in memory:
            memory[index] = decode(index, antialias, lambda header: _for_all(header, kept))
            memory[index].pixels.flags.writeable = False  # samples may be views of it
        decoded = memory.get(index)
        if decoded is None or not is_whole(decoded.header, source, decoded.reduction):
            decoded = decode(index, antialias, lambda header: _for_one(header, source, size))
        return decoded.part(source, size, antialias)

    return read


def is_whole(header: ImageHeader, source: np.ndarray, reduction: int) -> bool:
    """Whether a part of an image begins at a whole pixel of the reduced image, as it is stored."""
    y, x, _, _ = header.stored(*source.tolist())
    return y % reduction == 0 and x % reduction == 0


def _for_one(header: ImageHeader, source: np.ndarray, size: np.ndarray) -> int:
    """The most to decode with: what is seen is then still no smaller than it is to become."""
    room = (source[2:] // size).min()
    return max(r for r in REDUCTIONS if r == 1 or (r <= room and is_whole(header, source, r)))


def _for_all(header: ImageHeader, kept: int) -> int:
    """The reduction to keep an image with; 1 if flipping makes it begin inside a reduced pixel."""
    is_ragged = any(side % kept for side in header.stored_size)
    return 1 if is_ragged and header.orientation != 1 else kept


def _check_size(image: EncodedImage, expected: np.ndarray) -> None:
    found = image.header.width, image.header.height
    if found != tuple(expected):
        raise DatasetError(
            f"{image.path}: expected {expected[0]}x{expected[1]} pixels as when the dataset was "
            f"read, found {found[0]}x{found[1]}",
            kind="unreadable image",
        )


def resample(
    pixels: np.ndarray, size: np.ndarray, antialias: bool, extent: np.ndarray | None = None
) -> np.ndarray:
    """Resizes (H, W, 3) uint8 to (h, w) `size`, bilinear where it grows.

    extent: (2,) height and width of what is to fill the result, if the pixels are some fraction
        more; from the top left.
    antialias: where it shrinks, the mean of all that a new pixel covers (a box filter, as that of
        JPEG's reduced decoding); otherwise bilinear there too.
    Returns uint8 with `antialias`; float32 without, the numbers of torchvision and TensorFlow.
    """
    extent = np.array(pixels.shape[:2]) if extent is None else extent
    factors = size / extent
    if antialias:
        pixels = _scaled(pixels, np.minimum(factors, 1), cv2.INTER_AREA)
        pixels = _scaled(pixels, np.maximum(factors, 1), cv2.INTER_LINEAR)
    else:
        pixels = _scaled(pixels.astype(np.float32), factors, cv2.INTER_LINEAR)
    return pixels[: size[0], : size[1]]


def _scaled(pixels: np.ndarray, factors: np.ndarray, interpolation: int) -> np.ndarray:
    if (factors == 1).all():
        return pixels
    fy, fx = factors  # not the size: the pixels may be a fraction more than the extent
    return cv2.resize(pixels, None, fx=fx, fy=fy, interpolation=interpolation)


def recolor(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Changes the colours of (h, w, 3) uint8 or float32, 0-255; `matrix` is of `color_matrix`.

    Where the matrix changes the contrast, the mean of the image stays.
    """
    gain = matrix[:, :3].sum(axis=1)  # what grey is multiplied by: 1 + contrast
    mean = np.mean(cv2.mean(image)[:3])
    offset = matrix[:, 3] + (1.0 - gain) * mean
    changed = cv2.transform(image, np.column_stack([matrix[:, :3], offset]).astype(np.float32))
    return changed if changed.dtype == np.uint8 else np.clip(changed, 0.0, 255.0)


def compose(pixels: np.ndarray, view: View) -> np.ndarray:
    """The pixels of a view's target in their place: mirrored, and grey around them."""
    y, x, height, width = view.target
    rows, columns = view.flips
    if rows or columns:
        pixels = cv2.flip(pixels, -1 if rows and columns else int(columns))
        y = view.size[0] - y - height if rows else y
        x = view.size[1] - x - width if columns else x
    if (view.target[2:] == view.size).all():
        return pixels
    image = np.full([*view.size, 3], GREY, pixels.dtype)
    image[y : y + height, x : x + width] = pixels
    return image


def pad(pixels: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Zeros at the bottom and right up to (2,) height and width `size`."""
    height, width, _ = pixels.shape
    if (height, width) == tuple(size):
        return pixels
    image = np.zeros([*size, 3], pixels.dtype)
    image[:height, :width] = pixels
    return image
