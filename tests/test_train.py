"""Whole runs of train.py on a tiny generated dataset: stopped, killed, resumed, stepped through."""

import csv
import functools
import json
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray

import compare_runs
import configs
import evaluate
import train
import training.phases
import training.reports
import training.validation
import visualize
from core.build import build_model
from core.layers import BatchNorm
from core.losses import Criterion
from core.targets import Matcher
from data.formats.shapes import CLASSES, make_shapes
from results.evaluation import write_all
from tests.tiny import (
    CLOCK,
    ONE_STEP,
    STEPS,
    assert_same_run,
    call_train,
    read_metrics,
    write_config,
)
from utils.board import panel
from utils.checkpoints import Checkpoint
from utils.headline_figures import class_aps, headline_figures

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """12 training and 4 validation images of 64x64."""
    return make_shapes(tmp_path_factory.mktemp("data") / "tiny", 12, 4, image_size=(64, 64))


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Curves and evaluation take two seconds; `undisturbed` has them."""
    monkeypatch.setattr(train, "write_all", lambda *_: None)
    monkeypatch.setattr(training.reports, "training_curves", lambda *_: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, shapes):
    """The run that nothing disturbed: its folder and what it printed last."""
    folder = tmp_path_factory.mktemp("undisturbed")
    output = call_train(["--config", write_config(folder, shapes)], draws=True)
    return folder / "runs" / "tiny", output


# At the moment "<what>-<n>" - the nth step taken, the nth batch validated, the nth checkpoint half
# written or saved - ends the process as `kill -9`, or asks it to end (SIGTERM).
DYING = """
import os, signal
import numpy as np
import train
import training.validation
from tests.tiny import half_written

what, count = os.environ["DIES"].split("-")
calls = 0

def reached(*moments):
    global calls
    calls += what in moments
    return what in moments and calls == int(count)

add, checked, save = train.EpochMeter.add, training.validation.checked, train.save_progress

def add_and_die(self, *args):
    add(self, *args)
    if reached("step"):
        os.kill(os.getpid(), signal.SIGTERM)

def checked_and_die(batches):
    for batch in checked(batches):
        if reached("validation"):
            os.kill(os.getpid(), signal.SIGTERM)
        yield batch

def save_and_die(*args, **more):
    save(*args, **more)
    if reached("saved"):
        os.kill(os.getpid(), signal.SIGKILL)

train.EpochMeter.add, train.save_progress = add_and_die, save_and_die
training.validation.checked, np.savez = checked_and_die, half_written(lambda: reached("write"))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory, shapes):
    """The same run, killed and stopped: its folder, (epoch, step) of last.npz and previous.npz
    after each time, and last.npz from between the two phases."""
    folder = tmp_path_factory.mktemp("killed")
    arguments = ["--config", write_config(folder, shapes)]
    run, seen = folder / "runs" / "tiny", []
    files = [run / "checkpoints" / f"{name}.npz" for name in ("last", "previous")]
    for dies, status in (
        ("write-3", -9),  # half of the first last.npz
        ("saved-1", -9),  # at the border of the two phases
        ("step-2", 143),  # asked to stop: saves where it is
        ("validation-1", 143),
        ("write-1", -9),  # while a checkpoint is overwritten
    ):
        call_train(arguments, status, DYING, DIES=dies)
        states = [Checkpoint(file).state["progress"] for file in files if file.exists()]
        seen.append([(state["epoch"], state["step"]) for state in states])
        if dies == "saved-1":
            shutil.copy(files[0], folder / "border.npz")
        if len(arguments) == 2:
            assert list(files[0].parent.glob(".part-*-last.npz"))
            arguments += ["--resume", run]
    output = call_train(arguments)
    assert output.strip().splitlines()[-1].startswith("VOC mAP@0.50: ")
    return run, seen, folder / "border.npz"


def read_board(folder: Path) -> dict[str, dict[int, np.ndarray]]:
    """Tag -> step -> what is in the event files, the last where it was written more than once."""
    board = {}
    for file in sorted((folder / "tensorboard").iterdir()):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                board.setdefault(value.tag, {})[event.step] = make_ndarray(value.tensor)
    return board


def test_killed_again_and_again_and_resumed_equals_the_undisturbed_run(killed, undisturbed):
    """tests/test_kills.py does so at 25 random moments."""
    (folder, seen, _), (reference, _) = killed, undisturbed
    saved, validated = [(1, 2), (1, 0)], [(1, 3), (1, 2)]  # all steps done, the validation not
    assert seen == [[(0, 0)], [(1, 0), (0, 0)], saved, validated, validated]
    assert_same_run(folder, reference)
    diary = (folder / "diary.log").read_text()
    assert "resumed after epoch 1, step 2" in diary
    assert "SIGTERM: saved; go on with --resume" in diary
    ours, theirs = read_board(folder), read_board(reference)
    assert ours.keys() == theirs.keys()
    for tag in ours.keys() - {f"training/{name}" for name in CLOCK} - {"config"}:
        assert ours[tag].keys() == theirs[tag].keys() == {1, 2, 3}
        for step, value in theirs[tag].items():
            np.testing.assert_array_equal(ours[tag][step], value, err_msg=tag)


def test_a_run_leaves_what_the_readme_promises(undisturbed):
    folder, output = undisturbed
    for name in (
        "config.json",
        "metrics.csv",
        "curves.png",
        "checkpoints/best.npz",
        "checkpoints/last.npz",
        "samples/epoch_0003.png",
        "evaluation/metrics.json",
        "evaluation/detections.json",
        "evaluation/precision_recall.png",
        "evaluation/confusion_matrix.png",
        "evaluation/devkit/comp4_det_val_circle.txt",
    ):
        assert (folder / name).exists(), name
        assert (folder / name).stat().st_size > 0 or name.endswith(".txt"), name
    assert list((folder / "tensorboard").glob("events*"))
    report = json.loads((folder / "evaluation" / "metrics.json").read_text())
    assert output.strip().splitlines()[-1] == report["headline"]
    diary = (folder / "diary.log").read_text()
    for part in ("tensorflow", "device CPU", "images", "anchor coverage", "epoch 3", '"seed": 0'):
        assert part in diary
    assert diary.index("anchor coverage") < diary.index("epoch 1")


def test_tensorboard_has_what_metrics_csv_and_the_evaluation_have(undisturbed):
    folder, _ = undisturbed
    board, config = read_board(folder), json.loads((folder / "config.json").read_text())
    panels = {tag.split("/")[0] for tag in board}
    expected = {"training", "validation", "anchors", "metric", "class_ap", "scores", "config"}
    assert panels == expected
    with open(folder / "metrics.csv", newline="") as file:
        rows = {int(row["epoch"]): row for row in csv.DictReader(file)}
    for column in rows[1].keys() - {"epoch"}:
        values = {step: float(row[column]) for step, row in rows.items()}
        assert board[panel(column)] == pytest.approx(values, rel=1e-6), column
    text = board["config"][0].item().decode()
    assert json.loads(text) == config
    assert all(line.startswith("    ") for line in text.splitlines()), "shown as code"
    report = json.loads((folder / "evaluation" / "metrics.json").read_text())
    best = max(rows, key=lambda epoch: (float(rows[epoch]["val_map"]), -epoch))
    for group, figures in (("metric", headline_figures(report)), ("class_ap", class_aps(report))):
        assert figures
        for name, value in figures.items():
            tag = f"{group}/{name}"
            assert tag not in board if value is None else board[tag][best] == pytest.approx(value)
    width, height, png = board["validation/samples"][3]
    sheet = cv2.imread(str(folder / "samples" / "epoch_0003.png"))
    assert (int(height), int(width)) == sheet.shape[:2]
    found = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(found, sheet)


def test_anchors_are_counted_and_scores_binned_as_they_are(undisturbed):
    """The anchors of a batch by level; in validation each anchor is in a histogram, or ignored."""
    folder, _ = undisturbed
    board = read_board(folder)
    for epoch in (1, 2, 3):
        levels = [board[f"anchors/positives_p{level}"][epoch] for level in range(3, 8)]
        assert sum(levels) == pytest.approx(float(board["anchors/positives"][epoch])) != 0
        assert board["anchors/ignored"][epoch] > 0
        positives, background = (
            board[f"scores/{name}"][epoch] for name in ("positives", "background")
        )
        for buckets in (positives, background):
            np.testing.assert_allclose(buckets[:, 0], np.arange(50) / 50)
            np.testing.assert_allclose(buckets[:, 1], np.arange(1, 51) / 50)
        # All four validation images are one batch.
        assert positives[:, 2].sum() == board["validation/positives"][epoch]
        cells = 64 + 16 + 4 + 1 + 1
        ignored = 4 * 9 * cells - positives[:, 2].sum() - background[:, 2].sum()
        assert 0 < ignored < 0.2 * 4 * 9 * cells


def test_a_run_is_compared_by_what_it_leaves(undisturbed, tmp_path, capsys):
    folder, _ = undisturbed
    figures = compare_runs.main([str(folder), "--out", str(tmp_path / "curves.png")])
    training, evaluation = figures["training"]["tiny"], figures["evaluation"]["tiny"]
    assert None not in training.values()
    assert (training["epochs"], training["planned_epochs"]) == (3, 3)
    assert training["best_map"] == evaluation["mAP@0.50"]
    assert training["metric"] == evaluation["metric"]
    assert 0 < training["seconds"] < 300
    assert evaluation.keys() >= {f"AP of {name}" for name in CLASSES}


def test_a_frozen_backbone_stays_as_it_was_and_then_learns(undisturbed, killed):
    """In the first phase neither its weights nor its batch statistics move; in the second both."""
    path = undisturbed[0].parents[1] / "tiny.py"
    first, last = (
        np.load(file) for file in (killed[2], undisturbed[0] / "checkpoints" / "last.npz")
    )
    model_keys = [key for key in first.files if key.startswith("model|")]
    backbone = [key for key in model_keys if "/backbone/" in key]
    moved = {key for key in model_keys if not np.array_equal(first[key], last[key])}
    assert moved >= {key for key in backbone if "moving_mean" in key or "conv1/kernel" in key}
    config = configs.load(path)
    tf.keras.utils.set_random_seed(config.train.seed)
    fresh = build_model(config.model, 5).backbone
    for variable, key in zip(fresh.weights, backbone, strict=True):
        np.testing.assert_array_equal(first[key], variable.numpy(), err_msg=key)


def test_eager_steps_through_every_line_and_learns_the_same(
    tmp_path, shapes, undisturbed, monkeypatch
):
    """A hook in a layer, in the matcher and in the loss sees numbers, not symbols."""
    seen, rows, add = {}, [], train.Report.epoch

    def spy(cls, method, name):
        original = getattr(cls, method)

        @functools.wraps(original)  # Keras reads the signature
        def hooked(self, *args, **kwargs):
            result = original(self, *args, **kwargs)
            value = result["loss"] if isinstance(result, dict) else result
            seen.setdefault(name, []).append(float(tf.reduce_sum(tf.cast(value, tf.float32))))
            return result

        monkeypatch.setattr(cls, method, hooked)

    def add_and_end(self, row):
        add(self, row)
        rows.append(row)
        if len(rows) == 2:  # an epoch of each phase
            raise KeyboardInterrupt

    spy(BatchNorm, "call", "layer")
    spy(Matcher, "__call__", "matcher")
    spy(Criterion, "__call__", "loss")
    monkeypatch.setattr(train.Report, "epoch", add_and_end)
    with pytest.raises(KeyboardInterrupt):
        train.main(["--config", str(write_config(tmp_path, shapes)), "--eager"])
    assert all(np.isfinite(values).all() for values in seen.values())
    num_batches = 2 * (STEPS + 1)  # two epochs, with a batch of validation images each
    assert len(seen["layer"]) == 2 * (1 + num_batches)  # two layers, also called when built
    assert len(seen["matcher"]) == len(seen["loss"]) == num_batches
    for ours, theirs in zip(rows, read_metrics(undisturbed[0])[:2], strict=True):
        assert ours["loss"] == pytest.approx(float(theirs["loss"]), rel=1e-3)


def test_a_run_starts_from_the_weights_of_another(tmp_path, shapes, undisturbed):
    """With a learning rate of nothing the weights stay; what the config leaves open is theirs."""
    reference, _ = undisturbed
    changes = {"model.weights": str(reference), "train.learning_rate": 1e-12} | ONE_STEP
    path, folder = write_config(tmp_path, shapes, changes), tmp_path / "runs" / "tiny"
    train.main(["--config", str(path)])
    ours, theirs = (Checkpoint(run / "checkpoints" / "best.npz") for run in (folder, reference))
    for name, array in theirs.arrays("model").items():
        if "moving_" not in name:
            np.testing.assert_allclose(ours.arrays("model")[name], array, atol=1e-9)
    saved = json.loads((folder / "config.json").read_text())
    assert saved["model"]["weights"] == str(reference)
    diary = " ".join((folder / "diary.log").read_text().split())
    assert f"weights from {reference / 'checkpoints' / 'best.npz'}: " in diary
    assert "tensors copied, 0 partly: 100.00 % of" in diary


@pytest.mark.slow
def test_a_run_from_weights_is_resumed_like_any_other(tmp_path, shapes, undisturbed, monkeypatch):
    """Before its first checkpoint the weights are read again, after it they may be gone."""
    source = shutil.copytree(undisturbed[0], tmp_path / "source")
    changes = {"model.weights": str(source), "train.validate_every": 0, "train.eager": True}
    changes |= ONE_STEP | {"train.epochs": 2}
    path, whole = write_config(tmp_path, shapes, changes), tmp_path / "runs" / "tiny"
    train.main(["--config", str(path)])
    folder, save, arguments = tmp_path / "runs" / "tiny-2", train.save_progress, []

    def die(*args, **more):
        raise KeyboardInterrupt

    def save_and_die(*args, **more):
        save(*args, **more)
        die()

    for moment in (die, save_and_die, save_and_die):
        monkeypatch.setattr(train, "save_progress", moment)
        with pytest.raises(KeyboardInterrupt):
            train.main(["--config", str(path), *arguments])
        arguments = ["--resume", str(folder)]
    assert Checkpoint(folder / "checkpoints" / "last.npz").state["progress"]["epoch"] == 1
    shutil.rmtree(source)
    monkeypatch.setattr(train, "save_progress", save)
    train.main(["--config", str(path), *arguments])
    assert_same_run(folder, whole)


def test_weights_that_contradict_the_config_start_no_run(tmp_path, shapes, undisturbed):
    changes = {"model.weights": str(undisturbed[0]), "model.normalization": "caffe"}
    path = write_config(tmp_path, shapes, changes)
    message = "model.normalization: the weights .* need 'torch', the config says 'caffe'"
    with pytest.raises(configs.ConfigError, match=message):
        train.main(["--config", str(path)])
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_images(tmp_path, shapes):
    changes = {
        "train.phases": (),
        "train.epochs": 1,
        "train.optimizer": "sgd",
        "train.learning_rate": 1000.0,
        "loss.box_weight": 1e6,
        "train.warmup_steps": 0,
        "train.clip_norm": None,
        "train.eager": True,
    }
    path = write_config(tmp_path, shapes, changes)
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 2 of 3: .*train_0\d+\.jpg"):
        train.main(["--config", str(path)])
    folder = tmp_path / "runs" / "tiny"
    assert "FloatingPointError" in (folder / "diary.log").read_text()
    assert not (folder / "checkpoints" / "last.npz").exists()


@pytest.mark.slow
def test_early_stopping_ends_a_run_that_no_longer_gets_better(tmp_path, shapes):
    changes = {
        "train.phases": (),
        "train.epochs": 9,
        "train.warmup_steps": 0,
        "train.learning_rate": 1e-12,
        "train.early_stopping": 2,
        "train.eager": True,
        "data.limit": 4,
    }
    path, folder = write_config(tmp_path, shapes, changes), tmp_path / "runs" / "tiny"
    value = train.main(["--config", str(path)])
    assert len(read_metrics(folder)) == 3
    before = np.load(folder / "checkpoints" / "last.npz")["state"].tobytes()
    assert train.main(["--resume", str(folder), "--config", str(path)]) == value
    assert len(read_metrics(folder)) == 3, "a run that has ended does not go on"
    assert np.load(folder / "checkpoints" / "last.npz")["state"].tobytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(precision, tmp_path, shapes):
    """A step and a validation: float32 variables, finite losses, the loss scale in the diary."""
    changes = {"train.precision": precision} | ONE_STEP
    train.main(["--config", str(write_config(tmp_path, shapes, changes))])
    folder = tmp_path / "runs" / "tiny"
    assert np.isfinite(float(read_metrics(folder)[0]["loss"]))
    with np.load(folder / "checkpoints" / "last.npz") as file:
        kinds = {file[key].dtype for key in file.files if key.startswith("model|")}
    assert kinds == {np.dtype("float32")}
    has_scale = "loss scale" in (folder / "diary.log").read_text()
    assert has_scale == (precision == "mixed_float16")


def test_resume_refuses_other_settings(tmp_path, undisturbed, shapes):
    folder, _ = undisturbed
    other = write_config(tmp_path, shapes, {"train.seed": 5, "output": str(folder.parent)})
    with pytest.raises(configs.ConfigError, match=r"train\.seed: .* was started with 0, .* says 5"):
        train.main(["--resume", str(folder), "--config", str(other)])
    with pytest.raises(SystemExit):
        train.main(["--resume", str(folder), "--set", "train.batch_size=5"])


def test_a_user_s_own_parts_need_the_config_that_defines_them(undisturbed):
    """The runs here have a backbone of their own."""
    with pytest.raises(configs.ConfigError, match="give the config that defines it with --config"):
        train.main(["--resume", str(undisturbed[0])])


@pytest.mark.slow
@pytest.mark.parametrize("part", ["kernel", "average"])
def test_an_update_that_breaks_the_weights_is_not_saved(part, tmp_path, shapes, monkeypatch):
    """The loss of the last step was still finite; a weight after it is not, or an average."""

    def breaking_step(model, criterion, optimizer, batch):
        losses = train_step(model, criterion, optimizer, batch)
        if float(optimizer.iterations) == 2 * STEPS:
            variables = [*model.variables, *optimizer.variables]
            broken = next(v for v in variables if v.path.endswith(part))
            broken.assign(broken * float("nan"))
        return losses

    train_step = training.phases.train_step
    monkeypatch.setattr(training.phases, "train_step", breaking_step)
    changes = {"train.phases": (), "train.epochs": 3, "train.eager": True, "train.ema": 0.9}
    changes |= {"train.validate_every": 0}
    path, folder = write_config(tmp_path, shapes, changes), tmp_path / "runs" / "tiny"
    message = rf"epoch 2, step 3: expected finite weights, found nan or infinity in .*{part}\."
    with pytest.raises(FloatingPointError, match=message):
        train.main(["--config", str(path)])
    assert Checkpoint(folder / "checkpoints" / "last.npz").state["progress"]["epoch"] == 1


@pytest.mark.slow
def test_averages_are_validated_and_kept_and_training_does_not_notice(
    tmp_path, shapes, undisturbed
):
    """last.npz is that of a run without averages; best.npz has them, and its batch statistics."""
    reference, _ = undisturbed
    changes = {"train.ema": 0.6, "train.validate_every": 0}
    folder = tmp_path / "runs" / "tiny"
    train.main(["--config", str(write_config(tmp_path, shapes, changes))])
    last, best = (Checkpoint(folder / "checkpoints" / f"{n}.npz") for n in ("last", "best"))
    plain = Checkpoint(reference / "checkpoints" / "last.npz").arrays("model")
    raw, kept = last.arrays("model"), best.arrays("model")
    averages = [a for name, a in last.arrays("optimizer").items() if name.endswith("_average")]
    learnt = [name for name in raw if "moving_" not in name]
    for name, array in raw.items():
        np.testing.assert_array_equal(array, plain[name], err_msg=name)
    for name, average in zip(learnt, averages, strict=True):
        np.testing.assert_array_equal(kept[name], average, err_msg=name)
        assert not np.array_equal(kept[name], raw[name]), name
    for name in raw.keys() - learnt:
        np.testing.assert_array_equal(kept[name], raw[name], err_msg=name)


@pytest.mark.slow
def test_a_run_with_every_knob_is_resumed_in_the_middle_of_a_group(tmp_path, shapes, monkeypatch):
    """Two batches an update, three an epoch: stopped after the first batch, after the last of an
    epoch, each time with a gradient waiting, and in a validation of averages; averages, rates and
    order go on as they were."""
    changes = {
        "train.phases": (),
        "train.epochs": 2,
        "train.optimizer": "adamw",
        "train.learning_rate": 1e-3,
        "train.accumulate": 2,
        "train.backbone_rate": 0.5,
        "train.ema": 0.9,
        "train.eager": True,
        "data.repeat_threshold": 0.8,
        "train.batch_size": 5,
        "model.detect.flip": True,  # of evaluate.py: validations have one view
        "model.detect.score_threshold": 0.0,
    }
    path = write_config(tmp_path, shapes, changes)
    monkeypatch.setattr(train, "write_all", write_all)
    train.main(["--config", str(path)])
    reference = tmp_path / "runs" / "tiny"
    found = (reference / "evaluation" / "detections.json").read_bytes()
    train.main(["--resume", str(reference), "--config", str(path)])
    assert (reference / "evaluation" / "detections.json").read_bytes() == found
    diary = " ".join((reference / "diary.log").read_text().split())
    assert "12 of 12 images come more than once an epoch, up to 3.1 times; it has 16" in diary
    add, checked, calls = train.EpochMeter.add, training.validation.checked, []

    def add_and_stop(self, *args):
        add(self, *args)
        calls.append(None)
        if len(calls) in (1, STEPS):
            os.kill(os.getpid(), signal.SIGTERM)

    def checked_and_stop(batches):
        for batch in checked(batches):
            if len(calls) == 2 * STEPS:
                calls.append(None)
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(train.EpochMeter, "add", add_and_stop)
    monkeypatch.setattr(training.validation, "checked", checked_and_stop)
    folder = tmp_path / "runs" / "tiny-2"
    arguments = ["--config", str(path)]
    for progress in ((0, 1), (0, STEPS), (1, STEPS)):
        with pytest.raises(SystemExit):
            train.main(arguments)
        arguments = ["--config", str(path), "--resume", str(folder)]
        checkpoint = Checkpoint(folder / "checkpoints" / "last.npz")
        state = checkpoint.state["progress"]
        assert (state["epoch"], state["step"]) == progress
        waiting = checkpoint.arrays("optimizer")
        is_waiting = any(a.any() for name, a in waiting.items() if name.endswith("accumulator"))
        assert is_waiting == (progress != (1, STEPS))
    train.main(arguments)
    assert_same_run(folder, reference)
    # Of the cosine's three updates the last batch of an epoch belongs to the second, to the third.
    rates = [float(row["learning_rate"]) for row in read_metrics(folder)]
    assert rates == pytest.approx([0.75e-3, 0.25e-3])


PARTS = """
    @property
    def parts(self):
        return {"stem": [self.convs[0], self.norms[0]]}

    def call"""


@pytest.mark.slow
def test_a_stage_of_a_backbone_is_frozen_by_its_name(tmp_path, shapes):
    """If the backbone has one of this name; else nothing is begun."""
    changes = {"train.freeze": ("backbone.stem",)} | ONE_STEP
    changes |= {"data.limit": 0, "train.eager": True}
    path = write_config(tmp_path, shapes, changes)
    message = r"train.freeze, or a phase's: expected .*Tiny.* whose `parts` name 'stem', found none"
    with pytest.raises(configs.ConfigError, match=message):
        train.main(["--config", str(path)])
    assert not (tmp_path / "runs").exists()
    path.write_text(path.read_text().replace("\n    def call", PARTS, 1))
    train.main(["--config", str(path)])
    config = configs.load(path)
    tf.keras.utils.set_random_seed(config.train.seed)
    fresh = build_model(config.model, 5).backbone
    last = Checkpoint(tmp_path / "runs" / "tiny" / "checkpoints" / "last.npz").arrays("model")
    arrays = [array for name, array in last.items() if "/backbone/" in name]
    stays = {
        "/".join(variable.path.split("/")[-2:]): np.array_equal(variable, array)
        for variable, array in zip(fresh.weights, arrays, strict=True)
    }
    stem = {"conv4/kernel", "conv4/bias"} | {name for name in stays if name.startswith("bn0/")}
    assert {name for name, stayed in stays.items() if stayed} == stem


def test_a_later_phase_that_cannot_be_is_found_before_the_first_step(tmp_path, shapes):
    path = write_config(tmp_path, shapes)
    text = path.read_text()
    assert "Phase(epochs=2)" in text
    path.write_text(text.replace("Phase(epochs=2)", "Phase(epochs=2, batch_size=13)"))
    with pytest.raises(ValueError, match=r"batch_size: expected at most the 12 images .* found 13"):
        train.main(["--config", str(path)])
    assert not (tmp_path / "runs").exists(), "a run that cannot be leaves no folder"


@pytest.mark.slow
def test_a_run_with_atss_says_what_it_covers_and_learns(tmp_path, shapes):
    changes = ONE_STEP | {"matcher": "atss", "loss.box": "ciou", "train.eager": True}
    train.main(["--config", str(write_config(tmp_path, shapes, changes))])
    folder = tmp_path / "runs" / "tiny"
    assert "anchor coverage by ATSS: " in (folder / "diary.log").read_text()
    row = read_metrics(folder)[0]
    assert float(row["positives"]) > 0
    for prefix in ("", "val_"):
        assert 0 < float(row[f"{prefix}foreground_loss"]) < float(row[f"{prefix}class_loss"])


def test_a_run_with_own_parts_is_evaluated_and_drawn_by_its_config(undisturbed):
    folder, output = undisturbed
    given = ["--config", str(folder.parents[1] / "tiny.py")]
    value = evaluate.main([str(folder), *given])
    assert output.strip().splitlines()[-1] == f"VOC mAP@0.50: {value:.4f}"
    out = visualize.main(["--weights", str(folder), *given])
    assert (out / "contact_sheet.png").exists()
    with pytest.raises(configs.ConfigError, match="give the config that defines it with --config"):
        evaluate.main([str(folder)])


@pytest.mark.slow
def test_a_backbone_s_own_frozen_layers_stay_frozen_when_the_backbone_is_released(tmp_path, shapes):
    """In the second phase the rest of the backbone learns, the layer it froze itself does not."""
    path = write_config(tmp_path, shapes, {"data.limit": 4, "train.eager": True})
    text = path.read_text()
    frozen = "        self.convs[0].trainable = False\n\n    def call"
    path.write_text(text.replace("\n    def call", frozen, 1))
    train.main(["--config", str(path)])
    config = configs.load(path)
    tf.keras.utils.set_random_seed(config.train.seed)
    fresh = build_model(config.model, 5).backbone
    last = np.load(tmp_path / "runs" / "tiny" / "checkpoints" / "last.npz")
    keys = [key for key in last.files if key.startswith("model|") and "/backbone/" in key]
    moved = {
        variable.path.split("/")[-2]
        for variable, key in zip(fresh.weights, keys, strict=True)
        if key.endswith("kernel") and not np.array_equal(variable.numpy(), last[key])
    }
    assert moved == {"conv2"}
