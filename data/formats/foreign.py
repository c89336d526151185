"""Whose annotations a file holds: of a format that is read here, or of one that is not.

Told by words in the first part of a file, so that no reader need take it apart. `hint` is what all
readers' errors end with where a folder holds another format than the one that was asked for.
"""

import os
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data.files import open_data
from data.records import DatasetError

HEAD = 2**18  # bytes of a file that are looked at
MOST_FILES, MOST_NAMED = 200, 3  # files of a folder that are looked at, and named in a message
DEPTH = 2  # folders below the root


class Kind(NamedTuple):
    """A format by the name of its tool.

    suffix: of its files. words: a pattern each, all of which its files hold. format: what it is
    called here, "" where it is not read; way_out: what to do then.
    """

    name: str
    suffix: str
    words: tuple[str, ...]
    format: str = ""
    way_out: str = ""


# The first that fits counts.
KINDS = (
    Kind("VIA", ".json", ('"shape_attributes"|"_via_settings"',),
         way_out="export it from VIA as COCO (Annotation > Export Annotations (COCO format))"),
    Kind("VIA 3", ".json", ('"metadata"', '"xy"', '"vid"'),
         way_out="export it from VIA 3 as COCO"),
    Kind("labelme", ".json", ('"shapes"', '"points"'), "labelme"),
    Kind("Label Studio", ".json", ('"rectanglelabels"|"original_width"|"from_name"',),
         way_out="export it from Label Studio as COCO, YOLO or Pascal VOC XML"),
    Kind("Apple CreateML", ".json", ('"annotations?"', '"coordinates"', '"label"'),
         way_out="export it as COCO, YOLO or Pascal VOC from the tool that wrote it"),
    Kind("Supervisely", ".json", ('"classTitle"', '"objects"'),
         way_out="export it from Supervisely as COCO, YOLO or Pascal VOC"),
    Kind("VoTT", ".json", ('"boundingBox"', '"regions"'),
         way_out="export it from VoTT as CSV or Pascal VOC"),
    Kind("BDD100K", ".json", ('"box2d"',), way_out="convert it to COCO by bdd100k.label.to_coco"),
    Kind("Datumaro", ".json", ('"items"', '"categories"', '"infos?"'),
         way_out="convert it by `datum convert -f coco`"),
    Kind("Labelbox", ".json", ('"data_row"|"Labeled Data"',), way_out="convert it to COCO"),
    Kind("COCO panoptic", ".json", ('"segments_info"',),
         way_out="take the instances_*.json of the same images"),
    Kind("COCO results", ".json", (r"^\s*\[", '"image_id"', '"score"', '"bbox"'),
         way_out="these are detections: evaluate.py --detections judges them"),
    Kind("COCO", ".json", ('"file_name"|"coco_url"|"categories"', '"images"|"categories"'), "coco"),
    Kind("CrowdHuman", ".odgt", ('"gtboxes"',), "crowdhuman"),
    Kind("CVAT for video", ".xml", (r"<annotations[\s>]", r"<track\s"),
         way_out="export it from CVAT as 'CVAT for images 1.1'"),
    Kind("CVAT for images", ".xml", (r"<annotations[\s>]",), "cvat"),
    Kind("LabelMe XML", ".xml", (r"<annotation[\s>]", "<pt>"),
         way_out="export it as COCO or Pascal VOC from the tool that wrote it"),
    Kind("Pascal VOC", ".xml", (r"<annotation[\s>]",), "voc"),
    Kind("dlib's imglab", ".xml", (r"<dataset[\s>]", r"<box\s"), way_out="convert it to COCO"),
    Kind("KITTI", ".txt", (r"^\S+ -?[\d.]+ -?\d+( -?[\d.]+){12,13}\s*$",),
         way_out="convert it by `datum convert -if kitti -f coco` or in CVAT"),
    Kind("DOTA", ".txt", (r"^imagesource:|^(-?[\d.]+ ){8}\S+ \d\s*$",),
         way_out="convert it to COCO"),
    Kind("YOLO", ".txt", (r"^\d+( -?[\d.]+(e-?\d+)?){4}\s*$",), "yolo"),
    Kind("YOLO", ".yaml", ("^names:",), "yolo"),
    Kind("CSV", ".csv", (r"[,;\t|]",), "csv"),
    Kind("TFRecord", ".record", (), "tfrecord"),
    Kind("TFRecord", ".tfrecord", (), "tfrecord"),
)  # fmt: skip


def kind_of(path: Path) -> Kind | None:
    """The format of a file; None for one that none fits or that cannot be read."""
    suffix = ".yaml" if path.suffix.lower() == ".yml" else path.suffix.lower()
    kinds = [kind for kind in KINDS if kind.suffix == suffix]
    if not kinds:
        return None
    try:
        with open_data(path) as file:
            data = file.read(HEAD)
    except (DatasetError, OSError):
        return None
    encoding = "utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    head = data.decode(encoding, "replace")
    fitting = (k for k in kinds if all(re.search(word, head, re.MULTILINE) for word in k.words))
    return next(fitting, None)


def kinds_below(root: Path) -> dict[Kind, str]:
    """{format: its first file, relative to root} of the files of a folder and of those in it."""
    found: dict[Kind, str] = {}
    for number, name in enumerate(_names_below(root)):
        if number == MOST_FILES:
            break
        kind = kind_of(root / name)
        if kind is not None:
            found.setdefault(kind, name)
    return found


def _names_below(root: Path) -> Iterator[str]:
    """Files that may hold annotations, the upper ones first; those of hidden folders left out."""
    suffixes = tuple({kind.suffix for kind in KINDS} | {".yml"})
    folders = [""]
    for depth in range(DEPTH + 1):
        below = []
        for folder in folders:
            try:
                entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
            except OSError:
                continue
            names = [(os.path.join(folder, e.name), e) for e in entries if e.name[0] != "."]
            yield from (n for n, e in names if n.lower().endswith(suffixes) and e.is_file())
            below += [n for n, e in names if e.is_dir()] if depth < DEPTH else []
        folders = below


def hint(root: Path, wanted: str = "") -> str:
    """What a folder holds other than the wanted format, in words; "" where that is there as well.

    wanted: a name of data.format; "": any that is read.
    """
    found = kinds_below(root)
    if any(kind.format == wanted and wanted for kind in found):
        return ""
    words = []
    for kind, name in list(found.items())[:MOST_NAMED]:
        what = f"format {kind.format}" if kind.format else f"not read: {kind.way_out}"
        words.append(f"{name} is of {kind.name}, {what}")
    return "; ".join(words)
