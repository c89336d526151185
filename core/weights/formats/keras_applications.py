"""keras.applications: ImageNet weights of ResNet50, ResNet101 and ResNet152 (version 1).

Source of names and constants: Keras 3.15, applications/resnet.py.
"""

import re

import numpy as np

from configs.schema import Model
from core.weights.formats.format import Format, Layer


def _block(found: re.Match) -> str:
    stage, block, number, kind = found.groups()
    layer = f"{'conv' if kind == 'conv' else 'bn'}{number}"
    if number == "0":
        layer = "downsample_0" if kind == "conv" else "downsample_1"
    return f"backbone/layer{int(stage) - 1}_{int(block) - 1}/{layer}"


LAYERS: list[Layer] = [
    (r"conv1_conv", "backbone/conv1"),
    (r"conv1_bn", "backbone/bn1"),
    (r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)", _block),
]


def _fold_biases(arrays: dict[str, np.ndarray]) -> None:
    """norm(x + bias) is norm(x) with a mean that is less by the bias; ours has no biases."""
    for place in [place for place in arrays if place.endswith("/bias")]:
        layer = place.removesuffix("/bias")
        norm = layer.replace("conv", "bn").replace("downsample_0", "downsample_1")
        arrays[f"{norm}/moving_mean"] = arrays[f"{norm}/moving_mean"] - arrays.pop(place)


RESNET = Format(
    name="keras-applications",
    library="keras",
    marks=[r"conv1_conv/", r"conv2_block1_1_conv/"],
    layers=LAYERS,
    ignored=r"(?!conv1_|conv\d_block).*",  # whatever classifier there is
    conventions=Model(
        bottleneck_stride="1x1", bn_epsilon=1.001e-5, same_padding=(), normalization="caffe"
    ),
    finish=_fold_biases,
)
