"""Weights with the conventions that belong to them, in a file of this project.

A detector's file is what training writes, too: weights of other projects and runs are used alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from configs.checked import CALLABLE, ConfigError, adopt, differences, from_dict, to_dict
from configs.schema import Model
from core.weights.files import WeightsError
from utils.checkpoints import Checkpoint, save_checkpoint
from utils.runs import weights_file

DETECTOR, BACKBONE = "model", "backbone"  # groups of variables, and keys of a file's state
# What a backbone alone says of a model; a detector says all.
OF_BACKBONE = ("backbone", "bottleneck_stride", "bn_epsilon", "same_padding", "normalization")
# What a model that starts from weights may have otherwise, because it does not change what they
# mean, or because training changes it: anchors, where only their number matters (see `transfer`).
FREE_TO_START = ("resize", "detect", "prior", "bn_mode", "anchors")


def stated(kind: str, conventions: Mapping[str, Any]) -> Model:
    """The conventions of weights from what `to_dict` made of a Model.

    Left out is what those weights started from themselves, and parts of somebody's own, which only
    the config that defines them can name.
    """
    return from_dict(
        Model,
        {
            name: value
            for name, value in conventions.items()
            if (name in OF_BACKBONE if kind == BACKBONE else name not in ("weights", "aliases"))
            and not str(value).startswith(CALLABLE)
        },
    )


@dataclass(frozen=True)
class Weights:
    """Arrays by place ("backbone/conv1/kernel") and what is needed to use them.

    model: the conventions; of a backbone alone only `OF_BACKBONE` are given.
    classes: names in label order; empty: a backbone alone.
    origin: where they come from, JSON-ready.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    model: Model
    classes: Sequence[str] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return DETECTOR if self.classes else BACKBONE

    @classmethod
    def load(cls, path: str | Path) -> "Weights":
        """From an imported folder, a run or a checkpoint file.

        Raises ValueError where there is none, CheckpointError for a damaged one.
        """
        file = weights_file(path)
        checkpoint = Checkpoint(file)
        state = checkpoint.state
        kind = DETECTOR if state.get("classes") else BACKBONE
        arrays, conventions = checkpoint.arrays(kind), state.get(kind)
        if not arrays or not isinstance(conventions, Mapping):
            raise WeightsError(f"{file}: expected weights with their conventions, found none")
        try:
            model = stated(kind, conventions)
        except ConfigError as error:
            raise WeightsError(f"{file}: {error}") from None
        arrays = {path.removeprefix("retinanet/"): array for path, array in arrays.items()}
        return cls(file, arrays, model, tuple(state.get("classes", ())), state.get("origin", {}))

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint file; of a detector one that evaluates and draws."""
        model = to_dict(self.model)
        if self.kind == BACKBONE:
            model = {name: model[name] for name in OF_BACKBONE}
        state = {self.kind: model, "classes": list(self.classes), "origin": dict(self.origin)}
        save_checkpoint(path, {self.kind: self.arrays}, state)

    def settle(self, config: Model) -> Model:
        """`config` with everything that it leaves open as these weights need it.

        Raises ConfigError where it says otherwise than the weights, naming both.
        """
        if config.aliases and self.kind == BACKBONE:
            raise ConfigError(
                f"model.aliases: the weights {self.path} are of a backbone alone, without classes"
            )
        try:
            settled = adopt(config, self.model)
        except ConfigError as error:  # of fields that do not go together
            raise ConfigError(f"model, with what the weights {self.path} need: {error}") from None
        both = (settled.anchors, self.model.anchors)
        ours, theirs = (len(anchors.ratios) * len(anchors.scales) for anchors in both)
        if config.aliases and ours != theirs:
            raise ConfigError(
                f"model.aliases: of the weights {self.path}, with {theirs} anchors a cell, a model "
                f"with {ours} takes no class outputs"
            )
        problems = [
            f"model.{name}: the weights {self.path} need {needed!r}, the config says {wanted!r}"
            for name, wanted, needed in differences(to_dict(settled), to_dict(self.model))
            if name.split(".")[0] in self.model.given and name.split(".")[0] not in FREE_TO_START
        ]
        if problems:
            raise ConfigError(
                "; ".join(problems) + "; leave it out of config and preset to follow the weights, "
                "or choose others"
            )
        return settled
