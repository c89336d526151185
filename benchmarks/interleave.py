"""Contestants in processes of their own, of which exactly one works at a time.

Rounds in changing order: what slows the machine for a while slows all of them, and none always
comes after the same other one.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import LIMIT, BusyMachineError, Usage, busy_message

ROOT = Path(__file__).parents[1]
PAUSE = 0.3  # seconds after a run: by then idle thread pools have stopped spinning
TAIL = 2000  # characters of a dead worker's last words


class WorkerError(RuntimeError):
    """A worker that died; the message holds the end of what it wrote to stderr."""


class Worker:
    """A process that runs `module.make(**fields)`; see worker.py for its commands."""

    def __init__(self, name: str, module: str, fields: Mapping, env: Mapping | None = None):
        self.name = name
        errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._errors = errors  # until `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", module, json.dumps(fields)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=env,
        )
        commands, answers = self._process.stdin, self._process.stdout
        assert commands is not None, "a pipe"
        assert answers is not None, "a pipe"
        self._commands, self._answers = commands, answers

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, command: str, *arguments: str) -> dict:
        """Raises WorkerError if the worker is no more."""
        try:
            print(json.dumps([command, *arguments]), file=self._commands, flush=True)
            answer = self._answers.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise WorkerError(self._last_words(command))
        return json.loads(answer)

    def _last_words(self, command: str) -> str:
        status = self._process.wait(timeout=60)
        self._errors.seek(0)
        text = self._errors.read()[-TAIL:].strip()
        return f"{self.name}: died of {command!r} with status {status}, and said\n{text}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._commands, self._answers, self._errors):
            try:
                file.close()
            except BrokenPipeError:  # of what it was to read yet
                continue

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Times:
    """seconds: by worker, one a round. others: share of the cores others used, a round.
    discarded: rounds that were repeated because of them."""

    seconds: dict[str, list[float]]
    others: list[float] = field(default_factory=list)
    discarded: int = 0


def interleaved(
    workers: Sequence[Worker], rounds: int, *, allow_busy: bool = False, pause: float = PAUSE
) -> Times:
    """Times all workers, which are warm, in so many rounds.

    A round in which others used the machine is repeated. Raises BusyMachineError once as many were
    in vain as are wanted, unless `allow_busy`.
    """
    order, times = random.Random(0), Times({worker.name: [] for worker in workers})
    while len(times.others) < rounds:
        before = Usage.now(worker.pid for worker in workers)
        seconds = {}
        for worker in order.sample(workers, len(workers)):
            seconds[worker.name] = worker.ask("run")["seconds"]
            time.sleep(pause)
        others = before.others_until(Usage.now(worker.pid for worker in workers))
        if others > LIMIT and not allow_busy:
            times.discarded += 1
            if times.discarded >= rounds:
                raise BusyMachineError(busy_message(others))
            continue
        times.others.append(others)
        for name, value in seconds.items():
            times.seconds[name].append(value)
    return times
