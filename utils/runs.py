"""The folder of a run: where it is, whose it is, its metrics.csv, and stopping in good order."""

import contextlib
import csv
import errno
import fcntl
import math
import os
import re
import reprlib
import signal
import socket
import stat
from pathlib import Path
from types import FrameType
from typing import Self

from utils.files import whole_file, write_error
from utils.safe_reading import read_text

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed
# What flock says where the file system of a shared disk has no locks.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


TRAINED = ("checkpoints/best.npz", "checkpoints/last.npz")  # previous.npz may be untrained


class RunError(ValueError):
    """A run that cannot go on: another process has it, or its folder is not what it was."""


def new_run(output: str | Path, name: str) -> Path:
    """Makes <output>/<name>, or <name>-2, -3 ... if that is taken."""
    number = 1
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            folder = Path(output) / (name if number == 1 else f"{name}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
            number += 1
    except OSError as error:
        raise write_error(folder, error) from None


class RunLock:
    """Holds a run's folder, inside `with`, against a second process that would write there too.

    An flock on `.lock`: it ends with the process, however that ends. Raises RunError naming the
    holder's process and host. Other hosts see it where the file system passes locks on (NFS 4,
    most cluster disks); where it has no locks at all, the run goes on with a `warning`.
    """

    def __init__(self, run: str | Path):
        self.run, self.warning = Path(run), ""
        self.path = self.run / ".lock"

    def __enter__(self) -> Self:
        if not os.path.isdir(self.run):
            raise RunError(f"{self.run}: expected the folder of a run, found none")
        try:
            self._file = open(self.path, "a+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise write_error(self.path, error) from None
        self._folder = os.open(self.run, os.O_RDONLY)  # its inode is nobody else's while it is open
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                self._file.seek(0)
                holder = self._file.read(200).strip() or "an unknown process"
                self.__exit__()
                raise RunError(
                    f"{self.run}: expected no other process in this run, found {holder}; wait "
                    "until it ends, or stop it"
                ) from None
            reason = f"no lock ({error.strerror})"
            self.warning = f"{self.path}: {reason}: start no second --resume here"
        try:
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()
        except OSError as error:
            self.__exit__()
            raise write_error(self.path, error) from None
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._folder)
        with contextlib.suppress(OSError):  # the name of its holder, which a full disk did not take
            self._file.close()

    def require_folder(self) -> None:
        """Raises RunError if the folder was deleted, moved or replaced since."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat(os.stat(self.run), os.fstat(self._folder)):
                return
        raise RunError(
            f"{self.run}: expected the folder in which this run began, found it deleted or moved "
            "meanwhile; what was not copied elsewhere is lost"
        )


def latest_run(output: str | Path, name: str) -> Path:
    """The last of <name>, <name>-2 ... that has trained weights. Raises ValueError if none has."""
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    found = {}
    for folder in Path(output).glob("*"):
        match = pattern.fullmatch(folder.name)
        if match and any((folder / path).is_file() for path in TRAINED):
            found[int(match[1] or 1)] = folder
    if not found:
        raise ValueError(f"{Path(output) / name}: no run with a checkpoint; train one or name one")
    return found[max(found)]


def weights_file(path: str | Path) -> Path:
    """A checkpoint: `path` itself, or the best, else the last one of the run it names, or imported.

    Raises ValueError where there is none.
    """
    path = Path(path)
    for name in ("", *TRAINED, "weights.npz"):
        if os.path.isfile(path / name):  # False for a name that is too long, too
            return path / name
    raise ValueError(
        f"{path}: expected a run, imported weights or a checkpoint, found none; for published names"
        " and other projects' files: python -m core.weights import"
    )


class MetricsFile:
    """metrics.csv: a row an epoch. Opened again, it is cut back to the epochs that are done.

    Raises ValueError as `read_metrics` does.
    """

    def __init__(self, path: str | Path, num_epochs: int = 0):
        self.path = Path(path)
        self.rows: list[dict] = []
        if self.path.exists():
            read_metrics(path)
            self.rows = list(csv.DictReader(_lines(path)))[:num_epochs]
            self._write()

    def add(self, row: dict) -> None:
        self.rows.append(row)
        self._write()

    def _names(self) -> list[str]:
        """Of all rows: the first ones have fewer where somebody took columns out of the file."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def _write(self) -> None:
        with whole_file(self.path) as part, open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._names())
            writer.writeheader()
            writer.writerows(self.rows)


def read_metrics(path: str | Path) -> dict[str, list[float]]:
    """The columns of a metrics.csv as numbers, nan where a cell is empty; none before the first
    epoch. Raises ValueError naming file and line for what is cut short, no number or no CSV."""
    lines = _lines(path)
    reader = csv.reader(lines)
    try:
        names = next(reader, [])
        rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
    columns: dict[str, list[float]] = {name: [] for name in names}
    if names and ("epoch" not in columns or len(columns) < len(names)):
        found = ", ".join(names)[:500]
        raise ValueError(
            f"{path}, line 1: expected each column once, epoch among them, found {found}"
        )
    for epoch, (where, row) in enumerate(rows, start=1):
        if len(row) != len(names):
            raise ValueError(f"{where}: expected {len(names)} values, found {len(row)}")
        for name, cell in zip(names, row, strict=True):
            columns[name].append(_number(cell, where, name))
        if columns["epoch"][-1] != epoch:
            raise ValueError(f"{where}: expected epoch {epoch}, found {columns['epoch'][-1]:g}")
    if lines and not lines[-1].endswith("\n"):
        raise ValueError(f"{path}, line {len(lines)}: expected the end of a line, found the file's")
    return columns


def _lines(path: str | Path) -> list[str]:
    """The lines of a metrics.csv, each with its end. Raises ValueError where it is no text file."""
    return read_text(path).splitlines(keepends=True)


def _number(cell: str, where: str, name: str) -> float:
    try:
        return float(cell) if cell else math.nan
    except ValueError:
        raise ValueError(
            f"{where}, {name}: expected a number, found {reprlib.repr(cell)}"
        ) from None


class StopSignal:
    """Inside `with`, notes Ctrl-C, SIGTERM and SIGHUP in `received`; a second one kills.

    A SIGHUP that is ignored, as under nohup, stays ignored.
    """

    def __init__(self) -> None:
        self.received: str | None = None

    @property
    def exit_code(self) -> int:
        """128 and the number of the signal, as a shell has it."""
        return 128 + signal.Signals[self.received or "SIGINT"]

    def __enter__(self) -> Self:
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._before = {
            int(number): signal.signal(number, self._note)
            for number in SIGNALS
            if number != signal.SIGHUP or not is_ignored
        }
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if number == signal.SIGHUP:
            _let_go_of_terminal()
        # Not the diary: it may be what the signal interrupted.
        os.write(2, b"\nstopping after this step; once more stops at once\n")
        signal.signal(number, self._before[number])

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _let_go_of_terminal() -> None:
    """Sends output to /dev/null where it went to a terminal: writing to one that is gone fails."""
    for output in (1, 2):
        if stat.S_ISCHR(os.fstat(output).st_mode):
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), output)
