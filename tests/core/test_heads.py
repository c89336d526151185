"""The class and box subnets: what they start from, what they share, how outputs are packed."""

import math

import numpy as np
import pytest
import tensorflow as tf

from configs.schema import Model
from core.build import build_model
from core.heads import Head, prior_bias

pytestmark = pytest.mark.full

SIZES = ((4, 6), (2, 3), (1, 2), (1, 1), (1, 1))


def make(width=16, **settings):
    head = Head(
        **{"depth": 2, "width": width, "num_anchors": 3, "outputs": 2, "bias": 0.0, **settings}
    )
    head(pyramid(width))
    return head


def pyramid(width=16, scale=1.0, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    maps = [scale * rng.normal(size=(batch, *size, width)) for size in SIZES]
    return [tf.constant(x, tf.float32) for x in maps]


@pytest.fixture(scope="module")
def half_model():
    """A whole model that computes in bfloat16."""
    config = Model(backbone="resnet18", neck_width=16, head_depth=2, head_width=16)
    return build_model(config, 3, "mixed_bfloat16")


@pytest.mark.parametrize("prior", [0.01, 0.3])
def test_prior_bias_is_the_papers(prior):
    assert 1 / (1 + math.exp(-prior_bias(prior))) == pytest.approx(prior, rel=1e-12)


def test_scores_start_at_the_prior():
    """Exactly, where the features are zero."""
    logits = make(bias=prior_bias(0.01))(pyramid(scale=0.0))
    np.testing.assert_allclose(tf.sigmoid(logits), 0.01, atol=1e-7)


@pytest.mark.parametrize("width", [256, 32])
def test_scores_start_near_the_prior_on_real_features(width):
    """With the depth of the paper, on features of unit variance: nothing is sure of anything."""
    scores = tf.sigmoid(make(width, depth=4, bias=prior_bias(0.01))(pyramid(width)))
    assert 0.0095 < np.min(scores) < np.max(scores) < 0.0105
    assert np.std(scores) > 0


@pytest.mark.parametrize(("width", "deviation"), [(256, 0.01), (64, 0.02)])
def test_weights_start_normal_and_biases_zero(width, deviation):
    """N(0, 0.01) at the paper's width; only the last bias is the prior's."""
    head = make(width, num_anchors=9, outputs=10, bias=-4.0)
    for conv in [*head.convs, head.output_conv]:
        kernel = conv.kernel.numpy()
        assert kernel.std() == pytest.approx(deviation, rel=0.02)
        assert abs(kernel.mean()) < deviation / 50
        # Of a normal distribution 4.6 % lie beyond two deviations; of a truncated one none.
        assert 0.04 < np.mean(np.abs(kernel) > 2 * deviation) < 0.051
    assert all(np.all(conv.bias.numpy() == 0) for conv in head.convs)
    np.testing.assert_array_equal(head.output_conv.bias, np.full(90, -4, np.float32))


def test_only_the_class_head_starts_at_the_prior(half_model):
    """Deltas start around zero, scores around 0.01 (another project had them swapped)."""
    class_bias = half_model.class_head.output_conv.bias.numpy()
    np.testing.assert_allclose(class_bias, np.full(27, -math.log(99)), rtol=1e-6)
    np.testing.assert_array_equal(half_model.box_head.output_conv.bias, np.zeros(36))


def test_nothing_is_shared_between_the_heads(half_model):
    ours = {id(v) for v in half_model.class_head.weights}
    theirs = {id(v) for v in half_model.box_head.weights}
    assert len(ours) == len(theirs) == 2 * 3
    assert not ours & theirs


def test_outputs_are_float32_when_the_rest_is_bfloat16(half_model):
    """The subnets compute in bfloat16 from float32 variables, their outputs are cast once."""
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)), tf.float32)
    outputs = half_model(images)
    assert {output.dtype for output in outputs.values()} == {tf.float32}
    assert half_model.class_head.compute_dtype == "bfloat16"
    assert {v.dtype for v in half_model.weights} == {"float32"}
    logits = outputs["class_logits"].numpy()
    np.testing.assert_array_equal(logits, tf.cast(tf.cast(logits, tf.bfloat16), tf.float32))


def test_the_policy_is_put_back(half_model):
    """Layers made after a mixed-precision model are float32 again."""
    assert make().compute_dtype == "float32"
    assert half_model.compute_dtype == "bfloat16"


def plain_head(head, x):
    """One level, with TensorFlow's own convolution: (B, h, w, A * outputs)."""
    for conv in head.convs:
        x = tf.nn.relu(tf.nn.conv2d(x, conv.kernel.numpy(), 1, "SAME") + conv.bias.numpy())
    conv = head.output_conv
    return (tf.nn.conv2d(x, conv.kernel.numpy(), 1, "SAME") + conv.bias.numpy()).numpy()


@pytest.mark.parametrize("depth", [0, 2])
def test_levels_share_weights_and_channels_are_packed_anchor_first(depth):
    """Row n is (level, row, column, anchor) in that order; its K outputs are adjacent channels."""
    head = make(depth=depth)
    rng = np.random.default_rng(3)
    for variable in head.weights:
        variable.assign(rng.normal(0, 0.2, variable.shape))
    maps = pyramid()
    outputs = head(maps).numpy()
    assert outputs.shape == (2, 3 * (24 + 6 + 2 + 1 + 1), 2)
    n = 0
    for x in maps:
        level = plain_head(head, x)
        for row in range(level.shape[1]):
            for column in range(level.shape[2]):
                for anchor in range(3):
                    expected = level[:, row, column, 2 * anchor : 2 * anchor + 2]
                    np.testing.assert_allclose(outputs[:, n], expected, atol=1e-5)
                    n += 1
    assert n == outputs.shape[1]


def plain_group_norm(x, gamma, beta, groups=32, epsilon=1e-5):
    """Over pixels and the channels of a group, image by image."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height * width, groups, channels // groups)
    mean, variance = x.mean((1, 3), keepdims=True), x.var((1, 3), keepdims=True)
    x = ((x - mean) / np.sqrt(variance + epsilon)).reshape(batch, height, width, channels)
    return x * gamma + beta


def test_group_norm_stands_between_convolution_and_relu():
    """Against plain NumPy; the convolutions have no bias of their own, the output has."""
    head = make(width=64, norm="group", depth=2)
    rng = np.random.default_rng(0)
    for variable in head.weights:
        if variable.name in ("gamma", "beta"):
            variable.assign(rng.uniform(-1, 1, variable.shape))
    names = {variable.path.split("/", 1)[1] for variable in head.weights}
    assert names == {
        *("conv0/kernel", "conv1/kernel", "output/kernel", "output/bias"),
        *(f"norm{i}/{leaf}" for i in range(2) for leaf in ("gamma", "beta")),
    }
    maps = pyramid(64)
    levels = []
    for x in maps:
        for conv, norm in zip(head.convs, head.norms, strict=True):
            x = tf.nn.conv2d(x, conv.kernel, 1, "SAME").numpy()
            x = np.maximum(plain_group_norm(x, norm.gamma.numpy(), norm.beta.numpy()), 0)
        x = tf.nn.conv2d(x, head.output_conv.kernel, 1, "SAME") + head.output_conv.bias
        levels.append(tf.reshape(x, [2, -1, 2]))
    np.testing.assert_allclose(head(maps), tf.concat(levels, 1), atol=2e-6)


def test_group_norm_in_a_model_of_half_precision_and_unknown_sizes():
    config = Model(
        backbone="resnet18", neck_width=32, head_depth=1, head_width=32, head_norm="group"
    )
    whole, half = build_model(config, 3), build_model(config, 3, "mixed_bfloat16")
    for ours, theirs in zip(half.variables, whole.variables, strict=True):
        ours.assign(theirs)
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, [2, 70, 90, 3]), tf.float32)
    graph = tf.function(half, input_signature=[tf.TensorSpec([None, None, None, 3])])
    for name, value in graph(images).items():
        assert value.dtype == tf.float32
        expected = whole(images)[name]
        scale = float(tf.math.reduce_std(expected))
        assert float(tf.reduce_mean(tf.abs(value - expected))) < 0.1 * scale


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm: expected none or group, found 'batch'"):
        make(norm="batch")
