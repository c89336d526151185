"""Optimizers by name, with weight decay on kernels only.

The updates are Keras's; momentum and moments are kept by one kernel of TensorFlow where Keras takes
five to ten, which read and write all weights every time.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf


class SGD(keras.optimizers.SGD):
    """Keras's SGD with weight decay as in torch and in the paper: it joins the gradient.

    Keras's own `weight_decay` is decoupled (it shrinks weights beside the momentum), which at
    momentum 0.9 makes the same number ten times weaker.
    """

    def __init__(self, learning_rate, momentum: float = 0.9, l2: float = 0.0, **kwargs):
        super().__init__(learning_rate, momentum, **kwargs)
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        if self.l2 and is_decayed(variable):
            gradient = gradient + self.l2 * variable
        learning_rate = tf.cast(learning_rate, variable.dtype)
        where = {"var": _handle(variable)}
        if not self.momentum:
            step = {"alpha": learning_rate, "delta": gradient}
            tf.raw_ops.ResourceApplyGradientDescent(**where, **step)
            return
        where["accum"] = _handle(self.momentums[self._get_variable_index(variable)])
        step = {"lr": learning_rate, "grad": gradient, "momentum": self.momentum}
        tf.raw_ops.ResourceApplyKerasMomentum(**where, **step, use_nesterov=self.nesterov)


class _OneKernel:
    """Mixed into Adam and its kin: their update by one kernel."""

    def update_step(self, gradient, variable, learning_rate):
        if self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        count = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(self.beta_1, count),
            beta2_power=tf.pow(self.beta_2, count),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class Adam(_OneKernel, keras.optimizers.Adam):
    """Keras's Adam."""


class AdamW(_OneKernel, keras.optimizers.AdamW):
    """Keras's AdamW."""


def _handle(variable):
    """What a kernel calls a variable by, Keras's or TensorFlow's."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def is_decayed(variable) -> bool:
    """Kernels have several axes; biases and the parameters of norms have one."""
    return len(variable.shape) > 1


def make_optimizer(
    kind: str | Callable,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    variables: Sequence,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    loss_scaling: bool = False,
) -> keras.optimizers.Optimizer:
    """An optimizer, built for `variables`.

    kind: "sgd" (momentum, L2 weight decay), "adam" (no weight decay), "adamw" (decoupled weight
        decay, arXiv:1711.05101), or (schedule) -> Keras optimizer, which then brings its own
        weight decay and clipping.
    clip_norm: longest gradient over all variables together; None: any.
    loss_scaling: dynamic, for float16.
    Raises ValueError for an unknown kind.
    """
    # One name, so that variables are called the same in every phase and every process.
    common = {"name": "optimizer", "global_clipnorm": clip_norm}
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
