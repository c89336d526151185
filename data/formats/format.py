"""How a format of annotations is recognised, read and written: one record each, see FORMATS."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.formats.foreign import hint
from data.records import Dataset, DatasetError
from data.stratify import shared_out

LAYOUT = ("delimiter", "header", "class_file")  # options that decide which objects a split has
VAL = ("val", "valid", "validation")  # names of one split
SHARES = ("train", "val", "all")  # splits that a dataset has which is not divided itself


def names_of(split: str) -> tuple[str, ...]:
    """The names under which a split is looked for, its own first."""
    return (split, *(name for name in VAL if name != split)) if split == "val" else (split,)


@dataclass(frozen=True)
class Target:
    """A format that datasets are converted to.

    write: (dataset, root, split, names of the images) writes the annotations of a split and returns
        what the format could not hold, in words with counts. The images are the caller's to place.
    image_folder: where its images lie below root, with {split} in it; None: in what `write` writes,
        which takes a function, too, and calls it after each image.
    by_stem: whether two images may not differ in the suffix alone. flat: no subfolders.
    needed: splits that the format's own tools do not train without.
    """

    write: Callable[..., list[str]]
    image_folder: str | None
    by_stem: bool = False
    flat: bool = False
    needed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A format that datasets are read from.

    read: (root, split, classes, on_bad_annotation=..., and the options it `uses`) -> Dataset.
        split: a name of `find_splits`, or an annotation file relative to root. classes: in the
        order of their labels; None: all there are.
        on_bad_annotation: "error" raises at the first defect; "drop" leaves the object out, or the
        image where the defect is the image's, and counts it in the dataset's `defects`. Raises
        DatasetError for defects and for files that are not there or not of the format, ValueError
        for an argument that makes no sense.
    find_classes: (root, split, and the options of LAYOUT it uses) -> class names. A defect is
        passed over: `read` reports it.
    find_splits: root -> the splits, or annotation files relative to root, in their usual places;
        none where the folder has another format. Raises DatasetError for files it cannot read.
    undivided: root -> the split, for `read`, of all images of a dataset without train and val of
        its own, None where it has its own. `data.val_fraction` shares it out, see `read_split`.
    uses: keywords of `read`, by the names they have in configs.schema.Data; `delimiter` and
        `header` are those of Data.csv, `image_sizes` the sizes in a file of detections. All formats
        take the names in a class file; one that uses `class_file` their numbers, too.
    declares_classes: its files list all classes, in the order of their labels.
    numbers_classes: its classes have numbers of their own (`Dataset.category_ids`).
    default_classes: the classes that are read unless others are asked for; empty: all.
    prepare: makes the dataset at root if it is not there.
    target: None where datasets cannot be converted to it.
    name: what it is called in `FORMATS`, which sets it.
    """

    read: Callable[..., Dataset]
    find_classes: Callable[..., tuple[str, ...]]
    find_splits: Callable[[Path], list[str]]
    undivided: Callable[[Path], str | None] | None = None
    uses: tuple[str, ...] = ()
    declares_classes: bool = False
    numbers_classes: bool = False
    default_classes: tuple[str, ...] = ()
    prepare: Callable[[Path], object] | None = None
    target: Target | None = None
    name: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """The options of `read_split` that the format has a use for."""
        return (*self.uses, *("val_fraction",) * (self.undivided is not None))

    def read_split(
        self,
        root: Path,
        split: str,
        classes: Sequence[str] | None,
        on_bad_annotation: str,
        options: Mapping[str, Any],
    ) -> Dataset:
        """Reads a split with those of the options that the format uses.

        Of an undivided dataset the share of `SHARES` that the split names, perhaps behind a folder:
        a share of option `val_fraction`, .2 without, is val.
        """
        self._make(root)
        used = {name: options[name] for name in self.uses if name in options}
        whole = self._whole(root, split)
        with self._hinting(root):
            dataset = self.read(
                root, whole or split, classes, on_bad_annotation=on_bad_annotation, **used
            )
        if whole is None:
            return dataset
        dataset = replace(dataset, name=f"{root.resolve().name}/{split}")
        return shared_out(dataset, split.rpartition("/")[2], options.get("val_fraction", 0.2))

    def joint_classes(
        self,
        root: Path,
        splits: Iterable[str],
        options: Mapping[str, Any],
        optional: Collection[str] = (),
    ) -> tuple[str, ...]:
        """Returns the class names of several splits.

        In the order of the files where they declare their classes (COCO, YOLO) or have fixed ones
        (CrowdHuman), else sorted. optional: splits that need not be there.
        """
        self._make(root)
        used = {name: options[name] for name in LAYOUT if name in self.uses and name in options}
        found: dict[str, None] = {}
        for split in dict.fromkeys(splits):
            try:
                with self._hinting(root):
                    split = self._whole(root, split) or split
                    found |= dict.fromkeys(self.find_classes(root, split, **used))
            except DatasetError:
                if split not in optional:
                    raise
        return tuple(found if self.declares_classes or self.default_classes else sorted(found))

    @contextlib.contextmanager
    def _hinting(self, root: Path) -> Iterator[None]:
        """Adds to a DatasetError whose files lie there, if they are of other formats only."""
        try:
            yield
        except DatasetError as error:
            words = hint(root, self.name) if self.prepare is None else ""
            if not words:
                raise
            raise DatasetError(f"{error}; {words}", error.kind) from error

    def _whole(self, root: Path, split: str) -> str | None:
        """All of the dataset of which a split names a share, where it is not divided itself."""
        folder, _, name = split.rpartition("/")
        if self.undivided is None or name not in SHARES or not (root / folder).is_dir():
            return None
        whole = self.undivided(root / folder)
        return f"{folder}/{whole}" if folder and whole else whole

    def _make(self, root: Path) -> None:
        if self.prepare is not None:
            self.prepare(root)
