"""The layers that Keras has in another convention: convolution padding and batch norm."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class Composite:
    """Mixed into a layer made of layers, which its first call builds.

    A layer without a `build` of its own has its `call` traced by Keras to build what is inside, at
    each level of nesting once more: seconds.
    """

    def build(self, *shapes: object) -> None:
        pass


class Conv2D(keras.layers.Conv2D):
    """Keras's convolution with symmetric padding at every stride, as in torch.

    TensorFlow's "same" pads an even-sized input at stride 2 at the bottom and right only, which
    shifts it by a pixel; `same=True` does that too. Output size is ceil(input / stride) for odd
    kernels. NHWC; dilation only without stride.
    """

    def __init__(
        self, filters: int, kernel_size: int, strides: int = 1, same: bool = False, **kwargs: Any
    ):
        self.margin = 0 if same or strides == 1 else kernel_size // 2
        padding = "valid" if self.margin else "same"
        super().__init__(filters, kernel_size, strides, padding=padding, **kwargs)

    def build(self, input_shape: Sequence[int | None]) -> None:
        # Only the channels matter; Keras would refuse a map smaller than the kernel before padding.
        super().build((None, None, None, input_shape[-1]))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        # A padding list given to the convolution would send bfloat16 gradients off oneDNN.
        x = pad(inputs, self.margin) if self.margin else inputs
        x = self.convolution_op(x, tf.convert_to_tensor(self.kernel))
        x = tf.nn.bias_add(x, tf.convert_to_tensor(self.bias)) if self.use_bias else x
        return self.activation(x)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        # Without Keras's cases, which cost a twentieth of a step without a graph.
        padding, dilations = self.padding.upper(), self.dilation_rate
        return tf.nn.conv2d(inputs, kernel, self.strides, padding, dilations=dilations)


def pad(x: tf.Tensor, margin: int, value: float = 0.0) -> tf.Tensor:
    """(B, H, W, C) -> (B, H + 2 margin, W + 2 margin, C), the border filled with `value`."""
    return tf.pad(x, [[0, 0], [margin, margin], [margin, margin], [0, 0]], constant_values=value)


class BatchNorm(keras.layers.Layer):
    """Batch normalisation over the last axis with TensorFlow's fused kernel.

    mode: "live" normalises by the batch in training and keeps running statistics; "frozen_stats"
        always uses the running statistics, gamma and beta learn; "frozen" learns nothing.
    A live layer inside a part that is not trainable uses its statistics too.
    Keras's own layer computes half precision in float32 and is not fused; the kernel takes float16
    and bfloat16 inputs, with float32 statistics. Running variance is unbiased, as in torch.
    """

    def __init__(
        self, mode: str = "live", epsilon: float = 1e-5, momentum: float = 0.9, **kwargs: Any
    ):
        if mode not in ("live", "frozen_stats", "frozen"):
            raise ValueError(f"mode: expected live, frozen_stats or frozen, found {mode!r}")
        super().__init__(**kwargs)
        self.mode, self.epsilon, self.momentum = mode, epsilon, momentum

    def build(self, shape: Sequence[int | None]) -> None:
        def weight(name: str, initializer: str, trainable: bool) -> keras.Variable:
            return self.add_weight(
                (shape[-1],), initializer, name=name, trainable=trainable, autocast=False
            )

        self.gamma = weight("gamma", "ones", self.mode != "frozen")
        self.beta = weight("beta", "zeros", self.mode != "frozen")
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        is_live = bool(training) and self.mode == "live" and self.trainable
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=self.moving_mean,
            variance=self.moving_variance,
            epsilon=self.epsilon,
            is_training=is_live,
            exponential_avg_factor=1 - self.momentum if is_live else 1,
        )
        if is_live:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return outputs
