"""What docs/datasets.md says of labelme, CVAT and Label Studio, on files in these tools' layout.

The files are made here as the tools write them, of pictures of a white dog on black ground.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from configs import preset
from data.convert.__main__ import main
from data.datasets import class_names, read_split
from data.formats.recognition import recognise

pytestmark = pytest.mark.quick

DOCS = Path(__file__).parents[2] / "docs" / "datasets.md"
W, H, COUNT = 80, 60, 6
BOX = (10, 20, 41, 51)  # x1, y1, x2, y2
X1, Y1, X2, Y2 = BOX
FRACTIONS = f"{(X1 + X2) / 2 / W} {(Y1 + Y2) / 2 / H} {(X2 - X1) / W} {(Y2 - Y1) / H}"
NAMES = [f"img_{number}.jpg" for number in range(COUNT)]


def settings_of(section):
    """The data of the config that a section of the docs shows."""
    text = DOCS.read_text(encoding="utf-8").split(f"\n### {section}\n")[1].split("\n##")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {"preset": preset}
    exec(code, names)
    return names["config"].data


def write(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(contents if isinstance(contents, str) else json.dumps(contents), "utf-8")


def write_images(folder, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (W, H))
    ImageDraw.Draw(image).rectangle((X1, Y1, X2 - 1, Y2 - 1), fill="white")
    for name in names:
        image.save(folder / name)


def read(section, root, name, **changes):
    """Reads both splits as the section says; each image has the one dog. Returns the splits."""
    assert recognise(root) == name
    data = replace(settings_of(section), root=str(root), **changes)
    classes = class_names(data)
    assert "dog" in classes
    splits = [read_split(data, split, classes) for split in (data.train, data.val)]
    assert sum(map(len, splits)) == COUNT
    for split in splits:
        assert len(split.labels) == len(split) > 0
        assert {classes[label] for label in split.labels} == {"dog"}
        np.testing.assert_allclose(split.boxes, [BOX] * len(split), atol=1e-6)
    return splits


# ------------------------------------------------------------------------------------------------
# labelme
# ------------------------------------------------------------------------------------------------


def write_labelme(folder, names):
    for name in names:
        shape = {"label": "dog", "points": [[X2, Y2], [X1, Y1]], "group_id": None, "mask": None}
        shape |= {"description": "", "shape_type": "rectangle", "flags": {}}
        contents = {"version": "5.5.0", "flags": {}, "shapes": [shape], "imagePath": name}
        contents |= {"imageData": "iVBORw0KGgo=", "imageHeight": H, "imageWidth": W}
        write((folder / name).with_suffix(".json"), contents)


def test_labelme(tmp_path):
    write_images(tmp_path / "mine")
    write_labelme(tmp_path / "mine", NAMES)
    train, val = read("labelme", tmp_path / "mine", "labelme")
    assert train.defects.counts() == val.defects.counts() == {}


def test_labelme_in_folders_of_splits(tmp_path):
    for split, names in (("train", NAMES[:4]), ("val", NAMES[4:])):
        write_images(tmp_path / split, names)
        write_labelme(tmp_path / split, names)
    splits = read("labelme", tmp_path, "labelme")
    assert [split.image_ids for split in splits][1] == ("img_4", "img_5")


def test_converted_to_labelme(tmp_path):
    """All that labelme's own loader asks for is there."""
    write_images(tmp_path / "mine")
    write_labelme(tmp_path / "mine", NAMES)
    main([str(tmp_path / "mine"), "--to", "labelme", "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out/all/img_0.json").read_text())
    assert {"version", "imageData", "imagePath", "shapes", "flags"} <= found.keys()
    (shape,) = found["shapes"]
    assert {"label", "points", "shape_type", "flags", "group_id"} == shape.keys()
    assert shape["points"] == [[X1, Y1], [X2, Y2]]
    read("labelme", tmp_path / "out", "labelme")


# ------------------------------------------------------------------------------------------------
# CVAT
# ------------------------------------------------------------------------------------------------


def cvat_xml(*subsets):
    """subsets: (name, file names)."""
    images = "".join(
        f'  <image id="{number}" name="{name}" subset="{subset}" task_id="1" width="{W}" '
        f'height="{H}">\n    <box label="dog" source="manual" occluded="0" xtl="{X1}.00" '
        f'ytl="{Y1}.00" xbr="{X2}.00" ybr="{Y2}.00" z_order="0">\n    </box>\n  </image>\n'
        for subset, names in subsets
        for number, name in enumerate(names)
    )
    labels = "<label><name>dog</name><color>#fa3253</color><type>any</type></label>"
    meta = f"<meta><task><id>1</id><labels>{labels}</labels></task></meta>"
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
    return f"{head}{meta}{images}</annotations>\n"


def test_cvat_for_images(tmp_path):
    write_images(tmp_path / "images")
    write(tmp_path / "annotations.xml", cvat_xml(("default", NAMES)))
    read("CVAT", tmp_path, "cvat")


def test_subsets_of_a_cvat_project(tmp_path):
    write_images(tmp_path / "images" / "Train", NAMES[:4])
    write_images(tmp_path / "images" / "Validation", NAMES[4:])
    subsets = ("Train", NAMES[:4]), ("Validation", NAMES[4:])
    write(tmp_path / "annotations.xml", cvat_xml(*subsets))
    assert list(map(len, read("CVAT", tmp_path, "cvat"))) == [4, 2]


def coco(file_names):
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": ""},
        "categories": [{"id": 1, "name": "dog", "supercategory": ""}],
        "images": [
            {"id": number, "width": W, "height": H, "file_name": name, "license": 0}
            for number, name in enumerate(file_names, start=1)
        ],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "segmentation": [],
             "area": (X2 - X1) * (Y2 - Y1), "bbox": [X1, Y1, X2 - X1, Y2 - Y1], "iscrowd": 0,
             "attributes": {"occluded": False, "rotation": 0.0}}
            for number in range(1, COUNT + 1)
        ],
    }  # fmt: skip


def voc(name):
    corners = f"<xmin>{X1 + 1}</xmin><ymin>{Y1 + 1}</ymin><xmax>{X2}</xmax><ymax>{Y2}</ymax>"
    size = f"<size><width>{W}</width><height>{H}</height><depth>3</depth></size>"
    item = f"<object><name>dog</name><bndbox>{corners}</bndbox></object>"
    return f"<annotation><filename>{name}</filename>{size}{item}</annotation>"


def test_coco_of_cvat(tmp_path):
    write_images(tmp_path / "images" / "default")
    write(tmp_path / "annotations/instances_default.json", coco(NAMES))
    read("CVAT", tmp_path, "coco", format="coco")


def test_voc_of_cvat(tmp_path):
    write_images(tmp_path / "JPEGImages")
    for name in NAMES:
        write(tmp_path / "Annotations" / name.replace(".jpg", ".xml"), voc(name))
    write(tmp_path / "ImageSets/Main/default.txt", "".join(f"{n[:-4]}\n" for n in NAMES))
    write(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\ndog:250,50,83::\n")
    read("CVAT", tmp_path, "voc", format="voc")


def test_yolo_1_1_of_cvat(tmp_path):
    write_images(tmp_path / "obj_train_data")
    for name in NAMES:
        write(tmp_path / "obj_train_data" / name.replace(".jpg", ".txt"), f"0 {FRACTIONS}\n")
    write(tmp_path / "obj.names", "dog\n")
    write(tmp_path / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n")
    write(tmp_path / "train.txt", "".join(f"data/obj_train_data/{name}\n" for name in NAMES))
    read("CVAT", tmp_path, "yolo", format="yolo")


def test_ultralytics_yolo_of_cvat(tmp_path):
    write_images(tmp_path / "images" / "train")
    for name in NAMES:
        write(tmp_path / "labels/train" / name.replace(".jpg", ".txt"), f"0 {FRACTIONS}\n")
    write(tmp_path / "data.yaml", "names:\n  0: dog\npath: .\ntrain: train.txt\n")
    write(tmp_path / "train.txt", "".join(f"data/images/train/{name}\n" for name in NAMES))
    read("CVAT", tmp_path, "yolo", format="yolo")


# ------------------------------------------------------------------------------------------------
# Label Studio
# ------------------------------------------------------------------------------------------------

UPLOADED = [f"cb06{number}18f-{name}" for number, name in enumerate(NAMES)]


def test_coco_of_label_studio(tmp_path):
    """It numbers categories from 0."""
    write_images(tmp_path / "images", UPLOADED)
    contents = coco([f"images\\{name}" for name in UPLOADED])
    contents["categories"] = [{"id": 0, "name": "dog"}]
    for annotation in contents["annotations"]:
        annotation |= {"category_id": 0, "ignore": 0}
    write(tmp_path / "result.json", contents)
    read("Label Studio", tmp_path, "coco")


def test_local_storage_of_label_studio(tmp_path):
    write_images(tmp_path / "storage" / "dogs")
    names = [f"/data/local-files/?d=dogs/{name}" for name in NAMES]
    write(tmp_path / "mine" / "result.json", coco(names))
    read("Label Studio", tmp_path / "mine", "coco", images=("../storage",))


def test_yolo_of_label_studio(tmp_path):
    write_images(tmp_path / "images", UPLOADED)
    for name in UPLOADED:
        write(tmp_path / "labels" / name.replace(".jpg", ".txt"), f"0 {FRACTIONS}\n")
    write(tmp_path / "classes.txt", "dog\n")
    write(tmp_path / "notes.json", {"categories": [{"id": 0, "name": "dog"}], "info": {}})
    read("Label Studio", tmp_path, "yolo", format="yolo")


def test_voc_of_label_studio(tmp_path):
    write_images(tmp_path / "images", UPLOADED)
    for name in UPLOADED:
        write(tmp_path / "Annotations" / name.replace(".jpg", ".xml"), voc(name))
    read("Label Studio", tmp_path, "voc", format="voc")
