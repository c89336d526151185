"""The first steps are train.py's own."""

import csv

import numpy as np
import pytest

import train
from benchmarks import first_steps
from configs import ConfigError
from data.formats.shapes import make_shapes
from images.focal import read_steps

pytestmark = pytest.mark.full


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


@pytest.mark.slow
def test_the_first_steps_are_those_of_train(tmp_path, settings, monkeypatch):
    """The mean over an epoch of two steps is what train.py leaves in metrics.csv."""
    name, other = "cross-entropy, prior 0.5", "gamma 2, prior 0.01"
    monkeypatch.setattr(
        first_steps, "STARTS", {key: first_steps.STARTS[key] for key in (other, name)}
    )
    settings = settings | {"output": str(tmp_path), "name": "run"}
    texts = [f"{name}={value}" for name, value in settings.items()]
    out = tmp_path / "steps.csv"
    first_steps.main(
        ["--config", "configs/shapes.py", "--steps", "5", "--out", str(out), "--set", *texts]
    )
    runs = read_steps(out)
    assert list(runs) == list(first_steps.STARTS)
    for rows in runs.values():
        assert [row[0] for row in rows] == [1, 2], "the run has no more"
        assert all(0 < foreground < total for _, total, foreground in rows)
    changes = [f"{key}={value}" for key, value in first_steps.STARTS[name].items()]
    train.main(["--config", "configs/shapes.py", "--set", *texts, *changes])
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    expected = [float(row["class_loss"]), float(row["foreground_loss"])]
    np.testing.assert_allclose(np.mean(runs[name], axis=0)[1:], expected, rtol=1e-4)


def test_weights_leave_no_start_from_scratch(tmp_path):
    line = ["--config", "configs/voc.py", "--set", "model.weights=coco"]
    with pytest.raises(ConfigError, match=r"model.weights: expected None, .* found coco"):
        first_steps.main([*line, "--out", str(tmp_path / "steps.csv")])
