"""The folder of a run: its number, its holder, its metrics, and being told to stop."""

import errno
import fcntl
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from utils.runs import (
    MetricsFile,
    RunError,
    RunLock,
    StopSignal,
    latest_run,
    new_run,
    read_metrics,
    weights_file,
)

pytestmark = pytest.mark.quick


def add_checkpoint(folder, name="last"):
    path = folder / "checkpoints" / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


# ------------------------------------------------------------------------------------------------
# Folders
# ------------------------------------------------------------------------------------------------


def test_runs_of_one_name_are_numbered(tmp_path):
    """An old run is never written into, whatever lies in its folder."""
    names = [new_run(tmp_path / "runs", "voc").name for _ in range(3)]
    assert names == ["voc", "voc-2", "voc-3"]
    assert all((tmp_path / "runs" / name).is_dir() for name in names)
    (tmp_path / "runs" / "coco").write_text("a file")
    assert new_run(tmp_path / "runs", "coco").name == "coco-2"


def test_the_latest_run_is_the_highest_number_with_a_checkpoint(tmp_path):
    """11 comes after 9, and runs of other names are not looked at."""
    for name in ("voc", "voc-2", "voc-9", "voc-11", "voc-2-30", "voc2", "vocal-40", "voc-x"):
        add_checkpoint(tmp_path / name)
    (tmp_path / "voc-12" / "checkpoints").mkdir(parents=True)
    (tmp_path / "voc-13").mkdir()
    assert latest_run(tmp_path, "voc") == tmp_path / "voc-11"
    assert latest_run(tmp_path, "voc-2") == tmp_path / "voc-2-30"
    assert latest_run(tmp_path, "voc2") == tmp_path / "voc2"


def test_a_run_that_has_just_begun_is_not_the_latest(tmp_path):
    """Its previous.npz has weights that nothing has trained yet."""
    best = add_checkpoint(tmp_path / "voc", "best")
    add_checkpoint(tmp_path / "voc-2", "previous")
    add_checkpoint(tmp_path / "voc-3", ".part-0123-last")
    assert latest_run(tmp_path, "voc") == best.parents[1]
    with pytest.raises(ValueError, match="voc-2: expected a run"):
        weights_file(tmp_path / "voc-2")


def test_where_no_folder_can_be_made_there_is_no_run(tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    for output in ("gone", "file"):
        with pytest.raises(OSError, match=f"{output}: cannot be written: File exists"):
            new_run(tmp_path / output, "voc")
    with pytest.raises(OSError, match=r"file/runs: cannot be written: Not a directory"):
        new_run(tmp_path / "file" / "runs", "voc")
    with pytest.raises(ValueError, match="expected a run"):
        weights_file("w" * 300)


def test_a_name_is_no_pattern(tmp_path):
    add_checkpoint(tmp_path / "a[1]")
    add_checkpoint(tmp_path / "v1x0")
    assert latest_run(tmp_path, "a[1]") == tmp_path / "a[1]"
    with pytest.raises(ValueError, match="no run with a checkpoint"):
        latest_run(tmp_path, "v1.0")


@pytest.mark.parametrize("output", ["", "absent"])
def test_no_run_yet(tmp_path, output):
    with pytest.raises(ValueError, match="voc: no run with a checkpoint"):
        latest_run(tmp_path / output, "voc")


def test_weights_are_the_best_else_the_last(tmp_path):
    run = tmp_path / "voc"
    run.mkdir()
    with pytest.raises(ValueError, match="voc: expected a run, imported weights or a checkpoint"):
        weights_file(run)
    imported = run / "weights.npz"
    imported.touch()
    assert weights_file(run) == imported
    last = add_checkpoint(run, "last")
    assert weights_file(run) == last
    best = add_checkpoint(run, "best")
    assert weights_file(str(run)) == best
    assert weights_file(last) == last, "a file is taken at its word"
    with pytest.raises(ValueError, match="absent"):
        weights_file(tmp_path / "absent")


# ------------------------------------------------------------------------------------------------
# Locks
# ------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from utils.runs import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        found = f"found process {holder.pid} on {socket.gethostname()}; wait until it ends"
        expected = f"{tmp_path}: expected no other process in this run, {found}"
        with pytest.raises(RunError, match=re.escape(expected)):
            RunLock(tmp_path).__enter__()
    finally:
        holder.kill()
        holder.wait()
    with RunLock(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    with RunLock(tmp_path):  # its file stays, the lock does not
        pass


def test_a_run_without_a_folder_has_no_lock(tmp_path):
    with pytest.raises(RunError, match="absent: expected the folder of a run, found none"):
        RunLock(tmp_path / "absent").__enter__()
    assert not (tmp_path / "absent").exists()
    (tmp_path / ".lock").mkdir()
    with pytest.raises(OSError, match=r"\.lock: cannot be written: Is a directory"):
        RunLock(tmp_path).__enter__()


def test_a_lock_that_is_deleted_is_no_folder_that_is_gone(tmp_path):
    with RunLock(tmp_path) as lock:
        (tmp_path / ".lock").unlink()
        lock.require_folder()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_said_and_used(number, tmp_path, monkeypatch):
    def no_locks(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with RunLock(tmp_path) as lock:
        lock.require_folder()
    reason = os.strerror(number)
    expected = f"{tmp_path / '.lock'}: no lock ({reason}): start no second --resume here"
    assert lock.warning == expected


@pytest.mark.parametrize("what", ["deleted", "moved", "another"])
def test_a_folder_that_is_no_longer_there_is_noticed(what, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with RunLock(folder) as lock:
        lock.require_folder()
        if what == "deleted":
            shutil.rmtree(folder)
        else:
            folder.rename(tmp_path / "elsewhere")
        if what == "another":
            shutil.copytree(tmp_path / "elsewhere", folder)
        with pytest.raises(RunError, match="run: expected the folder in which this run began"):
            lock.require_folder()


# ------------------------------------------------------------------------------------------------
# metrics.csv
# ------------------------------------------------------------------------------------------------


def rows(count):
    return [{"epoch": i + 1, "loss": 1 / (i + 1), "val_map": ""} for i in range(count)]


def write_metrics(path, count):
    metrics = MetricsFile(path)
    for row in rows(count):
        metrics.add(row)
    return metrics


def test_a_row_an_epoch(tmp_path):
    path = tmp_path / "metrics.csv"
    assert MetricsFile(path).rows == []
    write_metrics(path, 3)
    lines = path.read_text().splitlines()
    assert lines[:2] == ["epoch,loss,val_map", "1,1.0,"]
    assert len(lines) == 4
    found = read_metrics(path)
    assert found.pop("val_map") == pytest.approx([math.nan] * 3, nan_ok=True)
    assert found == {"epoch": [1, 2, 3], "loss": [1, 1 / 2, 1 / 3]}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("done", [0, 1, 3, 4, 9])
def test_opened_again_it_is_cut_back_to_what_is_done(tmp_path, done):
    """A run killed after an epoch's line and before its checkpoint does that epoch again."""
    path = tmp_path / "metrics.csv"
    write_metrics(path, 4)
    metrics = MetricsFile(path, done)
    kept = min(done, 4)
    assert len(path.read_text().split()) == (kept + 1 if kept else 0)
    metrics.add(rows(kept + 1)[-1])
    expected = tmp_path / "expected.csv"
    write_metrics(expected, kept + 1)
    assert path.read_bytes() == expected.read_bytes(), "as if it had never been stopped"


def test_a_file_with_fewer_columns_gets_the_others(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,loss\n1,0.5\n2,0.4\n")
    metrics = MetricsFile(path, 1)
    metrics.add({"epoch": 2, "loss": 0.3, "more": 7})
    assert path.read_text().splitlines() == ["epoch,loss,more", "1,0.5,", "2,0.3,7"]
    assert read_metrics(path)["more"] == pytest.approx([math.nan, 7], nan_ok=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch,loss\n1,0.5\n,\n", "line 3: expected epoch 2, found nan"),
        ("epoch,loss\n1,0.5\nx,0.1\n", "line 3, epoch: expected a number, found 'x'"),
        ("epoch,loss\n1,0.5\n3,0.1\n", "line 3: expected epoch 2, found 3"),
        ("epoch,loss\n1,0.5,7\n", "line 2: expected 2 values, found 3"),
        ("step,loss\n1,0.5\n", "line 1: expected each column once, epoch among them"),
    ],
)
def test_a_file_without_a_row_an_epoch_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"metrics.csv, {message}")):
        MetricsFile(path, 3)
    assert path.read_text() == text, "it is left as it is"


# ------------------------------------------------------------------------------------------------
# Signals
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def caught():
    """What reaches the handlers that were there before; they are put back afterwards."""
    numbers = []
    before = {
        number: signal.signal(number, lambda n, frame: numbers.append(n))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_is_noted_the_second_goes_through(caught, number):
    """So that a run has time to save, and can still be killed while it does."""
    with StopSignal() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number.name
        assert stop.exit_code == 128 + number
        assert caught == []
        os.kill(os.getpid(), number)
        assert caught == [number]
    os.kill(os.getpid(), number)
    assert caught == [number, number], "outside, signals are none of our business"


def test_handlers_are_put_back_after_an_error(caught):
    with pytest.raises(RuntimeError), StopSignal():
        raise RuntimeError
    os.kill(os.getpid(), signal.SIGTERM)
    assert caught == [signal.SIGTERM]


def test_under_nohup_a_closed_terminal_is_ignored(caught):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.received is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
