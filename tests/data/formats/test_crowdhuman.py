"""The CrowdHuman reader: what is ignored, where files are looked for, lines that are wrong."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data.formats.crowdhuman import MAX_LINE, read_crowdhuman
from data.records import DatasetError

pytestmark = pytest.mark.quick

W, H = 40, 30
BOTH = ("person", "head")


def write_image(path, size=(W, H)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)


def person(fbox=(2, 3, 10, 20), hbox=(4, 3, 4, 5), vbox=(2, 3, 8, 9), tag="person", **attributes):
    boxes = {"fbox": fbox, "hbox": hbox, "vbox": vbox}
    return {"tag": tag} | {k: list(v) for k, v in boxes.items() if v is not None} | attributes


def odgt(**images):
    return "\n".join(json.dumps({"ID": i, "gtboxes": boxes}) for i, boxes in images.items())


@pytest.fixture
def folder(tmp_path):
    """folder(text) makes a folder with train.odgt and the images a and b."""

    def folder(text):
        root = tmp_path / "crowd"
        for name in "ab":
            write_image(root / f"Images/{name}.jpg")
        (root / "train.odgt").write_bytes(text if isinstance(text, bytes) else text.encode())
        return root

    return folder


def assert_defect(root, kind, *parts, num_images=1, num_boxes=1):
    """One defect: "error" raises a line with `parts`; "drop" counts the same line under `kind`."""
    with pytest.raises(DatasetError) as caught:
        read_crowdhuman(root, "train")
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    assert len(message) < 1000
    assert caught.value.kind == kind
    dataset = read_crowdhuman(root, "train", on_bad_annotation="drop")
    assert dataset.defects.messages == [(kind, message)]
    assert (len(dataset), len(dataset.labels)) == (num_images, num_boxes)


# ------------------------------------------------------------------------------------------------
# Objects and regions
# ------------------------------------------------------------------------------------------------


def test_people_and_heads_in_the_order_of_the_file(folder):
    second = person(fbox=(0.5, 1, 5, 6.25), hbox=(1, 1, 2, 2))
    root = folder(odgt(b=[person(), second], a=[]))
    dataset = read_crowdhuman(root, "train", BOTH)
    assert dataset.name == "crowd/train"
    assert dataset.classes == BOTH
    assert dataset.image_ids == ("b", "a")
    assert dataset.images[0] == str(root / "Images/b.jpg")
    np.testing.assert_array_equal(dataset.sizes, [[W, H]] * 2)
    expected = [[2, 3, 12, 23], [4, 3, 8, 8], [0.5, 1, 5.5, 7.25], [1, 1, 3, 3]]
    np.testing.assert_array_equal(dataset.boxes, expected)
    np.testing.assert_array_equal(dataset.labels, [0, 1, 0, 1])
    np.testing.assert_array_equal(dataset.row_splits, [0, 4, 4])
    assert not dataset.ignore.any()
    assert dataset.defects.counts() == {}
    heads = read_crowdhuman(root, "train", ["head"])
    np.testing.assert_array_equal(heads.boxes, [[4, 3, 8, 8], [1, 1, 3, 3]])
    reverse = read_crowdhuman(root, "train", ["head", "person"])
    np.testing.assert_array_equal(reverse.boxes[:2], [[4, 3, 8, 8], [2, 3, 12, 23]])
    np.testing.assert_array_equal(reverse.labels, [0, 1, 0, 1])


def test_visible_boxes(folder):
    root = folder(odgt(a=[person(fbox=None)]))
    dataset = read_crowdhuman(root, "train", BOTH, person_box="visible")
    np.testing.assert_array_equal(dataset.boxes, [[2, 3, 10, 12], [4, 3, 8, 8]])


@pytest.mark.parametrize(
    ("gtbox", "ignored"),
    [
        (person(), (False, False)),
        (person(extra={}, head_attr={}), (False, False)),
        (person(extra={"ignore": 0, "occ": 1, "unsure": 1}), (False, False)),
        (person(head_attr={"ignore": 0, "occ": 1, "unsure": 1}), (False, False)),
        (person(extra={"ignore": 1}), (True, True)),
        (person(extra={"ignore": 2}, head_attr={"ignore": 0}), (True, True)),
        (person(head_attr={"ignore": 1}), (False, True)),
        (person(extra={"ignore": 0}, head_attr={"ignore": 1}), (False, True)),
        (person(tag="mask"), (True, True)),
        (person(tag="mask", extra={"ignore": 0}), (True, True)),
        (person(tag="rider"), (True, True)),
    ],
)
def test_what_is_ignored(folder, gtbox, ignored):
    dataset = read_crowdhuman(folder(odgt(a=[gtbox])), "train", BOTH)
    assert tuple(dataset.ignore) == ignored
    np.testing.assert_array_equal(dataset.boxes, [[2, 3, 12, 23], [4, 3, 8, 8]])


def test_a_background_box_is_neither_object_nor_region(folder):
    root = folder(odgt(a=[person(tag="background"), person()]))
    dataset = read_crowdhuman(root, "train", BOTH)
    np.testing.assert_array_equal(dataset.ignore, [False, False])
    assert dataset.defects.counts() == {"gtbox tagged background": 1}


def test_boxes_that_are_not_there(folder):
    no_head, mask = person(hbox=None), person(hbox=None, tag="mask")
    root = folder(odgt(a=[no_head, mask, person(fbox=None, tag="mask"), person()]))
    dataset = read_crowdhuman(root, "train", BOTH)
    np.testing.assert_array_equal(dataset.labels, [0, 0, 1, 0, 1])
    np.testing.assert_array_equal(dataset.ignore, [False, True, True, False, False])
    assert dataset.defects.messages == [
        (kind, f"{root}/train.odgt, line 1 (ID 'a'), gtboxes[{place}]: found no {field}")
        for kind, place, field in (
            ("person without head box", 0, "hbox"),
            ("ignored without a box", 1, "hbox"),
            ("ignored without a box", 2, "fbox"),
        )
    ]
    assert read_crowdhuman(root, "train").defects.counts() == {"ignored without a box": 1}
    assert read_crowdhuman(folder(odgt(a=[no_head])), "train").defects.counts() == {}


def test_boxes_may_leave_the_image(folder):
    dataset = read_crowdhuman(folder(odgt(a=[person(fbox=(-5, -6, 100, 200.5))])), "train")
    np.testing.assert_array_equal(dataset.boxes, [[-5, -6, 95, 194.5]])
    assert dataset.defects.counts() == {}


@pytest.mark.parametrize("fbox", [(2, 3, 0, 5), (2, 3, 5, -1), (20, 3, 1e-9, 5)])
def test_regions_without_area_are_counted(folder, fbox):
    root = folder(odgt(a=[person(fbox=fbox, tag="mask"), person()]))
    dataset = read_crowdhuman(root, "train")
    assert len(dataset.labels) == 1
    assert dataset.defects.counts() == {"ignored box without area": 1}
    where = f"{root}/train.odgt, line 1 (ID 'a'), gtboxes[0], fbox: found a region to ignore"
    assert dataset.defects.messages[0][1].startswith(where)


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (("persons",), {}, r"expected 'person', 'head' or both, found \('persons',\)"),
        ((), {}, r"classes: expected .*, found \(\)"),
        (("head", "head"), {}, "classes: expected"),
        ("person", {}, "classes: expected"),
        (BOTH, {"person_box": "fbox"}, "person_box: expected 'full' or 'visible', found 'fbox'"),
        (BOTH, {"on_bad_annotation": "skip"}, "on_bad_annotation: expected 'error' or 'drop'"),
    ],
)
def test_arguments_that_make_no_sense(folder, classes, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_crowdhuman(folder(odgt(a=[])), "train", classes, **options)
    assert not isinstance(caught.value, DatasetError)


# ------------------------------------------------------------------------------------------------
# Files
# ------------------------------------------------------------------------------------------------


FILES = ["annotation_val.odgt", "val.odgt", "annotations/annotation_val.odgt"]
PLACES = ["CrowdHuman_val/Images", "CrowdHuman_val02/Images", "Images", "images", "images/val"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("place", [*PLACES, "val", ""])
def test_layouts(tmp_path, file, place):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(odgt(**{"273271,c9 #1.x": [person()]}))
    write_image(tmp_path / place / "273271,c9 #1.x.JPG")
    for split in ("val", file, str(tmp_path / file)):
        dataset = read_crowdhuman(tmp_path, split)
        assert dataset.name == f"{tmp_path.name}/val"
        assert dataset.image_ids == ("273271,c9 #1.x",)
        assert dataset.images == (str(tmp_path / place / "273271,c9 #1.x.JPG"),)


def test_images_over_three_parts_of_train_and_folders_given(tmp_path):
    (tmp_path / "train.odgt").write_text(odgt(a=[person()], b=[]))
    write_image(tmp_path / "CrowdHuman_train01/Images/a.jpg")
    write_image(tmp_path / "CrowdHuman_train03/Images/b.png")
    dataset = read_crowdhuman(tmp_path, "train")
    places = ("CrowdHuman_train01/Images/a.jpg", "CrowdHuman_train03/Images/b.png")
    assert dataset.images == tuple(str(tmp_path / place) for place in places)
    write_image(tmp_path / "other/a.jpg")
    for given in ("other", tmp_path / "other"):
        dataset = read_crowdhuman(tmp_path, "train", images=("none", given))
        assert dataset.images[0] == str(tmp_path / "other/a.jpg")


def test_a_missing_file_names_those_looked_for_and_those_there(folder):
    root = folder(odgt(a=[]))
    expected = (
        f"{root}: expected annotation_val.odgt or val.odgt or annotations/annotation_val.odgt, "
        "found train.odgt"
    )
    with pytest.raises(DatasetError) as caught:
        read_crowdhuman(root, "val")
    assert str(caught.value) == expected
    with pytest.raises(DatasetError, match=r"expected x/val\.odgt, found no \.odgt file"):
        read_crowdhuman(root / "Images", "x/val.odgt")


def test_images_that_are_missing_or_broken(folder):
    root = folder(odgt(a=[person()], c=[person()]))
    parts = ("train.odgt, line 2 (ID 'c'): expected the image c.jpg in", "found none")
    assert_defect(root, "missing image", *parts)
    root = folder(odgt(a=[person()], b=[person()]))
    (root / "Images/b.jpg").write_bytes(b"")
    assert_defect(root, "unreadable image", f"{root}/Images/b.jpg: the file is empty")


def test_no_image_left(folder):
    with pytest.raises(DatasetError, match=r"crowd/train: no images left .*1 x malformed line"):
        read_crowdhuman(folder("x"), "train", on_bad_annotation="drop")
    with pytest.raises(DatasetError, match="no images left"):
        read_crowdhuman(folder(""), "train")


# ------------------------------------------------------------------------------------------------
# Lines
# ------------------------------------------------------------------------------------------------

A = odgt(a=[person()])
DEEP = "[" * 100_000
BAD_LINES = {
    "no-json": ("a.jpg,1,2", "line 3: JSON is malformed", "found b'a.jpg,1,2'"),
    "cut": (A[:-9], "line 3: Input data was truncated", "found b'{"),
    "python": ("{'ID': 'b', 'gtboxes': []}", "line 3: JSON is malformed"),
    "nan": ('{"ID": "b", "gtboxes": [{"tag": "person", "fbox": [1, 2, NaN, 4]}]}', "malformed"),
    "deep": (f'{{"ID": "b", "x": {DEEP}', "line 3: maximum recursion depth exceeded"),
    "deep-box": (f'{{"ID": "b", "gtboxes": [{DEEP}', "line 3: maximum recursion depth exceeded"),
    "array": ("[]", "line 3: expected `object`, found `array`"),
    "no-id": ('{"gtboxes": []}', "line 3: expected an object with the field `ID`, found none"),
    "number-id": ('{"ID": 7, "gtboxes": []}', "line 3, ID: expected `str`, found `int`"),
    "empty-id": ('{"ID": "", "gtboxes": []}', "(ID ''): expected an ID of 1 to 200 characters, f"),
    "long-id": (odgt(**{"x" * 5000: []}), "expected an ID of 1 to 200 characters, found 5000"),
    "no-gtboxes": ('{"ID": "b"}', "line 3: expected an object with the field `gtboxes`"),
    "gtboxes": ('{"ID": "b", "gtboxes": {}}', "gtboxes: expected `array`, found `object`"),
    "latin-1": (b'{"ID": "\xe2", "gtboxes": []}', "line 3: 'utf-8' codec can't decode byte 0xe2"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_an_error_or_dropped_alone(folder, name):
    bad, *parts = BAD_LINES[name]
    text = A.encode() + b"\n\n" + (bad if isinstance(bad, bytes) else bad.encode()) + b"\r\n"
    root = folder(text)
    assert_defect(root, "malformed line", f"{root}/train.odgt, line 3", *parts)


def test_an_id_that_occurs_twice(folder):
    root = folder(f"{A}\n{A}")
    first = f"{root}/train.odgt, line 1 (ID 'a')"
    parts = (f"train.odgt, line 2 (ID 'a'): expected each ID once, first in {first}",)
    assert_defect(root, "duplicate id", *parts)


@pytest.mark.parametrize("image_id", ["\0/x", "y" * 190 + "/é", "/", "..", "../crowd/x", "é" * 200])
def test_ids_that_no_file_has(folder, image_id):
    root = folder(odgt(**{"a": [person()], image_id: []}))
    assert_defect(root, "missing image", "train.odgt, line 2 (ID ")


def test_bom_and_blank_lines(folder):
    root = folder("\ufeff\n" + A + "\r\n \r\n" + odgt(b=[]) + "\n\n")
    assert read_crowdhuman(root, "train").image_ids == ("a", "b")
    assert len(read_crowdhuman(folder("\ufeff" + A), "train")) == 1


def test_a_line_that_does_not_end_is_refused(folder):
    root = folder(A + "\n" + '{"ID": "' + "b" * MAX_LINE)
    for policy in ("error", "drop"):
        with pytest.raises(DatasetError, match=r"line 2: expected at most 16777216 bytes, found m"):
            read_crowdhuman(root, "train", on_bad_annotation=policy)


BAD_GTBOXES = {
    "zero": (person((2, 3, 0, 5)), "empty or inverted box", ", fbox: expected a box with x1 < x2"),
    "negative": (person((2, 3, 4, -5)), "empty or inverted box", "found 2 3 6 -2"),
    "sliver": (person((20, 3, 1e-9, 5)), "empty or inverted box", "found 20 3 20 8"),
    "no-fbox": (person(None), "missing box", ", fbox: expected x y width height, found none"),
    "huge": (
        person((2, 3, 1e40, 5)),
        "bad number",
        "expected numbers up to 1.67772e+07, found 2 3",
    ),
    "huge-x": (person((-1e300, 3, 4, 5)), "bad number", ", fbox: expected numbers up to"),
    "three": (
        person((2, 3, 4)),
        "malformed gtbox",
        ", fbox: expected `array` of length 4, found b'{",
    ),
    "text": (
        person((2, "3", 4, 5)),
        "malformed gtbox",
        ", fbox[1]: expected `float`, found `str`",
    ),
    "null": (
        person((2, None, 4, 5)),
        "malformed gtbox",
        ", fbox[1]: expected `float`, found `null`",
    ),
    "infinite": (
        person((10**400, 3, 4, 5)),
        "malformed gtbox",
        "fbox[0]: Number out of range, foun",
    ),
    "no-tag": (
        {"fbox": [1, 2, 3, 4]},
        "malformed gtbox",
        "object with the field `tag`, found",
    ),
    "tag": (person(tag=1), "malformed gtbox", ", tag: expected `str`, found `int`"),
    "ignore": (
        person(extra={"ignore": "0"}),
        "malformed gtbox",
        ", extra.ignore: expected `float`, found `str`",
    ),
    "attributes": (
        person(head_attr=[]),
        "malformed gtbox",
        ", head_attr: expected `object | null`",
    ),
    "array": ([1, 2, 3, 4], "malformed gtbox", "gtboxes[1]: expected `object`, found `array`"),
}


@pytest.mark.parametrize("name", BAD_GTBOXES)
def test_a_bad_gtbox_is_an_error_or_dropped_alone(folder, name):
    bad, kind, part = BAD_GTBOXES[name]
    root = folder(odgt(b=[], a=[person(), bad, person()]))
    where = f"{root}/train.odgt, line 2 (ID 'a'), gtboxes[1]"
    assert_defect(root, kind, where, part, num_images=2, num_boxes=2)


# ------------------------------------------------------------------------------------------------
# Real data
# ------------------------------------------------------------------------------------------------


def counted(path):
    """By class and whether ignored, as the evaluation's rules say, from plain JSON."""
    counts = Counter()
    for line in path.read_text().splitlines():
        for box in json.loads(line)["gtboxes"]:
            ignored = box["tag"] != "person" or box.get("extra", {}).get("ignore", 0) != 0
            of_head = box.get("head_attr", {}).get("ignore", 0) != 0
            counts["person", ignored] += 1
            counts["head", ignored or of_head] += 1
    return counts


def counts_of(dataset):
    return Counter(
        (dataset.classes[label], bool(ignored))
        for label, ignored in zip(dataset.labels, dataset.ignore, strict=True)
    )


def test_real_lines(shared_data, tmp_path):
    path = shared_data / "crowdhuman_like/real_lines.odgt"
    with pytest.raises(DatasetError, match="5 x missing image"):
        read_crowdhuman(path.parent, path.name, on_bad_annotation="drop")
    ids = [json.loads(line)["ID"] for line in path.read_text().splitlines()]
    for image_id in ids:
        write_image(tmp_path / f"{image_id}.jpg")
    dataset = read_crowdhuman(path.parent, path.name, BOTH, images=(tmp_path,))
    assert dataset.image_ids == tuple(ids)
    assert counts_of(dataset) == counted(path)
    assert counts_of(dataset)["person", True] == 2
    assert dataset.defects.counts() == {}
    np.testing.assert_array_equal(dataset.boxes[0], [1330, 317, 1330 + 418, 317 + 1338])
    np.testing.assert_array_equal(dataset.boxes[1], [1482, 380, 1482 + 154, 380 + 178])


@pytest.mark.parametrize(("split", "num_images"), [("train2017", 26), ("val2017", 23)])
def test_coco_derived(shared_data, split, num_images):
    path = shared_data / f"crowdhuman_like/coco_derived_{split}.odgt"
    images = (shared_data / "tiny_coco" / split,)
    dataset = read_crowdhuman(path.parent, path.name, BOTH, images=images)
    assert len(dataset) == num_images
    assert counts_of(dataset) == counted(path)
    assert dataset.defects.counts() == {}
