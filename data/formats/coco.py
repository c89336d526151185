"""COCO instances JSON -> Dataset.

The file is decoded by types: what is not asked for - segmentations, nine tenths of it - is passed
over and never built, and of the annotations only a part at a time become objects.
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
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from operator import attrgetter
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct

from data.files import open_data
from data.formats.bad_annotations import Judge
from data.formats.class_names import choose_classes, count_left_out
from data.formats.format import Format, Target
from data.formats.image_files import ImageFinder, check_size, files_below, find_images, first_file
from data.formats.text_files import OF_DATASET, numbered_lines
from data.images.decode import MAX_PIXELS, read_header
from data.records import Dataset, DatasetError, assemble, no_images, require_fit_names
from data.writers.coco import write_coco

Entry = TypeVar("Entry")

CHUNK = 2**13  # entries that are objects at a time

_Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Text = Annotated[str, Meta(min_length=1)]
_Side = Annotated[int, Meta(ge=1, le=MAX_PIXELS)]
_Flag = Annotated[int, Meta(ge=0, le=1)] | bool


class _Category(Struct, frozen=True, gc=False):
    id: _Id
    name: _Text
    supercategory: str | None = None


class _Image(Struct, frozen=True, gc=False):
    id: _Id
    file_name: _Text
    width: _Side
    height: _Side


class _Annotation(Struct, frozen=True, gc=False):
    """bbox: x, y, width, height, continuous and 0-based. difficult: VOC's flag, not COCO's own."""

    image_id: _Id
    category_id: _Id
    bbox: tuple[float, float, float, float]
    area: Annotated[float, Meta(ge=0)] | None = None
    iscrowd: _Flag = 0
    difficult: _Flag = 0


class _File(Struct, frozen=True, gc=False):
    """annotations: None for the files of images without ground truth, "image_info_test2017"."""

    images: list[Raw]
    categories: list[_Category]
    annotations: list[Raw] | None = None


_COLUMNS = np.dtype(
    [
        ("image_id", np.int64),
        ("category_id", np.int64),
        ("bbox", np.float64, 4),
        ("area", np.float64),  # nan where there is none
        ("iscrowd", bool),
        ("difficult", bool),
    ]
)
_ROW = attrgetter(*(_COLUMNS.names or ()))
LEFT_OUT, UNKNOWN = -1, -2  # in place of an image's index or a class's label

_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_FIELD = re.compile(r"\$\.(\w+)|field `(\w+)`")  # in msgspec's messages
_KINDS = {  # of a field that is not as it should be; of the others "bad number"
    None: "malformed entry",
    "file_name": "missing name",
    "iscrowd": "bad crowd flag",
    "difficult": "bad difficult flag",
}


@dataclass(frozen=True)
class _Source:
    """An instances file: its path, contents, categories by id, and the split's short name."""

    path: Path
    split: str
    contents: _File
    categories: tuple[_Category, ...]


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
      <split>.json, <split>/_annotations.coco.json (Roboflow) or instances_<split>.json; or the path
      of a .json file, relative to root or absolute, whose stem less "instances_" is then the name.
    classes: names in label order, all of the file's or some: objects of the others are left out and
      counted. None takes all by category id.
    images: folders, relative to root or absolute, looked through before root/<split>,
      root/images/<split>, root/images, root, and the file's folder and its parent.
    check_images: reads the images' headers and refuses a size that is not the file's. Without, the
      file's is trusted, and folders are only listed to see whether its images are there.
    image_sizes: if given, even of no image, no image need be there, and boxes are kept whatever
      they are, as pycocotools keeps them: for judging detections that were made elsewhere.

    If there is a text file root/<split>.txt with a path a line, relative to root or absolute, just
    those images are read, from there and in its order; else all, in the order of the file. Crowds
    become regions to ignore. `area` is kept; where there is none it is the box's.
    For on_bad_annotation and errors see `Format`.
    """
    root, judge, need_images = Path(root), Judge(on_bad_annotation), image_sizes is None
    source = _open(root, split)
    if source.contents.annotations is None:
        raise DatasetError(f"{source.path}: expected 'annotations', found none: no ground truth")
    categories = source.categories
    declared = [category.name for category in categories]
    labels = choose_classes(declared, classes, source.path, judge.defects)
    name = f"{root.resolve().name}/{source.split}"
    entries = _read_images(source, judge)
    found = _find_images(root, source, entries, images, judge, need_images)
    if need_images and check_images:
        found = _check_sizes(source, entries, found, judge)
    if not found:
        raise no_images(name, judge.defects)
    sizes = np.array([(entries[number].width, entries[number].height) for number in found])
    index_of = _index_of_ids(source, entries, found)
    label_of = dict(zip((c.id for c in categories), labels.tolist(), strict=True))
    return assemble(
        name,
        classes or declared,
        images=[str(path) for path in found.values()],
        image_ids=[str(entries[number].id) for number in found],
        sizes=sizes,
        category_ids=_category_ids(classes or declared, categories),
        defects=judge.defects,
        **_objects(source, index_of, label_of, sizes, judge, "keep" if need_images else "all"),
    )


def _category_ids(names: Sequence[str], categories: Sequence[_Category]) -> list[int]:
    """The ids of categories by name; of those that are not declared numbers beyond them."""
    id_of = {category.name: category.id for category in categories}
    free = itertools.count(max(id_of.values()) + 1)
    return [id_of[name] if name in id_of else next(free) for name in names]


def coco_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """The category names of a split by category id; arguments and errors as `read_coco`."""
    return tuple(category.name for category in _open(Path(root), split).categories)


# ------------------------------------------------------------------------------------------------
# The file
# ------------------------------------------------------------------------------------------------


def _open(root: Path, split: str) -> _Source:
    path = _find_file(root, split)
    contents = _decode_file(path)
    categories = _without_root(sorted(contents.categories, key=attrgetter("id")))
    for field in ("id", "name"):
        values = Counter(getattr(category, field) for category in categories)
        twice = next((value for value, count in values.items() if count > 1), None)
        if twice is not None:
            expected = f"expected categories of different {field}s"
            raise DatasetError(f"{path}: {expected}, found {twice!r} twice", "duplicate id")
    if not categories:
        raise DatasetError(f"{path}: expected categories, found none")
    require_fit_names([category.name for category in categories], f"{path}, categories")
    if split.lower().endswith(".json"):
        split = path.stem.removeprefix("instances_")
    return _Source(path, split, contents, categories)


def _without_root(categories: Sequence[_Category]) -> tuple[_Category, ...]:
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
        instances = f"instances_{split}.json"
        names = [f"annotations/{instances}", f"annotations/{split}.json", f"{split}.json"]
        names += [f"{split}/_annotations.coco.json", instances]
    return first_file(root, names, "no JSON file", "*.json", "*/*.json")


def _decode_file(path: Path) -> _File:
    with open_data(path, OF_DATASET) as file:  # COCO's largest, train2017, has 0.45e9 bytes
        size = os.fstat(file.fileno()).st_size
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    if data[: len(BOM_UTF8)] == BOM_UTF8:
        data = data[len(BOM_UTF8) :]
    try:
        return msgspec.json.decode(data, type=_File)
    except _BAD_JSON as error:
        raise DatasetError(f"{path}: not a COCO instances file: {error}") from error


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
        except _BAD_JSON:  # decode one by one to find the bad entry
            good: dict[int, Entry] = {}
            for number in numbers:
                try:
                    good[number] = of_one.decode(raws[number])
                except _BAD_JSON as error:
                    judge.reject(_malformed(source, key, number, error))
            numbers, entries = good.keys(), list(good.values())
        yield np.fromiter(numbers, np.int64), entries


def _malformed(source: _Source, key: str, number: int, error: Exception) -> DatasetError:
    match = _FIELD.search(str(error))
    field = match and (match[1] or match[2])
    entry = _loose(source, key, number)
    found = reprlib.repr(entry[field]) if field in entry else "nothing"
    problem = str(error).split(" - at ")[0]
    message = f"{_place(source, key, number)}: {field or 'entry'}: {problem}, found {found}"
    kind = "missing field" if "missing required field" in problem else "bad number"
    return DatasetError(message, _KINDS.get(field, kind))


def _loose(source: _Source, key: str, number: int) -> dict:
    """An entry as it is in the file; empty if it is no object or cannot be decoded."""
    try:
        entry = msgspec.json.decode(getattr(source.contents, key)[number])
    except _BAD_JSON:
        return {}
    return entry if isinstance(entry, dict) else {}


def _place(source: _Source, key: str, number: int) -> str:
    """File, place and id of an entry, and its category, for messages."""
    entry = _loose(source, key, number)
    words = [f"id {reprlib.repr(entry['id'])}"] if "id" in entry else []
    words += [repr(c.name) for c in source.categories if c.id == entry.get("category_id")]
    return f"{source.path}, {key}[{number}]" + (f" ({', '.join(words)})" if words else "")


# ------------------------------------------------------------------------------------------------
# Images
# ------------------------------------------------------------------------------------------------


def _read_images(source: _Source, judge: Judge) -> dict[int, _Image]:
    """The images of the file by their number in it: the good ones."""
    images: dict[int, _Image] = {}
    ids: dict[int, int] = {}
    names: dict[str, int] = {}
    for numbers, entries in _chunks(source, "images", _Image, judge):
        for number, entry in zip(numbers.tolist(), entries, strict=True):
            same_id = ids.setdefault(entry.id, number)
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
    entries: dict[int, _Image],
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
        usual = [root / source.split, root / "images" / source.split, root / "images", root]
        finder = ImageFinder([*given, *usual, source.path.parent, source.path.parent.parent])
    if not need_images:
        return {number: Path(name) for number, (name, _) in wanted.items()}

    def place(number: int) -> str:
        return wanted[number][1] or _place(source, "images", number)

    named = ((number, name, partial(place, number)) for number, (name, _) in wanted.items())
    return find_images(named, finder, judge)


def _list_images(
    root: Path, listing: Path, entries: dict[int, _Image], judge: Judge
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


def _check_sizes(
    source: _Source, entries: dict[int, _Image], found: dict[int, Path], judge: Judge
) -> dict[int, Path]:
    """Those of the images found whose headers can be read and say what the file says."""

    def check(number: int) -> Path:
        stated = entries[number].width, entries[number].height
        check_size(stated, read_header(found[number]), _place(source, "images", number))
        return found[number]

    return judge.load(check, found)


def _index_of_ids(
    source: _Source, entries: dict[int, _Image], found: dict[int, Path]
) -> dict[int, int]:
    """{image id: index in the dataset, or -1 where the image is left out} of all the file's ids."""
    index_of = {entry.id: LEFT_OUT for entry in entries.values()}
    for number in set(range(len(source.contents.images))) - entries.keys():
        image_id = _loose(source, "images", number).get("id")
        if isinstance(image_id, int):
            index_of.setdefault(image_id, LEFT_OUT)
    index_of.update((entries[number].id, index) for index, number in enumerate(found))
    return index_of


# ------------------------------------------------------------------------------------------------
# Objects
# ------------------------------------------------------------------------------------------------


def _objects(
    source: _Source,
    index_of: dict[int, int],
    label_of: dict[int, int],
    sizes: np.ndarray,
    judge: Judge,
    beyond: str,
) -> dict[str, np.ndarray]:
    """What `assemble` takes, in the order of the file, judged a part of the file at a time.

    index_of: of images by id; label_of: by category id; sizes: (M, 2) width, height; beyond: see
    `Judge.clip`.
    """
    name_of = {category.id: category.name for category in source.categories}

    def place(number: int) -> str:
        return _place(source, "annotations", number)

    def judged(numbers: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        index = _looked_up(index_of, rows["image_id"])
        label = _looked_up(label_of, rows["category_id"])
        is_read = index >= 0
        for what, field, is_unknown in (
            ("image", "image_id", index == UNKNOWN),
            ("class", "category_id", is_read & (label == UNKNOWN)),
        ):
            for number, found in zip(numbers[is_unknown], rows[field][is_unknown], strict=True):
                message = f"{place(number)}: {what} id: expected one the file has, found {found}"
                judge.reject(DatasetError(message, kind=f"unknown {what}"))
        left_out = rows["category_id"][is_read & (label == LEFT_OUT)].tolist()
        count_left_out(map(name_of.__getitem__, left_out), source.path, judge.defects)
        kept = is_read & (label >= 0)
        numbers, rows, index, label = numbers[kept], rows[kept], index[kept], label[kept]
        corner, size = rows["bbox"][:, :2], rows["bbox"][:, 2:]
        with np.errstate(over="ignore"):  # to infinity, which is outside of any image
            boxes = np.concatenate([corner, corner + size], axis=1)
        boxes, good = judge.clip(boxes, sizes[index], lambda row: place(numbers[row]), beyond)
        of_boxes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        return {
            "image_index": index[good],
            "boxes": boxes[good],
            "labels": label[good],
            "difficult": rows["difficult"][good],
            "ignore": rows["iscrowd"][good],
            "areas": np.where(np.isfinite(rows["area"]), rows["area"], of_boxes)[good],
        }

    parts = [
        judged(numbers, np.fromiter(map(_ROW, entries), _COLUMNS, len(entries)))
        for numbers, entries in _chunks(source, "annotations", _Annotation, judge)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _looked_up(table: dict[int, int], keys: np.ndarray) -> np.ndarray:
    """(T,) int64: table[key], UNKNOWN where there is none."""
    return np.fromiter(map(table.get, keys.tolist(), repeat(UNKNOWN)), np.int64, len(keys))


# ------------------------------------------------------------------------------------------------
# The format
# ------------------------------------------------------------------------------------------------


def _find_splits(root: Path) -> list[str]:
    files = files_below(root, "annotations/*.json", "instances_*.json", "*/_annotations.coco.json")
    instances = [file for file in files if Path(file).name.startswith("instances_")]
    return instances or files or files_below(root, "train.json", "val.json", "test.json")


FORMAT = Format(
    read_coco,
    coco_classes,
    _find_splits,
    uses=("images", "check_images", "image_sizes"),
    declares_classes=True,
    numbers_classes=True,
    target=Target(write_coco, "{split}"),
)
