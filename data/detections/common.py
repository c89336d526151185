"""What the files of detections share: JSON, conventions of boxes, the check of what was read.

Numbers are written with all their digits, so that what is read back is what was written, up to the
rounding of a file's own convention (about 1e-13 pixels).
Letters: M images, D detections, K classes.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np

from data.formats.json_text import json_problem
from data.records import DatasetError
from utils.detections import DetectionTable
from utils.files import naming, whole_file

ROUNDING = 1e-6  # pixels by which a box without area may come out inverted after the devkit's +1

Name = TypeVar("Name", int, str, int | str)


@dataclass(frozen=True)
class BoxConvention:
    """How a file writes a box: the names of its four numbers, and which of them are in order.

    read, write: (D, 4) float64 of the file -> xyxy, and back.
    """

    names: str
    order: str
    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


XYXY = BoxConvention("[x1, y1, x2, y2]", "x1 <= x2 and y1 <= y2", np.copy, np.copy)
XYWH = BoxConvention(
    "[x, y, w, h]",
    "w, h >= 0",
    lambda xywh: np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
    lambda xyxy: np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1),
)


class Row(NamedTuple):
    """A detection as a file has it. where: file and place, for the messages."""

    where: str
    image: int
    label: int
    score: float
    box: Sequence[float]


def checked_table(
    rows: Sequence[Row], image_ids: Sequence[str], classes: Sequence[str], convention: BoxConvention
) -> DetectionTable:
    """The table of what was read.

    Raises DatasetError for numbers that are not finite or an inverted box.
    """
    numbers = np.array([row.score for row in rows], np.float64)
    written = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
    with np.errstate(over="ignore", invalid="ignore"):
        corners = convention.read(written)
        is_inverted = (corners[:, 2:] - corners[:, :2] < -ROUNDING).any(axis=1)
    box = f"a box {convention.names} with"
    for wrong, expected, values in (
        (~np.isfinite(numbers), "a finite score", numbers),
        (~np.isfinite(corners).all(axis=1), f"{box} finite corners", written),
        (is_inverted, f"{box} {convention.order}", written),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            found = values[row].tolist()
            raise DatasetError(f"{rows[row].where}: expected {expected}, found {found}")
    return DetectionTable(
        tuple(image_ids),
        tuple(classes),
        image=np.array([row.image for row in rows], np.int64),
        boxes=corners,
        scores=numbers,
        labels=np.array([row.label for row in rows], np.int64),
    )


def index_of(found: Name, indices: Mapping[Name, int], where: str, expected: str) -> int:
    """The index of an image or a class. Raises DatasetError for one that is not there."""
    if found not in indices:
        raise DatasetError(f"{where}: expected {expected}, found {short(found)}")
    return indices[found]


def parse_json(data: bytes, kind: Any, where: str) -> Any:
    """Decodes JSON as a type that msgspec knows.

    where: file, and line if there are several, for the messages.

    Raises DatasetError naming the place in the JSON, expected and found. NaN and infinity pass, so
    that the caller can name the entry they are in.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    try:
        return msgspec.convert(json.loads(data), kind)
    except msgspec.ValidationError as error:
        place, problem = json_problem(error)
        place = re.sub(r"^\[(\d+)\]\.?", r"entry \1.", place).rstrip(".").replace(".", ", ")
        raise DatasetError(", ".join(filter(None, (where, place))) + f": {problem}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: expected JSON, found {error}") from None


def json_list(entries: Iterable[object]) -> Iterable[str]:
    """The text of a JSON list, an entry a line."""
    yield "["
    for number, entry in enumerate(entries):
        yield (",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False)
    yield "\n]\n"


def write_files(files: dict[Path, Iterable[str]]) -> None:
    """Writes all files beside their places, then moves all there; on failure leaves none behind."""
    with contextlib.ExitStack() as stack:
        # Left in the opposite order, so that the first file is the first to take its place.
        parts = {path: stack.enter_context(whole_file(path)) for path in reversed(files)}
        for path, lines in files.items():
            part = parts[path]
            with naming(path, part), open(part, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(lines)
