"""The machine a benchmark runs on: what it is, and whether anybody else is using it.

Under load torch slows down more than TensorFlow, so that even ratios would mislead.
"""

import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

LIMIT = 0.05  # share of all cores that others may use
PROC = Path("/proc")
PACKAGES = (
    "tensorflow", "keras", "torch", "torchvision", "keras-hub", "onnxruntime", "ai-edge-litert",
    "tf2onnx",
)  # fmt: skip


class BusyMachineError(RuntimeError):
    """Others compute on this machine."""


@dataclass(frozen=True)
class Usage:
    """Ticks of all cores since the machine was started, and of some processes in them."""

    total: int
    busy: int
    own: int

    @classmethod
    def now(cls, processes: Iterable[int] = ()) -> "Usage":
        """`processes`: besides this one, which are ours."""
        own = sum(
            process_ticks((PROC / str(pid) / "stat").read_text(encoding="utf-8"))
            for pid in (os.getpid(), *processes)
        )
        return cls(*machine_ticks((PROC / "stat").read_text(encoding="utf-8")), own)

    def others_until(self, later: "Usage") -> float:
        """The share of all cores that neither idled nor worked for us."""
        busy = (later.busy - self.busy) - (later.own - self.own)
        return max(busy, 0) / max(later.total - self.total, 1)


def machine_ticks(text: str) -> tuple[int, int]:
    """/proc/stat -> ticks in all, ticks that were not idle (what a hypervisor took included)."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    values = text.splitlines()[0].split()[1 : len(names) + 1]
    ticks = dict(zip(names, map(int, values), strict=False))
    total = sum(ticks.values())
    return total, total - ticks["idle"] - ticks.get("iowait", 0)


def process_ticks(text: str) -> int:
    """/proc/PID/stat -> ticks in user and system mode of all its threads."""
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return int(fields[11]) + int(fields[12])


def require_idle(seconds: float = 2.0, allow_busy: bool = False) -> float:
    """Watches for some seconds; returns the share of all cores that others use.

    Raises BusyMachineError if that is more than LIMIT, unless `allow_busy`.
    """
    before = Usage.now()
    time.sleep(seconds)
    share = before.others_until(Usage.now())
    if share > LIMIT and not allow_busy:
        raise BusyMachineError(busy_message(share))
    return share


def busy_message(share: float) -> str:
    return (
        f"expected an idle machine, found others using {share:.0%} of all cores (limit "
        f"{LIMIT:.0%}); wait for them, or say --busy to measure all the same"
    )


def description() -> dict[str, str]:
    """Processor, cores, memory, versions, date."""
    cpu = re.search(r"model name\s*: (.*)", (PROC / "cpuinfo").read_text(encoding="utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = []
    for name in PACKAGES:
        try:
            packages.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": cpu[1] if cpu else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "versions": ", ".join([f"Python {platform.python_version()}", *packages]),
        "date": date.today().isoformat(),
    }


def headline(machine: dict[str, str], busy: bool = False) -> str:
    """What every report begins with; busy: whether it was measured with --busy."""
    line = "{processor}, {cores} cores, {memory}; {versions}; {date}".format(**machine)
    if busy:
        line += "\n\n**Measured with --busy: the machine was not required to be idle.**"
    return line
