"""Mixing: what is left to see of each object is where its box says, and weighs what it should.

Every object is painted in a number of its own, and the numbers are looked for in what comes out: an
independent reference, as nothing is resized.
"""

import numpy as np
import pytest
from scipy import stats

from data.augment.mixing import blend, cutmix, draw_partners, mixup, mosaic, paste, tile
from data.augment.sample import Sample
from data.images.render import GREY
from utils.boxes import IGNORE

pytestmark = pytest.mark.full

DRAWS = 500
DTYPES = [np.uint8, np.float32]


def painted(rng, first, dtype=np.uint8):
    """A sample of 20 to 70 px, with up to nine objects that do not overlap; some touch the border.

    Object `number`, from `first` on, is painted in its number and weighs number / 100; every third
    is a region to ignore. One sample in ten shows none. The background is 0.
    """
    height, width = rng.integers(20, 71, 2)
    pixels = np.zeros([height, width, 3], dtype)
    boxes = []
    num_cells = rng.integers(1, 4, 2) if rng.random() < 0.9 else (0, 0)
    for row, column in np.ndindex(*num_cells):
        top, bottom = np.array([row, row + 1]) * height // num_cells[0]
        left, right = np.array([column, column + 1]) * width // num_cells[1]
        y1, x1 = rng.integers(top, bottom - 2), rng.integers(left, right - 2)
        y2, x2 = rng.integers(y1 + 1, bottom + 1), rng.integers(x1 + 1, right + 1)
        pixels[y1:y2, x1:x2] = first + len(boxes)
        boxes.append([x1, y1, x2, y2])
    pixels.flags.writeable = False
    numbers = first + np.arange(len(boxes), dtype=np.int32)
    return Sample(
        pixels,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.where(numbers % 3, numbers, IGNORE).astype(np.int32),
        (numbers / 100).astype(np.float32),
    )


def rows(sample):
    """{number: (box, label)} of the objects; the weight tells the number."""
    numbers = np.round(sample.weights * 100).astype(int).tolist()
    assert len(set(numbers)) == len(numbers) == len(sample.boxes) == len(sample.labels)
    labels = sample.labels.tolist()
    return dict(zip(numbers, zip(sample.boxes.tolist(), labels, strict=True), strict=True))


def seen(result, sources, min_visibility):
    """What `rows` should be by the numbers in the picture, and how many objects were dropped."""
    expected, num_dropped = {}, 0
    for source in sources:
        for number, (box, label) in rows(source).items():
            mask = (result.pixels == number).all(axis=-1)
            area = (box[2] - box[0]) * (box[3] - box[1])
            if not mask.any() or (label != IGNORE and mask.sum() < min_visibility * area):
                num_dropped += 1
                continue
            y, x = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            expected[number] = ([x[0], y[0], x[-1] + 1, y[-1] + 1], label)
    return expected, num_dropped


def assert_is_sample(result, dtype):
    assert result.pixels.dtype == dtype
    assert [array.dtype for array in result[1:]] == [np.float32, np.int32, np.float32]
    height, width, _ = result.pixels.shape
    assert (result.boxes >= 0).all()
    assert (result.boxes <= [width, height, width, height]).all()
    assert (result.boxes[:, :2] < result.boxes[:, 2:]).all()


def plain(height, width, value, boxes=(), labels=None, dtype=np.uint8):
    """A sample of one grey."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.arange(len(boxes)) if labels is None else labels
    pixels = np.full([height, width, 3], value, dtype)
    pixels.flags.writeable = False
    return Sample.of(pixels, boxes, np.array(labels, np.int32))


# ------------------------------------------------------------------------------------------------
# Partners
# ------------------------------------------------------------------------------------------------


def test_partners_are_all_the_others_equally_often():
    rng = np.random.default_rng(0)
    for index in (0, 3, 4):
        found = np.bincount(draw_partners(index, 5, 4000, rng), minlength=5)
        assert found[index] == 0
        others = np.delete(found, index)
        assert stats.chisquare(others).pvalue > 0.01
    assert draw_partners(0, 1, 3, rng).tolist() == [0, 0, 0], "there is no other"


# ------------------------------------------------------------------------------------------------
# Mixup
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_blend_by_hand(dtype):
    """A quarter of 200 and three quarters of 100; 116 where there is neither."""
    a = plain(2, 3, 200, [[0, 0, 3, 1]], [7], dtype)
    b = plain(3, 2, 100, [[0, 1, 2, 3], [0, 0, 1, 1]], [4, IGNORE], dtype)
    result = blend(a, b, 0.25)
    expected = [[125, 125, 137], [125, 125, 137], [104, 104, 116]]
    np.testing.assert_array_equal(result.pixels, np.repeat(expected, 3).reshape(3, 3, 3))
    np.testing.assert_array_equal(result.boxes, [[0, 0, 3, 1], [0, 1, 2, 3], [0, 0, 1, 1]])
    assert result.labels.tolist() == [7, 4, IGNORE]
    assert result.weights.tolist() == [0.25, 0.75, 0.75]
    assert_is_sample(result, dtype)
    again = blend(result, plain(3, 3, 0, dtype=dtype), 0.5)
    assert again.weights.tolist() == [0.125, 0.375, 0.375], "of weights that were not 1 either"


@pytest.mark.parametrize("dtype", DTYPES)
def test_mixup_blends_pixels_as_it_weighs_objects(dtype):
    rng, shares = np.random.default_rng(1), []
    for _ in range(DRAWS):
        a, b = painted(rng, 1, dtype), painted(rng, 101, dtype)
        result = mixup(a, b, rng, 1.5)
        assert_is_sample(result, dtype)
        height, width = np.maximum(a.pixels.shape, b.pixels.shape)[:2]
        assert result.pixels.shape == (height, width, 3)
        count = len(a.boxes)
        for part, sample in ((slice(count), a), (slice(count, None), b)):
            np.testing.assert_array_equal(result.boxes[part], sample.boxes)
            np.testing.assert_array_equal(result.labels[part], sample.labels)
        if not (count and len(b.boxes)):
            continue
        of_a, of_b = result.weights[:count] / a.weights, result.weights[count:] / b.weights
        np.testing.assert_allclose(of_a, of_a[0], rtol=1e-5)
        np.testing.assert_allclose(of_b, 1 - of_a[0], rtol=1e-4, atol=1e-6)
        whole = np.full([2, height, width, 3], GREY, np.float64)
        for canvas, sample in zip(whole, (a, b), strict=True):
            canvas[: sample.pixels.shape[0], : sample.pixels.shape[1]] = sample.pixels
        expected = of_a[0] * whole[0] + (1 - of_a[0]) * whole[1]
        error = np.abs(result.pixels - expected).max()
        assert error <= (0.501 if dtype == np.uint8 else 1e-3), "rounded to the nearest"
        shares.append(of_a[0])
    assert len(shares) > 0.7 * DRAWS
    assert stats.kstest(shares, stats.beta(1.5, 1.5).cdf).pvalue > 0.01


# ------------------------------------------------------------------------------------------------
# Cutmix
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "left", "is_enough"),
    [
        ([0, 0, 5, 5], [0, 0, 5, 5], True),  # apart from the rectangle, 6 to 16 by 6 to 12
        ([1, 2, 6, 14], [1, 2, 6, 14], True),  # beside it
        ([7, 7, 12, 11], None, False),  # under it
        ([6, 6, 16, 12], None, False),  # exactly
        ([2, 6, 10, 12], [2, 6, 6, 12], True),  # its right half
        ([2, 7, 10, 11], [2, 7, 6, 11], True),
        ([12, 8, 20, 10], [16, 8, 20, 10], True),  # its left half
        ([8, 2, 12, 10], [8, 2, 12, 6], True),  # its lower half
        ([8, 8, 12, 16], [8, 12, 12, 16], True),  # its upper half
        ([8.5, 8.25, 12.5, 16], [8.5, 12, 12.5, 16], True),  # from within a pixel
        ([2, 2, 10, 10], [2, 2, 10, 10], True),  # a corner
        ([2, 5, 10, 12], [2, 5, 10, 12], True),  # all but a row of its right half
        ([8, 2, 12, 18], [8, 2, 12, 18], True),  # across its middle
        ([1, 1, 19, 19], [1, 1, 19, 19], True),  # a hole in it
        ([3, 6, 15, 12], [3, 6, 6, 12], True),  # 3 of 12 columns are left: a quarter
        ([4, 6, 16, 12], [4, 6, 6, 12], False),  # 2 of 12
        ([6, 6, 17, 13], [6, 6, 17, 13], False),  # 17 of 77 pixels, though they frame all of it
        ([5, 5, 17, 13], [5, 5, 17, 13], True),  # 36 of 96
    ],
)
def test_what_a_rectangle_leaves_of_a_box(box, left, is_enough):
    """Of an object a quarter is enough, of a region to ignore anything."""
    rectangle = np.array([6, 6, 16, 12])
    for label, is_kept in ((0, is_enough), (IGNORE, left is not None)):
        own = plain(20, 20, 1, [box], [label])
        result = paste(own, plain(20, 20, 2), rectangle, 0.25)
        assert result.boxes.tolist() == ([left] if is_kept else [])
        assert result.labels.tolist() == ([label] if is_kept else [])


def test_boxes_anywhere_are_wholly_seen_or_wholly_hidden():
    """Of 2,000 boxes between pixels, rounding drops none that is seen and keeps none that is not.

    The float32 difference of two corners is often not their difference.
    """
    rng = np.random.default_rng(0)
    corners = rng.uniform(1, 60, (2000, 2))
    boxes = np.hstack([corners, corners + rng.uniform(1, 300, (2000, 2))]).astype(np.float32)
    pixels, nothing = np.zeros([400, 400, 3], np.uint8), plain(400, 400, 2)
    sample = Sample.of(pixels, boxes, np.zeros(2000, np.int32))
    frame = np.array([0, 0, 400, 400])
    np.testing.assert_array_equal(sample.clip(frame, 1.0).boxes, boxes)
    for label in (0, IGNORE):
        hidden = sample._replace(labels=np.full(2000, label, np.int32))
        assert len(paste(hidden, nothing, frame, 0.0).boxes) == 0


def test_what_comes_in_with_a_rectangle():
    """Cut off at its border; weights of both stay 1; both kinds of regions are kept."""
    a = plain(20, 20, 1, [[0, 0, 4, 4]], [3])
    b = plain(
        30, 25, 2, [[8, 8, 12, 10], [2, 7, 10, 11], [0, 6, 7, 12], [0, 6, 7, 12], [17, 0, 20, 20]],
        [0, 1, 2, IGNORE, 4],
    )  # fmt: skip
    result = paste(a, b, np.array([6, 6, 16, 12]), 0.25)
    expected = np.ones([20, 20])
    expected[6:12, 6:16] = 2
    np.testing.assert_array_equal(result.pixels, np.repeat(expected, 3).reshape(20, 20, 3))
    assert result.labels.tolist() == [3, 0, 1, IGNORE]
    boxes = [[0, 0, 4, 4], [8, 8, 12, 10], [6, 7, 10, 11], [6, 6, 7, 12]]
    assert result.boxes.tolist() == boxes
    assert result.weights.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("min_visibility", "dtype"), [(0.0, np.uint8), (0.25, np.float32), (1.0, np.uint8)]
)
def test_cutmix_boxes_frame_what_is_seen(min_visibility, dtype):
    rng = np.random.default_rng(2)
    num_dropped = num_cut = 0
    for _ in range(DRAWS):
        a, b = painted(rng, 1, dtype), painted(rng, 101, dtype)
        result = cutmix(a, b, rng, 1.0, min_visibility)
        assert_is_sample(result, dtype)
        assert result.pixels.shape == a.pixels.shape
        expected, dropped = seen(result, (a, b), min_visibility)
        assert rows(result) == expected
        originals = rows(a) | rows(b)
        num_cut += sum(box != originals[number][0] for number, (box, _) in expected.items())
        num_dropped += dropped
    assert num_dropped > DRAWS
    assert num_cut > DRAWS / 5


def test_rectangles_have_every_share_and_place():
    """Of what both samples have, 200x150 here."""
    rng = np.random.default_rng(3)
    a, b = plain(200, 300, 1), plain(250, 150, 2)
    shares, places = [], []
    for _ in range(DRAWS):
        is_in = (cutmix(a, b, rng, 1.0).pixels == 2).all(axis=-1)
        y, x = (np.flatnonzero(is_in.any(axis=axis)) for axis in (1, 0))
        size = np.array([len(y), len(x)])
        assert is_in.sum() == size.prod(), "a rectangle"
        assert x[-1] < 150
        shares.append(size.prod() / (200 * 150))
        room = np.array([200, 150]) - size
        places += [
            (start + rng.random()) / (1 + r) for start, r in zip((y[0], x[0]), room, strict=True)
        ]
    assert stats.kstest(shares, "uniform").pvalue > 0.01
    assert stats.kstest(places, "uniform").pvalue > 0.01
    middle = [(cutmix(a, b, rng, 8.0).pixels == 2).all(axis=-1).mean() * 2 for _ in range(100)]
    assert stats.kstest(middle, stats.beta(8, 8).cdf).pvalue > 0.01


# ------------------------------------------------------------------------------------------------
# Mosaic
# ------------------------------------------------------------------------------------------------


def numbered(height, width, first):
    """Each pixel another number: row * width + column from `first` on."""
    numbers = first + np.arange(height * width, dtype=np.float32).reshape(height, width, 1)
    box = np.array([[0, 0, width, height]], np.float32)
    return Sample.of(np.repeat(numbers, 3, axis=-1), box, np.array([first], np.int32))


def test_tiles_by_hand():
    """Centre at row 4, column 6 of 10x12; the third is smaller than its quadrant of 6x6."""
    samples = [
        numbered(10, 12, 0),
        numbered(8, 9, 1000),
        numbered(4, 5, 2000),
        numbered(6, 20, 3000),
    ]
    places = np.array([[0.0, 0.0], [0.999, 0.5], [0.0, 0.999], [0.7, 0.5]])
    result = tile(samples, np.array([4, 6]), places, 0.0)
    expected = np.full([10, 12], GREY, np.float32)
    expected[:4, :6] = samples[0].pixels[:4, :6, 0]
    expected[:4, 6:] = samples[1].pixels[4:, 2:8, 0]  # the last of 5 places, the third of 4
    expected[4:8, 1:6] = samples[2].pixels[..., 0]  # at the right, 2 of 2; above, 0 of 3
    expected[4:, 6:] = samples[3].pixels[:, 7:13, 0]  # the only one, the eighth of 15
    np.testing.assert_array_equal(result.pixels, np.repeat(expected[..., None], 3, axis=-1))
    boxes = [[0, 0, 6, 4], [6, 0, 12, 4], [1, 4, 6, 8], [6, 4, 12, 10]]
    assert result.boxes.tolist() == boxes
    assert result.labels.tolist() == [0, 1000, 2000, 3000]
    assert result.weights.tolist() == [1, 1, 1, 1]
    # 24 of 120 pixels, 24 of 72, 20 of 20, 36 of 120 are seen.
    assert tile(samples, np.array([4, 6]), places, 0.3).labels.tolist() == [1000, 2000, 3000]


@pytest.mark.parametrize(
    ("min_visibility", "dtype"), [(0.0, np.uint8), (0.25, np.float32), (1.0, np.uint8)]
)
def test_mosaic_boxes_frame_what_is_seen(min_visibility, dtype):
    rng = np.random.default_rng(4)
    num_dropped = 0
    for _ in range(DRAWS):
        samples = [painted(rng, first, dtype) for first in (1, 21, 41, 61)]
        result = mosaic(samples, rng, min_visibility)
        assert_is_sample(result, dtype)
        assert result.pixels.shape == samples[0].pixels.shape
        expected, dropped = seen(result, samples, min_visibility)
        assert rows(result) == expected
        num_dropped += dropped
    assert num_dropped > DRAWS


def test_centers_and_windows_are_spread():
    """Centres over 0.3 to 0.7 of the sides, windows over all that fits."""
    rng = np.random.default_rng(5)
    samples = [numbered(200, 200, first) for first in (0, 100_000, 200_000, 300_000)]
    centers, places = [], []
    for _ in range(DRAWS):
        pixels = mosaic(samples, rng).pixels[..., 0]
        quadrants = (pixels // 100_000).astype(int)
        center = (quadrants[:, 0] == 0).sum(), (quadrants[0] == 0).sum()
        expected = np.zeros([200, 200])
        expected[:, center[1] :] += 1
        expected[center[0] :] += 2
        np.testing.assert_array_equal(quadrants, expected)
        centers += [(side / 200 - 0.3) / 0.4 for side in center]
        y, x = divmod(pixels[0, 0], 200)
        places += [
            (p + rng.random()) / (201 - side) for p, side in zip((y, x), center, strict=True)
        ]
    assert stats.kstest(centers, "uniform").pvalue > 0.01
    assert stats.kstest(places, "uniform").pvalue > 0.01


# ------------------------------------------------------------------------------------------------
# All three
# ------------------------------------------------------------------------------------------------

OPERATIONS = {
    "mixup": lambda samples, rng: mixup(*samples[:2], rng),
    "cutmix": lambda samples, rng: cutmix(*samples[:2], rng),
    "mosaic": mosaic,
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_the_same_generator_gives_the_same_bytes(operation):
    noise = np.random.default_rng(0).integers(0, 256, [4, 30, 40, 3], np.uint8)
    samples = [plain(30, 40, 0, [[5, 5, 35, 25]])._replace(pixels=pixels) for pixels in noise]
    pictures = set()
    for seed in range(20):
        first, second = (operation(samples, np.random.default_rng(seed)) for _ in range(2))
        assert [array.tobytes() for array in first] == [array.tobytes() for array in second]
        pictures.add(first.pixels.tobytes())
    assert len(pictures) == 20


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("size", [(20, 30), (1, 1), (1, 40)])
def test_samples_without_objects_or_of_a_pixel(operation, size):
    rng = np.random.default_rng(6)
    for _ in range(20):
        result = operation([plain(*size, 9), *(plain(5, 7, 9) for _ in range(3))], rng)
        assert_is_sample(result, np.uint8)
        assert result.boxes.shape == (0, 4)
        assert result.labels.shape == result.weights.shape == (0,)
