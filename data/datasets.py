"""The dataset a config names: format -> reader, splits joined, one class list for all of them."""

from pathlib import Path

from configs.schema import Data
from data.records import Dataset, DatasetError, concatenate, first_images
from data.shapes import make_shapes
from data.voc import discover_classes, read_voc


def prepare(data: Data) -> tuple[str, ...]:
    """The class names, of the config or discovered.

    Classes are looked for in the training and the validation split together. Raises DatasetError
    where neither has an object.
    """
    _generate(data)
    if data.classes:
        return data.classes
    parts = dict.fromkeys(_parts(data, data.train) + _parts(data, data.val))
    found = [
        discover_classes(root, [split], val_fraction=data.val_fraction) for root, split in parts
    ]
    classes = tuple(sorted({name for names in found for name in names}))
    if not classes:
        raise DatasetError(f"{data.root}: no objects in {data.train} and {data.val}")
    return classes


def read_split(data: Data, split: str, classes: tuple[str, ...]) -> Dataset:
    """Reads a split, or several joined by "+", each optionally with its folder: "VOC2007/train".

    Raises DatasetError as the format's reader does.
    """
    _generate(data)
    dataset = concatenate(
        [
            read_voc(
                root,
                name,
                classes,
                on_bad_annotation=data.on_bad_annotation,
                val_fraction=data.val_fraction,
            )
            for root, name in _parts(data, split)
        ]
    )
    return first_images(dataset, data.limit) if data.limit else dataset


def _generate(data: Data) -> None:
    """Makes a dataset that is to be generated, if it is not there yet."""
    if data.format == "shapes":
        make_shapes(data.root)


def _parts(data: Data, split: str) -> list[tuple[Path, str]]:
    """ "VOC2007/trainval + VOC2012/trainval" -> [(root/VOC2007, "trainval"), ...]."""
    pairs = []
    for part in split.split("+"):
        folder, _, name = part.strip().rpartition("/")
        pairs.append((Path(data.root) / folder, name))
    return pairs
