"""Dataset -> Pascal VOC: Annotations/*.xml, ImageSets/Main/<split>.txt, images in JPEGImages.

Letters: T objects.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from lxml import etree

from data.records import Dataset
from data.writers.common import check_classes, check_names, lost, lost_numbers, number, pixels
from utils.files import write_bytes, write_text


def write_voc(dataset: Dataset, root: str | Path, split: str, names: Sequence[str]) -> list[str]:
    """Writes one split as VOC XML; an image's id becomes the stem of its name.

    names: file names in JPEGImages, one for each image: no folders, different stems.
    Corners are written 1-based and inclusive. Regions to ignore become difficult objects. A box at
    most 1 px wide or high is left out: its corners coincide, and readers, ours among them, take it
    for empty.
    Returns the losses. Raises ValueError for a name or class that cannot be used, and for an image
    that is there from another split with other objects.
    """
    check_classes(dataset.classes)
    check_names(names, dataset, by_stem=True)
    folder, sets = Path(root) / "Annotations", Path(root) / "ImageSets" / "Main"
    num_written, stems = 0, [PurePosixPath(name).stem for name in names]
    for index, (stem, name) in enumerate(zip(stems, names, strict=True)):
        objects = list(_objects(dataset, index))
        num_written += len(objects)
        xml = annotation(name, dataset.sizes[index], objects)
        path = folder / f"{stem}.xml"
        if path.exists() and path.read_bytes() != xml:
            raise ValueError(f"{path}: another split has the image with other objects")
        write_bytes(path, xml)
    write_text(sets / f"{split}.txt", "".join(f"{stem}\n" for stem in stems))
    num_small = len(dataset.labels) - num_written
    return [
        *lost(
            np.count_nonzero(dataset.ignore),
            "regions to ignore: became difficult objects; train with data.train_on_difficult=False",
        ),
        *lost(
            num_small, "boxes at most 1 px wide or high: left out, VOC's readers find them empty"
        ),
        *lost_numbers(dataset, "VOC"),
    ]


def annotation(
    filename: str, size: Sequence[int], objects: Iterable[dict], database: str = "Unknown"
) -> bytes:
    """The VOC XML of one image.

    size: width, height in pixels. objects: each with name, truncated, difficult and corners, the
    last being xmin, ymin, xmax, ymax: 1-based and inclusive.
    """
    root = etree.Element("annotation")

    def add(parent: etree._Element, **fields: object) -> None:
        for tag, value in fields.items():
            etree.SubElement(parent, tag).text = str(value)

    add(root, folder="JPEGImages", filename=filename)
    add(etree.SubElement(root, "source"), database=database)
    add(etree.SubElement(root, "size"), width=size[0], height=size[1], depth=3)
    add(root, segmented=0)
    for item in objects:
        node = etree.SubElement(root, "object")
        add(node, name=item["name"], pose="Unspecified")
        add(node, truncated=int(item["truncated"]), difficult=int(item["difficult"]))
        tags = ("xmin", "ymin", "xmax", "ymax")
        add(etree.SubElement(node, "bndbox"), **dict(zip(tags, item["corners"], strict=True)))
    return etree.tostring(root, pretty_print=True, encoding="utf-8")


def _objects(dataset: Dataset, index: int) -> Iterable[dict]:
    """The objects of one image as `annotation` takes them."""
    rows = dataset.rows(index)
    for row in range(rows.start, rows.stop):
        x1, y1, x2, y2 = dataset.boxes[row]
        corners = pixels(x1 + 1), pixels(y1 + 1), number(x2), number(y2)
        xmin, ymin, xmax, ymax = map(float, corners)
        if xmin < xmax and ymin < ymax:
            yield {
                "name": dataset.classes[dataset.labels[row]],
                "truncated": False,
                "difficult": dataset.difficult[row] or dataset.ignore[row],
                "corners": corners,
            }
