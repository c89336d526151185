"""Exported files, run in their own runtimes, against the detector they were made from.

Up to two minutes on two cores: tf2onnx takes seconds for each graph, however small.
"""

import contextlib
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

import configs
from configs.schema import Canvas, Model, ShortLong
from core.build import build_model
from core.retinanet import normalize
from data.formats.shapes import CLASSES, make_shapes
from data.images.render import resample
from data.images.resize import fitted_size, padded_size
from deploy import common, exported, savedmodel, tflite
from deploy import onnx as onnx_format
from deploy.common import ExportError
from deploy.exported import VERSION, ExportedDetector
from detector import Detector
from utils import __version__
from utils.files import WriteError

pytest.importorskip("tf2onnx")
pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.full

RULES = {
    "canvas": Canvas(height=64, width=96),
    "plain canvas": Canvas(height=72, width=50, antialias=False),
    "short_long": ShortLong(short=64, long=96),
    "padded": ShortLong(short=64, long=90, antialias=True, rounding="nearest", always_pad=True),
}
TINY = {
    "neck_width": 16,
    "head_width": 16,
    "head_depth": 1,
    "anchors.sizes": (16, 32, 64, 128, 256),
    "detect.max_detections": 60,
}
DATA = "variables.data-00000-of-00001"
SIZES = [(64, 80), (97, 65), (66, 150)]
ALL = [
    "savedmodel",
    "detector.onnx",
    "candidates.onnx",
    "float32.tflite",
    "float16.tflite",
    "int8.tflite",
]
# Largest deviation of boxes, pixels, and of scores, and the share of detections that keep to them:
# where weights are rounded, NMS may choose another of two boxes.
EXACT = (0.05, 2e-3, 1.0)
TOLERANCES = {"float16.tflite": (0.5, 0.01, 0.95), "int8.tflite": (5.0, 0.05, 0.8)}


class Backbone(keras.layers.Layer):
    """Four convolutions, so that conversion is quick."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convs = [
            keras.layers.Conv2D(12, 5, stride, padding="same", name=f"conv{i}")
            for i, stride in enumerate((4, 2, 2, 2))
        ]

    def build(self, shape):
        pass

    def call(self, x, training=False):
        levels = []
        for conv in self.convs:
            x = tf.nn.relu(conv(x))
            levels.append(x)
        return levels[1:]


class PythonBackbone(Backbone):
    """Python code inside: no graph can carry it away."""

    def call(self, x, training=False):
        levels = super().call(x)
        return [tf.ensure_shape(tf.py_function(lambda v: v, [v], v.dtype), v.shape) for v in levels]


class OddBackbone(Backbone):
    """An operation that neither ONNX nor TFLite has."""

    def call(self, x, training=False):
        return [tf.math.special.bessel_j0(level) for level in super().call(x)]


def tiny(changes=None, backbone=Backbone, classes=CLASSES):
    """A detector of random weights whose scores and boxes lie well apart."""
    config = configs.override(Model(backbone=backbone), TINY | (changes or {}), "model.")
    keras.utils.set_random_seed(1)
    model = build_model(config, len(classes), config.detect.precision)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        shape = variable.shape
        spread = 1.3 / np.sqrt(np.prod(shape[:-1])) if len(shape) == 4 else 0.1
        variable.assign(rng.normal(0, spread, shape))
    noise = rng.integers(0, 256, [1, 64, 96, 3]).astype(np.float32)
    for head, name, mean, spread in (
        (model.class_head, "class_logits", -2.5, 1.2),
        (model.box_head, "box_deltas", 0.0, 0.3),
    ):
        conv = head.output_conv
        conv.kernel.assign(conv.kernel * (spread / model(noise)[name].numpy().std()))
        conv.bias.assign(conv.bias * 0)
        conv.bias.assign(conv.bias + (mean - model(noise)[name].numpy().mean()))
    return Detector(model, classes, config)


def write(detector, folder, name):
    """The file of one format; `name` as in ALL."""
    path = folder / name
    if name == "savedmodel":
        savedmodel.write_savedmodel(detector, path)
    elif name.endswith("onnx"):
        onnx_format.write_onnx(detector, path, "outside" if "candidates" in name else "inside")
    else:
        tflite.write_tflite(detector, path, path.stem)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """PNG files, which the pipeline decodes whole, of three sizes."""
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for i, size in enumerate(SIZES):
        root = make_shapes(folder / str(i), 1, 1, image_size=size)
        image = cv2.imread(str(next((root / "JPEGImages").glob("*"))))
        paths.append(folder / f"{i}.png")
        cv2.imwrite(str(paths[-1]), image)
    return paths


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """name -> path of all formats of one detector, and the detector."""
    folder, detector = tmp_path_factory.mktemp("all"), tiny({"resize": RULES["canvas"], "bits": 12})
    return {name: write(detector, folder, name) for name in ALL}, detector


def require_same(found, expected, tolerance=EXACT):
    """Detections of one have one of their class in the other, within the tolerance, but for the
    weakest, which change places with those that are cut off."""
    pixels, score, share = tolerance
    least = max(found[1].min(), expected[1].min()) + 2 * score
    for (boxes, scores, labels), (others, other_scores, other_labels) in (
        (found, expected),
        (expected, found),
    ):
        gaps = abs(boxes[:, None] - others).max(axis=2)
        is_same = (gaps <= pixels) & (abs(scores[:, None] - other_scores) <= score)
        is_same &= labels[:, None] == other_labels
        is_due = scores > least
        assert is_due.sum() >= 5
        assert is_same.any(axis=1)[is_due].mean() >= share


def of_image(table, index):
    rows = table.image == index
    return table.boxes[rows], table.scores[rows], table.labels[rows]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_format_detects_what_the_detector_does(name, files, photos):
    paths, detector = files
    model = ExportedDetector.load(paths[name])
    expected = detector.detect(photos)
    for i, photo in enumerate(photos):
        *found, names = model.detect(photo)
        assert [array.dtype for array in found] == [np.float32, np.float32, np.int32]
        assert names == [CLASSES[label] for label in found[2]]
        assert (np.diff(found[1]) <= 0).all()
        theirs = of_image(expected, i)
        assert len(found[1]) == len(theirs[1]) == 60
        require_same(found, theirs, TOLERANCES.get(name, EXACT))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["plain canvas", "short_long", "padded"])
@pytest.mark.parametrize("name", ["savedmodel", "detector.onnx", "float32.tflite"])
def test_every_resize_rule(name, rule, photos, tmp_path):
    detector = tiny({"resize": RULES[rule]})
    model = ExportedDetector.load(write(detector, tmp_path, name))
    for photo in photos:
        image = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
        side = common.input_size(RULES[rule]) if name.endswith("tflite") else None
        expected = reference(detector, image, side)
        *found, _ = model.detect(image)
        require_same(found, expected)


def reference(detector, image, side=None):
    """Detections of pixels as the pipeline resizes and pads them; side: padded to that instead."""
    rule = detector.config.resize
    content = fitted_size(*image.shape[:2], rule)
    canvas = np.zeros([*(side or padded_size(content, rule)), 3], np.float32)
    canvas[: content[0], : content[1]] = resample(image, content, rule.antialias)
    batch = {
        "images": tf.constant(canvas[None]),
        "sizes": tf.constant(content[None]),
        "scales": tf.constant((content / image.shape[:2])[None, ::-1].astype(np.float32)),
    }
    found = common.candidates(
        detector.model, detector.postprocess, batch, **common._views(detector)
    )
    found = detector.postprocess.suppress(*found, batch)
    count = int(found["counts"][0])
    return tuple(found[name][0, :count].numpy() for name in ("boxes", "scores", "labels"))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(40, 61), (127, 93), (31, 300), (256, 384), (5, 1)])
def test_pixels_in_the_graph_are_those_of_the_pipeline(rule, size):
    """Smoothed ones within a level, and few of them off at all; others within a hundredth."""
    rule, rng = RULES[rule], np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, [*size, 3], np.uint8), (3, 3), 0)
    batch = common.fitted(tf.constant(np.stack([image, image[::-1]])), rule)
    content = fitted_size(*size, rule)
    assert batch["images"].shape == (2, *padded_size(content, rule), 3)
    np.testing.assert_array_equal(batch["sizes"], [content] * 2)
    np.testing.assert_allclose(batch["scales"], [(content / size)[::-1]] * 2, rtol=1e-6)
    expected = resample(image, content, rule.antialias).astype(np.float32)
    gaps = abs(batch["images"][0, : content[0], : content[1]].numpy() - expected)
    assert gaps.max() <= (1 if rule.antialias else 0.02)
    assert gaps.mean() < 0.15
    assert not batch["images"][:, content[0] :].numpy().any()
    assert not batch["images"][:, :, content[1] :].numpy().any()


@pytest.mark.parametrize("rule", RULES)
def test_sizes_in_the_graph_are_those_of_the_pipeline(rule):
    rule = RULES[rule]
    for size in np.random.default_rng(0).integers(1, 5000, [200, 2], np.int32):
        content, padded = common._sizes(tf.constant(size), rule)
        expected = fitted_size(*size, rule)
        np.testing.assert_array_equal(content, expected)
        np.testing.assert_array_equal(padded, padded_size(expected, rule))


@pytest.mark.slow
def test_batches_of_one_and_three_of_any_size(files):
    paths, _ = files
    session = onnxruntime.InferenceSession(paths["detector.onnx"])
    names = [output.name for output in session.get_outputs()]
    model = tf.saved_model.load(str(paths["savedmodel"])).signatures["serving_default"]
    rng = np.random.default_rng(0)
    for size in ((3, 51, 77, 3), (1, 130, 67, 3)):
        images = cv2.blur(rng.integers(0, 256, size, np.uint8).reshape(-1, *size[2:]), (5, 5))
        images = images.reshape(size)
        found = dict(zip(names, session.run(names, {"images": images}), strict=True))
        expected = {name: x.numpy() for name, x in model(images=tf.constant(images)).items()}
        assert set(found) == set(expected) == {"boxes", "scores", "labels", "count"}
        assert found["boxes"].shape == expected["boxes"].shape == (size[0], 60, 4)
        np.testing.assert_array_equal(found["count"], expected["count"])
        np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
        alone = model(images=tf.constant(images[-1:]))
        np.testing.assert_allclose(alone["scores"][0], expected["scores"][-1], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["savedmodel", "detector.onnx"])
def test_views_and_soft_nms_are_inside(name, photos, tmp_path):
    views = {"detect.scales": (0.5, 1.0), "detect.nms": "gaussian"}
    views |= {"detect.flip": True} if name == "savedmodel" else {}
    detector = tiny({"resize": RULES["short_long"]} | views)
    model = ExportedDetector.load(write(detector, tmp_path, name))
    for photo in photos[:2]:
        image = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
        *found, _ = model.detect(image)
        expected = reference(detector, image)
        require_same(found, expected)


@pytest.mark.slow
def test_nothing_found_is_nothing_in_every_format(files, tmp_path):
    paths, _ = files
    for name in ALL:
        model = ExportedDetector.load(paths[name])
        if name in ("savedmodel", "detector.onnx"):
            detector = tiny({"resize": RULES["canvas"], "detect.score_threshold": 0.99999})
            model = ExportedDetector.load(write(detector, tmp_path, name))
        model.conventions["detect"]["score_threshold"] = 0.99999
        boxes, scores, labels, names = model.detect(np.zeros([50, 70, 3], np.uint8))
        assert boxes.shape == (0, 4)
        assert len(scores) == len(labels) == len(names) == 0


def test_conventions_name_the_version_of_the_project():
    about = common.conventions(tiny({"resize": RULES["canvas"]}), "candidates")
    assert (about["version"], about["project_version"]) == (VERSION, __version__)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_file_says_what_it_is(name, files):
    paths, detector = files
    model = ExportedDetector.load(paths[name])
    assert model.classes == CLASSES
    about, config = model.conventions, configs.to_dict(detector.config)
    assert common.conventions(detector, about["outputs"]).items() <= about.items()
    assert about["project_version"] == __version__
    for part in ("resize", "anchors", "coder", "detect", "bits"):
        assert about[part] == json.loads(json.dumps(config[part]))
    kinds = {
        "savedmodel": "detections",
        "detector.onnx": "detections",
        "candidates.onnx": "candidates",
    }
    assert about["outputs"] == kinds.get(name, "network")
    if name == "savedmodel":
        stored = tf.saved_model.load(str(paths[name])).signatures["conventions"]()["json"].numpy()
        assert json.loads(stored) == about
    if name.endswith("tflite"):
        assert about["input_size"] == [64, 96]
        assert about["precision"] == name.removesuffix(".tflite")


@pytest.mark.slow
def test_a_savedmodel_holds_its_weights_once(files):
    paths, detector = files
    weights = sum(variable.numpy().nbytes for variable in detector.model.variables)
    assert weights <= (paths["savedmodel"] / "variables" / DATA).stat().st_size < 1.1 * weights


@pytest.mark.slow
def test_smaller_weights_make_smaller_files(files):
    whole, half, quarter = (files[0][f"{name}.tflite"].stat().st_size for name in (
        "float32", "float16", "int8"))  # fmt: skip
    assert whole > 1.3 * half > 1.3 * quarter


@pytest.mark.parametrize("normalization", ["torch", "caffe"])
def test_the_padding_is_nothing_to_the_network(normalization):
    color = tf.constant([[[common.padding_color(normalization)]]])
    np.testing.assert_allclose(normalize(color, None, normalization), 0, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detector.onnx", "float32.tflite"])
def test_a_copy_of_the_helper_detects_without_tensorflow(name, files, photos, tmp_path):
    shutil.copy(exported.__file__, tmp_path)
    path = shutil.copy(files[0][name], tmp_path)
    code = (
        "import sys; from exported import ExportedDetector as E; "
        f"boxes, scores, *_ = E.load({str(path)!r}).detect({str(photos[0])!r}); "
        "ours = {'tensorflow', 'keras', 'core', 'data', 'utils', 'configs', 'deploy'}; "
        "print(len(boxes), ours & {name.split('.')[0] for name in sys.modules} or 'alone')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["60", "alone"]


# ------------------------------------------------------------------------------------------------
# What is refused
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detect.flip": True}, r"model\.detect\.flip: expected False for TFLite"),
        ({"detect.scales": (0.5, 1)}, r"model\.detect\.scales: expected \(1\.0,\) for TFLite"),
        ({"detect.precision": "mixed_bfloat16"}, "expected 'float32' for TFLite, found 'mixed_bf"),
    ],
)
def test_what_tflite_cannot_hold_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ExportError, match=message):
        tflite.write_tflite(tiny(changes), tmp_path / "a.tflite")
    assert not list(tmp_path.iterdir())


def test_other_refusals(tmp_path, monkeypatch):
    detector = tiny()
    with pytest.raises(ExportError, match="float32, float16, int8 for TFLite, found 'x'"):
        tflite.write_tflite(detector, tmp_path / "a.tflite", "x")
    with pytest.raises(ExportError, match="nms: expected inside or outside, found 'x'"):
        onnx_format.write_onnx(detector, tmp_path / "a.onnx", "x")
    half = tiny({"detect.precision": "mixed_bfloat16"})
    with pytest.raises(ExportError, match=r"precision: expected 'float32' for ONNX, found"):
        onnx_format.write_onnx(half, tmp_path / "a.onnx")
    with pytest.raises(ExportError, match=r"detect\.flip: expected False for ONNX"):
        onnx_format.write_onnx(tiny({"detect.flip": True}), tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ExportError, match=r"tf2onnx.*pip install -r requirements-exp"):
        onnx_format.write_onnx(detector, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["savedmodel", "detector.onnx", "float32.tflite"])
def test_python_in_a_part_of_ones_own_is_refused(name, tmp_path):
    with pytest.raises(ExportError, match=r"^model\.backbone: .* found EagerPyFunc"):
        write(tiny(backbone=PythonBackbone), tmp_path, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detector.onnx", "float32.tflite"])
def test_an_operation_that_a_format_lacks_is_refused(name, tmp_path):
    with pytest.raises(ExportError, match=r"^model\.backbone: cannot be written as") as refused:
        write(tiny(backbone=OddBackbone), tmp_path, name)
    assert "BesselJ0" in str(refused.value)
    assert len(str(refused.value)) < 400
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_savedmodel_replaces_only_a_savedmodel(tmp_path, monkeypatch):
    detector = tiny()
    (tmp_path / "notes").mkdir()
    with pytest.raises(ExportError, match="notes: expected nothing or a SavedModel"):
        savedmodel.write_savedmodel(detector, tmp_path / "notes")
    path = tmp_path / "model"
    savedmodel.write_savedmodel(detector, path)
    (path / "old").touch()
    with monkeypatch.context() as patch:
        patch.setattr(savedmodel, "write_text", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            savedmodel.write_savedmodel(detector, path)
    assert (path / "old").exists()
    savedmodel.write_savedmodel(detector, path)
    assert not (path / "old").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "notes"]


# ------------------------------------------------------------------------------------------------
# Disks that refuse
# ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_files(limit=20_000):
    """Any file that grows beyond so many bytes fails as on a full disk, in C++ too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class NoArchive:
    """In place of Keras' archive: writes nothing."""

    def add_endpoint(self, *args, **kwargs):
        pass

    def write_out(self, *args, **kwargs):
        pass


class QuickArchive(NoArchive):
    """Writes a folder that looks like a SavedModel."""

    def write_out(self, path, **kwargs):
        (Path(path) / "saved_model.pb").touch()


@pytest.mark.slow
def test_two_exports_at_once_into_one_place_both_end_with_a_whole_folder(
    files, tmp_path, monkeypatch
):
    """The second one begins and ends while the first one is half-written."""
    monkeypatch.setattr(keras.export, "ExportArchive", QuickArchive)
    monkeypatch.setattr(common, "require_portable", lambda *args: None)
    path, write_text = tmp_path / "model", savedmodel.write_text

    def is_whole():
        found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
        return found == {"saved_model.pb", "assets.extra/conventions.json"}

    def meanwhile(*args):
        monkeypatch.setattr(savedmodel, "write_text", write_text)
        savedmodel.write_savedmodel(files[1], path)
        assert is_whole()
        write_text(*args)

    monkeypatch.setattr(savedmodel, "write_text", meanwhile)
    savedmodel.write_savedmodel(files[1], path)
    assert is_whole()
    assert list(tmp_path.iterdir()) == [path]


def convert_nothing(paths, monkeypatch):
    """Leaves out tracing and conversion, which take long; a SavedModel is still written."""
    model = onnx.load(paths["detector.onnx"])
    monkeypatch.setattr(tflite, "_converted", lambda *args: bytes(30_000))
    monkeypatch.setattr("tf2onnx.convert.from_function", lambda *args, **kwargs: (model, None))
    monkeypatch.setattr(common, "require_portable", lambda *args: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["savedmodel", "detector.onnx", "float32.tflite"])
def test_a_disk_that_takes_no_more_is_named_and_the_older_file_stays(
    name, files, tmp_path, monkeypatch
):
    convert_nothing(files[0], monkeypatch)
    (shutil.copytree if name == "savedmodel" else shutil.copy)(files[0][name], tmp_path / name)
    if name == "float32.tflite":  # before it a SavedModel is written elsewhere, see below
        monkeypatch.setattr(keras.export, "ExportArchive", NoArchive)
    with small_files(), pytest.raises(WriteError, match=r"cannot be written: .*large") as caught:
        write(files[1], tmp_path, name)
    assert str(caught.value).startswith(f"{tmp_path / name}")
    assert "\n" not in str(caught.value)
    assert ".part-" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(ExportedDetector.load(tmp_path / name).detect(np.zeros([9, 9, 3], np.uint8))) == 4


@pytest.mark.slow
def test_a_temporary_folder_that_takes_no_more_is_named(files, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tflite.tempfile, "tempdir", str(tmp_path / "temporary"))
    with small_files(), pytest.raises(WriteError, match=r"cannot be written: .*large") as caught:
        write(files[1], tmp_path / "out", "float32.tflite")
    assert str(caught.value).startswith(f"{tmp_path / 'temporary'}")
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["savedmodel", "detector.onnx", "float32.tflite"])
def test_what_is_in_the_way_is_named(name, files, tmp_path, monkeypatch):
    convert_nothing(files[0], monkeypatch)
    monkeypatch.setattr(keras.export, "ExportArchive", NoArchive)
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="a file is in the place of a folder") as caught:
        write(files[1], tmp_path / "file", name)
    assert str(caught.value).startswith(f"{tmp_path / 'file' / name}: ")
    (tmp_path / name).mkdir()
    error = ExportError if name == "savedmodel" else WriteError
    with pytest.raises(error) as caught:
        write(files[1], tmp_path, name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", name])


def test_what_exported_py_would_refuse_is_not_written(tmp_path):
    detector = tiny()
    detector.classes = ("circle", "two\nlines")
    for name in ("savedmodel", "detector.onnx", "float32.tflite"):
        with pytest.raises(ExportError, match=r"^exported\.py could .*classes: expected"):
            write(detector, tmp_path, name)
    assert not list(tmp_path.iterdir())
