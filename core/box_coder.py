"""Boxes relative to anchors and back."""

import math
from collections.abc import Sequence

import tensorflow as tf

from utils.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh


class BoxCoder:
    """Writes boxes as deltas from anchors, and reads them again.

    form: "center": (dx, dy) of the centre in anchor sides, log of the side ratios (R-CNN);
        "corner": (dx1, dy1, dx2, dy2) in anchor sides (keras-retinanet).
    stds: deltas are divided by these; 1s in the paper's code, torchvision and detectron2.
    max_log_scale: in decoding, log of the largest growth of a side; None: no limit.
    """

    def __init__(
        self,
        form: str = "center",
        stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        max_log_scale: float | None = math.log(1000 / 16),
    ):
        if form not in ("center", "corner"):
            raise ValueError(f"form: expected center or corner, found {form!r}")
        self.form = form
        self.stds = tuple(stds)
        self.max_log_scale = math.inf if max_log_scale is None else max_log_scale

    def encode(self, boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """(..., N, 4) xyxy boxes and (N, 4) xyxy anchors -> (..., N, 4) deltas.

        A box without area (a padded row) gives finite numbers of no meaning.
        """
        anchor = xyxy_to_cxcywh(anchors)
        if self.form == "corner":
            sides = tf.concat([anchor[..., 2:], anchor[..., 2:]], axis=-1)
            return (boxes - anchors) / sides / self.stds
        box = xyxy_to_cxcywh(boxes)
        shift = (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
        growth = tf.math.log(tf.maximum(box[..., 2:] / anchor[..., 2:], 1e-6))
        return tf.concat([shift, growth], axis=-1) / self.stds

    def decode(self, deltas: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """(..., N, 4) deltas and (..., N, 4) xyxy anchors -> (..., N, 4) xyxy boxes."""
        deltas = deltas * self.stds
        anchor = xyxy_to_cxcywh(anchors)
        if self.form == "corner":
            return anchors + deltas * tf.concat([anchor[..., 2:], anchor[..., 2:]], axis=-1)
        center = anchor[..., :2] + deltas[..., :2] * anchor[..., 2:]
        growth = tf.minimum(deltas[..., 2:], self.max_log_scale)
        return cxcywh_to_xyxy(tf.concat([center, tf.exp(growth) * anchor[..., 2:]], axis=-1))
