"""Weights and their conventions on disk, and what a config may say beside them."""

import json
import re

import numpy as np
import pytest

from configs import preset
from configs.checked import ConfigError, to_dict
from configs.schema import Anchors, Canvas, Coder, Detect, Model, ShortLong
from core.build import build_model
from core.weights.npz_files import OF_BACKBONE, Weights, stated
from core.weights.torch_and_keras_files import WeightsError
from detector import Detector
from utils.checkpoints import Checkpoint, CheckpointError, save_checkpoint

pytestmark = pytest.mark.full

SMALL = {"backbone": "resnet18", "neck_width": 16, "head_width": 16, "head_depth": 1}
CAFFE = Model(
    **SMALL,
    normalization="caffe",
    same_padding=("pool1", "p6", "p7"),
    bn_mode="frozen",
    anchors=Anchors(center_offset=0.0),
    coder=Coder(form="corner", stds=(0.2, 0.2, 0.2, 0.2)),
    resize=ShortLong(320, 480),
    detect=Detect(max_detections=300),
)


@pytest.fixture(scope="module")
def weights():
    model = build_model(CAFFE, 2)
    arrays = {v.path.split("/", 1)[1]: v.numpy() for v in model.variables}
    stated_model = stated("model", to_dict(CAFFE))
    return Weights("there.npz", arrays, stated_model, ("cat", "dog"), {"file": "there.h5"})


def backbone_of(weights):
    arrays = {place: a for place, a in weights.arrays.items() if place.startswith("backbone/")}
    return Weights("there.npz", arrays, stated("backbone", to_dict(CAFFE)))


def test_a_detector_comes_back_and_detects(weights, tmp_path):
    weights.save(tmp_path / "weights.npz")
    back = Weights.load(tmp_path)
    assert back.kind == "model"
    assert back.model == CAFFE
    assert back.classes == ("cat", "dog")
    assert back.origin == {"file": "there.h5"}
    assert list(back.arrays) == list(weights.arrays)
    for place, array in weights.arrays.items():
        np.testing.assert_array_equal(back.arrays[place], array)
    detector = Detector.load(tmp_path)
    assert detector.config == CAFFE
    for variable in detector.model.variables:
        place = variable.path.split("/", 1)[1]
        np.testing.assert_array_equal(variable.numpy(), weights.arrays[place])


def test_a_run_is_read_like_an_import(weights, tmp_path):
    Detector(build_model(CAFFE, 2), ("cat", "dog"), CAFFE).save(tmp_path / "checkpoints/best.npz")
    run = Weights.load(tmp_path)
    assert run.arrays.keys() == weights.arrays.keys()
    assert run.model == CAFFE
    assert run.model.given == weights.model.given


def test_what_a_run_started_from_does_not_travel(weights, tmp_path):
    config = Model(**to_dict(CAFFE) | {"weights": "coco", "aliases": {"cat": "kitten"}})
    Detector(build_model(config, 2), ("cat", "dog"), config).save(tmp_path / "last.npz")
    settled = Weights.load(tmp_path / "last.npz").settle(Model(weights=str(tmp_path)))
    assert settled.weights == str(tmp_path)
    assert settled.aliases == {}


def test_a_backbone_comes_back_and_is_no_detector(weights, tmp_path):
    backbone_of(weights).save(tmp_path / "weights.npz")
    back = Weights.load(tmp_path)
    assert back.kind == "backbone"
    assert back.classes == ()
    assert back.model.given == set(OF_BACKBONE)
    assert {name: getattr(back.model, name) for name in OF_BACKBONE} == {
        name: getattr(CAFFE, name) for name in OF_BACKBONE
    }
    with pytest.raises(CheckpointError, match="no conventions of a detector inside"):
        Detector.load(tmp_path)


def test_what_a_config_leaves_open_is_as_the_weights_need_it(weights):
    settled = weights.settle(Model(weights="there.npz"))
    assert to_dict(settled) == to_dict(CAFFE) | {"weights": "there.npz"}
    only = backbone_of(weights).settle(Model(neck_width=64, coder=Coder(form="center")))
    assert only == Model(
        **{name: getattr(CAFFE, name) for name in OF_BACKBONE},
        neck_width=64,
        coder=Coder(form="center"),
    )


def test_a_group_is_left_open_field_by_field(weights):
    settled = weights.settle(Model(anchors=Anchors(sizes=(16.0, 32.0, 64.0, 128.0, 256.0))))
    assert settled.anchors.sizes[0] == 16
    assert settled.anchors.center_offset == 0, "of the weights"
    assert weights.settle(Model(resize=Canvas(64, 64))).resize == Canvas(64, 64), "of another kind"


@pytest.mark.parametrize(
    ("settings", "name", "needed", "said"),
    [
        ({"normalization": "torch"}, "normalization", "'caffe'", "'torch'"),
        ({"p6_from": "p5"}, "p6_from", "'c5'", "'p5'"),
        ({"bn_epsilon": 1e-3}, "bn_epsilon", "1e-05", "0.001"),
        ({"backbone": "resnet50"}, "backbone", "'resnet18'", "'resnet50'"),
        ({"same_padding": ()}, "same_padding", "['pool1', 'p6', 'p7']", "[]"),
        ({"coder": Coder(form="center")}, "coder.form", "'corner'", "'center'"),
        ({"neck_width": 256}, "neck_width", "16", "256"),
        ({"head_norm": "group", "head_width": 32}, "head_width", "16", "32"),
    ],
)
def test_what_a_config_says_otherwise_is_refused_both_named(weights, settings, name, needed, said):
    """Also where it says what would be the default: it was said."""
    message = f"model.{name}: the weights there.npz need {needed}, the config says {said}"
    with pytest.raises(ConfigError, match=re.escape(message)):
        weights.settle(Model(**settings))


def test_the_backbone_alone_says_nothing_of_the_heads(weights):
    backbone_of(weights).settle(Model(head_width=128, coder=Coder(stds=(0.1, 0.1, 0.2, 0.2))))
    with pytest.raises(ConfigError, match=r"model.normalization: .* 'caffe', .* 'torch'"):
        backbone_of(weights).settle(Model(normalization="torch"))


def test_what_training_changes_may_differ(weights):
    free = {"bn_mode": "live", "prior": 0.02, "detect": Detect(max_detections=5)}
    settled = weights.settle(Model(**free))
    assert (settled.bn_mode, settled.prior, settled.detect.max_detections) == ("live", 0.02, 5)


def test_presets_say_only_what_they_hold():
    """So that weights may settle the rest of a preset."""
    config = preset("voc", {"model.weights": "coco", "model.anchors.scales": (1.0,)})
    assert config.model.given == {"backbone", "resize", "weights", "anchors"}
    assert config.model.anchors.given == {"scales"}
    assert config.train.given == preset("voc").train.given


def test_a_file_without_conventions_is_refused(tmp_path):
    save_checkpoint(tmp_path / "a.npz", {"model": []}, {"progress": {}})
    with pytest.raises(WeightsError, match=r"a\.npz: expected weights with their conventions"):
        Weights.load(tmp_path / "a.npz")
    arrays = {"backbone/conv1/kernel": np.zeros(3)}
    for state in ({"backbone": 3}, {"backbone": None}, {"model": {}, "classes": ["a"]}):
        save_checkpoint(tmp_path / "a.npz", {"backbone": arrays}, state)
        with pytest.raises(WeightsError, match=r"a\.npz: expected weights with their conv"):
            Weights.load(tmp_path / "a.npz")
    save_checkpoint(tmp_path / "a.npz", {"backbone": arrays}, {"backbone": {"bn_epsilon": "x"}})
    with pytest.raises(WeightsError, match=r"a\.npz: Model\.bn_epsilon: expected a number"):
        Weights.load(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="expected a run, imported weights or a checkpoint"):
        Weights.load(tmp_path)


def test_conventions_are_json(weights, tmp_path):
    weights.save(tmp_path / "weights.npz")
    assert json.loads(json.dumps(to_dict(Weights.load(tmp_path).model)))


def test_aliases_need_classes_to_point_to(weights):
    with pytest.raises(ConfigError, match=r"model\.aliases: .* there\.npz are of a backbone"):
        backbone_of(weights).settle(Model(weights="imagenet", aliases={"cat": "kitten"}))


def test_aliases_need_class_outputs_that_fit(weights):
    """With another number of anchors a cell they start afresh, whatever class is another's."""
    fewer = {"aliases": {"cat": "kitten"}, "anchors": Anchors(ratios=(1.0,))}
    message = r"model\.aliases: .* \d anchors a cell, a model with 3 takes no class outputs"
    with pytest.raises(ConfigError, match=message):
        weights.settle(Model(weights="coco", **fewer))
    del fewer["aliases"]
    assert weights.settle(Model(weights="coco", **fewer)).anchors.ratios == (1.0,)


def test_all_contradictions_are_told_at_once(weights):
    with pytest.raises(ConfigError) as caught:
        weights.settle(Model(neck_width=64, normalization="torch"))
    assert "model.neck_width: the weights there.npz need 16, the config says 64" in str(
        caught.value
    )
    assert "model.normalization: " in str(caught.value)
    assert "leave it out of config and preset" in str(caught.value)


def test_fields_that_do_not_go_together_name_the_weights(weights):
    with pytest.raises(ConfigError, match=r"there\.npz need: ShortLong\.long: expected at least"):
        weights.settle(Model(resize=ShortLong(short=600)))


def test_a_checkpoint_from_before_a_setting_came_still_loads(weights, tmp_path):
    weights.save(tmp_path / "weights.npz")
    state = Checkpoint(tmp_path / "weights.npz").state
    for name in ("weights", "aliases", "head_norm"):
        del state["model"][name]
    del state["model"]["resize"]["rounding"]
    save_checkpoint(tmp_path / "old.npz", {"model": weights.arrays}, state)
    assert Detector.load(tmp_path / "old.npz").config == CAFFE
    assert Weights.load(tmp_path / "old.npz").settle(Model()) == CAFFE


def test_changes_are_laid_over_the_conventions(weights, tmp_path):
    weights.save(tmp_path / "weights.npz")
    changed = Detector.load(tmp_path, changes={"detect.max_detections": 7, "resize.short": 300})
    assert changed.config.detect.max_detections == 7
    assert changed.config.resize == ShortLong(300, 480)
    with pytest.raises(ConfigError, match=r"model\.normalization: .* trained with 'caffe'"):
        Detector.load(tmp_path, changes={"normalization": "torch"})
