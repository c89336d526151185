"""Sums up the losses of an epoch, and refuses losses and weights that are not finite."""

from collections.abc import Mapping, Sequence
from itertools import chain

import keras
import numpy as np
import tensorflow as tf

from data.records import Dataset
from training.progress import SUMMED, Progress

ADVICE = (
    "The last good weights are in checkpoints/last.npz, if there is one; a lower "
    "train.learning_rate, more train.warmup_steps or a smaller train.clip_norm may help"
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
