import contextlib
import io
import json

import pytest
from pycocotools.coco import COCO

from data.formats.coco import read_coco
from data.writers.coco import write_coco

pytestmark = pytest.mark.quick

ROWS = [
    (0, (1, 2, 12, 13.5), 1, False, False, 77.25),
    (2, (0.1, 0, 640.5, 10), 0, True, False, None),
    (2, (0, 0, 9, 10), 3, False, True, 5),
]


def test_the_file_of_one_split(toolbox):
    dataset = toolbox.dataset(ROWS, image_ids=("7", "0", "123"), category_ids=(3, 90, 4, 1))
    root, losses = toolbox.written(write_coco, dataset, "train")
    assert losses == []
    text = (root / "annotations/instances_train.json").read_text("utf-8")
    contents = json.loads(text)
    assert contents["images"][2] == (
        {"id": 123, "file_name": "été, là.png", "width": 641, "height": 427}
    )
    assert contents["categories"][:2] == [
        {"id": 3, "name": "chat, noir"},
        {"id": 90, "name": "ключ"},
    ]
    assert contents["annotations"] == [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 11, 11.5], "area": 77.25,
         "iscrowd": 0},
        {"id": 2, "image_id": 123, "category_id": 3, "bbox": [0.1, 0, 640.4, 10], "area": 6404,
         "iscrowd": 0, "difficult": 1},
        {"id": 3, "image_id": 123, "category_id": 1, "bbox": [0, 0, 9, 10], "area": 5,
         "iscrowd": 1},
    ]  # fmt: skip
    lines = '"bbox":[1,2,11,11.5],"area":77.25,"iscrowd":0},\n{"id":2'
    assert lines in text, "one line an object, whole numbers without .0"
    found = read_coco(root, "train")
    assert found.image_ids == ("7", "0", "123")
    assert (found.classes[-1], found.category_ids) == ("ключ", (1, 3, 4, 90))


def test_pycocotools_reads_it(toolbox):
    root, _ = toolbox.written(write_coco, toolbox.dataset(ROWS), "train")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(root / "annotations/instances_train.json")
    assert coco.getAnnIds(imgIds=[3], iscrowd=True) == [3]
    assert [image["file_name"] for image in coco.loadImgs([1, 2, 3])] == list(toolbox.names)


def test_text_ids_of_a_coco_file_stay_texts(toolbox):
    changes = {"category_ids": (3, "x", "4", 1), "text_ids": True}
    dataset = toolbox.dataset(ROWS, image_ids=("7", "a b", "007"), **changes)
    root, losses = toolbox.written(write_coco, dataset, "train")
    assert losses == []
    contents = json.loads((root / "annotations/instances_train.json").read_text("utf-8"))
    assert [entry["id"] for entry in contents["images"]] == ["7", "a b", "007"]
    assert [entry["id"] for entry in contents["categories"]] == [3, "x", "4", 1]
    owners = [(entry["image_id"], entry["category_id"]) for entry in contents["annotations"]]
    assert owners == [("7", "x"), ("007", 3), ("007", 1)]
    found = read_coco(root, "train")
    assert (found.image_ids, found.text_ids) == (("7", "a b", "007"), True)
    assert found.category_ids == (1, 3, "4", "x")


@pytest.mark.parametrize("odd", ["007", "-3", "x", "٣", "9" * 19, ""])
def test_ids_that_are_no_numbers_are_replaced_and_told(toolbox, odd):
    dataset = toolbox.dataset(ROWS, image_ids=("1", "2", odd))
    root, losses = toolbox.written(write_coco, dataset, "train")
    assert losses == ["3 image ids: COCO's are numbers; the names are kept in file_name"]
    assert read_coco(root, "train").image_ids == ("1", "2", "3")
