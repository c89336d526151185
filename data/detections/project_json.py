"""This project's own files of detections: JSON, one entry an image.

Letters: M images.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import msgspec
import numpy as np

from data.detections.table import (
    Columns,
    DetectionTable,
    check_complete,
    checked_sizes,
    is_inverted,
    parse_json,
    rows_by_image,
    write_files,
)
from data.files import read_data
from data.formats.text_files import OF_DATASET
from data.records import DatasetError


class _ImageSize(msgspec.Struct):
    image_id: str
    width: int
    height: int


def write_json(path: str | Path, table: DetectionTable, sizes: np.ndarray) -> None:
    """Writes one entry an image, also for images without detections; one line an entry.

    path: file to write or replace; it is never left half-written.
    sizes: (M, 2) int, width and height of the images in pixels.

    The file is a list of {"image_id", "width", "height", "detections": [{"label": class name,
    "score", "box": [x1, y1, x2, y2]}]} in the order of `table.image_ids`; within an image the
    detections keep their order.

    Raises ValueError for a wrong shape of sizes, OSError if the disk refuses.
    """
    write_files({Path(path): _json_lines(table, checked_sizes(sizes, table))})


def read_json(
    path: str | Path, image_ids: Sequence[str], classes: Sequence[str]
) -> tuple[DetectionTable, np.ndarray]:
    """Reads what `write_json` wrote.

    image_ids, classes: what the results are of, usually the ground truth's; they give the indices.

    Returns the table, with float64 boxes and scores and int64 indices, and sizes (M, 2) int64.
    Raises DatasetError naming file, place, expected and found. Images must be exactly `image_ids`:
    one that is not in the file was not run, which is not the same as having no detections.
    """
    entries = _load_json(path)
    index_of = {image_id: i for i, image_id in enumerate(image_ids)}
    label_of = {name: i for i, name in enumerate(classes)}
    sizes = np.zeros((len(index_of), 2), np.int64)
    seen: set[int] = set()
    columns = Columns()
    for number, entry in enumerate(entries):
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        where = f"{path}: entry {number} (image_id {image_id!r})"
        if not isinstance(image_id, str) or image_id not in index_of:
            raise DatasetError(
                f"{where}: expected image_id to be one of the {len(index_of)} images asked for"
            )
        index = index_of[image_id]
        if index in seen:
            raise DatasetError(f"{where}: expected each image once, found it twice")
        seen.add(index)
        sizes[index] = [_size(entry, name, where) for name in ("width", "height")]
        found = entry.get("detections")
        if not isinstance(found, list):
            raise DatasetError(f"{where}: expected a list of detections, found {found!r}")
        for place, detection in enumerate(found):
            _add_json(columns, index, detection, label_of, f"{where}, detection {place}")
    check_complete(path, image_ids, seen)
    return columns.table(image_ids, classes), sizes


def read_json_sizes(path: str | Path) -> dict[str, tuple[int, int]]:
    """{image id: (width, height)} of the images of `write_json`'s file. Errors as `read_json`."""
    entries = parse_json(read_data(path, OF_DATASET), list[_ImageSize], str(path))
    for number, entry in enumerate(entries):
        if not (0 < entry.width < 2**31 and 0 < entry.height < 2**31):
            where = f"{path}: entry {number} (image_id {entry.image_id!r})"
            raise DatasetError(f"{where}: expected width and height in pixels, found {entry}")
    return {entry.image_id: (entry.width, entry.height) for entry in entries}


def _json_lines(table: DetectionTable, sizes: np.ndarray) -> Iterable[str]:
    boxes, scores = table.boxes.tolist(), table.scores.tolist()
    names = [table.classes[label] for label in table.labels.tolist()]
    yield "["
    images = zip(table.image_ids, rows_by_image(table), strict=True)
    for index, (image_id, rows) in enumerate(images):
        width, height = sizes[index].tolist()
        entry = {
            "image_id": image_id,
            "width": width,
            "height": height,
            "detections": [
                {"label": names[row], "score": scores[row], "box": boxes[row]} for row in rows
            ],
        }
        yield (",\n" if index else "\n") + json.dumps(entry, ensure_ascii=False)
    yield "\n]\n"


def _load_json(path: str | Path) -> list:
    entries = parse_json(read_data(path, OF_DATASET), Any, str(path))
    if not isinstance(entries, list):
        raise DatasetError(
            f"{path}: expected a list, one entry an image, found a {type(entries).__name__}"
        )
    return entries


def _size(entry: dict, name: str, where: str) -> int:
    value = entry.get(name)
    if type(value) is not int or not 0 < value < 2**31:
        raise DatasetError(f"{where}: expected {name} in pixels, found {value!r}")
    return value


def _add_json(
    columns: Columns, image: int, detection: object, label_of: dict[str, int], where: str
) -> None:
    if not isinstance(detection, dict):
        raise DatasetError(f"{where}: expected an object, found {detection!r}")
    label, score, box = (detection.get(name) for name in ("label", "score", "box"))
    if not isinstance(label, str) or label not in label_of:
        raise DatasetError(
            f"{where}: expected label to be one of {list(label_of)}, found {label!r}"
        )
    if not _is_number(score):
        raise DatasetError(f"{where}: expected score to be a finite number, found {score!r}")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise DatasetError(f"{where}: expected box to be four finite numbers, found {box!r}")
    if is_inverted(box):
        raise DatasetError(f"{where}: expected box with x1 <= x2 and y1 <= y2, found {box}")
    columns.add(image, box, score, label_of[label])


def _is_number(value: object) -> TypeGuard[float]:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # false for nan
