"""The YOLO reader: layouts by hand with pixels by hand, odd lines, hostile YAML."""

import time

import numpy as np
import pytest
import yaml
from PIL import Image

from data.formats import FORMATS
from data.formats.recognition import found_splits, recognise
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
    assert "a.txt: expected class and box, found polygons" in dataset.defects.messages[0][1]


KEYPOINTS = f"{LINE.strip()} 0.4 0.3 0.6 0.7\n"  # as a polygon 10 6 24 14


@pytest.mark.parametrize("shape", ["kpt_shape: [2, 2]", "kpt_shape:\n- 2\n- 2", "task: pose"])
def test_the_yaml_file_says_that_keypoints_follow_a_box(folder, shape):
    root = folder(a=f"{KEYPOINTS}{LINE}", b=KEYPOINTS)
    write(root / "data.yaml", f"names: [dog, cat]\n{shape}")
    dataset = read_yolo(root, "val")
    np.testing.assert_allclose(dataset.boxes, [PIXELS] * 3)
    (kind, message), *_ = dataset.defects.messages
    assert dataset.defects.counts() == {kind: 2}
    assert kind == ("keypoints left out" if "kpt" in shape else "numbers after the box left out")
    assert "a.txt: expected class and box, found " in message


def test_another_count_than_kpt_shape_says(folder):
    root = folder(a=f"{KEYPOINTS}{LINE.strip()} 0.4 0.3\n")
    write(root / "data.yaml", NAMES | {"kpt_shape": [2, 2]})
    expected = (
        "a.txt, line 2: expected class, box and 2 points of 2 (kpt_shape), 9 numbers, found 7"
    )
    with pytest.raises(DatasetError) as caught:
        read_yolo(root, "val")
    assert str(caught.value).endswith(f"{expected} numbers")
    dropped = read_yolo(root, "val", on_bad_annotation="drop")
    assert dropped.defects.counts() == {"keypoints left out": 1, "wrong number of columns": 1}
    assert dropped.boxes.tolist() == [PIXELS]


@pytest.mark.parametrize("task", ["segment", "OBB"])
def test_the_yaml_file_says_that_points_are_a_polygon(folder, task):
    root = folder(a=KEYPOINTS)
    write(root / "data.yaml", NAMES | {"task": task})
    dataset = read_yolo(root, "val")
    np.testing.assert_allclose(dataset.boxes, [[10, 6, 24, 14]])
    kinds = {"segment": "polygon taken as its box", "OBB": "oriented box taken as its upright box"}
    assert dataset.defects.counts() == {kinds[task]: 1}


@pytest.mark.parametrize(("lines", "box"), [("boxes", PIXELS), ("polygons", [10, 6, 24, 14])])
def test_the_user_says_what_lines_hold(folder, lines, box):
    """Against the YAML file, too; without a word from either they are refused."""
    root = folder(a=KEYPOINTS)
    assert_refused(root, "a.txt, line 1: expected lines of one meaning", "box and keypoints, or")
    np.testing.assert_allclose(read_yolo(root, "val", lines=lines).boxes, [box])
    other = {"task": "segment"} if lines == "boxes" else {"kpt_shape": [2, 2]}
    write(root / "data.yaml", NAMES | other)
    np.testing.assert_allclose(read_yolo(root, "val", lines=lines).boxes, [box])
    with pytest.raises(ValueError, match="lines: expected 'boxes', 'polygons' or '', found 'x'"):
        read_yolo(root, "val", lines="x")


def test_predictions_are_read_as_boxes_where_the_user_says_so(folder):
    line = LINE.strip()
    root = folder(a=f"{line} 0.9\n{line} 0.8 7\n{LINE}", b=f"{line} 700")
    dataset = read_yolo(root, "val", lines="boxes")
    assert dataset.boxes.tolist() == [PIXELS] * 4
    assert dataset.defects.counts() == {"numbers after the box left out": 3}


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
    "gap": ("names: {0: a, 2: b}", "all numbers from 0, without gaps, found none for 1"),
    "from-1": ("names: {1: a, 2: b}", "all numbers from 0, without gaps, found none for 0"),
    "huge-gap": (f"names: {{0: a, {'9' * 900}: b}}", "found none for 1"),
    "kpt": ("names: [a]\nkpt_shape: [5]", "kpt_shape: expected how many points, and 2 or 3"),
    "kpt-4": ("names: [a]\nkpt_shape: [5, 4]", "as [17, 3], found \"['5', '4']\""),
    "kpt-text": ("names: [a]\nkpt_shape: 5", "kpt_shape: expected"),
    "kpt-huge": ("names: [a]\nkpt_shape: [99999, 2]", "kpt_shape: expected"),
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
    "colab": ("/content/drive/val/images", "val/images/sub/a.jpg", "val/labels/sub/a.txt"),
    "windows": ("C:\\data\\val\\images\\", "val/images/sub/a.jpg", "val/labels/sub/a.txt"),
    "folder-above": ("../../set/val/images", "val/images/sub/a.jpg", "val/labels/sub/a.txt"),
    "no-entry-valid": (None, "valid/images/sub/a.jpg", "valid/labels/sub/a.txt"),
    "cvat": (None, "obj_val_data/sub/a.jpg", "obj_val_data/sub/a.txt"),
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


@pytest.mark.parametrize("path", ["/content/datasets/inner", "C:\\sets\\inner", "../../sets/inner"])
def test_the_path_of_the_yaml_file_is_found_by_its_last_parts(tmp_path, path):
    write(tmp_path / "set" / "data.yaml", NAMES | {"path": path, "val": "images/val"})
    write_image(tmp_path / "set" / "inner" / "images" / "val" / "a.jpg")
    write(tmp_path / "set" / "inner" / "labels" / "val" / "a.txt", LINE)
    assert read_yolo(tmp_path / "set", "val").boxes.tolist() == [PIXELS]


@pytest.mark.parametrize("key", ["valid", "validation"])
def test_other_names_of_the_entry_val(folder, key):
    root = folder(a=LINE)
    for place in ("images", "labels"):
        (root / place / "val").rename(root / place / "mine")
    write(root / "data.yaml", NAMES | {key: "images/mine"})
    assert read_yolo(root, "val").image_ids == ("a",)


def test_one_folder_is_not_found_for_two_splits(tmp_path):
    """Nor anything above the YAML file by a path that is not there."""
    root = tmp_path / "set"
    write_image(root / "images" / "a.jpg")
    write(root / "labels" / "a.txt", LINE)
    entries = {"train": "/x/train/images", "val": "/x/valid/images"}
    write(root / "data.yaml", NAMES | entries)
    assert_refused(root, "data.yaml, val: expected one of /x/valid/images, found no such")
    write(root / "data.yaml", NAMES | {"val": "/x/valid/images"})
    assert read_yolo(root, "val").image_ids == ("a",)
    write_image(tmp_path / "other" / "b.jpg")
    write(root / "data.yaml", NAMES | {"val": "/x/../../other"})
    assert_refused(root, "data.yaml, val: expected one of /x/../../other, found no such")


@pytest.mark.parametrize("place", [".ipynb_checkpoints", "__MACOSX", ".cache/images"])
def test_hidden_folders_are_passed_over(folder, place):
    root = folder(a=LINE)
    for inside in ("images/val", "images/val/sub"):
        write_image(root / inside / place / "b-checkpoint.jpg")
        write(root / inside.replace("images", "labels") / place / "c-checkpoint.txt", LINE)
    dataset = read_yolo(root, "val")
    assert dataset.image_ids == ("a",)
    assert dataset.defects.counts() == {}


def test_a_dataset_in_a_hidden_folder_is_read(tmp_path):
    write(tmp_path / ".cache" / "data.yaml", NAMES)
    write_image(tmp_path / ".cache" / "val" / "images" / "a.jpg")
    write(tmp_path / ".cache" / "val" / "labels" / "a.txt", LINE)
    assert len(read_yolo(tmp_path / ".cache", "val")) == 1


# ------------------------------------------------------------------------------------------------
# Datasets without splits
# ------------------------------------------------------------------------------------------------

UNDIVIDED = {  # files beside images and labels, their places, names of the images in the whole
    "yaml-with-one-entry": ({"data.yaml": "names: [dog, cat]\ntrain: images"}, "images", "labels"),
    "yaml-without": ({"data.yaml": "names: [dog, cat]"}, "images", "labels"),
    "classes": ({"classes.txt": "dog\ncat"}, "images", "labels"),
    "beside": ({"classes.txt": "dog\ncat"}, "images", "images"),
    "flat": ({"classes.txt": "dog\ncat"}, ".", "."),
    "train-only": ({"classes.txt": "dog\ncat"}, "train/images", "train/labels"),
    "cvat": (
        {
            "obj.names": "dog\ncat\n",
            "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = x/",
            "train.txt": "".join(f"data/obj_train_data/{n}.jpg\n" for n in range(10)),
        },
        "obj_train_data",
        "obj_train_data",
    ),
}


def make_undivided(root, name):
    files, images, labels = UNDIVIDED[name]
    for file, text in files.items():
        write(root / file, text)
    for number in range(10):
        write_image(root / images / f"{number}.jpg")
        write(root / labels / f"{number}.txt", LINE)


@pytest.mark.parametrize("name", UNDIVIDED)
def test_one_folder_is_shared_out(tmp_path, name):
    make_undivided(tmp_path / "set", name)
    form, root = FORMATS["yolo"], tmp_path / "set"
    parts = {
        split: form.read_split(root, split, None, "error", {"val_fraction": 0.3})
        for split in ("train", "val", "all")
    }
    assert [len(part) for part in parts.values()] == [7, 3, 10]
    assert set(parts["train"].images) | set(parts["val"].images) == set(parts["all"].images)
    assert parts["all"].boxes.tolist() == [PIXELS] * 10
    assert not any(part.defects.messages for part in parts.values())
    assert recognise(root) == "yolo"
    (split,) = found_splits(root, "yolo").values()
    assert len(read_yolo(root, split)) == 10


DIVIDED = {
    "val": ("val/images/a.jpg", "val/labels/a.txt"),
    "valid": ("valid/images/a.jpg", "valid/labels/a.txt"),
    "test": ("test/images/a.jpg", "test/labels/a.txt"),
    "of-another-name": ("minival/images/a.jpg", "minival/labels/a.txt"),
}


def num_train(root):
    return len(FORMATS["yolo"].read_split(root, "train", None, "error", {"val_fraction": 0.3}))


@pytest.mark.parametrize("has_entry", [True, False])
@pytest.mark.parametrize("name", DIVIDED)
def test_a_folder_beside_others_is_not_shared_out(tmp_path, name, has_entry):
    make_undivided(tmp_path, "train-only")
    if has_entry:
        write(tmp_path / "data.yaml", "names: [dog, cat]\ntrain: train/images")
    assert num_train(tmp_path) == 7
    image, label = DIVIDED[name]
    write_image(tmp_path / image)
    write(tmp_path / label, LINE)
    assert num_train(tmp_path) == 10


def test_a_folder_beside_a_list_for_val_is_not_shared_out(tmp_path):
    make_undivided(tmp_path, "cvat")
    assert num_train(tmp_path) == 7
    write(tmp_path / "valid.txt", "data/obj_train_data/0.jpg\n")
    assert num_train(tmp_path) == 10


def test_a_missing_folder_of_the_yaml_file_is_no_reason_to_share_out(tmp_path):
    make_undivided(tmp_path, "train-only")
    (tmp_path / "classes.txt").unlink()
    entries = {"train": "../train/images", "val": "../valid/images"}
    write(tmp_path / "data.yaml", {"names": ["dog", "cat"]} | entries)
    form = FORMATS["yolo"]
    assert len(form.read_split(tmp_path, "train", None, "error", {})) == 10
    with pytest.raises(DatasetError, match=r"data\.yaml, val: expected one of \.\./valid/images"):
        form.read_split(tmp_path, "val", None, "error", {})


def test_the_splits_of_darknet(tmp_path):
    write(tmp_path / "x.names", "dog\ncat\n")
    write(tmp_path / "x.data", "# mine\nclasses=2\ntrain = /home/me/a.txt\nvalid= data/b.txt\n")
    for name in "ab":
        write(tmp_path / f"{name}.txt", f"/home/me/{name}/0.jpg")
        write_image(tmp_path / name / "0.jpg")
        write(tmp_path / name / "0.txt", LINE)
    assert found_splits(tmp_path, "yolo") == {"train": "train", "val": "val"}
    assert read_yolo(tmp_path, "train").image_ids == ("a/0",)
    assert read_yolo(tmp_path, "val").image_ids == ("b/0",)
    (tmp_path / "b.txt").unlink()
    assert_refused(tmp_path, "x.data, val: expected one of data/b.txt, found no such")


def test_roboflows_darknet_export(tmp_path):
    for split in ("train", "valid"):
        write(tmp_path / split / "_darknet.labels", "dog\ncat\n")
        write_image(tmp_path / split / "a.jpg")
        write(tmp_path / split / "a.txt", LINE)
    assert recognise(tmp_path) == "yolo"
    assert found_splits(tmp_path, "yolo") == {"train": "train", "valid": "valid"}
    for split in ("train", "val"):
        dataset = FORMATS["yolo"].read_split(tmp_path, split, None, "error", {})
        assert (len(dataset), dataset.classes) == (1, ("dog", "cat"))


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


@pytest.mark.parametrize("line", ["C:\\me\\images\\val\\a.jpg", "/content/images/val/a.jpg"])
def test_a_list_of_another_machine(folder, line):
    root = folder(a=LINE)
    write(root / "data.yaml", NAMES | {"val": "D:\\x\\val.txt"})
    write_image(root / "images" / "other" / "a.jpg")
    other = line.replace("a.jpg", "A.jpg")
    for text, counted in ((line, {}), (other, {"image under another spelling": 1})):
        write(root / "val.txt", text)
        dataset = read_yolo(root, "val")
        assert dataset.images == (str(root / "images/val/a.jpg"),)
        assert dataset.defects.counts() == counted


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


NFC, NFD = "gr\u00fcn", "gru\u0308n"


@pytest.mark.parametrize(("image", "label"), [(NFC, NFD), (NFD, NFC), ("IMG_1", "img_1")])
def test_labels_that_are_spelt_in_another_way(folder, image, label):
    root = folder(a=LINE, **{image: None})
    write(root / "labels" / "val" / f"{label}.txt", LINE * 2)
    dataset = read_yolo(root, "val")
    assert dict(zip(dataset.image_ids, np.diff(dataset.row_splits), strict=True)) == {
        "a": 1, image: 2,
    }  # fmt: skip
    assert dataset.defects.counts() == {"labels under another spelling": 1}
    write(root / "labels" / "val" / f"{image}.txt", LINE)
    expected = f"{label}.txt: expected an image without labels, found {root}/images/val/{image}.jpg"
    assert_defect(root, "missing image", expected, num_images=2, num_boxes=2)


def test_an_image_that_lies_there_in_another_format_is_named(folder):
    root = folder(a=LINE)
    write(root / "labels" / "val" / "b.txt", LINE)
    write(root / "images" / "val" / "b.heic", b"x")
    assert_defect(root, "missing image", "b.txt: expected the image b.*", "b.heic", num_boxes=1)


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
    "from-1": ("3 .5 .5 .1 .1", "unknown class", "found 3: counted from 1?"),
    "name": (
        "dog .5 .5 .1 .1",
        "unknown class",
        "expected a whole number from 0 to 2, found 'dog'",
    ),
    "word": ("0 .5 .5 .1 x", "bad number", "expected finite numbers, found '0 .5 .5 .1 x'"),
    "nan": ("0 nan .5 .1 .1", "bad number", "found '0 nan"),
    "inf": ("0 .5 .5 inf .1", "bad number", "found '0 .5 .5 inf"),
    "overflow": ("0 .5 .5 1e400 .1", "bad number", "found '0 .5 .5 1e400"),
    "comma": ("0,.5,.5,.1,.1", "bad number", "found '0,.5,.5,.1,.1': separated by commas?"),
    "underscore": ("0 0.5 0.5 0.1 1_0", "bad number", "found '0 0.5"),
    "confidence": (
        "0 .5 .5 .1 .1 .9",
        "wrong number of columns",
        f"{COLUMNS} 6 numbers (a prediction, with confidence or track id?",
    ),
    "four": ("0 .5 .5 .1", "wrong number of columns", "class and 4 numbers, found 4 numbers"),
    "class-only": ("0", "wrong number of columns", "class and 4 numbers, found 1 numbers"),
    "odd-polygon": ("0 .1 .1 .2 .1 .2 .2 .3", "wrong number of columns", f"{COLUMNS} 8 numbers"),
    "empty": ("0 .5 .5 0 .1", "empty or inverted box", "found 20 9 20 11"),
    "inverted": ("0 .5 .5 .1 -.1", "empty or inverted box", "found 18 11 22 9"),
    "pixels": ("0 20 10 10 10", "box outside the image", "found 600 100 1000 300"),
    "outside": ("0 2 1 1 1", "box outside the image", "inside 0 0 40 20, found 60 10 100 30"),
    "right": ("0 .5 .5 1.2 .1", "box outside the image", "found -4 9 44 11"),
    "absurd": ("0 .5 .5 1e300 .1", "box outside the image", "found -inf 9 inf 11"),
    "overflowing": ("0 1.7e308 .5 1.7e308 .1", "empty or inverted box", "found inf 9 inf 11"),
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


@pytest.mark.parametrize(("count", "is_right"), [("3", True), ("2", False)])
def test_nc_is_the_number_of_names(folder, count, is_right):
    root = folder(a=LINE)
    write(root / "data.yaml", NAMES | {"val": "images/val", "nc": int(count)})
    if is_right:
        assert len(read_yolo(root, "val")) == 1
        return
    with pytest.raises(
        DatasetError, match=r"data\.yaml, nc: expected 3 as there are names, found 2"
    ):
        read_yolo(root, "val")


def test_folders_that_systems_keep_for_themselves_are_passed_over(folder):
    root = folder(a=LINE)
    write_image(root / "images/val/@eaDir/a.jpg")
    assert len(read_yolo(root, "val")) == 1
