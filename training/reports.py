"""What a training says and leaves: the diary, metrics.csv, TensorBoard, samples, curves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from loguru import logger

import configs
from configs import Config
from core.build import build_anchors, build_matcher, num_updates, warmup_within
from core.coverage import Coverage, anchor_coverage, atss_coverage
from core.targets import Atss
from data.datasets import log_defects
from data.detections.table import DetectionTable
from data.doctor.object_counts import limits
from data.images.resize import at_input_size, padded_size
from data.pipeline import steps_per_epoch
from data.records import Dataset
from data.sampling import repeat_factors, samples_per_epoch
from results.pictures import with_truth
from training.plan import Plan
from training.progress import SCALARS, SUMMED, find_best
from training.validation import Validated
from utils.board import Board
from utils.checkpoints import CheckpointError
from utils.diary import versions
from utils.draw import contact_sheet, write_image
from utils.files import spare
from utils.plots import training_curves
from utils.runs import MetricsFile, read_metrics

COLUMNS = (
    "epoch", "learning_rate", *SUMMED, "images_per_second", "data_wait", "seconds",
    *(f"val_{name}" for name in SCALARS), "val_map",
)  # fmt: skip


class Report:
    """metrics.csv, without rows of later epochs than `epoch`, TensorBoard and pictures of a run."""

    def __init__(self, run: Path, epoch: int):
        self.run = run
        self.metrics = MetricsFile(run / "metrics.csv", epoch)
        self.board = Board(run / "tensorboard")

    def epoch(self, row: dict[str, Any]) -> None:
        self.metrics.add(row)
        self.board.row(row)

    def validation(self, epoch: int, found: Validated, num_samples: int) -> None:
        """Writes what a validation found, with pictures of the split's first images."""
        self.board.report(epoch, found.report, found.histograms)
        with spare(f"the samples of epoch {epoch}"):
            dataset = found.scores.dataset
            write_samples(self.run, self.board, epoch, dataset, found.table, num_samples)

    def curves(self) -> None:
        with spare("the curves of this run"):
            training_curves(self.run / "curves.png", read_metrics(self.metrics.path))


def describe(plan: Plan, device: str) -> None:
    """Writes to the diary what a run is, before its first step."""
    config, train_set = plan.config, plan.train_set
    logger.debug("config {}", json.dumps(configs.to_dict(config)))
    logger.info("{}; device {}; {}", versions(), device, config.train.precision)
    for dataset in (train_set, plan.val_set):
        describe_split(dataset, config)
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
        mixed = max(plan.num_epochs - mixing.closing_epochs, 0)
        logger.info("images are mixed in the first {} of {} epochs", mixed, plan.num_epochs)
    logger.info(coverage(train_set, config).line())
    describe_bits(plan)
    if plan.weights:
        settings = ", ".join(f"{name}={value}" for name, value, _ in plan.adopted) or "nothing"
        logger.info("settings that follow the weights: {}", settings)


def describe_split(dataset: Dataset, config: Config) -> None:
    """Says how much a split holds, what its reader dropped, and what no detector could keep."""
    real = dataset.labels[~dataset.ignore]
    counts = np.bincount(real, minlength=len(dataset.classes))
    objects = ", ".join(f"{name} {n}" for name, n in zip(dataset.classes, counts, strict=True))
    empty = int((np.diff(dataset.row_splits) == 0).sum())
    logger.info(
        "{}: {} images ({} without objects), {} objects ({} difficult), {} regions to ignore: {}",
        dataset.name, len(dataset), empty, len(real), int(dataset.difficult.sum()),
        int(dataset.ignore.sum()), objects,
    )  # fmt: skip
    log_defects(dataset)
    detect, is_coco = config.model.detect, config.metric == "coco"
    for _, text in limits(dataset, detect.max_detections, detect.top_k, is_coco):
        logger.warning(text)


def describe_bits(plan: Plan) -> None:
    """Says how images of 16 bits are read, and what is lost where fewer bits are read than used."""
    if not plan.depth:
        return
    bits, depth = plan.config.model.bits, plan.depth
    described = depth.describe(len(plan.train_set))
    logger.info("16-bit images: {}, read as {} bits (model.bits)", described, bits)
    if depth.bits > (bits or depth.bits):
        told = "model.bits={}: brighter values become white; model.bits={} shows them all"
        logger.warning(told, bits, depth.bits)


def go_on(run: Path, plan: Plan) -> None:
    """Says where a run goes on, or that it is finished; forgets best weights that are gone.

    Raises CheckpointError for a finished run without them.
    """
    progress, num_epochs = plan.progress, plan.num_epochs
    logger.info("resumed after epoch {}, step {}", progress.epoch, progress.step)
    if progress.epoch >= num_epochs or progress.is_stale(plan.config.train.early_stopping):
        find_best(run, progress)
        logger.info(
            "{} is finished: {} of {} epochs. Nothing is trained; for more epochs: --resume {} "
            "--set train.epochs=N if its schedule allows it, else a new run from its weights: "
            "--set model.weights={}",
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
