"""A model learns: eight images by heart, and the steps do the same eagerly and compiled.

Detections of several views are those of a stub that sees one bright object exactly, and errs in a
way that tells the views apart.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import configs
from core.anchors import AnchorGenerator, spatial_size
from core.box_coder import BoxCoder
from core.build import build_criterion, build_model, build_optimizer, build_postprocess
from core.engine import compiled, predict, train_step, validation_step
from core.layers import BatchNorm, Conv2D
from core.losses import Criterion
from core.metrics.ground_truth import GroundTruth
from core.metrics.voc import voc_metric
from core.optimizers import make_optimizer
from core.postprocess import Postprocess
from core.schedules import constant, cosine
from core.targets import Matcher
from data.formats.shapes import CLASSES, make_shapes
from data.formats.voc import read_voc
from data.pipeline import evaluation_batches, training_batches
from detector import gather_detections

pytestmark = pytest.mark.full

STEPS = 100


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = make_shapes(tmp_path_factory.mktemp("data") / "eight", 8, 1, image_size=(96, 96))
    return read_voc(root, "train", CLASSES)


@pytest.mark.slow
def test_eight_images_are_learnt_by_heart(dataset):
    """mAP 1 at IoU .5 and at least .95 at .75, from scratch, with a small model."""
    config = configs.preset(
        "overfit",
        {
            "model.resize.height": 96,
            "model.resize.width": 96,
            "model.anchors.sizes": (12, 24, 48, 96, 192),
            "model.neck_width": 64,
            "model.head_width": 64,
            "model.head_depth": 2,
        },
    )
    tf.keras.utils.set_random_seed(0)
    model = build_model(config.model, len(CLASSES))
    criterion = build_criterion(config)
    optimizer = build_optimizer(config, cosine(1e-3, STEPS), model)
    batches = training_batches(
        dataset, config.data, config.model.resize, batch_size=8, seed=0, epochs=range(STEPS)
    )
    step = compiled(
        lambda batch: train_step(model, criterion, optimizer, batch), batches.element_spec
    )
    losses = [float(step(batch)["loss"]) for batch in batches]
    assert losses[-1] < losses[0] / 20
    assert step.experimental_get_tracing_count() == 1

    postprocess = build_postprocess(config.model)
    found = [
        (batch["index"], predict(model, postprocess, batch))
        for batch in evaluation_batches(dataset, config.model.resize, batch_size=8)
    ]
    table = gather_detections(found, dataset.image_ids, CLASSES)
    result = voc_metric(
        table,
        GroundTruth(dataset.image_index, dataset.boxes, dataset.labels, dataset.difficult),
        (0.5, 0.75),
    )
    assert result.map_area[0] == 1.0
    assert result.map_area[1] >= 0.95


def small_step(dataset, eager: bool, epochs: int):
    """A model of the same weights each time -> model, its training step, batches of 4."""
    changes = {"neck_width": 8, "head_width": 8, "head_depth": 1}
    changes |= {"resize.height": 64, "resize.width": 64}
    config = configs.preset("shapes", {f"model.{name}": v for name, v in changes.items()})
    tf.keras.utils.set_random_seed(1)
    model = build_model(config.model, len(CLASSES))
    criterion = build_criterion(config)
    optimizer = make_optimizer("sgd", 1e-3, model.trainable_variables)
    batches = training_batches(
        dataset, config.data, config.model.resize, batch_size=4, seed=0, epochs=range(epochs)
    )
    step = compiled(
        lambda batch: train_step(model, criterion, optimizer, batch), batches.element_spec, eager
    )
    return model, step, batches


@pytest.mark.slow
@pytest.mark.parametrize("eager", [True, False])
def test_one_trace_serves_batches_with_any_number_of_objects(dataset, eager):
    """Four batches through one step; eagerly there is nothing to trace."""
    _, step, batches = small_step(dataset, eager, epochs=2)
    assert len({batch["boxes"].shape[1] for batch in batches}) > 1
    assert np.isfinite([float(step(batch)["loss"]) for batch in batches]).all()
    if not eager:
        assert step.experimental_get_tracing_count() == 1


def tiny_backbone():
    """Traced in no time."""
    images = keras.Input([None, None, 3])
    levels = [keras.layers.Conv2D(8, 8, 8, padding="same")(images)]
    for _ in range(2):
        levels.append(keras.layers.AveragePooling2D(2, padding="same")(levels[-1]))
    return keras.Model(images, levels, name="backbone")


SIDES = (32, 64)
CANVASES = configs.preset(
    "shapes",
    {
        "model.backbone": tiny_backbone,
        "model.neck_width": 8,
        "model.head_width": 8,
        "model.head_depth": 0,
        "model.resize.height": 64,
        "model.resize.width": 64,
        "data.augment.canvas_scales": (0.5, 1.0),
    },
)


def canvas_batches(dataset, epochs, skip_steps=0, seed=0):
    """Four batches of two images an epoch, each batch of one of SIDES."""
    return training_batches(
        dataset,
        CANVASES.data,
        CANVASES.model.resize,
        batch_size=2,
        seed=seed,
        epochs=epochs,
        skip_steps=skip_steps,
    )


def side_of(batch):
    return batch["images"].shape[1]


def test_each_batch_has_one_of_the_canvases(dataset):
    """Drawn for the batch: other ones in other epochs, the same ones once resumed."""
    found = list(canvas_batches(dataset, range(3)))
    sides = [side_of(batch) for batch in found]
    assert len(sides) == 12
    assert set(sides) == set(SIDES)
    assert len({tuple(sides[i : i + 4]) for i in (0, 4, 8)}) > 1
    assert sides != [side_of(batch) for batch in canvas_batches(dataset, range(3), seed=1)]
    for side, batch in zip(sides, found, strict=True):
        assert batch["images"].shape == (2, side, side, 3)
        np.testing.assert_array_equal(batch["sizes"], [[side, side]] * 2)
        np.testing.assert_array_equal(batch["scales"], np.full([2, 2], side / 96, np.float32))
        assert (batch["boxes"].numpy() <= side).all()

    rest = list(canvas_batches(dataset, range(1, 3), skip_steps=3))
    assert len(rest) == 5
    for a, b in zip(rest, found[7:], strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_canvases_are_drawn_evenly(dataset):
    """400 draws: half of each, give or take four standard deviations of 10."""
    sides = [side_of(batch) for batch in canvas_batches(dataset, range(100))]
    for side in SIDES:
        assert 160 < sides.count(side) < 240


@pytest.mark.slow
@pytest.mark.parametrize("eager", [True, False])
def test_one_trace_serves_each_canvas(dataset, eager):
    """Over three epochs, whatever the number of boxes; eagerly each batch runs in Python."""
    tf.keras.utils.set_random_seed(1)
    model = build_model(CANVASES.model, len(CLASSES))
    criterion = build_criterion(CANVASES)
    optimizer = make_optimizer("sgd", 1e-3, model.trainable_variables)
    calls = []

    def step(batch):
        calls.append(tuple(batch["images"].shape))
        return train_step(model, criterion, optimizer, batch)

    batches = canvas_batches(dataset, range(3))
    assert batches.element_spec["images"].shape.as_list() == [2, None, None, 3]
    run = compiled(step, batches.element_spec, eager, by_size=True)
    found = list(batches)
    assert len({(side_of(batch), batch["boxes"].shape[1]) for batch in found}) > len(SIDES)
    assert np.isfinite([float(run(batch)["loss"]) for batch in found]).all()
    assert int(optimizer.iterations) == 12
    if eager:
        assert [call[1] for call in calls] == [side_of(batch) for batch in found]
    else:
        assert sorted(calls) == [(2, side, side, 3) for side in SIDES]


@pytest.mark.slow
def test_a_step_does_the_same_eagerly_and_compiled(dataset, monkeypatch):
    """From equal weights: equal losses and equal weights, statistics included.

    With softplus for relu: a unit within rounding of 0 has another slope to either side, and moves
    the gradient by 1e-2 of its norm, as an image brighter by 1e-7 does.
    """
    monkeypatch.setattr(tf.nn, "relu", tf.nn.softplus)
    results = []
    for eager in (True, False):
        model, step, batches = small_step(dataset, eager, epochs=1)
        losses = {name: float(value) for name, value in step(next(iter(batches))).items()}
        results.append((losses, model.get_weights()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


class Shallow(keras.layers.Layer):
    """A backbone of one convolution with frozen batch norm."""

    def __init__(self):
        super().__init__(name="backbone")
        self.conv, self.norm = Conv2D(8, 3, 8), BatchNorm("frozen")

    def call(self, x, training=False):
        x = tf.nn.softplus(self.norm(self.conv(x), training=training))
        return [x, x[:, ::2, ::2], x[:, ::4, ::4]]


def accumulated_gradients(dataset, normalization):
    """A function: rows of a batch of four, for one batch each -> the gradients of the one update
    made of all of them, and the positives of each."""
    changes = {"neck_width": 8, "head_width": 8, "head_depth": 1, "backbone": Shallow}
    changes |= {"resize.height": 64, "resize.width": 64}
    changes = {f"model.{name}": v for name, v in changes.items()}
    config = configs.preset("shapes", changes | {"loss.normalization": normalization})
    tf.keras.utils.set_random_seed(1)
    model = build_model(config.model, len(CLASSES))
    weights, criterion = model.get_weights(), build_criterion(config)
    whole = next(iter(evaluation_batches(dataset, config.model.resize, batch_size=4)))

    def gradients(*rows):
        model.set_weights(weights)
        variables = model.trainable_variables
        optimizer = make_optimizer("sgd", constant(1.0, 1), variables, accumulate=len(rows))
        positives = []
        for chosen in rows:
            batch = {name: value[chosen] for name, value in whole.items()}
            losses = train_step(model, criterion, optimizer, batch)
            positives.append(float(losses["positives"]))
        return [-momentum.numpy() for momentum in optimizer.momentums], positives

    return gradients


@pytest.mark.parametrize("normalization", ["image", "batch"])
def test_two_accumulated_batches_of_two_and_one_of_four(dataset, normalization, monkeypatch):
    """The same where the loss is a mean over images. Where it is divided by the positives of its
    batch, p, the accumulated gradient is the plain mean, (g1 + g2) / 2, and that of one batch the
    mean by positives, (p1 g1 + p2 g2) / (p1 + p2). Softplus for relu: see above.
    """
    monkeypatch.setattr(tf.nn, "relu", tf.nn.softplus)
    gradients = accumulated_gradients(dataset, normalization)
    halves = slice(0, 2), slice(2, 4)
    (first, (p1,)), (second, (p2,)) = (gradients(half) for half in halves)
    assert p1 > 0 < p2 != p1
    (accumulated, _), (whole, _) = gradients(*halves), gradients(slice(0, 4))
    share = p1 / (p1 + p2) if normalization == "batch" else 0.5
    for g1, g2, found, four in zip(first, second, accumulated, whole, strict=True):
        close = {"rtol": 1e-3, "atol": 1e-4 * np.abs(four).max()}
        np.testing.assert_allclose(found, (g1 + g2) / 2, **close)
        np.testing.assert_allclose(four, share * g1 + (1 - share) * g2, **close)
    largest = [
        np.abs(a - b).max() / np.abs(b).max() for a, b in zip(accumulated, whole, strict=True)
    ]
    assert (max(largest) < 1e-3) == (normalization == "image")


# ------------------------------------------------------------------------------------------------
# Several views
# ------------------------------------------------------------------------------------------------

ANCHORS, CODER = AnchorGenerator(), BoxCoder(max_log_scale=None)
SPEC = {
    "images": tf.TensorSpec([None, None, None, 3], tf.uint8),
    "sizes": tf.TensorSpec([None, 2], tf.int32),
    "scales": tf.TensorSpec([None, 2]),
}


def bright_object(shift=0.0, left_only=False):
    """A model whose first anchor is the extent of all bright pixels, `shift` pixels to the right.

    left_only: of class 0 with score .9 in the left half of the content, and not seen elsewhere.
    """

    def model(images, sizes, training):
        assert not training
        height, width = spatial_size(images)
        is_bright = tf.cast(images, tf.float32)[..., 0] > 127
        ends = []
        for axis, side in ((1, width), (2, height)):
            line = tf.reduce_any(is_bright, axis=axis)
            place = tf.range(side)
            ends.append(tf.reduce_min(tf.where(line, place, side), axis=1))
            ends.append(tf.reduce_max(tf.where(line, place, -1), axis=1) + 1)
        x1, x2, y1, y2 = (tf.cast(end, tf.float32) for end in ends)
        box = tf.stack([x1 + shift, y1, x2 + shift, y2], axis=1)
        is_seen = x1 + x2 < tf.cast(sizes[:, 1], tf.float32) if left_only else x1 >= 0
        anchors = ANCHORS(height, width)
        first = tf.one_hot(0, tf.shape(anchors)[0])[:, None]
        logit = tf.where(is_seen, tf.math.log(9.0), -20.0)[:, None, None]
        return {
            "class_logits": first * logit - 20.0 * (1 - first),
            "box_deltas": CODER.encode(box[:, None], anchors[:1]) * first,
        }

    return model


def scene(box, size=(51, 71), canvas=(64, 96), scale=(1.0, 1.0)):
    """A bright rectangle in dark content of an odd size."""
    images = np.zeros((1, *canvas, 3), np.uint8)
    images[0, : size[0], : size[1]] = 20
    x1, y1, x2, y2 = box
    images[0, y1:y2, x1:x2] = 200
    return {
        "images": tf.constant(images),
        "sizes": tf.constant([size], tf.int32),
        "scales": tf.constant([scale], tf.float32),
    }


def boxes_of(model, batch, nms_iou=1.0, **views):
    """All boxes found, in order of x1."""
    process = Postprocess(anchors=ANCHORS, coder=CODER, nms_iou=nms_iou)
    found = predict(model, process, batch, **views)
    boxes = found["boxes"][0, : int(found["counts"][0])].numpy()
    return boxes[np.argsort(boxes[:, 0])]


def test_views_that_see_the_same_give_one_detection():
    """Of an object whose edges are whole pixels in every view."""
    batch = scene((10, 8, 30, 40), size=(51, 72))
    found = boxes_of(bright_object(), batch, 0.9, flip=True, scales=(0.5, 1.0, 1.5))
    np.testing.assert_allclose(found, [[10, 8, 30, 40]], atol=1e-3)


def test_an_error_to_the_right_is_one_to_the_left_in_the_mirror():
    """Content of 51 x 71 in 64 x 96; half and a quarter of the original's size in x and y."""
    batch = scene((10, 8, 30, 40), scale=(0.5, 0.25))
    found = boxes_of(bright_object(shift=3), batch, flip=True)
    np.testing.assert_allclose(found, [[14, 32, 54, 160], [26, 32, 66, 160]], atol=1e-3)


@pytest.mark.parametrize(("scale", "shift"), [(0.5, 6.0), (1.0, 3.0), (1.5, 2.0)])
def test_boxes_of_another_size_come_back_by_hand(scale, shift):
    """3 pixels in the view are 3 / scale in the image, mirrored and not."""
    model, batch = bright_object(shift=3), scene((10, 8, 30, 40), size=(51, 72))
    found = boxes_of(model, batch, scales=(scale,))
    np.testing.assert_allclose(found, [[10 + shift, 8, 30 + shift, 40]], atol=1e-3)
    found = boxes_of(model, batch, flip=True, scales=(scale,))
    expected = [[10 - shift, 8, 30 - shift, 40], [10 + shift, 8, 30 + shift, 40]]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_what_only_one_view_sees_is_found():
    """A model of the left half: on the right, the mirrored image shows it; left of both, twice."""
    right, left = scene((50, 8, 60, 40)), scene((12, 8, 20, 40))
    model = bright_object(left_only=True)
    assert len(boxes_of(model, right)) == 0
    np.testing.assert_allclose(boxes_of(model, right, flip=True), [[50, 8, 60, 40]], atol=1e-3)
    np.testing.assert_allclose(boxes_of(model, left, flip=True), [[12, 8, 20, 40]], atol=1e-3)


def test_boxes_beyond_the_content_are_cut_there():
    """Of a view and of its mirror: at 71 and at 0, not at the canvas's edge."""
    batch = scene((0, 8, 71, 40))
    found = boxes_of(bright_object(shift=4), batch, flip=True, scales=(1.0,))
    np.testing.assert_allclose(found, [[0, 8, 67, 40], [4, 8, 71, 40]], atol=1e-3)


def test_one_graph_for_all_batches_and_the_same_eagerly():
    """Canvases of several sizes and numbers of images, known when the graph runs."""
    process = Postprocess(anchors=ANCHORS, coder=CODER, nms="gaussian")
    views = {"flip": True, "scales": (0.5, 1.0, 1.3)}
    step = lambda batch: predict(bright_object(shift=3), process, batch, **views)  # noqa: E731
    graph = compiled(step, SPEC)
    one, other = scene((10, 8, 30, 40)), scene((4, 4, 20, 16), (33, 47), (64, 64))
    both = {name: tf.concat([other[name], other[name]], axis=0) for name in other}
    for batch in (one, both):
        eager, late = step(batch), graph(batch)
        assert eager["counts"][0] > 2
        for name, value in eager.items():
            np.testing.assert_allclose(late[name], value, rtol=1e-5, atol=1e-4)
    assert graph.experimental_get_tracing_count() == 1


@pytest.fixture(scope="module")
def network():
    """A small untrained network that detects something, with statistics as training leaves them."""
    tf.keras.utils.set_random_seed(0)
    small = {"neck_width": 8, "head_width": 8, "head_depth": 1, "prior": 0.4}
    config = configs.preset("shapes", {f"model.{name}": value for name, value in small.items()})
    model = build_model(config.model, 3)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) == 1:
            variable.assign(variable.numpy() + rng.uniform(0, 0.2, variable.shape))
    return model


def noisy_batch():
    """Two images of odd sizes in a canvas of 64 x 96, the padding zero."""
    sizes = np.array([[51, 71], [64, 33]], np.int32)
    images = np.zeros((2, 64, 96, 3), np.uint8)
    for image, (height, width), seed in zip(images, sizes, (0, 1), strict=True):
        rng = np.random.default_rng(seed)
        image[:height, :width] = rng.integers(0, 256, (height, width, 3))
    scales = tf.constant([[0.5, 0.25], [1.0, 1.0]])
    return {"images": tf.constant(images), "sizes": tf.constant(sizes), "scales": scales}


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.5)])
def test_a_mirrored_batch_gives_mirrored_detections(network, scales):
    """Of the same two views in another order, whatever the network makes of them."""
    batch, process = noisy_batch(), Postprocess(anchors=ANCHORS, coder=BoxCoder(), top_k=30)
    images = batch["images"].numpy()
    for image, (height, width) in zip(images, batch["sizes"].numpy(), strict=True):
        image[:height, :width] = image[:height, :width][:, ::-1].copy()
    mirrored = batch | {"images": tf.constant(images)}
    plain, once = (predict(network, process, b) for b in (batch, mirrored))
    assert abs(plain["scores"].numpy() - once["scores"].numpy()).max() > 1e-3
    ours, theirs = (
        predict(network, process, b, flip=True, scales=scales) for b in (batch, mirrored)
    )
    assert ours["counts"].numpy().min() > 5
    for name in ("counts", "labels", "scores"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)
    for i, width in enumerate((71 / 0.5, 33)):
        count = int(ours["counts"][i])
        x1, y1, x2, y2 = theirs["boxes"][i, :count].numpy().T
        expected = np.stack([width - x2, y1, width - x1, y2], axis=1)
        np.testing.assert_allclose(ours["boxes"][i, :count], expected, atol=1e-2)


@pytest.mark.parametrize("nms", ["hard", "gaussian"])
def test_one_view_is_the_forward_pass_and_postprocess_to_the_bit(network, nms):
    batch, process = noisy_batch(), Postprocess(anchors=ANCHORS, coder=BoxCoder(), nms=nms)
    outputs = network(batch["images"], batch["sizes"], training=False)
    expected, found = process(outputs, batch), predict(network, process, batch)
    assert expected["counts"].numpy().min() > 5
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_validation_looks_once(network):
    """Its losses are the criterion's, its detections those of `predict` without more views; anchors
    are matched once."""
    boxes = tf.constant([[[4.0, 4, 40, 36]], [[10.0, 8, 30, 60]]])
    batch = noisy_batch() | {"boxes": boxes, "labels": tf.constant([[2], [0]])}
    process = Postprocess(anchors=ANCHORS, coder=BoxCoder())
    plain, calls = Matcher(), []

    def matcher(*args):
        calls.append(None)
        return plain(*args)

    criterion = Criterion(anchors=ANCHORS, coder=CODER, matcher=matcher)
    losses, histograms, found = validation_step(network, criterion, process, batch)
    assert len(calls) == 1
    outputs = network(batch["images"], batch["sizes"], training=False)
    for name, value in criterion(outputs, batch).items():
        np.testing.assert_array_equal(losses[name], value)
    for name, value in predict(network, process, batch).items():
        np.testing.assert_array_equal(found[name], value)
    positives = int(losses["positives"])
    num_anchors = outputs["class_logits"].shape[1]
    assert sum(histograms["positives"].numpy()) == positives > 0
    rest = 2 * num_anchors - positives - int(losses["ignored"])
    assert sum(histograms["background"].numpy()) == rest
