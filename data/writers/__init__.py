"""Dataset -> files, one module a format: what `python -m data.convert` writes.

Each `write_<format>(dataset, root, split, names)` writes the annotations of one split and returns
what the format could not hold, in words with counts; the images are the caller's to place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.records import Dataset
from data.writers.boxes_csv import write_csv
from data.writers.coco import write_coco
from data.writers.voc import write_voc
from data.writers.yolo import write_yolo


@dataclass(frozen=True)
class Format:
    """write: the writer. image_folder: where its images lie below root, with {split} in it.

    by_stem: whether two images may not differ in the suffix alone. flat: no subfolders.
    needed: splits that the format's own tools do not train without.
    """

    write: Callable[[Dataset, Path, str, Sequence[str]], list[str]]
    image_folder: str
    by_stem: bool = False
    flat: bool = False
    needed: tuple[str, ...] = ()


FORMATS = {
    "voc": Format(write_voc, "JPEGImages", by_stem=True, flat=True),
    "coco": Format(write_coco, "{split}"),
    "csv": Format(write_csv, "images"),
    "yolo": Format(write_yolo, "images/{split}", by_stem=True, needed=("train", "val")),
}
