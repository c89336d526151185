"""Weighted bi-directional feature pyramid, BiFPN (Tan et al., EfficientDet, arXiv:1911.09070)."""

import functools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras
import tensorflow as tf

from core.layers import BatchNorm, Composite, Conv2D, pad
from core.necks.neck import Neck, upsample_to

EPSILON = 1e-4  # of fast normalised fusion, paper section 3.3


class ConvNorm(Composite, keras.layers.Layer):
    """A convolution and its normalisation.

    separable: depthwise, then 1x1, with nothing between.
    norm: name= -> layer; None: a bias instead.
    """

    def __init__(
        self,
        width: int,
        kernel_size: int,
        strides: int = 1,
        *,
        norm: Callable[..., keras.layers.Layer] | None,
        separable: bool = False,
        same: bool = False,
        kernel_initializer: str | keras.initializers.Initializer = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.depthwise = None
        if separable:
            # Keras would take its fan-in for `width` times as large.
            normal = keras.initializers.RandomNormal(stddev=1 / kernel_size)
            self.depthwise = keras.layers.DepthwiseConv2D(
                kernel_size,
                padding="same",
                use_bias=False,
                depthwise_initializer=normal,
                name="depthwise",
            )
            kernel_size = 1
        options = {"use_bias": norm is None, "kernel_initializer": kernel_initializer}
        self.conv = Conv2D(width, kernel_size, strides, same, **options, name="conv")
        self.norm = norm(name="norm") if norm else None

    def call(self, x: tf.Tensor) -> tf.Tensor:
        x = self.conv(self.depthwise(x) if self.depthwise else x)
        return self.norm(x) if self.norm else x


class Fusion(ConvNorm):
    """Maps of one size -> 3x3 convolution of the swish of their weighted mean.

    The weights are relu(w_i) / (sum of relu(w_j) + 1e-4), w learned from ones, in float32.
    """

    def __init__(self, num_maps: int, width: int, **kwargs: Any):
        # Without a norm the signal would vanish: a mean of n maps has an n-th of their variance,
        # and swish passes 0.36 of it on.
        init = keras.initializers.VarianceScaling(num_maps / 0.36)
        super().__init__(width, 3, kernel_initializer=init, **kwargs)
        self.num_maps = num_maps

    def build(self, *shapes: object) -> None:
        self.mix = self.add_weight((self.num_maps,), "ones", name="mix", autocast=False)

    def call(self, maps: Sequence[tf.Tensor]) -> tf.Tensor:
        weights = tf.nn.relu(self.mix)
        weights = tf.cast(weights / (tf.reduce_sum(weights) + EPSILON), maps[0].dtype)
        fused = tf.add_n([w * x for w, x in zip(tf.unstack(weights), maps, strict=True)])
        return super().call(tf.nn.silu(fused))


def halve(x: tf.Tensor) -> tf.Tensor:
    """3x3 maximum at stride 2: (B, h, w, C) -> (B, ceil(h / 2), ceil(w / 2), C)."""
    return tf.nn.max_pool2d(pad(x, 1, -math.inf), 3, 2, "VALID")


class BiFPN(Neck):
    """[C3, C4, C5] -> [P3, P4, P5, P6, P7], all of `width` channels.

    repeats: rounds, each from P7 down to P3 and back up; levels 4 to 6 also add, on the way up,
        what the round got (paper figure 2d).
    separable: the 3x3 convolutions of the rounds are depthwise and 1x1.
    norm: after each convolution, "batch", "group" (32 groups) or "none".
    bn_epsilon: of the batch norms. These are live whatever the backbone's are, as a new neck has no
        statistics to go by; Keras hands `training` on to them. P7 may be a cell an image: with few
        of them, batches of one on a canvas up to 128 say, take "group".
    p6_from: "c5" or "p5", here the 1x1 convolution of C5. same_padding: as of `FPN`.

    As EfficientDet's: nearest upsampling, 3x3 max pooling of stride 2, swish before a fusion's
    convolution, so that the outputs have both signs. Otherwise than there: P6 and P7 are
    RetinaNet's, with the same settings as under the other necks (EfficientDet pools a 1x1
    convolution of C5), and pooling pads all round, so that cells lie over each other as in the
    backbone.
    Raises ValueError for another norm or origin of P6.
    """

    def __init__(
        self,
        width: int = 256,
        p6_from: str = "c5",
        same_padding: Collection[str] = (),
        *,
        repeats: int = 3,
        separable: bool = True,
        norm: str = "batch",
        bn_epsilon: float = 1e-5,
        **kwargs: Any,
    ):
        norms = {
            "batch": functools.partial(BatchNorm, epsilon=bn_epsilon),
            "group": functools.partial(keras.layers.GroupNormalization, 32, epsilon=1e-5),
            "none": None,
        }
        if norm not in norms:
            raise ValueError(f"norm: expected batch, group or none, found {norm!r}")
        super().__init__(**kwargs)
        conv = functools.partial(ConvNorm, norm=norms[norm])
        self.laterals = [conv(width, 1, name=f"lateral{level}") for level in (3, 4, 5)]
        self.make_coarse(conv, width, p6_from, same_padding)
        fusion = functools.partial(Fusion, width=width, norm=norms[norm], separable=separable)
        self.top_down = [
            [fusion(2, name=f"round{i}_down{level}") for level in (6, 5, 4, 3)]
            for i in range(repeats)
        ]
        self.bottom_up = [
            [fusion(2 if level == 7 else 3, name=f"round{i}_up{level}") for level in (4, 5, 6, 7)]
            for i in range(repeats)
        ]

    def call(self, features: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        maps = [lateral(c) for lateral, c in zip(self.laterals, features, strict=True)]
        maps += self.coarse(features[-1], maps[-1])
        for top_down, bottom_up in zip(self.top_down, self.bottom_up, strict=True):
            maps = bifpn_round(maps, top_down, bottom_up)
        return maps


def bifpn_round(
    maps: Sequence[tf.Tensor], top_down: Sequence[Callable], bottom_up: Sequence[Callable]
) -> list[tf.Tensor]:
    """P3 ... P7 -> the same, fused top-down by the first four layers, bottom-up by the others."""
    inner = list(maps)
    for i, fuse in zip((3, 2, 1, 0), top_down, strict=True):
        inner[i] = fuse([inner[i], upsample_to(inner[i + 1], inner[i])])
    outputs = inner[:1]
    for i, fuse in zip((1, 2, 3, 4), bottom_up, strict=True):
        skip = [maps[i]] if i < 4 else []  # the coarsest has none: it is its own inner map
        outputs.append(fuse([inner[i], *skip, halve(outputs[-1])]))
    return outputs
