"""Detection results in the .odgt files of CrowdHuman's evaluation, one JSON object a line.

Shao et al., "CrowdHuman: A Benchmark for Detecting Human in a Crowd", 2018; the detections as
CrowdDet (Chu et al., CVPR 2020) writes and judges them.
Boxes in memory are xyxy, in the file [x, y, width, height]; both are absolute pixels, continuous
and counted from 0. Numbers are written with all their digits: what is read back is what was
written, up to the rounding of x + (x2 - x) (about 1e-13 pixels).
Letters: M images, D detections, K classes.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from reprlib import repr as short

import msgspec
import numpy as np

from data.detections.table import (
    DetectionTable,
    check_complete,
    checked_sizes,
    parse_json,
    rows_by_image,
    write_files,
    xywh_boxes,
    xywh_table,
)
from data.files import read_data
from data.formats.text_files import OF_DATASET
from data.records import DatasetError


class _Box(msgspec.Struct, gc=False):
    box: tuple[float, float, float, float]
    score: float
    tag: int | str = 1


class _Line(msgspec.Struct, gc=False, rename={"image_id": "ID"}):
    image_id: str
    width: int
    height: int
    dtboxes: list[_Box]


def write_odgt(path: str | Path, table: DetectionTable, sizes: np.ndarray) -> None:
    """Writes one line an image, also for images without detections.

    path: file to write or replace; it is never left half-written.
    sizes: (M, 2) int, width and height of the images in pixels.

    A line is {"ID", "width", "height", "dtboxes": [{"box": [x, y, width, height], "score", "tag":
    class name}]}; lines are in the order of `table.image_ids`, and within an image the detections
    keep their order.

    Raises ValueError for a wrong shape of sizes, OSError if the disk refuses.
    """
    write_files({Path(path): _lines(table, checked_sizes(sizes, table))})


def read_odgt(
    path: str | Path, image_ids: Sequence[str], classes: Sequence[str]
) -> tuple[DetectionTable, np.ndarray]:
    """Reads the detections of an .odgt file, ours or another program's.

    image_ids, classes: what the results are of, usually the ground truth's; they give the indices.
    A tag is a class name, or a number from 1 to K: the class's place in `classes` (CrowdDet writes
    1 for a person); without, it is 1. Blank lines are passed over.

    Returns the table, with float64 boxes and scores and int64 indices, and sizes (M, 2) int64.
    Raises DatasetError naming file, line (from 1), place in dtboxes, expected and found. Images
    must be exactly `image_ids`: one that is not in the file was not run, which is not the same as
    having no detections.
    """
    index_of = {image_id: index for index, image_id in enumerate(image_ids)}
    sizes = np.zeros((len(index_of), 2), np.int64)
    seen: set[int] = set()
    image, found, places = [], [], []
    for number, line in _read_lines(path):
        index = _new_image(line, index_of, seen, f"{path}, line {number}")
        seen.add(index)
        sizes[index] = line.width, line.height
        image += [index] * len(line.dtboxes)
        found += line.dtboxes
        places += [f"line {number}, dtboxes[{place}]" for place in range(len(line.dtboxes))]
    check_complete(path, image_ids, seen)
    label_of: dict[int | str, int] = {name: label for label, name in enumerate(classes)}
    label_of |= {label + 1: label for label in range(len(classes))}
    labels = [label_of.get(detection.tag, -1) for detection in found]
    if -1 in labels:
        row = labels.index(-1)
        raise DatasetError(
            f"{path}, {places[row]}: expected tag to be one of {list(classes)} or a number from 1 "
            f"to {len(classes)}, found {short(found[row].tag)}"
        )
    table = xywh_table(
        image_ids,
        classes,
        image=image,
        boxes=[detection.box for detection in found],
        scores=[detection.score for detection in found],
        labels=labels,
        where=lambda row: f"{path}, {places[row]}",
    )
    return table, sizes


def read_odgt_sizes(path: str | Path) -> dict[str, tuple[int, int]]:
    """{ID: (width, height)} of the images of an .odgt file. Errors as `read_odgt`."""
    sizes = {}
    for number, line in _read_lines(path):
        _check_size(line, f"{path}, line {number} (ID {short(line.image_id)})")
        sizes[line.image_id] = line.width, line.height
    return sizes


def _read_lines(path: str | Path) -> Iterable[tuple[int, _Line]]:
    for number, text in enumerate(read_data(path, OF_DATASET).split(b"\n"), start=1):
        if text.strip():
            yield number, parse_json(text, _Line, f"{path}, line {number}")


def _new_image(line: _Line, index_of: dict[str, int], seen: set[int], where: str) -> int:
    """The index of a line's image, which must be known and not yet seen; its size is checked."""
    if line.image_id not in index_of:
        raise DatasetError(
            f"{where}: expected ID to be one of the {len(index_of)} images, "
            f"found {short(line.image_id)}"
        )
    where = f"{where} (ID {line.image_id!r})"
    if index_of[line.image_id] in seen:
        raise DatasetError(f"{where}: expected each image once, found it twice")
    _check_size(line, where)
    return index_of[line.image_id]


def _check_size(line: _Line, where: str) -> None:
    if not all(0 < side < 2**31 for side in (line.width, line.height)):
        size = f"{short(line.width)} x {short(line.height)}"
        raise DatasetError(f"{where}: expected width and height in pixels, found {size}")


def _lines(table: DetectionTable, sizes: np.ndarray) -> Iterable[str]:
    boxes, scores = xywh_boxes(table), table.scores.tolist()
    tags = [table.classes[label] for label in table.labels.tolist()]
    images = zip(table.image_ids, sizes.tolist(), rows_by_image(table), strict=True)
    for image_id, (width, height), rows in images:
        entry = {
            "ID": image_id,
            "width": width,
            "height": height,
            "dtboxes": [
                {"box": boxes[row], "score": scores[row], "tag": tags[row]} for row in rows
            ],
        }
        yield json.dumps(entry, ensure_ascii=False) + "\n"
