"""Affine maps: by hand, and by looking for painted rectangles where their boxes say."""

import math

import numpy as np
import pytest

from configs import ConfigError
from configs.schema import Augment
from data.augment.sample import Sample
from data.augment.warp import affine, moved, warp
from data.images.render import GREY
from utils.boxes import IGNORE

pytestmark = pytest.mark.full

H, W = 150, 210
SIZE = np.array([H, W])
COLORS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]]
)
MIDDLE = np.full(5, 0.5)  # the values of no change
EVERYTHING = {"rotate": 30.0, "shear": 10.0, "translate": 0.3}


def painted(number, dtype=np.uint8):
    """A dark picture with a rectangle of COLORS[i] and label i in each of six cells."""
    rng = np.random.default_rng(number)
    image = np.full([H, W, 3], 8, dtype)
    boxes = []
    for cell, color in enumerate(COLORS):
        width, height = rng.integers(20, 61, 2)
        x = 70 * (cell % 3) + rng.integers(3, 68 - width)
        y = 75 * (cell // 3) + rng.integers(3, 73 - height)
        image[y : y + height, x : x + width] = color
        boxes.append([x, y, x + width, y + height])
    labels = np.arange(len(COLORS), dtype=np.int32)
    weights = (labels + 1).astype(np.float32) / 10
    return Sample(image, np.array(boxes, np.float32), labels, weights)


def codes_of(picture):
    """(..., 3) -> (...): which channels are bright, most of a pixel being one of COLORS."""
    return (picture > 131) @ np.array([1, 2, 4])


def frame_of(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def hull_by_loop(box, matrix):
    x1, y1, x2, y2 = box
    xs, ys = [], []
    for x in (x1, x2):
        for y in (y1, y2):
            xs.append(matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2])
            ys.append(matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2])
    return min(xs), min(ys), max(xs), max(ys)


def visible_share(hull):
    x1, y1, x2, y2 = hull
    width = max(min(x2, W) - max(x1, 0), 0)
    height = max(min(y2, H) - max(y1, 0), 0)
    return width * height / ((x2 - x1) * (y2 - y1))


# ------------------------------------------------------------------------------------------------
# By hand
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_quarter_turn_is_that_of_numpy(dtype):
    """A share of 1 of 90 degrees, clockwise: (x, y) from the centre goes to (-y, x)."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(dtype)
    boxes = np.array([[2, 3, 12, 7]], np.float32)
    sample = Sample.of(pixels, boxes, np.zeros(1, np.int32))
    matrix = affine(np.array([20, 20]), np.array([1.0, 0.5, 0.5, 0.5, 0.5]), rotate=90.0)
    np.testing.assert_allclose(matrix, [[0, -1, 20], [1, 0, 0]], atol=1e-12)
    found = moved(sample, matrix)
    np.testing.assert_array_equal(found.pixels, np.rot90(pixels, -1))
    np.testing.assert_allclose(found.boxes, [[13, 2, 17, 12]], atol=1e-5)
    assert found.pixels.dtype == dtype
    assert found.boxes.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_shift_of_whole_pixels_moves_them_unchanged(dtype):
    """0.1 of 210 to the right, 0.2 of 150 up; what comes in from beyond is grey."""
    pixels = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(dtype)
    boxes = np.array([[50, 60, 80, 90], [190, 100, 210, 120], [180, 40, 200, 60]], np.float32)
    sample = Sample.of(pixels, boxes, np.arange(3, dtype=np.int32))
    matrix = affine(SIZE, np.array([0.5, 0.5, 0.5, 1.0, 0.0]), translate=0.1)
    np.testing.assert_allclose(matrix, [[1, 0, 21], [0, 1, -15]])
    found = moved(sample, matrix)
    np.testing.assert_array_equal(found.pixels[:-15, 21:], pixels[15:, :-21])
    assert (found.pixels[-15:] == GREY).all()
    assert (found.pixels[:, :21] == GREY).all()
    # The second is gone; of the third, at 201 to 221, 9 of 20 columns are left.
    np.testing.assert_array_equal(found.boxes, [[71, 45, 101, 75], [201, 25, 210, 45]])
    assert found.labels.tolist() == [0, 2]
    assert moved(sample, matrix, 0.45).labels.tolist() == [0, 2]
    assert moved(sample, matrix, 0.46).labels.tolist() == [0]


def test_a_shear_slants_about_the_centre():
    """By atan(1/2) along x: 20 below the centre goes 10 to the right; rows stay."""
    degrees = math.degrees(math.atan(0.5))
    matrix = affine(SIZE, np.array([0.5, 1.0, 0.5, 0.5, 0.5]), shear=degrees)
    np.testing.assert_allclose(matrix, [[1, 0.5, -37.5], [0, 1, 0]], atol=1e-12)
    boxes = np.array([[100, 75, 120, 95]], np.float32)
    sample = Sample.of(painted(0).pixels, boxes, np.zeros(1, np.int32))
    np.testing.assert_allclose(moved(sample, matrix).boxes, [[100, 75, 130, 95]], atol=1e-4)
    matrix = affine(SIZE, np.array([0.5, 0.5, 1.0, 0.5, 0.5]), shear=degrees)
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0.5, 1, -52.5]], atol=1e-12)


def test_the_hull_of_a_square_turned_by_10_degrees():
    """Each side times cos 10 + sin 10 = 1.158, the area times 1.342; as the docstring says."""
    boxes = np.array([[80, 50, 120, 90]], np.float32)
    sample = Sample.of(painted(0).pixels, boxes, np.zeros(1, np.int32))
    matrix = affine(SIZE, np.array([1.0, 0.5, 0.5, 0.5, 0.5]), rotate=10.0)
    ((x1, y1, x2, y2),) = moved(sample, matrix).boxes
    assert x2 - x1 == pytest.approx(40 * 1.1585, rel=1e-4)
    assert (x2 - x1) * (y2 - y1) == pytest.approx(1600 * 1.3420, rel=1e-4)


# ------------------------------------------------------------------------------------------------
# What is drawn
# ------------------------------------------------------------------------------------------------


def test_the_limits_are_reached_and_kept():
    """Each alone, uniform from minus to plus; the centre stays but for a shift."""
    draws = [np.random.default_rng(n).random(5) for n in range(500)]
    centre = [W / 2, H / 2, 1]
    turned = np.array([affine(SIZE, values, rotate=20.0) for values in draws])
    angles = np.degrees(np.arctan2(turned[:, 1, 0], turned[:, 0, 0]))
    np.testing.assert_allclose(np.linalg.det(turned[:, :, :2]), 1)
    np.testing.assert_allclose(turned @ centre, [centre[:2]] * 500)
    slanted = np.array([affine(SIZE, values, shear=20.0) for values in draws])
    np.testing.assert_allclose(slanted @ centre, [centre[:2]] * 500)
    np.testing.assert_array_equal(slanted[:, [0, 1], [0, 1]], np.ones([500, 2]))
    along_x, along_y = np.degrees(np.arctan([slanted[:, 0, 1], slanted[:, 1, 0]]))
    shifted = np.array([affine(SIZE, values, translate=0.2) for values in draws])
    np.testing.assert_array_equal(shifted[:, :, :2], [np.eye(2)] * 500)
    right, down = (shifted[:, :, 2] / [W, H]).T * 100
    found = np.array([angles, along_x, along_y, right, down])
    assert np.abs(found).max() <= 20
    assert (found.min(axis=1) < -19.5).all()
    assert (found.max(axis=1) > 19.5).all()
    assert (np.abs(found.mean(axis=1)) < 4 * 40 / math.sqrt(12 * 500)).all()
    assert np.abs(np.corrcoef(found) - np.eye(5)).max() < 0.2, "independent"


def test_off_it_draws_nothing():
    sample, rng = painted(0), np.random.default_rng(3)
    assert warp(sample, rng) is sample
    assert rng.random() == np.random.default_rng(3).random()
    np.testing.assert_array_equal(affine(SIZE, np.random.default_rng(1).random(5)), np.eye(2, 3))


@pytest.mark.parametrize("name", ["rotate", "shear", "translate"])
def test_each_works_alone(name):
    sample = painted(0)
    found = warp(sample, np.random.default_rng(0), **{name: EVERYTHING[name]})
    assert not np.array_equal(found.pixels, sample.pixels)
    again = warp(sample, np.random.default_rng(0), **{name: EVERYTHING[name]})
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, again, strict=True))


# ------------------------------------------------------------------------------------------------
# Painted rectangles
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_boxes_frame_their_colors(dtype):
    """Wholly inside, a frame is its box but for the tips of corners, of which a pixel is lost."""
    num_whole = num_cut = num_dropped = 0
    for number in range(500):
        sample, rng = painted(number % 20, dtype), np.random.default_rng([5, number])
        before = sample.pixels.copy()
        found = warp(sample, rng, **EVERYTHING, min_visibility=0.3)
        np.testing.assert_array_equal(sample.pixels, before, "not written to")
        assert found.pixels.shape == (H, W, 3)
        assert found.pixels.dtype == dtype
        assert found.boxes.dtype == np.float32
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [W, H, W, H]).all()
        assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()
        np.testing.assert_array_equal(found.weights, sample.weights[found.labels])

        matrix = affine(SIZE, np.random.default_rng([5, number]).random(5), **EVERYTHING)
        hulls = [hull_by_loop(box, matrix) for box in sample.boxes]
        shares = [visible_share(hull) for hull in hulls]
        assert found.labels.tolist() == [i for i, share in enumerate(shares) if share >= 0.3]
        num_dropped += len(COLORS) - len(found.labels)
        codes = codes_of(found.pixels)
        for box, label in zip(found.boxes, found.labels, strict=True):
            mask = codes == codes_of(COLORS[label])
            if shares[label] > 1 - 1e-9:
                num_whole += 1
                x1, y1, x2, y2 = sample.boxes[label]
                area = (x2 - x1) * (y2 - y1) * np.linalg.det(matrix[:, :2])
                half = (x2 - x1 + y2 - y1) / 2  # half a pixel along half of its outline
                assert mask.sum() == pytest.approx(area, abs=float(half))
                np.testing.assert_allclose(frame_of(mask), box, atol=1.3)
            else:
                num_cut += 1
                x1, y1, x2, y2 = frame_of(mask) - box if mask.any() else (0, 0, 0, 0)
                assert min(x1, y1) > -0.6, "no pixel outside by more than half"
                assert max(x2, y2) < 0.6
    assert min(num_whole, num_cut, num_dropped) > 300


def test_whole_numbers_are_moved_like_fractions():
    for number in range(20):
        a, b = (
            warp(painted(number, dtype), np.random.default_rng(number), **EVERYTHING)
            for dtype in (np.uint8, np.float32)
        )
        np.testing.assert_allclose(a.pixels, b.pixels, atol=1)
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_regions_stay_while_anything_is_left():
    sample, num_slivers = painted(1), 0
    regions = sample._replace(labels=np.full(6, IGNORE, np.int32))
    for number in range(100):
        rngs = [np.random.default_rng(number) for _ in range(2)]
        matrix = affine(SIZE, rngs[0].random(5), **EVERYTHING)
        shares = np.array([visible_share(hull_by_loop(box, matrix)) for box in sample.boxes])
        found = warp(regions, rngs[1], **EVERYTHING, min_visibility=0.9)
        assert len(found.labels) == (shares > 0).sum()
        num_slivers += ((shares > 0) & (shares < 0.9)).sum()
    assert num_slivers > 100


def test_pictures_without_boxes():
    sample = painted(0).keep(np.zeros(6, bool))
    found = warp(sample, np.random.default_rng(0), **EVERYTHING)
    assert found.boxes.shape == (0, 4)
    assert found.boxes.dtype == np.float32
    assert found.labels.shape == found.weights.shape == (0,)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rotate", 181, "degrees from 0 to 180, found 181.0"),
        ("rotate", -1, "degrees from 0 to 180, found -1.0"),
        ("shear", 31, "degrees from 0 to 30, found 31.0"),
        ("translate", 1, "a share from 0 to below 1, found 1.0"),
        ("iou_crop", 1.5, "a share from 0 to 1, found 1.5"),
        ("canvas_scales", (), r"1 to 32 different multiples from 0.1 to 10, found \(\)"),
        ("canvas_scales", (1.0, 0.0), r"1 to 32 different multiples .*, found \(1\.0, 0\.0\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, value, expected):
    with pytest.raises(ConfigError, match=f"Augment.{name}: expected {expected}"):
        Augment(**{name: value})
