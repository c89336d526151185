"""Small datasets of the kinds that people's reports describe, each with its right outcome.

They lie in ../shared/cases where that exists (or the folder RETINANET_CASES names); the same kinds
have small files of their own in the readers' tests.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from configs.schema import Data
from data.datasets import class_names, read_split
from data.formats import FORMATS
from data.formats.recognition import recognise
from data.records import DatasetError

pytestmark = pytest.mark.quick

FOLDER = Path(os.environ.get("RETINANET_CASES", Path(__file__).parents[3] / "shared" / "cases"))
CASES = json.loads((FOLDER / "expected.json").read_text()) if FOLDER.is_dir() else {}
# Cases whose splits or class file have other names than train, val and none.
SETTINGS = {
    "11-voc-train-and-test-folders": {"val": "test"},
    "16-csv-class-ids-from-1": {"class_file": "classes.csv"},
    "43-coco-predictions-by-stem": {"train": "val"},  # what it is about: tests/data/detections
}


def read(name, **settings):
    """The splits of a case, and all that the reader says of them."""
    settings = SETTINGS.get(name, {}) | settings
    data = Data(format=CASES[name]["format"], root=str(FOLDER / name), **settings)
    classes = class_names(data)
    splits = [read_split(data, split, classes) for split in (data.train, data.val)]
    messages = [f"{kind}: {text}" for split in splits for kind, text in split.defects.messages]
    return splits, "\n".join(messages)


def outcome(name):
    """("read", what is said of it) or ("refuse", the error)."""
    try:
        splits, report = read(name)
    except DatasetError as error:
        return "refuse", str(error)
    assert all(len(split) for split in splits)
    return "read", report


@pytest.mark.parametrize("name", CASES)
def test_each_case_has_its_outcome(name):
    case = CASES[name]
    found, said = outcome(name)
    assert case["outcome"] in (found, "either"), said
    if found == case["outcome"] or found == "refuse":
        assert re.search(case.get("says", ""), said, re.IGNORECASE), said
    if found == "refuse":
        assert "\n" not in said


needs_cases = pytest.mark.skipif(not CASES, reason=f"no cases in {FOLDER}")


@needs_cases
@pytest.mark.parametrize(
    ("name", "boxes"),
    [
        ("06-yolo-keypoints", [20, 30, 80, 90]),
        ("01-coco-string-image-ids", None),
        ("24-coco-no-size", None),
        ("27-labelme", None),
        ("27-cvat-images-xml", None),
    ],
)
def test_boxes_of_a_case(name, boxes):
    for split in read(name)[0]:
        assert len(split.boxes)
        if boxes:
            np.testing.assert_allclose(split.boxes, [boxes] * len(split.boxes), atol=0.01)


@needs_cases
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("12-voc-lists-not-in-Main", [8, 4]),
        ("41-yolo-ipynb-checkpoints", [6, 6]),
        ("36-csv-two-spellings", [4, 2]),
    ],
)
def test_images_of_a_case(name, counts):
    assert list(map(len, read(name)[0])) == counts


@needs_cases
def test_flags_of_the_cases():
    for name, expected in (("False", 0), ("Unspecified", 0), ("true", 1), ("2", 1)):
        splits, _ = read(f"20-voc-difficult-{name}")
        assert all(split.difficult.any() == expected for split in splits), name
    assert all(split.ignore.any() for split in read("05-coco-ignore-flag")[0])
    for policy in ("error", "drop"):
        for split in read("15-csv-none-negative", on_bad_annotation=policy)[0]:
            assert split.classes == ("crate",)


@needs_cases
@pytest.mark.parametrize("name", ["14-labelstudio-coco", "27-cvat-images-xml", "27-labelme"])
def test_a_case_is_recognised(name):
    assert recognise(FOLDER / name) == CASES[name]["format"]


def test_every_format_is_known():
    assert {case["format"] for case in CASES.values()} <= FORMATS.keys()
