"""Detection results in the .odgt files of CrowdHuman's evaluation, one JSON object a line.

Shao et al., "CrowdHuman: A Benchmark for Detecting Human in a Crowd", 2018; the detections as
CrowdDet (Chu et al., CVPR 2020) writes and judges them. Boxes are [x, y, width, height], absolute
pixels, continuous and counted from 0.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from data.detections.common import XYWH, parse_json, write_files
from data.detections.per_image import PerImage
from data.files import read_data
from data.formats.texts import OF_DATASET
from utils.detections import DetectionTable


class _Box(msgspec.Struct, gc=False, rename={"label": "tag"}):
    box: tuple[float, float, float, float]
    score: float
    label: int | str = 1


class _Line(msgspec.Struct, gc=False, rename={"image_id": "ID", "detections": "dtboxes"}):
    image_id: str
    width: int
    height: int
    detections: list[_Box]


ODGT = PerImage(_Line, _Box, XYWH, "ID", "dtboxes", "tag", numbers_too=True)


def write_odgt(path: str | Path, table: DetectionTable, sizes: np.ndarray) -> None:
    """Writes one line an image, also for images without detections.

    path: file to write or replace; it is never left half-written.
    sizes: (M, 2) int, width and height of the M images in pixels.

    A line is {"ID", "width", "height", "dtboxes": [{"box": [x, y, width, height], "score", "tag":
    class name}]}; lines are in the order of `table.image_ids`, and within an image the detections
    keep their order.

    Raises ValueError for a wrong shape of sizes, OSError if the disk refuses.
    """
    entries = ODGT.entries(table, sizes)
    write_files({Path(path): (json.dumps(one, ensure_ascii=False) + "\n" for one in entries)})


def read_odgt(path: str | Path, image_ids: Sequence[str], classes: Sequence[str]) -> DetectionTable:
    """Reads the detections of an .odgt file, ours or another program's.

    image_ids, classes: what the results are of, usually the ground truth's; they give the indices.
    A tag is a class name, or a number from 1 to K: the class's place in the K `classes` (CrowdDet
    writes 1 for a person); without, it is 1. Blank lines are passed over.

    Raises DatasetError naming file, line (from 1), place in dtboxes, expected and found. Images
    must be exactly `image_ids`.
    """
    return ODGT.table(path, _lines(path), image_ids, classes)


def read_odgt_sizes(path: str | Path) -> dict[str, tuple[int, int]]:
    """{ID: (width, height)} of the images of an .odgt file. Errors as `read_odgt`."""
    return ODGT.sizes(_lines(path))


def _lines(path: str | Path) -> Iterator[tuple[str, _Line]]:
    for number, text in enumerate(read_data(path, OF_DATASET).split(b"\n"), start=1):
        if text.strip():
            where = f"{path}, line {number}"
            yield where, parse_json(text, _Line, where)
