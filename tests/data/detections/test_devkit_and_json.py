"""Detection files: what is written is what is read, and what is wrong is named."""

import dataclasses
import functools
import json
import os

import numpy as np
import pytest

from data.detections.devkit import read_devkit, write_devkit
from data.detections.project_json import JSON
from data.records import DatasetError
from tests.data.detections.tables import random_table
from utils.detections import DetectionTable

pytestmark = pytest.mark.quick

IDS = ("000005", "my photo 1", "ünïcode", "empty")
CLASSES = ("dog", "traffic light", "never")
SIZES = np.array([[640, 480], [10, 20], [33, 44], [5, 5]])


table = functools.partial(random_table, IDS, CLASSES)


def in_order(detections: DetectionTable, key: str | None = None):
    """image, boxes, scores, labels, stably sorted by the key if there is one."""
    order = np.argsort(getattr(detections, key), kind="stable") if key else slice(None)
    return [getattr(detections, name)[order] for name in ("image", "boxes", "scores", "labels")]


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num", [0, 1, 40])
def test_json_round_trip_is_exact(tmp_path, num, dtype):
    written = table(num, dtype=dtype)
    JSON.write(tmp_path / "found.json", written, SIZES)
    read = JSON.read(tmp_path / "found.json", IDS, CLASSES)
    assert (read.image_ids, read.classes) == (IDS, CLASSES)
    sizes = JSON.read_sizes(tmp_path / "found.json")
    assert sizes == dict(zip(IDS, map(tuple, SIZES.tolist()), strict=True))
    assert_same(in_order(read), in_order(written, "image"))


@pytest.mark.parametrize("num", [0, 1, 40])
def test_devkit_round_trip_is_exact_for_float32(tmp_path, num):
    written = table(num)
    write_devkit(tmp_path, "test", written)
    assert_same(in_order(read_devkit(tmp_path, "test", IDS, CLASSES)), in_order(written, "labels"))


def test_devkit_round_trip_of_float64(tmp_path):
    written = table(dtype=np.float64)
    write_devkit(tmp_path, "test", written)
    read, expected = (
        in_order(read_devkit(tmp_path, "test", IDS, CLASSES)),
        in_order(written, "labels"),
    )
    np.testing.assert_allclose(read.pop(1), expected.pop(1), rtol=0, atol=1e-12)
    assert_same(read, expected)


def test_reader_uses_the_order_of_ids_and_classes_it_is_given(tmp_path):
    written = table()
    JSON.write(tmp_path / "found.json", written, SIZES)
    write_devkit(tmp_path, "test", written)
    ids, classes = IDS[::-1], CLASSES[::-1]
    from_json = JSON.read(tmp_path / "found.json", ids, classes)
    for read in (from_json, read_devkit(tmp_path, "test", ids, classes)):
        flipped = dataclasses.replace(read, image=3 - read.image, labels=2 - read.labels)
        by_score = in_order(flipped, "scores")  # scores all differ here
        assert_same(by_score, in_order(written, "scores"))


def test_a_box_without_area_survives_the_devkit(tmp_path):
    """0.1 + 1 - 1 is above 0.1, so such a box comes back inverted by one rounding."""
    point = DetectionTable(("a",), ("dog",), [0], [[0.1, 0.1, 0.1, 0.1]], [0.5], [0])
    write_devkit(tmp_path, "test", point)
    read = read_devkit(tmp_path, "test", ["a"], ["dog"])
    np.testing.assert_allclose(read.boxes, point.boxes, atol=1e-12)


# ---------------------------------------------------------------- the formats themselves


def test_devkit_file_by_hand(tmp_path):
    """Continuous (0, 0, 10, 20) covers the pixels 1 to 10 and 1 to 20."""
    found = DetectionTable(("my photo",), ("dog", "cat"), [0], [[0, 0, 10, 20]], [0.25], [0])
    dog, cat = write_devkit(tmp_path / "new" / "folder", "val", found)
    assert (dog.name, cat.name) == ("comp4_det_val_dog.txt", "comp4_det_val_cat.txt")
    assert dog.read_text() == "my photo 0.25 1.0 1.0 10.0 20.0\n"
    assert cat.read_text() == ""


def test_devkit_file_of_another_program(tmp_path):
    path = tmp_path / "comp4_det_test_dog.txt"
    path.write_bytes(b"my photo 1 0.5 1 1 10 20\r\n\n000005\t.25  2 2 2 2")
    read = read_devkit(tmp_path, "test", IDS, CLASSES)
    np.testing.assert_array_equal(read.image, [1, 0])
    np.testing.assert_array_equal(read.scores, [0.5, 0.25])
    np.testing.assert_array_equal(read.boxes, [[0, 0, 10, 20], [1, 1, 2, 2]])


def test_json_file_by_hand(tmp_path):
    found = DetectionTable(("a", "b"), ("dog",), [1], [[0, 0.5, 10, 20]], [0.25], [0])
    JSON.write(tmp_path / "found.json", found, [[30, 40], [50, 60]])
    assert json.loads((tmp_path / "found.json").read_text()) == [
        {"image_id": "a", "width": 30, "height": 40, "detections": []},
        {
            "image_id": "b",
            "width": 50,
            "height": 60,
            "detections": [{"label": "dog", "score": 0.25, "box": [0, 0.5, 10, 20]}],
        },
    ]


def test_files_of_other_image_sets_are_left_alone(tmp_path):
    write_devkit(tmp_path, "val", table())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        DatasetError, match=r"expected files comp4_det_test_<class>.txt, found none"
    ):
        read_devkit(tmp_path, "test", IDS, CLASSES)


def test_a_missing_class_file_is_a_class_without_detections(tmp_path):
    _, light, _ = write_devkit(tmp_path, "test", table())
    light.unlink()
    assert set(read_devkit(tmp_path, "test", IDS, CLASSES).labels) == {0}


# ---------------------------------------------------------------- atomic writing


def test_a_failed_write_leaves_the_old_files_and_nothing_else(tmp_path, monkeypatch):
    JSON.write(tmp_path / "found.json", table(), SIZES)
    write_devkit(tmp_path, "test", table())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    repeat = "data.detections.devkit._devkit_lines"

    def breaks_in_the_second_class(found, label):
        yield "000005 0.5 1 1 2 2\n"
        if label == 1:
            raise OSError(28, "disk full")

    def breaks(*_):
        yield []
        raise OSError("disk full")

    monkeypatch.setattr(repeat, breaks_in_the_second_class)
    monkeypatch.setattr("data.detections.per_image.PerImage.detections_by_image", breaks)
    with pytest.raises(OSError, match=r"comp4_det_test_traffic light\.txt: .*: disk full; "):
        write_devkit(tmp_path, "test", table(seed=1))
    with pytest.raises(OSError, match=r"found\.json: cannot be written: disk full; "):
        JSON.write(tmp_path / "found.json", table(seed=1), SIZES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_are_complete_when_they_take_their_place(tmp_path, monkeypatch):
    replace, moved = os.replace, []

    def watched(source, target):
        moved.append((len(source.read_text().splitlines()), target.exists()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    found = table()
    write_devkit(tmp_path, "test", found)
    assert moved == [(int((found.labels == label).sum()), False) for label in range(3)]
    assert len(list(tmp_path.iterdir())) == 3


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("000006 .5 1 1 2 2", "line 2: expected one of the 4 images .*, found '000006'"),
        ("000005 .5 1 1 2", "line 2: expected image_id score xmin ymin xmax ymax, found '000005"),
        ("000005 .5 1 1 2 x", "line 2: expected image_id score xmin ymin xmax ymax, found '000005"),
        (".5 1 1 2 2", r"line 2: expected image_id score xmin ymin xmax ymax, found '.5 1 1 2 2'"),
        ("000005 .5 1 1 2 2 3 4", "line 2: expected one of the 4 images .*, found '000005 .5 1'"),
        ("000005 nan 1 1 2 2", "line 2: expected a finite score, found nan"),
        ("000005 .5 1 1 inf 2", r"line 2: .* finite corners, found \[1.0, 1.0, inf, 2.0\]"),
        ("000005 .5 10 1 2 2", r"line 2: .* with xmin <= xmax .* found \[10.0, 1.0, 2.0, 2.0\]"),
    ],
)
def test_wrong_devkit_lines_are_named(tmp_path, line, message):
    (tmp_path / "comp4_det_test_dog.txt").write_text(f"000005 .5 1 1 2 2\n{line}\n")
    with pytest.raises(DatasetError, match=r"comp4_det_test_dog.txt, " + message):
        read_devkit(tmp_path, "test", IDS, CLASSES)


def test_wrong_devkit_directories_are_named(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: expected a directory of detections"):
        read_devkit(tmp_path / "nowhere", "test", IDS, CLASSES)
    write_devkit(tmp_path, "test", table())
    with pytest.raises(DatasetError, match=r"expected only classes of \['dog'\], found files of"):
        read_devkit(tmp_path, "test", IDS, ["dog"])


def entry(**change):
    return {"image_id": "a", "width": 5, "height": 5, "detections": []} | change


def found(**change):
    return entry(detections=[{"label": "dog", "score": 0.5, "box": [0, 0, 1, 1]} | change])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{]", "expected JSON, found .*line 1"),
        ("[" * 100_000, "expected JSON, found maximum recursion depth exceeded"),
        ({}, ": expected `array`, found `object`"),
        ([entry(), 5], "entry 1: expected `object`, found `int`"),
        ([{"image_id": "a"}], "entry 0: expected an object with the field `width`, found none"),
        ([entry(image_id=5)], "entry 0, image_id: expected `str`, found `int`"),
        (
            [entry(image_id="b")],
            "entry 0: expected image_id to be one of the 1 images .a., found 'b'",
        ),
        ([entry(), entry()], r"entry 1 \(image_id 'a'\): expected each image once, found it twi"),
        ([], "expected an entry for each of 1 images.*found none for 1, the first 'a'"),
        ([entry(width=0)], r"entry 0 \(image_id 'a'\): expected width and h.* found 0 x 5"),
        ([entry(height="5")], "entry 0, height: expected `int`, found `str`"),
        ([entry(width=10**30)], "expected width and height in pixels, found 10+ x 5"),
        ([entry(detections=None)], "entry 0, detections: expected `array`, found `null`"),
        ([entry(detections=[3])], r"entry 0, detections\[0\]: expected `object`, found `int`"),
        ([found(label="cat")], r"detections\[0\]: expected label .* of \['dog'\], found 'cat'"),
        ([found(score="high")], r"detections\[0\], score: expected `float`, found `str`"),
        ([found(score=float("nan"))], r"entry 0, detections\[0\]: .* finite score, found nan"),
        ([found(score=10**400)], r"detections\[0\], score: Number out of range"),
        ([found(box=[0, 0, 1])], r"detections\[0\], box: expected `array` of length 4"),
        ([found(box=[0, 0, 1, None])], r"box\[3\]: expected `float`, found `null`"),
        ([found(box=[5, 0, 1, 1])], r"with x1 <= x2 .*found \[5.0, 0.0, 1.0, 1.0\]"),
    ],
)
def test_wrong_json_is_named(tmp_path, content, message):
    path = tmp_path / "found.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DatasetError, match=f"found.json.*{message}"):
        JSON.read(path, ["a"], ["dog"])


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere.json: cannot be read .No such file"):
        JSON.read(tmp_path / "nowhere.json", ["a"], ["dog"])


@pytest.mark.parametrize("image_id", ["", " a", "a\n", "a\nb"])
def test_ids_that_the_devkit_cannot_hold_are_refused(tmp_path, image_id):
    empty = DetectionTable((image_id,), ("dog",), np.zeros(0, int), np.zeros((0, 4)), [], [])
    with pytest.raises(ValueError, match="image_ids: expected one line without blanks"):
        write_devkit(tmp_path, "test", empty)


@pytest.mark.parametrize("name", ["", "a\nb"])
def test_classes_that_are_no_file_names_are_refused(tmp_path, name):
    empty = DetectionTable(("a",), (name,), np.zeros(0, int), np.zeros((0, 4)), [], [])
    with pytest.raises(ValueError, match="image set or class: expected part of a file name"):
        write_devkit(tmp_path, "test", empty)


def test_a_class_name_that_no_file_can_hold_survives(tmp_path):
    classes = ("a/b", "50%", "a%2Fb", "c\\d")
    found = DetectionTable(
        ("x",), classes, np.zeros(4, int), np.tile([1.0, 2, 3, 4], (4, 1)), np.ones(4), np.arange(4)
    )
    paths = write_devkit(tmp_path, "test", found)
    assert paths[0].name == "comp4_det_test_a%2Fb.txt"
    again = read_devkit(tmp_path, "test", ["x"], classes)
    np.testing.assert_array_equal(again.labels, np.arange(4))


def test_sizes_must_fit_the_images(tmp_path):
    with pytest.raises(ValueError, match=r"sizes: expected shape \(4, 2\), found \(3, 2\)"):
        JSON.write(tmp_path / "found.json", table(), SIZES[:3])
