"""Precision over recall of a run, kept as a small file, and the picture of it.

    python -m images.curves runs/bccd        writes images/bccd_precision_recall.csv anew

From the run's evaluation/detections.json and the dataset, which must still be there.
"""

import csv
from pathlib import Path
from utils.program import make_parser, run_program

import numpy as np

import configs
from data.datasets import class_names, read_split
from data.detections.project_json import JSON
from results.scoring import Scores, score
from utils.files import whole_file
from utils.plots import precision_recall_curves

CURVES_FILE = Path(__file__).with_name("bccd_precision_recall.csv")


def main(argv: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("run", help="a run's folder, with its evaluation")
    run = Path(parser.parse_args(argv).run)
    config = configs.load(run / "config.json")
    dataset = read_split(config.data, config.data.val, class_names(config.data, config.data.val))
    file = run / "evaluation" / "detections.json"
    table = JSON.read(file, dataset.image_ids, dataset.classes)
    store(CURVES_FILE, score(table, dataset, config))


def store(path: str | Path, scores: Scores) -> None:
    """VOC's curves at the first IoU: a line for each object that is found.

    Raises ValueError for the scores of another metric.
    """
    if scores.config.metric != "voc":
        raise ValueError(f"evaluate.metric: expected voc, found {scores.config.metric}")
    with whole_file(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("class", "ap", "recall", "precision"))
        for name, (recall, precision, ap) in scores.curves.items():
            is_found = np.diff(recall, prepend=0.0) > 0
            points = np.stack([recall, precision], axis=1)[is_found]
            writer.writerows((name, *(f"{x:.4f}" for x in (ap, *p))) for p in points)


def draw(path: str | Path, curves_file: str | Path = CURVES_FILE) -> None:
    """The curves of a file of `store`."""
    points: dict[str, list[tuple[float, float]]] = {}
    precisions: dict[str, float] = {}
    with open(curves_file, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            point = (float(row["recall"]), float(row["precision"]))
            points.setdefault(row["class"], []).append(point)
            precisions[row["class"]] = float(row["ap"])
    curves = {}
    for name, pairs in points.items():
        recalls, values = np.transpose(pairs)
        curves[name] = (recalls, values, precisions[name])
    precision_recall_curves(path, curves, "BCCD test, IoU 0.50")


if __name__ == "__main__":
    run_program(main)
