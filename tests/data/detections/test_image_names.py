"""Images of detection files that are named by file, not by id; in every format of detections."""

import json

import pytest
from loguru import logger

from data.detections.coco import read_coco_results
from data.detections.devkit import read_devkit
from data.detections.image_names import images_by_name
from data.detections.odgt import ODGT
from data.detections.project_json import JSON
from data.records import DatasetError

pytestmark = pytest.mark.quick

IDS = ("1", "2", "3")
FILES = ("/set/images/000000.jpg", "/set/images/000001.jpg", "/set/images/shelf_3.jpg")


@pytest.fixture
def said():
    messages: list[str] = []
    handler = logger.add(lambda message: messages.append(str(message)), format="{message}")
    yield messages
    logger.remove(handler)


def match(names, ids=IDS, files=FILES):
    found = names if isinstance(names, dict) else dict.fromkeys(names, "")
    return images_by_name("found.json", found, ids, files)


def test_ids_are_ids_whatever_names_there_are(said):
    assert match([1, "2", 3]) == {1: 0, "2": 1, 3: 2}
    assert match([1, 2], ("2", "1")) == {1: 1, 2: 0}
    assert match([]) == {}
    assert match({1: "000000.jpg", 2: "x/000001.png"}) == {1: 0, 2: 1}
    assert match({1: "other.jpg"}) == {1: 0}
    assert said == []


@pytest.mark.parametrize(
    "names",
    [
        ["000000.jpg", "000001.jpg", "shelf_3.jpg"],
        ["images/000000.jpg", "C:\\set\\images\\000001.jpg", "/elsewhere/shelf_3.jpg"],
        ["000000", "000001", "shelf_3"],
        ["000000.png", "000001.png", "shelf_3.jpeg"],
        [0, 1, "shelf_3"],  # numbers of stems, as YOLO's validators write them; 1 is an id, too
    ],
)
def test_names_of_files(names, said):
    assert match(names) == dict(zip(names, (0, 1, 2), strict=True))
    (message,) = said
    expected = f"found.json: 3 images matched by the names of their files, not by ids: {names[0]!r}"
    assert message.replace("\\\\", "\\").startswith(expected.replace("\\\\", "\\"))
    assert "is /set/images/000000.jpg" in message


def test_the_name_beside_an_id_counts_where_they_disagree(said):
    assert match({1: "000001.jpg", 2: "shelf_3.jpg"}) == {1: 1, 2: 2}
    assert "2 images matched by the names of their files, not by ids: 1 is /set/" in said[0]


def test_the_longest_end_of_a_path_decides():
    files = ("/set/a/x.jpg", "/set/b/x.jpg", "/set/c/a/x.jpg")
    assert match(["b/x.jpg", "c/a/x.png", "set/a/x"], files=files) == {
        "b/x.jpg": 1,
        "c/a/x.png": 2,
        "set/a/x": 0,
    }
    with pytest.raises(DatasetError) as caught:
        match(["x.jpg"], files=files)
    assert str(caught.value) == (
        "found.json: expected the name of one image, 'x.jpg' is /set/a/x.jpg and /set/b/x.jpg"
    )


def test_two_names_of_one_image():
    with pytest.raises(DatasetError, match=r"'shelf_3.jpg' and 'shelf_3' are both /set/images/sh"):
        match(["shelf_3.jpg", "shelf_3"])


def test_what_is_neither_id_nor_name_shows_the_ids(tmp_path):
    path = tmp_path / "found.json"
    entry = {"category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    path.write_text(json.dumps([entry | {"image_id": 1}, entry | {"image_id": "shelf_9"}]))
    ids = ("1", "2", "3", "4", "5")
    with pytest.raises(DatasetError) as caught:
        read_coco_results(path, ids, ["dog"], [1], (*FILES, "a.jpg", "b.jpg"))
    expected = "expected image_id to be one of the 5 images (1, 2, 3, 4, ...), found 'shelf_9'"
    assert str(caught.value) == f"{path}, entry 1: {expected}"


def test_every_format_takes_names(tmp_path):
    path, ids, classes = tmp_path / "found.json", IDS[:2], ["dog"]
    box = {"category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    path.write_text(json.dumps([box | {"image_id": "000001"}, box | {"image_id": 0}]))
    tables = [read_coco_results(path, ids, classes, [1], FILES[:2])]
    names, size = ("000001.jpg", "images/000000.jpg"), {"width": 9, "height": 9}
    found = {"label": "dog", "score": 0.5, "box": [1, 2, 4, 6]}
    entries = [{"image_id": name, **size, "detections": [found]} for name in names]
    path.write_text(json.dumps(entries))
    tables.append(JSON.read(path, ids, classes, FILES[:2]))
    of_tag = {"tag": "dog", "score": 0.5, "box": [1, 2, 3, 4]}
    lines = [json.dumps({"ID": name, **size, "dtboxes": [of_tag]}) for name in names]
    path.write_text("\n".join(lines))
    tables.append(ODGT.read(path, ids, classes, FILES[:2]))
    lines = [f"{name} 0.5 2 3 4 6\n" for name in names]
    (tmp_path / "comp4_det_val_dog.txt").write_text("".join(lines))
    tables.append(read_devkit(tmp_path, "val", ids, classes, FILES[:2]))
    for table in tables:
        assert table.image.tolist() == [1, 0]
        assert table.boxes.tolist() == [[1, 2, 4, 6]] * 2
