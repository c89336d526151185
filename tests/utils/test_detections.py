"""The table of detections: one type, checked once."""

import dataclasses

import numpy as np
import pytest

from utils.detections import DetectionTable

pytestmark = pytest.mark.quick


def table(**change) -> DetectionTable:
    good = {
        "image_ids": ["a", "b", "c"],
        "classes": ["dog", "cat"],
        "image": [2, 0, 2],
        "boxes": np.tile(np.float32([1, 2, 3, 4]), (3, 1)),
        "scores": np.float32([0.7, 0.1, 0.9]),
        "labels": [1, 0, 0],
    }
    return DetectionTable(**good | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((3, 5))}, r"boxes: expected shape \(3, 4\), found \(3, 5\)"),
        ({"boxes": [[0, 0, np.inf, 1]] * 3}, "boxes: expected finite numbers, found .*inf.* row 0"),
        ({"scores": np.zeros(2)}, r"scores: expected shape \(3,\), found \(2,\)"),
        ({"scores": [0.5, np.nan, 0]}, "scores: expected finite numbers, found nan in row 1"),
        ({"labels": [0, 0, -1]}, r"labels: expected indices 0 to 1 .* found -1 in row 2"),
        ({"labels": np.zeros(3)}, "labels: expected an integer type, found float64"),
        ({"labels": [0]}, r"labels: expected shape \(3,\), found \(1,\)"),
        ({"image": [0, 3, 0]}, r"image: expected indices 0 to 2 .* found 3 in row 1"),
        ({"image": [0, 0, -1]}, "image: expected indices 0 to 2 .* found -1 in row 2"),
        ({"image": [[0, 1, 2]]}, r"image: expected shape \(any length,\), found \(1, 3\)"),
        ({"image_ids": ("a", "a", "b")}, "image_ids: expected different names, found 'a' twice"),
        ({"classes": ("a", "a")}, "classes: expected different names, found 'a' twice"),
    ],
)
def test_tables_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        table(**change)


def test_all_have_the_same_types():
    found = table()
    assert (found.image_ids, found.classes) == (("a", "b", "c"), ("dog", "cat"))
    types = [getattr(found, name).dtype for name in ("image", "boxes", "scores", "labels")]
    assert types == [np.int64, np.float64, np.float64, np.int64]
    nothing = table(image=[], boxes=[], scores=[], labels=[])
    assert (len(nothing), nothing.boxes.shape) == (0, (0, 4))


def test_rows_of_each_image_keep_their_order():
    assert [rows.tolist() for rows in table().rows_by_image()] == [[1], [], [0, 2]]
    nothing = dataclasses.replace(table(), image=[], boxes=[], scores=[], labels=[])
    assert [rows.tolist() for rows in nothing.rows_by_image()] == [[], [], []]


def test_a_score_on_the_threshold_is_at_least_that():
    """0.7 lies below 0.7 as float32 has it and 0.1 above: both are kept."""
    assert table().at_least(0.7).scores.tolist() == pytest.approx([0.7, 0.9])
    exact = table(scores=[0.1, 0.7, 0.05])
    assert exact.at_least(0.1).scores.tolist() == [0.1, 0.7]
    assert exact.at_least(0.7).labels.tolist() == [0]
    assert len(exact.at_least(0.8)) == 0
