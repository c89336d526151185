"""Which format and which splits lie in a folder that someone calls a dataset."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.formats import FORMATS
from data.formats.foreign import hint
from data.records import DatasetError

SOURCES = tuple(name for name, form in FORMATS.items() if form.prepare is None)
SPLIT_NAME = r"\w[\w.-]*"


def recognise(root: Path) -> str:
    """The one format of which annotations lie in `root`. Raises DatasetError for none or more."""
    found, problems = [], []
    for name in SOURCES:
        try:
            found += [name] if FORMATS[name].find_splits(root) else []
        except DatasetError as error:  # another format's YAML file, or the only one and broken
            problems.append(f" ({error})")
    if "cvat" in found:  # whose XML files any reader of a flat folder takes for VOC's
        found = [name for name in found if name != "voc"]
    if len(found) != 1:
        what = ", ".join(found) or "".join(["none", *problems])
        advice = (not found and hint(root)) or "say it: --from"
        raise DatasetError(f"{root}: expected annotations of one format, found {what}; {advice}")
    return found[0]


def found_splits(root: Path, format_name: str) -> dict[str, str]:
    """All splits of a dataset. Raises DatasetError if there is none."""
    found = FORMATS[format_name].find_splits(root)
    if not found:
        raise DatasetError(f"{root}: found no {format_name} annotations; name them: --splits")
    return named_splits(found)


def named_splits(splits: Sequence[str]) -> dict[str, str]:
    """{name in the target: split}; of an annotation file its stem, less what formats add to it.

    Where tools give all files the same name, the folder's counts. A single folder "images" or
    "." is all.
    Raises ValueError for two of one name.
    """
    named: dict[str, str] = {}
    for split in splits:
        path = PurePosixPath(split)
        if path.name in ("_annotations.coco.json", "_annotations.csv") and path.parent.name:
            path = path.parent
        stem = path.stem if path.suffix in (".json", ".csv", ".odgt", ".txt", ".xml") else path.name
        name = re.sub(r"^(instances|annotation)_|_labels$", "", stem)
        name = "all" if name in ("images", "") else name
        if not re.fullmatch(SPLIT_NAME, name):
            raise ValueError(f"--splits: expected a name or a file, found {split!r}")
        if name in named:
            raise ValueError(f"--splits: {named[name]} and {split} would both be called {name!r}")
        named[name] = split
    return named
