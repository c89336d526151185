"""Findings of boxes, classes and readers' messages; pairs against a plain double loop."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import Canvas
from data.doctor import findings
from data.doctor.figures import split_figures
from data.doctor.findings import (
    MENDED,
    NEAR_IOU,
    Shown,
    box_findings,
    class_findings,
    reader_findings,
)
from data.images.gif import FIRST_FRAME
from data.images.jpeg import NO_END, STRAY_BREAK
from data.images.tiff import FIRST_PAGE
from data.records import Defects, assemble
from utils.boxes import pairwise_iou

pytestmark = pytest.mark.quick

CLASSES = ("cat", "dog")


def dataset_of(*images, classes=CLASSES, size=(200, 100), **flags):
    """Images as lists of (label, x1, y1, x2, y2)."""
    rows = [(index, *row) for index, image in enumerate(images) for row in image]
    table = np.array(rows, float).reshape(-1, 6)
    return assemble(
        "set/train",
        classes,
        images=[f"{i}.jpg" for i in range(len(images))],
        image_ids=[str(i) for i in range(len(images))],
        sizes=np.tile(size, (len(images), 1)),
        image_index=table[:, 0],
        boxes=table[:, 2:],
        labels=table[:, 1],
        defects=Defects(),
        **flags,
    )


def kinds(found):
    return [finding.kind for finding in found]


# ------------------------------------------------------------------------------------------------
# Boxes
# ------------------------------------------------------------------------------------------------


def test_pairs_are_of_one_image_only():
    box = (0, 10, 10, 50, 50)
    assert box_findings(dataset_of([box], [box], []), "train") == []


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        ((0, 10, 10, 110, 60), "duplicate box"),
        ((0, 10, 10, 110.2, 60.1), "duplicate box"),
        ((0, 12, 10, 112, 60), "near-duplicate box"),
        ((1, 12, 10, 112, 60), "same box in two classes"),
        ((0, 10, 10, 100, 60), "near-duplicate box"),  # IoU .9 exactly
        ((0, 10, 10, 99, 60), None),
        ((1, 20, 10, 120, 60), None),
    ],
)
def test_boxes_that_are_nearly_the_same(second, kind):
    data = dataset_of([(1, 0, 0, 5, 5)], [(0, 10, 10, 110, 60), second])
    found = box_findings(data, "val")
    assert kinds(found) == ([kind] if kind else [])
    for finding in found:
        assert (finding.severity, finding.split, finding.file) == ("warning", "val", "1.jpg")
        assert finding.object.startswith("cat 10 10 110 60 and ")
        assert finding.message.startswith("1.jpg: cat 10 10 110 60 and ")
        assert finding.message.endswith(" IoU (x1 y1 x2 y2 from 0)")
        assert finding.image == finding.file
        assert finding.shown == (Shown("val", 1, (1, 2)),)
        assert not finding.stops


def test_regions_to_ignore_are_no_objects():
    rows = [(0, 10, 10, 50, 50), (0, 10, 10, 50, 50), (1, 0, 0, 200, 100), (1, 5, 5, 7, 7)]
    ignore = np.array([False, True, True, True])
    assert box_findings(dataset_of(rows, ignore=ignore), "train") == []


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((10, 10, 13, 40), "tiny box"),
        ((10, 10, 40, 11), "tiny box"),
        ((10, 10, 14, 14), None),
        ((0, 0, 200, 100), "box covers the image"),
        ((1, 1, 199, 99), "box covers the image"),
        ((2, 0, 200, 100), None),
        ((-20, -5, 210, 100), "box covers the image"),
    ],
)
def test_tiny_and_whole(box, kind):
    found = box_findings(dataset_of([], [(1, *box)]), "train")
    assert kinds(found) == ([kind] if kind else [])
    assert all(f.severity == "note" and f.shown == (Shown("train", 1, (0,)),) for f in found)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=5),
    seed=st.integers(0, 2**16),
    portion=st.sampled_from([1, 3, 1000]),
)
def test_pairs_against_a_double_loop(counts, seed, portion):
    """Whatever is compared at a time."""
    rng = np.random.default_rng(seed)
    images = [
        [(int(rng.integers(2)), *corner, *(corner + 20 + rng.integers(0, 3, 2))) for corner in at]
        for at in (rng.integers(0, 3, (count, 2)) for count in counts)
    ]
    data = dataset_of(*images)
    expected = []
    for index in range(len(data)):
        rows = range(*data.rows(index).indices(len(data.labels)))
        iou = np.asarray(pairwise_iou(data.boxes, data.boxes)) if rows else None
        expected += [(i, j) for i in rows for j in rows if i < j and iou[i, j] >= NEAR_IOU - 1e-6]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(findings, "MAX_PAIRS", portion)
        found = box_findings(data, "train")
    assert sorted(finding.shown[0].rows for finding in found) == sorted(expected)


# ------------------------------------------------------------------------------------------------
# Classes
# ------------------------------------------------------------------------------------------------


def findings_of_classes(train, val):
    return class_findings(*(split_figures(data, Canvas(100, 100)) for data in (train, val)))


def objects(label, count):
    """That many images with an object of a class."""
    return [[(label, 10, 10, 50, 50)]] * count


def test_rare_and_absent_classes():
    classes = ("a rare one", "many", "unseen", "val only")
    train = dataset_of(*objects(0, 9), *objects(1, 10), classes=classes)
    val = dataset_of(*objects(1, 1), *objects(3, 2), classes=classes)
    found = findings_of_classes(train, val)
    assert kinds(found) == ["class with few objects", "class without objects", "class in val only"]
    assert [finding.message.split(":")[0] for finding in found] == [
        "'a rare one'",
        "'unseen'",
        "'val only'",
    ]
    assert all(finding.severity == "warning" and not finding.stops for finding in found)


@pytest.mark.parametrize(
    ("first", "second", "is_alike"),
    [
        ("Cat", "cat", True),
        ("traffic light", "traffic_light", True),
        ("dog ", "dog", True),
        ("Raspberry_Pi", "Rasberry_Pi", True),
        ("type 1", "type 2", False),
        ("ESP8266", "ESP32", False),
        ("cat", "car", False),
        ("fork", "knife", False),
    ],
)
def test_names_that_look_alike(first, second, is_alike):
    data = dataset_of(*objects(0, 10), *objects(1, 10), classes=(first, second))
    found = findings_of_classes(data, data)
    assert kinds(found) == (["look-alike class names"] if is_alike else [])
    assert all(repr(first) in f.message and repr(second) in f.message for f in found)


def test_a_val_split_without_anything_to_find_stops_training():
    train = dataset_of(*objects(0, 10), *objects(1, 10))
    for val in (
        dataset_of([]),
        dataset_of(*objects(0, 1), difficult=np.array([True])),
        dataset_of(*objects(0, 1), ignore=np.array([True])),
    ):
        (found,) = findings_of_classes(train, val)
        assert (found.kind, found.severity, found.stops) == (
            "nothing to find in val",
            "error",
            True,
        )


# ------------------------------------------------------------------------------------------------
# Readers' messages
# ------------------------------------------------------------------------------------------------


def with_defect(kind, message, images=("a/0.jpg",)):
    data = replace(dataset_of(*[[(0, 10, 10, 50, 50)]] * len(images)), images=tuple(images))
    data.defects.add(kind, message)
    return data


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_what_a_reader_rejects_stops_training_unless_it_is_dropped(policy):
    data = with_defect("unknown class", "a/0.xml, object 2 ('x'), name: expected cat, found 'x'")
    (found,) = reader_findings(data, "train", policy)
    assert (found.kind, found.severity) == ("unknown class", "error")
    assert found.stops == (policy == "error")
    assert (found.file, found.object) == ("a/0.xml", "object 2 ('x')")
    assert found.shown == (), "the picture would be without the object"
    assert found.image == "a/0.jpg"


@pytest.mark.parametrize(
    ("kind", "severity"),
    [("box clipped to the image", "note"), ("corner counted from 0, clipped", "warning")],
)
def test_what_a_reader_mends_stops_nothing(kind, severity):
    (found,) = reader_findings(with_defect(kind, "x.xml, object 1: found"), "train", "error")
    assert (found.severity, found.stops, found.shown) == (severity, False, ())


@pytest.mark.parametrize(
    ("file", "images", "shown"),
    [
        ("s/labels/a/0.txt", ("s/images/a/0.jpg", "s/images/b/0.jpg"), 0),
        ("s/labels/b/0.txt", ("s/images/a/0.jpg", "s/images/b/0.jpg"), 1),
        ("s/labels/c/0.txt", ("s/images/a/0.jpg", "s/images/b/0.jpg"), None),
        ("s/a/labels/0.txt", ("s/b/images/0.png", "s/a/images/0.png"), 1),
        ("s/Annotations/0.xml", ("s/JPEGImages/0.JPG",), 0),
        ("s/0.v1.xml", ("s/0.jpg", "s/0.v1.jpg"), 1),
        ("s/0.xml", ("s/0.jpg", "s/0.png"), None),
        ("s/images/0.png", ("s/images/0.jpg", "s/images/0.png"), 1),
        ("s/train.csv", ("s/train.jpg",), None),
        ("s/train.json", ("s/train.jpg",), None),
        ("s/train.odgt", ("s/train.jpg",), None),
    ],
)
def test_the_image_of_an_annotation_file(file, images, shown):
    """Never one that only has the same stem, or one of two."""
    data = with_defect("box clipped to the image", f"{file}, line 1: found", images)
    (found,) = reader_findings(data, "val", "error")
    assert found.shown == (() if shown is None else (Shown("val", shown),))
    assert found.image == ("" if shown is None else images[shown])


def test_an_image_that_was_left_out_is_named():
    data = with_defect("unreadable image", "s/1.PNG: the file is empty", ("s/1.jpg",))
    (found,) = reader_findings(data, "val", "error")
    assert (found.image, found.shown) == ("s/1.PNG", ())


PLACES = {
    "a.xml, object 3 ('x'), name: expected": "object 3 ('x')",
    "a.xml, object 3 ('x, (y): z'), bndbox/xmin: expected": "object 3 ('x, (y): z')",
    """a.xml, object 3 ("cat's"): expected""": """object 3 ("cat's")""",
    "a.xml, object 3 (nothing), name: expected": "object 3 (nothing)",
    "a.xml, size: expected": "",
    "a.csv, line 7, class: expected": "line 7",
    "a.csv, line 7 ('dog'), xmin: expected": "line 7 ('dog')",
    "a.txt, line 3: expected": "line 3",
    "a.json, annotations[2] (id 9, 'dog'): expected": "annotations[2] (id 9, 'dog')",
    "a.json, annotations[2]: image id: expected": "annotations[2]",
    "a.json, images[0] (id 7): file_name: expected": "images[0] (id 7)",
    "a.json, categories[1] (id 7): expected": "categories[1] (id 7)",
    "a.json, shapes[1] ('cat'), label: expected": "shapes[1] ('cat')",
    "a.xml, shape 2 (box 'cat' of 'b.png'), xtl: expected": "shape 2 (box 'cat' of 'b.png')",
    "a.xml, image 2 ('b.png'): expected": "image 2 ('b.png')",
    "a.json: class 'x' is not asked for": "",
    "a.record, record 1, object 2 ('cat'): expected": "record 1, object 2 ('cat')",
    "a.record, record 1, byte 7: expected": "record 1",
    "a.odgt, line 1 (ID 'a'), gtboxes[0]: expected": "line 1 (ID 'a'), gtboxes[0]",
    "a.odgt, line 1 (ID 'a'), gtboxes[0], hbox: expected": "line 1 (ID 'a'), gtboxes[0]",
    "a.jpg: the file is empty": "",
}


@pytest.mark.parametrize("message", PLACES)
def test_file_and_object_of_every_readers_messages(message):
    (found,) = reader_findings(with_defect("a kind", message), "train", "error")
    assert found.file == re.split("[,:] ", message)[0]
    assert found.object == PLACES[message]


IMAGE_NOTES = (FIRST_FRAME, FIRST_PAGE, NO_END, STRAY_BREAK)


def kind_patterns(tree):
    """Of each `defects.add(kind, ...)` a regex."""
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("defects.add")):
            continue
        kind = node.args[0]
        kind = constants.get(kind.id, kind) if isinstance(kind, ast.Name) else kind
        parts = kind.values if isinstance(kind, ast.JoinedStr) else [kind]
        # What a judge rejects, and what it notes of image files, whose kinds are these
        if ast.unparse(kind) == "note":
            yield from map(re.escape, IMAGE_NOTES)
        elif ast.unparse(kind) != "error.kind":
            yield "".join(
                re.escape(p.value) if isinstance(p, ast.Constant) else ".+" for p in parts
            )


def test_whatever_readers_mend_is_known_to_stop_nothing():
    """A reader counts what it mends in its defects; what it rejects goes through its judge."""
    folder = Path(findings.__file__).parents[1]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")]
    patterns = {pattern for tree in trees for pattern in kind_patterns(tree)}
    assert len(patterns) > 10
    known = {p: [kind for kind in MENDED if re.fullmatch(p, kind)] for p in patterns}
    assert [pattern for pattern, found in known.items() if not found] == []
    assert {kind for found in known.values() for kind in found} == set(MENDED), "and no others"


def test_each_kind_of_defect_in_the_tree_is_seen():
    source = """
_X = "polygon"
defects.add("one", message)
self.judge.defects.add("two", message, count)
judge.defects.add(_X, message, count)
judge.defects.add(f"box {what} the image", message)
self.defects.add(error.kind, str(error))
"""
    found = set(kind_patterns(ast.parse(source)))
    assert found == {"one", "two", "polygon", r"box\ .+\ the\ image"}


def test_a_message_that_is_repeated_is_one_finding():
    data = with_defect("class left out", "a.json: class 'x' is not asked for")
    data.defects.add("class left out", "a.json: class 'x' is not asked for")
    (found,) = reader_findings(data, "train", "error")
    assert found.message == "a.json: class 'x' is not asked for (2 times)"


def test_file_names_may_hold_commas_and_colons(tmp_path):
    path = tmp_path / "a, b: c.csv"
    path.write_text("")
    (found,) = reader_findings(with_defect("bad number", f"{path}, line 3: expected"), "t", "drop")
    assert (found.file, found.object) == (str(path), "line 3")


def test_json_has_stable_keys():
    (found,) = reader_findings(with_defect("bad number", "a.csv, line 3: x"), "train", "error")
    assert json.loads(json.dumps(found.to_dict())) == {
        "kind": "bad number",
        "severity": "error",
        "stops": True,
        "split": "train",
        "file": "a.csv",
        "object": "line 3",
        "image": "",
        "message": "a.csv, line 3: x",
    }
