"""fizyr/keras-retinanet: .h5 of its ResNet 50, 101 and 152, as trained or converted for inference.

Source of names and constants: its models/retinanet.py, utils/anchors.py, utils/image.py and
broadinstitute/keras-resnet 0.1.0.
"""

import re
from collections.abc import Mapping

import numpy as np

from configs.schema import Anchors, Coder, Detect, Model, Padded, ShortLong
from core.weights.formats.coco import COCO_80
from core.weights.formats.format import Format, Layer


def _block(found: re.Match) -> str:
    """Blocks are a, b, c ... or, in the long stages of ResNet-101 and 152, a, b1, b2 ..."""
    kind, stage, letter, number, branch = found.groups()
    block = int(number) if number else ord(letter) - ord("a")
    if branch == "1":
        layer = "downsample_0" if kind == "res" else "downsample_1"
    else:
        layer = f"{'conv' if kind == 'res' else 'bn'}{'abc'.index(branch[1]) + 1}"
    return f"backbone/layer{int(stage) - 1}_{block}/{layer}"


LAYERS: list[Layer] = [
    ("conv1", "backbone/conv1"),
    ("bn_conv1", "backbone/bn1"),
    (r"(res|bn)([2-5])([a-z])(\d*)_branch(1|2[abc])", _block),
    (r"C([345])_reduced", r"neck/lateral\1"),
    (r"P([345])", r"neck/output\1"),
    (r"P([67])", r"neck/p\1"),
]
for _theirs, _ours in [("classification", "class_head"), ("regression", "box_head")]:
    LAYERS += [
        (rf"pyramid_{_theirs}_(\d)", rf"{_ours}/conv\1"),
        (rf"pyramid_{_theirs}", f"{_ours}/output"),
    ]


def _conventions(arrays: Mapping[str, np.ndarray], listed: frozenset[str]) -> Model:
    # keras-resnet 0.1 padded conv1 by a layer of its own, later releases do not.
    is_later = "conv1_relu" in listed and "padding_conv1" not in listed
    same_padding: Padded = ("pool1", "p6", "p7")
    return Model(
        bottleneck_stride="1x1",
        bn_mode="frozen",
        bn_epsilon=1e-5,
        same_padding=("conv1", *same_padding) if is_later else same_padding,
        prior=0.01,
        normalization="caffe",
        anchors=Anchors(center_offset=0.5, stride="nominal", rounding=False),
        coder=Coder(form="corner", stds=(0.2, 0.2, 0.2, 0.2)),
        resize=ShortLong(800, 1333, multiple=1, antialias=False, rounding="nearest"),
        # It keeps every candidate.
        detect=Detect(score_threshold=0.05, top_k=1000, nms_iou=0.5, max_detections=300),
    )


RETINANET = Format(
    name="keras-retinanet",
    library="keras",
    marks=[r"bn_conv1/", r"pyramid_classification/", r"C5_reduced/"],
    layers=LAYERS,
    ignored=r"anchors_\d",  # TensorFlow's Keras saved them, too; here the conventions make them
    conventions=_conventions,
    classes={80: COCO_80},
)
