"""CrowdHuman's .odgt annotations -> Dataset: people, heads, or both, and the regions to ignore.

A line is a JSON object {"ID", "gtboxes": [{"tag", "fbox", "vbox", "hbox", "extra", "head_attr"}]},
its boxes x, y, width, height of the whole person, the visible part and the head. Full boxes may
leave the image and stay as they are.
Shao et al., "CrowdHuman: A Benchmark for Detecting Human in a Crowd", 2018. What is ignored is
ignored as in the evaluation of CrowdDet (Chu et al., CVPR 2020):
- a gtbox of another tag than person, mostly "mask", a region with a crowd or a picture of people;
- one whose extra.ignore is not 0; for heads also one whose head_attr.ignore is not 0.
Such a region is one of each chosen class that it has a box for: a mask's hbox is its fbox again. A
gtbox tagged "background" is neither a person nor ignored there; it is left out and counted.
Letters: T objects.
"""

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from data.files import open_data
from data.formats.bad_annotations import Judge, have_area, shown
from data.formats.format import Format
from data.formats.image_files import ImageFinder, files_below, first_file
from data.formats.json_text import decode_json
from data.images.decode import ImageHeader, read_header
from data.records import Dataset, DatasetError

CLASSES = ("person", "head")
PERSON_BOXES = {"full": "fbox", "visible": "vbox"}
MAX_BYTES = 2**34  # of a file, which is read line by line
MAX_LINE = 2**24  # bytes; CrowdHuman's longest line, of 391 people, has some 10**5
MAX_ID = 200  # characters; file systems take 255 bytes
MAX_COORDINATE = 2.0**24  # pixels; up to here float32 tells whole ones apart

_FoundBox = tuple[float, float, float, float]


class _Attributes(msgspec.Struct):
    ignore: float = 0


class _GtBox(msgspec.Struct):
    tag: str
    fbox: _FoundBox | None = None
    vbox: _FoundBox | None = None
    hbox: _FoundBox | None = None
    extra: _Attributes | None = None
    head_attr: _Attributes | None = None


class _Line(msgspec.Struct, rename={"image_id": "ID"}):
    """gtboxes: undecoded, so that one that is malformed spoils no other."""

    image_id: str
    gtboxes: list[msgspec.Raw]


_LINES = msgspec.json.Decoder(_Line)
_GTBOXES = msgspec.json.Decoder(_GtBox)


class _Object(NamedTuple):
    image_index: int
    label: int
    xywh: _FoundBox
    is_ignored: bool
    where: str


def read_crowdhuman(
    root: str | Path,
    split: str,
    classes: Sequence[str] = ("person",),
    *,
    images: Sequence[str | Path] = (),
    person_box: str = "full",
    on_bad_annotation: str = "error",
    image_sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Dataset:
    """Reads one split of a dataset annotated in CrowdHuman's .odgt.

    root: the folder of the dataset.
    split: a name, whose file is annotation_<split>.odgt, <split>.odgt or annotations/annotation_
      <split>.odgt; or the path of an .odgt file, relative to root or absolute.
    classes: any of "person" and "head", in label order.
    images: folders, relative to root or absolute, looked through before CrowdHuman_<split>*/Images,
      Images, images, images/<split>, <split> and root. An image is called <ID>.jpg, or .png, ...
    person_box: "full" takes a person's fbox, "visible" its vbox.
    image_sizes: ID -> (width, height), for judging detections that were made elsewhere: if it has
      any, no image need be there, and boxes without area are kept, as the evaluators keep them.

    Order: images as in the file; in an image its gtboxes, of each its classes. An image id is the
    ID. Only counted, whatever `on_bad_annotation` says: a person without hbox has no head, an
    ignored gtbox without the box of a class, or with one without area, is no region of it.
    For on_bad_annotation and errors see `Format`.
    """
    root, judge, image_sizes = Path(root), Judge(on_bad_annotation), image_sizes or None
    fields = _fields(classes, person_box)
    path, name = _annotation_file(root, split)
    lines = _read_lines(path, judge)
    for image_id, (where, _) in lines.items():
        # No defect of the dataset: to drop what was not run would change the figures.
        if image_sizes is not None and image_id not in image_sizes:
            message = "expected the image among the detections, with or without any, found none"
            raise DatasetError(f"{where}: {message}", "missing image")
    finder = ImageFinder(_image_folders(root, name, images))
    kept = judge.load(lambda item: _load(item, lines[item][0], finder, image_sizes), lines)
    objects = [
        found
        for index, image_id in enumerate(kept)
        for place, raw in enumerate(lines[image_id][1])
        for found in _objects(raw, index, fields, f"{lines[image_id][0]}, gtboxes[{place}]", judge)
    ]
    objects, boxes = _boxes(objects, judge)
    return judge.assemble(
        f"{root.resolve().name}/{name}",
        classes,
        kept,
        lambda row: objects[row].where,
        written="corner and size",
        beyond="any" if image_sizes is None else "all",
        image_index=[item.image_index for item in objects],
        boxes=boxes,
        labels=[item.label for item in objects],
        ignore=[item.is_ignored for item in objects],
    )


def _fields(classes: Sequence[str], person_box: str) -> tuple[str, ...]:
    """The field of a gtbox that holds the box of each class."""
    if not classes or not set(classes) <= set(CLASSES) or len(set(classes)) < len(classes):
        raise ValueError(f"classes: expected 'person', 'head' or both, found {tuple(classes)}")
    if person_box not in PERSON_BOXES:
        expected = " or ".join(map(repr, PERSON_BOXES))
        raise ValueError(f"person_box: expected {expected}, found {person_box!r}")
    return tuple("hbox" if name == "head" else PERSON_BOXES[person_box] for name in classes)


# ------------------------------------------------------------------------------------------------
# Which files
# ------------------------------------------------------------------------------------------------


def _annotation_file(root: Path, split: str) -> tuple[Path, str]:
    """The .odgt file of a split, and the split's name."""
    if split.endswith(".odgt"):
        names, name = [split], Path(split).stem.removeprefix("annotation_")
    else:
        file = f"annotation_{split}.odgt"
        names, name = [file, f"{split}.odgt", f"annotations/{file}"], split
    return first_file(root, names, "no .odgt file", "*.odgt", "annotations/*.odgt"), name


def _image_folders(root: Path, split: str, images: Sequence[str | Path]) -> list[Path]:
    parts = sorted(root.glob(f"CrowdHuman_{glob.escape(split)}*/Images"))
    usual = ("Images", "images", f"images/{split}", split, "")
    return [*(root / folder for folder in images), *parts, *(root / folder for folder in usual)]


def _read_lines(path: Path, judge: Judge) -> dict[str, tuple[str, list[msgspec.Raw]]]:
    """{ID: (where it stands, gtboxes)}, in the order of the file."""
    lines: dict[str, tuple[str, list[msgspec.Raw]]] = {}
    for number, data in _raw_lines(path):
        where = f"{path}, line {number}"
        try:
            line = decode_json(_LINES, data, where, "malformed line")
            where += f" (ID {line.image_id[:MAX_ID]!r})"
            if not 0 < len(line.image_id) <= MAX_ID:
                message = f"{where}: expected an ID of 1 to {MAX_ID} characters"
                raise DatasetError(f"{message}, found {len(line.image_id)}", "malformed line")
            if line.image_id in lines:
                message = f"{where}: expected each ID once, first in {lines[line.image_id][0]}"
                raise DatasetError(message, "duplicate id")
        except DatasetError as error:
            judge.reject(error)
            continue
        lines[line.image_id] = where, line.gtboxes
    return lines


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, bytes) of the lines that are not blank."""
    with open_data(path, MAX_BYTES) as file:
        for number, data in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
            if len(data) > MAX_LINE:
                expected = f"expected at most {MAX_LINE} bytes, found more"
                raise DatasetError(f"{path}, line {number}: {expected}")
            data = data.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip()
            if data:
                yield number, data


def _load(
    image_id: str, where: str, finder: ImageFinder, sizes: Mapping[str, tuple[int, int]] | None
) -> tuple[Path, ImageHeader]:
    if sizes is not None:
        return Path(f"{image_id}.jpg"), ImageHeader(*sizes[image_id], orientation=1)
    image = finder.find(f"{image_id}.jpg", where)
    return image, read_header(image)


# ------------------------------------------------------------------------------------------------
# gtboxes -> objects
# ------------------------------------------------------------------------------------------------


def _objects(
    raw: msgspec.Raw, image_index: int, fields: Sequence[str], where: str, judge: Judge
) -> Iterator[_Object]:
    """The objects and regions of one gtbox, a class each; fields: see `_fields`."""
    try:
        gtbox = decode_json(_GTBOXES, raw, where, "malformed gtbox")
    except DatasetError as error:
        judge.reject(error)
        return
    if gtbox.tag == "background":
        judge.defects.add("gtbox tagged background", f"{where}: left out, tagged background")
        return
    is_region = gtbox.tag != "person" or _says_ignore(gtbox.extra)
    for label, field in enumerate(fields):
        xywh = getattr(gtbox, field)
        if xywh is not None:
            is_ignored = is_region or (field == "hbox" and _says_ignore(gtbox.head_attr))
            yield _Object(image_index, label, xywh, is_ignored, f"{where}, {field}")
        elif gtbox.tag == "person" and field == "hbox":
            judge.defects.add("person without head box", f"{where}: found no hbox")
        elif is_region:
            judge.defects.add("ignored without a box", f"{where}: found no {field}")
        else:
            message = f"{where}, {field}: expected x y width height, found none"
            judge.reject(DatasetError(message, "missing box"))


def _says_ignore(attributes: _Attributes | None) -> bool:
    return attributes is not None and attributes.ignore != 0


def _boxes(objects: Sequence[_Object], judge: Judge) -> tuple[list[_Object], np.ndarray]:
    """The objects of numbers that make sense, and their (T, 4) float64 xyxy boxes."""
    xywh = np.array([item.xywh for item in objects], np.float64).reshape(-1, 4)
    is_absurd = (np.abs(xywh) > MAX_COORDINATE).any(axis=1)
    for row in np.flatnonzero(is_absurd).tolist():
        message = f"expected numbers up to {MAX_COORDINATE:g}, found {shown(xywh[row])}"
        judge.reject(DatasetError(f"{objects[row].where}: {message}", "bad number"))
    is_ignored = np.array([item.is_ignored for item in objects], bool)
    with np.errstate(over="ignore"):  # of the absurd
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        is_void = is_ignored & ~is_absurd & ~have_area(boxes)
    for row in np.flatnonzero(is_void).tolist():
        message = f"{objects[row].where}: found a region to ignore without area"
        judge.defects.add("ignored box without area", f"{message}, {shown(xywh[row])}")
    rows = np.flatnonzero(~is_absurd & ~is_void)
    return [objects[row] for row in rows.tolist()], boxes[rows]


# ------------------------------------------------------------------------------------------------
# The format
# ------------------------------------------------------------------------------------------------


FORMAT = Format(
    read_crowdhuman,
    lambda root, split: CLASSES,
    lambda root: files_below(root, "*.odgt", "annotations/*.odgt"),
    uses=("images", "person_box", "image_sizes"),
    default_classes=("person",),
)
