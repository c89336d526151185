"""The detections of a split, however they came: from a detector, a file or arrays of one's own.

Letters: M images, D detections, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from utils.arrays import finite, require_indices, rows_of_each, set_fields, whole_numbers


@dataclass(frozen=True)
class DetectionTable:
    """The detections of a whole split in flat arrays, in any order.

    image_ids: M different strings. classes: K different names.
    image: (D,) int, index into image_ids; becomes int64.
    boxes: (D, 4) xyxy, absolute pixels, continuous coordinates, finite; becomes float64.
    scores: (D,) finite, higher is surer; becomes float64.
    labels: (D,) int, index into classes; becomes int64. Padded rows must have been dropped.

    Raises ValueError naming the field, expected and found.
    """

    image_ids: tuple[str, ...]
    classes: tuple[str, ...]
    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        image = whole_numbers("image", self.image)
        labels = whole_numbers("labels", self.labels, len(image))
        require_indices("image", image, len(self.image_ids))
        require_indices("labels", labels, len(self.classes))
        set_fields(
            self,
            image_ids=_different("image_ids", self.image_ids),
            classes=_different("classes", self.classes),
            image=image,
            boxes=finite("boxes", self.boxes, (len(image), 4)),
            scores=finite("scores", self.scores, (len(image),)),
            labels=labels,
        )

    def __len__(self) -> int:
        return len(self.image)

    def at_least(self, threshold: float) -> "DetectionTable":
        """The detections of at least a score, compared in float32 as detectors compute it."""
        rows = self.scores.astype(np.float32) >= threshold
        names = ("image", "boxes", "scores", "labels")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def rows_by_image(self) -> list[np.ndarray]:
        """For each of the M images the rows of its detections, in the table's order."""
        return rows_of_each(self.image, len(self.image_ids))


def _different(name: str, names: Sequence[str]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise ValueError(f"{name}: expected different names, found {twice!r} twice")
    return tuple(names)
