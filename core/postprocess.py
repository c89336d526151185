"""Network outputs -> detections.

Letters: B batch, N anchors, K classes, M candidates before NMS, D detections.
"""

import tensorflow as tf

from core.anchors import AnchorGenerator, Count, spatial_size
from core.box_coder import BoxCoder
from utils.boxes import pairwise_iou


class Postprocess:
    """Top candidates of each level, decoded, then clipped and NMS within each class.

    anchors, coder: the model's conventions.
    score_threshold: scores must exceed it. top_k: candidates kept a level, over all classes.
    nms: "hard" drops what overlaps a better box of its class by more than `nms_iou`, "linear"
        multiplies its score by 1 - IoU, "gaussian" the score of all by exp(-IoU^2 / soft_sigma).
    max_detections: D, kept for an image.

    `candidates` and `suppress` are its halves, for those of several views of an image. Soft-NMS:
    Bodla et al., "Soft-NMS - Improving Object Detection With One Line of Code", ICCV 2017
    (arXiv:1704.04503), equations 2 and 3. Raises ValueError for another `nms`.
    """

    def __init__(
        self,
        *,
        anchors: AnchorGenerator,
        coder: BoxCoder,
        score_threshold: float = 0.05,
        top_k: int = 1000,
        nms: str = "hard",
        nms_iou: float = 0.5,
        soft_sigma: float = 0.5,
        max_detections: int = 100,
    ):
        if nms not in ("hard", "linear", "gaussian"):
            raise ValueError(f"nms: expected hard, linear or gaussian, found {nms!r}")
        self.anchors, self.coder = anchors, coder
        self.score_threshold, self.top_k = score_threshold, top_k
        self.nms, self.nms_iou, self.soft_sigma = nms, nms_iou, soft_sigma
        self.max_detections = max_detections

    def __call__(
        self, outputs: dict[str, tf.Tensor], batch: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Detections of one forward pass, see `candidates` and `suppress`."""
        return self.suppress(*self.candidates(outputs, batch["images"]), batch)

    def candidates(
        self, outputs: dict[str, tf.Tensor], images: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Best candidates of a forward pass, in pixels of the network's input.

        outputs: class_logits (B, N, K), box_deltas (B, N, 4). images: (B, H, W, 3).
        Returns boxes (B, M, 4) xyxy, scores (B, M, K), 0 but for each one's class.
        """
        logits, deltas = outputs["class_logits"], outputs["box_deltas"]
        height, width = spatial_size(images)
        scores, index, labels = self._best(logits, height, width)
        anchors = tf.gather(self.anchors(height, width), index)
        boxes = self.coder.decode(tf.gather(deltas, index, batch_dims=1), anchors)
        # One score a class, so that NMS works within classes; an offset a class would cost
        # precision.
        return boxes, tf.one_hot(labels, logits.shape[-1]) * scores[..., None]

    def suppress(
        self, boxes: tf.Tensor, scores: tf.Tensor, batch: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Detections in descending order of score, in pixels of the original image.

        boxes, scores: as `candidates` gives them, of one view or of several.
        batch: sizes (B, 2) int height, width of the content; scales (B, 2) float x, y: input
            pixels an original pixel.
        Returns boxes (B, D, 4) xyxy, scores (B, D), labels (B, D) int32, counts (B,) int32; rows
        beyond the count have score 0 and label -1.
        """
        # Not sizes[::-1]: a negative stride stops TensorFlow from fusing convolutions and relu.
        height_width = tf.cast(batch["sizes"], tf.float32)
        limit = tf.gather(height_width, [1, 0, 1, 0], axis=1)[:, None]
        boxes = tf.clip_by_value(boxes, 0.0, limit)
        nms = self._hard_nms if self.nms == "hard" else self._soft_nms
        boxes, scores, labels, counts = nms(boxes, scores)
        is_real = tf.sequence_mask(counts, self.max_detections)
        scales = tf.concat([batch["scales"], batch["scales"]], axis=-1)[:, None, :]
        return {
            "boxes": boxes / scales,
            "scores": scores,
            "labels": tf.where(is_real, tf.cast(labels, tf.int32), -1),
            "counts": counts,
        }

    def _hard_nms(self, boxes: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Boxes (B, D, 4), scores (B, D), labels (B, D) and counts (B,)."""
        return tf.image.combined_non_max_suppression(
            boxes[:, :, None, :],
            scores,
            max_output_size_per_class=self.max_detections,
            max_total_size=self.max_detections,
            iou_threshold=self.nms_iou,
            score_threshold=self.score_threshold,
            clip_boxes=False,
        )

    def _soft_nms(self, boxes: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns what `_hard_nms` returns. D times, the best candidate left of each image is
        picked and those of its class decay; scores only fall, so that the picks come in order."""
        labels = tf.argmax(scores, axis=2, output_type=tf.int32)
        scores = self._above_threshold(tf.reduce_max(scores, axis=2))

        def pick(left: tf.Tensor, picked: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            best = tf.argmax(left, axis=1, output_type=tf.int32)[:, None]
            is_best = tf.range(tf.shape(left)[1]) == best
            overlap = pairwise_iou(tf.gather(boxes, best, batch_dims=1), boxes)[:, 0]
            is_rival = labels == tf.gather(labels, best, batch_dims=1)
            decayed = tf.where(is_rival, left * self._decay(overlap), left)
            left_over = tf.where(is_best, 0.0, self._above_threshold(decayed))
            # Added: an image with nothing left picks its first candidate once more, at 0.
            return left_over, picked + tf.where(is_best, left, 0.0)

        _, picked = tf.while_loop(
            lambda left, picked: tf.reduce_any(left > 0),
            pick,
            (scores, tf.zeros_like(scores)),
            maximum_iterations=self.max_detections,
        )
        # Zeros behind, in case there are fewer than D.
        room = tf.pad(picked, [[0, 0], [0, self.max_detections]])
        scores, index = tf.math.top_k(room, self.max_detections)
        index = tf.minimum(index, tf.shape(picked)[1] - 1)
        boxes = tf.gather(boxes, index, batch_dims=1)
        boxes = tf.where(scores[..., None] > 0, boxes, 0.0)
        counts = tf.math.count_nonzero(scores, axis=1, dtype=tf.int32)
        return boxes, scores, tf.gather(labels, index, batch_dims=1), counts

    def _decay(self, overlap: tf.Tensor) -> tf.Tensor:
        if self.nms == "linear":
            return tf.where(overlap > self.nms_iou, 1.0 - overlap, 1.0)
        return tf.exp(-tf.square(overlap) / self.soft_sigma)

    def _above_threshold(self, scores: tf.Tensor) -> tf.Tensor:
        return tf.where(scores > self.score_threshold, scores, 0.0)

    def _best(
        self, logits: tf.Tensor, height: Count, width: Count
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
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
