"""evaluate.py on detections from elsewhere: no model, and no images where the files say enough."""

import json

import numpy as np
import pytest

import evaluate
from data.detections import write_devkit, write_json
from data.detections_odgt import write_odgt
from data.voc import read_voc
from tests.test_scoring import detect

VOC = """<annotation><size><width>40</width><height>30</height></size><object><name>cat</name>
<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"""


def run(detections, tmp_path, data_format, root, val, **changes):
    """The report of evaluate.py."""
    settings = {"format": data_format, "root": root, "val": val, "train": val} | changes
    given = [f"data.{name}={value}" for name, value in settings.items()]
    out = tmp_path / "out.json"
    evaluate.main(["--detections", str(detections), "--json", str(out), "--set", *given])
    return json.loads(out.read_text())


def test_coco_results_give_cocos_twelve_numbers(shared_data, tmp_path):
    """pycocotools' example of 100 images, as it was published with its numbers."""
    root = shared_data / "evaluators" / "coco_fakebbox100"
    results = root / "instances_val2014_fakebbox100_results.json"
    report = run(results, tmp_path, "coco", root, "instances_val2014_100.json")
    expected = [0.504581, 0.696973, 0.572982, 0.585626, 0.519400, 0.501398,
                0.386813, 0.593680, 0.595353, 0.639811, 0.566421, 0.564291]  # fmt: skip
    np.testing.assert_allclose(list(report["stats"].values()), expected, atol=1e-6)
    assert report["headline"].startswith("COCO AP@[.50:.95]: 0.5046, AP@.50: 0.6970")


def test_crowdhuman_without_images(tmp_path):
    """Sizes are those of the detections: the box that leaves the image is cut off there."""
    boxes = [[10, 10, 10, 20], [30, -5, 40, 20]]
    lines = [{"ID": "a,1", "gtboxes": [{"tag": "person", "fbox": box} for box in boxes]},
             {"ID": "b", "gtboxes": []}]  # fmt: skip
    (tmp_path / "val.odgt").write_text("\n".join(map(json.dumps, lines)))
    found = [{"box": [10, 10, 10, 20], "score": 0.9, "tag": 1},
             {"box": [30, 0, 10, 15], "score": 0.8, "tag": "person"}]  # fmt: skip
    lines = [{"ID": "b", "width": 9, "height": 9, "dtboxes": []},
             {"ID": "a,1", "width": 40, "height": 30, "dtboxes": found}]  # fmt: skip
    (tmp_path / "found.odgt").write_text("\n".join(map(json.dumps, lines)))
    report = run(tmp_path / "found.odgt", tmp_path, "crowdhuman", tmp_path, "val")
    assert report["classes"]["person"]["recall"] == 1
    assert report["headline"] == "CrowdHuman AP: 0.5000, MR-2: 0.0000, JI: 1.0000"


def test_voc_without_images(tmp_path):
    (tmp_path / "a.xml").write_text(VOC)
    dataset = read_voc(tmp_path, "all", need_images=False)
    table = detect(dataset, [0], [0.5])
    write_json(tmp_path / "found.json", table, dataset.sizes)
    write_devkit(tmp_path / "devkit", "all", table)
    for found in ("found.json", "devkit"):
        report = run(tmp_path / found, tmp_path, "voc", tmp_path, "all")
        assert report["headline"] == "VOC mAP@0.50: 1.0000"
    write_odgt(tmp_path / "found.odgt", table, dataset.sizes)
    assert run(tmp_path / "found.odgt", tmp_path, "voc", tmp_path, "all")["value"] == 1


def test_sizes_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.xml").write_text(VOC)
    entry = {"image_id": "a", "width": 0, "height": 30, "detections": []}
    (tmp_path / "found.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=r"found.json: entry 0 .*expected width and height"):
        run(tmp_path / "found.json", tmp_path, "voc", tmp_path, "all")
