"""Annotation files that are pipes, devices or endless, and class names that are not fit."""

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from configs.schema import Data
from data.datasets import class_names, read_split
from data.detections.devkit import read_devkit
from data.detections.project_json import JSON
from data.formats.class_files import read_class_file
from data.formats.voc_xml import parse_annotation
from data.records import DatasetError, Defects, assemble

pytestmark = pytest.mark.quick

ESCAPE = "\x1b[2J"


def voc(root, name="cat"):
    (root / "a.xml").write_text(
        f"<annotation><object><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
        "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )
    return Data(format="voc", root=str(root), train="all", val="all"), root / "a.xml"


def coco(root, name="cat"):
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8], "area": 64}
    (root / "train.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
                "categories": [{"id": 1, "name": name}],
                "annotations": [box],
            }
        )
    )
    return Data(format="coco", root=str(root), train="train", val="train"), root / "train.json"


def csv(root, name="cat"):
    (root / "train.csv").write_text(f'a.png,1,1,9,9,"{name}"\n')
    return Data(format="csv", root=str(root), train="train", val="train"), root / "train.csv"


def yolo(root, name="cat"):
    (root / "data.yaml").write_text(f"train: .\nval: .\nnames: [{json.dumps(name)}]\n")
    (root / "a.txt").write_text("0 .5 .5 .2 .2\n")
    return Data(format="yolo", root=str(root), train="train", val="train"), root / "data.yaml"


def crowdhuman(root):
    gtbox = {"tag": "person", "fbox": [1, 1, 8, 8], "vbox": [1, 1, 8, 8], "hbox": [1, 1, 4, 4]}
    (root / "train.odgt").write_text(json.dumps({"ID": "a", "gtboxes": [gtbox]}))
    return Data(format="crowdhuman", root=str(root), train="train", val="train"), (
        root / "train.odgt"
    )


FORMATS = {"voc": voc, "coco": coco, "csv": csv, "yolo": yolo, "crowdhuman": crowdhuman}


@pytest.fixture
def root(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    return tmp_path


def read(data):
    return read_split(data, data.train, class_names(data))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_annotations_that_are_no_regular_file_are_named_at_once(root, name, kind):
    """Before, an XML that links to /dev/zero was read to the end of memory, a pipe for ever."""
    data, path = FORMATS[name](root)
    assert len(read(data).labels) == 1
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(DatasetError) as caught:
        read(data)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("link", ["pipe", "device"])
@pytest.mark.parametrize(
    "read", [parse_annotation, read_class_file, lambda path: JSON.read(path, ["a"], ["cat"])]
)
def test_every_reader_says_what_was_found(tmp_path, read, link):
    path = tmp_path / "file"
    os.mkfifo(path) if link == "pipe" else path.symlink_to("/dev/zero")
    found = "a named pipe" if link == "pipe" else "a device"
    with pytest.raises(DatasetError, match=f"file: expected a regular file, found {found}"):
        read(path)


def test_a_devkit_file_that_is_a_device(tmp_path):
    (tmp_path / "comp4_det_val_cat.txt").symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match=r"cat\.txt"):
        read_devkit(tmp_path, "val", ["a"], ["cat"])


@pytest.mark.parametrize("function", [parse_annotation])
def test_a_file_larger_than_one_image_needs_is_not_read(tmp_path, function):
    path = tmp_path / "a.xml"
    with open(path, "wb") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(DatasetError, match=r"a\.xml: expected at most 64 MiB, found 64\.0 MiB"):
        function(path)


@pytest.mark.parametrize("name", ["voc", "coco", "csv", "yolo"])
@pytest.mark.parametrize("bad", ["a\nb", "a\u202eb", "a" * 201, "a\x85b"])
def test_class_names_are_judged_when_they_are_read(root, name, bad):
    """Before, a line end in one was found out when results were written, after training."""
    if name == "csv" and bad == "a\nb":
        pytest.skip("a line is a row")
    data, path = FORMATS[name](root, bad)
    with pytest.raises(DatasetError) as caught:
        read(data)
    message = str(caught.value)
    assert message.isprintable()
    assert str(path) in message
    assert "expected a class name of" in message
    assert caught.value.kind == "bad class name"


@pytest.mark.parametrize("name", ["voc", "csv"])
def test_objects_of_such_a_class_are_left_out_where_that_is_asked_for(root, name):
    data, path = FORMATS[name](root, "a\u202eb")
    text = path.read_text()
    good = text.replace("a\u202eb", "cat")
    if name == "csv":
        path.write_text(text + good)
    else:
        good = good[good.index("<object>") : good.index("</annotation>")]
        path.write_text(text.replace("</annotation>", good + "</annotation>"))
    dataset = read(replace(data, on_bad_annotation="drop"))
    assert dataset.classes == ("cat",)
    assert len(dataset.labels) == 1
    assert dataset.defects.counts() == {"bad class name": 1}


def test_names_of_the_config_and_of_a_class_file(root):
    data, _ = voc(root)
    with pytest.raises(DatasetError, match=r"data\.classes: expected a class name of one line"):
        class_names(replace(data, classes=("cat", "d\u202eg")))
    (root / "classes.txt").write_text(f"cat\n{ESCAPE}\n")
    with pytest.raises(DatasetError, match=r"classes\.txt, line 2: expected a class name of one"):
        read_class_file(root / "classes.txt")


def test_names_of_datasets_made_by_hand():
    image = {"images": ["a.png"], "image_ids": ["a"], "sizes": [[9, 9]]}
    with pytest.raises(DatasetError, match="mine: expected a class name of one line"):
        assemble("mine", ("cat", "a\nb"), **image, defects=Defects())


def test_errors_are_one_printable_line(tmp_path):
    path = tmp_path / f"{ESCAPE}\n.xml"
    with contextlib.suppress(OSError):
        path.write_text("<")
    with pytest.raises(DatasetError) as caught:
        parse_annotation(Path(path))
    assert str(caught.value).isprintable()
    assert r"\x1b[2J\n.xml" in str(caught.value)
