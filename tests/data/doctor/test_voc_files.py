"""VOC folders in the layouts there are: which names lie, which files have no partner."""

import numpy as np
import pytest
from PIL import Image

from data.doctor.voc_files import voc_findings
from data.formats.voc import read_voc

pytestmark = pytest.mark.quick

OBJECT = (
    "<object><name>cat</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax>"
    "</bndbox></object>"
)


def write(path, fields=""):
    """An image of 16x16, or an annotation of one object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".xml":
        path.write_text(f"<annotation>{fields}{OBJECT}</annotation>")
    else:
        Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(path)


def findings_of(root, reported=(), split="all"):
    dataset = read_voc(root, split, ("cat",), on_bad_annotation="drop")
    return [(f.kind, f.object, f.file) for f in voc_findings({"train": dataset}, reported)]


LAYOUTS = [
    ("", ""),
    ("images", "annots"),
    ("JPEGImages", "Annotations"),
    ("", "labels"),
    ("images", ""),
    ("train", "train"),
    ("images/train", "annotations/train"),
    ("JPEGImages/cam1", "Annotations/cam1"),
]


@pytest.mark.parametrize(("images", "annotations"), LAYOUTS)
def test_every_layout(tmp_path, images, annotations):
    write(tmp_path / images / "a.jpg")
    path = tmp_path / annotations / "a.xml"
    write(path, "<filename>b.jpg</filename>")
    split = "train" if images.endswith("train") else "all"
    found = findings_of(tmp_path, split=split)
    assert found == [("another file is named", "filename", str(path))]


@pytest.mark.parametrize(
    ("field", "text", "is_found"),
    [
        ("filename", "a.jpg", False),
        ("filename", "a.png", False),
        ("filename", "a", False),
        ("filename", "", False),
        ("filename", r"C:\photos\a.jpg", False),
        ("filename", "a (1).jpg", True),
        ("path", "/home/me/a.jpg", False),
        ("path", r"C:\photos\a.jpg", False),
        ("path", "Unspecified", True),
        ("path", "/home/me/tom &amp; i.jpg", True),
    ],
)
def test_names_that_lie(tmp_path, field, text, is_found):
    write(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", f"<{field}>{text}</{field}>")
    path = str(tmp_path / "a.xml")
    assert findings_of(tmp_path) == ([("another file is named", field, path)] if is_found else [])


@pytest.mark.parametrize(
    ("width", "is_found"), [("0", True), ("", True), ("16", False), (None, False)]
)
def test_sizes_that_are_not_filled_in(tmp_path, width, is_found):
    size = "" if width is None else f"<size><width>{width}</width><height>{width}</height></size>"
    write(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", size)
    found = findings_of(tmp_path)
    assert found == ([("size not filled in", "size", str(tmp_path / "a.xml"))] if is_found else [])


def test_files_without_a_partner_unless_they_are_reported(tmp_path):
    images, annotations = tmp_path / "images", tmp_path / "annotations"
    write(images / "a.jpg")
    write(annotations / "a.xml")
    write(images / "b.jpg")
    write(annotations / "c.xml")
    (annotations / "README.md").write_text("by hand")
    (annotations / ".DS_Store").write_text("")
    (annotations / "old").mkdir()
    alone = [
        ("annotation without image", "", str(annotations / "c.xml")),
    ]
    stray = [("stray file", "", str(annotations / "README.md"))]
    assert findings_of(tmp_path) == alone + stray
    reported = [str(annotations / "b.xml"), str(annotations / "c.xml")]
    assert findings_of(tmp_path, reported) == stray


def test_an_image_found_by_its_filename_has_its_annotation(tmp_path):
    write(tmp_path / "photo.jpg")
    write(tmp_path / "0001.xml", "<filename>photo.jpg</filename>")
    assert findings_of(tmp_path) == []


def test_suffixes_in_capitals(tmp_path):
    write(tmp_path / "a.JPG")
    write(tmp_path / "a.XML")
    assert findings_of(tmp_path) == []
