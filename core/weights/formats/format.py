"""What an importer knows of another project: its names and layouts -> those of our variables.

A place is the path of a variable inside the model: "backbone/layer1_0/conv1/kernel".
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from configs.schema import Model

# (pattern, replacement), which is a template, or a function of the match.
Layer: TypeAlias = tuple[str, str | Callable[[re.Match], str]]

NORM = re.compile(r"(bn\d|norm\d|downsample_1)$")
NORM_LEAVES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
CONV_LEAVES = {"weight": "kernel", "bias": "bias"}
TORCH_RESNET: tuple[Layer, ...] = (
    (r"(conv1|bn1)", r"backbone/\1"),
    (r"layer(\d)\.(\d+)\.((?:conv|bn)\d)", r"backbone/layer\1_\2/\3"),
    (r"layer(\d)\.(\d+)\.downsample\.([01])", r"backbone/layer\1_\2/downsample_\3"),
)


@dataclass(frozen=True)
class Format:
    """What an importer knows of the files of one project.

    name: what the format is called; library: "torch" or "keras", whose files it comes in.
    marks: a file is of this format if it has a name that matches each of these patterns.
    layers: what turns the name of a layer into its place.
    ignored: pattern of layers that a detector has no use for, such as the classifier of ImageNet.
    conventions: what the project's code says and no file does; where that depends on the file,
        (arrays by place, all that the file lists) -> the conventions.
    classes: names in label order by number of outputs, where they are known.
    finish: changes the arrays once they are at their places.
    """

    name: str
    library: str
    marks: Sequence[str]
    layers: Sequence[Layer]
    conventions: Model | Callable[[Mapping[str, np.ndarray], frozenset[str]], Model]
    ignored: str = r"(?!)"
    classes: Mapping[int, Sequence[str]] | None = None
    finish: Callable[[dict[str, np.ndarray]], None] = lambda arrays: None

    def recognises(self, library: str, names: Sequence[str]) -> bool:
        """Whether a file of these tensors is of this format."""
        return library == self.library and all(
            any(re.match(mark, name) for name in names) for mark in self.marks
        )

    def place(self, name: str) -> str | None:
        """The place of a tensor; None for one that is not needed.

        Raises KeyError for a name that the format does not have.
        """
        parts = re.fullmatch(r"(.*)[./](\w+)", name)
        if not parts:
            raise KeyError(name)
        layer, leaf = parts.groups()
        if re.fullmatch(self.ignored, layer):
            return None
        for pattern, replacement in self.layers:
            if found := re.fullmatch(pattern, layer):
                if isinstance(replacement, str):
                    place = found.expand(replacement)
                else:
                    place = replacement(found)
                if self.library == "torch":
                    leaf = (NORM_LEAVES if NORM.search(place) else CONV_LEAVES)[leaf]
                return f"{place}/{leaf}"
        raise KeyError(name)

    def array(self, array: np.ndarray) -> np.ndarray:
        """A tensor in TensorFlow's layout: kernels (height, width, in, out)."""
        if self.library == "torch" and array.ndim == 4:
            return np.ascontiguousarray(array.transpose(2, 3, 1, 0))
        return array
