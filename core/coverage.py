"""Anchor coverage: which objects have an anchor that would answer for them in training.

An object that no anchor overlaps by the matcher's positive IoU is never learnt, unless
`matcher.low_quality` is on (paper section 4, "Anchors"); nor is one that claims none under ATSS.
Letters: N anchors, T objects, S size classes.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from core.anchors import AnchorGenerator
from core.targets import Atss, Matcher, best_overlaps

SIZES = (16, 32, 64, 128)  # pixels at the network's input: limits of the size classes
CLASSES = tuple(f"{low}-{high}" for low, high in itertools.pairwise([0, *SIZES, "inf"]))
MAX_OBJECTS = 5000  # looked at, evenly spread over the given ones
CHUNK = 256  # objects that ATSS looks at together


@dataclass(frozen=True)
class Coverage:
    """counts, covered: (S,) objects of each size class, of at most MAX_OBJECTS looked at, and those
    of them that have an anchor.

    positive_iou: what an anchor has to reach; None: what ATSS sets for each object.
    """

    positive_iou: float | None
    counts: np.ndarray
    covered: np.ndarray

    @property
    def share(self) -> float:
        """Covered objects of all; nan where there are none."""
        total = self.counts.sum()
        return float(self.covered.sum() / total) if total else math.nan

    def is_hopeless(self, matcher: Matcher | Atss) -> bool:
        """Whether there are objects, and none of them would be learnt."""
        takes_any = isinstance(matcher, Matcher) and matcher.low_quality
        return bool(self.counts.any() and not self.covered.any() and not takes_any)

    def line(self) -> str:
        """All of it in one line; size classes without objects are left out."""
        shares = [
            f"{name} px {covered / count:.1%} of {count}"
            for name, count, covered in zip(CLASSES, self.counts, self.covered, strict=True)
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
                CLASSES, self.counts.tolist(), self.covered.tolist(), strict=True
            )
        }
        share = None if math.isnan(self.share) else self.share
        return {"positive_iou": self.positive_iou, "share": share, "sizes": sizes}


def anchor_coverage(
    generator: AnchorGenerator, canvas: tuple[int, int], matcher: Matcher | Atss, boxes: np.ndarray
) -> Coverage:
    """Counts the objects that have an anchor, by the side of an equal square.

    Under `Matcher` an anchor at its positive IoU; under `Atss` one that an object claims when it is
    alone in its image: beside others it may lose it to one that overlaps it more.
    canvas: height, width of the network's input, px. boxes: (T, 4) xyxy there, T may be 0. A side
    on a limit belongs to the larger class.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), MAX_OBJECTS)).astype(int)]
    anchors, iou = generator(*canvas), None
    if isinstance(matcher, Atss):
        counts, is_covered = generator.level_counts(*canvas), np.zeros(len(boxes), bool)
        for i in range(0, len(boxes), CHUNK):
            _, overlaps = matcher.claims(anchors, tf.constant(boxes[None, i : i + CHUNK]), counts)
            is_covered[i : i + CHUNK] = (overlaps[0].numpy() >= 0).any(axis=(1, 2))
    else:
        iou = matcher.positive_iou
        is_covered = best_overlaps(anchors, tf.constant(boxes)).numpy() >= iou
    group = np.digitize(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)), SIZES)
    return Coverage(
        positive_iou=iou,
        counts=np.bincount(group, minlength=len(CLASSES)),
        covered=np.bincount(group[is_covered], minlength=len(CLASSES)),
    )
