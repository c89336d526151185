"""What a metric takes: the detections and the ground truth of a whole split, as flat arrays.

Both are checked once, here, so that a metric can trust shapes and types.
Letters: D detections, T ground-truth objects.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Detections:
    """Detections of all images one after another, in any order.

    image: (D,) int, 0-based index of the image each one was made on; becomes int64.
    boxes: (D, 4) xyxy, absolute pixels, finite; becomes float64, in which overlaps are computed.
    scores: (D,) finite, higher is surer; becomes float64.
    labels: (D,) int class ids; becomes int64. Padded rows must have been dropped.

    Raises ValueError naming the array, what was expected and what was found.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        image = _whole_numbers("Detections.image", self.image)
        _freeze(
            self,
            image=_image_indices("Detections.image", image),
            boxes=_boxes("Detections.boxes", self.boxes, len(image)),
            scores=_finite("Detections.scores", self.scores, (len(image),)),
            labels=_whole_numbers("Detections.labels", self.labels, len(image)),
        )

    def __len__(self) -> int:
        return len(self.image)


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
        image = _whole_numbers("GroundTruth.image", self.image)
        boxes = _boxes("GroundTruth.boxes", self.boxes, len(image))
        ignore = np.zeros(len(image), bool) if self.ignore is None else self.ignore
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) if self.areas is None else self.areas
        _freeze(
            self,
            image=_image_indices("GroundTruth.image", image),
            boxes=boxes,
            labels=_whole_numbers("GroundTruth.labels", self.labels, len(image)),
            difficult=_flags("GroundTruth.difficult", self.difficult, len(image)),
            ignore=_flags("GroundTruth.ignore", ignore, len(image)),
            areas=_finite("GroundTruth.areas", areas, (len(image),)),
        )

    @property
    def excused(self) -> np.ndarray:
        """(T,) bool: objects that need not be found (difficult, ignored)."""
        return self.difficult | self.ignore

    def __len__(self) -> int:
        return len(self.image)


def check_labels(name: str, labels: np.ndarray, num_classes: int) -> None:
    """Raises ValueError unless every label of `labels` (any shape, int) is a class id."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise ValueError(
            f"{name}: expected class ids 0 to {num_classes - 1} (padding dropped), "
            f"found {labels[wrong[0]]} in row {wrong[0]}"
        )


def check_images(name: str, image: np.ndarray, num_images: int) -> None:
    """Raises ValueError unless every index of `image` (any length, int) is that of an image."""
    wrong = np.flatnonzero(image >= num_images)
    if wrong.size:
        raise ValueError(
            f"{name}: expected indices 0 to {num_images - 1}, "
            f"found {image[wrong[0]]} in row {wrong[0]}"
        )


def _freeze(instance: object, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        object.__setattr__(instance, name, array)  # the way past frozen=True, in __post_init__ only


def _whole_numbers(name: str, values: ArrayLike, length: int | None = None) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or (length is not None and len(array) != length):
        expected = "(any length,)" if length is None else f"({length},)"
        raise ValueError(f"{name}: expected shape {expected}, found {array.shape}")
    # An empty list arrives as float64 and is still a valid set of no objects.
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: expected an integer type, found {array.dtype}")
    return array.astype(np.int64)


def _image_indices(name: str, array: np.ndarray) -> np.ndarray:
    if array.size and array.min() < 0:
        row = int(array.argmin())
        raise ValueError(f"{name}: expected indices from 0, found {array[row]} in row {row}")
    return array


def _boxes(name: str, values: ArrayLike, length: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape == (0,):
        array = array.reshape(0, 4)
    return _finite(name, array, (length, 4))


def _finite(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, found {array.shape}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        row = np.argwhere(~np.isfinite(array))[0][0]
        raise ValueError(f"{name}: expected finite numbers, found {array[row]} in row {row}")
    return array


def _flags(name: str, values: ArrayLike, length: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (length,):
        raise ValueError(f"{name}: expected shape ({length},), found {array.shape}")
    if array.size and array.dtype != bool:
        raise ValueError(f"{name}: expected bool, found {array.dtype}")
    return array.astype(bool)
