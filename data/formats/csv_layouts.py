"""The layouts of CSV files with boxes: what each field of a line is, told by a header or a line.

Columns under a header may have any order, see `COLUMNS`. Without a header, a line of six fields is
path, x1, y1, x2, y2, class; those of makesense.ai, SKU-110K and Google's AutoML are told by their
shape (https://cloud.google.com/vision/automl/object-detection/docs/csv-format). Those of VIA hold
JSON (https://www.robots.ox.ac.uk/~vgg/software/via).
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from data.formats.plausibility import Written
from data.formats.text_files import decimal, flag, has_no_value, quoted
from data.images.decode import IMAGE_SUFFIXES
from data.records import DatasetError

Cells = tuple[Sequence[str], str, str]  # the texts of a box, its class, its shape: see Row

_IMAGE = "filename file imagepath imagename image imgpath imgname img filepath path imageid imgid"
_CLASS = "classname labelname categoryname class label category name classid"
COLUMNS = {
    "image": tuple(_IMAGE.split()),
    "x1": ("xmin", "x1", "left", "bboxxmin", "roix1", "x", "bboxx"),
    "y1": ("ymin", "y1", "top", "bboxymin", "roiy1", "y", "bboxy"),
    "x2": ("xmax", "x2", "right", "bboxxmax", "roix2"),
    "y2": ("ymax", "y2", "bottom", "bboxymax", "roiy2"),
    "cx": ("cx", "xcenter", "centerx", "xcentre"),
    "cy": ("cy", "ycenter", "centery", "ycentre"),
    "w": ("bboxwidth", "boxwidth", "bboxw", "bw", "w"),
    "h": ("bboxheight", "boxheight", "bboxh", "bh", "h"),
    "bbox": ("bbox",),
    "class": tuple(_CLASS.split()),
    "set": ("set", "split", "subset", "partition", "mlusage"),
    "difficult": ("difficult", "isdifficult"),
    "group": ("isgroupof", "iscrowd", "ignore"),
    "width": ("imagewidth", "imgwidth", "width"),
    "height": ("imageheight", "imgheight", "height"),
}  # what header rows call them, less case and all but letters and digits; the first there counts
CORNERS, SIDES, CENTER = ("x1", "y1", "x2", "y2"), ("x1", "y1", "w", "h"), ("cx", "cy", "w", "h")
MAX_PATH = 1000  # characters of an image's path
SETS = {
    "TRAIN": "train", "TRAINING": "train", "VALIDATE": "val", "VALIDATION": "val", "VALID": "val",
    "VAL": "val", "TEST": "test", "TESTING": "test", "UNASSIGNED": "", "": "",
}  # fmt: skip

_VIA = ("filename", "regionshapeattributes", "regionattributes")
_FLAGS = ("set", "difficult", "group")
_OPEN_IMAGES = frozenset(("imageid", "labelname", "xmin", "xmax", "ymin", "ymax", "isgroupof"))
_NOT_READ = {  # columns that tell a layout: whose it is, and the way out
    ("filelist", "spatialcoordinates"): ("VIA 3", "export COCO there"),
    ("annotator", "leadtime"): ("Label Studio", "export COCO, YOLO or Pascal VOC there"),
    ("boxesstring",): ("Global Wheat 2021", "write a line a box"),
    ("x3", "y3"): ("polygons of four corners", "write the box around each"),
}
_CLASS_ATTRIBUTES = (*COLUMNS["class"], "type", "object")  # what users of VIA call a class
_BAD_JSON = (msgspec.MsgspecError, UnicodeEncodeError, RecursionError)


_pixels = lru_cache(2**16)(decimal)  # numbers of pixels repeat


class Row(NamedTuple):
    """A line of a file.

    texts: of the box, as they stand. box: x1, y1, x2, y2, nan where a text is no number; empty if
    the line states none. size: the texts of the image's width and height, where there are such
    columns. part: train, val or test where the file says it. shape: of a region that is no
    rectangle. is_group: whether it is a group or a region to ignore. has_comma: whether a number
    has a decimal comma.
    """

    line: int
    image: str
    texts: Sequence[str]
    box: tuple[float, ...]
    name: str
    size: tuple[str, ...]
    part: str
    is_group: bool
    is_difficult: bool
    shape: str
    has_comma: bool


@dataclass(frozen=True)
class Layout:
    """What the fields of a line are.

    columns: {column: its place}. width: fields a line has. form: what the four numbers of a box
    are: CORNERS, SIDES or CENTER. cells: fields -> Cells, where columns do not say it.
    is_fractions: whether boxes are in shares of the image.
    """

    columns: Mapping[str, int]
    width: int
    form: tuple[str, ...] = CORNERS
    cells: Callable[[Sequence[str]], Cells] | None = None
    is_fractions: bool = False

    @property
    def written(self) -> Written:
        """How a box is written, for `require_plausible`."""
        if self.is_fractions:
            return "fractions"
        return "corners" if self.form is CORNERS else "corner and size"

    def row(self, line: int, fields: Sequence[str]) -> Row:
        """Raises DatasetError, without the file's name, for a field that is malformed."""
        at = self.columns
        image = fields[at["image"]]
        if not 0 < len(image) <= MAX_PATH:
            expected = f"expected the path of an image, of at most {MAX_PATH} characters"
            raise DatasetError(f"{expected}, found {image[:60]!r}", "missing image")
        if self.cells:
            texts, name, shape = self.cells(fields)
        else:
            texts = [fields[at[column]] for column in self.form]
            name, shape = fields[at["class"]] if "class" in at else "", ""
        number = _pixels if max(map(len, texts), default=0) < 20 else decimal
        box, has_comma = tuple(map(number, texts)), False
        if math.isnan(sum(box)):
            if all(map(has_no_value, texts)):
                box, name = (), "" if has_no_value(name) else name
            elif any("," in text for text in texts):
                box = tuple(decimal(text.replace(",", ".", 1)) for text in texts)
                has_comma = True
        if box and self.form is not CORNERS:
            box = _corners(box, self.form)
        part = fields[at["set"]].upper() if "set" in at else ""
        if part not in SETS and self is _AUTOML:  # under a header it may be anything
            message = f"expected a set of {', '.join(SETS)}, found {quoted(part)}"
            raise DatasetError(message, "malformed line")
        return Row(
            line,
            image,
            texts,
            box,
            name,
            (fields[at["width"]], fields[at["height"]]) if "width" in at else (),
            SETS.get(part, ""),
            "group" in at and bool(flag(fields[at["group"]])),
            "difficult" in at and bool(flag(fields[at["difficult"]])),
            shape,
            has_comma,
        )


def _corners(box: tuple[float, ...], form: tuple[str, ...]) -> tuple[float, ...]:
    x, y, w, h = box
    if form is CENTER:
        x, y = x - w / 2, y - h / 2
    return x, y, x + w, y + h


# ------------------------------------------------------------------------------------------------
# Without a header
# ------------------------------------------------------------------------------------------------


def _places(names: str) -> dict[str, int]:
    return {name: place for place, name in enumerate(names.split()) if name != "-"}


PLAIN = Layout(_places("image x1 y1 x2 y2 class"), 6)
_MAKESENSE = Layout(_places("class x1 y1 w h image width height"), 8, SIDES)
_SKU110K = Layout(_places("image x1 y1 x2 y2 class width height"), 8)
_AUTOML = Layout(_places("set image class x1 y1 - - x2 y2 - -"), 11, is_fractions=True)
_VERTEX = Layout(_places("image class x1 y1 - - x2 y2 - -"), 10, is_fractions=True)  # no set


def told_by_line(fields: Sequence[str]) -> Layout | None:
    """The layout of a file without header in which this line makes sense."""
    for layout in (PLAIN, _MAKESENSE, _SKU110K, _AUTOML, _VERTEX):
        if len(fields) == layout.width and _makes_sense(fields, layout):
            return layout
    return None


def _makes_sense(fields: Sequence[str], layout: Layout) -> bool:
    columns = layout.columns
    if "set" in columns and fields[columns["set"]].upper() not in SETS:
        return False
    if layout is not PLAIN and not is_image(fields[columns["image"]]):
        return False
    box = [fields[columns[column]] for column in layout.form]
    size = [fields[columns[column]] for column in ("width", "height") if column in columns]
    return all(map(_is_number, size)) and (all(map(_is_number, box)) or _is_none(box))


def _is_number(text: str) -> bool:
    return math.isfinite(decimal(text)) or math.isfinite(decimal(text.replace(",", ".", 1)))


def _is_none(texts: Sequence[str]) -> bool:
    return all(map(has_no_value, texts))


def is_image(text: str) -> bool:
    return text.lower().endswith(IMAGE_SUFFIXES)


# ------------------------------------------------------------------------------------------------
# Under a header
# ------------------------------------------------------------------------------------------------


def is_header(fields: Sequence[str]) -> bool:
    """Whether these are columns' names; a single one may as well be a class, say "left"."""
    names = set(map(_plain, fields))
    known = sum(not names.isdisjoint(aliases) for aliases in COLUMNS.values())
    return (known > 1 or names.issuperset(_VIA)) and not any(map(_is_number, fields))


def has_sets(header: Sequence[str]) -> bool:
    """Whether a column says of each line which split it is of."""
    return not set(map(_plain, header)).isdisjoint(COLUMNS["set"])


def require_readable(fields: Sequence[str], where: str) -> None:
    """Raises DatasetError for a header that is known and not read, with the way out."""
    names = set(map(_plain, fields))
    for columns, (tool, way_out) in _NOT_READ.items():
        if names.issuperset(columns):
            raise DatasetError(f"{where}: the CSV of {tool} is not read; {way_out}")


def told_by_header(fields: Sequence[str], where: str, needs_class: bool = True) -> Layout:
    """The layout that the names of columns tell.

    needs_class: whether a column must hold the class. where: file and line, for the message of the
    DatasetError that names the columns that are missing.
    """
    names = [_plain(field) for field in fields]
    columns = {
        column: next(names.index(alias) for alias in aliases if alias in names)
        for column, aliases in COLUMNS.items()
        if any(alias in names for alias in aliases)
    }
    if set(names).issuperset(_VIA):
        image, shape, attributes = map(names.index, _VIA)
        via = _Via(shape, attributes)
        return Layout({"image": image, "class": attributes}, len(names), SIDES, via)
    is_listed = "bbox" in columns and not {"x1", "cx"} & columns.keys()
    form = SIDES if is_listed else _form(columns, names)
    needed = ("image", *(("bbox",) if is_listed else form), *("class",) * needs_class)
    missing = [f"{name} ({', '.join(COLUMNS[name])})" for name in needed if name not in columns]
    if missing:
        found = ", ".join(fields)[:300]
        message = f"expected columns for {', '.join(missing)}, found {found}"
        if missing[0].startswith("class "):
            message += "; a single class of all boxes is named by data.classes"
        raise DatasetError(f"{where}: {message}")
    if not {"width", "height"} <= columns.keys():
        columns = {c: at for c, at in columns.items() if c in (*needed, "class", *_FLAGS)}
    if set(names).issuperset(_OPEN_IMAGES):
        return Layout(columns, len(names), is_fractions=True)
    return Layout(columns, len(names), form, _listed(columns) if is_listed else None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _form(columns: dict[str, int], names: list[str]) -> tuple[str, ...]:
    """What the numbers of a box are; "width" and "height" are its sides beside no other corner."""
    if {"x2", "y2"} & columns.keys():
        return CORNERS
    for side, column in (("w", "width"), ("h", "height")):
        if side not in columns and column in names:
            columns[side] = names.index(column)
            if columns[column] == columns[side]:
                del columns[column]
    if not {"w", "h"} & columns.keys():
        return CORNERS
    return CENTER if {"cx", "cy"} <= columns.keys() and "x1" not in columns else SIDES


def _listed(columns: Mapping[str, int]) -> Callable[[Sequence[str]], Cells]:
    """Reads a box of "[x, y, width, height]" in one field, as Kaggle's wheat has it."""

    def cells(fields: Sequence[str]) -> Cells:
        text = fields[columns["bbox"]]
        texts = [part.strip() for part in text.strip("[]()").split(",")]
        if len(texts) != 4 and not has_no_value(text):
            message = f"bbox: expected [x, y, width, height], found {quoted(text)}"
            raise DatasetError(message, "malformed line")
        return texts, fields[columns["class"]] if "class" in columns else "", ""

    return cells


# ------------------------------------------------------------------------------------------------
# VIA
# ------------------------------------------------------------------------------------------------


class _Shape(msgspec.Struct, frozen=True, gc=False):
    """A region's shape: "rect" has x, y, width, height; "circle" and "ellipse" cx, cy and radii."""

    name: str = ""
    x: float = math.nan
    y: float = math.nan
    width: float = math.nan
    height: float = math.nan
    cx: float = math.nan
    cy: float = math.nan
    r: float = math.nan
    rx: float = math.nan
    ry: float = math.nan
    all_points_x: tuple[float, ...] = ()
    all_points_y: tuple[float, ...] = ()


class _Via:
    """Reads the shape of a region, and its class: the attribute of a usual name, else the only one.

    The class is the same attribute in all of a file. shape, attributes: the places of the columns.
    """

    def __init__(self, shape: int, attributes: int):
        self.shape, self.attributes, self.key = shape, attributes, ""

    def __call__(self, fields: Sequence[str]) -> Cells:
        shape = _decoded(fields[self.shape], _Shape, "region_shape_attributes")
        sides = _sides(shape)
        name = self._name(fields[self.attributes]) if sides else ""
        return list(map(repr, sides)), name, "" if shape.name == "rect" else shape.name

    def _name(self, text: str) -> str:
        found = _decoded(text, dict[str, Any], "region_attributes")
        names = {key: _choice(value) for key, value in found.items() if _choice(value)}
        usual = [key for key in names if _plain(key) in _CLASS_ATTRIBUTES]
        keys = [key for key in names if key == self.key] or usual or list(names)
        if not names:
            return ""
        if len(keys) > 1 or self.key not in ("", keys[0]):
            expected = f"the class in {self.key!r}" if self.key else "one attribute with the class"
            found_keys = ", ".join(map(quoted, names))
            message = f"region_attributes: expected {expected}, found {found_keys}"
            raise DatasetError(message, "missing name")
        self.key = keys[0]
        return names[self.key]


def _sides(shape: _Shape) -> tuple[float, ...]:
    """x, y, width, height; none for a point, a line and no shape at all."""
    if shape.name == "rect":
        sides = shape.x, shape.y, shape.width, shape.height
    elif shape.name == "polygon":
        x, y = shape.all_points_x or (math.nan,), shape.all_points_y or (math.nan,)
        sides = min(x), min(y), max(x) - min(x), max(y) - min(y)
    elif shape.name in ("circle", "ellipse"):
        rx, ry = (shape.r, shape.r) if shape.name == "circle" else (shape.rx, shape.ry)
        sides = shape.cx - rx, shape.cy - ry, 2 * rx, 2 * ry
    else:
        return ()
    if math.isnan(sum(sides)):
        expected = f"expected the numbers of a {shape.name}"
        message = f"region_shape_attributes: {expected}, found not all of them"
        raise DatasetError(message, "bad number")
    return sides


def _choice(value: object) -> str:
    """The text of an attribute; of a checkbox, {"a": true}, the only one chosen."""
    if isinstance(value, dict):
        chosen = [key for key, is_chosen in value.items() if is_chosen]
        return chosen[0] if len(chosen) == 1 else ""
    return "" if value is None else str(value).strip()


def _decoded(text: str, kind: Any, column: str) -> Any:
    try:
        return msgspec.json.decode(text or "{}", type=kind)
    except _BAD_JSON as error:
        message = f"{column}: expected JSON of a region, found {quoted(text)} ({error})"
        raise DatasetError(message, "malformed line") from error
