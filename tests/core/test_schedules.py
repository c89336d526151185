"""Learning rates against their closed formulas."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs import ConfigError, schema
from configs.schema import Phase
from core.build import build_schedule
from core.schedules import SCHEDULES, LearningRateSchedule, Warmup, constant, step

pytestmark = pytest.mark.quick

RATE, STEPS = 0.02, 90


def rates(schedule, steps):
    """With the int64 counter of an optimizer."""
    return np.array([float(schedule(tf.constant(s, tf.int64))) for s in steps])


FORMULAS = {
    "constant": ({}, lambda p: RATE),
    "cosine": ({"final": 0.1}, lambda p: RATE * (0.1 + 0.9 * (1 + math.cos(math.pi * p)) / 2)),
    "polynomial": (
        {"power": 0.9, "final": 0.2},
        lambda p: RATE * (0.2 + 0.8 * (1 - p) ** 0.9),
    ),
    "exponential": ({"final": 0.05}, lambda p: RATE * 0.05**p),
    "step": (
        {"at": (0.5, 0.8), "factor": 0.3},
        lambda p: RATE * (1 if p < 0.5 else 0.3 if p < 0.8 else 0.09),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule_follows_its_formula(name):
    settings, formula = FORMULAS[name]
    steps = [0, 1, 30, 44, 45, 71, 72, 89, 90]
    schedule = SCHEDULES[name](RATE, STEPS, **settings)
    assert isinstance(schedule, LearningRateSchedule)
    np.testing.assert_allclose(rates(schedule, steps), [formula(s / 90) for s in steps], rtol=1e-5)


def test_cosine_and_polynomial_stay_at_their_end():
    for name in ("cosine", "polynomial"):
        schedule = SCHEDULES[name](RATE, STEPS, final=0.5)
        np.testing.assert_allclose(rates(schedule, [90, 91, 500]), RATE / 2, rtol=1e-6)


def test_step_falls_exactly_at_the_boundary():
    """.667 and .889 of 90 are steps 60 and 80: they already have the lower rate."""
    schedule = step(1.0, 90, at=(0.667, 0.889), factor=0.1)
    found = rates(schedule, range(100))
    np.testing.assert_allclose(found, [1.0] * 60 + [0.1] * 20 + [0.01] * 20, rtol=1e-6)


def test_step_refuses_a_phase_too_short_for_its_boundaries():
    message = r"train\.schedule\.at, or .* different steps at .* of 3, found \[2, 2\]"
    with pytest.raises(ValueError, match=message):
        step(1.0, 3, at=(0.6, 0.7))


def test_warmup_rises_in_a_line():
    """From a thousandth, over half, to the whole at its last step, where it stays."""
    schedule = Warmup(constant(RATE, STEPS), steps=20)
    expected = np.array([0.001, 0.5005, 0.001 + 0.999 * 0.95, 1, 1, 1]) * RATE
    np.testing.assert_allclose(rates(schedule, [0, 10, 19, 20, 21, 90]), expected, rtol=1e-5)


def test_warmup_multiplies_the_schedule_under_it():
    inner = SCHEDULES["cosine"](RATE, STEPS)
    steps = [0, 5, 10, 50]
    factors = [0.2, 0.6, 1, 1]
    found = rates(Warmup(inner, steps=10, start=0.2), steps)
    np.testing.assert_allclose(found, rates(inner, steps) * factors, rtol=1e-5)


def test_schedules_run_in_a_graph():
    """With a counter that is a variable, as in a compiled step."""
    for name, (settings, _) in FORMULAS.items():
        schedule = Warmup(SCHEDULES[name](RATE, STEPS, **settings), 10)
        counter = tf.Variable(50, dtype=tf.int64)
        np.testing.assert_allclose(tf.function(schedule)(counter), rates(schedule, [50])[0], 1e-5)


KINDS = {
    "constant": schema.Constant(),
    "cosine": schema.Cosine(final=0.1),
    "step": schema.Step(at=(0.5, 0.8), factor=0.3),
    "polynomial": schema.Polynomial(power=0.9, final=0.2),
    "exponential": schema.Exponential(final=0.05),
}


def test_every_schedule_has_its_config():
    assert list(SCHEDULES) == list(KINDS)
    assert all(name == kind.kind for name, kind in KINDS.items())


def phase(schedule, warmup_steps=0):
    return Phase(
        epochs=1, batch_size=2, learning_rate=RATE, schedule=schedule, warmup_steps=warmup_steps
    )


@pytest.mark.parametrize("name", KINDS)
def test_build_schedule_hands_rate_steps_and_settings_down(name):
    steps = [0, 44, 45, 80, 90]
    schedule = build_schedule(phase(KINDS[name]), STEPS)
    formula = FORMULAS[name][1]
    np.testing.assert_allclose(rates(schedule, steps), [formula(s / 90) for s in steps], rtol=1e-5)


def test_build_schedule_adds_the_warmup():
    schedule = build_schedule(phase(schema.Constant(), warmup_steps=30), STEPS)
    np.testing.assert_allclose(rates(schedule, [0, 15, 30]), RATE * np.array([0.001, 0.5005, 1]))


def test_build_schedule_counts_updates_of_several_batches():
    """Of 92 batches by 3: 30 updates, 10 of them warm-up; asked by batches, the rest is past it."""
    schedule = build_schedule(phase(schema.Polynomial(power=1.0), warmup_steps=10), 92, 3)
    updates = build_schedule(phase(schema.Polynomial(power=1.0), warmup_steps=10), 30)
    steps = np.arange(92)
    np.testing.assert_allclose(rates(schedule, steps), rates(updates, steps // 3), rtol=1e-6)
    assert rates(schedule, [89]) > 0
    assert rates(schedule, [90]) == 0


def test_a_phase_without_an_update_is_refused():
    message = "train.accumulate: expected at most the 8 batches of a phase of 1 epochs, found 9"
    with pytest.raises(ConfigError, match=message):
        build_schedule(phase(schema.Constant()), 8, 9)


def test_build_schedule_takes_the_users_own_callable():
    """It gets the learning rate and the number of steps of the phase."""

    def own(learning_rate, steps):
        return keras.optimizers.schedules.InverseTimeDecay(learning_rate, steps, 1.0)

    schedule = build_schedule(phase(own), STEPS)
    np.testing.assert_allclose(rates(schedule, [0, 90, 180]), [RATE, RATE / 2, RATE / 3], rtol=1e-6)
    warmed = build_schedule(phase(own, warmup_steps=40), STEPS)
    np.testing.assert_allclose(rates(warmed, [90])[0], RATE / 2, rtol=1e-6)


def test_build_schedule_takes_the_users_own_schedule():
    """As it is: it has a rate of its own."""
    own = keras.optimizers.schedules.ExponentialDecay(3.0, 10, 0.5)
    assert build_schedule(phase(own), STEPS) is own
    warmed = build_schedule(phase(own, warmup_steps=10), STEPS)
    np.testing.assert_allclose(rates(warmed, [0, 10, 20]), [0.003, 1.5, 0.75], rtol=1e-5)


def test_a_warm_up_takes_at_most_half_of_the_phase():
    """Asked for more than there are steps, the full rate is still reached, at the half."""
    schedule = build_schedule(phase(schema.Constant(), warmup_steps=10 * STEPS), STEPS)
    expected = [RATE * 0.001, RATE * (0.001 + 0.999 * 44 / 45), RATE, RATE]
    np.testing.assert_allclose(rates(schedule, [0, 44, 45, 89]), expected, rtol=1e-5)


def test_an_own_schedule_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"LearningRateSchedule, found 0\.1"):
        build_schedule(phase(lambda rate, steps: 0.1), STEPS)
