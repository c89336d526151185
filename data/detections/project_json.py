"""This project's own files of detections: JSON, one entry an image."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from data.detections.common import XYXY, json_list, parse_json, write_files
from data.detections.per_image import PerImage
from data.files import read_data
from data.formats.texts import OF_DATASET
from utils.detections import DetectionTable


class _Detection(msgspec.Struct, gc=False):
    label: str
    score: float
    box: tuple[float, float, float, float]


class _Entry(msgspec.Struct, gc=False):
    image_id: str
    width: int
    height: int
    detections: list[_Detection]


JSON = PerImage(_Entry, _Detection, XYXY, "image_id", "detections", "label")


def write_json(path: str | Path, table: DetectionTable, sizes: np.ndarray) -> None:
    """Writes one entry an image, also for images without detections; one line an entry.

    path: file to write or replace; it is never left half-written.
    sizes: (M, 2) int, width and height of the M images in pixels.

    The file is a list of {"image_id", "width", "height", "detections": [{"label": class name,
    "score", "box": [x1, y1, x2, y2]}]} in the order of `table.image_ids`; within an image the
    detections keep their order.

    Raises ValueError for a wrong shape of sizes, OSError if the disk refuses.
    """
    write_files({Path(path): json_list(JSON.entries(table, sizes))})


def read_json(path: str | Path, image_ids: Sequence[str], classes: Sequence[str]) -> DetectionTable:
    """Reads what `write_json` wrote.

    image_ids, classes: what the results are of, usually the ground truth's; they give the indices.

    Raises DatasetError naming file, place, expected and found. Images must be exactly `image_ids`.
    """
    return JSON.table(path, _entries(path), image_ids, classes)


def read_json_sizes(path: str | Path) -> dict[str, tuple[int, int]]:
    """{image id: (width, height)} of the images of `write_json`'s file. Errors as `read_json`."""
    return JSON.sizes(_entries(path))


def _entries(path: str | Path) -> Iterator[tuple[str, _Entry]]:
    entries = parse_json(read_data(path, OF_DATASET), list[_Entry], str(path))
    for number, entry in enumerate(entries):
        yield f"{path}, entry {number}", entry
