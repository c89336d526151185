"""ONNX: one file by tf2onnx, with or without NMS."""

import functools
import json
from pathlib import Path

import tensorflow as tf

from deploy import common
from deploy.common import ANY_IMAGES, ExportError, Format
from detector import Detector
from utils.files import write_bytes

OPSET = 18
STEPS = {
    "inside": (common.detections, "detections"),
    "outside": (common.unsuppressed, "candidates"),
}


def write_onnx(detector: Detector, path: str | Path, nms: str = "inside") -> None:
    """One .onnx file; its metadata_props hold "conventions", JSON.

    nms: "inside": images (B, H, W, 3) uint8 RGB -> what `detections` returns; "outside": what
        `unsuppressed` returns.
    Raises ExportError for a missing package, for mirrored views, and for what ONNX cannot hold.
    """
    if nms not in STEPS:
        raise ExportError(f"nms: expected inside or outside, found {nms!r}")
    common.require_plain(detector, "ONNX", precision="float32", flip=False)
    onnx, tf2onnx = common.package("onnx", "ONNX"), common.package("tf2onnx", "ONNX")
    step, outputs = STEPS[nms]
    text = json.dumps(common.conventions(detector, outputs))
    function = tf.function(functools.partial(step, detector), [ANY_IMAGES], autograph=False)
    common.require_portable(function, detector)
    with common.refusals(detector, "ONNX"):
        model, _ = tf2onnx.convert.from_function(function, [ANY_IMAGES], opset=OPSET)
        onnx.checker.check_model(model)  # tf2onnx leaves in what it does not know
        onnx.helper.set_model_props(model, {"conventions": text})
        data = model.SerializeToString()
    write_bytes(path, data)


FORMAT = Format(write_onnx, "detector.onnx", {"nms": {"inside": "", "outside": "_candidates"}})
