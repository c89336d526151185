"""What becomes of a defect: an error at the first one, or dropped, counted and reported.

Every reader rejects through a `Judge`, so that `data.on_bad_annotation` means the same for all.
Letters: T objects.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from data.records import DatasetError, Defects

MAX_OVERSHOOT = 2.0  # px beyond the image that are taken for rounding, and clipped
POLICIES = ("error", "drop")


@dataclass(frozen=True)
class Judge:
    """on_bad_annotation: "error" raises at the first defect, "drop" leaves out and counts.

    Raises ValueError for another policy.
    """

    on_bad_annotation: str = "error"
    defects: Defects = field(default_factory=Defects)

    def __post_init__(self):
        if self.on_bad_annotation not in POLICIES:
            raise ValueError(
                f"on_bad_annotation: expected 'error' or 'drop', found {self.on_bad_annotation!r}"
            )

    def reject(self, error: DatasetError) -> None:
        """Raises `error`, or counts it: then the caller leaves its object or image out."""
        if self.on_bad_annotation == "error":
            raise error
        self.defects.add(error.kind, str(error))

    def clip(
        self,
        boxes: np.ndarray,
        sizes: np.ndarray,
        where: Callable[[int], str],
        may_leave_image: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes as the files give them -> boxes inside their images, and which are any good.

        boxes: (T, 4) float64 xyxy, finite. sizes: (T, 2) width, height of each one's image.
        where: row -> file and object, for messages; called for bad rows only.
        may_leave_image: leaves boxes beyond the image as they are (CrowdHuman's full bodies).
        Returns (T, 4) float64, rounded to float32, and (T,) bool: not those that are empty or inverted, or that reach
        more than MAX_OVERSHOOT beyond the image, or lie outside. Up to that much is clipped.
        """
        with np.errstate(over="ignore"):  # as the dataset will hold them: thinner ones are empty
            boxes = np.asarray(boxes, np.float32).astype(np.float64).reshape(-1, 4)
        sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
        is_good = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
        for row in np.flatnonzero(~is_good):
            expected = "expected a box with x1 < x2 and y1 < y2"
            message = f"{where(row)}: {expected}, found {shown(boxes[row])}"
            self.reject(DatasetError(message, kind="empty or inverted box"))
        if may_leave_image:
            return boxes, is_good
        limits = np.tile(sizes, 2)
        clipped = np.clip(boxes, 0, limits)
        overshoot = np.abs(clipped - boxes).max(axis=1, initial=0)
        is_inside = (overshoot <= MAX_OVERSHOOT) & (clipped[:, :2] < clipped[:, 2:]).all(axis=1)
        for row in np.flatnonzero(is_good & ((overshoot > 0) | ~is_inside)):
            width, height = sizes[row]
            message = (
                f"{where(row)}: expected a box inside 0 0 {width:g} {height:g}, "
                f"found {shown(boxes[row])}"
            )
            if is_inside[row]:
                self.defects.add("box clipped to the image", message)
            else:
                self.reject(DatasetError(message, kind="box outside the image"))
        return clipped, is_good & is_inside


def shown(box: np.ndarray) -> str:
    """Four numbers of a box for a message."""
    return " ".join(f"{value:g}" for value in box)
