"""The CVAT reader: the box of each shape, subsets as splits, images, what is wrong.

Expected boxes are worked out by hand.
"""

import numpy as np
import pytest
from PIL import Image

from data.formats.cvat import cvat_classes, find_splits, read_cvat, undivided
from data.records import DatasetError

pytestmark = pytest.mark.quick

W, H = 40, 30
META = """<meta><task><labels>
<label><name>dog</name><type>any</type></label>
<label><name>cat</name><type>rectangle</type></label>
<label><name>person</name><type>skeleton</type></label>
<label><name>nose</name><type>points</type><parent>person</parent></label>
</labels></task></meta>"""
BOX = '<box label="cat" occluded="0" xtl="2" ytl="3" xbr="12.5" ybr="23" z_order="0"></box>'


def write_image(path, size=(W, H)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)


def image(*shapes, name="a.png", **others):
    size = {"width": W, "height": H} | others
    attributes = "".join(f' {key}="{value}"' for key, value in size.items() if value is not None)
    return f'<image id="0" name="{name}"{attributes}>{"".join(shapes)}</image>'


def write_xml(path, *images, meta=META, head='<?xml version="1.0" encoding="utf-8"?>\n'):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"{head}<annotations><version>1.1</version>{meta}{''.join(images)}</annotations>"
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """folder(*shapes) makes a folder of a.png, with these shapes, and b.png, with none."""

    def folder(*shapes, **others):
        root = tmp_path / "set"
        for name in "ab":
            write_image(root / f"images/{name}.png")
        images = image(*shapes, **others), image(name="b.png")
        write_xml(root / "annotations.xml", *images)
        return root

    return folder


def assert_refused(root, kind, *parts, num_images=2, num_boxes=1):
    """One defect: "error" raises a line with `parts`; "drop" counts the same line under `kind`."""
    with pytest.raises(DatasetError) as caught:
        read_cvat(root, "all")
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert len(message) < 1000
    assert caught.value.kind == kind
    dataset = read_cvat(root, "all", on_bad_annotation="drop")
    assert dataset.defects.messages == [(kind, message)]
    assert (len(dataset), len(dataset.labels)) == (num_images, num_boxes)


# ------------------------------------------------------------------------------------------------
# Boxes
# ------------------------------------------------------------------------------------------------


def test_a_file(folder):
    root = folder(BOX, BOX.replace("cat", "dog").replace('"2"', '"4"'))
    dataset = read_cvat(root, "all")
    assert dataset.name == "set/all"
    assert dataset.classes == cvat_classes(root, "all") == ("dog", "cat"), "as the file lists them"
    assert dataset.image_ids == ("a", "b")
    assert dataset.images[1] == str(root / "images/b.png")
    np.testing.assert_array_equal(dataset.boxes, [[2, 3, 12.5, 23], [4, 3, 12.5, 23]])
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.row_splits.tolist() == [0, 2, 2]
    assert dataset.defects.counts() == {}


@pytest.mark.parametrize(
    ("shape", "box", "kind"),
    [
        ('box xtl="10" ytl="5" xbr="20" ybr="9" rotation="0.00"', [10, 5, 20, 9], None),
        ('box xtl="10" ytl="5" xbr="20" ybr="9" rotation="90.0"', [13, 2, 17, 12], "rotated box"),
        # Half sides 5 and 2, turned by atan(3/4): 5 * .8 + 2 * .6 and 5 * .6 + 2 * .8.
        ('box xtl="10" ytl="5" xbr="20" ybr="9" rotation="36.86989764584402"',
         [9.8, 2.4, 20.2, 11.6], "rotated box"),
        ('polygon points="5.5,3;12,9.25;2,23"', [2, 3, 12, 23], "polygon"),
        ('ellipse cx="20" cy="15" rx="10" ry="5"', [10, 10, 30, 20], "ellipse"),
        ('ellipse cx="20" cy="15" rx="10" ry="5" rotation="90"', [15, 5, 25, 25], "ellipse"),
        ('mask rle="3, 5" left="4" top="6" width="8" height="2"', [4, 6, 12, 8], "mask"),
        ('cuboid xtl1="5" ytl1="6" xbl1="5" ybl1="16" xtr1="15" ytr1="6" xbr1="15" ybr1="16" '
         'xtl2="9" ytl2="2" xbl2="9" ybl2="12" xtr2="19" ytr2="2" xbr2="19" ybr2="12"',
         [5, 2, 19, 16], "cuboid"),
    ],
)  # fmt: skip
def test_the_box_of_each_shape(folder, shape, box, kind):
    name = shape.split()[0]
    dataset = read_cvat(folder(f'<{shape} label="cat"></{name}>'), "all")
    np.testing.assert_allclose(dataset.boxes, [box], atol=1e-8)
    assert dataset.defects.counts() == ({f"{kind} taken as its box": 1} if kind else {})


def test_the_box_around_what_is_turned_ends_at_the_border(folder):
    turned = '<box label="cat" xtl="0" ytl="5" xbr="10" ybr="9" rotation="90"/>'
    ellipse = '<ellipse label="cat" cx="35" cy="15" rx="8" ry="5"/>'
    dataset = read_cvat(folder(turned.replace('"5"', '"1"').replace('"9"', '"5"'), ellipse), "all")
    np.testing.assert_array_equal(dataset.boxes, [[3, 0, 7, 8], [27, 10, 40, 20]])
    assert dataset.defects.counts()["shape beyond the image, cut off"] == 2


def test_what_has_no_box_is_counted(folder):
    shapes = (
        '<points label="nose" points="1,2"/>',
        '<polyline label="cat" points="1,2;3,4"/>',
        '<skeleton label="person"><points label="nose" points="1,2"/></skeleton>',
        '<tag label="indoor"/>',
        BOX.replace("<box", '<box outside="1"'),
    )
    dataset = read_cvat(folder(*shapes, BOX), "all")
    assert len(dataset.labels) == 1
    assert dataset.classes == ("dog", "cat")
    assert dataset.defects.counts() == {
        "shape without a box left out": 4,
        "shape hidden in the image left out": 1,
    }
    place = "annotations.xml, shape 3 (skeleton 'person' of 'a.png'): found none"
    assert place in dataset.defects.messages[2][1]


def test_the_attribute_difficult(folder):
    def flagged(value):
        attributes = f'<attribute name="colour">red</attribute><attribute name="difficult">{value}'
        return BOX.replace("></box>", f">{attributes}</attribute></box>")

    dataset = read_cvat(folder(*map(flagged, ("true", "false", "1", "hardly")), BOX), "all")
    assert dataset.difficult.tolist() == [True, False, True, False, False]
    assert dataset.defects.counts() == {"difficult flag other than 0 or 1": 1}


def test_some_classes(folder):
    root = folder(BOX, BOX.replace("cat", "dog"))
    dataset = read_cvat(root, "all", ("cat",))
    assert dataset.labels.tolist() == [0]
    assert dataset.defects.counts() == {"class left out": 1}


def test_labels_the_file_does_not_list_come_last(folder):
    root = folder(BOX.replace("cat", "ant"), BOX)
    assert cvat_classes(root, "all") == ("dog", "cat", "ant")
    write_xml(root / "annotations.xml", image(BOX, BOX.replace("cat", "ant")), meta="")
    assert cvat_classes(root, "all") == ("ant", "cat")


# ------------------------------------------------------------------------------------------------
# Files, splits, images
# ------------------------------------------------------------------------------------------------


def test_subsets_are_splits(tmp_path):
    for place in ("images/Train/a.png", "images/Validation/a.png", "images/b.png"):
        write_image(tmp_path / place)
    write_xml(
        tmp_path / "annotations.xml",
        image(BOX, subset="Train"),
        image(BOX, BOX, subset="Validation"),
        image(name="b.png", subset="Train"),
    )
    assert find_splits(tmp_path) == ["Train", "Validation"]
    assert undivided(tmp_path) is None
    train = read_cvat(tmp_path, "train")
    assert train.images == (str(tmp_path / "images/Train/a.png"), str(tmp_path / "images/b.png"))
    val = read_cvat(tmp_path, "val")
    assert val.images == (str(tmp_path / "images/Validation/a.png"),)
    assert (len(train.labels), len(val.labels)) == (1, 2)
    expected = ("Train/a.png", "Validation/a.png", "Train/b.png")
    assert read_cvat(tmp_path, "all").image_ids == expected
    with pytest.raises(DatasetError, match="expected a subset test, found Train, Validation"):
        read_cvat(tmp_path, "test")


def test_one_undivided_file(folder):
    root = folder(BOX, subset="default")
    assert find_splits(root) == ["all"]
    assert undivided(root) == "all"


@pytest.mark.parametrize("files", [("train.xml", "val.xml"), ("train/annotations.xml",)])
def test_a_file_a_split(tmp_path, files):
    for file in files:
        write_image(tmp_path / file.split(".")[0].split("/")[0] / "a.png")
        write_xml(tmp_path / file, image(BOX))
    assert find_splits(tmp_path) == [name.removesuffix("/annotations.xml") for name in files]
    assert undivided(tmp_path) is None
    for split in ("train", files[0]):
        dataset = read_cvat(tmp_path, split)
        assert dataset.images == (str(tmp_path / "train/a.png"),)
    with pytest.raises(DatasetError, match=r"expected test/annotations\.xml or test\.xml"):
        read_cvat(tmp_path, "test")


def test_nothing_there(tmp_path):
    expected = r"expected train/annotations\.xml or train\.xml or annotations\.xml, found no XML"
    with pytest.raises(DatasetError, match=expected):
        read_cvat(tmp_path, "train")
    assert find_splits(tmp_path) == []
    (tmp_path / "a.xml").write_text("<annotation></annotation>")
    assert find_splits(tmp_path) == []


def test_images_that_are_missing_doubled_or_of_another_size(folder):
    root = folder(BOX)
    images = image(BOX), image(BOX, name="none.png"), image(name="b.png")
    write_xml(root / "annotations.xml", *images)
    assert_refused(root, "missing image", "image 2 ('none.png'): expected the image none.png")
    write_xml(root / "annotations.xml", image(BOX), image(BOX), image(name="b.png"))
    assert_refused(root, "duplicate id", "image 2 ('a.png'): expected an image of its own")
    write_xml(root / "annotations.xml", image(BOX), image(name="b.png", width=41))
    found = "image 2 ('b.png'), width and height: expected 40x30 as the image has, found 41x30"
    assert_refused(root, "size disagrees with the image", found, num_images=1)
    write_xml(root / "annotations.xml", image(BOX, width=None, height=None))
    assert len(read_cvat(root, "all")) == 1


# ------------------------------------------------------------------------------------------------
# What is wrong
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "kind", "part"),
    [
        (BOX.replace('xtl="2"', ""), "bad number", "xtl: expected a number, found nothing"),
        (BOX.replace('"2"', '"nan"'), "bad number", "xtl: expected a number, found 'nan'"),
        (BOX.replace('"2"', '"13"'), "empty or inverted box", "expected a box with x1 < x2"),
        (BOX.replace("12.5", "60"), "box outside the image", "expected a box inside 0 0 40 30"),
        (BOX.replace("12.5", "1e9"), "bad number", "expected numbers up to"),
        (BOX.replace('label="cat"', ""), "missing name", "label: expected a class name, found"),
        ('<blob label="cat"/>', "unknown shape type", "expected one of box, polygon"),
        (
            '<polygon label="cat" points="1,2;3"/>',
            "bad number",
            "expected numbers x,y;x,y;..., found '1,2",
        ),
        ('<polygon label="cat"/>', "bad number", "expected numbers x,y;x,y;..., found ''"),
        ('<polygon label="cat" points="1,2;3,y"/>', "bad number", "found '1,2;3,y'"),
        ('<polygon label="cat" points="1,2;3,1_0"/>', "bad number", "found '1,2;3,1_0'"),
        ('<polygon label="cat" points="1,2,3;4"/>', "bad number", "found '1,2,3;4'"),
    ],
)
def test_shapes_that_are_refused(folder, bad, kind, part):
    place = "annotations.xml, shape 2 ("
    assert_refused(folder(BOX, bad), kind, place, part)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("<annotations><image>", "not an XML file: "),
        ("", "not an XML file: "),
        ("<annotation></annotation>", "expected the root <annotations>, found <annotation>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "document type"),
        ('<annotations><track id="0"/></annotations>', "export it as 'CVAT for images 1.1'"),
        ("<annotations></annotations>", "no images left to read: none listed"),
    ],
)
def test_files_that_are_refused(folder, text, part):
    root = folder(BOX)
    (root / "annotations.xml").write_text(text)
    with pytest.raises(DatasetError) as caught:
        read_cvat(root, "annotations.xml")
    assert part in str(caught.value)


@pytest.mark.parametrize("name", ["ignore", "iscrowd"])
def test_an_attribute_makes_a_region_to_ignore(folder, name):
    flag = f'<attribute name="{name}">true</attribute>'
    boxes = BOX.replace("></box>", f">{flag}</box>"), BOX
    assert read_cvat(folder(*boxes), "all").ignore.tolist() == [True, False]


@pytest.mark.parametrize(("subset", "expected"), [("Test", None), ("val", None), ("mine", "all")])
def test_a_subset_that_is_held_out_is_not_shared_out(tmp_path, subset, expected):
    write_image(tmp_path / "images/a.png")
    write_xml(tmp_path / "annotations.xml", image(BOX, subset=subset))
    assert undivided(tmp_path) == expected
