"""Anchor coverage: which objects have an anchor that would answer for them in training.

An object that no anchor overlaps by the matcher's positive IoU is never learnt, unless
`matcher.low_quality` is on (paper section 4, "Anchors").
Letters: N anchors, T objects, S size classes.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from core.targets import best_overlaps

SIZES = (16, 32, 64, 128)  # pixels at the network's input: limits of the size classes
MAX_OBJECTS = 5000  # looked at, evenly spread over the given ones


@dataclass(frozen=True)
class Coverage:
    """counts, covered: (S,) objects of each size class, of at most MAX_OBJECTS looked at, and those
    of them that have an anchor.

    positive_iou: what an anchor has to reach. limits: (S - 1,) sides in px between the classes.
    """

    positive_iou: float
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
        return f"anchor coverage at IoU {self.positive_iou}: {total} ({', '.join(shares)})"

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
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    rows = np.linspace(0, len(boxes) - 1, min(len(boxes), MAX_OBJECTS)).astype(int)
    boxes = boxes[rows]
    is_covered = best_overlaps(anchors, tf.constant(boxes)).numpy() >= positive_iou
    group = np.digitize(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)), limits)
    return Coverage(
        positive_iou=positive_iou,
        limits=tuple(limits),
        counts=np.bincount(group, minlength=len(limits) + 1),
        covered=np.bincount(group[is_covered], minlength=len(limits) + 1),
    )
