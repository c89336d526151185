"""Files of formats that are not read, or not the one asked for: named, with the way out."""

import json

import pytest

from data.formats import FORMATS
from data.formats.foreign import KINDS, MOST_FILES, hint, kind_of, kinds_below
from data.formats.recognition import recognise
from data.records import DatasetError

pytestmark = pytest.mark.quick

RECT = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
REGION = {"shape_attributes": RECT, "region_attributes": {"label": "cat"}}
VIA = {"a.png5": {"filename": "a.png", "size": 5, "regions": [REGION]}}
CREATE_ML = [{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {"x": 1, "y": 2}}]}]
LABEL_STUDIO = [{"id": 1, "annotations": [{"result": [{"from_name": "label", "to_name": "image",
                 "type": "rectanglelabels", "original_width": 40, "value": {"x": 1}}]}],
                 "data": {"image": "/data/upload/1/a.png"}}]  # fmt: skip
JSON_MIN = [{"image": "/data/upload/1/a.png", "label": [{"x": 1, "rectanglelabels": ["cat"]}]}]
COCO = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}
KITTI = "Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
FILES = {
    "VIA": ("a.json", VIA),
    "VIA 3": ("a.json", {"project": {}, "metadata": {"1": {"vid": "1", "xy": [2, 1, 2, 3, 4]}}}),
    "labelme": ("a.json", {"shapes": [{"label": "cat", "points": [[1, 2], [3, 4]]}]}),
    "Label Studio": ("a.json", LABEL_STUDIO),
    "Apple CreateML": ("a.json", CREATE_ML),
    "Supervisely": ("a.json", {"size": {}, "objects": [{"classTitle": "cat"}]}),
    "VoTT": ("a.json", {"asset": {}, "regions": [{"boundingBox": {"left": 1}}]}),
    "BDD100K": ("a.json", [{"name": "a.jpg", "labels": [{"box2d": {"x1": 1}}]}]),
    "Datumaro": ("a.json", {"info": {}, "categories": {}, "items": []}),
    "Labelbox": ("a.json", [{"data_row": {"id": "1"}}]),
    "COCO panoptic": ("a.json", {**COCO, "annotations": [{"segments_info": []}]}),
    "COCO results": ("a.json", [{"image_id": 1, "category_id": 1, "bbox": [1], "score": 0.5}]),
    "COCO": ("a.json", COCO),
    "CrowdHuman": ("a.odgt", {"ID": "a", "gtboxes": []}),
    "CVAT for video": ("a.xml", "<annotations>\n<track id='0'></track></annotations>"),
    "CVAT for images": ("a.xml", "<?xml version='1.0'?><annotations><image/></annotations>"),
    "LabelMe XML": ("a.xml", "<annotation><object><polygon><pt><x>1</x></pt></polygon></object>"),
    "Pascal VOC": ("a.xml", "<annotation><object></object></annotation>"),
    "dlib's imglab": ("a.xml", "<dataset><images><image file='a'><box top='1'/></image>"),
    "KITTI": ("a.txt", KITTI),
    "DOTA": ("a.txt", "1 2 3 4 5 6 7 8 plane 0\n"),
    "YOLO": ("a.txt", "0 0.5 0.5 0.25 1e-2\n"),
    "CSV": ("a.csv", "a.png;1;2;3;4;cat\n"),
    "TFRecord": ("a.record", ""),
}


def write(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(contents if isinstance(contents, str) else json.dumps(contents))


@pytest.mark.parametrize("name", FILES)
def test_the_format_of_a_file(tmp_path, name):
    file, contents = FILES[name]
    write(tmp_path / file, contents)
    kind = kind_of(tmp_path / file)
    assert kind is not None
    assert kind.name == name
    assert bool(kind.format) != bool(kind.way_out), "it is read, or there is a way out"


def test_every_format_is_tried_and_those_that_are_read_are_known():
    assert {kind.name for kind in KINDS} == set(FILES)
    assert {kind.format for kind in KINDS} - {"", "tfrecord"} <= set(FORMATS)


@pytest.mark.parametrize(
    ("file", "contents"),
    [
        ("via_project.json", {"_via_settings": {}, "_via_img_metadata": VIA}),
        ("min.json", JSON_MIN),
    ],
)
def test_other_forms_of_the_same_tools(tmp_path, file, contents):
    write(tmp_path / file, contents)
    kind = kind_of(tmp_path / file)
    assert kind is not None
    assert kind.name == ("VIA" if "via" in file else "Label Studio")


def test_files_of_no_format(tmp_path):
    for name, text in (("a.json", '{"a": 1}'), ("a.txt", "hello"), ("a.xml", "<a/>"), ("a.c", "")):
        (tmp_path / name).write_text(text)
    (tmp_path / "b.json").symlink_to("/dev/zero")
    (tmp_path / "utf16.xml").write_text("<annotation/>", encoding="utf-16")
    assert [*kinds_below(tmp_path).values()] == []
    (tmp_path / "utf16.xml").write_text("<annotation></annotation>", encoding="utf-16")
    assert [*kinds_below(tmp_path).values()] == ["utf16.xml"]


def test_folders_below_are_looked_through_hidden_ones_are_not(tmp_path):
    write(tmp_path / "x/y/a.json", VIA)
    write(tmp_path / ".x/b.json", COCO)
    write(tmp_path / "x/y/z/c.json", COCO)
    assert {kind.name: name for kind, name in kinds_below(tmp_path).items()} == {
        "VIA": "x/y/a.json"
    }
    for number in range(MOST_FILES):
        (tmp_path / f"{number:03}.txt").touch()
    assert kinds_below(tmp_path) == {}


def test_a_hint_is_given_where_the_wanted_format_is_not_there(tmp_path):
    assert hint(tmp_path) == hint(tmp_path / "none") == ""
    write(tmp_path / "via.json", VIA)
    way_out = "not read: export it from VIA as COCO (Annotation > Export Annotations (COCO format))"
    assert hint(tmp_path, "coco") == f"via.json is of VIA, {way_out}"
    write(tmp_path / "train.json", COCO)
    assert hint(tmp_path, "coco") == ""
    assert hint(tmp_path, "voc").startswith("train.json is of COCO, format coco; via.json is of")


@pytest.mark.parametrize(
    ("name", "split"),
    [("voc", "train"), ("coco", "train"), ("csv", "train"), ("yolo", "train"), ("labelme", "train"),
     ("crowdhuman", "train"), ("cvat", "train"), ("coco", "a.json"), ("labelme", "all")],
)  # fmt: skip
def test_every_reader_says_whose_files_lie_there(tmp_path, name, split):
    write(tmp_path / "a.json", CREATE_ML)
    form = FORMATS[name]
    options = {"images": (), "delimiter": "", "header": None}
    expected = r"; a\.json is of Apple CreateML, not read: export it as COCO, YOLO or Pascal VOC"
    with pytest.raises(DatasetError, match=expected) as caught:
        form.read_split(tmp_path, split, form.default_classes or ("cat",), "error", options)
    assert "\n" not in str(caught.value)
    if split == "train" and not form.default_classes:
        with pytest.raises(DatasetError, match=expected):
            form.joint_classes(tmp_path, [split], options)


def test_a_folder_that_is_not_recognised_says_whose_it_is(tmp_path):
    write(tmp_path / "label_2/000000.txt", KITTI)
    expected = r"found none; label_2/000000\.txt is of KITTI, not read: convert it"
    with pytest.raises(DatasetError, match=expected):
        recognise(tmp_path)


def test_xml_of_cvat_is_not_taken_for_voc_s(tmp_path):
    write(tmp_path / "annotations.xml", FILES["CVAT for images"][1])
    assert recognise(tmp_path) == "cvat"
    expected = r"VOC( file)?; annotations\.xml is of CVAT for images, format cvat"
    with pytest.raises(DatasetError, match=expected):
        FORMATS["voc"].read_split(tmp_path, "all", None, "error", {})
