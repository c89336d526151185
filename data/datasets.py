"""The dataset a config names: format -> reader, splits joined, one class list for all of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loguru import logger

from configs.schema import Data
from data.formats.boxes_csv import DELIMITERS, csv_classes, read_csv
from data.formats.class_files import read_class_file
from data.formats.coco import coco_classes, read_coco
from data.formats.crowdhuman import read_crowdhuman
from data.formats.shapes import make_shapes
from data.formats.texts import expected_one_of
from data.formats.voc import discover_classes, read_voc
from data.formats.yolo import read_yolo, yolo_classes
from data.records import (
    Dataset,
    DatasetError,
    concatenate,
    first_images,
    require_fit_names,
)

PERSON = ("person",)  # the class of CrowdHuman unless said


def prepare(data: Data, split: str = "") -> tuple[str, ...]:
    """The class names: of the config, of its class file, or as the annotations have them.

    Classes are looked for in the training and the validation split together: declared ones (COCO,
    YOLO) keep the order of the files, others are sorted. CrowdHuman's is person unless said.
    split: the only one that is needed; the others are looked into if they are there.
    Raises DatasetError where no split has an object, or has declared a class the config names.
    """
    _generate(data)
    classes = data.classes
    require_fit_names(classes, "data.classes")
    if data.class_file:
        classes = read_class_file(Path(data.root) / data.class_file)
    if data.format == "crowdhuman":
        return classes or PERSON
    declares = data.format in ("coco", "yolo")
    if classes and not declares:
        return classes
    found: dict[str, None] = {}
    for part in dict.fromkeys(_parts(data.train) + _parts(data.val) + _parts(split or data.val)):
        try:
            found.update(dict.fromkeys(_classes(data, part)))
        except DatasetError:
            if not split or part in _parts(split):
                raise
    for name in classes:
        if name not in found:
            raise DatasetError(f"{data.root}, class: {expected_one_of(found, name)}")
    if not found:  # for there is nothing, or nothing that can be read: then this says why
        _read(replace(data, on_bad_annotation="error"), _parts(split or data.train)[0], None, None)
        raise DatasetError(f"{data.root}: no objects in {data.train} and {data.val}")
    return classes or tuple(found if declares else sorted(found))


def read_split(
    data: Data,
    split: str,
    classes: tuple[str, ...],
    image_sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Dataset:
    """Reads a split, or several joined by "+", each optionally with its folder: "VOC2007/train".

    image_sizes: image id -> (width, height) as a file of detections knows them, perhaps of none:
        then VOC and COCO's images need not be there, nor CrowdHuman's if it knows any.
    Raises DatasetError as the format's reader does.
    """
    _generate(data)
    if not Path(data.root).is_dir():
        raise DatasetError(f"{data.root}: no such folder")
    dataset = concatenate([_read(data, part, classes, image_sizes) for part in _parts(split)])
    return first_images(dataset, data.limit) if data.limit else dataset


def log_defects(dataset: Dataset) -> None:
    """What the reader dropped or mended: counts and an example, and all for the diary's file."""
    examples = dict(reversed(dataset.defects.messages))  # the first of each kind
    for kind, count in dataset.defects.counts().items():
        logger.warning("{}: {} x {}, the first: {}", dataset.name, count, kind, examples[kind])
    for kind, message in dataset.defects.messages:
        logger.debug("{}: {}", kind, message)


def _generate(data: Data) -> None:
    """Makes a dataset that is to be generated, if it is not there yet."""
    if data.format == "shapes":
        make_shapes(data.root)


def _parts(split: str) -> list[str]:
    """ "VOC2007/trainval + VOC2012/trainval" -> ["VOC2007/trainval", "VOC2012/trainval"]."""
    return [part.strip() for part in split.split("+")]


def _read(
    data: Data,
    part: str,
    classes: tuple[str, ...] | None,
    image_sizes: Mapping[str, tuple[int, int]] | None,
) -> Dataset:
    policy = data.on_bad_annotation
    match data.format:
        case "coco":
            return read_coco(
                data.root, part, classes, images=data.images, on_bad_annotation=policy,
                check_images=data.check_images, need_images=image_sizes is None,
            )  # fmt: skip
        case "csv":
            return read_csv(
                data.root, part, classes, images=data.images, on_bad_annotation=policy,
                val_fraction=data.val_fraction, **_layout(data),
            )  # fmt: skip
        case "yolo":
            return read_yolo(data.root, part, classes, images=data.images, on_bad_annotation=policy)
        case "crowdhuman":
            return read_crowdhuman(
                data.root, part, classes or PERSON, images=data.images, on_bad_annotation=policy,
                person_box=data.person_box, image_sizes=image_sizes or None,
            )  # fmt: skip
        case _:
            root, name = _tree(data, part)
            return read_voc(
                root, name, classes, on_bad_annotation=policy,
                val_fraction=data.val_fraction, image_sizes=image_sizes,
            )  # fmt: skip


def _classes(data: Data, part: str) -> tuple[str, ...]:
    match data.format:
        case "coco":
            return coco_classes(data.root, part)
        case "csv":
            return csv_classes(data.root, part, val_fraction=data.val_fraction, **_layout(data))
        case "yolo":
            return yolo_classes(data.root, part)
        case _:
            root, name = _tree(data, part)
            return discover_classes(root, [name], val_fraction=data.val_fraction)


def _layout(data: Data) -> dict[str, Any]:
    return {"delimiter": DELIMITERS.get(data.csv.delimiter, ""), "header": data.csv.header}


def _tree(data: Data, part: str) -> tuple[Path, str]:
    """A VOC split may name its folder: "VOC2007/train" -> root/VOC2007, "train"."""
    folder, _, name = part.rpartition("/")
    return Path(data.root) / folder, name
