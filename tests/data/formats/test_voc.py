"""The VOC reader: one test a way in which datasets in the wild are odd or wrong."""

import math
import os
import time

import numpy as np
import pytest
from PIL import Image

from data.files import read_data
from data.formats import voc_xml
from data.formats.voc import FORMAT, read_voc, voc_classes
from data.formats.voc_xml import parse_annotation
from data.records import DatasetError

pytestmark = pytest.mark.quick

W, H = 40, 30


def obj(name="dog", box=(2, 3, 12, 13), extra="<difficult>0</difficult>"):
    corners = "".join(
        f"<{corner}>{value}</{corner}>"
        for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def rotated(*values):
    """An object with a box of roLabelImg: cx, cy, w, h, angle."""
    names = ("cx", "cy", "w", "h", "angle")
    fields = "".join(f"<{n}>{v}</{n}>" for n, v in zip(names, values, strict=True))
    return f"<object><name>dog</name><robndbox>{fields}</robndbox></object>"


def polygon(*points):
    """An object with an outline as RectLabel and Roboflow write it."""
    fields = "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in enumerate(points, 1))
    return f"<object><name>dog</name><polygon>{fields}</polygon></object>"


def xml(*objects, size=(W, H), extra=""):
    size = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>{extra}{size}{''.join(objects)}</annotation>"


def write_image(path, size=(W, H), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path, **options)


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.fixture
def flat(tmp_path):
    """flat(a=xml(...), b=None) makes a folder with a.jpg, a.xml and, without XML, b.jpg."""

    def flat(**annotations):
        root = tmp_path / "set"
        root.mkdir(exist_ok=True)
        for stem, text in annotations.items():
            write_image(root / f"{stem}.jpg")
            if text is not None:
                write_text(root / f"{stem}.xml", text)
        return root

    return flat


@pytest.fixture
def tree(tmp_path):
    """A VOC2007 tree of three images, two in train and one in val."""
    root = tmp_path / "VOCdevkit" / "VOC2007"
    for stem, name in (("000001", "dog"), ("000002", "cat"), ("my photo 1", "bird")):
        write_image(root / "JPEGImages" / f"{stem}.jpg")
        write_text(root / "Annotations" / f"{stem}.xml", xml(obj(name)))
    write_text(root / "ImageSets/Main/train.txt", "000002\nmy photo 1\n")
    write_text(root / "ImageSets/Main/val.txt", "000001\n\n")
    write_text(root / "ImageSets/Main/cat_train.txt", "000002  1\nmy photo 1 -1\n")
    return root


def assert_defect(root, kind, *parts, num_images=1, num_boxes=0, split="all", classes=("dog",)):
    """One defect: "error" raises a line with `parts`; "drop" counts the same line under `kind`."""
    with pytest.raises(DatasetError) as caught:
        read_voc(root, split, classes)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    assert caught.value.kind == kind
    dataset = read_voc(root, split, classes, on_bad_annotation="drop")
    assert dataset.defects.messages == [(kind, message)]
    assert (len(dataset), len(dataset.labels)) == (num_images, num_boxes)


# ------------------------------------------------------------------------------------------------
# Layouts and splits
# ------------------------------------------------------------------------------------------------


def test_reads_a_voc_tree_in_the_order_of_the_image_set(tree):
    dataset = read_voc(tree, "train")
    assert dataset.name == "VOC2007/train"
    assert dataset.image_ids == ("000002", "my photo 1")
    assert dataset.images[1] == str(tree / "JPEGImages" / "my photo 1.jpg")
    assert dataset.classes == ("bird", "cat")
    np.testing.assert_array_equal(dataset.labels, [1, 0])
    np.testing.assert_array_equal(dataset.boxes, [[1, 2, 12, 13]] * 2)
    np.testing.assert_array_equal(dataset.sizes, [[W, H]] * 2)
    np.testing.assert_array_equal(dataset.row_splits, [0, 1, 2])
    assert dataset.defects.counts() == {}


@pytest.mark.parametrize("up", [0, 1, 2])
def test_finds_the_one_tree_below_the_root(tree, up):
    root = (tree, *tree.parents)[up]
    assert len(read_voc(root, "train+val")) == 3


def test_two_trees_below_the_root_are_named(tree):
    for folder in ("Annotations", "ImageSets/Main"):
        (tree.parent / "VOC2012" / folder).mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"found 2; name one: .*VOC2007, .*VOC2012"):
        read_voc(tree.parent, "train")


def test_joined_splits_and_class_image_sets(tree):
    assert read_voc(tree, "train+val").image_ids == ("000002", "my photo 1", "000001")
    assert read_voc(tree, "cat_train").image_ids == ("000002", "my photo 1")


def test_splits_can_share_a_class_list(tree):
    assert voc_classes(tree, "val") == ("dog",)
    classes = FORMAT.joint_classes(tree, ["train", "val"], {})
    assert classes == ("bird", "cat", "dog")
    assert read_voc(tree, "val", classes).labels.tolist() == [2]


def test_missing_split_names_those_there_are(tree):
    for split in ("test", "train+test", "", "train+"):
        with pytest.raises(DatasetError, match=r"no such image set; there are cat_train, train, v"):
            read_voc(tree, split)


def test_listed_twice(tree):
    write_text(tree / "ImageSets/Main/val.txt", "000001\n000001\n")
    place = (f"{tree}/ImageSets/Main/val.txt, line 2: '000001' is listed twice", "val.txt, line 1")
    assert_defect(tree, "duplicate id", *place, split="val", num_boxes=1)
    write_text(tree / "ImageSets/Main/val.txt", "000002\n")
    with pytest.raises(DatasetError, match=r"val\.txt, line 1: .* first in .*train\.txt, line 1"):
        read_voc(tree, "train+val")


def test_listed_without_files(tree):
    write_text(tree / "ImageSets/Main/val.txt", "000001\n000007\n")
    parts = (
        f"{tree}/ImageSets/Main/val.txt, line 2: expected the name of an XML file in "
        f"{tree}/Annotations, found '000007', and no image of that name",
    )
    assert_defect(tree, "missing annotation", *parts, split="val", num_boxes=1)


def test_image_set_that_is_no_text(tree):
    write_text(tree / "ImageSets/Main/val.txt", b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"val\.txt, line 1: expected text in UTF-8"):
        read_voc(tree, "val")


@pytest.mark.parametrize(
    ("images", "annotations"),
    [
        ("", ""),
        ("images", "annotations"),
        ("images", "annots"),
        ("JPEGImages", "Annotations"),
        ("images", "labels"),
        ("", "labels"),
        ("images", ""),
    ],
)
def test_flat_layouts(tmp_path, images, annotations):
    for stem in ("b", "a#t=1", "c d"):
        write_image(tmp_path / images / f"{stem}.JPG")
        write_text(tmp_path / annotations / f"{stem}.xml", xml(obj()))
    write_text(tmp_path / annotations / "README.md", "not XML")
    write_text(tmp_path / annotations / "._b.xml", "left by macOS")
    (tmp_path / "labels").mkdir(exist_ok=True)  # of another format, say: holds no XML
    dataset = read_voc(tmp_path, "all")
    assert dataset.image_ids == ("a#t=1", "b", "c d")
    assert dataset.images[1] == str(tmp_path / images / "b.JPG")


def test_a_split_that_a_flat_folder_has_not(flat):
    root = flat(a=xml(obj()))
    with pytest.raises(DatasetError, match="expected split 'all'"):
        read_voc(root, "trainval")
    with pytest.raises(ValueError, match="on_bad_annotation: expected 'error' or 'drop'"):
        read_voc(root, "all", on_bad_annotation="ignore")


def test_root_that_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        read_voc(tmp_path / "nowhere", "train")
    with pytest.raises(DatasetError, match=r"expected a VOC tree .* found no XML file"):
        read_voc(tmp_path, "train")


# ------------------------------------------------------------------------------------------------
# Which image belongs to which XML
# ------------------------------------------------------------------------------------------------


def test_the_stem_wins_over_filename(flat):
    lie = "<filename>b.jpg</filename><path>C:\\Users\\me\\b.jpg</path>"
    root = flat(a=xml(obj(), extra=lie), b=xml())
    dataset = read_voc(root, "all")
    assert [os.path.basename(image) for image in dataset.images] == ["a.jpg", "b.jpg"]
    assert len(dataset.boxes[dataset.rows(0)]) == 1
    (root / "b.xml").unlink()  # b.jpg is now free, and still not the image of a.xml
    dataset = read_voc(root, "all")
    assert dataset.images == (str(root / "a.jpg"), str(root / "b.jpg"))
    assert dataset.row_splits.tolist() == [0, 1, 1]
    assert dataset.defects.counts() == {"image without XML": 1}


def test_filename_counts_where_no_image_has_the_stem(flat):
    root = flat(IMG_7=None)
    write_text(root / "a.xml", xml(obj(), extra="<filename>D:\\x\\IMG_7.jpg</filename>"))
    dataset = read_voc(root, "all")
    assert dataset.image_ids == ("a",)
    assert dataset.images == (str(root / "IMG_7.jpg"),)


def test_a_copied_xml_does_not_take_the_image_of_another(flat):
    text = xml(obj(), extra="<filename>a.jpg</filename>")
    root = flat(a=text)
    write_text(root / "a (1).xml", text)
    parts = ("a (1).xml: expected the image a (1).*", "nor a free one named 'a.jpg'")
    assert_defect(root, "missing image", *parts, num_boxes=1)


def test_the_name_that_filename_gives_wins_over_its_stem(flat):
    root = flat(IMG_7=None)
    write_image(root / "IMG_7.png")
    write_text(root / "a.xml", xml(obj(), extra="<filename>IMG_7.png</filename>"))
    assert read_voc(root, "all").images == (str(root / "IMG_7.png"),)


def test_an_image_of_another_kind_is_named(flat):
    root = flat(a=xml(obj()))
    (root / "a.jpg").rename(root / "a.heic")
    with pytest.raises(DatasetError, match=r"a\.xml: .* found a\.heic, which is no JPEG"):
        read_voc(root, "all")


def test_an_image_without_xml_is_one_without_objects(flat):
    dataset = read_voc(flat(a=xml(obj()), b=None), "all")
    assert (dataset.image_ids, dataset.row_splits.tolist()) == (("a", "b"), [0, 1, 1])
    assert dataset.defects.counts() == {"image without XML": 1}


def test_two_images_of_one_stem(flat):
    root = flat(a=xml(obj()), b=xml(obj()))
    write_image(root / "b.png")
    assert_defect(
        root,
        "ambiguous image",
        f"{root}/b.xml: expected one image b.*, found b.jpg, b.png",
        num_boxes=1,
    )


def test_image_that_cannot_be_read(flat):
    root = flat(a=xml(obj()), b=xml(obj()))
    write_text(root / "b.jpg", b"")
    assert_defect(root, "unreadable image", f"{root}/b.jpg: the file is empty", num_boxes=1)


# ------------------------------------------------------------------------------------------------
# XML files
# ------------------------------------------------------------------------------------------------

BOMB = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
ATTACKS = {
    "billion-laughs": f'<!DOCTYPE annotation [<!ENTITY a0 "ha">{BOMB}]>'
    "<annotation><object><name>&a9;</name></object></annotation>",
    "in-attribute": f'<!DOCTYPE annotation [<!ENTITY a0 "ha">{BOMB}]><annotation x="&a9;"/>',
    "external": '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    "<annotation><object><name>&x;</name></object></annotation>",
    "parameter": '<!DOCTYPE annotation [<!ENTITY % x SYSTEM "file:///etc/passwd">%x;]>'
    "<annotation/>",
    "external-dtd": '<!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/x.dtd"><annotation/>',
    "deep": "<annotation>" + "<a>" * 100_000,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused_quickly(flat, name):
    root = flat(a=xml(obj()), b=ATTACKS[name])
    start = time.perf_counter()
    assert_defect(root, "unreadable XML", f"{root}/b.xml: ", num_boxes=1)
    assert time.perf_counter() - start < 20
    with pytest.raises(DatasetError) as caught:
        parse_annotation(root / "b.xml")
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "plain", "<annotation>", b"\xff\xfe", "<annotation/>x"])
def test_files_that_are_not_xml(flat, text):
    root = flat(a=xml(obj()), b=text)
    assert_defect(root, "unreadable XML", f"{root}/b.xml: not an XML file: ", num_boxes=1)


def test_a_file_is_parsed_once_and_again_when_it_has_changed(tree, monkeypatch):
    """Classes are looked for first, objects are read second."""
    read = []

    def counted(path, *args, **options):
        read.append(path)
        return read_data(path, *args, **options)

    monkeypatch.setattr(voc_xml, "read_data", counted)
    classes = voc_classes(tree, "train")
    assert read_voc(tree, "train", classes).labels.tolist() == [1, 0]
    assert len(read) == 2
    write_text(tree / "Annotations" / "000002.xml", xml(obj("bird"), obj("bird")))
    assert read_voc(tree, "train", classes).labels.tolist() == [0, 0, 0]
    assert len(read) == 3


def test_xml_that_is_not_voc(flat):
    root = flat(a=xml(obj()))
    write_text(root / "project.xml", "<project><object/></project>")
    parts = (f"{root}/project.xml: expected the root <annotation>, found <project>",)
    assert_defect(root, "not a VOC file", *parts, num_boxes=1)


def test_reads_what_is_odd_but_right(flat):
    text = """<?xml version="1.0" encoding="utf-8"?>
    <annotation verified="yes"><!-- by hand -->
      <object><bndbox>
          <ymax> 13.5 </ymax><xmax>\n12</xmax><ymin>3e0</ymin><xmin>+2.25</xmin></bndbox>
        <part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>1</xmax><ymax>1</ymax>
          </bndbox></part>
        <difficult> 1 </difficult><name> dog\t</name></object>
      <object><name>dog</name><difficult/><bndbox><xmin>1</xmin><ymin>1</ymin>
        <xmax>40</xmax><ymax>30</ymax></bndbox></object>
    </annotation>"""
    dataset = read_voc(flat(a=text), "all")
    np.testing.assert_array_equal(dataset.boxes, [[1.25, 2, 12, 13.5], [0, 0, W, H]])
    np.testing.assert_array_equal(dataset.difficult, [True, False])
    assert dataset.classes == ("dog",)
    assert dataset.defects.counts() == {}


def test_images_without_objects_are_samples(flat):
    dataset = read_voc(flat(a=xml(), b=xml(obj()), c=xml()), "all")
    np.testing.assert_array_equal(dataset.row_splits, [0, 0, 1, 1])
    with pytest.raises(DatasetError, match="no object in the split to take the classes from"):
        read_voc(flat(b=xml()), "all")
    assert read_voc(flat(b=xml()), "all", ["dog"]).boxes.shape == (0, 4)


# ------------------------------------------------------------------------------------------------
# Sizes
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, (0, 0), ("", ""), (" 40", "30.0")])
def test_size_may_be_left_out(flat, size):
    assert len(read_voc(flat(a=xml(obj(), size=size)), "all").labels) == 1


def test_size_of_another_image(flat):
    root = flat(a=xml(obj()), b=xml(obj(), size=(80, 60)))
    parts = (f"{root}/b.xml, size: expected 40x30 as the image has, found 80x60",)
    assert_defect(root, "size disagrees with the image", *parts, num_boxes=1)
    write_text(root / "b.xml", xml(obj(), size=(H, W)))
    with pytest.raises(DatasetError, match=r"found 30x40$"):  # no EXIF to blame
        read_voc(root, "all")
    write_text(root / "b.xml", xml(obj(), size=("wide", 30)))
    parts = ("b.xml, size/width: expected a number, found 'wide'",)
    assert_defect(root, "bad number", *parts, num_boxes=1)


def test_boxes_drawn_before_exif_orientation(flat):
    root = flat(a=xml(obj()), b=xml(obj(), size=(W, H)))
    exif = Image.Exif()
    exif[274] = 6
    write_image(root / "b.jpg", exif=exif)
    parts = ("b.xml, size: expected 30x40", "found 40x30; the image carries EXIF orientation 6")
    assert_defect(root, "size disagrees with the image", *parts, num_boxes=1)
    write_text(root / "b.xml", xml(obj(), size=(H, W)))
    np.testing.assert_array_equal(read_voc(root, "all").sizes, [[W, H], [H, W]])


# ------------------------------------------------------------------------------------------------
# Objects
# ------------------------------------------------------------------------------------------------

NO_XMAX = (
    "<object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><ymax>9</ymax></bndbox></object>"
)
BAD_OBJECTS = {
    "zero-width": (
        obj(box=(12, 3, 12, 13)),
        "empty or inverted box",
        "object 2 ('dog'), bndbox/xmax: expected a number > xmin = 12, found '12'",
    ),
    "inverted": (obj(box=(2, 13, 12, 3)), "empty or inverted box", "bndbox/ymax: expected"),
    "nan": (obj(box=("nan", 3, 12, 13)), "bad number", "bndbox/xmin: expected a number"),
    "infinite": (obj(box=(2, 3, "inf", 13)), "bad number", "bndbox/xmax: expected a number"),
    "overflow": (obj(box=(2, 3, "1e999", 13)), "bad number", "found '1e999'"),
    "absurd": (obj(box=(2, 3, "1e30", 13)), "box outside the image", "found 2 3 1e+30 13"),
    "text": (obj(box=(2, "12,5", 12, 13)), "bad number", "ymin: expected a number, found '12,5'"),
    "underscore": (obj(box=("1_0", 3, 12, 13)), "bad number", "found '1_0'"),
    "endless": (obj(box=("9" * 5000, 3, 12, 13)), "bad number", "99..."),
    "empty": (obj(box=(2, 3, "", 13)), "bad number", "xmax: expected a number, found ''"),
    "no-corner": (NO_XMAX, "bad number", "bndbox/xmax: expected a number, found nothing"),
    "no-bndbox": ("<object><name>dog</name></object>", "bad number", "bndbox/xmin"),
    "right": (obj(box=(2, 3, W + 3, 13)), "box outside the image", "in 1..40 x 1..30, found"),
    "left": (obj(box=(-2, 3, 12, 13)), "box outside the image", "found -2 3 12 13"),
    "beside": (obj(box=(W + 1, 3, W + 2, 13)), "box outside the image", "found 41 3 42 13"),
    "angle": (
        rotated(20, 15, 10, 4, 90),
        "bad number",
        "object 2 ('dog'), robndbox/angle: expected radians, at most 2 pi, found 90",
    ),
    "no-height": (
        rotated(20, 15, 10, 0, 0),
        "empty or inverted box",
        "robndbox/h: expected a number > 0, found 0",
    ),
    "no-angle": (rotated(20, 15, 10, 4, ""), "bad number", "robndbox/angle: expected a number"),
    "point": (polygon((2, 3), ("a", 3), (12, 13)), "bad number", "polygon/xmin: .* found 'a'"),
    "half-a-point": (
        f"<object><name>dog</name><polygon><x1>2</x1>{'<y1>3</y1>' * 2}</polygon></object>",
        "bad number",
        "polygon/xmin: expected a number, found nothing",
    ),
    "unknown": (
        obj(name="dogg"),
        "unknown class",
        "name: expected one of dog, found 'dogg'; did you mean 'dog'?",
    ),
    "unlike": (obj(name="x"), "unknown class", "object 2 ('x'), name: expected one of dog, found"),
    "no-name": (obj(name=" "), "missing name", "object 2 (''), name: expected a class name"),
}


@pytest.mark.parametrize("name", BAD_OBJECTS)
def test_bad_object_is_an_error_or_dropped_alone(flat, name):
    bad, kind, part = BAD_OBJECTS[name]
    root = flat(a=xml(obj(), bad, obj()))
    assert_defect(root, kind, f"{root}/a.xml, object 2 (", *part.split(".*"), num_boxes=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("Yes", True),
        ("2", True),
        ("1.0", True),
        ("False", False),
        ("no", False),
        ("0.0", False),
        ("Unspecified", False),
    ],
)
@pytest.mark.parametrize("mode", ["error", "drop"])
def test_a_difficult_flag_in_words_loses_no_box(flat, text, expected, mode):
    root = flat(a=xml(obj(extra=f"<difficult>{text}</difficult>"), obj()))
    dataset = read_voc(root, "all", on_bad_annotation=mode)
    assert dataset.difficult.tolist() == [expected, False]
    ((kind, message),) = dataset.defects.messages
    assert kind == "difficult flag other than 0 or 1"
    assert message == (
        f"{root}/a.xml, object 1 ('dog'), difficult: expected 0 or 1, found {text!r}, "
        f"taken for {int(expected)}"
    )


def test_two_boxes_of_an_object_are_two_objects(flat):
    second = "<bndbox><xmin>20</xmin><ymin>5</ymin><xmax>30</xmax><ymax>9</ymax></bndbox>"
    root = flat(a=xml(obj(extra=second), obj("cat"), obj("cat", box=(5, 5, 5, 5))))
    dataset = read_voc(root, "all", on_bad_annotation="drop")
    np.testing.assert_array_equal(dataset.boxes, [[19, 4, 30, 9], [1, 2, 12, 13], [1, 2, 12, 13]])
    assert [dataset.classes[label] for label in dataset.labels] == ["dog", "dog", "cat"]
    (_, bad), (kind, message) = sorted(dataset.defects.messages)
    assert kind == "second box in an object"
    assert message.startswith(f"{root}/a.xml, object 1 ('dog'): expected one <bndbox>, found anot")
    assert "a.xml, object 3 ('cat')" in bad  # as the file counts them


@pytest.mark.parametrize(
    ("angle", "expected"),
    [
        (0, [16, 12, 24, 18]),
        (math.pi / 2, [17, 11, 23, 19]),
        (math.atan2(3, 4), [15, 10.2, 25, 19.8]),  # half of 8 * .8 + 6 * .6, of 8 * .6 + 6 * .8
        (math.pi - math.atan2(3, 4), [15, 10.2, 25, 19.8]),
    ],
)
def test_a_rotated_box_becomes_the_box_around_it(flat, angle, expected):
    dataset = read_voc(flat(a=xml(rotated(20, 15, 8, 6, angle))), "all")
    np.testing.assert_allclose(dataset.boxes, [expected], atol=1e-9)
    assert dataset.defects.counts() == {"rotated box taken as its box": 1}


def test_a_polygon_becomes_the_box_around_it_in_the_pixels_of_bndbox(flat):
    corners = polygon((12, 3), (9, 13), (2, 9))
    dataset = read_voc(flat(a=xml(corners)), "all")
    np.testing.assert_array_equal(dataset.boxes, [[1, 2, 12, 13]])
    assert dataset.defects.counts() == {"polygon taken as its box": 1}
    outline = "<polygon><x1>1</x1><y1>1</y1><x2>40</x2><y2>30</y2></polygon>"
    beside = read_voc(flat(a=xml(obj(extra=outline))), "all")  # as Roboflow writes it
    np.testing.assert_array_equal(beside.boxes, [[1, 2, 12, 13]])
    assert beside.defects.counts() == {}


def test_a_polygon_without_area(flat):
    root = flat(a=xml(polygon((2, 3), (12, 3)), obj()))
    with pytest.raises(DatasetError, match=r"polygon/ymax: expected a number > ymin = 3, found '3"):
        read_voc(root, "all")
    assert len(read_voc(root, "all", on_bad_annotation="drop").labels) == 1


def test_four_named_corners_are_a_polygon(flat):
    """As DIOR-R has them."""
    names = ("left_top", "right_top", "right_bottom", "left_bottom")
    points = zip(names, ((7, 2), (12, 7), (7, 13), (3, 7)), strict=True)
    fields = "".join(f"<x_{n}>{x}</x_{n}><y_{n}>{y}</y_{n}>" for n, (x, y) in points)
    text = xml(f"<object><name>dog</name><robndbox>{fields}</robndbox></object>")
    np.testing.assert_array_equal(read_voc(flat(a=text), "all").boxes, [[2, 1, 12, 13]])


def test_polygons_of_labelme_and_what_was_deleted_there(flat):
    def drawn(name, deleted):
        points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((4, 5), (20, 5), (9, 17)))
        return (
            f"<object><name>\n{name}\n</name><deleted>{deleted}</deleted><parts><hasparts/></parts>"
            f"<polygon><username>me</username>{points}</polygon></object>"
        )

    mask = "<segm><box><xmin>1</xmin><ymin>2</ymin><xmax>7</xmax><ymax>8</ymax></box></segm>"
    root = flat(
        a=xml(
            drawn("dog", 0),
            drawn("ghost", 1),
            f"<object><name>dog</name><deleted>0</deleted>{mask}</object>",
            size=None,
        )
    )
    assert voc_classes(root, "all") == ("dog",)
    dataset = read_voc(root, "all")
    np.testing.assert_array_equal(dataset.boxes, [[4, 5, 20, 17], [1, 2, 7, 8]])
    assert dataset.defects.counts() == {
        "polygon taken as its box": 1,
        "mask taken as its box": 1,
        "deleted object left out": 1,
    }


def test_the_name_of_a_part_is_not_the_object_s(flat):
    part = "<part><name>lid</name><bndbox><xmin>1</xmin><ymin>1</ymin></bndbox></part>"
    body = obj("crate").removeprefix("<object>")
    dataset = read_voc(flat(a=xml(f"<object>{part}{body}")), "all")
    assert dataset.classes == ("crate",)
    np.testing.assert_array_equal(dataset.boxes, [[1, 2, 12, 13]])


def test_an_image_whose_only_object_is_dropped_stays(flat):
    root = flat(a=xml(obj(box=(5, 5, 5, 5))))
    assert_defect(root, "empty or inverted box", "a.xml, object 1", num_images=1, num_boxes=0)


@pytest.mark.parametrize("mode", ["error", "drop"])
def test_widths_and_heights_in_the_place_of_corners_are_refused_as_such(flat, mode):
    """They are told by the boxes that they turn round: nothing is left out before."""
    sizes = [obj(box=box) for box in ((20, 15, 8, 6), (12, 9, 10, 5), (3, 2, 9, 9), (30, 8, 5, 9))]
    with pytest.raises(DatasetError, match=r"found a corner, width and height: .* 3 of 4 boxes"):
        read_voc(flat(a=xml(*sizes)), "all", on_bad_annotation=mode)


@pytest.mark.parametrize("mode", ["error", "drop"])
@pytest.mark.parametrize(
    ("box", "expected", "kinds"),
    [
        ((1, 1, W, H), (0, 0, W, H), []),
        ((0, 0, W - 1, H - 1), (0, 0, W - 1, H - 1), ["corner counted from 0, clipped"]),
        ((0.5, 3, 12, 13), (0, 2, 12, 13), ["corner counted from 0, clipped"]),
        ((2, 3, W + 1, H + 2), (1, 2, W, H), ["box clipped to the image"]),
        ((-1, 3, 12, 13), (0, 2, 12, 13), ["box clipped to the image"]),
        (
            (0, 3, W + 1, 13),
            (0, 2, W, 13),
            ["corner counted from 0, clipped", "box clipped to the image"],
        ),
    ],
)
def test_small_overshoot_is_clipped_and_counted(flat, mode, box, expected, kinds):
    dataset = read_voc(flat(a=xml(obj(box=box))), "all", on_bad_annotation=mode)
    np.testing.assert_array_equal(dataset.boxes, [expected])
    assert [kind for kind, _ in dataset.defects.messages] == kinds
    for _, message in dataset.defects.messages:
        assert "a.xml, object 1 ('dog'), bndbox: expected corners in 1..40 x 1..30" in message


def test_nothing_left_says_what_was_dropped(flat):
    root = flat(a="<x/>", b="<x/>")
    with pytest.raises(DatasetError, match=r"set/all: no images left .*2 x not a VOC file"):
        read_voc(root, "all", on_bad_annotation="drop")


# ------------------------------------------------------------------------------------------------
# Real data
# ------------------------------------------------------------------------------------------------


def class_counts(dataset):
    return dict(zip(dataset.classes, np.bincount(dataset.labels).tolist(), strict=True))


def test_blood_cells(shared_data):
    root = shared_data / "bccd"
    for split, culprit in (("train", "BloodImage_00343.xml, object 4"), ("val", "_00338.xml, obj")):
        with pytest.raises(DatasetError, match=culprit):
            read_voc(root, split)
    dataset = read_voc(root, "train+val+test", on_bad_annotation="drop")
    assert len(dataset) == 364
    assert dataset.defects.counts() == {"empty or inverted box": 2}
    # 4888 boxes, of which 4155 red cells, before the two empty ones are dropped
    assert class_counts(dataset) == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert [len(read_voc(root, s, on_bad_annotation="drop")) for s in ("train", "val", "test")] == [
        205,
        87,
        72,
    ]


def test_nuts(shared_data):
    dataset = read_voc(shared_data / "nuts_voc2007", "trainval+test")
    assert len(dataset) == 18
    assert class_counts(dataset) == {"date": 71, "fig": 40, "hazelnut": 53}  # 164


def test_microcontrollers_agree_with_their_csv(shared_data):
    root = shared_data / "microcontroller"
    dataset = read_voc(root / "train", "all")
    assert len(dataset) == 142
    rows = set()
    for line in (root / "train_labels.csv").read_text().splitlines()[1:]:
        name, _, _, label, *corners = line.split(",")
        rows.add((name.rsplit(".", 1)[0], label, *map(int, corners)))
    found = {
        (dataset.image_ids[i], dataset.classes[k], *box)
        for i, k, box in zip(
            dataset.image_index,
            dataset.labels,
            np.add(dataset.boxes, [1, 1, 0, 0]).astype(int).tolist(),
            strict=True,
        )
    }
    assert found == rows
    parts = [
        FORMAT.read_split(root / "train", split, None, "error", {}) for split in ("train", "val")
    ]
    assert sum(map(len, parts)) == 142
    assert 25 <= len(parts[1]) <= 31


def test_plates(shared_data):
    dataset = read_voc(shared_data / "plates", "all")
    assert dataset.classes == ("license-plate",)
    assert (len(dataset), len(dataset.labels)) == (6, 16)
    assert dataset.defects.counts() == {"corner counted from 0, clipped": 2}
    np.testing.assert_array_equal(dataset.sizes, [[1280, 720]] * 6)
    box = dataset.boxes[dataset.rows(dataset.image_ids.index("dayride_type1_001.mp4#t=1092"))][0]
    np.testing.assert_allclose(box, [9.8183, 366.8689, 113.1003, 392.9508], atol=1e-3)
    assert Image.open(dataset.images[0]).mode == "RGBA"


def test_images_of_all_types_are_found_and_what_is_left_out_of_them_counted(flat):
    root = flat(a=xml(obj()), b=xml(obj()), c=xml(obj()))
    for stem, suffix in (("a", ".webp"), ("b", ".tiff"), ("c", ".GIF")):
        (root / f"{stem}.jpg").unlink()
        more = (
            {"save_all": True, "append_images": [Image.new("RGB", (W, H))]} if stem != "a" else {}
        )
        write_image(root / f"{stem}{suffix}", **more)
    dataset = read_voc(root, "all")
    assert len(dataset) == len(dataset.labels) == 3
    assert dataset.sizes.tolist() == [[W, H]] * 3
    assert dataset.defects.counts() == {"first of several pages": 1, "first of several frames": 1}
