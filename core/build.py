"""Config -> parts. Of core, only this and core/weights, with its conventions, know the config."""

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import keras
import tensorflow as tf

from configs.checked import ConfigError
from configs.schema import Config, FullPhase, Model
from core.anchors import AnchorGenerator
from core.backbones.resnet import ResNet
from core.box_coder import BoxCoder
from core.heads import Head, prior_bias
from core.layers import BatchNorm
from core.losses import Criterion
from core.necks.bifpn import BiFPN
from core.necks.fpn import FPN
from core.necks.panet import PANet
from core.optimizers import make_optimizer
from core.postprocess import Postprocess
from core.retinanet import RetinaNet
from core.schedules import SCHEDULES, LearningRateSchedule, PerUpdate, Warmup
from core.targets import Atss, Matcher

NECKS = {"fpn": FPN, "panet": PANet, "bifpn": BiFPN}
# The largest detectors have 0.2 billion; in float32 these are 4 GB, to train three times that.
MOST_WEIGHTS = 10**9
FEWEST_IMAGES = 4  # a step that batch norms learn from without a warning: docs/accuracy.md


def build_model(config: Model, num_classes: int, precision: str = "float32") -> RetinaNet:
    """A RetinaNet with all its variables made.

    precision: "float32", "mixed_float16" or "mixed_bfloat16".
    Raises ConfigError for one too large to be meant.
    """
    require_size(config, num_classes)
    num_anchors = build_anchors(config).num_anchors
    head = functools.partial(
        Head,
        depth=config.head_depth,
        width=config.head_width,
        norm=config.head_norm,
        num_anchors=num_anchors,
    )
    with _dtype_policy(precision):
        model = RetinaNet(
            backbone=build_backbone(config),
            neck=_build_neck(config),
            class_head=head(outputs=num_classes, bias=prior_bias(config.prior), name="class_head"),
            box_head=head(outputs=4, bias=0.0, name="box_head"),
            normalization=config.normalization,
            name="retinanet",
        )
        model(tf.zeros([1, 64, 64, 3]))
    return model


def require_size(config: Model, num_classes: int) -> None:
    """Raises ConfigError where neck and heads have more weights than any detector needs.

    Counts in a moment what making those weights would take minutes, and maybe all memory, to find.
    """
    width, depth = config.head_width, config.head_depth
    outputs = build_anchors(config).num_anchors * (num_classes + 4)
    inputs = [256 if callable(config.neck) else config.neck_width, *[width] * depth]
    hidden = 2 * sum(9 * a * b for a, b in itertools.pairwise(inputs))
    found = _least_of_neck(config) + hidden + 9 * inputs[-1] * outputs
    if found > MOST_WEIGHTS:
        raise ConfigError(
            f"model: expected at most {MOST_WEIGHTS:,} weights in neck and heads, found "
            f"{found:,}; lower neck_width = {config.neck_width}, head_width = {width}, head_depth "
            f"= {depth}, anchors (ratios, scales), bifpn.repeats or the {num_classes} classes"
        )


def _least_of_neck(config: Model) -> int:
    """Weights of the neck's convolutions over its own width; none of one's own neck."""
    if callable(config.neck):
        return 0
    width, bifpn = config.neck_width, config.bifpn
    kernel = width**2 if bifpn.separable and config.neck == "bifpn" else 9 * width**2
    return kernel * {"fpn": 5, "panet": 13, "bifpn": 8 * bifpn.repeats}[config.neck]


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
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
    own = {}
    if config.neck == "bifpn":
        own = asdict(config.bifpn) | {"bn_epsilon": config.bn_epsilon}
    return NECKS[config.neck](
        config.neck_width, config.p6_from, same_padding=config.same_padding, **own, name="neck"
    )


def freeze(model: RetinaNet, parts: Iterable[str]) -> None:
    """Keeps parts of a model from learning; batch norms in them use their statistics.

    parts: as in `Phase.freeze`; what follows "backbone." is a name of the backbone's `parts`.
    """
    for part in parts:
        name, _, stage = part.partition(".")
        layer = getattr(model, name)
        for frozen in layer.parts[stage] if stage else [layer]:
            frozen.trainable = False


def small_batch_warning(config: Model, model: RetinaNet, batch_size: int) -> str | None:
    """A line for the diary where batch norms learn from few images at once, or None.

    model: as it is trained, its frozen parts frozen. batch_size: images a step.
    docs/accuracy.md has what such batches cost.
    """
    parts = ("backbone", "neck", "class_head", "box_head")
    live = [part for part in parts if _is_live(model, part)]
    if not live or batch_size >= FEWEST_IMAGES:
        return None
    ways = [f"train.batch_size = {FEWEST_IMAGES} or more (train.accumulate does not help)"]
    if "backbone" in live and not callable(config.backbone):
        ways.append("model.bn_mode = frozen_stats with pretrained model.weights")
    if "neck" in live and config.neck == "bifpn":
        ways.append("model.bifpn.norm = group")
    images = f"{batch_size} image{'s' * (batch_size > 1)}"
    return (
        f"train.batch_size: the batch norms of {' and '.join(live)} see {images} a step, but use "
        "averages over many when they detect, so mAP may be far lower than the losses promise; set "
        f"{', or '.join(ways)}"
    )


def _is_live(model: RetinaNet, part: str) -> bool:
    """Whether a part has batch norms that normalise by the batch in training."""
    kinds = (BatchNorm, keras.layers.BatchNormalization)
    norms = [layer for layer in getattr(model, part)._flatten_layers() if isinstance(layer, kinds)]
    return any(norm.trainable and getattr(norm, "mode", "live") == "live" for norm in norms)


def require_parts(config: Config) -> None:
    """Raises ConfigError where the backbone, maybe of the user's own, lacks a part to freeze.

    It names them by an attribute `parts`: name -> list of layers, see `ResNet`.
    """
    frozen = [part for phase in config.train.all_phases() for part in phase.freeze]
    stages = [part.removeprefix("backbone.") for part in frozen if part.startswith("backbone.")]
    if not stages:
        return
    parts = getattr(build_backbone(config.model), "parts", {})
    # Or the model's own, made later, would be the second of its name, and saved as that.
    keras.utils.clear_session(free_memory=False)
    for stage in stages:
        if stage not in parts:
            raise ConfigError(
                f"train.freeze, or a phase's: expected {config.model.backbone!r} to be a backbone "
                f"whose `parts` name {stage!r}, found {', '.join(parts) or 'none'}"
            )


def build_anchors(config: Model) -> AnchorGenerator:
    return AnchorGenerator(**asdict(config.anchors))


def build_matcher(config: Config) -> Matcher | Atss:
    settings = asdict(config.matcher)
    if config.matcher.kind == "atss":
        return Atss(**settings, num_anchors=build_anchors(config.model).num_anchors)
    return Matcher(**settings)


def build_criterion(config: Config) -> Criterion:
    loss = asdict(config.loss)
    loss["box_loss"] = loss.pop("box")
    return Criterion(
        anchors=build_anchors(config.model),
        coder=BoxCoder(**asdict(config.model.coder)),
        matcher=build_matcher(config),
        **loss,
    )


def build_postprocess(config: Model) -> Postprocess:
    detect = asdict(config.detect)
    for name in ("precision", "flip", "scales"):  # of the network, and of the views it is shown
        del detect[name]
    return Postprocess(
        anchors=build_anchors(config), coder=BoxCoder(**asdict(config.coder)), **detect
    )


def warmup_within(phase: FullPhase, steps: int) -> int:
    """The warm-up of a phase of `steps` updates: what it asks for, but at most half of them."""
    return min(phase.warmup_steps, steps // 2)


def num_updates(phase: FullPhase, steps: int, accumulate: int = 1) -> int:
    """Updates of a phase of `steps` batches, one every `accumulate`.

    Groups of batches go on from epoch to epoch; of the phase's last one, where it is not full, no
    update is made. Raises ConfigError where none is made at all.
    """
    if steps < accumulate:
        raise ConfigError(
            f"train.accumulate: expected at most the {steps} batches of a phase of {phase.epochs} "
            f"epochs, found {accumulate}"
        )
    return steps // accumulate


def build_schedule(phase: FullPhase, steps: int, accumulate: int = 1) -> LearningRateSchedule:
    """The schedule of a phase of `steps` batches.

    accumulate: batches an update. The schedule is made for updates and asked by batches.
    Raises ConfigError for a schedule of the user's own that is none, or a phase without an update.
    """
    steps = num_updates(phase, steps, accumulate)
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
    schedule = Warmup(schedule, warmup) if warmup else schedule
    return PerUpdate(schedule, accumulate) if accumulate > 1 else schedule


def build_optimizer(
    config: Config, schedule: float | LearningRateSchedule, model: RetinaNet
) -> keras.optimizers.Optimizer:
    train = config.train
    decay = train.weight_decay
    if decay is None:
        decay = 0.0 if train.optimizer == "adam" else 1e-4
    slow = {id(variable) for variable in model.backbone.trainable_variables}
    rates = [train.backbone_rate if id(v) in slow else 1.0 for v in model.trainable_variables]
    return make_optimizer(
        train.optimizer,
        schedule,
        model.trainable_variables,
        momentum=train.momentum,
        weight_decay=decay,
        clip_norm=train.clip_norm,
        ema=train.ema,
        accumulate=train.accumulate,
        rates=None if train.backbone_rate == 1 else rates,
        loss_scaling=train.precision == "mixed_float16",
    )
