"""Focal loss (paper section 3), the box losses, and the criterion that puts them together.

Letters: B batch, N anchors, G padded ground-truth boxes, K classes.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from core.anchors import AnchorGenerator, Count, spatial_size
from core.box_coder import BoxCoder
from core.targets import BACKGROUND, BETWEEN, Atss, Matcher
from utils.boxes import area


def sigmoid_focal_loss(
    logits: tf.Tensor,
    targets: tf.Tensor,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
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
    def focal(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
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
    iou, union, hull = _iou_union_hull(boxes, targets, epsilon)
    hull = area(hull)
    return 1 - iou + (hull - union) / (hull + epsilon)


def diou_loss(boxes: tf.Tensor, targets: tf.Tensor, epsilon: float = 1e-7) -> tf.Tensor:
    """1 - IoU + the centres' distance over the hull's diagonal, squared; else as `giou_loss`.

    Source: Zheng et al., arXiv:1911.08287, equation 7.
    """
    iou, _, hull = _iou_union_hull(boxes, targets, epsilon)
    return 1 - iou + _center_distance(boxes, targets, hull, epsilon)


def ciou_loss(boxes: tf.Tensor, targets: tf.Tensor, epsilon: float = 1e-7) -> tf.Tensor:
    """`diou_loss` + alpha v, where v from 0 to 1 says how much the aspect ratios differ.

    The weight alpha = v / (1 - IoU + v) is a constant to the gradient.
    Source: Zheng et al., arXiv:1911.08287, equations 8 to 11.
    """
    iou, _, hull = _iou_union_hull(boxes, targets, epsilon)
    v = tf.square(2 / math.pi * (_aspect_angle(targets, epsilon) - _aspect_angle(boxes, epsilon)))
    alpha = tf.stop_gradient(v / (1 - iou + v + epsilon))
    return 1 - iou + _center_distance(boxes, targets, hull, epsilon) + alpha * v


def _iou_union_hull(
    boxes: tf.Tensor, targets: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """IoU (...) and union (...) of (..., 4) xyxy boxes, and the smallest box around both."""
    lower, upper = tf.minimum(boxes, targets), tf.maximum(boxes, targets)
    overlap = area(tf.concat([upper[..., :2], lower[..., 2:]], axis=-1))
    union = area(boxes) + area(targets) - overlap
    hull = tf.concat([lower[..., :2], upper[..., 2:]], axis=-1)
    return overlap / (union + epsilon), union, hull


def _center_distance(
    boxes: tf.Tensor, targets: tf.Tensor, hull: tf.Tensor, epsilon: float
) -> tf.Tensor:
    """Squared distance of the centres over the hull's squared diagonal, 0 to below 1."""
    apart = (boxes[..., :2] + boxes[..., 2:] - targets[..., :2] - targets[..., 2:]) / 2
    diagonal = hull[..., 2:] - hull[..., :2]
    squares = [tf.reduce_sum(tf.square(vector), axis=-1) for vector in (apart, diagonal)]
    return squares[0] / (squares[1] + epsilon)


def _aspect_angle(boxes: tf.Tensor, epsilon: float) -> tf.Tensor:
    return tf.atan((boxes[..., 2] - boxes[..., 0]) / (boxes[..., 3] - boxes[..., 1] + epsilon))


DELTA_LOSSES = {"smooth_l1": smooth_l1, "l1": lambda error, beta: tf.abs(error)}
OVERLAP_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}
BOX_LOSSES = DELTA_LOSSES | OVERLAP_LOSSES


class Targets(NamedTuple):
    """What a batch asks of the network's outputs.

    anchors: (N, 4) xyxy. level_counts: how many of them each level has, P3 first.
    matches: (B, N) int32, the object that each answers for, see `Matcher`.
    """

    anchors: tf.Tensor
    level_counts: Sequence[Count]
    matches: tf.Tensor


class Criterion:
    """Network outputs and ground truth -> losses.

    anchors, coder, matcher: the model's conventions.
    alpha, gamma: of the focal loss.
    box_loss: of the deltas, "smooth_l1" (with beta) or "l1"; of the boxes, "giou", "diou", "ciou".
    box_weight: of the box loss in the total.
    normalization: "batch": sums over the batch / max(1, weights of positives in the batch);
        "image": sums over an image / max(1, those of its positives), then the mean over images.

    Both losses of a positive anchor are multiplied by the weight of its object, so that images
    mixed 0.3 to 0.7 teach 0.3 and 0.7 of what each would (Zhang et al., arXiv:1902.04103, section
    3.1). A background anchor weighs 1. Where all objects weigh 1, the divisors count positives.
    """

    def __init__(
        self,
        *,
        anchors: AnchorGenerator,
        coder: BoxCoder,
        matcher: Matcher | Atss,
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

    def targets(self, batch: dict[str, tf.Tensor]) -> Targets:
        """The anchors of a batch and what they answer for; batch: as the criterion takes it."""
        height, width = spatial_size(batch["images"])
        anchors, counts = self.anchors(height, width), self.anchors.level_counts(height, width)
        matches = self.matcher(anchors, batch["boxes"], batch["labels"], counts)
        return Targets(anchors, counts, matches)

    def __call__(
        self,
        outputs: dict[str, tf.Tensor],
        batch: dict[str, tf.Tensor],
        targets: Targets | None = None,
    ) -> dict[str, tf.Tensor]:
        """Scalars float32: "loss" = "class_loss" + box_weight * "box_loss"; "foreground_loss", the
        part of class_loss that positive anchors have; "positives", how many these are in the batch,
        whatever they weigh, and "positives_p3" to "positives_p7", how many on each level;
        "ignored", how many anchors reach no loss.

        outputs: class_logits (B, N, K), box_deltas (B, N, 4).
        batch: images (B, H, W, 3), boxes (B, G, 4) xyxy in input pixels, labels (B, G); weights
            (B, G) float32 of the objects, 0 or more, all 1 where the batch has none.
        targets: of the batch, where they are known.
        A batch without objects has box loss 0 and teaches the background.
        """
        logits, deltas = outputs["class_logits"], outputs["box_deltas"]
        anchors, level_counts, matches = targets or self.targets(batch)
        is_positive = matches >= 0
        labels = _of_matches(batch["labels"], matches)
        weights = batch.get("weights", tf.ones_like(batch["labels"], tf.float32))
        weights = tf.where(is_positive, _of_matches(weights, matches), 0.0)

        classes = tf.one_hot(tf.where(is_positive, labels, -1), logits.shape[-1])
        focal = sigmoid_focal_loss(logits, classes, self.alpha, self.gamma)
        focal = tf.reduce_sum(focal, axis=2)
        foreground = tf.where(is_positive, weights * focal, 0.0)
        background = tf.where(matches == BACKGROUND, focal, 0.0)
        box = self._box_losses(deltas, _of_matches(batch["boxes"], matches), anchors, is_positive)
        box = tf.where(is_positive, weights * box, 0.0)

        divisors = tf.reduce_sum(weights, axis=1)  # (B,)
        class_loss = self._normalize(foreground + background, divisors)
        box_loss = self._normalize(box, divisors)
        return {
            "loss": class_loss + self.box_weight * box_loss,
            "class_loss": class_loss,
            "box_loss": box_loss,
            "foreground_loss": self._normalize(foreground, divisors),
            **_anchor_counts(matches, level_counts),
        }

    def _box_losses(
        self, deltas: tf.Tensor, boxes: tf.Tensor, anchors: tf.Tensor, is_positive: tf.Tensor
    ) -> tf.Tensor:
        """The loss of each anchor's box against the object it answers for, (B, N)."""
        if self.box_loss in OVERLAP_LOSSES:
            # The other anchors answer for no box: a gradient through them must stay finite.
            is_positive = is_positive[..., None]
            found = self.coder.decode(tf.where(is_positive, deltas, 0.0), anchors)
            return OVERLAP_LOSSES[self.box_loss](found, tf.where(is_positive, boxes, anchors))
        error = deltas - self.coder.encode(boxes, anchors)
        return tf.reduce_sum(DELTA_LOSSES[self.box_loss](error, self.beta), axis=-1)

    def _normalize(self, losses: tf.Tensor, divisors: tf.Tensor) -> tf.Tensor:
        """(B, N) losses, (B,) weights of the positives -> a scalar."""
        sums = tf.reduce_sum(losses, axis=1)
        if self.normalization == "image":
            return tf.reduce_mean(sums / tf.maximum(divisors, 1.0))
        return tf.reduce_sum(sums) / tf.maximum(tf.reduce_sum(divisors), 1.0)


def _anchor_counts(matches: tf.Tensor, level_counts: Sequence[Count]) -> dict[str, tf.Tensor]:
    """How many anchors of a batch are positive, in all and on each level, and how many ignored."""
    positives = tf.reduce_sum(tf.cast(matches >= 0, tf.float32), axis=0)  # (N,)
    levels = [tf.reduce_sum(level) for level in tf.split(positives, level_counts)]
    return {
        "positives": tf.add_n(levels),
        **{f"positives_p{number}": level for number, level in enumerate(levels, start=3)},
        "ignored": tf.reduce_sum(tf.cast(matches == BETWEEN, tf.float32)),
    }


def _of_matches(values: tf.Tensor, matches: tf.Tensor) -> tf.Tensor:
    """(B, G, ...) of the objects -> (B, N, ...) of the object that each anchor answers for.

    An anchor that answers for none gets what is used nowhere.
    """
    # One row more, so that an image without objects has something to gather.
    values = tf.pad(values, [[0, 0], [0, 1], *[[0, 0]] * (values.shape.rank - 2)])
    return tf.gather(values, tf.maximum(matches, 0), batch_dims=1)
