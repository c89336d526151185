"""Detections from random outputs, against a brute-force version in plain NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from core.anchors import AnchorGenerator
from core.box_coder import BoxCoder
from core.postprocess import Postprocess

pytestmark = pytest.mark.full

HEIGHT, WIDTH = 64, 96
ANCHORS = AnchorGenerator()
N = sum(ANCHORS.level_counts(HEIGHT, WIDTH))
KINDS = ("hard", "linear", "gaussian")


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


@pytest.mark.parametrize("nms", KINDS)
def test_shapes_and_types(nms):
    found = make(max_detections=7, nms=nms)(random_outputs(), batch())
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


@pytest.mark.parametrize("nms", KINDS)
def test_nothing_above_the_threshold(nms):
    """Counts 0, labels -1, scores 0; the other image keeps its own."""
    outputs = random_outputs()
    silent = tf.fill([1, N, 3], -20.0)
    outputs["class_logits"] = tf.concat([silent, outputs["class_logits"][1:]], axis=0)
    found = make(nms=nms)(outputs, batch())
    assert found["counts"][0] == 0
    assert found["counts"][1] > 0
    np.testing.assert_array_equal(found["labels"][0], -1)
    np.testing.assert_array_equal(found["scores"][0], 0)
    np.testing.assert_array_equal(found["boxes"][0], 0)


@pytest.mark.parametrize("nms", KINDS)
def test_boxes_come_back_in_original_pixels(nms):
    """Twice as wide and four times as high an original: x by 2, y by 4."""
    outputs = one_hot_outputs({(9 * 14 + 3, 1): 0.9})  # cell (1, 2), the square of side 32
    found = make(nms=nms)(outputs, batch(sizes=[(HEIGHT, WIDTH)], scales=[(0.5, 0.25)]))
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


@pytest.mark.slow
@pytest.mark.parametrize("nms", KINDS)
def test_a_graph_of_unknown_sizes_gives_the_same_detections(nms):
    """Fewer candidates than top_k on the upper levels, known only when the graph runs."""
    process = make(top_k=100, nms=nms)
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


# ------------------------------------------------------------------------------------------------
# Soft-NMS
# ------------------------------------------------------------------------------------------------

WHOLE, HALF, AWAY = (0, 0, 20, 20), (0, 0, 20, 10), (40, 0, 60, 20)  # IoU .5 and 0


def suppressed(rows, num_classes=2, **settings):
    """(score, label, box) candidates of one image -> scores, labels and boxes of what is left."""
    scores = np.zeros((1, len(rows), num_classes), np.float32)
    for i, (score, label, _) in enumerate(rows):
        scores[0, i, label] = score
    boxes = tf.constant([[box for _, _, box in rows]], tf.float32)
    found = make(**settings).suppress(boxes, tf.constant(scores), batch([(96, 96)], [(1.0, 1.0)]))
    count = int(found["counts"][0])
    return tuple(found[name][0, :count].numpy() for name in ("scores", "labels", "boxes"))


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"nms": "linear", "nms_iou": 0.5}, 1.0),  # no more than the limit, as for hard
        ({"nms": "linear", "nms_iou": 0.49}, 0.5),
        ({"nms": "gaussian"}, math.exp(-0.5)),
        ({"nms": "gaussian", "soft_sigma": 0.25}, math.exp(-1)),
    ],
)
def test_a_worse_box_of_the_class_decays_by_hand(settings, factor):
    """IoU .5 with a better one of its class; another class and a box elsewhere keep theirs."""
    rows = [(0.6, 0, HALF), (0.9, 0, WHOLE), (0.1, 0, AWAY), (0.7, 1, HALF)]
    scores, labels, boxes = suppressed(rows, **settings)
    expected = [(0.9, 0, WHOLE), (0.7, 1, HALF), (0.6 * factor, 0, HALF), (0.1, 0, AWAY)]
    np.testing.assert_allclose(scores, [row[0] for row in expected], rtol=1e-6)
    np.testing.assert_array_equal(labels, [row[1] for row in expected])
    np.testing.assert_array_equal(boxes, [row[2] for row in expected])


def test_decay_multiplies_and_what_falls_to_the_threshold_is_gone():
    """.8 falls to .4 below another's .5, which is picked before it; .1 falls to .05 and further."""
    rows = [(0.9, 0, WHOLE), (0.8, 0, HALF), (0.5, 0, AWAY), (0.1, 0, HALF)]
    settings = {"nms": "linear", "nms_iou": 0.3, "score_threshold": 0.04}
    scores, _, boxes = suppressed(rows, **settings)
    np.testing.assert_allclose(scores, [0.9, 0.5, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(boxes, [WHOLE, AWAY, HALF])
    scores, _, _ = suppressed([*rows[:3], (0.1, 0, WHOLE)], **settings | {"score_threshold": 0.4})
    np.testing.assert_allclose(scores, [0.9, 0.5], rtol=1e-6)  # .4 is not above .4


def greedy(boxes, scores, decay, score_threshold, max_detections):
    """Figure 2 of the paper, class by class -> [(score, label, box index)], best first."""
    found = []
    for label in range(scores.shape[1]):
        left = {i: float(s) for i, s in enumerate(scores[:, label]) if s > 0}
        while left:
            best = max(left, key=left.get)
            found.append((left.pop(best), label, best))
            left = {i: s * decay(iou(boxes[best], boxes[i])) for i, s in left.items()}
    found = sorted((row for row in found if row[0] > score_threshold), reverse=True)
    return found[:max_detections]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "decay"),
    [
        ({"nms": "linear", "nms_iou": 0.3}, lambda overlap: 1 - overlap * (overlap > 0.3)),
        ({"nms": "linear", "nms_iou": 0.0}, lambda overlap: 1 - overlap),
        ({"nms": "gaussian"}, lambda overlap: math.exp(-(overlap**2) / 0.5)),
        ({"nms": "gaussian", "soft_sigma": 0.1}, lambda overlap: math.exp(-(overlap**2) / 0.1)),
    ],
)
@pytest.mark.parametrize("max_detections", [5, 30, 100])
def test_soft_nms_equals_the_papers_figure(settings, decay, max_detections):
    """Images of a batch that end after different numbers of picks; 100 are more than candidates."""
    rng = np.random.default_rng(0)
    process = make(score_threshold=0.1, max_detections=max_detections, **settings)
    for _ in range(3):
        corners = rng.uniform(0, 40, (3, 60, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(0, 30, (3, 60, 2))], axis=2)
        boxes = boxes.astype(np.float32)
        boxes[0, :3, 2:] = boxes[0, :3, :2]  # without area
        labels = rng.integers(0, 3, (3, 60))
        values = rng.uniform(0, 1, (3, 60)) * np.array([[1.0], [0.3], [0.1]])
        scores = (np.eye(3)[labels] * values[..., None]).astype(np.float32)
        data = batch([(96, 96)] * 3, [(1.0, 1.0)] * 3)
        found = process.suppress(tf.constant(boxes), tf.constant(scores), data)
        counts = []
        for i in range(3):
            expected = greedy(boxes[i], scores[i], decay, 0.1, max_detections)
            counts.append(len(expected))
            assert found["counts"][i] == counts[i]
            if expected:
                values, classes, index = (np.array(part) for part in zip(*expected, strict=True))
                np.testing.assert_allclose(found["scores"][i, : counts[i]], values, rtol=1e-4)
                np.testing.assert_array_equal(found["labels"][i, : counts[i]], classes)
                np.testing.assert_array_equal(found["boxes"][i, : counts[i]], boxes[i][index])
            for name, padding in (("scores", 0), ("labels", -1), ("boxes", 0)):
                np.testing.assert_array_equal(found[name][i, counts[i] :], padding)
        assert counts[0] > counts[2] == 0


def test_gaussian_equals_tensorflows_own_of_one_class():
    """Whose sigma is half as large for the same decay: it halves the exponent too."""
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 40, (50, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 30, (50, 2))], axis=1)
    boxes, scores = boxes.astype(np.float32), rng.uniform(0, 1, 50).astype(np.float32)
    index, expected = tf.image.non_max_suppression_with_scores(
        boxes, scores, 20, iou_threshold=1.0, score_threshold=0.05, soft_nms_sigma=0.15
    )
    rows = [(s, 0, b) for s, b in zip(scores, boxes, strict=True)]
    settings = {"nms": "gaussian", "soft_sigma": 0.3, "max_detections": 20}
    found, _, found_boxes = suppressed(rows, 1, **settings)
    assert len(found) == 20
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(found_boxes, boxes[index.numpy()])


def test_candidates_of_two_passes_go_through_one_nms():
    """One after the other, each pass has its box; together, the worse of two in a place is gone."""
    data = batch([(HEIGHT, WIDTH)], [(1.0, 1.0)])
    passes = [one_hot_outputs({(9 * 30 + 3, 0): 0.6}), one_hot_outputs({(9 * 30 + 4, 0): 0.7})]
    found = [make().candidates(outputs, data["images"]) for outputs in passes]
    boxes, scores = (tf.concat(parts, axis=1) for parts in zip(*found, strict=True))
    assert [make()(outputs, data)["counts"][0] for outputs in passes] == [1, 1]
    joined = make().suppress(boxes, scores, data)
    assert joined["counts"][0] == 1
    np.testing.assert_allclose(joined["scores"][0, 0], 0.7, rtol=1e-5)


def test_an_unknown_nms_is_refused():
    with pytest.raises(ValueError, match="nms: expected hard, linear or gaussian, found 'soft'"):
        make(nms="soft")
