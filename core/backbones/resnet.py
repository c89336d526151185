"""ResNet 18, 34, 50, 101, 152 (He et al., arXiv:1512.03385) without the classifier.

Layers carry torchvision's names. Letters: B batch, H W pixels of the normalised input.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras
import tensorflow as tf

from core.layers import BatchNorm, Composite, Conv2D, pad

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def _conv(filters: int, kernel_size: int, strides: int, name: str, same: bool = False) -> Conv2D:
    init = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    options = {"use_bias": False, "kernel_initializer": init, "name": name}
    return Conv2D(filters, kernel_size, strides, same, **options)


class ResidualBlock(Composite, keras.layers.Layer):
    """A chain of convolutions with batch norm, added to a shortcut.

    convs: (filters, kernel size, stride) of each convolution in the chain.
    project: a 1x1 convolution fits the shortcut to the chain's shape.
    """

    def __init__(
        self,
        convs: Sequence[tuple[int, int, int]],
        project: bool,
        norm: Callable[..., BatchNorm],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.convs = [_conv(*conv, name=f"conv{i}") for i, conv in enumerate(convs, 1)]
        self.norms = [norm(name=f"bn{i}") for i in range(1, len(convs) + 1)]
        stride = max(stride for _, _, stride in convs)
        self.shortcut = _conv(convs[-1][0], 1, stride, "downsample_0") if project else None
        self.shortcut_norm = norm(name="downsample_1") if project else None

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        shortcut = x
        if self.shortcut is not None and self.shortcut_norm is not None:
            shortcut = self.shortcut_norm(self.shortcut(x), training=training)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(tf.nn.relu(x) if i else x), training=training)
        return tf.nn.relu(x + shortcut)


class ResNet(Composite, keras.layers.Layer):
    """Normalised images (B, H, W, 3) -> [C3, C4, C5], of strides 8, 16, 32; sizes are rounded up.

    depth: 18, 34, 50, 101 or 152.
    bottleneck_stride: the convolution that shrinks, "3x3" (torchvision) or "1x1" (the paper,
        keras.applications, keras-retinanet); depths 18 and 34 have no choice.
    same_padding: of "conv1" and "pool1", those padded as TensorFlow's "same", see `Conv2D`.
    bn_mode, bn_epsilon: see `BatchNorm`.
    Raises ValueError for another depth or stride placement.
    """

    def __init__(
        self,
        depth: int,
        *,
        bottleneck_stride: str = "3x3",
        same_padding: Collection[str] = (),
        bn_mode: str = "live",
        bn_epsilon: float = 1e-5,
        **kwargs: Any,
    ):
        if depth not in BLOCKS:
            raise ValueError(f"depth: expected one of {', '.join(map(str, BLOCKS))}, found {depth}")
        if bottleneck_stride not in ("3x3", "1x1"):
            raise ValueError(f"bottleneck_stride: expected 3x3 or 1x1, found {bottleneck_stride!r}")
        super().__init__(**kwargs)
        norm = functools.partial(BatchNorm, bn_mode, bn_epsilon)
        self.pool_same = "pool1" in same_padding
        self.conv1 = _conv(64, 7, 2, "conv1", same="conv1" in same_padding)
        self.bn1 = norm(name="bn1")
        self.stages = []
        for stage, count in enumerate(BLOCKS[depth]):
            filters = 64 * 2**stage
            blocks = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                first = (stride, 1) if bottleneck_stride == "1x1" else (1, stride)
                convs = [(filters, 1, first[0]), (filters, 3, first[1]), (4 * filters, 1, 1)]
                if depth < 50:
                    convs = [(filters, 3, stride), (filters, 3, 1)]
                project = not i and (stage > 0 or depth >= 50)
                blocks.append(ResidualBlock(convs, project, norm, name=f"layer{stage + 1}_{i}"))
            self.stages.append(blocks)

    @property
    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """The layers from the input up, by what to call them when they are frozen."""
        stages = {f"stage{i}": blocks for i, blocks in enumerate(self.stages, 1)}
        return {"stem": [self.conv1, self.bn1], **stages}

    def call(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        x = tf.nn.relu(self.bn1(self.conv1(images), training=training))
        if self.pool_same:
            x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        else:
            # Zeros are below no activation after the relu, so they pad a maximum as well as -inf.
            x = tf.nn.max_pool2d(pad(x, 1), 3, 2, "VALID")
        features = []
        for blocks in self.stages:
            for block in blocks:
                x = block(x, training=training)
            features.append(x)
        return features[1:]
