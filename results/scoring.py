"""How good detections are by the metric a config asks for: its figures, its table, its pictures.

What train.py and evaluate.py share. The headline and `value`, by which the best epoch is chosen,
are the metric's own.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

import configs
from configs import Config
from core.metrics.coco import STAT_NAMES, coco_metric
from core.metrics.crowdhuman import REFERENCES, crowdhuman_metric
from core.metrics.ground_truth import GroundTruth
from core.metrics.voc import confusion_matrix, voc_metric
from data.records import Dataset, DatasetError
from utils.detections import DetectionTable
from utils.plots import (
    Curve,
    confusion_matrix_picture,
    miss_rate_curves,
    precision_recall_curves,
)

CONFUSION_SCORE = 0.25  # detections below are no predictions in the confusion matrix


@dataclass(frozen=True)
class Scores:
    """What a metric says of the detections of a split; see `score`.

    value: the figure by which runs and epochs are compared; higher is better. headline: one line.
    figures: all of the metric's but the curves, JSON-ready; None where a class has no objects.
    columns, rows: names and class -> cells of the table of classes; caption: the text below it.
    curves: class -> recall, precision and what they are ranked by; at: their IoU for the title.
    miss_rates: class -> false positives an image, miss rate and MR-2, if the metric has them.
    """

    detections: DetectionTable
    truth: GroundTruth
    dataset: Dataset
    config: Config
    value: float
    headline: str
    figures: dict[str, Any]
    columns: list[str]
    rows: dict[str, list[str]]
    caption: str
    curves: Mapping[str, Curve]
    at: str = ""
    miss_rates: Mapping[str, Curve] | None = None

    @cached_property
    def confusion(self) -> np.ndarray:
        return confusion_matrix(self.detections, self.truth, score_threshold=CONFUSION_SCORE)

    @cached_property
    def report(self) -> dict[str, Any]:
        """Every figure of an evaluation, JSON-ready."""
        dataset, config = self.dataset, self.config
        return {
            "headline": self.headline,
            "metric": config.metric,
            "value": number(self.value),
            **self.figures,
            "dataset": dataset.name,
            "images": len(dataset),
            "detections": len(self.detections),
            "defects": dataset.defects.counts(),
            "settings": configs.to_dict(config.evaluate),
            "confusion_matrix": {
                "score_threshold": CONFUSION_SCORE,
                "classes": [*dataset.classes, "background"],
                "rows": self.confusion.tolist(),
            },
        }

    def table(self) -> Table:
        """The figures of each class, to be printed."""
        title = escape(f"{self.dataset.name}: {len(self.dataset)} images")
        table = Table(title=title, title_justify="left", caption=self.caption)
        table.add_column("class")
        for name in self.columns:
            table.add_column(name, justify="right")
        for name, cells in self.rows.items():
            table.add_row(escape(name), *cells)
        return table

    def draw(self, folder: Path) -> None:
        """The metric's curves and the confusion matrix, as pictures."""
        title = self.dataset.name
        precision_recall_curves(folder / "precision_recall.png", self.curves, title + self.at)
        if self.miss_rates:
            miss_rate_curves(folder / "miss_rate.png", self.miss_rates, title, REFERENCES)
        path = folder / "confusion_matrix.png"
        confusion_matrix_picture(path, self.confusion, self.dataset.classes)


def score(detections: DetectionTable, dataset: Dataset, config: Config) -> Scores:
    """The metric as the config wants it. Raises DatasetError where there is nothing to find."""
    require_objects(dataset)
    metric = {"voc": _voc, "coco": _coco, "crowdhuman": _crowdhuman}[config.metric]
    return metric(detections, ground_truth(dataset), dataset, config)


def require_objects(dataset: Dataset) -> None:
    """Raises DatasetError where there is nothing to find, so that no metric is defined."""
    if (dataset.difficult | dataset.ignore).all():
        raise DatasetError(
            f"{dataset.name}: expected objects that are neither difficult nor to be ignored, "
            "found none"
        )


def ground_truth(dataset: Dataset) -> GroundTruth:
    """A split's objects as the metrics take them."""
    return GroundTruth(
        dataset.image_index,
        dataset.boxes,
        dataset.labels,
        dataset.difficult,
        dataset.ignore,
        dataset.areas,
    )


def _voc(found: DetectionTable, truth: GroundTruth, dataset: Dataset, config: Config) -> Scores:
    settings, ious = config.evaluate, config.evaluate.iou_thresholds
    result = voc_metric(found, truth, ious, plus_one=settings.plus_one, strict=settings.strict)
    is_area = settings.ap == "area"
    value = float((result.map_area if is_area else result.map_11_point)[0])

    def by_iou(areas: Iterable[float], points: Iterable[float]) -> dict[str, Any]:
        return {
            f"{iou:g}": {"area": number(area), "11point": number(point)}
            for iou, area, point in zip(ious, areas, points, strict=True)
        }

    classes, rows, curves = {}, {}, {}
    for k, name in enumerate(dataset.classes):
        first, areas, points = result.classes[0][k], result.ap_area[:, k], result.ap_11_point[:, k]
        best = vars(first.best)
        classes[name] = {
            "objects": first.num_objects,
            "recall": number(first.max_recall),
            "best": {key: number(value) for key, value in best.items()},
            "ap": by_iou(areas, points),
        }
        aps = [f"{ap:.4f}" for ap in (areas if is_area else points)]
        others = [f"{figure:.3f}" for figure in (first.max_recall, *best.values())]
        rows[name] = [*aps, str(first.num_objects), *others]
        curves[name] = (first.recall, first.precision, first.ap_area)
    columns = ("objects", "recall", "precision*", "recall*", "F1*", "score*")
    return Scores(
        *(found, truth, dataset, config),
        value=value,
        headline=f"VOC mAP@{ious[0]:.2f}: {value:.4f}",
        figures={"map_by_iou": by_iou(result.map_area, result.map_11_point), "classes": classes},
        columns=[*(f"AP@{iou:.2f}" for iou in ious), *columns],
        rows=rows,
        caption="* at the score of the best F1",
        curves=curves,
        at=f", IoU {ious[0]:.2f}",
    )


def _coco(found: DetectionTable, truth: GroundTruth, dataset: Dataset, config: Config) -> Scores:
    result = coco_metric(found, truth)
    stats = dict(zip(STAT_NAMES, result.stats, strict=True))
    classes = dict(zip(dataset.classes, result.classes, strict=True))
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100")
    return Scores(
        *(found, truth, dataset, config),
        value=result.mean_ap,
        headline="COCO AP@[.50:.95]: {AP:.4f}, AP@.50: {AP50:.4f}, AP@.75: {AP75:.4f}".format(
            **stats
        ),
        figures={
            "stats": {name: number(value) for name, value in stats.items()},
            "classes": {name: scalars(one) for name, one in classes.items()},
        },
        columns=["AP", "AP@.50", "AP@.75", "small", "medium", "large", "AR@100", "objects"],
        rows={name: _cells(one, names) for name, one in classes.items()},
        caption="\n".join(f"{name} {value:.4f}" for name, value in stats.items()),
        curves={name: (one.recall, one.precision, one.ap50) for name, one in classes.items()},
        at=", IoU 0.50",
    )


def _crowdhuman(
    found: DetectionTable, truth: GroundTruth, dataset: Dataset, config: Config
) -> Scores:
    result = crowdhuman_metric(found, truth, dataset.sizes)
    means = {"ap": number(result.ap), "mr2": number(result.mr2), "ji": number(result.ji)}
    classes = dict(zip(dataset.classes, result.classes, strict=True))
    return Scores(
        *(found, truth, dataset, config),
        value=result.ap,
        headline=f"CrowdHuman AP: {result.ap:.4f}, MR-2: {result.mr2:.4f}, JI: {result.ji:.4f}",
        figures=means | {"classes": {name: scalars(one) for name, one in classes.items()}},
        columns=["AP", "MR-2", "JI", "JI's score", "recall", "objects"],
        rows={
            name: _cells(one, ("ap", "mr2", "ji", "ji_score", "recall"))
            for name, one in classes.items()
        },
        caption="of MR-2 less is better",
        curves={name: (one.recalls, one.precisions, one.ap) for name, one in classes.items()},
        miss_rates={name: (one.fppi, one.miss_rate, one.mr2) for name, one in classes.items()},
    )


def _cells(result: Any, names: Iterable[str]) -> list[str]:
    """The named figures of a class's result, and how many objects it has."""
    return [f"{getattr(result, name):.4f}" for name in names] + [str(result.num_objects)]


def number(value: float) -> float | None:
    """None for nan, which JSON does not know."""
    return None if math.isnan(value) else float(value)


def scalars(result: Any) -> dict[str, Any]:
    """The single numbers among the fields of a class's result, JSON-ready."""
    values = {"objects": result.num_objects} | vars(result)
    del values["num_objects"]
    return {
        name: number(value) if isinstance(value, float) else value
        for name, value in values.items()
        if isinstance(value, (int, float))
    }
