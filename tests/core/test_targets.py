"""The matcher against a brute-force one in plain Python."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from core.targets import BACKGROUND, BETWEEN, Matcher, best_overlaps

PADDING, IGNORE = -1, -2


def match(matcher, anchors, boxes, labels):
    """Lists in, an array out; boxes (B, G, 4) and labels (B, G)."""
    labels = tf.constant(np.array(labels, np.int32))
    boxes = tf.reshape(tf.constant(np.array(boxes, np.float32)), [*labels.shape, 4])
    matches = matcher(tf.constant(anchors, tf.float32), boxes, labels)
    assert matches.dtype == tf.int32
    return matches.numpy()


def intersection(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return np.float32(max(width, 0)) * np.float32(max(height, 0))


def box_area(a):
    return np.float32(max(a[2] - a[0], 0)) * np.float32(max(a[3] - a[1], 0))


def box_iou(a, b):
    shared = intersection(a, b)
    union = box_area(a) + box_area(b) - shared
    return shared / union if union > 0 else np.float32(0)


def plain_matches(anchors, boxes, labels, low_quality):
    """One image, positive from .5, background below .4, in float32 like the thresholds."""
    matches = []
    objects = [g for g, label in enumerate(labels) if label >= 0]
    regions = [g for g, label in enumerate(labels) if label == IGNORE]
    best_of = {g: max(box_iou(a, boxes[g]) for a in anchors) for g in objects}
    for anchor in anchors:
        overlaps = [(box_iou(anchor, boxes[g]), g) for g in objects]
        value, first = max(overlaps, key=lambda pair: pair[0], default=(np.float32(-1), None))
        is_best = low_quality and any(v > 0 and v == best_of[g] for v, g in overlaps)
        inside = [
            intersection(anchor, boxes[g]) / box_area(anchor) if box_area(anchor) else 0
            for g in regions
        ]
        if value >= np.float32(0.5) or is_best:
            matches.append(first)
        elif value >= np.float32(0.4) or any(share >= 0.5 for share in inside):
            matches.append(BETWEEN)
        else:
            matches.append(BACKGROUND)
    return matches


def test_the_docstrings_example():
    """Anchors of IoU .6, .45 and .2 with the one object."""
    anchors = [[0, 0, 10, 6], [0, 0, 10, 4.5], [0, 0, 10, 2]]
    matches = match(Matcher(), anchors, [[[0, 0, 10, 10]]], [[3]])
    np.testing.assert_array_equal(matches, [[0, BETWEEN, BACKGROUND]])


def test_thresholds_themselves_count_upwards():
    """IoU .5 is an object already, .4 is not background any more."""
    anchors = [[0, 0, 10, 5], [0, 0, 10, 4]]
    matches = match(Matcher(), anchors, [[[0, 0, 10, 10]]], [[0]])
    np.testing.assert_array_equal(matches, [[0, BETWEEN]])


def test_ties_go_to_the_first_object():
    """Two boxes in the same place; a padded row before them is never chosen."""
    box = [0, 0, 10, 10]
    matches = match(Matcher(), [box], [[box, box, box]], [[PADDING, 2, 1]])
    np.testing.assert_array_equal(matches, [[1]])


# Small whole numbers make equal overlaps and overlaps at the thresholds frequent.
whole = st.integers(0, 8)
side = st.integers(1, 6)
box = st.tuples(whole, whole, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
label = st.sampled_from([0, 1, PADDING, IGNORE])
image = st.lists(st.tuples(box, label), min_size=0, max_size=5)


@st.composite
def batches(draw):
    """Anchors, (B, G, 4) boxes and (B, G) labels; images filled up to the longest with padding."""
    anchors = draw(st.lists(box, min_size=1, max_size=12))
    images = draw(st.lists(image, min_size=1, max_size=3))
    longest = max(map(len, images))
    padded = [rows + [((0, 0, 0, 0), PADDING)] * (longest - len(rows)) for rows in images]
    return (
        anchors,
        [[row[0] for row in rows] for rows in padded],
        [[row[1] for row in rows] for rows in padded],
    )


@pytest.mark.parametrize("low_quality", [False, True])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(case=batches())
def test_equals_brute_force(low_quality, case):
    """Ties, padding anywhere, regions to ignore, no rows at all, images of different numbers."""
    anchors, boxes, labels = case
    expected = [
        plain_matches(anchors, b, k, low_quality) for b, k in zip(boxes, labels, strict=True)
    ]
    np.testing.assert_array_equal(match(Matcher(low_quality=low_quality), *case), expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=batches())
def test_low_quality_gives_each_object_its_best_anchor(case):
    """Any object with any overlap: all of its best anchors are positive, for it or a better one."""
    anchors, boxes, labels = case
    matches = match(Matcher(low_quality=True), *case)
    without = match(Matcher(), *case)
    for i in range(len(labels)):
        for b, k in zip(boxes[i], labels[i], strict=True):
            overlaps = np.array([box_iou(a, b) for a in anchors])
            if k >= 0 and overlaps.max() > 0:
                assert np.all(matches[i][overlaps == overlaps.max()] >= 0)
    # What was positive without the rule stays as it was.
    np.testing.assert_array_equal(matches[without >= 0], without[without >= 0])


def test_low_quality_by_hand():
    """The object that no anchor fits takes its best one only with the rule; IoU is .25."""
    anchors = [[0, 0, 10, 10], [20, 20, 40, 40], [60, 60, 70, 70]]
    boxes, labels = [[[0, 0, 10, 10], [20, 20, 30, 30]]], [[0, 1]]
    np.testing.assert_array_equal(
        match(Matcher(), anchors, boxes, labels), [[0, BACKGROUND, BACKGROUND]]
    )
    np.testing.assert_array_equal(
        match(Matcher(low_quality=True), anchors, boxes, labels), [[0, 1, BACKGROUND]]
    )


def test_low_quality_anchor_answers_for_the_object_it_overlaps_most():
    """torchvision's rule: the shared best anchor goes to the other object."""
    anchors = [[0, 0, 20, 10]]
    boxes = [[[16, 0, 26, 10], [0, 0, 18, 10]]]
    matches = match(Matcher(low_quality=True), anchors, boxes, [[0, 0]])
    np.testing.assert_array_equal(matches, [[1]])


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_image_without_objects_is_all_background(low_quality, rows):
    """Even where a padded row holds a box just like an anchor."""
    anchors = np.array([[0, 0, 10, 10], [5, 5, 25, 25]], np.float32)
    boxes, labels = np.tile(anchors[0], (2, rows, 1)), np.full((2, rows), PADDING)
    matches = match(Matcher(low_quality=low_quality), anchors, boxes, labels)
    np.testing.assert_array_equal(matches, np.full((2, 2), BACKGROUND))


def test_regions_to_ignore_by_hand():
    """Half inside is enough; less is background; a positive anchor inside stays positive."""
    region = [0, 0, 10, 10]
    anchors = [[5, 0, 15, 10], [6, 0, 16, 10], [2, 2, 6, 6], [100, 100, 110, 110]]
    boxes, labels = [[region, [2, 2, 6, 6]]], [[IGNORE, 4]]
    matches = match(Matcher(), anchors, boxes, labels)
    np.testing.assert_array_equal(matches, [[BETWEEN, BACKGROUND, 1, BACKGROUND]])


def test_a_region_in_one_image_leaves_the_other_alone():
    anchors = [[0, 0, 10, 10]]
    boxes = [[[0, 0, 20, 20]], [[0, 0, 20, 20]]]
    matches = match(Matcher(), anchors, boxes, [[IGNORE], [PADDING]])
    np.testing.assert_array_equal(matches, [[BETWEEN], [BACKGROUND]])


def test_a_graph_of_unknown_sizes_gives_the_same_matches():
    spec = [
        tf.TensorSpec([None, 4]),
        tf.TensorSpec([None, None, 4]),
        tf.TensorSpec([None, None], tf.int32),
    ]
    matcher = Matcher(low_quality=True)
    graph = tf.function(matcher, input_signature=spec)
    anchors = tf.constant([[0.0, 0, 10, 6], [0, 0, 10, 4.5], [0, 0, 10, 2]])
    boxes = tf.constant([[[0.0, 0, 10, 10], [0, 0, 10, 2]]])
    for labels in ([[0, 1]], [[0, IGNORE]], [[0, PADDING]]):
        labels = tf.constant(labels)
        np.testing.assert_array_equal(
            graph(anchors, boxes, labels), matcher(anchors, boxes, labels)
        )
    none = graph(anchors, tf.zeros([2, 0, 4]), tf.zeros([2, 0], tf.int32))
    np.testing.assert_array_equal(none, np.full((2, 3), BACKGROUND))


def test_best_overlaps():
    """Chunks of any length, one that does not divide the number of boxes, and no boxes."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 20, (25, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 15, (25, 2))], 1).astype(np.float32)
    anchors, objects = boxes[:18], boxes[18:]
    expected = [max(box_iou(a, b) for a in anchors) for b in objects]
    for chunk in (1, 3, 7, 256):
        overlaps = best_overlaps(tf.constant(anchors), tf.constant(objects), chunk)
        np.testing.assert_allclose(overlaps, expected, rtol=1e-6)
    assert best_overlaps(tf.constant(anchors), tf.zeros([0, 4])).shape == (0,)


@pytest.mark.parametrize("thresholds", [(0.4, 0.5), (0.5, -0.1), (1.1, 0.4)])
def test_thresholds_out_of_order_are_refused(thresholds):
    with pytest.raises(ValueError, match="expected 0 <= negative_iou <= positive_iou <= 1"):
        Matcher(*thresholds)
