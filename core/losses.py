"""Focal loss (paper section 3), the box losses, and the criterion that puts them together.

Letters: B batch, N anchors, G padded ground-truth boxes, K classes.
"""

import tensorflow as tf

from core.anchors import AnchorGenerator, spatial_size
from core.box_coder import BoxCoder
from core.targets import BETWEEN, Matcher
from utils.boxes import area


def sigmoid_focal_loss(
    logits: tf.Tensor, targets: tf.Tensor, alpha: float | None = 0.25, gamma: float = 2.0
) -> tf.Tensor:
    """Focal loss of each logit; targets of the same shape are 0 or 1. Paper equation 5.

    alpha: weight of the ones, 1 - alpha of the zeros; None: no weights.
    With z the logit signed so that larger is better, cross-entropy c is softplus(-z) and
    log(1 - p_t) is -(z + c): finite with its gradient at any logit.
    Differentiable once, in logits. The slope in z, -(1 - p_t)^gamma (gamma p_t c + 1 - p_t), is
    made of what the loss is made of; the tape would take three times as many passes over all
    logits, and keep as much more.
    """
    sign = tf.where(targets > 0.5, 1.0, -1.0)
    weight = 1.0 if alpha is None else tf.where(targets > 0.5, alpha, 1 - alpha)

    @tf.custom_gradient
    def focal(logits):
        z = sign * logits
        cross_entropy = tf.nn.softplus(-z)
        log_miss = -(z + cross_entropy)
        miss = tf.exp(log_miss)  # 1 - p_t
        modulated = weight * tf.exp(gamma * log_miss) if gamma else weight
        slope = -sign * modulated * (gamma * (1 - miss) * cross_entropy + miss)
        return modulated * cross_entropy, lambda upstream: upstream * slope

    return focal(logits)


def smooth_l1(error: tf.Tensor, beta: float = 1 / 9) -> tf.Tensor:
    """error^2 / (2 beta) within beta of 0, |error| - beta / 2 outside; elementwise."""
    size = tf.abs(error)
    return tf.where(size < beta, 0.5 * tf.square(error) / beta, size - 0.5 * beta)


def giou_loss(boxes: tf.Tensor, targets: tf.Tensor, epsilon: float = 1e-7) -> tf.Tensor:
    """1 - generalised IoU of (..., 4) xyxy boxes, row by row -> (...); from 0 to 2.

    Source: Rezatofighi et al., arXiv:1902.09630. `epsilon` keeps boxes without area finite.
    """
    lower, upper = tf.minimum(boxes, targets), tf.maximum(boxes, targets)
    overlap = area(tf.concat([upper[..., :2], lower[..., 2:]], axis=-1))
    hull = area(tf.concat([lower[..., :2], upper[..., 2:]], axis=-1))
    union = area(boxes) + area(targets) - overlap
    return 1 - overlap / (union + epsilon) + (hull - union) / (hull + epsilon)


DELTA_LOSSES = {"smooth_l1": smooth_l1, "l1": lambda error, beta: tf.abs(error)}
BOX_LOSSES = (*DELTA_LOSSES, "giou")  # the last one of the boxes themselves


class Criterion:
    """Network outputs and ground truth -> losses.

    anchors, coder, matcher: the model's conventions.
    alpha, gamma: of the focal loss. box_loss: "smooth_l1" (with beta), "l1" or "giou".
    box_weight: of the box loss in the total.
    normalization: "batch": sums over the batch / max(1, positives in the batch);
        "image": sums over an image / max(1, its positives), then the mean over images.
    """

    def __init__(
        self,
        *,
        anchors: AnchorGenerator,
        coder: BoxCoder,
        matcher: Matcher,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        box_loss: str = "smooth_l1",
        beta: float = 1 / 9,
        box_weight: float = 1.0,
        normalization: str = "batch",
    ):
        if box_loss not in BOX_LOSSES:
            raise ValueError(f"box_loss: expected {', '.join(BOX_LOSSES)}, found {box_loss!r}")
        if normalization not in ("batch", "image"):
            raise ValueError(f"normalization: expected batch or image, found {normalization!r}")
        self.anchors, self.coder, self.matcher = anchors, coder, matcher
        self.alpha, self.gamma = alpha, gamma
        self.box_loss, self.beta, self.box_weight = box_loss, beta, box_weight
        self.normalization = normalization

    def __call__(self, outputs: dict, batch: dict) -> dict[str, tf.Tensor]:
        """Scalars float32: "loss", "class_loss", "box_loss" and "positives" (anchors in the batch).

        outputs: class_logits (B, N, K), box_deltas (B, N, 4).
        batch: images (B, H, W, 3), boxes (B, G, 4) xyxy in input pixels, labels (B, G).
        A batch without objects has box loss 0 and teaches the background.
        """
        logits, deltas = outputs["class_logits"], outputs["box_deltas"]
        height, width = spatial_size(batch["images"])
        anchors = self.anchors(height, width)
        matches = self.matcher(anchors, batch["boxes"], batch["labels"])
        is_positive = matches >= 0
        index = tf.maximum(matches, 0)
        # A padded row is gathered where an image has no object; it is used nowhere.
        boxes = tf.gather(tf.pad(batch["boxes"], [[0, 0], [0, 1], [0, 0]]), index, batch_dims=1)
        labels = tf.gather(tf.pad(batch["labels"], [[0, 0], [0, 1]]), index, batch_dims=1)

        classes = tf.one_hot(tf.where(is_positive, labels, -1), logits.shape[-1])
        focal = sigmoid_focal_loss(logits, classes, self.alpha, self.gamma)
        focal = tf.where(matches != BETWEEN, tf.reduce_sum(focal, axis=2), 0.0)
        box = tf.where(is_positive, self._box_losses(deltas, boxes, anchors, is_positive), 0.0)

        positives = tf.reduce_sum(tf.cast(is_positive, tf.float32), axis=1)  # (B,)
        class_loss = self._normalize(tf.reduce_sum(focal, axis=1), positives)
        box_loss = self._normalize(tf.reduce_sum(box, axis=1), positives)
        return {
            "loss": class_loss + self.box_weight * box_loss,
            "class_loss": class_loss,
            "box_loss": box_loss,
            "positives": tf.reduce_sum(positives),
        }

    def _box_losses(self, deltas, boxes, anchors, is_positive) -> tf.Tensor:
        """The loss of each anchor's box against the object it answers for, (B, N)."""
        if self.box_loss == "giou":
            # The other anchors answer for no box: a gradient through them must stay finite.
            is_positive = is_positive[..., None]
            found = self.coder.decode(tf.where(is_positive, deltas, 0.0), anchors)
            return giou_loss(found, tf.where(is_positive, boxes, anchors))
        error = deltas - self.coder.encode(boxes, anchors)
        return tf.reduce_sum(DELTA_LOSSES[self.box_loss](error, self.beta), axis=-1)

    def _normalize(self, sums: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
        if self.normalization == "image":
            return tf.reduce_mean(sums / tf.maximum(positives, 1.0))
        return tf.reduce_sum(sums) / tf.maximum(tf.reduce_sum(positives), 1.0)
