"""Which runs can be made longer: those whose steps so far would have been the same."""

import keras
import pytest

from configs import ConfigError, preset
from core.schedules import ConstantRate
from training.more_epochs import require_extensible
from training.resuming import Progress

pytestmark = pytest.mark.quick
STEPS = 7  # of an epoch
NEW_RUN = "begin a new run with --set model.weights="


def config(epochs, **changes):
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return preset("shapes", {"train.epochs": epochs, "train.warmup_steps": 3} | changes)


def extend(before, after, epoch=2, **changes):
    progress = Progress(("abc", "def"), epoch)
    require_extensible(config(after, **changes), config(before, **changes), progress, STEPS)


def halved_after_ten(rate, steps):
    return keras.optimizers.schedules.PiecewiseConstantDecay([10], [rate, rate / 2])


@pytest.mark.parametrize("schedule", ["constant", halved_after_ten, lambda r, n: ConstantRate(r)])
def test_rates_that_do_not_know_the_length_can_go_on(schedule):
    extend(2, 3, train__schedule=schedule)
    extend(2, 300, train__schedule=schedule)
    extend(9, 10, epoch=4, train__schedule=schedule)  # a run that is not finished, too


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "exponential"])
def test_rates_that_end_with_the_run_cannot(schedule):
    with pytest.raises(ConfigError, match="rates of 3 epochs are others than those of 2") as caught:
        extend(2, 3, train__schedule=schedule)
    assert NEW_RUN in str(caught.value)


def test_a_step_may_be_still_to_come():
    """At two thirds of 30 epochs nothing has changed after 4 of 9, or 4 of 30."""
    extend(9, 30, epoch=4, train__schedule="step")
    with pytest.raises(ConfigError, match="are others"):
        extend(9, 30, epoch=9, train__schedule="step")


def test_a_warm_up_that_was_cut_short_counts():
    """At most half of a run warms up: 3 of 7 steps, but 7 of 14."""
    settings = {"train__schedule": "constant", "train__warmup_steps": 7}
    with pytest.raises(ConfigError, match="are others"):
        extend(1, 2, epoch=1, **settings)
    extend(2, 4, **settings)


def test_what_ended_early_or_mixes_no_longer_does_not_go_on():
    with pytest.raises(ConfigError, match=r"ended by train\.early_stopping=2, not by its 9 epochs"):
        require_extensible(
            config(12, train__schedule="constant", train__early_stopping=2),
            config(9, train__schedule="constant", train__early_stopping=2),
            Progress(("abc", "def"), 5, stale=2),
            STEPS,
        )
    changes = {"data__mixing__mixup": 0.5, "data__mixing__closing_epochs": 1}
    with pytest.raises(ConfigError, match=r"closing_epochs of a run see other images") as caught:
        extend(2, 3, train__schedule="constant", **changes)
    assert NEW_RUN in str(caught.value)


@pytest.mark.parametrize("after", [1, 8])
def test_a_run_does_not_get_shorter(after):
    with pytest.raises(ConfigError, match=f"expected at least the 9 epochs .*, found {after}"):
        extend(9, after, train__schedule="constant")
