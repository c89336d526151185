"""Which runs can be trained for more epochs than they were begun with."""

import numpy as np
import tensorflow as tf

from configs import Config, ConfigError
from core.build import build_schedule
from training.resuming import Progress

MOST_COMPARED = 10_000  # steps at which two schedules are compared, spread over those done


def require_extensible(config: Config, began: Config, progress: Progress, steps: int) -> None:
    """Raises ConfigError unless a run goes on as if it had been begun with more epochs.

    config: with the new train.epochs; began: with the old. steps: of an epoch.
    The learning rates of all steps done have to be the same under both, which a constant schedule
    grants and one that ends with the run does not.
    """
    before, after = began.train.epochs, config.train.epochs
    if not before or not after or after < before:
        raise ConfigError(
            f"train.epochs: expected at least the {before} epochs of a run that is resumed, found "
            f"{after}"
        )
    new_run = (
        "to train on from its weights, begin a new run with --set model.weights=RUN and a "
        "train.learning_rate to start from"
    )
    if progress.is_stale(config.train.early_stopping):
        raise ConfigError(
            f"train.epochs: the run was ended by train.early_stopping={config.train.early_stopping}"
            f", not by its {before} epochs; {new_run}"
        )
    if config.data.mixing.closing_epochs:
        raise ConfigError(
            "train.epochs: the last data.mixing.closing_epochs of a run see other images, so that "
            f"it cannot be made longer; {new_run}"
        )
    rates = [
        _rates(each, steps, progress.epoch * steps + progress.step) for each in (began, config)
    ]
    different = np.flatnonzero(rates[0] != rates[1])
    if len(different):
        old, new = (values[different[0]] for values in rates)
        raise ConfigError(
            f"train.epochs: under train.schedule the rates of {after} epochs are others than those "
            f"of {before} in the steps that are done (first {new:g} in place of {old:g}); {new_run}"
        )


def _rates(config: Config, steps: int, done: int) -> np.ndarray:
    """Learning rates of the steps that are done, or of MOST_COMPARED of them."""
    (phase,) = config.train.all_phases()
    schedule = build_schedule(phase, steps * phase.epochs, config.train.accumulate)
    chosen = np.unique(np.linspace(0, max(done - 1, 0), min(done, MOST_COMPARED)).astype(np.int64))

    @tf.function
    def rates(steps: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(schedule, steps, fn_output_signature=tf.float32)

    return rates(tf.constant(chosen)).numpy()
