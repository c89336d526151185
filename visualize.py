"""Draws what a detector sees: one image, a folder of images, or a split with its ground truth.

    python visualize.py photo.jpg
    python visualize.py holiday/ --weights runs/voc --threshold 0.5
    python visualize.py --split val --limit 24       detections beside the truth

Writes annotated images and a contact sheet to RUN/pictures or --out.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from loguru import logger

import configs
from data.datasets import read_split
from data.detections import DetectionTable
from data.images import IMAGE_SUFFIXES, decode_image
from data.records import Dataset, first_images
from detector import open_detector, unlabelled
from utils.diary import diary
from utils.draw import contact_sheet, draw_boxes, side_by_side, write_image

SHEET = 24  # pictures on the contact sheet


def main(argv: list[str] | None = None) -> Path:
    """Runs the command line; returns the folder written. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    with diary():
        folder, config, detector = open_detector(args.weights, args.config, args.overrides)
        if args.source:
            dataset = unlabelled(find_images(args.source), detector.classes)
        else:
            dataset = read_split(config.data, args.split or config.data.val, detector.classes)
        if args.limit:
            dataset = first_images(dataset, args.limit)
        table = detector.detect_dataset(dataset)
        out = Path(args.out) if args.out else folder / "pictures"
        draw_all(out, dataset, table, args.threshold, beside_truth=not args.source)
        logger.info("{} pictures in {}", len(dataset), out)
    return out


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="?", help="an image or a folder; default: a dataset split")
    parser.add_argument("--weights", help="a run's folder or a checkpoint; default: the latest run")
    parser.add_argument("--split", help="of the config's dataset; default: data.val")
    parser.add_argument("--limit", type=int, help="at most this many images")
    parser.add_argument("--threshold", type=float, default=0.3, help="lowest score to draw")
    parser.add_argument("--out", help="folder; default: RUN/pictures")
    configs.add_arguments(parser, None, "default: the run's own, else config.py")
    args = parser.parse_args(argv)
    if args.source and args.split:
        parser.error("either a source or --split")
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit: expected at least 1, found {args.limit}")
    return args


def find_images(source: str | Path) -> list[Path]:
    """The image itself, or all images directly in a folder, by name. Raises ValueError if none."""
    source = Path(source)
    if source.is_dir():
        found = sorted(p for p in source.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise ValueError(f"{source}: expected images ({', '.join(IMAGE_SUFFIXES)}), found none")
        return found
    if not source.is_file():
        raise ValueError(f"{source}: no such file or folder")
    return [source]


def draw_all(
    out: Path, dataset: Dataset, table: DetectionTable, threshold: float, beside_truth: bool
) -> None:
    """One picture an image and `contact_sheet.png`."""
    draw = with_truth if beside_truth else with_detections
    sheet = []
    for i, image in enumerate(dataset.images):
        picture = draw(dataset, i, table, threshold)
        write_image(out / f"{i:05d}_{Path(image).stem}.jpg", picture)
        if len(sheet) < SHEET:
            sheet.append(picture)
    cell = (256, 512) if beside_truth else (320, 320)
    write_image(out / "contact_sheet.png", contact_sheet(sheet, cell=cell))


def with_detections(
    dataset: Dataset, index: int, table: DetectionTable, threshold: float = 0.3
) -> np.ndarray:
    """An image of the dataset with its detections of at least the given score drawn on it."""
    return _detections_on(decode_image(dataset.images[index]), index, table, threshold)


def _detections_on(
    image: np.ndarray, index: int, table: DetectionTable, threshold: float
) -> np.ndarray:
    shown = np.flatnonzero((table.image == index) & (table.scores >= threshold))
    return draw_boxes(
        image,
        table.boxes[shown],
        table.labels[shown],
        table.classes,
        table.scores[shown],
    )


def with_truth(
    dataset: Dataset, index: int, table: DetectionTable, threshold: float = 0.3
) -> np.ndarray:
    """The annotated objects at the left, the detections at the right."""
    image, rows = decode_image(dataset.images[index]), dataset.rows(index)
    labels = np.where(dataset.ignore[rows], len(dataset.classes), dataset.labels[rows])
    truth = draw_boxes(
        image,
        dataset.boxes[rows],
        labels,
        (*dataset.classes, "ignore"),
        style="dashed",
    )
    detections = _detections_on(image, index, table, threshold)
    return side_by_side(truth, detections, ("ground truth", "detections"))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
