"""Figures of an evaluation under short names, from its report as evaluation/metrics.json has it."""

from collections.abc import Mapping
from typing import Any


def headline_figures(report: Mapping[str, Any]) -> dict[str, float | None]:
    """Those of a metric that are not of a class: VOC's mAP at each IoU, area or 11 points as the
    settings say, COCO's twelve numbers, CrowdHuman's AP, MR-2 and JI. None: no objects."""
    match report["metric"]:
        case "coco":
            return dict(report["stats"])
        case "crowdhuman":
            return {"AP": report["ap"], "MR-2": report["mr2"], "JI": report["ji"]}
    kind, by_iou = report["settings"]["ap"], report["map_by_iou"]
    return {f"mAP@{float(iou):.2f}": means[kind] for iou, means in by_iou.items()}


def class_aps(report: Mapping[str, Any]) -> dict[str, float | None]:
    """Class -> average precision, that of VOC at the first IoU; None: no objects."""
    aps = {name: figures["ap"] for name, figures in report["classes"].items()}
    if report["metric"] != "voc":
        return aps
    kind = report["settings"]["ap"]
    return {name: next(iter(by_iou.values()))[kind] for name, by_iou in aps.items()}
