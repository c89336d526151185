"""The matchers against brute-force ones in plain Python."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import Config, from_dict, override, to_dict
from configs import schema as settings_of
from core.anchors import AnchorGenerator
from core.build import build_matcher
from core.targets import BACKGROUND, BETWEEN, Atss, Matcher, best_overlaps

pytestmark = pytest.mark.full

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


@pytest.mark.slow
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


# ------------------------------------------------------------------------------------------------
# Atss
# ------------------------------------------------------------------------------------------------

GRID = AnchorGenerator(sizes=(16, 32, 64, 128, 256), scales=[1.0, 1.3])  # six anchors a cell


def match_atss(matcher, generator, size, boxes, labels):
    labels = tf.constant(np.array(labels, np.int32))
    boxes = tf.reshape(tf.constant(np.array(boxes, np.float32)), [*labels.shape, 4])
    matches = matcher(generator(*size), boxes, labels, generator.level_counts(*size))
    assert matches.dtype == tf.int32
    return matches.numpy()


def plain_atss(anchors, counts, num_anchors, top_k, boxes, labels):
    """One image, object by object and level by level, in float64."""
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    best = np.full(len(anchors), -1.0)
    matches = np.full(len(anchors), BACKGROUND)
    for g, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        if label == IGNORE:
            for n, anchor in enumerate(anchors):
                inside = intersection(anchor, box) / box_area(anchor) >= 0.5
                matches[n] = BETWEEN if inside and matches[n] == BACKGROUND else matches[n]
        if label < 0:
            continue
        distances = np.hypot(*(centers - (box[:2] + box[2:]) / 2).T)
        candidates, start = [], 0
        for count in counts:
            order = np.argsort(distances[start : start + count], kind="stable")
            candidates += [start + n for n in order[: top_k * num_anchors]]
            start += count
        overlaps = np.array([box_iou(anchors[n], box) for n in candidates], np.float64)
        threshold = overlaps.mean() + overlaps.std()
        for n, value in zip(candidates, overlaps, strict=True):
            x, y = centers[n]
            is_inside = box[0] < x < box[2] and box[1] < y < box[3]
            if is_inside and value >= threshold and value > best[n]:
                best[n], matches[n] = value, g
    return matches


def random_objects(rng, images, rows, size, sides=(6, 90)):
    """Boxes with the centre in the image; no two are as far from anything."""
    height, width = size
    middle = rng.uniform(0, (width, height), (images, rows, 2))
    half = np.exp(rng.uniform(*np.log(sides), (images, rows, 2))) / 2
    return np.concatenate([middle - half, middle + half], axis=-1).astype(np.float32)


@pytest.mark.parametrize(("top_k", "size"), [(9, (96, 128)), (4, (96, 128)), (1, (40, 72))])
def test_atss_equals_brute_force(top_k, size):
    """Objects that overlap, padding, regions to ignore, levels of fewer cells than top_k."""
    rng = np.random.default_rng(top_k)
    boxes = random_objects(rng, 6, 7, size)
    labels = rng.choice([0, 1, 2, PADDING, IGNORE], (6, 7))
    matches = match_atss(Atss(top_k, 6), GRID, size, boxes, labels)
    anchors, counts = GRID(*size).numpy(), GRID.level_counts(*size)
    expected = [
        plain_atss(anchors, counts, 6, top_k, b, k) for b, k in zip(boxes, labels, strict=True)
    ]
    np.testing.assert_array_equal(matches, expected)
    assert {BACKGROUND, BETWEEN} < set(matches.ravel())
    assert (matches >= 0).sum() > 20


def test_atss_by_hand():
    """Squares of one size a level, of 16 on P3, and one of 16 around the centre of its cell.

    Candidates: on P3 the cell itself (IoU 1) and the four beside it, half covered (IoU 1/3); on P4
    to P7 all cells there are in 24 x 24 pixels: 4, 1, 1, 1, of which the first on P4 covers the
    object (IoU 1/4). Mean + standard deviation of these is above 1/3: one anchor is its.
    """
    generator = AnchorGenerator(sizes=(16, 32, 64, 128, 256), ratios=[1.0], scales=[1.0])
    assert generator.level_counts(24, 24) == [9, 4, 1, 1, 1]
    box = [4, 4, 20, 20]  # around (12, 12), the middle of the nine cells
    expected = np.full(16, BACKGROUND)
    expected[4] = 0
    found = match_atss(Atss(5, 1), generator, (24, 24), [[box]], [[3]])
    np.testing.assert_array_equal(found, [expected])


def test_atss_threshold_is_each_objects_own():
    """IoU .5 would refuse all anchors of a long thin object; ATSS takes the best there are."""
    box = [20.0, 47.0, 108.0, 57.0]
    size = (96, 128)
    assert not (match(Matcher(), GRID(*size), [[box]], [[0]]) >= 0).any()
    found = match_atss(Atss(9, 6), GRID, size, [[box]], [[0]])[0]
    taken = [box_iou(anchor, box) for anchor in GRID(*size).numpy()[found == 0]]
    assert len(taken) > 3
    assert max(taken) < 0.5


def test_atss_gives_a_shared_anchor_to_the_object_it_overlaps_more():
    """Two boxes in one place, one a little larger, in either order; equal ones: to the first."""
    size, box, larger = (96, 128), [40, 40, 72, 72], [36, 36, 76, 76]
    alone = match_atss(Atss(9, 6), GRID, size, [[box]], [[0]])[0]
    for rows, own in (([box, larger], 0), ([larger, box], 1)):
        found = match_atss(Atss(9, 6), GRID, size, [rows], [[0, 0]])[0]
        for n in np.flatnonzero(alone == 0):
            values = [box_iou(GRID(*size).numpy()[n], row) for row in rows]
            assert found[n] == int(np.argmax(values))
        assert (found == own).any()
    found = match_atss(Atss(9, 6), GRID, size, [[box, box]], [[0, 0]])[0]
    np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_atss_gives_an_anchor_to_any_single_object_of_a_cells_size(offset):
    """With the paper's anchors, whatever its place and shape, it has anchors: centres inside."""
    generator = AnchorGenerator(center_offset=offset)
    size = (256, 320)
    boxes = random_objects(np.random.default_rng(0), 300, 1, size, sides=(17, 250))
    boxes = np.clip(boxes, 0, [320, 256, 320, 256])
    boxes = boxes[(boxes[:, 0, 2:] - boxes[:, 0, :2] > 16.5).all(axis=1)]
    assert len(boxes) > 200
    matches = match_atss(Atss(), generator, size, boxes, np.zeros(boxes.shape[:2]))
    assert ((matches == 0).sum(axis=1) > 0).all()
    anchors = generator(*size).numpy()
    x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).T
    is_inside = (
        (boxes[..., 0] < x) & (x < boxes[..., 2]) & (boxes[..., 1] < y) & (y < boxes[..., 3])
    )
    assert is_inside[matches == 0].all()


def test_atss_leaves_an_object_between_centres_without_an_anchor():
    """P3's centres are at 4, 12, 20: a box of six pixels between them has none inside."""
    matcher, size = Atss(9, 6), (96, 128)
    assert not (match_atss(matcher, GRID, size, [[[5, 5, 11, 11]]], [[0]]) >= 0).any()
    assert (match_atss(matcher, GRID, size, [[[3, 3, 9, 9]]], [[0]]) >= 0).any()


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_atss_of_an_image_without_objects_is_all_background(rows):
    """Even where a padded row holds a box just like an anchor."""
    boxes, labels = np.tile([40, 40, 72, 72], (2, rows, 1)), np.full((2, rows), PADDING)
    matches = match_atss(Atss(9, 6), GRID, (96, 128), boxes, labels)
    np.testing.assert_array_equal(matches, np.full(matches.shape, BACKGROUND))
    assert matches.shape == (2, sum(GRID.level_counts(96, 128)))


def test_atss_looks_away_from_regions_to_ignore():
    """Anchors half inside are nothing, those of an object inside it stay the object's."""
    region, box, size = [30, 30, 100, 90], [40, 40, 72, 72], (96, 128)
    anchors = GRID(*size).numpy()
    found = match_atss(Atss(9, 6), GRID, size, [[region, box]], [[IGNORE, 0]])[0]
    alone = match_atss(Atss(9, 6), GRID, size, [[box]], [[0]])[0]
    np.testing.assert_array_equal(found == 1, alone == 0)
    inside = [intersection(anchor, region) / box_area(anchor) >= 0.5 for anchor in anchors]
    np.testing.assert_array_equal(found == BETWEEN, inside & (found != 1))
    assert (found == BETWEEN).any()


def test_atss_in_a_graph_of_unknown_sizes_gives_the_same_matches():
    matcher = Atss(9, 6)

    @tf.function(
        input_signature=[
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None, None, 4]),
            tf.TensorSpec([None, None], tf.int32),
        ]
    )
    def graph(height, width, boxes, labels):
        counts = GRID.level_counts(height, width)
        return matcher(GRID(height, width), boxes, labels, counts)

    rng = np.random.default_rng(3)
    for size, rows in (((96, 128), 5), ((40, 72), 3), ((40, 72), 0)):
        boxes = random_objects(rng, 2, rows, size)
        labels = rng.choice([0, 1, PADDING, IGNORE], (2, rows)).astype(np.int32)
        expected = match_atss(matcher, GRID, size, boxes, labels)
        np.testing.assert_array_equal(graph(*size, boxes, labels), expected)


@pytest.mark.parametrize("arguments", [(0, 9), (9, 0)])
def test_atss_counts_below_one_are_refused(arguments):
    message = f"1 or more, found {arguments[0]} and {arguments[1]}"
    with pytest.raises(ValueError, match=message):
        Atss(*arguments)


# ------------------------------------------------------------------------------------------------
# From the config
# ------------------------------------------------------------------------------------------------


def test_the_config_chooses_the_matcher():
    config = override(Config(), {"matcher.positive_iou": 0.6, "matcher.low_quality": True})
    built = build_matcher(config)
    assert (type(built), built.positive_iou, built.low_quality) == (Matcher, 0.6, True)
    changes = {"matcher": "atss", "matcher.top_k": 5, "model.anchors.scales": (1.0,)}
    config = override(Config(), changes)
    assert config.matcher == settings_of.Atss(top_k=5)
    built = build_matcher(config)
    assert (type(built), built.top_k, built.num_anchors) == (Atss, 5, 3)
    assert from_dict(Config, to_dict(config)) == config
