"""Focal loss, smooth L1 and the criterion, against other people's numbers and plain NumPy."""

import itertools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from core.anchors import AnchorGenerator
from core.box_coder import BoxCoder
from core.losses import (
    Criterion,
    ciou_loss,
    diou_loss,
    giou_loss,
    sigmoid_focal_loss,
    smooth_l1,
)
from core.targets import BACKGROUND, BETWEEN, Atss, Matcher

pytestmark = pytest.mark.full

REFERENCE = json.loads(Path(__file__).with_name("tfa_focal_loss.json").read_text())


@pytest.mark.parametrize("settings", REFERENCE["loss"])
def test_focal_loss_equals_tensorflow_addons(settings):
    """Numbers written down when tensorflow-addons could still be installed."""
    alpha, gamma = (float(part.split("=")[1]) for part in settings.split(","))
    targets, logits = tf.constant(REFERENCE["y_true"]), tf.constant(REFERENCE["logits"])
    loss = tf.reduce_sum(sigmoid_focal_loss(logits, targets, alpha, gamma), axis=-1)
    np.testing.assert_allclose(loss, REFERENCE["loss"][settings], rtol=1e-5)


def test_focal_loss_by_hand():
    """Equation 5 at p = 0.9: 0.25 * 0.1 ** 2 * -log 0.9, and 0.75 * 0.9 ** 2 * -log 0.1."""
    logits = tf.constant([np.log(9.0)] * 2, tf.float32)
    loss = sigmoid_focal_loss(logits, tf.constant([1.0, 0.0]), 0.25, 2.0)
    expected = [0.25 * 0.01 * -np.log(0.9), 0.75 * 0.81 * -np.log(0.1)]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_without_focus_it_is_cross_entropy():
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(0, 4, 50), tf.float32)
    targets = tf.constant(rng.integers(0, 2, 50), tf.float32)
    expected = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    loss = sigmoid_focal_loss(logits, targets, alpha=None, gamma=0)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_extreme_logits_have_a_finite_loss_and_gradient(gamma):
    """Sure and right costs nothing; sure and wrong costs the logit, with a slope of 1."""
    logits = tf.constant([100.0, -100.0, 100.0, -100.0])
    targets = tf.constant([1.0, 0.0, 0.0, 1.0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = sigmoid_focal_loss(logits, targets, None, gamma)
    np.testing.assert_allclose(loss, [0, 0, 100, 100], atol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, logits), [0, 0, 1, -1], atol=1e-5)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (None, 0.5), (0.6, 5.0), (0.25, 0.0)])
def test_focal_gradient_equals_finite_differences(alpha, gamma):
    """Of equation 5 written down with probabilities in float64."""
    rng = np.random.default_rng(1)
    logits = np.concatenate([rng.normal(0, 3, 30), [0.0]])
    targets = rng.integers(0, 2, 31)

    def plain(x):
        p = 1 / (1 + np.exp(-x))
        p_t = np.where(targets == 1, p, 1 - p)
        weight = 1 if alpha is None else np.where(targets == 1, alpha, 1 - alpha)
        return weight * (1 - p_t) ** gamma * -np.log(p_t)

    x = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = sigmoid_focal_loss(x, tf.constant(targets, tf.float32), alpha, gamma)
    np.testing.assert_allclose(loss, plain(logits), rtol=1e-5, atol=1e-9)
    numeric = (plain(logits + 1e-5) - plain(logits - 1e-5)) / 2e-5
    np.testing.assert_allclose(tape.gradient(loss, x), numeric, rtol=2e-5, atol=1e-8)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (None, 0.5), (0.6, 5.0), (0.25, 0.0)])
def test_the_focal_loss_equals_keras(alpha, gamma):
    """Losses and gradients of its BinaryFocalCrossentropy, where its clipping does not reach."""
    rng = np.random.default_rng(1)
    x = tf.constant(rng.normal(0, 2, [60, 1]), tf.float32)
    targets = tf.constant(rng.integers(0, 2, [60, 1]), tf.float32)
    theirs = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=alpha is not None,
        alpha=alpha or 0.5,
        gamma=gamma,
        from_logits=True,
        reduction="none",
    )
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        expected = theirs(targets, x)
        loss = sigmoid_focal_loss(x, targets, alpha, gamma)
    np.testing.assert_allclose(loss[:, 0], expected, rtol=1e-4, atol=1e-6)
    gradient, expected = tape.gradient(loss, x), tape.gradient(expected, x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_smooth_l1_by_hand():
    """beta 0.5: squares inside, lines outside, value and slope joined at beta."""
    errors = tf.constant([0.0, 0.25, -0.25, 0.5, -0.5, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(errors)
        loss = smooth_l1(errors, beta=0.5)
    np.testing.assert_allclose(loss, [0, 0.0625, 0.0625, 0.25, 0.25, 1.75], atol=1e-7)
    np.testing.assert_allclose(tape.gradient(loss, errors), [0, 0.5, -0.5, 1, -1, 1], atol=1e-6)


def test_smooth_l1_joins_at_the_default_beta():
    just = tf.constant([1 / 9 - 1e-6, 1 / 9 + 1e-6])
    np.testing.assert_allclose(smooth_l1(just), [1 / 18, 1 / 18], atol=2e-6)


# The criterion on 48 x 64 images: 48 + 12 + 4 + 1 + 1 cells of three anchors; two classes.
HEIGHT, WIDTH, K = 48, 64, 2


def make(low_quality=False, **settings):
    anchors = AnchorGenerator(sizes=(12, 24, 48, 96, 192), scales=[1.0])
    coder = BoxCoder(stds=(0.1, 0.1, 0.2, 0.2))
    matcher = Matcher(0.5, 0.4, low_quality)
    return Criterion(anchors=anchors, coder=coder, matcher=matcher, **settings)


def outputs(images=2, seed=0):
    rng = np.random.default_rng(seed)
    n = 3 * (48 + 12 + 4 + 1 + 1)
    return {
        "class_logits": tf.constant(rng.normal(-1, 2, (images, n, K)), tf.float32),
        "box_deltas": tf.constant(rng.normal(0, 1, (images, n, 4)), tf.float32),
    }


# Two objects in the first image, one in the second, padding between and after.
BOXES = [
    [[4, 6, 18, 20], [0, 0, 0, 0], [20, 10, 50, 40]],
    [[0, 0, 0, 0], [30, 8, 42, 30], [0, 0, 0, 0]],
]
LABELS = [[1, -1, 0], [-1, 1, -1]]


def batch(boxes=BOXES, labels=LABELS):
    return {
        "images": tf.zeros([len(labels), HEIGHT, WIDTH, 3]),
        "boxes": tf.reshape(tf.constant(boxes, tf.float32), [len(labels), -1, 4]),
        "labels": tf.reshape(tf.constant(labels, tf.int32), [len(labels), -1]),
    }


def empty(images=2, rows=0):
    return batch(np.zeros([images, rows, 4]), np.full([images, rows], -1))


def iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def plain_criterion(criterion, outputs, boxes, labels, *, box_loss, beta, normalization):
    """Anchor by anchor, in plain Python; alpha 0.25, gamma 2."""
    anchors = criterion.anchors(HEIGHT, WIDTH).numpy().astype(np.float64)
    images = []
    for image in range(len(labels)):
        logits = outputs["class_logits"][image].numpy().astype(np.float64)
        deltas = outputs["box_deltas"][image].numpy().astype(np.float64)
        class_sum, box_sum, positives = 0.0, 0.0, 0
        objects = [(b, k) for b, k in zip(boxes[image], labels[image], strict=True) if k >= 0]
        for anchor, x, delta in zip(anchors, logits, deltas, strict=True):
            overlaps = [iou(anchor, box) for box, _ in objects]
            best = int(np.argmax(overlaps)) if objects else None
            is_positive = bool(objects) and overlaps[best] >= 0.5
            if objects and 0.4 <= overlaps[best] < 0.5:
                continue
            for k in range(K):
                p = 1 / (1 + np.exp(-x[k]))
                if is_positive and objects[best][1] == k:
                    class_sum += -0.25 * (1 - p) ** 2 * np.log(p)
                else:
                    class_sum += -0.75 * p**2 * np.log(1 - p)
            if not is_positive:
                continue
            positives += 1
            x1, y1, x2, y2 = objects[best][0]
            width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
            target = (
                ((x1 + x2) / 2 - (anchor[0] + anchor[2]) / 2) / width / 0.1,
                ((y1 + y2) / 2 - (anchor[1] + anchor[3]) / 2) / height / 0.1,
                np.log((x2 - x1) / width) / 0.2,
                np.log((y2 - y1) / height) / 0.2,
            )
            for e in np.abs(delta - target):
                inside = box_loss == "smooth_l1" and e < beta
                joint = beta / 2 if box_loss == "smooth_l1" else 0
                box_sum += e**2 / (2 * beta) if inside else e - joint
        images.append((class_sum, box_sum, positives))
    sums = np.array(images)
    if normalization == "image":
        return (sums[:, :2] / np.maximum(sums[:, 2:], 1)).mean(0), sums[:, 2].sum()
    return sums[:, :2].sum(0) / max(1, sums[:, 2].sum()), sums[:, 2].sum()


@pytest.mark.parametrize(
    ("box", "target", "loss"),
    [
        ([0, 0, 4, 2], [0, 0, 4, 2], 0.0),
        ([0, 0, 4, 2], [2, 0, 6, 2], 1 - 4 / 12),  # union 12 is the hull
        ([0, 0, 2, 2], [4, 0, 6, 2], 1 + (12 - 8) / 12),  # apart: hull 6 x 2
        ([0, 0, 2, 2], [2, 2, 4, 4], 1 + (16 - 8) / 16),  # a common corner
        ([1, 1, 3, 3], [0, 0, 4, 4], 1 - 4 / 16),  # one inside the other
        ([0, 0, 0, 0], [0, 0, 4, 4], 1.0),
        ([3, 3, 3, 3], [3, 3, 3, 3], 1.0),  # no area at all: finite
    ],
)
def test_giou_loss_by_hand(box, target, loss):
    pair = tf.constant([box], tf.float32), tf.constant([target], tf.float32)
    np.testing.assert_allclose(giou_loss(*pair), [loss], atol=1e-6)
    np.testing.assert_allclose(giou_loss(*pair[::-1]), [loss], atol=1e-6)


@pytest.mark.parametrize(
    ("box", "target", "distance"),
    [
        ([0, 0, 4, 2], [0, 0, 4, 2], 0.0),
        ([0, 0, 4, 2], [2, 0, 6, 2], 4 / 40),  # centres 2 apart, hull 6 x 2
        ([0, 0, 2, 2], [4, 0, 6, 2], 16 / 40),
        ([0, 0, 2, 2], [2, 2, 4, 4], 8 / 32),
        ([0, 0, 2, 2], [0, 0, 4, 4], 2 / 32),
    ],
)
def test_diou_by_hand(box, target, distance):
    """Where the shapes are alike, CIoU is the same."""
    pair = tf.constant([box], tf.float32), tf.constant([target], tf.float32)
    expected = [1 - iou(box, target) + distance]
    for loss in (diou_loss, ciou_loss):
        np.testing.assert_allclose(loss(*pair), expected, atol=1e-6)
        np.testing.assert_allclose(loss(*pair[::-1]), expected, atol=1e-6)


def test_ciou_by_hand():
    """A box on its side: IoU 4 / 12, centres in one place, angles atan 2 and atan 1/2."""
    v = 4 / np.pi**2 * (np.arctan(2) - np.arctan(0.5)) ** 2
    expected = 2 / 3 + v**2 / (2 / 3 + v)
    loss = ciou_loss(tf.constant([[0.0, 1, 4, 3]]), tf.constant([[1.0, 0, 3, 4]]))
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


def plain_overlap_loss(name, a, b, weight=None):
    """In float64, box by box; weight: of v in CIoU, else as its IoU has it."""
    value = iou(a, b)
    low, high = np.minimum(a, b), np.maximum(a, b)
    width, height = high[2] - low[0], high[3] - low[1]
    if name == "giou":
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        union = sum(areas) / (1 + value)
        return 1 - value + (width * height - union) / (width * height)
    apart = [(a[i] + a[i + 2]) / 2 - (b[i] + b[i + 2]) / 2 for i in (0, 1)]
    loss = 1 - value + (apart[0] ** 2 + apart[1] ** 2) / (width**2 + height**2)
    if name == "ciou":
        angles = [np.arctan((c[2] - c[0]) / (c[3] - c[1])) for c in (a, b)]
        v = 4 / np.pi**2 * (angles[0] - angles[1]) ** 2
        if weight is None:
            weight = v / max(1 - value + v, 1e-12)
        loss += weight * v
    return loss


def box_pairs():
    """(P, 4) twice: overlapping, apart, one in the other, the same."""
    rng = np.random.default_rng(4)
    corners, sides = rng.uniform(0, 60, (2, 40, 2)), rng.uniform(2, 50, (2, 40, 2))
    boxes, targets = np.concatenate([corners, corners + sides], axis=-1)
    targets[:5] = boxes[:5] + 200
    targets[5:10] = boxes[5:10] + np.array([0.4, 0.3, -0.5, -0.2])
    targets[10:12] = boxes[10:12]
    return boxes, targets


LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}


@pytest.mark.parametrize("name", LOSSES)
def test_overlap_losses_equal_plain_numpy(name):
    boxes, targets = box_pairs()
    overlaps = np.array([iou(a, b) for a, b in zip(boxes, targets, strict=True)])
    assert {(overlaps == 0).any(), (overlaps == 1).any()} == {True}
    loss = LOSSES[name](tf.constant(boxes, tf.float32), tf.constant(targets, tf.float32))
    expected = [plain_overlap_loss(name, a, b) for a, b in zip(boxes, targets, strict=True)]
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_overlap_gradients_equal_finite_differences(name):
    """The weight of CIoU's v stays while the box moves: it has no gradient of its own."""
    boxes, targets = (array[:10] for array in box_pairs())
    x = tf.constant(boxes, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = LOSSES[name](x, tf.constant(targets, tf.float32))
    gradient = tape.gradient(loss, x).numpy()
    for row, (box, target) in enumerate(zip(boxes, targets, strict=True)):
        angles = [np.arctan((c[2] - c[0]) / (c[3] - c[1])) for c in (box, target)]
        v = 4 / np.pi**2 * (angles[0] - angles[1]) ** 2
        weight = v / (1 - iou(box, target) + v)
        for side in range(4):
            step = np.eye(4)[side] * 1e-5
            ends = [plain_overlap_loss(name, box + s, target, weight) for s in (step, -step)]
            numeric = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(gradient[row, side], numeric, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_boxes_without_a_side_have_a_finite_loss_and_gradient(name):
    """Against each other and against a real one; the largest of the losses is 3."""
    shapes = [[3, 3, 3, 3], [3, 3, 3, 9], [3, 3, 900, 3], [0, 0, 1e-6, 1e-6], [0, 0, 4, 4]]
    pairs = np.array(list(itertools.product(shapes, shapes)), np.float32)
    x = tf.constant(pairs[:, 0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = LOSSES[name](x, tf.constant(pairs[:, 1]))
    assert np.all((loss >= -1e-5) & (loss <= 3))
    assert np.isfinite(tape.gradient(loss, x)).all()


@pytest.mark.parametrize("name", LOSSES)
def test_overlap_loss_of_the_criterion_is_of_the_decoded_boxes(name):
    """Also where deltas of anchors that answer for nothing are absurd, gradients are finite."""
    criterion, predicted, data = make(box_loss=name), outputs(), batch()
    anchors = criterion.anchors(HEIGHT, WIDTH)
    matches = criterion.matcher(anchors, data["boxes"], data["labels"]).numpy()
    is_positive = (matches >= 0)[..., None]
    deltas = tf.where(is_positive, predicted["box_deltas"], np.inf)
    predicted |= {"box_deltas": deltas}
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        loss = criterion(predicted, data)["box_loss"]
    gradient = tape.gradient(loss, predicted)["box_deltas"].numpy()
    boxes = criterion.coder.decode(deltas, anchors).numpy()
    rows = [(i, n) for i, n in np.argwhere(matches >= 0)]
    expected = [LOSSES[name](boxes[i, n], data["boxes"][i, matches[i, n]]).numpy() for i, n in rows]
    np.testing.assert_allclose(loss, np.sum(expected) / len(rows), rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert not gradient[matches < 0].any()
    assert gradient[matches >= 0].any(axis=-1).all()


@pytest.mark.parametrize("normalization", ["batch", "image"])
@pytest.mark.parametrize(("box_loss", "beta"), [("smooth_l1", 1 / 9), ("smooth_l1", 2), ("l1", 1)])
def test_criterion_equals_plain_python(normalization, box_loss, beta):
    """With two objects in one image and one in the other, the normalisations differ."""
    settings = {"normalization": normalization, "box_loss": box_loss, "beta": beta}
    criterion, predicted = make(**settings, box_weight=3.0), outputs()
    losses = criterion(predicted, batch())
    expected, positives = plain_criterion(criterion, predicted, BOXES, LABELS, **settings)
    assert positives > 3
    assert losses["positives"] == positives
    np.testing.assert_allclose(
        [losses["class_loss"], losses["box_loss"]], expected, rtol=1e-4, atol=0
    )
    np.testing.assert_allclose(losses["loss"], expected[0] + 3 * expected[1], rtol=1e-4)
    assert {loss.dtype for loss in losses.values()} == {tf.float32}


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (None, None)])
def test_positives_are_counted_on_each_level(size):
    """Objects of 14, 30 and 40 pixels, anchors of 12, 24 and 48; anchor by anchor in plain Python.

    Also where the graph learns the input's size, and with it the levels', only when it runs.
    """
    boxes = [*BOXES[0][::2], [24, 0, 64, 40]]
    data, criterion = batch([boxes], [[1, 0, 0]]), make()
    spec = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in data.items()}
    spec["images"] = tf.TensorSpec([None, *size, 3])
    graph = tf.function(lambda batch: criterion(outputs(1), batch), input_signature=[spec])
    anchors = criterion.anchors(HEIGHT, WIDTH).numpy()
    best = [max(iou(anchor, box) for box in boxes) for anchor in anchors]
    ends = np.cumsum([0, *(3 * cells for cells in (48, 12, 4, 1, 1))])
    positives = [
        sum(value >= 0.5 for value in best[start:end]) for start, end in itertools.pairwise(ends)
    ]
    assert min(positives[:3]) > 0 == positives[4]
    for losses in (criterion(outputs(1), data), graph(data)):
        assert [losses[f"positives_p{level}"] for level in range(3, 8)] == positives
        assert losses["positives"] == sum(positives)
        assert losses["ignored"] == sum(0.4 <= value < 0.5 for value in best) > 0


def test_targets_that_are_known_are_taken():
    """Those of a batch without objects, for one that has some."""
    criterion, predicted = make(), outputs()
    losses = criterion(predicted, batch(), criterion.targets(empty(rows=3)))
    for name, value in criterion(predicted, empty(rows=3)).items():
        assert losses[name] == value
    assert losses["loss"] != criterion(predicted, batch())["loss"]


@pytest.mark.parametrize("normalization", ["batch", "image"])
def test_alpha_and_gamma_are_handed_down(normalization):
    """alpha None and gamma 0: cross-entropy over the anchors that are not BETWEEN."""
    criterion, predicted = make(alpha=None, gamma=0.0, normalization=normalization), outputs()
    loss = criterion(predicted, empty())["class_loss"]
    total = np.sum(np.logaddexp(0, predicted["class_logits"]))
    np.testing.assert_allclose(loss, total if normalization == "batch" else total / 2, rtol=1e-5)


@pytest.mark.parametrize("normalization", ["batch", "image"])
@pytest.mark.parametrize("rows", [0, 3])
def test_a_batch_without_objects_teaches_the_background(normalization, rows):
    """The class loss pushes every logit down; the boxes have no loss and no gradient."""
    criterion, predicted = make(normalization=normalization), outputs()
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        losses = criterion(predicted, empty(rows=rows))
    gradients = tape.gradient(losses["loss"], predicted)
    assert losses["class_loss"] > 0
    assert losses["box_loss"] == 0
    assert losses["positives"] == 0
    assert np.all(gradients["class_logits"] > 0)
    assert np.all(np.isfinite(gradients["class_logits"]))
    assert np.all(gradients["box_deltas"] == 0)


def test_padded_rows_change_nothing():
    """Neither their number nor what they hold: a junk box is the same as zeros."""
    criterion, predicted = make(low_quality=True), outputs()
    expected = criterion(predicted, batch())
    boxes, labels = np.array(BOXES, np.float32), np.array(LABELS)
    boxes[labels == -1] = [10, 10, 34, 34]
    more = np.tile(np.float32([5, 5, 30, 25]), (2, 4, 1))
    more_labels = np.full((2, 4), -1)
    padded = batch(np.concatenate([more, boxes], 1), np.concatenate([more_labels, labels], 1))
    losses = criterion(predicted, padded)
    for name, value in expected.items():
        assert losses[name] == value, name
    assert expected["positives"] > 0


def test_an_image_without_objects_beside_one_with():
    """Under "batch" its sums join the others'; under "image" it counts as one image."""
    predicted = outputs()
    beside = batch([BOXES[0], np.zeros([3, 4])], [LABELS[0], [-1] * 3])
    for normalization in ("batch", "image"):
        settings = {"box_loss": "smooth_l1", "beta": 1 / 9, "normalization": normalization}
        criterion = make(**settings)
        losses = criterion(predicted, beside)
        boxes, labels = beside["boxes"].numpy(), beside["labels"].numpy()
        expected, _ = plain_criterion(criterion, predicted, boxes, labels, **settings)
        np.testing.assert_allclose([losses["class_loss"], losses["box_loss"]], expected, rtol=1e-4)


def plain_parts(criterion, predicted, data, image):
    """Of one image: the object each anchor answers for, class and smooth L1 losses (N,)."""
    anchors = criterion.anchors(HEIGHT, WIDTH)
    matches = criterion.matcher(anchors, data["boxes"], data["labels"]).numpy()[image]
    p = 1 / (1 + np.exp(-predicted["class_logits"][image].numpy().astype(np.float64)))
    labels = np.where(matches >= 0, data["labels"].numpy()[image][matches], -1)
    is_one = labels[:, None] == np.arange(K)
    focal = np.where(is_one, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p))
    boxes = tf.gather(data["boxes"][image], np.maximum(matches, 0))
    error = np.abs(predicted["box_deltas"][image] - criterion.coder.encode(boxes, anchors))
    box = np.where(error < 1 / 9, error**2 * 4.5, error - 1 / 18)
    return matches, focal.sum(axis=1), box.sum(axis=1)


def test_a_mixed_image_by_hand():
    """Two samples, 0.3 and 0.7 of them: an anchor of each, one of the background, others between.

    The objects weigh 0.3 and 0.7, so the divisor is 1: 0.3 of the first anchor's losses, 0.7 of the
    second's, all of the background's and none of those between.
    """
    criterion, predicted = make(), outputs(images=1)
    anchors = criterion.anchors(HEIGHT, WIDTH)
    matches = [0, 1, BACKGROUND] + [BETWEEN] * (len(anchors) - 3)
    criterion.matcher = lambda *args: tf.constant([matches])
    data = batch([[[0, 0, 14, 12], [6, 2, 22, 20]]], [[1, 0]])
    data |= {"weights": tf.constant([[0.3, 0.7]])}
    losses = criterion(predicted, data)

    p = 1 / (1 + np.exp(-predicted["class_logits"][0, :3].numpy().astype(np.float64)))
    one, zero = -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p)
    first, second = zero[0, 0] + one[0, 1], one[1, 0] + zero[1, 1]
    foreground = 0.3 * first + 0.7 * second
    np.testing.assert_allclose(losses["foreground_loss"], foreground, rtol=1e-5)
    np.testing.assert_allclose(losses["class_loss"], foreground + zero[2].sum(), rtol=1e-5)
    error = predicted["box_deltas"][0, :2] - criterion.coder.encode(data["boxes"][0], anchors[:2])
    error = np.abs(error).astype(np.float64)
    box = np.where(error < 1 / 9, error**2 * 4.5, error - 1 / 18).sum(axis=1)
    np.testing.assert_allclose(losses["box_loss"], 0.3 * box[0] + 0.7 * box[1], rtol=1e-5)
    assert losses["positives"] == 2


@pytest.mark.parametrize("normalization", ["batch", "image"])
def test_weights_of_objects_equal_plain_numpy(normalization):
    """Some anchors of each object; the divisors are sums of weights, but at least 1."""
    criterion, predicted, data = make(normalization=normalization), outputs(), batch()
    weights = np.array([[0.3, 9.0, 0.7], [9.0, 0.01, 9.0]], np.float32)  # 9: of padded rows
    losses = criterion(predicted, data | {"weights": tf.constant(weights)})
    sums = []
    for image in range(2):
        matches, focal, box = plain_parts(criterion, predicted, data, image)
        weight = np.where(matches >= 0, weights[image][matches], 0.0)
        background = focal[matches == BACKGROUND].sum()
        foreground = (weight * focal).sum()
        sums.append([foreground + background, (weight * box).sum(), foreground, weight.sum()])
    sums = np.array(sums)
    assert sums[0, 3] > 1 > sums[1, 3] > 0, "one divisor of each kind"
    if normalization == "image":
        expected = (sums[:, :3] / np.maximum(sums[:, 3:], 1)).mean(axis=0)
    else:
        expected = sums[:, :3].sum(axis=0) / sums[:, 3].sum()
    found = [losses[name] for name in ("class_loss", "box_loss", "foreground_loss")]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert losses["positives"] == criterion(predicted, data)["positives"] > 3


@pytest.mark.parametrize("normalization", ["batch", "image"])
def test_weights_of_one_change_nothing(normalization):
    criterion, predicted, data = make(normalization=normalization), outputs(), batch()
    ones = tf.cast(data["labels"] >= 0, tf.float32)  # padded rows 0
    losses = criterion(predicted, data | {"weights": ones})
    for name, value in criterion(predicted, data).items():
        assert losses[name] == value, name


def test_foreground_and_background_make_the_class_loss():
    """What is left of class_loss without the positive anchors' part is the background's."""
    criterion, predicted, data = make(), outputs(), batch()
    losses = criterion(predicted, data)
    parts = [plain_parts(criterion, predicted, data, image) for image in range(2)]
    background = sum(focal[matches == BACKGROUND].sum() for matches, focal, _ in parts)
    rest = losses["class_loss"] - losses["foreground_loss"]
    np.testing.assert_allclose(rest, background / losses["positives"], rtol=1e-4)
    assert losses["foreground_loss"] > 0
    assert criterion(predicted, empty())["foreground_loss"] == 0


def test_anchors_between_get_no_gradient():
    """Exactly they have none on their logits; exactly the positive ones have one on deltas."""
    criterion, predicted, data = make(), outputs(), batch()
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        loss = criterion(predicted, data)["loss"]
    gradients = tape.gradient(loss, predicted)
    matches = criterion.matcher(
        criterion.anchors(HEIGHT, WIDTH), data["boxes"], data["labels"]
    ).numpy()
    assert np.sum(matches == BETWEEN) > 1
    touched = np.any(gradients["class_logits"].numpy() != 0, axis=-1)
    np.testing.assert_array_equal(touched, matches != BETWEEN)
    moved = np.any(gradients["box_deltas"].numpy() != 0, axis=-1)
    np.testing.assert_array_equal(moved, matches >= 0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normalization": "image", "box_loss": "l1"},
        {"box_loss": "giou"},
        {"box_loss": "diou"},
    ],
)
def test_gradient_equals_a_directional_difference(settings):
    """Along the gradient, the loss rises by the gradient's square; along noise by their product."""
    criterion, predicted, data = make(**settings, box_weight=2.0), outputs(), batch()
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        loss = criterion(predicted, data)["loss"]
    gradients = tape.gradient(loss, predicted)
    rng = np.random.default_rng(2)
    for name, gradient in gradients.items():
        noise = tf.constant(rng.normal(size=gradient.shape), tf.float32) * tf.norm(gradient)
        for direction in (gradient, gradient + 0.01 * noise):
            step = 1e-2 / tf.reduce_max(tf.abs(direction))
            sides = [
                criterion({**predicted, name: predicted[name] + s * direction}, data)["loss"]
                for s in (step, -step)
            ]
            numeric = (sides[0] - sides[1]) / (2 * step)
            np.testing.assert_allclose(numeric, tf.reduce_sum(gradient * direction), rtol=5e-3)


@pytest.mark.parametrize("matcher", [Matcher(), Atss(num_anchors=3)])
def test_a_graph_of_unknown_sizes_gives_the_same_losses(matcher):
    """Heights, numbers of objects and batch size known only when the graph runs."""
    criterion = make()
    criterion.matcher = matcher
    spec = {
        "class_logits": tf.TensorSpec([None, None, K]),
        "box_deltas": tf.TensorSpec([None, None, 4]),
    }
    batch_spec = {
        "images": tf.TensorSpec([None, None, None, 3]),
        "boxes": tf.TensorSpec([None, None, 4]),
        "labels": tf.TensorSpec([None, None], tf.int32),
    }
    graph = tf.function(criterion, input_signature=[spec, batch_spec])
    for data in (batch(), empty(), empty(rows=2)):
        eager, late = criterion(outputs(), data), graph(outputs(), data)
        for name, value in eager.items():
            np.testing.assert_allclose(late[name], value, rtol=1e-5)


def test_unknown_settings_are_refused():
    with pytest.raises(
        ValueError, match="box_loss: expected smooth_l1, l1, giou, diou, ciou, found 'iou'"
    ):
        make(box_loss="iou")
    with pytest.raises(ValueError, match="normalization: expected batch or image, found 'mean'"):
        make(normalization="mean")
