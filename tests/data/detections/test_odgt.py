"""CrowdHuman's detection files: exact round trips, CrowdDet's tags, what is wrong is named."""

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.detections.odgt import ODGT
from data.records import DatasetError
from tests.data.detections.tables import random_table
from utils.detections import DetectionTable

pytestmark = pytest.mark.quick

IDS = ("273271,c9db000d5146c15", "my photo 1", "ünïcode", "empty")
CLASSES = ("person", "head")
SIZES = np.array([[640, 480], [10, 20], [33, 44], [5, 5]])


table = functools.partial(random_table, IDS, CLASSES)


def columns(found: DetectionTable, rows=slice(None)):
    return [getattr(found, name)[rows] for name in ("image", "scores", "labels", "boxes")]


def box(**change):
    return {"box": [1, 2, 3, 4], "score": 0.5, "tag": "person"} | change


def line(*boxes, **change):
    return {"ID": "b", "width": 30, "height": 40, "dtboxes": list(boxes)} | change


def write(path, *lines):
    path.write_text("".join(json.dumps(value) + "\n" for value in lines))


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 0), (np.float64, 1e-12)])
@pytest.mark.parametrize("num", [0, 1, 40])
def test_round_trip(tmp_path, num, dtype, atol):
    """Exact for float32: x2 - x1 and its sum with x1 have room in a float64."""
    written = table(num, dtype=dtype)
    ODGT.write(tmp_path / "found.odgt", written, SIZES)
    assert len((tmp_path / "found.odgt").read_text("utf-8").splitlines()) == 4
    again = ODGT.read(tmp_path / "found.odgt", IDS, CLASSES)
    assert (again.image_ids, again.classes) == (IDS, CLASSES)
    sizes = ODGT.read_sizes(tmp_path / "found.odgt")
    assert sizes == dict(zip(IDS, map(tuple, SIZES.tolist()), strict=True))
    *exact, boxes = columns(again)
    *expected, expected_boxes = columns(written, np.argsort(written.image, kind="stable"))
    for a, b in zip(exact, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(boxes, expected_boxes, rtol=0, atol=atol)


def test_reader_uses_the_order_of_ids_and_classes_it_is_given(tmp_path):
    written = table()
    ODGT.write(tmp_path / "found.odgt", written, SIZES)
    again = ODGT.read(tmp_path / "found.odgt", IDS[::-1], CLASSES[::-1])
    order = np.argsort(written.image, kind="stable")
    np.testing.assert_array_equal(3 - again.image, written.image[order])
    np.testing.assert_array_equal(1 - again.labels, written.labels[order])


# ---------------------------------------------------------------- the format itself


def test_file_by_hand(tmp_path):
    found = DetectionTable(("a", "b"), CLASSES, [1], [[10, 20.5, 40, 60]], [0.25], [1])
    ODGT.write(tmp_path / "found.odgt", found, [[30, 40], [50, 60]])
    first, second = map(json.loads, (tmp_path / "found.odgt").read_text().splitlines())
    assert first == {"ID": "a", "width": 30, "height": 40, "dtboxes": []}
    assert second == {
        "ID": "b",
        "width": 50,
        "height": 60,
        "dtboxes": [{"box": [10, 20.5, 30, 39.5], "score": 0.25, "tag": "head"}],
    }


def test_numbers_as_tags_and_fields_of_other_programs(tmp_path):
    """CrowdDet writes tag 1 for a person, and the ground truth's boxes beside its own."""
    text = json.dumps(line(box(tag=1), box(tag=2, box=[0, 0, 2.5, 1]), box(), gtboxes=[]))
    (tmp_path / "found.odgt").write_bytes(b"\n" + text.encode() + b"\r\n\r\n")
    found = ODGT.read(tmp_path / "found.odgt", ["b"], CLASSES)
    np.testing.assert_array_equal(found.labels, [0, 1, 0])
    np.testing.assert_array_equal(found.boxes, [[1, 2, 4, 6], [0, 0, 2.5, 1], [1, 2, 4, 6]])
    assert ODGT.read_sizes(tmp_path / "found.odgt") == {"b": (30, 40)}


def test_a_class_named_like_a_number_is_that_class(tmp_path):
    write(tmp_path / "found.odgt", line(box(tag="1"), box(tag=1)))
    found = ODGT.read(tmp_path / "found.odgt", ["b"], ["2", "1"])
    np.testing.assert_array_equal(found.labels, [1, 0])


def test_no_images_give_an_empty_file(tmp_path):
    nothing = DetectionTable((), CLASSES, np.zeros(0, int), np.zeros((0, 4)), [], np.zeros(0, int))
    ODGT.write(tmp_path / "found.odgt", nothing, np.zeros((0, 2), int))
    assert (tmp_path / "found.odgt").read_bytes() == b""
    assert len(ODGT.read(tmp_path / "found.odgt", [], CLASSES)) == 0


# ---------------------------------------------------------------- atomic writing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    ODGT.write(tmp_path / "found.odgt", table(), SIZES)
    before = (tmp_path / "found.odgt").read_bytes()

    def breaks(*_):
        yield []
        raise OSError("disk full")

    monkeypatch.setattr("data.detections.per_image.PerImage.detections_by_image", breaks)
    with pytest.raises(OSError, match="disk full"):
        ODGT.write(tmp_path / "found.odgt", table(seed=1), SIZES)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"found.odgt": before}


# ---------------------------------------------------------------- what is refused

NAN = float("nan")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("{", "line 2: expected JSON, found"),
        ('{"x":' + "[" * 100_000, "line 2: expected JSON, found maximum recursion depth exceeded"),
        ([], "line 2: expected `object`, found `array`"),
        ({"ID": "b"}, "line 2: expected an object with the field `width`, found none"),
        (line(ID=5), "line 2, ID: expected `str`, found `int`"),
        (line(ID="c"), "line 2: expected ID to be one of the 2 images .a, b., found 'c'"),
        (line(ID="a"), r"line 2 \(ID 'a'\): expected each image once, found it twice"),
        (line(width="30"), "line 2, width: expected `int`, found `str`"),
        (line(width=0), r"line 2 \(ID 'b'\): expected width and height in pixels, found 0 x 40"),
        (line(height=10**30), "expected width and height in pixels, found 30 x 10+"),
        (line(dtboxes=None), "line 2, dtboxes: expected `array`, found `null`"),
        (line(3), r"line 2, dtboxes\[0\]: expected `object`, found `int`"),
        (
            line(box(), box(score="high")),
            r"line 2, dtboxes\[1\], score: expected `float`, found `st",
        ),
        (line(box(box=[1, 2, 3])), r"line 2, dtboxes\[0\], box: expected `array` of length 4"),
        (
            line(box(tag="mask")),
            r"line 2, dtboxes\[0\]: expected tag to be one of \['person', 'head'",
        ),
        (line(box(tag=0)), r"dtboxes\[0\]: expected tag .* or a number from 1 to 2, found 0"),
        (line(box(tag=3)), r"dtboxes\[0\]: expected tag .* or a number from 1 to 2, found 3"),
        (line(box(), box(score=NAN)), r"line 2, dtboxes\[1\]: expected a finite score, found nan"),
        (line(box(box=[1, 2, 3, NAN])), r"line 2, dtboxes\[0\]: expected a box .* finite corners"),
        (
            line(box(box=[1, 2, 3, -1])),
            r"line 2, dtboxes\[0\]: expected a box .* with w, h >= 0, fo",
        ),
    ],
)
def test_wrong_lines_are_named(tmp_path, second, message):
    text = second if isinstance(second, str) else json.dumps(second)
    (tmp_path / "found.odgt").write_text(json.dumps(line(box(), ID="a")) + "\n" + text)
    with pytest.raises(DatasetError, match=message) as caught:
        ODGT.read(tmp_path / "found.odgt", ["a", "b"], CLASSES)
    assert str(caught.value).startswith(f"{tmp_path / 'found.odgt'}, line 2")


def test_every_image_must_be_there(tmp_path):
    write(tmp_path / "found.odgt", line())
    with pytest.raises(
        DatasetError,
        match=r"found.odgt: expected an entry for each of 3 .* none for 2, the first 'c'",
    ):
        ODGT.read(tmp_path / "found.odgt", ["b", "c", "d"], CLASSES)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere.odgt: cannot be read .No such file"):
        ODGT.read(tmp_path / "nowhere.odgt", IDS, CLASSES)


def test_sizes_must_fit_the_images(tmp_path):
    with pytest.raises(ValueError, match=r"sizes: expected shape \(4, 2\), found \(3, 2\)"):
        ODGT.write(tmp_path / "found.odgt", table(), SIZES[:3])


SAMPLE = "\n".join(
    json.dumps(value) for value in (line(box(), box(tag=2), ID="a"), line(), line(box(), ID="c"))
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
SNIPPETS += (b"{}", b"],[", b"\n", b"\\udc80", b"\xff", b"\x00", b"true")


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
    path = tmp_path_factory.getbasetemp() / "damaged.odgt"
    path.write_bytes(data)
    try:
        found = ODGT.read(path, ["a", "b", "c"], CLASSES)
    except DatasetError:
        return
    assert np.isfinite(found.boxes).all()
    assert (np.array(list(ODGT.read_sizes(path).values())) > 0).all()
