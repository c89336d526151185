"""The whole network: what goes in, what comes out, what learns."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.schema import Anchors, Config, Model, Train
from core.build import (
    build_anchors,
    build_criterion,
    build_model,
    build_optimizer,
    require_parts,
)
from core.retinanet import RetinaNet, normalize
from core.schedules import constant

pytestmark = pytest.mark.full

CONFIG = Model(
    backbone="resnet18",
    neck_width=16,
    head_depth=1,
    head_width=16,
    anchors=Anchors(sizes=(16.0, 32.0, 64.0, 128.0, 256.0)),
)
K = 3


@pytest.fixture(scope="module")
def model():
    return build_model(CONFIG, K)


@pytest.fixture(scope="module")
def graph(model):
    """Traced once, for any number and size of images."""
    spec = [tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None, 2], tf.int32)]
    return tf.function(model, input_signature=spec)


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def assert_close(outputs, expected, atol=1e-5):
    assert outputs.keys() == expected.keys() == {"class_logits", "box_deltas"}
    for name in expected:
        np.testing.assert_allclose(outputs[name], expected[name], atol=atol, err_msg=name)


PIXEL = np.uint8([[[[255, 0, 51]]]])


def test_torch_normalisation_by_hand():
    """RGB in 0-1, less ImageNet's mean, by its deviation."""
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    outputs = normalize(PIXEL, None, "torch")
    assert outputs.dtype == tf.float32
    np.testing.assert_allclose(outputs[0, 0, 0], expected, rtol=1e-5)


def test_caffe_normalisation_by_hand():
    """BGR in 0-255, less the mean of each."""
    expected = [51 - 103.939, 0 - 116.779, 255 - 123.68]
    np.testing.assert_allclose(normalize(PIXEL, None, "caffe")[0, 0, 0], expected, rtol=1e-5)


def test_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match="expected torch or caffe, found 'tf'"):
        normalize(PIXEL, None, "tf")


@pytest.mark.parametrize("style", ["torch", "caffe"])
def test_padding_is_zero_after_normalising(style):
    """Whatever it was before; content is as it is without padding."""
    batch, sizes = images(2, 5, 7), tf.constant([[3, 4], [5, 7]])
    outputs = normalize(batch, sizes, style).numpy()
    plain = normalize(batch, None, style).numpy()
    np.testing.assert_array_equal(outputs[0, :3, :4], plain[0, :3, :4])
    assert np.all(outputs[0, 3:] == 0)
    assert np.all(outputs[0, :, 4:] == 0)
    np.testing.assert_array_equal(outputs[1], plain[1])


def test_what_padding_holds_reaches_no_output(model):
    batch, other, sizes = images(1, 64, 64), images(1, 64, 64, seed=1), tf.constant([[40, 50]])
    other[:, :40, :50] = batch[:, :40, :50]
    assert_close(model(batch, sizes), model(other, sizes), atol=0)
    assert np.abs(model(batch)["class_logits"] - model(other)["class_logits"]).max() > 1e-4


def test_normalisation_reaches_the_model(model):
    """The same weights see another image under the other style."""
    batch = images(1, 64, 64)
    outputs = model(batch)
    model.normalization = "caffe"
    try:
        other = model(batch)
    finally:
        model.normalization = "torch"
    assert np.abs(outputs["class_logits"] - other["class_logits"]).max() > 1e-4
    assert_close(model(batch), outputs, atol=0)


@pytest.mark.parametrize(("height", "width"), [(33, 65), (64, 64), (100, 37), (1, 1)])
def test_one_row_an_anchor_at_any_size(height, width, model, graph):
    """Eager and compiled alike, and the number that the generator makes."""
    batch = images(2, height, width).astype(np.float32)
    sizes = tf.constant([[height, width]] * 2)
    outputs = model(batch, sizes)
    n = len(build_anchors(CONFIG)(height, width))
    assert n == sum(9 * -(-height // s) * -(-width // s) for s in (8, 16, 32, 64, 128))
    assert outputs["class_logits"].shape == (2, n, K)
    assert outputs["box_deltas"].shape == (2, n, 4)
    assert_close(graph(batch, sizes), outputs)


def test_uint8_and_float_images_are_the_same(model):
    batch = images(1, 33, 40)
    assert_close(model(batch), model(batch.astype(np.float32)), atol=0)


def test_an_image_in_a_batch_gives_what_it_gives_alone(model):
    """No information crosses between images at inference."""
    batch, sizes = images(3, 64, 96), tf.constant([[64, 96], [50, 96], [64, 33]])
    together = model(batch, sizes)
    for i in range(3):
        alone = model(batch[i : i + 1], sizes[i : i + 1])
        assert_close(alone, {name: t[i : i + 1] for name, t in together.items()})
    assert np.abs(together["class_logits"][0] - together["class_logits"][1]).max() > 1e-4


def test_inference_changes_nothing(model):
    before = [v.numpy() for v in model.weights]
    model(images(1, 64, 64))
    for variable, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(variable, old)


def test_a_gradient_reaches_every_trainable_weight(model):
    """From a batch with one image with objects and one without; running statistics move too."""
    criterion = build_criterion(Config(model=CONFIG))
    batch = {
        "images": tf.constant(images(2, 64, 96)),
        "boxes": tf.constant([[[8.0, 8, 40, 40], [40, 20, 56, 36]], [[0, 0, 0, 0]] * 2]),
        "labels": tf.constant([[0, 2], [-1, -1]]),
    }
    statistics = [v for v in model.non_trainable_variables if v.name.startswith("moving")]
    weights = model.get_weights()
    before = [v.numpy() for v in statistics]
    with tf.GradientTape() as tape:
        losses = criterion(model(batch["images"], training=True), batch)
    gradients = tape.gradient(losses["loss"], model.trainable_variables)
    assert losses["positives"] > 3
    assert losses["box_loss"] > 0
    lost = [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.any(gradient) or not np.all(np.isfinite(gradient))
    ]
    assert lost == []
    assert len(model.trainable_variables) == (20 + 2 * 20) + 2 * 8 + 2 * 2 * 2
    still = [v.path for v, old in zip(statistics, before, strict=True) if np.array_equal(v, old)]
    assert len(statistics) == 40
    assert still == []
    model.set_weights(weights)


@pytest.mark.parametrize(
    ("name", "given", "decay"),
    [("sgd", None, 1e-4), ("adam", None, None), ("adamw", None, 1e-4), ("adamw", 0.05, 0.05)],
)
def test_the_weight_decay_is_the_optimizer_s_unless_given(name, given, decay, model):
    config = Config(model=CONFIG, train=Train(optimizer=name, weight_decay=given))
    optimizer = build_optimizer(config, constant(0.1, 1), model)
    assert (optimizer.l2 if name == "sgd" else optimizer.weight_decay) == decay


def test_freezing_a_part_freezes_just_that(model):
    """What a training phase does with the backbone, or with the class head."""
    learning = {v.path for v in model.trainable_variables}
    for part in (model.backbone, model.neck, model.class_head, model.box_head):
        own = {v.path for v in part.trainable_variables}
        part.trainable = False
        left = {v.path for v in model.trainable_variables}
        part.trainable = True
        assert own
        assert left == learning - own
    assert {v.path for v in model.trainable_variables} == learning


def test_asking_for_the_stages_of_a_backbone_leaves_the_model_s_names_alone():
    """Keras numbers layers without a name, and weights are saved by it: the first stays first."""

    class Own(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.convs = [keras.layers.Conv2D(8, 3, s, "same") for s in (8, 2, 2)]
            self.parts = {"stage1": self.convs[:1]}

        def call(self, x, training=False):
            return [x := conv(x) for conv in self.convs]

    config = Config(
        model=dataclasses.replace(CONFIG, backbone=Own), train=Train(freeze=("backbone.stage1",))
    )
    keras.utils.clear_session(free_memory=False)
    first = [variable.path for variable in build_model(config.model, K).variables]
    second = [variable.path for variable in build_model(config.model, K).variables]
    assert "retinanet/own/conv2d/kernel" in first
    assert second != first
    keras.utils.clear_session(free_memory=False)
    require_parts(config)
    assert [variable.path for variable in build_model(config.model, K).variables] == first


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_images_are_normalised_before_they_are_rounded_to_half_precision(precision, monkeypatch):
    """0-255 in bfloat16 would be whole numbers; what the backbone gets is rounded only after."""
    seen = []

    def spy(images, sizes, style):
        seen.append(images.dtype)
        return normalize(images, sizes, style)

    def backbone(x, training=False):
        seen.append(x.dtype)
        return x

    monkeypatch.setattr("core.retinanet.normalize", spy)
    policy = keras.DTypePolicy(precision)
    model = RetinaNet(
        backbone=backbone,
        neck=lambda x: x,
        class_head=tf.identity,
        box_head=tf.identity,
        dtype=policy,
    )
    model(tf.fill([1, 4, 4, 3], 200.4))
    assert seen == [tf.float32, tf.as_dtype(policy.compute_dtype)]


def test_keras_saves_and_loads_all_weights(model, tmp_path, capsys):
    """What README.md promises: Keras's own files, and a summary with every part."""
    values = [np.random.default_rng(3).normal(size=v.shape) for v in model.variables]
    before = [v.numpy() for v in model.variables]
    try:
        for variable, value in zip(model.variables, values, strict=True):
            variable.assign(value)
        model.save_weights(tmp_path / "a.weights.h5")
        other = build_model(CONFIG, K)
        other.load_weights(tmp_path / "a.weights.h5")
        for ours, theirs in zip(model.variables, other.variables, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    finally:
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)
    model.summary()
    shown = capsys.readouterr().out
    assert all(f"{part} (" in shown for part in ("backbone", "neck", "class_head", "box_head"))
