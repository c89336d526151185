"""Datasets that TensorFlow Datasets (TFDS) has prepared on this machine -> Dataset.

A builder's folder holds TFRecords and says what is in them: dataset_info.json, features.json and,
for names of classes, *.labels.txt. They are read here. TFDS itself is needed to prepare a dataset;
to read one, it would import whatever modules features.json names.
https://www.tensorflow.org/datasets/external_tfrecord; dataset_info.proto and feature.proto in
tensorflow_datasets/core/proto of https://github.com/tensorflow/datasets
Letters: M records.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct

from data.files import read_data
from data.formats.bad_annotations import Judge
from data.formats.format import Format
from data.formats.text_files import numbered_lines, quoted
from data.formats.tfrecord import (
    AREA,
    CORNERS,
    DIFFICULT,
    KEYS,
    LABEL,
    REGIONS,
    Classes,
    to_dataset,
)
from data.formats.tfrecord_index import DAMAGED, Column, Index, Kind, read_index
from data.records import Dataset, DatasetError
from data.storage import address, is_file, is_remote, join, matching

Json = TypeVar("Json", bound=Struct)

MAX_BYTES = 2**26  # of a JSON file; with statistics and a long citation they have some 2**14
MAX_CLASSES = 2**16  # where no file names them
DATA_DIR = "~/tensorflow_datasets"  # where TFDS prepares, unless $TFDS_DATA_DIR says another
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"  # a shard's name, where none is said
OWN = "tensorflow_datasets."  # the modules of TFDS's own builders; old ones do not say theirs
BOXES = "REL_YXYX"  # ymin, xmin, ymax, xmax in fractions
# What else is read of an object, and the key that the API has for it.
OF_OBJECTS = {
    "is_difficult": DIFFICULT,
    "is_crowd": REGIONS[0],
    "is_group_of": REGIONS[1],
    "area": AREA,
}
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)", re.ASCII)
_Count = Annotated[int, Meta(ge=0, le=2**40)]


class _Features(Struct):
    features: "dict[str, _Feature]"


class _Sequence(Struct):
    feature: "_Feature"


class _Box(Struct, rename="camel"):
    bbox_format: str = BOXES


class _ClassLabel(Struct, rename="camel"):
    num_classes: _Count = 0


class _Feature(Struct, rename="camel"):
    """A feature of an example: its class, and the one part that belongs to that class."""

    python_class_name: str = ""
    features_dict: _Features | None = None
    sequence: _Sequence | None = None
    image: dict | None = None
    text: dict | None = None
    class_label: _ClassLabel | None = None
    bounding_box: _Box | None = None

    @property
    def inner(self) -> "dict[str, _Feature]":
        """Of a sequence of objects what is said of each; else nothing."""
        of_each = self.sequence.feature.features_dict if self.sequence else None
        return of_each.features if of_each else {}

    @property
    def boxes(self) -> list[str]:
        """The keys of boxes in `inner`."""
        return [key for key, feature in self.inner.items() if feature.bounding_box]


class _Split(Struct, rename="camel"):
    name: str
    shard_lengths: list[_Count] = []
    filepath_template: str = ""


class _Info(Struct, rename="camel"):
    name: str
    splits: list[_Split] = []
    file_format: str = "tfrecord"
    module_name: str = ""


@dataclass(frozen=True)
class _Builder:
    """A prepared dataset: its folder, and which keys its records have.

    image, bbox: the keys of image and boxes. keys: by those that the API has for the same.
    labels: the file with the names of `classes`.
    """

    folder: str
    info: _Info
    image: str
    bbox: str
    keys: dict[str, str]
    kinds: dict[str, Kind]
    labels: str
    classes: tuple[str, ...]


def read_tfds(
    root: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    on_bad_annotation: str = "error",
) -> Dataset:
    """Reads one split of a dataset that TFDS has prepared, in files of TFRecords.

    root: a builder's folder, or its name, "voc/2007" or "voc/2007/5.0.0", below $TFDS_DATA_DIR or
      DATA_DIR. Of several versions the latest is read.
    split: as TFDS calls it: train, validation, test.
    classes: names in label order, all or some of them: objects of the others are left out and
      counted. None: all, by number.

    Examples need an Image and a Sequence of objects that have a BBoxFeature and a ClassLabel; for
    what else is read see OF_OBJECTS, and for the rest `read_tfrecord`. An image id is image/id,
    else the stem of image/filename. Boxes of two of TFDS's builders are put right, and counted:
    voc counts from 1 where the others count from 0, kitti from the bottom of the image.
    For on_bad_annotation and errors see `Format`.
    """
    judge, builder = Judge(on_bad_annotation), _open(root)
    name = f"{builder.info.name}/{split}"
    shards, num_records = _shards(builder, split)
    go_on = on_bad_annotation == "drop"
    index = read_index(shards, builder.image, builder.kinds, name=name, go_on=go_on)
    if len(index) != num_records and not index.problems:
        expected = f"expected {num_records} records of {split}, as dataset_info.json says"
        judge.reject(DatasetError(f"{builder.folder}: {expected}, found {len(index)}", DAMAGED))
    known = Classes(builder.classes, tuple(range(len(builder.classes))), {}, builder.labels)
    dataset = to_dataset(name, _as_api(index, builder, judge), known, classes, judge)
    return replace(dataset, category_ids=tuple(int(number) + 1 for number in dataset.category_ids))


def tfds_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """The class names of all splits, by number."""
    return _open(root).classes


# ------------------------------------------------------------------------------------------------
# The folder
# ------------------------------------------------------------------------------------------------


def _open(root: str | Path) -> _Builder:
    """Raises DatasetError for what is not prepared, or not for detecting objects."""
    folder = _find_folder(address(root))
    if folder is None:
        expected = "expected a TFDS builder's folder, with features.json, or the name of a dataset"
        place = f"prepared in {os.environ.get('TFDS_DATA_DIR', DATA_DIR)}"
        make = f"tensorflow_datasets.builder('{root}').download_and_prepare()"
        way = f"pip install -r requirements-tfds.txt, then {make} prepares it"
        raise DatasetError(f"{root}: {expected} {place}; {way}")
    info = _decoded(join(folder, "dataset_info.json"), _Info)
    if info.file_format != "tfrecord":
        make = "tensorflow_datasets.builder(..., data_dir=ANOTHER, file_format='tfrecord')"
        found = f"expected files of the format tfrecord, found {quoted(info.file_format)}"
        raise DatasetError(f"{folder}: {found}; prepare it by {make}")
    return _with_features(folder, info)


def _with_features(folder: str, info: _Info) -> _Builder:
    """Finds image, boxes and classes among the features of an example."""
    path = join(folder, "features.json")
    top = _decoded(path, _Feature).features_dict
    if top is None:
        expected = "expected a featuresDict, as newer releases of TFDS write; prepare it anew"
        raise DatasetError(f"{path}: {expected}")
    images = [key for key, feature in top.features.items() if feature.image is not None]
    image = _choose(images, "image", "an Image", top.features, path)
    boxed = [key for key, feature in top.features.items() if feature.boxes]
    objects = _choose(boxed, "objects", "a Sequence with a BBoxFeature", top.features, path)
    inner, where = top.features[objects].inner, f"{path}, {objects}"
    bbox = _choose(top.features[objects].boxes, "bbox", "a BBoxFeature", inner, where)
    labels = [key for key, feature in inner.items() if feature.class_label]
    label = _choose(labels, "label", "a ClassLabel", inner, where)
    of_box = inner[bbox].bounding_box
    if of_box is None or of_box.bbox_format != BOXES:
        found = quoted(of_box.bbox_format if of_box else None)
        raise DatasetError(f"{where}/{bbox}: expected boxes as {BOXES}, found {found}")
    keys = {LABEL: f"{objects}/{label}"}
    keys |= {api: f"{objects}/{key}" for key, api in OF_OBJECTS.items() if key in inner}
    kinds: dict[str, Kind] = {key: KEYS[api] for api, key in keys.items()}
    for api, names in {"image/filename": "filename file_name", "image/source_id": "id"}.items():
        for key in (f"image/{name}" for name in names.split() if f"image/{name}" in top.features):
            keys[api], kinds[key] = key, "int" if top.features[key].text is None else "bytes"
    name_file = join(folder, f"{objects}-{label}.labels.txt".replace("/", "."))
    classes = _class_names(name_file, inner[label].class_label)
    kinds[f"{objects}/{bbox}"] = "float"
    return _Builder(folder, info, image, f"{objects}/{bbox}", keys, kinds, name_file, classes)


def _find_folder(root: str) -> str | None:
    """The folder with features.json; None where there is none.

    Raises DatasetError where several configs are there.
    """
    places = [root]
    if not is_remote(root) and not os.path.isabs(root):
        data_dir = os.path.expanduser(os.environ.get("TFDS_DATA_DIR", DATA_DIR))
        places.append(join(data_dir, root.replace(":", "/")))
    for place in places:
        if is_file(join(place, "features.json")):
            return place
        folders = [os.path.dirname(path) for path in matching(place, "*/features.json")]
        if latest := _latest(folders):
            return latest
        folders = [os.path.dirname(path) for path in matching(place, "*/*/features.json")]
        configs = sorted({os.path.basename(os.path.dirname(folder)) for folder in folders})
        if len(configs) == 1 and (latest := _latest(folders)):
            return latest
        if configs:
            found = ", ".join(configs[:20])
            raise DatasetError(f"{place}: expected {root}/CONFIG, one of {found}")
    return None


def _latest(folders: Sequence[str]) -> str | None:
    numbers = {f: _VERSION.fullmatch(os.path.basename(f)) for f in folders}
    versions = {f: tuple(map(int, match.groups())) for f, match in numbers.items() if match}
    return max(versions, key=lambda folder: versions[folder], default=None)


def _decoded(path: str, of: type[Json]) -> Json:
    try:
        return msgspec.json.decode(read_data(path, MAX_BYTES), type=of, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{path}: expected the JSON that TFDS writes: {error}") from error


def _choose(
    fit: Sequence[str], usual: str, expected: str, features: Mapping[str, _Feature], where: str
) -> str:
    """The only one of the keys that are fit, or the usual one of them."""
    if usual in fit or len(fit) == 1:
        return usual if usual in fit else fit[0]
    kinds = {key: f.python_class_name.rpartition(".")[2] for key, f in features.items()}
    found = ", ".join([f"{key} ({kind})" for key, kind in kinds.items()][:20]) or "none"
    expected = f"{expected}, {usual!r} if there are several" if fit else expected
    raise DatasetError(f"{where}: expected {expected}, found {found}")


def _class_names(path: str, label: _ClassLabel | None) -> tuple[str, ...]:
    """Of a file that has one a line; numbers where TFDS was told no names and wrote no file."""
    if is_file(path):
        return tuple(name for _, name in numbered_lines(path))
    count = label.num_classes if label else 0
    if not 0 < count <= MAX_CLASSES:
        raise DatasetError(f"{path}: expected the names of the classes, found no file")
    return tuple(map(str, range(count)))


def _shards(builder: _Builder, split: str) -> tuple[list[str], int]:
    """The files of a split, and how many records they should hold."""
    by_name = {found.name: found for found in builder.info.splits if found.shard_lengths}
    if split not in by_name:
        names = ", ".join(by_name) or "none"
        raise DatasetError(f"{builder.folder}: expected one of the splits {names}, found {split!r}")
    lengths, template = by_name[split].shard_lengths, by_name[split].filepath_template or TEMPLATE
    digits = max(5, len(str(len(lengths))))
    texts = {"DATASET": builder.info.name, "SPLIT": split, "FILEFORMAT": "tfrecord"}
    texts["SHARD_X_OF_Y"] = "{SHARD_INDEX}-of-{NUM_SHARDS}"
    texts["NUM_SHARDS"] = f"{len(lengths):0{digits}}"
    for key, text in texts.items():
        template = template.replace(f"{{{key}}}", text)
    numbers = (f"{number:0{digits}}" for number in range(len(lengths)))
    paths = [join(builder.folder, template.replace("{SHARD_INDEX}", n)) for n in numbers]
    return paths, sum(lengths)


# ------------------------------------------------------------------------------------------------
# The records
# ------------------------------------------------------------------------------------------------


def _as_api(index: Index, builder: _Builder, judge: Judge) -> Index:
    """The index of the same records, had they the keys of the TF Object Detection API."""
    none = np.zeros(len(index) + 1, np.int64)
    columns = {key: Column(np.zeros(0, np.int32), none) for key in KEYS}
    columns |= {api: index.columns[key] for api, key in builder.keys.items()}
    for api in ("image/filename", "image/source_id"):
        if columns[api].values.dtype == np.int64:
            texts = tuple(str(value).encode() for value in columns[api].values.tolist())
            codes = np.arange(len(texts), dtype=np.int32)
            columns[api] = Column(codes, columns[api].row_splits, texts)
    boxes = index.columns[builder.bbox]
    within = np.arange(len(boxes.values)) - np.repeat(boxes.row_splits[:-1], boxes.counts)
    for place, corner in ((0, "ymin"), (1, "xmin"), (2, "ymax"), (3, "xmax")):
        # Where the numbers of a record are no fours, its corners differ in number and are refused.
        splits = np.concatenate([[0], np.cumsum((boxes.counts + 3 - place) // 4)])
        values = boxes.values[within % 4 == place].astype(np.float64)
        columns[f"image/object/bbox/{corner}"] = Column(values, splits)
    if (builder.info.module_name or OWN).startswith(OWN):
        _put_right(columns, index, builder, judge)
    return replace(index, columns=columns)


def _put_right(columns: dict[str, Column], index: Index, builder: _Builder, judge: Judge) -> None:
    """Corrects the boxes of TFDS's builders that count in another way."""
    xmin, ymin, _, ymax = (columns[key] for key in CORNERS)
    num_boxes = len(xmin.values)
    message = f"{builder.folder}: so TFDS's {builder.info.name} has them"
    if builder.info.name == "voc":
        for column, sides in ((xmin, index.headers[:, 0]), (ymin, index.headers[:, 1])):
            column.values[:] -= 1 / np.repeat(np.maximum(sides, 1), column.counts)
        judge.defects.add("corner counted from 1, moved by a pixel", message, num_boxes)
    elif builder.info.name == "kitti":
        columns[CORNERS[1]] = replace(ymax, values=1 - ymax.values)
        columns[CORNERS[3]] = replace(ymin, values=1 - ymin.values)
        judge.defects.add("box counted from the bottom, turned over", message, num_boxes)


# ------------------------------------------------------------------------------------------------
# The format
# ------------------------------------------------------------------------------------------------


def _find_splits(root: Path) -> list[str]:
    if _find_folder(address(root)) is None:
        return []
    return [split.name for split in _open(root).info.splits if split.shard_lengths]


def _undivided(root: Path) -> str | None:
    splits = _find_splits(root)
    return splits[0] if len(splits) == 1 else None


FORMAT = Format(
    read_tfds,
    tfds_classes,
    _find_splits,
    _undivided,
    declares_classes=True,
    numbers_classes=True,
)
