"""The class and the box subnet: shared over pyramid levels, nothing shared between the two.

Letters: B batch, A anchors a cell, N anchors over all levels, C outputs an anchor.
"""

import math

import keras
import tensorflow as tf

from core.layers import Conv2D


def prior_bias(prior: float) -> float:
    """The bias at which a sigmoid gives `prior` (paper section 3.3)."""
    return -math.log((1 - prior) / prior)


class Head(keras.layers.Layer):
    """[P3 ... P7] of (B, h, w, width) -> (B, N, outputs) float32, levels one after another.

    depth: 3x3 convolutions with relu before the output convolution.
    width: their channels.
    num_anchors: A, anchors a cell; anchor a's outputs are channels a * outputs ... + outputs.
    outputs: K class logits or 4 box deltas.
    bias: of the output convolution at the start.
    Weights start at N(0, 0.01) as in the paper; for another width than its 256 at the deviation
    that passes the same share of the signal on.
    """

    def __init__(
        self, *, depth: int, width: int, num_anchors: int, outputs: int, bias: float, **kwargs
    ):
        super().__init__(**kwargs)
        normal = keras.initializers.RandomNormal(stddev=0.01 * math.sqrt(256 / width))
        self.num_outputs = outputs
        self.convs = [
            Conv2D(width, 3, activation="relu", kernel_initializer=normal, name=f"conv{i}")
            for i in range(depth)
        ]
        self.output_conv = Conv2D(
            num_anchors * outputs,
            3,
            kernel_initializer=normal,
            bias_initializer=keras.initializers.Constant(bias),
            name="output",
        )

    def call(self, pyramid):
        levels = []
        for x in pyramid:
            for conv in self.convs:
                x = conv(x)
            x = self.output_conv(x)
            levels.append(tf.reshape(x, [tf.shape(x)[0], -1, self.num_outputs]))
        # A plain cast, not a Keras layer: those would go back to the compute type.
        return tf.cast(tf.concat(levels, axis=1), tf.float32)
