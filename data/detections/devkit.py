"""Detection results as the PASCAL VOC devkit's `comp4_det_*` text files, one a class."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data.detections.common import BoxConvention, Row, checked_table, index_of, write_files
from data.detections.image_names import ids_shown, images_by_name
from data.formats.text_files import text_lines
from data.records import DatasetError
from utils.detections import DetectionTable

INCLUSIVE = BoxConvention(  # corners counted from 1
    "[xmin, ymin, xmax, ymax]",
    "xmin <= xmax and ymin <= ymax",
    lambda corners: np.concatenate([corners[:, :2] - 1, corners[:, 2:]], axis=1),
    lambda xyxy: np.concatenate([xyxy[:, :2] + 1, xyxy[:, 2:]], axis=1),
)
PREFIX = "comp4_det_"  # the VOC devkit's competition 4: detection, trained on any data


def image_set_name(split: str) -> str:
    """A split as it stands in file names."""
    return split.replace("/", "_").replace("+", "_").replace(" ", "")


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
    directory: str | Path,
    image_set: str,
    image_ids: Sequence[str],
    classes: Sequence[str],
    files: Sequence[str] = (),
) -> DetectionTable:
    """Reads the `comp4_det_<image_set>_<class>.txt` files of a directory, class after class.

    image_ids, classes, files: what the results are of, usually the ground truth's; they give the
        indices. An image may be named by its file, see `images_by_name`.
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
    found_lines = []
    for label, path in enumerate(str(directory / name) for name in names):
        lines = text_lines(path) if Path(path).exists() else []
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                image_id, score, *box = _parsed(line, where)
                found_lines.append((image_id, where, label, score, box))
    images = images_by_name(directory, {line[0]: "" for line in found_lines}, image_ids, files)
    one_of = f"one of {ids_shown(image_ids)}"
    rows = [
        Row(where, index_of(image_id, images, where, one_of), label, score, box)
        for image_id, where, label, score, box in found_lines
    ]
    return checked_table(rows, image_ids, classes, INCLUSIVE)


def _devkit_name(image_set: str, class_name: str) -> str:
    """The file of a class; what no file name can hold is written as in addresses: a/b, a%2Fb."""
    name = f"{PREFIX}{image_set}_{class_name}.txt"
    for character in "%/\\":
        name = name.replace(character, f"%{ord(character):02X}")
    return name


def _devkit_lines(table: DetectionTable, label: int) -> Iterable[str]:
    rows = np.flatnonzero(table.labels == label)
    corners = INCLUSIVE.write(table.boxes[rows]).tolist()
    columns = (table.image[rows].tolist(), table.scores[rows].tolist(), corners)
    for image, score, (x1, y1, x2, y2) in zip(*columns, strict=True):
        yield f"{table.image_ids[image]} {score!r} {x1!r} {y1!r} {x2!r} {y2!r}\n"


def _parsed(line: str, where: str) -> tuple[str, float, float, float, float, float]:
    # From the right: an image id may hold blanks, the five numbers cannot.
    image_id, *numbers = line.rsplit(None, 5)
    try:
        score, x1, y1, x2, y2 = map(float, numbers)
    except ValueError:
        raise DatasetError(
            f"{where}: expected image_id score xmin ymin xmax ymax, found {line!r}"
        ) from None
    return image_id, score, x1, y1, x2, y2
