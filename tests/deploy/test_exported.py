"""The file that travels with an exported model: its conventions are those of core and data."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import override, to_dict
from configs.schema import Canvas, Model, ShortLong
from core.build import build_postprocess
from data.images.render import resample
from data.images.resize import fitted_size
from deploy import exported

pytestmark = pytest.mark.full

RULES = [
    Canvas(height=64, width=96),
    Canvas(height=50, width=47, antialias=False),
    ShortLong(short=40, long=90),
    ShortLong(short=40, long=60, antialias=True, rounding="nearest", always_pad=True),
]
ANCHORS = [
    {},
    {"anchors.stride": "grid", "anchors.rounding": True, "anchors.center_offset": 0.0},
    {"anchors.sizes": (12.5, 20, 41, 80, 161), "anchors.ratios": (0.3, 1.7)},
]
CODERS = [
    {},
    {"coder.form": "corner", "coder.stds": (0.2, 0.2, 0.1, 0.3)},
    {"coder.max_log_scale": None, "coder.stds": (0.1, 0.1, 0.2, 0.2)},
    {"coder.max_log_scale": 0.5},
]
SIZE = (100, 75)  # no multiple of any stride


def made(changes):
    """The config's model with `changes`, its postprocessing and its conventions as exported."""
    model = override(Model(), changes)
    about = to_dict(model) | {"strides": [8, 16, 32, 64, 128]}
    return build_postprocess(model), json.loads(json.dumps(about))


@pytest.mark.parametrize("changes", ANCHORS)
@pytest.mark.parametrize("size", [SIZE, (64, 128), (33, 1)])
def test_anchors_are_those_of_the_core(changes, size):
    postprocess, about = made(changes)
    found, counts = exported.make_anchors(*size, about), exported.count_anchors(*size, about)
    assert counts == list(postprocess.anchors.level_counts(*size))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, postprocess.anchors(*size), atol=2e-5)


@pytest.mark.parametrize("changes", CODERS)
def test_boxes_are_decoded_as_by_the_core(changes):
    postprocess, about = made(changes)
    anchors = exported.make_anchors(*SIZE, about)
    deltas = np.random.default_rng(0).normal(0, 3, anchors.shape).astype(np.float32)
    expected = postprocess.coder.decode(tf.constant(deltas), tf.constant(anchors)).numpy()
    found = exported.decode(deltas, anchors, about["coder"])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("rule", RULES)
@given(height=st.integers(1, 3000), width=st.integers(1, 3000))
@settings(max_examples=60, deadline=None)
def test_sizes_are_those_of_the_pipeline(rule, height, width):
    found = exported.fitted_size(height, width, to_dict(rule))
    np.testing.assert_array_equal(found, fitted_size(height, width, rule))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(40, 61), (127, 93), (31, 300)])
def test_pixels_are_those_of_the_pipeline_and_padding_is_coloured(rule, size):
    image = np.random.default_rng(0).integers(0, 256, [*size, 3], np.uint8)
    about = {"resize": to_dict(rule), "input_size": [128, 128], "padding": [1.5, 2.5, 3.5]}
    pixels, content = exported.fit(image, about)
    expected = resample(image, fitted_size(*size, rule), rule.antialias)
    assert content.tolist() == list(expected.shape[:2])
    assert pixels.shape == (128, 128, 3)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels[: content[0], : content[1]], expected)
    assert (pixels[content[0] :] == [1.5, 2.5, 3.5]).all()
    assert (pixels[:, content[1] :] == [1.5, 2.5, 3.5]).all()


def network_outputs(about, num_classes, seed=0):
    rng = np.random.default_rng(seed)
    count = sum(exported.count_anchors(*SIZE, about))
    logits = rng.normal(-2, 2, [count, num_classes]).astype(np.float32)
    return logits, rng.normal(0, 0.5, [count, 4]).astype(np.float32)


def ours(about, logits, deltas):
    """Detections in pixels of an input that is its image."""
    anchors, counts = exported.make_anchors(*SIZE, about), exported.count_anchors(*SIZE, about)
    index, scores, labels = exported.best_of_levels(logits, counts, about["detect"])
    boxes = exported.decode(deltas[index], anchors[index], about["coder"])
    boxes = np.clip(boxes, 0, [SIZE[1], SIZE[0]] * 2).astype(np.float32)
    kept, scores = exported.suppress(boxes, scores, labels, about["detect"])
    return boxes[kept], scores, labels[kept]


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"detect.top_k": 7, "detect.nms_iou": 0.3},
        {"detect.score_threshold": 0.0, "detect.top_k": 40},
        {"detect.nms": "linear", "detect.nms_iou": 0.3},
        {"detect.nms": "gaussian", "detect.soft_sigma": 0.7, "detect.score_threshold": 0.2},
        {"detect.max_detections": 5},
    ],
)
def test_the_same_detections_as_by_the_core(changes, num_classes):
    postprocess, about = made(changes)
    logits, deltas = network_outputs(about, num_classes)
    batch = {
        "images": tf.zeros([1, *SIZE, 3]),
        "sizes": tf.constant([SIZE]),
        "scales": tf.ones([1, 2]),
    }
    expected = postprocess(
        {"class_logits": tf.constant(logits[None]), "box_deltas": tf.constant(deltas[None])}, batch
    )
    boxes, scores, labels = ours(about, logits, deltas)
    count = int(expected["counts"][0])
    assert len(scores) == count > 4
    np.testing.assert_allclose(scores, expected["scores"][0, :count], atol=1e-5)
    np.testing.assert_array_equal(labels, expected["labels"][0, :count])
    np.testing.assert_allclose(boxes, expected["boxes"][0, :count], atol=1e-3)


def test_nothing_found():
    _, about = made({})
    logits, deltas = network_outputs(about, 3)
    boxes, scores, labels = ours(about, logits - 100, deltas)
    assert boxes.shape == (0, 4)
    assert len(scores) == len(labels) == 0


def test_overlaps_by_hand():
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6], [1, 1, 1, 1]], np.float32)
    np.testing.assert_allclose(exported.overlaps(boxes[0], boxes), [1, 1 / 3, 0, 0])
    np.testing.assert_array_equal(exported.overlaps(boxes[3], boxes[3:]), [0])


def test_the_file_stands_alone(tmp_path):
    """Copied away it is imported with NumPy and OpenCV alone, neither ours nor TensorFlow."""
    (tmp_path / "exported.py").write_text(Path(exported.__file__).read_text(encoding="utf-8"))
    code = (
        "import sys, exported; tops = {name.split('.')[0] for name in sys.modules}; "
        "print(sorted(tops & {'tensorflow', 'keras', 'PIL', 'core', 'data', 'utils', 'configs'}), "
        "exported.__file__)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert found.split() == ["[]", str(tmp_path / "exported.py")]
