"""The resizing rule by hand-computed sizes, its inverse on boxes, padding and smoothing."""

import math

import numpy as np
import pytest
import tensorflow as tf

from configs.schema import Canvas, ShortLong
from data.resize import fitted_size, pad, resize

SIDES = np.arange(1, 2001)


def checkerboard(height, width):
    """Single black and white pixels in turn, (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    return np.repeat((255 * ((y + x) % 2)).astype(np.uint8)[..., None], 3, axis=-1)


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
    assert tuple(fitted_size(*before, rule).numpy()) == after


@pytest.mark.parametrize("target", [97, 333, 416, 512])
def test_a_canvas_is_filled_exactly_on_its_tight_side(target):
    """416 * (w / 416) may be 415.999... in floating point: never a pixel short, whatever w."""
    square = fitted_size(SIDES, SIDES, Canvas(target, target)).numpy()
    np.testing.assert_array_equal(square, target)
    flat = fitted_size(SIDES, 2000 * np.ones_like(SIDES), Canvas(target, target)).numpy()
    np.testing.assert_array_equal(flat[:, 1], target)
    assert (flat[:, 0] <= target).all()
    tall = fitted_size(2000 * np.ones_like(SIDES), SIDES, Canvas(target, target)).numpy()
    np.testing.assert_array_equal(tall, flat[:, ::-1])


@pytest.mark.parametrize(("rounding", "cut"), [("floor", math.floor), ("nearest", round)])
def test_short_long_is_what_python_computes(rounding, cut):
    """torchvision and yhenon compute their sizes in Python: rounding errors are the same."""
    rule = ShortLong(rounding=rounding)
    for other in (1, 333, 427, 800, 1333, 1999):
        sizes = fitted_size(SIDES, np.full_like(SIDES, other), rule).numpy()
        for height, size in zip(SIDES.tolist(), sizes, strict=True):
            scale = min(800 / min(height, other), 1333 / max(height, other))
            expected = [max(cut(side * scale), 1) for side in (height, other)]
            assert size.tolist() == expected, (height, other)


@pytest.mark.parametrize("rule", [Canvas(96, 128), ShortLong(64, 100)])
def test_many_images_at_once(rule):
    """As the anchor statistics use it: arrays in, the same numbers out."""
    heights, widths = np.array([[480, 1, 77], [640, 50, 99]]), np.array([[640, 9, 77], [480, 1, 7]])
    sizes = fitted_size(heights, widths, rule).numpy()
    assert sizes.shape == (2, 3, 2)
    for i in np.ndindex(2, 3):
        assert tuple(sizes[i]) == tuple(fitted_size(heights[i], widths[i], rule).numpy())


# ------------------------------------------------------------------------------------------------
# Images and boxes
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Canvas(64, 96), ShortLong(48, 80)])
@pytest.mark.parametrize("before", [(33, 77), (200, 150), (48, 80), (301, 40)])
def test_boxes_go_there_and_back(rule, before):
    height, width = before
    image, scales = resize(np.zeros([height, width, 3], np.uint8), rule)
    assert image.dtype == tf.float32
    assert tuple(image.shape) == (*fitted_size(height, width, rule).numpy(), 3)
    corners = tf.constant([[0, 0, width, height], [1.5, 2.25, 30.125, 30.5]], tf.float32)
    factor = tf.concat([scales, scales], axis=0)
    there = (corners * factor).numpy()
    np.testing.assert_allclose(there[0], [0, 0, image.shape[1], image.shape[0]], atol=1e-4)
    np.testing.assert_allclose(there / factor, corners, atol=1e-3)


def test_a_rectangle_stays_under_its_box():
    """Pixels and coordinates move alike: x to the right, y down."""
    image = np.zeros([50, 100, 3], np.uint8)
    image[10:20, 60:90] = 255
    resized, scales = resize(image, Canvas(150, 150))
    rows, columns = np.nonzero(resized.numpy()[..., 0] > 127)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    expected = np.array([60, 10, 90, 20]) * np.tile(scales, 2)
    np.testing.assert_allclose(found, expected, atol=1)


def test_smoothing_only_where_the_image_shrinks():
    """Of every fifth pixel a checkerboard stays black and white; smoothed it is grey."""
    board = checkerboard(160, 160)
    plain, _ = resize(board, Canvas(32, 32, antialias=False))
    assert set(np.unique(plain)) == {0, 255}
    smooth, _ = resize(board, Canvas(32, 32, antialias=True))
    np.testing.assert_allclose(smooth[2:-2, 2:-2], 127.5, atol=6)

    for rule in (Canvas(200, 200), Canvas(160, 160)):
        off = type(rule)(rule.height, rule.width, antialias=False)
        np.testing.assert_array_equal(resize(board, rule)[0], resize(board, off)[0])
    np.testing.assert_array_equal(resize(board, Canvas(160, 160))[0], board, "nothing to do")


def test_short_long_smooths_as_it_is_told():
    board = checkerboard(160, 160)
    plain, _ = resize(board, ShortLong(32, 64))
    smooth, _ = resize(board, ShortLong(32, 64, antialias=True))
    assert np.ptp(plain) == 255, "torchvision's default"
    assert np.ptp(smooth[2:-2, 2:-2]) < 12


# ------------------------------------------------------------------------------------------------
# Padding
# ------------------------------------------------------------------------------------------------


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
def test_padding_is_zero_at_the_bottom_and_right(rule, before, after):
    image = np.random.default_rng(0).uniform(1, 255, (*before, 3)).astype(np.float32)
    padded = pad(image, rule).numpy()
    assert padded.shape == (*after, 3)
    np.testing.assert_array_equal(padded[: before[0], : before[1]], image)
    assert not padded[before[0] :].any()
    assert not padded[:, before[1] :].any()
