"""Pixels of views: resampling against TensorFlow's, reduced decoding against full, orientation."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from configs.schema import Augment, Canvas, Data, ShortLong
from data.images import render
from data.images.decode import EncodedImage, decode_image
from data.images.render import image_reader, resample
from data.pipeline import evaluation_batches, training_sample
from data.records import DatasetError, Defects, assemble

pytestmark = pytest.mark.full

COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]])


def photo(height, width, seed=0):
    """Smooth and detailed at once: noise of several scales."""
    rng = np.random.default_rng(seed)
    image = np.zeros([height, width, 3])
    for cell, strength in ((96, 70), (24, 30), (6, 15)):
        coarse = rng.normal(0, strength, [height // cell + 2, width // cell + 2, 3])
        image += tf.image.resize(coarse, [height, width], "bicubic").numpy()
    return (128 + image).clip(0, 255).astype(np.uint8)


def write(path, seen, orientation=1, quality=95):
    """Writes what is to be seen as a camera of that EXIF orientation stores it."""
    stored = {
        1: seen, 2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1],
        5: seen.transpose(1, 0, 2), 6: np.rot90(seen, 1), 7: np.rot90(seen[:, ::-1], -1),
        8: np.rot90(seen, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    buffer = io.BytesIO()
    options = {} if path.suffix == ".png" else {"quality": quality, "subsampling": 0}
    kind = "PNG" if path.suffix == ".png" else "JPEG"
    Image.fromarray(np.ascontiguousarray(stored)).save(buffer, kind, exif=exif, **options)
    path.write_bytes(buffer.getvalue())


def dataset_of(path, height, width, boxes=()):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return assemble(
        "test", ("a", "b", "c", "d"), images=[str(path)], image_ids=["0"], sizes=[[width, height]],
        image_index=[0] * len(boxes), boxes=boxes, labels=np.arange(len(boxes)), defects=Defects(),
    )  # fmt: skip


@pytest.fixture
def reductions(monkeypatch):
    """Fills with the reduction of each decoding."""
    found, values = [], EncodedImage.values
    monkeypatch.setattr(
        EncodedImage, "values", lambda self, r=1: found.append(r) or values(self, r)
    )
    return found


# ------------------------------------------------------------------------------------------------
# Resampling
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(97, 300), (312, 416), (480, 640), (800, 1066)])
def test_without_antialias_the_numbers_are_tensorflows(size):
    image = np.random.default_rng(0).integers(0, 256, [480, 640, 3], np.uint8)
    found = resample(image, np.array(size), antialias=False)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, tf.image.resize(image, size), atol=0.02)


def box_filter(old, new):
    """(new, old): the share that each new pixel takes of each old one that it covers."""
    edges = np.arange(new + 1)[:, None] * old / new
    pixels = np.arange(old)
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return covered.clip(0) * new / old


@pytest.mark.parametrize("size", [(37, 49), (120, 160), (160, 213), (240, 320), (312, 416)])
def test_with_antialias_a_pixel_is_the_mean_of_what_it_covers(size):
    image = np.random.default_rng(0).integers(0, 256, [480, 640, 3], np.uint8)
    found = resample(image, np.array(size), antialias=True)
    rows = np.tensordot(box_filter(480, size[0]), image.astype(float), 1)
    expected = np.tensordot(box_filter(640, size[1]), rows, (1, 1)).swapaxes(0, 1)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_growing_needs_no_smoothing():
    image = photo(60, 80)
    size = np.array([90, 200])
    smooth, plain = (resample(image, size, antialias) for antialias in (True, False))
    np.testing.assert_allclose(smooth, plain, atol=1.01)
    np.testing.assert_array_equal(resample(image, np.array([60, 80]), True), image)


@pytest.mark.parametrize("size", [(1, 32), (32, 1), (1, 1), (7, 100)])
def test_extreme_shapes(size):
    for image in (photo(3, 4000), photo(4000, 3), photo(1, 1)):
        for antialias in (True, False):
            assert resample(image, np.array(size), antialias).shape == (*size, 3)


# ------------------------------------------------------------------------------------------------
# Reduced decoding
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "suffix", "expected"),
    [
        (Canvas(64, 64), ".jpg", 8),
        (Canvas(80, 80), ".jpg", 4),  # 613 / 80 = 7.7
        (Canvas(200, 200), ".jpg", 2),
        (Canvas(400, 400), ".jpg", 1),
        (Canvas(64, 64), ".png", 1),
        (Canvas(64, 64, antialias=False), ".jpg", 1),
        (ShortLong(64, 100, antialias=True), ".jpg", 4),
        (ShortLong(64, 100), ".jpg", 1),
    ],
)
def test_reduced_only_where_it_may_be(tmp_path, reductions, rule, suffix, expected):
    path = tmp_path / f"image{suffix}"
    write(path, photo(405, 613))
    (batch,) = evaluation_batches(dataset_of(path, 405, 613), rule, batch_size=1)
    assert reductions == [expected]
    assert batch["images"].dtype == (tf.uint8 if rule.antialias else tf.float32)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [40, 60, 120, 250])
def test_a_reduced_picture_is_the_full_one_made_smaller(tmp_path, orientation, side):
    """Odd sizes, so that the last reduced pixels are cut off; no shift at any edge."""
    path = tmp_path / "image.jpg"
    write(path, photo(403, 517), orientation)
    rule = Canvas(side + 7, side + 7)
    (batch,) = evaluation_batches(dataset_of(path, 403, 517), rule, batch_size=1)
    height, width = batch["sizes"][0].numpy()
    found = batch["images"][0, :height, :width].numpy()
    expected = tf.image.resize(decode_image(path), [height, width], antialias=True)
    assert np.abs(found - expected.numpy()).mean() < 2.5


@pytest.mark.slow
def test_twelve_megapixels_on_the_evaluation_path(tmp_path, reductions):
    path = tmp_path / "image.jpg"
    write(path, photo(3000, 4000), orientation=6)
    (batch,) = evaluation_batches(dataset_of(path, 3000, 4000), Canvas(), batch_size=1)
    expected = tf.image.resize(decode_image(path), [312, 416], antialias=True)
    assert reductions[0] == 8
    assert np.abs(batch["images"][0, :312].numpy() - expected.numpy()).mean() < 2


ZOOM = Augment(flip=0.5, vertical_flip=0.5, zoom=(0.5, 3.0), min_visibility=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(804, 1203), (808, 1200), (301, 402)])
@pytest.mark.parametrize("cache", [False, True])
def test_boxes_frame_their_colors_through_the_whole_pipeline(
    tmp_path, reductions, orientation, size, cache
):
    """Zoomed, mirrored, turned and reduced: to within a pixel of the network's input."""
    height, width = size
    image = np.full([height, width, 3], 8, np.uint8)
    fractions = [[0, 0, 0.3, 0.35], [0.6, 0.1, 0.9, 0.4], [0.1, 0.6, 0.35, 0.9], [0.7, 0.6, 1, 1]]
    boxes = np.round(np.array(fractions) * [width, height, width, height]).astype(int)
    for color, (x1, y1, x2, y2) in zip(COLORS, boxes, strict=True):
        image[y1:y2, x1:x2] = color
    path = tmp_path / "image.jpg"
    write(path, image, orientation)
    data = Data(augment=ZOOM, cache=cache)
    sample = training_sample(dataset_of(path, height, width, boxes), data, Canvas(96, 128), seed=3)
    num_boxes = 0
    for epoch in range(40):
        found = sample(0, epoch)
        picture = found["images"].astype(float)
        for box, label in zip(found["boxes"], found["labels"], strict=True):
            is_color = ((picture - COLORS[label]) ** 2).sum(axis=-1) < 120**2
            rows, columns = (np.flatnonzero(is_color.any(axis=axis)) for axis in (1, 0))
            frame = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(frame, box, atol=1, err_msg=f"{epoch} {reductions[-1]}")
            num_boxes += 1
    assert num_boxes > 60
    if cache:
        assert len(reductions) == 1, "decoded once"
    elif size == (808, 1200):
        assert set(reductions) == {2, 4, 8}, "every orientation"
    elif size == (804, 1203) and orientation == 1:
        assert set(reductions) == {2, 4, 8}


@pytest.mark.parametrize(("zoom", "expected"), [((1.0, 1.0), 8), ((0.5, 2.0), 4), ((1.0, 9.0), 1)])
def test_the_cache_keeps_images_as_small_as_the_zoom_allows(tmp_path, reductions, zoom, expected):
    path = tmp_path / "image.jpg"
    write(path, photo(800, 1200))
    data = Data(cache=True, augment=Augment(zoom=zoom))
    sample = training_sample(dataset_of(path, 800, 1200), data, Canvas(96, 128), seed=0)
    for epoch in range(20):
        sample(0, epoch)
    assert reductions == [expected]


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_part_that_begins_between_reduced_pixels_is_not_shifted(tmp_path, orientation, cache):
    """Its pixels are those of the full picture; a cut 7 pixels beside them would not be."""
    path = tmp_path / "image.jpg"
    seen = photo(811, 1203)
    write(path, seen, orientation, quality=100)
    read = image_reader(dataset_of(path, 811, 1203), cache)
    read(0, np.array([0, 0, 811, 1203]), np.array([100, 150]), True, 8)  # a cache keeps this
    for y, x in ((7, 7), (400, 397), (8, 3), (16, 24)):
        found = read(0, np.array([y, x, 400, 800]), np.array([50, 100]), True, 8)
        expected = seen[y : y + 400, x : x + 800].reshape(50, 8, 100, 8, 3).mean(axis=(1, 3))
        assert np.abs(found - expected).mean() < 1


def test_an_image_whose_size_has_changed_is_refused(tmp_path):
    path = tmp_path / "image.jpg"
    write(path, photo(40, 60), orientation=6)
    read = image_reader(dataset_of(path, 60, 40))
    with pytest.raises(DatasetError, match=r"image\.jpg: expected 40x60 .*, found 60x40"):
        read(0, np.array([0, 0, 60, 40]), np.array([60, 40]), True, 1)


def test_grey_is_as_bright_as_imagenets_mean():
    assert abs(render.GREY - 255 * np.mean([0.485, 0.456, 0.406])) < 2
