"""Going on with a run whose folder is not as it was left, is in use, or is to be trained longer."""

import json
import os
import re
import shutil
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

import configs
import train
import training.plan
import training.reports
import training.validation
from data.formats.shapes import make_shapes
from tests.processes import run_script
from tests.tiny import assert_same_run, call_train, write_config
from utils.checkpoints import Checkpoint, CheckpointError, save_checkpoint
from utils.files import WriteError
from utils.runs import RunError, RunLock

pytestmark = pytest.mark.full
# Two epochs of one step, of which a constant schedule can make more.
SHORT = {
    "train.phases": (), "train.epochs": 2, "train.warmup_steps": 0, "train.batch_size": 4,
    "train.schedule": "constant", "data.limit": 4, "train.sample_pictures": 0, "train.eager": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("data") / "tiny", 4, 2, image_size=(64, 64))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shapes):
    """A finished run's folder, and the config that it needs beside it."""
    folder = tmp_path_factory.mktemp("finished")
    train.main(["--config", str(write_config(folder, shapes, SHORT))])
    return folder / "runs" / "tiny"


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Curves and evaluation take two seconds."""
    monkeypatch.setattr(train, "write_all", lambda *_: None)
    monkeypatch.setattr(training.reports, "training_curves", lambda *_: None)


@pytest.fixture
def run(tmp_path, finished):
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "tiny"))


def resume(run, finished, *more):
    """Resumes a copy of the finished run."""
    config = finished.parents[1] / "tiny.py"
    return train.main(["--resume", str(run), "--config", str(config), *more])


def contents(folder):
    """Path -> bytes of all files but the diary's and the lock's."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if path.name not in ("diary.log", ".lock")}


def diary(run):
    return " ".join((run / "diary.log").read_text().split())


# ------------------------------------------------------------------------------------------------
# Checkpoints that are not what they were
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_its_newest_checkpoint_a_run_goes_on_from_the_one_before(run, finished):
    """And ends with the same weights."""
    (run / "checkpoints" / "last.npz").unlink()
    shutil.copy(run / "checkpoints" / "best.npz", run / "checkpoints" / "last.npz")
    resume(run, finished)
    assert_same_run(run, finished)
    assert "last.npz: expected the progress of a training, found weights alone" in diary(run)
    assert "goes on from checkpoints/previous.npz: epoch 1, step 0" in diary(run)


def test_a_run_that_lost_its_checkpoints_is_left_as_it_is(run, finished):
    for name in ("last", "previous"):
        (run / "checkpoints" / f"{name}.npz").unlink()
    before = contents(run)
    with pytest.raises(RunError, match="expected a checkpoint to go on from, found none"):
        resume(run, finished)
    assert contents(run) == before


def test_a_finished_run_says_so_and_trains_nothing(run, finished):
    before = contents(run)
    resume(run, finished)
    after = contents(run)
    assert f"{run} is finished: 2 of 2 epochs." in diary(run)
    for path in run.glob("checkpoints/*"):
        assert after[path] == before[path]


@pytest.mark.slow
def test_best_weights_that_are_gone_end_a_finished_run_and_begin_anew_in_another(run, finished):
    """The run is gone back to its first epoch, which was its best one; the second is, then."""
    (run / "checkpoints" / "best.npz").unlink()
    with pytest.raises(CheckpointError, match=r"best\.npz: no such checkpoint"):
        resume(run, finished)
    shutil.copy(run / "checkpoints" / "previous.npz", run / "checkpoints" / "last.npz")
    resume(run, finished)
    assert "best.npz: no such checkpoint: the next validation's weights are" in diary(run)
    last, best = (Checkpoint(run / "checkpoints" / f"{n}.npz") for n in ("last", "best"))
    assert best.state["epoch"] == last.state["progress"]["best_epoch"] == 2
    for name, array in last.arrays("model").items():
        np.testing.assert_array_equal(best.arrays("model")[name], array)


def test_a_disk_that_does_not_take_the_config_leaves_no_run(tmp_path, shapes, monkeypatch):
    def full(*args):
        raise WriteError(28, "No space left on device", tmp_path / "config.json")

    monkeypatch.setattr(training.plan, "write_config", full)
    with pytest.raises(WriteError):
        train.main(["--config", str(write_config(tmp_path, shapes, SHORT))])
    assert not list((tmp_path / "runs").iterdir())


def edit_state(path, change):
    """Changes the state of a checkpoint, leaving its arrays."""
    checkpoint = Checkpoint(path)
    groups = {group: checkpoint.arrays(group) for group in ("model", "optimizer")}
    change(checkpoint.state)
    save_checkpoint(path, groups, checkpoint.state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["progress"].update(step=1), "step to be at most 0, found 1"),
        (lambda state: state.pop("classes"), "was trained on the classes None"),
        (lambda state: state.update(classes=5), "was trained on the classes 5"),
        (
            lambda state: state["model"].update(p6_from="p5"),
            r"p6_from: .* was written with 'p5'",
        ),
        (lambda state: state["model"].update(neck_width="8"), "neck_width"),
        (lambda state: state.update(model=[]), "last.npz"),
        (lambda state: state.pop("model"), "last.npz"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(run, finished, change, message):
    edit_state(run / "checkpoints" / "last.npz", change)
    before = contents(run)
    with pytest.raises(ValueError, match=message) as caught:
        resume(run, finished)
    assert isinstance(caught.value, CheckpointError | configs.ConfigError)
    assert "last.npz" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(run) == before


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_boxes_than_before_are_refused(run, shapes, tmp_path, split):
    """A run that goes on would learn, or choose its best weights by, something else."""
    root = shutil.copytree(shapes, tmp_path / "data" / "tiny")
    path = root / "Annotations" / f"{split}_00000.xml"
    before = path.read_text()
    path.write_text(re.sub(r"<xmax>(\d+)", lambda m: f"<xmax>{int(m[1]) - 1}", before, count=1))
    assert path.read_text() != before
    config = write_config(tmp_path, root, SHORT)
    (run / "config.json").write_text(json.dumps(configs.to_dict(configs.load(config))))
    message = rf"last\.npz: expected tiny/{split} as it was when the run began, found other images"
    with pytest.raises(CheckpointError, match=message):
        train.main(["--resume", str(run), "--config", str(config)])


def test_a_metrics_file_that_is_no_text_is_named(run, finished):
    path = run / "metrics.csv"
    path.write_bytes(path.read_bytes() + b"3,\xff\n")
    with pytest.raises(ValueError, match=r"metrics\.csv, line 4: .* found the byte 0xff"):
        resume(run, finished)


def test_a_file_in_tensorboard_s_place_is_named_and_the_run_goes_on(run, finished):
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").write_text("a file")
    shutil.copy(run / "checkpoints" / "previous.npz", run / "checkpoints" / "last.npz")
    resume(run, finished)
    assert f"{run / 'tensorboard'}: " in diary(run)


# ------------------------------------------------------------------------------------------------
# One process a run, in the folder it began in
# ------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_told_of_the_first(run, finished):
    before = contents(run)
    with RunLock(run), pytest.raises(RunError) as caught:
        resume(run, finished)
    found = f"found process {os.getpid()} on {socket.gethostname()}; wait until it ends"
    assert str(caught.value).startswith(f"{run}: expected no other process in this run, {found}")
    assert contents(run) == before


def test_a_run_that_just_began_is_locked_too(tmp_path, shapes, monkeypatch):
    def look(*args, **more):
        with pytest.raises(RunError, match="expected no other process"):
            RunLock(tmp_path / "runs" / "tiny").__enter__()
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run_epoch", look)
    with pytest.raises(KeyboardInterrupt):
        train.main(["--config", str(write_config(tmp_path, shapes, SHORT))])


def test_a_folder_that_goes_away_ends_the_run(tmp_path, shapes, monkeypatch):
    folder, add = tmp_path / "runs" / "tiny", train.EpochMeter.add

    def add_and_lose(self, *args):
        add(self, *args)
        shutil.rmtree(folder)
        folder.mkdir()  # somebody else's

    monkeypatch.setattr(train.EpochMeter, "add", add_and_lose)
    with pytest.raises(RunError, match="found it deleted or moved meanwhile"):
        train.main(["--config", str(write_config(tmp_path, shapes, SHORT))])
    assert not (folder / "checkpoints").exists(), "nothing goes into a folder of others"


def test_a_folder_that_goes_away_during_a_validation_ends_the_run(tmp_path, shapes, monkeypatch):
    folder, validate = tmp_path / "runs" / "tiny", training.validation.Validation.run

    def validate_and_lose(self, stop):
        shutil.rmtree(folder)
        folder.mkdir()  # somebody else's
        return validate(self, stop)

    monkeypatch.setattr(training.validation.Validation, "run", validate_and_lose)
    with pytest.raises(RunError, match="found it deleted or moved meanwhile"):
        train.main(["--config", str(write_config(tmp_path, shapes, SHORT))])
    assert {path.name for path in folder.iterdir()} <= {"diary.log"}, "it says why the run ended"


# ------------------------------------------------------------------------------------------------
# More epochs
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_finished_run_made_longer_is_the_run_begun_so(tmp_path, run, finished, shapes):
    """The optimizer goes on as it was: all weights and figures equal, bit for bit."""
    longer = write_config(tmp_path, shapes, SHORT | {"train.epochs": 4})
    train.main(["--config", str(longer)])
    resume(run, finished, "--set", "train.epochs=4")
    assert_same_run(run, tmp_path / "runs" / "tiny")
    assert json.loads((run / "config.json").read_text())["train"]["epochs"] == 4
    with pytest.raises(configs.ConfigError, match="expected at least the 4 epochs"):
        resume(run, finished)  # by the config it was begun with


# ------------------------------------------------------------------------------------------------
# SIGHUP
# ------------------------------------------------------------------------------------------------


# The parent reads what is on the terminal until the second epoch is done, and closes it.
HUNG_UP = """
import os, pty, signal

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
pid, terminal = pty.fork()
if pid:
    seen = b""
    while b"epoch 2, loss" not in seen:
        seen += os.read(terminal, 1000)
    os.close(terminal)
    print(seen.decode(), "ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    raise SystemExit
"""


@pytest.mark.slow
def test_a_closed_terminal_saves_first(tmp_path, shapes):
    """The terminal of a process goes away, and with it all that it could write to."""
    path = write_config(tmp_path, shapes, SHORT | {"train.epochs": 50})
    output = call_train(["--config", path], script=HUNG_UP)
    assert output.endswith(f"ended with {128 + signal.SIGHUP}\n"), output[-2000:]
    progress = Checkpoint(tmp_path / "runs" / "tiny" / "checkpoints" / "last.npz").state["progress"]
    assert progress["epoch"] >= 2
    assert "SIGHUP: saved; go on with --resume" in diary(tmp_path / "runs" / "tiny")


def test_a_run_that_cannot_be_resumed_ends_in_one_line(tmp_path):
    """As its user sees it: status 1, no traceback."""
    script = "import runpy; runpy.run_path('train.py', run_name='__main__')"
    result = run_script(script, ["--resume", str(tmp_path / "absent")], {})
    assert result.returncode == 1
    last = result.output.strip().splitlines()[-1]
    assert last == f"error: {tmp_path / 'absent'}: expected the folder of a run, found none"
