"""Workers and rounds, with contestants made up for it."""

import os
import signal

import numpy as np
import pytest

from benchmarks import interleave
from benchmarks.interleave import Worker, WorkerError, interleaved, measured, once
from benchmarks.machine import BusyMachineError, Usage

pytestmark = pytest.mark.quick

FAKE = """
import numpy as np
print("this is no answer")

def make(start, dies_at=-1):
    calls = []
    if start < 0:
        raise ValueError("expected a start of 0 or more")
    def run():
        calls.append(np.ones(2_000_000))
        if len(calls) == dies_at:
            raise RuntimeError("the last words")
        return {"value": np.float32([start + len(calls), 0.5])}
    return run
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A function that starts a worker of the contestant above; all are ended after the test."""
    (tmp_path / "fake_contestant.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    workers = []

    def start(**fields):
        workers.append(Worker("fake, variant", "fake_contestant", fields))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def test_a_worker_from_first_to_last(start):
    worker = start(start=10)
    for _ in range(3):
        assert worker.ask("run")["seconds"] > 0
    found = worker.ask("outputs")["value"]
    np.testing.assert_array_equal(found, [11, 0.5], "the first run's: later ones change weights")
    memory = worker.ask("memory")
    assert memory["above_built"] >= 3 * 16_000_000 - 2**20
    assert memory["above_imports"] >= memory["above_built"]
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_a_worker_that_fails_while_it_is_built(start):
    line = r"^fake, variant: failed at 'fake_contestant', {'start': -1}: expected a start of 0 or"
    with pytest.raises(WorkerError, match=line):
        start(start=-1)


def test_a_worker_that_fails_at_work(start):
    worker = start(start=0, dies_at=2)
    worker.ask("run")
    with pytest.raises(WorkerError, match=r"failed at 'run': the last words$") as found:
        worker.ask("run")
    assert "fake_contestant.py" in str(found.value.__cause__.__cause__), "where it was"


def test_a_worker_that_is_killed(start):
    worker = start(start=0)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"fake, variant: failed at 'run': .*terminated abruptly"):
        worker.ask("run")


@pytest.mark.usefixtures("start")
def test_a_single_run():
    found = once("fake_contestant", {"start": 10})
    assert found["value"].tolist() == [11, 0.5]
    assert found["seconds"] > 0
    assert found["above_built"] >= 16_000_000 - 2**20


@pytest.mark.usefixtures("start")
def test_tasks_are_measured_side_by_side():
    tasks = {f"at {start}": ("fake_contestant", {"start": start}) for start in (0, 10)}
    times = measured(tasks, 2, allow_busy=True, pause=0)
    assert {name: len(values) for name, values in times.seconds.items()} == {"at 0": 2, "at 10": 2}
    found = {name: outputs["value"].tolist() for name, outputs in times.outputs.items()}
    assert found == {"at 0": [1, 0.5], "at 10": [11, 0.5]}
    assert times.memory["at 0"]["above_built"] >= 3 * 16_000_000 - 2**20
    assert times.disturbance() == {"others_at_most": max(times.others), "discarded_rounds": 0}


# ------------------------------------------------------------------------------------------------
# Rounds
# ------------------------------------------------------------------------------------------------


class Counting:
    """A worker without a process: its n-th run takes n seconds."""

    pid = 1

    def __init__(self, name, log):
        self.name, self.log = name, log

    def ask(self, command):
        self.log.append(self.name)
        return {"seconds": float(self.log.count(self.name))}


@pytest.fixture
def busy(monkeypatch):
    """Sets what others use: a share for each round."""

    def busy(*shares):
        readings = []
        for share in shares:
            readings += [Usage(0, 0, 0), Usage(100, round(100 * share), 0)]
        readings = iter(readings)
        monkeypatch.setattr(interleave.Usage, "now", lambda pids: list(pids) and next(readings))

    return busy


def test_each_round_has_everybody_once_in_changing_order(busy):
    busy(*[0.0] * 8)
    log = []
    workers = [Counting(name, log) for name in "abc"]
    times = interleaved(workers, 8, pause=0)
    assert times.seconds == {name: [float(n) for n in range(1, 9)] for name in "abc"}
    rounds = [tuple(log[i : i + 3]) for i in range(0, 24, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 2


def test_a_round_that_others_disturbed_is_repeated(busy):
    busy(0.0, 0.5, 0.02)
    times = interleaved([Counting("a", [])], 2, pause=0)
    assert times.seconds == {"a": [1.0, 3.0]}
    assert (times.others, times.discarded) == ([0.0, 0.02], 1)


def test_too_many_disturbed_rounds_are_an_error(busy):
    busy(0.5, 0.5)
    with pytest.raises(BusyMachineError, match="50%"):
        interleaved([Counting("a", [])], 2, pause=0)


def test_a_busy_machine_can_be_allowed(busy):
    busy(0.5, 0.7)
    times = interleaved([Counting("a", [])], 2, allow_busy=True, pause=0)
    assert times.others == [0.5, 0.7]
    assert times.discarded == 0
