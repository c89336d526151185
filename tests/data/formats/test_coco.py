"""The COCO reader: layouts, every defect, files of other shapes, pycocotools for the numbers."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO

from data.formats import coco
from data.formats.coco import FORMAT, coco_classes, read_coco
from data.records import DatasetError, concatenate

pytestmark = pytest.mark.quick

W, H = 40, 30
CAT, DOG, COW = 7, 3, 90  # ids; by id: dog, cat, cow


def image(image_id, name, width=W, height=H, **fields):
    return {"id": image_id, "file_name": name, "width": width, "height": height} | fields


def box(image_id=1, category_id=DOG, bbox=(2, 3, 10, 12), **fields):
    bbox = bbox if bbox is ... else list(bbox)
    found = {"id": 42, "image_id": image_id, "category_id": category_id, "bbox": bbox}
    return {key: value for key, value in (found | fields).items() if value is not ...}


def instances(annotations=(), images=None, **fields):
    return {
        "images": [image(1, "a.jpg"), image(2, "b.jpg")] if images is None else images,
        "annotations": list(annotations),
        "categories": [
            {"id": CAT, "name": "cat"},
            {"id": DOG, "name": "dog"},
            {"id": COW, "name": "cow"},
        ],
    } | fields


def write_image(path, size=(W, H), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path, **options)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.fixture
def folder(tmp_path):
    """folder(contents, *images) makes val.json and images, by default a.jpg and b.jpg, in val."""

    def folder(contents, *images):
        root = tmp_path / "set"
        write(root / "val.json", contents)
        for name in images or ("a.jpg", "b.jpg"):
            write_image(root / "val" / name)
        return root

    return folder


def assert_defect(root, kind, *parts, num_images=2, num_boxes=0, **options):
    """One defect: "error" raises a line with `parts`; "drop" counts the same line under `kind`."""
    with pytest.raises(DatasetError) as caught:
        read_coco(root, "val", **options)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    assert caught.value.kind == kind
    dataset = read_coco(root, "val", on_bad_annotation="drop", **options)
    assert dataset.defects.messages == [(kind, message)]
    assert (len(dataset), len(dataset.labels)) == (num_images, num_boxes)


def assert_refused(root, *parts, **options):
    """An error whatever the policy."""
    for policy in ("error", "drop"):
        with pytest.raises(DatasetError) as caught:
            read_coco(root, "val", on_bad_annotation=policy, **options)
        for part in parts:
            assert part in str(caught.value)
        assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------
# What is read
# ------------------------------------------------------------------------------------------------


def test_reads_boxes_areas_crowds_and_flags_in_the_order_of_the_images(folder):
    annotations = [
        box(2, CAT, (0, 0, W, H), area=77.5, iscrowd=0, segmentation=[[0, 0, 1, 1]]),
        box(1, DOG, (2, 3, 10.5, 12), id=...),
        box(2, DOG, (1, 1, 2, 3), area=None, iscrowd=True, difficult=False),
        box(1, COW, (5, 5, 5, 5), area=0, iscrowd=1, difficult=1),
    ]
    images = [image(2, "b.jpg"), image(1, "a.jpg"), image(-5, "c.jpg")]
    root = folder(instances(annotations, images), "a.jpg", "b.jpg", "c.jpg")
    dataset = read_coco(root, "val")
    assert dataset.name == "set/val"
    assert dataset.classes == coco_classes(root, "val") == ("dog", "cat", "cow")
    assert dataset.category_ids == (DOG, CAT, COW)
    assert dataset.image_ids == ("2", "1", "-5")
    assert dataset.images[0] == str(root / "val" / "b.jpg")
    np.testing.assert_array_equal(dataset.sizes, [[W, H]] * 3)
    np.testing.assert_array_equal(dataset.row_splits, [0, 2, 4, 4])
    expected = [[0, 0, W, H], [1, 1, 3, 4], [2, 3, 12.5, 15], [5, 5, 10, 10]]
    np.testing.assert_array_equal(dataset.boxes, expected)
    np.testing.assert_array_equal(dataset.labels, [1, 0, 0, 2])
    np.testing.assert_array_equal(dataset.areas, [77.5, 6, 126, 0])
    np.testing.assert_array_equal(dataset.ignore, [False, True, False, True])
    np.testing.assert_array_equal(dataset.difficult, [False, False, False, True])
    assert dataset.defects.counts() == {}


def test_some_classes_in_an_order_of_their_own(folder):
    annotations = [box(1, CAT), box(1, DOG, (0, 0, 0, 0)), box(2, COW), box(2, DOG)]
    dataset = read_coco(folder(instances(annotations)), "val", ["cow", "cat"])
    assert dataset.classes == ("cow", "cat")
    assert dataset.category_ids == (COW, CAT)
    np.testing.assert_array_equal(dataset.labels, [1, 0])
    assert dataset.defects.counts() == {"class left out": 2}  # their boxes are not judged
    assert "class 'dog' is not asked for" in dataset.defects.messages[0][1]


def test_classes_that_are_not_there_have_no_objects_and_ids_of_their_own(folder):
    """Another split may have them; `class_names` refuses what none has."""
    root = folder(instances([box(1, DOG)]))
    dataset = read_coco(root, "val", ["dgo", "dog"])
    assert dataset.classes == ("dgo", "dog")
    assert dataset.category_ids == (max(CAT, COW, DOG) + 1, DOG)
    assert dataset.labels.tolist() == [1]
    ((kind, message),) = dataset.defects.messages
    assert kind == "class not declared"
    assert "class: expected one of dog, cat, cow, found 'dgo'; did you mean 'dog'?" in message


def test_roboflows_category_above_all_is_none(folder):
    """The set is called as its class; another category of that name is one."""
    content = instances([box(1, 1)])
    content["categories"] = [
        {"id": 0, "name": "fish", "supercategory": "none"},
        {"id": 1, "name": "fish", "supercategory": "fish"},
    ]
    dataset = read_coco(folder(content), "val")
    assert (dataset.classes, dataset.category_ids) == (("fish",), (1,))
    content["categories"][1]["supercategory"] = "animal"
    assert_refused(folder(content), "expected categories of different names, found 'fish' twice")


def test_a_byte_order_mark_is_passed_over(folder):
    root = folder(instances([box(1, DOG)]))
    write(root / "val.json", b"\xef\xbb\xbf" + (root / "val.json").read_bytes())
    assert len(read_coco(root, "val").labels) == 1


def test_what_is_wrong_with_the_classes(folder):
    root = folder(instances())
    for classes in ([], ["dog", "dog"]):
        with pytest.raises(ValueError, match="classes: expected different names, found"):
            read_coco(root, "val", classes)


def test_many_chunks_give_what_one_gives(folder, monkeypatch):
    rng = np.random.default_rng(0)
    annotations = [
        box(int(i), (DOG, CAT)[i % 2], rng.integers(1, 9, 4).tolist(), id=n)
        for n, i in enumerate(rng.integers(1, 3, 50))
    ]
    annotations[33]["bbox"] = "none"
    root = folder(instances(annotations))
    once = read_coco(root, "val", on_bad_annotation="drop")
    monkeypatch.setattr(coco, "CHUNK", 7)
    again = read_coco(root, "val", on_bad_annotation="drop")
    for name in ("boxes", "labels", "row_splits", "areas"):
        np.testing.assert_array_equal(getattr(once, name), getattr(again, name))
    assert once.defects.messages == again.defects.messages
    assert len(once.labels) == 49


def test_rounding_in_the_file_is_no_overshoot(folder):
    root = folder(instances([box(bbox=(0.1, 0.1, W - 0.1 + 1e-7, 29.9))]))
    dataset = read_coco(root, "val")
    np.testing.assert_allclose(dataset.boxes[0, 2:], [W, H], atol=1e-6)
    assert dataset.defects.counts() == {}


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_small_overshoot_is_kept_and_counted(folder, policy):
    """As pycocotools takes it; the pipeline clips."""
    root = folder(instances([box(bbox=(-1, 2, W + 2, 10), area=5)]))
    dataset = read_coco(root, "val", on_bad_annotation=policy)
    np.testing.assert_array_equal(dataset.boxes, [[-1, 2, W + 1, 12]])
    assert dataset.areas == [5]
    assert dataset.defects.counts() == {"box slightly beyond the image": 1}
    assert "annotations[0] (id 42, 'dog')" in dataset.defects.messages[0][1]


# ------------------------------------------------------------------------------------------------
# What is mended
# ------------------------------------------------------------------------------------------------


def mended(root, *kinds, **options):
    """The dataset, of which just these (kind, count, part of the first message) were counted."""
    dataset = read_coco(root, "val", **options)
    assert dataset.defects.counts() == {kind: count for kind, count, _ in kinds}
    for kind, _, part in kinds:
        assert part in next(message for of, message in dataset.defects.messages if of == kind)
    return dataset


def test_text_ids_are_ids_and_a_number_is_its_text(folder):
    content = instances(
        [box("a"), box(7, "x9"), box("7", 3), box("b")],
        [image("a", "a.jpg"), image("7", "b.jpg"), image("b", "c.jpg")],
        categories=[
            {"id": "x9", "name": "cat"},
            {"id": "10", "name": "cow"},
            {"id": "3", "name": "dog"},
        ],
    )
    content["annotations"][0]["id"] = "first"
    dataset = read_coco(folder(content, "a.jpg", "b.jpg", "c.jpg"), "val")
    assert (dataset.image_ids, dataset.text_ids) == (("a", "7", "b"), True)
    assert (dataset.classes, dataset.category_ids) == (("dog", "cow", "cat"), ("3", "10", "x9"))
    assert dataset.row_splits.tolist() == [0, 1, 3, 4]
    assert dataset.labels.tolist() == [0, 2, 0, 0]
    assert dataset.defects.counts() == {}


def test_text_ids_survive_being_joined(folder):
    root = folder(instances([box("a")], [image("a", "a.jpg")]))
    write(root / "train.json", instances([box(1)], [image(1, "val/b.jpg")]))
    parts = [read_coco(root, split) for split in ("val", "train")]
    assert [part.text_ids for part in parts] == [True, False]
    assert concatenate(parts).text_ids


def test_ids_of_numbers_are_written_as_pandas_does(folder):
    root = folder(
        instances([box(1.0), box(2, float(CAT))], [image(1.0, "a.jpg"), image(2, "b.jpg")])
    )
    dataset = read_coco(root, "val")
    assert (dataset.image_ids, dataset.text_ids) == (("1", "2"), False)
    assert dataset.labels.tolist() == [0, 1]


@pytest.mark.parametrize("check_images", [True, False])
@pytest.mark.parametrize("width", [..., None, 0, -3, "40", "wide", 10**9, True, 40.5, [40]])
def test_a_size_that_is_none_is_the_images(folder, width, check_images):
    odd = image(1, "a.jpg", width)
    if width is ...:
        del odd["width"]
    root = folder(instances([box(bbox=(2, 3, W - 2, 5))], [odd, image(2, "b.jpg", float(W))]))
    found = "None" if width is ... else repr(width)
    part = f"val.json, images[0] (id 1): expected width and height, found {found} and 30: took the"
    dataset = mended(root, ("size not stated", 1, part), check_images=check_images)
    np.testing.assert_array_equal(dataset.sizes, [[W, H]] * 2)


def test_a_size_of_detections_serves_where_file_and_image_have_none(folder):
    root = folder(instances([box()], [{"id": 1, "file_name": "gone.jpg"}]))
    dataset = read_coco(root, "val", image_sizes={"1": (80, 60)})
    np.testing.assert_array_equal(dataset.sizes, [[80, 60]])
    with pytest.raises(DatasetError, match=r"gone\.jpg"):
        read_coco(root, "val", image_sizes={})


def test_a_name_of_lvis_is_that_of_its_url(folder):
    url = "http://images.cocodataset.org/val/b.jpg"
    unnamed = {"id": 2, "coco_url": url, "width": W, "height": H}
    root = folder(instances([box(2)], [image(1, "a.jpg", coco_url="http://x/val/c.jpg"), unnamed]))
    part = "images[1] (id 2): file_name: expected a name, found none: took 'val/b.jpg' of coco_url"
    dataset = mended(root, ("image name of coco_url", 1, part))
    assert dataset.images[1] == str(root / "val" / "b.jpg")
    write(root / "val.json", instances([box(2)], [image(1, "a.jpg"), {**unnamed, "file_name": ""}]))
    assert read_coco(root, "val").images == dataset.images


RUNS = [7 * 30 + 5, 6] + [24, 6] * 11 + [40 * 30 - 19 * 30 + 19]  # rows 5..10 of columns 7..18
RUNS[-1] = 40 * 30 - sum(RUNS[:-1])


@pytest.mark.parametrize(
    "segmentation",
    [
        [[7, 5, 19, 5, 19, 11], [7, 10, 8.5, 9]],
        {"size": [30, 40], "counts": RUNS},
        mask.frPyObjects({"size": [30, 40], "counts": RUNS}, 30, 40),
    ],
)
def test_a_segmentation_without_bbox_gives_its_hull(folder, segmentation):
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], bytes):
        segmentation["counts"] = segmentation["counts"].decode()
    root = folder(instances([box(2), box(1, CAT, bbox=..., segmentation=segmentation, area=50)]))
    part = "annotations[1] (id 42, 'cat'): bbox: expected one, found none"
    dataset = mended(root, ("box of the segmentation", 1, part))
    assert (dataset.boxes[0].tolist(), dataset.areas[0]) == ([7, 5, 19, 11], 50)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[]],
        [[1, 2, 3, 4, 5]],
        [["1", "2", "3", "4"]],
        [[1, 2, 3, 1e400]],
        "polygon",
        {"size": [0, 40], "counts": [5, 6]},
        {"size": [30, 40], "counts": [1200]},
        {"size": [30, 40], "counts": [-1, 3]},
        {"size": [30, 40], "counts": "o"},  # which pycocotools would read past its end
        {"size": [30, 40], "counts": "é0"},
    ],
)
def test_a_segmentation_without_a_hull_is_none(folder, segmentation):
    text = json.dumps(instances([box(2), box(bbox=..., segmentation=segmentation)]))
    root = folder(text.replace("Infinity", "1e400").encode())
    assert_defect(
        root,
        "missing field",
        "annotations[1]",
        num_boxes=1,
    )


def test_numbers_as_text_are_read(folder):
    root = folder(instances([box(2), box(1, bbox=("2", 3, " 10.5", "1e1"), area="77.5")]))
    part = "annotations[1] (id 42, 'dog'): bbox: expected numbers, found ['2', 3, ' 10.5', '1e1']"
    root_kinds = read_coco(root, "val").defects.messages
    assert [kind for kind, _ in root_kinds] == ["number as text"] * 2
    assert part in root_kinds[0][1]
    dataset = read_coco(root, "val")
    assert (dataset.boxes[0].tolist(), dataset.areas[0]) == ([2, 3, 12.5, 13], 77.5)


@pytest.mark.parametrize(
    ("flag", "value", "counted"),
    [
        (0.0, 0, 0),
        (1.0, 1, 0),
        (None, 0, 1),
        ("0", 0, 1),
        ("1", 1, 1),
        ("true", 1, 1),
        ("False", 0, 1),
    ],
)
def test_flags_of_other_types(folder, flag, value, counted):
    root = folder(instances([box(1, iscrowd=flag), box(2, difficult=flag)]))
    dataset = read_coco(root, "val")
    assert dataset.ignore.tolist() == [value, 0]
    assert dataset.difficult.tolist() == [0, value]
    kinds = {"flag that is no number": 2} if counted else {}
    assert dataset.defects.counts() == kinds


def test_ignore_makes_a_region_but_not_for_judging_detections(folder):
    """pycocotools overwrites `ignore` with `iscrowd`: there such an object has to be found."""
    annotations = [box(1, ignore=1), box(1, iscrowd=1, ignore=1), box(2, ignore=0)]
    root = folder(instances([*annotations, box(2, ignore="true")]))
    flags = ("flag that is no number", 1, "annotations[3] (id 42, 'dog'): ignore: expected 0 or 1")
    part = "annotations[0] (id 42, 'dog'): ignore: found 1: "
    region = ("ignore flag", 2, part + "taken as a region to ignore")
    assert mended(root, flags, region).ignore.tolist() == [True, True, False, True]
    passed = ("ignore flag", 2, part + "passed over, as by pycocotools")
    dataset = mended(root, flags, passed, image_sizes={})
    assert dataset.ignore.tolist() == [False, True, False, False]


def test_boxes_that_look_like_corners_or_fractions_are_refused_but_not_for_judging(folder):
    corners = [box(n % 2 + 1, bbox=(18, 12, 30, 28)) for n in range(6)]
    root = folder(instances([*corners, box(1)]))
    assert_refused(root, "val.json: expected width and height, found a second corner", "6 of 7")
    assert len(read_coco(root, "val", image_sizes={}).labels) == 7
    write(root / "val.json", instances([box(1, bbox=(0.1, 0.2, 0.3, 0.4))]))
    assert_refused(root, "val.json: expected pixels, found fractions of the image", "1 of 1")


def test_categories_of_other_types(folder):
    content = instances([box(1, 0), box(2, 4)])
    content["categories"] = [
        {"id": 0, "name": 5, "supercategory": ["a"]},
        {"id": 4.0, "name": "cat", "supercategory": None},
    ]
    part = "categories[0] (id 0): name: expected text, found 5: taken as text"
    dataset = mended(folder(content), ("class name as number", 1, part))
    assert (dataset.classes, dataset.category_ids) == (("5", "cat"), (0, 4))


# ------------------------------------------------------------------------------------------------
# Which files
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "annotations/instances_val.json",
        "annotations/val.json",
        "val.json",
        "val/_annotations.coco.json",
        "instances_val.json",
    ],
)
@pytest.mark.parametrize("images", ["val", "images/val", "images", ""])
def test_layouts(tmp_path, name, images):
    write(tmp_path / name, instances([box()]))
    for image_name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / images / image_name)
    splits = ["val"]
    if images != "images/val" or not name.startswith("val/"):  # whose stem is not the split's name
        splits += [name, str(tmp_path / name)]
    for split in splits:
        dataset = read_coco(tmp_path, split)
        assert dataset.images[0] == str(tmp_path / images / "a.jpg")
    assert read_coco(tmp_path, "val").name == f"{tmp_path.name}/val"


def test_a_file_whose_name_ends_with_the_split(tmp_path):
    write(tmp_path / "lvis_v1_val.json", instances([box()]))
    write(tmp_path / "lvis_v1_train.json", instances([box(2)]))
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / "images" / name)
    assert read_coco(tmp_path, "train").row_splits.tolist() == [0, 0, 1]
    assert FORMAT.find_splits(tmp_path) == ["lvis_v1_train.json", "lvis_v1_val.json"]
    write(tmp_path / "other-val.json", instances())
    with pytest.raises(DatasetError, match=r"found lvis_v1_train.json, lvis_v1_val.json, other"):
        read_coco(tmp_path, "val")


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("annotations/instances_default.json", "images/default"),  # CVAT
        ("result.json", "images"),  # Label Studio
        ("_annotations.coco.json", "."),
        ("annotations/labels.json", "images"),
    ],
)
def test_one_file_of_all_images_is_shared_out(tmp_path, name, images):
    for root in (tmp_path, tmp_path / "far/part"):
        names = [f"{n}.jpg" for n in range(10)]
        content = instances(
            [box(n) for n in range(10)], [image(*pair) for pair in enumerate(names)]
        )
        write(root / name, content)
        for image_name in names:
            write_image(root / images / image_name)
    write(tmp_path / "package.json", {"name": "x"})
    assert FORMAT.undivided(tmp_path) == name
    assert FORMAT.find_splits(tmp_path)[0] == name
    for folder in ("", "far/part/"):
        parts = [
            FORMAT.read_split(tmp_path, folder + split, None, "error", {"val_fraction": 0.3})
            for split in ("train", "val", "all")
        ]
        assert [len(part) for part in parts] == [7, 3, 10]
        place = tmp_path / folder / images
        assert {Path(image) for part in parts for image in part.images} == set(place.glob("*.jpg"))


@pytest.mark.parametrize("name", ["train/_annotations.coco.json", "val.json", "set-Test.json"])
def test_a_file_of_one_split_is_not_shared_out(tmp_path, name):
    write(tmp_path / name, instances())
    assert FORMAT.undivided(tmp_path) is None


def test_a_path_stands_for_the_split_of_its_stem(tmp_path):
    write(tmp_path / "x" / "instances_val.json", instances())
    write_image(tmp_path / "images" / "val" / "a.jpg")
    write_image(tmp_path / "b.jpg")
    dataset = read_coco(tmp_path, "x/instances_val.json")
    assert dataset.name == f"{tmp_path.name}/val"
    assert len(dataset) == 2


def test_given_folders_come_first_and_names_may_have_folders(folder, tmp_path):
    root = folder(
        instances(images=[image(1, "sub/a.jpg"), image(2, "b.jpg")]), "sub/a.jpg", "b.jpg"
    )
    write_image(root / "near" / "b.jpg")
    write_image(tmp_path / "far" / "b.jpg")
    assert read_coco(root, "val").images[0] == str(root / "val" / "sub" / "a.jpg")
    assert read_coco(root, "val", images=["near"]).images[1] == str(root / "near" / "b.jpg")
    found = read_coco(root, "val", images=[tmp_path / "far", "near"]).images[1]
    assert found == str(tmp_path / "far" / "b.jpg")


def test_no_such_file_says_what_was_looked_for_and_what_is_there(folder):
    root = folder(instances())
    write(root / "annotations" / "instances_train.json", instances())
    for split, looked in (("test", "annotations/instances_test.json or"), ("x.json", "x.json, ")):
        with pytest.raises(DatasetError) as caught:
            read_coco(root, split)
        assert f"{root}: expected {looked}" in str(caught.value)
        assert "found annotations/instances_train.json, val.json" in str(caught.value)
    with pytest.raises(DatasetError, match=r"val: expected .* found no JSON file"):
        read_coco(root / "val", "val")
    with pytest.raises(DatasetError, match=r"nowhere: no such folder"):
        read_coco(root / "nowhere", "val")
    with pytest.raises(ValueError, match="on_bad_annotation: expected 'error' or 'drop'"):
        read_coco(root, "val", on_bad_annotation="ignore")


def test_a_list_file_chooses_the_images_and_their_order(folder):
    images = [image(n, f"{name}.jpg") for n, name in enumerate("abcd", 1)]
    root = folder(instances([box(1), box(3, CAT), box(2, COW)], images), "d.jpg")
    for path in ("images/val/c.jpg", "a.jpg", "images/val/a.jpg"):
        write_image(root / path)
    absolute = root / "images" / "val" / "a.jpg"
    write(root / "val.txt", f"\ufeff./images/val/c.jpg\n\n{absolute}\r\nval\\d.jpg\n".encode())
    dataset = read_coco(root, "val")
    assert dataset.image_ids == ("3", "1", "4")
    assert dataset.images == (
        str(root / "images/val/c.jpg"),
        str(absolute),
        str(root / "val" / "d.jpg"),
    )
    np.testing.assert_array_equal(dataset.labels, [1, 0])
    assert dataset.defects.counts() == {}


LINES = {
    "unknown": ("val/x.jpg", "image without entry", "val.txt, line 2: expected an image"),
    "twice": (
        "./val/a.jpg",
        "duplicate id",
        "val.txt, line 2: './val/a.jpg' is listed twice, first in",
    ),
    "missing": (
        "elsewhere/b.jpg",
        "missing image",
        "val.txt, line 2: expected the image elsewhere/b.jpg",
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_bad_lines_of_a_list_file(folder, name):
    line, kind, part = LINES[name]
    root = folder(instances([box(), box(2)]))
    write(root / "val.txt", f"val/a.jpg\n{line}\n".encode())
    assert_defect(root, kind, f"{root}/{part}", num_images=1, num_boxes=1)


def test_a_list_file_that_is_no_text(folder):
    root = folder(instances())
    write(root / "val.txt", b"\xff\xfe\x00")
    assert_refused(root, "val.txt, line 1: expected text in UTF-8")


# ------------------------------------------------------------------------------------------------
# Images
# ------------------------------------------------------------------------------------------------

NAMELESS = {"id": 3, "width": W, "height": H}
BAD_IMAGES = {
    "same-id": (
        image(1, "c.jpg"),
        "duplicate id",
        "(id 1): id: expected one of its own, found 1 of",
    ),
    "same-name": (
        image(3, "a.jpg"),
        "duplicate id",
        "file_name: expected one of its own, found 'a.jpg'",
    ),
    "same-id-as-text": (
        image("1", "c.jpg"),
        "duplicate id",
        "(id '1'): id: expected one of its own, found '1' of",
    ),
    "id": (image(1.5, "c.jpg"), "bad number", "(id 1.5): id: expected `int | str`, found `float`"),
    "no-name": (NAMELESS, "missing name", "file_name: expected an object with the field"),
    "no-string": (image(3, None), "missing name", "file_name: expected `str`, found `null`: "),
    "empty-name": (
        image(3, ""),
        "missing name",
        "file_name: expected `str` of length >= 1, found ''",
    ),
    "null": (None, "malformed entry", "images[2]: entry: expected `object`, found `null`"),
    "missing": (image(3, "x.jpg"), "missing image", "(id 3): expected the image x.jpg in"),
    "zero-byte": (image(3, "x\0.jpg"), "missing image", "images[2] (id 3): "),
    "zero-byte-folder": (image(3, "x\0/d.jpg"), "missing image", "images[2] (id 3): "),
    "endless": (image(3, "x" * 5000 + "/d.jpg"), "missing image", "images[2] (id 3): "),
}


@pytest.mark.parametrize("check_images", [True, False])
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_is_an_error_or_dropped_with_its_objects(folder, name, check_images):
    bad, kind, part = BAD_IMAGES[name]
    annotations = [box(1), box(3, COW), box(2)] if bad and bad["id"] == 3 else [box(1), box(2)]
    contents = instances(annotations, [image(1, "a.jpg"), image(2, "b.jpg"), bad])
    root = folder(contents, "a.jpg", "b.jpg", "c.jpg")
    parts = (f"{root}/val.json, images[2]", part)
    assert_defect(root, kind, *parts, num_boxes=2, check_images=check_images)


def test_the_headers_are_checked_unless_told_not_to(folder):
    root = folder(instances([box()], [image(1, "a.jpg"), image(2, "b.jpg", 80, 60)]))
    parts = ("images[1] (id 2): expected 40x30 as the image has, found 80x60",)
    assert_defect(root, "size disagrees with the image", *parts, num_images=1, num_boxes=1)
    dataset = read_coco(root, "val", check_images=False)
    np.testing.assert_array_equal(dataset.sizes, [[W, H], [80, 60]])


def test_boxes_drawn_before_exif_orientation(folder):
    root = folder(instances([box()]))
    exif = Image.Exif()
    exif[274] = 6
    write_image(root / "val" / "b.jpg", exif=exif)
    parts = ("expected 30x40", "found 40x30; the image carries EXIF orientation 6")
    assert_defect(root, "size disagrees with the image", *parts, num_images=1, num_boxes=1)


def test_image_that_cannot_be_read(folder):
    root = folder(instances([box()]))
    (root / "val" / "b.jpg").write_bytes(b"")
    assert_defect(root, "unreadable image", "b.jpg: the file is empty", num_images=1, num_boxes=1)
    assert len(read_coco(root, "val", check_images=False)) == 2


def test_without_images_the_file_alone_is_read(folder):
    root = folder(instances([box()], [image(1, "gone/x.jpg"), image(2, "b.jpg", 80, 60)]))
    dataset = read_coco(root, "val", image_sizes={})
    assert dataset.images == ("gone/x.jpg", "b.jpg")
    np.testing.assert_array_equal(dataset.sizes, [[W, H], [80, 60]])


def test_nothing_left_says_what_was_dropped(folder):
    root = folder(instances(images=[image(1, "x.jpg"), image(2, "y.jpg")]))
    with pytest.raises(DatasetError, match=r"set/val: no images left .*2 x missing image"):
        read_coco(root, "val", on_bad_annotation="drop")


# ------------------------------------------------------------------------------------------------
# Objects
# ------------------------------------------------------------------------------------------------

BIG = 2**63
NO_BBOX = "bbox: expected an object with the field `bbox`, found none"
BAD_OBJECTS = {
    "zero-width": (box(bbox=(2, 3, 0, 5)), "empty or inverted box", "found 2 3 2 8"),
    "tiny": (box(bbox=(20, 3, 1e-9, 5)), "empty or inverted box", "found 20 3 20 8"),
    "inverted": (box(bbox=(2, 3, 5, -5)), "empty or inverted box", "found 2 3 7 -2"),
    "outside": (
        box(bbox=(2, 3, W + 1, 5)),
        "box outside the image",
        "inside 0 0 40 30, found 2 3 43",
    ),
    "absurd": (box(bbox=(2, 3, 10**9, 5)), "box outside the image", "found 2 3 1e+09 8"),
    "overflow": (box(bbox=(2, 3, 1e308, 5)), "box outside the image", "found 2 3 inf 8"),
    "three": (
        box(bbox=(2, 3, 5)),
        "bad number",
        "bbox: expected `array` of length 4, found 3: [2, 3, 5]",
    ),
    "text": (
        box(bbox=(2, 3, "5px", 5)),
        "bad number",
        "bbox: expected `float`, found `str`: [2, 3, '5px', 5]",
    ),
    "null": (box(bbox=(2, 3, None, 5)), "bad number", "bbox: expected `float`, found `null`: "),
    "no-numbers": (box(bbox=()), "bad number", "bbox: expected `array` of length 4, found 0"),
    "null-bbox": (
        {"image_id": 1, "category_id": DOG, "bbox": None, "segmentation": [[1, 1, 5, 5]]},
        "bad number",
        "bbox: expected `array`, found `null`: None",
    ),
    "no-bbox": (
        {"image_id": 1, "category_id": DOG},
        "missing field",
        NO_BBOX,
    ),
    "no-polygon": (
        box(bbox=..., segmentation=[]),
        "missing field",
        NO_BBOX,
    ),
    "area": (box(area=-1), "bad number", "area: expected `float` >= 0.0, found -1"),
    "area-text": (
        box(area="nan"),
        "bad number",
        "area: expected `float | null`, found `str`: 'nan'",
    ),
    "crowd": (box(iscrowd=2), "bad crowd flag", "iscrowd: expected `int` <= 1, found 2"),
    "crowd-half": (
        box(iscrowd=0.5),
        "bad crowd flag",
        "iscrowd: expected `bool | int`, found `float`: 0.5",
    ),
    "ignore": (box(ignore="some"), "bad ignore flag", "ignore: expected `bool | int`, found `str`"),
    "difficult": (
        box(difficult=-1),
        "bad difficult flag",
        "difficult: expected `int` >= 0, found -1",
    ),
    "image": (box(9), "unknown image", "image id: expected one the file has, found 9"),
    "image-text": (box("01"), "unknown image", "image id: expected one the file has, found '01'"),
    "image-big": (box(BIG), "bad number", f"image_id: expected `int` <= {BIG - 1}, found {BIG}"),
    "image-vast": (box(10**3000), "bad number", "image_id: expected `int` <="),
    "class": (box(1, 8), "unknown class", "class id: expected one the file has, found 8"),
    "class-big": (box(1, BIG), "bad number", "category_id: expected `int` <="),
    "list": ([1], "malformed entry", "entry: expected `object`, found `array`"),
    "number": (5, "malformed entry", "entry: expected `object`, found `int`"),
}


@pytest.mark.parametrize("name", BAD_OBJECTS)
def test_bad_object_is_an_error_or_dropped_alone(folder, name):
    bad, kind, part = BAD_OBJECTS[name]
    root = folder(instances([box(), bad, box(2, CAT)]))
    assert_defect(root, kind, f"{root}/val.json, annotations[1]", part, num_boxes=2)


def test_an_unknown_class_beside_a_single_one(folder):
    root = folder(instances([box(1, 5), box(2, 6)], categories=[{"id": 5, "name": "dog"}]))
    assert_defect(
        root, "unknown class", "class id: expected one the file has, found 6", num_boxes=1
    )


def test_the_culprit_is_named_by_its_id_and_class(folder):
    root = folder(instances([box(), box(1, CAT, iscrowd=7, id=1234)]))
    with pytest.raises(
        DatasetError, match=r"val\.json, annotations\[1\] \(id 1234, 'cat'\): iscrowd"
    ):
        read_coco(root, "val")


def test_numbers_json_cannot_have_or_float_cannot_hold(folder):
    text = json.dumps(instances([box(), box(bbox=(1, 2, 3, 12345)), box(2)])).encode()
    root = folder(text.replace(b"12345", b"1e400"))
    assert_defect(root, "bad number", "annotations[1]", "bbox: Number out of range", num_boxes=2)
    for literal in (b"NaN", b"Infinity", b"-Infinity"):
        write(root / "val.json", text.replace(b"12345", literal))
        assert_refused(root, f"{root}/val.json: not a COCO instances file: JSON is malformed")


def test_bytes_that_are_no_text(folder):
    text = json.dumps(instances([box()])).encode()
    root = folder(text.replace(b"b.jpg", b"\xff.jpg"))
    assert_defect(root, "malformed entry", "images[1]: entry: 'utf-8'", num_images=1, num_boxes=1)
    write(root / "val.json", text.replace(b"cow", b"\xff\xff"))
    assert_refused(root, "val.json, categories[2]: entry: 'utf-8' codec can't decode")
    write(root / "val.json", text.replace(b"b.jpg", b"\\ud800"))
    assert_refused(root, "val.json: not a COCO instances file: JSON is malformed")


# ------------------------------------------------------------------------------------------------
# Files as a whole
# ------------------------------------------------------------------------------------------------

DEEP = b"[" * 100_000
WHOLE = {
    "empty": (b"", "Input data was truncated"),
    "text": (b"hello", "JSON is malformed"),
    "truncated": (json.dumps(instances([box()])).encode()[:-30], "truncated"),
    "trailing": (json.dumps(instances()).encode() + b"{}", "trailing characters"),
    "utf-16": (json.dumps(instances()).encode("utf-16"), "JSON is malformed"),
    "null": (None, "expected `object`, found `null`"),
    "list": ([], "expected `object`, found `array`"),
    "results": ([box(score=0.5)], "expected `object`, found `array`"),
    "empty-object": ({}, "expected an object with the field `images`"),
    "images": (instances(images={}), "images: expected `array`, found `object`"),
    "no-truth": (
        {key: value for key, value in instances().items() if key != "annotations"},
        "expected 'annotations', found none: no ground truth",
    ),
    "null-truth": (instances() | {"annotations": None}, "expected 'annotations', found none"),
    "no-categories": (instances(categories=[]), "expected categories, found none"),
    "category-id": (
        instances(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
        "expected categories of different ids, found 1 twice",
    ),
    "category-name": (
        instances(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]),
        "expected categories of different names, found 'a' twice",
    ),
    "category-null": (
        instances(categories=[{"id": 1, "name": None}]),
        "categories[0] (id 1): name: expected",
    ),
    "no-images": (instances(images=[]), "no images left"),
    "deep": (DEEP, "found `array`"),
    "deep-images": (b'{"images":' + DEEP, "recursion"),
    "deep-segmentation": (
        json.dumps(instances([box(segmentation=12345)])).encode().replace(b"12345", DEEP),
        "recursion",
    ),
    "deep-unknown": (b'{"x":' + DEEP, "recursion"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_files_of_another_shape_are_refused_quickly(folder, name):
    contents, part = WHOLE[name]
    start = time.perf_counter()
    assert_refused(folder(contents), "val", part)
    assert time.perf_counter() - start < 20


def test_a_file_beyond_the_bound_is_refused(folder, monkeypatch):
    monkeypatch.setattr(coco, "OF_DATASET", 100)
    assert_refused(folder(instances()), "val.json: expected at most 100 bytes, found ")


def test_a_segmentation_that_is_closed_but_too_deep(folder):
    """Whether it is refused with its file or passed over, the stack's end is not an accident."""
    text = json.dumps(instances([box(), box(segmentation=12345), box(2)])).encode()
    found = set()
    for depth in range(900, 1010, 3):
        root = folder(text.replace(b"12345", b"[" * depth + b"]" * depth))
        try:
            dataset = read_coco(root, "val", on_bad_annotation="drop")
            found.add(len(dataset.labels) + len(dataset.defects.messages))
        except DatasetError as caught:
            found.add(str(caught).partition("file: ")[2])
    assert found == {3, "maximum recursion depth exceeded while deserializing an object"}


# ------------------------------------------------------------------------------------------------
# Real data
# ------------------------------------------------------------------------------------------------

TINY = [("train2017", 470, {"262284"}), ("val2017", 382, {"226111", "58636"})]


@pytest.mark.parametrize(("split", "num_objects", "empty"), TINY)
def test_tiny_coco_agrees_with_pycocotools(shared_data, split, num_objects, empty):
    root = shared_data / "tiny_coco"
    path = root / "annotations" / f"instances_{split}.json"
    dataset = read_coco(root, split)
    reference = COCO(str(path))
    assert (len(dataset), len(dataset.labels), dataset.ignore.sum()) == (50, num_objects, 5)
    assert dataset.defects.counts() == {}
    assert list(dataset.image_ids) == [str(entry["id"]) for entry in reference.dataset["images"]]
    counts = np.diff(dataset.row_splits)
    assert {i for i, count in zip(dataset.image_ids, counts, strict=True) if not count} == empty
    assert dataset.category_ids == tuple(sorted(reference.getCatIds()))
    for index, image_id in enumerate(dataset.image_ids):
        found = reference.loadAnns(reference.getAnnIds(int(image_id)))
        rows = dataset.rows(index)
        bbox = np.array([entry["bbox"] for entry in found], np.float64).reshape(-1, 4)
        corners = np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1)
        np.testing.assert_array_equal(dataset.boxes[rows], corners.round(9))
        areas = np.array([entry["area"] for entry in found])
        np.testing.assert_array_equal(dataset.areas[rows], areas)
        ids = [dataset.category_ids[label] for label in dataset.labels[rows]]
        assert ids == [entry["category_id"] for entry in found]
        assert dataset.ignore[rows].tolist() == [bool(entry["iscrowd"]) for entry in found]


@pytest.mark.parametrize(("split", "num_objects", "empty"), TINY)
def test_tiny_coco_counts_are_the_files(shared_data, split, num_objects, empty):
    path = shared_data / "tiny_coco" / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    annotations = content["annotations"]
    assert (len(content["images"]), len(annotations)) == (50, num_objects)
    assert sum(entry["iscrowd"] for entry in annotations) == 5
    without = {i["id"] for i in content["images"]} - {a["image_id"] for a in annotations}
    assert set(map(str, without)) == empty


def test_tiny_coco_of_one_class(shared_data):
    root = shared_data / "tiny_coco"
    every, person = read_coco(root, "val2017"), read_coco(root, "val2017", ["person"])
    assert person.category_ids == (1,)
    assert len(person) == 50
    of_others = int((every.labels != every.classes.index("person")).sum())
    assert person.defects.counts() == {"class left out": of_others}
    assert len(person.labels) == 382 - of_others


def test_mended_images_are_counted_where_headers_are_read(folder):
    root = folder(instances([box()]))
    data = (root / "val/b.jpg").read_bytes()
    (root / "val/b.jpg").write_bytes(b"\n" + data[:-2])
    dataset = read_coco(root, "val")
    kinds = ["line break before a JPEG", "JPEG without its end marker"]
    assert dataset.defects.messages == [(kind, f"{root / 'val/b.jpg'}: {kind}") for kind in kinds]
    assert read_coco(root, "val", check_images=False).defects.messages == []


def test_the_only_file_says_what_is_wrong_with_it(tmp_path):
    write(tmp_path / "result.json", b'{"images": [')
    assert FORMAT.undivided(tmp_path) == "result.json"
    with pytest.raises(DatasetError, match=r"result\.json: not a COCO instances file"):
        FORMAT.read_split(tmp_path, "train", None, "error", {})


@pytest.mark.parametrize("name", ["annotations/instances_validation.json", "valid.json"])
def test_val_is_found_under_its_other_names(tmp_path, name):
    write(tmp_path / name, instances([box()]))
    for file in "ab":
        write_image(tmp_path / f"images/{file}.jpg")
    assert len(read_coco(tmp_path, "val")) == 2
