"""Detection results as files: our own JSON, and the PASCAL VOC devkit's `comp4_det_*` text files.

And what other formats of detections share: see detections_coco.py and detections_odgt.py.

Boxes in memory are xyxy, absolute pixels, continuous coordinates. Numbers are written with all
their digits, so what is read back is what was written, up to the rounding of the devkit's +1 (about
1e-13 pixels).
Letters: M images, D detections, K classes.
"""

import contextlib
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from data.files import read_data
from data.records import DatasetError
from data.texts import OF_DATASET, text_lines
from utils.files import naming, whole_file

PREFIX = "comp4_det_"  # the VOC devkit's competition 4: detection, trained on any data
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
    columns = _Columns()
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


def write_devkit(directory: str | Path, image_set: str, table: DetectionTable) -> list[Path]:
    """Writes one `comp4_det_<image_set>_<class>.txt` a class, as the VOC devkit's VOCevaldet reads.

    directory: is made if it is not there; a class without detections gets an empty file. All files
    are complete before the first one takes its place.
    Lines are `image_id score xmin ymin xmax ymax` in the table's order, 1-based inclusive pixel
    corners: x1 + 1, y1 + 1, x2, y2.

    Returns the paths, in the order of the classes. Raises ValueError for a name that the format
    cannot hold, OSError if the disk refuses.
    """
    for image_id in table.image_ids:
        if image_id != image_id.strip() or len(image_id.splitlines()) != 1:
            raise ValueError(
                f"image_ids: expected one line without blanks at its ends, found {image_id!r}"
            )
    for name in (image_set, *table.classes):
        if not name or set(name) & set("\0\n\r"):
            raise ValueError(f"image set or class: expected part of a file name, found {name!r}")
    files = {
        Path(directory) / _devkit_name(image_set, name): _devkit_lines(table, label)
        for label, name in enumerate(table.classes)
    }
    write_files(files)
    return list(files)


def read_devkit(
    directory: str | Path, image_set: str, image_ids: Sequence[str], classes: Sequence[str]
) -> DetectionTable:
    """Reads the `comp4_det_<image_set>_<class>.txt` files of a directory, class after class.

    image_ids, classes: what the results are of, usually the ground truth's; they give the indices.
    A class without a file has no detections. An image set whose name begins with another's and an
    underscore needs a directory of its own.

    Returns a table with float64 boxes and scores and int64 indices. Raises DatasetError naming
    file, line, expected and found: no file at all, a file of an unknown class, an image that is
    not in image_ids, a line that does not hold what it should.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise DatasetError(f"{directory}: expected a directory of detections, found none")
    start = _devkit_name(image_set, "").removesuffix(".txt")
    names = [_devkit_name(image_set, name) for name in classes]
    found = sorted(
        path.name
        for path in directory.iterdir()
        if path.name.startswith(start) and path.name.endswith(".txt")
    )
    if not found:
        raise DatasetError(f"{directory}: expected files {start}<class>.txt, found none")
    unknown = [name for name in found if name not in set(names)]
    if unknown:
        raise DatasetError(
            f"{directory}: expected only classes of {list(classes)}, found files of {unknown}"
        )
    index_of = {image_id: i for i, image_id in enumerate(image_ids)}
    columns = _Columns()
    for label, name in enumerate(names):
        path = directory / name
        if path.exists():
            _read_class(columns, path, label, index_of)
    return columns.table(image_ids, classes)


def _devkit_name(image_set: str, class_name: str) -> str:
    """The file of a class; what no file name can hold is written as in addresses: a/b, a%2Fb."""
    name = f"{PREFIX}{image_set}_{class_name}.txt"
    for character in "%/\\":
        name = name.replace(character, f"%{ord(character):02X}")
    return name


class _Columns:
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
    columns: _Columns, image: int, detection: object, label_of: dict[str, int], where: str
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
    if _inverted(box):
        raise DatasetError(f"{where}: expected box with x1 <= x2 and y1 <= y2, found {box}")
    columns.add(image, box, score, label_of[label])


def _is_number(value: object) -> TypeGuard[float]:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # false for nan


def _inverted(box: Sequence[float]) -> bool:
    return box[2] < box[0] - ROUNDING or box[3] < box[1] - ROUNDING


def _devkit_lines(table: DetectionTable, label: int) -> Iterable[str]:
    rows = np.flatnonzero(table.labels == label)
    corners = table.boxes[rows].astype(np.float64)  # where a float32 survives the +1
    corners[:, :2] += 1.0
    columns = (table.image[rows].tolist(), table.scores[rows].tolist(), corners.tolist())
    for image, score, (x1, y1, x2, y2) in zip(*columns, strict=True):
        yield f"{table.image_ids[image]} {score!r} {x1!r} {y1!r} {x2!r} {y2!r}\n"


def _read_class(columns: _Columns, path: Path, label: int, index_of: dict[str, int]) -> None:
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        # From the right: an image id may hold blanks, the five numbers cannot.
        image_id, *numbers = line.rsplit(None, 5)
        where = f"{path}, line {number}"
        try:
            score, x1, y1, x2, y2 = map(float, numbers)
        except ValueError:
            raise DatasetError(
                f"{where}: expected image_id score xmin ymin xmax ymax, found {line!r}"
            ) from None
        if not all(map(math.isfinite, (score, x1, y1, x2, y2))):
            raise DatasetError(f"{where}: expected finite numbers, found {line!r}")
        if image_id not in index_of:
            raise DatasetError(
                f"{where}: expected one of the {len(index_of)} images, found {image_id!r}"
            )
        box = (x1 - 1.0, y1 - 1.0, x2, y2)
        if _inverted(box):
            raise DatasetError(
                f"{where}: expected corners with xmin <= xmax and ymin <= ymax, found {line!r}"
            )
        columns.add(index_of[image_id], box, score, label)
