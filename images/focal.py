"""What the focal loss does: to one answer, and to the first steps of a training.

    python -m images.focal --config benchmarks/ablation.py --set data.root=PATH/TO/bccd
    python -m images.make

The first trains the config's detector from scratch for --steps steps, once for each of STARTS, and
leaves foreground_share.csv; the second draws that file, and the loss by itself.
Paper: Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002, sections 3 and 4.1.
"""

import argparse
import csv
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from loguru import logger

import configs
from configs import Config, ConfigError
from core.build import build_criterion, build_model
from core.losses import sigmoid_focal_loss
from data.datasets import prepare, read_split
from data.pipeline import checked
from data.records import Dataset
from train import begin_phase
from utils.devices import use_devices
from utils.diary import diary
from utils.files import whole_file
from utils.plots import focal_loss_curves, foreground_curves

GAMMAS = (0, 0.5, 1, 2, 5)  # the paper's
CROSS_ENTROPY = {"loss.gamma": 0.0, "loss.alpha": None}
STARTS = {  # name -> what differs from the config
    "gamma 2, prior 0.01": {"loss.gamma": 2.0, "model.prior": 0.01},
    "gamma 2, prior 0.5": {"loss.gamma": 2.0, "model.prior": 0.5},
    "cross-entropy, prior 0.01": CROSS_ENTROPY | {"model.prior": 0.01},
    "cross-entropy, prior 0.5": CROSS_ENTROPY | {"model.prior": 0.5},
}
COLUMNS = ("step", "class_loss", "foreground_loss")
STEPS_FILE = Path(__file__).with_name("foreground_share.csv")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    configs.add_arguments(parser)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", default=STEPS_FILE, help="default: %(default)s")
    args = parser.parse_args(argv)
    config = configs.load(args.config, args.overrides)
    if config.model.weights:
        raise ConfigError(
            f"model.weights: expected None, for a start from scratch, found {config.model.weights}"
        )
    use_devices()
    with diary():
        dataset = read_split(config.data, config.data.train, prepare(config.data))
        runs = {}
        for name, changes in STARTS.items():
            logger.info("{}: {} steps", name, args.steps)
            runs[name] = first_steps(configs.override(config, changes), dataset, args.steps)
    write_steps(args.out, runs)


def first_steps(config: Config, dataset: Dataset, steps: int) -> list[tuple]:
    """COLUMNS of each of the first steps, as train.py would take them in the first phase."""
    phase = config.train.all_phases()[0]
    keras.utils.set_random_seed(config.train.seed)
    model = build_model(config.model, len(dataset.classes), config.train.precision)
    criterion = build_criterion(config)
    *_, step, batches = begin_phase(config, phase, range(phase.epochs), model, criterion, dataset)
    rows = []
    for number, batch in enumerate(checked(batches.take(steps)), start=1):
        losses = step(batch)
        rows.append((number, *(float(losses[name]) for name in COLUMNS[1:])))
    return rows


def write_steps(path: str | Path, runs: Mapping[str, Sequence[tuple]]) -> None:
    """name -> rows of COLUMNS, as a CSV file with the name in front."""
    with whole_file(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", *COLUMNS])
        for name, rows in runs.items():
            writer.writerows((name, *(f"{value:.6g}" for value in row)) for row in rows)


def read_steps(path: str | Path) -> dict[str, list[tuple]]:
    """What `write_steps` wrote."""
    runs: dict[str, list[tuple]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            runs.setdefault(row["run"], []).append(tuple(float(row[name]) for name in COLUMNS))
    return runs


def draw_loss(path: str | Path) -> None:
    """The loss of one answer, by gamma, without alpha: the paper's figure 1."""
    right = np.linspace(0.002, 0.998, 499)  # p_t
    logits = tf.constant(np.log(right / (1 - right)), tf.float32)
    curves = {}
    for gamma in GAMMAS:
        losses = sigmoid_focal_loss(logits, tf.ones_like(logits), alpha=None, gamma=gamma)
        curves[f"gamma {gamma:g}"] = (right, losses.numpy())
    focal_loss_curves(path, curves)


def draw_first_steps(path: str | Path, steps_file: str | Path = STEPS_FILE) -> None:
    """The class loss of each start, and the share of it that is of objects."""
    runs = read_steps(steps_file)
    curves = {name: tuple(np.transpose(rows)) for name, rows in runs.items()}
    foreground_curves(path, curves, "Class loss in the first steps")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
