"""CVAT's XML, "CVAT for images 1.1" -> Dataset: one annotations.xml for a task or a project.

<annotations><meta>...<labels>...</meta><image name width height subset><box label xtl ytl xbr ybr
rotation><attribute name="difficult">...; see https://docs.cvat.ai/docs/other/xml_format. Corners
are continuous pixels, 0 at the left edge of the first pixel. Of a rotated box, polygon, ellipse,
cuboid and mask the box around it is taken and counted; points, polylines, skeletons and tags have
none and are counted. A checkbox "difficult" is VOC's flag, as in CVAT's own export to VOC;
"ignore" makes a region to ignore.
"""

import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lxml import etree

from data.files import open_data
from data.formats.bad_annotations import Judge
from data.formats.class_names import choose_classes, class_label, count_left_out, fit_names
from data.formats.format import Format
from data.formats.image_files import ImageFinder, check_size, files_below, find_images, first_file
from data.formats.text_files import OF_DATASET, flag, number_in, quoted
from data.images.decode import ImageHeader, read_header
from data.records import Dataset, DatasetError

MAX_COORDINATE = 2.0**24  # pixels; up to here float32 tells whole ones apart
MAX_PARSED = 2  # files whose contents are kept: classes and splits come from the same one
HEAD = 2**14  # bytes of a file that are looked at, to see whether it is CVAT's
FILE = "annotations.xml"
BOX, ELLIPSE, POLYGON, MASK, CUBOID = "box", "ellipse", "polygon", "mask", "cuboid"
ROTATED = "rotated box"
WITHOUT_BOX = ("points", "polyline", "skeleton", "tag")
HAVE_BOXES = ("any", "rectangle", *(POLYGON, ELLIPSE, MASK, CUBOID))  # types of labels
SPLITS = ({"train", "training"}, {"val", "valid", "validation"}, {"test", "testing"})
_ROOT = re.compile(rb"<annotations[\s>]")
_PLAIN = re.compile(r"[-+.\deE,;\s]+", re.ASCII)  # not what float() takes besides: nan, 1_0
_CORNERS = ("xtl", "ytl", "xbr", "ybr")


class _Image(NamedTuple):
    name: str
    subset: str
    size: tuple[str, str]


class _Object(NamedTuple):
    """A shape with a box. number: from 1, of the shapes of its image."""

    image: int
    number: int
    kind: str
    label: str | None
    corners: tuple[float, float, float, float]
    difficult: str
    ignore: str


class _Contents(NamedTuple):
    """What a file says. left_out: shapes without a box, wrong: those of a bad one; by image."""

    path: Path
    classes: tuple[str, ...]
    images: list[_Image]
    objects: list[_Object]
    left_out: list[tuple[int, str]]
    hidden: list[tuple[int, str]]
    wrong: list[tuple[int, DatasetError]]

    def where(self, item: _Object) -> str:
        """Names a shape in messages."""
        return _where(self.path, self.images[item.image].name, item.number, item.kind, item.label)


def read_cvat(
    root: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    images: Sequence[str | Path] = (),
    on_bad_annotation: str = "error",
) -> Dataset:
    """Reads one split of a dataset in CVAT's XML for images.

    root: the folder of the dataset.
    split: an .xml file, or <split>/annotations.xml, or <split>.xml, relative to root; else a subset
      in the only file of root, in any case, "val" being "Validation"; "all" for all its images.
    classes: names in label order; objects of the other labels are left out and counted. None takes
      the labels that the file lists for boxes, then those of its boxes that it does not list.
    images: folders, relative to root or absolute, looked through before images/<subset> and images
      beside the file, its folder, and images/<split>, images and <split> below root.

    Order: the file's. An image's id is its name without suffix where that is one image's alone.
    For on_bad_annotation and errors see `Format`.
    """
    judge, (root, split) = Judge(on_bad_annotation), _parted(Path(root), split)
    path, subset = _locate(root, split)
    contents = _parse_file(path)
    declared = contents.classes
    labels = choose_classes(declared, classes, path, judge.defects)
    finder_of = _finders(root, path, split, images)
    chosen = [n for n, image in enumerate(contents.images) if _is_in(image, subset)]
    loaded = _load(contents, chosen, finder_of, judge)
    index_of = {number: index for index, number in enumerate(loaded)}
    for number, where in contents.left_out:
        if number in index_of:
            judge.defects.add("shape without a box left out", f"{where}: found none")
    for number, where in contents.hidden:
        if number in index_of:
            judge.defects.add("shape hidden in the image left out", f"{where}: found outside=1")
    for number, error in contents.wrong:
        if number in index_of:
            judge.reject(error)
    ids = _image_ids([contents.images[number] for number in loaded])
    sizes = np.array([(header.width, header.height) for _, header in loaded.values()])
    objects, rows = _objects(contents, index_of, declared, judge)
    is_kept = labels[rows["label"]] >= 0
    count_left_out((declared[k] for k in rows["label"][~is_kept]), path, judge.defects)
    objects = [item for item, kept in zip(objects, is_kept.tolist(), strict=True) if kept]
    rows = rows[is_kept]
    boxes = _clip_hulls(contents, objects, rows, sizes, judge)
    return judge.assemble(
        f"{root.resolve().name}/{split.removesuffix('.xml')}",
        classes or declared,
        dict(zip(ids, loaded.values(), strict=True)),
        lambda row: contents.where(objects[row]),
        image_index=rows["image"],
        boxes=boxes,
        labels=labels[rows["label"]],
        difficult=rows["difficult"],
        ignore=rows["ignore"],
    )


def cvat_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """The labels of a split's file that boxes can have; arguments and errors as `read_cvat`."""
    return _parse_file(_locate(*_parted(Path(root), split))[0]).classes


# ------------------------------------------------------------------------------------------------
# Which files
# ------------------------------------------------------------------------------------------------


def _parted(root: Path, split: str) -> tuple[Path, str]:
    """The folder that a split "folder/all" names, and the split in there; others as they are."""
    folder, _, name = split.rpartition("/")
    return (root / folder, name) if name == "all" else (root, split)


def _locate(root: Path, split: str) -> tuple[Path, str]:
    """The file of a split, and the subset of it that is meant, "" for all of it."""
    if split.lower().endswith(".xml"):
        return first_file(root, [split], "no XML file", "*.xml", "*/*.xml"), ""
    own = [f"{split}/{FILE}", f"{split}.xml"]
    there = [name for name in own if (root / name).is_file()]
    files = _files_in(root)
    if there or len(files) != 1:
        names = [*own, FILE] if not files else own
        return first_file(root, there or names, "no XML file", "*.xml", "*/*.xml"), ""
    path = root / files[0]
    if split == "all":
        return path, ""
    subsets = _subsets(path)
    for name in subsets:
        if name.lower() in _same(split):
            return path, name
    found = ", ".join(filter(None, subsets)) or "no subset"
    raise DatasetError(f"{path}: expected a subset {split}, found {found}; 'all' is all images")


def _same(split: str) -> set[str]:
    """The names a split may have, in small letters."""
    return next((names for names in SPLITS if split.lower() in names), {split.lower()})


def _is_in(image: _Image, subset: str) -> bool:
    return not subset or image.subset == subset


def _subsets(path: Path) -> list[str]:
    return list(dict.fromkeys(image.subset for image in _parse_file(path).images))


def _files_in(root: Path) -> list[str]:
    return [name for name in files_below(root, "[!.]*.xml") if is_cvat(root / name)]


def is_cvat(path: Path) -> bool:
    """Whether a file looks like CVAT's XML; not one that cannot be read."""
    try:
        with open_data(path, OF_DATASET) as file:
            return bool(_ROOT.search(file.read(HEAD)))
    except DatasetError:
        return False


def find_splits(root: Path) -> list[str]:
    """The subsets of the only file in root, or several files, or the folders that hold one."""
    files = _files_in(root)
    if len(files) > 1:
        return files
    if files:
        subsets = [name for name in _subsets(root / files[0]) if name]
        held_out = SPLITS[1] | SPLITS[2]
        is_part = len(subsets) > 1 or any(name.lower() in held_out for name in subsets)
        return subsets if is_part else ["all"]
    below = files_below(root, f"[!.]*/{FILE}")
    return [Path(name).parent.name for name in below if is_cvat(root / name)]


def undivided(root: Path) -> str | None:
    """The one split there is, unless it or the only file has the name of a split."""
    splits = find_splits(root)
    names = {split.lower() for split in splits} | {Path(name).stem for name in _files_in(root)}
    return splits[0] if len(splits) == 1 and not names & set().union(*SPLITS) else None


def _finders(
    root: Path, path: Path, split: str, images: Sequence[str | Path]
) -> Callable[[str], ImageFinder]:
    """What finds the images of each subset."""
    given, split = [root / folder for folder in images], split.removesuffix(".xml")
    usual = [path.parent / "images", path.parent]
    usual += [root / "images" / split, root / "images", root / split]

    @lru_cache(None)
    def finder(subset: str) -> ImageFinder:
        folders = [*given, path.parent / "images" / subset, *usual]
        return ImageFinder([folder for folder in folders if folder.is_dir()] or [path.parent])

    return finder


# ------------------------------------------------------------------------------------------------
# The file
# ------------------------------------------------------------------------------------------------


def _parse_file(path: Path) -> _Contents:
    """Takes a file apart; raises DatasetError for one that is not CVAT's XML for images."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return _parse(path)  # raises the error of all files that cannot be read
    return _parse(path, found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(MAX_PARSED)
def _parse(path: Path, *stamp: int) -> _Contents:
    """stamp: another one if the file has changed."""
    contents = _Contents(path, (), [], [], [], [], [])
    declared: dict[str, None] = {}
    for element in _elements(path):
        if element.tag == "label":
            declared |= dict.fromkeys(_declared(element))
        elif element.tag == "image":
            _read_image(element, contents)
    found = fit_names(item.label for item in contents.objects)
    declared = dict.fromkeys(name for name in declared if fit_names([name])) | dict.fromkeys(found)
    return contents._replace(classes=tuple(declared))


def _elements(path: Path) -> Iterator[etree._Element]:
    """Yields each <label> and <image>, which is then forgotten."""
    with open_data(path, OF_DATASET) as file:
        try:
            for event, element in etree.iterparse(
                file, ("start", "end"), resolve_entities=False, no_network=True, load_dtd=False,
                huge_tree=False, remove_comments=True, remove_pis=True,
            ):  # fmt: skip
                parent = element.getparent()
                if event == "start" and (parent is None or element.tag == "track"):
                    _check_root(element, path)
                elif event == "end" and element.tag == "label":
                    yield element
                elif event == "end" and parent is not None and parent.getparent() is None:
                    yield element
                    element.clear()
                    while element.getprevious() is not None:
                        del parent[0]
        except etree.XMLSyntaxError as error:
            problem = " ".join(str(error.msg).split())
            message = f"{path}: not an XML file: {problem}"
            raise DatasetError(message, "unreadable XML") from error


def _check_root(element: etree._Element, path: Path) -> None:
    if element.getroottree().docinfo.doctype:  # type: ignore[attr-defined]  # unknown to the stubs
        message = f"{path}: expected no document type declaration, found one"
        raise DatasetError(message, "unreadable XML")
    if element.tag == "track":
        message = f"{path}: found <track>, of CVAT for video: export it as 'CVAT for images 1.1'"
        raise DatasetError(message, "not a CVAT file")
    if element.tag != "annotations":
        message = f"{path}: expected the root <annotations>, found <{element.tag}>: not CVAT's file"
        raise DatasetError(message, "not a CVAT file")


def _declared(element: etree._Element) -> list[str]:
    """The name of a label that boxes can have; none of a skeleton's parts."""
    fields = {child.tag: (child.text or "").strip() for child in element}
    is_box = fields.get("type", "any") in HAVE_BOXES and not fields.get("parent")
    return [fields["name"]] if is_box and fields.get("name") else []


def _read_image(element: etree._Element, contents: _Contents) -> None:
    get = element.get
    name, index = get("name") or "", len(contents.images)
    size = (get("width") or "", get("height") or "")
    contents.images.append(_Image(name, sys.intern(get("subset") or ""), size))
    for number, shape in enumerate(element, start=1):
        kind, label = sys.intern(str(shape.tag)), sys.intern(shape.get("label") or "") or None
        where = _where(contents.path, name, number, kind, label)
        if kind in WITHOUT_BOX or shape.get("outside") == "1":
            listed = contents.left_out if kind in WITHOUT_BOX else contents.hidden
            listed.append((index, where))
            continue
        try:
            corners = _box(shape, kind, where)
        except DatasetError as error:
            contents.wrong.append((index, error))
            continue
        if kind == BOX and _rotation(shape, where):
            kind = ROTATED
        flags = _attribute(shape, "difficult"), _attribute(shape, "ignore", "iscrowd", "is_crowd")
        contents.objects.append(_Object(index, number, kind, label, corners, *flags))


def _where(path: Path, image: str, number: int, kind: str, label: str | None) -> str:
    return f"{path}, shape {number} ({kind} {quoted(label)} of {quoted(image)})"


def _attribute(shape: etree._Element, *names: str) -> str:
    for attribute in shape.iterchildren("attribute"):
        if (attribute.get("name") or "").lower() in names:
            return sys.intern((attribute.text or "").strip().lower())
    return ""


def _rotation(shape: etree._Element, where: str) -> float:
    """Degrees, clockwise."""
    return number_in(shape.get("rotation") or "0", f"{where}, rotation") % 360


def _box(shape: etree._Element, kind: str, where: str) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 around a shape. Raises DatasetError for one that says no such thing."""

    def numbers(*names: str) -> list[float]:
        return [number_in(shape.get(name), f"{where}, {name}") for name in names]

    if kind == BOX:
        x1, y1, x2, y2 = numbers(*_CORNERS)
        angle = math.radians(_rotation(shape, where))
        if angle:
            x, y, a, b = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2
            cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
            a, b = a * cos + b * sin, a * sin + b * cos
            x1, y1, x2, y2 = x - a, y - b, x + a, y + b
    elif kind == ELLIPSE:
        x, y, a, b = numbers("cx", "cy", "rx", "ry")
        angle = math.radians(_rotation(shape, where))
        cos, sin = math.cos(angle), math.sin(angle)
        a, b = math.hypot(a * cos, b * sin), math.hypot(a * sin, b * cos)
        x1, y1, x2, y2 = x - a, y - b, x + a, y + b
    elif kind == MASK:
        x1, y1, width, height = numbers("left", "top", "width", "height")
        x2, y2 = x1 + width, y1 + height
    elif kind in (POLYGON, CUBOID):
        xs, ys = _points(shape, where) if kind == POLYGON else _cuboid(numbers)
        x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    else:
        known = ", ".join((BOX, POLYGON, ELLIPSE, MASK, CUBOID, *WITHOUT_BOX))
        raise DatasetError(f"{where}: expected one of {known}", "unknown shape type")
    largest = max(map(abs, (x1, y1, x2, y2)))
    if largest > MAX_COORDINATE:
        message = f"{where}: expected numbers up to {MAX_COORDINATE:g}, found {largest:g}"
        raise DatasetError(message, "bad number")
    return x1, y1, x2, y2


def _points(shape: etree._Element, where: str) -> tuple[list[float], list[float]]:
    """The xs and ys of points="x,y;x,y"."""
    text = shape.get("points") or ""
    pairs = [pair.split(",") for pair in text.split(";")]
    try:
        if not _PLAIN.fullmatch(text):
            raise ValueError
        xs, ys = ([float(number) for number in side] for side in zip(*pairs, strict=True))
    except ValueError:
        message = f"{where}, points: expected numbers x,y;x,y;..., found {quoted(text)}"
        raise DatasetError(message, "bad number") from None
    return xs, ys


def _cuboid(numbers: Callable[..., list[float]]) -> tuple[list[float], list[float]]:
    corners = [f"{corner}{face}" for corner in ("tl", "bl", "tr", "br") for face in (1, 2)]
    return numbers(*("x" + name for name in corners)), numbers(*("y" + name for name in corners))


# ------------------------------------------------------------------------------------------------
# Images
# ------------------------------------------------------------------------------------------------


def _load(
    contents: _Contents,
    chosen: Sequence[int],
    finder_of: Callable[[str], ImageFinder],
    judge: Judge,
) -> dict[int, tuple[Path, ImageHeader]]:
    """The images of a split by their number in the file."""
    found: dict[int, Path] = {}
    names = contents.images

    def place(number: int) -> str:
        return f"{contents.path}, image {number + 1} ({quoted(names[number].name)})"

    for subset in dict.fromkeys(names[number].subset for number in chosen):
        of_subset = [number for number in chosen if names[number].subset == subset]
        wanted = ((n, names[n].name, partial(place, n)) for n in of_subset)
        found |= find_images(wanted, finder_of(subset), judge)
    number_of: dict[Path, int] = {}
    for number in sorted(found):
        first = number_of.setdefault(found[number], number)
        if first != number:
            message = f"{place(number)}: expected an image of its own, found {place(first)} again"
            judge.reject(DatasetError(message, "duplicate id"))
    return judge.load(
        lambda n: (found[n], _header(found[n], names[n].size, place(n))),
        sorted(number_of.values()),
    )


def _header(path: Path, size: tuple[str, str], where: str) -> ImageHeader:
    header, (width, height) = read_header(path), size
    if not set(size) <= {"", "0"}:
        stated = number_in(width, f"{where}, width"), number_in(height, f"{where}, height")
        check_size(stated, header, f"{where}, width and height")
    return header


def _image_ids(images: Sequence[_Image]) -> list[str]:
    """Names without suffix, with it, or with the subset: the first that tells them apart."""
    ids: list[str] = []
    for form in (
        lambda image: os.path.splitext(image.name)[0],
        lambda image: image.name,
        lambda image: f"{image.subset}/{image.name}",
    ):
        ids = list(map(form, images))
        if len(set(ids)) == len(ids):
            break
    return ids


# ------------------------------------------------------------------------------------------------
# Shapes -> objects
# ------------------------------------------------------------------------------------------------

_ROW = np.dtype(
    [
        ("image", np.int64),
        ("label", np.int64),
        ("corners", np.float64, 4),
        ("difficult", bool),
        ("ignore", bool),
        ("is_hull", bool),
    ]
)


def _objects(
    contents: _Contents, index_of: dict[int, int], declared: Sequence[str], judge: Judge
) -> tuple[list[_Object], np.ndarray]:
    """The shapes of the images that are read, and a `_ROW` for each; labels: as declared."""
    label_of = {name: label for label, name in enumerate(declared)}
    objects, rows = [], []
    for item in contents.objects:
        if item.image not in index_of:
            continue
        try:
            label = class_label(item.label, label_of, f"{contents.where(item)}, label")
        except DatasetError as error:
            judge.reject(error)
            continue
        if item.kind != BOX:
            message = f"{contents.where(item)}: took the box around it"
            judge.defects.add(f"{item.kind} taken as its box", message)
        flags = []
        for name, text in (("difficult", item.difficult), ("ignore", item.ignore)):
            flags.append(bool(flag(text)))
            if text not in ("", "0", "1", "false", "true"):
                found = f"found {quoted(text)}: taken for {str(flags[-1]).lower()}"
                message = f"{contents.where(item)}, {name}: expected true or false, {found}"
                judge.defects.add(f"{name} flag other than 0 or 1", message)
        is_hull = item.kind in (ROTATED, ELLIPSE)
        objects.append(item)
        rows.append((index_of[item.image], label, item.corners, *flags, is_hull))
    return objects, np.array(rows, _ROW)


def _clip_hulls(
    contents: _Contents,
    objects: Sequence[_Object],
    rows: np.ndarray,
    sizes: np.ndarray,
    judge: Judge,
) -> np.ndarray:
    """(T, 4) boxes; those around what was turned are cut off at the image's border, counted."""
    borders = np.tile(sizes.reshape(-1, 2)[rows["image"]], 2)
    boxes = np.where(rows["is_hull"][:, None], rows["corners"].clip(0, borders), rows["corners"])
    for row in np.flatnonzero((boxes != rows["corners"]).any(axis=1)).tolist():
        message = f"{contents.where(objects[row])}: the box around it is cut off at the border"
        judge.defects.add("shape beyond the image, cut off", message)
    return boxes


FORMAT = Format(
    read_cvat,
    cvat_classes,
    find_splits,
    undivided=undivided,
    uses=("images",),
    declares_classes=True,
)
