"""COCO instances JSON -> Dataset.

The file is decoded by types: what is not asked for - segmentations, nine tenths of it - is passed
over and never built, and of the annotations only a part at a time become objects. Entries are
decoded by strict types; those that do not fit are mended where their meaning is plain (`MENDERS`).
Lin et al., "Microsoft COCO: Common Objects in Context", 2014; https://cocodataset.org/#format-data
Letters: M images, T objects, K classes.
"""

import itertools
import mmap
import os
import re
import reprlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import Raw, Struct

from data.files import open_data
from data.formats.bad_annotations import Judge
from data.formats.class_names import choose_classes, count_left_out
from data.formats.coco_entries import MENDERS, Annotation, Category, Change, Image
from data.formats.format import Format, Target, names_of
from data.formats.image_files import ImageFinder, check_size, files_below, find_images, first_file
from data.formats.json_text import BAD_JSON, json_problem
from data.formats.plausibility import require_plausible
from data.formats.text_files import OF_DATASET, number_or_text, numbered_lines
from data.images.decode import ImageHeader, read_header
from data.records import Dataset, DatasetError, assemble, no_images, require_fit_names
from data.writers.coco import write_coco

Entry = TypeVar("Entry")

CHUNK = 2**13  # entries that are objects at a time


class _File(Struct, frozen=True, gc=False):
    """annotations: None for the files of images without ground truth, "image_info_test2017"."""

    images: list[Raw]
    categories: list[Raw]
    annotations: list[Raw] | None = None


_COLUMNS = np.dtype(
    [
        ("bbox", np.float64, 4),
        ("area", np.float64),  # nan where there is none
        ("iscrowd", bool),
        ("difficult", bool),
        ("ignore", bool),
    ]
)
_ROW = attrgetter(*(_COLUMNS.names or ()))
LEFT_OUT, UNKNOWN = -1, -2  # in place of an image's index or a class's label

_FIELD = re.compile(r"\$\.(\w+)|field `(\w+)`")  # in msgspec's messages
_KINDS = {  # of a field that is not as it should be; of the others "bad number"
    None: "malformed entry",
    "file_name": "missing name",
    "iscrowd": "bad crowd flag",
    "difficult": "bad difficult flag",
    "ignore": "bad ignore flag",
}


_SPLIT = re.compile("(?<![a-z])(train|val|valid|validation|test|dev)(?![a-z])")


@dataclass(frozen=True)
class _Source:
    """An instances file: its path, contents, categories by id, and the split's short name."""

    path: Path
    split: str
    contents: _File
    categories: tuple[Category, ...]


def read_coco(
    root: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    images: Sequence[str | Path] = (),
    on_bad_annotation: str = "error",
    check_images: bool = True,
    image_sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Dataset:
    """Reads one split of a dataset annotated in COCO's instances JSON.

    root: the folder of the dataset.
    split: a name, whose file is annotations/instances_<split>.json, annotations/<split>.json,
      <split>.json, <split>/_annotations.coco.json (Roboflow) or instances_<split>.json, else the
      only .json file whose name ends with _<split> (lvis_v1_<split>.json); or the path of a .json
      file, relative to root or absolute, whose stem less "instances_" is then the name.
    classes: names in label order, all of the file's or some: objects of the others are left out and
      counted. None takes all by category id.
    images: folders, relative to root or absolute, looked through first; then those named <split>,
      images/<split> and images below the folder of the file (or of its annotations/), that folder,
      the same of root, and the file's folder and its parent.
    check_images: reads the images' headers and refuses a size that is not the file's. Without, the
      file's is trusted, and folders are only listed to see whether its images are there. Where the
      file says none, it is the image's in any case, counted.
    image_sizes: if given, even of no image, no image need be there, and objects are kept as
      pycocotools keeps them, whatever their boxes are, and with `ignore`, which it overwrites: for
      judging detections that were made elsewhere.

    If there is a text file root/<split>.txt with a path a line, relative to root or absolute, just
    those images are read, from there and in its order; else all, in the order of the file. Crowds
    become regions to ignore, and so do objects with `ignore`, counted. `area` is kept; where there
    is none it is the box's. An object without bbox has the box of its segmentation, counted.
    Ids are numbers or texts; 1 and "1" are the same.
    For on_bad_annotation and errors see `Format`.
    """
    root, judge, need_images = Path(root), Judge(on_bad_annotation), image_sizes is None
    source = _open(root, split, judge)
    if source.contents.annotations is None:
        raise DatasetError(f"{source.path}: expected 'annotations', found none: no ground truth")
    categories = source.categories
    declared = [category.name for category in categories]
    labels = choose_classes(declared, classes, source.path, judge.defects)
    name = f"{root.resolve().name}/{source.split}"
    entries = _read_images(source, judge)
    found = _find_images(root, source, entries, images, judge, need_images)
    size_of = _sizes(source, entries, found, judge, check_images and need_images, image_sizes or {})
    if not size_of:
        raise no_images(name, judge.defects)
    sizes = np.array(list(size_of.values()))
    index_of = _index_of_ids(source, entries, size_of)
    return assemble(
        name,
        classes or declared,
        images=[str(found[number]) for number in size_of],
        image_ids=[str(entries[number].id) for number in size_of],
        text_ids=any(isinstance(entry.id, str) for entry in entries.values()),
        sizes=sizes,
        category_ids=_category_ids(classes or declared, categories),
        defects=judge.defects,
        **_objects(source, index_of, labels, sizes, judge, need_images),
    )


def _category_ids(names: Sequence[str], categories: Sequence[Category]) -> list[int | str]:
    """The ids of categories by name; of those that are not declared numbers beyond them."""
    id_of = {category.name: category.id for category in categories}
    numbers = (number_or_text(str(category_id)) for category_id in id_of.values())
    free = itertools.count(max((n for n in numbers if isinstance(n, int)), default=0) + 1)
    return [id_of[name] if name in id_of else next(free) for name in names]


def coco_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """The category names of a split by category id; arguments and errors as `read_coco`."""
    return tuple(category.name for category in _open(Path(root), split, Judge()).categories)


# ------------------------------------------------------------------------------------------------
# The file
# ------------------------------------------------------------------------------------------------


def _open(root: Path, split: str, judge: Judge) -> _Source:
    path = _find_file(root, split)
    if split.lower().endswith(".json"):
        split = path.stem.removeprefix("instances_")
    source = _Source(path, split, _decode_file(path), ())
    chunks = _chunks(source, "categories", Category, Judge("error", judge.defects))
    found = [category for _, entries in chunks for category in entries]
    categories = _without_root(sorted(found, key=_by_number))
    for field in ("id", "name"):
        values = [getattr(category, field) for category in categories]
        counts = Counter(map(str, values))
        twice = next((value for value in values if counts[str(value)] > 1), None)
        if twice is not None:
            expected = f"expected categories of different {field}s"
            raise DatasetError(f"{path}: {expected}, found {twice!r} twice", "duplicate id")
    if not categories:
        raise DatasetError(f"{path}: expected categories, found none")
    require_fit_names([category.name for category in categories], f"{path}, categories")
    return replace(source, categories=categories)


def _by_number(category: Category) -> tuple[bool, int, str]:
    """Sorts numbers, also those that are texts, before other texts."""
    number = number_or_text(str(category.id))
    return (False, number, "") if isinstance(number, int) else (True, 0, number)


def _without_root(categories: Sequence[Category]) -> tuple[Category, ...]:
    """Leaves out Roboflow's category above all others, which no object is of."""
    for root in categories:
        others = [category for category in categories if category is not root]
        above = {other.supercategory for other in others}
        if root.supercategory == "none" and above == {root.name}:
            return tuple(others)
    return tuple(categories)


def _find_file(root: Path, split: str) -> Path:
    if split.lower().endswith(".json"):
        names = [split]
    else:
        names, others = [], files_below(root, "annotations/*.json", "*.json")
        for name in names_of(split):
            instances = f"instances_{name}.json"
            names += [f"annotations/{instances}", f"annotations/{name}.json", f"{name}.json"]
            names += [f"{name}/_annotations.coco.json", instances]
            of_split = [file for file in others if re.split("[_-]", Path(file).stem)[-1] == name]
            names += of_split if len(of_split) == 1 else []
    return first_file(root, names, "no JSON file", "*.json", "*/*.json")


def _decode_file(path: Path) -> _File:
    with open_data(path, OF_DATASET) as file:  # COCO's largest, train2017, has 0.45e9 bytes
        size = os.fstat(file.fileno()).st_size
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    if data[: len(BOM_UTF8)] == BOM_UTF8:
        data = data[len(BOM_UTF8) :]
    try:
        return msgspec.json.decode(data, type=_File)
    except BAD_JSON as error:
        place, problem = json_problem(error)
        problem = ", ".join(filter(None, ("not a COCO instances file", place))) + f": {problem}"
        raise DatasetError(f"{path}: {problem}") from error


def _chunks(
    source: _Source, key: str, entry_type: type[Entry], judge: Judge
) -> Iterator[tuple[np.ndarray, list[Entry]]]:
    """Yields ((n,) numbers, n entries) of the list `key`, but for those that are malformed."""
    raws = getattr(source.contents, key)
    of_one = msgspec.json.Decoder(entry_type)
    of_all = msgspec.json.Decoder(list[entry_type])  # type: ignore[valid-type]  # known at run time
    for start in range(0, max(len(raws), 1), CHUNK):  # a chunk at least
        chunk = raws[start : start + CHUNK]
        numbers: Collection[int] = range(start, start + len(chunk))
        try:
            entries = of_all.decode(b"[" + b",".join(chunk) + b"]")
        except BAD_JSON:  # decode one by one to find the bad entry
            good: dict[int, Entry] = {}
            changes: dict[str, list[str]] = {}
            for number in numbers:
                try:
                    good[number], changed = _decode(source, key, number, of_one)
                except BAD_JSON as error:
                    judge.reject(_malformed(source, key, number, error))
                    continue
                for kind, message in changed:
                    place = "" if kind in changes else f"{_place(source, key, number)}: "
                    changes.setdefault(kind, []).append(place + message)
            for kind, (message, *others) in changes.items():
                judge.defects.add(kind, message, 1 + len(others))
            numbers, entries = good.keys(), list(good.values())
        yield np.fromiter(numbers, np.int64), entries


def _decode(
    source: _Source, key: str, number: int, decoder: msgspec.json.Decoder[Entry]
) -> tuple[Entry, list[Change]]:
    """An entry, mended if need be, and what was; raises one of BAD_JSON."""
    try:
        return decoder.decode(getattr(source.contents, key)[number]), []
    except msgspec.ValidationError:
        entry = _loose(source, key, number)
        if not entry:
            raise
        changes = list(MENDERS[decoder.type](entry))
        return msgspec.convert(entry, decoder.type), changes


def _malformed(source: _Source, key: str, number: int, error: Exception) -> DatasetError:
    match = _FIELD.search(str(error))
    field = match and (match[1] or match[2])
    entry = _loose(source, key, number)
    found = reprlib.repr(entry[field]) if field in entry else "nothing"
    problem = json_problem(error)[1]
    is_missing = "with the field" in problem
    if not is_missing:
        problem += f": {found}" if ", found" in problem else f", found {found}"
    message = f"{_place(source, key, number)}: {field or 'entry'}: {problem}"
    kind = "missing field" if is_missing else "bad number"
    return DatasetError(message, _KINDS.get(field, kind))


def _loose(source: _Source, key: str, number: int) -> dict:
    """An entry as it is in the file; empty if it is no object or cannot be decoded."""
    try:
        entry = msgspec.json.decode(getattr(source.contents, key)[number])
    except BAD_JSON:
        return {}
    return entry if isinstance(entry, dict) else {}


def _place(source: _Source, key: str, number: int) -> str:
    """File, place and id of an entry, and its category, for messages."""
    entry = _loose(source, key, number)
    words = [f"id {reprlib.repr(entry['id'])}"] if "id" in entry else []
    words += [repr(c.name) for c in source.categories if str(c.id) == str(entry.get("category_id"))]
    return f"{source.path}, {key}[{number}]" + (f" ({', '.join(words)})" if words else "")


# ------------------------------------------------------------------------------------------------
# Images
# ------------------------------------------------------------------------------------------------


def _read_images(source: _Source, judge: Judge) -> dict[int, Image]:
    """The images of the file by their number in it: the good ones."""
    images: dict[int, Image] = {}
    ids: dict[str, int] = {}
    names: dict[str, int] = {}
    for numbers, entries in _chunks(source, "images", Image, judge):
        for number, entry in zip(numbers.tolist(), entries, strict=True):
            same_id = ids.setdefault(str(entry.id), number)
            same_name = names.setdefault(entry.file_name, number)
            if same_id == same_name == number:
                images[number] = entry
                continue
            field, other = ("id", same_id) if same_id != number else ("file_name", same_name)
            message = f"{_place(source, 'images', number)}: {field}: expected one of its own, "
            message += f"found {getattr(entry, field)!r} of {_place(source, 'images', other)}"
            judge.reject(DatasetError(message, kind="duplicate id"))
    return images


def _find_images(
    root: Path,
    source: _Source,
    entries: dict[int, Image],
    folders: Sequence[str | Path],
    judge: Judge,
    need_images: bool,
) -> dict[int, Path]:
    """The files of the images to read, by number, in the dataset's order."""
    listing = root / f"{source.split}.txt"
    given = [root / folder for folder in folders]
    if listing.is_file():
        wanted = _list_images(root, listing, entries, judge)
        finder = ImageFinder([root, listing.parent, *given])
    else:
        wanted = {number: (entry.file_name, "") for number, entry in entries.items()}
        near = source.path.parent
        base = near.parent if near.name == "annotations" else near
        below = source.split, f"images/{source.split}", "images", ""
        usual = [folder / name for folder in (base, root) for name in below]
        finder = ImageFinder([*given, *usual, near, near.parent])
    if not need_images:
        return {number: Path(name) for number, (name, _) in wanted.items()}

    def place(number: int) -> str:
        return wanted[number][1] or _place(source, "images", number)

    named = ((number, name, partial(place, number)) for number, (name, _) in wanted.items())
    return find_images(named, finder, judge)


def _list_images(
    root: Path, listing: Path, entries: dict[int, Image], judge: Judge
) -> dict[int, tuple[str, str]]:
    """{number: (path, place in the list)} of the images of a list file, in its order.

    A path is that of the image whose file_name it ends with: folders before it do not count.
    """
    names = (entry.file_name.replace("\\", "/") for entry in entries.values())
    numbers = dict(zip(map(os.path.normpath, names), entries, strict=True))
    listed: dict[int, tuple[str, str]] = {}
    for line, text in numbered_lines(listing):
        where = f"{listing}, line {line}"
        parts = os.path.normpath(root.absolute() / text.replace("\\", "/")).split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        number = next((numbers[end] for end in ends if end in numbers), None)
        if number is None:
            message = f"{where}: expected an image the annotations know, found {text!r}"
            judge.reject(DatasetError(message, kind="image without entry"))
        elif number in listed:
            message = f"{where}: {text!r} is listed twice, first in {listed[number][1]}"
            judge.reject(DatasetError(message, kind="duplicate id"))
        else:
            listed[number] = text, where
    return listed


def _sizes(
    source: _Source,
    entries: dict[int, Image],
    found: dict[int, Path],
    judge: Judge,
    check: bool,
    known: Mapping[str, tuple[int, int]],
) -> dict[int, tuple[int, int]]:
    """{number: (width, height)} of the images found.

    check: whether to read the headers of those, too, whose size the file says, and reject those
    that say another. known: sizes by image id, for images that are not there.
    """

    stated: dict[int, tuple[int, int]] = {}
    for number, entry in ((number, entries[number]) for number in found):
        if entry.width and entry.height:
            stated[number] = entry.width, entry.height
        elif str(entry.id) in known:
            stated[number] = known[str(entry.id)]

    def read(number: int) -> ImageHeader:
        header = read_header(found[number])
        if number in stated:
            check_size(stated[number], header, _place(source, "images", number))
        return header

    headers = judge.load(read, [number for number in found if check or number not in stated])
    for number, header in headers.items():
        judge.note(found[number], header)
    sizes = {number: (header.width, header.height) for number, header in headers.items()}
    unsized = [number for number in sizes if number not in stated]
    if unsized:
        loose = _loose(source, "images", unsized[0])
        message = f"{_place(source, 'images', unsized[0])}: expected width and height, found "
        message += " and ".join(reprlib.repr(loose.get(side)) for side in ("width", "height"))
        message += ": took the image's"
        judge.defects.add("size not stated", message, len(unsized))
    if check:
        return sizes
    sizes |= stated
    return {number: sizes[number] for number in found if number in sizes}


def _index_of_ids(
    source: _Source, entries: dict[int, Image], read: Iterable[int]
) -> dict[int | str, int]:
    """{image id: index in the dataset, or -1 where the image is left out} of all the file's ids."""
    index_of: dict[int | str, int] = {entry.id: LEFT_OUT for entry in entries.values()}
    for number in set(range(len(source.contents.images))) - entries.keys():
        image_id = _loose(source, "images", number).get("id")
        if isinstance(image_id, int | str):
            index_of.setdefault(image_id, LEFT_OUT)
    index_of.update((entries[number].id, index) for index, number in enumerate(read))
    return index_of


# ------------------------------------------------------------------------------------------------
# Objects
# ------------------------------------------------------------------------------------------------


def _objects(
    source: _Source,
    index_of: dict[int | str, int],
    labels: np.ndarray,
    sizes: np.ndarray,
    judge: Judge,
    is_learnt: bool,
) -> dict[str, np.ndarray]:
    """What `assemble` takes, in the order of the file.

    index_of: of images by id; labels: of the categories; sizes: (M, 2) width, height; is_learnt:
    see `image_sizes` of `read_coco`.
    """

    def place(number: int) -> str:
        return _place(source, "annotations", number)

    place_of = {category.id: place for place, category in enumerate(source.categories)}
    parts = []
    for numbers, entries in _chunks(source, "annotations", Annotation, judge):
        index = _looked_up(index_of, [entry.image_id for entry in entries])
        category = _looked_up(place_of, [entry.category_id for entry in entries])
        is_read = index >= 0
        for what, field, is_unknown in (
            ("image", "image_id", index == UNKNOWN),
            ("class", "category_id", is_read & (category == UNKNOWN)),
        ):
            for row in np.flatnonzero(is_unknown).tolist():
                found = reprlib.repr(getattr(entries[row], field))
                message = f"{place(numbers[row])}: {what} id: expected one the file has, "
                judge.reject(DatasetError(f"{message}found {found}", f"unknown {what}"))
        label = np.append(labels, UNKNOWN)[np.maximum(category, -1)]
        left_out = category[is_read & (label == LEFT_OUT)].tolist()
        names = (source.categories[place].name for place in left_out)
        count_left_out(names, source.path, judge.defects)
        rows = np.fromiter(map(_ROW, entries), _COLUMNS, len(entries))
        kept = is_read & (label >= 0)
        parts.append((numbers[kept], index[kept], label[kept], rows[kept]))
    numbers, index, label, rows = map(np.concatenate, zip(*parts, strict=True))
    del parts
    corner, size = rows["bbox"][:, :2], rows["bbox"][:, 2:]
    with np.errstate(over="ignore"):  # to infinity, which is outside of any image
        boxes = np.concatenate([corner, corner + size], axis=1)
    if is_learnt:
        areas = rows["area"]
        require_plausible(str(source.path), boxes, sizes[index], "corner and size", areas)
    boxes, good = judge.clip(
        boxes, sizes[index], lambda row: place(numbers[row]), "keep" if is_learnt else "all"
    )
    flagged = numbers[good & rows["ignore"] & ~rows["iscrowd"]]
    if len(flagged):
        taken = "taken as a region to ignore" if is_learnt else "passed over, as by pycocotools"
        message = f"{place(flagged[0])}: ignore: found 1: {taken}"
        judge.defects.add("ignore flag", message, len(flagged))
    of_boxes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return {
        "image_index": index[good],
        "boxes": boxes[good],
        "labels": label[good],
        "difficult": rows["difficult"][good],
        "ignore": (rows["iscrowd"] | (rows["ignore"] & is_learnt))[good],
        "areas": np.where(np.isfinite(rows["area"]), rows["area"], of_boxes)[good],
    }


def _looked_up(table: dict[int | str, int], keys: Sequence[int | str]) -> np.ndarray:
    """(T,) int64: table[key], or that of 1 for "1" and the reverse; UNKNOWN where there is none."""
    found = np.fromiter(map(table.get, keys, repeat(UNKNOWN)), np.int64, len(keys))
    strange = np.flatnonzero(found == UNKNOWN).tolist()
    if strange:
        by_text = {str(key): value for key, value in table.items()}
        found[strange] = [by_text.get(str(keys[row]), UNKNOWN) for row in strange]
    return found


# ------------------------------------------------------------------------------------------------
# The format
# ------------------------------------------------------------------------------------------------


def _find_splits(root: Path) -> list[str]:
    return [file for file in _candidates(root) if _is_named(file) or _is_instances(root / file)]


def _candidates(root: Path) -> list[str]:
    files = files_below(root, "annotations/*.json", "instances_*.json", "*/_annotations.coco.json")
    instances = [file for file in files if Path(file).name.startswith("instances_")]
    return instances or files or files_below(root, "*.json")


def _is_named(file: str) -> bool:
    return (
        re.search(r"(^|/)(instances_.*|_annotations\.coco|train|val|test)\.json$", file) is not None
    )


def _is_instances(path: Path) -> bool:
    try:
        return _decode_file(path).annotations is not None
    except DatasetError:  # JSON of another kind: Label Studio's own, VIA's, detections
        return False


def _undivided(root: Path) -> str | None:
    """The only file, where no name is that of a split: CVAT's, Label Studio's result.json."""
    if any(_SPLIT.search(file.lower()) for file in _candidates(root)):
        return None
    found = _find_splits(root) or _candidates(root)  # reading says what is wrong with the only one
    return found[0] if len(found) == 1 else None


FORMAT = Format(
    read_coco,
    coco_classes,
    _find_splits,
    _undivided,
    uses=("images", "check_images", "image_sizes"),
    declares_classes=True,
    numbers_classes=True,
    target=Target(write_coco, "{split}"),
)
