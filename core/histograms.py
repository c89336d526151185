"""How the scores of positive and of background anchors are spread, counted in bins.

Letters: B batch, N anchors, G padded ground-truth boxes, K classes, P positive anchors.
"""

import tensorflow as tf

from core.targets import BACKGROUND

BINS = 50  # of equal width, from score 0 to 1


def score_histograms(
    logits: tf.Tensor, labels: tf.Tensor, matches: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Counts (BINS,) int32 of scores: of "positives", each in the class of the object it answers
    for, and of the "background", each in the class it is highest in. Neither has ignored anchors.

    logits: (B, N, K). labels: (B, G) int32. matches: (B, N) int32, see `Matcher`.
    """
    positives = tf.where(matches >= 0)  # (P, 2) image and anchor
    rows = tf.cast(tf.gather_nd(matches, positives), tf.int64)
    rows = tf.gather_nd(labels, tf.stack([positives[:, 0], rows], axis=1))
    places = tf.concat([positives, tf.cast(rows, tf.int64)[:, None]], axis=1)
    background = tf.boolean_mask(tf.reduce_max(logits, axis=2), matches == BACKGROUND)
    return {
        "positives": _histogram(tf.gather_nd(logits, places)),
        "background": _histogram(background),
    }


def _histogram(logits: tf.Tensor) -> tf.Tensor:
    """(BINS,) counts of the scores of logits (...,); those of nan are left out."""
    scores = tf.sigmoid(tf.boolean_mask(logits, ~tf.math.is_nan(logits)))
    return tf.histogram_fixed_width(scores, [0.0, 1.0], BINS)
