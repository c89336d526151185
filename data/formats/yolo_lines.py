"""Lines of YOLO's label files: a class and its box, a polygon, or a box and what follows it.

    class cx cy w h                        a box: centre and size in fractions of the image
    class x1 y1 x2 y2 x3 y3 ...            a polygon's points; an oriented box has four
    class cx cy w h x y x y ...            a box and keypoints, of x y or x y visibility
    class cx cy w h confidence track       a box and what predictions add, one of the two or both

The count of numbers does not tell which: nine are an oriented box or a box with two keypoints. What
is declared decides; without that a look at all lines of a split, and where it leaves two
meanings the lines are refused.
https://docs.ultralytics.com/datasets/detect/, .../segment/, .../obb/, .../pose/
Letters: G objects of one file, L long lines (more than 5 numbers).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.records import DatasetError

BOXES, POLYGONS, ORIENTED = "boxes", "polygons", "oriented"  # what lines can be declared to hold
LIKELY = 0.5  # share of the long lines from which on a second meaning is no chance
EDGE = 0.02  # of the image that points and boxes may reach beyond it
MARGIN = 0.2  # of its box that a keypoint may lie outside of it
ROUNDING = 1e-3  # by which a parallelogram's diagonals may miss each other, in fractions
POINTS, TRACK = 1, 2  # what may follow a box

_HINT = (
    " (a prediction, with confidence or track id? "
    "If numbers 2 to 5 are a box, data.yolo.lines=boxes takes it and leaves the rest out)"
)


@dataclass(frozen=True)
class Declared:
    """What the user or the YAML file says of long lines.

    lines: BOXES, POLYGONS, ORIENTED (four corners) or "", nothing.
    keypoints: how many points follow a box, and of how many numbers each.
    """

    lines: str = ""
    keypoints: tuple[int, int] | None = None


UNDECLARED = Declared()


class Lines(NamedTuple):
    """The lines of one label file.

    rows: (G, 7) class, x1, y1, x2, y2 in fractions by numbers 2 to 5, count of numbers, line.
    long: (L, 6) of the long ones the hull of their points x1, y1, x2, y2, what may follow the box
      (0, POINTS or TRACK), whether the points are a parallelogram.
    defects: of the lines left out.
    """

    rows: np.ndarray
    long: np.ndarray
    defects: list[DatasetError]


class Meaning(NamedTuple):
    """What long lines hold.

    has_hull: whether the box is the hull of points; else it is numbers 2 to 5.
    fits: (L,) bool, which lines can hold it. kind, found: what these are counted as.
    expected, hint: for the messages of the others.
    """

    has_hull: bool
    fits: np.ndarray
    kind: str
    found: str
    expected: str = "expected class and 4 numbers, or class and 3 points or more"
    hint: str = ""


def parse_lines(lines: Sequence[tuple[int, str]], num_classes: int, path: Path) -> Lines:
    """The (number, text) lines of the file at `path` taken apart."""
    rows, long, defects = [], [], []
    for number, text in lines:
        try:
            values = _numbers(text, num_classes)
        except DatasetError as error:
            defects.append(DatasetError(f"{path}, line {number}: {error}", error.kind))
            continue
        index, x, y, w, h = values[:5]
        rows.append((index, x - w / 2, y - h / 2, x + w / 2, y + h / 2, len(values), number))
        if len(values) > 5:
            long.append(_points(values))
    return Lines(
        np.array(rows, float).reshape(-1, 7), np.array(long, float).reshape(-1, 6), defects
    )


def _numbers(text: str, num_classes: int) -> list[float]:
    """The numbers of a line, at least five and finite, the first of them a class."""
    words = text.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = [math.nan]
    if "_" in text or not all(map(math.isfinite, values)):  # float() takes "1_0"
        if words[0][0].isalpha() and words[0].lower() not in ("nan", "inf", "infinity"):
            expected = f"class: expected a whole number from 0 to {num_classes - 1}"
            raise DatasetError(f"{expected}, found {words[0][:60]!r}", "unknown class")
        hint = ": separated by commas?" if "," in text else ""
        raise DatasetError(f"expected finite numbers, found {text[:60]!r}{hint}", "bad number")
    if len(values) < 5:
        message = f"expected class and 4 numbers, found {len(values)} numbers"
        raise DatasetError(message, "wrong number of columns")
    if values[0] not in range(num_classes):
        message = f"class: expected a whole number from 0 to {num_classes - 1}"
        hint = ": counted from 1?" if values[0] == num_classes else ""
        raise DatasetError(f"{message}, found {values[0]:g}{hint}", "unknown class")
    return values


def _points(values: Sequence[float]) -> tuple[float, ...]:
    """A row of `Lines.long`."""
    xs, ys = values[1::2], values[2::2]
    gaps = [abs(a - b + c - d) for a, b, c, d in (xs, ys)] if len(values) == 9 else [1]
    return min(xs), min(ys), max(xs), max(ys), _after_box(values), max(gaps) < ROUNDING


def _after_box(values: Sequence[float]) -> int:
    """POINTS or TRACK if that is what may follow a box in this long line, else 0."""
    _, x, y, w, h, *rest = values
    left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    if not (w > 0 < h and min(left, top) >= -EDGE and max(right, bottom) <= 1 + EDGE):
        return 0
    if len(rest) == 2 and 0 <= min(rest) <= 1 <= max(rest) and max(rest).is_integer():
        return TRACK
    dx, dy = MARGIN * w, MARGIN * h

    def is_point(x: float, y: float) -> bool:
        """Whether one lies in or near the box, or is absent: 0 0, -1 -1."""
        inside = left - dx <= x <= right + dx and top - dy <= y <= bottom + dy
        return inside or (x == y and x in (0, -1))

    pairs = len(rest) % 2 == 0 and all(map(is_point, rest[::2], rest[1::2]))
    triples = len(rest) % 3 == 0 and set(rest[2::3]) <= {0, 1, 2}
    triples = triples and all(map(is_point, rest[::3], rest[1::3]))
    return POINTS if pairs or triples else 0


def meaning_of(
    counts: np.ndarray, long: np.ndarray, declared: Declared, where: Callable[[int], str]
) -> Meaning:
    """What the long lines of a split hold.

    counts: (L,) of their numbers. long: see `Lines`. where: row -> file and line, for messages.
    Raises DatasetError where nothing is declared and they may be boxes as well as polygons.
    """
    any_number = np.ones(len(counts), bool)
    boxes = Meaning(False, any_number, "numbers after the box left out", "more numbers")
    polygons = Meaning(True, counts % 2 == 1, "polygon taken as its box", "polygons")
    if declared.lines:
        corners = "expected class and 4 numbers, or class and 4 corners"
        kind = "oriented box taken as its upright box"
        oriented = Meaning(True, counts == 9, kind, "oriented boxes", corners)
        return {BOXES: boxes, POLYGONS: polygons, ORIENTED: oriented}[declared.lines]
    if declared.keypoints:
        points, each = declared.keypoints
        columns = 5 + points * each
        expected = (
            f"expected class, box and {points} points of {each} (kpt_shape), {columns} numbers"
        )
        return Meaning(False, counts == columns, "keypoints left out", "keypoints", expected)
    is_seen = counts != 6  # predictions of which only some have a track id
    polygons = polygons._replace(hint=_HINT)
    in_image = ((long[:, :4] >= -EDGE) & (long[:, :4] <= 1 + EDGE)).all(axis=1)
    after, is_oriented = long[is_seen, 4], (in_image & (long[:, 5] > 0))[is_seen]
    widths = np.unique(counts[is_seen])
    if len(widths) != 1 or (after > 0).mean() < LIKELY or is_oriented.mean() >= LIKELY:
        return polygons
    num, can_be_polygon = int(widths[0]), (in_image & polygons.fits)[is_seen]
    if (after == POINTS).all() and not can_be_polygon.all():
        return polygons._replace(has_hull=False, fits=is_seen, kind=boxes.kind, found=boxes.found)
    if num % 2 == 0:
        return polygons
    what = "confidence and track id" if TRACK in after else "keypoints"
    raise DatasetError(
        f"{where(int(np.argmax(is_seen)))}: expected lines of one meaning, found {len(after)} of "
        f"{num} numbers that may be class, box and {what}, or class and {num // 2} points of a "
        "polygon: set data.yolo.lines=boxes or data.yolo.lines=polygons, or the YAML's kpt_shape"
    )
