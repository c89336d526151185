"""The labelme reader: the box of each shape, where files and images are looked for, what is wrong.

Expected boxes are worked out by hand from the points.
"""

import json

import numpy as np
import pytest
from PIL import Image

from data.formats.labelme import find_splits, labelme_classes, read_labelme, undivided
from data.records import DatasetError

pytestmark = pytest.mark.quick

W, H = 40, 30


def write_image(path, size=(W, H)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)


def shape(points=((2, 3), (12, 23)), label="cat", shape_type="rectangle", **others):
    return {"label": label, "points": points, "shape_type": shape_type} | others


def write_json(path, *shapes, image="a.png", **others):
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"imageHeight": H, "imageWidth": W}
    contents = {"version": "5.0.1", "flags": {}, "shapes": shapes, "imagePath": image, **size}
    path.write_text(json.dumps({**contents, "imageData": None, **others}))


@pytest.fixture
def folder(tmp_path):
    """folder(*shapes, ...) makes a folder of a.png and a.json."""

    def folder(*shapes, **others):
        root = tmp_path / "set"
        write_image(root / "a.png")
        write_json(root / "a.json", *shapes, **others)
        return root

    return folder


def assert_refused(root, kind, *parts, num_images=1, num_boxes=1):
    """One defect: "error" raises a line with `parts`; "drop" counts the same line under `kind`."""
    with pytest.raises(DatasetError) as caught:
        read_labelme(root, "all")
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert len(message) < 1000
    assert caught.value.kind == kind
    dataset = read_labelme(root, "all", on_bad_annotation="drop")
    assert (kind, message) in dataset.defects.messages
    assert (len(dataset), len(dataset.labels)) == (num_images, num_boxes)


# ------------------------------------------------------------------------------------------------
# Boxes
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape_type", "points", "box", "kind"),
    [
        ("rectangle", [[2, 3], [12, 23]], [2, 3, 12, 23], None),
        ("rectangle", [[12, 23], [2, 3]], [2, 3, 12, 23], None),
        ("rectangle", [[2.5, 23], [12, 3.25]], [2.5, 3.25, 12, 23], None),
        ("rectangle", [[2, 3], [12, 3], [12, 23], [2, 23]], [2, 3, 12, 23], None),
        ("rectangle", [[7, 3], [12, 8], [7, 13], [2, 8]], [2, 3, 12, 13], "rotated box"),
        ("polygon", [[5, 3], [12, 9], [2, 23]], [2, 3, 12, 23], "polygon"),
        (None, [[5, 3], [12, 9], [2, 23]], [2, 3, 12, 23], "polygon"),
        ("linestrip", [[5, 3], [12, 9], [2, 23]], [2, 3, 12, 23], "line"),
        ("line", [[5, 3], [12, 9]], [5, 3, 12, 9], "line"),
        ("oriented_rectangle", [[7, 3], [12, 8], [7, 13], [2, 8]], [2, 3, 12, 13],
         "rotated box"),
        ("circle", [[20, 15], [23, 19]], [15, 10, 25, 20], "circle"),
        ("mask", [[2, 3], [11, 22]], [2, 3, 12, 23], "mask"),
    ],
)  # fmt: skip
def test_the_box_of_each_shape(folder, shape_type, points, box, kind):
    dataset = read_labelme(folder(shape(points, shape_type=shape_type)), "all")
    np.testing.assert_array_equal(dataset.boxes, [box])
    assert dataset.classes == ("cat",)
    counts = dataset.defects.counts()
    assert counts == ({f"{kind} taken as its box": 1} if kind else {})


def test_a_circle_may_leave_the_image(folder):
    dataset = read_labelme(folder(shape([[38, 15], [38, 25]], shape_type="circle")), "all")
    np.testing.assert_array_equal(dataset.boxes, [[28, 5, 40, 25]])
    assert dataset.defects.counts()["shape beyond the image, cut off"] == 1


def test_points_have_no_box_and_are_counted(folder):
    root = folder(shape(), shape([[3, 4]], label="nose", shape_type="point"))
    dataset = read_labelme(root, "all")
    assert dataset.classes == ("cat",)
    assert len(dataset.boxes) == 1
    assert dataset.defects.counts() == {"shape without a box left out": 1}
    assert "shapes[1] ('nose')" in dataset.defects.messages[0][1]


def test_polygons_of_one_label_and_group_are_one_object(folder):
    """Two halves of a cat behind a pole; a third with another group, a rectangle with the same."""
    root = folder(
        shape([[2, 3], [8, 3], [5, 9]], shape_type="polygon", group_id=1),
        shape([[20, 20], [25, 20], [22, 25]], shape_type="polygon", group_id=2),
        shape([[10, 5], [15, 6], [12, 11]], shape_type="polygon", group_id=1),
        shape([[1, 1], [4, 4]], group_id=1),
        shape([[30, 1], [34, 1], [32, 4]], label="dog", shape_type="polygon", group_id=1),
    )
    dataset = read_labelme(root, "all")
    expected = [[2, 3, 15, 11], [20, 20, 25, 25], [1, 1, 4, 4], [30, 1, 34, 4]]
    np.testing.assert_array_equal(dataset.boxes, expected)
    assert dataset.defects.counts() == {
        "shapes of a group taken as one object": 1,
        "polygon taken as its box": 2,
    }


def test_flags_and_what_is_ignored_for_all(folder):
    root = folder(
        shape(flags={"difficult": True, "blurred": True}),
        shape(label="dog", flags={"difficult": False, "ignore": True}),
        shape(difficult=True, score=None),
        shape(flags={"difficult": "perhaps"}),
        shape(((20, 3), (30, 23)), label="__ignore__"),
    )
    dataset = read_labelme(root, "all")
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 1, 0, 0, 0, 1]
    assert dataset.difficult.tolist() == [True, False, True, False, False, False]
    assert dataset.ignore.tolist() == [False, True, False, False, True, True]
    np.testing.assert_array_equal(dataset.boxes[4:], [[20, 3, 30, 23]] * 2)
    assert dataset.defects.counts() == {
        "difficult flag other than 0 or 1": 1,
        "region ignored for all classes": 1,
    }


def test_flags_of_the_image_are_counted(folder):
    root = folder(shape(), flags={"night": True, "rain": False})
    assert read_labelme(root, "all").defects.messages == [
        ("flags of an image not read", f"{root}/a.json: the image has flags: night")
    ]


def test_a_number_is_a_label_and_a_file_without_shapes_an_image_without_objects(folder):
    root = folder(shape(label=7))
    write_image(root / "b.png")
    write_json(root / "b.json", image="b.png")
    dataset = read_labelme(root, "all")
    assert dataset.classes == ("7",)
    np.testing.assert_array_equal(dataset.row_splits, [0, 1, 1])


# ------------------------------------------------------------------------------------------------
# Files and images
# ------------------------------------------------------------------------------------------------


def test_folders_of_splits(tmp_path):
    for split, names in (("train", "ba"), ("val", "c"), (".trash", "d")):
        for name in names:
            write_image(tmp_path / split / f"{name}.png")
            write_json(tmp_path / split / f"{name}.json", shape(label=split), image=f"{name}.png")
    assert find_splits(tmp_path) == ["train", "val"]
    assert undivided(tmp_path) is None
    dataset = read_labelme(tmp_path, "train")
    assert dataset.name == f"{tmp_path.name}/train"
    assert dataset.image_ids == ("a", "b")
    assert labelme_classes(tmp_path, "val") == ("val",)
    assert read_labelme(tmp_path, "all").image_ids == ("train/a", "train/b", "val/c")
    with pytest.raises(DatasetError, match=r"in a folder test, found train, val; 'all' is"):
        read_labelme(tmp_path, "test")


@pytest.mark.parametrize(
    ("json_file", "image", "image_path"),
    [
        ("annotations/a.json", "images/a.png", "../images/a.png"),
        ("annotations/a.json", "images/a.png", "..\\images\\a.png"),
        ("ann/a.json", "img/a.png", "a.png"),
        ("sub/deep/a.json", "sub/deep/a.png", "C:\\Users\\me\\Pictures\\a.png"),
        ("a.json", "a.png", "/home/me/a.png"),
        ("labels/batch/a.json", "images/batch/a.png", "a.png"),
    ],
)
def test_one_undivided_folder(tmp_path, json_file, image, image_path):
    write_image(tmp_path / image)
    write_json(tmp_path / json_file, shape(), image=image_path)
    assert undivided(tmp_path) == "all"
    dataset = read_labelme(tmp_path, "all")
    assert dataset.images == (str(tmp_path / image),)
    assert dataset.image_ids == ("a",)
    assert dataset.defects.counts() == {}


def test_splits_in_a_folder_of_annotations(tmp_path):
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / f"{split}.png")
        write_json(tmp_path / "labels" / split / f"{split}.json", shape(), image=f"{split}.png")
    assert find_splits(tmp_path) == ["train", "val"]
    assert read_labelme(tmp_path, "val").image_ids == ("val",)


def test_images_elsewhere(tmp_path):
    write_image(tmp_path / "elsewhere" / "a.png")
    write_json(tmp_path / "set" / "a.json", shape())
    with pytest.raises(DatasetError, match=r"expected the image a\.png in .*set, found none"):
        read_labelme(tmp_path / "set", "all")
    found = read_labelme(tmp_path / "set", "all", images=["../elsewhere"])
    assert len(found) == 1


def test_the_file_s_name_finds_a_renamed_image(folder):
    root = folder(shape(), image="IMG_1.png")
    dataset = read_labelme(root, "all")
    assert dataset.images == (str(root / "a.png"),)
    assert dataset.defects.counts() == {"image found by its file's name": 1}


def test_another_suffix_is_counted(folder):
    dataset = read_labelme(folder(shape(), image="a.jpg"), "all")
    assert dataset.defects.counts() == {"image under another suffix": 1}


def test_an_image_without_a_file_is_left_out_and_counted(folder):
    root = folder(shape())
    write_image(root / "b.png")
    dataset = read_labelme(root, "all")
    assert dataset.image_ids == ("a",)
    assert dataset.defects.counts() == {"image without JSON file left out": 1}


def test_two_files_of_one_image(folder):
    root = folder(shape())
    write_json(root / "b.json", shape())
    assert_refused(root, "ambiguous image", "b.json: expected an image of its own, found", "a.json")


def test_an_image_that_only_the_file_holds(folder):
    root = folder(shape(), imageData="iVBORw0KGgo=")
    (root / "a.png").unlink()
    write_image(root / "b.png")
    write_json(root / "b.json", shape(), image="b.png")
    assert_refused(root, "missing image", "a.json: expected the image a.", "save it as a file")


def test_a_size_that_is_not_the_image_s(folder):
    root = folder(shape())
    write_image(root / "b.png", (W + 1, H))
    write_json(root / "b.json", shape(), image="b.png")
    message = "b.json, imageWidth and imageHeight: expected 41x30 as the image has, found 40x30"
    assert_refused(root, "size disagrees with the image", message)
    write_json(root / "b.json", shape(), image="b.png", imageWidth=None, imageHeight=None)
    assert len(read_labelme(root, "all")) == 2


# ------------------------------------------------------------------------------------------------
# What is wrong
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "kind", "part"),
    [
        (shape([[1, 2]]), "malformed shape", "expected 2 or 4 points of a rectangle, found 1"),
        (shape([[1, 2]], shape_type="circle"), "malformed shape", "expected 2 points of a circle"),
        (shape([], shape_type="polygon"), "malformed shape", "expected some points of a polygon"),
        (shape([[1, 2, 3], [4, 5, 6]]), "malformed shape", "shapes[1], points[0]: expected"),
        (shape([[1, "2"], [4, 5]]), "malformed shape", "points[0][1]: expected `float`, found"),
        (shape(shape_type="blob"), "unknown shape type", "expected one of rectangle, circle"),
        (shape([[1, 2], [1e9, 3]]), "bad number", "expected numbers up to 1.67772e+07, found"),
        (shape([[1, 2], [1, 9]]), "empty or inverted box", "expected a box with x1 < x2"),
        (shape([[1, 2], [60, 9]]), "box outside the image", "expected a box inside 0 0 40 30"),
        (shape(label=""), "missing name", "label: expected a class name, found none"),
        (shape(label="a\nb"), "bad class name", "label: "),
        (7, "malformed shape", "shapes[1]: expected `object`, found `int`"),
    ],
)
def test_shapes_that_are_refused(folder, bad, kind, part):
    assert_refused(folder(shape(), bad), kind, "a.json, shapes[1]", part)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            '{"imagePath": "b.png"}',
            "b.json: expected an object with the field `shapes`",
        ),
        ('{"shapes": {}}', "b.json, shapes: expected `array`, found `object`"),
        ("[" * 100_000, "b.json: "),
        ("", "b.json: Input data was truncated"),
    ],
)
def test_files_that_are_refused(folder, text, part):
    root = folder(shape())
    write_image(root / "b.png")
    (root / "b.json").write_text(text)
    assert_refused(root, "unreadable JSON", part)


def test_a_class_not_asked_for_is_refused(folder):
    with pytest.raises(DatasetError, match=r"label: expected one of car, found 'cat'; did you"):
        read_labelme(folder(shape()), "all", ("car",))


def test_a_byte_order_mark_is_passed_over(folder):
    root = folder(shape())
    (root / "a.json").write_bytes(b"\xef\xbb\xbf" + (root / "a.json").read_bytes())
    assert len(read_labelme(root, "all").labels) == 1


def test_other_json_is_not_taken_for_labelme_s(tmp_path):
    (tmp_path / "train.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert find_splits(tmp_path) == []
    assert undivided(tmp_path) is None
