"""Augmentation: boxes stay on what they frame, colours follow per-pixel formulas.

The first half paints rectangles of unique colours, draws views of them, and looks for the colours
again: an independent reference for every operation that moves pixels.
"""

import numpy as np
import pytest

from configs.schema import Canvas, ShortLong
from data.augment import color_matrix, flip, zoom
from data.images import ImageHeader
from data.render import GREY, Decoded, compose, pad, recolor
from data.resize import padded_size
from data.views import clip, place, whole
from utils.boxes import IGNORE

H, W = 150, 210
SIZE = np.array([H, W])
SAME = Canvas(H, W, antialias=False)  # nothing is resized where nothing is zoomed
COLORS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]]
)
SEEDS = range(200)


def values_of(number, count):
    """What random numbers a sample gets: evenly from [0, 1), the same for the same number."""
    return np.random.default_rng([7, number]).random(count)


def draw(image, view, rule=SAME):
    """The padded picture of a view of (H, W, 3) uint8 pixels."""
    decoded = Decoded(image, 1, ImageHeader(image.shape[1], image.shape[0], 1))
    pixels = decoded.part(view.source, view.target[2:], rule.antialias)
    return pad(compose(pixels, view), padded_size(view.size, rule))


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
        view = flip(whole(SIZE, SAME), *values_of(number, 1), 0.5, vertical)
        picture, moved = draw(image, view), place(boxes, view)
        assert_boxes_are_valid(moved, H, W)
        assert_frames_colors(find(picture), moved, labels)
        flips += not np.array_equal(picture, image)
    assert 70 < flips < 130, "half of 200, give or take four standard deviations"


def test_flip_by_hand():
    """Mirrored at x = 5: a box from 1 to 4 goes from 6 to 9; rows stay."""
    image = np.arange(20 * 10 * 3).reshape(20, 10, 3).astype(np.uint8)
    boxes = np.array([[1, 2, 4, 8]], np.float32)
    rule = Canvas(32, 32)
    view = whole(np.array([20, 10]), rule)._replace(
        target=np.array([0, 0, 20, 10]), size=np.array([20, 10])
    )
    sideways = flip(view, 0.3)
    np.testing.assert_array_equal(draw(image, sideways, rule)[:20, :10], image[:, ::-1])
    np.testing.assert_array_equal(place(boxes, sideways), [[6, 2, 9, 8]])
    upside_down = flip(view, 0.3, vertical=True)
    np.testing.assert_array_equal(draw(image, upside_down, rule)[:20, :10], image[::-1])
    np.testing.assert_array_equal(place(boxes, upside_down), [[1, 12, 4, 18]])
    both = flip(sideways, 0.3, vertical=True)
    np.testing.assert_array_equal(draw(image, both, rule)[:20, :10], image[::-1, ::-1])
    np.testing.assert_array_equal(place(boxes, both), [[6, 12, 9, 18]])


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_probability_of_0_or_1_is_certain(probability):
    for value in (0.0, 0.5, 1 - 2**-53):
        view = flip(whole(SIZE, SAME), value, probability)
        assert view.flips.tolist() == [False, probability == 1]


# ------------------------------------------------------------------------------------------------
# Zoom
# ------------------------------------------------------------------------------------------------

RULES = [Canvas(160, 160), Canvas(300, 250), ShortLong(120, 200), ShortLong(120, 200, 1, True)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("limits", [(0.6, 0.9), (1.1, 2.5), (0.5, 2.0)])
def test_zoomed_boxes_frame_their_colors(limits, rule):
    """Flips too; resampling moves an edge by less than a pixel."""
    image, boxes, labels = painted(1)
    num_dropped = num_clipped = 0
    for number in range(60):
        values = values_of(number, 5)
        view = zoom(SIZE, rule, values[:3], limits)
        seen, kept = clip(boxes, labels, view, 0.3)
        view = flip(flip(view, values[3]), values[4], vertical=True)
        picture, moved = draw(image, view, rule), place(seen, view)
        assert_boxes_are_valid(moved, *view.size, tolerance=1e-3)
        found = find(picture.astype(np.float32))  # an enlarged edge is wide, `find` is strict
        assert_frames_colors(found, moved, kept, tolerance=max(1, view.scales.max() / 2))
        assert not picture[view.size[0] :].any()
        assert not picture[:, view.size[1] :].any()
        area = (seen[:, 2:] - seen[:, :2]).prod(axis=1)
        whole_area = (boxes[kept, 2:] - boxes[kept, :2]).prod(axis=1)
        num_clipped += (area < whole_area).sum()
        num_dropped += len(labels) - len(kept)
    if limits[1] > 1:
        assert num_dropped > 15
        assert num_clipped > 15
    else:
        assert num_dropped == num_clipped == 0


def test_the_visible_share_decides_who_stays():
    """Counted in pixels: a window drawn without resizing."""
    image, boxes, labels = painted(1)
    pixels = {label: count for label, (count, _) in find(image).items()}
    num_slivers = num_gone = 0
    for number in SEEDS:
        y, x, height, width = zoom(SIZE, SAME, values_of(number, 3), (1.5, 2.5)).source
        view = zoom(SIZE, SAME, values_of(number, 3), (1.5, 2.5))
        found = find(image[y : y + height, x : x + width])
        share = {label: found.get(label, (0,))[0] / pixels[label] for label in pixels}
        for least in (0.0, 0.3, 1.0):
            seen, kept = clip(boxes, labels, view, least)
            assert kept.tolist() == [i for i in labels if share[i] > 0 and share[i] >= least]
            assert_frames_colors(found, seen - [x, y, x, y], kept)
        _, ignored = clip(boxes, np.full_like(labels, IGNORE), view, 0.9)
        assert len(ignored) == len(found), "however little of a region is left, it stays"
        num_slivers += len(found) - len(clip(boxes, labels, view, 0.9)[1])
        num_gone += len(labels) - len(found)
    assert num_slivers > 100
    assert num_gone > 100


def test_zooms_are_spread_over_the_limits():
    """Log-uniform: as often below 1 as above for limits 1/2 and 2; places from edge to edge."""
    views = [zoom(SIZE, SAME, values_of(number, 3), (0.5, 2.0)) for number in SEEDS]
    factors = np.array([view.target[2] / H * H / view.source[2] for view in views])
    assert factors.min() < 0.53
    assert factors.max() > 1.9
    assert 70 < (factors < 1).sum() < 130
    for axis in (0, 1):
        crops = [(v.source[axis], SIZE[axis] - v.source[2 + axis]) for v in views]
        grey = [(v.target[axis], v.size[axis] - v.target[2 + axis]) for v in views]
        for pairs in (crops, grey):
            places = [start / room for start, room in pairs if room > 5]
            assert min(places) < 0.1
            assert max(places) > 0.9


def test_beyond_the_image_zoom_fills_with_grey():
    image, _, _ = painted(0)
    view = zoom(SIZE, SAME, np.array([0, 0.3, 0.7]), (0.5, 0.5))
    np.testing.assert_array_equal(view.target, [22, 74, 75, 105])  # .3 of 76, .7 of 106
    picture = draw(image, view)
    inside = np.zeros([H, W], bool)
    inside[22:97, 74:179] = True
    assert (picture[~inside] == GREY).all()
    assert not (picture[inside] == GREY).all(axis=-1).any()


def test_views_that_can_be_reduced_begin_and_end_at_whole_reduced_pixels():
    size, rule = np.array([3001, 4003]), Canvas(416, 416)
    for number in SEEDS:
        view = zoom(size, rule, values_of(number, 3), (0.5, 4.0))
        step = max(s for s in (1, 2, 4, 8) if (view.source[2:] >= s * view.size).all())
        is_cut = view.source[2:] < size
        assert not (view.source[:2] % step).any()
        assert not (view.source[2:][is_cut] % step).any()
        assert (view.source[:2] + view.source[2:] <= size).all()
    plain = [zoom(size, ShortLong(416, 800), values_of(n, 3), (1.5, 4.0)) for n in range(20)]
    assert any(view.source[0] % 2 for view in plain), "no reduction, no grid"


def test_images_without_boxes():
    boxes, labels = np.zeros([0, 4], np.float32), np.zeros(0, np.int32)
    view = flip(zoom(SIZE, SAME, values_of(0, 3)), 0.0)
    boxes, labels = clip(boxes, labels, view, 0.3)
    assert place(boxes, view).shape == (0, 4)
    assert labels.shape == (0,)


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
    return recolor(image, color_matrix(values_of(number, 4), **strengths))


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


def test_whole_numbers_are_coloured_like_fractions(muted):
    """uint8 is what training usually sees."""
    strengths = {"brightness": 0.2, "contrast": 0.4, "saturation": 0.5, "hue": 0.2}
    whole_numbers = muted.round().astype(np.uint8)
    for number in range(20):
        found = jittered(whole_numbers, number, **strengths)
        expected = jittered(whole_numbers.astype(np.float32), number, **strengths)
        assert found.dtype == np.uint8
        np.testing.assert_allclose(found, expected, atol=1)
    assert np.abs(found - muted).max() > 10


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
