"""Anchors that fit the data: the sizes and ratios that leave the fewest objects without one.

Both vary as the network's structure allows: five sizes, one a level, are scaled together; ratios
are the present ones or cluster centres of the objects' own. Scales stay. NumPy only, and the same
result every time.
Letters: T objects, A anchors a cell, L levels.
"""

from dataclasses import dataclass, replace

import numpy as np

MIN_GAIN = 0.01  # share of the objects that a change, or a further ratio, has to win over
MAX_OBJECTS = 3000  # looked at, evenly spread over the given ones
STEPS = range(-8, 9)  # sizes are scaled by 2 ** (step / 4)
NUM_RATIOS = (3, 4, 5)


@dataclass(frozen=True)
class AnchorSet:
    """sizes: L sides in px; ratios: height / width; scales: steps within a level."""

    sizes: tuple[float, ...]
    ratios: tuple[float, ...]
    scales: tuple[float, ...]

    def __len__(self) -> int:
        """Anchors a cell."""
        return len(self.ratios) * len(self.scales)

    def snippet(self) -> str:
        """The settings that differ from file to file, as lines for config.py."""
        return f'"model.anchors.sizes": {self.sizes!r},\n"model.anchors.ratios": {self.ratios!r},'


@dataclass(frozen=True)
class Grid:
    """Where anchors are centred: `offset` + 0, 1, ... cells of each level's stride.

    strides: L px. height, width: of the network's input, px.
    """

    strides: tuple[int, ...]
    height: int
    width: int
    offset: float = 0.5


def best_ious(boxes: np.ndarray, anchors: AnchorSet, grid: Grid) -> np.ndarray:
    """(T, 4) xyxy at the network's input -> (T,) the best IoU with any anchor.

    Exact but for anchors that are rounded: of equal boxes on a grid, the one with the nearest
    centre overlaps most, so one cell a level is looked at.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    best = np.zeros(len(boxes))
    for size, stride in zip(anchors.sizes, grid.strides, strict=True):
        last = -(-np.array([grid.width, grid.height]) // stride) - 1
        cells = np.round(centres / stride - grid.offset).clip(0, last)
        away = np.abs(centres - (cells + grid.offset) * stride)  # (T, 2)
        shapes = _shapes(size, anchors)  # (A, 2)
        overlaps = [
            _overlap(sides[:, [axis]], shapes[None, :, axis], away[:, [axis]]) for axis in (0, 1)
        ]
        both = overlaps[0] * overlaps[1]  # (T, A)
        union = sides.prod(axis=1)[:, None] + shapes.prod(axis=1) - both
        best = np.maximum(best, (both / union.clip(1e-9)).max(axis=1))
    return best


def _shapes(size: float, anchors: AnchorSet) -> np.ndarray:
    """(A, 2) width, height of the anchors of a level."""
    roots, sides = np.sqrt(anchors.ratios)[:, None], size * np.asarray(anchors.scales)
    return np.stack([(sides / roots).ravel(), (sides * roots).ravel()], axis=1)


def _overlap(first: np.ndarray, second: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Length that two intervals share whose centres are so far apart."""
    return np.minimum(np.minimum(first, second), (first + second) / 2 - away).clip(0)


def fit_anchors(
    boxes: np.ndarray, present: AnchorSet, grid: Grid, positive_iou: float
) -> AnchorSet:
    """The set that most objects have an anchor of at `positive_iou`; `present` if none is better.

    boxes: (T, 4) xyxy at the network's input size. A set with as many anchors as the present one or
    fewer has to cover MIN_GAIN more; one with more anchors that much more than any with fewer. Of
    sets that cover the same to a tenth of a point, the one whose IoUs are higher on average wins.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), MAX_OBJECTS)).astype(int)]
    if not len(boxes):
        return present

    def rank(anchors: AnchorSet) -> tuple[float, float]:
        ious = best_ious(boxes, anchors, grid)
        return round(float((ious >= positive_iou).mean()), 3), float(ious.mean())

    chosen, share = present, rank(present)[0]
    ratios = [present.ratios, *(ratio_clusters(boxes, count) for count in NUM_RATIOS)]
    by_count: dict[int, list[AnchorSet]] = {}
    for one in dict.fromkeys(ratios):
        sizes = (tuple(_rounded(s * 2 ** (step / 4)) for s in present.sizes) for step in STEPS)
        candidates = [replace(present, sizes=scaled, ratios=one) for scaled in sizes]
        by_count.setdefault(max(len(present), len(candidates[0])), []).extend(candidates)
    for count in sorted(by_count):
        best = max(by_count[count], key=rank)
        if rank(best)[0] >= share + MIN_GAIN:
            chosen, share = best, rank(best)[0]
    return chosen


def ratio_clusters(boxes: np.ndarray, count: int) -> tuple[float, ...]:
    """Centres of at most `count` clusters of the boxes' log(height / width), as ratios, rising.

    k-means in one dimension from evenly spread quantiles; fewer where centres coincide.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(1e-6)
    values = np.sort(np.log(sides[:, 1] / sides[:, 0]))
    centres = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(100):
        nearest = np.abs(values[:, None] - centres).argmin(axis=1)
        members = np.bincount(nearest, minlength=count)
        sums = np.bincount(nearest, values, minlength=count)
        moved = np.where(members > 0, sums / members.clip(1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return tuple(sorted({round(float(ratio), 2) or 0.01 for ratio in np.exp(centres)}))


def _rounded(size: float) -> float:
    """Whole pixels from 4 on, so that the settings can be read."""
    return float(round(size)) if size >= 4 else round(float(size), 1)
