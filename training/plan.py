"""What a run is about, found and refused before it begins: config, data, weights, checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import configs
from configs import Config, ConfigError
from configs.schema import Model
from core.build import build_schedule, require_parts
from core.weights.own_files import DETECTOR, Weights, stated
from core.weights.published import open_weights
from core.weights.transfer import class_sources
from data.datasets import prepare, read_split
from data.images.bit_depth import Depth, depth_of
from data.pipeline import steps_per_epoch
from data.records import Dataset, DatasetError, learnable
from results.scoring import require_objects
from training.extension import require_extensible
from training.progress import Progress, fingerprint, newest_checkpoint, require_same_data
from utils.checkpoints import Checkpoint
from utils.files import WriteError, write_text
from utils.runs import new_run


@dataclass(frozen=True)
class Plan:
    """All that a run begins with, or goes on with.

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
    progress: Progress
    began: Config | None = None
    weights: Weights | None = None
    adopted: Sequence[tuple[str, Any, Any]] = ()
    depth: Depth | None = None
    checkpoint: Checkpoint | None = None
    warning: str = ""

    @property
    def num_epochs(self) -> int:
        return total_epochs(self.config)


def make_plan(config_file: str | None, overrides: Sequence[str], resumed: Path | None) -> Plan:
    """Reads config, data and weights of a new run, or of a resumed one with its checkpoint.

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
    classes = prepare(config.data)
    train_set = read_split(config.data, config.data.train, classes)
    val_set = read_split(config.data, config.data.val, classes)
    require_trainable(config, train_set, val_set)
    depth = None if resumed else depth_of(train_set.images)
    if depth and not config.model.bits:
        config = configs.override(config, {"model.bits": depth.bits})
    train_set = replace(train_set, bits=config.model.bits)
    val_set = replace(val_set, bits=config.model.bits)
    if checkpoint and progress:
        require_resumable(checkpoint, progress, config, began, train_set)
    if weights:
        class_sources(weights, classes, config.model.aliases)
    return Plan(
        config=config,
        train_set=train_set,
        val_set=val_set,
        progress=progress or Progress(data=fingerprint(train_set)),
        began=began,
        weights=weights,
        adopted=adopted,
        depth=depth,
        checkpoint=checkpoint,
        warning=warning,
    )


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


def require_resumable(
    checkpoint: Checkpoint,
    progress: Progress,
    config: Config,
    began: Config | None,
    train_set: Dataset,
) -> None:
    """Raises CheckpointError or ConfigError unless a run can go on so with its settings and data.

    began: the settings it had until now.
    """
    phases = [
        (phase.epochs, steps_per_epoch(train_set, config.data, phase.batch_size))
        for phase in config.train.all_phases()
    ]
    progress.require_within(checkpoint.path, phases)
    require_same_data(checkpoint, progress, train_set)
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
        require_extensible(config, began, progress, phases[0][1])


def require_trainable(config: Config, train_set: Dataset, val_set: Dataset) -> None:
    """Finds before the first step what would stop a later phase or the evaluation."""
    for phase in config.train.all_phases():
        steps = steps_per_epoch(train_set, config.data, phase.batch_size) * phase.epochs
        build_schedule(phase, steps, config.train.accumulate)
    require_parts(config)
    require_objects(val_set)
    if not learnable(train_set, config.data.train_on_difficult).any():
        raise DatasetError(f"{train_set.name}: expected objects to learn, found none")


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
