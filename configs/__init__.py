"""Settings: the schema, the presets and the one way a config reaches a program, `load`."""

import argparse
import contextlib
import importlib
import os
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.checked import (
    ConfigError,
    adopt,
    assignment,
    completed,
    differences,
    from_dict,
    override,
    shown,
    to_dict,
)
from configs.schema import Config
from utils.safe_reading import read_bytes, read_json

__all__ = [
    "Config",
    "ConfigError",
    "add_arguments",
    "adopt",
    "assignment",
    "completed",
    "differences",
    "from_dict",
    "load",
    "load_saved",
    "override",
    "preset",
    "require_useful",
    "to_dict",
]

PRESETS = ("shapes", "small", "voc", "coco", "boxes_csv", "crowdhuman", "bccd", "overfit")
MOST_BYTES = 4 * 2**20  # of a config file; ours have 4 kB, and a thousand classes 20 more


def preset(name: str, changes: Mapping[str, Any] | None = None) -> Config:
    """A preset of configs/ with dotted settings changed: preset("voc", {"train.epochs": 20}).

    Raises ConfigError for an unknown preset or setting, with the choices.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, found {name!r}")
    return override(importlib.import_module(f"configs.{name}").config, changes or {})


def add_arguments(
    parser: argparse.ArgumentParser, default: str | None = "config.py", text: str | None = None
) -> None:
    """Gives a command line --config and --set: `args.config`, `args.overrides`, as for `load`."""
    parser.add_argument("--config", default=default, help=text or f"default: {default}")
    parser.add_argument(
        "--set", nargs="*", default=[], action="extend", metavar="FIELD=VALUE", dest="overrides",
        help="a setting by its name in configs/schema.py; may be given again",
    )  # fmt: skip


def require_useful(
    parser: argparse.ArgumentParser,
    overrides: Sequence[str],
    beginnings: tuple[str, ...] = ("model.",),
    parts: str = "model (model.*)",
) -> None:
    """Ends a command line whose --set says what its program does not use.

    beginnings: of the settings that it uses. parts: what a message calls them.
    """
    for item in overrides:
        if not item.startswith(beginnings):
            parser.error(f"--set: expected settings of the {parts}, found {item!r}")


def load(path: str | Path = "config.py", overrides: Sequence[str] = ()) -> Config:
    """The config of a file, changed by "section.field=value" strings.

    path: a Python file that defines `config`, or the config.json of a run.
    Raises ConfigError naming the file and what is wrong with it; for a Python file that raises
    anything, with the line of that file.
    """
    path = Path(path)
    if not os.path.exists(path):  # pathlib raises for a name that is too long
        raise ConfigError(f"{path}: no such config file")
    if path.suffix == ".json":
        settings = _read_settings(path)
        with _in_file(path):
            config = from_dict(Config, settings)
    elif path.suffix == ".py":
        config = _executed(path)
    else:
        raise ConfigError(f"{path}: expected a .py or .json file")
    return override(config, dict(assignment(item) for item in overrides))


def load_saved(path: str | Path) -> dict[str, Any]:
    """The settings in a run's config.json as `to_dict` gives them, own objects by their names.

    Raises ConfigError naming the file and what is wrong with it.
    """
    settings = _read_settings(path)
    with _in_file(path):
        return completed(Config, settings)


def _read_settings(path: str | Path) -> dict[str, Any]:
    try:
        return read_json(path, MOST_BYTES)
    except ValueError as error:
        raise ConfigError(str(error)) from None


@contextlib.contextmanager
def _in_file(path: str | Path) -> Iterator[None]:
    """Names the file in a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _executed(path: Path) -> Config:
    """The `config` that a Python file defines."""
    module = types.ModuleType("_config_file")
    module.__file__ = str(path)
    try:
        source = read_bytes(path, MOST_BYTES)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise ConfigError(_where_raised(path, error)) from None
    found = getattr(module, "config", None)
    if not isinstance(found, Config):
        expected = "expected it to define `config`, a Config"
        raise ConfigError(f"{path}: {expected}; found {shown(found)}")
    return found


def _where_raised(path: Path, error: BaseException) -> str:
    """One line: file, line of the innermost frame in that file, what was raised there."""
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
    text = str(error)
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line, text = error.lineno, error.msg
    where = f"{path}, line {line}" if line else str(path)
    kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
    return f"{where}: {kind}{' '.join(text.split())[:500]}".rstrip(": ")
