"""Settings that cannot be are refused with a message that says which, what was expected, found."""

import ast
import dataclasses
import json
import math
import pickle

import pytest

from configs import PRESETS, Config, ConfigError, adopt, from_dict, override, preset, to_dict
from configs.checked import assignment, completed
from configs.schema import (
    Anchors,
    Canvas,
    Cosine,
    Exponential,
    FullPhase,
    Model,
    Phase,
    ShortLong,
    Step,
    Train,
)

pytestmark = pytest.mark.full


def refused(changes):
    """The message with which `changes` of the shapes preset are refused."""
    with pytest.raises(ConfigError) as caught:
        preset("shapes", changes)
    return str(caught.value)


def through_json(config):
    return from_dict(type(config), json.loads(json.dumps(to_dict(config))))


def dotted(values, prefix=""):
    """The dotted names of all fields of a nested dict, groups included."""
    for key, value in values.items():
        if key != "kind":
            yield prefix + key
            if isinstance(value, dict):
                yield from dotted(value, f"{prefix}{key}.")


def my_part():
    """Stands for a backbone, a neck or a schedule of the user's own."""


# ------------------------------------------------------------------------------------------------
# What is refused
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", list(dotted(to_dict(preset("shapes")))))
def test_every_field_refuses_what_is_none_of_its_types(field):
    """No field takes just anything, and each is named in full."""
    message = refused({field: {1: 2}.items()})
    assert message.startswith(f"{field}: expected ")
    assert message.endswith("found dict_items([(1, 2)])")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("name", 3, "a string"),
        ("data.root", None, "a string"),
        ("data.limit", 1.0, "a whole number"),
        ("data.limit", True, "a whole number"),  # bool is no int, though Python says so
        ("data.cache", 1, "True or False"),
        ("data.cache", "yes", "True or False"),
        ("data.augment.flip", "0.5", "a number"),
        ("data.augment.flip", False, "a number"),
        ("data.augment.hue", math.nan, "a number"),
        ("train.learning_rate", math.inf, "a number"),
        ("train.learning_rate", math.nan, "a number"),
        ("train.epochs", "many", "a whole number or None"),
        ("train.epochs", True, "a whole number or None"),
        ("train.clip_norm", math.nan, "a number or None"),
        ("loss.alpha", "none", "a number or None"),
        ("data.augment.zoom", (0.5, 1, 2), "(a number, a number)"),
        ("model.coder.stds", (1, 1), "(a number, a number, a number, a number)"),
        ("data.classes", None, "a list of (a string)"),
        ("model.resize", 416, "'canvas' or 'short_long'"),
        ("train.schedule", 3, "'constant' or 'cosine' or 'step'"),
    ],
)
def test_wrong_type(field, value, expected):
    message = refused({field: value})
    assert message.startswith(f"{field}: expected {expected}")
    assert message.endswith(f"found {value!r}")


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("data.classes", ("cat", 3), "data.classes[1]: expected a string, found 3"),
        ("data.augment.zoom", (0.5, "big"), "data.augment.zoom[1]: expected a number, found 'big'"),
        ("model.anchors.sizes", "32,64", "model.anchors.sizes[0]: expected a number, found '32'"),
        ("train.freeze", "backbone,nek", "train.freeze[1]: expected one of 'backbone', 'neck', "),
        ("train.phases", [3], "train.phases[0]: expected Phase, found 3"),
    ],
)
def test_an_element_of_a_list_is_named_by_its_place(field, value, where):
    assert refused({field: value}).startswith(where)


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("evaluate.metric", ("auto", "voc", "coco", "crowdhuman")),
        ("data.on_bad_annotation", ("error", "drop")),
        ("model.backbone", ("resnet18", "resnet50", "resnet152", "a callable of your own")),
        ("model.bottleneck_stride", ("3x3", "1x1")),
        ("model.bn_mode", ("live", "frozen_stats", "frozen")),
        ("model.neck", ("fpn", "a callable of your own")),
        ("model.p6_from", ("c5", "p5")),
        ("model.normalization", ("torch", "caffe")),
        ("model.anchors.stride", ("nominal", "grid")),
        ("model.coder.form", ("center", "corner")),
        ("model.resize", ("canvas", "short_long")),
        ("matcher", ("iou", "atss")),
        ("loss.box", ("smooth_l1", "l1", "giou", "diou", "ciou")),
        ("loss.normalization", ("batch", "image")),
        ("train.optimizer", ("sgd", "adam", "adamw", "a callable of your own")),
        ("train.schedule", ("constant", "cosine", "step", "polynomial", "exponential")),
        ("train.precision", ("float32", "mixed_float16", "mixed_bfloat16")),
        ("data.csv.delimiter", ("comma", "tab", "blank")),
        ("data.person_box", ("full", "visible")),
        ("evaluate.ap", ("area", "11point")),
    ],
)
def test_wrong_choice_lists_the_choices(field, choices):
    message = refused({field: "nonesuch"})
    assert message.startswith(f"{field}: expected ")
    assert all(choice in message for choice in choices)
    assert message.endswith("found 'nonesuch'")


SHARES = ("iou_crop", "blur", "jpeg", "cutout")
IMPOSSIBLE = [
    ("data.limit", -1, 0),
    ("data.val_fraction", 0.0, 0.2),
    ("data.val_fraction", 1.0, 0.2),
    ("data.classes", ("cat", "cat"), ("cat", "dog")),
    ("data.augment.flip", 1.01, 1.0),
    ("data.augment.vertical_flip", -0.1, 0.0),
    ("data.augment.min_visibility", 1.5, 0.25),
    ("data.augment.brightness", -0.1, 0.0),
    ("data.augment.contrast", 1.1, 1.0),
    ("data.augment.saturation", 1.1, 1.0),
    ("data.augment.hue", 0.51, 0.5),
    ("data.augment.zoom", (0.0, 1.0), (0.1, 1.0)),
    ("data.augment.zoom", (1.2, 0.8), (0.8, 0.8)),
    *((f"data.augment.{name}", 1.1, 1.0) for name in SHARES),
    *((f"data.augment.{name}", -0.1, 0.0) for name in SHARES),
    ("data.augment.rotate", 181, 180.0),
    ("data.augment.rotate", -1, 0.0),
    ("data.augment.shear", 31, 30.0),
    ("data.augment.translate", 1.0, 0.99),
    ("data.augment.translate", -0.1, 0.0),
    ("data.augment.canvas_scales", (), (0.5, 1.0)),
    ("data.augment.canvas_scales", (1.0, 1.0), (1.5,)),
    ("data.mixing.mixup", 1.1, 1.0),
    ("data.mixing.cutmix", -0.1, 0.0),
    ("data.mixing.mosaic", 1.1, 1.0),
    ("data.mixing.mixup_alpha", 0.0, 1.5),
    ("data.mixing.cutmix_alpha", -1.0, 1.0),
    ("data.mixing.closing_epochs", -1, 0),
    ("model.bn_epsilon", -1e-9, 0.0),
    ("model.neck_width", 0, 1),
    ("model.head_width", 0, 1),
    ("model.head_depth", -1, 0),
    ("model.prior", 0.0, 0.5),
    ("model.prior", 1.0, 0.5),
    ("model.resize.height", 31, 32),
    ("model.resize.width", 31, 32),
    ("model.anchors.sizes", (32, 64, 128, 256), (1, 2, 3, 4, 5)),
    ("model.anchors.sizes", (0, 64, 128, 256, 512), (1, 2, 3, 4, 5)),
    ("model.anchors.ratios", (), (1,)),
    ("model.anchors.scales", (1, -1), (1,)),
    ("model.anchors.center_offset", 1.5, 1.0),
    ("model.coder.stds", (0, 1, 1, 1), (0.1, 0.1, 0.2, 0.2)),
    ("model.detect.score_threshold", 1.0, 0.0),
    ("model.detect.nms_iou", 1.1, 1.0),
    ("model.detect.top_k", 0, 1),
    ("model.detect.soft_sigma", 0.0, 0.5),
    ("model.detect.soft_sigma", 0.4, 0.5),  # only gaussian has one
    ("model.detect.scales", (), (1.5,)),
    ("model.detect.scales", (1.0, 1.0), (0.1, 1.0)),
    ("model.detect.scales", (0.09, 1.0), (1.0, 10.0)),
    ("model.detect.scales", (1.0, 10.1), (1.0, 2.0)),
    ("model.detect.max_detections", 0, 1),
    ("matcher.positive_iou", 0.0, 1.0),
    ("matcher.negative_iou", 0.6, 0.5),  # not above positive_iou
    ("loss.alpha", 1.0, None),
    ("loss.gamma", -1, 0),
    ("loss.beta", 0, 1 / 9),
    ("loss.box_weight", -1, 0),
    ("train.epochs", 0, 1),
    ("train.batch_size", 0, 1),
    ("train.learning_rate", 0, 1e-9),
    ("train.warmup_steps", -1, 0),
    ("train.validate_every", -1, 0),
    ("train.early_stopping", -1, 0),
    ("train.sample_pictures", -1, 0),
    ("train.momentum", 1.0, 0.9),
    ("train.weight_decay", -0.1, 0.0),
    ("train.clip_norm", 0, None),
    ("data.repeat_threshold", -0.1, 0.0),
    ("data.repeat_threshold", 1.1, 1.0),
    ("train.accumulate", 0, 1),
    ("train.backbone_rate", 0, 1e-9),
    ("train.backbone_rate", 1.1, 1.0),
    ("train.ema", 0, None),
    ("train.ema", 1, 0.9999),
    ("train.log_every", 0, 1),
    ("train.seed", 2**31, 2**31 - 1),
    ("train.seed", -1, 0),
    ("evaluate.iou_thresholds", (), (1.0,)),
    ("evaluate.iou_thresholds", (0.5, 1.5), (0.5, 1.0)),
    ("evaluate.batch_size", 0, 1),
    ("name", "", "a"),
    ("name", "a/b", "a-b"),
    ("name", "..", "v1.0"),
]


@pytest.mark.parametrize(("field", "wrong", "right"), IMPOSSIBLE)
def test_impossible_value(field, wrong, right):
    """The value beyond the border is refused, the one on it or just inside is taken."""
    message = refused({field: wrong})
    assert message.startswith(f"{field}: expected ")
    found = preset("shapes", {field: right})
    for part in field.split("."):
        found = getattr(found, part)
    assert found == right
    shown = ast.literal_eval(message.rsplit("found ", 1)[1])
    assert shown == wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.resize": "short_long", "model.resize.long": 700},
            "model.resize.long: expected at least short = 800, at most 16384, found 700",
        ),
        (
            {"model.resize": "short_long", "model.resize.multiple": 0},
            "model.resize.multiple: expected 1 to 1024, found 0",
        ),
        (
            {"matcher": "atss", "matcher.top_k": 0},
            "matcher.top_k: expected 1 to 10000, found 0",
        ),
        (
            {"model.detect.nms": "linear", "model.detect.soft_sigma": 0.4},
            "model.detect.soft_sigma: expected the default, 0.5, unless nms is gaussian, found 0.4",
        ),
        (
            {"model.detect.nms": "gaussian", "model.detect.nms_iou": 0.4},
            "model.detect.nms_iou: expected the default, 0.5, unless nms is hard or linear, "
            "found 0.4",
        ),
        (
            {"model.detect.nms": "gaussian", "model.detect.soft_sigma": -0.4},
            "model.detect.soft_sigma: expected above 0, up to 1000, found -0.4",
        ),
        (
            {"train.schedule": "step", "train.schedule.at": (0.9, 0.5)},
            "train.schedule.at: expected rising shares between 0 and 1, found (0.9, 0.5)",
        ),
        (
            {"train.schedule": "step", "train.schedule.at": ()},
            "train.schedule.at: expected rising shares between 0 and 1, found ()",
        ),
        (
            {"train.schedule": "step", "train.schedule.factor": 0},
            "train.schedule.factor: expected above 0, up to 1000, found 0.0",
        ),
        (
            {"train.schedule": "polynomial", "train.schedule.power": 0},
            "train.schedule.power: expected above 0, up to 100, found 0.0",
        ),
        (
            {"train.schedule": "exponential", "train.schedule.final": 0},
            "train.schedule.final: expected a share above 0, up to 1, found 0.0",
        ),
    ],
)
def test_impossible_value_in_a_chosen_kind(changes, message):
    assert refused(changes) == message


# ------------------------------------------------------------------------------------------------
# Typos
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("nane", "name"),
        ("trian.epochs", "train"),
        ("train.epoch", "train.epochs"),
        ("data.augment.filp", "data.augment.flip"),
        ("model.resize.hieght", "model.resize.height"),
        ("model.anchors.size", "model.anchors.sizes"),
    ],
)
def test_a_typo_is_answered_with_the_close_match_and_the_choices(typo, meant):
    message = refused({typo: 1})
    named = ".".join(typo.split(".")[: meant.count(".") + 1])
    assert message.startswith(f"{named!r} is no setting; did you mean {meant!r}? choices: ")
    assert meant.split(".")[-1] in message.split("choices: ")[1].split(", ")


def test_a_name_like_no_other_gets_the_choices_only():
    message = refused({"loss.xyzzy": 1})
    names = [field.name for field in dataclasses.fields(preset("shapes").loss)]
    assert message == f"'loss.xyzzy' is no setting; choices: {', '.join(names)}"


def test_a_plain_setting_has_no_fields():
    assert refused({"train.epochs.first": 1}) == "'train.epochs' has no fields of its own; found 4"


def test_a_field_of_another_kind_is_unknown():
    """The canvas has no short side."""
    assert "'model.resize.short' is no setting" in refused({"model.resize.short": 600})


# ------------------------------------------------------------------------------------------------
# What is accepted, and as what
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "taken"),
    [
        ("train.learning_rate", 1, 1.0),
        ("data.augment.zoom", (1, 2), (1.0, 2.0)),
        ("data.augment.zoom", [0.5, 2], (0.5, 2.0)),
        ("evaluate.iou_thresholds", 0.5, (0.5,)),
        ("data.classes", "person, head", ("person", "head")),
        ("data.classes", "person", ("person",)),
        ("data.classes", "", ()),
        ("data.classes", ["a", "b"], ("a", "b")),
        ("train.freeze", "backbone,neck", ("backbone", "neck")),
        ("train.clip_norm", None, None),
        ("train.clip_norm", 3, 3.0),
        ("loss.alpha", None, None),
        ("model.resize", "short_long", ShortLong()),
        ("model.resize", {"kind": "short_long", "short": 600}, ShortLong(short=600)),
        ("model.resize", {"short": 600}, ShortLong(short=600)),  # the first that has the field
        ("model.resize", Canvas(64, 96), Canvas(64, 96)),
        ("train.schedule", "exponential", Exponential()),
    ],
)
def test_values_become_the_annotated_type(field, value, taken):
    found = preset("shapes", {field: value})
    for part in field.split("."):
        found = getattr(found, part)
    assert (found, type(found)) == (taken, type(taken))
    if isinstance(taken, tuple):
        assert [type(item) for item in found] == [type(item) for item in taken]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_kind_and_its_fields_go_together_in_either_order(reverse):
    items = [
        ("train.schedule", "step"),
        ("train.schedule.factor", 0.2),
        ("model.resize.short", 600),
        ("model.resize", "short_long"),
    ]
    config = preset("shapes", dict(reversed(items) if reverse else items))
    assert config.train.schedule == Step(factor=0.2)
    assert config.model.resize == ShortLong(short=600)


def test_override_leaves_the_original_alone():
    before = preset("shapes")
    saved = to_dict(before)
    after = override(before, {"train.epochs": 3, "model.resize.height": 64, "name": "other"})
    assert (after.train.epochs, after.model.resize.height, after.name) == (3, 64, "other")
    assert to_dict(before) == saved
    assert after.train.schedule == before.train.schedule, "the rest stays"
    assert after.data is before.data


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("shapes").train.epochs = 3


# ------------------------------------------------------------------------------------------------
# Settings that would do nothing
# ------------------------------------------------------------------------------------------------


STAGES = ("backbone.stem", *(f"backbone.stage{i}" for i in (1, 2, 3, 4)))
OWN_BACKBONE, OWN_NECK = {"model.backbone": my_part}, {"model.neck": my_part}
OWN_OPTIMIZER, SGD = {"train.optimizer": my_part}, {"train.optimizer": "sgd"}
FPN = {"model.neck": "fpn"}
FROZEN = {"train.epochs": None, "train.phases": [{"epochs": 1, "freeze": STAGES}] * 2}
PHASED = {"train.epochs": None, "train.phases": [{"epochs": 1}]}
ALL_SAID = {
    "train.epochs": None,
    "train.phases": [
        {
            "epochs": 1, "batch_size": 2, "learning_rate": 0.1, "warmup_steps": 1,
            "schedule": "constant",
        }
    ],
}  # fmt: skip
WITHOUT_USE = {  # name -> a value, settings beside which it does nothing, and does something
    "data.augment.zoom": (
        (0.5, 2.0), {"data.augment.iou_crop": 1.0}, {"data.augment.iou_crop": 0.9},
    ),
    "data.augment.min_visibility": (
        0.5, {"data.augment.zoom": (0.5, 1.0), "data.mixing.mosaic": 0},
        {"data.mixing.mosaic": 0.1},
    ),
    "data.augment.canvas_scales": (
        (1.0, 2.0), {"model.resize": "short_long"}, {"model.resize": "canvas"},
    ),
    "data.mixing.mixup_alpha": (
        0.1, {"data.mixing.mixup": 0, "data.mixing.cutmix": 0.5}, {"data.mixing.mixup": 0.5},
    ),
    "data.mixing.cutmix_alpha": (
        0.1, {"data.mixing.cutmix": 0, "data.mixing.mixup": 0.5}, {"data.mixing.cutmix": 0.5},
    ),
    "data.mixing.closing_epochs": (2, {"data.mixing.mosaic": 0}, {"data.mixing.mosaic": 0.5}),
    "model.bifpn.repeats": (2, {"model.neck": "panet"}, {"model.neck": "bifpn"}),
    "model.bottleneck_stride": (
        "1x1", {"model.backbone": "resnet34"}, {"model.backbone": "resnet101"},
    ),
    "model.bn_mode": ("frozen", OWN_BACKBONE, {"model.backbone": "resnet34"}),
    "model.bn_epsilon": (1e-3, OWN_BACKBONE | FPN, OWN_BACKBONE | {"model.neck": "bifpn"}),
    "model.same_padding": (("conv1", "p6"), OWN_NECK, FPN),
    "model.neck_width": (64, OWN_NECK, FPN),
    "model.p6_from": ("p5", OWN_NECK, FPN),
    "model.head_norm": ("group", {"model.head_depth": 0}, {"model.head_depth": 1}),
    "model.coder.max_log_scale": (None, {"model.coder.form": "corner"}, {}),
    "model.detect.soft_sigma": (
        0.4, {"model.detect.nms": "linear"}, {"model.detect.nms": "gaussian"},
    ),
    "model.detect.nms_iou": (0.4, {"model.detect.nms": "gaussian"}, {"model.detect.nms": "linear"}),
    "loss.beta": (0.1, {"loss.box": "l1"}, {"loss.box": "smooth_l1"}),
    "train.schedule.power": (
        2.0, {"train.schedule": "polynomial", "train.schedule.final": 1},
        {"train.schedule": "polynomial"},
    ),
    "train.momentum": (0.0, {"train.optimizer": "adamw"}, SGD),
    "train.weight_decay": (0.1, {"train.optimizer": "adam"}, SGD),
    "train.clip_norm": (None, OWN_OPTIMIZER, SGD),
    "train.accumulate": (2, OWN_OPTIMIZER, SGD),
    "train.ema": (0.9, OWN_OPTIMIZER, SGD),
    "train.backbone_rate": (0.5, FROZEN, {"train.freeze": STAGES[:-1]}),
    "train.freeze": (("neck",), PHASED, {}),
    "train.batch_size": (5, ALL_SAID, PHASED),
    "train.learning_rate": (0.5, ALL_SAID, PHASED),
    "train.schedule": (Step(), ALL_SAID, PHASED),
    "train.warmup_steps": (7, ALL_SAID, PHASED),
    "evaluate.iou_thresholds": ((0.75,), {"evaluate.metric": "coco"}, {}),
    "evaluate.ap": ("11point", {"data.format": "crowdhuman"}, {}),
    "evaluate.plus_one": (
        True, {"data.format": "coco", "evaluate.metric": "auto"},
        {"data.format": "coco", "evaluate.metric": "voc"},
    ),
    "evaluate.strict": (True, {"evaluate.metric": "crowdhuman"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_USE)
def test_a_setting_without_use_is_refused(name):
    """By its name and that of what decides; what a preset has, and the user did not say, is not."""
    value, useless, useful = WITHOUT_USE[name]
    group = name.rsplit(".", 1)[0] if name.startswith("model.bifpn") else name
    message = refused({**useless, name: value})
    assert message.startswith(f"{group}: expected the default, ")
    words = {"mosaic": "something is mixed"}
    decides = [key.split(".")[-1] for key in useless]
    assert any(words.get(key, key) in message.split(" unless ")[1] for key in decides), message
    changed = preset("shapes", {**useful, name: value})
    assert value_of(changed, name) == value
    useless_now = override(changed, useless)
    assert value_of(useless_now, name) != value
    assert useless_now == override(changed, {**useless, name: value_of(useless_now, name)})
    assert override(useless_now, {"name": "other"}).train == useless_now.train


def test_a_saved_setting_that_does_nothing_is_refused():
    """`to_dict` writes none: somebody changed the file."""
    saved = to_dict(preset("shapes", {"train.optimizer": "adamw"}))
    saved["train"]["momentum"] = 0.8
    message = r"Config\.train\.momentum: expected the default, 0\.9, unless optimizer is sgd"
    with pytest.raises(ConfigError, match=message):
        from_dict(Config, json.loads(json.dumps(saved)))
    with pytest.raises(ConfigError, match=message):
        completed(Config, saved)


def value_of(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return config


# ------------------------------------------------------------------------------------------------
# Settings beside others
# ------------------------------------------------------------------------------------------------


def test_classes_are_named_once():
    message = refused({"data.classes": ("a",), "data.class_file": "names.txt"})
    assert message.startswith("data.class_file: expected none beside classes")


# ------------------------------------------------------------------------------------------------
# Through JSON
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"train.schedule": kind}
        for kind in ("constant", "cosine", "step", "polynomial", "exponential")
    ]
    + [
        {"model.resize": "short_long", "model.resize.multiple": 128},
        {"train.clip_norm": None, "loss.alpha": None, "model.coder.max_log_scale": None},
        {
            "train.epochs": None,
            "train.phases": (Phase(2, ("backbone",)), Phase(3, schedule=Step())),
        },
        {"data.classes": ("b", "ä")},
    ],
    ids=lambda changes: str(next(iter(changes.items()))),
)
def test_comes_back_from_json_equal(changes):
    config = preset("shapes", changes)
    assert config != preset("shapes") or changes == {"train.schedule": "cosine"}
    assert through_json(config) == config


@pytest.mark.parametrize(
    "field", ["model.backbone", "model.neck", "train.schedule", "train.optimizer"]
)
def test_an_object_of_ones_own_is_taken_saved_by_name_and_asked_for(field):
    """A file cannot hold code, so who reads it is told to give the config that can."""
    config = preset("shapes", {field: my_part})
    section, name = field.split(".")
    assert getattr(getattr(config, section), name) is my_part
    saved = to_dict(config)[section][name]
    assert saved.startswith("callable:")
    assert saved.endswith("test_checked.my_part")
    with pytest.raises(ConfigError, match="--config") as caught:
        through_json(config)
    assert field in str(caught.value)
    assert "test_checked.my_part" in str(caught.value)


def test_a_schedule_object_of_ones_own_is_saved_by_its_class():
    class Mine:
        def __call__(self, step):
            return 0.1

    assert to_dict(Train(schedule=Mine()))["schedule"].endswith(".Mine")
    phase = {"train.epochs": None, "train.phases": (Phase(2, schedule=Mine()),)}
    with pytest.raises(ConfigError, match="--config"):
        through_json(preset("shapes", phase))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("train", "epochs"),
            "many",
            "train.epochs: expected a whole number or None, found 'many'",
        ),
        (
            ("data", "augment", "flip"),
            2,
            "data.augment.flip: expected a share from 0 to 1, found 2",
        ),
        (("model", "resize", "height"), 5, "model.resize.height: expected 32 to 16384, found 5"),
        (("train", "schedule", "final"), "x", "train.schedule.final: expected a number, found 'x'"),
        (
            ("train", "phases"),
            [{"epochs": 0}],
            "train.phases[0].epochs: expected 1 to 1000000, found 0",
        ),
        (("train", "phases"), [{"freeze": []}], "train.phases[0].epochs: expected a value"),
        (("train", "epoch"), 3, "train.epoch is no setting; choices: epochs, "),
        (("nonesuch",), 3, "nonesuch is no setting; choices: name, "),
    ],
)
def test_a_mistake_in_a_dict_is_named_in_full(path, value, message):
    """A config.json edited by hand gets messages as good as --set does."""
    saved = to_dict(preset("shapes"))
    inner = saved
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    with pytest.raises(ConfigError) as caught:
        from_dict(Config, saved)
    assert message in str(caught.value)


# ------------------------------------------------------------------------------------------------
# What a field alone does not say
# ------------------------------------------------------------------------------------------------


PHASES = ({"epochs": 1, "freeze": ["backbone"]}, {"epochs": 2})


@pytest.mark.parametrize(("epochs", "phases"), [(None, ()), (3, PHASES)], ids=["neither", "both"])
def test_epochs_or_phases_but_not_both(epochs, phases):
    message = refused({"train.epochs": epochs, "train.phases": phases})
    assert message.startswith("train: expected either train.epochs or train.phases")
    assert f"found epochs={epochs} and {len(phases)} phases" in message


@pytest.mark.parametrize(
    ("field", "value"), [("learning_rate", 0.0), ("batch_size", 0), ("warmup_steps", -1)]
)
def test_a_phase_that_cannot_be(field, value):
    with pytest.raises(
        ConfigError, match=rf"Phase\.{field}: expected None or .* to .*, found {value}"
    ):
        Phase(1, **{field: value})


def test_freeze_beside_phases_would_do_nothing():
    changes = {"train.epochs": None, "train.phases": PHASES, "train.freeze": "neck"}
    expected = "train.freeze: expected the default, (), unless there are no phases"
    assert refused(changes).startswith(expected)


def test_all_phases_fills_in_what_is_left_open():
    phases = (
        Phase(1, freeze=("backbone",), learning_rate=0.5, warmup_steps=0),
        Phase(2, batch_size=3, schedule=Step()),
    )
    train = Train(epochs=None, phases=phases, batch_size=7, learning_rate=0.1, warmup_steps=9)
    first, second = train.all_phases()
    assert first == FullPhase(1, ("backbone",), 7, 0.5, Cosine(), 0), "0 is a value, not None"
    assert second == FullPhase(2, (), 3, 0.1, Step(), 9)


def test_without_phases_the_training_is_one():
    train = Train(epochs=5, freeze=("neck",), batch_size=2, learning_rate=0.3, warmup_steps=4)
    assert train.all_phases() == (FullPhase(5, ("neck",), 2, 0.3, Cosine(), 4),)


def test_a_sample_is_mixed_in_one_way_at_most():
    shares = {"data.mixing.mixup": 0.7, "data.mixing.cutmix": 0.2, "data.mixing.mosaic": 0.1}
    assert preset("shapes", shares).data.mixing.total == 1
    assert refused(shares | {"data.mixing.mosaic": 0.15}) == (
        "data.mixing: expected mixup, cutmix and mosaic to be at most 1 together, found 0.7, 0.2 "
        "and 0.15"
    )


def test_adam_takes_no_weight_decay():
    changes = {"train.optimizer": "adam", "train.weight_decay": 0.1}
    assert "weight_decay: expected the default, None, unless optimizer is sgd" in refused(changes)
    train = preset("shapes", changes | {"train.weight_decay": 0}).train
    assert (train.optimizer, train.weight_decay) == ("adam", 0.0)
    assert "expected the default" in refused(OWN_OPTIMIZER | {"train.weight_decay": 0})


CHOICES = [
    *({"train.optimizer": optimizer} for optimizer in ("sgd", "adam", "adamw", my_part)),
    *({"data.format": name} for name in ("voc", "coco", "csv", "yolo", "shapes")),
    *({"evaluate.metric": name} for name in ("voc", "coco", "crowdhuman")),
    *({"model.detect.nms": name} for name in ("hard", "linear", "gaussian")),
    *({"loss.box": name} for name in ("l1", "giou")),
    {"model.backbone": "resnet18"}, OWN_BACKBONE, OWN_NECK, OWN_BACKBONE | OWN_NECK,
    {"model.neck": "bifpn"}, {"model.coder.form": "corner"}, {"matcher": "atss"},
    {"model.resize": "short_long"}, {"data.augment.iou_crop": 1}, ALL_SAID, FROZEN,
]  # fmt: skip


@pytest.mark.parametrize("changes", CHOICES, ids=",".join)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_takes_every_choice(name, changes):
    """What it sets for another choice was not said by the user, and is left out."""
    config = preset(name, changes)
    for field, value in changes.items():
        found = value_of(config, field)
        assert getattr(found, "kind", found) == value or field == "train.phases"
    assert override(config, {"name": "again"}) == override(preset(name, {"name": "again"}), changes)


REST = ("neck", "class_head", "box_head")


@pytest.mark.parametrize("backbone", [("backbone",), STAGES, ("backbone", "backbone.stem")])
def test_something_has_to_learn(backbone):
    """All stages together are the backbone."""
    assert "expected a part that learns" in refused({"train.freeze": backbone + REST})
    assert preset("shapes", {"train.freeze": backbone + REST[1:]})
    assert preset("shapes", {"train.freeze": STAGES[1:] + REST})


# ------------------------------------------------------------------------------------------------
# What was given
# ------------------------------------------------------------------------------------------------


def test_given_are_the_fields_that_got_a_value():
    """Also a value that is the default: it was said."""
    assert Canvas().given == set()
    assert Canvas(416).given == {"height"}
    assert Canvas(416, antialias=True).given == {"height", "antialias"}
    changed = override(Model(backbone="resnet18"), {"anchors.center_offset": 0.5, "prior": 0.01})
    assert changed.given == {"backbone", "anchors", "prior"}
    assert changed.anchors.given == {"center_offset"}
    assert changed == Model(backbone="resnet18")
    assert from_dict(Model, {"prior": 0.1}).given == {"prior"}
    assert from_dict(Anchors, to_dict(Anchors())).given >= {"sizes", "ratios", "rounding"}
    assert pickle.loads(pickle.dumps(changed)).given == changed.given


def test_adopt_fills_in_what_was_not_given():
    mine = Model(backbone="resnet18", anchors=Anchors(sizes=(16, 32, 64, 128, 256)))
    theirs = Model(
        backbone="resnet50",
        normalization="caffe",
        anchors=Anchors(center_offset=0.0),
        resize=ShortLong(short=600),
    )
    both = adopt(mine, theirs)
    assert both == Model(
        backbone="resnet18",
        normalization="caffe",
        anchors=Anchors(sizes=(16, 32, 64, 128, 256), center_offset=0.0),
        resize=ShortLong(short=600),
    )
    assert both.given == {"backbone", "normalization", "anchors", "resize"}
    assert adopt(Model(resize=Canvas()), theirs).resize == Canvas(), "of another kind: mine"
    assert adopt(theirs, Model()) == theirs
    assert adopt(Model(), theirs) == theirs


def test_a_dict_is_a_setting_like_others():
    config = Model(weights="coco", aliases={"walker": "person"})
    assert from_dict(Model, json.loads(json.dumps(to_dict(config)))) == config
    line = [assignment("aliases={'walker': 'person'}"), assignment("weights=coco")]
    assert override(Model(), dict(line)) == config
    with pytest.raises(ConfigError, match=r"aliases\['walker'\]: expected a string, found 3"):
        Model(weights="coco", aliases={"walker": 3})
    with pytest.raises(ConfigError, match="aliases: expected a dict of a string to a string"):
        Model(weights="coco", aliases="walker=person")
    with pytest.raises(ConfigError, match=r"aliases: expected none without model\.weights"):
        Model(aliases={"walker": "person"})


@pytest.mark.parametrize("text", ["2012", "1e3", "True", "[1]", "coco", "a,b"])
def test_a_name_from_the_command_line_is_taken_as_it_is(text):
    assert override(Model(), dict([assignment(f"weights={text}")])).weights == text


@pytest.mark.parametrize("text", ["none", "None"])
def test_no_name_from_the_command_line_is_none(text):
    assert override(Model(weights="coco"), dict([assignment(f"weights={text}")])).weights is None


def test_what_was_saved_is_checked_and_keeps_the_names_of_own_objects():
    phases = (Phase(1), Phase(2, schedule=len))
    config = Config(
        model=Model(backbone=my_part, neck=len, resize=ShortLong(600)),
        train=Train(epochs=None, phases=phases, optimizer=my_part),
    )
    saved = json.loads(json.dumps(to_dict(config)))
    assert saved["train"]["phases"][1]["schedule"] == "callable:builtins.len"
    assert completed(Config, saved) == saved
    saved["model"]["neck_width"] = 64
    with pytest.raises(ConfigError, match=r"Config\.model\.neck_width: expected the default, 256"):
        completed(Config, saved)
