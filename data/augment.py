"""Random changes of one sample, an operation a function.

Each takes what it changes, a stateless seed (2,) int32 and its own settings, and works eagerly and
inside tf.data alike. Images are (H, W, 3), boxes (G, 4) float32 xyxy in their pixels.
"""

import tensorflow as tf

from utils.boxes import IGNORE, area

GREY = 116  # ImageNet's mean, near zero once normalised: what lies beyond an image


def flip(
    image: tf.Tensor,
    boxes: tf.Tensor,
    seed: tf.Tensor,
    probability: float = 0.5,
    vertical: bool = False,
):
    """Mirrors left and right, or top and bottom, with the given probability -> image, boxes."""
    is_flipped = tf.random.stateless_uniform([], seed) < probability
    axis = 0 if vertical else 1
    side = tf.cast(tf.shape(image)[axis], tf.float32)
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    corners = [x1, side - y2, x2, side - y1] if vertical else [side - x2, y1, side - x1, y2]
    image = tf.cond(is_flipped, lambda: tf.reverse(image, [axis]), lambda: image)
    return image, tf.where(is_flipped, tf.stack(corners, axis=1), boxes)


def zoom(
    image: tf.Tensor,
    boxes: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    limits: tuple[float, float] = (0.5, 2.0),
    min_visibility: float = 0.25,
):
    """Looks at the image through a window 1 / zoom of its size -> image, boxes, labels.

    The zoom is log-uniform within `limits`, the place uniform. Below 1 the window is larger than
    the image (expand) and filled with grey; above 1 it is a crop. Boxes are clipped to the window;
    those left with less than `min_visibility` of their area are dropped, ignore regions only when
    nothing is left. The aspect ratio stays; resizing to the network's size comes after.
    """
    values = tf.random.stateless_uniform([3], seed)
    low, high = (tf.math.log(float(limit)) for limit in limits)
    factor = tf.exp(low + values[0] * (high - low))
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    window = tf.maximum(tf.round(size / factor), 1.0)
    # From flush at the bottom right to flush at the top left, whichever of the two is larger.
    start = tf.minimum(size - window, 0.0) + values[1:] * tf.abs(size - window)
    start, window = tf.cast(tf.round(start), tf.int32), tf.cast(window, tf.int32)

    image = crop_or_pad(image, start, window)
    corner = tf.cast(tf.stack([start[1], start[0]] * 2), tf.float32)
    limit = tf.cast(tf.stack([window[1], window[0]] * 2), tf.float32)
    clipped = tf.clip_by_value(boxes - corner, 0.0, limit)
    visible = tf.math.divide_no_nan(area(clipped), area(boxes))
    is_kept = (visible > 0) & ((visible >= min_visibility) | (labels == IGNORE))
    return image, tf.boolean_mask(clipped, is_kept), tf.boolean_mask(labels, is_kept)


def crop_or_pad(image: tf.Tensor, start: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The (height, width) `size` from (y, x) `start` on, which may lie outside: grey there."""
    full = tf.shape(image)[:2]
    end = start + size
    first, last = tf.maximum(start, 0), tf.minimum(end, full)
    inside = image[first[0] : last[0], first[1] : last[1]]
    margins = tf.stack([first - start, end - last], axis=1)
    return tf.pad(inside, tf.concat([margins, [[0, 0]]], axis=0), constant_values=GREY)


def color_jitter(
    image: tf.Tensor,
    seed: tf.Tensor,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> tf.Tensor:
    """Changes the colours of a float32 image, 0-255; the settings are those of configs Augment.

    All four are linear in a pixel's colour, so they are one 3x3 matrix and one offset. Hue turns
    the colour circle in YIQ space, which keeps the luma.
    """
    values = tf.random.stateless_uniform([4], seed, -1.0, 1.0)
    to_yiq = tf.constant([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    angle = values[3] * hue * 2 * 3.14159265
    cos, sin = tf.cos(angle), tf.sin(angle)
    chroma = 1.0 + values[2] * saturation
    turn = tf.stack([[1.0, 0.0, 0.0], [0.0, chroma * cos, -chroma * sin],
                     [0.0, chroma * sin, chroma * cos]])  # fmt: skip
    gain = 1.0 + values[1] * contrast
    matrix = gain * tf.linalg.inv(to_yiq) @ turn @ to_yiq
    mean = tf.reduce_mean(image)
    offset = (1.0 - gain) * mean + values[0] * brightness * 255.0
    pixels = tf.reshape(image, [-1, 3])
    pixels = tf.matmul(pixels, matrix, transpose_b=True) + offset
    return tf.reshape(tf.clip_by_value(pixels, 0.0, 255.0), tf.shape(image))
