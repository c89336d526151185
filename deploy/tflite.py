"""TFLite: one file with the network alone; resizing, decoding and NMS are left to exported.py."""

import json
import tempfile
import zipfile
from pathlib import Path

import keras
import tensorflow as tf

from deploy import common
from deploy.common import ExportError, Format
from detector import Detector
from utils.files import whole_file

PRECISIONS = {"float32": "", "float16": "_float16", "int8": "_int8"}  # -> of the file's name


def write_tflite(detector: Detector, path: str | Path, precision: str = "float32") -> None:
    """One .tflite file of TFLite's own operations: the network alone, for one image of fixed size.

    precision: of the weights: "float32", "float16", or "int8" (a scale a channel; activations are
        float32 between layers).
    images (1, h, w, 3) float32 RGB 0-255, padded with the conventions' colour -> class_logits
    (1, N, K), box_deltas (1, N, 4). At the file's end is a ZIP archive with conventions.json; what
    they leave to be done, `exported.py` does.
    Raises ExportError for views, and for what TFLite cannot hold.
    """
    if precision not in PRECISIONS:
        expected = ", ".join(PRECISIONS)
        raise ExportError(f"precision: expected {expected} for TFLite, found {precision!r}")
    common.require_plain(detector, "TFLite", precision="float32", flip=False, scales=(1.0,))
    about = common.conventions(detector, "network") | {"precision": precision}
    height, width = about["input_size"]
    spec = tf.TensorSpec([1, height, width, 3], tf.float32, name="images")
    archive = keras.export.ExportArchive()
    network = archive.add_endpoint("serve", detector.model.__call__, [spec])
    common.require_portable(network, detector)
    with common.refusals(detector, "TFLite"), tempfile.TemporaryDirectory() as folder:
        common.write_archive(archive, Path(folder), Path(folder))
        model = _converted(folder, precision)
    with whole_file(path) as part:
        part.write_bytes(model)
        with zipfile.ZipFile(part, "a") as attached:
            attached.writestr("conventions.json", json.dumps(about))


def _converted(folder: str, precision: str) -> bytes:
    """The SavedModel of a network as TFLite. Not from a function: that left the variables out."""
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, ["serving_default"])
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


FORMAT = Format(write_tflite, "detector.tflite", {"precision": PRECISIONS})
