"""One contestant in a process of its own: `python -m benchmarks.worker MODULE '{"field": ...}'`.

Told by lines on its standard input what to do, answers with lines of JSON; see interleave.py.

    warm           runs twice: tracing and first allocations are over    {"seconds": of both}
    run            runs once                                             {"seconds": ...}
    outputs PATH   writes what the first run returned as .npz            {}
    memory         bytes, see `Memory`                                   {"above_imports": ...}
"""

import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


class Memory:
    """Peak resident memory above what was there after the imports, and after the building."""

    def __init__(self) -> None:
        self.imports = self.built = _resident("VmRSS")
        self.building = self.imports
        _forget_peak()

    def mark_built(self) -> None:
        self.building = _resident("VmHWM")
        _forget_peak()
        self.built = _resident("VmRSS")

    def read(self) -> dict[str, int]:
        peak = _resident("VmHWM")
        return {
            "above_imports": max(peak, self.building) - self.imports,
            "above_built": max(peak - self.built, 0),
        }


def _resident(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    [kilobytes] = re.findall(rf"{name}:\s+(\d+) kB", text)
    return 1024 * int(kilobytes)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


class Contestant:
    """A function to time, and what it returned first."""

    def __init__(self, run: Callable[[], dict]):
        self._run = run
        self._first: dict = {}

    def run(self) -> dict:
        start = time.perf_counter()
        outputs = self._run()
        seconds = time.perf_counter() - start
        self._first = self._first or outputs
        return {"seconds": seconds}

    def warm(self) -> dict:
        return {"seconds": self.run()["seconds"] + self.run()["seconds"]}

    def outputs(self, path: str) -> dict:
        np.savez(path, **self._first)
        return {}


def main() -> None:
    # What libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module = importlib.import_module(sys.argv[1])
    memory = Memory()
    contestant = Contestant(module.make(**json.loads(sys.argv[2])))
    memory.mark_built()
    commands: dict[str, Callable[..., dict]] = {
        "warm": contestant.warm,
        "run": contestant.run,
        "outputs": contestant.outputs,
        "memory": memory.read,
    }
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(commands[name](*arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
