"""The fitted anchors: the overlaps against the real anchors', the clusters, what is proposed."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from core.anchors import STRIDES, AnchorGenerator
from core.coverage import SIZES as LIMITS
from core.targets import best_overlaps
from data.doctor.anchor_fit import (
    MAX_LOSS,
    MIN_GAIN,
    MIN_MORE,
    AnchorSet,
    Grid,
    best_ious,
    fit_anchors,
    is_gain,
    is_harm,
    ratio_clusters,
)

pytestmark = pytest.mark.quick

OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
PAPER = AnchorSet((32.0, 64.0, 128.0, 256.0, 512.0), (0.5, 1.0, 2.0), OCTAVE)
GRID = Grid(STRIDES, 320, 416)


def boxes_of(sides, count=200, seed=0, grid=GRID):
    """Boxes of the given (width, height) at random places."""
    rng = np.random.default_rng(seed)
    sides = np.resize(np.asarray(sides, float), (count, 2))
    corners = rng.uniform(0, 1, (count, 2)) * ([grid.width, grid.height] - sides)
    return np.concatenate([corners, corners + sides], axis=1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    height=st.sampled_from([64, 100, 320]),
    width=st.sampled_from([96, 333, 416]),
    offset=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_overlaps_are_those_of_the_real_anchors(seed, height, width, offset):
    """Looking at the nearest cell of a level is exact, at borders too."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, [height, width], (40, 2, 2)), axis=1)[..., ::-1]
    boxes = corners.reshape(-1, 4) + np.array([0, 0, 0.5, 0.5])
    anchors = AnchorGenerator(
        sizes=PAPER.sizes, ratios=PAPER.ratios, scales=PAPER.scales, center_offset=offset
    )
    expected = best_overlaps(anchors(height, width), tf.constant(boxes, tf.float32))
    found = best_ious(boxes, PAPER, Grid(STRIDES, height, width, offset))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_clusters_are_found_and_rise():
    sides = [(20, 20), (20, 20), (60, 20), (20, 80)]
    assert ratio_clusters(boxes_of(sides), 3) == (0.33, 1.0, 4.0)


def test_clusters_that_coincide_are_one():
    assert ratio_clusters(boxes_of([(30, 60)]), 5) == (2.0,)


def test_ratios_that_hardly_differ_are_one():
    """Long plates: .25, .27 and .31 are noise; 1 and 4 are none."""
    sides = [(100, 25), (100, 27), (100, 31)]
    (ratio,) = ratio_clusters(boxes_of(sides, count=15), 3)
    assert 0.25 <= ratio <= 0.31
    assert ratio_clusters(boxes_of([*sides, (60, 60)], count=16), 4)[-1] == 1.0
    assert len(ratio_clusters(boxes_of([(100, 100), (100, 126)]), 2)) == 2
    assert len(ratio_clusters(boxes_of([(100, 100), (100, 124)]), 2)) == 1


@pytest.mark.parametrize(("small", "is_changed"), [(MIN_MORE - 1, False), (MIN_MORE, True)])
def test_few_objects_are_no_reason(small, is_changed):
    """Of 60 objects those of 20 px are far more than MIN_GAIN: ten of them count, nine do not."""
    boxes = [[64, 64, 144, 144]] * (60 - small) + [[90, 90, 110, 110]] * small
    fitted = fit_anchors(boxes, PAPER, GRID, 0.5, LIMITS)
    assert (fitted != PAPER) == is_changed


@pytest.mark.parametrize(("large", "is_changed"), [(9, True), (10, False)])
def test_no_size_class_pays_for_another(large, is_changed):
    """Only anchors a fourth as large serve objects of 8 px, and none then those of 300."""
    grid = Grid(STRIDES, 640, 640)
    boxes = [[96, 96, 104, 104]] * 60 + [[170, 170, 470, 470]] * large
    present = AnchorSet((32.0, 64.0, 128.0, 256.0, 300.0), (1.0,), (1.0,))
    fitted = fit_anchors(boxes, present, grid, 0.5, LIMITS)
    assert (fitted != present) == is_changed


def test_gain_and_harm_by_hand():
    before, counts = np.array([0, 100, 9]), np.array([500, 100, 9])
    assert is_gain(before, np.array([10, 100, 9]), counts)
    assert not is_gain(before, np.array([9, 100, 9]), counts)
    assert not is_gain(before, np.array([15, 94, 9]), counts)
    assert not is_gain(before * 0, np.array([19, 0, 0]), np.array([2000, 0, 0]))
    assert not is_harm(before, before - [0, round(100 * MAX_LOSS), 0], counts)
    assert is_harm(before, before - [0, round(100 * MAX_LOSS) + 1, 0], counts)
    assert not is_harm(before, before - [0, 0, 9], counts), "of fewer than MIN_MORE objects"


def test_small_objects_get_smaller_anchors():
    """Of 12 px boxes none has an anchor of 32 px at IoU .5; sizes are scaled, ratios stay."""
    boxes = boxes_of([(12, 12), (14, 11), (16, 16), (24, 26), (40, 40)])
    fitted = fit_anchors(boxes, PAPER, GRID, 0.5, LIMITS)
    assert fitted.sizes[0] < 20
    np.testing.assert_allclose(np.diff(np.log2(fitted.sizes)), 1, atol=0.1)
    assert len(fitted) <= len(PAPER)
    before, after = ((best_ious(boxes, anchors, GRID) >= 0.5).mean() for anchors in (PAPER, fitted))
    assert after >= before + MIN_GAIN
    assert before < 0.45 < 0.8 < after


def test_long_objects_get_long_anchors_but_no_more_of_them():
    boxes = boxes_of([(200, 30), (180, 28), (90, 80), (240, 34)])
    fitted = fit_anchors(boxes, PAPER, GRID, 0.5, LIMITS)
    assert min(fitted.ratios) < 0.25
    assert len(fitted) <= len(PAPER)
    assert (best_ious(boxes, fitted, GRID) >= 0.5).all()


def test_more_ratios_only_where_fewer_do_not_do():
    """Five shapes with a strict IoU: three ratios cannot serve them."""
    sides = [(160, 16), (120, 40), (64, 64), (40, 120), (16, 160)]
    boxes = boxes_of(sides, count=500)
    fitted = fit_anchors(boxes, PAPER, GRID, 0.6, LIMITS)
    three = [
        AnchorSet(tuple(size * 2 ** (step / 4) for size in PAPER.sizes), ratios, OCTAVE)
        for step in range(-8, 9)
        for ratios in (PAPER.ratios, ratio_clusters(boxes, 3))
    ]
    best_of_three = max((best_ious(boxes, anchors, GRID) >= 0.6).mean() for anchors in three)
    assert len(fitted.ratios) > 3
    assert (best_ious(boxes, fitted, GRID) >= 0.6).mean() >= best_of_three + MIN_GAIN


def test_a_set_that_serves_stays():
    boxes = boxes_of([(40, 40), (64, 64), (100, 60), (150, 160)])
    assert fit_anchors(boxes, PAPER, GRID, 0.5, LIMITS) is PAPER
    assert fit_anchors(np.zeros((0, 4)), PAPER, GRID, 0.5, LIMITS) is PAPER


def test_the_same_every_time():
    boxes = boxes_of(np.random.default_rng(1).uniform(6, 60, (300, 2)), count=300)
    assert fit_anchors(boxes, PAPER, GRID, 0.5, LIMITS) == fit_anchors(
        boxes.copy(), PAPER, GRID, 0.5, LIMITS
    )


def test_the_snippet_can_be_pasted():
    pasted = eval("{" + PAPER.snippet() + "}")
    assert pasted == {"model.anchors.sizes": PAPER.sizes, "model.anchors.ratios": PAPER.ratios}


@pytest.mark.parametrize(("size", "covered"), [(32, True), (10, False)])
def test_hand_computed(size, covered):
    """A box centred on a P3 cell, as large as its anchor; one of 10 px has IoU 100 / 1024."""
    box = np.array([[100 - size / 2, 100 - size / 2, 100 + size / 2, 100 + size / 2]])
    found = best_ious(box, PAPER, GRID)[0]
    assert found == pytest.approx(1.0 if covered else 100 / 1024)
