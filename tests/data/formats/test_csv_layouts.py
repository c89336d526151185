"""Layouts of CSV files that tools write: each read as its tool means it, or named."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from data.formats.boxes_csv import FORMAT, csv_classes, read_csv
from data.records import DatasetError

pytestmark = pytest.mark.quick

W, H = 40, 20


@pytest.fixture
def folder(tmp_path):
    """folder(lines) makes a folder with boxes.csv and a.jpg, b.jpg, c.jpg of 40 x 20."""

    def folder(lines, file="boxes.csv", delimiter=","):
        for name in "abc":
            Image.new("RGB", (W, H)).save(tmp_path / f"{name}.jpg")
        with open(tmp_path / file, "w", newline="") as out:
            csv.writer(out, delimiter=delimiter).writerows(lines)
        return tmp_path

    return folder


# ------------------------------------------------------------------------------------------------
# VIA
# ------------------------------------------------------------------------------------------------

VIA = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes"
VIA = f"{VIA},region_attributes".split(",")
RECT = {"name": "rect", "x": 2, "y": 3, "width": 10, "height": 5}


def region(shape, attributes, name="a.jpg"):
    texts = [
        value if isinstance(value, str) else json.dumps(value) for value in (shape, attributes)
    ]
    return [name, 5000, "{}", 1, 0, *texts]


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("first", ["filename", "#filename"])
def test_via(folder, first, delimiter):
    lines = [
        region(RECT, {"label": "dog"}),
        region({}, {}, "b.jpg"),
        region(
            {"name": "polygon", "all_points_x": [1, 9.5, 4], "all_points_y": [2, 3, 8]},
            {"label": "cat"},
        ),
        region({"name": "circle", "cx": 20, "cy": 10, "r": 4}, {"label": "dog"}),
        region({"name": "ellipse", "cx": 20, "cy": 10, "rx": 4, "ry": 2}, {"label": "dog"}),
        region({"name": "point", "cx": 20, "cy": 10}, {"label": "nose"}, "c.jpg"),
    ]
    dataset = read_csv(folder([[first, *VIA[1:]], *lines], delimiter=delimiter), "boxes.csv")
    assert dataset.image_ids == ("a", "b", "c")
    assert dataset.classes == ("cat", "dog")
    boxes = [[2, 3, 12, 8], [1, 2, 9.5, 8], [16, 6, 24, 14], [16, 8, 24, 12]]
    np.testing.assert_array_equal(dataset.boxes, boxes)
    np.testing.assert_array_equal(dataset.row_splits, [0, 4, 4, 4])
    assert dataset.defects.counts() == {
        "polygon taken as its box": 1,
        "circle taken as its box": 1,
        "ellipse taken as its box": 1,
        "point or line left out": 1,
    }
    message = "boxes.csv, line 4 ('cat'): expected a rect, found a polygon"
    assert dataset.defects.messages[0][1].endswith(message)


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"color": "red", "Class": "dog"}, "dog"),
        ({"species": "dog", "remark": ""}, "dog"),
        ({"animal": {"dog": True, "cat": False}}, "dog"),
        ({"kind": 3}, "3"),
    ],
)
def test_classes_of_via(folder, attributes, name):
    root = folder([VIA, region(RECT, attributes)])
    assert read_csv(root, "boxes.csv").classes == (name,)


BAD_VIA = {
    "two": (
        region(RECT, {"color": "red", "size": "big"}),
        "the class in 'kind', found 'color', 's",
    ),
    "another": (region(RECT, {"color": "red"}), "expected the class in 'kind', found 'color'"),
    "none": (region(RECT, {}), "line 3, class: expected a class name, found none"),
    "cut": (region('{"name":"rect","x":2', {"kind": "dog"}), "expected JSON of a region, found"),
    "text": (region(RECT | {"x": "2"}, {"kind": "dog"}), "Expected `float`, got `str`"),
    "list": (region("[]", {"kind": "dog"}), "region_shape_attributes: expected JSON of a region"),
    "deep": (region("[" * 100_000, {"kind": "dog"}), "expected JSON of a region, found '[[["),
    "deep-name": (region(RECT, '{"a":' * 20_000), "region_attributes: expected JSON of a region"),
    "no-width": (
        region({"name": "rect", "x": 2, "y": 3}, {"kind": "dog"}),
        "expected the numbers of a rect, found not all of them",
    ),
    "no-points": (region({"name": "polygon"}, {"kind": "dog"}), "the numbers of a polygon"),
}


@pytest.mark.parametrize("name", BAD_VIA)
def test_bad_regions_of_via(folder, name):
    bad, part = BAD_VIA[name]
    root = folder([VIA, region(RECT, {"kind": "dog"}), bad])
    with pytest.raises(DatasetError) as caught:
        read_csv(root, "boxes.csv")
    assert part in str(caught.value)
    assert f"{root}/boxes.csv, line 3" in str(caught.value)
    assert len(str(caught.value)) < 500
    dataset = read_csv(root, "boxes.csv", on_bad_annotation="drop")
    assert dataset.classes == ("dog",)
    assert len(dataset.labels) == len(dataset.defects.messages) == 1


# ------------------------------------------------------------------------------------------------
# Others with a header
# ------------------------------------------------------------------------------------------------


def test_a_box_in_one_field(folder):
    """Kaggle's wheat, which has no class: data.classes names it."""
    lines = [["image_id", "width", "height", "bbox", "source"]]
    lines += [["a", W, H, "[2.0, 3, 10, 5]", "x"], ["b", W, H, "", "x"], ["c", W, H, "nan", "x"]]
    root = folder(lines)
    with pytest.raises(DatasetError, match=r"expected columns for class .* named by data\.classes"):
        read_csv(root, "boxes.csv")
    with pytest.raises(DatasetError, match="expected columns for class"):
        read_csv(root, "boxes.csv", ["wheat", "weed"])
    dataset = read_csv(root, "boxes.csv", ["wheat"])
    np.testing.assert_array_equal(dataset.boxes, [[2, 3, 12, 8]])
    np.testing.assert_array_equal(dataset.row_splits, [0, 1, 1, 1])
    assert dataset.defects.counts() == {}
    root = folder([*lines, ["a", W, H, "[1, 2, 3]", "x"]])
    with pytest.raises(DatasetError, match=r"line 5: bbox: expected \[x, y, width, height\]"):
        read_csv(root, "boxes.csv", ["wheat"])
    root = folder([[*lines[0], "label"], [*lines[1], "ear"]])
    assert read_csv(root, "boxes.csv").classes == ("ear",)


OPEN_IMAGES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated"
OPEN_IMAGES = f"{OPEN_IMAGES},IsGroupOf,IsDepiction,IsInside".split(",")


def open_images(image, name, box, is_group=0):
    return [image, "xclick", name, 1, *box, 0, 0, is_group, 0, 0]


def test_open_images(folder):
    """Fractions; groups become ignore regions; the file of class names may lie beside."""
    lines = [
        open_images("a", "/m/01x", [0.25, 0.5, 0.1, 0.6]),
        open_images("a", "/m/02y", [0, 1, 0.5, 1], 1),
    ]
    root = folder([OPEN_IMAGES, *lines], file="train-annotations-bbox.csv")
    dataset = read_csv(root, "train")
    np.testing.assert_array_equal(dataset.boxes, [[10, 2, 20, 12], [0, 10, 40, 20]])
    np.testing.assert_array_equal(dataset.ignore, [False, True])
    assert dataset.classes == ("/m/01x", "/m/02y")
    assert dataset.defects.counts() == {"group taken as region to ignore": 1}
    (root / "class-descriptions-boxable.csv").write_text('/m/01x,"Crate, big"\n/m/02y,Box\n')
    assert csv_classes(root, "train") == read_csv(root, "train").classes == ("Box", "Crate, big")
    assert FORMAT.find_splits(root) == ["train-annotations-bbox.csv"]


def test_fractions_that_are_pixels(folder):
    root = folder([OPEN_IMAGES, *[open_images("a", "/m/01x", [10, 20, 2, 12])] * 3])
    with pytest.raises(DatasetError, match="expected fractions of the image, found pixels"):
        read_csv(root, "boxes.csv")


NOT_READ = {
    "via-3": (
        "# Exported using VGG Image Annotator\n# CSV_HEADER = metadata_id,file_list,flags,"
        'temporal_coordinates,spatial_coordinates,metadata\n"1_x","[""a.jpg""]",0,"[]","[2,1,2]","{}"',
        "VIA 3 is not read; export COCO there",
    ),
    "label-studio": (
        "image,id,label,annotator,annotation_id,created_at,updated_at,lead_time\na.jpg,1,[],1,1,,,2",
        "Label Studio is not read; export COCO, YOLO or Pascal VOC there",
    ),
    "wheat-2021": (
        "image_name,BoxesString,domain\na,1 2 3 4;5 6 7 8,x",
        "Global Wheat 2021 is not",
    ),
}


@pytest.mark.parametrize("policy", ["error", "drop"])
@pytest.mark.parametrize("name", NOT_READ)
def test_layouts_that_are_not_read_are_named(folder, name, policy):
    text, part = NOT_READ[name]
    root = folder([])
    (root / "boxes.csv").write_text(text)
    with pytest.raises(DatasetError, match=rf"boxes\.csv: the CSV of {part}"):
        read_csv(root, "boxes.csv", on_bad_annotation=policy)


# ------------------------------------------------------------------------------------------------
# Without a header
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        ["dog", 2, 3, 10, 5, "a.jpg", W, H],  # makesense.ai
        ["a.jpg", 2, 3, 12, 8, "dog", W, H],  # SKU-110K
        ["", "gs://bucket/x/a.jpg", "dog", 0.05, 0.15, "", "", 0.3, 0.4, "", ""],  # AutoML
        ["gs://bucket/x/a.jpg", "dog", 0.05, 0.15, "", "", 0.3, 0.4, "", ""],  # Vertex AI
        ["UNASSIGNED", "x/a.jpg", "dog", 0.05, 0.15, 0.3, 0.15, 0.3, 0.4, 0.05, 0.4],
    ],
)
def test_layouts_told_by_a_line(folder, line):
    root = folder([line])
    dataset = read_csv(root, "boxes.csv")
    np.testing.assert_array_equal(dataset.boxes, [[2, 3, 12, 8]])
    assert dataset.classes == ("dog",)
    assert dataset.images == (str(root / "a.jpg"),)
    assert dataset.image_ids[0] in ("a", "x/a")
    assert dataset.defects.counts() == {}
    assert FORMAT.undivided(root) == "boxes.csv"


def automl(part, name, label="dog"):
    box = [0.05, 0.15, "", "", 0.3, 0.4, "", ""] if label else [""] * 8
    return [part, f"gs://bucket/{name}", label, *box]


def test_sets_of_automl_are_splits(folder):
    lines = [
        automl("TRAIN", "a.jpg"),
        automl("VALIDATION", "b.jpg", "cat"),
        automl("test", "c.jpg", ""),
    ]
    root = folder(lines)
    assert FORMAT.undivided(root) is None
    options = {"val_fraction": 0.5}
    for split, image, labels in (("train", "a", [1]), ("val", "b", [0]), ("test", "c", [])):
        dataset = FORMAT.read_split(root, split, ("cat", "dog"), "error", options)
        assert dataset.image_ids == (image,)
        assert dataset.labels.tolist() == labels
    assert FORMAT.joint_classes(root, ["train", "val"], options) == ("cat", "dog")
    assert read_csv(root, "all").image_ids == ("a", "b", "c")
    assert read_csv(root, "validation").image_ids == ("b",)
    root = folder([*lines[:2], automl("UNASSIGNED", "c.jpg")])
    assert read_csv(root, "val").image_ids == ("b",)
    dataset = read_csv(root, "train")
    assert dataset.image_ids == ("a", "c")
    assert dataset.defects.counts() == {"line of no set taken for train": 1}
    root = folder([lines[0], lines[2]])
    with pytest.raises(DatasetError, match=r"lines of the set val \(AutoML\), found test, train"):
        read_csv(root, "val")
    root = folder([lines[0], automl("DEV", "b.jpg")])
    with pytest.raises(DatasetError, match=r"line 2: expected a set of TRAIN, .*, found 'DEV'"):
        read_csv(root, "boxes.csv")


def test_one_set_of_automl_is_undivided(folder):
    root = folder([automl("TRAIN", "a.jpg"), automl("TRAIN", "b.jpg"), automl("", "c.jpg")])
    assert FORMAT.undivided(root) == "boxes.csv"
