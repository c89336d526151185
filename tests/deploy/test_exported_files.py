"""Exported files that are broken: each ends in one line naming it, soon and in little memory."""

import contextlib
import copy
import json
import os
import shutil
import sys
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from configs import override, to_dict
from configs.schema import Model
from deploy import exported
from deploy.exported import LONGEST, ExportedDetector

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.full

SIDES, ANCHORS, CLASSES = (64, 96), 1161, ["cat", "dog"]
IMAGE = np.random.default_rng(0).integers(0, 256, [50, 70, 3], np.uint8)
NAMES = ("a.onnx", "a.tflite", "model")
INSIDE = "conventions inside, as export.py writes them"


def about(name, **changes):
    """Conventions as export.py writes them into a file of that name."""
    model = override(Model(), {"resize.height": 64, "resize.width": 96})
    found = {name: to_dict(model)[name] for name in ("resize", "anchors", "coder", "detect")}
    outputs = "network" if name == "a.tflite" else "detections"
    found |= {"version": 1, "classes": list(CLASSES), "outputs": outputs, "bits": None}
    found |= {"strides": [8, 16, 32, 64, 128]}
    if name == "a.tflite":
        found |= {"input_size": list(SIDES), "padding": [123.7, 116.3, 103.5]}
    return found | changes


# ------------------------------------------------------------------------------------------------
# Networks that take and give what an exported one does, and answer the same to every image
# ------------------------------------------------------------------------------------------------


class Network(tf.Module):
    """One box of each class; with `raw` logits and deltas that make a detection of each class."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def final(self, images):
        boxes = tf.constant([[[0.0, 0, 9, 9], [1, 1, 8, 8]]]) * self.scale
        zero = tf.zeros([tf.shape(images)[0], 1])
        return {
            "boxes": boxes + zero[..., None],
            "scores": tf.constant([[0.9, 0.8]]) + zero,
            "labels": tf.constant([[0, 1]]) + tf.cast(zero, tf.int32),
            "count": tf.zeros(tf.shape(images)[:1], tf.int32) + 2,
        }

    @tf.function(input_signature=[tf.TensorSpec([1, *SIDES, 3], tf.float32, name="images")])
    def raw(self, images):
        logits = np.full([1, ANCHORS, 2], -9, np.float32)
        logits[0, [5, 900], [0, 1]] = 3
        mean = tf.reduce_mean(images) / 255
        return {"class_logits": logits + mean, "box_deltas": tf.zeros([1, ANCHORS, 4]) + mean}

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(1.0)


def write_savedmodel(path, conventions):
    network = Network()
    tf.saved_model.save(network, str(path), {"serving_default": network.final})
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / "conventions.json").write_text(json.dumps(conventions))


def write_tflite(path, conventions):
    network = Network()
    function = network.raw.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], network)
    path.write_bytes(converter.convert())
    attach(path, json.dumps(conventions))


def write_onnx(path, conventions, images="images", last=4, kind=TensorProto.UINT8):
    """last: sides of a box; kind: the images' type."""
    answers = {
        "boxes": np.array([[[0, 0, 9, 9], [1, 1, 8, 8]]], np.float32)[..., :last],
        "scores": np.array([[0.9, 0.8]], np.float32),
        "labels": np.array([[0, 1]], np.int32),
        "count": np.array([2], np.int32),
    }
    nodes = [
        helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(array))
        for name, array in answers.items()
    ]
    inputs = [helper.make_tensor_value_info(images, kind, ["B", "H", "W", 3])]
    outputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), ["B", *array.shape[1:]]
        )
        for name, array in answers.items()
    ]
    graph = helper.make_graph(nodes, "detector", inputs, outputs)
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    if conventions is not None:
        helper.set_model_props(model, {"conventions": json.dumps(conventions)})
    onnx.save(model, str(path))


WRITE = {"a.onnx": write_onnx, "a.tflite": write_tflite, "model": write_savedmodel}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a sound file of each format."""
    folder = tmp_path_factory.mktemp("sound")
    for name, write in WRITE.items():
        write(folder / name, about(name))
    return folder


@pytest.fixture
def copies(files, tmp_path):
    """A folder of one's own with the sound files, to break them."""
    shutil.copytree(files, tmp_path / "files")
    return tmp_path / "files"


def attach(path, text, **options):
    """Puts conventions at the end of a TFLite file, in place of those there."""
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        start = archive.infolist()[0].header_offset
        os.truncate(path, start)
    with zipfile.ZipFile(path, "a", **options) as archive:
        archive.writestr("conventions.json", text)


def put(path, text):
    """Makes that text the conventions of a file of any format."""
    if path.suffix == ".tflite":
        attach(path, text)
    elif path.suffix == ".onnx":
        model = onnx.load(str(path))
        del model.metadata_props[:]
        helper.set_model_props(model, {"conventions": text})
        onnx.save(model, str(path))
    else:
        (path / "assets.extra" / "conventions.json").write_text(text)


@contextlib.contextmanager
def refused(path, *expected):
    """Asserts a ValueError of one line that begins with the path, in less than 5 s."""
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        yield
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 500
    for part in expected:
        assert part in message
    assert time.perf_counter() - start < 5


def test_sound_files_detect(files):
    for name in NAMES:
        boxes, scores, labels, names = ExportedDetector.load(files / name).detect(IMAGE)
        assert boxes.shape == (2, 4)
        assert sorted(labels) == [0, 1]
        assert sorted(names) == CLASSES
        assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("a.onnx", "onnxruntime", "onnxruntime"),
        ("a.tflite", "ai_edge_litert.interpreter", "ai-edge-litert"),
        ("model", "tensorflow", "tensorflow"),
    ],
)
def test_a_missing_runtime_is_named(name, module, package, files, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {package}$"):
        ExportedDetector.load(files / name)


@pytest.mark.parametrize("name", NAMES)
def test_eight_threads_agree_with_one(name, files):
    detector = ExportedDetector.load(files / name, threads=1)
    images = [np.full([64, 96, 3], value, np.uint8) for value in range(0, 256, 2)]
    expected = [detector.detect(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(detector.detect, images))
    assert len({scores[0] for _, scores, *_ in expected}) == (128 if name == "a.tflite" else 1)
    for theirs, ours in zip(expected, found, strict=True):
        for one, other in zip(theirs[:3], ours[:3], strict=True):
            np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------------------------------------
# Broken conventions, the same for each format
# ------------------------------------------------------------------------------------------------

DEEP = "[" * 10_000 + "]" * 10_000
TEXTS = {
    "empty": ("", "expected JSON, found Expecting value"),
    "no JSON": ("{", "expected JSON, found "),
    "deep": (DEEP, "expected JSON, found it nested too deep"),
    "a list": ("[1]", "expected a JSON object, found [1]"),
    "null": ("null", "expected a JSON object, found None"),
    "an endless number": ('{"version": ' + "1" * 5000 + "}", "expected"),
}
CHANGES = {
    "version": (2, "expected version 1, found 2: take the exported.py of"),
    "classes": ([], "expected a list of different names without control characters, found []"),
    "classes:once": (["cat", "cat"], "a list of different names"),
    "classes:text": ("cat", "a list of different names"),
    "classes:number": (["cat", 1], "a list of different names"),
    "classes:nothing": (["cat", ""], "a list of different names"),
    "classes:escape": (["cat", "\x1b[2J"], "without control characters"),
    "classes:newline": (["cat", "d\nog"], "without control characters"),
    "classes:turned": (["cat", "d\u202eog"], "without control characters"),
    "classes:blank": (["cat", " "], "without control characters"),
    "outputs": ("boxes", "expected "),
    "bits": (17, "null or a whole number from 8 to 16, found 17"),
    "strides": ([8, 16, 32, 64, 0], "a whole number from 1 to 1024"),
    "resize": (None, "resize.kind: expected canvas or short_long, found no such field"),
    "resize.kind": (["canvas"], "expected canvas or short_long, found ['canvas']"),
    "resize.width": (10**9, "expected a whole number from 1 to 16384, found 1000000000"),
    "resize.height": (64.5, "expected a whole number from 1 to 16384, found 64.5"),
    "resize.antialias": (1, "expected true or false, found 1"),
    "anchors": ([], "anchors.sizes: expected 1 to 10 values"),
    "anchors.sizes": ([32, 64], "expected 5 values, each a number above 0"),
    "anchors.ratios": ([0.5, float("nan")], "each a number above 0"),
    "anchors.scales": ([float("inf")], "each a number above 0"),
    "anchors.scales:many": ([1.0] * 101, "1 to 100 values"),
    "anchors.stride": ("other", "expected nominal or grid, found 'other'"),
    "coder.stds": ([1, 1, 1, True], "expected 4 values, each a number above 0"),
    "coder.form": ("polar", "expected center or corner, found 'polar'"),
    "coder.max_log_scale": ("4", "expected null or a number above 0"),
    "detect": ("x", "detect.score_threshold: expected a number from 0 to below 1, found no such"),
    "detect.score_threshold": (1, "from 0 to below 1, found 1"),
    "detect.top_k": (0, "a whole number from 1 to 1e9, found 0"),
    "detect.nms_iou": (-0.1, "a number from 0 to 1, found -0.1"),
    "detect.nms": ("none", "hard or linear or gaussian, found 'none'"),
    "detect.soft_sigma": (-1, "a number above 0"),
    "detect.max_detections": (10**400, "a whole number from 1 to 1e9, found 1000"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", TEXTS)
def test_conventions_that_cannot_be_read(kind, name, copies):
    text, message = TEXTS[kind]
    put(copies / name, text)
    with refused(copies / name, "conventions: ", message):
        ExportedDetector.load(copies / name)


def changed(conventions, field, value):
    """A copy with another value of a dotted field; None: without it."""
    found = copy.deepcopy(conventions)
    *outer, last = field.partition(":")[0].split(".")
    place = found
    for key in outer:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return found


@pytest.mark.parametrize("name", NAMES)
def test_conventions_of_which_a_field_is_wrong_or_missing(name, copies):
    for field, (value, message) in CHANGES.items():
        if field == "outputs" and name == "model":
            message = "expected detections, found 'boxes'"
        put(copies / name, json.dumps(changed(about(name), field, value)))
        with refused(
            copies / name, "conventions: ", field.partition(":")[0].split(".")[0], message
        ):
            ExportedDetector.load(copies / name)
        put(copies / name, json.dumps(changed(about(name), field, None)))
        with refused(copies / name, "conventions: "):
            ExportedDetector.load(copies / name)


def test_what_a_tflite_file_has_besides(copies):
    path = copies / "a.tflite"
    for changes, message in (
        ({"input_size": [64]}, "input_size: expected 2 values"),
        ({"input_size": [64, 90]}, "input_size: expected at least [64, 96], which resize makes"),
        ({"padding": [0, 0, 300]}, "padding: expected 3 values, each a number from 0 to 255"),
        ({"input_size": [64, 128]}, "input images: expected ['float32', 1, 64, 128, 3]"),
        ({"input_size": [30_000, 30_000]}, "input images: expected ['float32', 1, 30000, 30000"),
        ({"classes": ["cat"]}, f"output class_logits: expected ['float32', 1, {ANCHORS}, 1]"),
        ({"strides": [8, 16, 32, 64, 64]}, "output class_logits: expected ['float32', 1, 1170, 2]"),
        ({"strides": [8, 16]}, "conventions: anchors.sizes: expected 2 values, each a number"),
        ({"outputs": "detections"}, "outputs: expected network, found 'detections'"),
    ):
        put(path, json.dumps(about("a.tflite") | changes))
        with refused(path, message):
            ExportedDetector.load(path)


# ------------------------------------------------------------------------------------------------
# Conventions without end: refused before they are read or inflated
# ------------------------------------------------------------------------------------------------


def long_onnx(path):
    """300 million bytes of conventions, which take no place on the disk."""

    def field(number, length):
        digits = [length >> 7 * i & 127 | 128 for i in range(5)]
        return bytes([number << 3 | 2, *digits[:4], digits[4] & 127])

    key = field(1, 11) + b"conventions"
    value = field(2, 300_000_000)
    path.write_bytes(field(14, len(key) + len(value) + 300_000_000) + key + value)
    os.truncate(path, path.stat().st_size + 300_000_000)


def bomb(path):
    attach(path, b" " * 300_000_000, compression=zipfile.ZIP_DEFLATED, compresslevel=1)


def lying_bomb(path):
    """An archive that says that the 300 million bytes inside are 100."""
    bomb(path)
    data = path.read_bytes()
    path.write_bytes(data.replace((300_000_000).to_bytes(4, "little"), bytes([100, 0, 0, 0])))


def many_entries(path):
    """400,000 entries, none of which is the conventions."""
    entry, start = b"PK\x01\x02" + bytes(24) + b"\x01" + bytes(17) + b"x", path.stat().st_size
    end = b"PK\x05\x06" + bytes(4) + b"\xff" * 4
    entries = entry * 400_000
    end += len(entries).to_bytes(4, "little") + start.to_bytes(4, "little") + bytes(2)
    with open(path, "ab") as file:
        file.write(entries + end)


def long_savedmodel(path):
    os.truncate(path / "assets.extra" / "conventions.json", 300_000_000)


@pytest.mark.parametrize(
    ("name", "lengthen"),
    [
        ("a.onnx", long_onnx),
        ("a.tflite", bomb),
        ("a.tflite", lying_bomb),
        ("a.tflite", many_entries),
        ("model", long_savedmodel),
    ],
)
def test_conventions_without_end_are_not_read(name, lengthen, copies):
    lengthen(copies / name)
    tracemalloc.start()
    try:
        with refused(copies / name, "conventions"):
            ExportedDetector.load(copies / name)
        assert tracemalloc.get_traced_memory()[1] < 20 * LONGEST
    finally:
        tracemalloc.stop()


def test_a_file_of_numbers_that_mean_nothing_is_not_read_to_its_end(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x08\x01" * 10_000_000)
    with refused(tmp_path / "a.onnx", "expected an ONNX model"):
        ExportedDetector.load(tmp_path / "a.onnx")


# ------------------------------------------------------------------------------------------------
# Broken files
# ------------------------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def broken_graph(path):
    """The conventions are sound, the network before them is none."""
    text = json.dumps(about(path.name))
    if path.suffix == ".tflite":
        path.write_bytes(b"x" * 1000)
        attach(path, text)
    else:
        model = onnx.load(str(path))
        model.graph.node[0].op_type = "Nonsense"
        onnx.save(model, str(path))


def overwritten(path):
    with open(path, "r+b") as file:
        file.write(b"\xff" * 64)


def without_signature(path):
    conventions = path / "assets.extra" / "conventions.json"
    text = conventions.read_text()
    shutil.rmtree(path)
    tf.saved_model.save(tf.Module(), str(path))
    conventions.parent.mkdir()
    conventions.write_text(text)


def other_signature(path):
    module = tf.Module()
    spec = [tf.TensorSpec([None, 4], tf.float32, name="images")]
    module.f = tf.function(lambda images: {"boxes": images}, spec)
    without_signature(path)
    text = (path / "assets.extra" / "conventions.json").read_text()
    tf.saved_model.save(module, str(path), {"serving_default": module.f})
    (path / "assets.extra").mkdir(exist_ok=True)
    (path / "assets.extra" / "conventions.json").write_text(text)


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def deflated_by_another_method(path):
    attach(path, b"{}", compression=zipfile.ZIP_BZIP2)


def encrypted(path):
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(mark) + at] |= 1
    path.write_bytes(data)


FILES = {
    "onnx empty": ("a.onnx", lambda path: os.truncate(path, 0), "found an empty file"),
    "onnx cut": ("a.onnx", cut, "expected an ONNX model, found a file that is none, or a part"),
    "onnx text": ("a.onnx", lambda path: path.write_text("hello"), "expected an ONNX model"),
    "onnx overwritten": ("a.onnx", overwritten, "expected an ONNX model"),
    "onnx without": ("a.onnx", lambda path: write_onnx(path, None), f"{INSIDE}, found none"),
    "onnx graph": ("a.onnx", broken_graph, "onnxruntime cannot run it: "),
    "onnx input": (
        "a.onnx",
        lambda path: write_onnx(path, about(path.name), images="x"),
        "input images: expected ['uint8', None, None, None, 3] (type and sides) by the "
        "conventions, found only ['x']",
    ),
    "onnx type": (
        "a.onnx",
        lambda path: write_onnx(path, about(path.name), kind=TensorProto.FLOAT),
        "found ['float', None, None, None, 3]",
    ),
    "onnx boxes": (
        "a.onnx",
        lambda path: write_onnx(path, about(path.name), last=3),
        "output boxes: expected [None, None, None, 4]",
    ),
    "onnx folder": ("a.onnx", a_folder, "found a folder without saved_model.pb"),
    "onnx pipe": ("a.onnx", a_pipe, "found a file of another kind"),
    "onnx absent": ("a.onnx", lambda path: path.unlink(), "found no such file"),
    "tflite empty": ("a.tflite", lambda path: os.truncate(path, 0), "found an empty file"),
    "tflite cut": ("a.tflite", cut, f"{INSIDE}, found no sound ZIP archive: File is not a zip"),
    "tflite text": ("a.tflite", lambda path: path.write_text("hello"), INSIDE),
    "tflite graph": ("a.tflite", broken_graph, "ai-edge-litert cannot run it: "),
    "tflite overwritten": ("a.tflite", overwritten, "ai-edge-litert cannot run it: "),
    "tflite bzip2": ("a.tflite", deflated_by_another_method, f"{INSIDE}, found none"),
    "tflite encrypted": ("a.tflite", encrypted, f"{INSIDE}, found no sound ZIP archive"),
    "tflite folder": ("a.tflite", a_folder, "found a folder without saved_model.pb"),
    "savedmodel without": (
        "model",
        lambda path: shutil.rmtree(path / "assets.extra"),
        f"{INSIDE}, found none",
    ),
    "savedmodel graph": (
        "model",
        lambda path: (path / "saved_model.pb").write_bytes(b"\xff" * 100),
        "tensorflow cannot run it: OSError: Cannot parse file",
    ),
    "savedmodel empty": (
        "model",
        lambda path: os.truncate(path / "saved_model.pb", 0),
        "tensorflow cannot run it: ",
    ),
    "savedmodel variables": (
        "model",
        lambda path: shutil.rmtree(path / "variables"),
        "tensorflow cannot run it: FileNotFoundError: ",
    ),
    "savedmodel index": (
        "model",
        lambda path: cut(path / "variables" / "variables.index"),
        "tensorflow cannot run it: ",
    ),
    "savedmodel no signature": (
        "model",
        without_signature,
        "tensorflow cannot run it: KeyError: 'serving_default'",
    ),
    "savedmodel another signature": (
        "model",
        other_signature,
        "input images: expected ['uint8', None, None, None, 3] (type and sides) by the "
        "conventions, found ['float32', None, 4]",
    ),
    "savedmodel no pb": (
        "model",
        lambda path: (path / "saved_model.pb").unlink(),
        "found a folder without saved_model.pb",
    ),
    "another name": ("a.onnx", lambda path: path.rename(path.with_suffix(".pt")), "no such file"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_broken_file_is_named_in_one_line(kind, copies):
    name, break_it, message = FILES[kind]
    break_it(copies / name)
    with refused(copies / name, message):
        ExportedDetector.load(copies / name)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_may_not_be_read_is_named(name, copies):
    path = copies / name
    (path / "saved_model.pb" if path.is_dir() else path).chmod(0)
    (path / "assets.extra" if path.is_dir() else path).chmod(0)
    user = os.geteuid()
    if not user:  # root may read everything
        os.seteuid(65534)
    try:
        with refused(path, "Permission denied"):
            ExportedDetector.load(path)
    finally:
        os.seteuid(user)


def test_a_label_without_a_class_is_refused(copies):
    """A network says nothing of its classes but in what it finds."""
    for name in ("a.onnx", "model"):
        put(copies / name, json.dumps(about(name, classes=["cat"])))
        detector = ExportedDetector.load(copies / name)
        with refused(copies / name, "expected labels of 1 classes, found label 1"):
            detector.detect(IMAGE)


# ------------------------------------------------------------------------------------------------
# Mutations
# ------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 10**9, 10**400, 2**63])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def places(value, path=()):
    """The paths of all items inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


@st.composite
def mutated_conventions(draw, name="a.tflite"):
    found = about(name)
    for _ in range(draw(st.integers(1, 3))):
        *outer, last = draw(st.sampled_from(list(places(found))))
        place = found
        for key in outer:
            place = place[key]
        if draw(st.integers(0, 3)):
            place[last] = draw(VALUES)
        else:
            del place[last]
    return found


def require_a_line_or_detections(path):
    start = time.perf_counter()
    try:
        ExportedDetector.load(path).detect(IMAGE)
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
    assert time.perf_counter() - start < 5


def check_conventions(path, conventions):
    put(path, json.dumps(conventions))
    require_a_line_or_detections(path)


CHANGING = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@given(conventions=mutated_conventions())
@settings(max_examples=50, **CHANGING)
def test_mutated_conventions(conventions, files, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "mutated.tflite"
    shutil.copy(files / "a.tflite", path)
    check_conventions(path, conventions)


@pytest.mark.slow
@given(conventions=mutated_conventions())
@settings(max_examples=1000, **CHANGING)
def test_many_mutated_conventions(conventions, files, tmp_path_factory):
    test_mutated_conventions.hypothesis.inner_test(conventions, files, tmp_path_factory)


def mutate(data, rng):
    """Bytes with some overwritten, cut off, zeroed or repeated."""
    data = bytearray(data)
    kind, start = rng.integers(5), rng.integers(len(data))
    end = start + rng.integers(1, 2000)
    if kind < 2:
        for _ in range(1 if kind else 20):
            data[rng.integers(len(data))] = rng.integers(256)
    elif kind == 2:
        del data[start:]
    elif kind == 3:
        data[start:end] = bytes(len(data[start:end]))
    else:
        data[start:start] = data[start:end]
    return bytes(data)


def check_mutated(files, tmp_path, seeds):
    """Seeds and not hypothesis: a runtime that crashes would do so each time, or never."""
    for seed in seeds:
        name = ("a.onnx", "a.tflite", "a.onnx", "a.tflite", "model")[seed % 5]
        whole, path = files / name, tmp_path / f"{seed}-{name}"
        if name == "model":
            shutil.copytree(whole, path)
            inside = ("saved_model.pb", "variables/variables.index")[seed // 5 % 2]
            whole, broken = whole / inside, path / inside
        else:
            broken = path
        broken.write_bytes(mutate(whole.read_bytes(), np.random.default_rng(seed)))
        require_a_line_or_detections(path)


def test_mutated_files(files, tmp_path):
    check_mutated(files, tmp_path, range(50))


@pytest.mark.slow
def test_many_mutated_files(files, tmp_path):
    check_mutated(files, tmp_path, range(1000, 1300))


def test_the_kinds_are_many():
    assert len(FILES) + len(TEXTS) + len(CHANGES) > 60
    assert Path(exported.__file__).read_text(encoding="utf-8").count("except Exception") == 1
