"""One contestant in a process of its own: what that process does, told by interleave.py.

start     builds the contestant, `module.make(**fields)`                its process
warm      runs twice: tracing and first allocations are over            {"seconds": of both}
run       runs once                                                     {"seconds": ...}
outputs   what the first run returned                                   {name: array, ...}
memory    bytes, see `Memory`                                           {"above_imports": ...}
"""

import importlib
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path


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


_commands: dict[str, Callable[[], dict]] = {}  # of this process's contestant, once it has one


def start(module: str, fields: Mapping) -> int:
    os.dup2(2, 1)  # what libraries print must not mix with the report
    make = importlib.import_module(module).make
    first: dict = {}
    memory = Memory()
    work = make(**fields)
    memory.mark_built()

    def run() -> dict:
        start = time.perf_counter()
        outputs = work()
        seconds = time.perf_counter() - start
        first.update(first or outputs)
        return {"seconds": seconds}

    _commands.update(run=run, outputs=lambda: first, memory=memory.read)
    return os.getpid()


def answer(command: str) -> dict:
    return _commands[command]()
