"""Trains a detector: config -> data -> model -> phases of epochs -> the run's folder.

    python train.py                                            as config.py says
    python train.py --config configs/voc.py --set train.epochs=20 --set model.backbone=resnet18
    python train.py --resume runs/voc                          goes on where the run was stopped
    python train.py --resume runs/voc --set train.epochs=40    trains longer, if the schedule can
    python train.py --eager                                    breakpoints work in model and losses

A run leaves in <output>/<name>: config.json, diary.log, metrics.csv, curves.png, tensorboard/,
checkpoints/ (best, last and the one before), samples/, evaluation/. The last line printed is the
headline.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from loguru import logger

import configs
from configs import Config, ConfigError
from configs.schema import FullPhase, Model
from core.build import (
    build_anchors,
    build_criterion,
    build_matcher,
    build_model,
    build_optimizer,
    build_schedule,
    freeze,
    num_updates,
    require_parts,
    small_batch_warning,
    warmup_within,
)
from core.coverage import Coverage, anchor_coverage, atss_coverage
from core.engine import compiled, train_step, validation_step
from core.losses import Criterion
from core.optimizers import averaged
from core.retinanet import RetinaNet
from core.schedules import LearningRateSchedule
from core.targets import Atss
from core.weights.published import open_weights
from core.weights.store import DETECTOR, Weights, stated
from core.weights.transfer import class_sources, transfer
from data.datasets import log_defects, prepare, read_split
from data.detections.table import DetectionTable
from data.doctor.object_counts import limits
from data.images.bit_depth import depth_of
from data.images.render import Reader
from data.images.resize import at_input_size, padded_size
from data.pipeline import (
    checked,
    evaluation_batches,
    image_reader,
    steps_per_epoch,
    training_batches,
)
from data.records import Dataset, DatasetError, learnable
from data.sampling import repeat_factors, samples_per_epoch
from detector import Detector, gather_detections
from evaluate import write_all
from scoring import require_objects, score, summarize
from training.extension import require_extensible
from training.progress import (
    LAST,
    SCALARS,
    SUMMED,
    Progress,
    find_best,
    fingerprint,
    newest_checkpoint,
    put_aside,
    require_same_data,
    save_best,
    save_progress,
)
from utils.board import Board
from utils.checkpoints import Checkpoint, CheckpointError
from utils.devices import use_devices
from utils.diary import console, diary, progress_bar, versions
from utils.draw import contact_sheet, write_image
from utils.files import WriteError, spare, write_text
from utils.plots import training_curves
from utils.program import make_parser, run_program
from utils.runs import MetricsFile, RunLock, StopSignal, new_run
from visualize import with_truth

COLUMNS = (
    "epoch", "learning_rate", *SUMMED, "images_per_second", "data_wait", "seconds",
    *(f"val_{name}" for name in SCALARS), "val_map",
)  # fmt: skip
ADVICE = (
    "The last good weights are in checkpoints/last.npz, if there is one; a lower "
    "train.learning_rate, more train.warmup_steps or a smaller train.clip_norm may help"
)


def main(argv: list[str] | None = None) -> float:
    """Runs the command line; returns the headline's figure. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(RunLock(args.resume)) if args.resume else None
        config, began = choose(args)
        checkpoint, progress, warning = None, None, ""
        if lock:
            num_epochs = max(total_epochs(config), total_epochs(began or config))
            checkpoint, progress, warning = newest_checkpoint(lock.run, num_epochs)
        device = use_devices()
        weights = None
        if config.model.weights and not checkpoint:
            weights = open_weights(config.model.weights, config.model.backbone)
            settled = weights.settle(config.model)
            adopted = configs.differences(configs.to_dict(settled), configs.to_dict(config.model))
            config = replace(config, model=settled)
        classes = prepare(config.data)
        train_set = read_split(config.data, config.data.train, classes)
        val_set = read_split(config.data, config.data.val, classes)
        check(config, train_set, val_set)
        depth = None if args.resume else depth_of(train_set.images)
        if depth and not config.model.bits:
            config = configs.override(config, {"model.bits": depth.bits})
        train_set = replace(train_set, bits=config.model.bits)
        val_set = replace(val_set, bits=config.model.bits)
        if checkpoint and progress:
            require_resumable(checkpoint, progress, config, began, train_set)
        progress = progress or Progress(data=fingerprint(train_set))
        if weights:
            class_sources(weights, classes, config.model.aliases)
        # Only now a folder: a config or a dataset that cannot be leaves nothing behind.
        lock = lock or stack.enter_context(RunLock(begin_run(config)))
        run = lock.run
        stack.enter_context(diary(run / "diary.log"))
        stop = stack.enter_context(StopSignal())
        if args.resume and config != began:
            write_config(run, config)
        if args.eager:
            config = configs.override(config, {"train.eager": True})
        describe(config, device, train_set, val_set)
        if depth:
            told = "16-bit images: {}, read as {} bits (model.bits)"
            logger.info(told, depth.describe(len(train_set)), config.model.bits)
            if depth.bits > (config.model.bits or depth.bits):
                told = "model.bits={}: brighter values become white; model.bits={} shows them all"
                logger.warning(told, config.model.bits, depth.bits)
        if weights:
            settings = ", ".join(f"{name}={value}" for name, value, _ in adopted) or "nothing"
            logger.info("settings that follow the weights: {}", settings)
        if lock.warning:
            logger.warning(lock.warning)
        if warning:
            logger.warning(warning)
            put_aside(run / LAST)
        try:
            return train(lock, config, train_set, val_set, weights, checkpoint, progress, stop)
        except WriteError as error:
            error.also(f"then go on with --resume {run}")
            raise


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    configs.add_arguments(parser, None, "default: config.py, or that of the run resumed")
    parser.add_argument("--resume", metavar="RUN", help="the folder of a run that was stopped")
    parser.add_argument("--eager", action="store_true", help="no compiled graph, for breakpoints")
    args = parser.parse_args(argv)
    for item in args.overrides if args.resume else ():
        if not item.startswith("train.epochs="):
            parser.error(
                "a resumed run keeps its settings, but for train.epochs, which may grow; found "
                f"--set {item}: to begin a new run from its weights: "
                f"--set model.weights={args.resume}"
            )
    return args


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


def choose(args: argparse.Namespace) -> tuple[Config, Config | None]:
    """The config, and the one that a resumed run began with.

    Raises ConfigError where a config given for a resumed run is not the one it was started with; it
    may have more epochs, see `require_extensible`.
    """
    if not args.resume:
        return configs.load(args.config or "config.py", args.overrides), None
    own = Path(args.resume) / "config.json"
    config = configs.load(args.config or own, args.overrides)
    if not (args.config and own.is_file()):
        return config, configs.load(own) if own.is_file() else None
    saved = configs.load_saved(own)
    # What it left open was settled when the run began.
    settled = configs.adopt(config.model, stated(DETECTOR, saved["model"]))
    config = replace(config, model=settled)
    for name, wanted, started in configs.differences(configs.to_dict(config), saved):
        if name != "train.epochs":
            raise ConfigError(
                f"{name}: {args.resume} was started with {started!r}, {args.config} says {wanted!r}"
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


def check(config: Config, train_set: Dataset, val_set: Dataset) -> None:
    """Finds before the first step what would stop a later phase or the evaluation."""
    for phase in config.train.all_phases():
        steps = steps_per_epoch(train_set, config.data, phase.batch_size) * phase.epochs
        build_schedule(phase, steps, config.train.accumulate)
    require_parts(config)
    require_objects(val_set)
    if not learnable(train_set, config.data.train_on_difficult).any():
        raise DatasetError(f"{train_set.name}: expected objects to learn, found none")


def train(
    lock: RunLock,
    config: Config,
    train_set: Dataset,
    val_set: Dataset,
    weights: Weights | None,
    checkpoint: Checkpoint | None,
    progress: Progress,
    stop: StopSignal,
) -> float:
    """The training run: model, phases of epochs, headline."""
    settings, run = config.train, lock.run

    # ---- Model -------------------------------------------------------------------------------
    keras.utils.set_random_seed(settings.seed)
    model = build_model(config.model, len(train_set.classes), settings.precision)
    detector = Detector(model, train_set.classes, config.model, settings.eager)
    criterion = build_criterion(config)
    trains_by_itself = {layer: layer.trainable for layer in model._flatten_layers()}
    if weights:
        transferred = transfer(weights, model, config.model, train_set.classes)
        logger.info("weights from {}: {}", weights.path, "; ".join(transferred.lines()))
    else:
        logger.info("{} parameters", f"{model.count_params():,}")

    # ---- Where it was stopped ----------------------------------------------------------------
    num_epochs = total_epochs(config)
    if checkpoint:
        checkpoint.restore("model", model.variables)
        go_on(run, progress, num_epochs, progress.is_stale(settings.early_stopping))
    else:
        groups = {"model": model.variables}
        save_progress(run, groups, detector.conventions, progress, is_beginning=True)
    metrics = MetricsFile(run / "metrics.csv", progress.epoch)
    board = Board(run / "tensorboard")
    if not checkpoint:
        board.text("config", json.dumps(configs.to_dict(config), indent=1))
    read = image_reader(train_set, config.data.cache)
    validate = make_validation(detector, criterion, val_set, config)
    best = None

    # ---- Phases ------------------------------------------------------------------------------
    end = 0
    for phase in settings.all_phases():
        first, end = end, end + phase.epochs
        if progress.epoch >= end or progress.is_stale(settings.early_stopping):
            continue
        for layer, trainable in trains_by_itself.items():
            layer.trainable = trainable
        epochs = range(progress.epoch, end)
        steps, schedule, optimizer, step, batches = begin_phase(
            config, phase, epochs, model, criterion, train_set, progress.step, read
        )
        if checkpoint:
            if (progress.epoch, progress.step) > (first, 0):
                checkpoint.restore("optimizer", optimizer.variables)
            checkpoint.clear()
            checkpoint = None
        stream = iter(checked(batches))
        saved = {"model": model.variables, "optimizer": optimizer.variables}

        # ---- Epochs --------------------------------------------------------------------------
        while progress.epoch < end and not progress.is_stale(settings.early_stopping):
            title, start = f"epoch {progress.epoch + 1}/{num_epochs}", time.perf_counter()
            offset = (progress.epoch - first) * steps
            row = run_epoch(
                step, stream, progress, steps, title,
                rate=lambda done, offset=offset, schedule=schedule: schedule(offset + done - 1),
                window=LossWindow(train_set, progress, steps, settings.log_every),
                stop=stop,
            )  # fmt: skip
            check_finite(saved, optimizer, progress)
            lock.require_folder()
            if progress.step < steps:  # told to stop
                save_progress(run, saved, detector.conventions, progress)
                logger.warning("{}: saved; go on with --resume {}", stop.received, run)
                sys.exit(stop.exit_code)
            progress.finish_epoch()
            is_last, every = progress.epoch == num_epochs, settings.validate_every
            if is_last or (every and progress.epoch % every == 0):
                with averaged(optimizer, model.trainable_variables):
                    losses, histograms, table = validate()
                    scores = score(table, val_set, config)
                    report = summarize(scores, table)
                    if progress.is_better(scores.value):
                        best = scores, report, table
                        weights_now = {"model": model.variables}
                        save_best(run, weights_now, detector.conventions, progress)
                row |= {f"val_{name}": loss for name, loss in losses.items()}
                row["val_map"] = scores.value
                board.report(progress.epoch, report, histograms)
                with spare(f"the samples of epoch {progress.epoch}"):
                    write_samples(
                        run, board, progress.epoch, val_set, table, settings.sample_pictures
                    )
            row["seconds"] = time.perf_counter() - start
            logger.info(describe_epoch(row, optimizer, offset + steps))
            metrics.add(row)
            board.row(row)
            is_over = is_last or progress.is_stale(settings.early_stopping)
            if is_over or progress.epoch % settings.checkpoint_every == 0:
                save_progress(run, saved, detector.conventions, progress)

    # ---- The end -----------------------------------------------------------------------------
    if progress.epoch < num_epochs:
        logger.info("no better mAP in {} validations: ended early", progress.stale)
    if best is None:  # found before the run was resumed
        find_best(run, progress).restore("model", model.variables)
        _, _, table = validate()
        scores = score(table, val_set, config)
        best = scores, summarize(scores, table), table
    with spare("the curves of this run"):
        training_curves(run / "curves.png", metrics.columns())
    scores, report, table = best
    write_all(run / "evaluation", config.data.val, scores, report, table)
    console.print(scores.table())
    lock.require_folder()
    logger.info("best epoch {} of {}; everything in {}", progress.best_epoch, num_epochs, run)
    print(scores.headline, flush=True)
    return scores.value


# ------------------------------------------------------------------------------------------------
# Parts of the loop
# ------------------------------------------------------------------------------------------------


def begin_phase(
    config: Config,
    phase: FullPhase,
    epochs: range,
    model: RetinaNet,
    criterion: Criterion,
    train_set: Dataset,
    skip_steps: int = 0,
    read: Reader | None = None,
) -> tuple[int, LearningRateSchedule, keras.optimizers.Optimizer, Callable, tf.data.Dataset]:
    """What a phase trains with: steps of an epoch, schedule, optimizer, step, batches.

    Freezes its parts. epochs: of the run, those still to do; without their first `skip_steps`.
    step: batch -> losses, one update. read: see `image_reader`.
    """
    steps = steps_per_epoch(train_set, config.data, phase.batch_size)
    freeze(model, phase.freeze)
    if warning := small_batch_warning(config.model, model, phase.batch_size):
        logger.warning(warning)
    schedule = build_schedule(phase, steps * phase.epochs, config.train.accumulate)
    optimizer = build_optimizer(config, schedule, model)
    batches = training_batches(
        train_set,
        config.data,
        config.model.resize,
        batch_size=phase.batch_size,
        seed=config.train.seed,
        epochs=epochs,
        num_epochs=total_epochs(config),
        skip_steps=skip_steps,
        read=read,
    )
    step = compiled(
        lambda batch: train_step(model, criterion, optimizer, batch),
        batches.element_spec,
        config.train.eager,
        by_size=len(config.data.augment.canvas_scales) > 1,
    )
    return steps, schedule, optimizer, step, batches


def run_epoch(
    step: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]],
    stream: Iterator[dict[str, tf.Tensor]],
    progress: Progress,
    steps: int,
    title: str,
    *,
    rate: Callable[..., tf.Tensor],
    window: "LossWindow",
    stop: StopSignal,
) -> dict[str, float | str]:
    """The steps of an epoch that are not done yet, or as many as `stop` allows -> its metrics.

    rate: steps done in the epoch -> learning rate of the last of them.
    """
    start, waited, first = time.perf_counter(), 0.0, progress.step
    row: dict[str, float | str] = dict.fromkeys(COLUMNS, "") | {"epoch": progress.epoch + 1}
    with progress_bar() as bar:
        task = bar.add_task(title, total=steps, text="")
        while progress.step < steps and not stop.received:
            before = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - before
            window.add(step(batch), batch["index"])
            progress.step += 1
            if progress.step == steps:
                window.read()
            if window.is_read:
                seconds = time.perf_counter() - start
                with tf.device("CPU"):  # elsewhere this would wait for the step
                    row["learning_rate"] = float(rate(progress.step))
                row["images_per_second"] = (progress.step - first) * len(batch["index"]) / seconds
                row["data_wait"] = waited / seconds
                row |= dict(zip(SUMMED, np.array(progress.sums) / progress.step, strict=True))
                text = "lr {learning_rate:.2g} {images_per_second:.1f} img/s data {data_wait:.0%}"
                bar.update(task, completed=progress.step, text=f"{window} " + text.format(**row))
    window.read()
    return row


def check_finite(
    saved: dict[str, list[keras.Variable]],
    optimizer: keras.optimizers.Optimizer,
    progress: Progress,
) -> None:
    """Keeps what the last update has broken, averages too, from being saved over a good model."""
    for variable in chain(*saved.values()):
        if not np.isfinite(variable.numpy()).all():
            raise FloatingPointError(
                f"epoch {progress.epoch + 1}, step {progress.step}: expected finite weights, found "
                f"nan or infinity in {variable.path}. {ADVICE}"
            )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        scale = float(optimizer.dynamic_scale)
        if scale < 1:
            raise FloatingPointError(
                f"epoch {progress.epoch + 1}: expected a loss scale of at least 1, found "
                f"{scale:g}: float16 cannot hold these gradients. {ADVICE}"
            )


class LossWindow:
    """The losses of the last steps, left on the device until `every` of them are there.

    Reading waits for the device, so on a GPU it is done once in a while; on a CPU it costs nothing
    and is done at each step.
    Raises FloatingPointError for a loss that is not finite, naming step and image files.
    """

    def __init__(self, dataset: Dataset, progress: Progress, steps: int, every: int):
        self.dataset, self.progress, self.steps = dataset, progress, steps
        self.every = every if tf.config.list_physical_devices("GPU") else 1
        self.waiting: list[tuple] = []
        self.latest = dict.fromkeys(SUMMED, float("nan"))

    def add(self, losses: dict, index: tf.Tensor) -> None:
        self.waiting.append((self.progress.step, losses, index))
        if len(self.waiting) >= self.every:
            self.read()

    @property
    def is_read(self) -> bool:
        return not self.waiting

    def read(self) -> None:
        for step, losses, index in self.waiting:
            self.latest = {name: float(losses[name]) for name in SUMMED}
            if not np.isfinite(list(self.latest.values())).all():
                files = [self.dataset.images[i] for i in index.numpy()]
                raise FloatingPointError(
                    f"epoch {self.progress.epoch + 1}, step {step + 1} of {self.steps}: expected "
                    f"finite losses, found {self.latest}, from {', '.join(files)} and what was "
                    f"mixed into them, if anything. {ADVICE}"
                )
            values = self.latest.values()
            self.progress.sums = [a + b for a, b in zip(self.progress.sums, values, strict=True)]
        self.waiting = []

    def __str__(self) -> str:
        return "loss {loss:.3f} = class {class_loss:.3f} + box {box_loss:.3f}".format(**self.latest)


def make_validation(
    detector: Detector, criterion: Criterion, dataset: Dataset, config: Config
) -> Callable[[], tuple[dict[str, float], dict[str, np.ndarray], DetectionTable]]:
    """A function without arguments -> mean losses by name, `score_histograms`, detections, all of
    the whole split."""
    size = config.evaluate.batch_size
    batches = evaluation_batches(
        dataset,
        config.model.resize,
        batch_size=size,
        train_on_difficult=config.data.train_on_difficult,
        read=image_reader(dataset, config.data.cache),
    )
    step = compiled(
        lambda batch: validation_step(detector.model, criterion, detector.postprocess, batch),
        batches.element_spec,
        config.train.eager,
    )

    def validate() -> tuple[dict[str, float], dict[str, np.ndarray], DetectionTable]:
        sums = dict.fromkeys(SCALARS, 0.0)
        histograms: dict[str, np.ndarray] = {}
        found = []
        for batch in checked(batches):
            losses, counts, detections = step(batch)
            found.append((batch["index"], detections))
            for name, bins in counts.items():
                histograms[name] = histograms.get(name, 0) + bins.numpy().astype(np.int64)
            for name in SCALARS:  # weighted, because the last batch may be smaller
                sums[name] += float(losses[name]) * len(batch["index"])
        means = {name: value / len(dataset) for name, value in sums.items()}
        return means, histograms, gather_detections(found, dataset.image_ids, dataset.classes)

    return validate


# ------------------------------------------------------------------------------------------------
# What the diary says
# ------------------------------------------------------------------------------------------------


def describe(config: Config, device: str, train_set: Dataset, val_set: Dataset) -> None:
    """Writes to the diary what a run is, before its first step."""
    logger.debug("config {}", json.dumps(configs.to_dict(config)))
    logger.info("{}; device {}; {}", versions(), device, config.train.precision)
    for dataset in (train_set, val_set):
        real = dataset.labels[~dataset.ignore]
        counts = np.bincount(real, minlength=len(dataset.classes))
        objects = ", ".join(f"{name} {n}" for name, n in zip(dataset.classes, counts, strict=True))
        empty = int((np.diff(dataset.row_splits) == 0).sum())
        logger.info(
            "{}: {} images ({} without objects), {} objects ({} difficult), {} regions to ignore: "
            "{}",
            dataset.name, len(dataset), empty, len(real), int(dataset.difficult.sum()),
            int(dataset.ignore.sum()), objects,
        )  # fmt: skip
        log_defects(dataset)
        detect = config.model.detect
        for _, text in limits(
            dataset, detect.max_detections, detect.top_k, config.metric == "coco"
        ):
            logger.warning(text)
    if config.data.repeat_threshold:
        factors = repeat_factors(
            train_set, config.data.repeat_threshold, config.data.train_on_difficult
        )
        logger.info(
            "{} of {} images come more than once an epoch, up to {:.1f} times; it has {}",
            (factors > 1).sum(), len(train_set), factors.max(), samples_per_epoch(factors),
        )  # fmt: skip
    for phase in config.train.all_phases():
        steps = steps_per_epoch(train_set, config.data, phase.batch_size) * phase.epochs
        updates = num_updates(phase, steps, config.train.accumulate)
        warmup = warmup_within(phase, updates)
        if warmup < phase.warmup_steps:
            logger.warning(
                "train.warmup_steps: {} are more than half of the {} updates of {} epochs; {} are",
                phase.warmup_steps, updates, phase.epochs, warmup,
            )  # fmt: skip
    mixing = config.data.mixing
    if mixing.total and mixing.closing_epochs:
        epochs = total_epochs(config)
        mixed = max(epochs - mixing.closing_epochs, 0)
        logger.info("images are mixed in the first {} of {} epochs", mixed, epochs)
    logger.info(coverage(train_set, config).line())


def go_on(run: Path, progress: Progress, num_epochs: int, is_stale: bool) -> None:
    """Says where a run goes on, or that it is finished; forgets best weights that are gone.

    Raises CheckpointError for a finished run without them.
    """
    logger.info("resumed after epoch {}, step {}", progress.epoch, progress.step)
    if progress.epoch >= num_epochs or is_stale:
        find_best(run, progress)
        logger.info(
            "{} is finished: {} of {} epochs. Nothing is trained; for more epochs: --resume {} "
            "--set train.epochs=N, or a new run from its weights: --set model.weights={}",
            *(run, progress.epoch, num_epochs, run, run),
        )
    elif progress.best_epoch:
        try:
            find_best(run, progress)
        except CheckpointError as error:
            logger.warning("{}: the next validation's weights are the best so far", error)
            progress.forget_best()


def coverage(dataset: Dataset, config: Config) -> Coverage:
    """Which share of the objects has an anchor at the positive IoU, or one by ATSS, by size.

    An object without one is never learnt unless matcher.low_quality is on.
    """
    boxes, sizes = at_input_size(dataset, config.model.resize)
    height, width = (int(side) for side in padded_size(sizes.max(axis=0), config.model.resize))
    generator, boxes = build_anchors(config.model), boxes[~dataset.ignore]
    anchors = generator(height, width)
    matcher = build_matcher(config)
    if isinstance(matcher, Atss):
        counts = generator.level_counts(height, width)
        return atss_coverage(matcher, anchors, counts, boxes)
    return anchor_coverage(anchors, boxes, matcher.positive_iou)


def describe_epoch(
    row: Mapping[str, Any], optimizer: keras.optimizers.Optimizer, steps: int
) -> str:
    """An epoch in one line of the diary."""
    parts = [
        f"epoch {row['epoch']}",
        "loss {loss:.4f} = class {class_loss:.4f} + box {box_loss:.4f}".format(**row),
        f"{row['positives']:.1f} positives a batch",
        f"lr {row['learning_rate']:.3g}",
        f"{row['images_per_second']:.1f} images/s",
        f"data wait {row['data_wait']:.0%}",
    ]
    if row["val_map"] != "":
        parts.append(f"val loss {row['val_loss']:.4f}, mAP {row['val_map']:.4f}")
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # Batches taken in: `iterations` counts updates.
        applied = int(optimizer.inner_optimizer._iterations)
        scale = float(optimizer.dynamic_scale)
        parts.append(f"{steps - applied} overflow steps skipped, loss scale {scale:g}")
    return ", ".join(parts)


def write_samples(
    run: Path, board: Board, epoch: int, dataset: Dataset, table: DetectionTable, count: int
) -> None:
    """The first images of a split, truth beside detections, as a file and in TensorBoard."""
    if not count:
        return
    pictures = [with_truth(dataset, i, table) for i in range(min(count, len(dataset)))]
    height, width = np.max([picture.shape[:2] for picture in pictures], axis=0)
    sheet = contact_sheet(pictures, columns=1, cell=(min(height, 480), min(width, 1280)))
    path = run / "samples" / f"epoch_{epoch:04d}.png"
    write_image(path, sheet)
    board.picture(epoch, "validation/samples", path, sheet.shape[:2])


if __name__ == "__main__":
    run_program(main)
