"""The diary: what a run says, on the screen and in diary.log, through loguru."""

import contextlib
import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from utils import __version__
from utils.files import write_error
from utils.names import printable

# A log file is no terminal and gets lines of a fixed width.
console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
PACKAGES = ("tensorflow", "keras", "numpy", "opencv-python-headless")


@contextlib.contextmanager
def diary(path: str | Path | None = None) -> Iterator[None]:
    """Inside `with`, loguru's `logger` writes to the screen and appends to the file `path`.

    A file that cannot be written ends no run: the screen says so, once.
    """
    logger.remove()
    sinks = [logger.add(_show, format="{time:HH:mm:ss} {message}", level="INFO", colorize=False)]
    if path is not None:
        # Once, as a folder that is deleted later stays so; if it cannot be, the first line tells.
        with contextlib.suppress(OSError):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        line = "{time:YYYY-MM-DD HH:mm:ss} {level:<7} {message}"
        sinks.append(logger.add(_File(path), format=line, level="DEBUG"))
    try:
        yield
    except Exception as error:
        # The screen gets the message from whoever called; the file gets the way it came.
        logger.opt(exception=True).debug("{}: {}", type(error).__name__, error)
        raise
    finally:
        for sink in sinks:
            logger.remove(sink)


def _show(text: str) -> None:
    # A file's name may hold what moves a terminal's cursor.
    text = printable(text, keep="\n\t")
    console.print(text, end="", markup=False, emoji=False, highlight=False, soft_wrap=True)


class _File:
    """Appends each line whole or not at all; after a failure the next lines are tried again."""

    def __init__(self, path: str | Path):
        self._path, self._num_lost, self._has_warned = Path(path), 0, False

    def __call__(self, line: str) -> None:
        line = printable(line, keep="\n\t")
        gap = f"({self._num_lost} lines are missing here: they could not be written)\n"
        try:
            self._append((gap if self._num_lost else "") + line)
            self._num_lost = 0
        except OSError as error:
            self._num_lost += 1
            if not self._has_warned:
                # Not by the logger, which is at work on this line.
                _show(f"{write_error(self._path, error)}; goes on without it, lines are lost\n")
                self._has_warned = True

    def _append(self, text: str) -> None:
        with open(self._path, "ab", buffering=0) as file:
            end = file.tell()
            try:
                # A path that is not in UTF-8 has characters that UTF-8 cannot hold.
                data = text.encode("utf-8", "backslashreplace")
                while data:
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(end)
                raise


def versions() -> str:
    """The versions of the project, of Python and of what a result depends on, in one line."""
    packages = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    ours = [f"project {__version__}", f"Python {platform.python_version()}"]
    return ", ".join([*ours, *packages, sys.platform])


def progress_bar() -> Progress:
    """Rich's bar with room for what a training step has to say, in the field `text`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # a log file wants lines, not a bar
    )
