"""What a dataset is once read: images, boxes, labels, flags - and what was wrong with it.

A reader (voc.py, coco.py, ...) turns files into a `Dataset`: flat arrays over all images, which is
what the pipeline, the statistics and the metrics take. `assemble` makes one.
Letters: M images, T objects in the whole dataset, K classes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from utils.names import judge_class_names, printable

DECIMALS = 9  # of a pixel: what a file says in decimals survives sums and differences to the digit
BAD_NAME = "bad class name"  # a kind of defect
OF_OBJECTS = ("boxes", "labels", "difficult", "ignore", "areas")  # arrays of one row an object


class DatasetError(ValueError):
    """A dataset that cannot be read; the message names file, object, field, expected and found.

    The message is one line fit for a terminal, whatever stands in files and their names.
    kind: what it is filed under in `Defects` where the reader drops the culprit and goes on.
    """

    def __init__(self, message: str, kind: str = "unreadable"):
        super().__init__(printable(message))
        self.kind = kind


@dataclass
class Defects:
    """What a reader dropped or mended, by kind, one message each: nothing is skipped silently."""

    messages: list[tuple[str, str]] = field(default_factory=list)  # (kind, message)

    def add(self, kind: str, message: str, count: int = 1) -> None:
        self.messages.extend([(kind, message)] * count)

    def counts(self) -> dict[str, int]:
        return dict(Counter(kind for kind, _ in self.messages))


@dataclass(frozen=True)
class Dataset:
    """A split of a dataset in flat arrays.

    name: what to call it in the diary, e.g. "bccd/test".
    classes: class names; a label is an index into it.
    images, image_ids: M strings each.
    sizes: (M, 2) int32 width, height.
    boxes (T, 4) float64 xyxy, labels (T,) int32, difficult (T,) bool: all images one after another.
      Boxes are rounded to DECIMALS; they lie in their image, but COCO's may leave it by 2
      px and CrowdHuman's by any distance.
    ignore: (T,) bool; a region of the class `labels` says, in which nothing is learnt and nothing
      is counted: COCO's crowds, what CrowdHuman ignores.
    areas: (T,) float64, what COCO's size classes go by: the `area` of a COCO file, else the box's.
    row_splits: (M + 1,) int64; the objects of image i are rows row_splits[i]:row_splits[i + 1].
    category_ids: (K) ids, mostly numbers, of the classes in COCO's files and results; else 1 to K.
    defects: what the reader dropped or mended.
    text_ids: whether image ids stay texts in COCO's files and results, "139" not 139, because they
      are in the file that was read.
    bits: how many of the 16 of a value are in use in image files that have so many, see
      `data.images.bit_depth`; None: all. A program sets it, as the model says; readers leave it.
    """

    name: str
    classes: tuple[str, ...]
    images: tuple[str, ...]
    image_ids: tuple[str, ...]
    sizes: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray
    row_splits: np.ndarray
    category_ids: tuple[int | str, ...]
    defects: Defects
    text_ids: bool = False
    bits: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_index(self) -> np.ndarray:
        """(T,) int64: the image each object belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.row_splits))

    def rows(self, index: int) -> slice:
        """The rows of image `index` in boxes, labels, difficult, ignore and areas."""
        return slice(int(self.row_splits[index]), int(self.row_splits[index + 1]))


def assemble(
    name: str,
    classes: Sequence[str],
    *,
    images: Sequence[str],
    image_ids: Sequence[str],
    sizes: ArrayLike,
    defects: Defects,
    image_index: ArrayLike = (),
    boxes: ArrayLike = (),
    labels: ArrayLike = (),
    difficult: ArrayLike | None = None,
    ignore: ArrayLike | None = None,
    areas: ArrayLike | None = None,
    category_ids: Sequence[int | str] | None = None,
    text_ids: bool = False,
) -> Dataset:
    """A `Dataset` of objects in any order; those of an image keep the order they have.

    images, image_ids: M strings; sizes: (M, 2) width, height.
    image_index: (T,) the image each object belongs to; boxes (T, 4) xyxy, labels (T,).
    difficult, ignore: (T,) bool, None: none is. areas: (T,), None: the boxes'.
    category_ids: None: 1 to K.
    Raises DatasetError if there is no image, an image id occurs twice or a class name is not fit.
    """
    if not len(images):
        raise no_images(name, defects)
    require_fit_names(classes, name)
    if len(set(image_ids)) < len(image_ids):
        image_id, count = Counter(image_ids).most_common(1)[0]
        raise DatasetError(
            f"{name}: expected different image ids, found {image_id!r} {count} times"
        )
    boxes = np.round(np.asarray(boxes, np.float64).reshape(-1, 4), DECIMALS)
    if areas is None:
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    image_index = np.asarray(image_index, np.int64)
    order = np.argsort(image_index, kind="stable")
    splits = np.concatenate([[0], np.cumsum(np.bincount(image_index, minlength=len(images)))])
    none = np.zeros(len(boxes), bool)
    return Dataset(
        name=name,
        classes=tuple(classes),
        images=tuple(images),
        image_ids=tuple(image_ids),
        sizes=np.asarray(sizes, np.int32).reshape(-1, 2),
        boxes=boxes[order],
        labels=np.asarray(labels, np.int32)[order],
        difficult=none if difficult is None else np.asarray(difficult, bool)[order],
        ignore=none if ignore is None else np.asarray(ignore, bool)[order],
        areas=np.asarray(areas, np.float64)[order],
        row_splits=splits.astype(np.int64),
        category_ids=tuple(category_ids or range(1, len(classes) + 1)),
        defects=defects,
        text_ids=text_ids,
    )


def no_images(name: str, defects: Defects) -> DatasetError:
    """The error of a split without any image."""
    if not defects.messages:
        return DatasetError(f"{name}: no images left to read: none listed")
    counts = ", ".join(f"{count} x {kind}" for kind, count in defects.counts().items())
    first = defects.messages[0][1]
    return DatasetError(f"{name}: no images left to read: {counts}; the first: {first}")


def require_fit_names(classes: Sequence[str], where: str) -> None:
    """Raises DatasetError for a class name that is not fit for files and terminals; see utils."""
    try:
        judge_class_names(classes, where)
    except ValueError as error:
        raise DatasetError(str(error), BAD_NAME) from error


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """Several splits of the same classes as one, in the given order.

    Where an image id occurs in two of them all are led by their dataset's name: "coco/train/17".
    Raises DatasetError where two have the same name as well.
    """
    if len(datasets) == 1:
        return datasets[0]
    image_ids = [image_id for dataset in datasets for image_id in dataset.image_ids]
    if len(set(image_ids)) < len(image_ids):
        image_ids = [f"{d.name}/{image_id}" for d in datasets for image_id in d.image_ids]
    first_image = np.cumsum([0] + [len(dataset) for dataset in datasets])
    return assemble(
        " + ".join(dataset.name for dataset in datasets),
        datasets[0].classes,
        images=[image for dataset in datasets for image in dataset.images],
        image_ids=image_ids,
        image_index=np.concatenate(
            [d.image_index + first for d, first in zip(datasets, first_image, strict=False)]
        ),
        category_ids=datasets[0].category_ids,
        text_ids=any(dataset.text_ids for dataset in datasets),
        defects=Defects([message for dataset in datasets for message in dataset.defects.messages]),
        **{
            name: np.concatenate([getattr(dataset, name) for dataset in datasets])
            for name in ("sizes", *OF_OBJECTS)
        },
    )


def select(dataset: Dataset, indices: ArrayLike) -> Dataset:
    """The images of these (M',) indices, in this order, with their objects."""
    chosen = np.asarray(indices, np.int64).reshape(-1)
    starts, counts = dataset.row_splits[chosen], np.diff(dataset.row_splits)[chosen]
    splits = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = np.repeat(starts - splits[:-1], counts) + np.arange(splits[-1])
    return replace(
        dataset,
        images=tuple(dataset.images[i] for i in chosen),
        image_ids=tuple(dataset.image_ids[i] for i in chosen),
        sizes=dataset.sizes[chosen],
        row_splits=splits,
        **{name: getattr(dataset, name)[rows] for name in OF_OBJECTS},
    )


def learnable(dataset: Dataset, train_on_difficult: bool = True) -> np.ndarray:
    """(T,) bool: what is an object in training; the rest is looked away from."""
    return ~(dataset.ignore if train_on_difficult else dataset.ignore | dataset.difficult)


def first_images(dataset: Dataset, count: int) -> Dataset:
    """The first `count` images, or all where there are fewer."""
    return select(dataset, range(min(count, len(dataset))))
