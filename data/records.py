"""What a dataset is once read: images, boxes, labels, flags - and what was wrong with it.

A reader (voc.py, ...) turns files into one `Record` an image; `Dataset` packs the records into flat
arrays, which is what the pipeline, the statistics and the metrics take.
Letters: M images, T boxes in the whole dataset, G boxes of one image.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np


class DatasetError(ValueError):
    """A dataset that cannot be read; the message names file, object, field, expected and found.

    kind: what it is filed under in `Defects` where the reader drops the culprit and goes on.
    """

    def __init__(self, message: str, kind: str = "unreadable"):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Record:
    """One image and its objects.

    image: path of the image file.
    image_id: the name results are filed under (for VOC the stem, e.g. "000005").
    width, height: pixels after EXIF orientation, as the decoder returns the image.
    boxes: (G, 4) float32 xyxy, absolute pixels, continuous coordinates.
    labels: (G,) int32, index into the dataset's class list.
    difficult: (G,) bool, the VOC flag.
    """

    image: str
    image_id: str
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


@dataclass
class Defects:
    """What a reader dropped or mended, by kind, one message each: nothing is skipped silently."""

    messages: list[tuple[str, str]] = field(default_factory=list)  # (kind, message)

    def add(self, kind: str, message: str) -> None:
        self.messages.append((kind, message))

    def counts(self) -> dict[str, int]:
        return dict(Counter(kind for kind, _ in self.messages))


@dataclass(frozen=True)
class Dataset:
    """A split of a dataset in flat arrays.

    name: what to call it in the diary, e.g. "bccd/test".
    classes: class names; a label is an index into it.
    images, image_ids: M strings each.
    sizes: (M, 2) int32 width, height.
    boxes (T, 4) float32 xyxy, labels (T,) int32, difficult (T,) bool: all images one after another.
    row_splits: (M + 1,) int64; the objects of image i are rows row_splits[i]:row_splits[i + 1].
    defects: what the reader dropped or mended.
    """

    name: str
    classes: tuple[str, ...]
    images: tuple[str, ...]
    image_ids: tuple[str, ...]
    sizes: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    row_splits: np.ndarray
    defects: Defects

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_index(self) -> np.ndarray:
        """(T,) int64: the image each object belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.row_splits))

    def rows(self, index: int) -> slice:
        """The rows of image `index` in boxes, labels and difficult."""
        return slice(int(self.row_splits[index]), int(self.row_splits[index + 1]))


def pack(name: str, classes: Sequence[str], records: Sequence[Record], defects: Defects) -> Dataset:
    """Packs records into a `Dataset`. Raises DatasetError if there is no image."""
    if not records:
        raise DatasetError(f"{name}: no images left to read ({defects.counts() or 'none listed'})")
    counts = [len(record.labels) for record in records]
    return Dataset(
        name=name,
        classes=tuple(classes),
        images=tuple(record.image for record in records),
        image_ids=tuple(record.image_id for record in records),
        sizes=np.array([(r.width, r.height) for r in records], np.int32).reshape(-1, 2),
        boxes=np.concatenate([r.boxes for r in records]).astype(np.float32).reshape(-1, 4),
        labels=np.concatenate([r.labels for r in records]).astype(np.int32),
        difficult=np.concatenate([r.difficult for r in records]).astype(bool),
        row_splits=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        defects=defects,
    )


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """Several splits of the same classes as one, in the given order.

    Raises DatasetError where an image id occurs in two of them: results could not be told apart.
    """
    if len(datasets) == 1:
        return datasets[0]
    ids = Counter(image_id for dataset in datasets for image_id in dataset.image_ids)
    name = " + ".join(dataset.name for dataset in datasets)
    image_id, count = ids.most_common(1)[0]
    if count > 1:
        raise DatasetError(
            f"{name}: expected different image ids, found {image_id!r} {count} times"
        )
    offsets = np.cumsum([0] + [len(dataset.labels) for dataset in datasets])
    splits = [d.row_splits[:-1] + offset for d, offset in zip(datasets, offsets, strict=False)]
    return Dataset(
        name=name,
        classes=datasets[0].classes,
        images=tuple(image for dataset in datasets for image in dataset.images),
        image_ids=tuple(ids),
        sizes=np.concatenate([dataset.sizes for dataset in datasets]),
        boxes=np.concatenate([dataset.boxes for dataset in datasets]),
        labels=np.concatenate([dataset.labels for dataset in datasets]),
        difficult=np.concatenate([dataset.difficult for dataset in datasets]),
        row_splits=np.concatenate([*splits, offsets[-1:]]),
        defects=Defects([message for dataset in datasets for message in dataset.defects.messages]),
    )


def first_images(dataset: Dataset, count: int) -> Dataset:
    """The first `count` images, or all where there are fewer."""
    end = int(dataset.row_splits[: count + 1][-1])
    return replace(
        dataset,
        images=dataset.images[:count],
        image_ids=dataset.image_ids[:count],
        sizes=dataset.sizes[:count],
        boxes=dataset.boxes[:end],
        labels=dataset.labels[:end],
        difficult=dataset.difficult[:end],
        row_splits=dataset.row_splits[: count + 1],
    )
