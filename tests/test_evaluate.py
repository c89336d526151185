"""evaluate.py on detections from elsewhere: no model, and no images where the files say enough."""

import json

import numpy as np
import pytest
from PIL import Image

import evaluate
from data.detections.devkit import write_devkit
from data.detections.odgt import ODGT
from data.detections.project_json import JSON
from data.formats.voc import read_voc
from tests.results.test_scoring import detect

pytestmark = pytest.mark.quick

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


def test_boxes_without_area_count_as_they_do_for_pycocotools(tmp_path):
    """One of two objects has no width: it can be found by nobody, so that recall ends at a half."""
    entry = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 8]}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [entry | {"id": 1, "area": 80}, entry | {"id": 2, "bbox": [5, 5, 0, 9]}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    (tmp_path / "found.json").write_text(json.dumps([entry | {"score": 0.5}]))
    report = run(tmp_path / "found.json", tmp_path, "coco", tmp_path, "val")
    assert report["value"] == pytest.approx(51 / 101)


def test_only_the_images_of_a_list_are_judged(tmp_path):
    """With images and without."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in (1, 2)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [1, 2, 10, 8], "id": i} for i in (1, 2)]
    content = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": boxes}
    (tmp_path / "val.json").write_text(json.dumps(content))
    (tmp_path / "val.txt").write_text("1.jpg\n")
    (tmp_path / "found.json").write_text(json.dumps([boxes[0] | {"score": 0.5}]))
    assert run(tmp_path / "found.json", tmp_path, "coco", tmp_path, "val")[
        "value"
    ] == pytest.approx(1)


def test_the_training_split_need_not_be_there(tmp_path):
    (tmp_path / "test.csv").write_text("a.jpg,1,2,11,10,cat\n")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    entry = {"image_id": "a", "category_id": 1, "bbox": [1, 2, 10, 8], "score": 0.5}
    (tmp_path / "found.json").write_text(json.dumps([entry]))
    given = ["--detections", str(tmp_path / "found.json"), "--split", "test", "--set"]
    assert evaluate.main([*given, "data.format=csv", f"data.root={tmp_path}"]) == 1


def test_an_image_that_was_not_run_stops_the_evaluation(tmp_path):
    """Under "drop", too: without it the figures would be better."""
    line = {"gtboxes": [{"tag": "person", "fbox": [1, 2, 10, 20]}]}
    lines = [{"ID": name} | line for name in "ab"]
    (tmp_path / "val.odgt").write_text("\n".join(map(json.dumps, lines)))
    found = {"ID": "a", "width": 40, "height": 30, "dtboxes": [{"box": [1, 2, 9, 20], "score": 1}]}
    (tmp_path / "found.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"\(ID 'b'\): expected the image among the detections"):
        run(tmp_path / "found.json", tmp_path, "crowdhuman", tmp_path, "val",
            on_bad_annotation="drop")  # fmt: skip


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
    dataset = read_voc(tmp_path, "all", image_sizes={})
    table = detect(dataset, [0], [0.5])
    JSON.write(tmp_path / "found.json", table, dataset.sizes)
    write_devkit(tmp_path / "devkit", "all", table)
    for found in ("found.json", "devkit"):
        report = run(tmp_path / found, tmp_path, "voc", tmp_path, "all")
        assert report["headline"] == "VOC mAP@0.50: 1.0000"
    ODGT.write(tmp_path / "found.odgt", table, dataset.sizes)
    assert run(tmp_path / "found.odgt", tmp_path, "voc", tmp_path, "all")["value"] == 1


def test_sizes_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.xml").write_text(VOC)
    entry = {"image_id": "a", "width": 0, "height": 30, "detections": []}
    (tmp_path / "found.json").write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=r"found.json, entry 0 .*expected width and height"):
        run(tmp_path / "found.json", tmp_path, "voc", tmp_path, "all")
