"""Learning-rate schedules: Keras's own, with one linear warm-up for all of them."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule


class ConstantRate(LearningRateSchedule):
    """The same rate at every step: the one schedule that Keras lacks."""

    def __init__(self, learning_rate: float):
        self.learning_rate = learning_rate

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return tf.constant(self.learning_rate, tf.float32)

    def get_config(self) -> dict[str, object]:
        return {"learning_rate": self.learning_rate}


class Warmup(LearningRateSchedule):
    """`schedule` times a factor that rises in a line from `start` to 1 over the first `steps`."""

    def __init__(self, schedule: LearningRateSchedule, steps: int, start: float = 0.001):
        self.schedule, self.steps, self.start = schedule, steps, start

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        progress = tf.minimum(tf.cast(step, tf.float32) / max(self.steps, 1), 1.0)
        return self.schedule(step) * (self.start + (1 - self.start) * progress)

    def get_config(self) -> dict[str, object]:
        return {"schedule": self.schedule, "steps": self.steps, "start": self.start}


class PerUpdate(LearningRateSchedule):
    """`schedule`, which counts updates, for a counter of batches: an update takes `batches`.

    Keras asks for the rate by batches where their gradients are accumulated.
    """

    def __init__(self, schedule: LearningRateSchedule, batches: int):
        self.schedule, self.batches = schedule, batches

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return self.schedule(step // self.batches)

    def get_config(self) -> dict[str, object]:
        return {"schedule": self.schedule, "batches": self.batches}


def constant(learning_rate: float, steps: int) -> LearningRateSchedule:
    """Stays."""
    return ConstantRate(learning_rate)


def cosine(learning_rate: float, steps: int, *, final: float = 0.0) -> LearningRateSchedule:
    """Half a cosine from the rate to `final` times it (Loshchilov & Hutter, arXiv:1608.03983)."""
    return keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=final)


def step(
    learning_rate: float, steps: int, *, at: Sequence[float], factor: float = 0.1
) -> LearningRateSchedule:
    """Multiplied by `factor` at each of the shares `at` of all steps.

    Raises ValueError where two of them fall on the same step.
    """
    starts = [round(share * steps) for share in at]
    if len(set(starts)) != len(starts):
        raise ValueError(
            f"train.schedule.at, or a phase's: expected different steps at {at} of {steps}, found "
            f"{starts}"
        )
    rates = [learning_rate * factor**i for i in range(len(starts) + 1)]
    # Keras holds a rate up to and including its boundary.
    return keras.optimizers.schedules.PiecewiseConstantDecay([s - 1 for s in starts], rates)


def polynomial(
    learning_rate: float, steps: int, *, power: float = 0.9, final: float = 0.0
) -> LearningRateSchedule:
    """(1 - progress) ** power from the rate to `final` times it."""
    return keras.optimizers.schedules.PolynomialDecay(
        learning_rate, steps, learning_rate * final, power
    )


def exponential(learning_rate: float, steps: int, *, final: float = 0.01) -> LearningRateSchedule:
    """The same factor in every step, `final` over all of them."""
    return keras.optimizers.schedules.ExponentialDecay(learning_rate, steps, final)


SCHEDULES: dict[str, Callable[..., LearningRateSchedule]] = {
    "constant": constant,
    "cosine": cosine,
    "step": step,
    "polynomial": polynomial,
    "exponential": exponential,
}
