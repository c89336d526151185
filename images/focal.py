"""What focal loss and prior do: to one answer, before the first step, in the first steps.

Paper: Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002, sections 3 and 4.1.
"""

import csv
from pathlib import Path

import numpy as np
import tensorflow as tf

from core.heads import prior_bias
from core.losses import sigmoid_focal_loss
from utils.plots import focal_loss_curves, foreground_curves, prior_curves

GAMMAS = (0, 0.5, 1, 2, 5)  # the paper's
STEPS_FILE = Path(__file__).with_name("foreground_share.csv")  # of benchmarks/first_steps.py


def read_steps(path: str | Path) -> dict[str, list[tuple]]:
    """Start -> (step, class loss, that of objects) of each step, from a file of first_steps.py."""
    runs: dict[str, list[tuple]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            runs.setdefault(row.pop("run"), []).append(tuple(map(float, row.values())))
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


def draw_prior(
    path: str | Path, anchors: int = 76_725, classes: int = 80, positives: int = 30
) -> None:
    """The class loss of a network that answers `prior` everywhere, by what it starts from.

    anchors: of an image of 640 x 640; of them `positives` are of an object.
    """
    priors = np.geomspace(1e-4, 0.5, 200)
    logits = tf.constant([prior_bias(prior) for prior in priors], tf.float32)
    counts = {"objects": positives, "background": anchors * classes - positives}
    curves = {}
    for name, gamma, alpha in (("focal loss", 2.0, 0.25), ("cross-entropy", 0.0, None)):
        for part, count in counts.items():
            target = tf.fill(logits.shape, float(part == "objects"))
            losses = sigmoid_focal_loss(logits, target, alpha=alpha, gamma=gamma)
            curves[f"{name}, {part}"] = (priors, losses.numpy() * count / positives)
    title = f"Before the first step: {positives} of {anchors:,} anchors are of an object"
    prior_curves(path, curves, title)


def draw_first_steps(path: str | Path, steps_file: str | Path = STEPS_FILE) -> None:
    """The class loss of each start, and the share of it that is of objects."""
    runs = read_steps(steps_file)
    curves = {name: tuple(np.transpose(rows)) for name, rows in runs.items()}
    foreground_curves(path, curves, "Class loss in the first steps")
