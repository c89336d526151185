"""Path Aggregation Network (Liu et al., arXiv:1803.01534, section 3.1): FPN and a way back down."""

from collections.abc import Collection, Sequence
from typing import Any

import tensorflow as tf

from core.layers import Conv2D
from core.necks.fpn import FPN


class PANet(FPN):
    """[C3, C4, C5] -> [N3, N4, N5, N6, N7], all of `width` channels.

    FPN's P3 ... P7, then bottom-up path augmentation: N3 is P3, and N(l+1) is a 3x3 convolution of
    P(l+1) plus a 3x3 convolution of stride 2 of N(l), each followed by a relu. The paper goes from
    level 2 to 5; here RetinaNet's P6 and P7 are on the path too.
    Parameters as of `FPN`.
    """

    def __init__(
        self,
        width: int = 256,
        p6_from: str = "c5",
        same_padding: Collection[str] = (),
        **kwargs: Any,
    ):
        super().__init__(width, p6_from, same_padding, **kwargs)
        self.downs = [Conv2D(width, 3, 2, name=f"down{level}") for level in (4, 5, 6, 7)]
        self.fuses = [Conv2D(width, 3, name=f"fused{level}") for level in (4, 5, 6, 7)]

    def call(self, features: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        n, *coarser = super().call(features)
        outputs = [n]
        for down, fuse, p in zip(self.downs, self.fuses, coarser, strict=True):
            n = tf.nn.relu(fuse(p + tf.nn.relu(down(n))))
            outputs.append(n)
        return outputs
