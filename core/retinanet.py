"""RetinaNet: backbone, neck, and one subnet each for classes and boxes (arXiv:1708.02002).

Letters: B batch, H W pixels, N anchors, K classes.
"""

from typing import Any

import keras
import tensorflow as tf

from core.layers import Composite

# Statistics of ImageNet: RGB in 0-1 (torch style), BGR in 0-255 (caffe style).
TORCH_MEAN, TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)


def normalize(images: tf.Tensor, sizes: tf.Tensor | None, style: str) -> tf.Tensor:
    """RGB 0-255 -> the backbone's input, with zeros where `sizes` says there is padding.

    images: (B, H, W, 3) of any numeric type.
    sizes: (B, 2) height and width of each image's content, at the top left; None: no padding.
    style: "torch" or "caffe".
    Returns (B, H, W, 3) float32. Padding is zero after normalising, as in all known RetinaNets.
    """
    images = tf.cast(images, tf.float32)
    if style == "torch":
        images = (images / 255.0 - TORCH_MEAN) / TORCH_STD
    elif style == "caffe":
        images = tf.reverse(images, [-1]) - CAFFE_MEAN
    else:
        raise ValueError(f"normalization: expected torch or caffe, found {style!r}")
    if sizes is None:
        return images
    shape = tf.shape(images)
    rows = tf.sequence_mask(sizes[:, 0], shape[1])[:, :, None, None]
    columns = tf.sequence_mask(sizes[:, 1], shape[2])[:, None, :, None]
    return tf.where(rows & columns, images, 0.0)


class RetinaNet(Composite, keras.Model):
    """Images (B, H, W, 3), RGB 0-255 -> {"class_logits": (B, N, K), "box_deltas": (B, N, 4)}.

    backbone: normalised images -> [C3, C4, C5]; neck: those -> [P3 ... P7];
    class_head, box_head: pyramid -> (B, N, K) and (B, N, 4) float32.
    Keras hands `training` on to those of its layers that take it: a neck need not.
    normalization: "torch" or "caffe", see `normalize`.
    Any H and W: level l has ceil(H / 2^l) x ceil(W / 2^l) cells.
    """

    def __init__(
        self,
        *,
        backbone: keras.layers.Layer,
        neck: keras.layers.Layer,
        class_head: keras.layers.Layer,
        box_head: keras.layers.Layer,
        normalization: str = "torch",
        **kwargs: Any,
    ):
        # Keras would round 0-255 to half precision before they are normalised.
        super().__init__(autocast=False, **kwargs)
        self.backbone = backbone
        self.neck = neck
        self.class_head = class_head
        self.box_head = box_head
        self.normalization = normalization

    def call(
        self, images: tf.Tensor, sizes: tf.Tensor | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        x = normalize(images, sizes, self.normalization)
        pyramid = self.neck(self.backbone(tf.cast(x, self.compute_dtype), training=training))
        return {"class_logits": self.class_head(pyramid), "box_deltas": self.box_head(pyramid)}
