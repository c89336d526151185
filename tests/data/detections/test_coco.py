"""Detections in COCO's results format: exact round trips, real results, what is wrong is named."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from core.metrics.coco import coco_metric
from core.metrics.ground_truth import GroundTruth
from data.detections.coco import read_coco_results, write_coco_results
from data.formats.coco import read_coco
from data.records import DatasetError
from tests.data.detections.tables import random_table
from utils.detections import DetectionTable

pytestmark = pytest.mark.quick

IDS = ("139", "000139", "photo, ünïcode", "never", "-7")
CLASSES = ("person", "traffic light", "never")
CATEGORIES = (1, 10, 3)


table = functools.partial(random_table, IDS, CLASSES, images=(0, 1, 2, 4))


def columns(found: DetectionTable):
    return [getattr(found, name) for name in ("image", "scores", "labels", "boxes")]


def read(path, image_ids=IDS, classes=CLASSES, category_ids=CATEGORIES) -> DetectionTable:
    return read_coco_results(path, image_ids, classes, category_ids)


def entry(**change):
    return {"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5} | change


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 0), (np.float64, 1e-12)])
@pytest.mark.parametrize("num", [0, 1, 40])
def test_round_trip(tmp_path, num, dtype, atol):
    """Exact for float32: x2 - x1 and its sum with x1 have room in a float64."""
    written = table(num, dtype=dtype)
    write_coco_results(tmp_path / "found.json", written, CATEGORIES)
    again = read(tmp_path / "found.json")
    assert (again.image_ids, again.classes) == (IDS, CLASSES)
    *exact, boxes = columns(again)
    *expected, expected_boxes = columns(written)
    for a, b in zip(exact, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(boxes, expected_boxes, rtol=0, atol=atol)
    assert boxes.dtype == np.float64


def test_reader_uses_the_order_of_ids_and_categories_it_is_given(tmp_path):
    written = table()
    write_coco_results(tmp_path / "found.json", written, CATEGORIES)
    again = read(tmp_path / "found.json", IDS[::-1], CLASSES[::-1], CATEGORIES[::-1])
    flipped = dataclasses.replace(again, image=4 - again.image, labels=2 - again.labels)
    for a, b in zip(columns(flipped), columns(written), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_box_inverted_by_one_rounding_is_read(tmp_path):
    """As the devkit's files give it: 0.1 + 1 - 1 is above 0.1."""
    left = 0.1 + 1 - 1
    point = DetectionTable(("a",), ("dog",), [0], [[left, 0, 0.1, 0]], [0.5], [0])
    write_coco_results(tmp_path / "found.json", point, [1])
    np.testing.assert_array_equal(
        read_coco_results(tmp_path / "found.json", ["a"], ["dog"], [1]).scores, 0.5
    )


# ---------------------------------------------------------------- the format itself


def test_file_by_hand(tmp_path):
    """A string that a number is not written as stays one, however much like a number it looks."""
    ids = ("139", "000139", "1.0", " 5", "٣", "-7", "-0", "a", "9" * 5000)
    found = DetectionTable(
        ids,
        ("dog",),
        np.arange(9),
        np.tile([10.0, 20.5, 40, 60], (9, 1)),
        np.full(9, 0.25),
        [0] * 9,
    )
    write_coco_results(tmp_path / "found.json", found, np.array([18]))
    entries = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert entries[0] == {
        "image_id": 139,
        "category_id": 18,
        "bbox": [10, 20.5, 30, 39.5],
        "score": 0.25,
    }
    expected = [139, *ids[1:5], -7, *ids[6:]]
    assert [entry["image_id"] for entry in entries] == expected


def test_text_ids_stay_texts_and_are_read_in_either_type(tmp_path):
    """As pycocotools wants them, which takes 139 and "139" for two images."""
    found = DetectionTable(
        ("139", "a"), ("dog", "cat"), [0, 1], [[1, 2, 4, 6]] * 2, [0.5] * 2, [0, 1]
    )
    write_coco_results(tmp_path / "found.json", found, ["7", "x"], text_ids=True)
    entries = json.loads((tmp_path / "found.json").read_text())
    ids = [(entry["image_id"], entry["category_id"]) for entry in entries]
    assert ids == [("139", "7"), ("a", "x")]
    for categories in (("7", "x"), (7, "x")):
        again = read_coco_results(tmp_path / "found.json", ("139", "a"), found.classes, categories)
        assert (again.image.tolist(), again.labels.tolist()) == ([0, 1], [0, 1])


def test_file_of_another_program(tmp_path):
    """On one line, with whole numbers, fields of its own and image ids of both kinds."""
    entries = [entry(segmentation=[]), entry(image_id="-7", category_id=10, score=1), entry(id=5)]
    (tmp_path / "found.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(entries).encode())
    found = read(tmp_path / "found.json")
    np.testing.assert_array_equal(found.image, [0, 4, 0])
    np.testing.assert_array_equal(found.labels, [0, 1, 0])
    np.testing.assert_array_equal(found.scores, [0.5, 1, 0.5])
    np.testing.assert_array_equal(found.boxes, [[1, 2, 4, 6]] * 3)


def test_pycocotools_reads_what_is_written(tmp_path):
    truth = COCO()
    truth.dataset = {"images": [{"id": 139}], "annotations": [], "categories": [{"id": 18}]}
    truth.createIndex()
    found = DetectionTable(("139",), ("dog",), [0], [[10, 20, 40, 60]], [0.25], [0])
    write_coco_results(tmp_path / "found.json", found, [18])
    (loaded,) = truth.loadRes(str(tmp_path / "found.json")).dataset["annotations"]
    assert (loaded["image_id"], loaded["category_id"], loaded["score"]) == (139, 18, 0.25)
    assert (loaded["bbox"], loaded["area"]) == ([10, 20, 30, 40], 1200)


def test_what_is_judged_is_what_pycocotools_judges(tmp_path):
    """Ids are texts; an object with `ignore` has to be found, as `ignore` is overwritten there."""
    rng = np.random.default_rng(0)
    corners = [(20 * n + 5, 10 * n + 3) for n in range(4)]
    boxes = [[*corner, 15 + n, 12] for n, corner in enumerate(corners)]
    content = {
        "images": [{"id": name, "file_name": f"{name}.jpg"} for name in ("a", "7")],
        "annotations": [
            {"id": 2 * n + m + 1, "image_id": name, "category_id": "x", "bbox": box,
             "area": 99, "iscrowd": int(n == 2), "ignore": int(n == 1)}
            for n, box in enumerate(boxes) for m, name in enumerate(("a", "7"))
        ],
        "categories": [{"id": "x", "name": "dog"}],
    }  # fmt: skip
    found = [
        {"image_id": entry["image_id"], "category_id": "x", "score": float(rng.random()),
         "bbox": (np.array(entry["bbox"]) + rng.normal(0, 2, 4)).tolist()}
        for entry in content["annotations"][:-2]
    ]  # fmt: skip
    for name, part in (("val", content), ("found", found)):
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    reference = COCO(tmp_path / "val.json")
    theirs = COCOeval(reference, reference.loadRes(str(tmp_path / "found.json")), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    dataset = read_coco(tmp_path, "val", image_sizes={"a": (99, 99), "7": (99, 99)})
    assert dataset.defects.counts() == {"ignore flag": 2}
    ids = dataset.image_ids, dataset.classes, dataset.category_ids
    names = ("image_index", "boxes", "labels", "difficult", "ignore", "areas")
    truth = GroundTruth(*(getattr(dataset, name) for name in names))
    ours = coco_metric(read_coco_results(tmp_path / "found.json", *ids), truth)
    np.testing.assert_array_equal(np.nan_to_num(ours.stats, nan=-1), theirs.stats)
    assert 0 < ours.mean_ap < 1


def test_real_results(shared_data, tmp_path):
    folder = shared_data / "evaluators" / "coco_fakebbox100"
    path = folder / "instances_val2014_fakebbox100_results.json"
    entries = json.loads(path.read_text())
    ids = tuple(dict.fromkeys(str(e["image_id"]) for e in entries))
    categories = sorted({e["category_id"] for e in entries})
    classes = [f"class {c}" for c in categories]
    found = read_coco_results(path, ids, classes, categories)
    np.testing.assert_array_equal(found.scores, [e["score"] for e in entries])
    np.testing.assert_array_equal(found.boxes[:, :2], [e["bbox"][:2] for e in entries])
    write_coco_results(tmp_path / "again.json", found, categories)
    for old, new in zip(entries, json.loads((tmp_path / "again.json").read_text()), strict=True):
        assert (new["image_id"], new["category_id"]) == (old["image_id"], old["category_id"])
        assert new["score"] == old["score"]
        np.testing.assert_allclose(new["bbox"], old["bbox"], rtol=0, atol=1e-12)


# ---------------------------------------------------------------- atomic writing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_coco_results(tmp_path / "found.json", table(), CATEGORIES)
    before = (tmp_path / "found.json").read_bytes()

    def breaks(found, category_ids, text_ids):
        yield {}
        raise OSError("disk full")

    monkeypatch.setattr("data.detections.coco._entries", breaks)
    with pytest.raises(OSError, match="disk full"):
        write_coco_results(tmp_path / "found.json", table(seed=1), CATEGORIES)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"found.json": before}


# ---------------------------------------------------------------- what is refused

NAN = float("nan")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{]", ": expected JSON, found .*line 1"),
        ("", ": expected JSON, found .*line 1"),
        (b"\xff[]", ": expected JSON, found .*can't decode byte 0xff"),
        ("[" * 100_000, ": expected JSON, found maximum recursion depth exceeded"),
        ({}, ": expected `array`, found `object`"),
        ([entry(), 5], ", entry 1: expected `object`, found `int`"),
        ([{"image_id": 139}], ", entry 0: expected an object with the field `category_id`, found"),
        ([entry(image_id=1.5)], r", entry 0, image_id: expected `int \| str`, found `float`"),
        ([entry(), entry(image_id=7)], ", entry 1: expected image_id .* the 5 images .*, found 7"),
        ([entry(image_id="0139")], ", entry 0: expected image_id .* found '0139'"),
        ([entry(image_id="x" * 9999)], r", entry 0: expected image_id .* found 'x+\.\.\.x+'$"),
        ([entry(category_id="01")], ", entry 0: expected category_id to be one of .* found '01'"),
        ([entry(category_id=True)], r", entry 0, category_id: expected `int \| str`, found `bool`"),
        ([entry(bbox=[1, 2, 3])], ", entry 0, bbox: expected `array` of length 4"),
        ([entry(bbox=[1, 2, 3, None])], r", entry 0, bbox\[3\]: expected `float`, found `null`"),
        ([entry(bbox=[1, 2, -3, 4])], r", entry 0: .* \[x, y, w, h\] with w, h >= 0, found \[1.0"),
        ([entry(), entry(bbox=[NAN, 2, 3, 4])], r", entry 1: .* finite corners, found \[nan, 2.0"),
        ([entry(bbox=[1e308, 2, 1e308, 4])], r", entry 0: .* finite corners, found \[1e\+308, 2"),
        ([entry(bbox=[10**400, 2, 3, 4])], r", entry 0, bbox\[0\]: Number out of range"),
        ([entry(score=NAN)], ", entry 0: expected a finite score, found nan"),
        (json.dumps([entry(score=77)]).replace("77", "1e999"), ", entry 0: .* score, found inf"),
    ],
)
def test_wrong_files_are_named(tmp_path, content, message):
    path = tmp_path / "found.json"
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"found.json{message}"):
        read(path)


def test_other_categories_are_counted(tmp_path):
    entries = [entry(), *(entry(category_id=c) for c in (80, 90, 80))]
    (tmp_path / "found.json").write_text(json.dumps(entries))
    with pytest.raises(DatasetError) as caught:
        read(tmp_path / "found.json")
    assert str(caught.value).endswith(
        "found.json, entry 1: expected category_id to be one of [1, 10, 3], found 80; 3 of 4 "
        "entries are of 2 categories that are not judged here: leave them out of the file, or "
        "judge all its classes"
    )


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    path = tmp_path / "nowhere.json"
    with pytest.raises(DatasetError, match=f"{path}: cannot be read .No such file"):
        read(path)
    with pytest.raises(DatasetError, match=f"{tmp_path}: expected a regular file, found a folder"):
        read(tmp_path)


@pytest.mark.parametrize("category_ids", [(1, 2), (1, 2, 2), (1, 2, 3, 4)])
def test_category_ids_must_fit_the_classes(tmp_path, category_ids):
    message = "category_ids: expected 3 different ids, one a class, found"
    with pytest.raises(ValueError, match=message):
        write_coco_results(tmp_path / "found.json", table(), category_ids)
    assert not list(tmp_path.iterdir())
    (tmp_path / "found.json").write_text("[]")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "found.json", category_ids=category_ids)


SAMPLE = json.dumps(
    [entry(), entry(image_id="-7", category_id=10, bbox=[0.5, 1e2, 0, 7.25])]
).encode()
SNIPPETS = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-",
    b"9" * 400,
    b"9" * 5000,
    b"null",
    b'"',
    b"[" * 2000,
)
SNIPPETS += (b"{}", b"],[", b"},{", b"\\udc80", b"\xff", b"\x00", b"true")


@settings(max_examples=200, deadline=None)
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, len(SAMPLE)),
            st.integers(0, 12),
            st.sampled_from(SNIPPETS) | st.binary(max_size=4),
        ),
        max_size=4,
    )
)
def test_damaged_files_give_a_table_or_a_dataset_error(tmp_path_factory, edits):
    data = SAMPLE
    for start, length, new in edits:
        data = data[:start] + new + data[start + length :]
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(data)
    try:
        found = read(path)
    except DatasetError:
        return
    assert np.isfinite(found.boxes).all()
