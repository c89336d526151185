"""Augmentation: boxes stay on what they frame, colours follow per-pixel formulas.

The first half paints rectangles of unique colours, draws views of them, and looks for the colours
again: an independent reference for every operation that moves pixels.
"""

import numpy as np
import pytest

import configs
from configs import ConfigError
from configs.schema import Augment, Canvas, Data, ShortLong
from data.augment.geometry import MIN_IOUS, canvases, color_matrix, flip, iou_crop, zoom
from data.images.decode import ImageHeader
from data.images.render import GREY, Decoded, compose, pad, recolor
from data.images.resize import padded_size
from data.images.views import clip, place, whole
from data.pipeline import training_sample
from utils.boxes import IGNORE

pytestmark = pytest.mark.full

H, W = 150, 210
SIZE = np.array([H, W])
SAME = Canvas(H, W, antialias=False)  # nothing is resized where nothing is zoomed
COLORS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]]
)
SEEDS = range(500)


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
        lengths = [(a**2).sum(axis=-1, dtype=np.float32)[..., None] for a in (image, COLORS)]
        distances = lengths[0] + lengths[1].T - 2 * image @ COLORS.T.astype(np.float32)
        masks = list(np.moveaxis(distances < 100**2, -1, 0))
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
    assert 205 < flips < 295, "half of 500, give or take four standard deviations"


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


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("limits", [(0.6, 0.9), (1.1, 2.5), (0.5, 2.0)])
def test_zoomed_boxes_frame_their_colors(limits, rule):
    """Flips too; resampling moves an edge by less than a pixel."""
    image, boxes, labels = painted(1)
    num_dropped = num_clipped = 0
    for number in range(125):  # by each of the four rules
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
        assert num_dropped > 30
        assert num_clipped > 30
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
    assert num_slivers > 250
    assert num_gone > 250


def test_zooms_are_spread_over_the_limits():
    """Log-uniform: as often below 1 as above for limits 1/2 and 2; places from edge to edge."""
    views = [zoom(SIZE, SAME, values_of(number, 3), (0.5, 2.0)) for number in SEEDS]
    factors = np.array([view.target[2] / H * H / view.source[2] for view in views])
    assert factors.min() < 0.53
    assert factors.max() > 1.9
    assert 205 < (factors < 1).sum() < 295
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
# IoU crop
# ------------------------------------------------------------------------------------------------


def iou_by_loop(box, window):
    """IoU of an xyxy box and a window y, x, height, width."""
    x1, y1, x2, y2 = box
    y, x, height, width = window
    inside = max(min(x2, x + width) - max(x1, x), 0) * max(min(y2, y + height) - max(y1, y), 0)
    return inside / ((x2 - x1) * (y2 - y1) + height * width - inside)


@pytest.mark.parametrize("rule", [SAME, Canvas(300, 250), ShortLong(120, 200)])
def test_iou_crops_frame_their_colors(rule):
    """Every window has an object that stays and that overlaps it enough, or is the whole image."""
    num_dropped = num_clipped = 0
    wholes = dict.fromkeys(MIN_IOUS, 0)
    for number in range(500):
        image, boxes, labels = painted(number % 10)
        rng = np.random.default_rng([7, number])
        view = iou_crop(SIZE, rule, boxes, labels, rng, 0.3)
        seen, kept = clip(boxes, labels, view, 0.3)
        least = MIN_IOUS[int(np.random.default_rng([7, number]).random() * len(MIN_IOUS))]
        is_whole = (view.source == [0, 0, H, W]).all()
        wholes[least] += is_whole
        if not is_whole:
            height, width = view.source[2:]
            assert 0.5 <= width / height <= 2
            assert (view.source[2:] >= np.round(0.3 * SIZE)).all()
            assert (view.source[:2] >= 0).all()
            assert (view.source[:2] + view.source[2:] <= SIZE).all()
            best = max((iou_by_loop(boxes[label], view.source) for label in kept), default=0)
            assert best >= least
        num_clipped += (seen != boxes[kept]).any(axis=1).sum()
        num_dropped += len(labels) - len(kept)
        if number < 100 or rule is SAME:
            picture, moved = draw(image, view, rule), place(seen, view)
            assert_boxes_are_valid(moved, *view.size, tolerance=1e-3)
            found = find(picture.astype(np.float32))
            assert_frames_colors(found, moved, kept, tolerance=max(1, view.scales.max() / 2))
    assert min(num_dropped, num_clipped) > 400
    assert wholes[0.0] == 0, "any window will do"
    assert wholes[0.9] > 70, "a rectangle of a 6th of the image is nearly never so much of a window"


def test_an_iou_crop_of_one_large_object_is_as_large_as_it_must_be():
    """An object as large as the image: the IoU is the window's share of it."""
    boxes, labels = np.array([[0, 0, W, H]], np.float32), np.zeros(1, np.int32)
    shares = {least: [] for least in MIN_IOUS}
    for number in SEEDS:
        rng = np.random.default_rng(number)
        least = MIN_IOUS[int(np.random.default_rng(number).random() * len(MIN_IOUS))]
        view = iou_crop(SIZE, SAME, boxes, labels, rng, 0.0)
        shares[least].append(view.source[2:].prod() / (H * W))
        assert view.size.tolist() == view.target[2:].tolist()
        assert not view.target[:2].any()
    for least, found in shares.items():
        assert len(found) > 50, "each minimum as often"
        assert min(found) >= least
        assert min(found) < max(least, 0.1) * 1.2
    assert 0.3 * len(shares[0.9]) < np.sum(np.array(shares[0.9]) == 1.0) < len(shares[0.9])
    # The same with half of it to be seen: no window below half, whatever its IoU.
    for number in SEEDS:
        view = iou_crop(SIZE, SAME, boxes, labels, np.random.default_rng(number), 0.5)
        least = MIN_IOUS[int(np.random.default_rng(number).random() * len(MIN_IOUS))]
        assert least == 0 or view.source[2:].prod() >= 0.5 * H * W


@pytest.mark.parametrize("count", [0, 3])
def test_without_objects_any_window_will_do(count):
    """Regions to ignore are none."""
    boxes, labels = np.tile(np.float32([5, 5, 9, 9]), [count, 1]), np.full(count, IGNORE, np.int32)
    views = [iou_crop(SIZE, SAME, boxes, labels, np.random.default_rng(n)) for n in SEEDS]
    sides = np.array([view.source[2:] for view in views]) / SIZE
    assert (sides.max(axis=1) < 1).mean() > 0.9
    assert (sides.min(axis=0) < 0.32).all()
    start, room = (
        np.array(found)
        for found in zip(
            *((view.source[:2], SIZE - view.source[2:]) for view in views), strict=True
        )
    )
    is_cut = room > 0
    assert (is_cut & (start == 0)).any(axis=0).all()
    assert (is_cut & (start == room)).any(axis=0).all(), "from edge to edge"
    assert (start <= room).all()


def test_iou_crops_of_large_images_begin_at_whole_reduced_pixels():
    size, rule = np.array([3001, 4003]), Canvas(416, 416)
    boxes, labels = np.array([[900, 700, 2900, 2300]], np.float32), np.zeros(1, np.int32)
    steps = set()
    for number in SEEDS:
        view = iou_crop(size, rule, boxes, labels, np.random.default_rng(number))
        step = max(s for s in (1, 2, 4, 8) if (view.source[2:] >= s * view.size).all())
        assert not (view.source[:2] % step).any()
        steps.add(step)
    assert steps >= {2, 4}


# ------------------------------------------------------------------------------------------------
# The whole of a sample
# ------------------------------------------------------------------------------------------------


class OneImage:
    """Stands for a Dataset with the first of `painted`."""

    name = "one"

    def __init__(self):
        self.image, self.boxes, self.labels = painted(3)
        self.sizes = np.array([[W, H]])
        self.image_index = np.zeros(len(self.labels), int)
        self.row_splits = np.array([0, len(self.labels)])
        self.difficult = self.ignore = np.zeros(len(self.labels), bool)

    def __len__(self):
        return 1


def sampler(**augment):
    """epoch -> the row of a batch that the one image becomes."""
    dataset = OneImage()
    decoded = Decoded(dataset.image, 1, ImageHeader(W, H, 1))

    def read(index, source, size, antialias, kept):
        return decoded.part(source, size, antialias)

    sample = training_sample(dataset, Data(augment=Augment(**augment)), SAME, 0, read)
    return lambda epoch: sample(0, epoch)


def test_an_iou_crop_takes_the_place_of_a_zoom():
    """Half of them each; a zoom of exactly 2 is known by its scales."""
    both, alone = sampler(zoom=(2.0, 2.0), iou_crop=0.5), sampler(zoom=(2.0, 2.0))
    zoomed = [both(number)["scales"].tolist() == [2, 2] for number in SEEDS]
    assert 205 < sum(zoomed) < 295
    assert all(alone(number)["scales"].tolist() == [2, 2] for number in range(9))


def test_all_geometry_together_keeps_colors_in_their_boxes():
    settings = {"vertical_flip": 0.5, "zoom": (0.6, 1.6), "iou_crop": 0.4}
    settings |= {"rotate": 15.0, "shear": 5.0, "translate": 0.1, "min_visibility": 0.3}
    sample, again = sampler(**settings), sampler(**settings)
    num_boxes = 0
    for number in SEEDS:
        row = sample(number)
        assert_boxes_are_valid(row["boxes"], *row["sizes"])
        found = find(row["images"])
        for box, label in zip(row["boxes"], row["labels"], strict=True):
            if label in found:  # a corner of a hull may hold nothing of what turned in it
                frame = np.array(found[label][1])
                assert (frame - box)[:2].min() > -2.5
                assert (frame - box)[2:].max() < 2.5
                num_boxes += 1
        if number < 50:
            same = again(number)
            assert all(row[name].tobytes() == same[name].tobytes() for name in row)
    assert num_boxes > 1500


# ------------------------------------------------------------------------------------------------
# Canvases
# ------------------------------------------------------------------------------------------------


def test_canvases_are_multiples_of_32():
    """1 leaves the rule as it is; 0.75 of 420 x 300 is 315 x 225, which is nearest to 320 x 224."""
    rule = Canvas(420, 300, antialias=False)
    found = canvases(rule, (0.75, 1.0, 1.25, 0.01))
    assert [(c.height, c.width) for c in found] == [(320, 224), (420, 300), (512, 384), (32, 32)]
    assert not any(canvas.antialias for canvas in found)
    assert canvases(ShortLong(), (1.0,)) == [ShortLong()]


def test_canvas_scales_need_a_canvas():
    changes = {"model.resize": "short_long", "data.augment.canvas_scales": (0.75, 1.0)}
    with pytest.raises(ConfigError, match=r"canvas_scales: expected the default, .* \(0\.75, 1"):
        configs.preset("shapes", changes)
    configs.preset("shapes", changes | {"data.augment.canvas_scales": (1.0,)})


@pytest.mark.parametrize(
    ("augment", "expected"),
    [({}, 8), ({"canvas_scales": (0.5, 1.0, 2.0)}, 4), ({"iou_crop": 0.2}, 2)],
)
def test_the_cache_keeps_what_the_largest_canvas_needs(monkeypatch, augment, expected):
    """1200 of 128 columns: an 8th is enough, of 256 a 4th; of 0.3 of 1200, for 128, half."""
    dataset, kept = OneImage(), []
    dataset.sizes = np.array([[1200, 800]])

    def read(index, source, size, antialias, keep):
        kept.append(keep)
        return np.zeros([*size, 3], np.uint8)

    data = Data(cache=True, augment=Augment(**augment))
    sample = training_sample(dataset, data, Canvas(96, 128), 0, read)
    for canvas in range(len(data.augment.canvas_scales)):
        sample(0, 0, canvas)
    assert set(kept) == {expected}


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
