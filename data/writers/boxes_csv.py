"""Dataset -> CSV: <split>.csv of `path,x1,y1,x2,y2,class`, classes.csv of `name,id`, images.

The form of yhenon's pytorch-retinanet: no header; `path,,,,,` is an image without objects.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data.records import Dataset
from data.writers.common import check_classes, check_names, lost_flags, lost_numbers, number
from utils.files import whole_file


def write_csv(dataset: Dataset, root: str | Path, split: str, names: Sequence[str]) -> list[str]:
    """Writes one split as CSV, and classes.csv, which is the same for all splits.

    names: file names in the folder images, one for each image, subfolders and all.
    Regions to ignore are left out: they would become objects.
    Returns the losses. Raises ValueError for a name or class that cannot be used.
    """
    check_classes(dataset.classes)
    check_names(names, dataset)
    rows = []
    for index, name in enumerate(names):
        at = dataset.rows(index)
        kept = np.flatnonzero(~dataset.ignore[at]) + at.start
        classes = [dataset.classes[label] for label in dataset.labels[kept]]
        boxes = [[*map(number, dataset.boxes[k]), c] for k, c in zip(kept, classes, strict=True)]
        rows += [[f"images/{name}", *box] for box in boxes or [[""] * 5]]
    write_rows(Path(root) / f"{split}.csv", rows)
    write_classes(Path(root) / "classes.csv", dataset.classes)
    return lost_flags(dataset, "CSV") + lost_numbers(dataset, "CSV")


def write_classes(path: str | Path, classes: Sequence[str]) -> None:
    """Writes a class file: a line `name,id` a class, ids from 0."""
    write_rows(path, [[name, str(label)] for label, name in enumerate(classes)])


def write_rows(path: str | Path, rows: Iterable[Sequence[str]]) -> None:
    """Writes a CSV file, UTF-8; fields that hold a comma are put in double quotes."""
    with whole_file(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
