"""What the pictures of the focal loss show comes out of the project: its loss, its first steps."""

import csv

import cv2
import numpy as np
import pytest

import train
from configs import ConfigError
from data.shapes import make_shapes
from images import focal
from utils import plots


@pytest.fixture
def drawn(monkeypatch):
    """What the pictures were made of: label -> (x, y) of each panel's lines."""
    panels = []

    def save(figure, path):
        for axes in figure.axes:
            panels.append({line.get_label(): line.get_data() for line in axes.get_lines()})
        original(figure, path)

    original = plots._save
    monkeypatch.setattr(plots, "_save", save)
    return panels


def test_the_loss_is_the_papers(tmp_path, drawn):
    """Figure 1: FL(p) = -(1 - p)^gamma log p."""
    focal.draw_loss(tmp_path / "loss.png")
    assert cv2.imread(str(tmp_path / "loss.png")).std() > 5
    (lines,) = drawn
    assert list(lines) == [f"gamma {gamma}" for gamma in ("0", "0.5", "1", "2", "5")]
    for name, (p, losses) in lines.items():
        expected = -((1 - p) ** float(name.split()[1])) * np.log(p)
        np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-7)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """--set of a run of two steps an epoch that takes seconds."""
    root = make_shapes(tmp_path_factory.mktemp("data") / "tiny", 4, 2, image_size=(64, 64))
    return {
        "data.format": "voc",
        "data.root": str(root),
        "model.resize.height": 64,
        "model.resize.width": 64,
        "model.neck_width": 8,
        "model.head_width": 8,
        "model.head_depth": 1,
        "train.epochs": 1,
        "train.batch_size": 2,
        "train.warmup_steps": 0,
        "train.learning_rate": 0.01,
        "train.eager": True,
        "train.sample_pictures": 0,
    }


def test_the_first_steps_are_those_of_train(tmp_path, settings, drawn, monkeypatch):
    """The mean over an epoch of two steps is what train.py leaves in metrics.csv."""
    name, other = "gamma 0, prior 0.5", "gamma 2, prior 0.01"
    monkeypatch.setattr(focal, "STARTS", {key: focal.STARTS[key] for key in (other, name)})
    settings = settings | {"output": str(tmp_path), "name": "run"}
    texts = [f"{name}={value}" for name, value in settings.items()]
    out = tmp_path / "steps.csv"
    focal.main(
        ["--config", "configs/shapes.py", "--steps", "5", "--out", str(out), "--set", *texts]
    )
    runs = focal.read_steps(out)
    assert list(runs) == list(focal.STARTS)
    for rows in runs.values():
        assert [row[0] for row in rows] == [1, 2], "the run has no more"
        assert all(0 < foreground < total for _, total, foreground in rows)
    changes = [f"{key}={value}" for key, value in focal.STARTS[name].items()]
    train.main(["--config", "configs/shapes.py", "--set", *texts, *changes])
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    expected = [float(row["class_loss"]), float(row["foreground_loss"])]
    np.testing.assert_allclose(np.mean(runs[name], axis=0)[1:], expected, rtol=1e-4)

    focal.draw_first_steps(tmp_path / "share.png", out)
    assert cv2.imread(str(tmp_path / "share.png")).std() > 5
    losses, shares = drawn[-2:]
    for name, rows in runs.items():
        steps, total, foreground = np.transpose(rows)
        np.testing.assert_array_equal(losses[name], (steps, total))
        np.testing.assert_array_equal(shares[name], (steps, foreground / total))


def test_weights_leave_no_start_from_scratch(tmp_path):
    with pytest.raises(ConfigError, match=r"model.weights: expected None, .* found coco"):
        focal.main(["--config", "configs/voc.py", "--set", "model.weights=coco"])


def test_the_steps_that_are_kept_are_whole():
    """The file that the README's picture is drawn from."""
    runs = focal.read_steps(focal.STEPS_FILE)
    assert list(runs) == list(focal.STARTS)
    assert len({len(rows) for rows in runs.values()}) == 1
