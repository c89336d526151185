"""Detection results in the .odgt files of CrowdHuman's evaluation, one JSON object a line.

{"ID", "width", "height", "dtboxes": [{"box": [x, y, width, height], "score", "tag": class name}]}

Boxes are absolute pixels, continuous and counted from 0. A tag that is read may also be a number
from 1 on, the class's place in the list (CrowdDet writes 1 for a person); without, it is 1. Blank
lines are passed over.
Shao et al., "CrowdHuman: A Benchmark for Detecting Human in a Crowd", 2018; the detections as
CrowdDet (Chu et al., CVPR 2020) writes and judges them.
"""

import msgspec

from data.detections.common import XYWH
from data.detections.per_image import PerImage


class _Box(msgspec.Struct, gc=False, rename={"label": "tag"}):
    box: tuple[float, float, float, float]
    score: float
    label: int | str = 1


class _Line(msgspec.Struct, gc=False, rename={"image_id": "ID", "detections": "dtboxes"}):
    image_id: str
    width: int
    height: int
    detections: list[_Box]


ODGT = PerImage(_Line, _Box, XYWH, "ID", "dtboxes", "tag", is_lines=True, numbers_too=True)
