"""Pascal VOC XML files -> texts, unjudged: also as roLabelImg, RectLabel and LabelMe write them.

Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, and its devkit.
"""

import math
import os
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from lxml import etree

from data.files import read_data
from data.formats.text_files import OF_ONE_IMAGE, decimal, quoted
from data.records import DatasetError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
ROTATED = ("cx", "cy", "w", "h", "angle")
MAX_PARSED = 2**15  # files whose texts are kept: 40 MB at 1.2 kB each, with four objects

_POINT = re.compile(r"([xy])(?:\d*|_\w+)")  # <x>, <x1>, <x_left_top>


class VocObject(NamedTuple):
    """The texts of one box, unchecked; None where the element is missing.

    number: of the `<object>` that holds it, from 1; one that has two boxes is here twice.
    shape: the element that the box comes from. bndbox, or polygon with `<x1>`, `<y1>`, ...: texts
      are `CORNERS`, 1-based and inclusive. polygon/pt (LabelMe) or segm/box: `CORNERS` in pixels
      from 0. robndbox (roLabelImg): `ROTATED`, the angle in radians.
    """

    number: int
    name: str | None
    difficult: str | None
    is_deleted: bool
    shape: str
    texts: tuple[str | None, ...]


class Annotation(NamedTuple):
    """The texts of one VOC XML file, unchecked; None where the element is missing."""

    path: str
    filename: str | None
    image_path: str | None
    size: tuple[str | None, str | None]
    objects: tuple[VocObject, ...]

    def where(self, index: int) -> str:
        """Names an object in messages."""
        item = self.objects[index]
        return f"{self.path}, object {item.number} ({quoted(item.name)})"


def parse_annotation(path: str | Path) -> Annotation:
    """Takes a VOC XML file apart without judging what it says.

    Children may come in any order. `<part>` boxes of the person layout task are no objects. What
    was found is kept, as a file is looked into for its classes before its objects are read.
    Raises DatasetError if it is no regular file of up to OF_ONE_IMAGE bytes, is not XML, declares a
    document type (which VOC does not need, and entity attacks do), or has a root other than
    `<annotation>`.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return _parse(str(path))  # raises the error of all files that cannot be read
    return _parse(str(path), found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(MAX_PARSED)
def _parse(path: str, *stamp: int) -> Annotation:
    """stamp: another one if the file has changed."""
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    data = read_data(path, OF_ONE_IMAGE, kind="unreadable XML")
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        problem = " ".join(str(error.msg).split())
        raise DatasetError(f"{path}: not an XML file: {problem}", kind="unreadable XML") from error
    if root.getroottree().docinfo.doctype:  # type: ignore[union-attr]  # unknown to the stubs
        message = f"{path}: expected no document type declaration, found one"
        raise DatasetError(message, kind="unreadable XML")
    if root.tag != "annotation":
        what = "CVAT for images, not VOC" if root.tag == "annotations" else "not a VOC file"
        message = f"{path}: expected the root <annotation>, found <{root.tag}>: {what}"
        raise DatasetError(message, kind="not a VOC file")
    fields, size = _texts(root), _texts(root.find("size"))
    elements = enumerate(root.findall("object"), start=1)
    return Annotation(
        path,
        fields.get("filename"),
        fields.get("path"),
        (size.get("width"), size.get("height")),
        tuple(item for number, element in elements for item in _objects(number, element)),
    )


def _objects(number: int, element: etree._Element) -> list[VocObject]:
    """One for each box of an `<object>`; at least one."""
    fields = _texts(element)
    name, difficult = fields.get("name"), fields.get("difficult")
    is_deleted = fields.get("deleted") == "1"
    return [VocObject(number, name, difficult, is_deleted, *box) for box in _boxes(element)]


def _boxes(element: etree._Element) -> list[tuple[str, tuple[str | None, ...]]]:
    """(shape, texts) of the boxes of an `<object>`: of the first kind that it has."""
    for tag, names in (("bndbox", CORNERS), ("robndbox", ROTATED), ("segm/box", CORNERS)):
        boxes = [tuple(map(_texts(box).get, names)) for box in element.findall(tag)]
        if filled := [(tag, texts) for texts in boxes if any(texts)]:
            return filled
    for tag in ("polygon/pt", "polygon", "bndbox", "robndbox"):
        if hull := _hull(element.findall(tag)):
            return [(tag if tag == "polygon/pt" else "polygon", hull)]
    return [("bndbox", (None,) * 4)]


def _hull(elements: Sequence[etree._Element]) -> tuple[str | None, ...]:
    """The texts of the least and the greatest x and y of all points, as `CORNERS`; () for none.

    A text that is no number stands for its kind, so that messages show it.
    """
    found: dict[str, list[str]] = {"x": [], "y": []}
    for child in (child for element in elements for child in element):
        if axis := _POINT.fullmatch(child.tag):
            found[axis[1]].append((child.text or "").strip())
    if not any(found.values()):
        return ()
    if len(found["x"]) != len(found["y"]):
        return (None,) * 4
    ranked = {axis: sorted(texts, key=_rank) for axis, texts in found.items()}
    return tuple(ranked[axis][end] for end in (0, -1) for axis in "xy")


def _rank(text: str) -> float:
    value = decimal(text)
    return -math.inf if math.isnan(value) else value


def _texts(element: etree._Element | None) -> dict[str, str]:
    """{tag: text} of the direct children; equal texts are one in memory."""
    if element is None:
        return {}
    return {child.tag: sys.intern((child.text or "").strip()) for child in element}
