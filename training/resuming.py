"""How far a run has come, and where one that was stopped goes on.

A run keeps two generations of its state: checkpoints/last.npz, and previous.npz from before it.
The first previous.npz is written before the first step, so that a run without either has lost them.
"""

import dataclasses
import hashlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from data.records import Dataset
from utils.checkpoints import Checkpoint, CheckpointError, save_checkpoint
from utils.runs import RunError

LAST, PREVIOUS, BEST = (f"checkpoints/{name}.npz" for name in ("last", "previous", "best"))
SCALARS = ("loss", "class_loss", "box_loss", "positives", "foreground_loss")
# Counted in training only: images that stay as they are have the same in each validation.
ANCHORS = (*(f"positives_p{level}" for level in range(3, 8)), "ignored")
SUMMED = SCALARS + ANCHORS  # a checkpoint has their sums in this order: new ones go to the end

Count = Annotated[int, msgspec.Meta(ge=0)]
Metric = Annotated[float, msgspec.Meta(ge=-1, le=1)]


@dataclasses.dataclass
class Progress:
    """How far a run has come: all that a checkpoint needs beside the variables."""

    data: tuple[str, str]  # fingerprints of the training and the validation split
    epoch: Count = 0  # epochs done, with their validations
    step: Count = 0  # steps done in the epoch after them; all, if its validation was broken off
    # Over those steps.
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0] * len(SUMMED))
    best: Metric = -1.0  # mAP of the best validation
    best_epoch: Count = 0
    stale: Count = 0  # validations since

    @classmethod
    def of(cls, checkpoint: Checkpoint, num_epochs: int) -> "Progress":
        """The progress that a checkpoint of a run of so many epochs holds.

        Raises CheckpointError naming the file and the field for what cannot be one.
        """
        found, names = checkpoint.state.get("progress"), [f.name for f in dataclasses.fields(cls)]
        if found is None:
            raise CheckpointError(
                f"{checkpoint.path}: expected the progress of a training, found weights alone, as "
                "best.npz has them"
            )
        if not isinstance(found, dict) or sorted(found) != sorted(names):
            raise CheckpointError(
                f"{checkpoint.path}: progress: expected {', '.join(names)}, found "
                f"{', '.join(map(repr, found)) if isinstance(found, dict) else repr(found):.200}"
            )
        try:
            progress = msgspec.convert(found, cls)
        except msgspec.ValidationError as error:
            raise CheckpointError(f"{checkpoint.path}: progress: {error}") from None
        progress._require_consistent(checkpoint.path, num_epochs)
        return progress

    def _require_consistent(self, path: Path, num_epochs: int) -> None:
        for name, most in (
            ("epoch", num_epochs),
            ("best_epoch", self.epoch),
            ("stale", self.epoch),
        ):
            self.require_at_most(path, name, most)
        if len(self.sums) != len(SUMMED) or not all(map(math.isfinite, self.sums)):
            expected = f"expected {len(SUMMED)} finite sums"
            raise CheckpointError(f"{path}: progress: {expected}, found {self.sums!r:.200}")

    def require_at_most(self, path: Path, name: str, most: int) -> None:
        if getattr(self, name) > most:
            expected = f"expected {name} to be at most {most}"
            raise CheckpointError(f"{path}: progress: {expected}, found {getattr(self, name)}")

    def is_better(self, value: float) -> bool:
        """Whether the mAP of a validation is the best so far."""
        return value > self.best

    def finish_epoch(self, value: float | None) -> None:
        """Goes on to the next epoch. value: mAP of this one's validation, None without any."""
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0] * len(SUMMED)
        if value is not None and self.is_better(value):
            self.best, self.best_epoch, self.stale = value, self.epoch, 0
        elif value is not None:
            self.stale += 1

    def forget_best(self) -> None:
        self.best, self.best_epoch, self.stale = -1.0, 0, 0

    def is_stale(self, early_stopping: int) -> bool:
        """Whether early stopping (validations without a better mAP; 0: never) ends the run."""
        return bool(early_stopping) and self.stale >= early_stopping


def fingerprint(dataset: Dataset) -> str:
    """Changes with any image id, box or label, so that a resumed run sees what it saw before."""
    digest = hashlib.sha256("\n".join(dataset.image_ids).encode())
    boxes = dataset.boxes.astype(np.float32)
    for array in (dataset.row_splits, boxes, dataset.labels, dataset.difficult, dataset.ignore):
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def save_progress(
    run: Path,
    groups: Mapping[str, Sequence],
    conventions: Mapping[str, Any],
    progress: Progress,
    is_beginning: bool = False,
) -> None:
    """Writes last.npz and keeps the one before it as previous.npz.

    groups: of variables, see `save_checkpoint`.
    is_beginning: writes previous.npz, before the first step: a disk that takes no checkpoint is
        found here.
    """
    state = {**conventions, "progress": dataclasses.asdict(progress)}
    if is_beginning:
        save_checkpoint(run / PREVIOUS, groups, state)
    else:
        save_checkpoint(run / LAST, groups, state, keep=run / PREVIOUS)


def newest_checkpoint(run: Path, num_epochs: int) -> tuple[Checkpoint | None, Progress | None, str]:
    """What a run of so many epochs goes on from, and a warning if last.npz was lost.

    None: it has not come to a checkpoint, and begins anew. Raises RunError where it has made
    progress and neither file can be used.
    """
    problems = []
    for name in (LAST, PREVIOUS):
        try:
            checkpoint = Checkpoint(run / name)
            progress = Progress.of(checkpoint, num_epochs)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        is_first = not (progress.epoch or progress.step or has_epochs(run))
        if not problems or (is_first and not os.path.lexists(run / LAST)):
            return checkpoint, progress, ""
        where = f"goes on from {name}: epoch {progress.epoch}, step {progress.step}"
        return checkpoint, progress, f"{problems[0]}; {where}"
    if not (has_epochs(run) or any(os.path.lexists(run / name) for name in (LAST, PREVIOUS))):
        return None, None, ""
    advice = ""
    if (run / BEST).is_file():
        advice = f"; to begin a new run from its weights: --set model.weights={run / BEST}"
    raise RunError(
        f"{run}: expected a checkpoint to go on from, found none: {'; '.join(problems)}{advice}"
    )


def has_epochs(run: Path) -> bool:
    """Whether a run has finished an epoch: it left best weights or a row in metrics.csv."""
    metrics = run / "metrics.csv"
    has_rows = metrics.is_file() and len(metrics.read_bytes().splitlines()) > 1
    return has_rows or os.path.lexists(run / BEST)


def put_aside(path: Path) -> None:
    """Moves what is damaged out of the way, so that it does not take the place of previous.npz."""
    if os.path.lexists(path):
        os.replace(path, path.with_name(f"{path.name}.damaged-{time.time_ns()}"))


def require_same_data(
    checkpoint: Checkpoint, progress: Progress, train_set: Dataset, val_set: Dataset
) -> None:
    """Raises CheckpointError if a split is not what it was when the run began."""
    classes = checkpoint.state.get("classes")
    if classes != list(train_set.classes):
        raise CheckpointError(
            f"{checkpoint.path}: was trained on the classes {classes}, {train_set.name} has "
            f"{list(train_set.classes)}"
        )
    for found, dataset in zip(progress.data, (train_set, val_set), strict=True):
        if found != fingerprint(dataset):
            raise CheckpointError(
                f"{checkpoint.path}: expected {dataset.name} as it was when the run began, found "
                "other images, boxes or labels; start a new run"
            )


def save_best(
    run: Path, groups: Mapping[str, Sequence], conventions: Mapping[str, Any], epoch: int
) -> None:
    """Writes best.npz, which says of which epoch it is."""
    save_checkpoint(run / BEST, groups, {**conventions, "epoch": epoch})


def find_best(run: Path, progress: Progress) -> Checkpoint:
    """The best weights of a run that goes on.

    Raises CheckpointError where they are gone, damaged or of an epoch that is to come: a kill may
    have come between them and the progress.
    """
    best = Checkpoint(run / BEST)
    epoch = best.state.get("epoch")
    if epoch != progress.best_epoch:
        raise CheckpointError(
            f"{best.path}: expected the weights of epoch {progress.best_epoch}, found {epoch!r}"
        )
    return best
