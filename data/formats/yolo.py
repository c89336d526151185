"""YOLO text labels, as Ultralytics and darknet have them -> Dataset.

One text file an image, one line an object: the class's index, then centre and size of the box in
fractions of the image as it is seen, after EXIF orientation, or something else: see yolo_lines.py.
https://docs.ultralytics.com/datasets/, https://github.com/AlexeyAB/darknet
Letters: T objects, K classes.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeGuard

import numpy as np
import yaml

from data.files import read_data
from data.formats.bad_annotations import Judge
from data.formats.class_names import choose_classes, count_left_out
from data.formats.format import Format, Target
from data.formats.image_files import (
    ImageFinder,
    files_in,
    find_images,
    folders_below,
    folders_in,
    names_in,
    require_folder,
)
from data.formats.text_files import OF_ONE_IMAGE, numbered_lines, quoted
from data.formats.yolo_lines import (
    BOXES,
    ORIENTED,
    POLYGONS,
    UNDECLARED,
    Declared,
    Lines,
    Meaning,
    meaning_of,
    parse_lines,
)
from data.images.decode import ImageHeader, read_header
from data.records import Dataset, DatasetError, no_images, require_fit_names
from data.writers.yolo import write_yolo

MAX_YAML_BYTES = 2**20
YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml")
# labels/classes.txt is LabelImg's, the last one Roboflow's.
CLASS_NAMES = ("classes.txt", "obj.names", "labels/classes.txt", "train/_darknet.labels")
SPLITS = ("train", "val", "test")  # what a YAML file has entries for
OTHER_NAMES = {"val": ("validation", "valid")}  # of entries and folders
TASKS = {"segment": POLYGONS, "obb": ORIENTED, "pose": BOXES}  # what a YAML file's `task` says

# Texts that lie among labels and are none.
_NO_LABELS = re.compile(
    r"((predefined_)?classes|train|val|valid|test|trainval|readme.*)\.txt", re.IGNORECASE
)


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
    declared: what lines hold.
    """

    path: Path
    classes: tuple[str, ...]
    base: Path
    splits: dict[str, list[str]]
    declared: Declared = UNDECLARED


class _Image(NamedTuple):
    """An image and its labels; path: of the label file, None without one."""

    header: ImageHeader
    path: Path | None
    lines: Lines


def read_yolo(
    root: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    images: Sequence[str | Path] = (),
    lines: str = "",
    on_bad_annotation: str = "error",
) -> Dataset:
    """Reads one split of a dataset annotated in YOLO's text labels.

    root: a folder with data.yaml, dataset.yaml or one other *.yaml, or else with the class names, a
      line each, in classes.txt, labels/classes.txt, train/_darknet.labels or a *.names file; of
      darknet and CVAT with the splits in one *.data file.
    split: one the YAML file has an entry for: a folder of images, a text file that lists some, or
      several of them; else images/<split>, <split>/images, <split>.txt, <split> or
      obj_<split>_data. For val also with "valid" and "validation". A path of the YAML file that is
      not there is looked for beside it, without leading "../" and by its last parts, ever fewer.
      Hidden folders are passed over.
    classes: names in label order, all that are declared or some: objects of the others are left out
      and counted. None takes all as declared.
    images: folders, relative to root or absolute, to take instead of the split's; for a split that
      is a list, folders to look for its images in first.
    lines: what lines of more than 5 numbers hold: "boxes", then numbers 2 to 5 are the box and the
      rest is left out, or "polygons", of which the hull is taken. "": what `task` or `kpt_shape` in
      the YAML file says, else found out, see `yolo_lines.meaning_of`.

    The labels of .../images/a/b.jpg are .../labels/a/b.txt; where that folder has none they are
    beside the image. An image without label file is one without objects, and counted, as long as
    there are others. Long lines are counted as what they were taken for.
    Order: by path, or the list's. An image's id is its path below the folder of images, for
    lists and several folders below root, without suffix.
    For on_bad_annotation and errors see `Format`.
    """
    root, judge = Path(root), Judge(on_bad_annotation)
    if lines not in ("", BOXES, POLYGONS):
        raise ValueError(f"lines: expected {BOXES!r}, {POLYGONS!r} or '', found {lines!r}")
    description = describe(root)
    declared = Declared(lines) if lines else description.declared
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
    index, boxes, labels, numbers = _objects(good, labels, description, declared, judge)
    return judge.assemble(
        name,
        classes or description.classes,
        {paths[path]: (path, part.header) for path, part in good.items()},
        lambda row: f"{parts[index[row]].path}, line {numbers[row]:g}",
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
    names = _class_names([text for _, text in lines], path)
    settings = sorted(root.glob("*.data"))
    if len(settings) != 1:
        return Description(path, names, root, {})
    return Description(settings[0], names, root, _parse_darknet(settings[0]))


def _parse_darknet(path: Path) -> dict[str, list[str]]:
    """The splits of darknet's settings, lines of `train = data/train.txt`; also CVAT's obj.data."""
    pairs = (text.partition("=") for _, text in numbered_lines(path, MAX_YAML_BYTES))
    entries = {key.strip(): value.strip() for key, _, value in pairs}
    return _splits(entries, path)


def _splits(content: Mapping[str, object], path: Path) -> dict[str, list[str]]:
    splits = {}
    for split in SPLITS:
        keys = split, *OTHER_NAMES.get(split, ())
        value = next((content[key] for key in keys if content.get(key)), None) or []
        texts = [value] if isinstance(value, str) else value
        if not _is_texts(texts):
            raise DatasetError(f"{path}, {split}: expected a path or a list of paths, found others")
        splits[split] = texts
    return splits


def _parse_yaml(path: Path) -> Description:
    data = read_data(path, MAX_YAML_BYTES)
    try:
        content = yaml.load(data, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise DatasetError(f"{path}: not a YAML file to read: {problem}") from error
    if not isinstance(content, dict) or "names" not in content:
        raise DatasetError(f"{path}: expected a mapping with 'names', found none")
    base, splits = content.get("path"), _splits(content, path)
    if base is not None and not isinstance(base, str):
        raise DatasetError(f"{path}, path: expected a path, found {type(base).__name__}")
    names, count = _class_names(content["names"], path), content.get("nc")
    if isinstance(count, str) and count.strip().isdigit() and int(count) != len(names):
        raise DatasetError(f"{path}, nc: expected {len(names)} as there are names, found {count}")
    wanted = (path.parent / place for place in (base or ".", *_tails(base or "")))
    base = next(filter(os.path.isdir, wanted), path.parent)
    return Description(path, names, base, splits, _declared(content, path))


def _declared(content: Mapping[str, object], path: Path) -> Declared:
    """What a YAML file says of its lines: `kpt_shape: [points, 2 or 3]`, else `task`."""
    shape = content.get("kpt_shape")
    if shape is None:
        return Declared(TASKS.get(str(content.get("task")).lower(), ""))
    if not _is_texts(shape) or not re.fullmatch(r"\d{1,4} [23]", " ".join(shape), re.ASCII):
        expected = "expected how many points, and 2 or 3 numbers each, as [17, 3]"
        raise DatasetError(f"{path}, kpt_shape: {expected}, found {quoted(str(shape))}")
    return Declared(keypoints=(int(shape[0]), int(shape[1])))


def _class_names(names: object, path: Path) -> tuple[str, ...]:
    """names: a list, or a mapping of the texts "0", "1" ... without gaps."""
    if isinstance(names, dict):
        gap = next((n for n in range(len(names)) if str(n) not in names), None)
        if gap is not None and any(str(key).isdecimal() for key in names):
            expected = "expected class names for all numbers from 0, without gaps"
            raise DatasetError(f"{path}: {expected}, found none for {gap}")
        names = [names[str(n)] for n in range(len(names))] if gap is None else None
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
    usual = _usual(split)
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


def _usual(split: str) -> list[str]:
    """Where the images of a split or a list of them lie; obj_..._data is CVAT's."""
    names = (split, *OTHER_NAMES.get(split, ()))
    forms = "images/{}", "{}/images", "{}.txt", "{}", "obj_{}_data"
    return [form.format(name) for name in names for form in forms]


def _located(description: Description, text: str) -> Path | None:
    """Where a path of the YAML file is: as written, beside the file, or by its last parts there.

    Not by last parts that another path of the file has too: /a/train/images and /a/val/images
    would be one folder. Nor by "images" alone if that holds the folders of other splits.
    """
    others = {other for texts in description.splits.values() for other in texts} - {text}
    taken = {tail for other in others for tail in _tails(other)}
    bases = dict.fromkeys((description.base, description.path.parent))
    if not any(files_in(base / "images") for base in bases):
        taken.add("images")
    tails = [tail for tail in _tails(text) if tail not in taken]
    name = text.replace("\\", "/")
    # Roboflow's "../train/images" lies beside the YAML file; so might another dataset's outside.
    for rest in (re.sub(r"^(\.\.?/)+", "", name), name, *tails):
        for base in bases:
            if os.path.exists(base / rest):
                return base / rest
    return None


def _tails(text: str) -> list[str]:
    """The last parts of a path from any system, ever fewer, that lie below where they are put."""
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    first = next((n for n in range(len(parts), 0, -1) if parts[n - 1] == ".."), 0)
    return ["/".join(parts[start:]) for start in range(first, len(parts))]


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
    below = {Path(place) for place in folders_below(folder)}
    labels = _label_folder(folder)
    if labels is not None:
        below |= {folder / os.path.relpath(place, labels) for place in folders_below(labels)}
    return sorted(below)


def _listed(source: Path, folders: Sequence[Path], judge: Judge) -> Iterator[tuple[Path, str]]:
    """Yields (image, place in the list)."""
    finder = ImageFinder([*folders, source.parent])
    for number, text in numbered_lines(source):
        where = f"{source}, line {number}"
        for path in find_images([(number, text, where.__str__)], finder, judge).values():
            yield path, where


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
        label_of |= {folder / path.stem: path for path in labels}
        finder = ImageFinder([folder])
        for path in labels:
            if path.stem not in stems:
                _find_image(path, finder, label_of, judge)
    if not label_of:
        places = ", ".join(str(place) for place in looked[:4])
        raise DatasetError(f"expected label files (*.txt) in {places}, found none")
    return label_of


def _find_image(path: Path, finder: ImageFinder, label_of: dict[Path, Path], judge: Judge) -> None:
    """Puts labels whose name no image has as it stands to the one that is spelt in another way."""
    try:
        image = finder.find(f"{path.stem}.*", str(path))
        if image.with_suffix("") in label_of:
            message = f"{path}: expected an image without labels, found {image}"
            raise DatasetError(message, "missing image")
        label_of[image.with_suffix("")] = path
        judge.defects.add("labels under another spelling", f"{path}: taken for those of {image}")
    except DatasetError as error:
        judge.reject(error)


def _labels(folder: Path, stems: set[str]) -> list[Path]:
    """The label files directly in a folder, by name."""
    paths = files_in(folder, (".txt",))
    return [p for p in paths if p.stem in stems or not _NO_LABELS.fullmatch(p.name)]


# ------------------------------------------------------------------------------------------------
# Label files
# ------------------------------------------------------------------------------------------------


def _load(image: Path, label_of: dict[Path, Path], description: Description) -> _Image:
    header = read_header(image)
    path = label_of.get(image.parent / image.stem)
    lines = numbered_lines(path, OF_ONE_IMAGE) if path else []
    return _Image(header, path, parse_lines(lines, len(description.classes), path or image))


def _objects(
    good: dict[Path, _Image],
    labels: np.ndarray,
    description: Description,
    declared: Declared,
    judge: Judge,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image indices (T,), boxes (T, 4), labels (T,) and lines (T,) of the objects asked for.

    labels: (K,) label of each declared class, -1 for those left out.
    """
    for image, part in good.items():
        if part.path is None:
            message = f"{image}: expected a label file, found none: taken to be without objects"
            judge.defects.add("image without label file", message)
        for error in part.lines.defects:
            judge.reject(error)
    parts = list(good.values())
    rows = np.concatenate([part.lines.rows for part in parts])
    index = np.repeat(np.arange(len(parts)), [len(part.lines.rows) for part in parts])

    def where(row: int) -> str:
        return f"{parts[index[row]].path}, line {rows[row, 6]:g}"

    long = np.concatenate([part.lines.long for part in parts])
    is_good, meaning = _read_long(rows, long, declared, where, judge)
    numbers = rows[:, 0].astype(np.int64)
    is_asked = labels[numbers] >= 0
    left_out = (description.classes[number] for number in numbers[is_good & ~is_asked])
    count_left_out(left_out, description.path, judge.defects)
    kept = is_good & is_asked
    rows, index, numbers = rows[kept], index[kept], numbers[kept]
    for number, count in enumerate(np.bincount(index[rows[:, 5] > 5])):
        message = f"{parts[number].path}: expected class and box, found {meaning.found}"
        judge.defects.add(meaning.kind, message, count)
    sizes = np.array([(part.header.width, part.header.height) for part in parts])[index]
    with np.errstate(over="ignore"):  # to infinity, which is outside of any image
        boxes = rows[:, 1:5] * np.tile(sizes, 2)
    return index, boxes, labels[numbers], rows[:, 6]


def _read_long(
    rows: np.ndarray,
    long: np.ndarray,
    declared: Declared,
    where: Callable[[int], str],
    judge: Judge,
) -> tuple[np.ndarray, Meaning]:
    """Puts the boxes of long lines into `rows`; (T,) which lines can be read, what these hold."""
    is_good = np.ones(len(rows), bool)
    found = np.flatnonzero(rows[:, 5] > 5)
    meaning = meaning_of(rows[found, 5], long, declared, lambda row: where(found[row]))
    if meaning.has_hull:
        rows[found, 1:5] = long[:, :4]
    for row in found[~meaning.fits].tolist():
        message = f"{meaning.expected}, found {rows[row, 5]:g} numbers{meaning.hint}"
        judge.reject(DatasetError(f"{where(row)}: {message}", "wrong number of columns"))
    is_good[found[~meaning.fits]] = False
    return is_good, meaning


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
    return [split for split in SPLITS if declared.get(split)] or _split_folders(root)


def _split_folders(root: Path) -> list[str]:
    """The splits whose folders have labels; "images" or "." where one folder has all."""
    folders = [path.name for path in folders_in(root / "labels")]
    places = [*root.glob("*/labels"), *root.glob("*/_darknet.labels")]
    folders = folders or [path.parent.name for path in places]
    folders = sorted({name for name in folders if not name.startswith(".")})
    if not folders and names_in(root / "images"):
        has_labels = any(names_in(root / name, (".txt",)) for name in ("labels", "images"))
        folders = ["images"] * has_labels
    stems = {path.stem for path in files_in(root)} if not folders else ()
    return folders or ["."] * any(path.stem in stems for path in files_in(root, (".txt",)))


def _undivided(root: Path) -> str | None:
    try:
        splits = _find_splits(root)
    except DatasetError:  # reading says it
        return None
    if splits not in (["train"], ["images"], ["."]) or len(_split_folders(root)) > 1:
        return None
    others = (root / name for split in SPLITS if split != "train" for name in _usual(split))
    return None if any(place.exists() for place in others) else splits[0]


FORMAT = Format(
    read_yolo,
    yolo_classes,
    _find_splits,
    _undivided,
    uses=("images", "lines"),
    declares_classes=True,
    target=Target(write_yolo, "images/{split}", by_stem=True, needed=("train", "val")),
)
