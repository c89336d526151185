"""YOLO text labels, as Ultralytics and darknet have them -> Dataset.

One text file an image, one line an object: the class's index, then centre and size of the box in
fractions of the image as it is seen, after EXIF orientation; or a polygon's points.
https://docs.ultralytics.com/datasets/detect/, https://docs.ultralytics.com/datasets/segment/
Letters: T objects, G objects of one image, K classes.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import numpy as np
import yaml

from data.files import read_data
from data.formats.bad_annotations import Judge
from data.formats.class_names import choose_classes, count_left_out
from data.formats.format import Format, Target
from data.formats.image_files import ImageFinder, files_in, require_folder
from data.formats.text_files import OF_ONE_IMAGE, numbered_lines
from data.images.decode import ImageHeader, read_header
from data.records import Dataset, DatasetError, no_images, require_fit_names
from data.writers.yolo import write_yolo

MAX_YAML_BYTES = 2**20
YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml")
CLASS_NAMES = ("classes.txt", "obj.names", "labels/classes.txt")  # the last as LabelImg writes it
FAR_OUT = 10.0  # a fraction from which on it is none
SPLITS = ("train", "val", "test")  # what a YAML file has entries for

# Texts that lie among labels and are none.
_NO_LABELS = re.compile(r"(classes|train|val|valid|test|trainval|readme.*)\.txt", re.IGNORECASE)
_POLYGON = "polygon taken as its box"


class _Loader(yaml.BaseLoader):
    """Takes every scalar for text ("no" is a fine class name), and refuses aliases.

    A dataset needs none, and a few make a text of any length.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("expected no alias (*name), found one")
        return super().compose_node(parent, index)


@dataclass(frozen=True)
class Description:
    """What the YAML or names file at `path` declares.

    base: the folder that the paths in `splits`, as they are written, are relative to.
    """

    path: Path
    classes: tuple[str, ...]
    base: Path
    splits: dict[str, list[str]]


@dataclass(frozen=True)
class _Objects:
    """A label file taken apart; path: None where an image has none.

    rows: (G, 7) class, x1, y1, x2, y2 in fractions, whether it was a polygon, line.
    """

    path: Path | None
    header: ImageHeader
    rows: np.ndarray
    defects: list[DatasetError]


def read_yolo(
    root: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    images: Sequence[str | Path] = (),
    on_bad_annotation: str = "error",
) -> Dataset:
    """Reads one split of a dataset annotated in YOLO's text labels.

    root: a folder with data.yaml, dataset.yaml or one other *.yaml, or else with the class names, a
      line each, in classes.txt, labels/classes.txt or a *.names file.
    split: one the YAML file has an entry for: a folder of images, a text file that lists some, or
      several of them; else images/<split>, <split>/images, <split>.txt or <split>. A path of the
      YAML file that is not there is looked for beside it, and without leading "../".
    classes: names in label order, all that are declared or some: objects of the others are left out
      and counted. None takes all as declared.
    images: folders, relative to root or absolute, to take instead of the split's; for a split that
      is a list, folders to look for its images in first.

    The labels of .../images/a/b.jpg are .../labels/a/b.txt; where that folder has none they are
    beside the image. An image without label file is one without objects, and counted, as long as
    there are others. A polygon becomes its box, and is counted.
    Order: by path, or the list's. An image's id is its path below the folder of images, for
    lists and several folders below root, without suffix.
    For on_bad_annotation and errors see `Format`.
    """
    root, judge = Path(root), Judge(on_bad_annotation)
    description = describe(root)
    labels = choose_classes(description.classes, classes, description.path, judge.defects)
    given = [root / folder for folder in images]
    sources = _sources(root, split, description, given)
    paths, folders = _list_images(root, sources, [*given, description.base, root], judge)
    label_of = _find_labels(folders, judge)
    good = judge.load(lambda path: _load(path, label_of, description), paths)
    name = f"{root.resolve().name}/{split}"
    if not good:
        raise no_images(name, judge.defects)
    parts = list(good.values())
    index, boxes, labels, lines = _objects(good, labels, description, judge)
    return judge.assemble(
        name,
        classes or description.classes,
        {paths[path]: (path, part.header) for path, part in good.items()},
        lambda row: f"{parts[index[row]].path}, line {lines[row]:g}",
        image_index=index,
        boxes=boxes,
        labels=labels,
        written="fractions",
    )


def yolo_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """The class names by index: those of the YAML or names file, the same for every split."""
    return describe(Path(root)).classes


# ------------------------------------------------------------------------------------------------
# What is declared
# ------------------------------------------------------------------------------------------------


def describe(root: Path) -> Description:
    """What the YAML or names file of a dataset declares. Raises DatasetError for none or a bad one.

    No split need have an entry.
    """
    require_folder(root)
    named = [root / name for name in YAML_NAMES if (root / name).is_file()]
    found = named[:1] or sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    if not found:
        named = [root / name for name in CLASS_NAMES if (root / name).is_file()]
        found = named[:1] or sorted(root.glob("*.names"))
    if len(found) != 1:
        expected = f"expected {YAML_NAMES[0]} or one *.yaml, or {CLASS_NAMES[0]} or one *.names"
        there = ", ".join(path.name for path in found) or "none"
        raise DatasetError(f"{root}: {expected}, found {there}")
    path = found[0]
    if path.suffix in (".yaml", ".yml"):
        return _parse_yaml(path)
    lines = numbered_lines(path)
    if len(lines) != (lines[-1][0] if lines else 0):
        raise DatasetError(f"{path}: expected a class name in every line, found a blank one")
    return Description(path, _class_names([text for _, text in lines], path), root, {})


def _parse_yaml(path: Path) -> Description:
    data = read_data(path, MAX_YAML_BYTES)
    try:
        content = yaml.load(data, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise DatasetError(f"{path}: not a YAML file to read: {problem}") from error
    if not isinstance(content, dict) or "names" not in content:
        raise DatasetError(f"{path}: expected a mapping with 'names', found none")
    base, splits = content.get("path"), {}
    for key in SPLITS:
        value = content.get(key) or []
        splits[key] = [value] if isinstance(value, str) else value
        if not _is_texts(splits[key]):
            raise DatasetError(f"{path}, {key}: expected a path or a list of paths, found others")
    if base is not None and not isinstance(base, str):
        raise DatasetError(f"{path}, path: expected a path, found {type(base).__name__}")
    base = path.parent / (base or ".")
    names = _class_names(content["names"], path)
    return Description(path, names, base if os.path.isdir(base) else path.parent, splits)


def _class_names(names: object, path: Path) -> tuple[str, ...]:
    """names: a list, or a mapping of the texts "0", "1" ... without gaps."""
    if isinstance(names, dict):
        names = [names.get(str(index)) for index in range(len(names))]
    if not _is_texts(names) or not all(names) or not names:
        raise DatasetError(f"{path}: expected class names, a list or a mapping of 0, 1 ... to them")
    require_fit_names(names, str(path))
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DatasetError(f"{path}: expected different class names, found {twice!r} twice")
    return tuple(names)


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


# ------------------------------------------------------------------------------------------------
# Which files
# ------------------------------------------------------------------------------------------------


def _sources(root: Path, split: str, description: Description, given: Sequence[Path]) -> list[Path]:
    """Folders of images, and texts that list some."""
    usual = [f"images/{split}", f"{split}/images", f"{split}.txt", split]
    declared = description.splits.get(split)
    if declared:
        wanted = [_located(description, text) for text in declared]
    else:
        wanted = [next((root / name for name in usual if (root / name).exists()), None)]
    found = [path for path in wanted if path is not None]
    if given and not any(path.is_file() for path in found):
        return list(given)
    if len(found) < len(wanted):
        place = f"{description.path}, {split}" if declared else f"{root}, split {split!r}"
        looked = ", ".join(declared or usual)
        raise DatasetError(f"{place}: expected one of {looked}, found no such folder or file")
    return found


def _located(description: Description, text: str) -> Path | None:
    name = text.replace("\\", "/")
    bases = description.base, description.path.parent
    # Roboflow's "../train/images" lies beside the YAML file; so might another dataset's outside.
    for rest in (re.sub(r"^(\.\.?/)+", "", name), name):
        for base in bases:
            if os.path.exists(base / rest):
                return base / rest
    return None


def _list_images(
    root: Path, sources: Sequence[Path], folders: Sequence[Path], judge: Judge
) -> tuple[dict[Path, str], list[Path]]:
    """{image: id} in order, and the folders of images, those the labels have but the images not.

    folders: for lists, to look in besides the list's own.
    """
    found: dict[Path, str] = {}
    owners: dict[str, Path] = {}
    places: dict[Path, None] = {}
    for source in sources:
        base = source if len(sources) == 1 and source.is_dir() else root
        if source.is_dir():
            places.update(dict.fromkeys(_tree(source)))
            listed = [(path, str(path)) for place in _tree(source) for path in files_in(place)]
        else:
            listed = list(_listed(source, folders, judge))
            places.update(dict.fromkeys(path.parent for path, _ in listed))
        for path, where in listed:
            image_id = _image_id(path, base)
            owner = owners.setdefault(image_id, path)
            if path in found:
                message = f"{where}: expected each image once, found {path} again"
                judge.reject(DatasetError(message, kind="duplicate id"))
            elif owner != path:
                message = f"{where}: expected one image {image_id!r}, found {owner} too"
                judge.reject(DatasetError(message, kind="ambiguous image"))
            else:
                found[path] = image_id
    return found, list(places)


def _tree(folder: Path) -> list[Path]:
    """The folder and those below it, or below its labels' folder, by path."""
    below = {Path(place) for place, _, _ in os.walk(folder)}
    labels = _label_folder(folder)
    if labels is not None:
        below |= {folder / os.path.relpath(place, labels) for place, _, _ in os.walk(labels)}
    return sorted(below)


def _listed(source: Path, folders: Sequence[Path], judge: Judge) -> Iterator[tuple[Path, str]]:
    """Yields (image, place in the list)."""
    finder = ImageFinder([*folders, source.parent])
    for number, text in numbered_lines(source):
        where = f"{source}, line {number}"
        try:
            yield finder.find(text, where), where
        except DatasetError as error:
            judge.reject(error)


def _image_id(path: Path, base: Path) -> str:
    name = path.relative_to(base) if path.is_relative_to(base) else path
    return name.with_suffix("").as_posix()


def _label_folder(folder: Path) -> Path | None:
    """.../images/a -> .../labels/a, by the last "images"; None without."""
    parts = folder.parts
    if "images" not in parts:
        return None
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])


def _find_labels(folders: Sequence[Path], judge: Judge) -> dict[Path, Path]:
    """{image without suffix: its label file}; labels without image are rejected.

    Raises DatasetError where there are no labels at all.
    """
    label_of: dict[Path, Path] = {}
    looked: list[Path] = []
    for folder in folders:
        stems = {path.stem for path in files_in(folder)}
        candidates = [place for place in (_label_folder(folder), folder) if place is not None]
        looked += candidates
        labels = next(filter(None, (_labels(place, stems) for place in candidates)), [])
        for path in labels:
            if path.stem not in stems:
                message = f"{path}: expected the image {path.stem}.* in {folder}, found none"
                judge.reject(DatasetError(message, kind="missing image"))
            label_of[folder / path.stem] = path
    if not label_of:
        places = ", ".join(str(place) for place in looked[:4])
        raise DatasetError(f"expected label files (*.txt) in {places}, found none")
    return label_of


def _labels(folder: Path, stems: set[str]) -> list[Path]:
    """The label files directly in a folder, by name."""
    paths = files_in(folder, (".txt",))
    return [p for p in paths if p.stem in stems or not _NO_LABELS.fullmatch(p.name)]


# ------------------------------------------------------------------------------------------------
# Label files
# ------------------------------------------------------------------------------------------------


def _load(image: Path, label_of: dict[Path, Path], description: Description) -> _Objects:
    header = read_header(image)
    path = label_of.get(image.parent / image.stem)
    rows, defects = [], []
    for number, text in numbered_lines(path, OF_ONE_IMAGE) if path else []:
        try:
            rows.append((*_parse_line(text, len(description.classes)), number))
        except DatasetError as error:
            defects.append(DatasetError(f"{path}, line {number}: {error}", error.kind))
    return _Objects(path, header, np.array(rows, np.float64).reshape(-1, 7), defects)


def _parse_line(text: str, num_classes: int) -> tuple[float, ...]:
    """Class, x1, y1, x2, y2, whether it was a polygon."""
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = [math.nan]
    if "_" in text or not all(map(math.isfinite, values)):  # float() takes "1_0"
        raise DatasetError(f"expected finite numbers, found {text[:60]!r}", "bad number")
    num = len(values)
    if num != 5 and (num < 7 or num % 2 == 0):
        message = "expected class and 4 numbers, or class and 3 points or more"
        hint = " (with a confidence: a detection?)" if num == 6 else ""
        raise DatasetError(f"{message}, found {num} numbers{hint}", "wrong number of columns")
    index = values[0]
    if index not in range(num_classes):
        message = f"class: expected a whole number from 0 to {num_classes - 1}, found {index:g}"
        raise DatasetError(message, "unknown class")
    if max(map(abs, values[1:])) > FAR_OUT:
        message = f"expected fractions of the image, found {text[:60]!r}: are these pixels?"
        raise DatasetError(message, "bad number")
    if num > 5:
        xs, ys = values[1::2], values[2::2]
        return index, min(xs), min(ys), max(xs), max(ys), True
    x, y, w, h = values[1:]
    return index, x - w / 2, y - h / 2, x + w / 2, y + h / 2, False


def _objects(
    good: dict[Path, _Objects], labels: np.ndarray, description: Description, judge: Judge
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image indices (T,), boxes (T, 4), labels (T,) and lines (T,) of the objects asked for.

    labels: (K,) label of each declared class, -1 for those left out.
    """
    for image, part in good.items():
        if part.path is None:
            message = f"{image}: expected a label file, found none: taken to be without objects"
            judge.defects.add("image without label file", message)
        for error in part.defects:
            judge.reject(error)
    parts = list(good.values())
    rows = np.concatenate([part.rows for part in parts])
    index = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])
    declared = rows[:, 0].astype(np.int64)
    kept = labels[declared] >= 0
    left_out = (description.classes[number] for number in declared[~kept])
    count_left_out(left_out, description.path, judge.defects)
    rows, index, declared = rows[kept], index[kept], declared[kept]
    for number, count in enumerate(np.bincount(index[rows[:, 5] > 0])):
        judge.defects.add(_POLYGON, f"{parts[number].path}: expected boxes, found polygons", count)
    sizes = np.array([(part.header.width, part.header.height) for part in parts])[index]
    with np.errstate(over="ignore"):  # to infinity, which is outside of any image
        boxes = rows[:, 1:5] * np.tile(sizes, 2)
    return index, boxes, labels[declared], rows[:, 6]


# ------------------------------------------------------------------------------------------------
# The format
# ------------------------------------------------------------------------------------------------


def _find_splits(root: Path) -> list[str]:
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


FORMAT = Format(
    read_yolo,
    yolo_classes,
    _find_splits,
    uses=("images",),
    declares_classes=True,
    target=Target(write_yolo, "images/{split}", by_stem=True, needed=("train", "val")),
)
