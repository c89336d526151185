"""The annotated objects that a metric compares detections with.

Letters: T ground-truth objects.
"""

from dataclasses import dataclass

import numpy as np

from utils.arrays import finite, flags, require_indices, set_fields, whole_numbers
from utils.detections import DetectionTable


@dataclass(frozen=True)
class GroundTruth:
    """Annotated objects of all images one after another, in any order.

    image: (T,) int, 0-based index of the image each one lies in; becomes int64.
    boxes: (T, 4) xyxy, absolute pixels, finite; becomes float64.
    labels: (T,) int class ids; becomes int64. Padded rows must have been dropped.
    difficult: (T,) bool, the VOC flag: finding the object earns nothing and costs nothing.
    ignore: (T,) bool, regions in which nothing counts, each metric's own way; None: there are none.
    areas: (T,) what COCO's size classes go by; becomes float64; None: the boxes' areas.

    Raises ValueError naming the array, what was expected and what was found.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    ignore: np.ndarray | None = None
    areas: np.ndarray | None = None

    def __post_init__(self) -> None:
        image = whole_numbers("GroundTruth.image", self.image)
        boxes = finite("GroundTruth.boxes", self.boxes, (len(image), 4))
        ignore = np.zeros(len(image), bool) if self.ignore is None else self.ignore
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) if self.areas is None else self.areas
        set_fields(
            self,
            image=image,
            boxes=boxes,
            labels=whole_numbers("GroundTruth.labels", self.labels, len(image)),
            difficult=flags("GroundTruth.difficult", self.difficult, len(image)),
            ignore=flags("GroundTruth.ignore", ignore, len(image)),
            areas=finite("GroundTruth.areas", areas, (len(image),)),
        )

    def __len__(self) -> int:
        return len(self.image)

    @property
    def excused(self) -> np.ndarray:
        """(T,) bool: objects that need not be found (difficult, ignored)."""
        return self.difficult | self.ignore

    def num_objects(self, num_classes: int) -> np.ndarray:
        """(num_classes,) int64: how many objects of each class have to be found."""
        return np.bincount(self.labels[~self.excused], minlength=num_classes)

    def require_fit(self, detections: DetectionTable) -> None:
        """Raises ValueError unless the objects are of the images and classes of the detections."""
        if not detections.classes:
            raise ValueError("classes: expected at least one, found none")
        require_indices("GroundTruth.image", self.image, len(detections.image_ids))
        require_indices("GroundTruth.labels", self.labels, len(detections.classes))
