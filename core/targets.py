"""Which anchor answers for which object (paper section 4, "Anchors").

`Matcher` goes by IoU, as the paper does, `Atss` by what each object's nearest anchors are like.
Letters: B batch, N anchors, A anchors a cell, G padded ground-truth boxes.
"""

from collections.abc import Sequence

import tensorflow as tf

from core.anchors import Count
from utils.boxes import (
    IGNORE,
    PADDING,
    area,
    pairwise_intersection,
    pairwise_iou,
    xyxy_to_cxcywh,
)

BACKGROUND = -1  # the anchor is a negative
BETWEEN = -2  # neither positive nor negative: reaches no loss


class Matcher:
    """Assigns each anchor an object, the background, or nothing, by IoU.

    positive_iou: an anchor whose best IoU reaches this answers for that object.
    negative_iou: an anchor whose best IoU is below this is background.
    low_quality: an anchor that is the best of some object becomes positive, however low its IoU
        (but not 0), for the object it overlaps most - torchvision's and detectron2's rule. Of
        objects without an anchor above positive_iou none is left out, unless it shares its best
        anchor with another.

    With positive_iou .5, negative_iou .4 and one object, anchors of IoU .6, .45, .2 are matched
    to [0, BETWEEN, BACKGROUND].
    """

    def __init__(
        self, positive_iou: float = 0.5, negative_iou: float = 0.4, low_quality: bool = False
    ):
        if not 0 <= negative_iou <= positive_iou <= 1:
            raise ValueError(
                "expected 0 <= negative_iou <= positive_iou <= 1, "
                f"found {negative_iou} and {positive_iou}"
            )
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou
        self.low_quality = low_quality

    def __call__(
        self,
        anchors: tf.Tensor,
        boxes: tf.Tensor,
        labels: tf.Tensor,
        level_counts: Sequence[Count] = (),
    ) -> tf.Tensor:
        """(N, 4) anchors, (B, G, 4) boxes xyxy, (B, G) labels -> (B, N) int32 matches.

        A match is an index into G, or BACKGROUND, or BETWEEN. Rows labelled PADDING match nothing;
        anchors that lie at least half inside a region labelled IGNORE are never background. G may
        be 0. Ties go to the first object. level_counts: for `Atss`; IoU knows no levels.
        """
        # One padded row more, so that an image without objects has something to take a maximum of.
        boxes = tf.pad(boxes, [[0, 0], [0, 1], [0, 0]])
        labels = tf.pad(labels, [[0, 0], [0, 1]], constant_values=PADDING)
        overlap = pairwise_intersection(anchors[None], boxes)  # (B, N, G)
        union = area(anchors)[None, :, None] + area(boxes)[:, None, :] - overlap
        is_object = (labels >= 0)[:, None, :]
        iou = tf.where(is_object, tf.math.divide_no_nan(overlap, union), -1.0)

        best = tf.argmax(iou, axis=2, output_type=tf.int32)  # (B, N)
        best_iou = tf.reduce_max(iou, axis=2)
        is_positive = best_iou >= self.positive_iou
        if self.low_quality:
            highest = tf.reduce_max(iou, axis=1, keepdims=True)  # (B, 1, G)
            is_positive |= tf.reduce_any((iou == highest) & (iou > 0), axis=2)
        is_negative = best_iou < self.negative_iou
        is_negative &= ~_is_ignored(overlap, anchors, labels)
        rest = tf.where(is_negative, BACKGROUND, BETWEEN)
        return tf.where(is_positive, best, rest)


class Atss:
    """Assigns anchors by a threshold that each object draws from the anchors nearest to it.

    Candidates of an object are all anchors of the `top_k` cells of each level whose centres are
    closest to its own. Those that lie with their centre inside the object and reach the mean of
    the candidates' IoUs + their standard deviation answer for it; of several such objects, for
    the one of highest IoU. All other anchors are background.
    An object too small to have a cell's centre inside is left without an anchor.

    top_k: cells a level. num_anchors: anchors a cell.
    Source: Zhang et al., arXiv:1912.02424 section 3.2, where a cell has one anchor; with several,
    the authors' code takes top_k * num_anchors of them a level: those of the same cells.
    """

    def __init__(self, top_k: int = 9, num_anchors: int = 9):
        if top_k < 1 or num_anchors < 1:
            raise ValueError(
                f"expected top_k and num_anchors of 1 or more, found {top_k} and {num_anchors}"
            )
        self.top_k, self.num_anchors = top_k, num_anchors

    def __call__(
        self,
        anchors: tf.Tensor,
        boxes: tf.Tensor,
        labels: tf.Tensor,
        level_counts: Sequence[Count],
    ) -> tf.Tensor:
        """As `Matcher`: (B, N) matches, of which only anchors in regions to ignore are BETWEEN.

        level_counts: anchors on each level, see AnchorGenerator; they lie cell by cell.
        """
        num_images, num_rows = tf.unstack(tf.shape(labels))
        length = tf.shape(anchors)[0]
        claimed, iou = self.claims(anchors, boxes, level_counts)
        iou = tf.where((labels >= 0)[..., None, None], iou, -1.0)
        row = tf.range(num_rows)[:, None, None] + tf.zeros_like(claimed)
        # All images in one row of anchors, to find the best of the claims on each.
        place = claimed + length * tf.range(num_images)[:, None, None, None]
        iou, row, place = (tf.reshape(values, [-1]) for values in (iou, row, place))
        best_iou = tf.math.unsorted_segment_max(iou, place, num_images * length)
        is_best = (iou >= 0) & (iou == tf.gather(best_iou, place))
        row = tf.where(is_best, row, num_rows)
        best = tf.math.unsorted_segment_min(row, place, num_images * length)
        best = tf.reshape(best, [num_images, length])

        overlap = pairwise_intersection(anchors[None], boxes)  # (B, N, G)
        rest = tf.where(_is_ignored(overlap, anchors, labels), BETWEEN, BACKGROUND)
        return tf.where(best < num_rows, best, rest)

    def claims(
        self, anchors: tf.Tensor, boxes: tf.Tensor, level_counts: Sequence[Count]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """(B, G, C, A) int32 candidates of each box, and their IoU with it or -1 if refused.

        C: the nearest cells of all levels, top_k of each or all there are.
        """
        centers = xyxy_to_cxcywh(anchors[:: self.num_anchors])[:, :2]
        middles = xyxy_to_cxcywh(boxes)[:, :, None, :2]
        nearest, start = [], 0
        for count in level_counts:
            end = start + count // self.num_anchors
            distance = tf.reduce_sum(tf.square(centers[start:end] - middles), axis=-1)
            closest = tf.math.top_k(-distance, tf.minimum(self.top_k, end - start))
            nearest.append(start + closest.indices)
            start = end
        cells = tf.concat(nearest, axis=2)  # (B, G, C)
        candidates = cells[..., None] * self.num_anchors + tf.range(self.num_anchors)

        found = tf.gather(anchors, candidates)  # (B, G, C, A, 4)
        iou = pairwise_iou(boxes[:, :, None, None], found)[..., 0, :]
        mean, variance = tf.nn.moments(iou, axes=[2, 3], keepdims=True)
        center = tf.gather(centers, cells)
        low, high = boxes[:, :, None, :2], boxes[:, :, None, 2:]
        is_inside = tf.reduce_all((low < center) & (center < high), axis=-1)
        is_claimed = is_inside[..., None] & (iou >= mean + tf.sqrt(variance))
        return candidates, tf.where(is_claimed, iou, -1.0)


def _is_ignored(overlap: tf.Tensor, anchors: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """(B, N) bool: anchors that lie at least half inside a region labelled IGNORE.

    overlap: (B, N, G) areas that anchors and boxes share.
    """
    inside = tf.math.divide_no_nan(overlap, area(anchors)[None, :, None])
    return tf.reduce_any((inside >= 0.5) & (labels == IGNORE)[:, None, :], axis=2)


def best_overlaps(anchors: tf.Tensor, boxes: tf.Tensor, chunk: int = 256) -> tf.Tensor:
    """(N, 4) anchors and (T, 4) boxes xyxy -> (T,) the best IoU that any anchor reaches."""
    best = [
        tf.reduce_max(pairwise_iou(boxes[i : i + chunk], anchors), axis=1)
        for i in range(0, len(boxes), chunk)
    ]
    return tf.concat(best, axis=0) if best else tf.zeros([0])
