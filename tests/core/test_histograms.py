"""Scores counted in bins, against NumPy's histogram and by hand."""

import numpy as np
import pytest
import tensorflow as tf

from core.histograms import BINS, score_histograms
from core.targets import BACKGROUND, BETWEEN

pytestmark = pytest.mark.quick


def logit(score):
    return np.log(score / (1 - np.asarray(score)))


def bins(counts):
    """Bin -> count of those that are not empty."""
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}


def test_by_hand():
    """One image, two classes: a positive in the class of the second object though the other is
    higher, an anchor that is ignored, two of background by their highest score."""
    scores = [[0.95, 0.31], [0.99, 0.99], [0.01, 0.15], [0.15, 0.01]]
    logits = tf.constant(logit(scores), tf.float32)[None]
    matches = tf.constant([[1, BETWEEN, BACKGROUND, BACKGROUND]])
    found = score_histograms(logits, tf.constant([[0, 1]]), matches)
    assert bins(found["positives"]) == {15: 1}  # 0.30 to 0.32
    assert bins(found["background"]) == {7: 2}  # 0.14 to 0.16


def random_case(images=3, anchors=400, rows=4, classes=5):
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 2, (images, anchors, classes)).astype(np.float32)
    labels = rng.integers(0, classes, (images, rows)).astype(np.int32)
    matches = rng.integers(-2, rows, (images, anchors)).astype(np.int32)
    return logits, labels, matches


@pytest.mark.parametrize("graph", [False, True])
def test_random_scores_equal_numpy(graph):
    logits, labels, matches = random_case()
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    image, anchor = np.nonzero(matches >= 0)
    expected = {
        "positives": scores[image, anchor, labels[image, matches[image, anchor]]],
        "background": scores.max(axis=2)[matches == BACKGROUND],
    }
    count = tf.function(score_histograms) if graph else score_histograms
    found = count(*map(tf.constant, (logits, labels, matches)))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert len(values) > 200
        np.testing.assert_array_equal(found[name], np.histogram(values, BINS, (0, 1))[0])


def test_certain_scores_are_in_the_outer_bins():
    logits = tf.constant([[[-200.0], [200.0]]])
    found = score_histograms(logits, tf.zeros([1, 0], tf.int32), tf.fill([1, 2], BACKGROUND))
    assert bins(found["background"]) == {0: 1, BINS - 1: 1}
    assert bins(found["positives"]) == {}


def test_what_is_no_number_is_left_out():
    """A network that has come to nan is to be seen in its losses, not to end here."""
    logits = tf.constant([[[np.nan], [0.01], [np.nan]]])
    found = score_histograms(logits, tf.constant([[0]]), tf.constant([[0, 0, BACKGROUND]]))
    assert (bins(found["positives"]), bins(found["background"])) == ({25: 1}, {})
