"""What docs/datasets.md says to set for makesense and VoTT, on files in these tools' layouts.

The layouts are those of src/logic/export/RectLabelsExporter.ts of SkalskiP/make-sense and of
src/providers/export/csv.ts, pascalVOC.ts and vottJson.ts of microsoft/VoTT.
"""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import preset
from configs.schema import Data
from data.datasets import class_names, read_split
from data.records import DatasetError

pytestmark = pytest.mark.quick

DOCS = Path(__file__).parents[2] / "docs" / "datasets.md"
W, H = 64, 48
NAMES = [f"photo {number}.jpg" for number in range(10)]


def data_settings(tool, form):
    """The settings of a format in the section of a tool."""
    section = re.search(rf"^### {tool}\n(.*?)^##", DOCS.read_text(encoding="utf-8"), re.M | re.S)[1]
    (found,) = re.findall(rf'preset\("small", ({{"data.format": "{form}".*}})\)', section)
    return preset("small", ast.literal_eval(found)).data


def write_images(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        Image.new("RGB", (W, H), (90, 120, 60)).save(folder / name)


def assert_read(root, tool, form, box, notes=()):
    """train and val share the images out; each one's box and class are as drawn."""
    data = replace(data_settings(tool, form), root=str(root))
    classes = class_names(data)
    assert classes == ("cat", "dog")
    splits = [read_split(data, split, classes) for split in (data.train, data.val)]
    assert [len(split) for split in splits] == [8, 2]
    read = {image_id for split in splits for image_id in split.image_ids}
    assert read == {Path(name).stem for name in NAMES}
    for split in splits:
        np.testing.assert_array_equal(split.boxes, [box] * len(split))
        assert split.defects.counts().keys() == set(notes)


@pytest.mark.parametrize("images", ["", "images"])
@pytest.mark.parametrize("has_header", [False, True])
def test_makesense_csv(tmp_path, images, has_header):
    write_images(tmp_path / images)
    lines = [f"{'cat' if i % 2 else 'dog'},10,5,20,30,{n},{W},{H}" for i, n in enumerate(NAMES)]
    header = "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height"
    text = "\n".join([header] * has_header + lines)
    (tmp_path / "labels_my-project_2026-11-29-08-00-00.csv").write_text(text)
    assert_read(tmp_path, "makesense", "csv", [10, 5, 30, 35])


def test_a_negative_added_to_the_csv_of_makesense(tmp_path):
    write_images(tmp_path)
    (tmp_path / "train.csv").write_text(f"dog,10,5,20,30,{NAMES[0]},{W},{H}\n,,,,,{NAMES[1]},,\n")
    assert "`,,,,,x.jpg,,`" in DOCS.read_text(encoding="utf-8")
    data = Data(format="csv", root=str(tmp_path))
    dataset = read_split(data, "train", ("dog",))
    np.testing.assert_array_equal(dataset.row_splits, [0, 1, 1])


MAKESENSE_XML = """<annotation>
\t<folder>my-project</folder>
\t<filename>{name}</filename>
\t<path>/my-project/{name}</path>
\t<source>
\t\t<database>Unspecified</database>
\t</source>
\t<size>
\t\t<width>64</width>
\t\t<height>48</height>
\t\t<depth>3</depth>
\t</size>
\t<object>
\t\t<name>{label}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>Unspecified</truncated>
\t\t<difficult>Unspecified</difficult>
\t\t<bndbox>
\t\t\t<xmin>10</xmin>
\t\t\t<ymin>5</ymin>
\t\t\t<xmax>30</xmax>
\t\t\t<ymax>35</ymax>
\t\t</bndbox>
\t</object>
</annotation>"""


def write_xml(folder, text):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(NAMES):
        xml = text.format(name=name, label="cat" if i % 2 else "dog")
        (folder / name).with_suffix(".xml").write_text(xml)


def test_makesense_voc(tmp_path):
    """Corners are taken as counted from 1."""
    write_images(tmp_path)
    write_xml(tmp_path, MAKESENSE_XML)
    notes = {"difficult flag other than 0 or 1"}
    assert_read(tmp_path, "makesense", "voc", [9, 4, 30, 35], notes)


def test_vott_csv(tmp_path):
    write_images(tmp_path)
    lines = [f'"{n}",10.5,5,30.25,35,"{"cat" if i % 2 else "dog"}"' for i, n in enumerate(NAMES)]
    text = "\n".join(['"image","xmin","ymin","xmax","ymax","label"', *lines])
    (tmp_path / "my-project-export.csv").write_text(text)
    assert_read(tmp_path, "VoTT", "csv", [10.5, 5, 30.25, 35])


VOTT_XML = """<annotation verified="yes">
    <folder>Annotation</folder>
    <filename>{name}</filename>
    <path>my-project-PascalVOC-export/Annotations/{name}</path>
    <source>
        <database>Unknown</database>
    </source>
    <size>
        <width>64</width>
        <height>48</height>
        <depth>3</depth>
    </size>
    <segmented>0</segmented>
    <object>
    <name>{label}</name>
    <pose>Unspecified</pose>
    <truncated>0</truncated>
    <difficult>0</difficult>
    <bndbox>
        <xmin>10.5</xmin>
        <ymin>5</ymin>
        <xmax>30.25</xmax>
        <ymax>35</ymax>
    </bndbox>
</object>
</annotation>
"""


def test_vott_voc(tmp_path):
    """Corners are taken as counted from 1."""
    write_images(tmp_path / "JPEGImages")
    write_xml(tmp_path / "Annotations", VOTT_XML)
    (tmp_path / "pascal_label_map.pbtxt").write_text("item {\n id: 1\n name: 'dog'\n}\n")
    assert_read(tmp_path, "VoTT", "voc", [9.5, 4, 30.25, 35])


def test_vott_json_is_refused(tmp_path):
    write_images(tmp_path)
    region = {"type": "RECTANGLE", "tags": ["dog"], "boundingBox": {"height": 3, "left": 1}}
    asset = {"asset": {"name": NAMES[0], "size": {"width": W, "height": H}}, "regions": [region]}
    (tmp_path / "my-project-export.json").write_text(json.dumps({"assets": {"1f": asset}}))
    data = Data(format="coco", root=str(tmp_path), train="my-project-export.json")
    with pytest.raises(DatasetError, match="my-project-export"):
        read_split(data, data.train, ("dog",))
