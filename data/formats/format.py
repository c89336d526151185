"""How a format of annotations is recognised, read and written: one record each, see FORMATS."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.records import Dataset

LAYOUT = ("val_fraction", "delimiter", "header")  # options that decide which objects a split has


@dataclass(frozen=True)
class Target:
    """A format that datasets are converted to.

    write: (dataset, root, split, names of the images) writes the annotations of a split and returns
        what the format could not hold, in words with counts. The images are the caller's to place.
    image_folder: where its images lie below root, with {split} in it.
    by_stem: whether two images may not differ in the suffix alone. flat: no subfolders.
    needed: splits that the format's own tools do not train without.
    """

    write: Callable[[Dataset, Path, str, Sequence[str]], list[str]]
    image_folder: str
    by_stem: bool = False
    flat: bool = False
    needed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A format that datasets are read from.

    read: (root, split, classes, on_bad_annotation=..., and the options it `uses`) -> Dataset.
    find_classes: (root, split, and the options of LAYOUT it uses) -> class names.
    find_splits: root -> the splits, or annotation files relative to root, in their usual places;
        none where the folder has another format. Raises DatasetError for files it cannot read.
    uses: keywords of `read`, by the names they have in configs.schema.Data; `delimiter` and
        `header` are those of Data.csv, `image_sizes` the sizes in a file of detections.
    declares_classes: its files list all classes, in the order of their labels.
    numbers_classes: its classes have numbers of their own (`Dataset.category_ids`).
    default_classes: the classes that are read unless others are asked for; empty: all.
    prepare: makes the dataset at root if it is not there.
    target: None where datasets cannot be converted to it.
    """

    read: Callable[..., Dataset]
    find_classes: Callable[..., tuple[str, ...]]
    find_splits: Callable[[Path], list[str]]
    uses: tuple[str, ...] = ()
    declares_classes: bool = False
    numbers_classes: bool = False
    default_classes: tuple[str, ...] = ()
    prepare: Callable[[Path], object] | None = None
    target: Target | None = None

    def read_split(
        self,
        root: Path,
        split: str,
        classes: Sequence[str] | None,
        on_bad_annotation: str,
        options: Mapping[str, Any],
    ) -> Dataset:
        """Reads a split with those of the options that the format uses."""
        used = {name: options[name] for name in self.uses if name in options}
        return self.read(root, split, classes, on_bad_annotation=on_bad_annotation, **used)

    def split_classes(self, root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the class names of a split."""
        used = {name: options[name] for name in LAYOUT if name in self.uses and name in options}
        return self.find_classes(root, split, **used)
