"""What export costs: size on disk, time an image, and how far detections move, for each format.

    python -m benchmarks.export PATH/TO/RUN PATH/TO/PHOTOS

Each format of export.py is written, opened by deploy/exported.py in its own runtime and shown the
photos, decoded, one at a time; the detector itself sees the same pixels. A detection that the
detector gives at least --threshold is found again if one of its class overlaps it by IoU > 0.5; of
these the 99th percentile and the largest of the differences are reported, of the others, in either
direction, the number. Leaves in --out the files, export.json and export.md.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.program import begin, leave, make_parser, markdown_table
from data.images.decode import IMAGE_SUFFIXES, decode_image
from deploy.exported import ExportedDetector
from deploy.onnx import write_onnx
from deploy.savedmodel import write_savedmodel
from deploy.tflite import write_tflite
from detector import Detector
from export import megabytes
from utils.boxes import pairwise_iou

FORMATS = {  # name -> file, and what writes it
    "SavedModel": ("savedmodel", write_savedmodel, {}),
    "ONNX": ("detector.onnx", write_onnx, {}),
    "ONNX, NMS outside": ("detector_candidates.onnx", write_onnx, {"nms": "outside"}),
    "TFLite float32": ("detector.tflite", write_tflite, {}),
    "TFLite float16": ("detector_float16.tflite", write_tflite, {"precision": "float16"}),
    "TFLite int8": ("detector_int8.tflite", write_tflite, {"precision": "int8"}),
}

Detections = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes (D, 4), scores (D,), labels (D,)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "export")
    parser.add_argument("run", help="a run's folder or a checkpoint")
    parser.add_argument("photos", help="a folder of images")
    parser.add_argument("--limit", type=int, default=20, help="photos, the first by name")
    parser.add_argument("--threshold", type=float, default=0.3, help="lowest score compared")
    args = parser.parse_args(argv)
    report = begin(args.busy)
    paths = sorted(p for p in Path(args.photos).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    images = [decode_image(path) for path in paths[: args.limit]]
    rows = measure(Detector.load(args.run), images, Path(args.out), args.threshold)
    report |= {"photos": len(images), "threshold": args.threshold, "formats": rows}
    print(leave(args.out, "export", report, markdown(report)))


def measure(
    detector: Detector, images: Sequence[np.ndarray], out: Path, threshold: float
) -> list[dict[str, Any]]:
    """A row for the detector itself and one for each format."""
    expected, seconds = of_detector(detector, images)
    rows = [{"name": "this project", "seconds": seconds}]
    for name, (file, write, options) in FORMATS.items():
        path = out / file
        start = time.perf_counter()
        write(detector, path, **options)
        writing = time.perf_counter() - start
        model = ExportedDetector.load(path, threads=len(os.sched_getaffinity(0)))
        found, seconds = timed(lambda image, model=model: model.detect(image)[:3], images)
        gaps = [deviation(a, b, threshold) for a, b in zip(found, expected, strict=True)]
        row = {"name": name, "seconds": seconds, "megabytes": megabytes(path), "writing": writing}
        rows.append(row | summed(gaps))
    return rows


def of_detector(detector: Detector, images: Sequence[np.ndarray]) -> tuple[list[Detections], float]:
    """Its detections, of files without loss, so that the pixels are the same; seconds an image, of
    all of them in one go, one a batch."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i:05d}.png" for i in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        detector.detect(paths, batch_size=1)  # compiles
        start = time.perf_counter()
        table = detector.detect(paths, batch_size=1)
        seconds = (time.perf_counter() - start) / len(images)
    rows = [table.image == i for i in range(len(images))]
    return [(table.boxes[row], table.scores[row], table.labels[row]) for row in rows], seconds


def timed(detect: Callable, images: Sequence[np.ndarray]) -> tuple[list[Detections], float]:
    """Detections of each image, and the median of their seconds, after each was seen once."""
    found, seconds = [detect(image) for image in images], []
    for image in images:
        start = time.perf_counter()
        detect(image)
        seconds.append(time.perf_counter() - start)
    return found, float(np.median(seconds))


def deviation(found: Detections, expected: Detections, threshold: float) -> dict[str, Any]:
    """How far detections of one image lie from those of the detector.

    Of those of `expected` with at least `threshold`: due, how many; lost, those without a
    counterpart; pixels and scores (due - lost,), the others' differences, of a box its largest.
    new: those of `found` without one.
    """
    overlap = pairwise_iou(expected[0], found[0]).numpy()
    overlap[expected[2][:, None] != found[2]] = 0
    overlap = np.pad(overlap, [(0, 1), (0, 1)])  # a row and a column of none, if there are none
    is_due, is_strong = expected[1] >= threshold, found[1] >= threshold
    is_found = is_due & (overlap.max(axis=1)[:-1] > 0.5)
    partner = overlap.argmax(axis=1)[:-1][is_found]
    return {
        "due": int(is_due.sum()),
        "lost": int(is_due.sum() - is_found.sum()),
        "new": int((is_strong & (overlap.max(axis=0)[:-1] <= 0.5)).sum()),
        "pixels": abs(found[0][partner] - expected[0][is_found]).max(axis=1, initial=0),
        "scores": abs(found[1][partner] - expected[1][is_found]),
    }


def summed(gaps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of all images, JSON-ready: counts added up; of differences 99th percentile and largest."""
    total = {name: sum(gap[name] for gap in gaps) for name in ("due", "lost", "new")}
    for name in ("pixels", "scores"):
        values = np.concatenate([gap[name] for gap in gaps])
        total[name] = [float(np.percentile(values, q)) if len(values) else 0.0 for q in (99, 100)]
    return total


def markdown(report: dict[str, Any]) -> str:
    rows = []
    for row in report["formats"]:
        cells = [row["name"], "", f"{1000 * row['seconds']:.0f} ms", "", "", ""]
        if "megabytes" in row:
            cells[1] = f"{row['megabytes']:.1f} MB"
            cells[3] = "{:.1g}, {:.2g} pixels".format(*row["pixels"])
            cells[4] = "{:.1g}, {:.1g}".format(*row["scores"])
            cells[5] = f"{row['lost']}, {row['new']}, {row['due']}"
        rows.append(cells)
    heading = (
        f"{report['photos']} photos, scores from {report['threshold']:g}", "on disk", "an image",
        "boxes differ by, 99 %, all", "scores", "lost, new, of",
    )  # fmt: skip
    return markdown_table(heading, rows)


if __name__ == "__main__":
    main()
