"""Dataset -> COCO: annotations/instances_<split>.json, images in <split>."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data.records import Dataset
from data.writers.common import check_names, lost, number, pixels
from utils.files import write_text


def write_coco(dataset: Dataset, root: str | Path, split: str, names: Sequence[str]) -> list[str]:
    """Writes one split as a COCO file, an image, an object or a category a line.

    names: file names in the folder <split>, one for each image, subfolders and all.
    Image ids that are whole numbers are kept if all are, and so are those that were texts in a COCO
    file; else the images are numbered from 1.
    A region to ignore has `iscrowd` 1; a difficult object the extra key `difficult`, which
    `data.formats.coco` reads and others pass over.
    Returns the losses. Raises ValueError for a name that cannot be used.
    """
    check_names(names, dataset)
    image_ids: Sequence[str | int] = dataset.image_ids
    num_renamed = 0
    if dataset.text_ids:
        image_ids = [_text(image_id) for image_id in dataset.image_ids]
    elif not all(map(_is_number, dataset.image_ids)):
        image_ids, num_renamed = range(1, len(dataset) + 1), len(dataset)
    parts = {
        "images": [
            f'{{"id":{image_id},"file_name":{_text(name)},"width":{width},"height":{height}}}'
            for image_id, name, (width, height) in zip(
                image_ids, names, dataset.sizes.tolist(), strict=True
            )
        ],
        "annotations": _objects(dataset, image_ids),
        "categories": [
            f'{{"id":{_text(number)},"name":{_text(name)}}}'
            for number, name in zip(dataset.category_ids, dataset.classes, strict=True)
        ],
    }
    path = Path(root) / "annotations" / f"instances_{split}.json"
    lists = (f'"{key}":[\n' + ",\n".join(lines) + "\n]" for key, lines in parts.items())
    write_text(path, "{" + ",".join(lists) + "}\n")
    return lost(num_renamed, "image ids: COCO's are numbers; the names are kept in file_name")


def _objects(dataset: Dataset, image_ids: Sequence[str | int]) -> Iterable[str]:
    """One line an object, numbered from 1: pycocotools never matches an annotation of id 0."""
    category_ids = [_text(category_id) for category_id in dataset.category_ids]
    for row, image in enumerate(dataset.image_index):
        extra = ',"difficult":1' if dataset.difficult[row] else ""
        yield (
            f'{{"id":{row + 1},"image_id":{image_ids[image]},'
            f'"category_id":{category_ids[dataset.labels[row]]},'
            f'"bbox":[{",".join(_xywh(dataset.boxes[row]))}],'
            f'"area":{number(dataset.areas[row])},"iscrowd":{int(dataset.ignore[row])}{extra}}}'
        )


def _xywh(box: np.ndarray) -> tuple[str, str, str, str]:
    """x, y, width, height of an xyxy box."""
    x1, y1, x2, y2 = box
    return number(x1), number(y1), pixels(x2 - x1), pixels(y2 - y1)


def _is_number(image_id: str) -> bool:
    """Whether a file's number, of 63 bits, reads back as this id."""
    is_short = image_id.isascii() and image_id.isdigit() and len(image_id) < 19
    return is_short and image_id == str(int(image_id))


def _text(text: str | int) -> str:
    return json.dumps(text, ensure_ascii=False)
