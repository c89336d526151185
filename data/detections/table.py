"""The detections of a split in flat arrays, and what the files of them share.

Boxes in memory are xyxy, absolute pixels, continuous coordinates. Numbers are written with all
their digits, so that what is read back is what was written, up to the rounding of a file's own
convention (about 1e-13 pixels).
Letters: M images, D detections, K classes.
"""

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from data.records import DatasetError
from utils.files import naming, whole_file

ROUNDING = 1e-6  # pixels by which a box without area may come out inverted after the devkit's +1


@dataclass(frozen=True)
class DetectionTable:
    """The detections of a whole split in flat arrays, in any order.

    image_ids: M different strings. classes: K different names.
    image: (D,) int, index into image_ids.
    boxes: (D, 4) float xyxy, absolute pixels.
    scores: (D,) float. labels: (D,) int, index into classes.

    Raises ValueError naming the field, expected and found: wrong shapes, indices out of range,
    names that occur twice, numbers that are not finite.
    """

    image_ids: tuple[str, ...]
    classes: tuple[str, ...]
    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        for name in ("image_ids", "classes"):
            names = tuple(getattr(self, name))
            object.__setattr__(self, name, names)
            if len(set(names)) != len(names):
                twice = next(n for n in names if names.count(n) > 1)
                raise ValueError(f"{name}: expected different names, found {twice!r} twice")
        num = np.asarray(self.image).shape[0] if np.ndim(self.image) else 0
        shapes = {"image": (num,), "boxes": (num, 4), "scores": (num,), "labels": (num,)}
        for name, shape in shapes.items():
            array = np.asarray(getattr(self, name))
            object.__setattr__(self, name, array)
            if array.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, found {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite numbers, found nan or infinity")
        for name, names in (("image", self.image_ids), ("labels", self.classes)):
            _check_indices(name, getattr(self, name), len(names))

    def __len__(self) -> int:
        return len(self.image)


class Columns:
    """Detections while they are being read."""

    def __init__(self) -> None:
        self.image: list[int] = []
        self.boxes: list[Sequence[float]] = []
        self.scores: list[float] = []
        self.labels: list[int] = []

    def add(self, image: int, box: Sequence[float], score: float, label: int) -> None:
        self.image.append(image)
        self.boxes.append(box)
        self.scores.append(score)
        self.labels.append(label)

    def table(self, image_ids: Sequence[str], classes: Sequence[str]) -> DetectionTable:
        return DetectionTable(
            image_ids=tuple(image_ids),
            classes=tuple(classes),
            image=np.array(self.image, np.int64),
            boxes=np.array(self.boxes, np.float64).reshape(-1, 4),
            scores=np.array(self.scores, np.float64),
            labels=np.array(self.labels, np.int64),
        )


def _check_indices(name: str, indices: np.ndarray, count: int) -> None:
    if indices.size and not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"{name}: expected an integer type, found {indices.dtype}")
    wrong = np.flatnonzero((indices < 0) | (indices >= count))
    if wrong.size:
        row = wrong[0]
        raise ValueError(f"{name}: expected 0 to {count - 1}, found {indices[row]} in row {row}")


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
        raise DatasetError(f"{where}{_reworded(str(error))}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: expected JSON, found {error}") from None


def _reworded(problem: str) -> str:
    """msgspec's "Expected `float`, got `str` - at `$[3].score`" in the order of our messages."""
    problem, _, place = problem.partition(" - at `$")
    place = re.sub(r"^\[(\d+)\]", r".entry \1", place.rstrip("`")).replace(".", ", ")
    missing = r"expected an object with the field \1, found none"
    problem = re.sub(r"^Object missing required field (.*)", missing, problem)
    return f"{place}: " + problem.replace("Expected", "expected").replace(", got", ", found")


def checked_sizes(sizes: np.ndarray, table: DetectionTable) -> np.ndarray:
    """The (M, 2) sizes of the table's images. Raises ValueError if they have another shape."""
    sizes = np.asarray(sizes)
    if sizes.shape != (len(table.image_ids), 2):
        raise ValueError(f"sizes: expected shape ({len(table.image_ids)}, 2), found {sizes.shape}")
    return sizes


def check_complete(path: str | Path, image_ids: Sequence[str], seen: Collection[int]) -> None:
    """Raises DatasetError if the index of an image is not among those `seen` in the file."""
    missing = [image_id for index, image_id in enumerate(image_ids) if index not in seen]
    if missing:
        raise DatasetError(
            f"{path}: expected an entry for each of {len(image_ids)} images, with an empty list if "
            f"nothing was detected; found none for {len(missing)}, the first {missing[0]!r}"
        )


def rows_by_image(table: DetectionTable) -> list[np.ndarray]:
    """For each of the M images the rows of its detections, in the table's order."""
    order = np.argsort(table.image, kind="stable")
    starts = np.searchsorted(table.image[order], np.arange(len(table.image_ids)))
    return np.split(order, starts)[1:]


def xywh_boxes(table: DetectionTable) -> list[list[float]]:
    """The D boxes as [x, y, width, height], calculated in float64."""
    boxes = table.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes.tolist()


def xywh_table(
    image_ids: Sequence[str],
    classes: Sequence[str],
    *,
    image: ArrayLike,
    boxes: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike,
    where: Callable[[int], str],
) -> DetectionTable:
    """A table of boxes read as (x, y, width, height).

    where: row -> file and place, for the messages.

    Returns float64 boxes and scores and int64 indices. Raises DatasetError for numbers that are not
    finite or a negative side.
    """
    xywh = np.array(boxes, np.float64).reshape(-1, 4)
    numbers = np.array(scores, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    checks = (
        (~np.isfinite(numbers), "a finite score", numbers),
        (~np.isfinite(corners).all(axis=1), "a box [x, y, w, h] with finite corners", xywh),
        ((xywh[:, 2:] < -ROUNDING).any(axis=1), "a box [x, y, w, h] with w, h >= 0", xywh),
    )
    for wrong, expected, values in checks:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DatasetError(f"{where(row)}: expected {expected}, found {values[row].tolist()}")
    return DetectionTable(
        image_ids=tuple(image_ids),
        classes=tuple(classes),
        image=np.array(image, np.int64),
        boxes=corners,
        scores=numbers,
        labels=np.array(labels, np.int64),
    )


def write_files(files: dict[Path, Iterable[str]]) -> None:
    """Writes all files beside their places, then moves all there; on failure leaves none behind."""
    with contextlib.ExitStack() as stack:
        # Left in the opposite order, so that the first file is the first to take its place.
        parts = {path: stack.enter_context(whole_file(path)) for path in reversed(files)}
        for path, lines in files.items():
            part = parts[path]
            with naming(path, part), open(part, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(lines)


def is_inverted(box: Sequence[float]) -> bool:
    return box[2] < box[0] - ROUNDING or box[3] < box[1] - ROUNDING
