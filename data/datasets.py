"""The dataset a config names: format -> reader, splits joined, one class list for all of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loguru import logger

from configs.checked import ConfigError, shown
from configs.schema import Data
from data.formats import FORMATS
from data.formats.boxes_csv import DELIMITERS
from data.formats.class_files import read_class_file
from data.formats.class_names import require_known
from data.formats.format import Format
from data.records import Dataset, DatasetError, concatenate, first_images, require_fit_names

# Settings that only some formats have a use for, and the option of a Format that says which.
SETTINGS = {
    "images": "images",
    "val_fraction": "val_fraction",
    "csv": "delimiter",
    "yolo": "lines",
    "person_box": "person_box",
    "check_images": "check_images",
}


def class_names(data: Data, split: str = "") -> tuple[str, ...]:
    """The class names: of the config, of its class file, or as the annotations have them.

    Classes are looked for in the training and the validation split together, in the order that
    `Format.joint_classes` says. CrowdHuman's is person unless said.
    split: the only one that is needed; the others are looked into if they are there.
    Raises DatasetError where no split has an object, or has declared a class the config names.
    """
    form, root, classes = require_format(data), Path(data.root), data.classes
    require_fit_names(classes, "data.classes")
    if data.class_file:
        classes = read_class_file(root / data.class_file)
    if form.default_classes or (classes and not form.declares_classes):
        return classes or form.default_classes
    parts, needed = _parts(data.train) + _parts(data.val) + _parts(split or data.val), _parts(split)
    optional = set(parts) - set(needed) if split else set()
    found = form.joint_classes(root, parts, _options(data), optional)
    require_known(classes, found, f"{data.root}, class")
    if not found:  # for there is nothing, or nothing that can be read: then this says why
        _read(replace(data, on_bad_annotation="error"), _parts(split or data.train)[0], None, None)
        raise DatasetError(f"{data.root}: no objects in {data.train} and {data.val}")
    return classes or found


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
    require_format(data)
    dataset = concatenate([_read(data, part, classes, image_sizes) for part in _parts(split)])
    return first_images(dataset, data.limit) if data.limit else dataset


def log_defects(dataset: Dataset, listed: int = 1) -> None:
    """What the reader dropped or mended: counts and so many examples, all for the diary's file."""
    for kind, count in dataset.defects.counts().items():
        first, *others = (message for of, message in dataset.defects.messages if of == kind)
        logger.warning("{}: {} x {}, the first: {}", dataset.name, count, kind, first)
        for message in others[: listed - 1]:
            logger.warning("  {}", message)
        if 1 < listed < count:
            logger.warning("  and {} more", count - listed)
    for kind, message in dataset.defects.messages:
        logger.debug("{}: {}", kind, message)


def require_format(data: Data) -> Format:
    """Returns the format of a config.

    Raises ConfigError for an unknown format, and for a setting that this one has no use for.
    """
    form = FORMATS.get(data.format)
    if form is None:
        expected = f"expected one of {', '.join(FORMATS)}"
        raise ConfigError(f"data.format: {expected}, found {shown(data.format)}")
    for setting, option in SETTINGS.items():
        names = [name for name, other in FORMATS.items() if option in other.options]
        try:
            data.require_used(setting, option in form.options, f"format is {' or '.join(names)}")
        except ConfigError as error:
            raise ConfigError(str(error).replace("Data.", "data.", 1)) from None
    return form


def _parts(split: str) -> list[str]:
    """ "VOC2007/trainval + VOC2012/trainval" -> ["VOC2007/trainval", "VOC2012/trainval"]."""
    return [part.strip() for part in split.split("+")]


def _read(
    data: Data,
    part: str,
    classes: tuple[str, ...] | None,
    image_sizes: Mapping[str, tuple[int, int]] | None,
) -> Dataset:
    options = _options(data) | {"image_sizes": image_sizes}
    form, root = FORMATS[data.format], Path(data.root)
    return form.read_split(root, part, classes, data.on_bad_annotation, options)


def _options(data: Data) -> dict[str, Any]:
    """The settings that readers take as keywords."""
    delimiter = DELIMITERS.get(data.csv.delimiter, "")
    settings = {name: getattr(data, name) for name in SETTINGS}
    settings |= {"delimiter": delimiter, "header": data.csv.header, "lines": data.yolo.lines}
    return settings | {"class_file": data.class_file}
