"""What records cost beside files: `python -m benchmarks.tfrecord`, 100,000 images with --images.

Generates, in a temporary folder, JPEGs of some 20 KB with ten objects each as files with COCO's
annotations and as TFRecords in 64 shards, and measures, each time in a fresh process:

- index: the first reading of the records, which indexes them, after TensorFlow is imported;
- start: what a training does before its first step once the index is there - the classes, the
  training split, how many bits its images use - against the same of the files;
- input: images/s of training batches (flip and scale, 256x256, batches of 8).

Files and shards are in the system's cache. Leaves in --out tfrecord.json and tfrecord.md.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.interleave import once
from benchmarks.program import begin, leave, make_parser, markdown_table

IMAGES, SHARDS, OBJECTS, SIDE = 20_000, 64, 10, 256
DIFFERENT = 64  # images that are drawn; the others are copies of them
SECONDS = 5.0  # of a round of `input`
RECORDS, FILES = "records", "files"


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "tfrecord", rounds=3)
    parser.add_argument("--images", type=int, default=IMAGES)
    args = parser.parse_args(argv)
    report = begin(args.busy) | {"images": args.images}
    with tempfile.TemporaryDirectory() as folder:
        report["bytes"] = generate(Path(folder), args.images)
        report["index"] = [run("index", RECORDS, folder) for _ in range(args.rounds)]
        for what in ("start", "input"):
            found: dict[str, list[float]] = {RECORDS: [], FILES: []}
            for _ in range(args.rounds):
                for name, values in found.items():
                    values.append(run(what, name, folder))
            report[what] = found
    print(leave(args.out, "tfrecord", report, markdown(report)))


def run(what: str, name: str, folder: str) -> float:
    """Seconds of an index or a start, images/s of the input."""
    fields = {"what": what, "name": name, "folder": folder}
    return once("benchmarks.tfrecord", fields)["found"]


# ------------------------------------------------------------------------------------------------
# The dataset
# ------------------------------------------------------------------------------------------------


def generate(root: Path, images: int) -> int:
    """Writes the same images and boxes as files and as records; returns an image's bytes."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    drawn = [drawing(rng) for _ in range(min(DIFFERENT, images))]
    corners = np.sort(rng.integers(0, SIDE, [images, OBJECTS, 2, 2]), axis=2)
    corners[:, :, 1] += 1
    labels = rng.integers(0, 20, [images, OBJECTS])
    (root / FILES / "train").mkdir(parents=True)
    (root / RECORDS).mkdir()
    entries: dict[str, list] = {"images": [], "annotations": []}
    entries["categories"] = [{"id": n + 1, "name": f"class {n}"} for n in range(20)]
    for shard, numbers in enumerate(np.array_split(np.arange(images), SHARDS)):
        path = root / RECORDS / f"train-{shard:05d}-of-{SHARDS:05d}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in numbers.tolist():
                data, name = drawn[number % len(drawn)], f"{number:012d}.jpg"
                (root / FILES / "train" / name).write_bytes(data)
                boxes = corners[number].reshape(OBJECTS, 4)
                writer.write(example(data, name, boxes, labels[number]))
                entries["images"].append(
                    {"id": number, "file_name": name, "width": SIDE, "height": SIDE}
                )
                entries["annotations"] += annotations(number, boxes, labels[number])
    (root / FILES / "train.json").write_text(json.dumps(entries), encoding="utf-8")
    return round(statistics.mean(map(len, drawn)))


def drawing(rng: np.random.Generator) -> bytes:
    """A JPEG of some 20 KB: colours that change slowly, and a camera's noise."""
    coarse = rng.integers(0, 256, (16, 16, 3)).astype(np.float32)
    pixels = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    pixels = pixels + rng.normal(0, 6, pixels.shape)
    done, data = cv2.imencode(".jpg", pixels.clip(0, 255), [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done
    return data.tobytes()


def example(data: bytes, name: str, boxes: np.ndarray, labels: np.ndarray) -> bytes:
    import tensorflow as tf

    def feature(**values: Any) -> Any:
        return tf.train.Feature(**values)

    def texts(*values: bytes) -> Any:
        return feature(bytes_list=tf.train.BytesList(value=values))

    def numbers(*values: int) -> Any:
        return feature(int64_list=tf.train.Int64List(value=values))

    features = {
        "image/encoded": texts(data),
        "image/format": texts(b"jpeg"),
        "image/filename": texts(name.encode()),
        "image/source_id": texts(name.encode()),
        "image/width": numbers(SIDE),
        "image/height": numbers(SIDE),
        "image/object/class/text": texts(*(f"class {label}".encode() for label in labels)),
        "image/object/class/label": numbers(*(labels + 1).tolist()),
        "image/object/is_crowd": numbers(*[0] * len(labels)),
    }
    for column, corner in enumerate(("xmin", "ymin", "xmax", "ymax")):
        values = (boxes[:, column] / SIDE).tolist()
        features[f"image/object/bbox/{corner}"] = feature(
            float_list=tf.train.FloatList(value=values)
        )
    whole = tf.train.Features(feature=features)
    return tf.train.Example(features=whole).SerializeToString()


def annotations(number: int, boxes: np.ndarray, labels: np.ndarray) -> list[dict]:
    sizes = boxes[:, 2:] - boxes[:, :2]
    return [
        {
            "id": number * OBJECTS + row,
            "image_id": number,
            "category_id": int(label) + 1,
            "bbox": [*box[:2].tolist(), *size.tolist()],
            "area": int(size.prod()),
            "iscrowd": 0,
        }
        for row, (box, size, label) in enumerate(zip(boxes, sizes, labels, strict=True))
    ]


# ------------------------------------------------------------------------------------------------
# What is measured, in a process of its own
# ------------------------------------------------------------------------------------------------


def make(what: str, name: str, folder: str) -> Callable[[], dict]:
    # As a training has it; its import is no part of what is compared.
    import tensorflow as tf

    from configs.schema import Data
    from data.datasets import class_names, read_split

    del tf
    os.environ["RETINANET_CACHE"] = folder
    form = "tfrecord" if name == RECORDS else "coco"
    data = Data(format=form, root=f"{folder}/{name}", val="train")
    if what == "index":
        for path in (Path(folder) / name).glob(".*.index"):
            path.unlink()
    if what == "input":
        dataset = read_split(data, "train", class_names(data))
        return lambda: {"found": rate(dataset, data)}
    return lambda: {"found": start(data)}


def start(data: Any) -> float:
    from data.datasets import class_names, read_split
    from data.images.bit_depth import depth_of

    begun = time.perf_counter()
    dataset = read_split(data, "train", class_names(data))
    depth_of(dataset.images)
    return time.perf_counter() - begun


def rate(dataset: Any, data: Any) -> float:
    """Images/s of training batches, the first 16 of them not counted."""
    from dataclasses import replace

    from configs.schema import Augment, Canvas
    from data.pipeline import training_batches

    data = replace(data, augment=Augment(zoom=(0.8, 1.5)))
    batches = training_batches(
        dataset, data, Canvas(SIDE, SIDE), batch_size=8, seed=0, epochs=range(1000)
    ).as_numpy_iterator()
    for _ in range(16):
        next(batches)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < SECONDS:
        next(batches)
        count += 8
    return count / (time.perf_counter() - begun)


# ------------------------------------------------------------------------------------------------
# The report
# ------------------------------------------------------------------------------------------------


def markdown(report: dict) -> str:
    """Medians of the rounds, and what records take of what files do."""
    index, images = statistics.median(report["index"]), report["images"]
    rows = [["first indexing", f"{index:.1f} s", "", f"{images / index:,.0f} images/s"]]
    for what, unit in (("start", "s"), ("input", "images/s")):
        records, files = (statistics.median(report[what][name]) for name in (RECORDS, FILES))
        ratio = f"{records / files:.2f} x files"
        rows.append([what, f"{records:,.2f} {unit}", f"{files:,.2f} {unit}", ratio])
    heading = ("", RECORDS, "files, COCO JSON", "")
    return (
        f"{images:,} images of {report['bytes']:,} bytes in {SHARDS} shards\n\n"
        f"{markdown_table(heading, rows)}\n\nMedians of {len(report['index'])} runs."
    )


if __name__ == "__main__":
    main()
