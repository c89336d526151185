"""The phases of a training: what each freezes, its optimizer, its step and its batches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import tensorflow as tf
from loguru import logger

from configs import Config
from core.build import build_optimizer, freeze, small_batch_warning
from core.engine import compiled, train_step
from core.losses import Criterion
from core.retinanet import RetinaNet
from data.images.render import Reader
from data.pipeline import image_reader, training_batches
from data.records import Dataset
from training.plan import Plan, PlannedPhase, total_epochs
from training.resuming import Progress


@dataclass
class TrainingPhase:
    """What a phase trains with.

    progress: of the run. step: batch -> losses, one update. batches: from where it goes on.
    """

    planned: PlannedPhase
    progress: Progress
    optimizer: keras.optimizers.Optimizer
    step: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]
    batches: tf.data.Dataset

    @property
    def steps_done(self) -> int:
        return (self.progress.epoch - self.planned.first) * self.planned.steps + self.progress.step

    def rate(self) -> float:
        """The learning rate of the last step that was done."""
        with tf.device("CPU"):  # elsewhere this would wait for the step
            return float(self.planned.schedule(self.steps_done - 1))


def phases_to_do(
    plan: Plan, progress: Progress, model: RetinaNet, criterion: Criterion
) -> Iterator[TrainingPhase]:
    """Yields each phase that has epochs left, when its turn comes, with its parts frozen.

    A phase that was begun gets its optimizer from the plan's checkpoint, which is then let go.
    """
    trains_by_itself = {layer: layer.trainable for layer in model._flatten_layers()}
    read, checkpoint = image_reader(plan.train_set, plan.config.data.cache), plan.checkpoint
    for planned in plan.phases:
        if progress.epoch >= planned.end or plan.is_finished(progress):
            continue
        for layer, trainable in trains_by_itself.items():
            layer.trainable = trainable
        phase = begin_phase(plan.config, plan.train_set, planned, progress, model, criterion, read)
        if checkpoint:
            if (progress.epoch, progress.step) > (planned.first, 0):
                checkpoint.restore("optimizer", phase.optimizer.variables)
            checkpoint.clear()
            checkpoint = None
        yield phase


def begin_phase(
    config: Config,
    train_set: Dataset,
    planned: PlannedPhase,
    progress: Progress,
    model: RetinaNet,
    criterion: Criterion,
    read: Reader | None = None,
) -> TrainingPhase:
    """Freezes the parts of a phase and builds what it trains with.

    progress: where its batches go on. read: see `image_reader`.
    """
    settings = planned.settings
    freeze(model, settings.freeze)
    if warning := small_batch_warning(config.model, model, settings.batch_size):
        logger.warning(warning)
    optimizer = build_optimizer(config, planned.schedule, model)
    batches = training_batches(
        train_set,
        config.data,
        config.model.resize,
        batch_size=settings.batch_size,
        seed=config.train.seed,
        epochs=range(progress.epoch, planned.end),
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
    return TrainingPhase(planned, progress, optimizer, step, batches)
