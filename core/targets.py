"""Which anchor answers for which object (paper section 4, "Anchors").

Letters: B batch, N anchors, G padded ground-truth boxes.
"""

import tensorflow as tf

from utils.boxes import IGNORE, PADDING, area, pairwise_intersection, pairwise_iou

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

    def __call__(self, anchors: tf.Tensor, boxes: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """(N, 4) anchors, (B, G, 4) boxes xyxy, (B, G) labels -> (B, N) int32 matches.

        A match is an index into G, or BACKGROUND, or BETWEEN. Rows labelled PADDING match nothing;
        anchors that lie at least half inside a region labelled IGNORE are never background. G may
        be 0. Ties go to the first object.
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
        is_ignored = (labels == IGNORE)[:, None, :]
        inside = tf.math.divide_no_nan(overlap, area(anchors)[None, :, None])
        is_negative &= ~tf.reduce_any((inside >= 0.5) & is_ignored, axis=2)
        rest = tf.where(is_negative, BACKGROUND, BETWEEN)
        return tf.where(is_positive, best, rest)


def best_overlaps(anchors: tf.Tensor, boxes: tf.Tensor, chunk: int = 256) -> tf.Tensor:
    """(N, 4) anchors and (T, 4) boxes xyxy -> (T,) the best IoU that any anchor reaches."""
    best = [
        tf.reduce_max(pairwise_iou(boxes[i : i + chunk], anchors), axis=1)
        for i in range(0, len(boxes), chunk)
    ]
    return tf.concat(best, axis=0) if best else tf.zeros([0])
