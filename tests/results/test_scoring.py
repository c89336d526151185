"""The three metrics behind one face: headline, value, figures, table and pictures."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from configs import preset
from data.records import DatasetError, Defects, assemble
from results.scoring import score
from utils.detections import DetectionTable

pytestmark = pytest.mark.full

CLASSES = ("person", "head")


@pytest.fixture
def dataset():
    """Three images: two people and a head; one person; nothing but a region to ignore."""
    return assemble(
        "set/val",
        CLASSES,
        images=["a.jpg", "b.jpg", "c.jpg"],
        image_ids=["a", "b", "c"],
        sizes=[[100, 80]] * 3,
        image_index=[0, 0, 0, 1, 2],
        boxes=[[0, 0, 40, 80], [50, 0, 90, 80], [10, 0, 20, 10], [5, 5, 60, 70], [0, 0, 90, 60]],
        labels=[0, 0, 1, 0, 0],
        ignore=[False, False, False, False, True],
        defects=Defects(),
    )


def detect(dataset, rows, scores):
    """The dataset's own boxes as detections."""
    return DetectionTable(
        dataset.image_ids,
        dataset.classes,
        dataset.image_index[rows],
        dataset.boxes[rows],
        np.array(scores, np.float32),
        dataset.labels[rows],
    )


def settings(metric):
    return preset("shapes", {"evaluate.metric": metric})


HEADLINES = {
    "voc": "VOC mAP@0.50: 1.0000",
    "coco": "COCO AP@[.50:.95]: 1.0000, AP@.50: 1.0000, AP@.75: 1.0000",
    # CrowdHuman's AP has no starting point: three objects found give 2 / 3, one gives 0.
    "crowdhuman": "CrowdHuman AP: 0.3333, MR-2: 0.0000, JI: 1.0000",
}


@pytest.mark.parametrize("metric", HEADLINES)
def test_all_found_and_a_detection_in_the_ignored_region(dataset, metric):
    """The detection of the ignored region counts nowhere."""
    table = detect(dataset, [0, 1, 2, 3, 4], [0.9, 0.8, 0.7, 0.6, 0.95])
    scores = score(table, dataset, settings(metric))
    assert scores.headline == HEADLINES[metric]
    assert scores.value == pytest.approx(1 / 3 if metric == "crowdhuman" else 1, abs=1e-5)


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("found", [[0, 2, 3], [4], []])
def test_figures_table_and_pictures(dataset, metric, found, tmp_path):
    """Whatever is found, also nothing; without heads in the truth their figures are None."""
    dataset = dataclasses.replace(dataset, labels=np.zeros(5, np.int32))
    table = detect(dataset, found, [0.9] * len(found))
    scores = score(table, dataset, settings(metric))
    report = json.loads(json.dumps(scores.report, allow_nan=False))
    assert report["metric"] == metric
    assert report["headline"] == scores.headline
    assert report["value"] == pytest.approx(scores.value)
    assert [report["classes"][name]["objects"] for name in CLASSES] == [4, 0]
    assert report["confusion_matrix"]["rows"][0][0] == len(set(found) - {4})
    printed = scores.table()
    assert (printed.columns[0].header, printed.row_count) == ("class", 2)
    scores.draw(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    extra = {"miss_rate.png"} if metric == "crowdhuman" else set()
    assert names == {"precision_recall.png", "confusion_matrix.png"} | extra


@pytest.mark.parametrize("metric", HEADLINES)
def test_names_in_brackets_are_no_markup(dataset, metric):
    """In rich's tables "[red]" would be swallowed and "[/x]" raise."""
    names = ("cat [old]", "[/x]")
    dataset = dataclasses.replace(dataset, classes=names, name="[/set]")
    scores = score(detect(dataset, [0], [0.9]), dataset, settings(metric))
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(scores.table())
    text = console.export_text()
    assert all(name in text for name in (*names, "[/set]: 3 images"))


@pytest.mark.parametrize(
    ("data_format", "expected"),
    [("voc", "voc"), ("shapes", "voc"), ("csv", "voc"), ("yolo", "voc"), ("coco", "coco"),
     ("crowdhuman", "crowdhuman")],
)  # fmt: skip
def test_the_metric_follows_the_format_unless_said(data_format, expected):
    assert preset("voc", {"data.format": data_format}).metric == expected
    said = {"data.format": data_format, "evaluate.metric": "coco"}
    assert preset("voc", said).metric == "coco"


@pytest.mark.parametrize("flag", ["difficult", "ignore"])
def test_where_there_is_nothing_to_find_no_metric_is_defined(dataset, flag):
    dataset = dataclasses.replace(dataset, **{flag: np.ones(5, bool)})
    with pytest.raises(DatasetError, match=r"set/val: expected objects .* found none"):
        score(detect(dataset, [0], [0.5]), dataset, settings("voc"))
