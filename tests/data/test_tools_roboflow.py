"""Roboflow's exports, in its layouts and with its fields, are read as docs/datasets.md says."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.data.documented_tools import splits_of

pytestmark = pytest.mark.quick

SPLITS = {"train": ("a_jpg.rf.0123", "b_jpg.rf.4567"), "valid": ("c_jpg.rf.89ab",), "test": ()}
OBJECT = """<object><name>cat</name><pose>Unspecified</pose><truncated>0</truncated>
<difficult>0</difficult><occluded>0</occluded><bndbox><xmin>11</xmin><xmax>30</xmax><ymin>6</ymin>
<ymax>25</ymax></bndbox><polygon><x1>11</x1><y1>6</y1><x2>30</x2><y2>25</y2></polygon></object>"""
XML = """<annotation><folder></folder><filename>{name}</filename><path>{name}</path>
<source><database>roboflow.com</database></source><size><width>40</width><height>40</height>
<depth>3</depth></size><segmented>0</segmented>{objects}</annotation>"""
YAML = """train: ../train/images
val: ../valid/images
test: ../test/images

nc: 2
names: ['cat', 'dog']

roboflow:
  workspace: me
  project: pets
"""


@pytest.fixture
def export(tmp_path):
    """export("{split}/images") makes the images of the splits in such folders; returns the root."""

    def export(folder):
        for split, stems in SPLITS.items():
            images = tmp_path / folder.format(split=split)
            images.mkdir(parents=True)
            for stem in stems:
                Image.new("RGB", (40, 40)).save(images / f"{stem}.jpg")
        for name in ("README.dataset.txt", "README.roboflow.txt"):
            (tmp_path / name).write_text("pets > 2026-11-29\n")
        return tmp_path

    return export


def assert_read(splits):
    """One cat in each image but b's, at 10, 5, 30, 25."""
    for name, folder in (("train", "train"), ("val", "valid")):
        split = splits[name]
        found = [image.rpartition("/")[2].removesuffix(".jpg") for image in split.images]
        assert tuple(found) == SPLITS[folder]
        assert np.diff(split.row_splits).tolist() == [1, 0][: len(found)]
        np.testing.assert_allclose(split.boxes, [[10, 5, 30, 25]])
        assert [split.classes[label] for label in split.labels] == ["cat"]
        assert split.defects.counts() == {}


def test_voc(export):
    root = export("{split}")
    for split, stems in SPLITS.items():
        for stem in stems:
            objects = "" if stem.startswith("b") else OBJECT
            text = XML.format(name=f"{stem}.jpg", objects=objects)
            (root / split / f"{stem}.xml").write_text(text)
    assert_read(splits_of("Roboflow", "voc", root))


def test_coco(export):
    root = export("{split}")
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    for split, stems in SPLITS.items():
        images = [
            {"id": i, "license": 1, "file_name": f"{stem}.jpg", "height": 40, "width": 40,
             "date_captured": "2026-11-29T00:00:00+00:00"}
            for i, stem in enumerate(stems)
        ]  # fmt: skip
        annotations = [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [10, 5, 20, 20], "area": 400,
             "segmentation": [], "iscrowd": 0}
            for i, stem in enumerate(stems)
            if not stem.startswith("b")
        ]  # fmt: skip
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    splits = splits_of("Roboflow", "coco", root)
    assert_read(splits)
    assert splits["train"].classes == ("cat", "dog")  # without the project's name


def test_yolo(export):
    root = export("{split}/images")
    (root / "data.yaml").write_text(YAML)
    for split, stems in SPLITS.items():
        (root / split / "labels").mkdir()
        for stem in stems:
            line = "" if stem.startswith("b") else "0 0.5 0.375 0.5 0.5\n"
            (root / split / "labels" / f"{stem}.txt").write_text(line)
    assert_read(splits_of("Roboflow", "yolo", root))
