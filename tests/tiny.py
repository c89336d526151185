"""A training that takes seconds, and what tests of whole runs ask of it."""

import csv
import os
import signal
from pathlib import Path

import numpy as np

from tests.processes import run_script

# Changes that make it one epoch of one step.
ONE_STEP = {"train.phases": (), "train.epochs": 1, "train.warmup_steps": 0, "data.limit": 4}
CLOCK = ("images_per_second", "data_wait", "seconds")  # figures that no run repeats
STEPS = 3  # of an epoch; there are two phases, of one and of two epochs

# A backbone of a few layers, so that a run takes seconds: and a part of the user's own.
TINY = """
import keras
import tensorflow as tf
from configs import preset
from configs.schema import Phase
from core.layers import BatchNorm, Conv2D

class Tiny(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="backbone")
        self.convs = [Conv2D(8, 3, stride, name=f"conv{stride}") for stride in (4, 2)]
        self.norms = [BatchNorm(name=f"bn{i}") for i in range(2)]

    def call(self, x, training=False):
        for conv, norm in zip(self.convs, self.norms):
            x = tf.nn.relu(norm(conv(x), training=training))
        return [x, x[:, ::2, ::2], x[:, ::4, ::4]]

"""


def write_config(folder: Path, shapes: Path, changes: dict | None = None) -> Path:
    """A config whose run takes seconds: the backbone frozen for an epoch, then all for two."""
    settings = {
        "name": "tiny",
        "output": str(folder / "runs"),
        "data.format": "voc",
        "data.root": str(shapes),
        "model.backbone": "TINY",
        "model.neck_width": 8,
        "model.head_width": 8,
        "model.head_depth": 1,
        "model.resize.height": 64,
        "model.resize.width": 64,
        "train.phases": "PHASES",
        "train.epochs": None,
        "train.batch_size": 12 // STEPS,
        "train.warmup_steps": 2,
        "train.validate_every": 1,
        "train.sample_pictures": 1,
    } | (changes or {})
    phases = "(Phase(epochs=1, freeze=('backbone',)), Phase(epochs=2))"
    text = repr(settings).replace(repr("PHASES"), phases).replace(repr("TINY"), "Tiny")
    path = folder / "tiny.py"
    path.write_text(TINY + f"config = preset('shapes', {text})\n")
    return path


def call_train(arguments, expected: int = 0, script: str = "", draws: bool = False, **moment):
    """Runs train.py in a process of its own and returns what it printed.

    expected: its exit status. script: what is done before. draws: whether the evaluation is
    written at the end, which takes two seconds. moment: for the script, in its environment.
    """
    skip = "" if draws else "train.write_all = lambda *_: None\n"
    script = f"import train\n{skip}{script}\ntrain.main()"
    moment = {name: str(value) for name, value in moment.items()}
    result = run_script(script, [str(argument) for argument in arguments], moment)
    assert result.returncode == expected, f"{moment}: {result.output}"
    return result.output


def half_written(is_due):
    """np.savez that, once `is_due()`, writes half a checkpoint and dies as of `kill -9`."""
    savez = np.savez

    def half_savez(file, **arrays):
        if is_due():
            file.write(b"PK" + b"half a checkpoint" * 1000)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        savez(file, **arrays)

    return half_savez


def assert_same_run(folder: Path, reference: Path) -> None:
    """Every variable - moving_* and the optimizer's too - and every loss are equal bit for bit."""
    for name in ("last", "best"):
        with (
            np.load(folder / "checkpoints" / f"{name}.npz") as ours,
            np.load(reference / "checkpoints" / f"{name}.npz") as theirs,
        ):
            assert ours.files == theirs.files
            assert any("moving_variance" in key for key in ours.files)
            assert name == "best" or any(key.startswith("optimizer|") for key in ours.files)
            for key in ours.files:
                np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
    ours, theirs = (read_metrics(path) for path in (folder, reference))
    assert ours == theirs


def read_metrics(folder: Path) -> list[dict]:
    """metrics.csv without what depends on the clock."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in CLOCK:
            del row[name]
    return rows
