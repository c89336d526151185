"""Anchors that fit the data: the sizes and ratios that leave the fewest objects without one.

Both vary as the network's structure allows: five sizes, one a level, are scaled together; ratios
are the present ones or cluster centres of the objects' own. Scales stay. NumPy only, and the same
result every time.
Letters: T objects, A anchors a cell, L levels, S size classes.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

MIN_GAIN = 0.01  # share of the objects that a change, or a further ratio, has to win over
MIN_MORE = 10  # objects that it has to win over at least
MAX_LOSS = 0.05  # share of a size class of at least MIN_MORE objects that it may lose at most
MIN_FACTOR = 1.25  # between two fitted ratios
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


def is_gain(before: np.ndarray, after: np.ndarray, counts: np.ndarray) -> bool:
    """Whether clearly more is covered. (S,) of each size class: covered before, after; objects."""
    return int(after.sum() - before.sum()) >= max(MIN_GAIN * counts.sum(), MIN_MORE)


def is_harm(before: np.ndarray, after: np.ndarray, counts: np.ndarray) -> bool:
    """Whether a size class covers clearly less. Arguments as of `is_gain`."""
    return bool(((counts >= MIN_MORE) & (before - after > MAX_LOSS * counts)).any())


def fit_anchors(
    boxes: np.ndarray,
    present: AnchorSet,
    grid: Grid,
    positive_iou: float,
    limits: Sequence[float],
) -> AnchorSet:
    """The set that most objects have an anchor of at `positive_iou`; `present` if none is better.

    boxes: (T, 4) xyxy at the network's input size. limits: sides in px between the size classes.
    A set with as many anchors as the present one or fewer has to cover clearly more (`is_gain`);
    one with more anchors that much more than any with fewer; none may harm a size class
    (`is_harm`). Of sets that cover the same to a tenth of a point, the one whose IoUs are higher on
    average wins.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), MAX_OBJECTS)).astype(int)]
    if not len(boxes):
        return present

    group = np.digitize(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)), limits)
    counts = np.bincount(group, minlength=len(limits) + 1)

    def judged(anchors: AnchorSet) -> tuple[np.ndarray, tuple[float, float]]:
        ious = best_ious(boxes, anchors, grid)
        is_covered = ious >= positive_iou
        covered = np.bincount(group[is_covered], minlength=len(counts))
        return covered, (round(float(is_covered.mean()), 3), float(ious.mean()))

    chosen, at_present = present, judged(present)[0]
    most = at_present
    for candidates in _candidates(boxes, present):
        ranked = [(*judged(anchors), anchors) for anchors in candidates]
        ranked = [one for one in ranked if not is_harm(at_present, one[0], counts)]
        covered, _, best = max(ranked, key=lambda one: one[1], default=(most, None, chosen))
        if is_gain(most, covered, counts):
            chosen, most = best, covered
    return chosen


def _candidates(boxes: np.ndarray, present: AnchorSet) -> list[list[AnchorSet]]:
    """Sets to choose from: those of no more anchors than the present one, then ever more."""
    ratios = [present.ratios, *(ratio_clusters(boxes, count) for count in NUM_RATIOS)]
    by_count: dict[int, list[AnchorSet]] = {}
    for one in dict.fromkeys(ratios):
        sizes = (tuple(_rounded(s * 2 ** (step / 4)) for s in present.sizes) for step in STEPS)
        sets = [replace(present, sizes=scaled, ratios=one) for scaled in sizes]
        by_count.setdefault(max(len(present), len(sets[0])), []).extend(sets)
    return [by_count[count] for count in sorted(by_count)]


def ratio_clusters(boxes: np.ndarray, count: int) -> tuple[float, ...]:
    """Centres of at most `count` clusters of the boxes' log(height / width), as ratios, rising.

    k-means in one dimension from evenly spread quantiles; fewer where two are not MIN_FACTOR apart.
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
    ratios = sorted({round(float(ratio), 2) or 0.01 for ratio in np.exp(centres)})
    if any(high < MIN_FACTOR * low for low, high in itertools.pairwise(ratios)):
        return ratio_clusters(boxes, count - 1)
    return tuple(ratios)


def _rounded(size: float) -> float:
    """Whole pixels from 4 on, so that the settings can be read."""
    return float(round(size)) if size >= 4 else round(float(size), 1)
