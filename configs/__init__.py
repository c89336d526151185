"""Settings: the schema, the presets and the one way a config reaches a program, `load`."""

import argparse
import importlib.util
import json
from collections.abc import Mapping, Sequence
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
    to_dict,
)
from configs.schema import Config

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
    "override",
    "preset",
    "require_useful",
    "to_dict",
]

PRESETS = ("shapes", "small", "voc", "coco", "boxes_csv", "crowdhuman", "bccd", "overfit")


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
    Raises ConfigError naming the file and what is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file")
    if path.suffix == ".json":
        try:
            config = from_dict(Config, json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:  # of json, or a ConfigError
            raise ConfigError(f"{path}: {error}") from None
    else:
        spec = importlib.util.spec_from_file_location("_config_file", path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{path}: expected a .py or .json file")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        found = getattr(module, "config", None)
        if not isinstance(found, Config):
            raise ConfigError(f"{path}: expected it to define `config`, a Config; found {found!r}")
        config = found
    return override(config, dict(assignment(item) for item in overrides))
