"""Workers and rounds, with contestants made up for it."""

import os

import numpy as np
import pytest

from benchmarks import interleave
from benchmarks.interleave import Worker, WorkerError, interleaved
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
        return {"value": start + len(calls)}
    return run
"""


@pytest.fixture
def start(tmp_path):
    """A function that starts a worker of the contestant above; all are ended after the test."""
    (tmp_path / "fake_contestant.py").write_text(FAKE)
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    workers = []

    def start(**fields):
        workers.append(Worker("fake, variant", "fake_contestant", fields, env))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def test_a_worker_from_first_to_last(start, tmp_path):
    worker = start(start=10)
    assert worker.ask("warm")["seconds"] > 0
    assert worker.ask("run")["seconds"] > 0
    assert worker.ask("outputs", str(tmp_path / "outputs.npz")) == {}
    with np.load(tmp_path / "outputs.npz") as found:
        assert found["value"] == 11, "the first run's: later ones have changed weights"
    memory = worker.ask("memory")
    assert memory["above_built"] >= 3 * 16_000_000 - 2**20
    assert memory["above_imports"] >= memory["above_built"]
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_a_worker_that_dies_while_it_is_built(start):
    with pytest.raises(WorkerError, match=r"(?s)^fake, variant: died of 'warm' .*start of 0 or"):
        start(start=-1).ask("warm")


def test_a_worker_that_dies_at_work(start):
    worker = start(start=0, dies_at=3)
    worker.ask("warm")
    with pytest.raises(WorkerError, match=r"(?s)died of 'run' with status 1, .*the last words$"):
        worker.ask("run")
    with pytest.raises(WorkerError, match="the last words"):
        worker.ask("run")


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
