"""Optimizer updates against their formulas in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from core.optimizers import SGD, Adam, AdamW, averaged, is_decayed, make_optimizer
from core.schedules import PerUpdate, constant, step

pytestmark = pytest.mark.full


def make_variables():
    """A kernel, a bias and a norm's gamma."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "bias": (4,), "gamma": (4,)}
    return [keras.Variable(rng.normal(size=s), dtype="float32", name=n) for n, s in shapes.items()]


def make_gradients(step=0):
    rng = np.random.default_rng(10 + step)
    return [np.float32(rng.normal(size=v.shape)) for v in make_variables()]


def values(variables):
    return [np.array(v.value) for v in variables]


def run(optimizer, variables, steps=4):
    for s in range(steps):
        optimizer.apply([tf.constant(g) for g in make_gradients(s)], variables)
    return values(variables)


def assert_all_close(found, expected, rtol=1e-5):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


def global_norm(gradients):
    return np.sqrt(sum(np.sum(np.square(g)) for g in gradients))


def plain_sgd(rates, momentum, l2, clip_norm=None):
    """v = m v - rate (g + l2 w), w += v; l2 on the kernel only; g clipped over all together."""
    weights = values(make_variables())
    velocities = [np.zeros_like(w) for w in weights]
    for s, rate in enumerate(rates):
        gradients = make_gradients(s)
        norm = global_norm(gradients)
        if clip_norm and norm > clip_norm:
            gradients = [g * clip_norm / norm for g in gradients]
        for i, g in enumerate(gradients):
            decay = l2 if weights[i].ndim > 1 else 0
            velocities[i] = momentum * velocities[i] - rate * (g + decay * weights[i])
            weights[i] = weights[i] + velocities[i]
    return weights


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("clip_norm", [None, 2.0, 100.0])
def test_sgd_follows_its_formula(momentum, weight_decay, clip_norm):
    """Momentum, L2 in the gradient of kernels alone, the gradient clipped before it is added."""
    assert 2 < global_norm(make_gradients()) < 100
    variables = make_variables()
    settings = {"momentum": momentum, "weight_decay": weight_decay, "clip_norm": clip_norm}
    optimizer = make_optimizer("sgd", constant(0.1, 0), variables, **settings)
    expected = plain_sgd([0.1] * 4, momentum, weight_decay, clip_norm)
    assert_all_close(run(optimizer, variables), expected)


def test_the_schedule_is_followed_step_by_step():
    """The third update is the first with the lower rate."""
    variables = make_variables()
    schedule = step(0.1, 4, at=(0.5,), factor=0.01)
    optimizer = make_optimizer("sgd", schedule, variables, momentum=0.5)
    assert_all_close(run(optimizer, variables), plain_sgd([0.1, 0.1, 0.001, 0.001], 0.5, 0))


def plain_adam(weight_decay, rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-7, clip_norm=None):
    """Kingma & Ba, section 2's order of operations; decoupled decay on the kernel only."""
    weights = values(make_variables())
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for t in range(1, 5):
        gradients = make_gradients(t - 1)
        norm = global_norm(gradients)
        if clip_norm and norm > clip_norm:
            gradients = [g * clip_norm / norm for g in gradients]
        for i, g in enumerate(gradients):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            if weights[i].ndim > 1:
                weights[i] = weights[i] * (1 - rate * weight_decay)
            alpha = rate * np.sqrt(1 - beta2**t) / (1 - beta1**t)
            weights[i] = weights[i] - alpha * m[i] / (np.sqrt(v[i]) + epsilon)
    return weights


@pytest.mark.parametrize("clip_norm", [None, 2.0])
def test_adamw_decays_kernels_only(clip_norm):
    variables = make_variables()
    settings = {"weight_decay": 0.5, "clip_norm": clip_norm}
    optimizer = make_optimizer("adamw", constant(0.01, 0), variables, **settings)
    found = run(optimizer, variables)
    assert_all_close(found, plain_adam(0.5, clip_norm=clip_norm))
    # The decay is large enough to be seen: without it the kernel ends elsewhere.
    assert np.abs(found[0] - plain_adam(0.0, clip_norm=clip_norm)[0]).max() > 0.01


def test_adam_takes_no_decay():
    variables = make_variables()
    optimizer = make_optimizer("adam", constant(0.01, 0), variables, weight_decay=0.5)
    assert_all_close(run(optimizer, variables), plain_adam(0.0))


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_state_is_made_at_once(kind):
    """So that a checkpoint can be loaded into it before the first update."""
    variables = make_variables()
    optimizer = make_optimizer(kind, constant(0.1, 0), variables)
    made = len(optimizer.variables)
    assert made > len(variables)
    run(optimizer, variables, steps=1)
    assert len(optimizer.variables) == made


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_loss_scaling_leaves_the_update_as_it_is(kind):
    """Scaled gradients give what the plain optimizer gives, decay of kernels alone included."""
    plain, scaled = make_variables(), make_variables()
    settings = {"weight_decay": 0.1, "clip_norm": 2.0}
    expected = run(make_optimizer(kind, constant(0.01, 0), plain, **settings), plain)
    optimizer = make_optimizer(kind, constant(0.01, 0), scaled, **settings, loss_scaling=True)
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    for s in range(4):
        factor = optimizer.scale_loss(tf.constant(1.0))
        assert factor > 1
        optimizer.apply([factor * g for g in make_gradients(s)], scaled)
    assert_all_close(values(scaled), expected, rtol=1e-4)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("compiled", [False, True])
def test_loss_scaling_skips_an_overflow_and_halves_the_scale(bad, kind, compiled):
    """Weights, moments and the step counter stay; the next good gradient is used."""
    variables, plain = make_variables(), make_variables()
    optimizer = make_optimizer(kind, constant(0.1, 0), variables, loss_scaling=True)
    apply = lambda gradients: optimizer.apply(gradients, variables)  # noqa: E731
    apply = tf.function(apply) if compiled else apply
    state = [*optimizer.inner_optimizer.variables, *variables]
    before = values(state)
    scale = float(optimizer.scale_loss(tf.constant(1.0)))
    gradients = make_gradients()
    gradients[1][2] = bad
    apply([tf.constant(g) for g in gradients])
    for now, old in zip(values(state), before, strict=True):
        np.testing.assert_array_equal(now, old)
    assert float(optimizer.scale_loss(tf.constant(1.0))) == scale / 2
    assert int(optimizer.inner_optimizer.iterations) == 0
    apply([tf.constant(scale / 2 * g) for g in make_gradients()])
    expected = run(make_optimizer(kind, constant(0.1, 0), plain), plain, steps=1)
    assert_all_close(values(variables), expected)


def test_the_users_own_optimizer_gets_the_schedule():
    """And is built; weight decay and clipping are its own affair."""
    variables, schedule = make_variables(), constant(0.25, 0)
    settings = {"weight_decay": 9, "clip_norm": 1e-6}
    optimizer = make_optimizer(keras.optimizers.SGD, schedule, variables, **settings)
    assert optimizer.built
    assert_all_close(run(optimizer, variables), plain_sgd([0.25] * 4, 0.0, 0.0))


def test_the_users_own_optimizer_is_scaled_too():
    variables = make_variables()
    own = keras.optimizers.RMSprop
    optimizer = make_optimizer(own, constant(0.1, 0), variables, loss_scaling=True)
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(optimizer.inner_optimizer, keras.optimizers.RMSprop)


@pytest.mark.parametrize(
    ("ours", "settings"),
    [
        (SGD, {"momentum": 0.9, "nesterov": True}),
        (SGD, {"momentum": 0.0}),
        (Adam, {"amsgrad": True}),
        (AdamW, {"amsgrad": True, "weight_decay": 0.1}),
        (Adam, {"beta_1": 0.5, "beta_2": 0.6, "epsilon": 0.1}),
    ],
)
def test_all_settings_mean_what_they_mean_to_keras(ours, settings):
    kept, plain = make_variables(), make_variables()
    theirs = getattr(keras.optimizers, ours.__name__)
    assert_all_close(run(ours(0.05, **settings), kept), run(theirs(0.05, **settings), plain))


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_a_schedule_of_ones_own_may_count_in_float64(kind):
    class Falling(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return tf.constant(0.1, tf.float64) / (1 + tf.cast(step, tf.float64))

    whole, half = make_variables(), make_variables()
    expected = run(make_optimizer(kind, constant(0.1, 0), whole), whole, steps=1)
    assert_all_close(run(make_optimizer(kind, Falling(), half), half, steps=1), expected)


def test_what_is_decayed():
    assert [is_decayed(v) for v in make_variables()] == [True, False, False]


def test_unknown_optimizer_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="expected sgd, adam, adamw or a callable, found 'lion'"):
        make_optimizer("lion", constant(0.1, 0), make_variables())


# ------------------------------------------------------------------------------------------------
# A rate for each variable
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_a_variable_has_the_rate_that_its_factor_says(kind):
    """As if an optimizer of its own had that rate: decay included, decoupled or not."""
    rates, found = (0.1, 1.0, 0.5), make_variables()
    settings = {"weight_decay": 0.0 if kind == "adam" else 0.3}
    optimizer = make_optimizer(kind, constant(0.02, 0), found, rates=rates, **settings)
    run(optimizer, found)
    for i, rate in enumerate(rates):
        alone = make_variables()
        run(make_optimizer(kind, constant(0.02 * rate, 0), alone, **settings), alone)
        np.testing.assert_allclose(found[i], alone[i], rtol=1e-5, atol=1e-7)
        assert np.abs(found[i] - values(make_variables())[i]).max() > 1e-3


# ------------------------------------------------------------------------------------------------
# Accumulated gradients
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_of_several_batches_make_one_update_of_their_mean(kind, compiled):
    """Clipped after the mean, at rates that count updates; the two batches left over do nothing."""
    several, whole = make_variables(), make_variables()
    schedule, settings = step(0.1, 3, at=(0.5,)), {"clip_norm": 3.0}
    settings |= {"weight_decay": 0.0 if kind == "adam" else 0.1}
    optimizer = make_optimizer(kind, PerUpdate(schedule, 3), several, accumulate=3, **settings)
    apply = lambda gradients: optimizer.apply(gradients, several)  # noqa: E731
    apply = tf.function(apply) if compiled else apply
    for s in range(11):
        apply([tf.constant(g) for g in make_gradients(s)])
    assert (int(optimizer.iterations), int(optimizer._iterations)) == (3, 11)

    expected = make_optimizer(kind, schedule, whole, **settings)
    for update in range(3):
        batches = [make_gradients(3 * update + i) for i in range(3)]
        means = [np.mean(gradients, axis=0) for gradients in zip(*batches, strict=True)]
        assert global_norm(means) > 3
        assert global_norm(means) < global_norm(batches[0]), "clipping each would be another thing"
        expected.apply([tf.constant(g) for g in means], whole)
    assert_all_close(values(several), values(whole))


def test_an_overflow_is_left_out_of_the_group():
    """Of three batches the second overflows: the mean is of the first and the third."""
    variables, plain = make_variables(), make_variables()
    settings = {"accumulate": 2, "loss_scaling": True, "ema": 0.5}
    optimizer = make_optimizer("sgd", constant(0.1, 0), variables, **settings)
    for s in range(3):
        scale = optimizer.scale_loss(tf.constant(1.0))
        gradients = [scale * g for g in make_gradients(s)]
        if s == 1:
            gradients[0] *= np.inf
        assert int(optimizer.iterations) == 0
        optimizer.apply(gradients, variables)
    assert int(optimizer.iterations) == 1
    mean = [(a + b) / 2 for a, b in zip(make_gradients(0), make_gradients(2), strict=True)]
    make_optimizer("sgd", constant(0.1, 0), plain).apply([tf.constant(g) for g in mean], plain)
    assert_all_close(values(variables), values(plain))
    with averaged(optimizer, variables):
        first, after = values(make_variables()), values(plain)
        expected = [0.1 * a + 0.9 * b for a, b in zip(first, after, strict=True)]
        assert_all_close(values(variables), expected)


# ------------------------------------------------------------------------------------------------
# Averages
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_averages_follow_their_formula(kind, accumulate, compiled):
    """Begin at the weights; decays 1/10, 2/11, 3/12, then 0.3; nothing moves between updates."""
    variables = make_variables()
    settings = {"ema": 0.3, "accumulate": accumulate, "weight_decay": 0.0}
    optimizer = make_optimizer(kind, constant(0.1, 0), variables, **settings)
    apply = lambda gradients: optimizer.apply(gradients, variables)  # noqa: E731
    apply = tf.function(apply) if compiled else apply
    expected = values(variables)
    for s in range(5 * accumulate):
        with averaged(optimizer, variables):
            assert_all_close(values(variables), expected)
        apply([tf.constant(g) for g in make_gradients(s)])
        if (s + 1) % accumulate == 0:
            decay = (1 / 10, 2 / 11, 3 / 12, 0.3, 0.3)[s // accumulate]
            pairs = zip(expected, values(variables), strict=True)
            expected = [decay * a + (1 - decay) * w for a, w in pairs]
    with averaged(optimizer, variables):
        assert_all_close(values(variables), expected)


def look_and_fail(optimizer, variables, before):
    with averaged(optimizer, variables):
        assert all((now != old).all() for now, old in zip(values(variables), before, strict=True))
        raise KeyError


@pytest.mark.parametrize("loss_scaling", [False, True])
def test_weights_come_back_from_their_averages_to_the_bit(loss_scaling):
    """Whatever is raised, and the next updates are those of a run that never looked."""
    looked, other = make_variables(), make_variables()
    settings = {"ema": 0.9, "loss_scaling": loss_scaling}
    optimizers = [make_optimizer("adamw", constant(0.1, 0), v, **settings) for v in (looked, other)]
    for _ in range(2):
        for optimizer, variables in zip(optimizers, (looked, other), strict=True):
            run(optimizer, variables)
        before = values(looked)
        with pytest.raises(KeyError):
            look_and_fail(optimizers[0], looked, before)
        state = zip(
            values([*looked, *optimizers[0].variables]),
            values([*other, *optimizers[1].variables]),
            strict=True,
        )
        for ours, theirs in state:
            np.testing.assert_array_equal(ours, theirs)


def test_without_averages_the_weights_stay():
    variables = make_variables()
    optimizer = make_optimizer("sgd", constant(0.1, 0), variables)
    run(optimizer, variables)
    before = values(variables)
    with averaged(optimizer, variables):
        for now, old in zip(values(variables), before, strict=True):
            np.testing.assert_array_equal(now, old)


def test_averages_that_the_users_own_optimizer_keeps_are_taken():
    """One update: Keras's are the weights after it; after the second, half of each."""
    variables = make_variables()
    own = lambda rate: keras.optimizers.SGD(rate, use_ema=True, ema_momentum=0.5)  # noqa: E731
    optimizer = make_optimizer(own, constant(0.1, 0), variables)
    first, second = (run(optimizer, variables, steps=1) for _ in range(2))
    with averaged(optimizer, variables):
        assert_all_close(
            values(variables), [(a + b) / 2 for a, b in zip(first, second, strict=True)]
        )
