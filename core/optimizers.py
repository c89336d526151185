"""Optimizers by name, with weight decay on kernels only, and moving averages of the weights.

The updates are Keras's; momentum and moments are kept by one kernel of TensorFlow where Keras takes
five to ten, which read and write all weights every time.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule


class _Extended(keras.optimizers.Optimizer):
    """Mixed into Keras's optimizers: a rate for each variable, and averages that start well.

    rates: factors of the learning rate, one for each variable in the order of `build`; None: 1.
    Keras's averages (use_ema) are zero before the first update, move at every batch of accumulated
    gradients though nothing else does, and after n updates still hold decay^n of the weights they
    began with: of 500 updates at 0.998 a third. Here they begin at the weights, move at updates
    only, and the decay of update n = 0, 1, ... is min(ema_momentum, (1 + n) / (10 + n)), which
    forgets the first weights within a few dozen of them (as tf.train.ExponentialMovingAverage does
    if told the number of updates).

    What begins with an underscore is Keras 3.15's own, as is that its averages move before it
    counts the batch: requirements.txt takes no later one unseen.
    """

    def __init__(self, *args: Any, rates: Sequence[float] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.rates = rates and tuple(rates)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        if self.use_ema:
            for average, variable in zip(
                self._model_variables_moving_average, variables, strict=True
            ):
                average.assign(variable)

    def rate_of(self, variable: keras.Variable, learning_rate: tf.Tensor) -> tf.Tensor:
        """The learning rate of one variable."""
        rate = tf.cast(learning_rate, variable.dtype)
        return rate * self.rates[self._get_variable_index(variable)] if self.rates else rate

    def _update_model_variables_moving_average(
        self, trainable_variables: Sequence[keras.Variable]
    ) -> None:
        done = tf.cast(self.iterations, tf.float32)
        decay = tf.minimum(self.ema_momentum, (1 + done) / (10 + done))

        def update() -> None:
            for average, variable in zip(
                self._model_variables_moving_average, trainable_variables, strict=True
            ):
                step = {"alpha": 1 - decay, "delta": average - variable}
                tf.raw_ops.ResourceApplyGradientDescent(var=_handle(average), **step)

        is_update = (self._iterations + 1) % (self.gradient_accumulation_steps or 1) == 0
        tf.cond(is_update, update, lambda: None)


class SGD(_Extended, keras.optimizers.SGD):
    """Keras's SGD with weight decay as in torch and in the paper: it joins the gradient.

    Keras's own `weight_decay` is decoupled (it shrinks weights beside the momentum), which at
    momentum 0.9 makes the same number ten times weaker.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        momentum: float = 0.9,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, momentum, **kwargs)
        self.l2 = l2

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        if self.l2 and is_decayed(variable):
            gradient = gradient + self.l2 * variable
        rate = self.rate_of(variable, learning_rate)
        where = {"var": _handle(variable)}
        if not self.momentum:
            step = {"alpha": rate, "delta": gradient}
            tf.raw_ops.ResourceApplyGradientDescent(**where, **step)
            return
        where["accum"] = _handle(self.momentums[self._get_variable_index(variable)])
        step = {"lr": rate, "grad": gradient, "momentum": self.momentum}
        tf.raw_ops.ResourceApplyKerasMomentum(**where, **step, use_nesterov=self.nesterov)


class _OneKernel(_Extended):
    """Mixed into Adam and its kin: their update by one kernel."""

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        rate = self.rate_of(variable, learning_rate)
        if self.amsgrad:
            super().update_step(gradient, variable, rate)
            return
        index = self._get_variable_index(variable)
        count = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(self.beta_1, count),
            beta2_power=tf.pow(self.beta_2, count),
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class Adam(_OneKernel, keras.optimizers.Adam):
    """Keras's Adam."""


class AdamW(_OneKernel, keras.optimizers.AdamW):
    """Keras's AdamW; a variable decays at its own rate, too, as in a parameter group of torch.

    Each update shrinks a weight by rate x weight_decay: were that rate the common one, weights that
    hardly learn would be pulled to zero all the same.
    """

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        learning_rate = self.learning_rate
        for variable in filter(self._use_weight_decay, variables):
            rate = self.rate_of(variable, learning_rate)
            variable.assign_sub(variable * self.weight_decay * rate)


def _handle(variable: keras.Variable | tf.Variable) -> tf.Tensor:
    """What a kernel calls a variable by, Keras's or TensorFlow's."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def is_decayed(variable: keras.Variable) -> bool:
    """Kernels have several axes; biases and the parameters of norms have one."""
    return len(variable.shape) > 1


def make_optimizer(
    kind: str | Callable[..., keras.optimizers.Optimizer],
    schedule: float | LearningRateSchedule,
    variables: Sequence[keras.Variable],
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    ema: float | None = None,
    accumulate: int = 1,
    rates: Sequence[float] | None = None,
    loss_scaling: bool = False,
) -> keras.optimizers.Optimizer:
    """An optimizer, built for `variables`.

    kind: "sgd" (momentum, L2 weight decay), "adam" (no weight decay), "adamw" (decoupled weight
        decay, arXiv:1711.05101), or (schedule) -> Keras optimizer, which then brings its own
        weight decay, clipping, averages, accumulation and rates.
    schedule: of batches, see `PerUpdate`, or one rate for all.
    clip_norm: longest gradient over all variables together; None: any.
    ema: decay of the moving averages of the variables, see `_Extended` and `averaged`; None: none.
    accumulate: batches an update; it takes the mean of their gradients, clipped after that. Batches
        with an overflow (loss_scaling) are left out and the next ones taken.
    rates: factors of the learning rate, one for each variable; None: 1.
    loss_scaling: dynamic, for float16.
    Raises ValueError for an unknown kind.
    """
    # One name, so that variables are called the same in every phase and every process.
    common: dict[str, Any] = {
        "name": "optimizer",
        "global_clipnorm": clip_norm,
        "use_ema": ema is not None,
        "ema_momentum": ema,
        "gradient_accumulation_steps": accumulate if accumulate > 1 else None,
        "rates": rates,
    }
    if callable(kind):
        optimizer = kind(schedule)
    elif kind == "sgd":
        optimizer = SGD(schedule, momentum, weight_decay, **common)
    elif kind == "adam":
        optimizer = Adam(schedule, **common)
    elif kind == "adamw":
        optimizer = AdamW(schedule, weight_decay=weight_decay, **common)
        # On the inner optimizer: LossScaleOptimizer ignores the exclusion without a word.
        optimizer.exclude_from_weight_decay([v for v in variables if not is_decayed(v)])
    else:
        raise ValueError(f"optimizer: expected sgd, adam, adamw or a callable, found {kind!r}")
    if loss_scaling:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    optimizer.build(variables)
    return optimizer


@contextlib.contextmanager
def averaged(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> Iterator[None]:
    """Inside, `variables` hold their moving averages, if the optimizer keeps any.

    variables: those the optimizer was built for. Afterwards they are as before to the bit, whatever
    was raised. All else keeps its values: weights that are frozen, and the statistics of batch
    norms, which are running averages already and are not averaged a second time.
    """
    before = [tf.convert_to_tensor(variable) for variable in variables]
    try:
        optimizer.finalize_variable_values(variables)
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
