"""The phases of a training: what each freezes, its optimizer, its step and its batches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import tensorflow as tf
from loguru import logger

from configs import Config
from configs.schema import FullPhase
from core.build import build_optimizer, build_schedule, freeze, small_batch_warning
from core.engine import compiled, train_step
from core.losses import Criterion
from core.retinanet import RetinaNet
from core.schedules import LearningRateSchedule
from data.images.render import Reader
from data.pipeline import checked, image_reader, steps_per_epoch, training_batches
from data.records import Dataset
from training.plan import Plan, total_epochs
from training.progress import Progress


@dataclass(frozen=True)
class TrainingPhase:
    """What a phase trains with.

    first, end: its epochs in the run. steps: of an epoch. step: batch -> losses, one update.
    batches: from where it goes on.
    """

    first: int
    end: int
    steps: int
    schedule: LearningRateSchedule
    optimizer: keras.optimizers.Optimizer
    step: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]
    batches: tf.data.Dataset

    def stream(self) -> Iterator[dict[str, tf.Tensor]]:
        return iter(checked(self.batches))

    def steps_done(self, progress: Progress) -> int:
        return (progress.epoch - self.first) * self.steps + progress.step

    def rate(self, progress: Progress) -> float:
        """The learning rate of the last step that was done."""
        with tf.device("CPU"):  # elsewhere this would wait for the step
            return float(self.schedule(self.steps_done(progress) - 1))


def phases_to_do(plan: Plan, model: RetinaNet, criterion: Criterion) -> Iterator[TrainingPhase]:
    """Yields each phase that has epochs left, when its turn comes, with its parts frozen.

    A phase that was begun gets its optimizer from the plan's checkpoint, which is then let go.
    """
    config, progress = plan.config, plan.progress
    trains_by_itself = {layer: layer.trainable for layer in model._flatten_layers()}
    read, checkpoint, end = image_reader(plan.train_set, config.data.cache), plan.checkpoint, 0
    for settings in config.train.all_phases():
        first, end = end, end + settings.epochs
        if progress.epoch >= end or progress.is_stale(config.train.early_stopping):
            continue
        for layer, trainable in trains_by_itself.items():
            layer.trainable = trainable
        phase = begin_phase(
            config, settings, first, progress, model, criterion, plan.train_set, read
        )
        if checkpoint:
            if (progress.epoch, progress.step) > (first, 0):
                checkpoint.restore("optimizer", phase.optimizer.variables)
            checkpoint.clear()
            checkpoint = None
        yield phase


def begin_phase(
    config: Config,
    settings: FullPhase,
    first: int,
    progress: Progress,
    model: RetinaNet,
    criterion: Criterion,
    train_set: Dataset,
    read: Reader | None = None,
) -> TrainingPhase:
    """Freezes the parts of a phase and builds what it trains with.

    first: its first epoch in the run. progress: where its batches go on. read: see `image_reader`.
    """
    end = first + settings.epochs
    steps = steps_per_epoch(train_set, config.data, settings.batch_size)
    freeze(model, settings.freeze)
    if warning := small_batch_warning(config.model, model, settings.batch_size):
        logger.warning(warning)
    schedule = build_schedule(settings, steps * settings.epochs, config.train.accumulate)
    optimizer = build_optimizer(config, schedule, model)
    batches = training_batches(
        train_set,
        config.data,
        config.model.resize,
        batch_size=settings.batch_size,
        seed=config.train.seed,
        epochs=range(progress.epoch, end),
        num_epochs=total_epochs(config),
        skip_steps=progress.step,
        read=read,
    )
    step = compiled(
        lambda batch: train_step(model, criterion, optimizer, batch),
        batches.element_spec,
        config.train.eager,
        by_size=len(config.data.augment.canvas_scales) > 1,
    )
    return TrainingPhase(first, end, steps, schedule, optimizer, step, batches)
