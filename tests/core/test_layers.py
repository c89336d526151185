"""Convolution padding and batch norm, against plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from core.layers import BatchNorm, Conv2D, pad

pytestmark = pytest.mark.quick


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def x(rng):
    return rng.normal(2, 3, size=(2, 3, 4, 5)).astype(np.float32)


def numpy_conv(x, kernel, stride):
    """(B, H, W, C) and (k, k, C, F) -> (B, h, w, F), with k // 2 zeros around."""
    size = kernel.shape[0]
    margin = size // 2
    x = np.pad(x.astype(np.float64), [(0, 0), (margin, margin), (margin, margin), (0, 0)])
    rows = range(0, x.shape[1] - size + 1, stride)
    columns = range(0, x.shape[2] - size + 1, stride)
    return np.stack(
        [
            np.stack(
                [np.tensordot(x[:, r : r + size, c : c + size], kernel, 3) for c in columns], axis=1
            )
            for r in rows
        ],
        axis=1,
    )


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(8, 12), (9, 7), (2, 1)])
def test_conv_pads_symmetrically_like_a_plain_convolution(kernel_size, stride, shape, rng):
    x = rng.normal(size=(2, *shape, 3)).astype(np.float32)
    conv = Conv2D(4, kernel_size, stride, bias_initializer="normal")
    outputs = conv(x)
    expected = numpy_conv(x, conv.kernel.numpy(), stride) + conv.bias.numpy()
    assert outputs.shape == (2, -(-shape[0] // stride), -(-shape[1] // stride), 4)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.parametrize(("size", "is_equal"), [(8, False), (9, True)])
def test_conv_differs_from_tensorflows_same_only_at_even_sizes(size, is_equal, rng):
    """The one-pixel shift that would spoil other projects' weights."""
    x = rng.normal(size=(1, size, size, 2)).astype(np.float32)
    conv = Conv2D(3, 3, 2, use_bias=False)
    ours = conv(x).numpy()
    same = tf.nn.conv2d(x, conv.kernel, 2, "SAME")
    assert ours.shape == same.shape
    assert np.allclose(ours, same, atol=1e-5) == is_equal


def test_conv_takes_maps_of_unknown_size_in_a_graph(rng):
    """Size is known only when the graph runs, and is odd once and even once."""
    conv = Conv2D(2, 3, 2)
    graph = tf.function(conv, input_signature=[tf.TensorSpec([None, None, None, 3])])
    for shape in ((1, 5, 6, 3), (2, 1, 1, 3)):
        x = rng.normal(size=shape).astype(np.float32)
        np.testing.assert_allclose(graph(x), conv(x), atol=1e-6)
        assert graph(x).shape == (shape[0], -(-shape[1] // 2), -(-shape[2] // 2), 2)


def test_pad_fills_the_border_with_the_value():
    padded = pad(tf.ones([1, 1, 2, 1]), 1, 5.0)[0, :, :, 0]
    np.testing.assert_array_equal(padded, [[5, 5, 5, 5], [5, 1, 1, 5], [5, 5, 5, 5]])


def batch_norm(x, rng, **settings):
    """A layer built for x with parameters and statistics that are not their neutral values."""
    layer = BatchNorm(**settings)
    layer.build(x.shape)
    channels = x.shape[-1]
    layer.gamma.assign(rng.uniform(0.5, 2, channels))
    layer.beta.assign(rng.normal(size=channels))
    layer.moving_mean.assign(rng.normal(size=channels))
    layer.moving_variance.assign(rng.uniform(0.3, 3, channels))
    return layer


def by_formula(x, layer, mean, variance, epsilon):
    scale = layer.gamma.numpy() / np.sqrt(variance + epsilon)
    return (x - mean) * scale + layer.beta.numpy()


@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_live_training_normalises_by_the_batch(epsilon, x, rng):
    """By its mean and biased variance, with the given epsilon."""
    layer = batch_norm(x, rng, epsilon=epsilon)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = by_formula(x, layer, mean, variance, epsilon)
    np.testing.assert_allclose(layer(x, training=True), expected, atol=1e-4)


def test_live_training_moves_the_statistics(x, rng):
    """A tenth towards the batch's mean and its unbiased variance, as in torch."""
    layer = batch_norm(x, rng)
    before = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    layer(x, training=True)
    batch = x.mean((0, 1, 2)), x.var((0, 1, 2), ddof=1)
    for moving, old, new in zip(
        (layer.moving_mean, layer.moving_variance), before, batch, strict=True
    ):
        np.testing.assert_allclose(moving, 0.9 * old + 0.1 * new, rtol=1e-5)


def test_a_batch_of_one_image_hides_its_level_and_detection_does_not(rng):
    """The gap that mAP falls into at batch size 1, although the running statistics are right.

    Images whose channels differ in their mean by more than within themselves: normalised one by
    one the differences are gone, by the statistics of all they are the larger part of what is left.
    """
    levels = rng.normal(0, 3, size=(400, 1, 1, 2))
    images = (levels + rng.normal(size=(400, 4, 4, 2))).astype(np.float32)
    layer = BatchNorm(momentum=0.99)
    layer.build(images.shape)
    alone = np.concatenate([layer(image[None], training=True) for image in images])
    np.testing.assert_allclose(alone.mean((1, 2)), 0, atol=1e-5)
    within = images.var((1, 2), ddof=1).mean(0)
    np.testing.assert_allclose(layer.moving_variance, within, rtol=0.15)
    np.testing.assert_allclose(layer.moving_mean, images.mean((0, 1, 2)), atol=1)
    detected = layer(images).numpy()
    assert detected.mean((1, 2)).std() > 2.5
    at_once = layer(images, training=True).numpy()
    assert 0.8 < at_once.mean((1, 2)).std() < 1


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 0.5])
def test_inference_uses_the_running_statistics(epsilon, x, rng):
    """Epsilon is honoured down to 0, which torchvision's COCO weights need."""
    layer = batch_norm(x, rng, epsilon=epsilon)
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    expected = by_formula(x, layer, mean, variance, epsilon)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, mean)
    np.testing.assert_array_equal(layer.moving_variance, variance)


@pytest.mark.parametrize("mode", ["frozen_stats", "frozen", "live in a frozen part"])
def test_frozen_layers_train_as_they_infer(mode, x, rng):
    """Same output with training=True, and statistics that never move."""
    layer = batch_norm(x, rng, mode=mode.split()[0])
    if mode.startswith("live"):
        layer.trainable = False
    before = [v.numpy() for v in layer.weights]
    inferred = layer(x, training=False)
    np.testing.assert_array_equal(layer(x, training=True), inferred)
    for variable, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_only_live_and_frozen_stats_learn(x, rng):
    names = {
        mode: {v.name for v in batch_norm(x, rng, mode=mode).trainable_variables}
        for mode in ("live", "frozen_stats", "frozen")
    }
    assert names == {"live": {"gamma", "beta"}, "frozen_stats": {"gamma", "beta"}, "frozen": set()}


def test_frozen_layer_stays_frozen_when_its_part_is_released(x, rng):
    """A later phase sets trainable to True for the whole backbone."""
    layer = batch_norm(x, rng, mode="frozen")
    layer.trainable = False
    layer.trainable = True
    assert layer.trainable_variables == []


@pytest.mark.parametrize("mode", ["live", "frozen_stats"])
def test_gradients_equal_finite_differences(mode, x, rng):
    """Of the formula in float64: for the input, gamma and beta."""
    layer = batch_norm(x, rng, mode=mode, epsilon=0.1)
    moving = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    weight = rng.normal(size=x.shape)
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(layer(inputs, training=True) * weight.astype(np.float32))
    gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])

    def value(x, gamma, beta):
        mean, variance = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if mode == "live" else moving
        return np.sum(((x - mean) / np.sqrt(variance + 0.1) * gamma + beta) * weight)

    arguments = [np.float64(a) for a in (x, layer.gamma.numpy(), layer.beta.numpy())]
    for i, gradient in enumerate(gradients):
        numeric = np.zeros_like(arguments[i])
        for place in np.ndindex(*numeric.shape):
            sides = []
            for step in (1e-5, -1e-5):
                shifted = [a.copy() for a in arguments]
                shifted[i][place] += step
                sides.append(value(*shifted))
            numeric[place] = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose(gradient, numeric, rtol=2e-4, atol=2e-4)


def test_bfloat16_input_keeps_float32_statistics(rng):
    """Output in the compute type; parameters and statistics, and what they hold, in float32."""
    x = tf.cast(rng.normal(1, 2, size=(4, 8, 8, 3)), tf.bfloat16)
    layer = BatchNorm(dtype="mixed_bfloat16")
    outputs = layer(x, training=True)
    assert outputs.dtype == tf.bfloat16
    assert {v.dtype for v in layer.weights} == {"float32"}
    exact = tf.cast(x, tf.float32).numpy()
    mean, variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2), ddof=1)
    # bfloat16 alone would be wrong by some 1e-3.
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=2e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=2e-5)
    biased = exact.var((0, 1, 2))
    expected = (exact - mean) / np.sqrt(biased + 1e-5)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), expected, atol=0.02)


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="live, frozen_stats or frozen, found 'freeze'"):
        BatchNorm("freeze")
