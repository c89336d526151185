"""Dataset -> labelme: <split>/*.json, each beside its image."""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.records import Dataset
from data.writers.common import check_names, lost_numbers
from utils.files import write_text

VERSION = "5.0.1"  # whose files all later ones open
IGNORED = "__ignore__"  # the label of what labelme's own converters ignore


def write_labelme(
    dataset: Dataset, root: str | Path, split: str, names: Sequence[str]
) -> list[str]:
    """Writes one split as a JSON file an image, a rectangle an object.

    names: file names in the folder <split>, one for each image, subfolders and all; different
    stems. A difficult object has the shape flag "difficult", a region to ignore the flag "ignore":
    labelme shows and keeps them, `data.formats.labelme` reads them, other programs pass over them.
    Returns the losses. Raises ValueError for a name or class that cannot be used.
    """
    check_names(names, dataset, by_stem=True)
    if IGNORED in dataset.classes:
        raise ValueError(f"class {IGNORED!r}: means regions to ignore in labelme; rename it")
    for index, name in enumerate(names):
        path = (Path(root) / split / name).with_suffix(".json")
        width, height = dataset.sizes[index].tolist()
        contents = {
            "version": VERSION,
            "flags": {},
            "shapes": _shapes(dataset, index),
            "imagePath": PurePosixPath(name).name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_text(path, json.dumps(contents, ensure_ascii=False, indent=2) + "\n")
    return lost_numbers(dataset, "labelme")


def _shapes(dataset: Dataset, index: int) -> list[dict[str, object]]:
    rows = dataset.rows(index)
    shapes = []
    for row in range(rows.start, rows.stop):
        x1, y1, x2, y2 = dataset.boxes[row].tolist()
        flags = {"difficult": dataset.difficult[row], "ignore": dataset.ignore[row]}
        shapes.append(
            {
                "label": dataset.classes[dataset.labels[row]],
                "points": [[x1, y1], [x2, y2]],
                "group_id": None,
                "shape_type": "rectangle",
                "flags": {name: True for name, is_set in flags.items() if is_set},
            }
        )
    return shapes
