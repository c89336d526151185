"""The folder of a run: where it is, its metrics.csv, and leaving it in order when told to stop."""

import csv
import math
import os
import re
import signal
from pathlib import Path
from types import FrameType
from typing import Self

from utils.files import whole_file


def new_run(output: str | Path, name: str) -> Path:
    """Makes <output>/<name>, or <name>-2, -3 ... if that is taken."""
    number = 1
    while True:
        folder = Path(output) / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def latest_run(output: str | Path, name: str) -> Path:
    """The last of <name>, <name>-2 ... that has a checkpoint. Raises ValueError if none has."""
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    found = {}
    for folder in Path(output).glob("*"):
        match = pattern.fullmatch(folder.name)
        if match and any(folder.glob("checkpoints/*.npz")):
            found[int(match[1] or 1)] = folder
    if not found:
        raise ValueError(f"{Path(output) / name}: no run with a checkpoint; train one or name one")
    return found[max(found)]


def weights_file(path: str | Path) -> Path:
    """A checkpoint: `path` itself, or the best, else the last one of the run it names, or imported.

    Raises ValueError where there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    for name in ("checkpoints/best.npz", "checkpoints/last.npz", "weights.npz"):
        if (path / name).is_file():
            return path / name
    raise ValueError(
        f"{path}: expected a run, imported weights or a checkpoint, found none; for published names"
        " and other projects' files: python -m core.weights import"
    )


class MetricsFile:
    """metrics.csv: a row an epoch. Opened again, it is cut back to the epochs that are done."""

    def __init__(self, path: str | Path, num_epochs: int = 0):
        self.path = Path(path)
        self.rows: list[dict] = []
        if self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as file:
                self.rows = [row for row in csv.DictReader(file) if _epoch(row, path) <= num_epochs]
            self._write()

    def add(self, row: dict) -> None:
        self.rows.append(row)
        self._write()

    def columns(self) -> dict[str, list]:
        return {name: [row.get(name, "") for row in self.rows] for name in self._names()}

    def _names(self) -> list[str]:
        """Of all rows: those of a run that began with an earlier version have fewer."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def _write(self) -> None:
        with whole_file(self.path) as part, open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._names())
            writer.writeheader()
            writer.writerows(self.rows)


def read_metrics(path: str | Path) -> dict[str, list[float]]:
    """The columns of a metrics.csv as numbers, nan where a cell is empty; none before the first
    epoch. Raises ValueError naming file and line for what is cut short or no number."""
    # Decoded as MetricsFile wrote it: each of its lines has an end.
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    reader = csv.reader(lines)
    names = next(reader, [])
    columns: dict[str, list[float]] = {name: [] for name in names}
    if names and "epoch" not in columns:
        raise ValueError(f"{path}, line 1: expected a column epoch, found {', '.join(names)}")
    for epoch, row in enumerate(reader, start=1):
        where = f"{path}, line {reader.line_num}"
        if len(row) != len(names):
            raise ValueError(f"{where}: expected {len(names)} values, found {len(row)}")
        for name, cell in zip(names, row, strict=True):
            columns[name].append(_number(cell, f"{where}, {name}"))
        if columns["epoch"][-1] != epoch:
            raise ValueError(f"{where}: expected epoch {epoch}, found {columns['epoch'][-1]:g}")
    if lines and not lines[-1].endswith("\n"):
        raise ValueError(f"{path}, line {len(lines)}: expected the end of a line, found the file's")
    return columns


def _number(cell: str, where: str) -> float:
    try:
        return float(cell) if cell else math.nan
    except ValueError:
        raise ValueError(f"{where}: expected a number, found {cell!r}") from None


def _epoch(row: dict, path: str | Path) -> int:
    try:
        return int(row["epoch"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: expected a row an epoch with its number, found {row}") from None


class StopSignal:
    """Inside `with`, notes Ctrl-C and SIGTERM in `received`; a second one kills."""

    def __init__(self) -> None:
        self.received: str | None = None

    def __enter__(self) -> Self:
        self._before = {
            int(number): signal.signal(number, self._note)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        # Not the diary: it may be what the signal interrupted.
        os.write(2, b"\nstopping after this step; once more stops at once\n")
        signal.signal(number, self._before[number])

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
