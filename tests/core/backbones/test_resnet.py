"""ResNets against published parameter counts, keras.applications and a plain forward pass."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from core.backbones.resnet import ResNet

pytestmark = pytest.mark.full

# torchvision's published counts hold the classifier of 1000 classes, which is not here.
PUBLISHED = {
    18: 11_689_512 - (512 * 1000 + 1000),
    34: 21_797_672 - (512 * 1000 + 1000),
    50: 25_557_032 - (2048 * 1000 + 1000),
    101: 44_549_160 - (2048 * 1000 + 1000),
    152: 60_192_808 - (2048 * 1000 + 1000),
}


def build(depth, **settings):
    model = ResNet(depth, name="backbone", **settings)
    model(tf.zeros([1, 32, 32, 3]))
    return model


@pytest.fixture(scope="module")
def resnet50():
    return build(50)


@pytest.fixture(scope="module")
def resnet18():
    model = build(18)
    shake(model.weights)
    return model


def shake(variables, seed=0):
    """Batch norms away from their neutral values, biases from zero, kernels that keep a signal."""
    rng = np.random.default_rng(seed)
    spreads = {"gamma": (0.5, 1.2), "moving_variance": (0.5, 2.0)}
    for variable in variables:
        if len(variable.shape) == 1:
            low, high = spreads.get(variable.name, (-0.3, 0.3))
            variable.assign(rng.uniform(low, high, variable.shape))
        else:
            spread = math.sqrt(2 / math.prod(variable.shape[:3]))
            variable.assign(rng.normal(0, spread, variable.shape))


def images(*shape):
    return tf.constant(np.random.default_rng(1).normal(size=(*shape, 3)), tf.float32)


def assert_close(outputs, expected, tolerance=1e-4):
    """Relative to the largest value of the map."""
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == theirs.shape
        scale = np.abs(theirs).max()
        assert scale > 0
        np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("depth", PUBLISHED)
def test_parameter_count_is_the_published_one(depth, request):
    model = request.getfixturevalue("resnet50") if depth == 50 else build(depth)
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == PUBLISHED[depth]


def copy_from_applications(theirs, ours):
    """Their convolutions have biases, which a shift of the running mean takes up."""
    stem = [("conv1", ours.conv1, ours.bn1)]
    blocks = [
        (f"conv{stage}_block{i}", block)
        for stage, blocks in enumerate(ours.stages, 2)
        for i, block in enumerate(blocks, 1)
    ]
    pairs = stem + [
        (f"{name}_{i}", conv, norm)
        for name, block in blocks
        for i, (conv, norm) in enumerate(
            zip([block.shortcut, *block.convs], [block.shortcut_norm, *block.norms], strict=True)
        )
        if conv is not None
    ]
    for name, conv, norm in pairs:
        kernel, bias = theirs.get_layer(f"{name}_conv").get_weights()
        conv.kernel.assign(kernel)
        gamma, beta, mean, variance = theirs.get_layer(f"{name}_bn").get_weights()
        norm.gamma.assign(gamma)
        norm.beta.assign(beta)
        norm.moving_mean.assign(mean - bias)
        norm.moving_variance.assign(variance)
    return len(pairs)


@pytest.mark.slow
def test_resnet50_equals_keras_applications(resnet50):
    """With the stride in the 1x1; with it in the 3x3 the same weights give other numbers."""
    names = ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out")
    theirs = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(None, None, 3)
    )
    shake(theirs.weights)
    features = keras.Model(theirs.inputs, [theirs.get_layer(name).output for name in names])
    ours = build(50, bottleneck_stride="1x1", bn_epsilon=1.001e-5)
    assert copy_from_applications(theirs, ours) == 53
    copy_from_applications(theirs, resnet50)
    for shape in ((1, 65, 83), (2, 64, 96)):
        x = images(*shape)
        expected = [f.numpy() for f in features(x, training=False)]
        assert_close(ours(x), expected)
        for level, other in zip(expected, resnet50(x), strict=True):
            assert level.shape == other.shape
            assert np.abs(level - other).max() > 0.1 * np.abs(level).max()


def plain_resnet18(x, weights, epsilon=1e-5):
    """From weights by name, with explicit padding in the convolution."""

    def conv_norm(x, conv, norm, stride=1):
        kernel = weights[f"{conv}/kernel"]
        p = kernel.shape[0] // 2
        x = tf.nn.conv2d(x, kernel, stride, [[0, 0], [p, p], [p, p], [0, 0]]).numpy()
        parts = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (weights[f"{norm}/{part}"] for part in parts)
        return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta

    relu = functools.partial(np.maximum, 0)
    x = relu(conv_norm(x, "backbone/conv1", "backbone/bn1", 2))
    p = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    rows, columns = -(-x.shape[1] // 2), -(-x.shape[2] // 2)
    x = np.max(
        [
            p[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
            for i in range(3)
            for j in range(3)
        ],
        axis=0,
    )
    features = []
    for stage in (1, 2, 3, 4):
        for i in (0, 1):
            name, stride = f"backbone/layer{stage}_{i}", 2 if stage > 1 and i == 0 else 1
            y = relu(conv_norm(x, f"{name}/conv1", f"{name}/bn1", stride))
            y = conv_norm(y, f"{name}/conv2", f"{name}/bn2")
            if stride == 2:
                x = conv_norm(x, f"{name}/downsample_0", f"{name}/downsample_1", 2)
            x = relu(x + y)
        features.append(x)
    return features[1:]


@pytest.mark.parametrize("shape", [(2, 64, 96), (1, 33, 47)])
def test_resnet18_equals_a_plain_forward_pass(shape, resnet18):
    """Every weight is found by its path, and none is left over."""
    weights = {v.path: v.numpy() for v in resnet18.weights}
    assert len(weights) == len(resnet18.weights) == 20 + 4 * 20
    x = images(*shape)
    assert_close(resnet18(x), plain_resnet18(x, weights))


@pytest.mark.parametrize(("height", "width"), [(33, 65), (1, 31), (64, 96), (100, 37)])
def test_feature_sizes_are_rounded_up(height, width, resnet18):
    shapes = [tuple(f.shape) for f in resnet18(tf.zeros([1, height, width, 3]))]
    expected = [
        (1, math.ceil(height / stride), math.ceil(width / stride), channels)
        for stride, channels in ((8, 128), (16, 256), (32, 512))
    ]
    assert shapes == expected


def test_frozen_statistics_reach_every_batch_norm():
    """bn_mode and bn_epsilon are handed down: training does what inference does."""
    model = build(18, bn_mode="frozen", bn_epsilon=0.5)
    shake(model.weights)
    before = [v.numpy() for v in model.weights]
    x = images(1, 32, 32)
    for trained, inferred in zip(model(x, training=True), model(x), strict=True):
        np.testing.assert_array_equal(trained, inferred)
    assert all(np.array_equal(v, old) for v, old in zip(model.weights, before, strict=True))
    weights = {v.path: v.numpy() for v in model.weights}
    assert_close(model(x), plain_resnet18(x, weights, epsilon=0.5))
    assert {v.name for v in model.trainable_variables} == {"kernel"}
    assert len(model.trainable_variables) == 20


def test_freezing_the_backbone_reaches_its_blocks(resnet18):
    """They lie in lists of lists, where Keras has to find them; unfreezing brings all back."""
    learning = len(resnet18.trainable_variables)
    assert learning == 20 + 2 * 20
    resnet18.trainable = False
    try:
        assert resnet18.trainable_variables == []
        x = images(1, 32, 32)
        for trained, inferred in zip(resnet18(x, training=True), resnet18(x), strict=True):
            np.testing.assert_array_equal(trained, inferred)
    finally:
        resnet18.trainable = True
    assert len(resnet18.trainable_variables) == learning


def test_parts_are_the_whole_from_the_input_up(resnet18):
    """torchvision's conv1 and bn1, layer1 to layer4, in the order it freezes them."""
    layers = {name: [layer.name for layer in part] for name, part in resnet18.parts.items()}
    blocks = {f"stage{i}": [f"layer{i}_0", f"layer{i}_1"] for i in (1, 2, 3, 4)}
    assert layers == {"stem": ["conv1", "bn1"]} | blocks
    parts = [layer for part in resnet18.parts.values() for layer in part]
    assert [v.path for layer in parts for v in layer.weights] == [v.path for v in resnet18.weights]


def test_freezing_a_part_reaches_its_batch_norms_and_no_others():
    model = build(18)
    for layer in model.parts["stage2"]:
        layer.trainable = False
    before = {v.path: v.numpy() for v in model.weights}
    model(images(2, 32, 32), training=True)
    moved = {v.path for v in model.weights if not np.array_equal(v, before[v.path])}
    statistics = {v.path for v in model.weights if "moving_" in v.path}
    assert moved == {path for path in statistics if "layer2_" not in path}
    learning = {v.path for v in model.trainable_variables}
    others = {v.path for v in model.weights} - statistics
    assert learning == {path for path in others if "layer2_" not in path}


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="depth: expected one of 18, 34, 50, 101, 152, found 20"):
        ResNet(20)
    with pytest.raises(ValueError, match="bottleneck_stride: expected 3x3 or 1x1, found '2x2'"):
        ResNet(50, bottleneck_stride="2x2")


@pytest.mark.parametrize("same", [("conv1",), ("pool1",), ("conv1", "pool1")])
def test_same_padding_of_the_stem_is_tensorflows(resnet18, same):
    """One differs from symmetric padding on even sizes only, there by a pixel."""
    model = build(18, same_padding=same)
    for ours, theirs in zip(model.variables, resnet18.variables, strict=True):
        ours.assign(theirs)
    even, odd = images(1, 64, 96), images(1, 61, 89)
    for ours, theirs in zip(model(odd), resnet18(odd), strict=True):
        assert ours.shape == theirs.shape
    if same == ("conv1",):
        assert_close(model(odd), resnet18(odd))
    differ = [np.abs(a - b).max() for a, b in zip(model(even), resnet18(even), strict=True)]
    assert min(differ) > 0.01
    stem = keras.Sequential(
        [
            keras.layers.Conv2D(64, 7, 2, "same", use_bias=False),
            keras.layers.MaxPooling2D(3, 2, "same"),
        ]
    )
    stem(even)
    stem.layers[0].kernel.assign(model.conv1.kernel)
    if same == ("conv1", "pool1"):
        identity = ResNet(18, same_padding=same, name="other")
        identity(even)
        identity.conv1.kernel.assign(model.conv1.kernel)
        seen = []
        identity.stages[0][0].call = lambda x, training=False: seen.append(x) or x
        identity(even)
        scale = 1 / np.sqrt(1 + 1e-5)  # of a fresh batch norm
        np.testing.assert_allclose(
            seen[0], tf.nn.relu(stem(even)) * scale, atol=1e-4
        )  # relu and maximum commute
