"""Detections from random outputs, against a brute-force version in plain NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from core.anchors import AnchorGenerator
from core.box_coder import BoxCoder
from core.postprocess import Postprocess

HEIGHT, WIDTH = 64, 96
ANCHORS = AnchorGenerator()
N = sum(ANCHORS.level_counts(HEIGHT, WIDTH))


def make(**settings):
    return Postprocess(anchors=ANCHORS, coder=BoxCoder(), **settings)


def random_outputs(images=2, num_classes=3, seed=0, mean=-3.0):
    rng = np.random.default_rng(seed)
    return {
        "class_logits": tf.constant(rng.normal(mean, 2, (images, N, num_classes)), tf.float32),
        "box_deltas": tf.constant(rng.normal(0, 0.3, (images, N, 4)), tf.float32),
    }


def batch(sizes=((HEIGHT, WIDTH), (50, 70)), scales=((1.0, 1.0), (0.5, 0.25))):
    return {
        "images": tf.zeros([len(sizes), HEIGHT, WIDTH, 3]),
        "sizes": tf.constant(sizes, tf.int32),
        "scales": tf.constant(scales, tf.float32),
    }


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return shared / (sum(areas) - shared) if shared else 0.0


def plain(logits, deltas, size, scale, *, score_threshold, top_k, nms_iou, max_detections):
    """One image -> list of (score, label, box), and how many candidates passed the threshold."""
    anchors = ANCHORS(HEIGHT, WIDTH).numpy().astype(np.float64)
    candidates, start = [], 0
    for stride in (8, 16, 32, 64, 128):
        count = 9 * math.ceil(HEIGHT / stride) * math.ceil(WIDTH / stride)
        pairs = [
            (logits[n, k], n, k)
            for n in range(start, start + count)
            for k in range(logits.shape[1])
        ]
        candidates += sorted(pairs, reverse=True)[:top_k]
        start += count
    passed = []
    for logit, n, k in candidates:
        score = 1 / (1 + np.exp(-np.float64(logit)))
        if score > score_threshold:
            width, height = anchors[n, 2:] - anchors[n, :2]
            x = (anchors[n, 0] + anchors[n, 2]) / 2 + deltas[n, 0] * width
            y = (anchors[n, 1] + anchors[n, 3]) / 2 + deltas[n, 1] * height
            width, height = width * np.exp(deltas[n, 2]), height * np.exp(deltas[n, 3])
            box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            passed.append((score, k, np.clip(box, 0, [size[1], size[0], size[1], size[0]])))
    kept = []
    for candidate in sorted(passed, key=lambda c: -c[0]):
        rivals = [box for _, k, box in kept if k == candidate[1]]
        if all(iou(box, candidate[2]) <= nms_iou for box in rivals):
            kept.append(candidate)
    factor = np.array([*scale, *scale])
    return [(s, k, box / factor) for s, k, box in kept[:max_detections]], len(passed)


@pytest.mark.parametrize(
    "settings",
    [
        {"score_threshold": 0.05, "top_k": 1000, "nms_iou": 0.5, "max_detections": 100},
        {"score_threshold": 0.3, "top_k": 20, "nms_iou": 0.2, "max_detections": 300},
        {"score_threshold": 0.0, "top_k": 60, "nms_iou": 0.7, "max_detections": 30},
    ],
)
@pytest.mark.parametrize("num_classes", [1, 3])
def test_equals_brute_force(settings, num_classes):
    """Top-k a level, decoding, clipping, NMS within classes, order, the limit, original pixels."""
    outputs, data = random_outputs(num_classes=num_classes), batch()
    found = make(**settings)(outputs, data)
    for i in range(2):
        expected, passed = plain(
            outputs["class_logits"][i].numpy(),
            outputs["box_deltas"][i].numpy(),
            data["sizes"][i].numpy(),
            data["scales"][i].numpy(),
            **settings,
        )
        # Suppression has something to do.
        assert passed > len(expected)
        assert passed >= 50
        count = int(found["counts"][i])
        assert count == len(expected)
        scores, labels, boxes = (np.array(column) for column in zip(*expected, strict=True))
        np.testing.assert_allclose(found["scores"][i, :count], scores, rtol=1e-5)
        np.testing.assert_array_equal(found["labels"][i, :count], labels)
        np.testing.assert_allclose(found["boxes"][i, :count], boxes, atol=2e-3)
        np.testing.assert_array_equal(found["labels"][i, count:], -1)
        np.testing.assert_array_equal(found["scores"][i, count:], 0)
        assert len(set(labels)) == num_classes


def test_shapes_and_types():
    found = make(max_detections=7)(random_outputs(), batch())
    assert {name: (tuple(t.shape), t.dtype.name) for name, t in found.items()} == {
        "boxes": ((2, 7, 4), "float32"),
        "scores": ((2, 7), "float32"),
        "labels": ((2, 7), "int32"),
        "counts": ((2,), "int32"),
    }


def one_hot_outputs(scores, num_classes=2):
    """Zero deltas; {(anchor, class): score} and next to nothing elsewhere."""
    logits = np.full((1, N, num_classes), -20, np.float32)
    for (n, k), score in scores.items():
        logits[0, n, k] = math.log(score / (1 - score))
    return {"class_logits": tf.constant(logits), "box_deltas": tf.zeros([1, N, 4])}


def test_nothing_above_the_threshold():
    """Counts 0, labels -1, scores 0; the other image keeps its own."""
    outputs = random_outputs()
    silent = tf.fill([1, N, 3], -20.0)
    outputs["class_logits"] = tf.concat([silent, outputs["class_logits"][1:]], axis=0)
    found = make()(outputs, batch())
    assert found["counts"][0] == 0
    assert found["counts"][1] > 0
    np.testing.assert_array_equal(found["labels"][0], -1)
    np.testing.assert_array_equal(found["scores"][0], 0)
    np.testing.assert_array_equal(found["boxes"][0], 0)


def test_boxes_come_back_in_original_pixels():
    """Twice as wide and four times as high an original: x by 2, y by 4."""
    outputs = one_hot_outputs({(9 * 14 + 3, 1): 0.9})  # cell (1, 2), the square of side 32
    found = make()(outputs, batch(sizes=[(HEIGHT, WIDTH)], scales=[(0.5, 0.25)]))
    # Centre (20, 12) in the input, cut at the top and left edges.
    assert found["counts"].numpy().tolist() == [1]
    np.testing.assert_allclose(found["boxes"][0, 0], [8, 0, 72, 112], atol=1e-3)
    np.testing.assert_allclose(found["scores"][0, 0], 0.9, rtol=1e-5)
    assert found["labels"][0, 0] == 1


def test_boxes_are_cut_at_the_content_not_at_the_padding():
    """Content 20 high and 30 wide in an input of 64 x 96."""
    outputs = one_hot_outputs({(9 * 14 + 3, 0): 0.9})
    found = make()(outputs, batch(sizes=[(20, 30)], scales=[(1.0, 1.0)]))
    np.testing.assert_allclose(found["boxes"][0, 0], [4, 0, 30, 20], atol=1e-4)


def test_nms_works_within_classes():
    """The same box in two classes stays twice, in one class once; scores descend."""
    here, other_scale = 9 * 30 + 3, 9 * 30 + 4  # squares of side 32 and 40: IoU .63
    scores = {(here, 0): 0.6, (here, 1): 0.8, (other_scale, 0): 0.7}
    found = make()(one_hot_outputs(scores), batch(sizes=[(HEIGHT, WIDTH)], scales=[(1.0, 1.0)]))
    assert found["counts"].numpy().tolist() == [2]
    np.testing.assert_allclose(found["scores"][0, :2], [0.8, 0.7], rtol=1e-5)
    np.testing.assert_array_equal(found["labels"][0, :3], [1, 0, -1])


@pytest.mark.parametrize(("nms_iou", "expected"), [(0.5, 2), (0.49, 1)])
def test_an_overlap_of_exactly_the_limit_is_kept(nms_iou, expected):
    """The second box is the upper half of the first: IoU is .5 without rounding."""
    anchors = AnchorGenerator(ratios=[1.0], scales=[1.0])
    n = sum(anchors.level_counts(HEIGHT, WIDTH))
    first, second = 12 * 4 + 5, 12 * 4 + 7  # 16 pixels to the right, within the image
    logits = np.full((1, n, 1), -20, np.float32)
    logits[0, first, 0], logits[0, second, 0] = 2, 1
    deltas = np.zeros((1, n, 4), np.float32)
    deltas[0, second] = [-0.5, 0.0, -0.5, -0.5]
    outputs = {"class_logits": tf.constant(logits), "box_deltas": tf.constant(deltas)}
    process = Postprocess(anchors=anchors, coder=BoxCoder("corner"), nms_iou=nms_iou)
    found = process(outputs, batch(sizes=[(HEIGHT, WIDTH)], scales=[(1.0, 1.0)]))
    assert found["counts"].numpy().tolist() == [expected]


def test_a_score_of_exactly_the_threshold_is_dropped():
    outputs = one_hot_outputs({(0, 0): 0.5})
    data = batch(sizes=[(HEIGHT, WIDTH)], scales=[(1.0, 1.0)])
    assert make(score_threshold=0.5)(outputs, data)["counts"][0] == 0
    assert make(score_threshold=0.49)(outputs, data)["counts"][0] == 1


def test_top_k_counts_each_level_by_itself():
    """With top_k 1: the best pair of P3 and of P4, though P3 has a second better than P4's."""
    p4 = ANCHORS.level_counts(HEIGHT, WIDTH)[0]
    outputs = one_hot_outputs({(3, 0): 0.9, (9 * 90 + 3, 1): 0.8, (p4 + 9 * 20 + 3, 0): 0.7})
    found = make(top_k=1)(outputs, batch(sizes=[(HEIGHT, WIDTH)], scales=[(1.0, 1.0)]))
    assert found["counts"].numpy().tolist() == [2]
    np.testing.assert_allclose(found["scores"][0, :2], [0.9, 0.7], rtol=1e-5)


def test_a_graph_of_unknown_sizes_gives_the_same_detections():
    """Fewer candidates than top_k on the upper levels, known only when the graph runs."""
    process = make(top_k=100)
    spec = {
        "class_logits": tf.TensorSpec([None, None, 3]),
        "box_deltas": tf.TensorSpec([None, None, 4]),
    }
    batch_spec = {
        "images": tf.TensorSpec([None, None, None, 3]),
        "sizes": tf.TensorSpec([None, 2], tf.int32),
        "scales": tf.TensorSpec([None, 2]),
    }
    graph = tf.function(process, input_signature=[spec, batch_spec])
    eager, late = process(random_outputs(), batch()), graph(random_outputs(), batch())
    for name, value in eager.items():
        np.testing.assert_allclose(late[name], value, rtol=1e-5, atol=1e-4)
