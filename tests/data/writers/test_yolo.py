import pytest
import yaml

from data.formats.yolo import read_yolo, yolo_classes
from data.writers.yolo import write_yolo

pytestmark = pytest.mark.quick

ROWS = [
    (0, (10, 15, 30, 30), 1, True, False, None),
    (0, (1, 2, 12, 13), 0, False, True, None),
    (2, (0, 0, 641, 427), 3, False, False, None),
]


def test_the_files_and_what_they_lose(toolbox):
    root, losses = toolbox.written(write_yolo, toolbox.dataset(ROWS), "images/train")
    texts = {p.name: p.read_text() for p in (root / "labels/train").iterdir()}
    assert texts == {
        "a#t=1.txt": "1 0.5 0.75 0.5 0.5\n",
        "z 1.txt": "",
        "été, là.txt": "3 0.5 0.5 1.0 1.0\n",
    }
    assert losses == [
        "1 difficult flags: YOLO has none",
        "1 regions to ignore: left out, YOLO has none",
    ]


def test_data_yaml_lists_all_splits_and_every_name_as_text(toolbox):
    dataset = toolbox.dataset(ROWS)
    root, _ = toolbox.written(write_yolo, dataset, "images/train")
    write_yolo(dataset, root, "val", toolbox.names)
    text = (root / "data.yaml").read_text("utf-8")
    assert yaml.safe_load(text) == {
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(toolbox.classes)),
    }
    assert "ключ" in text
    assert yolo_classes(root, "train") == toolbox.classes
    assert len(read_yolo(root, "train").labels) == 2


def test_a_folder_that_readers_take_for_the_images_is_refused(toolbox, tmp_path):
    names = ["images/a.png", "b.png", "c.png"]
    with pytest.raises(ValueError, match="below images/train cannot be called images"):
        write_yolo(toolbox.dataset([]), tmp_path, "train", names)
