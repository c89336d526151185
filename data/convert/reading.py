"""Reads the splits of a dataset with the classes that are wanted, and says what is lost."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from loguru import logger

from data.datasets import log_defects
from data.formats import FORMATS
from data.formats.bad_annotations import have_area
from data.records import OF_OBJECTS, Dataset, DatasetError
from data.writers.common import lost

MAX_LISTED = 20  # defects of a kind that are shown one by one


@dataclass(frozen=True)
class Source:
    """What is converted. splits: by the name in the target, what stands for it in the source."""

    root: Path
    format: str
    splits: dict[str, str]
    images: tuple[str, ...] = ()
    person_box: str = "full"
    on_bad_annotation: str = "error"


def read_source(source: Source, mapping: dict[str, str]) -> tuple[dict[str, Dataset], list[str]]:
    """All splits with one list of classes, those `mapping` gives; and the losses in words."""
    classes = tuple(dict.fromkeys(filter(None, mapping.values())))
    if not classes:
        raise DatasetError(f"{source.root}: expected a class to keep, found none")
    datasets, losses = {}, []
    for name, split in source.splits.items():
        logger.info("reading {} ({}) of {}", split, source.format, source.root)
        datasets[name] = dataset = _read_advised(source, split, mapping)
        log_defects(dataset, MAX_LISTED)
        parts = [dataset]
        unread = {old: old for old in mapping if old not in dataset.classes}
        if FORMATS[source.format].default_classes and unread:  # only what is chosen was counted
            parts.append(_read(replace(source, on_bad_annotation="drop"), split, unread))
        losses += [f"{name}: {loss}" for part in parts for loss in _left_out(part, mapping)]
    numbers: tuple[int | str, ...] | None = None
    if FORMATS[source.format].numbers_classes:
        numbers = _category_ids(datasets.values(), mapping, classes)
        losses += [] if numbers else ["category ids: the splits disagree, counted from 1 instead"]
    numbers = numbers or tuple(range(1, len(classes) + 1))
    return {k: _relabeled(d, mapping, classes, numbers) for k, d in datasets.items()}, losses


def _left_out(dataset: Dataset, mapping: dict[str, str]) -> list[str]:
    """What goes with the classes that are left out, in words."""
    counts = Counter(zip(dataset.labels.tolist(), dataset.ignore.tolist(), strict=True))
    return [
        f"{counts[label, is_ignored]} {what} of class {old!r}: left out"
        for label, old in enumerate(dataset.classes)
        for is_ignored, what in ((False, "objects"), (True, "regions to ignore"))
        if not mapping[old] and counts[label, is_ignored]
    ]


def _read_advised(source: Source, split: str, mapping: dict[str, str]) -> Dataset:
    """As `_read`; the error of a defect that may be dropped says how."""
    try:
        return _read(source, split, mapping)
    except DatasetError as error:
        if source.on_bad_annotation == "drop" or error.kind == "unreadable":  # as a whole
            raise
        advice = "--on-bad-annotation drop leaves such things out, counted"
        raise DatasetError(f"{error} ({advice})", error.kind) from error


def _read(source: Source, split: str, mapping: dict[str, str]) -> Dataset:
    """One split with the classes it has in the source."""
    form = FORMATS[source.format]
    classes: list[str] | None = list(mapping)
    if form.default_classes:
        classes = [name for name, new in mapping.items() if new]
    elif form.declares_classes:
        classes = None
    options = {"images": source.images, "person_box": source.person_box}
    return form.read_split(source.root, split, classes, source.on_bad_annotation, options)


def _category_ids(
    datasets: Iterable[Dataset], mapping: dict[str, str], classes: Sequence[str]
) -> tuple[int | str, ...] | None:
    """The COCO ids of the new classes, of several made one the first; None if splits disagree."""
    pairs = {pair for d in datasets for pair in zip(d.classes, d.category_ids, strict=True)}
    number_of = dict(pairs)
    if len(number_of) < len(pairs) or len(set(number_of.values())) < len(pairs):
        return None
    first = {new: old for old, new in reversed(mapping.items()) if old in number_of}
    return tuple(number_of[first[name]] for name in classes)


def _relabeled(
    dataset: Dataset,
    mapping: dict[str, str],
    classes: tuple[str, ...],
    numbers: tuple[int | str, ...],
) -> Dataset:
    """The dataset with new classes, without the objects of those left out."""
    label_of = {name: label for label, name in enumerate(classes)}
    new = np.array([label_of.get(mapping[old], -1) for old in dataset.classes], np.int32)
    labels = new[dataset.labels]
    dataset = replace(dataset, classes=classes, category_ids=numbers, labels=labels)
    return _with_rows(dataset, labels >= 0)


def _with_rows(dataset: Dataset, kept: np.ndarray) -> Dataset:
    """The dataset with those objects that `kept`, a bool for each, says."""
    counts = np.bincount(dataset.image_index[kept], minlength=len(dataset))
    return replace(
        dataset,
        row_splits=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        **{name: getattr(dataset, name)[kept] for name in OF_OBJECTS},
    )


def keep_inside(datasets: dict[str, Dataset]) -> tuple[dict[str, Dataset], list[str]]:
    """Clips to the image what may leave it, CrowdHuman's full boxes; and the losses in words."""
    kept, losses = {}, []
    for name, dataset in datasets.items():
        boxes = dataset.boxes.clip(0, np.tile(dataset.sizes[dataset.image_index], 2))
        is_clipped = (boxes != dataset.boxes).any(axis=1)
        is_inside = have_area(boxes)
        # A COCO file's area is the outline's: what lies outside of the image is no part of it.
        most = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        areas = np.where(is_clipped, np.minimum(dataset.areas, most), dataset.areas)
        kept[name] = _with_rows(replace(dataset, boxes=boxes, areas=areas), is_inside)
        for count, what in (
            (np.count_nonzero(is_clipped & is_inside), "boxes reach beyond the image: clipped"),
            (np.count_nonzero(~is_inside), "boxes outside the image: left out"),
        ):
            losses += [f"{name}: {loss}" for loss in lost(count, what)]
    return kept, losses
