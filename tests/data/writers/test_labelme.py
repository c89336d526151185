import json

import pytest

from data.writers.labelme import write_labelme

pytestmark = pytest.mark.quick

BOX = (1, 2.5, 12, 13)


def test_the_files_of_one_split(toolbox):
    rows = [(1, BOX, 0, True, False, None), (1, (0, 0, 1000, 777), 3, False, True, 5)]
    dataset = toolbox.dataset(rows, category_ids=(5, 6, 7, 8))
    root, losses = toolbox.written(write_labelme, dataset, "train")
    assert losses == [
        "1 areas other than their box's: labelme has no areas",
        "4 category ids: labelme has none",
    ]
    assert json.loads((root / "train/z 1.json").read_text("utf-8")) == {
        "version": "5.0.1",
        "flags": {},
        "shapes": [
            {
                "label": "chat, noir",
                "points": [[1, 2.5], [12, 13]],
                "group_id": None,
                "shape_type": "rectangle",
                "flags": {"difficult": True},
            },
            {
                "label": "<&\"'>",
                "points": [[0, 0], [1000, 777]],
                "group_id": None,
                "shape_type": "rectangle",
                "flags": {"ignore": True},
            },
        ],
        "imagePath": "z 1.png",
        "imageData": None,
        "imageHeight": 777,
        "imageWidth": 1000,
    }
    assert json.loads((root / "train/été, là.json").read_text("utf-8"))["shapes"] == []


def test_files_lie_beside_images_in_subfolders(toolbox, tmp_path):
    write_labelme(toolbox.dataset([]), tmp_path, "val", ["a/x.png", "b/x.png", "c.jpg"])
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json")}
    assert found == {"val/a/x.json", "val/b/x.json", "val/c.json"}
    assert json.loads((tmp_path / "val/a/x.json").read_text())["imagePath"] == "x.png"


def test_what_cannot_be_written(toolbox, tmp_path):
    with pytest.raises(ValueError, match=r"would be called b\.jpg, and so would"):
        write_labelme(toolbox.dataset([]), tmp_path, "val", ["b.png", "b.jpg", "c.jpg"])
