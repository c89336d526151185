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

# A log file is no terminal and gets lines of a fixed width.
console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
PACKAGES = ("tensorflow", "keras", "numpy", "opencv-python-headless")


@contextlib.contextmanager
def diary(path: str | Path | None = None) -> Iterator[None]:
    """Inside `with`, loguru's `logger` writes to the screen and appends to the file `path`."""
    logger.remove()
    screen = logger.add(
        lambda message: console.print(
            message, end="", markup=False, emoji=False, highlight=False, soft_wrap=True
        ),
        format="{time:HH:mm:ss} {message}",
        level="INFO",
        colorize=False,
    )
    sinks = [screen]
    if path is not None:
        line = "{time:YYYY-MM-DD HH:mm:ss} {level:<7} {message}"
        # Loguru takes braces in a path for a format.
        file = str(path).replace("{", "{{").replace("}", "}}")
        sinks.append(logger.add(file, format=line, level="DEBUG", encoding="utf-8"))
    try:
        yield
    except Exception as error:
        # The screen gets the message from whoever called; the file gets the way it came.
        logger.opt(exception=True).debug("{}: {}", type(error).__name__, error)
        raise
    finally:
        for sink in sinks:
            logger.remove(sink)


def versions() -> str:
    """Python and the packages a result depends on, with their versions, in one line."""
    packages = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return ", ".join([f"Python {platform.python_version()}", *packages, sys.platform])


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
