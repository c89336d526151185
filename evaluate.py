"""Measures a detector on a dataset by VOC's, COCO's or CrowdHuman's metric: figures, curves, files.

    python evaluate.py                           the latest run of config.py, on its val split
    python evaluate.py runs/shapes-2 --split train
    python evaluate.py --metric coco             another metric than the one of the data's format
    python evaluate.py --detections FILE         detections from elsewhere, without a model: JSON or
                                                 odgt of this program, COCO results, comp4_det/

The last line printed is the headline: `VOC mAP@0.50: 0.8123`.
"""

import argparse
import json
import time
from pathlib import Path
from utils.program import make_parser, run_program

from loguru import logger

import configs
from data.datasets import class_names, log_defects, read_split
from data.detections.any_format import image_sizes, read_detections
from data.doctor.object_counts import limits
from data.records import Dataset
from detector import open_detector
from results.evaluation import evaluation_folder, write_all
from results.scoring import score
from utils.detections import DetectionTable
from utils.diary import console, diary
from utils.files import write_text


def main(argv: list[str] | None = None) -> float:
    """Runs the command line; returns the headline's figure. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    with diary():
        if args.detections:
            run, config = None, configs.load(args.config or "config.py", args.overrides)
            split = args.split or config.data.val
            sizes = image_sizes(args.detections)
            dataset = read_split(config.data, split, class_names(config.data, split), sizes)
            table = read_detections(args.detections, split, dataset)
            warn_of_missing_classes(table, dataset)
        else:
            run, config, detector = open_detector(
                args.weights, args.config, args.overrides, args.eager
            )
            split = args.split or config.data.val
            dataset = read_split(config.data, split, detector.classes)
            detect, is_coco = detector.config.detect, config.metric == "coco"
            for _, text in limits(dataset, detect.max_detections, detect.top_k, is_coco):
                logger.warning(text)
            start = time.perf_counter()
            table = detector.detect_dataset(dataset, config.evaluate.batch_size)
            logger.info("{:.1f} images/s", len(dataset) / (time.perf_counter() - start))
        out = Path(args.out) if args.out else run and run / evaluation_folder(split, config)
        log_defects(dataset)
        scores = score(table, dataset, config)
        if out:
            write_all(out, split, scores)
        if args.json:
            write_text(Path(args.json), json.dumps(scores.report, indent=1))
        console.print(scores.table())
    print(scores.headline, flush=True)
    return scores.value


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("weights", nargs="?", help="a run's folder or a checkpoint")
    configs.add_arguments(parser, None, "default: the run's own, else config.py")
    parser.add_argument("--split", help="default: data.val")
    parser.add_argument(
        "--metric",
        choices=("voc", "coco", "crowdhuman"),
        help="default: evaluate.metric, which follows the data's format",
    )
    parser.add_argument("--detections", help="a file or folder of detections, see above")
    parser.add_argument("--out", help="folder for files and pictures; default: RUN/evaluation")
    parser.add_argument("--json", help="file for all figures")
    parser.add_argument("--eager", action="store_true", help="no compiled graph, for breakpoints")
    args = parser.parse_args(argv)
    if args.detections:
        _refuse_of_a_model(parser, args)
    if args.metric and any(item.startswith("evaluate.metric") for item in args.overrides):
        parser.error("either --metric or --set evaluate.metric")
    if args.metric:
        args.overrides.append(f"evaluate.metric={args.metric}")
    return args


def _refuse_of_a_model(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Beside --detections no model runs: nothing is accepted and ignored."""
    if args.weights:
        parser.error("either weights or --detections")
    if args.eager:
        parser.error("--eager needs a model; --detections does not run one")
    for item in args.overrides:
        if item.startswith(("model.", "evaluate.batch_size")):
            parser.error(f"--set {item} needs a model; --detections does not run one")


def warn_of_missing_classes(table: DetectionTable, dataset: Dataset) -> None:
    """Of classes that were perhaps not looked for: they count as not found at all."""
    there = set(dataset.labels[~dataset.ignore].tolist()) - set(table.labels.tolist())
    for label in sorted(there):
        logger.warning("{}: no detection at all of {}", dataset.name, dataset.classes[label])


if __name__ == "__main__":
    run_program(main)
