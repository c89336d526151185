"""The weighted pyramid against a plain NumPy forward pass; its settings; its norm in a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.checked import ConfigError, to_dict
from configs.schema import Bifpn, Model
from core.build import build_model
from core.layers import BatchNorm
from core.necks.bifpn import BiFPN, Fusion, halve
from core.predictor import frozen
from core.weights.npz_files import Weights, stated
from tests.core.necks.test_fpn import features, nearest, plain_conv

pytestmark = pytest.mark.full

SMALL = {"backbone": "resnet18", "neck_width": 32, "head_width": 8, "head_depth": 1}
SHAPES = [((8, 12), (4, 6), (2, 3)), ((5, 9), (3, 5), (2, 3)), ((1, 3), (1, 2), (1, 1))]


def build(width=32, **settings):
    """A neck none of whose weights is where it starts, with negative weights of fusion among them;
    (name -> array) beside it."""
    neck = BiFPN(width, name="neck", **settings)
    neck(features((8, 8), (4, 4), (2, 2)))
    rng = np.random.default_rng(1)
    weights = {}
    for variable in neck.weights:
        if variable.name == "mix":
            values = rng.permutation([-0.7, 0.4, 1.9][-variable.shape[0] :])
            variable.assign(values if variable.shape[0] == 3 else values * [1, 0.3])
        elif len(variable.shape) == 1:
            low = 0.5 if variable.name in ("gamma", "moving_variance") else -0.5
            variable.assign(rng.uniform(low, low + 1, variable.shape))
        weights[variable.path.removeprefix("neck/")] = variable.numpy()
    return neck, weights


def plain_norm(x, weights, name, norm, epsilon=1e-5):
    if norm == "none":
        return x + weights[f"{name}/conv/bias"]
    gamma, beta = weights[f"{name}/norm/gamma"], weights[f"{name}/norm/beta"]
    if norm == "batch":
        mean, variance = (weights[f"{name}/norm/moving_{what}"] for what in ("mean", "variance"))
        return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta
    groups = x.reshape(*x.shape[:3], 32, -1)
    mean, variance = groups.mean((1, 2, 4), keepdims=True), groups.var((1, 2, 4), keepdims=True)
    return gamma * ((groups - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) + beta


def plain_halve(x):
    rows, columns = -(-x.shape[1] // 2), -(-x.shape[2] // 2)
    outputs = np.empty((x.shape[0], rows, columns, x.shape[3]), x.dtype)
    for r in range(rows):
        for c in range(columns):
            window = x[:, max(0, 2 * r - 1) : 2 * r + 2, max(0, 2 * c - 1) : 2 * c + 2]
            outputs[:, r, c] = window.max((1, 2))
    return outputs


def plain_bifpn(c3, c4, c5, weights, *, p6_from, repeats, separable, norm):
    """Written out map by map, as in the paper's equations."""

    def conv(x, name, stride=1):
        return plain_norm(
            plain_conv(x, weights[f"{name}/conv/kernel"], stride), weights, name, norm
        )

    def fuse(name, *maps):
        mix = np.maximum(weights[f"{name}/mix"], 0)
        assert len(mix) == len(maps)
        x = sum(w * x for w, x in zip(mix, maps, strict=True)) / (mix.sum() + 1e-4)
        x = x / (1 + np.exp(-x))
        if separable:
            each = weights[f"{name}/depthwise/kernel"][..., 0]  # (3, 3, C)
            x = plain_conv(x, each[..., None] * np.eye(each.shape[-1]))
        return conv(x, name)

    p3, p4, p5 = conv(c3, "lateral3"), conv(c4, "lateral4"), conv(c5, "lateral5")
    p6 = conv(c5 if p6_from == "c5" else p5, "p6", 2)
    p7 = conv(np.maximum(p6, 0), "p7", 2)
    for i in range(repeats):
        r = f"round{i}_"
        t6 = fuse(r + "down6", p6, nearest(p7, p6))
        t5 = fuse(r + "down5", p5, nearest(t6, p5))
        t4 = fuse(r + "down4", p4, nearest(t5, p4))
        p3 = fuse(r + "down3", p3, nearest(t4, p3))
        p4 = fuse(r + "up4", t4, p4, plain_halve(p3))
        p5 = fuse(r + "up5", t5, p5, plain_halve(p4))
        p6 = fuse(r + "up6", t6, p6, plain_halve(p5))
        p7 = fuse(r + "up7", p7, plain_halve(p6))
    return [p3, p4, p5, p6, p7]


@pytest.mark.slow
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(
    ("p6_from", "repeats", "separable", "norm"),
    [
        ("c5", 2, True, "batch"),
        ("p5", 2, False, "batch"),
        ("p5", 1, True, "none"),
        ("c5", 2, False, "none"),
        ("c5", 1, True, "group"),
    ],
)
def test_equals_a_plain_forward_pass(shapes, p6_from, repeats, separable, norm):
    settings = {"p6_from": p6_from, "repeats": repeats, "separable": separable, "norm": norm}
    neck, weights = build(width=256 if norm == "group" else 6, **settings)
    assert any(np.any(array < 0) for name, array in weights.items() if name.endswith("mix"))
    maps = features(*shapes)
    expected = plain_bifpn(*maps, weights, **settings)
    outputs = neck(maps)
    assert len(outputs) == 5
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


def test_fusion_weights_by_hand():
    """relu(w) over its sum plus 0.0001: of 2, -1 and 1 two thirds, nothing and a third."""
    fusion = Fusion(3, 1, norm=None)
    maps = [tf.fill([1, 1, 1, 1], value) for value in (3.0, 50.0, 6.0)]
    fusion(maps)
    fusion.mix.assign([2.0, -1.0, 1.0])
    fusion.conv.kernel.assign(np.eye(9)[4].reshape(3, 3, 1, 1))
    mean = (2 * 3 + 6) / 3.0001
    assert float(fusion(maps)[0, 0, 0, 0]) == pytest.approx(mean / (1 + np.exp(-mean)), rel=1e-6)


def test_fusion_weights_are_normalised_in_float32():
    """256 of 257.0001 is 0.996; a bfloat16 sum would be 256, and the weight 1."""
    plain = Bifpn(repeats=1, separable=False, norm="none")
    config = Model(**SMALL | {"neck_width": 1}, neck="bifpn", bifpn=plain)
    fusion = build_model(config, 2, "mixed_bfloat16").neck.bottom_up[0][3]
    assert fusion.mix.dtype == "float32"
    fusion.mix.assign([256.0, 1.0])
    fusion.conv.kernel.assign(np.eye(9)[4].reshape(3, 3, 1, 1))
    outputs = fusion([tf.fill([1, 1, 1, 1], tf.cast(x, tf.bfloat16)) for x in (100.0, 0.0)])
    assert outputs.dtype == tf.bfloat16
    assert float(outputs[0, 0, 0, 0]) == 99.5  # of 99.61, in steps of a half


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16])
def test_halving_never_takes_the_padding(dtype):
    x = tf.constant(-1.0 - np.arange(15).reshape(1, 3, 5, 1), dtype)
    outputs = halve(x)
    assert outputs.dtype == dtype
    np.testing.assert_array_equal(outputs[0, :, :, 0], [[-1, -2, -4], [-6, -7, -9]])


@pytest.mark.parametrize("separable", [True, False])
def test_without_a_norm_the_signal_stays_of_its_size(separable):
    """Three rounds from maps of unit variance: neither lost nor blown up."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(2, s, s, 64)).astype(np.float32) for s in (32, 16, 8)]
    for x in BiFPN(64, norm="none", separable=separable)(maps):
        assert 0.05 < np.std(x) < 5


def test_maps_of_unknown_size_in_a_graph():
    neck, _ = build(repeats=1)
    graph = tf.function(
        neck, input_signature=[[tf.TensorSpec([None, None, None, c]) for c in (3, 4, 5)]]
    )
    for shapes in SHAPES:
        maps = features(*shapes)
        for ours, eager in zip(graph(maps), neck(maps), strict=True):
            np.testing.assert_allclose(ours, eager, atol=1e-5)


def statistics(neck):
    return {v.path: v.numpy() for v in neck.variables if v.name.startswith("moving")}


def moved(model, images):
    """How many statistics of the neck a training step moves, of how many."""
    before = statistics(model.neck)
    model(images, training=True)
    after = statistics(model.neck)
    return sum(np.any(after[path] != before[path]) for path in before), len(before)


def test_batch_norm_learns_in_training_alone_and_not_in_a_frozen_neck():
    """A model hands `training` on to its neck: laterals, P6, P7 and 8 fusions a round."""
    model = build_model(Model(**SMALL, neck="bifpn", bifpn=Bifpn(repeats=1)), 2)
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, [2, 128, 160, 3]), tf.float32)
    before = statistics(model.neck)
    model(images)
    after = statistics(model.neck)
    assert all(np.array_equal(after[path], before[path]) for path in before)
    assert moved(model, images) == (2 * 13, 2 * 13)
    model.neck.trainable = False
    assert moved(model, images) == (0, 2 * 13)
    frozen_maps = model.neck(model.backbone(images), training=True)
    for ours, theirs in zip(frozen_maps, model.neck(model.backbone(images)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", ["frozen_stats", "frozen"])
def test_batch_norm_is_live_whatever_the_backbones_is(mode):
    model = build_model(Model(**SMALL, neck="bifpn", bn_mode=mode, bn_epsilon=1e-3), 2)
    norms = [layer for layer in model.neck._flatten_layers() if isinstance(layer, BatchNorm)]
    assert len(norms) == 5 + 3 * 8
    assert {(norm.mode, norm.epsilon) for norm in norms} == {("live", 1e-3)}


class Own(keras.layers.Layer):
    """A neck of a user's own, whose call knows nothing of training."""

    def __init__(self):
        super().__init__()
        self.convs = [keras.layers.Conv2D(8, 1) for _ in range(3)]
        self.norm = keras.layers.BatchNormalization()

    def call(self, features):
        p3, p4, p5 = (conv(c) for conv, c in zip(self.convs, features, strict=True))
        return [self.norm(p3), p4, p5, p5[:, ::2, ::2], p5[:, ::4, ::4]]


def test_a_neck_of_ones_own_needs_no_training_argument():
    """What is in it still hears of it."""
    settings = {name: value for name, value in SMALL.items() if name != "neck_width"}
    model = build_model(Model(**settings, neck=Own), 2)
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, [2, 64, 64, 3]), tf.float32)
    assert moved(model, images) == (2, 2)


def test_every_batch_norm_is_folded_in_a_frozen_graph():
    neck, _ = build(repeats=1)

    def step(batch):
        return dict(zip("34567", neck(batch["features"]), strict=True))

    spec = {"features": [tf.TensorSpec([None, None, None, c]) for c in (3, 4, 5)]}
    run = frozen(step, neck, spec)
    ops = {node.op for node in run.graph.as_graph_def().node}
    assert not {"FusedBatchNormV3", "ReadVariableOp"} & ops
    batch = {"features": [tf.constant(x) for x in features((9, 8), (5, 4), (3, 2))]}
    for name, value in step(batch).items():
        limit = 2e-5 * np.abs(value).max()
        np.testing.assert_allclose(run(batch)[name], value, rtol=0, atol=limit)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="norm: expected batch, group or none, found 'layer'"):
        BiFPN(norm="layer")
    with pytest.raises(ValueError, match="p6_from: expected c5 or p5, found 'c4'"):
        BiFPN(p6_from="c4")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bifpn": Bifpn(repeats=2)}, "bifpn: expected the default, "),
        ({"neck": "panet", "bifpn": Bifpn(norm="none")}, "bifpn: expected the default, "),
        ({"neck": len, "bifpn": Bifpn(separable=False)}, "bifpn: expected the default, "),
        (
            {"neck": "bifpn", "bifpn": Bifpn(norm="group"), "neck_width": 48},
            r"neck_width: expected a multiple of 32 for bifpn.norm = 'group', found 48",
        ),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=rf"Model\.{message}"):
        Model(**settings)
    Model(**settings | {"neck": "bifpn", "neck_width": 64})


def test_no_rounds_are_refused():
    with pytest.raises(ConfigError, match=r"Bifpn\.repeats: expected 1 to 16, found 0"):
        Bifpn(repeats=0)


def test_weights_of_another_neck_are_refused_by_name():
    saved = stated("model", to_dict(Model(**SMALL)))
    weights = Weights("there.npz", {}, saved, ("a",))
    message = r"model\.neck: the weights there.npz need 'fpn', the config says 'bifpn'"
    with pytest.raises(ConfigError, match=message):
        weights.settle(Model(neck="bifpn"))
    rounds = stated("model", to_dict(Model(**SMALL, neck="bifpn", bifpn=Bifpn(repeats=2))))
    assert Weights("there.npz", {}, rounds, ("a",)).settle(Model()).bifpn.repeats == 2
    message = r"model\.neck: the weights there.npz need 'bifpn', the config says 'fpn'"
    with pytest.raises(ConfigError, match=message):
        Weights("there.npz", {}, rounds, ("a",)).settle(Model(neck="fpn"))
