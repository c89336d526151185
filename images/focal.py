"""What focal loss and prior do: to one answer, before the first step, in the first steps.

Paper: Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002, sections 3 and 4.1.
"""

import csv
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.ticker import PercentFormatter

from core.heads import prior_bias
from core.losses import sigmoid_focal_loss
from utils.plots import GRID, INK, draw_lines, one_panel, save, two_panels

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
    """The loss of one answer, by gamma, without alpha: the paper's figure 1.

    The grey part, of probabilities above 0.6, is what the paper calls well classified.
    """
    right = np.linspace(0.002, 0.998, 499)  # p_t
    logits = tf.constant(np.log(right / (1 - right)), tf.float32)
    curves = {}
    for gamma in GAMMAS:
        losses = sigmoid_focal_loss(logits, tf.ones_like(logits), alpha=None, gamma=gamma)
        curves[f"gamma {gamma:g}"] = (right, losses.numpy())
    title = "Focal loss, −(1 − p)^γ log p"
    figure, axes = one_panel(title, "p, probability of the right answer", "loss", height=4.6)
    axes.axvspan(0.6, 1, color=GRID, alpha=0.6, linewidth=0, zorder=0)
    axes.text(0.8, 4.85, "well classified", color=INK, fontsize=9, ha="center", va="top")
    draw_lines(axes, curves)
    axes.set(xlim=(0, 1), ylim=(0, 5))
    save(figure, path)


def draw_prior(
    path: str | Path, anchors: int = 76_725, classes: int = 80, positives: int = 30
) -> None:
    """The class loss of a network that answers `prior` everywhere, by what it starts from.

    anchors: of an image of 640 x 640; of them `positives` are of an object. Both axes are
    logarithmic; the line at 0.01 is the paper's choice.
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
    x, y = "prior probability of an object, π", "loss a positive anchor"
    figure, axes = one_panel(title, x, y, height=4.2)
    draw_lines(axes, curves)
    axes.axvline(0.01, color=INK, linestyle=":", linewidth=1.2)
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.margins(x=0.01)
    save(figure, path)


def draw_first_steps(path: str | Path, steps_file: str | Path = STEPS_FILE) -> None:
    """The class loss of each start, and the share of it that is of objects."""
    losses, shares = {}, {}
    for name, rows in read_steps(steps_file).items():
        steps, total, part = np.transpose(rows)
        losses[name], shares[name] = (steps, total), (steps, part / total)
    title, ys = "Class loss in the first steps", ("class loss", "share of it from objects")
    figure, upper, lower = two_panels(title, "step", ys, height=6.4)
    draw_lines(upper, losses, linewidth=1.4)
    draw_lines(lower, shares, linewidth=1.4)
    lower.get_legend().remove()
    upper.set_yscale("log")
    upper.yaxis.set_major_formatter("{x:g}")
    upper.minorticks_off()
    upper.tick_params(bottom=False)
    lower.yaxis.set_major_formatter(PercentFormatter(1))
    lower.set_ylim(-0.02, 1.02)
    lower.margins(x=0.01)
    save(figure, path)
