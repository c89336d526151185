"""Dataset -> TFRecord: <split>-00000-of-00004 and label_map.pbtxt; images lie in the records.

The layout is the TF Object Detection API's, a tf.Example an image:
https://github.com/tensorflow/models, research/object_detection/g3doc/using_your_own_dataset.md;
flags and areas under the keys of data_decoders/tf_example_decoder.py there.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.files import read_data
from data.images.decode import MAX_BYTES, UNREADABLE, parse_header
from data.records import DECIMALS, Dataset
from data.writers.common import check_names, lost
from utils.files import write_error, write_text

SHARD_BYTES = 2**28  # at which the next shard begins; TensorFlow's guides advise 100 MB and more
# A pixel's parts to which readers round: of up to 2**14 px a float32 fraction tells them all.
GRID = 1024
_KINDS = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"BM": "bmp", b"GI": "gif", b"RI": "webp",
          b"II": "tiff", b"MM": "tiff"}  # fmt: skip


def write_tfrecord(
    dataset: Dataset,
    root: str | Path,
    split: str,
    names: Sequence[str],
    advance: Callable[[], object] = lambda: None,
) -> list[str]:
    """Writes one split as TFRecord files, and label_map.pbtxt, which is the same for all splits.

    names: file names of the images, for image/filename; an image's id becomes image/source_id.
    advance: called after each image. Images are written as their files are. A region to ignore has
    is_crowd 1. Boxes are float32 fractions of the image as it is seen, EXIF orientation applied.
    Returns the losses. Raises ValueError for a name that cannot be used, DatasetError for an image
    that cannot be read, WriteError where the disk refuses.
    """
    check_names(names, dataset)
    numbers = [number for number in dataset.category_ids if isinstance(number, int) and number > 0]
    if is_renumbered := len(numbers) < len(dataset.classes):
        numbers = [*range(1, len(dataset.classes) + 1)]
    items = zip(numbers, dataset.classes, strict=True)
    write_text(Path(root) / "label_map.pbtxt", "".join(_item(*item) for item in items))
    held, areas = _held(dataset)
    num_of = {"other": 0, "turned": 0}

    def records() -> Iterator[bytes]:
        for index, image in enumerate(dataset.images):
            data = read_data(image, MAX_BYTES, UNREADABLE)
            num_of["turned"] += parse_header(data, image).orientation > 1
            kind = _KINDS[data[:2]]
            num_of["other"] += kind not in ("jpeg", "png")
            yield _serialized(
                {
                    "image/encoded": [data],
                    "image/format": [kind.encode()],
                    "image/filename": [names[index].encode()],
                    "image/source_id": [dataset.image_ids[index].encode()],
                    "image/key/sha256": [hashlib.sha256(data).hexdigest().encode()],
                    **_annotations(dataset, index, numbers, areas),
                }
            )
            advance()

    _write_shards(Path(root), split, records())
    is_rounded = (held != dataset.boxes).any(axis=1)
    others = areas[dataset.areas != _areas(dataset.boxes)]
    digits = [float(str(area)) for area in others.astype(np.float32)]
    return [
        *lost(np.count_nonzero(is_rounded), f"boxes: rounded to 1/{GRID} pixel"),
        *lost(np.count_nonzero(digits != others), "areas: rounded to float32"),
        *lost(
            is_renumbered * len(numbers), "category ids: those of a label map are numbers from 1 on"
        ),
        *lost(
            num_of["other"], "images neither JPEG nor PNG: the API takes no others, convert them"
        ),
        *lost(
            num_of["turned"],
            "EXIF orientations: boxes are of the image once turned, and "
            "TensorFlow's decoders do not turn it",
        ),
    ]


def _held(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """(T, 4) boxes as readers of float32 fractions find them, at 1/GRID pixel; (T,) areas."""
    sides = np.tile(dataset.sizes[dataset.image_index], 2).astype(np.float64)
    held = on_grid((dataset.boxes / sides).astype(np.float32) * sides)
    is_own = dataset.areas == _areas(dataset.boxes)
    return held, np.where(is_own, _areas(held), dataset.areas)


def on_grid(boxes: np.ndarray) -> np.ndarray:
    """Coordinates in pixels, made of float32 fractions, as their writer had them."""
    return np.round(np.round(boxes * GRID) / GRID, DECIMALS)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def _item(number: int, name: str) -> str:
    """A class in the label map."""
    return f"item {{\n  id: {number}\n  name: {json.dumps(name, ensure_ascii=False)}\n}}\n"


def _annotations(
    dataset: Dataset, index: int, numbers: Sequence[int], areas: np.ndarray
) -> dict[str, Any]:
    """What is said of an image and its objects, by the API's keys."""
    rows, (width, height) = dataset.rows(index), dataset.sizes[index].tolist()
    xmin, ymin, xmax, ymax = (dataset.boxes[rows] / [width, height, width, height]).T
    labels = dataset.labels[rows].tolist()
    return {
        "image/height": [height],
        "image/width": [width],
        "image/object/bbox/xmin": xmin,
        "image/object/bbox/xmax": xmax,
        "image/object/bbox/ymin": ymin,
        "image/object/bbox/ymax": ymax,
        "image/object/class/text": [dataset.classes[label].encode() for label in labels],
        "image/object/class/label": [numbers[label] for label in labels],
        "image/object/difficult": [*map(int, dataset.difficult[rows])],
        "image/object/is_crowd": [*map(int, dataset.ignore[rows])],
        "image/object/area": areas[rows],
    }


def _serialized(features: dict[str, Any]) -> bytes:
    """A tf.Example of arrays of floats, lists of bytes or of whole numbers; without empty ones."""
    import tensorflow as tf  # here, as it takes seconds

    def feature(values: Any) -> Any:
        if isinstance(values, np.ndarray):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    by_key = {key: feature(values) for key, values in features.items() if len(values)}
    example = tf.train.Example(features=tf.train.Features(feature=by_key))
    return example.SerializeToString(deterministic=True)  # keys in one order, run after run


def _write_shards(root: Path, split: str, records: Iterable[bytes]) -> None:
    """Writes files of about SHARD_BYTES, in order."""
    import tensorflow as tf

    size = 0
    paths: list[Path] = []

    def shard(record: bytes) -> int:
        nonlocal size
        size += len(record)
        return (size - len(record)) // SHARD_BYTES

    for _, group in itertools.groupby(records, shard):
        paths.append(root / f"{split}-{len(paths):05d}")
        try:
            with tf.io.TFRecordWriter(str(paths[-1])) as writer:
                for record in group:
                    writer.write(record)
        except tf.errors.OpError as error:  # of a disk, too, TensorFlow raises no OSError
            raise write_error(paths[-1], error) from error
    for path in paths:
        path.rename(f"{path}-of-{len(paths):05d}")
