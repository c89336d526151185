"""Feature Pyramid Network (Lin et al., arXiv:1612.03144)."""

from collections.abc import Collection, Sequence
from typing import Any

import tensorflow as tf

from core.layers import Conv2D
from core.necks.neck import Neck, upsample_to


class FPN(Neck):
    """[C3, C4, C5] -> [P3, P4, P5, P6, P7], all of `width` channels.

    p6_from: "c5" (paper) or "p5" (torchvision v1).
    same_padding: of "p6" and "p7", those padded as TensorFlow's "same", see `Conv2D`.
    """

    def __init__(
        self,
        width: int = 256,
        p6_from: str = "c5",
        same_padding: Collection[str] = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.laterals = [Conv2D(width, 1, name=f"lateral{level}") for level in (3, 4, 5)]
        self.smooths = [Conv2D(width, 3, name=f"output{level}") for level in (3, 4, 5)]
        self.make_coarse(Conv2D, width, p6_from, same_padding)

    def call(self, features: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        inner = [lateral(c) for lateral, c in zip(self.laterals, features, strict=True)]
        for i in (1, 0):
            inner[i] += upsample_to(inner[i + 1], inner[i])
        p3, p4, p5 = (conv(x) for conv, x in zip(self.smooths, inner, strict=True))
        return [p3, p4, p5, *self.coarse(features[-1], p5)]
