"""Box arithmetic against hand values and a brute-force reference."""

import numpy as np
import pytest

from utils.boxes import (
    IGNORE,
    PADDING,
    area,
    cxcywh_to_xyxy,
    pairwise_intersection,
    pairwise_iou,
    xyxy_to_cxcywh,
)

pytestmark = pytest.mark.quick

BOXES = np.array([[0, 0, 4, 2], [1, 1, 3, 5], [-2.5, 3, 7, 10.25]], np.float32)


def random_boxes(number, count):
    """Boxes on a coarse grid, so that some touch, contain or equal one another."""
    rng = np.random.default_rng(number)
    corners = rng.integers(-5, 10, (count, 2))
    return np.concatenate([corners, corners + rng.integers(0, 8, (count, 2))], 1).astype(np.float32)


def brute_force(a, b):
    """Intersection areas of boxes with whole-number corners, by counting unit cells."""
    cells = np.arange(-6, 20)

    def mask(box):
        x = (cells >= box[0]) & (cells < box[2])
        y = (cells >= box[1]) & (cells < box[3])
        return y[:, None] & x

    return np.array([[np.count_nonzero(mask(p) & mask(q)) for q in b] for p in a], np.float32)


def test_center_format_by_hand():
    expected = [[2, 1, 4, 2], [2, 3, 2, 4], [2.25, 6.625, 9.5, 7.25]]
    np.testing.assert_array_equal(xyxy_to_cxcywh(BOXES), expected)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (0, 4), (4,)])
def test_formats_round_trip(shape):
    boxes = np.random.default_rng(0).uniform(-100, 500, shape).astype(np.float32)
    back = cxcywh_to_xyxy(xyxy_to_cxcywh(boxes))
    assert back.shape == shape
    np.testing.assert_allclose(back, boxes, atol=1e-4)
    np.testing.assert_allclose(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes, atol=1e-3)


def test_area_of_empty_and_inverted_boxes_is_0():
    """Inverted in both directions too: two wrongs make no area."""
    boxes = np.array(
        [[0, 0, 4, 2], [1, 1, 1, 5], [3, 3, 3, 3], [5, 0, 2, 4], [5, 5, 2, 2]], np.float32
    )
    np.testing.assert_array_equal(area(boxes), [8, 0, 0, 0, 0])
    assert area(boxes[:0]).shape == (0,)
    assert area(boxes[None]).shape == (1, 5)


def test_iou_by_hand():
    """4x2 and 2x4 share 2x1: 2 / (8 + 8 - 2)."""
    a, b = BOXES[:1], BOXES[1:2]
    np.testing.assert_array_equal(pairwise_intersection(a, b), [[2]])
    np.testing.assert_allclose(pairwise_iou(a, b), [[2 / 14]], rtol=1e-6)


def test_the_devkit_s_inclusive_corners_give_its_iou():
    """VOC's (10, 10)-(19, 19) and (15, 10)-(24, 19), 10x10 pixels each, share 5x10: 1 / 3."""
    voc = np.array([[10, 10, 19, 19], [15, 10, 24, 19]], np.float32)
    boxes = voc - np.array([1, 1, 0, 0], np.float32)
    np.testing.assert_allclose(pairwise_iou(boxes[:1], boxes[1:]), [[1 / 3]], rtol=1e-6)


def test_against_counting_cells():
    a, b = random_boxes(1, 40), random_boxes(2, 30)
    shared = brute_force(a, b)
    assert (shared > 0).any()
    assert (shared == 0).any()
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    assert (area_a == 0).any(), "empty ones are among them"
    union = area_a[:, None] + area_b - shared
    np.testing.assert_array_equal(pairwise_intersection(a, b), shared)
    iou = pairwise_iou(a, b).numpy()
    np.testing.assert_allclose(iou, shared / np.maximum(union, 1e-9), rtol=1e-6)


def test_iou_of_special_pairs():
    box = np.array([[0, 0, 2, 2]], np.float32)
    others = {
        "itself": ([0, 0, 2, 2], 1.0),
        "touching": ([2, 0, 4, 2], 0.0),
        "at a corner": ([2, 2, 4, 4], 0.0),
        "apart": ([5, 5, 6, 6], 0.0),
        "inside": ([0.5, 0.5, 1.5, 1.5], 0.25),
        "empty, inside": ([1, 1, 1, 1], 0.0),
        "inverted": ([2, 2, 0, 0], 0.0),
    }
    for name, (other, expected) in others.items():
        for a, b in ((box, np.float32([other])), (np.float32([other]), box)):
            assert float(pairwise_iou(a, b)[0, 0]) == expected, name


def test_nothing_over_nothing_is_0_not_nan():
    empty = np.zeros([3, 4], np.float32)
    np.testing.assert_array_equal(pairwise_iou(empty, empty), np.zeros([3, 3]))


def test_no_boxes_and_leading_axes():
    a, b = np.stack([random_boxes(i, 6) for i in range(3)]), random_boxes(9, 4)
    for function in (pairwise_intersection, pairwise_iou):
        assert function(a[0], b[:0]).shape == (6, 0)
        assert function(a[0, :0], b).shape == (0, 4)
        together = function(a, np.stack([b] * 3)).numpy()
        assert together.shape == (3, 6, 4)
        for i in range(3):
            np.testing.assert_array_equal(together[i], function(a[i], b))


def test_special_labels_are_no_classes():
    assert PADDING < 0
    assert IGNORE < 0
    assert PADDING != IGNORE
