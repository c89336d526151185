"""Boxes that were written in another unit or order than they are read in, told by their share.

A single box may be anything; where more than half of a split's boxes make sense only when they are
read in another way, the file was written in that way.
Letters: T objects.
"""

from typing import Any, Literal, TypeAlias

import numpy as np

from data.records import DatasetError

# How a format writes a box: two corners; the upper left one, width and height; centre, width and
# height in fractions of the image.
Written: TypeAlias = Literal["corners", "corner and size", "fractions"]

MOST = 0.5  # of the boxes
FEW = 3  # boxes that tell corners from sizes; one tells fractions from pixels
FRACTION = 2.0  # px from the image's corner that no fraction goes beyond
TOLERANCE = 2.0  # px beyond the image that rounding explains
INVERTED = 0.25  # of sizes read as corners that many at least have the second left of the first


def require_plausible(
    name: str,
    boxes: np.ndarray,
    sizes: np.ndarray,
    written: Written,
    areas: np.ndarray | None = None,
) -> None:
    """Raises DatasetError where most boxes make sense only in another unit or order.

    name: of the split, for the message. boxes: (T, 4) xyxy in pixels as they were read, unclipped.
    sizes: (T, 2) width, height of each one's image. areas: (T,) as the file states them, nan where
    it does not.
    """
    if not len(boxes):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        found = _suspicion(boxes, sizes, written, areas)
    if found:
        count, problem = found
        raise DatasetError(f"{name}: {problem}: so it looks for {count} of {len(boxes)} boxes")


def _suspicion(
    boxes: np.ndarray, sizes: np.ndarray, written: Written, areas: np.ndarray | None
) -> tuple[int, str] | None:
    """How many boxes make which problem likely."""
    first, second, limit = boxes[:, :2], boxes[:, 2:], sizes + TOLERANCE
    side = second - first
    if written == "fractions":
        is_far = ((first < -0.5 * sizes) | (second > 1.5 * sizes)).any(axis=1)
        if _are_most(is_far):
            return int(is_far.sum()), "expected fractions of the image, found pixels"
        first = (first + second) / 2
    else:
        is_tiny = (second <= FRACTION).all(axis=1) & (first >= -1).all(axis=1)
        is_tiny &= (sizes > 10 * FRACTION).all(axis=1)
        if _are_most(is_tiny):
            return int(is_tiny.sum()), "expected pixels, found fractions of the image"
    if len(boxes) < FEW:
        return None
    if written == "corners":
        as_sizes = ((second > 0) & (first + second <= limit)).all(axis=1)
        count = int(np.count_nonzero((side < 0).any(axis=1) & as_sizes))
        if as_sizes.mean() > 0.95 and count >= max(FEW, INVERTED * len(boxes)):
            return count, "expected two corners of a box, found a corner, width and height"
        return None
    as_corners = ((side > first) & (side <= limit)).all(axis=1)
    is_wrong = ((boxes[:, 2:] > limit) | (boxes[:, :2] < -TOLERANCE)).any(axis=1) & as_corners
    if areas is not None:
        of_corners = (side - first).prod(axis=1)
        is_wrong |= (
            as_corners & np.isclose(areas, of_corners) & ~np.isclose(areas, side.prod(axis=1))
        )
    if _are_most(is_wrong):
        return int(is_wrong.sum()), "expected width and height, found a second corner"
    return None


def _are_most(flags: Any) -> bool:
    return bool(np.mean(flags) > MOST)
