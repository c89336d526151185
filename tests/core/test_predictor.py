"""A frozen graph against the model it was made from."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.checked import override
from configs.schema import Model
from core.build import build_model
from core.layers import BatchNorm, Conv2D
from core.predictor import fold_batch_norms, frozen

pytestmark = pytest.mark.full

SMALL = {"backbone": "resnet18", "neck_width": 32, "head_width": 32, "head_depth": 1}
SPEC = {"images": tf.TensorSpec([None, None, None, 3])}


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unsettle(model, seed=0):
    """Statistics, gammas, betas and biases as training leaves them, in place of ones and zeros."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if len(variable.shape) == 1:
            around = 1.0 if variable.name in ("gamma", "moving_variance") else 0.0
            values = around + generator.uniform(-0.3, 0.3, variable.shape)
            variable.assign(values.astype(np.float32))
    return model


def outputs_of(model):
    return lambda batch: model(batch["images"], training=False)


def count(function, op):
    graph = function.graph.as_graph_def()
    return sum(node.op == op for node in graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"head_norm": "group"}, {"same_padding": ("conv1",)}])
def test_the_numbers_stay(settings):
    model = unsettle(build_model(override(Model(), SMALL | settings), 3))
    run = frozen(outputs_of(model), model, SPEC)
    for size in (64, 97):
        batch = {"images": 100 + 50 * noise(2, size, size + 10, 3)}
        expected, found = outputs_of(model)(batch), run({"images": tf.constant(batch["images"])})
        assert set(expected) == set(found)
        for name, value in expected.items():
            assert value.numpy().std() > 0
            limit = 1e-5 * np.abs(value).max()
            np.testing.assert_allclose(found[name], value, rtol=0, atol=limit)


def test_no_batch_norm_and_no_variable_is_left():
    model = unsettle(build_model(override(Model(), SMALL), 3))
    run = frozen(outputs_of(model), model, SPEC)
    batch_norms = sum(isinstance(layer, BatchNorm) for layer in model._flatten_layers())
    assert batch_norms == 20
    assert count(run, "FusedBatchNormV3") == 0
    assert count(run, "ReadVariableOp") == 0


def test_the_weights_are_those_of_the_moment():
    model = unsettle(build_model(override(Model(), SMALL), 3))
    batch = {"images": tf.constant(100 + 50 * noise(1, 64, 64, 3))}
    run = frozen(outputs_of(model), model, SPEC)
    before = run(batch)["class_logits"].numpy()
    unsettle(model, seed=1)
    np.testing.assert_array_equal(run(batch)["class_logits"], before)
    assert np.abs(outputs_of(model)(batch)["class_logits"] - before).max() > 0


def test_half_precision_kernels_are_folded_before_they_are_rounded():
    model = unsettle(build_model(override(Model(), SMALL), 3, "mixed_bfloat16"))
    run = frozen(outputs_of(model), model, SPEC)
    assert count(run, "FusedBatchNormV3") == 0
    conv, norm = model.backbone.conv1, model.backbone.bn1
    gamma, variance = (np.array(v, np.float64) for v in (norm.gamma, norm.moving_variance))
    exact = np.array(conv.kernel.value, np.float64) * gamma / np.sqrt(variance + norm.epsilon)
    constants = [node for node in run.graph.as_graph_def().node if node.op == "Const"]
    kernels = [tf.make_ndarray(node.attr["value"].tensor) for node in constants]
    (kernel,) = [array for array in kernels if array.shape == (7, 7, 3, 64)]
    np.testing.assert_array_equal(kernel, exact.astype(np.float32))
    batch = {"images": tf.constant(100 + 50 * noise(2, 64, 96, 3))}
    folded, plain = (f(batch)["class_logits"].numpy() for f in (run, outputs_of(model)))
    assert 0 < np.abs(folded - plain).max() < 0.05 * np.abs(plain).max()


class Parts(keras.Model):
    """Convolutions that may not be folded: one with two users, two with one kernel."""

    def __init__(self):
        super().__init__()
        self.shared = Conv2D(4, 3, use_bias=False)
        self.forked = Conv2D(4, 1, use_bias=False)
        self.norms = [BatchNorm() for _ in range(3)]

    def call(self, x, training=False):
        once = self.norms[0](self.shared(x), training=training)
        twice = self.norms[1](self.shared(once), training=training)
        forked = self.forked(twice)
        return {"y": self.norms[2](forked, training=training) + forked}


def test_what_something_else_uses_too_is_left_alone():
    model = Parts()
    batch = {"images": tf.constant(noise(1, 8, 8, 4))}
    model(batch["images"])
    unsettle(model)
    step = lambda batch: model(batch["images"])  # noqa: E731
    run = frozen(step, model, {"images": tf.TensorSpec([None, 8, 8, 4])})
    assert count(run, "FusedBatchNormV3") == 3
    np.testing.assert_allclose(run(batch)["y"], step(batch)["y"], atol=1e-5)


class Blurred(keras.Model):
    """A part of a user's own, with a tensor and a variable that Keras does not know of."""

    def __init__(self):
        super().__init__()
        self.conv = Conv2D(4, 3)
        self.blur = tf.ones([9, 9, 4, 1]) / 81
        self.hidden = [tf.Variable(2.0)]

    def call(self, x):
        return {
            "y": tf.nn.depthwise_conv2d(self.conv(x), self.blur, [1] * 4, "SAME") * self.hidden[0]
        }


def test_what_is_neither_weight_nor_input_comes_along():
    model = Blurred()
    batch = {"images": tf.constant(noise(1, 8, 8, 4))}
    step = lambda batch: model(batch["images"])  # noqa: E731
    step(batch)
    run = frozen(step, model, {"images": tf.TensorSpec([None, 8, 8, 4])})
    np.testing.assert_allclose(run(batch)["y"], step(batch)["y"], atol=1e-5)


def test_a_batch_norm_that_trains_is_left_alone():
    conv, norm = Conv2D(4, 3, use_bias=False), BatchNorm()

    @tf.function
    def train(x):
        return norm(conv(x), training=True)

    x = tf.constant(noise(1, 8, 8, 4))
    graph_def = train.get_concrete_function(x).graph.as_graph_def()
    assert fold_batch_norms(graph_def) == 0
