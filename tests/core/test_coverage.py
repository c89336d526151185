"""Anchor coverage: counts by hand, the one line of the diary, no objects."""

import math

import numpy as np
import pytest
import tensorflow as tf

from core import coverage
from core.coverage import SIZES, anchor_coverage

ANCHORS = tf.constant([[0, 0, 10, 10], [0, 0, 40, 40], [100, 100, 200, 200]], tf.float32)
BOXES = np.array(
    [
        [0, 0, 10, 10],  # 0-16, IoU 1
        [0, 0, 10, 5],  # 0-16, IoU exactly .5
        [50, 50, 60, 60],  # 0-16, none
        [0, 0, 16, 16],  # 16-32: a side on the limit; best IoU 100 / 256
        [0, 0, 40, 30],  # 32-64, IoU .75
        [0, 0, 300, 300],  # 128-inf, IoU 10000 / 90000
    ],
    np.float32,
)


def test_counts_by_hand():
    found = anchor_coverage(ANCHORS, BOXES, 0.5)
    assert found.limits == SIZES
    assert found.classes == ("0-16", "16-32", "32-64", "64-128", "128-inf")
    np.testing.assert_array_equal(found.counts, [3, 1, 1, 0, 1])
    np.testing.assert_array_equal(found.covered, [2, 0, 1, 0, 0])
    assert found.share == 0.5


def test_a_stricter_iou_covers_less():
    assert anchor_coverage(ANCHORS, BOXES, 0.51).covered.tolist() == [1, 0, 1, 0, 0]
    assert anchor_coverage(ANCHORS, BOXES, 0.8).covered.tolist() == [1, 0, 0, 0, 0]


def test_line_and_dict_name_what_there_is():
    found = anchor_coverage(ANCHORS, BOXES, 0.5)
    assert found.line() == (
        "anchor coverage at IoU 0.5: 50.0% (0-16 px 66.7% of 3, 16-32 px 0.0% of 1, "
        "32-64 px 100.0% of 1, 128-inf px 0.0% of 1)"
    )
    figures = found.to_dict()
    assert (figures["positive_iou"], figures["share"]) == (0.5, 0.5)
    assert figures["sizes"]["0-16"] == {"objects": 3, "share": pytest.approx(2 / 3)}
    assert figures["sizes"]["64-128"] == {"objects": 0, "share": None}


def test_own_limits():
    found = anchor_coverage(ANCHORS, BOXES, 0.5, limits=(20,))
    assert found.classes == ("0-20", "20-inf")
    assert (found.counts.tolist(), found.covered.tolist()) == ([4, 2], [2, 1])


def test_without_objects():
    found = anchor_coverage(ANCHORS, np.zeros((0, 4)), 0.5)
    assert math.isnan(found.share)
    assert found.to_dict()["share"] is None
    assert "no objects" in found.line()


def test_of_many_objects_some_are_looked_at(monkeypatch):
    """Evenly over all of them: the first half is covered, the second is not."""
    monkeypatch.setattr(coverage, "MAX_OBJECTS", 10)
    boxes = np.concatenate([np.repeat(BOXES[:1], 500, 0), np.repeat(BOXES[2:3], 500, 0)])
    found = anchor_coverage(ANCHORS, boxes, 0.5)
    assert (found.counts.sum(), found.covered.sum()) == (10, 5)
