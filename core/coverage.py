"""Anchor coverage: which objects have an anchor that would answer for them in training.

An object that no anchor overlaps by the matcher's positive IoU is never learnt, unless
`matcher.low_quality` is on (paper section 4, "Anchors"); nor is one that claims none under ATSS.
Letters: N anchors, T objects, S size classes.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from core.anchors import Count
from core.targets import Atss, best_overlaps

SIZES = (16, 32, 64, 128)  # pixels at the network's input: limits of the size classes
MAX_OBJECTS = 5000  # looked at, evenly spread over the given ones


@dataclass(frozen=True)
class Coverage:
    """counts, covered: (S,) objects of each size class, of at most MAX_OBJECTS looked at, and those
    of them that have an anchor.

    positive_iou: what an anchor has to reach; None: what ATSS sets for each object.
    limits: (S - 1,) sides in px between the classes.
    """

    positive_iou: float | None
    limits: tuple[float, ...]
    counts: np.ndarray
    covered: np.ndarray

    @property
    def share(self) -> float:
        """Covered objects of all; nan where there are none."""
        total = self.counts.sum()
        return float(self.covered.sum() / total) if total else math.nan

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the size classes: "0-16", ..., "128-inf"."""
        ends = ["0", *(f"{limit:g}" for limit in self.limits), "inf"]
        return tuple(f"{low}-{high}" for low, high in itertools.pairwise(ends))

    def line(self) -> str:
        """All of it in one line; size classes without objects are left out."""
        shares = [
            f"{name} px {covered / count:.1%} of {count}"
            for name, count, covered in zip(self.classes, self.counts, self.covered, strict=True)
            if count
        ]
        total = f"{self.share:.1%}" if shares else "no objects"
        rule = "by ATSS" if self.positive_iou is None else f"at IoU {self.positive_iou}"
        return f"anchor coverage {rule}: {total} ({', '.join(shares)})"

    def to_dict(self) -> dict:
        """JSON-ready; a share is None where there are no objects."""
        sizes = {
            name: {"objects": int(count), "share": covered / count if count else None}
            for name, count, covered in zip(
                self.classes, self.counts.tolist(), self.covered.tolist(), strict=True
            )
        }
        share = None if math.isnan(self.share) else self.share
        return {"positive_iou": self.positive_iou, "share": share, "sizes": sizes}


def anchor_coverage(
    anchors: tf.Tensor, boxes: np.ndarray, positive_iou: float, limits: Sequence[float] = SIZES
) -> Coverage:
    """Counts the objects that have an anchor at `positive_iou`, by the side of an equal square.

    anchors: (N, 4) xyxy. boxes: (T, 4) xyxy at the network's input size, T may be 0.
    limits: sides in px, rising; a side on a limit belongs to the larger class.
    """
    boxes = _some(boxes)
    is_covered = best_overlaps(anchors, tf.constant(boxes)).numpy() >= positive_iou
    return _count(positive_iou, limits, boxes, is_covered)


def atss_coverage(
    matcher: Atss,
    anchors: tf.Tensor,
    level_counts: Sequence[Count],
    boxes: np.ndarray,
    limits: Sequence[float] = SIZES,
    chunk: int = 256,
) -> Coverage:
    """Counts the objects that ATSS gives an anchor when each is alone in its image.

    Beside others it may lose the anchor to one that overlaps it more. level_counts: anchors on each
    level. chunk: objects at a time. The others: see `anchor_coverage`.
    """
    boxes = _some(boxes)
    is_covered = np.zeros(len(boxes), bool)
    for i in range(0, len(boxes), chunk):
        _, iou = matcher.claims(anchors, tf.constant(boxes[None, i : i + chunk]), level_counts)
        is_covered[i : i + chunk] = (iou[0].numpy() >= 0).any(axis=(1, 2))
    return _count(None, limits, boxes, is_covered)


def _some(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), MAX_OBJECTS)).astype(int)]


def _count(
    positive_iou: float | None, limits: Sequence[float], boxes: np.ndarray, is_covered: np.ndarray
) -> Coverage:
    group = np.digitize(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)), limits)
    return Coverage(
        positive_iou=positive_iou,
        limits=tuple(limits),
        counts=np.bincount(group, minlength=len(limits) + 1),
        covered=np.bincount(group[is_covered], minlength=len(limits) + 1),
    )
