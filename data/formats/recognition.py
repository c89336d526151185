"""Which format and which splits lie in a folder that someone calls a dataset."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.files import read_data
from data.formats.boxes_csv import csv_classes
from data.formats.texts import OF_DATASET
from data.formats.yolo import CLASS_NAMES, SPLITS, describe
from data.records import DatasetError

SOURCES = ("voc", "coco", "csv", "yolo", "crowdhuman")
FLAT_VOC = ("*.xml", "[Aa]nnotations/*.xml", "annots/*.xml", "labels/*.xml")
SPLIT_NAME = r"\w[\w.-]*"


def recognise(root: Path) -> str:
    """The one format of which annotations lie in `root`. Raises DatasetError for none or more."""
    found, problems = [], []
    for name in SOURCES:
        try:
            found += [name] if _annotations(root, name) else []
        except DatasetError as error:  # another format's YAML file, or the only one and broken
            problems.append(f" ({error})")
    if len(found) != 1:
        what = ", ".join(found) or "".join(["none", *problems])
        expected = "expected annotations of one format"
        raise DatasetError(f"{root}: {expected}, found {what}; say it: --from")
    return found[0]


def found_splits(root: Path, format_name: str) -> dict[str, str]:
    """All splits of a dataset. Raises DatasetError if there is none."""
    found = _annotations(root, format_name)
    if not found:
        raise DatasetError(f"{root}: found no {format_name} annotations; name them: --splits")
    return named_splits(found)


def named_splits(splits: Sequence[str]) -> dict[str, str]:
    """{name in the target: split}; of an annotation file its stem, less what formats add to it.

    Where tools give all files the same name, the folder's counts. A single folder `images` is all.
    Raises ValueError for two of one name.
    """
    named: dict[str, str] = {}
    for split in splits:
        path = PurePosixPath(split)
        if path.name in ("_annotations.coco.json", "_annotations.csv") and path.parent.name:
            path = path.parent
        stem = path.stem if path.suffix in (".json", ".csv", ".odgt", ".txt") else path.name
        name = re.sub(r"^(instances|annotation)_|_labels$", "", stem)
        name = "all" if name == "images" else name
        if not re.fullmatch(SPLIT_NAME, name):
            raise ValueError(f"--splits: expected a name or a file, found {split!r}")
        if name in named:
            raise ValueError(f"--splits: {named[name]} and {split} would both be called {name!r}")
        named[name] = split
    return named


def _annotations(root: Path, format_name: str) -> list[str]:
    """The splits, or annotation files relative to root, that a format has in usual places."""

    def below(*patterns: str) -> list[str]:
        paths = [path for pattern in patterns for path in sorted(root.glob(pattern))]
        return [path.relative_to(root).as_posix() for path in paths if path.is_file()]

    match format_name:
        case "voc":
            folders = (path for path in sorted(root.glob("[!.]*")) if path.is_dir())
            return _voc_sets(root) or [path.name for path in folders if _is_flat_voc(path)]
        case "coco":
            files = below("annotations/*.json", "instances_*.json", "*/_annotations.coco.json")
            instances = [file for file in files if Path(file).name.startswith("instances_")]
            return instances or files or below("train.json", "val.json", "test.json")
        case "csv":
            files = below("*.csv", "*/_annotations.csv")
            return [file for file in files if _has_boxes(root, file)]
        case "yolo":
            return _yolo_splits(root)
        case _:
            return below("*.odgt", "annotations/*.odgt")


def _voc_sets(root: Path) -> list[str]:
    """The image sets of the tree in `root`; "all" for a flat folder; else none."""
    sets = [sorted(root.glob(f"{up}ImageSets/Main/*.txt")) for up in ("", "*/", "*/*/")]
    return _image_sets(next(filter(None, sets), [])) or ["all"] * _is_flat_voc(root)


def _is_flat_voc(folder: Path) -> bool:
    return any(path.is_file() for pattern in FLAT_VOC for path in folder.glob(pattern))


def voc_place(root: Path, split: str) -> tuple[Path, str]:
    """Root and split for VOC's reader: a folder is read whole where splits are flat folders."""
    if not _voc_sets(root) and _is_flat_voc(root / split):
        return root / split, "all"
    return root, split


def _image_sets(files: Sequence[Path]) -> list[str]:
    """The image sets among ImageSets/Main/*.txt, less those of one class ("dog_train")."""
    stems = {path.stem: path for path in files}
    return [
        stem
        for stem, path in stems.items()
        if stem.rpartition("_")[2] not in stems.keys() - {stem}
        or not re.match(r"\S+\s+-?[01]\s", read_data(path, OF_DATASET).decode("utf-8", "replace"))
    ]


def _has_boxes(root: Path, file: str) -> bool:
    """Whether a CSV holds boxes, not classes or something else; also one that cannot be read."""
    try:
        return bool(csv_classes(root, file))
    except DatasetError:
        return True


def _yolo_splits(root: Path) -> list[str]:
    """The splits the YAML file has entries for; without any, the folders of labels.

    Raises DatasetError for a file of settings or class names that cannot be read.
    """
    names = [root / name for name in CLASS_NAMES if (root / name).is_file()]
    if not any([*root.glob("*.yaml"), *root.glob("*.yml"), *root.glob("*.names"), *names]):
        return []
    declared = describe(root).splits
    folders = [path.name for path in sorted(root.glob("labels/*")) if path.is_dir()]
    folders = folders or [path.parent.name for path in sorted(root.glob("*/labels"))]
    if not folders and (root / "images").is_dir() and any(root.glob("labels/*.txt")):
        folders = ["images"]
    return [split for split in SPLITS if declared.get(split)] or folders
