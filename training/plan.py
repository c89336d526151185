"""What a run is about, found and refused before it begins: config, data, weights, checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loguru import logger

import configs
from configs import Config, ConfigError
from configs.schema import FullPhase, Model
from core.build import build_anchors, build_matcher, build_schedule, require_parts
from core.coverage import Coverage, anchor_coverage
from core.schedules import LearningRateSchedule
from core.weights.npz_files import DETECTOR, Weights, stated
from core.weights.published import open_weights
from core.weights.transfer import class_sources
from data.datasets import class_names, read_split
from data.images.bit_depth import Depth, depth_of
from data.images.resize import objects_at_input
from data.pipeline import steps_per_epoch
from data.records import Dataset, DatasetError, learnable
from results.scoring import require_objects
from training.more_epochs import require_extensible
from training.resuming import (
    Progress,
    find_best,
    fingerprint,
    newest_checkpoint,
    require_same_data,
)
from utils.checkpoints import Checkpoint, CheckpointError
from utils.files import WriteError, write_text
from utils.runs import new_run


@dataclass(frozen=True)
class PlannedPhase:
    """A phase in its place in the run: epochs from `first` to before `end`, `steps` each."""

    settings: FullPhase
    first: int
    end: int
    steps: int
    schedule: LearningRateSchedule

    @property
    def num_steps(self) -> int:
        return (self.end - self.first) * self.steps


@dataclass(frozen=True)
class Plan:
    """All that a run begins with, or goes on with.

    coverage: the objects that have an anchor.
    began: the settings that a resumed run had until now, None for a new one.
    weights: what a new run starts from; adopted: the settings that follow from them, as
        (name, value, value before).
    depth: the bits in use in images of 16 bits, of a new run alone.
    checkpoint: what a resumed run goes on from, if it has come to one; warning: about the files it
        was looked for in.
    """

    config: Config
    train_set: Dataset
    val_set: Dataset
    phases: Sequence[PlannedPhase]
    coverage: Coverage
    began: Config | None = None
    weights: Weights | None = None
    adopted: Sequence[tuple[str, Any, Any]] = ()
    depth: Depth | None = None
    checkpoint: Checkpoint | None = None
    warning: str = ""

    @property
    def num_epochs(self) -> int:
        return total_epochs(self.config)

    def is_finished(self, progress: Progress) -> bool:
        """Whether all epochs are done, or early stopping ends the run before."""
        stopping = self.config.train.early_stopping
        return progress.epoch >= self.num_epochs or progress.is_stale(stopping)

    def is_validation_due(self, epoch: int) -> bool:
        """Whether a validation follows this epoch, counted from 1."""
        every = self.config.train.validate_every
        return epoch == self.num_epochs or bool(every and epoch % every == 0)


def make_plan(
    config_file: str | None, overrides: Sequence[str], resumed: Path | None
) -> tuple[Plan, Progress]:
    """Reads config, data and weights of a new run, or of a resumed one with its checkpoint.

    Returns what stays as it is while the run trains, and how far it has come.
    Raises ConfigError, DatasetError, CheckpointError or WeightsError for what cannot be, before
    anything is written.
    """
    config, began = choose(config_file, overrides, resumed)
    checkpoint, progress, warning = None, None, ""
    if resumed:
        num_epochs = max(total_epochs(config), total_epochs(began or config))
        checkpoint, progress, warning = newest_checkpoint(resumed, num_epochs)
    weights, adopted = None, []
    if config.model.weights and not checkpoint:
        weights = open_weights(config.model.weights, config.model.backbone)
        settled = weights.settle(config.model)
        adopted = configs.differences(configs.to_dict(settled), configs.to_dict(config.model))
        config = replace(config, model=settled)
    classes = class_names(config.data)
    train_set = read_split(config.data, config.data.train, classes)
    val_set = read_split(config.data, config.data.val, classes)
    phases = plan_phases(config, train_set)
    coverage = require_trainable(config, train_set, val_set)
    depth = None if resumed else depth_of(train_set.images)
    if depth and not config.model.bits:
        config = configs.override(config, {"model.bits": depth.bits})
    train_set = replace(train_set, bits=config.model.bits)
    val_set = replace(val_set, bits=config.model.bits)
    plan = Plan(
        config=config,
        train_set=train_set,
        val_set=val_set,
        phases=phases,
        coverage=coverage,
        began=began,
        weights=weights,
        adopted=adopted,
        depth=depth,
        checkpoint=checkpoint,
        warning=warning,
    )
    if checkpoint and progress:
        require_resumable(plan, checkpoint, progress)
    if weights:
        class_sources(weights, classes, config.model.aliases)
    return plan, progress or Progress(data=(fingerprint(train_set), fingerprint(val_set)))


def choose(
    config_file: str | None, overrides: Sequence[str], resumed: Path | None
) -> tuple[Config, Config | None]:
    """Returns the config, and the one that a resumed run began with.

    Raises ConfigError where a config given for a resumed run is not the one it was started with; it
    may have more epochs, see `require_extensible`.
    """
    if not resumed:
        return configs.load(config_file or "config.py", overrides), None
    own = resumed / "config.json"
    config = configs.load(config_file or own, overrides)
    if not (config_file and own.is_file()):
        return config, configs.load(own) if own.is_file() else None
    saved = configs.load_saved(own)
    # What it left open was settled when the run began.
    settled = configs.adopt(config.model, stated(DETECTOR, saved["model"]))
    config = replace(config, model=settled)
    for name, wanted, started in configs.differences(configs.to_dict(config), saved):
        if name != "train.epochs":
            raise ConfigError(
                f"{name}: {resumed} was started with {started!r}, {config_file} says {wanted!r}"
            )
    return config, configs.override(config, {"train.epochs": saved["train"]["epochs"]})


def total_epochs(config: Config) -> int:
    return sum(phase.epochs for phase in config.train.all_phases())


def plan_phases(config: Config, train_set: Dataset) -> list[PlannedPhase]:
    """The phases of a run. Raises ValueError for one without a whole batch or update."""
    phases, end = [], 0
    for settings in config.train.all_phases():
        first, end = end, end + settings.epochs
        steps = steps_per_epoch(train_set, config.data, settings.batch_size)
        schedule = build_schedule(settings, steps * settings.epochs, config.train.accumulate)
        phases.append(PlannedPhase(settings, first, end, steps, schedule))
    return phases


def require_resumable(plan: Plan, checkpoint: Checkpoint, progress: Progress) -> None:
    """Raises CheckpointError or ConfigError for settings or data that a run cannot go on with."""
    config, began = plan.config, plan.began
    steps = next((phase.steps for phase in plan.phases if progress.epoch < phase.end), 0)
    progress.require_at_most(checkpoint.path, "step", steps)
    require_same_data(checkpoint, progress, plan.train_set, plan.val_set)
    try:
        conventions = configs.completed(Model, checkpoint.state.get("model"))
    except ConfigError as error:
        raise ConfigError(f"{checkpoint.path}: {error}") from None
    for name, ours, written in configs.differences(configs.to_dict(config.model), conventions):
        raise ConfigError(
            f"model.{name}: {checkpoint.path} was written with {written!r}, the run's config says "
            f"{ours!r}"
        )
    if began and config.train.epochs != began.train.epochs:
        require_extensible(config, began, progress, plan.phases[0].steps)


def require_trainable(config: Config, train_set: Dataset, val_set: Dataset) -> Coverage:
    """Finds before the first step what would stop a later phase or the evaluation.

    Returns which objects have an anchor: some must.
    """
    require_parts(config)
    require_objects(val_set)
    if not learnable(train_set, config.data.train_on_difficult).any():
        raise DatasetError(f"{train_set.name}: expected objects to learn, found none")
    boxes, canvas = objects_at_input(train_set, config.model.resize)
    matcher = build_matcher(config)
    coverage = anchor_coverage(build_anchors(config.model), canvas, matcher, boxes)
    if coverage.is_hopeless(matcher):
        expected = "expected anchors that match some objects, found none"
        remedy = "python -m data.check --anchors looks for better ones"
        raise DatasetError(f"{train_set.name}: {expected}: {coverage.line()}; {remedy}")
    return coverage


def begin_run(config: Config) -> Path:
    """Makes the folder of a new run with its config.json; without that there is no run."""
    run = new_run(config.output, config.name)
    try:
        write_config(run, config)
    except WriteError:
        run.rmdir()
        raise
    return run


def write_config(run: Path, config: Config) -> None:
    write_text(run / "config.json", json.dumps(configs.to_dict(config), indent=1), durable=True)


def settle_best(run: Path, plan: Plan, progress: Progress) -> None:
    """Looks for the best weights of a resumed run, and forgets them if they are gone.

    Says if the run is finished. Raises CheckpointError for a finished run without them.
    """
    if plan.is_finished(progress):
        find_best(run, progress)
        logger.info(
            "{} is finished: {} of {} epochs. Nothing is trained; for more epochs: --resume {} "
            "--set train.epochs=N if its schedule allows it, else a new run from its weights: "
            "--set model.weights={}",
            *(run, progress.epoch, plan.num_epochs, run, run),
        )
    elif progress.best_epoch:
        try:
            find_best(run, progress)
        except CheckpointError as error:
            logger.warning("{}: the next validation's weights are the best so far", error)
            progress.forget_best()
