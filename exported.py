"""Detects with a file that export.py wrote, where nothing else of this project is.

    from exported import ExportedDetector
    detector = ExportedDetector.load("detector.onnx")     # .onnx, .tflite, or a SavedModel's folder
    boxes, scores, labels, names = detector.detect("photo.jpg")

Copy this one file beside the model. It needs NumPy, OpenCV and the format's runtime: onnxruntime,
ai-edge-litert or, only for a SavedModel, TensorFlow. What a file leaves to be done (a TFLite file
resizing, decoding and NMS; an ONNX file, if so exported, NMS) is done here, by the conventions that
it carries.
Letters: H W pixels of the original, h w of the network's input, N anchors, K classes, M candidates
before NMS, D detections.
"""

import importlib
import json
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

VERSION = 1  # of the conventions' layout

Arrays = dict[str, np.ndarray]


class ExportedDetector:
    """An exported model and what it says about itself.

    run: (H, W, 3) uint8 RGB -> boxes (M, 4) xyxy in pixels of the image, scores (M,), labels (M,),
        final or, by conventions["outputs"], before NMS.
    conventions: what the file carries. classes: names in label order.
    """

    def __init__(self, run: Callable[[np.ndarray], Arrays], conventions: dict[str, Any]):
        if conventions["version"] != VERSION:
            raise ValueError(
                f"conventions: expected version {VERSION}, found {conventions['version']}: take "
                "the exported.py of the program that exported"
            )
        self.run, self.conventions = run, conventions
        self.classes = tuple(conventions["classes"])

    @classmethod
    def load(cls, path: str | Path, threads: int | None = None) -> "ExportedDetector":
        """Opens an .onnx or .tflite file or a SavedModel's folder.

        threads: of the ONNX and TFLite runtimes; None: their own choice.
        Raises ValueError for a file that export.py did not write, ImportError for a missing
        runtime.
        """
        path = Path(path)
        if (path / "saved_model.pb").is_file():
            return cls(*_open_savedmodel(path))
        openers = {".onnx": _open_onnx, ".tflite": _open_tflite}
        if path.suffix not in openers or not path.is_file():
            raise ValueError(f"{path}: expected a .onnx or .tflite file or a SavedModel's folder")
        return cls(*openers[path.suffix](path, threads))

    def detect(
        self, image: str | Path | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """Detections in descending order of score.

        image: an image file, or (H, W, 3) uint8 RGB.
        Returns boxes (D, 4) float32 xyxy in pixels of the image, scores (D,) float32, labels (D,)
        int32, and the labels' names. Raises ValueError for what is no image.
        """
        found = self.run(_checked(image))
        boxes, scores, labels = (found[name] for name in ("boxes", "scores", "labels"))
        if self.conventions["outputs"] != "detections":
            index, scores = suppress(boxes, scores, labels, self.conventions["detect"])
            boxes, labels = boxes[index], labels[index]
        return boxes, scores, labels, [self.classes[label] for label in labels]


def _checked(image: str | Path | np.ndarray) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        pixels = cv2.imread(str(image))
        if pixels is None:
            raise ValueError(f"{image}: expected an image file, found none that can be decoded")
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"image: expected (H, W, 3) uint8 RGB, found {image.shape} of {image.dtype}"
        )
    return image


# ------------------------------------------------------------------------------------------------
# The three runtimes
# ------------------------------------------------------------------------------------------------


def _open_onnx(path: Path, threads: int | None) -> tuple[Callable, dict[str, Any]]:
    onnxruntime = _runtime("onnxruntime", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(
        str(path), options, providers=onnxruntime.get_available_providers()
    )
    held = session.get_modelmeta().custom_metadata_map
    if "conventions" not in held:
        raise _not_ours(path)
    names = [output.name for output in session.get_outputs()]

    def run(image: np.ndarray) -> Arrays:
        arrays = session.run(names, {"images": image[None]})
        return _of_one(dict(zip(names, arrays, strict=True)))

    return run, json.loads(held["conventions"])


def _open_tflite(path: Path, threads: int | None) -> tuple[Callable, dict[str, Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            conventions = json.loads(archive.read("conventions.json"))
    except (zipfile.BadZipFile, KeyError):
        raise _not_ours(path) from None
    module = _runtime("ai_edge_litert.interpreter", "ai-edge-litert")
    interpreter = module.Interpreter(str(path), num_threads=threads)
    network = interpreter.get_signature_runner()
    height, width = conventions["input_size"]
    anchors, counts = make_anchors(height, width, conventions)

    def run(image: np.ndarray) -> Arrays:
        pixels, content = fit(image, conventions)
        outputs = network(images=pixels[None])
        logits, deltas = outputs["class_logits"][0], outputs["box_deltas"][0]
        index, scores, labels = best_of_levels(logits, counts, conventions["detect"])
        boxes = decode(deltas[index], anchors[index], conventions["coder"])
        boxes = np.clip(boxes, 0, content[[1, 0, 1, 0]].astype(np.float32))
        scales = (content / image.shape[:2])[[1, 0, 1, 0]].astype(np.float32)
        return {"boxes": boxes / scales, "scores": scores, "labels": labels}

    return run, conventions


def _open_savedmodel(path: Path) -> tuple[Callable, dict[str, Any]]:
    file = path / "assets.extra" / "conventions.json"
    if not file.is_file():
        raise _not_ours(path)
    tensorflow = _runtime("tensorflow", "tensorflow")
    signature = tensorflow.saved_model.load(str(path)).signatures["serving_default"]

    def run(image: np.ndarray) -> Arrays:
        found = signature(images=tensorflow.constant(image[None]))
        return _of_one({name: tensor.numpy() for name, tensor in found.items()})

    return run, json.loads(file.read_text(encoding="utf-8"))


def _of_one(found: Arrays) -> Arrays:
    """Of a batch of one, the image's rows; without the padding, if there is a count."""
    count = found["count"][0] if "count" in found else None
    return {name: found[name][0, :count] for name in ("boxes", "scores", "labels")}


def _runtime(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f"{module}: expected it to be there, found none ({error}): pip install {package}"
        raise ImportError(message) from None


def _not_ours(path: Path) -> ValueError:
    return ValueError(f"{path}: expected conventions inside, as export.py writes them, found none")


# ------------------------------------------------------------------------------------------------
# Image -> the network's input
# ------------------------------------------------------------------------------------------------


def fit(image: np.ndarray, conventions: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 -> (h, w, 3) float32 with padding at the bottom and right, and (2,) int32
    height, width of the content."""
    rule = conventions["resize"]
    content = fitted_size(image.shape[0], image.shape[1], rule)
    size = [*conventions["input_size"], 3]
    pixels = np.full(size, np.array(conventions["padding"]), np.float32)
    pixels[: content[0], : content[1]] = resample(image, content, rule["antialias"])
    return pixels, content


def fitted_size(height: int, width: int, rule: dict[str, Any]) -> np.ndarray:
    """(2,) int32 height, width after resizing, aspect ratio kept."""
    sides = np.array([height, width], np.float64)
    if rule["kind"] == "canvas":
        scale = ([rule["height"], rule["width"]] / sides).min()
        size = np.floor(sides * scale + 1e-6)
    else:
        scale = ([rule["short"], rule["long"]] / np.sort(sides)).min()
        size = np.floor(sides * scale) if rule["rounding"] == "floor" else np.round(sides * scale)
    return np.maximum(size.astype(np.int32), 1)


def resample(pixels: np.ndarray, size: np.ndarray, antialias: bool) -> np.ndarray:
    """(H, W, 3) uint8 -> (h, w, 3), bilinear; with `antialias` a mean where it shrinks, uint8."""
    factors = size / pixels.shape[:2]
    if not antialias:
        return _scaled(pixels.astype(np.float32), factors, cv2.INTER_LINEAR)
    pixels = _scaled(pixels, np.minimum(factors, 1), cv2.INTER_AREA)
    return _scaled(pixels, np.maximum(factors, 1), cv2.INTER_LINEAR)


def _scaled(pixels: np.ndarray, factors: np.ndarray, interpolation: int) -> np.ndarray:
    if (factors == 1).all():
        return pixels
    fy, fx = factors
    return cv2.resize(pixels, None, fx=fx, fy=fy, interpolation=interpolation)


# ------------------------------------------------------------------------------------------------
# The network's outputs -> detections
# ------------------------------------------------------------------------------------------------


def make_anchors(
    height: int, width: int, conventions: dict[str, Any]
) -> tuple[np.ndarray, list[int]]:
    """(N, 4) float32 xyxy in pixels of an input of that size, and how many are of each level."""
    settings, levels = conventions["anchors"], []
    for size, nominal in zip(settings["sizes"], conventions["strides"], strict=True):
        cells = [-(-side // nominal) for side in (height, width)]
        steps = [nominal, nominal]
        if settings["stride"] == "grid":
            steps = [side // count for side, count in zip((height, width), cells, strict=True)]
        y, x = (
            (np.arange(count, dtype=np.float32) + np.float32(settings["center_offset"])) * step
            for count, step in zip(cells, steps, strict=True)
        )
        x, y = np.meshgrid(x, y)
        centers = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
        levels.append((centers + cell_anchors(size, settings)).reshape(-1, 4).astype(np.float32))
    return np.concatenate(levels), [len(level) for level in levels]


def cell_anchors(size: float, settings: dict[str, Any]) -> np.ndarray:
    """(A, 4) float32 xyxy around the origin; ratio (height / width) is the outer, scale the inner
    loop."""
    rounding = settings["rounding"]
    sides = np.array(
        [int(size * scale) if rounding else size * scale for scale in settings["scales"]],
        np.float64,
    )
    roots = np.sqrt(np.array(settings["ratios"], np.float64))[:, None]
    widths, heights = (sides / roots).ravel(), (sides * roots).ravel()
    boxes = np.stack([-widths, -heights, widths, heights], axis=1) / 2
    return (np.round(boxes) if rounding else boxes).astype(np.float32)


def best_of_levels(
    logits: np.ndarray, counts: Sequence[int], detect: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best `top_k` (anchor, class) pairs of each level that exceed the threshold.

    logits: (N, K). counts: anchors of each level. Returns (M,) anchors, scores, labels.
    """
    logits, num_classes = np.asarray(logits, np.float32), logits.shape[1]
    threshold, top_k = detect["score_threshold"], detect["top_k"]
    least = math.log(threshold / (1 - threshold)) if threshold else -math.inf
    flat = logits.ravel()
    index = np.flatnonzero(flat > least)
    ends = np.cumsum(counts) * num_classes
    levels = np.split(index, np.searchsorted(index, ends[:-1]))
    best = [
        level[np.argpartition(-flat[level], top_k)[:top_k]] if len(level) > top_k else level
        for level in levels
    ]
    index = np.concatenate(best)
    scores = np.exp(-np.logaddexp(0, -flat[index]))
    return index // num_classes, scores, (index % num_classes).astype(np.int32)


def decode(deltas: np.ndarray, anchors: np.ndarray, coder: dict[str, Any]) -> np.ndarray:
    """(M, 4) deltas and (M, 4) xyxy anchors -> (M, 4) float32 xyxy boxes."""
    deltas = deltas * np.array(coder["stds"], np.float32)
    sides = anchors[:, 2:] - anchors[:, :2]
    if coder["form"] == "corner":
        return anchors + deltas * np.tile(sides, 2)
    limit = np.float32(math.inf if coder["max_log_scale"] is None else coder["max_log_scale"])
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2 + deltas[:, :2] * sides
    halves = np.exp(np.minimum(deltas[:, 2:], limit)) * sides / 2
    return np.concatenate([centers - halves, centers + halves], axis=1)


def suppress(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, detect: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """NMS within each class, hard or soft -> (D,) rows in descending order of score, their scores.

    boxes (M, 4), scores (M,), labels (M,). At most `max_detections` times, the best candidate left
    is picked and those of its class decay.
    """
    threshold, index = detect["score_threshold"], np.arange(len(scores))
    picked: list[int] = []
    final: list[float] = []
    while len(picked) < detect["max_detections"]:
        is_left = scores > threshold
        index, boxes, scores, labels = (x[is_left] for x in (index, boxes, scores, labels))
        if not len(index):
            break
        best = scores.argmax()
        picked.append(index[best])
        final.append(scores[best])
        is_rival = labels == labels[best]
        scores = np.where(is_rival, scores * _decay(overlaps(boxes[best], boxes), detect), scores)
        scores[best] = -1
    return np.array(picked, int), np.array(final, np.float32)


def _decay(overlap: np.ndarray, detect: dict[str, Any]) -> np.ndarray:
    """What a score is multiplied by beside a better box of its class that overlaps so much."""
    if detect["nms"] == "gaussian":
        return np.exp(-np.square(overlap) / np.float32(detect["soft_sigma"]))
    weaker = 1 - overlap if detect["nms"] == "linear" else np.float32(0)
    return np.where(overlap > detect["nms_iou"], weaker, np.float32(1))


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(4,) and (M, 4) xyxy -> (M,) IoU; 0 where both are empty."""
    corners = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    both = np.maximum(corners, 0).prod(axis=1)
    areas = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
    union = np.maximum(box[2:] - box[:2], 0).prod() + areas - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)
