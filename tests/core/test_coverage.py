"""Anchor coverage: counts by hand, the one line of the diary, no objects."""

import math

import numpy as np
import pytest
import tensorflow as tf

from core import coverage
from core.anchors import AnchorGenerator
from core.coverage import CLASSES, anchor_coverage
from core.targets import Atss, Matcher

pytestmark = pytest.mark.quick

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


def by_iou(positive_iou, boxes=BOXES):
    return anchor_coverage(lambda *canvas: ANCHORS, (200, 200), Matcher(positive_iou), boxes)


def test_counts_by_hand():
    found = by_iou(0.5)
    assert CLASSES == ("0-16", "16-32", "32-64", "64-128", "128-inf")
    np.testing.assert_array_equal(found.counts, [3, 1, 1, 0, 1])
    np.testing.assert_array_equal(found.covered, [2, 0, 1, 0, 0])
    assert found.share == 0.5


def test_a_stricter_iou_covers_less():
    assert by_iou(0.51).covered.tolist() == [1, 0, 1, 0, 0]
    assert by_iou(0.8).covered.tolist() == [1, 0, 0, 0, 0]


def test_line_and_dict_name_what_there_is():
    found = by_iou(0.5)
    assert found.line() == (
        "anchor coverage at IoU 0.5: 50.0% (0-16 px 66.7% of 3, 16-32 px 0.0% of 1, "
        "32-64 px 100.0% of 1, 128-inf px 0.0% of 1)"
    )
    figures = found.to_dict()
    assert (figures["positive_iou"], figures["share"]) == (0.5, 0.5)
    assert figures["sizes"]["0-16"] == {"objects": 3, "share": pytest.approx(2 / 3)}
    assert figures["sizes"]["64-128"] == {"objects": 0, "share": None}


def test_without_objects():
    found = by_iou(0.5, np.zeros((0, 4)))
    assert math.isnan(found.share)
    assert found.to_dict()["share"] is None
    assert "no objects" in found.line()


def test_of_many_objects_some_are_looked_at(monkeypatch):
    """Evenly over all of them: the first half is covered, the second is not."""
    monkeypatch.setattr(coverage, "MAX_OBJECTS", 10)
    boxes = np.concatenate([np.repeat(BOXES[:1], 500, 0), np.repeat(BOXES[2:3], 500, 0)])
    found = by_iou(0.5, boxes)
    assert (found.counts.sum(), found.covered.sum()) == (10, 5)


ATSS_BOXES = np.array(
    [
        [5, 5, 11, 11],  # 0-16, between the centres at 4 and 12
        [3, 3, 9, 9],  # 0-16, around the one at (4, 4)
        [20, 47, 108, 57],  # 16-32, of IoU below .5 with all anchors
        [20, 40, 60, 80],  # 32-64
    ],
    np.float32,
)


@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_by_atss_each_object_counts_as_if_alone(chunk, monkeypatch):
    monkeypatch.setattr(coverage, "CHUNK", chunk)
    generator = AnchorGenerator(sizes=(16, 32, 64, 128, 256))
    found = anchor_coverage(generator, (96, 128), Atss(), ATSS_BOXES.repeat(2, axis=0))
    assert found.counts.tolist() == [4, 2, 2, 0, 0]
    assert found.covered.tolist() == [2, 2, 2, 0, 0]
    assert found.line() == (
        "anchor coverage by ATSS: 75.0% (0-16 px 50.0% of 4, 16-32 px 100.0% of 2, "
        "32-64 px 100.0% of 2)"
    )
    assert found.to_dict()["positive_iou"] is None
    found = anchor_coverage(generator, (96, 128), Matcher(), ATSS_BOXES)
    assert found.covered.tolist() == [0, 0, 1, 0, 0]


def test_by_atss_without_objects():
    found = anchor_coverage(AnchorGenerator(), (64, 64), Atss(), np.zeros(0))
    assert math.isnan(found.share)
    assert found.counts.sum() == 0


def test_by_atss_some_of_many_objects_are_looked_at(monkeypatch):
    """Evenly over all of them: the first half is covered, the second is not."""
    monkeypatch.setattr(coverage, "MAX_OBJECTS", 10)
    generator = AnchorGenerator(sizes=(16, 32, 64, 128, 256))
    boxes = np.concatenate([np.repeat(ATSS_BOXES[3:], 500, 0), np.repeat(ATSS_BOXES[:1], 500, 0)])
    found = anchor_coverage(generator, (96, 128), Atss(), boxes)
    assert (found.counts.sum(), found.covered.sum()) == (10, 5)
