"""Encoding and decoding of boxes, by hand and there and back."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from core.box_coder import BoxCoder

pytestmark = pytest.mark.quick

ANCHOR = tf.constant([[10.0, 20.0, 30.0, 60.0]])  # centre (20, 40), 20 wide, 40 high
BOX = tf.constant([[20.0, 30.0, 60.0, 50.0]])  # centre (40, 40), 40 wide, 20 high


def test_center_form_by_hand():
    """The centre is a whole width to the right, twice as wide, half as high."""
    deltas = BoxCoder().encode(BOX, ANCHOR)
    np.testing.assert_allclose(deltas, [[1, 0, math.log(2), -math.log(2)]], atol=1e-6)


def test_center_form_with_stds_by_hand():
    deltas = BoxCoder(stds=(0.1, 0.1, 0.2, 0.2)).encode(BOX, ANCHOR)
    expected = [[10, 0, math.log(2) / 0.2, -math.log(2) / 0.2]]
    np.testing.assert_allclose(deltas, expected, atol=1e-5)


def test_corner_form_by_hand():
    """Corners move by (10, 10) and (30, -10), in sides (20, 40), divided by 0.2."""
    deltas = BoxCoder("corner", stds=(0.2,) * 4).encode(BOX, ANCHOR)
    np.testing.assert_allclose(deltas, [[2.5, 1.25, 7.5, -1.25]], atol=1e-6)


def test_decode_by_hand():
    """Unlike a round trip, this would notice an error made both ways."""
    box = BoxCoder().decode(tf.constant([[0.5, -0.25, math.log(3), 0.0]]), ANCHOR)
    np.testing.assert_allclose(box, [[30 - 30, 30 - 20, 30 + 30, 30 + 20]], atol=1e-4)
    box = BoxCoder("corner", stds=(0.2,) * 4).decode(tf.constant([[1.0, 0.0, -1.0, 0.5]]), ANCHOR)
    np.testing.assert_allclose(box, [[14, 20, 26, 64]], atol=1e-5)


def boxes(min_size, max_size):
    """Strategy of (n, 4) xyxy with sides from 1 to 300 pixels."""
    place, side = st.floats(-100, 900, width=32), st.floats(1, 300, width=32)
    box = st.tuples(place, place, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
    return st.lists(box, min_size=min_size, max_size=max_size)


@pytest.mark.parametrize("form", ["center", "corner"])
@pytest.mark.parametrize("stds", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)])
@settings(max_examples=30, deadline=None, derandomize=True)
@given(pair=boxes(4, 4))
def test_decode_undoes_encode(form, stds, pair):
    """Sides differ by less than a factor of 300, which no clamp may touch here."""
    coder = BoxCoder(form, stds, max_log_scale=None)
    targets, anchors = tf.constant(pair[:2], tf.float32), tf.constant(pair[2:], tf.float32)
    back = coder.decode(coder.encode(targets, anchors), anchors)
    np.testing.assert_allclose(back, targets, atol=0.05)


@pytest.mark.parametrize("form", ["center", "corner"])
def test_zero_deltas_are_the_anchor(form):
    decoded = BoxCoder(form, (0.1, 0.1, 0.2, 0.2)).decode(tf.zeros([1, 4]), ANCHOR)
    np.testing.assert_allclose(decoded, ANCHOR)


@pytest.mark.parametrize("form", ["center", "corner"])
def test_a_batch_of_boxes_shares_its_anchors(form):
    """(B, N, 4) boxes on (N, 4) anchors equals one image after the other."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 50, (2, 3, 2))
    batch = np.concatenate([corner, corner + rng.uniform(5, 50, (2, 3, 2))], -1).astype(np.float32)
    anchors, coder = tf.constant(batch[0] + 3), BoxCoder(form)
    deltas = coder.encode(batch, anchors)
    for image in (0, 1):
        np.testing.assert_allclose(deltas[image], coder.encode(batch[image], anchors), rtol=1e-6)
    np.testing.assert_allclose(coder.decode(deltas, anchors), batch, atol=1e-3)


def decoded_sides(coder, growth):
    box = coder.decode(tf.constant([[0.0, 0.0, growth, growth]]), ANCHOR).numpy()[0]
    return box[2:] - box[:2]


def test_growth_is_clamped_at_1000_by_16():
    """torchvision's and detectron2's limit; below it nothing changes; shrinking has none."""
    limit = math.log(1000 / 16)
    np.testing.assert_allclose(decoded_sides(BoxCoder(), 50.0), [20 * 62.5, 40 * 62.5], rtol=1e-5)
    np.testing.assert_allclose(
        decoded_sides(BoxCoder(), limit - 1), np.array([20, 40]) * 62.5 / math.e, rtol=1e-5
    )
    assert np.all(decoded_sides(BoxCoder(), -6.0) < 0.11)


def test_clamp_counts_after_the_stds():
    """A delta of 20 at std 0.2 is a growth of exp(4), inside the limit; 30 is outside."""
    coder = BoxCoder(stds=(0.1, 0.1, 0.2, 0.2))
    np.testing.assert_allclose(decoded_sides(coder, 20.0)[0], 20 * math.exp(4), rtol=1e-5)
    np.testing.assert_allclose(decoded_sides(coder, 30.0)[0], 20 * 62.5, rtol=1e-5)


def test_without_a_limit_growth_is_not_clamped():
    coder = BoxCoder(max_log_scale=None)
    np.testing.assert_allclose(decoded_sides(coder, 6.0)[0], 20 * math.exp(6), rtol=1e-5)


@pytest.mark.parametrize("form", ["center", "corner"])
def test_boxes_without_area_encode_to_finite_numbers(form):
    """Padded rows and inverted boxes go through the encoder before they are masked out."""
    degenerate = tf.constant([[0.0, 0, 0, 0], [5, 5, 5, 9], [9, 9, 5, 5]])
    deltas = BoxCoder(form).encode(degenerate, tf.repeat(ANCHOR, 3, axis=0))
    assert np.all(np.isfinite(deltas))


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form: expected center or corner, found 'xywh'"):
        BoxCoder("xywh")
