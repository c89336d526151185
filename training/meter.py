"""Losses, learning rate and pace of an epoch; refuses losses and weights that are not finite."""

import time
from collections.abc import Mapping, Sequence
from itertools import chain

import keras
import numpy as np
import tensorflow as tf

from data.records import Dataset
from training.phases import TrainingPhase
from training.resuming import SCALARS, SUMMED, Progress

COLUMNS = (
    "epoch", "learning_rate", *SUMMED, "images_per_second", "data_wait", "seconds",
    *(f"val_{name}" for name in SCALARS), "val_map",
)  # fmt: skip
ADVICE = (
    "The last good weights are in checkpoints/last.npz, if there is one; a lower "
    "train.learning_rate, more train.warmup_steps or a smaller train.clip_norm may help"
)


class EpochMeter:
    """Adds up the losses of an epoch's steps in `progress`, and measures how fast these are.

    Losses stay on the device until `every` of them are there: reading waits for the device, so on a
    GPU it is done once in a while; on a CPU it costs nothing and is done at each step.
    Raises FloatingPointError for a loss that is not finite, naming step and image files.
    """

    def __init__(self, phase: TrainingPhase, dataset: Dataset, every: int):
        self.phase, self.progress, self.dataset = phase, phase.progress, dataset
        self.every = every if tf.config.list_physical_devices("GPU") else 1
        self.unread: list[tuple] = []
        self.latest = dict.fromkeys(SUMMED, float("nan"))
        self.first, self.start, self.waited = self.progress.step, time.perf_counter(), 0.0

    def add(self, losses: dict, index: tf.Tensor, waited: float) -> None:
        """index: of the step's images. waited: seconds until they were there."""
        self.waited += waited
        self.unread.append((self.progress.step, losses, index))
        if len(self.unread) >= self.every:
            self.read()

    def read(self) -> None:
        for step, losses, index in self.unread:
            self.latest = {name: float(losses[name]) for name in SUMMED}
            if not np.isfinite(list(self.latest.values())).all():
                files = [self.dataset.images[i] for i in index.numpy()]
                raise FloatingPointError(
                    f"epoch {self.progress.epoch + 1}, step {step + 1} of "
                    f"{self.phase.planned.steps}: expected finite losses, found {self.latest}, "
                    f"from {', '.join(files)} and what was mixed into them, if anything. {ADVICE}"
                )
            values = self.latest.values()
            self.progress.sums = [a + b for a, b in zip(self.progress.sums, values, strict=True)]
        self.unread = []

    def row(self) -> dict[str, float | str]:
        """The epoch in the columns of metrics.csv: means over its steps, nothing of validation."""
        means = np.array(self.progress.sums) / self.progress.step
        row: dict[str, float | str] = dict.fromkeys(COLUMNS, "")
        row |= {"epoch": self.progress.epoch + 1, **dict(zip(SUMMED, means, strict=True))}
        return row | self._pace()

    def _pace(self) -> dict[str, float]:
        seconds = time.perf_counter() - self.start
        num_images = (self.progress.step - self.first) * self.phase.planned.settings.batch_size
        return {
            "learning_rate": self.phase.rate(),
            "images_per_second": num_images / seconds,
            "data_wait": self.waited / seconds,
        }

    def __str__(self) -> str:
        text = "loss {loss:.3f} = class {class_loss:.3f} + box {box_loss:.3f}"
        pace = "lr {learning_rate:.2g} {images_per_second:.1f} img/s data {data_wait:.0%}"
        return f"{text} {pace}".format(**self.latest, **self._pace())


def check_finite(
    saved: Mapping[str, Sequence[keras.Variable]],
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
