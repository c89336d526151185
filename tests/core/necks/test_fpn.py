"""The feature pyramid against a plain NumPy forward pass."""

import numpy as np
import pytest
import tensorflow as tf

from core.necks.fpn import FPN
from core.necks.neck import upsample_to

pytestmark = pytest.mark.quick

CHANNELS = (3, 4, 5)


def features(*shapes):
    rng = np.random.default_rng(0)
    return [
        rng.normal(size=(2, *shape, channels)).astype(np.float32)
        for shape, channels in zip(shapes, CHANNELS, strict=True)
    ]


def plain_conv(x, kernel, stride=1):
    """(B, h, w, C) and (k, k, C, F) -> (B, ceil(h / stride), ceil(w / stride), F)."""
    size = kernel.shape[0]
    margin = size // 2
    rows, columns = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    x = np.pad(x, [(0, 0), (margin, margin), (margin, margin), (0, 0)])
    return sum(
        x[:, i : i + stride * rows : stride, j : j + stride * columns : stride][:, :rows, :columns]
        @ kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def nearest(x, like):
    rows, columns = np.arange(like.shape[1]) // 2, np.arange(like.shape[2]) // 2
    return x[:, rows][:, :, columns]


def build(p6_from="c5", width=6, kind=FPN):
    """A neck with biases that are not zero; (name -> kernel and bias) beside it."""
    neck = kind(width, p6_from, name="neck")
    neck(features((8, 8), (4, 4), (2, 2)))
    rng = np.random.default_rng(1)
    weights = {}
    for variable in neck.weights:
        if variable.name == "bias":
            variable.assign(rng.normal(size=variable.shape))
        weights[variable.path.removeprefix("neck/")] = variable.numpy()
    return neck, weights


def plain_fpn(c3, c4, c5, weights, p6_from):
    def conv(x, name, stride=1):
        return plain_conv(x, weights[f"{name}/kernel"], stride) + weights[f"{name}/bias"]

    inner5 = conv(c5, "lateral5")
    inner4 = conv(c4, "lateral4")
    inner4 = inner4 + nearest(inner5, inner4)
    inner3 = conv(c3, "lateral3")
    inner3 = inner3 + nearest(inner4, inner3)
    p3, p4, p5 = conv(inner3, "output3"), conv(inner4, "output4"), conv(inner5, "output5")
    p6 = conv(c5 if p6_from == "c5" else p5, "p6", 2)
    return [p3, p4, p5, p6, conv(np.maximum(p6, 0), "p7", 2)]


@pytest.mark.parametrize("p6_from", ["c5", "p5"])
@pytest.mark.parametrize(
    "shapes", [((8, 12), (4, 6), (2, 3)), ((5, 9), (3, 5), (2, 3)), ((1, 3), (1, 2), (1, 1))]
)
def test_equals_a_plain_forward_pass(p6_from, shapes):
    """Laterals added top down, P6 from C5 or P5, relu before P7 alone; odd sizes too."""
    neck, weights = build(p6_from)
    assert len(weights) == 2 * 8
    maps = features(*shapes)
    expected = plain_fpn(*maps, weights, p6_from)
    outputs = neck(maps)
    assert len(outputs) == 5
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_negative_p6_does_not_reach_p7():
    """The relu before P7: with all of P6 below zero, P7 is its bias."""
    neck, _ = build()
    neck.p6.bias.assign(np.full(6, -100.0))
    outputs = neck(features((8, 8), (4, 4), (2, 2)))
    assert np.max(outputs[3]) < 0
    np.testing.assert_allclose(outputs[4][0, 0, 0], neck.p7.bias, atol=1e-6)


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (4, 5), (3, 6)])
def test_upsampling_repeats_pixel_i_div_2(size):
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 4)).astype(np.float32)
    outputs = upsample_to(x, tf.zeros([2, *size, 4]))
    assert outputs.shape == (2, *size, 4)
    for i in range(size[0]):
        for j in range(size[1]):
            np.testing.assert_array_equal(outputs[:, i, j], x[:, i // 2, j // 2])


def test_takes_maps_of_unknown_size_in_a_graph():
    neck, _ = build()
    spec = [tf.TensorSpec([None, None, None, channels]) for channels in CHANNELS]
    graph = tf.function(neck, input_signature=[spec])
    for shapes in (((5, 9), (3, 5), (2, 3)), ((8, 8), (4, 4), (2, 2))):
        maps = features(*shapes)
        for ours, eager in zip(graph(maps), neck(maps), strict=True):
            np.testing.assert_allclose(ours, eager, atol=1e-5)


def test_unknown_origin_of_p6_is_refused():
    with pytest.raises(ValueError, match="p6_from: expected c5 or p5, found 'c4'"):
        FPN(p6_from="c4")


@pytest.mark.parametrize("same", [(), ("p6",), ("p7",), ("p6", "p7")])
def test_the_two_paddings_of_p6_and_p7(same):
    """As TensorFlow's own convolutions pad: on even sizes at the bottom and right only."""
    maps = features((32, 24), (16, 12), (8, 6))
    neck = FPN(6, same_padding=same, name="neck")
    neck(maps)
    p6, p7 = neck(maps)[3:]

    def conv(x, layer):
        if layer.name in same:
            return tf.nn.conv2d(x, layer.kernel, 2, "SAME") + layer.bias
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return tf.nn.conv2d(x, layer.kernel, 2, "VALID") + layer.bias

    np.testing.assert_allclose(p6, conv(maps[2], neck.p6), atol=1e-5)
    np.testing.assert_allclose(p7, conv(tf.nn.relu(p6), neck.p7), atol=1e-5)
