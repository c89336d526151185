"""SavedModel: a folder for tf.saved_model.load and TensorFlow Serving."""

import functools
import json
from pathlib import Path

import keras
import tensorflow as tf

from deploy import common
from deploy.common import ANY_IMAGES, ExportError, Format
from detector import Detector
from utils.files import whole_folder, write_text


def write_savedmodel(detector: Detector, path: str | Path) -> None:
    """Writes a SavedModel's folder.

    Signature "serving_default": images (B, H, W, 3) uint8 RGB -> what `detections` returns.
    Signature "conventions": nothing -> json () string, which assets.extra/conventions.json holds,
    too. Raises ExportError for Python code in the graph, or where `path` is something else; as all
    formats, WriteError where the disk refuses.
    """
    text = json.dumps(common.conventions(detector, "detections"), indent=1)
    archive = keras.export.ExportArchive()
    step = functools.partial(common.detections, detector)
    serve = archive.add_endpoint("serve", step, [ANY_IMAGES])
    common.require_portable(serve, detector)
    archive.add_endpoint("conventions", lambda: {"json": tf.constant(text)}, [])
    path = Path(path)
    if path.exists() and not (path / "saved_model.pb").is_file():
        raise ExportError(f"{path}: expected nothing or a SavedModel to replace, found another")
    with whole_folder(path, replace=True) as part:
        with common.refusals(detector, "a SavedModel"):
            common.write_archive(archive, part, path)
        write_text(part / "assets.extra" / "conventions.json", text)


FORMAT = Format(write_savedmodel, "savedmodel")
