"""The figures of each metric under short names."""

import pytest

from utils.headline_figures import class_aps, headline_figures

pytestmark = pytest.mark.quick

VOC = {
    "metric": "voc",
    "map_by_iou": {"0.5": {"area": 0.9, "11point": 0.8}, "0.75": {"area": 0.6, "11point": 0.5}},
    "classes": {
        "cat": {"ap": {"0.5": {"area": 0.7, "11point": 0.65}, "0.75": {"area": 0.3}}},
        "dog": {"ap": {"0.5": {"area": None, "11point": None}, "0.75": {"area": None}}},
    },
}


def test_voc_by_area_and_by_11_points():
    area, points = (VOC | {"settings": {"ap": kind}} for kind in ("area", "11point"))
    assert headline_figures(area) == {"mAP@0.50": 0.9, "mAP@0.75": 0.6}
    assert class_aps(area) == {"cat": 0.7, "dog": None}
    assert headline_figures(points) == {"mAP@0.50": 0.8, "mAP@0.75": 0.5}
    assert class_aps(points) == {"cat": 0.65, "dog": None}


def test_coco():
    report = {"metric": "coco", "stats": {"AP": 0.4, "AR1": None}, "settings": {"ap": "area"}}
    report["classes"] = {"cat": {"ap": 0.3, "ap50": 0.6}, "dog": {"ap": None, "ap50": None}}
    assert headline_figures(report) == {"AP": 0.4, "AR1": None}
    assert class_aps(report) == {"cat": 0.3, "dog": None}


def test_crowdhuman():
    report = {"metric": "crowdhuman", "ap": 0.8, "mr2": 0.5, "ji": 0.7, "settings": {}}
    report["classes"] = {"person": {"ap": 0.8, "mr2": 0.5, "ji": 0.7}}
    assert headline_figures(report) == {"AP": 0.8, "MR-2": 0.5, "JI": 0.7}
    assert class_aps(report) == {"person": 0.8}
