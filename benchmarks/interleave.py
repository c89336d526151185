"""Contestants in processes of their own, of which exactly one works at a time.

Rounds in changing order: what slows the machine for a while slows all of them, and none always
comes after the same other one.
"""

import multiprocessing
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import worker
from benchmarks.machine import LIMIT, BusyMachineError, Usage, busy_message

ROOT = Path(__file__).parents[1]
WARM_UP = 2  # runs, after which tracing and first allocations are over
PAUSE = 0.3  # seconds after a run: by then idle thread pools have stopped spinning


class WorkerError(RuntimeError):
    """A worker that failed; the message says at what, the traceback where."""


class Worker:
    """A process that runs `module.make(**fields)`; see worker.py for its commands.

    Raises WorkerError where that fails, as `ask` does.
    """

    def __init__(self, name: str, module: str, fields: Mapping):
        self.name = name
        # A new interpreter: a forked one would have what this one has imported.
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.pid = self._do(worker.start, module, fields)

    def ask(self, command: str) -> dict:
        return self._do(worker.answer, command)

    def _do(self, work: Callable[..., Any], *arguments: object) -> Any:
        job = self._pool.submit(work, *arguments)
        if error := job.exception():
            self.close()
            told = ", ".join(map(repr, arguments))
            raise WorkerError(f"{self.name}: failed at {told}: {error}") from error
        return job.result()

    def close(self) -> None:
        self._pool.shutdown()


@dataclass
class Times:
    """seconds: by worker, one a round. others: share of the cores others used, a round.
    discarded: rounds that were repeated because of them. memory, outputs: by worker, as it tells
    them."""

    seconds: dict[str, list[float]]
    others: list[float] = field(default_factory=list)
    discarded: int = 0
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    outputs: dict[str, dict] = field(default_factory=dict)

    def disturbance(self) -> dict:
        """How busy the machine was, for a report."""
        return {"others_at_most": max(self.others), "discarded_rounds": self.discarded}


def once(module: str, fields: Mapping) -> dict:
    """One run in a process of its own: its seconds, memory and outputs."""
    with closing(Worker(module, module, fields)) as one:
        return {**one.ask("run"), **one.ask("memory"), **one.ask("outputs")}


def measured(
    tasks: Mapping[str, tuple[str, Mapping]],
    rounds: int,
    *,
    allow_busy: bool,
    pause: float = PAUSE,
) -> Times:
    """Starts a worker for each task, name -> (module, fields), and times all of them in rounds.

    Raises WorkerError, and BusyMachineError as `interleaved` does.
    """
    with ExitStack() as stack:
        workers = []
        for name, (module, fields) in tasks.items():
            workers.append(stack.enter_context(closing(Worker(name, module, fields))))
            for _ in range(WARM_UP):  # before the next one is started: one works at a time
                workers[-1].ask("run")
        times = interleaved(workers, rounds, allow_busy=allow_busy, pause=pause)
        times.memory = {one.name: one.ask("memory") for one in workers}
        times.outputs = {one.name: one.ask("outputs") for one in workers}
    return times


def interleaved(
    workers: Sequence[Worker], rounds: int, *, allow_busy: bool = False, pause: float = PAUSE
) -> Times:
    """Times all workers, which are warm, in so many rounds.

    A round in which others used the machine is repeated. Raises BusyMachineError once as many were
    in vain as are wanted, unless `allow_busy`.
    """
    order, times = random.Random(0), Times({one.name: [] for one in workers})
    while len(times.others) < rounds:
        before = Usage.now(one.pid for one in workers)
        seconds = {}
        for one in order.sample(workers, len(workers)):
            seconds[one.name] = one.ask("run")["seconds"]
            time.sleep(pause)
        others = before.others_until(Usage.now(one.pid for one in workers))
        if others > LIMIT and not allow_busy:
            times.discarded += 1
            if times.discarded >= rounds:
                raise BusyMachineError(busy_message(others))
            continue
        times.others.append(others)
        for name, value in seconds.items():
            times.seconds[name].append(value)
    return times
