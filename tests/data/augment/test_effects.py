"""Effects: per-pixel formulas against SciPy, Pillow, NumPy; what cutout hides, counted in pixels.

A field of random colours stands for a photograph; cutout is shown painted rectangles of unique
colours, and the colours are counted before and after.
"""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize_scalar

from data.augment.effects import blur, cutout, jpeg
from data.augment.sample import Sample
from data.images.render import GREY
from utils.boxes import IGNORE

pytestmark = pytest.mark.quick

H, W = 90, 120
DRAWS = 500
CERTAIN = {blur: 1.0, jpeg: 1.0, cutout: 1.0}
EFFECTS = [pytest.param(*pair, id=pair[0].__name__) for pair in CERTAIN.items()]
DTYPES = [np.uint8, np.float32]


def rng_of(number):
    return np.random.default_rng([7, number])


def sample_of(pixels):
    """Two objects, the second of which counts less, and a region to ignore."""
    boxes = np.array([[5, 10, 30, 40], [60, 20, 110.5, 80], [0, 50, 40, 90]], np.float32)
    weights = np.array([1, 0.25, 1], np.float32)
    return Sample(pixels, boxes, np.array([3, 0, IGNORE], np.int32), weights)


def photo(dtype=np.uint8):
    """(180, 240, 3): patches of random colours under a soft gradient, from 0 to 255."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 255, (18, 24, 3)).repeat(10, axis=0).repeat(10, axis=1)
    pixels += np.linspace(-40, 40, 240)[:, None]
    return pixels.clip(0, 255).round().astype(dtype)


def same(a, b):
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------------------------------------
# What all of them keep
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("effect", "setting"), EFFECTS)
def test_what_is_off_draws_nothing(effect, setting):
    sample, rng = sample_of(photo()), rng_of(0)
    assert effect(sample, rng, 0.0) is sample
    assert effect(sample, rng) is sample, "off unless asked for"
    assert rng.bit_generator.state == rng_of(0).bit_generator.state
    effect(sample, rng, setting)
    assert rng.bit_generator.state != rng_of(0).bit_generator.state


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("effect", "setting"), EFFECTS)
def test_the_input_is_never_written_to(effect, setting, dtype):
    pixels = photo(dtype)
    sample = sample_of(pixels)
    for array in sample:
        array.flags.writeable = False
    for number in range(20):
        changed = effect(sample, rng_of(number), setting)
        assert not np.array_equal(changed.pixels, pixels)
        assert not np.shares_memory(changed.pixels, pixels)
    assert same(sample, sample_of(photo(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("effect", "setting"), EFFECTS)
def test_dtype_shape_and_range_stay(effect, setting, dtype):
    """On the extremes, where whatever is added overshoots; also on a picture of a few pixels."""
    extremes = np.random.default_rng(0).choice([0, 255], photo().shape).astype(dtype)
    for pixels in (photo(dtype), extremes, np.full_like(extremes, 255), extremes[:3, :2]):
        for number in range(10):
            changed = effect(sample_of(pixels), rng_of(number), setting).pixels
            assert changed.dtype == dtype
            assert changed.shape == pixels.shape
            assert changed.min() >= 0
            assert changed.max() <= 255 + 1e-4  # float32 sums of a blur's weights


@pytest.mark.parametrize(("effect", "setting"), EFFECTS)
def test_the_same_generator_gives_the_same_bytes(effect, setting):
    sample = sample_of(photo())
    once, again = (effect(sample, rng_of(5), setting) for _ in range(2))
    assert same(once, again)
    others = {effect(sample, rng_of(number), setting).pixels.tobytes() for number in range(10)}
    assert len(others) > 5


@pytest.mark.parametrize("effect", CERTAIN)
def test_a_probability_is_a_share_of_the_samples(effect):
    sample = sample_of(photo())
    count = sum(effect(sample, rng_of(number), 0.3) is not sample for number in range(DRAWS))
    assert 109 < count < 191, "30 % of 500, give or take four standard deviations"


@pytest.mark.parametrize(("effect", "setting"), EFFECTS[:-1])
def test_objects_stay_as_they_are(effect, setting):
    sample = sample_of(photo())
    assert same(effect(sample, rng_of(1), setting)[1:], sample[1:])


# ------------------------------------------------------------------------------------------------
# Formulas
# ------------------------------------------------------------------------------------------------


def test_blur_is_scipys_with_a_sigma_of_the_shorter_side():
    """Of 400 px 0.2 to 0.6 %: 0.8 to 2.4 px, whatever the longer side is."""
    pixels = np.random.default_rng(1).uniform(0, 255, (400, 600, 3)).astype(np.float32)
    part = pixels[:100, :100, 0].astype(np.float64)
    sigmas = []
    for number in range(25):
        found = blur(sample_of(pixels), rng_of(number), 1.0).pixels

        def error(sigma, found=found[:90, :90, 0]):  # away from where `part` ends
            return np.abs(gaussian_filter(part, sigma, mode="mirror")[:90, :90] - found).max()

        best = minimize_scalar(error, bounds=(0.8, 2.4), method="bounded")
        assert best.fun < 0.2, number
        sigmas.append(best.x)
        turned = blur(sample_of(pixels.transpose(1, 0, 2)), rng_of(number), 1.0).pixels
        np.testing.assert_allclose(turned.transpose(1, 0, 2), found, atol=1e-3)
    assert min(sigmas) < 0.95
    assert max(sigmas) > 2.25


def stored(pixels, quality):
    """Pillow's JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(int)


def test_jpeg_is_pillows_of_one_of_the_qualities():
    """Also red stays red: channels in another order give other pixels."""
    pixels = photo()[:90, :120]
    expected = {quality: stored(pixels, quality) for quality in range(1, 101)}
    qualities = []
    for number in range(60):
        found = jpeg(sample_of(pixels), rng_of(number), 1.0).pixels
        errors = {q: np.abs(found - known).mean() for q, known in expected.items()}
        qualities.append(min(errors, key=errors.get))
        assert errors[qualities[-1]] < 0.1
    assert 20 <= min(qualities) < 26
    assert 84 < max(qualities) <= 90


def test_fractions_are_rounded_before_they_are_stored():
    pixels = photo(np.float32) * 0.99 + 0.7
    for number in range(5):
        found = jpeg(sample_of(pixels), rng_of(number), 1.0).pixels
        rounded = np.rint(pixels).astype(np.uint8)
        expected = jpeg(sample_of(rounded), rng_of(number), 1.0).pixels
        np.testing.assert_array_equal(found, expected)


# ------------------------------------------------------------------------------------------------
# Cutout
# ------------------------------------------------------------------------------------------------

COLORS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]]
)


def painted(number, dtype=np.uint8):
    """A dark picture with one rectangle of 12 to 36 px in each of six cells; label i is COLORS[i].

    Every third draw the last of them is a region to ignore. Weights tell them apart, too.
    """
    rng = np.random.default_rng(number)
    pixels = np.full([H, W, 3], 8, dtype)
    boxes = []
    for cell, color in enumerate(COLORS):
        top, left = 45 * (cell // 3), 40 * (cell % 3)
        width, height = rng.integers(12, 37, 2)
        x, y = left + rng.integers(0, 40 - width), top + rng.integers(0, 45 - height)
        pixels[y : y + height, x : x + width] = color
        boxes.append([x, y, x + width, y + height])
    labels = np.arange(6, dtype=np.int32)
    labels[5] = IGNORE if number % 3 == 0 else 5
    weights = np.arange(1, 7, dtype=np.float32) / 6
    return Sample(pixels, np.array(boxes, np.float32), labels, weights)


def count(pixels):
    """(6,) pixels of each colour."""
    codes = pixels.astype(int) @ [1, 256, 65536]
    return np.array([(codes == color @ [1, 256, 65536]).sum() for color in COLORS])


def hulls(pixels):
    """(6, 4) boxes around the pixels of each colour; zeros where there is none."""
    codes = pixels.astype(int) @ [1, 256, 65536]
    boxes = np.zeros([6, 4], np.float32)
    for box, color in zip(boxes, COLORS, strict=True):
        y, x = np.nonzero(codes == color @ [1, 256, 65536])
        box[:] = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else 0
    return boxes


def hole_of(before, after):
    """Rows and columns of the grey rectangle, and whether it is one."""
    is_cut = (before != after).any(axis=-1)
    rows, columns = np.flatnonzero(is_cut.any(axis=1)), np.flatnonzero(is_cut.any(axis=0))
    is_full = is_cut.sum() == len(rows) * len(columns)
    return rows, columns, is_full and (after[is_cut] == GREY).all()


def test_what_is_left_to_see_decides_who_stays():
    """500 draws, visible pixels counted; weights and labels of the others stay, and the boxes are
    around what is left."""
    num_hidden = num_dropped = num_partly = num_shorter = num_regions = 0
    for number in range(DRAWS):
        sample = painted(number, DTYPES[number % 2])
        least = (0.0, 0.25, 0.6, 1.0)[number % 4]
        changed = cutout(sample, rng_of(number), 1.0, least)
        share = count(changed.pixels) / count(sample.pixels)
        is_region = sample.labels == IGNORE
        is_kept = (share > 0) & ((share >= least) | is_region)
        expected = sample.keep(is_kept)
        assert same(changed[2:], expected[2:]), number
        np.testing.assert_array_equal(changed.boxes, hulls(changed.pixels)[is_kept])
        num_shorter += (changed.boxes != expected.boxes).any(axis=1).sum()
        num_hidden += (share == 0).sum()
        num_dropped += ((share > 0) & ~is_kept).sum()
        num_partly += ((share < 1) & is_kept).sum()
        num_regions += ((share < least) & is_region & is_kept).sum()
    assert min(num_hidden, num_dropped, num_partly, num_shorter) > 50
    assert num_regions > 10


def test_holes_are_grey_rectangles_of_every_size_and_place():
    areas, ratios, rows, columns = [], [], [], []
    for number in range(DRAWS):
        sample = painted(number)
        y, x, is_hole = hole_of(sample.pixels, cutout(sample, rng_of(number), 1.0).pixels)
        assert is_hole, number
        areas.append(len(y) * len(x) / (H * W))
        ratios.append(len(y) / H / (len(x) / W))
        rows.append(y[0] / (H - len(y)))
        columns.append(x[0] / (W - len(x)))
    assert 0.048 < min(areas) < 0.055, "5 % but for the rounding of the sides"
    assert 0.195 < max(areas) < 0.205
    assert 0.47 < min(ratios) < 0.55
    assert 1.8 < max(ratios) < 2.1
    assert 0.12 < np.mean(areas) < 0.13
    assert abs(np.log(ratios).mean()) < 0.08
    for places in (rows, columns):
        assert min(places) == 0
        assert max(places) == 1
        assert 0.45 < np.mean(places) < 0.55


def test_pictures_without_objects_get_holes_too():
    sample = painted(0).keep(np.zeros(6, bool))
    changed = cutout(sample, rng_of(0), 1.0)
    assert hole_of(sample.pixels, changed.pixels)[2]
    assert same(changed[1:], sample[1:])
