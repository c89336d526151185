"""Box formats, areas and overlaps, for NumPy arrays and TensorFlow tensors alike.

A box is xyxy: float32, absolute pixels, continuous coordinates, origin at the top-left corner of
the top-left pixel. Any other format is in the function's name.
Labels: 0-based class ids; two negative values have a meaning of their own.
"""

from typing import TypeAlias

import numpy as np
import tensorflow as tf

Boxes: TypeAlias = tf.Tensor | np.ndarray
PADDING = -1  # a row that fills a batch up: reaches no loss and no metric
IGNORE = -2  # a region to look away from: neither positive nor negative


def xyxy_to_cxcywh(boxes: Boxes) -> tf.Tensor:
    """(..., 4) xyxy -> (..., 4) centre x, centre y, width, height."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    return tf.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=-1)


def cxcywh_to_xyxy(boxes: Boxes) -> tf.Tensor:
    """(..., 4) centre x, centre y, width, height -> (..., 4) xyxy."""
    cx, cy, w, h = tf.unstack(boxes, axis=-1)
    return tf.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=-1)


def area(boxes: Boxes) -> tf.Tensor:
    """(..., 4) xyxy -> (...); an inverted box has area 0."""
    width = tf.maximum(boxes[..., 2] - boxes[..., 0], 0.0)
    height = tf.maximum(boxes[..., 3] - boxes[..., 1], 0.0)
    return width * height


def pairwise_intersection(a: Boxes, b: Boxes) -> tf.Tensor:
    """(..., N, 4) and (..., G, 4) xyxy -> (..., N, G) areas of overlap."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    width = tf.minimum(a[..., 2], b[..., 2]) - tf.maximum(a[..., 0], b[..., 0])
    height = tf.minimum(a[..., 3], b[..., 3]) - tf.maximum(a[..., 1], b[..., 1])
    return tf.maximum(width, 0.0) * tf.maximum(height, 0.0)


def pairwise_iou(a: Boxes, b: Boxes) -> tf.Tensor:
    """(..., N, 4) and (..., G, 4) xyxy -> (..., N, G) IoU; 0 where both are empty."""
    intersection = pairwise_intersection(a, b)
    union = area(a)[..., :, None] + area(b)[..., None, :] - intersection
    return tf.math.divide_no_nan(intersection, union)
