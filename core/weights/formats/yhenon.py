"""yhenon/pytorch-retinanet: state dicts of its ResNet 18 to 152.

Source of names and constants: its retinanet/model.py, anchors.py, utils.py and dataloader.py.
"""

from configs.schema import Anchors, Coder, Detect, Model, ShortLong
from core.weights.formats.coco import COCO_80
from core.weights.formats.format import TORCH_RESNET, Format

LAYERS = [
    *TORCH_RESNET,
    (r"fpn\.P([345])_1", r"neck/lateral\1"),
    (r"fpn\.P([345])_2", r"neck/output\1"),
    (r"fpn\.P6", "neck/p6"),
    (r"fpn\.P7_2", "neck/p7"),
]
for _theirs, _ours in [("classificationModel", "class_head"), ("regressionModel", "box_head")]:
    LAYERS += [(rf"{_theirs}\.conv{i + 1}", f"{_ours}/conv{i}") for i in range(4)]
    LAYERS += [(rf"{_theirs}\.output", f"{_ours}/output")]


RETINANET = Format(
    name="yhenon",
    library="torch",
    marks=[r"classificationModel\.", r"fpn\.P3_1\."],
    layers=LAYERS,
    conventions=Model(
        bottleneck_stride="3x3",
        bn_mode="frozen_stats",
        bn_epsilon=1e-5,
        same_padding=(),
        prior=0.01,
        normalization="torch",
        anchors=Anchors(center_offset=0.5, stride="nominal", rounding=False),
        coder=Coder(form="center", stds=(0.1, 0.1, 0.2, 0.2), max_log_scale=None),
        resize=ShortLong(608, 1024, 32, antialias=True, rounding="nearest", always_pad=True),
        # It keeps every candidate, and as its CSV evaluation does 100 detections.
        detect=Detect(score_threshold=0.05, top_k=1000, nms_iou=0.5, max_detections=100),
    ),
    classes={80: COCO_80},
)
