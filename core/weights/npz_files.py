"""Weights with the conventions that belong to them, in a file of this project.

A detector's file is what training writes, too: weights of other projects and runs are used alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from configs.checked import (
    CALLABLE,
    ConfigError,
    adopt,
    completed,
    differences,
    from_dict,
    shown,
    to_dict,
)
from configs.schema import Model
from core.backbones.resnet import BLOCKS
from core.weights.torch_and_keras_files import WeightsError
from utils.checkpoints import Checkpoint, CheckpointError, save_checkpoint
from utils.names import name_problem
from utils.runs import weights_file

DETECTOR, BACKBONE = "model", "backbone"  # groups of variables, and keys of a file's state
# What a backbone alone says of a model; a detector says all.
OF_BACKBONE = ("backbone", "bottleneck_stride", "bn_epsilon", "same_padding", "normalization")
# What a model that starts from weights may have otherwise, because it does not change what they
# mean, or because training changes it: anchors, where only their number matters (see `transfer`).
FREE_TO_START = ("resize", "detect", "prior", "bn_mode", "anchors", "bits")


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
            and not (isinstance(value, str) and value.startswith(CALLABLE))
        },
    )


def conventions_of(checkpoint: Checkpoint) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A detector's conventions, as `to_dict` makes them, and its classes.

    Raises CheckpointError or ConfigError, naming the file, where there are none or they do not fit
    the arrays: before anything is built, as a damaged file could ask for all memory.
    """
    file, state = checkpoint.path, checkpoint.state
    if DETECTOR not in state:
        raise CheckpointError(f"{file}: no conventions of a detector inside, so it is none")
    try:
        saved = completed(Model, state[DETECTOR])
        model = stated(DETECTOR, saved)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    classes = _classes(file, state)
    require_fit(file, checkpoint.arrays(DETECTOR), model, len(classes))
    return saved, classes


def _classes(file: Path, state: Mapping[str, Any]) -> tuple[str, ...]:
    classes = state.get("classes")
    if not isinstance(classes, list) or not classes:
        raise CheckpointError(f"{file}: expected a list of classes, found {shown(classes)}")
    for name in classes:
        if not isinstance(name, str):
            raise CheckpointError(f"{file}: expected names of classes, found {shown(name)}")
        if problem := name_problem(name):
            raise CheckpointError(f"{file}: {problem}")
    return tuple(classes)


def by_place(variables: Iterable[keras.Variable]) -> dict[str, keras.Variable]:
    """The variables of a model, or of its backbone alone, by the places that arrays have."""
    return {place_of(variable.path): variable for variable in variables}


def place_of(path: str) -> str:
    """The place of a variable of this path: without the model's name."""
    return path.removeprefix("retinanet/")


def require_fit(
    file: Path, arrays: Mapping[str, np.ndarray], model: Model, num_classes: int
) -> None:
    """Raises CheckpointError where conventions speak of more or wider layers than a file holds.

    arrays: by the paths of their variables. model: of `stated`; a backbone alone has no classes.
    Looks at the last kernel of each chain of layers: a network that these fit is no larger than the
    file, so that it may be built, and `Checkpoint.restore` compares the rest.
    """
    places = {place_of(path): array for path, array in arrays.items()}
    for place, expected in _last_kernels(model, num_classes).items():
        found = places[place].shape if place in places else ()
        is_met = len(found) == 4 and all(
            channels in (None, there) for channels, there in zip(expected, found[2:], strict=True)
        )
        if not is_met:
            channels = " to ".join("any" if e is None else str(e) for e in expected)
            raise CheckpointError(
                f"{file}: expected {place} of {channels} channels, as its conventions say, found "
                f"{found or 'none'}"
            )


def _last_kernels(model: Model, num_classes: int) -> dict[str, tuple[int | None, int | None]]:
    """Place of the last kernel of each chain of layers -> channels in and out; None: any.

    Of parts of the user's own, which are not given, nothing is known.
    """
    kernels: dict[str, tuple[int | None, int | None]] = {}
    if isinstance(model.backbone, str) and "backbone" in model.given:
        blocks = BLOCKS[int(model.backbone.removeprefix("resnet"))]
        kernels[f"backbone/layer3_{blocks[2] - 1}/conv2/kernel"] = 256, 256
    if not num_classes:
        return kernels
    neck: int | None = None
    if isinstance(model.neck, str) and "neck" in model.given:
        neck = model.neck_width
        layer = "p7"
        if model.neck == "bifpn":
            layer = f"round{model.bifpn.repeats - 1}_up7/conv"
        kernels[f"neck/{layer}/kernel"] = neck, neck
    width, depth = model.head_width, model.head_depth
    num_anchors = len(model.anchors.ratios) * len(model.anchors.scales)
    for head, outputs in (("class_head", num_classes), ("box_head", 4)):
        inputs = neck
        if depth:
            kernels[f"{head}/conv{depth - 1}/kernel"] = width if depth > 1 else neck, width
            inputs = width
        kernels[f"{head}/output/kernel"] = inputs, num_anchors * outputs
    return kernels


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
        classes = _classes(file, state) if state.get("classes") else ()
        kind = DETECTOR if classes else BACKBONE
        arrays, conventions = checkpoint.arrays(kind), state.get(kind)
        if not arrays or not isinstance(conventions, Mapping):
            raise WeightsError(f"{file}: expected weights with their conventions, found none")
        try:
            model = stated(kind, conventions)
        except ConfigError as error:
            raise WeightsError(f"{file}: {error}") from None
        require_fit(file, arrays, model, len(classes))
        origin = state.get("origin", {})
        if not isinstance(origin, Mapping):
            raise WeightsError(f"{file}: expected an origin by names, found {shown(origin)}")
        arrays = {place_of(path): array for path, array in arrays.items()}
        return cls(file, arrays, model, classes, origin)

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
