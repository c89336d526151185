"""The YOLO reader: layouts by hand with pixels by hand, odd lines, hostile YAML."""

import time

import numpy as np
import pytest
import yaml
from PIL import Image

from data.formats.yolo import read_yolo, yolo_classes
from data.records import DatasetError

pytestmark = pytest.mark.quick

W, H = 40, 20
LINE = "1 0.5 0.5 0.25 0.5\n"  # 20 10 +- 5 5
PIXELS = [15, 5, 25, 15]
NAMES = {"names": ["dog", "cat", "no"]}


def write_image(path, size=(W, H), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path, **options)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        content = yaml.safe_dump(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def folder(tmp_path):
    """folder(a=LINE, b=None) makes images/val/a.jpg, its labels, b.jpg without, and data.yaml."""

    def folder(**labels):
        root = tmp_path / "set"
        write(root / "data.yaml", NAMES | {"val": "images/val"})
        for stem, text in labels.items():
            write_image(root / "images" / "val" / f"{stem}.jpg")
            if text is not None:
                write(root / "labels" / "val" / f"{stem}.txt", text)
        return root

    return folder


def assert_defect(root, kind, *parts, num_images=1, num_boxes=0, **options):
    """One defect: "error" raises a line with `parts`; "drop" counts the same line under `kind`."""
    with pytest.raises(DatasetError) as caught:
        read_yolo(root, "val", **options)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    assert caught.value.kind == kind
    dataset = read_yolo(root, "val", on_bad_annotation="drop", **options)
    assert dataset.defects.messages == [(kind, message)]
    assert (len(dataset), len(dataset.labels)) == (num_images, num_boxes)


def assert_refused(root, *parts, split="val", **options):
    """An error whatever the policy."""
    for policy in ("error", "drop"):
        with pytest.raises(DatasetError) as caught:
            read_yolo(root, split, on_bad_annotation=policy, **options)
        for part in parts:
            assert part in str(caught.value)
        assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------
# What is read
# ------------------------------------------------------------------------------------------------


def test_pixels_by_hand(folder):
    """0.5 0.5 1 1 is the image; 0.25 0.3 0.2 0.4 of 40 x 20: centre 10 6, 8 wide, 8 high."""
    root = folder(b="", a="2 0.5 0.5 1 1\n\n  0\t0.25 0.3 0.2 4e-1\r\n", c="\ufeff1.0 .5 .5 .25 .5")
    dataset = read_yolo(root, "val")
    assert dataset.name == "set/val"
    assert dataset.classes == yolo_classes(root, "val") == ("dog", "cat", "no")
    assert dataset.category_ids == (1, 2, 3)
    assert dataset.image_ids == ("a", "b", "c")
    assert dataset.images[1] == str(root / "images" / "val" / "b.jpg")
    np.testing.assert_array_equal(dataset.sizes, [[W, H]] * 3)
    np.testing.assert_array_equal(dataset.row_splits, [0, 2, 2, 3])
    np.testing.assert_allclose(dataset.boxes, [[0, 0, W, H], [6, 2, 14, 10], PIXELS], atol=1e-6)
    np.testing.assert_array_equal(dataset.labels, [2, 0, 1])
    np.testing.assert_allclose(dataset.areas, [W * H, 64, 100], rtol=1e-6)
    assert not dataset.difficult.any()
    assert not dataset.ignore.any()
    assert dataset.defects.counts() == {}


def test_fractions_are_of_the_oriented_image(folder):
    root = folder(a=LINE)
    exif = Image.Exif()
    exif[274] = 6
    write_image(root / "images" / "val" / "a.jpg", exif=exif)
    dataset = read_yolo(root, "val")
    np.testing.assert_array_equal(dataset.sizes, [[H, W]])
    np.testing.assert_array_equal(dataset.boxes, [[7.5, 10, 12.5, 30]])


def test_a_polygon_is_taken_as_its_box(folder):
    polygon = "0 0.5 0.1 0.75 0.5 0.25 0.6\n2 .1 .1 .2 .1 .2 .3 .1 .3\n"
    dataset = read_yolo(folder(a=LINE + polygon), "val")
    expected = [PIXELS, [10, 2, 30, 12], [4, 2, 8, 6]]
    np.testing.assert_allclose(dataset.boxes, expected, atol=1e-6)
    assert dataset.defects.counts() == {"polygon taken as its box": 2}
    assert "a.txt: expected boxes, found polygons" in dataset.defects.messages[0][1]


def test_some_classes_in_an_order_of_their_own(folder):
    text = LINE + "0 0.5 0.5 0 0\n2 .5 .5 .5 .5\n0 .1 .1 .2 .1 .2 .2"
    dataset = read_yolo(folder(a=text), "val", ["no", "cat"])
    assert dataset.classes == ("no", "cat")
    np.testing.assert_array_equal(dataset.labels, [1, 0])
    assert dataset.defects.counts() == {"class left out": 2}  # neither judged nor told apart
    assert "data.yaml: class 'dog' is not asked for" in dataset.defects.messages[0][1]


def test_classes_that_are_not_there(folder):
    dataset = read_yolo(folder(a=LINE), "val", ["cart", "dog"])
    assert dataset.classes == ("cart", "dog")
    (message,) = [text for kind, text in dataset.defects.messages if kind == "class not declared"]
    assert "class: expected one of dog, cat, no, found 'cart'" in message
    with pytest.raises(ValueError, match="classes: expected different names, found"):
        read_yolo(folder(), "val", [])


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_small_overshoot_is_clipped_and_counted(folder, policy):
    dataset = read_yolo(folder(a="0 0.5 0.5 1.05 0.5"), "val", on_bad_annotation=policy)
    np.testing.assert_array_equal(dataset.boxes, [[0, 5, W, 15]])
    assert dataset.defects.counts() == {"box clipped to the image": 1}
    assert "a.txt, line 1: expected a box inside 0 0 40 20" in dataset.defects.messages[0][1]


# ------------------------------------------------------------------------------------------------
# What is declared
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.yaml", "names: [dog, 'cat', no]"),
        ("dataset.yaml", "names:\n  2: no\n  0: dog\n  1: cat\nnc: 3\ndownload: |\n  import os\n"),
        ("my.yaml", "train:\nval: ''\nnames: [dog, cat, no]"),
        ("classes.txt", "dog\ncat\r\nno\n\n"),
        ("obj.names", "\ufeffdog\n cat \nno"),
        ("coco.names", "dog\ncat\nno"),
    ],
)
def test_class_names(folder, name, content):
    root = folder(a=LINE)
    (root / "data.yaml").unlink()
    write(root / name, content)
    assert yolo_classes(root, "val") == ("dog", "cat", "no")
    np.testing.assert_array_equal(read_yolo(root, "val").labels, [1])


def test_data_yaml_comes_before_others(folder):
    root = folder(a=LINE)
    write(root / "coco.yaml", "names: [x]")
    write(root / "classes.txt", "y")
    assert yolo_classes(root, "val") == ("dog", "cat", "no")
    (root / "data.yaml").rename(root / "a.yaml")
    assert_refused(root, "expected data.yaml or one", "found a.yaml, coco.yaml")


def test_neither_yaml_nor_names(folder):
    root = folder(a=LINE)
    (root / "data.yaml").unlink()
    assert_refused(root, f"{root}: expected data.yaml", "or classes.txt or one *.names, found none")
    assert_refused(root / "nowhere", "nowhere: no such folder")


ALIASES = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
YAMLS = {
    "empty": ("", "expected a mapping with 'names', found none"),
    "list": ("[names]", "expected a mapping with 'names', found none"),
    "no-names": ("nc: 2", "expected a mapping with 'names', found none"),
    "text": ("names: dog", "expected class names, a list or a mapping of 0, 1"),
    "none": ("names: []", "expected class names"),
    "nothing": ("names:", "expected class names"),
    "empty-name": ("names: [a, '']", "expected class names"),
    "nested": ("names: [a, [b]]", "expected class names"),
    "gap": ("names: {0: a, 2: b}", "expected class names"),
    "keys": ("names: {a: 0, b: 1}", "expected class names"),
    "twice": ("names: [a, b, a]", "expected different class names, found 'a' twice"),
    "unclosed": ("names: [a, b", "not a YAML file to read: "),
    "tab": ("names:\n\t- a", "not a YAML file to read: "),
    "two": ("names: [a]\n---\nnames: [b]", "not a YAML file to read: "),
    "binary": (b"\x00\x01\x02", "not a YAML file to read: "),
    "latin": ("names: [é]".encode("latin-1"), "not a YAML file to read: "),
    "list-key": ("[a, b]: 1\nnames: [a]", "not a YAML file to read: "),
    "path": ("names: [a]\npath: [x]", "path: expected a path, found list"),
    "split": ("names: [a]\nval: {a: b}", "val: expected a path or a list of paths"),
    "split-list": ("names: [a]\nval: [[a]]", "val: expected a path or a list of paths"),
    "alias": ("a: &x [a]\nnames: *x", "expected no alias (*name), found one"),
    "alias-bomb": (ALIASES + "names: *l", "expected no alias"),
    "merge": ("a: &x {b: c}\n<<: *x\nnames: [a]", "expected no alias"),
    "recursive": ("names: &x [*x]", "expected no alias"),
    "nesting": ("[" * 100_000, "recursion"),
    "nesting-map": ("{a: " * 100_000, "recursion"),
    "nesting-block": ("- " * 100_000, "recursion"),
    "large": ("#" * 2**20 + "\nnames: [a]", "expected at most 1 MiB"),
}


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_files_of_another_shape_are_refused_quickly(folder, name):
    content, part = YAMLS[name]
    root = folder(a=LINE)
    write(root / "data.yaml", content)
    start = time.perf_counter()
    assert_refused(root, f"{root}/data.yaml", part)
    assert time.perf_counter() - start < 20


def test_tags_run_nothing_and_scalars_are_texts(folder, tmp_path):
    root = folder(a=LINE)
    names = f"[!!python/object/apply:os.mkdir '{tmp_path}/made', on, 1_0, 2001-99-99, !!int a]"
    write(root / "data.yaml", f"names: {names}")
    assert yolo_classes(root, "val")[1:4] == ("on", "1_0", "2001-99-99")
    assert not (tmp_path / "made").exists()


def test_a_blank_line_among_names(folder):
    root = folder(a=LINE)
    (root / "data.yaml").unlink()
    write(root / "classes.txt", "dog\n\ncat\n")
    assert_refused(root, "classes.txt: expected a class name in every line, found a blank one")


# ------------------------------------------------------------------------------------------------
# Which files
# ------------------------------------------------------------------------------------------------

LAYOUTS = {  # entry in the YAML file, image, label
    "entry": ("images/mine", "images/mine/sub/a.jpg", "labels/mine/sub/a.txt"),
    "dot": ("./images/mine", "images/mine/sub/a.jpg", "labels/mine/sub/a.txt"),
    "parent": ("../val/images", "val/images/sub/a.jpg", "val/labels/sub/a.txt"),
    "backslash": ("..\\val\\images", "val/images/sub/a.jpg", "val/labels/sub/a.txt"),
    "beside": ("obj_data", "obj_data/sub/a.jpg", "obj_data/sub/a.txt"),
    "beside-images": ("images", "images/sub/a.jpg", "images/sub/a.txt"),
    "no-entry": (None, "images/val/sub/a.jpg", "labels/val/sub/a.txt"),
    "no-entry-roboflow": (None, "val/images/sub/a.jpg", "val/labels/sub/a.txt"),
    "no-entry-beside": (None, "val/sub/a.jpg", "val/sub/a.txt"),
    "images-twice": ("images/images", "images/images/sub/a.jpg", "images/labels/sub/a.txt"),
}


@pytest.mark.parametrize("path", [None, "nowhere/else", "/content/datasets", "."])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name, path):
    entry, image, label = LAYOUTS[name]
    root = tmp_path / "set"
    content = NAMES | ({"val": entry} if entry else {}) | ({"path": path} if path else {})
    write(root / "data.yaml", content)
    write_image(root / image)
    write(root / label, LINE)
    dataset = read_yolo(root, "val")
    assert dataset.images == (str(root / image),) or ".." in dataset.images[0]
    assert dataset.image_ids == ("sub/a",)
    np.testing.assert_array_equal(dataset.boxes, [PIXELS])
    assert dataset.defects.counts() == {}


def test_the_path_of_the_yaml_file_is_where_its_entries_are(tmp_path):
    write(tmp_path / "set" / "data.yaml", NAMES | {"path": "../there", "val": "images"})
    write_image(tmp_path / "there" / "images" / "a.jpg")
    write(tmp_path / "there" / "labels" / "a.txt", LINE)
    assert len(read_yolo(tmp_path / "set", "val").labels) == 1


def test_several_folders_have_ids_below_the_root(folder):
    root = folder(a=LINE)
    write_image(root / "images" / "more" / "a.jpg")
    write(root / "data.yaml", NAMES | {"val": ["images/val", "images/more"]})
    dataset = read_yolo(root, "val")
    assert dataset.image_ids == ("images/val/a", "images/more/a")
    np.testing.assert_array_equal(dataset.row_splits, [0, 1, 1])
    assert dataset.defects.counts() == {"image without label file": 1}


@pytest.mark.parametrize("entry", ["lists/val.txt", None])
def test_a_list_file(folder, entry):
    root = folder(a=LINE, b="", c=LINE)
    place = root / (entry or "val.txt")
    (root / "images" / "val").rename(root / "images" / "all")
    (root / "labels" / "val").rename(root / "labels" / "all")
    absolute = root / "images" / "all" / "a.jpg"
    write(root / "data.yaml", NAMES | ({"val": entry} if entry else {}))
    write(place, f"./images/all/c.jpg\n\n{absolute}\r\n")
    dataset = read_yolo(root, "val")
    assert dataset.images == (str(root / "images" / "all" / "c.jpg"), str(absolute))
    assert dataset.image_ids == ("images/all/c", "images/all/a")
    np.testing.assert_array_equal(dataset.boxes, [PIXELS] * 2)
    assert dataset.defects.counts() == {}  # b's label is no orphan


def test_paths_relative_to_the_list(folder, tmp_path):
    root = folder(a=LINE)
    write_image(tmp_path / "set" / "lists" / "x" / "b.jpg")
    write(tmp_path / "set" / "lists" / "x" / "b.txt", LINE)
    write(root / "lists" / "val.txt", "x/b.jpg\n")
    write(root / "data.yaml", NAMES | {"val": "lists/val.txt"})
    assert read_yolo(root, "val").image_ids == ("lists/x/b",)


LINES = {
    "missing": ("images/val/x.jpg", "missing image", "line 2: expected the image images/val/x.jpg"),
    "twice": ("./images/val/a.jpg", "duplicate id", "line 2: expected each image once, found"),
    "endless": ("x" * 5000 + "/y.jpg", "missing image", "line 2: "),
}


@pytest.mark.parametrize("name", LINES)
def test_bad_lines_of_a_list_file(folder, name):
    line, kind, part = LINES[name]
    root = folder(a=LINE)
    write(root / "val.txt", f"images/val/a.jpg\n{line}\n")
    write(root / "data.yaml", NAMES | {"val": "val.txt"})
    assert_defect(root, kind, f"{root}/val.txt, {part}", num_boxes=1)


def test_given_folders_replace_the_splits_and_help_a_list(folder, tmp_path):
    root = folder(a=LINE)
    write_image(tmp_path / "far" / "images" / "z.jpg")
    write(tmp_path / "far" / "labels" / "z.txt", LINE)
    for name, images in (("val", tmp_path / "far" / "images"), ("test", "../far/images")):
        assert read_yolo(root, name, images=[images]).image_ids == ("z",)
    write(root / "test.txt", "images/z.jpg")
    assert read_yolo(root, "test", images=[tmp_path / "far"]).images[0].endswith("images/z.jpg")


def test_no_such_split_says_what_was_looked_for(folder):
    root = folder(a=LINE)
    assert_refused(
        root,
        f"{root}, split 'test': expected one of images/test, test/images, test.txt, test,",
        split="test",
    )
    write(root / "data.yaml", NAMES | {"test": "../gone/images"})
    assert_refused(root, "data.yaml, test: expected one of ../gone/images, found", split="test")


def test_two_images_of_one_stem(folder):
    root = folder(a=LINE)
    write_image(root / "images" / "val" / "a.png")
    assert_defect(root, "ambiguous image", "a.png: expected one image 'a', found", num_boxes=1)


def test_image_that_cannot_be_read(folder):
    root = folder(a=LINE, b=LINE)
    (root / "images" / "val" / "b.jpg").write_bytes(b"")
    assert_defect(root, "unreadable image", "b.jpg: the file is empty", num_boxes=1)


def test_images_without_label_file_are_counted(folder):
    dataset = read_yolo(folder(a=LINE, b=None), "val")
    np.testing.assert_array_equal(dataset.row_splits, [0, 1, 1])
    assert dataset.defects.counts() == {"image without label file": 1}
    assert "b.jpg: expected a label file, found none" in dataset.defects.messages[0][1]


def test_no_label_file_at_all(folder):
    root = folder(a=None, b=None)
    write(root / "labels" / "val" / "classes.txt", "dog")
    places = f"{root}/labels/val, {root}/images/val"
    assert_refused(root, f"expected label files (*.txt) in {places}, found none")


@pytest.mark.parametrize("place", ["labels/val/b.txt", "labels/val/sub/b.txt"])
def test_label_without_image(folder, place):
    root = folder(a=LINE)
    write(root / place, LINE)
    assert_defect(root, "missing image", f"{root}/{place}: expected the image b.*", num_boxes=1)


def test_texts_that_are_no_labels(folder):
    root = folder(a=LINE, test="")
    for name in ("classes.txt", "README.roboflow.txt", "train.txt", ".b.txt", "x.json"):
        write(root / "labels" / "val" / name, "dog")
    dataset = read_yolo(root, "val")
    assert dataset.image_ids == ("a", "test")
    assert dataset.defects.counts() == {}


def test_no_images(folder):
    root = folder()
    (root / "images" / "val").mkdir(parents=True)
    write(root / "labels" / "val" / "a.txt", LINE)
    with pytest.raises(DatasetError, match=r"set/val: no images left .*1 x missing image"):
        read_yolo(root, "val", on_bad_annotation="drop")


# ------------------------------------------------------------------------------------------------
# Lines
# ------------------------------------------------------------------------------------------------

COLUMNS = "expected class and 4 numbers, or class and 3 points or more, found"
BAD_LINES = {
    "class": (
        "3 .5 .5 .1 .1",
        "unknown class",
        "class: expected a whole number from 0 to 2, found 3",
    ),
    "negative": ("-1 .5 .5 .1 .1", "unknown class", "found -1"),
    "half": ("0.5 .5 .5 .1 .1", "unknown class", "found 0.5"),
    "vast": ("1e300 .5 .5 .1 .1", "unknown class", "found 1e+300"),
    "name": ("dog .5 .5 .1 .1", "bad number", "expected finite numbers, found 'dog .5 .5 .1 .1'"),
    "nan": ("0 nan .5 .1 .1", "bad number", "found '0 nan"),
    "inf": ("0 .5 .5 inf .1", "bad number", "found '0 .5 .5 inf"),
    "overflow": ("0 .5 .5 1e400 .1", "bad number", "found '0 .5 .5 1e400"),
    "comma": ("0,.5,.5,.1,.1", "bad number", "found '0,.5"),
    "underscore": ("0 0.5 0.5 0.1 1_0", "bad number", "found '0 0.5"),
    "confidence": (
        "0 .5 .5 .1 .1 .9",
        "wrong number of columns",
        f"{COLUMNS} 6 numbers (with a conf",
    ),
    "four": ("0 .5 .5 .1", "wrong number of columns", f"{COLUMNS} 4 numbers"),
    "class-only": ("0", "wrong number of columns", f"{COLUMNS} 1 numbers"),
    "odd-polygon": ("0 .1 .1 .2 .1 .2 .2 .3", "wrong number of columns", f"{COLUMNS} 8 numbers"),
    "empty": ("0 .5 .5 0 .1", "empty or inverted box", "found 20 9 20 11"),
    "inverted": ("0 .5 .5 .1 -.1", "empty or inverted box", "found 18 11 22 9"),
    "pixels": ("0 20 10 10 10", "bad number", "found '0 20 10 10 10': are these pixels?"),
    "outside": ("0 2 1 1 1", "box outside the image", "inside 0 0 40 20, found 60 10 100 30"),
    "right": ("0 .5 .5 1.2 .1", "box outside the image", "found -4 9 44 11"),
    "absurd": ("0 .5 .5 1e300 .1", "bad number", "expected fractions of the image, found"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_line_is_an_error_or_dropped_alone(folder, name):
    bad, kind, part = BAD_LINES[name]
    root = folder(a=LINE, b=f"{LINE}\n{bad}\n{LINE}")
    place = f"{root}/labels/val/b.txt, line 3: "
    assert_defect(root, kind, place, part, num_images=2, num_boxes=3)


def test_a_polygon_without_area(folder):
    root = folder(a="0 .1 .5 .2 .5 .3 .5")
    with pytest.raises(DatasetError, match=r"a\.txt, line 1: .* x1 < x2 .* found 4 10 12 10$"):
        read_yolo(root, "val")


def test_label_file_that_is_no_text(folder):
    root = folder(a=LINE, b=b"\xff\xfe\x00")
    assert_defect(root, "unreadable", "b.txt, line 1: expected text in UTF-8", num_boxes=1)
