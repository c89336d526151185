"""Augmentation: boxes stay on what they frame, colours follow per-pixel formulas.

The first half paints rectangles of unique colours, transforms image and boxes, and looks for the
colours again: an independent reference for every operation that moves pixels.
"""

import numpy as np
import pytest
import tensorflow as tf

from configs.schema import Augment, Canvas, ShortLong
from data.augment import GREY, color_jitter, crop_or_pad, flip, zoom
from data.pipeline import augmented
from data.resize import pad, resize
from utils.boxes import IGNORE

H, W = 150, 210
COLORS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]]
)
SEEDS = range(200)


def seed_of(number):
    return tf.constant([7, number], tf.int32)


def painted(number):
    """A dark image with one rectangle of 25 to 60 px in each of six cells, and their boxes.

    Label i has COLORS[i]; two of the six lie against the border of the image.
    """
    rng = np.random.default_rng(number)
    image = np.full([H, W, 3], 8, np.uint8)
    boxes = []
    for cell, color in enumerate(COLORS):
        top, left = 75 * (cell // 3), 70 * (cell % 3)
        width, height = rng.integers(25, 61, 2)
        x = left + rng.integers(3, 70 - width - 2)
        y = top + rng.integers(3, 75 - height - 2)
        x, y = (0 if cell == 0 else x), (H - height if cell == 5 else y)
        image[y : y + height, x : x + width] = color
        boxes.append([x, y, x + width, y + height])
    return image, np.array(boxes, np.float32), np.arange(len(COLORS), dtype=np.int32)


def find(image):
    """label -> (number of pixels, xyxy of their frame) of each colour there is to see.

    Resampling mixes a colour with its neighbours: a pixel counts if most of it is the colour.
    """
    image = np.asarray(image)
    if image.dtype == np.uint8:
        bits = (image >> 7) << np.arange(3, dtype=np.uint8)  # a channel is 0 to 127, or 255
        codes = bits[..., 0] | bits[..., 1] | bits[..., 2]
        masks = [codes == color @ [1, 2, 4] // 255 for color in COLORS]
    else:
        masks = [((image - color) ** 2).sum(axis=-1) < 100**2 for color in COLORS]
    found = {}
    for label, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            frame = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            found[label] = (np.count_nonzero(mask), frame)
    return found


def assert_boxes_are_valid(boxes, height, width, tolerance=0.0):
    """None empty, none inverted, none outside by more than float32 rounds."""
    boxes = np.asarray(boxes)
    assert boxes.dtype == np.float32
    assert boxes.shape == (len(boxes), 4)
    assert (boxes >= -tolerance).all(), "outside"
    assert (boxes <= np.array([width, height, width, height]) + tolerance).all(), "outside"
    assert (boxes[:, :2] < boxes[:, 2:]).all(), "empty or inverted"


def assert_frames_colors(found, boxes, labels, tolerance=0.0):
    """Each box is the frame of its label's colour; `found` is of `find`."""
    for box, label in zip(np.asarray(boxes), np.asarray(labels), strict=True):
        np.testing.assert_allclose(found[label][1], box, atol=tolerance, err_msg=str(label))


# ------------------------------------------------------------------------------------------------
# Flip
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vertical", [False, True])
def test_flipped_boxes_frame_their_colors(vertical):
    flips = 0
    for number in SEEDS:
        image, boxes, labels = painted(number % 10)
        flipped, moved = flip(image, boxes, seed_of(number), 0.5, vertical)
        assert_boxes_are_valid(moved, H, W)
        assert_frames_colors(find(flipped), moved, labels)
        flips += not np.array_equal(flipped, image)
    assert 70 < flips < 130, "half of 200, give or take four standard deviations"


def test_flip_by_hand():
    """Mirrored at x = 5: a box from 1 to 4 goes from 6 to 9; rows stay."""
    image = np.arange(20 * 10 * 3, dtype=np.uint8).reshape(20, 10, 3)
    boxes = np.array([[1, 2, 4, 8]], np.float32)
    flipped, moved = flip(image, boxes, seed_of(0), 1.0)
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    np.testing.assert_array_equal(moved, [[6, 2, 9, 8]])
    flipped, moved = flip(image, boxes, seed_of(0), 1.0, vertical=True)
    np.testing.assert_array_equal(flipped, image[::-1])
    np.testing.assert_array_equal(moved, [[1, 12, 4, 18]])


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_probability_of_0_or_1_is_certain(probability):
    image, boxes, _ = painted(0)
    for number in range(50):
        flipped, moved = flip(image, boxes, seed_of(number), probability)
        assert np.array_equal(flipped, image) == (probability == 0)
        assert np.array_equal(moved, boxes) == (probability == 0)


# ------------------------------------------------------------------------------------------------
# Zoom
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [(0.6, 0.9), (1.1, 2.5), (0.5, 2.0)])
def test_zoomed_boxes_frame_their_colors(limits):
    """No resampling here, so frames agree to the pixel, and visible shares exactly."""
    image, boxes, labels = painted(1)
    whole = find(image)
    num_dropped = num_clipped = 0
    for number in SEEDS:
        zoomed, moved, kept = zoom(image, boxes, labels, seed_of(number), limits, 0.3)
        found, kept = find(zoomed), kept.numpy()
        assert_boxes_are_valid(moved, *zoomed.shape[:2])
        assert_frames_colors(found, moved, kept)
        for label in labels:
            share = found.get(label, (0,))[0] / whole[label][0]
            assert (label in kept) == (share >= 0.3), f"seed {number}, label {label}: {share:.3f}"
            num_dropped += label not in kept
            num_clipped += label in kept and share < 1
        assert list(kept) == sorted(kept), "the order stays"
        factor = np.array(zoomed.shape[:2]) * np.array(limits)[:, None] / (H, W)
        assert (factor[0] <= 1.02).all(), "the window is at most as large as the smallest zoom"
        assert (factor[1] >= 0.98).all(), "and at least as small as the largest"
    if limits[1] > 1:
        assert num_dropped > 50
        assert num_clipped > 50
    else:
        assert num_dropped == num_clipped == 0


def test_zooms_are_spread_over_the_limits():
    """Log-uniform: as often below 1 as above for limits 1/2 and 2; places from edge to edge."""
    image, boxes, labels = painted(0)
    heights, lefts = [], []
    for number in SEEDS:
        zoomed, moved, _ = zoom(image, boxes, labels, seed_of(number), (0.5, 2.0))
        heights.append(zoomed.shape[0])
        if zoomed.shape[1] > W:
            lefts.append((moved[0, 0] - boxes[0, 0]) / (zoomed.shape[1] - W))
    factors = H / np.array(heights)
    assert factors.min() < 0.53
    assert factors.max() > 1.9
    assert 70 < (factors < 1).sum() < 130
    assert min(lefts) < 0.1
    assert max(lefts) > 0.9


def test_beyond_the_image_zoom_fills_with_grey():
    image, boxes, labels = painted(0)
    zoomed, moved, _ = zoom(image, boxes, labels, seed_of(0), (0.5, 0.5))
    assert zoomed.shape == (2 * H, 2 * W, 3)
    left, top = (moved[0, :2] - boxes[0, :2]).numpy().astype(int)
    np.testing.assert_array_equal(zoomed[top : top + H, left : left + W], image)
    outside = np.ones(zoomed.shape[:2], bool)
    outside[top : top + H, left : left + W] = False
    assert (zoomed.numpy()[outside] == GREY).all()


def test_crop_or_pad_by_hand():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    g = [GREY] * 3
    found = crop_or_pad(image, tf.constant([-1, 1]), tf.constant([3, 2]))
    np.testing.assert_array_equal(found, [[g, g], [[3, 4, 5], g], [[9, 10, 11], g]])


def test_ignore_regions_stay_until_nothing_is_left():
    """A region to look away from counts however little of it is left; an object does not."""
    image, boxes, labels = painted(1)
    ignored = np.full_like(labels, IGNORE)
    num_slivers = num_gone = 0
    for number in SEEDS:
        arguments = (seed_of(number), (1.5, 2.5), 0.9)
        zoomed, moved, kept = zoom(image, boxes, ignored, *arguments)
        assert_boxes_are_valid(moved, *zoomed.shape[:2])
        assert (kept.numpy() == IGNORE).all()
        num_visible = len(find(zoomed))
        assert len(kept) == num_visible
        num_slivers += num_visible - len(zoom(image, boxes, labels, *arguments)[2])
        num_gone += len(labels) - num_visible
    assert num_slivers > 100
    assert num_gone > 100


def test_a_visibility_of_0_and_1():
    """At 0 whatever is left is kept, at 1 only what is whole; nothing is kept of nothing."""
    image, boxes, labels = painted(1)
    whole = find(image)
    for number in range(40):
        for least in (0.0, 1.0):
            zoomed, _, kept = zoom(image, boxes, labels, seed_of(number), (1.5, 2.5), least)
            found = find(zoomed)
            expected = [i for i in found if found[i][0] >= least * whole[i][0]]
            assert list(kept) == expected


# ------------------------------------------------------------------------------------------------
# All that moves pixels, together
# ------------------------------------------------------------------------------------------------

MOVES = Augment(flip=0.5, vertical_flip=0.5, zoom=(0.6, 1.8), min_visibility=0.3)


@pytest.mark.parametrize("rule", [Canvas(160, 160), Canvas(300, 250), ShortLong(120, 200)])
def test_flip_zoom_resize_and_padding_together(rule):
    """The whole way of a training sample; resampling moves an edge by less than a pixel."""
    image, boxes, labels = painted(2)

    @tf.function
    def run(key):
        sample = {"images": tf.constant(image), "boxes": tf.constant(boxes), "labels": labels}
        return augmented(sample, MOVES, rule, key)

    num_boxes = 0
    for number in range(60):
        sample = run(seed_of(number))
        height, width = sample["sizes"].numpy()
        assert_boxes_are_valid(sample["boxes"], height, width, tolerance=1e-3)
        found = find(sample["images"])
        assert_frames_colors(found, sample["boxes"], sample["labels"].numpy(), tolerance=1)
        num_boxes += len(sample["boxes"])
        assert not sample["images"][height:].numpy().any()
        assert not sample["images"][:, width:].numpy().any()
    assert 150 < num_boxes < 350, "some are dropped of the 360"


def test_zoom_then_resize_by_hand():
    """The composition without the pipeline: scales multiply what zoom returned."""
    image, boxes, labels = painted(3)
    for number in range(30):
        zoomed, moved, kept = zoom(image, boxes, labels, seed_of(number), (0.7, 1.5))
        resized, scales = resize(zoomed, Canvas(200, 180))
        moved = moved * tf.concat([scales, scales], axis=0)
        assert_boxes_are_valid(moved, *resized.shape[:2], tolerance=1e-3)
        found = find(pad(resized, Canvas(200, 180)))
        assert_frames_colors(found, moved, kept.numpy(), tolerance=1)


def test_images_without_boxes():
    image, boxes, labels = painted(0)
    boxes, labels = boxes[:0], labels[:0]
    for number in range(10):
        sample = {"images": tf.constant(image), "boxes": tf.constant(boxes), "labels": labels}
        sample = augmented(sample, MOVES, Canvas(96, 96), seed_of(number))
        assert sample["boxes"].shape == (0, 4)
        assert sample["labels"].shape == (0,)
        assert sample["images"].shape == (96, 96, 3)
    _, moved = flip(image, boxes, seed_of(0), 1.0)
    assert moved.shape == (0, 4)


OPERATIONS = {
    "flip": lambda image, boxes, labels, seed: flip(image, boxes, seed, 0.5),
    "vertical flip": lambda image, boxes, labels, seed: flip(image, boxes, seed, 0.5, True),
    "zoom": lambda image, boxes, labels, seed: zoom(image, boxes, labels, seed, (0.5, 2.0)),
    "colours": lambda image, boxes, labels, seed: (
        color_jitter(tf.cast(image, tf.float32), seed, 0.2, 0.3, 0.3, 0.1),
    ),
}


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", OPERATIONS)
def test_eager_and_inside_tf_data_agree_to_the_bit(name):
    """One seed is one result, wherever it is computed; other seeds give other results."""
    sample = [tf.constant(value) for value in painted(4)]
    seeds = [seed_of(number) for number in range(12)]
    eager = [OPERATIONS[name](*sample, seed) for seed in seeds]
    inside = tf.data.Dataset.from_tensor_slices(seeds)
    inside = inside.map(lambda seed: OPERATIONS[name](*sample, seed))
    for seed, expected, found in zip(seeds, eager, inside, strict=True):
        assert same(expected, found)
        assert same(expected, OPERATIONS[name](*sample, seed))
    differing = sum(not same(eager[0], other) for other in eager[1:])
    assert differing >= (3 if "flip" in name else 11)


# ------------------------------------------------------------------------------------------------
# Colours
# ------------------------------------------------------------------------------------------------

LUMA = np.array([0.299, 0.587, 0.114])
YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@pytest.fixture(scope="module")
def muted():
    """Colours so far from 0 and 255 that none of the changes below is cut off."""
    return np.random.default_rng(0).uniform(90, 165, (12, 14, 3)).astype(np.float32)


def jittered(image, number, **strengths):
    return color_jitter(tf.constant(image), seed_of(number), **strengths).numpy()


def assert_spread(values, limit):
    """Drawn evenly from -limit to limit: 60 draws come near both ends and never beyond."""
    assert np.abs(values).max() <= limit + 1e-4
    assert min(values) < -0.8 * limit
    assert max(values) > 0.8 * limit


def test_without_strength_colors_stay():
    image = np.random.default_rng(1).uniform(0, 255, (9, 7, 3)).astype(np.float32)
    image[0, :2] = [[0, 0, 0], [255, 255, 255]]
    for number in range(10):
        np.testing.assert_allclose(jittered(image, number), image, atol=1e-3)


def test_brightness_adds_one_number(muted):
    shares = []
    for number in range(60):
        change = jittered(muted, number, brightness=0.2) - muted
        np.testing.assert_allclose(change, change.mean(), atol=1e-3)
        shares.append(change.mean() / 255)
    assert_spread(shares, 0.2)


def test_contrast_scales_the_distance_from_the_mean(muted):
    gains = []
    distance = muted - muted.mean()
    for number in range(60):
        found = jittered(muted, number, contrast=0.5)
        gain = ((found - muted.mean()) * distance).sum() / (distance**2).sum()
        np.testing.assert_allclose(found, muted.mean() + gain * distance, atol=1e-3)
        gains.append(gain - 1)
    assert_spread(gains, 0.5)


def test_saturation_scales_the_distance_from_grey(muted):
    gains = []
    grey = (muted @ LUMA)[..., None]
    for number in range(60):
        found = jittered(muted, number, saturation=0.5)
        gain = ((found - grey) * (muted - grey)).sum() / ((muted - grey) ** 2).sum()
        np.testing.assert_allclose(found, grey + gain * (muted - grey), atol=1e-2)
        gains.append(gain - 1)
    assert_spread(gains, 0.5)


def test_hue_turns_the_color_circle_and_keeps_luma(muted):
    turns = []
    yiq = muted @ YIQ.T
    for number in range(60):
        found = jittered(muted, number, hue=0.1)
        np.testing.assert_allclose(found @ LUMA, muted @ LUMA, atol=0.05)
        before, after = yiq[..., 1] + 1j * yiq[..., 2], (found @ YIQ.T)[..., 1:] @ [1, 1j]
        np.testing.assert_allclose(np.abs(after), np.abs(before), atol=0.05)
        angle = np.angle((after * before.conj()).sum())
        turned = np.stack([yiq[..., 0], *_parts(before * np.exp(1j * angle))], axis=-1)
        np.testing.assert_allclose(found, turned @ np.linalg.inv(YIQ).T, atol=0.05)
        turns.append(angle / (2 * np.pi))
    assert_spread(turns, 0.1)


def _parts(number):
    return number.real, number.imag


def test_the_four_are_drawn_independently(muted):
    """No two of them share a draw: over 40 seeds none follows another."""
    yiq = (muted @ YIQ.T)[..., 1:] @ [1, 1j]
    draws = []
    for number in range(40):
        bright = jittered(muted, number, brightness=0.1)
        contrast = jittered(muted, number, contrast=0.2)
        saturated = (jittered(muted, number, saturation=0.2) @ YIQ.T)[..., 1:] @ [1, 1j]
        turned = (jittered(muted, number, hue=0.1) @ YIQ.T)[..., 1:] @ [1, 1j]
        angle = np.angle((turned * yiq.conj()).sum())
        draws.append([bright.mean(), contrast.std(), np.abs(saturated).mean(), angle])
    correlation = np.corrcoef(draws, rowvar=False) - np.eye(4)
    assert np.abs(correlation).max() < 0.6


def test_all_four_together_are_one_after_the_other(muted):
    """Saturation and hue, then contrast, then brightness, each as it is alone."""
    strengths = {"brightness": 0.05, "contrast": 0.2, "saturation": 0.3, "hue": 0.1}
    for number in range(5):
        expected = muted
        for name in ("saturation", "hue"):
            expected = jittered(expected, number, **{name: strengths[name]})
        # The mean that contrast keeps is that of the image as it came.
        alone = jittered(muted, number, contrast=strengths["contrast"])
        gain = np.polyfit(muted.ravel(), alone.ravel(), 1)[0]
        expected = muted.mean() + gain * (expected - muted.mean())
        expected = jittered(expected.astype(np.float32), number, brightness=0.05)
        np.testing.assert_allclose(jittered(muted, number, **strengths), expected, atol=0.05)


def test_colors_stay_between_0_and_255():
    image = np.random.default_rng(2).uniform(0, 255, (20, 20, 3)).astype(np.float32)
    lowest, highest = 255, 0
    for number in range(20):
        found = jittered(image, number, brightness=1, contrast=1, saturation=1, hue=0.5)
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 255
        lowest, highest = min(lowest, found.min()), max(highest, found.max())
    assert (lowest, highest) == (0, 255), "strong enough to be cut off"


def test_grey_stays_grey_under_saturation_and_hue():
    grey = np.repeat(np.linspace(0, 255, 50, dtype=np.float32)[:, None, None], 3, axis=-1)
    for number in range(20):
        found = jittered(grey, number, saturation=0.9, hue=0.5)
        np.testing.assert_allclose(found, grey, atol=0.01)
