"""What becomes of a bad annotation: an error at the first one, or dropped, counted and reported.

Every reader rejects through a `Judge`, so that `data.on_bad_annotation` means the same for all,
and judges its boxes here.
Letters: T objects.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from data.formats.plausibility import Written, require_plausible
from data.images.decode import ImageHeader
from data.records import DECIMALS, Dataset, DatasetError, Defects, assemble

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")

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

    def note(self, image: str | Path, header: ImageHeader) -> None:
        """Counts what was mended in an image file, or is left out of it."""
        for note in header.notes:
            self.defects.add(note, f"{image}: {note}")

    def load(self, function: Callable[[Item], Result], items: Iterable[Item]) -> dict[Item, Result]:
        """{item: function(item)}, in order, without those whose DatasetError is rejected.

        The function runs in threads.
        """

        def attempt(item: Item) -> Result | DatasetError:
            try:
                return function(item)
            except DatasetError as error:
                return error

        items, found = list(items), {}
        with ThreadPoolExecutor(max_workers=4) as pool:  # more only fight over the interpreter
            results = list(pool.map(attempt, items))
        for item, result in zip(items, results, strict=True):
            if isinstance(result, DatasetError):
                self.reject(result)
            else:
                found[item] = result
        return found

    def clip(
        self,
        boxes: ArrayLike,
        sizes: ArrayLike,
        where: Callable[[int], str],
        beyond: str = "clip",
        first_pixel: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes as the files give them -> boxes to keep, and which are any good.

        boxes: (T, 4) float64 xyxy, finite. sizes: (T, 2) width, height of each one's image.
        where: row -> file and object, for messages; called for bad rows only.
        beyond: what becomes of boxes that reach beyond the image: "clip" cuts off up to
            MAX_OVERSHOOT, "keep" leaves that much as it is (COCO's metric knows no images), and
            both reject what reaches further or lies outside; "any" leaves all (CrowdHuman); "all"
            keeps even boxes without area, for metrics that count them.
        first_pixel: 1 where the file has VOC's corners, 1-based and inclusive, for messages.
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
        overshoot = np.abs(clipped - boxes)
        is_inside = (overshoot.max(axis=1, initial=0) <= MAX_OVERSHOOT) & have_area(clipped)
        is_off = (overshoot > ROUNDING).any(axis=1) | ~is_inside
        for row in np.flatnonzero(is_good & is_off).tolist():
            width, height = sizes[row]
            expected = f"a box inside 0 0 {width:g} {height:g}"
            if first_pixel:
                expected = f"corners in 1..{width:g} x 1..{height:g}"
            found = shown(boxes[row] + np.array([first_pixel, first_pixel, 0, 0]))
            message = f"{where(row)}: expected {expected}, found {found}"
            if not is_inside[row]:
                self.reject(DatasetError(message, kind="box outside the image"))
                continue
            # Tools that count from 0 leave every box a pixel up and left of the truth.
            from_0 = (boxes[row] < 0) & (boxes[row] >= -first_pixel)
            if from_0.any():
                self.defects.add("corner counted from 0, clipped", message)
            if (overshoot[row, ~from_0] > ROUNDING).any():
                what = "clipped to" if beyond == "clip" else "slightly beyond"
                self.defects.add(f"box {what} the image", message)
        return clipped if beyond == "clip" else boxes, is_good & is_inside

    def assemble(
        self,
        name: str,
        classes: Iterable[str],
        images: Mapping[str, tuple[str | Path, ImageHeader]],
        where: Callable[[int], str],
        *,
        image_index: ArrayLike,
        boxes: ArrayLike,
        written: Written = "corners",
        beyond: str = "clip",
        first_pixel: int = 0,
        **objects: ArrayLike,
    ) -> Dataset:
        """The `Dataset` of the objects whose boxes are good.

        images: by id. where, boxes, beyond, first_pixel: see `clip`. written: how the files write a
        box, see `require_plausible`. objects: labels and whatever else `data.records.assemble`
        takes a row an object of.
        Raises DatasetError for a bad box or implausible ones, and where there is no image or class.
        """
        if images and not classes:
            raise DatasetError(f"{name}: no object in the split to take the classes from")
        for image, header in images.values():
            self.note(image, header)
        sizes = np.array([(header.width, header.height) for _, header in images.values()])
        index = np.asarray(image_index, np.int64)
        of_boxes = sizes.reshape(-1, 2)[index]
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if beyond != "all":
            require_plausible(name, boxes, of_boxes, written)
        boxes, is_good = self.clip(boxes, of_boxes, where, beyond, first_pixel)
        return assemble(
            name,
            tuple(classes),
            images=[str(image) for image, _ in images.values()],
            image_ids=list(images),
            sizes=sizes,
            image_index=index[is_good],
            boxes=boxes[is_good],
            **{key: np.asarray(rows)[is_good] for key, rows in objects.items()},
            defects=self.defects,
        )


def have_area(boxes: np.ndarray) -> np.ndarray:
    """(T, 4) xyxy -> (T,) bool: neither empty nor inverted as float32, in which they are learnt."""
    boxes = boxes.astype(np.float32)
    return np.all(boxes[:, :2] < boxes[:, 2:], axis=1)


def shown(box: np.ndarray) -> str:
    """Four numbers of a box for a message."""
    return " ".join(f"{value:g}" for value in box)
