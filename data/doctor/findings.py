"""What is wrong with a dataset, or looks it: what its reader met, and what only shows when objects,
classes and splits are compared.

Letters: M images, T objects, P pairs of objects of one image.
"""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from data.images.decode import IMAGE_SUFFIXES
from data.images.gif import FIRST_FRAME
from data.images.jpeg import NO_END, STRAY_BREAK
from data.images.tiff import FIRST_PAGE
from data.records import Dataset

SEVERITIES = ("error", "warning", "note")
SAME_IOU = 0.99  # two boxes from here on are one drawn twice
NEAR_IOU = 0.9  # and from here on most likely
TINY = 3  # px a side, in the image as it is
FEW_OBJECTS = 10  # of a class in train
CLOSE_NAMES = 0.9  # difflib's ratio from which two class names look alike
MAX_PAIRS = 2_000_000  # compared at a time

# What readers mend or leave out on purpose; whatever else they report, stops training.
MENDED = {
    FIRST_FRAME: "note",
    FIRST_PAGE: "note",
    NO_END: "note",
    STRAY_BREAK: "note",
    "box clipped to the image": "note",
    "box counted from the bottom, turned over": "note",
    "box slightly beyond the image": "note",
    "circle taken as its box": "note",
    "class left out": "note",
    "class not declared": "warning",
    "class of another number than its text": "warning",
    "class without coordinates taken as no object": "warning",
    "corner counted from 0, clipped": "warning",
    "corner counted from 1, moved by a pixel": "note",
    "cuboid taken as its box": "note",
    "decimal comma": "note",
    "deleted object left out": "note",
    "difficult flag other than 0 or 1": "note",
    "ellipse taken as its box": "note",
    "empty file of records": "warning",
    "flag that is neither 0 nor 1, taken as 1": "note",
    "flags of an image not read": "note",
    "group taken as region to ignore": "note",
    "gtbox tagged background": "note",
    "ignore flag other than 0 or 1": "note",
    "ignore flag": "note",
    "ignored box without area": "note",
    "ignored without a box": "note",
    "image found by its file's name": "note",
    "image id given twice": "warning",
    "image under another spelling": "note",
    "image under another suffix": "note",
    "image under two names, taken as one": "note",
    "image without JSON file left out": "note",
    "image without XML": "warning",
    "image without label file": "note",
    "labels under another spelling": "note",
    "line of no set taken for train": "warning",
    "line taken as its box": "note",
    "mask taken as its box": "note",
    "person without head box": "note",
    "point or line left out": "note",
    "polygon taken as its box": "note",
    "region ignored for all classes": "note",
    "rotated box taken as its box": "note",
    "second box in an object": "note",
    "shape beyond the image, cut off": "note",
    "shape hidden in the image left out": "note",
    "shape without a box left out": "note",
    "shapes of a group taken as one object": "note",
    "size not stated": "note",
    "zero box taken as no object": "note",
}
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_OBJECT = re.compile(
    r"(?:, |: )((?:record \d+, )?(?:object|line|row|entry|shape|image) \d+|record \d+|"
    r"(?:images|annotations|categories|shapes)\[\d+\])"
    rf"( \((?:{_QUOTED}|[^()'\"])*\))?(, gtboxes\[\d+\])?"
)
OF_ONE_IMAGE = (".xml", ".txt")  # annotation files; others hold those of many images
FOLDERS = ("annotations", "annots", "images", "jpegimages", "labels")  # that pairs differ in


@dataclass(frozen=True)
class Shown:
    """What a picture of a finding is of: an image of a split, and the rows of the boxes framed."""

    split: str
    image: int
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth a look.

    severity: "error": training would stop at it, if only under on_bad_annotation="error";
      "warning": it costs accuracy, or makes figures wrong; "note": seldom harmful.
    stops: whether training would stop at it as the config is.
    file: the file it is in; object: which one there, empty where it is the whole file; boxes there
      and in messages about them are xyxy from 0, as in `Dataset`, whatever the format.
    image: the image it is about, empty where that is not known, or none.
    """

    kind: str
    severity: str
    split: str
    file: str
    object: str
    message: str
    stops: bool = False
    shown: tuple[Shown, ...] = ()
    image: str = ""

    def to_dict(self) -> dict:
        """JSON-ready, without what pictures are made of."""
        names = ("kind", "severity", "stops", "split", "file", "object", "image", "message")
        return {name: getattr(self, name) for name in names}


def of_split(kind: str, severity: str, split: str, message: str, stops: bool = False) -> Finding:
    """A finding about a split as a whole."""
    return Finding(kind, severity, split, "", "", message, stops)


def of_image(
    kind: str, severity: str, path: str, text: str, *shown: Shown, item: str = ""
) -> Finding:
    """A finding about an image file. shown: pictures of it, the last one of the image itself."""
    split = shown[-1].split
    return Finding(kind, severity, split, path, item, f"{path}: {text}", shown=shown, image=path)


# ------------------------------------------------------------------------------------------------
# What the reader met
# ------------------------------------------------------------------------------------------------


def reader_findings(dataset: Dataset, split: str, on_bad_annotation: str) -> list[Finding]:
    """The defects of a dataset that was read under "drop", judged by the config's policy.

    A message that the reader repeats is one finding, which says how often. Of what was dropped
    there is no picture: the image would be shown without the culprit.
    """
    images = _Images(dataset.images)
    found = []
    for (kind, message), count in Counter(dataset.defects.messages).items():
        severity = MENDED.get(kind, "error")
        file, item = _place(message)
        image = images.find(file)
        found.append(
            Finding(
                kind=kind,
                severity=severity,
                split=split,
                file=file,
                object=item,
                message=message if count == 1 else f"{message} ({count} times)",
                stops=severity == "error" and on_bad_annotation == "error",
                shown=() if image is None or severity == "error" else (Shown(split, image),),
                image=image_named(file) if image is None else dataset.images[image],
            )
        )
    return found


class _Images:
    """Finds the image that an annotation file belongs to."""

    def __init__(self, images: Sequence[str]):
        self._indices: dict[str | tuple[str, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            self._indices[image].append(index)
            self._indices[_key(image)].append(index)

    def find(self, file: str) -> int | None:
        """The index of the image `file` is, or is the annotation of; None: of none or several.

        Its path is the same but for the suffix and folders as "images", "labels" and the like.
        """
        found = self._indices.get(file, [])
        if not found and file.lower().endswith(OF_ONE_IMAGE):
            found = self._indices.get(_key(file), [])
        return found[0] if len(found) == 1 else None


def _key(file: str) -> tuple[str, ...]:
    parts = PurePath(file).with_suffix("").parts
    return tuple(part for part in parts if part.lower() not in FOLDERS)


def image_named(file: str) -> str:
    """The file, if it is an image: one that was left out, or was not asked for."""
    return file if file.lower().endswith(IMAGE_SUFFIXES) else ""


def _place(message: str) -> tuple[str, str]:
    """The file and the object that a reader's message begins with; its names may hold ", "."""
    ends = [match.start() for match in re.finditer(r", |: ", message)]
    end = next((end for end in ends if _is_file(message[:end])), ends[0] if ends else 0)
    item = _OBJECT.match(message, end)
    return message[:end], "".join(filter(None, item.groups())) if item else ""


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # longer than a name can be
        return False


# ------------------------------------------------------------------------------------------------
# Boxes
# ------------------------------------------------------------------------------------------------


def box_findings(dataset: Dataset, split: str) -> list[Finding]:
    """Objects drawn twice, in two classes, of a few pixels, and as large as their image."""
    sides = dataset.boxes[:, 2:] - dataset.boxes[:, :2]
    is_object = ~dataset.ignore
    is_tiny = is_object & (sides.min(axis=1, initial=np.inf) <= TINY)
    limits = dataset.sizes[dataset.image_index]
    is_whole = is_object & (dataset.boxes[:, :2] <= 1).all(axis=1)
    is_whole &= (dataset.boxes[:, 2:] >= limits - 1).all(axis=1)
    found = [
        _of_rows(dataset, split, kind, severity, (row,), text)
        for kind, severity, is_it, text in (
            ("tiny box", "note", is_tiny, f"has a side of at most {TINY} px"),
            ("box covers the image", "note", is_whole, "is as large as the image"),
        )
        for row in np.flatnonzero(is_it).tolist()
    ]
    for first, second, iou in _overlapping(dataset):
        if dataset.labels[first] != dataset.labels[second]:
            kind = "same box in two classes"
        else:
            kind = "duplicate box" if iou >= SAME_IOU else "near-duplicate box"
        text = f"overlap by {iou:.2f} IoU"
        found.append(_of_rows(dataset, split, kind, "warning", (first, second), text))
    return found


def _of_rows(
    dataset: Dataset, split: str, kind: str, severity: str, rows: tuple[int, ...], text: str
) -> Finding:
    image = int(np.searchsorted(dataset.row_splits, rows[0], side="right")) - 1
    items = " and ".join(
        f"{dataset.classes[dataset.labels[row]]} " + " ".join(f"{v:g}" for v in dataset.boxes[row])
        for row in rows
    )
    text = f"{items} {text} (x1 y1 x2 y2 from 0)"
    shown = Shown(split, image, rows)
    return of_image(kind, severity, dataset.images[image], text, shown, item=items)


def _overlapping(dataset: Dataset) -> list[tuple[int, int, float]]:
    """(row, row, IoU) of objects of one image that overlap by at least NEAR_IOU."""
    found: list[tuple[int, int, float]] = []
    for first, second in _pairs(dataset):
        is_compared = ~(dataset.ignore[first] | dataset.ignore[second])
        first, second = first[is_compared], second[is_compared]
        a, b = (dataset.boxes[rows].astype(np.float64) for rows in (first, second))
        both = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
        both = both.clip(0).prod(axis=1)
        union = sum((c[:, 2:] - c[:, :2]).prod(axis=1) for c in (a, b)) - both
        iou = both / union
        kept = np.flatnonzero(iou >= NEAR_IOU)
        found += zip(first[kept].tolist(), second[kept].tolist(), iou[kept].tolist(), strict=True)
    return found


def _pairs(dataset: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of rows of one image, first < second, as two arrays (P,), in portions."""
    rows = np.arange(len(dataset.labels))
    partners = dataset.row_splits[1:][dataset.image_index] - rows - 1  # rows after it in its image
    ends = np.cumsum(partners)
    start = 0
    while start < len(rows):
        limit = (ends[start - 1] if start else 0) + MAX_PAIRS
        stop = max(int(np.searchsorted(ends, limit, side="right")), start + 1)
        counts = partners[start:stop]
        first = np.repeat(rows[start:stop], counts)
        nth = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield first, first + 1 + nth
        start = stop


# ------------------------------------------------------------------------------------------------
# Classes and splits
# ------------------------------------------------------------------------------------------------


def class_findings(train: Mapping, val: Mapping) -> list[Finding]:
    """Classes that are rare or absent in train, names that look alike, nothing to find in val.

    train, val: the figures of both.
    """
    texts = [("look-alike class names", text) for text in _alike(train["classes"])]
    for one, other in zip(train["classes"], val["classes"], strict=True):
        name, count, in_val = one["name"], one["objects"], other["objects"]
        if not count and in_val:
            text = f"{name!r}: {in_val} objects in val, none in train: it cannot be learnt"
            texts.append(("class in val only", text))
        elif not count:
            texts.append(("class without objects", f"{name!r}: no object in train, nor in val"))
        elif count < FEW_OBJECTS:
            text = f"{name!r}: {count} objects in train, fewer than {FEW_OBJECTS}"
            texts.append(("class with few objects", text))
    found = [of_split(kind, "warning", "train", text) for kind, text in texts]
    if val["objects"] == val["difficult"]:
        text = f"{val['name']}: expected objects that are not difficult, found none"
        found.append(of_split("nothing to find in val", "error", "val", text, stops=True))
    return found


def _alike(figures: Sequence[Mapping]) -> Iterator[str]:
    """Pairs of names that differ in case, blanks and the like, or in little else."""
    classes = [one["name"] for one in figures]
    plain = [re.sub(r"[\s_-]+", " ", name).strip().casefold() for name in classes]
    for j, name in enumerate(classes):
        for i, other in enumerate(classes[:j]):
            if plain[i] == plain[j]:
                yield f"{other!r} and {name!r} differ in case or blanks only"
            elif _is_close(plain[i], plain[j]):
                yield f"{other!r} and {name!r} are spelt nearly alike"


def _is_close(one: str, other: str) -> bool:
    """Whether one may be the other mistyped; "type 1" and "type 2" are not."""
    if re.sub(r"\d+", "", one) == re.sub(r"\d+", "", other):
        return False
    matcher = difflib.SequenceMatcher(None, one, other)
    return matcher.quick_ratio() >= CLOSE_NAMES and matcher.ratio() >= CLOSE_NAMES
