"""Weights -> a model of other classes: what fits is copied, what should and does not is refused.

Letters: A anchors a cell, K classes, W channels of a head.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from configs.schema import Model
from core.build import build_anchors
from core.weights.npz_files import DETECTOR, Weights, by_place
from core.weights.torch_and_keras_files import WeightsError

CLASS_OUTPUT = ("class_head/output/kernel", "class_head/output/bias")
OUTPUTS = (*CLASS_OUTPUT, "box_head/output/kernel", "box_head/output/bias")


@dataclass
class Report:
    """What a transfer did: places of tensors, class names, and numbers of parameters."""

    copied: list[str] = field(default_factory=list)
    partly: list[str] = field(default_factory=list)  # class outputs, row by row
    initialised: list[str] = field(default_factory=list)  # not in the weights
    unused: list[str] = field(default_factory=list)  # in the weights, and of no use here
    classes: dict[str, str | None] = field(default_factory=dict)  # class -> its name there, or None
    notes: list[str] = field(default_factory=list)
    num_copied: int = 0
    num_parameters: int = 0

    def lines(self) -> list[str]:
        """For the diary."""
        share = 100 * self.num_copied / self.num_parameters
        lines = [
            f"{len(self.copied)} tensors copied, {len(self.partly)} partly: {share:.2f} % of "
            f"{self.num_parameters:,} parameters"
        ]
        for title, places in (("initialised", self.initialised), ("unused", self.unused)):
            parts = Counter(place.split("/")[0] for place in places)
            if parts:
                lines.append(
                    f"{title}: " + ", ".join(f"{count} of {part}" for part, count in parts.items())
                )
        known = [
            name if name == there else f"{name} (there: {there})"
            for name, there in self.classes.items()
            if there
        ]
        new = [name for name, there in self.classes.items() if not there]
        if self.partly:
            lines.append(f"classes copied: {some(known)}")
            lines.append(f"classes that start at the prior: {some(new)}")
        return lines + self.notes


def some(names: Sequence[str], most: int = 10) -> str:
    """The first of the names for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def transfer(weights: Weights, model: keras.Model, config: Model, classes: Sequence[str]) -> Report:
    """Copies weights into a model built from `config` for `classes`; assigns all or nothing.

    A tensor of the same place and shape is copied. Of the class outputs, the rows of a class go to
    the class of the same name, or of the name that `config.aliases` gives it; other classes start
    at the prior, whatever the image. Where the number of anchors a cell differs, class and box
    outputs start afresh. Of a backbone alone, the rest of the model stays as it is.
    Raises WeightsError for a tensor of the weights that has no place, or a variable of a part that
    the weights have and that is not in them, and for an alias of a class that is not there.
    """
    variables = by_place(model.variables)
    report = Report(num_parameters=sum(int(np.prod(v.shape)) for v in variables.values()))
    values = dict(weights.arrays)
    if weights.kind == DETECTOR:
        sources = class_sources(weights, classes, config.aliases)
        num_anchors = build_anchors(config).num_anchors
        if num_anchors != build_anchors(weights.model).num_anchors:
            report.unused = [place for place in OUTPUTS if place in values]
            values = {place: array for place, array in values.items() if place not in OUTPUTS}
            sources = dict.fromkeys(classes)
        elif tuple(sources.values()) != tuple(weights.classes):
            report.partly = list(CLASS_OUTPUT)
            rows = [weights.classes.index(name) if name else None for name in sources.values()]
            for place in CLASS_OUTPUT:
                values[place], num_copied = _rows(
                    values[place], variables[place], rows, num_anchors
                )
                report.num_copied += num_copied
        if config.anchors != weights.model.anchors:
            report.notes.append("anchors: others than those of the weights")
        report.classes = sources
    _check(weights, values, variables, report)
    for place, variable in variables.items():
        if place not in values:
            report.initialised.append(place)
            continue
        variable.assign(values[place])
        if place not in report.partly:
            report.copied.append(place)
            report.num_copied += values[place].size
    return report


def class_sources(
    weights: Weights, classes: Sequence[str], aliases: Mapping[str, str]
) -> dict[str, str | None]:
    """Class -> the class of the weights that it starts from; None: from the prior.

    Raises WeightsError for an alias of a class that one of the two does not have.
    """
    for name, there in aliases.items():
        for wanted, known, whose in (
            (name, classes, "the data"),
            (there, weights.classes, weights.path),
        ):
            if wanted not in known:
                raise WeightsError(
                    f"model.aliases: expected {wanted!r} among the classes of {whose}, found "
                    f"{', '.join(known)}"
                )
    found = {name: aliases.get(name, name) for name in classes}
    return {name: there if there in weights.classes else None for name, there in found.items()}


def _rows(
    array: np.ndarray, variable: keras.Variable, rows: Sequence[int | None], num_anchors: int
) -> tuple[np.ndarray, int]:
    """A class output with the given rows of `array` (..., A * K), and how many numbers they are.

    Where there is no row the kernel is zero and the bias as it was: exactly the prior.
    """
    old = array.reshape([*array.shape[:-1], num_anchors, -1])
    new = np.zeros([*array.shape[:-1], num_anchors, len(rows)], array.dtype)
    if array.ndim == 1:
        new += variable.numpy().reshape(new.shape)
    for k, row in enumerate(rows):
        if row is not None:
            new[..., k] = old[..., row]
    num_copied = sum(row is not None for row in rows) * old[..., 0].size
    return new.reshape([*array.shape[:-1], -1]), num_copied


def _check(
    weights: Weights,
    values: Mapping[str, np.ndarray],
    variables: Mapping[str, keras.Variable],
    report: Report,
) -> None:
    """Raises WeightsError for what should have matched and did not."""
    parts = {place.split("/")[0] for place in weights.arrays}
    expected = {
        place for place in variables if place.split("/")[0] in parts and place not in report.unused
    }
    problems = [f"no {place}" for place in sorted(expected - values.keys())]
    for place, array in values.items():
        shape = tuple(variables[place].shape) if place in variables else None
        if shape != array.shape:
            problems.append(f"{place} of {array.shape}, the model has {shape or 'none'}")
    if problems:
        raise WeightsError(
            f"{weights.path}: expected weights that fit the model, found {some(problems)}"
        )
