"""Detects with a file that export.py wrote, where nothing else of this project is.

    from exported import ExportedDetector
    detector = ExportedDetector.load("detector.onnx")     # .onnx, .tflite, or a SavedModel's folder
    boxes, scores, labels, names = detector.detect("photo.jpg")

Copy this one file beside the model. It needs NumPy, OpenCV and the format's runtime: onnxruntime,
ai-edge-litert or, only for a SavedModel, TensorFlow. What a file leaves to be done (a TFLite file
resizing, decoding and NMS; an ONNX file, if so exported, NMS) is done here, by the conventions that
it carries. Whatever is wrong with a file or an image is a ValueError of one line that names it.
Letters: H W pixels of the original, h w of the network's input, N anchors, K classes, M candidates
before NMS, D detections.
"""

import contextlib
import importlib
import io
import json
import math
import mmap
import os
import re
import reprlib
import stat
import struct
import threading
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np

VERSION = 1  # of the conventions' layout
LONGEST = 2**22  # bytes of conventions: room for 100,000 classes
MAX_SIDE = 16384  # pixels of what images are resized to

Arrays: TypeAlias = dict[str, np.ndarray]
Run: TypeAlias = Callable[[np.ndarray], Arrays]
Opened: TypeAlias = tuple[Run, dict[str, Any]]
Detections: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]
Ports: TypeAlias = dict[str, list]  # name of an input or output -> [type, side, ...], None: any


class ExportedDetector:
    """An exported model and what it says about itself.

    run: (H, W, 3) uint8 RGB -> boxes (M, 4) xyxy in pixels of the image, scores (M,), labels (M,),
        final or, by conventions["outputs"], before NMS.
    conventions: what the file carries, as `check_conventions` wants it; classes: names in label
    order; path: where it came from, for messages. Threads may share a detector.
    """

    def __init__(self, run: Run, conventions: dict[str, Any], path: str | Path = "model"):
        self.run, self.conventions, self.path = run, conventions, path
        self.classes = tuple(conventions["classes"])

    @classmethod
    def load(cls, path: str | Path, threads: int | None = None) -> "ExportedDetector":
        """Opens an .onnx or .tflite file or a SavedModel's folder.

        threads: of the ONNX and TFLite runtimes; None: their own choice.
        Raises ValueError for a file that export.py did not write, or that is damaged or cannot be
        read; ImportError for a missing runtime.
        """
        path = Path(path)
        try:
            return cls(*_opener(path)(path, threads), path)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def detect(self, images: Any) -> Detections | list[Detections]:
        """Detections in descending order of score, of one image or of several.

        images: an image file (str or Path), a (H, W, 3) uint8 RGB or a (H, W) or (H, W, 1) uint8
            gray array, or a PIL image; or a list of these, mixed as you like. Files and PIL images
            are turned as their EXIF orientation says, alpha is dropped, gray repeated.
        Returns for one image boxes (D, 4) float32 xyxy in its pixels, scores (D,) float32, labels
        (D,) int32, and the labels' names; for several a list of such tuples, in their order.
        Raises ValueError, naming the image, for anything else.
        """
        if _is_one(images):
            return self._detect(images, "image")
        found = [self._detect(image, f"image {index}") for index, image in enumerate(images)]
        if not found:
            raise ValueError(f"images: expected one or more, found an empty {_type(images)}")
        return found

    def _detect(self, image: Any, name: str) -> Detections:
        bits = self.conventions.get("bits") or 16
        pixels = to_rgb(image, name, bits)
        try:
            found = self.run(pixels)
            _require_rows(found, len(self.classes))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        boxes, scores, labels = (found[name] for name in ("boxes", "scores", "labels"))
        if self.conventions["outputs"] != "detections":
            index, scores = suppress(boxes, scores, labels, self.conventions["detect"])
            boxes, labels = boxes[index], labels[index]
        return boxes, scores, labels, [self.classes[label] for label in labels]


def _require_rows(found: Arrays, num_classes: int) -> None:
    """Raises ValueError where a network's answer is none: a damaged file may load all the same."""
    boxes, scores, labels = (found[name] for name in ("boxes", "scores", "labels"))
    if boxes.shape != (len(labels), 4) or scores.shape != labels.shape:
        shapes = f"{boxes.shape}, {scores.shape} and {labels.shape}"
        raise ValueError(f"expected boxes (M, 4), scores and labels (M,), found {shapes}")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ValueError(f"expected labels of {num_classes} classes, found label {wrong[0]}")


# ------------------------------------------------------------------------------------------------
# Images
# ------------------------------------------------------------------------------------------------

# In compressed data a byte FF is followed by 00 or a restart marker; before a marker it is fill.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
_JPEG_END = 0xD9
_EXIF_ORIENTATION_TAG = 274
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
_FLIPS = ((1, 1), (1, -1), (-1, -1), (-1, 1))  # steps of rows and columns, orientations 1 to 4
TAKEN = "a path, an array (H, W, 3) uint8 RGB or (H, W) gray, or a PIL image"


def _is_one(images: Any) -> bool:
    """Whether `detect` was given one image; what is no image at all counts as one."""
    if isinstance(images, np.ndarray):
        return images.ndim != 1  # or it holds paths
    is_iterable = isinstance(images, Iterable) and not isinstance(images, (bytes, Mapping))
    is_image = isinstance(images, (str, os.PathLike)) or _is_pil(images)
    return is_image or not is_iterable or hasattr(images, "numpy")


def _is_pil(image: Any) -> bool:
    return all(hasattr(image, name) for name in ("mode", "convert", "getexif"))


def to_rgb(image: Any, name: str, bits: int) -> np.ndarray:
    """One image of any kind that `ExportedDetector.detect` takes -> (H, W, 3) uint8 RGB.

    name: what messages call it if it is no file; bits: in use of 16-bit values, see `to_8_bits`.
    Raises ValueError, naming it, for everything else.
    """
    try:
        if isinstance(image, (str, os.PathLike)):
            name = os.fspath(image)
            return _decoded(Path(image), bits)
        return np.ascontiguousarray(_from_pil(image) if _is_pil(image) else _array(image))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _array(image: Any) -> np.ndarray:
    """(H, W, 3) uint8 of an array in memory."""
    if image is None:
        raise ValueError(
            f"expected {TAKEN}, found None, which cv2.imread returns for a file it cannot read"
        )
    if not isinstance(image, np.ndarray):
        hint = ": for a tensor say .numpy()" if hasattr(image, "numpy") else ""
        raise ValueError(f"expected {TAKEN}, found {_type(image)}{hint}")
    found = f"found {image.shape} of {image.dtype}"
    if image.ndim == 4:
        raise ValueError(f"expected one image in each array, {found}: for a batch say list(images)")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
        hint = "" if image.dtype == np.uint8 else ": bring values to 0-255, then .astype(np.uint8)"
        raise ValueError(f"expected (H, W, 3) uint8 RGB or (H, W) uint8 gray, {found}{hint}")
    bands = image.shape[2] if image.ndim == 3 else 1
    if bands not in (1, 3):
        hint = ": for RGBA say image[..., :3]" if bands == 4 else ""
        raise ValueError(f"expected 3 bands (RGB) or 1 (gray), found {bands}, {image.shape}{hint}")
    return np.broadcast_to(image.reshape(*image.shape[:2], bands), (*image.shape[:2], 3))


def _from_pil(image: Any) -> np.ndarray:
    """(H, W, 3) uint8 of a PIL image, turned as the EXIF block of its file says."""
    if image.mode[0] in "IF":
        hint = "bring the values to 0-255, then .convert('L')"
        raise ValueError(f"expected a PIL image of 8 bits, found mode {image.mode}: {hint}")
    try:
        pixels = _from_cmyk(image) if image.mode == "CMYK" else np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # a file that PIL opened but reads only now
        raise ValueError(f"expected an image, found one that PIL cannot read: {error}") from error
    if not pixels.size:
        raise ValueError(f"expected a PIL image with pixels, found size {image.size}")
    # image.getexif() looks into XMP, too, which turns no image that is passed as a path.
    orientation = _exif_orientation(image.info.get("exif") or b"")
    rows, columns = _FLIPS[(orientation - 1) % 4]
    return (pixels.transpose(1, 0, 2) if orientation > 4 else pixels)[::rows, ::columns]


def _exif_orientation(block: bytes) -> int:
    """Orientation 1 to 8 in an EXIF block; 1 where it holds none."""
    tiff = block.removeprefix(b"Exif\0\0")
    order = _BYTE_ORDERS.get(tiff[:2])
    if order is None:
        return 1
    directory = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[directory : directory + 2], order)
    for start in range(directory + 2, min(directory + 2 + 12 * count, len(tiff)), 12):
        if int.from_bytes(tiff[start : start + 2], order) == _EXIF_ORIENTATION_TAG:
            value = int.from_bytes(tiff[start + 8 : start + 10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def _from_cmyk(image: Any) -> np.ndarray:
    """As OpenCV converts those of a file; PIL rounds otherwise."""
    ink = np.asarray(image).astype(np.int32)
    light = 255 - ink[..., 3:]
    return (light - (ink[..., :3] * light >> 8)).astype(np.uint8)


def _decoded(path: Path, bits: int) -> np.ndarray:
    """(H, W, 3) uint8 of an image file, turned as its EXIF orientation says."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
            raise ValueError("expected an image file, found a folder or device")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error
    if kind := _kind_not_read(data):
        expected = "expected a JPEG, PNG, BMP or WebP"
        raise ValueError(f"{expected}, found {kind}: pass its pixels instead")
    if not _is_complete(data):
        raise ValueError(f"truncated: the image data ends early ({len(data)} bytes)")
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise ValueError(f"expected an image file, found {error.err}") from error
    if pixels is None:
        found = f"found none that can be decoded ({len(data)} bytes)"
        raise ValueError(f"expected an image file, {found}")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected values of 8 or 16 bits, found {pixels.dtype}")
    return cv2.cvtColor(to_8_bits(pixels, bits), cv2.COLOR_BGR2RGB)


def to_8_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    """uint8 as they are; of uint16 the highest 8 of the `bits` that are in use, 8 to 16."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.minimum(pixels >> (bits - 8), 255).astype(np.uint8)


def _kind_not_read(data: bytes) -> str:
    """Names what OpenCV decodes otherwise than the training did; empty for all else.

    It blends transparent colours, swaps or inverts some TIFFs of 16 bits, and passes over damage.
    """
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "a TIFF"
    if data[:4] == b"GIF8":
        return "a GIF"
    is_animated = data[8:16] == b"WEBPVP8X" and data[20:21] and data[20] & 2
    return "an animated WebP" if is_animated else ""


def _is_complete(data: bytes) -> bool:
    """Whether a JPEG or PNG goes on to its end mark: OpenCV fills up with gray if it does not."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" in data
    if data[:3] != b"\xff\xd8\xff":
        return True
    position = 2  # from segment to segment: a thumbnail inside one has an end mark of its own
    while match := _JPEG_MARKER.search(data, position):
        if match[0][1] == _JPEG_END:
            return True
        position = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
    return False


def _type(value: Any) -> str:
    return type(value).__name__


# ------------------------------------------------------------------------------------------------
# The conventions in a file
# ------------------------------------------------------------------------------------------------

_UNFIT = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories
_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # turn what follows a name
_INSIDE = "expected conventions inside, as export.py writes them"
Rule: TypeAlias = tuple[str, Callable[[Any], bool]]  # what is expected, whether a value meets it


def _number(low: float, high: float, expected: str = "", whole: bool = False) -> Rule:
    kind = "a whole number" if whole else "a number"

    def is_met(value: Any) -> bool:
        is_number = isinstance(value, int if whole else (int, float))
        return is_number and not isinstance(value, bool) and low <= value <= high

    return expected or f"{kind} from {low} to {high}", is_met


def _numbers(count: range, each: Rule) -> Rule:
    """Lists with one of these lengths, each item by a rule."""

    def is_met(value: Any) -> bool:
        return isinstance(value, list) and len(value) in count and all(map(each[1], value))

    expected = f"{count[0]}" if len(count) == 1 else f"{count[0]} to {count[-1]}"
    return f"{expected} values, each {each[0]}", is_met


def _one_of(*names: str) -> Rule:
    return " or ".join(names), lambda value: isinstance(value, str) and value in names


def _or_none(rule: Rule) -> Rule:
    return f"null or {rule[0]}", lambda value: value is None or rule[1](value)


def _are_names(value: Any) -> bool:
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        return False
    return len(set(value)) == len(value) and all(map(is_printable, value))


def is_printable(name: str) -> bool:
    """Whether a class name has characters, none of which controls a terminal or breaks its line."""
    are_fit = all(unicodedata.category(c) not in _UNFIT and c not in _BIDI for c in name)
    return bool(name.strip()) and are_fit


_POSITIVE = _number(math.nextafter(0, 1), 1e9, "a number above 0, at most 1e9")
_SHARE = _number(0, 1)
_COUNT = _number(1, 10**9, "a whole number from 1 to 1e9", whole=True)
_SIDE = _number(1, MAX_SIDE, whole=True)
_INPUT_SIDE = _number(1, 2 * MAX_SIDE, "a whole number of pixels, with padding", whole=True)
_FLAG: Rule = ("true or false", lambda value: isinstance(value, bool))
_RULES: dict[str, Rule] = {
    "classes": ("a list of different names without control characters", _are_names),
    "bits": _or_none(_number(8, 16, "a whole number from 8 to 16", whole=True)),
    "strides": _numbers(range(1, 11), _number(1, 1024, whole=True)),
    "resize.kind": _one_of("canvas", "short_long"),
    "resize.antialias": _FLAG,
    "anchors.sizes": _numbers(range(1, 11), _POSITIVE),
    "anchors.ratios": _numbers(range(1, 101), _POSITIVE),
    "anchors.scales": _numbers(range(1, 101), _POSITIVE),
    "anchors.center_offset": _SHARE,
    "anchors.stride": _one_of("nominal", "grid"),
    "anchors.rounding": _FLAG,
    "coder.form": _one_of("center", "corner"),
    "coder.stds": _numbers(range(4, 5), _POSITIVE),
    "coder.max_log_scale": _or_none(_POSITIVE),
    "detect.score_threshold": _number(0, math.nextafter(1, 0), "a number from 0 to below 1"),
    "detect.top_k": _COUNT,
    "detect.nms": _one_of("hard", "linear", "gaussian"),
    "detect.nms_iou": _SHARE,
    "detect.soft_sigma": _POSITIVE,
    "detect.max_detections": _COUNT,
}
_RESIZE_RULES: dict[str, dict[str, Rule]] = {
    "canvas": {"resize.height": _SIDE, "resize.width": _SIDE},
    "short_long": {
        "resize.short": _SIDE,
        "resize.long": _SIDE,
        "resize.rounding": _one_of("floor", "nearest"),
    },
}
_NETWORK_RULES: dict[str, Rule] = {
    "input_size": _numbers(range(2, 3), _INPUT_SIDE),
    "padding": _numbers(range(3, 4), _number(0, 255)),
}


def check_conventions(found: Any, *outputs: str) -> dict[str, Any]:
    """Returns a file's conventions once everything that is used of them is as it has to be.

    outputs: the kinds that the file's format can have.
    Raises ValueError naming the field, what was expected and what was found.
    """
    if not isinstance(found, dict):
        raise ValueError(f"conventions: expected a JSON object, found {reprlib.repr(found)}")
    if found.get("version") != VERSION:
        raise ValueError(
            f"conventions: expected version {VERSION}, found {reprlib.repr(found.get('version'))}: "
            "take the exported.py of the program that exported"
        )
    _require(found, _RULES | {"outputs": _one_of(*outputs)})
    rule, levels = found["resize"], len(found["strides"])
    each_level = {"anchors.sizes": _numbers(range(levels, levels + 1), _POSITIVE)}
    _require(found, _RESIZE_RULES[rule["kind"]] | each_level)
    if found["outputs"] == "network":
        _require(found, _NETWORK_RULES)
        is_canvas = rule["kind"] == "canvas"
        least = [rule["height"], rule["width"]] if is_canvas else [rule["long"]] * 2
        is_met = found["input_size"][0] >= least[0] and found["input_size"][1] >= least[1]
        expected = f"at least {least}, which resize makes"
        _require(found, {"input_size": (expected, lambda _: is_met)})
    return found


def _require(about: dict[str, Any], rules: dict[str, Rule]) -> None:
    """Raises ValueError for the first field, by its dotted name, that does not meet its rule."""
    for field, (expected, is_met) in rules.items():
        value: Any = about
        for key in field.split("."):
            if not isinstance(value, dict) or key not in value:
                raise ValueError(f"conventions: {field}: expected {expected}, found no such field")
            value = value[key]
        if not is_met(value):
            found = reprlib.repr(value)
            raise ValueError(f"conventions: {field}: expected {expected}, found {found}")


def _parsed(text: bytes | None, *outputs: str) -> dict[str, Any]:
    """The conventions in JSON, checked; None: a file without."""
    if text is None:
        raise ValueError(f"{_INSIDE}, found none")
    if len(text) > LONGEST:
        raise ValueError(f"conventions: expected at most {LONGEST} bytes, found more")
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("conventions: expected JSON, found it nested too deep") from None
    except ValueError as error:
        raise ValueError(f"conventions: expected JSON, found {error}") from error
    return check_conventions(found, *outputs)


def _onnx_conventions(path: Path) -> bytes | None:
    """Those in metadata_props, found without reading the graph or what else may be in the file.

    They are field 14 of a ModelProto, pairs of a key, field 1, and a value, field 2 (onnx.proto).
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for number, start, end in _fields(data, 0, len(data)):
            if number == 14:
                pair = {
                    key: data[first : min(last, first + LONGEST + 1)]
                    for key, first, last in _fields(data, start, end)
                }
                if pair.get(1) == b"conventions":
                    return pair.get(2)
    return None


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields (number, start, end) of the fields of a protobuf message that have a length."""
    for _ in range(10_000):  # a model has some ten; a file of nothing else would take minutes
        if position == end:
            return
        key, position = _varint(data, position)
        number, position = _varint(data, position) if key & 7 in (0, 2) else (0, position)
        length = {0: 0, 1: 8, 2: number, 5: 4}.get(key & 7)  # by the kind of field
        if length is None or position + length > end:
            break
        if key & 7 == 2:
            yield key >> 3, position, position + length
        position += length
    raise ValueError("expected an ONNX model, found a file that is none, or a part of one")


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """A protobuf number and the position after it."""
    value = 0
    for index, byte in enumerate(data[position : position + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    raise ValueError("expected an ONNX model, found a file that is none, or a part of one")


def _tflite_conventions(path: Path) -> bytes | None:
    """Those in the ZIP archive at the end of the file, of which no more is read than they take."""
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - 2 * LONGEST, 0))
        end = io.BytesIO(file.read())
    try:
        with zipfile.ZipFile(end) as archive:
            entry = archive.getinfo("conventions.json")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                return None  # others inflate without a bound
            with archive.open(entry) as held:
                return held.read(LONGEST + 1)
    except KeyError:
        return None
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{_INSIDE}, found no sound ZIP archive: {error}") from error


# ------------------------------------------------------------------------------------------------
# The three runtimes
# ------------------------------------------------------------------------------------------------


def _opener(path: Path) -> Callable[[Path, int | None], Opened]:
    """The function that opens a file, by its name. Raises ValueError where there is none."""
    if (path / "saved_model.pb").is_file():
        return _open_savedmodel
    openers = {".onnx": _open_onnx, ".tflite": _open_tflite}
    if path.suffix in openers and path.is_file():
        if not path.stat().st_size:
            raise ValueError("expected an exported model, found an empty file")
        return openers[path.suffix]
    found = "a folder without saved_model.pb" if path.is_dir() else "a file of another kind"
    found = found if path.exists() else "no such file"
    raise ValueError(f"expected a .onnx or .tflite file or a SavedModel's folder, found {found}")


def _open_onnx(path: Path, threads: int | None) -> Opened:
    conventions = _parsed(_onnx_conventions(path), "detections", "candidates")
    onnxruntime = _runtime("onnxruntime", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    with _refusals("onnxruntime"):
        session = onnxruntime.InferenceSession(
            str(path), options, providers=onnxruntime.get_available_providers()
        )
        inputs, outputs = (
            {
                port.name: [
                    port.type.removeprefix("tensor(").removesuffix(")"),
                    *(side if isinstance(side, int) else None for side in port.shape),
                ]
                for port in ports
            }
            for ports in (session.get_inputs(), session.get_outputs())
        )
    _require_whole_images(inputs, outputs, conventions)

    def run(image: np.ndarray) -> Arrays:
        with _refusals("onnxruntime"):
            arrays = session.run(list(outputs), {"images": image[None]})
            return _of_one(dict(zip(outputs, arrays, strict=True)))

    return run, conventions


def _open_tflite(path: Path, threads: int | None) -> Opened:
    conventions = _parsed(_tflite_conventions(path), "network")
    module = _runtime("ai_edge_litert.interpreter", "ai-edge-litert")
    with _refusals("ai-edge-litert"):
        interpreter = module.Interpreter(str(path), num_threads=threads)
        network = interpreter.get_signature_runner()
        inputs, outputs = (
            {
                name: [port["dtype"].__name__, *port["shape"].tolist()]
                for name, port in ports.items()
            }
            for ports in (network.get_input_details(), network.get_output_details())
        )
    height, width = conventions["input_size"]
    counts = count_anchors(height, width, conventions)
    _require_ports("input", inputs, {"images": ["float32", 1, height, width, 3]})
    rows = ["float32", 1, sum(counts)]
    expected = {"class_logits": [*rows, len(conventions["classes"])], "box_deltas": [*rows, 4]}
    _require_ports("output", outputs, expected)
    anchors, lock = make_anchors(height, width, conventions), threading.Lock()

    def run(image: np.ndarray) -> Arrays:
        pixels, content = fit(image, conventions)
        with _refusals("ai-edge-litert"), lock:  # an interpreter serves one thread at a time
            outputs = network(images=pixels[None])
        logits, deltas = outputs["class_logits"][0], outputs["box_deltas"][0]
        index, scores, labels = best_of_levels(logits, counts, conventions["detect"])
        boxes = decode(deltas[index], anchors[index], conventions["coder"])
        boxes = np.clip(boxes, 0, content[[1, 0, 1, 0]].astype(np.float32))
        scales = (content / image.shape[:2])[[1, 0, 1, 0]].astype(np.float32)
        return {"boxes": boxes / scales, "scores": scores, "labels": labels}

    return run, conventions


def _open_savedmodel(path: Path, threads: int | None) -> Opened:
    file, text = path / "assets.extra" / "conventions.json", None
    if file.is_file():
        with open(file, "rb") as held:
            text = held.read(LONGEST + 1)
    conventions = _parsed(text, "detections")
    tensorflow = _runtime("tensorflow", "tensorflow")
    with _refusals("tensorflow"):
        signatures = tensorflow.saved_model.load(str(path)).signatures
        signature = signatures["serving_default"]
        inputs, outputs = (
            {name: [spec.dtype.name, *spec.shape.as_list()] for name, spec in specs.items()}
            for specs in (signature.structured_input_signature[1], signature.structured_outputs)
        )
    _require_whole_images(inputs, outputs, conventions)

    def run(image: np.ndarray) -> Arrays:
        with _refusals("tensorflow"):
            found = signature(images=tensorflow.constant(image[None]))
            return _of_one({name: tensor.numpy() for name, tensor in found.items()})

    return run, conventions


def _require_whole_images(inputs: Ports, outputs: Ports, conventions: dict[str, Any]) -> None:
    """Raises ValueError for a network that does not go from images of any size to boxes."""
    _require_ports("input", inputs, {"images": ["uint8", None, None, None, 3]})
    rows = [None, None, None]  # type, images of the batch, detections of each
    expected: Ports = {"boxes": [*rows, 4], "scores": rows, "labels": rows}
    if conventions["outputs"] == "detections":
        expected["count"] = [None, None]
    _require_ports("output", outputs, expected)


def _require_ports(kind: str, found: Ports, expected: Ports) -> None:
    """Raises ValueError where inputs or outputs are missing or not as the conventions say."""
    for name, wanted in expected.items():
        given = found.get(name, [])
        is_same = len(given) == len(wanted) and all(
            None in pair or pair[0] == pair[1] for pair in zip(given, wanted, strict=True)
        )
        if not is_same:
            among = f"{given}" if given else f"only {reprlib.repr(list(found))}"
            raise ValueError(
                f"{kind} {name}: expected {wanted} (type and sides) by the conventions, "
                f"found {among}"
            )


def _of_one(found: Arrays) -> Arrays:
    """Of a batch of one, the image's rows; without the padding, if there is a count."""
    count = found["count"][0] if "count" in found else None
    return {name: found[name][0, :count] for name in ("boxes", "scores", "labels")}


@contextlib.contextmanager
def _refusals(package: str) -> Iterator[None]:
    """Makes a ValueError of one line of whatever a runtime raises for a file it cannot run."""
    try:
        yield
    except Exception as error:  # onnxruntime's have no common base; a damaged graph has others any
        reason = next(iter(str(error).split("\n")), "")[:300]
        raise ValueError(f"{package} cannot run it: {_type(error)}: {reason}") from error


def _runtime(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f"{module}: expected it to be there, found none ({error}): pip install {package}"
        raise ImportError(message) from None


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


def make_anchors(height: int, width: int, conventions: dict[str, Any]) -> np.ndarray:
    """(N, 4) float32 xyxy in pixels of an input of that size, level after level."""
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
    return np.concatenate(levels)


def count_anchors(height: int, width: int, conventions: dict[str, Any]) -> list[int]:
    """How many anchors are of each level for an input of that size."""
    settings = conventions["anchors"]
    each = len(settings["ratios"]) * len(settings["scales"])
    return [-(-height // side) * -(-width // side) * each for side in conventions["strides"]]


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
