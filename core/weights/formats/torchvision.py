"""torchvision: retinanet_resnet50_fpn v1 and v2 (any ResNet of 18 to 152), ImageNet ResNets.

Source of names and constants: torchvision 0.27, models/detection/retinanet.py and models/resnet.py.
"""

import re
from collections.abc import Mapping

import numpy as np

from configs.schema import Anchors, Coder, Detect, Model, ShortLong
from core.weights.formats.coco import COCO_91
from core.weights.formats.format import TORCH_RESNET, Format, Layer


def _neck(found: re.Match) -> str:
    return f"neck/{'lateral' if found[1] == 'inner' else 'output'}{int(found[2]) + 3}"


def _head(found: re.Match) -> str:
    kind, number, part = found.groups()
    if part is None:  # up to torchvision 0.12, a list of convolutions with relus between
        part, number = "0", int(number) // 2
    layer = f"{'conv' if part == '0' else 'norm'}{number}"
    return f"{'class' if kind == 'classification' else 'box'}_head/{layer}"


LAYERS: list[Layer] = [
    *[(rf"backbone\.body\.{pattern}", place) for pattern, place in TORCH_RESNET],
    # Up to torchvision 0.12 a convolution was no list of one.
    (r"backbone\.fpn\.(inner|layer)_blocks\.([0-2])(?:\.0)?", _neck),
    (r"backbone\.fpn\.extra_blocks\.(p[67])", r"neck/\1"),
    (r"head\.(classification|regression)_head\.conv\.(\d)(?:\.([01]))?", _head),
    (r"head\.classification_head\.cls_logits", "class_head/output"),
    (r"head\.regression_head\.bbox_reg", "box_head/output"),
]


def _retinanet(arrays: Mapping[str, np.ndarray], listed: frozenset[str]) -> Model:
    # Live batch norm counts its batches. The published v1 has frozen ones, whose epsilon
    # torchvision sets to 0 when it loads that file; of other frozen ones no file says it.
    is_v2 = "class_head/norm0/gamma" in arrays
    is_live = is_v2 or any(name.endswith("num_batches_tracked") for name in listed)
    return Model(
        bottleneck_stride="3x3",
        bn_mode="live" if is_live else "frozen",
        bn_epsilon=1e-5 if is_live else 0.0,
        same_padding=(),
        prior=0.01,
        normalization="torch",
        anchors=Anchors(center_offset=0.0, stride="grid", rounding=True),
        coder=Coder(form="center", stds=(1.0, 1.0, 1.0, 1.0)),
        resize=ShortLong(short=800, long=1333, multiple=32, antialias=False, rounding="floor"),
        detect=Detect(score_threshold=0.05, top_k=1000, nms_iou=0.5, max_detections=300),
    )


RETINANET = Format(
    name="torchvision",
    library="torch",
    marks=[r"backbone\.body\.", r"head\.classification_head\."],
    layers=LAYERS,
    conventions=_retinanet,
    classes={91: COCO_91},
)
RESNET = Format(
    name="torchvision-imagenet",
    library="torch",
    marks=[r"layer1\.0\.conv1\."],
    layers=TORCH_RESNET,
    ignored=r"(?!conv1$|bn1$|layer\d\.).*",  # whatever classifier there is
    conventions=Model(
        bottleneck_stride="3x3", bn_epsilon=1e-5, same_padding=(), normalization="torch"
    ),
)
