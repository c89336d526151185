"""Boxes that were written in another unit or order than they are read in, told by their share.

A single box may be anything; where more than half of a split's boxes (a quarter, if they are
several) make sense only when they are read in another way, the file was written in that way.
Letters: T objects.
"""

from typing import Any, Literal, TypeAlias

import numpy as np

from data.records import DatasetError

# How a format writes a box: two corners; the upper left one, width and height; centre, width and
# height in fractions of the image.
Written: TypeAlias = Literal["corners", "corner and size", "fractions"]

MOST, ALL = 0.5, 0.95  # of the boxes
FEW = 3  # boxes that tell corners from sizes; one tells fractions from pixels
FRACTION = 2.0  # px from the image's corner that no fraction goes beyond
TOLERANCE = 2.0  # px beyond the image that rounding explains
MANY = 0.25  # of the boxes; with FEW at least they are too many for single mistakes


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
        if _are_many(is_far):
            return int(is_far.sum()), "expected fractions of the image, found pixels"
        first = (first + second) / 2
    else:
        is_tiny = (second <= FRACTION).all(axis=1) & (first >= -1).all(axis=1)
        is_tiny &= (sizes > 10 * FRACTION).all(axis=1) & (side > 0).all(axis=1)
        if _are_many(is_tiny):
            return int(is_tiny.sum()), "expected pixels, found fractions of the image"
    if len(boxes) < FEW:
        return None
    if written == "corners":
        as_sizes = ((second > 0) & (first + second <= limit)).all(axis=1)
        count = int(np.count_nonzero((side < 0).any(axis=1) & as_sizes))
        if as_sizes.mean() > ALL and count >= max(FEW, MANY * len(boxes)):
            if (side < 0).all(axis=1).mean() > MOST:
                problem = "found the second before the first, or width and height"
                return count, f"expected two corners of a box, {problem}"
            return count, "expected two corners of a box, found a corner, width and height"
        return None
    as_corners = ((side > first) & (side <= limit)).all(axis=1)
    is_beyond = boxes[:, 2:] > limit
    if written == "fractions":  # of a corner and a size the corner says nothing
        is_beyond |= boxes[:, :2] < -TOLERANCE
    is_wrong = is_beyond.any(axis=1) & as_corners
    if areas is not None:
        of_corners = (side - first).prod(axis=1)
        is_wrong |= (
            as_corners & np.isclose(areas, of_corners) & ~np.isclose(areas, side.prod(axis=1))
        )
    if is_wrong.mean() > MOST or (as_corners.mean() > ALL and _are_many(is_wrong)):
        return int(is_wrong.sum()), "expected width and height, found a second corner"
    return None


def _are_many(flags: Any) -> bool:
    share = np.mean(flags)
    return bool(share > MOST or (share >= MANY and np.count_nonzero(flags) >= FEW))
