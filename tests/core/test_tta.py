"""Views of a batch: by hand, and against TensorFlow's resize of the content alone."""

import numpy as np
import pytest
import tensorflow as tf

from core.tta import join_mirrored, scaled, with_mirrored

pytestmark = pytest.mark.quick


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def padded(sizes, height=64, width=96, fill=0, seed=0):
    """Noise of the given sizes at the top left of a canvas."""
    images = np.full((len(sizes), height, width, 3), fill, np.uint8)
    for i, (h, w) in enumerate(sizes):
        images[i, :h, :w] = noise(h, w, 3, seed=seed + i)
    return {"images": tf.constant(images), "sizes": tf.constant(sizes, tf.int32)}


def test_content_is_mirrored_and_padding_is_not():
    images = tf.reshape(tf.constant([[1, 2, 3, 4, 0], [5, 6, 7, 0, 0]], tf.uint8), [2, 1, 5, 1])
    found = with_mirrored({"images": images, "sizes": tf.constant([[1, 4], [1, 3]])})
    expected = [[1, 2, 3, 4, 0], [5, 6, 7, 0, 0], [4, 3, 2, 1, 0], [7, 6, 5, 0, 0]]
    np.testing.assert_array_equal(found["images"][:, 0, :, 0], expected)
    assert found["images"].dtype == tf.uint8
    np.testing.assert_array_equal(found["sizes"], [[1, 4], [1, 3], [1, 4], [1, 3]])


def test_boxes_of_mirrored_images_come_back():
    """A width of 10 and of 7, not that of the canvas; the others stay as they are."""
    boxes = tf.constant([[[1, 2, 3, 4]], [[0, 0, 7, 1]], [[1, 2, 4, 6]], [[0, 1, 2.5, 2]]])
    scores = tf.reshape(tf.range(8.0), [4, 1, 2])
    boxes, scores = join_mirrored(boxes, scores, tf.constant([[20, 10], [20, 7]]))
    np.testing.assert_array_equal(boxes[0], [[1, 2, 3, 4], [6, 2, 9, 6]])
    np.testing.assert_array_equal(boxes[1], [[0, 0, 7, 1], [4.5, 1, 7, 2]])
    np.testing.assert_array_equal(scores, [[[0, 1], [4, 5]], [[2, 3], [6, 7]]])


def test_a_row_of_pixels_by_hand():
    """Half the size: neighbours at distances .5 and 1.5 weigh .75 and .25, at the edge less many.

    One and a half: at (i + .5) / 1.5 of pixels whose centres are at .5, 1.5, 2.5.
    """
    row = tf.reshape(tf.constant([0.0, 60, 120, 180, 99]), [1, 1, 5, 1])  # 99 is padding
    batch = {"images": row, "sizes": tf.constant([[1, 4]])}
    half, more = scaled(batch, 0.5), scaled(batch, 1.5)
    np.testing.assert_array_equal(half["sizes"], [[1, 2]])
    expected = [75 / 1.75, (0.25 * 60 + 0.75 * 120 + 0.75 * 180) / 1.75]
    np.testing.assert_allclose(half["images"][0, 0, :2, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(more["sizes"], [[2, 6]])
    expected = [0, 30, 70, 110, 150, 180]
    np.testing.assert_allclose(more["images"][0, 0, :6, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fill", [0, 200])
@pytest.mark.parametrize(
    ("scale", "sizes"),
    [
        (0.5, [(64, 96), (50, 70), (34, 2)]),
        (1.5, [(64, 96), (50, 70), (34, 2)]),
        (2.0, [(63, 95), (51, 71), (1, 1)]),
        (0.75, [(60, 92), (4, 8)]),
    ],
)
def test_equals_tensorflows_resize_of_the_content_alone(scale, sizes, fill):
    """Whatever the padding holds, it leaks into no content."""
    view = scaled(batch := padded(sizes, fill=fill), scale)
    for i, (height, width) in enumerate(sizes):
        size = [int(height * scale), int(width * scale)]
        content = batch["images"][i, :height, :width]
        expected = tf.image.resize(content, size, antialias=True)
        np.testing.assert_array_equal(view["sizes"][i], size)
        found = view["images"][i, : size[0], : size[1]]
        np.testing.assert_allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize(
    ("scale", "canvas", "sizes"),
    [
        (0.5, (32, 64), [[25, 36], [1, 48]]),  # 64 x 96, odd contents: halves go up
        (1.1, (96, 128), [[54, 78], [1, 106]]),
        (1.5, (96, 160), [[74, 107], [2, 144]]),
    ],
)
def test_canvas_and_contents(scale, canvas, sizes):
    """Sides are whole multiples of 32, as small as hold the content; the same if known late."""
    batch = padded([(49, 71), (1, 96)])
    view = scaled(batch, scale)
    assert tuple(view["images"].shape) == (2, *canvas, 3)
    assert view["sizes"].dtype == tf.int32
    np.testing.assert_array_equal(view["sizes"], sizes)
    spec = {
        "images": tf.TensorSpec([None] * 3 + [3], tf.uint8),
        "sizes": tf.TensorSpec([None, 2], tf.int32),
    }
    late = tf.function(lambda batch: scaled(batch, scale), input_signature=[spec])(batch)
    np.testing.assert_array_equal(late["sizes"], sizes)
    np.testing.assert_allclose(late["images"], view["images"], atol=1e-2)


def test_a_whole_multiple_needs_no_more_though_floats_say_so():
    assert 1600 * 1.1 > 1760
    view = scaled(padded([(32, 1600)], 32, 1600), 1.1)
    assert tuple(view["images"].shape) == (1, 64, 1760, 3)
    assert view["sizes"].numpy().tolist() == [[35, 1760]]


def test_content_of_next_to_nothing_stays_a_pixel():
    assert scaled(padded([(1, 3)]), 0.25)["sizes"].numpy().tolist() == [[1, 1]]


def test_scale_one_is_the_batch_itself():
    batch = padded([(50, 70)])
    assert scaled(batch, 1.0) is batch
