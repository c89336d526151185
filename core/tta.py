"""Several views of a batch for one set of detections: mirrored, and at other sizes.

A batch is as in `core.engine`: images (B, H, W, 3), sizes (B, 2) int32 height, width of the
content, which lies at the top left; nothing beyond it is seen in any view.
Letters: B batch, H W pixels, K classes, M candidates.
"""

from fractions import Fraction

import tensorflow as tf

from core.anchors import Count, spatial_size

MULTIPLE = 32  # of a canvas's sides, so that a grid's stride is that of P3 to P5


def with_mirrored(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """images (2B, H, W, 3), sizes (2B, 2): those of the batch, then with left and right swapped.

    The content is mirrored where it lies: its last column becomes column 0, padding stays behind.
    """
    images, sizes = batch["images"], batch["sizes"]
    mirrored = tf.reverse_sequence(images, sizes[:, 1], seq_axis=2)
    return {
        "images": tf.concat([images, mirrored], axis=0),
        "sizes": tf.concat([sizes, sizes], axis=0),
    }


def join_mirrored(
    boxes: tf.Tensor, scores: tf.Tensor, sizes: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Candidates of `with_mirrored` -> of the batch, those of the mirrored images mirrored back.

    boxes (2B, M, 4) xyxy, scores (2B, M, K), sizes (B, 2) -> boxes (B, 2M, 4), scores (B, 2M, K).
    """
    plain, mirrored = tf.split(boxes, 2)
    width = tf.cast(sizes[:, 1:], tf.float32)
    x1, y1, x2, y2 = tf.unstack(mirrored, axis=-1)
    back = tf.stack([width - x2, y1, width - x1, y2], axis=-1)
    return tf.concat([plain, back], axis=1), tf.concat(tf.split(scores, 2), axis=1)


def scaled(batch: dict[str, tf.Tensor], scale: float) -> dict[str, tf.Tensor]:
    """images (B, H', W', 3) float32, sizes (B, 2): the content at `scale` times its size.

    H', W': H and W times `scale`, up to the next multiple of 32. Bilinear, smoothed where it
    shrinks; exactly by `scale`, and from each image's own content alone. At 1: the batch as it is.
    """
    if scale == 1:
        return batch
    heights, widths = tf.unstack(batch["sizes"], axis=1)
    height, width = spatial_size(batch["images"])
    rows = _weights(heights, height, scale)
    columns = _weights(widths, width, scale)
    images = tf.cast(batch["images"], tf.float32)
    images = tf.einsum("byh,bxw,bhwc->byxc", rows, columns, images)
    sizes = tf.floor(tf.cast(batch["sizes"], tf.float32) * scale + 0.5)
    sizes = tf.clip_by_value(tf.cast(sizes, tf.int32), 1, tf.shape(images)[1:3])
    return {"images": images, "sizes": sizes}


def _weights(contents: tf.Tensor, side: Count, scale: float) -> tf.Tensor:
    """(B, side', side): what each new pixel of a line takes of each old one; rows sum to 1 or 0.

    contents: (B,) old pixels with content. side: old pixels, an int or a scalar tensor.
    """
    # In whole numbers, so that a side known late becomes the same as one known early.
    numerator, denominator = Fraction(scale).limit_denominator(1000).as_integer_ratio()
    cell = denominator * MULTIPLE
    new_side = (side * numerator + cell - 1) // cell * MULTIPLE  # up, as in AnchorGenerator.grids
    new = (tf.range(new_side, dtype=tf.float32) + 0.5) / scale
    old = tf.range(side, dtype=tf.float32) + 0.5
    weights = tf.nn.relu(1.0 - tf.abs(new[:, None] - old) * min(scale, 1.0))
    weights *= tf.sequence_mask(contents, side, tf.float32)[:, None]
    return tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=2, keepdims=True))
