"""The rule that brings an image to the network's size, with its inverse."""

import tensorflow as tf

from configs.schema import Canvas, ShortLong


def fitted_size(height: tf.Tensor, width: tf.Tensor, rule: Canvas | ShortLong) -> tf.Tensor:
    """Height and width after resizing, aspect ratio kept: (...) -> (..., 2) int32."""
    sides = tf.cast(tf.stack([height, width], axis=-1), tf.float64)
    if isinstance(rule, Canvas):
        scale = tf.reduce_min([rule.height, rule.width] / sides, axis=-1, keepdims=True)
        # 1e-6, so that a side that should fit exactly is not a rounding error short of it.
        size = tf.floor(sides * scale + 1e-6)
    else:
        # Sorted, the sides are the short and the long one. Rounding errors stay: where they make
        # 799 of a side, torchvision's do too.
        scale = tf.reduce_min([rule.short, rule.long] / tf.sort(sides), axis=-1, keepdims=True)
        size = tf.floor(sides * scale) if rule.rounding == "floor" else tf.round(sides * scale)
    return tf.maximum(tf.cast(size, tf.int32), 1)


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
        cells = size // rule.multiple + 1 if rule.always_pad else -(-size // rule.multiple)
        full = cells * rule.multiple
    missing = full - size
    return tf.pad(image, [[0, missing[0]], [0, missing[1]], [0, 0]])
