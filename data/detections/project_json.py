"""This project's own files of detections: JSON, one entry an image, one line an entry.

[{"image_id", "width", "height", "detections": [{"label": class name, "score", "box": [x1, y1, x2,
y2]}]}]
"""

import msgspec

from data.detections.common import XYXY
from data.detections.per_image import PerImage


class _Detection(msgspec.Struct, gc=False):
    label: str
    score: float
    box: tuple[float, float, float, float]


class _Entry(msgspec.Struct, gc=False):
    image_id: str
    width: int
    height: int
    detections: list[_Detection]


JSON = PerImage(list[_Entry], _Detection, XYXY, "image_id", "detections", "label")
