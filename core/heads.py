"""The class and the box subnet: shared over pyramid levels, nothing shared between the two.

Letters: B batch, A anchors a cell, N anchors over all levels, C outputs an anchor.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from core.layers import Composite, Conv2D


def prior_bias(prior: float) -> float:
    """The bias at which a sigmoid gives `prior` (paper section 3.3)."""
    return -math.log((1 - prior) / prior)


class Head(Composite, keras.layers.Layer):
    """[P3 ... P7] of (B, h, w, width) -> (B, N, outputs) float32, levels one after another.

    depth: 3x3 convolutions with relu before the output convolution.
    width: their channels.
    num_anchors: A, anchors a cell; anchor a's outputs are channels a * outputs ... + outputs.
    outputs: K class logits or 4 box deltas.
    bias: of the output convolution at the start.
    norm: "none", or "group": a GroupNorm of 32 groups between convolution and relu, which then has
        no bias of its own (torchvision v2, with its epsilon).
    Weights start at N(0, 0.01) as in the paper; for another width than its 256 at the deviation
    that passes the same share of the signal on.
    """

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        num_anchors: int,
        outputs: int,
        bias: float,
        norm: str = "none",
        **kwargs: Any,
    ):
        if norm not in ("none", "group"):
            raise ValueError(f"norm: expected none or group, found {norm!r}")
        super().__init__(**kwargs)
        self.num_outputs = outputs
        plain = norm == "none"

        # One for each layer: an initializer gives the same numbers every time.
        def normal() -> keras.initializers.Initializer:
            return keras.initializers.RandomNormal(stddev=0.01 * math.sqrt(256 / width))

        self.convs = [
            Conv2D(width, 3, use_bias=plain, kernel_initializer=normal(), name=f"conv{i}")
            for i in range(depth)
        ]
        self.norms = [
            None if plain else keras.layers.GroupNormalization(32, epsilon=1e-5, name=f"norm{i}")
            for i in range(depth)
        ]
        self.output_conv = Conv2D(
            num_anchors * outputs,
            3,
            kernel_initializer=normal(),
            bias_initializer=keras.initializers.Constant(bias),
            name="output",
        )

    def call(self, pyramid: Sequence[tf.Tensor]) -> tf.Tensor:
        levels = []
        for x in pyramid:
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = conv(x)
                x = tf.nn.relu(norm(x) if norm else x)
            x = self.output_conv(x)
            levels.append(tf.reshape(x, [tf.shape(x)[0], -1, self.num_outputs]))
        # A plain cast, not a Keras layer: those would go back to the compute type.
        return tf.cast(tf.concat(levels, axis=1), tf.float32)
