"""What the importers say of files by their publishers' code, held against PARITY by hand."""

import pytest

from configs.schema import Anchors, Coder, ShortLong
from core.weights.formats import keras_retinanet, torchvision, yhenon
from core.weights.formats.coco import COCO_80, COCO_91

pytestmark = pytest.mark.quick

COUNTED = frozenset({"backbone.body.bn1.num_batches_tracked"})
GROUPED = {"class_head/norm0/gamma": None}


@pytest.mark.parametrize(
    ("arrays", "listed", "mode", "epsilon"),
    [
        ({}, frozenset(), "frozen", 0.0),  # as the published v1
        ({}, COUNTED, "live", 1e-5),  # v1 trained by oneself with batch norm that is not frozen
        (GROUPED, COUNTED, "live", 1e-5),  # v2
        (GROUPED, frozenset(), "live", 1e-5),
    ],
)
def test_batch_norm_of_torchvision(arrays, listed, mode, epsilon):
    model = torchvision.RETINANET.conventions(arrays, listed)
    assert (model.bn_mode, model.bn_epsilon) == (mode, epsilon)


def test_torchvision():
    model = torchvision.RETINANET.conventions({}, frozenset())
    assert model.anchors == Anchors(center_offset=0.0, stride="grid", rounding=True)
    assert model.coder.stds == (1, 1, 1, 1)
    assert model.resize == ShortLong(800, 1333, 32)
    assert (model.detect.top_k, model.detect.max_detections) == (1000, 300)


def test_yhenon():
    model = yhenon.RETINANET.conventions
    assert model.coder == Coder(stds=(0.1, 0.1, 0.2, 0.2), max_log_scale=None)
    assert (model.resize.short, model.resize.long, model.resize.always_pad) == (608, 1024, True)
    assert model.anchors == Anchors()


def test_keras_retinanet():
    model = keras_retinanet.RETINANET.conventions({}, frozenset())
    assert (model.normalization, model.bottleneck_stride) == ("caffe", "1x1")
    assert (model.coder.form, model.coder.stds) == ("corner", (0.2,) * 4)
    assert model.same_padding == ("pool1", "p6", "p7")


def test_names_of_coco():
    """By places that are known by heart: category ids 1, 13, 44 and 90."""
    assert [COCO_91[i] for i in (1, 13, 44, 90)] == ["person", "stop sign", "bottle", "toothbrush"]
    assert [COCO_80[i] for i in (0, 11, 39, 79)] == ["person", "stop sign", "bottle", "toothbrush"]
    assert [name for name in COCO_91 if not name.startswith("unused ")] == list(COCO_80)
    assert len(set(COCO_91)) == 91
