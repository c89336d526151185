"""The resizing rule and its padding by hand-computed sizes."""

import math

import numpy as np
import pytest

from configs.schema import Canvas, ShortLong
from data.images.resize import fitted_size, padded_size

pytestmark = pytest.mark.quick

SIDES = np.arange(1, 2001)


# ------------------------------------------------------------------------------------------------
# Sizes
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        (ShortLong(), (480, 640), (800, 1066)),  # 640 * 800 / 480 = 1066.67, rounded down
        (ShortLong(), (640, 480), (1066, 800)),
        (ShortLong(), (427, 640), (800, 1199)),  # 640 * 800 / 427 = 1199.06
        (ShortLong(), (640, 427), (1199, 800)),
        (ShortLong(), (500, 353), (1133, 800)),
        (ShortLong(), (300, 1000), (399, 1333)),  # the long side decides: 300 * 1.333 = 399.9
        (ShortLong(), (1600, 1600), (800, 800)),
        (ShortLong(short=600, long=1000), (375, 500), (600, 800)),
        (ShortLong(short=600, long=1000), (1, 5000), (1, 1000)),  # never nothing: 1 * 0.2
        (Canvas(416, 416), (480, 640), (312, 416)),
        (Canvas(416, 416), (375, 500), (312, 416)),
        (Canvas(416, 416), (100, 50), (416, 208)),  # enlarged, too
        (Canvas(256, 320), (480, 640), (240, 320)),
        (Canvas(256, 320), (480, 480), (256, 256)),
        (Canvas(32, 32), (3, 4000), (1, 32)),
    ],
)
def test_sizes_computed_by_hand(rule, before, after):
    assert tuple(fitted_size(*before, rule)) == after


@pytest.mark.parametrize("target", [97, 333, 416, 512])
def test_a_canvas_is_filled_exactly_on_its_tight_side(target):
    """416 * (w / 416) may be 415.999... in floating point: never a pixel short, whatever w."""
    square = fitted_size(SIDES, SIDES, Canvas(target, target))
    np.testing.assert_array_equal(square, target)
    flat = fitted_size(SIDES, 2000 * np.ones_like(SIDES), Canvas(target, target))
    np.testing.assert_array_equal(flat[:, 1], target)
    assert (flat[:, 0] <= target).all()
    tall = fitted_size(2000 * np.ones_like(SIDES), SIDES, Canvas(target, target))
    np.testing.assert_array_equal(tall, flat[:, ::-1])


@pytest.mark.parametrize(("rounding", "cut"), [("floor", math.floor), ("nearest", round)])
def test_short_long_is_what_python_computes(rounding, cut):
    """torchvision and yhenon compute their sizes in Python: rounding errors are the same."""
    rule = ShortLong(rounding=rounding)
    for other in (1, 333, 427, 800, 1333, 1999):
        sizes = fitted_size(SIDES, np.full_like(SIDES, other), rule)
        for height, size in zip(SIDES.tolist(), sizes, strict=True):
            scale = min(800 / min(height, other), 1333 / max(height, other))
            expected = [max(cut(side * scale), 1) for side in (height, other)]
            assert size.tolist() == expected, (height, other)


@pytest.mark.parametrize("rule", [Canvas(96, 128), ShortLong(64, 100)])
def test_many_images_at_once(rule):
    """As the anchor statistics use it: arrays in, the same numbers out."""
    heights, widths = np.array([[480, 1, 77], [640, 50, 99]]), np.array([[640, 9, 77], [480, 1, 7]])
    sizes = fitted_size(heights, widths, rule)
    assert sizes.shape == (2, 3, 2)
    for i in np.ndindex(2, 3):
        assert tuple(sizes[i]) == tuple(fitted_size(heights[i], widths[i], rule))


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        (Canvas(40, 50), (40, 30), (40, 50)),
        (Canvas(40, 50), (40, 50), (40, 50)),
        (Canvas(40, 50), (1, 50), (40, 50)),
        (ShortLong(32, 64, multiple=32), (33, 64), (64, 64)),
        (ShortLong(32, 64, multiple=32), (32, 1), (32, 32)),
        (ShortLong(32, 64, multiple=128), (33, 60), (128, 128)),
        (ShortLong(32, 64, multiple=1), (33, 60), (33, 60)),
        (ShortLong(32, 64, multiple=32, always_pad=True), (32, 33), (64, 64)),
        (ShortLong(32, 64, multiple=32, always_pad=True), (64, 1), (96, 32)),
    ],
)
def test_padded_sizes_computed_by_hand(rule, before, after):
    assert tuple(padded_size(np.array(before), rule)) == after
