"""Config -> parts. Of core, only this and core/weights, with its conventions, know the config."""

import contextlib
from dataclasses import asdict

import keras
import tensorflow as tf

from configs.checked import ConfigError
from configs.schema import Config, Model, Phase
from core.anchors import AnchorGenerator
from core.backbones.resnet import ResNet
from core.box_coder import BoxCoder
from core.heads import Head, prior_bias
from core.losses import Criterion
from core.necks.fpn import FPN
from core.optimizers import make_optimizer
from core.postprocess import Postprocess
from core.retinanet import RetinaNet
from core.schedules import SCHEDULES, LearningRateSchedule, Warmup
from core.targets import Matcher

NECKS = {"fpn": FPN}


def build_model(config: Model, num_classes: int, precision: str = "float32") -> RetinaNet:
    """A RetinaNet with all its variables made.

    precision: "float32", "mixed_float16" or "mixed_bfloat16".
    """
    num_anchors = build_anchors(config).num_anchors
    heads = {
        "depth": config.head_depth,
        "width": config.head_width,
        "norm": config.head_norm,
        "num_anchors": num_anchors,
    }
    with _dtype_policy(precision):
        model = RetinaNet(
            backbone=build_backbone(config),
            neck=_build_neck(config),
            class_head=Head(
                **heads, outputs=num_classes, bias=prior_bias(config.prior), name="class_head"
            ),
            box_head=Head(**heads, outputs=4, bias=0.0, name="box_head"),
            normalization=config.normalization,
            name="retinanet",
        )
        model(tf.zeros([1, 64, 64, 3]))
    return model


@contextlib.contextmanager
def _dtype_policy(name: str):
    """Keras's policy is global; layers take it when they are made, and only these should."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_backbone(config: Model) -> keras.layers.Layer:
    if callable(config.backbone):
        return config.backbone()
    return ResNet(
        int(config.backbone.removeprefix("resnet")),
        bottleneck_stride=config.bottleneck_stride,
        same_padding=config.same_padding,
        bn_mode=config.bn_mode,
        bn_epsilon=config.bn_epsilon,
        name="backbone",
    )


def _build_neck(config: Model) -> keras.layers.Layer:
    if callable(config.neck):
        return config.neck()
    return NECKS[config.neck](
        config.neck_width, config.p6_from, same_padding=config.same_padding, name="neck"
    )


def build_anchors(config: Model) -> AnchorGenerator:
    return AnchorGenerator(**asdict(config.anchors))


def build_criterion(config: Config) -> Criterion:
    loss = asdict(config.loss)
    loss["box_loss"] = loss.pop("box")
    return Criterion(
        anchors=build_anchors(config.model),
        coder=BoxCoder(**asdict(config.model.coder)),
        matcher=Matcher(**asdict(config.matcher)),
        **loss,
    )


def build_postprocess(config: Model) -> Postprocess:
    detect = asdict(config.detect)
    del detect["precision"]  # the network's
    return Postprocess(
        anchors=build_anchors(config), coder=BoxCoder(**asdict(config.coder)), **detect
    )


def warmup_within(phase: Phase, steps: int) -> int:
    """The warm-up of a phase of `steps` updates: what it asks for, but at most half of them."""
    return min(phase.warmup_steps, steps // 2)


def build_schedule(phase: Phase, steps: int) -> LearningRateSchedule:
    """The schedule of a phase of `steps` updates; `phase` has no None left (Train.all_phases).

    Raises ConfigError for a schedule of the user's own that is none.
    """
    chosen = phase.schedule
    if isinstance(chosen, LearningRateSchedule):
        schedule = chosen
    elif callable(chosen):
        schedule = chosen(phase.learning_rate, steps)
        if not isinstance(schedule, LearningRateSchedule):
            raise ConfigError(
                f"train.schedule: expected {chosen} to return a Keras LearningRateSchedule, "
                f"found {schedule!r}"
            )
    else:
        schedule = SCHEDULES[chosen.kind](phase.learning_rate, steps, **asdict(chosen))
    warmup = warmup_within(phase, steps)
    return Warmup(schedule, warmup) if warmup else schedule


def build_optimizer(config: Config, schedule: LearningRateSchedule, model: RetinaNet):
    train = config.train
    return make_optimizer(
        train.optimizer,
        schedule,
        model.trainable_variables,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
        loss_scaling=train.precision == "mixed_float16",
    )
