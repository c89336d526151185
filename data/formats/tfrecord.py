"""TFRecords of the TF Object Detection API -> Dataset.

A record is a tf.Example with an encoded image and its objects: corners in fractions of the image as
float32, classes as text, as number of a label map, or both.
https://github.com/tensorflow/models, research/object_detection/g3doc/using_your_own_dataset.md;
the keys: object_detection/data_decoders/tf_example_decoder.py
Letters: M records, T objects, K classes.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from data.files import read_data
from data.formats.bad_annotations import Judge, shown
from data.formats.class_names import choose_classes, class_label, count_left_out, fit_names
from data.formats.format import Format, Target
from data.formats.image_files import check_size
from data.formats.label_map import Item, read_items
from data.formats.plausibility import require_plausible
from data.formats.record_files import find_shards, first_record, record_splits, unpacked
from data.formats.tfrecord_index import Column, Index, Kind, read_index
from data.images.decode import (
    IMAGE_SUFFIXES,
    MAX_BYTES,
    UNREADABLE,
    ImageHeader,
    parse_header,
)
from data.records import Dataset, DatasetError, no_images
from data.slices import Slice
from data.storage import address, is_remote, join, names_in_folder
from data.writers.tfrecord import on_grid, write_tfrecord
from utils.names import UNFIT

IMAGE = "image/encoded"
CORNERS = tuple(f"image/object/bbox/{corner}" for corner in ("xmin", "ymin", "xmax", "ymax"))
TEXT, LABEL = "image/object/class/text", "image/object/class/label"
DIFFICULT, AREA = "image/object/difficult", "image/object/area"
REGIONS = ("image/object/is_crowd", "image/object/group_of")
KEYS: dict[str, Kind] = {
    "image/height": "int",
    "image/width": "int",
    "image/filename": "bytes",
    "image/source_id": "bytes",
    **dict.fromkeys(CORNERS, "float"),
    TEXT: "bytes",
    LABEL: "int",
    DIFFICULT: "int",
    **dict.fromkeys(REGIONS, "int"),
    AREA: "float",
}
MAX_NAME = 120  # characters of an image's name
MAX_COORDINATE = 1e6  # in widths or heights; beyond that a number is none
_LABEL_MAP = re.compile(r".*(label|class).*\.pbtxt", re.IGNORECASE)
_OF_SPLITS = re.compile(r"(.*[_.-])?(train|val|valid|validation|test|trainval)", re.IGNORECASE)


@dataclass(frozen=True)
class Classes:
    """names: all classes. ids: their numbers in the records, none where no label map is.

    label_of: of each text that stands for a class. where: the label map, or what was looked for.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    label_of: dict[str, int]
    where: str


def read_tfrecord(
    root: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    class_file: str = "",
    on_bad_annotation: str = "error",
) -> Dataset:
    """Reads one split of a dataset in TFRecords of the TF Object Detection API.

    root: the folder of the dataset; it may be in a store, as gs://.
    split: see `find_shards`. Files are indexed once, see `read_index`, and compressed ones unpacked
      once, see `unpacked`.
    classes: names in label order, all of the label map or some: objects of the others are left out
      and counted. None takes all of the label map by number, or where there is none those found in
      this split, sorted.
    class_file: a label map (.pbtxt), relative to root or absolute, read in place of the one beside
      the files or in root.

    An object's class is its text, by name or display_name, as in the API; its number where it has
    no text. A corner is its fraction times the image's side, `on_grid`: whole pixels come back
    exactly in images of up to 2**14 px. Crowds and groups become regions to ignore.
    A stated size must be the image's. An image id is the source_id, less a suffix of image files,
    else the filename's stem, else shard and number.
    For on_bad_annotation and errors see `Format`.
    """
    judge, root = Judge(on_bad_annotation), address(root)
    index = _open(root, split, go_on=on_bad_annotation == "drop")
    known = _classes(root, split, index, class_file)
    return to_dataset(_name(root, split), index, known, classes, judge)


def to_dataset(
    name: str, index: Index, known: Classes, classes: Sequence[str] | None, judge: Judge
) -> Dataset:
    """The dataset of indexed records that have KEYS for columns; see `read_tfrecord`."""
    for problem in index.problems:
        judge.reject(problem)
    for place, shard in enumerate(index.shards):
        is_told = any(str(problem).startswith(f"{shard}, ") for problem in index.problems)
        if place not in index.shard and not is_told:
            judge.defects.add("empty file of records", f"{shard}: found no record")
    headers = _headers(index, judge)
    is_good = np.zeros(len(index), bool)
    is_good[list(headers)] = True
    is_good &= _have_whole_lists(index, is_good, judge)
    if not is_good.any():
        raise no_images(name, judge.defects)
    return _dataset(name, index, is_good, headers, known, classes, judge)


def tfrecord_classes(root: str | Path, split: str, class_file: str = "") -> tuple[str, ...]:
    """The class names of a split: of the label map by number, else sorted; see `read_tfrecord`."""
    return _classes(address(root), split, None, class_file).names


def _name(root: str, split: str) -> str:
    return f"{PurePosixPath(root if is_remote(root) else Path(root).resolve()).name}/{split}"


def _open(root: str, split: str, go_on: bool) -> Index:
    shards, name = find_shards(root, split), _name(root, split)
    return read_index(unpacked(shards, name), IMAGE, KEYS, name=name, go_on=go_on)


# ------------------------------------------------------------------------------------------------
# Classes
# ------------------------------------------------------------------------------------------------


def _classes(root: str, split: str, index: Index | None, class_file: str) -> Classes:
    path = _find_label_map(root, split, class_file)
    if path is None:
        index = index or _open(root, split, go_on=True)
        names = fit_names(map(_decoded, index.columns[TEXT].table))
        label_of = {name: label for label, name in enumerate(names)}
        return Classes(names, (), label_of, f"no label_map.pbtxt in {root}")
    items = sorted(read_items(path), key=_item_id)
    label_of = {item.title: label for label, item in enumerate(items)}
    label_of |= {item.display_name: n for n, item in enumerate(items) if item.display_name}
    label_of |= {item.name: label for label, item in enumerate(items)}
    ids = tuple(item.id for item in items)
    return Classes(tuple(item.title for item in items), ids, label_of, path)


def _item_id(item: Item) -> int:
    return item.id


def _find_label_map(root: str, split: str, class_file: str) -> str | None:
    """The label map given, else the one beside the split's files, else in the folder above."""
    if class_file.lower().endswith(".pbtxt"):
        return class_file if class_file.startswith("/") else join(root, class_file)
    folders = [join(root, split), join(root, split.rpartition("/")[0]) if "/" in split else root]
    for folder in dict.fromkeys([*folders, root]):
        names = [name for name in names_in_folder(folder) if _LABEL_MAP.fullmatch(name)]
        stem = split.rpartition("/")[2]
        for own in ("label_map.pbtxt", f"{stem}_label_map.pbtxt", f"{stem}.pbtxt"):
            names = [own] if own in names else names
        if len(names) > 1:
            expected = "expected one label map, or its path as data.class_file"
            raise DatasetError(f"{folder}: {expected}, found {', '.join(names[:10])}")
        if names:
            return join(folder, names[0])
    return None


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _labels(
    index: Index, rows: "_Rows", known: Classes, judge: Judge
) -> tuple[np.ndarray, np.ndarray]:
    """(T,) the class of each object, of all that are known, and (T,) bool whether it has one."""
    texts = [_decoded(text) for text in index.columns[TEXT].table]
    of_text = np.array([known.label_of.get(text, -1) for text in texts] + [-1])
    codes = rows.of(TEXT, -1)
    has_text = codes >= 0
    has_text &= np.array([*map(bool, texts), False])[codes]
    labels = np.where(has_text, of_text[codes], -1)
    has_id = rows.have(LABEL)
    numbers, place = np.unique(rows.of(LABEL, 0), return_inverse=True)
    label_of_id = {number: label for label, number in enumerate(known.ids)}
    by_id = np.array([label_of_id.get(number, -1) for number in numbers.tolist()], int)[place]
    labels = np.where(has_id & ~has_text, by_id, labels)
    for row in np.flatnonzero(labels < 0).tolist():
        try:
            if has_text[row]:
                class_label(texts[codes[row]], known.label_of, f"{rows.where(row)}, {TEXT}")
            expected = f"{TEXT}, or {LABEL} with a label map ({known.where})"
            if known.ids and has_id[row]:
                expected = f"{LABEL} of {known.where}"
            found = rows.of(LABEL, 0)[row] if has_id[row] else "none"
            message = f"{rows.where(row)}: expected {expected}, found {found}"
            raise DatasetError(message, "unknown class" if has_id[row] else "missing name")
        except DatasetError as error:
            judge.reject(error)
    differs = has_text & has_id & (labels >= 0) & (by_id >= 0) & (by_id != labels)
    for row in np.flatnonzero(differs).tolist():
        names = f"{known.names[labels[row]]!r}, its number {known.names[by_id[row]]!r}"
        message = f"{rows.where(row)}: its text is {names}: the text counts"
        judge.defects.add("class of another number than its text", message)
    return labels, labels >= 0


# ------------------------------------------------------------------------------------------------
# Images
# ------------------------------------------------------------------------------------------------


def _headers(index: Index, judge: Judge) -> dict[int, ImageHeader]:
    """{record: header} of the images that can be read and have the size that is stated."""
    if len(index) and not index.length.any():
        hint = ""
        if "image" in index.keys:
            hint = "; that is the layout of TFDS, or of another kind of dataset"
        found = ", ".join(index.keys[:20])[:300] or "none"
        message = f"expected the key {IMAGE}, found {found}{hint}"
        raise DatasetError(f"{index.where(0)}: {message}")
    widths, heights = (index.columns[f"image/{side}"].first(0) for side in ("width", "height"))

    def check(record: int) -> ImageHeader:
        where = index.where(record)
        if not index.length[record]:
            raise DatasetError(f"{where}: expected an image in {IMAGE}, found none", UNREADABLE)
        header = index.header(record)
        if header is None:
            image = str(_slice(index, record, "image"))
            header = parse_header(read_data(image, MAX_BYTES, UNREADABLE), where)
        if (widths[record], heights[record]) not in ((0, 0), (header.width, header.height)):
            stated = (widths[record], heights[record])
            check_size(stated, header, f"{where}, image/width and image/height")
        return header

    sizes, stated = index.headers[:, :2], np.array([widths, heights]).T.reshape(-1, 2)
    is_plain = (sizes[:, 0] > 0) & (index.length > 0)
    is_plain &= (sizes == stated).all(axis=1) | (stated == 0).all(axis=1)
    headers = {record: ImageHeader(*row) for record, row in enumerate(index.headers.tolist())}
    others = judge.load(check, np.flatnonzero(~is_plain).tolist())
    return {
        record: others.get(record, header)
        for record, header in headers.items()
        if is_plain[record] or record in others
    }


def _slice(index: Index, record: int, name: str) -> Slice:
    offset, length = int(index.offset[record]), int(index.length[record])
    return Slice(index.shards[index.shard[record]], offset, length, name)


def _names(index: Index, records: Sequence[int]) -> list[tuple[str, str]]:
    """(id, name of the image) of each record: ids all different, names fit for a path."""
    files = index.columns["image/filename"].first(b"")
    ids = index.columns["image/source_id"].first(b"")
    found = []
    for record in records:
        file, source = _decoded(files[record]), _decoded(ids[record])
        name = _fit(file.replace("\\", "/").rpartition("/")[2]) or _fit(source)
        if not name:
            shard = PurePosixPath(index.shards[index.shard[record]]).name
            name = f"{_fit(shard)}-{index.number[record]:06d}"
        found.append((_printable(source or file) or name, name))
    stems = Counter(_without_suffix(image_id) for image_id, _ in found)
    return [
        (_without_suffix(image_id) if stems[_without_suffix(image_id)] == 1 else image_id, name)
        for image_id, name in found
    ]


def _without_suffix(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return stem if stem and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _printable(text: str) -> str:
    return UNFIT.sub("_", text)


def _fit(text: str) -> str:
    """A text as the name of a file."""
    name = re.sub(r"[/\\:*?\"<>|]", "_", _printable(text)).strip(". ")
    stem, dot, suffix = name[-MAX_NAME:].rpartition(".")
    return f"{stem}{dot}{suffix}"


# ------------------------------------------------------------------------------------------------
# Objects
# ------------------------------------------------------------------------------------------------


def _have_whole_lists(index: Index, is_good: np.ndarray, judge: Judge) -> np.ndarray:
    """(M,) bool: whether all that is said of objects is said of each. Rejects the good others."""
    counts = index.columns[CORNERS[0]].counts
    is_whole = np.ones(len(index), bool)
    for key in (*CORNERS[1:], TEXT, LABEL, DIFFICULT, *REGIONS, AREA):
        found = index.columns[key].counts
        is_meant = (found == counts) | ((found == 0) & (key not in CORNERS))
        for record in np.flatnonzero(is_good & is_whole & ~is_meant).tolist():
            expected = f"expected {counts[record]} values of {key}, as of {CORNERS[0]}"
            message = f"{index.where(record)}: {expected}, found {found[record]}"
            judge.reject(DatasetError(message, "lists of different lengths"))
        is_whole &= is_meant
    return is_whole


class _Rows:
    """The objects of the good records, which have whole lists: their values, and where they are."""

    def __init__(self, index: Index, is_good: np.ndarray):
        self._index, self._is_good = index, is_good
        counts = index.columns[CORNERS[0]].counts
        self.records = np.flatnonzero(is_good)
        self.record = np.repeat(self.records, counts[is_good])  # of each object
        self.image_index = np.repeat(np.arange(len(self.records)), counts[is_good])
        self._starts = np.concatenate([[0], np.cumsum(counts[is_good])])

    def __len__(self) -> int:
        return len(self.record)

    def have(self, key: str) -> np.ndarray:
        """(T,) bool: whether an object's record says this of its objects."""
        return self._column(key).counts[self.record] > 0

    def of(self, key: str, default: float) -> np.ndarray:
        """(T,) values of a key, the default where a record has none."""
        column = self._column(key)
        result = np.full(len(self), default, column.values.dtype)
        result[self.have(key)] = column.values[np.repeat(self._is_good, column.counts)]
        return result

    def where(self, row: int) -> str:
        """File, record and object, both from 0, for messages."""
        number = row - self._starts[self.image_index[row]]
        return f"{self._index.where(self.record[row])}, object {number}"

    def _column(self, key: str) -> Column:
        return self._index.columns[key]


def _dataset(
    name: str,
    index: Index,
    is_good: np.ndarray,
    headers: dict[int, ImageHeader],
    known: Classes,
    classes: Sequence[str] | None,
    judge: Judge,
) -> Dataset:
    rows = _Rows(index, is_good)
    chosen = choose_classes(known.names, classes, known.where, judge.defects)
    named = _names(index, rows.records.tolist())
    images, sizes = {}, []
    for record, (image_id, image_name) in zip(rows.records.tolist(), named, strict=True):
        if image_id in images:
            other, image_id = image_id, f"{image_id} ({index.where(record)})"
            message = f"{index.where(record)}: the id {other!r} is taken: called {image_id!r}"
            judge.defects.add("image id given twice", message)
        images[image_id] = (str(_slice(index, record, image_name)), headers[record])
        sizes.append((headers[record].width, headers[record].height))
    labels, is_kept = _labels(index, rows, known, judge)
    left_out = is_kept & (np.append(chosen, -1)[labels] < 0)
    count_left_out([known.names[label] for label in labels[left_out]], name, judge.defects)
    is_kept &= ~left_out
    boxes, is_number = _boxes(rows, np.array(sizes).reshape(-1, 2), is_kept, judge)
    areas = _areas(rows, boxes, is_kept & is_number, judge)
    kept = np.flatnonzero(is_kept & is_number & np.isfinite(areas))
    # Judge.assemble asks whether they are corners in pixels, as fractions divided twice are not.
    require_plausible(name, boxes[kept], np.array(sizes)[rows.image_index[kept]], "fractions")
    flags = {key: _flags(rows, key, kept, judge) for key in (DIFFICULT, *REGIONS)}
    dataset = judge.assemble(
        name,
        classes or known.names,
        images,
        lambda row: f"{rows.where(kept[row])} ({known.names[labels[kept[row]]]!r})",
        image_index=rows.image_index[kept],
        boxes=boxes[kept],
        labels=chosen[labels[kept]],
        difficult=flags[DIFFICULT],
        ignore=flags[REGIONS[0]] | flags[REGIONS[1]],
        areas=areas[kept],
    )
    return replace(dataset, category_ids=_category_ids(dataset.classes, known))


def _category_ids(names: Sequence[str], known: Classes) -> tuple[int, ...]:
    """The numbers of the label map; of names that it lacks numbers beyond them."""
    if not known.ids:
        return tuple(range(1, len(names) + 1))
    id_of = dict(zip(known.names, known.ids, strict=True))
    return tuple(id_of.get(name, max(known.ids) + 1 + n) for n, name in enumerate(names))


def _boxes(
    rows: _Rows, sizes: np.ndarray, is_wanted: np.ndarray, judge: Judge
) -> tuple[np.ndarray, np.ndarray]:
    """(T, 4) float64 xyxy in pixels, on the grid, and (T,) bool whether they are numbers."""
    fractions = np.stack([rows.of(key, 0).astype(np.float64) for key in CORNERS], axis=1)
    is_number = np.all(np.abs(fractions) <= MAX_COORDINATE, axis=1)  # nan is none either
    for row in np.flatnonzero(is_wanted & ~is_number).tolist():
        message = f"expected corners in fractions of the image, found {shown(fractions[row])}"
        judge.reject(DatasetError(f"{rows.where(row)}: {message}", "bad number"))
    fractions[~is_number] = 0
    scale = np.tile(sizes[rows.image_index], 2)
    return on_grid(fractions * scale), is_number


def _areas(rows: _Rows, boxes: np.ndarray, is_wanted: np.ndarray, judge: Judge) -> np.ndarray:
    """(T,) float64: as the records say, else the boxes'; nan where what they say is none.

    What is the box's, rounded to float32, is the box's.
    """
    areas, of_boxes = rows.of(AREA, 0), (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    has_area = rows.have(AREA) & (areas != of_boxes.astype(np.float32))
    # The shortest decimal of a float32 is what its writer had, as far as it came.
    texts, place = np.unique(areas, return_inverse=True)
    decimals = np.array([float(str(value)) for value in texts], np.float64)[place]
    for row in np.flatnonzero(is_wanted & has_area & ~(areas >= 0)).tolist():
        message = f"{rows.where(row)}, {AREA}: expected a number from 0 on, found {areas[row]}"
        judge.reject(DatasetError(message, "bad number"))
    decimals[~(areas >= 0)] = np.nan
    return np.where(has_area, decimals, of_boxes)


def _flags(rows: _Rows, key: str, kept: np.ndarray, judge: Judge) -> np.ndarray:
    """(number of kept,) bool; other numbers than 0 and 1 are taken for 1, counted."""
    values = rows.of(key, 0)[kept]
    for place in np.flatnonzero((values != 0) & (values != 1)).tolist():
        message = f"{rows.where(kept[place])}, {key}: expected 0 or 1, found {values[place]}"
        judge.defects.add("flag that is neither 0 nor 1, taken as 1", message)
    return values != 0


# ------------------------------------------------------------------------------------------------
# The format
# ------------------------------------------------------------------------------------------------


def _find_splits(root: Path) -> list[str]:
    """Those whose first record holds an image as the API has it."""
    place = address(root)
    return [
        split
        for split in record_splits(place)
        if IMAGE.encode() in first_record(find_shards(place, split)[0])
    ]


def _undivided(root: Path) -> str | None:
    splits = record_splits(root)
    is_whole = len(splits) == 1 and not any(map(_OF_SPLITS.fullmatch, splits[0].split("/")))
    return splits[0] if is_whole else None


FORMAT = Format(
    read_tfrecord,
    tfrecord_classes,
    _find_splits,
    _undivided,
    uses=("class_file",),
    declares_classes=True,
    numbers_classes=True,
    target=Target(write_tfrecord, image_folder=None),
)
