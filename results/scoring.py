"""How good detections are by the metric a config asks for: its figures, its table, its pictures.

What train.py and evaluate.py share. `score` gives one of three classes of the same methods; the
headline and `value`, by which the best epoch is chosen, are the metric's own.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

import configs
from configs import Config
from core.metrics.arrays import Detections, GroundTruth
from core.metrics.coco import STAT_NAMES, CocoResult, coco_metric
from core.metrics.crowdhuman import REFERENCES, CrowdHumanResult, crowdhuman_metric
from core.metrics.voc import VocResult, confusion_matrix, voc_metric
from data.detections.table import DetectionTable
from data.records import Dataset, DatasetError
from utils.plots import confusion_matrix_picture, miss_rate_curves, precision_recall_curves

CONFUSION_SCORE = 0.25  # detections below are no predictions in the confusion matrix


@dataclass(frozen=True)
class Scores(ABC):
    """What a metric says of a split. result: what its function in core/metrics returned."""

    result: VocResult | CocoResult | CrowdHumanResult
    dataset: Dataset
    config: Config

    @property
    @abstractmethod
    def value(self) -> float:
        """The figure by which runs and epochs are compared; higher is better."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """One line."""

    @abstractmethod
    def figures(self) -> dict:
        """All figures but the curves, JSON-ready; None where a class has no objects."""

    @abstractmethod
    def rows(self) -> tuple[list[str], dict[str, list[str]], str]:
        """Names of the columns, class -> cells, and a line below the table."""

    @abstractmethod
    def draw(self, folder: Path, title: str) -> None:
        """Writes the curves as pictures."""

    def table(self) -> Table:
        """The figures of each class, to be printed."""
        columns, rows, caption = self.rows()
        title = escape(f"{self.dataset.name}: {len(self.dataset)} images")
        table = Table(title=title, title_justify="left", caption=caption)
        table.add_column("class")
        for name in columns:
            table.add_column(name, justify="right")
        for name, cells in rows.items():
            table.add_row(escape(name), *cells)
        return table


class VocScores(Scores):
    """PASCAL VOC, see `core.metrics.voc`."""

    result: VocResult

    @property
    def value(self) -> float:
        is_area = self.config.evaluate.ap == "area"
        return float((self.result.map_area if is_area else self.result.map_11_point)[0])

    @property
    def headline(self) -> str:
        return f"VOC mAP@{self.result.iou_thresholds[0]:.2f}: {self.value:.4f}"

    def figures(self) -> dict:
        result, classes = self.result, {}
        for k, name in enumerate(self.dataset.classes):
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
        means = zip(result.iou_thresholds, result.map_area, result.map_11_point, strict=True)
        map_by_iou = {
            f"{iou:g}": {"area": number(area), "11point": number(points)}
            for iou, area, points in means
        }
        return {"map_by_iou": map_by_iou, "classes": classes}

    def rows(self) -> tuple[list[str], dict[str, list[str]], str]:
        result, rows = self.result, {}
        aps = result.ap_area if self.config.evaluate.ap == "area" else result.ap_11_point
        columns = [f"AP@{iou:.2f}" for iou in result.iou_thresholds]
        columns += ["objects", "recall", "precision*", "recall*", "F1*", "score*"]
        for k, name in enumerate(self.dataset.classes):
            first = result.classes[0][k]
            best = (first.best.precision, first.best.recall, first.best.f1, first.best.score)
            cells = [f"{ap:.4f}" for ap in aps[:, k]] + [str(first.num_objects)]
            rows[name] = cells + [f"{value:.3f}" for value in (first.max_recall, *best)]
        return columns, rows, "* at the score of the best F1"

    def draw(self, folder: Path, title: str) -> None:
        first = zip(self.dataset.classes, self.result.classes[0], strict=True)
        curves = {name: (one.recall, one.precision, one.ap_area) for name, one in first}
        title = f"{title}, IoU {self.result.iou_thresholds[0]:.2f}"
        precision_recall_curves(folder / "precision_recall.png", curves, title)


class CocoScores(Scores):
    """COCO's twelve numbers, see `core.metrics.coco`."""

    result: CocoResult

    @property
    def value(self) -> float:
        return self.result.mean_ap

    @property
    def headline(self) -> str:
        ap, ap50, ap75 = self.result.stats[:3]
        return f"COCO AP@[.50:.95]: {ap:.4f}, AP@.50: {ap50:.4f}, AP@.75: {ap75:.4f}"

    def figures(self) -> dict:
        stats = zip(STAT_NAMES, self.result.stats, strict=True)
        classes = zip(self.dataset.classes, self.result.per_class, strict=True)
        return {
            "stats": {name: number(value) for name, value in stats},
            "classes": {name: scalars(one) for name, one in classes},
        }

    def rows(self) -> tuple[list[str], dict[str, list[str]], str]:
        columns = ["AP", "AP@.50", "AP@.75", "small", "medium", "large", "AR@100", "objects"]
        rows = {}
        for name, one in zip(self.dataset.classes, self.result.per_class, strict=True):
            values = (one.ap, one.ap50, one.ap75, one.ap_small, one.ap_medium, one.ap_large)
            rows[name] = [f"{v:.4f}" for v in (*values, one.ar100)] + [str(one.num_objects)]
        stats = zip(STAT_NAMES, self.result.stats, strict=True)
        return columns, rows, "\n".join(f"{name} {value:.4f}" for name, value in stats)

    def draw(self, folder: Path, title: str) -> None:
        classes = zip(self.dataset.classes, self.result.per_class, strict=True)
        curves = {name: (one.recall, one.precision, one.ap50) for name, one in classes}
        precision_recall_curves(folder / "precision_recall.png", curves, f"{title}, IoU 0.50")


class CrowdHumanScores(Scores):
    """CrowdHuman's AP, MR-2 and JI, see `core.metrics.crowdhuman`."""

    result: CrowdHumanResult

    @property
    def value(self) -> float:
        return float(self.result.ap)

    @property
    def headline(self) -> str:
        result = self.result
        return f"CrowdHuman AP: {result.ap:.4f}, MR-2: {result.mr2:.4f}, JI: {result.ji:.4f}"

    def figures(self) -> dict:
        result = self.result
        classes = zip(self.dataset.classes, result.classes, strict=True)
        return {
            "ap": number(result.ap),
            "mr2": number(result.mr2),
            "ji": number(result.ji),
            "classes": {name: scalars(one) for name, one in classes},
        }

    def rows(self) -> tuple[list[str], dict[str, list[str]], str]:
        columns = ["AP", "MR-2", "JI", "JI's score", "recall", "objects"]
        rows = {}
        for name, one in zip(self.dataset.classes, self.result.classes, strict=True):
            values = (one.ap, one.mr2, one.ji, one.ji_score, one.recall)
            rows[name] = [f"{value:.4f}" for value in values] + [str(one.num_objects)]
        return columns, rows, "of MR-2 less is better"

    def draw(self, folder: Path, title: str) -> None:
        ranked = list(zip(self.dataset.classes, self.result.classes, strict=True))
        curves = {name: (one.recalls, one.precisions, one.ap) for name, one in ranked}
        precision_recall_curves(folder / "precision_recall.png", curves, title)
        curves = {name: (one.fppi, one.miss_rate, one.mr2) for name, one in ranked}
        miss_rate_curves(folder / "miss_rate.png", curves, title, REFERENCES)


def score(table: DetectionTable, dataset: Dataset, config: Config) -> Scores:
    """The metric as the config wants it. Raises DatasetError where there is nothing to find."""
    require_objects(dataset)
    detections, ground_truth = arrays(table, dataset)
    num_classes, settings = len(dataset.classes), config.evaluate
    match config.metric:
        case "coco":
            rank = image_ranks(dataset.image_ids)
            detections = replace(detections, image=rank[detections.image])
            ground_truth = replace(ground_truth, image=rank[ground_truth.image])
            coco = coco_metric(detections, ground_truth, len(dataset), num_classes)
            return CocoScores(coco, dataset, config)
        case "crowdhuman":
            crowds = crowdhuman_metric(detections, ground_truth, dataset.sizes, num_classes)
            return CrowdHumanScores(crowds, dataset, config)
    result = voc_metric(
        detections,
        ground_truth,
        num_classes,
        settings.iou_thresholds,
        plus_one=settings.plus_one,
        strict=settings.strict,
    )
    return VocScores(result, dataset, config)


def image_ranks(image_ids: Sequence[str]) -> np.ndarray:
    """(M,) int64: the place of each image by its number, where all ids are numbers.

    pycocotools goes through a file's images by id, which decides between equal scores.
    """
    if not all(image_id.isdecimal() for image_id in image_ids):
        return np.arange(len(image_ids))
    ranks = np.empty(len(image_ids), np.int64)
    ranks[sorted(range(len(image_ids)), key=lambda i: int(image_ids[i]))] = np.arange(len(ranks))
    return ranks


def require_objects(dataset: Dataset) -> None:
    """Raises DatasetError where there is nothing to find, so that no metric is defined."""
    if (dataset.difficult | dataset.ignore).all():
        raise DatasetError(
            f"{dataset.name}: expected objects that are neither difficult nor to be ignored, "
            "found none"
        )


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


def summarize(scores: Scores, table: DetectionTable) -> dict:
    """Every figure of an evaluation, JSON-ready."""
    dataset, config = scores.dataset, scores.config
    matrix = confusion_matrix(
        *arrays(table, dataset), len(dataset.classes), score_threshold=CONFUSION_SCORE
    )
    names = [*dataset.classes, "background"]
    return {
        "headline": scores.headline,
        "metric": config.metric,
        "value": number(scores.value),
        **scores.figures(),
        "dataset": dataset.name,
        "images": len(dataset),
        "detections": len(table),
        "defects": dataset.defects.counts(),
        "settings": configs.to_dict(config.evaluate),
        "confusion_matrix": {
            "score_threshold": CONFUSION_SCORE,
            "classes": names,
            "rows": matrix.tolist(),
        },
    }


def draw(folder: Path, scores: Scores, report: dict) -> None:
    """The metric's curves and the confusion matrix of `summarize`, as pictures."""
    scores.draw(folder, scores.dataset.name)
    matrix = np.array(report["confusion_matrix"]["rows"])
    confusion_matrix_picture(folder / "confusion_matrix.png", matrix, scores.dataset.classes)


def number(value: float) -> float | None:
    """None for nan, which JSON does not know."""
    return None if math.isnan(value) else float(value)


def scalars(result: Any) -> dict:
    """The single numbers among the fields of a class's result, JSON-ready."""
    values = {"objects": result.num_objects} | vars(result)
    del values["num_objects"]
    return {
        name: number(value) if isinstance(value, float) else value
        for name, value in values.items()
        if isinstance(value, (int, float))
    }
