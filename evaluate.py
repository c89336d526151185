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
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from loguru import logger

import configs
from configs import Config
from data.datasets import log_defects, prepare, read_split
from data.detections.coco import read_coco_results, write_coco_results
from data.detections.devkit import read_devkit, write_devkit
from data.detections.odgt import read_odgt, read_odgt_sizes, write_odgt
from data.detections.project_json import read_json, read_json_sizes, write_json
from data.detections.table import DetectionTable
from data.doctor.object_counts import limits
from data.files import open_data
from data.records import Dataset, DatasetError
from detector import open_detector
from scoring import Scores, draw, score, summarize
from utils.diary import console, diary
from utils.files import write_text
from utils.program import make_parser, run_program


def main(argv: list[str] | None = None) -> float:
    """Runs the command line; returns the headline's figure. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    with diary():
        if args.detections:
            run, config = None, configs.load(args.config or "config.py", args.overrides)
            split = args.split or config.data.val
            sizes = image_sizes(args.detections)
            dataset = read_split(config.data, split, prepare(config.data, split), sizes)
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
        report = summarize(scores, table)
        if out:
            write_all(out, split, scores, report, table)
        if args.json:
            write_text(Path(args.json), json.dumps(report, indent=1))
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


def read_detections(path: str | Path, split: str, dataset: Dataset) -> DetectionTable:
    """Detections of a file or folder in any of the formats that `write_all` writes.

    Raises DatasetError as the format's reader does.
    """
    path = Path(path)
    if path.is_dir():
        return read_devkit(path, image_set(split), dataset.image_ids, dataset.classes)
    if is_odgt(path):
        return read_odgt(path, dataset.image_ids, dataset.classes)[0]
    if is_of_images(path):
        return read_json(path, dataset.image_ids, dataset.classes)[0]
    return read_coco_results(path, dataset.image_ids, dataset.classes, dataset.category_ids)


def image_sizes(path: str | Path) -> dict[str, tuple[int, int]]:
    """Image id -> (width, height) as far as a file of detections says; nothing for a folder.

    Raises DatasetError where there is none.
    """
    path = Path(path)
    if path.is_dir():
        return {}
    if is_odgt(path):
        return read_odgt_sizes(path)
    return read_json_sizes(path) if is_of_images(path) else {}


def is_odgt(path: Path) -> bool:
    """Whether a file has an object a line, not one list."""
    return beginning(path).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def is_of_images(path: Path) -> bool:
    """Whether a JSON file has an entry an image, as ours have; COCO's have one a detection."""
    return b'"detections"' in beginning(path)


def beginning(path: Path) -> bytes:
    """The first bytes of a file of detections. Raises DatasetError if it cannot be read."""
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder of detections")
    with open_data(path) as file:
        return file.read(4096)


def warn_of_missing_classes(table: DetectionTable, dataset: Dataset) -> None:
    """Of classes that were perhaps not looked for: they count as not found at all."""
    there = set(dataset.labels[~dataset.ignore].tolist()) - set(table.labels.tolist())
    for label in sorted(there):
        logger.warning("{}: no detection at all of {}", dataset.name, dataset.classes[label])


def evaluation_folder(split: str, config: Config) -> str:
    """evaluation for the validation split, evaluation_<split> for another."""
    return "evaluation" if split == config.data.val else f"evaluation_{image_set(split)}"


def image_set(split: str) -> str:
    """The split as it stands in file names."""
    return split.replace("/", "_").replace("+", "_").replace(" ", "")


def write_all(out: Path, split: str, scores: Scores, report: dict, table: DetectionTable) -> None:
    """metrics.json, the detections in every format that can hold them, and the pictures."""
    dataset = scores.dataset
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "metrics.json", json.dumps(report, indent=1))
    write_json(out / "detections.json", table, dataset.sizes)
    write_coco_results(out / "coco_results.json", table, dataset.category_ids)
    write_devkit(out / "devkit", image_set(split), table)
    if scores.config.data.format == "crowdhuman":
        write_odgt(out / "detections.odgt", table, dataset.sizes)
    draw(out, scores, report)
    logger.info("figures, curves and detections in {}", out)


if __name__ == "__main__":
    run_program(main)
