"""What becomes of a defect: an error at the first one, or dropped, counted and reported.

Every reader rejects through a `Judge`, so that `data.on_bad_annotation` means the same for all.
Letters: T objects.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from data.records import DECIMALS, DatasetError, Defects

MAX_OVERSHOOT = 2.0  # px beyond the image that are taken for rounding, and clipped
ROUNDING = 0.01  # px beyond the image that decimals of a fraction make: not counted
POLICIES = ("error", "drop")


@dataclass(frozen=True)
class Judge:
    """on_bad_annotation: "error" raises at the first defect, "drop" leaves out and counts.

    Raises ValueError for another policy.
    """

    on_bad_annotation: str = "error"
    defects: Defects = field(default_factory=Defects)

    def __post_init__(self) -> None:
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
        beyond: str = "clip",
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes as the files give them -> boxes to keep, and which are any good.

        boxes: (T, 4) float64 xyxy, finite. sizes: (T, 2) width, height of each one's image.
        where: row -> file and object, for messages; called for bad rows only.
        beyond: what becomes of boxes that reach beyond the image: "clip" cuts off up to
            MAX_OVERSHOOT, "keep" leaves that much as it is (COCO's metric knows no images), and
            both reject what reaches further or lies outside; "any" leaves all (CrowdHuman); "all"
            keeps even boxes without area, for metrics that count them.
        Returns (T, 4) float64, rounded to DECIMALS, and (T,) bool: not those that are empty or
        inverted, see `have_area`, nor those rejected.
        """
        with np.errstate(over="ignore"):  # to infinity, which is outside of any image
            boxes = np.round(np.asarray(boxes, np.float64).reshape(-1, 4), DECIMALS)
            is_good = have_area(boxes)
        if beyond == "all":
            return boxes, np.isfinite(boxes).all(axis=1)
        for row in np.flatnonzero(~is_good).tolist():
            expected = "expected a box with x1 < x2 and y1 < y2"
            message = f"{where(row)}: {expected}, found {shown(boxes[row])}"
            self.reject(DatasetError(message, kind="empty or inverted box"))
        if beyond == "any":
            return boxes, is_good
        sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
        clipped = np.clip(boxes, 0, np.tile(sizes, 2))
        overshoot = np.abs(clipped - boxes).max(axis=1, initial=0)
        is_inside = (overshoot <= MAX_OVERSHOOT) & have_area(clipped)
        for row in np.flatnonzero(is_good & ((overshoot > ROUNDING) | ~is_inside)).tolist():
            width, height = sizes[row]
            message = (
                f"{where(row)}: expected a box inside 0 0 {width:g} {height:g}, "
                f"found {shown(boxes[row])}"
            )
            if not is_inside[row]:
                self.reject(DatasetError(message, kind="box outside the image"))
            else:
                what = "clipped to" if beyond == "clip" else "slightly beyond"
                self.defects.add(f"box {what} the image", message)
        return clipped if beyond == "clip" else boxes, is_good & is_inside


def have_area(boxes: np.ndarray) -> np.ndarray:
    """(T, 4) xyxy -> (T,) bool: neither empty nor inverted as float32, in which they are learnt."""
    boxes = boxes.astype(np.float32)
    return np.all(boxes[:, :2] < boxes[:, 2:], axis=1)


def shown(box: np.ndarray) -> str:
    """Four numbers of a box for a message."""
    return " ".join(f"{value:g}" for value in box)
