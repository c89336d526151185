"""Network outputs -> detections.

Letters: B batch, N anchors, K classes, M candidates before NMS, D detections.
"""

import tensorflow as tf

from core.anchors import AnchorGenerator, spatial_size
from core.box_coder import BoxCoder


class Postprocess:
    """Top candidates of each level, decoded, clipped, then NMS within each class.

    anchors, coder: the model's conventions.
    score_threshold: candidates must exceed it. top_k: candidates kept a level, over all classes.
    nms_iou: NMS drops boxes that overlap a better one of their class by more.
    max_detections: D, kept for an image.
    """

    def __init__(
        self,
        *,
        anchors: AnchorGenerator,
        coder: BoxCoder,
        score_threshold: float = 0.05,
        top_k: int = 1000,
        nms_iou: float = 0.5,
        max_detections: int = 100,
    ):
        self.anchors, self.coder = anchors, coder
        self.score_threshold, self.top_k = score_threshold, top_k
        self.nms_iou, self.max_detections = nms_iou, max_detections

    def __call__(self, outputs: dict, batch: dict) -> dict[str, tf.Tensor]:
        """Detections in descending order of score, in pixels of the original image.

        outputs: class_logits (B, N, K), box_deltas (B, N, 4).
        batch: images (B, H, W, 3); sizes (B, 2) int height, width of the content;
            scales (B, 2) float x, y: input pixels an original pixel.
        Returns boxes (B, D, 4) xyxy, scores (B, D), labels (B, D) int32, counts (B,) int32; rows
        beyond the count have score 0 and label -1.
        """
        logits, deltas = outputs["class_logits"], outputs["box_deltas"]
        height, width = spatial_size(batch["images"])
        scores, index, labels = self._candidates(logits, height, width)
        anchors = tf.gather(self.anchors(height, width), index)
        boxes = self.coder.decode(tf.gather(deltas, index, batch_dims=1), anchors)
        # Not sizes[::-1]: a negative stride stops TensorFlow from fusing convolutions and relu.
        height_width = tf.cast(batch["sizes"], tf.float32)
        limit = tf.gather(height_width, [1, 0, 1, 0], axis=1)[:, None]
        boxes = tf.clip_by_value(boxes, 0.0, limit)

        # One score a class, so that NMS works within classes; an offset a class would cost
        # precision.
        by_class = tf.one_hot(labels, logits.shape[-1]) * scores[..., None]
        boxes, scores, labels, counts = tf.image.combined_non_max_suppression(
            boxes[:, :, None, :],
            by_class,
            max_output_size_per_class=self.max_detections,
            max_total_size=self.max_detections,
            iou_threshold=self.nms_iou,
            score_threshold=self.score_threshold,
            clip_boxes=False,
        )
        is_real = tf.sequence_mask(counts, self.max_detections)
        scales = tf.concat([batch["scales"], batch["scales"]], axis=-1)[:, None, :]
        return {
            "boxes": boxes / scales,
            "scores": scores,
            "labels": tf.where(is_real, tf.cast(labels, tf.int32), -1),
            "counts": counts,
        }

    def _candidates(self, logits: tf.Tensor, height, width):
        """Best (anchor, class) pairs of each level -> scores, anchor indices, labels: (B, M).

        The best `top_k` pairs lie on at most as many anchors, those of the highest best class: only
        their classes are sorted. Exact but for ties.
        """
        num_classes = logits.shape[-1]
        highest = tf.reduce_max(logits, axis=2)  # (B, N)
        values, anchors, labels, start = [], [], [], 0
        for count in self.anchors.level_counts(height, width):
            kept = tf.minimum(self.top_k, count)
            best = tf.math.top_k(highest[:, start : start + count], kept, sorted=False)
            index = best.indices + start
            pairs = tf.gather(logits, index, batch_dims=1)  # (B, kept, K)
            pairs = tf.reshape(pairs, [tf.shape(logits)[0], kept * num_classes])
            top = tf.math.top_k(pairs, tf.minimum(self.top_k, kept * num_classes), sorted=False)
            values.append(top.values)
            anchors.append(tf.gather(index, top.indices // num_classes, batch_dims=1))
            labels.append(top.indices % num_classes)
            start += count
        scores = tf.sigmoid(tf.concat(values, axis=1))
        return scores, tf.concat(anchors, axis=1), tf.concat(labels, axis=1)
