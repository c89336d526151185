"""What the writers share: numbers as text, names that are safe to write, losses in words."""

import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from data.records import DECIMALS, Dataset


def number(value: float) -> str:
    """The shortest decimal that reads back as the same float64, without exponent or ".0"."""
    return np.format_float_positional(value, trim="-")


def pixels(value: float) -> str:
    """A coordinate or side, calculated from rounded ones, as `number`: rounded again."""
    return number(np.round(value, DECIMALS))


def check_names(names: Sequence[str], dataset: Dataset, by_stem: bool = False) -> None:
    """Refuses file names that lead out of the folder, that text files cannot hold, or that clash.

    names: one for each image of the dataset, with "/" between folders. by_stem: two names may not
    differ in the suffix alone either. Raises ValueError naming the image, or both that clash.
    """
    taken: dict[str, str] = {}
    for name, image in zip(names, dataset.images, strict=True):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name or "\\" in name:
            raise ValueError(f"{image}: expected a name below the image folder, found {name!r}")
        if name != name.strip() or any(map(_ends_line, name)):
            expected = "expected a name that a line of text can hold"
            raise ValueError(f"{image}: {expected}, found {name!r}")
        key = str(path.with_suffix("")) if by_stem else name
        if key in taken:
            raise ValueError(f"{image}: would be called {name}, and so would {taken[key]}")
        taken[key] = image


def check_classes(classes: Sequence[str]) -> None:
    """Refuses class names that readers of text trim or break. Raises ValueError naming one."""
    for name in classes:
        if name != name.strip() or any(map(_ends_line, name)):
            expected = "expected a name without line ends, nor blanks around it"
            raise ValueError(f"class {name!r}: {expected}; rename it")


def _ends_line(character: str) -> bool:
    """Whether it is a control character, half of one (from a name not in UTF-8), a line's end."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def lost(count: int | np.integer, what: str) -> list[str]:
    """["12 difficult flags: CSV has none"], or nothing where the count is 0."""
    return [f"{count} {what}"] if count else []


def lost_flags(dataset: Dataset, name: str) -> list[str]:
    """The losses of a format (its `name`) that has neither difficult objects nor regions."""
    num_difficult = np.count_nonzero(dataset.difficult & ~dataset.ignore)
    return lost(num_difficult, f"difficult flags: {name} has none") + lost(
        np.count_nonzero(dataset.ignore), f"regions to ignore: left out, {name} has none"
    )


def lost_numbers(dataset: Dataset, name: str) -> list[str]:
    """The losses of a format (its `name`) that has neither areas nor numbers of categories."""
    boxes = dataset.boxes
    changed = dataset.areas != (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    numbered = dataset.category_ids != tuple(range(1, len(dataset.classes) + 1))
    return lost(
        np.count_nonzero(changed), f"areas other than their box's: {name} has no areas"
    ) + lost(numbered * len(dataset.classes), f"category ids: {name} has none")
