"""Measures a detector on a dataset: PASCAL VOC average precision, curves, confusion matrix, files.

    python evaluate.py                           the latest run of config.py, on its val split
    python evaluate.py runs/shapes-2 --split train
    python evaluate.py --detections comp4_dir/   detections from elsewhere, without a model

The last line printed is the headline: `VOC mAP@0.50: 0.8123`.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from loguru import logger
from rich.table import Table

import configs
from configs import Config
from core.metrics.arrays import Detections, GroundTruth
from core.metrics.voc import VocResult, confusion_matrix, voc_metric
from data.datasets import prepare, read_split
from data.detections import DetectionTable, read_devkit, read_json, write_devkit, write_json
from data.records import Dataset, DatasetError
from detector import open_detector
from utils.diary import console, diary
from utils.files import write_text
from utils.plots import confusion_matrix_picture, precision_recall_curves

CONFUSION_SCORE = 0.25  # detections below are no predictions in the confusion matrix


def main(argv: list[str] | None = None) -> float:
    """Runs the command line; returns the headline's mAP. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    with diary():
        if args.detections:
            run, config = None, configs.load(args.config or "config.py", args.overrides)
            split = args.split or config.data.val
            dataset = read_split(config.data, split, prepare(config.data))
            table = read_detections(args.detections, split, dataset)
        else:
            run, config, detector = open_detector(
                args.weights, args.config, args.overrides, args.eager
            )
            split = args.split or config.data.val
            dataset = read_split(config.data, split, detector.classes)
            start = time.perf_counter()
            table = detector.detect_dataset(dataset, config.evaluate.batch_size)
            logger.info("{:.1f} images/s", len(dataset) / (time.perf_counter() - start))
        out = Path(args.out) if args.out else run and run / evaluation_folder(split, config)
        result = score(table, dataset, config)
        report = summarize(result, table, dataset, config)
        if out:
            write_all(out, split, result, report, table, dataset)
        if args.json:
            write_text(Path(args.json), json.dumps(report, indent=1))
        show(result, dataset, config)
    print(report["headline"], flush=True)
    return report["map"]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="?", help="a run's folder or a checkpoint")
    parser.add_argument("--config", help="default: the run's own, else config.py")
    parser.add_argument(
        "--set", nargs="*", default=[], action="extend", metavar="FIELD=VALUE", dest="overrides"
    )
    parser.add_argument("--split", help="default: data.val")
    parser.add_argument("--detections", help="a .json of this program or a folder of comp4_det_*")
    parser.add_argument("--out", help="folder for files and pictures; default: RUN/evaluation")
    parser.add_argument("--json", help="file for all figures")
    parser.add_argument("--eager", action="store_true", help="no compiled graph, for breakpoints")
    args = parser.parse_args(argv)
    if args.weights and args.detections:
        parser.error("either weights or --detections")
    return args


def read_detections(path: str | Path, split: str, dataset: Dataset) -> DetectionTable:
    """Detections of this program's JSON or of a folder of devkit files."""
    if Path(path).is_dir():
        return read_devkit(path, image_set(split), dataset.image_ids, dataset.classes)
    return read_json(path, dataset.image_ids, dataset.classes)[0]


def evaluation_folder(split: str, config: Config) -> str:
    """evaluation for the validation split, evaluation_<split> for another."""
    return "evaluation" if split == config.data.val else f"evaluation_{image_set(split)}"


def image_set(split: str) -> str:
    """The split as it stands in the devkit's file names."""
    return split.replace("/", "_").replace("+", "_").replace(" ", "")


def arrays(table: DetectionTable, dataset: Dataset) -> tuple[Detections, GroundTruth]:
    """What the metrics take."""
    return (
        Detections(table.image, table.boxes, table.scores, table.labels),
        GroundTruth(
            dataset.image_index,
            dataset.boxes,
            dataset.labels,
            dataset.difficult,
            dataset.ignore,
            dataset.areas,
        ),
    )


def require_objects(dataset: Dataset) -> None:
    """Raises DatasetError where there is nothing to find, so that no mAP is defined."""
    if (dataset.difficult | dataset.ignore).all():
        raise DatasetError(f"{dataset.name}: expected objects that are not difficult, found none")


def score(table: DetectionTable, dataset: Dataset, config: Config) -> VocResult:
    """The metric as the config wants it. Raises DatasetError where there is nothing to find."""
    settings = config.evaluate
    require_objects(dataset)
    return voc_metric(
        *arrays(table, dataset),
        len(dataset.classes),
        settings.iou_thresholds,
        plus_one=settings.plus_one,
        strict=settings.strict,
    )


def mean_ap(result: VocResult, config: Config) -> float:
    """mAP at the first IoU threshold, by the rule of the config."""
    values = result.map_area if config.evaluate.ap == "area" else result.map_11_point
    return float(values[0])


def headline(result: VocResult, config: Config) -> str:
    return f"VOC mAP@{result.iou_thresholds[0]:.2f}: {mean_ap(result, config):.4f}"


def summarize(result: VocResult, table: DetectionTable, dataset: Dataset, config: Config) -> dict:
    """Every figure of an evaluation, JSON-ready; None where a class has no objects."""

    def number(value) -> float | None:
        return None if math.isnan(value) else float(value)

    classes = {}
    for k, name in enumerate(dataset.classes):
        first = result.classes[0][k]
        classes[name] = {
            "objects": first.num_objects,
            "recall": number(first.max_recall),
            "best": {key: number(value) for key, value in vars(first.best).items()},
            "ap": {
                f"{iou:g}": {
                    "area": number(row[k].ap_area),
                    "11point": number(row[k].ap_11_point),
                }
                for iou, row in zip(result.iou_thresholds, result.classes, strict=True)
            },
        }
    matrix = confusion_matrix(
        *arrays(table, dataset), len(dataset.classes), score_threshold=CONFUSION_SCORE
    )
    names = [*dataset.classes, "background"]
    confusion = {"score_threshold": CONFUSION_SCORE, "classes": names, "rows": matrix.tolist()}
    return {
        "headline": headline(result, config),
        "map": mean_ap(result, config),
        "map_by_iou": {
            f"{iou:g}": {"area": number(area), "11point": number(points)}
            for iou, area, points in zip(
                result.iou_thresholds, result.map_area, result.map_11_point, strict=True
            )
        },
        "dataset": dataset.name,
        "images": len(dataset),
        "detections": len(table),
        "defects": dataset.defects.counts(),
        "settings": configs.to_dict(config.evaluate),
        "classes": classes,
        "confusion_matrix": confusion,
    }


def show(result: VocResult, dataset: Dataset, config: Config) -> None:
    """Prints the table per class."""
    aps = result.ap_area if config.evaluate.ap == "area" else result.ap_11_point
    table = Table(title=f"{dataset.name}: {len(dataset)} images", title_justify="left")
    table.add_column("class")
    columns = [f"AP@{iou:.2f}" for iou in result.iou_thresholds]
    for name in [*columns, "objects", "recall", "precision*", "recall*", "F1*", "score*"]:
        table.add_column(name, justify="right")
    for k, name in enumerate(dataset.classes):
        first = result.classes[0][k]
        best = (first.best.precision, first.best.recall, first.best.f1, first.best.score)
        cells = [f"{ap:.4f}" for ap in aps[:, k]] + [str(first.num_objects)]
        table.add_row(name, *cells, *(f"{v:.3f}" for v in (first.max_recall, *best)))
    table.caption = "* at the score of the best F1"
    console.print(table)


def write_all(
    out: Path,
    split: str,
    result: VocResult,
    report: dict,
    table: DetectionTable,
    dataset: Dataset,
) -> None:
    """metrics.json, detections.json, the devkit's files and the pictures."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "metrics.json", json.dumps(report, indent=1))
    write_json(out / "detections.json", table, dataset.sizes)
    write_devkit(out / "devkit", image_set(split), table)
    curves = {
        name: (one.recall, one.precision, one.ap_area)
        for name, one in zip(dataset.classes, result.classes[0], strict=True)
    }
    title = f"{dataset.name}, IoU {result.iou_thresholds[0]:.2f}"
    precision_recall_curves(out / "precision_recall.png", curves, title)
    matrix = np.array(report["confusion_matrix"]["rows"])
    confusion_matrix_picture(out / "confusion_matrix.png", matrix, dataset.classes)
    logger.info("figures, curves and detections in {}", out)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
