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
from core.build import num_updates, warmup_within
from data.datasets import log_defects
from data.doctor.figures import split_figures
from data.doctor.object_counts import limits
from data.records import Dataset
from data.sampling import repeat_factors, samples_per_epoch
from results.pictures import with_truth
from training.plan import Plan
from training.validation import Validated
from utils.board import Board
from utils.diary import versions
from utils.draw import contact_sheet, write_image
from utils.files import spare
from utils.plots import training_curves
from utils.runs import MetricsFile, read_metrics


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
        self.board.report(epoch, found.scores.report, found.histograms)
        if num_samples:
            with spare(f"the samples of epoch {epoch}"):
                self._samples(epoch, found, num_samples)

    def _samples(self, epoch: int, found: Validated, count: int) -> None:
        """The first images of the split, truth beside detections, as a file and in TensorBoard."""
        dataset, table = found.scores.dataset, found.scores.detections
        pictures = [with_truth(dataset, i, table) for i in range(min(count, len(dataset)))]
        height, width = np.max([picture.shape[:2] for picture in pictures], axis=0)
        sheet = contact_sheet(pictures, columns=1, cell=(min(height, 480), min(width, 1280)))
        path = self.run / "samples" / f"epoch_{epoch:04d}.png"
        write_image(path, sheet)
        self.board.picture(epoch, "validation/samples", path, sheet.shape[:2])

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
    for phase in plan.phases:
        settings = phase.settings
        updates = num_updates(settings, phase.num_steps, config.train.accumulate)
        warmup = warmup_within(settings, updates)
        if warmup < settings.warmup_steps:
            logger.warning(
                "train.warmup_steps: {} are more than half of the {} updates of {} epochs; {} are",
                settings.warmup_steps, updates, settings.epochs, warmup,
            )  # fmt: skip
    mixing = config.data.mixing
    if mixing.total and mixing.closing_epochs:
        mixed = plan.num_epochs - mixing.closing_epochs
        logger.info("images are mixed in the first {} of {} epochs", mixed, plan.num_epochs)
    logger.info(plan.coverage.line())
    describe_bits(plan)
    if plan.weights:
        adopted = ", ".join(f"{name}={value}" for name, value, _ in plan.adopted) or "nothing"
        logger.info("settings that follow the weights: {}", adopted)


def describe_split(dataset: Dataset, config: Config) -> None:
    """Says how much a split holds, what its reader dropped, and what no detector could keep."""
    figures = split_figures(dataset, config.model.resize)
    objects = ", ".join(f"{row['name']} {row['objects']}" for row in figures["classes"])
    logger.info(
        "{}: {} images ({} without objects), {} objects ({} difficult), {} regions to ignore: {}",
        dataset.name, len(dataset), figures["empty_images"], figures["objects"],
        figures["difficult"], figures["ignore_regions"], objects,
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


def describe_epoch(
    row: Mapping[str, Any], optimizer: keras.optimizers.Optimizer, steps: int
) -> str:
    """An epoch in one line of the diary."""
    text = (
        "epoch {epoch}, loss {loss:.4f} = class {class_loss:.4f} + box {box_loss:.4f}, "
        "{positives:.1f} positives a batch, lr {learning_rate:.3g}, "
        "{images_per_second:.1f} images/s, data wait {data_wait:.0%}"
    )
    if row["val_map"] != "":
        text += ", val loss {val_loss:.4f}, mAP {val_map:.4f}"
    text = text.format(**row)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # Batches taken in: `iterations` counts updates.
        applied = int(optimizer.inner_optimizer._iterations)
        scale = float(optimizer.dynamic_scale)
        text += f", {steps - applied} overflow steps skipped, loss scale {scale:g}"
    return text
