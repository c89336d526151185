"""The rule that brings an image to the network's size, with its inverse."""

import tensorflow as tf

from configs.schema import Canvas, ShortLong


def fitted_size(height: tf.Tensor, width: tf.Tensor, rule: Canvas | ShortLong) -> tf.Tensor:
    """Height and width after resizing, rounded down, aspect ratio kept: (...) -> (..., 2)."""
    height, width = tf.cast(height, tf.float64), tf.cast(width, tf.float64)
    if isinstance(rule, Canvas):
        scale = tf.minimum(rule.height / height, rule.width / width)
    else:
        short, long = tf.minimum(height, width), tf.maximum(height, width)
        scale = tf.minimum(rule.short / short, rule.long / long)
    # 1e-6, so that a side that should fit exactly is not a rounding error short of it.
    size = tf.cast(tf.floor(tf.stack([height, width], -1) * scale[..., None] + 1e-6), tf.int32)
    return tf.maximum(size, 1)


def resize(image: tf.Tensor, rule: Canvas | ShortLong) -> tuple[tf.Tensor, tf.Tensor]:
    """(H, W, 3) uint8 -> (h, w, 3) float32 0-255 and scales.

    scales: (2,) float32 x, y: new pixels an old pixel; boxes are multiplied by it, and divided on
        the way back.
    """
    before = tf.shape(image)[:2]
    size = fitted_size(before[0], before[1], rule)
    # Smoothing matters, and takes its time, only where the image shrinks.
    image = tf.cond(
        tf.reduce_any(size < before) if rule.antialias else tf.constant(False),
        lambda: tf.image.resize(image, size, antialias=True),
        lambda: tf.image.resize(image, size),
    )
    scales = tf.cast(size, tf.float32) / tf.cast(before, tf.float32)
    return tf.ensure_shape(image, [None, None, 3]), tf.reverse(scales, [0])


def pad(image: tf.Tensor, rule: Canvas | ShortLong) -> tf.Tensor:
    """Zeros at the bottom and right of (h, w, 3), up to the canvas or the next multiple."""
    size = tf.shape(image)[:2]
    if isinstance(rule, Canvas):
        full = tf.constant([rule.height, rule.width])
    else:
        full = -(-size // rule.multiple) * rule.multiple
    missing = full - size
    return tf.pad(image, [[0, missing[0]], [0, missing[1]], [0, 0]])
