"""What all formats begin with: `Detector` -> a graph of plain TensorFlow, and its conventions.

Letters: B batch, H W pixels of the original, h w of the network's input, N anchors, K classes,
M candidates before NMS, D detections.
"""

import contextlib
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from configs import to_dict
from configs.schema import Canvas, ShortLong
from core.anchors import STRIDES
from core.engine import candidates, predict
from core.retinanet import CAFFE_MEAN, TORCH_MEAN
from data.images.resize import padded_size
from deploy.exported import VERSION, check_conventions
from detector import Detector
from utils import __version__
from utils.files import write_error

# Python inside a graph: it is written as a number that only this process can look up.
OF_THIS_PROCESS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
ANY_IMAGES = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
PIP = "pip install -r requirements-export.txt"


class ExportError(ValueError):
    """What a format cannot hold, or a package that writing it needs; names both."""


@dataclass(frozen=True)
class Format:
    """A format as export.py offers it.

    write: (detector, path, and keywords of `options`) writes it. name: of the file, or of the
        folder, in a run's export/.
    options: keyword -> its values, the default first -> what each adds to the name.
    """

    write: Callable[..., None]
    name: str
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def conventions(detector: Detector, outputs: str) -> dict[str, Any]:
    """What an exported file says about itself, JSON-ready.

    outputs: "detections", "candidates" (before NMS) or "network" (before decoding), which comes
        with the size and padding of its input.
    Raises ExportError for what `exported.py` would refuse.
    """
    model = to_dict(detector.config)
    about = {
        "version": VERSION,
        "project_version": __version__,
        "classes": list(detector.classes),
        "boxes": "x1 y1 x2 y2 in pixels; (0, 0) is the top left corner of the top left pixel",
        "outputs": outputs,
        "strides": list(STRIDES),
        "bits": model["bits"],
        **{name: model[name] for name in ("resize", "anchors", "coder", "detect")},
    }
    if outputs == "network":
        about["input_size"] = list(input_size(detector.config.resize))
        about["padding"] = padding_color(detector.config.normalization)
    try:
        return check_conventions(json.loads(json.dumps(about)), outputs)
    except ValueError as error:
        raise ExportError(f"exported.py could not read the file: {error}") from error


def input_size(rule: Canvas | ShortLong) -> tuple[int, int]:
    """Height, width into which any image fits once resized: the canvas, or the square of the long
    side with its padding."""
    side = (rule.height, rule.width) if isinstance(rule, Canvas) else (rule.long, rule.long)
    height, width = padded_size(np.array(side), rule).tolist()
    return height, width


def padding_color(normalization: str) -> list[float]:
    """RGB 0-255 that is zero once normalised, see `core.retinanet.normalize`."""
    if normalization == "caffe":
        return list(CAFFE_MEAN[::-1])
    return [255 * mean for mean in TORCH_MEAN]


# ------------------------------------------------------------------------------------------------
# Images of any size -> the network's input, in the graph
# ------------------------------------------------------------------------------------------------


def fitted(images: tf.Tensor, rule: Canvas | ShortLong) -> dict[str, tf.Tensor]:
    """A batch as the pipeline makes it for evaluation, of images that share one size.

    images: (B, H, W, 3) uint8 RGB.
    Returns images (B, h, w, 3) float32, whole numbers where the rule smooths; sizes (B, 2) int32;
    scales (B, 2) float32 x, y. Within a level of 255 of `data.images.render.resample`, which rounds
    between its steps.
    """
    size = tf.shape(images)[1:3]
    content, padded = _sizes(size, rule)
    rows, columns = (_line_weights(size[i], content[i], padded[i], rule.antialias) for i in (0, 1))
    # Channels first: matrix products over whole planes.
    planes = tf.cast(tf.transpose(images, [0, 3, 1, 2]), tf.float32)
    planes = rows @ planes @ tf.transpose(columns)
    planes = tf.floor(planes + 0.5) if rule.antialias else planes  # halves up: OpenCV's at 1/2
    pixels = tf.transpose(planes, [0, 2, 3, 1])
    if isinstance(rule, Canvas):
        pixels = tf.ensure_shape(pixels, [None, rule.height, rule.width, 3])
    count = tf.shape(images)[0]
    scales = tf.cast(content / size, tf.float32)[::-1]
    return {
        "images": pixels,
        "sizes": tf.tile(content[None], [count, 1]),
        "scales": tf.tile(scales[None], [count, 1]),
    }


def _sizes(size: tf.Tensor, rule: Canvas | ShortLong) -> tuple[tf.Tensor, tf.Tensor]:
    """`fitted_size` and `padded_size` of data.images.resize in a graph: (2,) int32 y, x -> both."""
    sides = tf.cast(size, tf.float64)
    if isinstance(rule, Canvas):
        canvas = tf.constant([rule.height, rule.width], tf.float64)
        content = tf.floor(sides * tf.reduce_min(canvas / sides) + 1e-6)
    else:
        short, long = tf.reduce_min(sides), tf.reduce_max(sides)
        scaled = sides * tf.minimum(rule.short / short, rule.long / long)
        content = tf.floor(scaled) if rule.rounding == "floor" else tf.round(scaled)
    content = tf.maximum(tf.cast(content, tf.int32), 1)
    if isinstance(rule, Canvas):
        return content, tf.constant([rule.height, rule.width])
    # Up without a negative number: ONNX divides towards zero.
    spare = rule.multiple if rule.always_pad else rule.multiple - 1
    return content, (content + spare) // rule.multiple * rule.multiple


def _line_weights(
    side: tf.Tensor, content: tf.Tensor, padded: tf.Tensor, antialias: bool
) -> tf.Tensor:
    """(padded, side) float32: what each new pixel of a line takes of each old one.

    Rows sum to 1, and to 0 beyond `content`. Where a line shrinks with `antialias`, the share of
    the new pixel that the old one covers; otherwise bilinear between the old ones' centres.
    """
    step = tf.cast(side / content, tf.float64)  # old pixels a new one
    new = tf.range(tf.cast(padded, tf.float64), dtype=tf.float64)[:, None]
    old = tf.range(tf.cast(side, tf.float64), dtype=tf.float64)
    last = tf.cast(side - 1, tf.float64)
    center = tf.clip_by_value((new + 0.5) * step - 0.5, 0.0, last)
    weights = tf.maximum(1.0 - tf.abs(center - old), 0.0)
    if antialias:
        overlap = tf.minimum((new + 1.0) * step, old + 1.0) - tf.maximum(new * step, old)
        weights = tf.where(step > 1.0, tf.maximum(overlap, 0.0) / step, weights)
    is_content = new < tf.cast(content, tf.float64)
    return tf.cast(tf.where(is_content, weights, 0.0), tf.float32)


def detections(detector: Detector, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Final detections of (B, H, W, 3) uint8 RGB images, in their pixels.

    Returns boxes (B, D, 4) float32 xyxy, scores (B, D) float32, labels (B, D) int32, -1 beyond the
    count (B,) int32.
    """
    batch = fitted(images, detector.config.resize)
    found = predict(detector.model, detector.postprocess, batch, **_views(detector))
    found["count"] = found.pop("counts")
    return found


def _views(detector: Detector) -> dict[str, Any]:
    return {"flip": detector.config.detect.flip, "scales": detector.config.detect.scales}


def unsuppressed(detector: Detector, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Candidates of (B, H, W, 3) uint8 RGB images before NMS, clipped, in their pixels.

    Returns boxes (B, M, 4) float32 xyxy, scores (B, M) float32, labels (B, M) int32, in no order;
    scores at or below the threshold are among them.
    """
    batch = fitted(images, detector.config.resize)
    boxes, scores = candidates(detector.model, detector.postprocess, batch, **_views(detector))
    limit = tf.cast(tf.gather(batch["sizes"], [1, 0, 1, 0], axis=1), tf.float32)[:, None]
    scales = tf.tile(batch["scales"], [1, 2])[:, None]
    return {
        "boxes": tf.clip_by_value(boxes, 0.0, limit) / scales,
        "scores": tf.reduce_max(scores, axis=2),
        "labels": tf.argmax(scores, axis=2, output_type=tf.int32),
    }


# ------------------------------------------------------------------------------------------------
# What a format cannot hold
# ------------------------------------------------------------------------------------------------


def require_plain(detector: Detector, form: str, **plain: Any) -> None:
    """Raises ExportError where a setting of model.detect is another than the only one possible."""
    for name, expected in plain.items():
        found = getattr(detector.config.detect, name)
        if found != expected:
            field = f"model.detect.{name}"
            raise ExportError(
                f"{field}: expected {expected!r} for {form}, found {found!r}; --set {field}=..."
            )


def package(name: str, form: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(f"{form} needs the package {name}, found none ({error}): {PIP}") from None


def require_portable(step: tf.types.experimental.PolymorphicFunction, detector: Detector) -> None:
    """Raises ExportError if a traced function calls Python while it runs."""
    graph = step.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
    found = sorted({node.op for node in nodes} & OF_THIS_PROCESS)
    if found:
        raise ExportError(
            f"{_own_parts(detector)}: expected plain TensorFlow, found {', '.join(found)}: Python "
            "code that no file can hold"
        )


def _own_parts(detector: Detector) -> str:
    """Names the parts of the user's own, for messages."""
    parts = ("backbone", "neck")
    own = [f"model.{part}" for part in parts if callable(getattr(detector.config, part))]
    return " and ".join(own) or "the model"


@contextlib.contextmanager
def refusals(detector: Detector, form: str) -> Iterator[None]:
    """Makes an ExportError of whatever a converter raises for a graph it cannot convert."""
    try:
        yield
    except OSError:  # of the disk
        raise
    except Exception as error:  # each converter has its own, without a common base
        # TFLite's says which operations in one line, and goes on with the whole network.
        named = re.search(r"^(?:Custom|Flex) ops: .*$", str(error), re.MULTILINE)
        reason = named[0] if named else str(error).partition("\n")[0]
        message = f"{_own_parts(detector)}: cannot be written as {form}: {reason}"
        raise ExportError(message) from None


def write_archive(archive: keras.export.ExportArchive, folder: Path, path: Path) -> None:
    """Writes a SavedModel into a folder. Raises WriteError of `path` where the disk refuses."""
    try:
        archive.write_out(str(folder), verbose=False)
    except tf.errors.OpError as error:  # of a disk, too, TensorFlow raises no OSError
        raise write_error(path, error) from error
