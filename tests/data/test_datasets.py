"""What a config's `data` section reads: formats, splits joined by +, classes, the limit."""

from dataclasses import replace

import numpy as np
import pytest
from loguru import logger
from PIL import Image

from configs.checked import ConfigError
from configs.schema import Csv, Data, Yolo
from data.datasets import SETTINGS, class_names, log_defects, read_split
from data.formats import FORMATS
from data.formats.shapes import make_shapes
from data.records import DatasetError

pytestmark = pytest.mark.quick


def add_image(root, stem, *names):
    """An image of 40x30 and its annotation, an object a name."""
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (90, 120, 60)).save(root / "JPEGImages" / f"{stem}.jpg")
    box = "<bndbox><xmin>3</xmin><ymin>5</ymin><xmax>20</xmax><ymax>25</ymax></bndbox>"
    objects = "".join(f"<object><name>{name}</name>{box}</object>" for name in names)
    text = f"<annotation>{objects}</annotation>"
    (root / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")


def add_split(root, name, *stems):
    (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems), encoding="utf-8")


@pytest.fixture
def devkit(tmp_path):
    """Two trees: A with train (a1, a2) and val (a3), B with train (b1, b2)."""
    for stem, names in (("a1", ["dog"]), ("a2", []), ("a3", ["zebra"])):
        add_image(tmp_path / "A", stem, *names)
    for stem, names in (("b1", ["cat", "dog"]), ("b2", ["bird"])):
        add_image(tmp_path / "B", stem, *names)
    add_split(tmp_path / "A", "train", "a1", "a2")
    add_split(tmp_path / "A", "val", "a3")
    add_split(tmp_path / "B", "train", "b1", "b2")
    return tmp_path


def test_classes_are_those_of_training_and_validation_together(devkit):
    """Sorted over all splits, so that a label means the same in each of them."""
    data = Data(root=str(devkit), train="A/train + B/train", val="A/val")
    assert class_names(data) == ("bird", "cat", "dog", "zebra")
    assert class_names(Data(root=str(devkit), train="B/train", val="B/train")) == (
        "bird",
        "cat",
        "dog",
    )
    assert class_names(Data(root=str(devkit / "A"), train="train", val="val")) == ("dog", "zebra")


def test_classes_given_are_taken_as_they_are(devkit):
    """In their order, which is that of the labels; what is not among them is an error."""
    data = Data(root=str(devkit), train="B/train", val="A/val", classes=("dog", "cat", "bird"))
    assert class_names(data) == ("dog", "cat", "bird")
    assert read_split(data, data.train, class_names(data)).labels.tolist() == [1, 0, 2]
    with pytest.raises(DatasetError, match=r"a3\.xml.*expected one of dog, cat, bird.*'zebra'"):
        read_split(data, data.val, class_names(data))


def test_splits_of_several_folders_are_joined_in_order(devkit):
    data = Data(root=str(devkit), train="A/train + B/train", val="A/val")
    classes = class_names(data)
    joined = read_split(data, data.train, classes)
    assert joined.image_ids == ("a1", "a2", "b1", "b2")
    assert joined.classes == classes
    assert [classes[label] for label in joined.labels] == ["dog", "cat", "dog", "bird"]
    np.testing.assert_array_equal(joined.image_index, [0, 2, 2, 3])
    np.testing.assert_array_equal(joined.boxes[0], [2, 4, 20, 25])
    assert all(f"{folder}/JPEGImages" in path for folder, path in zip("AABB", joined.images))  # noqa: B905


def test_splits_of_one_folder_are_joined(devkit):
    data = Data(root=str(devkit / "A"))
    assert read_split(data, "val+train", ("dog", "zebra")).image_ids == ("a3", "a1", "a2")


@pytest.mark.parametrize(("limit", "expected"), [(0, 4), (1, 1), (3, 3), (99, 4)])
def test_the_limit_is_of_the_whole_split(devkit, limit, expected):
    data = Data(root=str(devkit), train="A/train + B/train", val="A/val", limit=limit)
    assert class_names(data) == ("bird", "cat", "dog", "zebra"), "classes do not depend on it"
    found = read_split(data, data.train, class_names(data))
    assert found.image_ids == ("a1", "a2", "b1", "b2")[:expected]


def test_a_flat_folder_is_split_by_the_given_share(tmp_path):
    """The share reaches the reader for classes and images alike."""
    for i in range(40):
        add_image(tmp_path, f"img{i:02d}", "dog")
    for share in (0.2, 0.6):
        data = Data(root=str(tmp_path), val_fraction=share)
        assert class_names(data) == ("dog",)
        train, val = (read_split(data, split, ("dog",)) for split in ("train", "val"))
        assert not set(train.image_ids) & set(val.image_ids)
        assert len(train) + len(val) == 40
        assert len(val) == share * 40


def test_defects_are_dropped_only_where_the_config_says_so(devkit):
    add_image(devkit / "A", "a3", "zebra", "")
    strict, lenient = (
        Data(root=str(devkit), on_bad_annotation=choice) for choice in ("error", "drop")
    )
    with pytest.raises(DatasetError, match="name: expected a class name"):
        read_split(strict, "A/val", ("zebra",))
    found = read_split(lenient, "A/val", ("zebra",))
    assert len(found.labels) == 1
    assert found.defects.counts() == {"missing name": 1}


@pytest.mark.parametrize(
    ("split", "message"),
    [("C/train", "C: no such folder"), ("B/val", r"val\.txt: no such image set; there are train")],
)
def test_a_split_that_is_not_there(devkit, split, message):
    with pytest.raises(DatasetError, match=message):
        read_split(Data(root=str(devkit)), split, ("dog",))


def test_shapes_are_made_once(tmp_path, monkeypatch):
    """The default dataset appears where the config wants it; then it is read like any other."""
    few = replace(FORMATS["shapes"], prepare=lambda root: make_shapes(root, 6, 2, (64, 64)))
    monkeypatch.setitem(FORMATS, "shapes", few)
    data = Data(format="shapes", root=str(tmp_path / "shapes"))
    classes = class_names(data)
    assert (tmp_path / "shapes" / "shapes.json").is_file()
    assert set(classes) <= {"circle", "cross", "square", "star", "triangle"}
    assert list(classes) == sorted(classes)
    before = (tmp_path / "shapes" / "shapes.json").stat().st_mtime_ns
    assert class_names(data) == classes
    assert (tmp_path / "shapes" / "shapes.json").stat().st_mtime_ns == before
    assert len(read_split(data, "train", classes)) == 6
    assert len(read_split(data, "val", classes)) == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"images": ("x",)}, r"^data\.images: expected .* unless format is "),
        ({"class_file": "none.txt"}, r"none\.txt: cannot be read"),
        ({"classes": ("d\u202eg",)}, r"^data\.classes: expected a class name of one line"),
    ],
)
def test_nothing_is_made_before_a_refusal(tmp_path, setting, message):
    data = Data(format="shapes", root=str(tmp_path / "shapes"), **setting)
    with pytest.raises(ValueError, match=message):
        class_names(data)
    assert not (tmp_path / "shapes").exists()


# ------------------------------------------------------------------------------------------------
# Every format through the config
# ------------------------------------------------------------------------------------------------


COCO = """{"images": [{"id": 5, "file_name": "a.png", "width": 40, "height": 30}],
"annotations": [{"id": 1, "image_id": 5, "category_id": 9, "bbox": [2, 3, 10, 8], "iscrowd": 0},
{"id": 2, "image_id": 5, "category_id": 4, "bbox": [20, 3, 10, 8], "iscrowd": 1}],
"categories": [{"id": 9, "name": "person"}, {"id": 4, "name": "head"}]}"""
ODGT = (
    '{"ID": "a", "gtboxes": [{"tag": "person", "fbox": [2, 3, 10, 8], "vbox": [2, 3, 5, 5], '
    '"hbox": [20, 3, 10, 8]}]}'
)
LABELME = """{"shapes": [{"label": "person", "points": [[12, 11], [2, 3]],
"shape_type": "rectangle"}, {"label": "head", "points": [[20, 3], [30, 11]],
"shape_type": "rectangle"}], "imagePath": "../../a.png"}"""
CVAT = """<annotations><image id="0" name="a.png" width="40" height="30"><box label="person"
xtl="2" ytl="3" xbr="12" ybr="11"/><box label="head" xtl="20" ytl="3" xbr="30" ybr="11"/></image>
</annotations>"""
FILES = {
    "coco": {"train.json": COCO},
    "csv": {"train.csv": "a.png;2;3;12;11;person\na.png;20;3;30;11;head\n"},
    "yolo": {
        "labels/train/a.txt": "1 0.175 0.233333333333 0.25 0.266666666667\n"
        "0 0.625 0.233333333333 0.25 0.266666666667\n",
        "data.yaml": "names: [head, person]\ntrain: images/train\nval: images/train\n",
    },
    "crowdhuman": {"train.odgt": ODGT},
    "labelme": {"train/a.json": LABELME},
    "cvat": {"train.xml": CVAT},
}


@pytest.fixture(params=FILES)
def other(tmp_path, request):
    """A person and a head in one image of 40x30, in the folder `pictures`; the config's data."""
    for name, text in FILES[request.param].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    folder = tmp_path / ("images/train" if request.param == "yolo" else "pictures")
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    images = () if request.param == "yolo" else ("pictures",)
    return Data(format=request.param, root=str(tmp_path), val="train", images=images)


EXPECTED = {"person": [2, 3, 12, 11], "head": [20, 3, 30, 11]}


def test_every_format_is_read_as_the_config_says(other):
    """The same two boxes, whatever the order of the classes."""
    classes = class_names(other)
    assert (
        classes
        == {
            "coco": ("head", "person"),  # by category id
            "csv": ("head", "person"),  # sorted
            "yolo": ("head", "person"),  # as declared
            "crowdhuman": ("person",),
            "labelme": ("head", "person"),  # sorted
            "cvat": ("head", "person"),  # sorted, as the file lists none
        }[other.format]
    )
    for chosen in (classes, ("person", "head")):
        found = read_split(other, "train", chosen)
        assert found.classes == chosen
        boxes = {chosen[label]: box for label, box in zip(found.labels, found.boxes, strict=True)}
        for name, box in boxes.items():
            np.testing.assert_allclose(box, EXPECTED[name], atol=1e-6)
        assert set(boxes) == set(chosen)
        crowd = "head" if other.format == "coco" else None
        assert [chosen[label] == crowd for label in found.labels] == found.ignore.tolist()


def test_of_declared_classes_some_may_be_left_out(other):
    if other.format in ("csv", "labelme"):
        with pytest.raises(DatasetError, match=r"(class|label): expected one of person, found"):
            read_split(other, "train", ("person",))
        return
    found = read_split(other, "train", ("person",))
    assert len(found.labels) == 1
    np.testing.assert_allclose(found.boxes[0], EXPECTED["person"], atol=1e-6)


def test_classes_may_stand_in_a_file(tmp_path, other):
    if other.format == "crowdhuman":
        pytest.skip("its classes are person and head")
    (tmp_path / "names.txt").write_text("person\nhead\n")
    assert class_names(replace(other, class_file="names.txt")) == ("person", "head")


def test_settings_of_a_format_reach_its_reader(other, tmp_path):
    if other.format == "crowdhuman":
        visible = replace(other, person_box="visible")
        found = read_split(visible, "train", ("person",))
        np.testing.assert_array_equal(found.boxes, [[2, 3, 7, 8]])
    elif other.format == "coco":
        text = (tmp_path / "train.json").read_text().replace('"width": 40', '"width": 41')
        (tmp_path / "train.json").write_text(text)
        with pytest.raises(DatasetError, match="expected 40x30 as the image has, found 41x30"):
            read_split(other, "train", ("head",))
        trusting = replace(other, check_images=False)
        assert read_split(trusting, "train", ("head",)).sizes.tolist() == [[41, 30]]
    elif other.format == "csv":
        (tmp_path / "train.csv").write_text("filename|xmin|ymin|xmax|ymax|class\na.png|1|2|3|4|x,y")
        piped = replace(other, csv=Csv(delimiter="pipe", header=True))
        assert read_split(piped, "train", class_names(piped)).classes == ("x,y",)


def test_sizes_in_place_of_images(other, tmp_path):
    (tmp_path / "pictures" / "a.png").unlink(missing_ok=True)
    if other.format in ("coco", "crowdhuman"):
        found = read_split(other, "train", ("person",), {"a": (40, 30)})
        assert found.sizes.tolist() == [[40, 30]]
        with pytest.raises(DatasetError, match=r"expected the image a\.(png|jpg)"):
            read_split(other, "train", ("person",))


def test_a_class_that_no_split_declares_is_refused(other):
    if other.format in ("coco", "yolo"):
        misspelt = replace(other, classes=("persn",))
        with pytest.raises(DatasetError, match="found 'persn'; did you mean 'person'"):
            class_names(misspelt)


def test_a_split_that_declares_fewer_classes_has_no_objects_of_the_others(tmp_path, other):
    if other.format == "coco":
        text = COCO.replace('{"id": 9, "name": "person"}, ', "").replace('"category_id": 9', "9")
        text = text.replace('"image_id": 5, 9,', '"image_id": 5, "category_id": 4,')
        (tmp_path / "val.json").write_text(text)
        both = replace(other, val="val")
        assert class_names(both) == ("head", "person")
        found = read_split(both, "val", class_names(both))
        assert found.labels.tolist() == [0, 0]
        assert found.defects.counts() == {"class not declared": 1}


def test_only_the_split_that_is_judged_need_be_there(other):
    absent = replace(other, train="none", val="none")
    if other.format == "crowdhuman":
        return
    assert class_names(absent, "train") == ("head", "person")
    if other.format != "yolo":  # whose classes stand elsewhere
        with pytest.raises(DatasetError, match=r"none\.(csv|json)|(folder|subset) none"):
            class_names(absent)


def test_no_class_found_says_what_hid_them(tmp_path):
    (tmp_path / "train.csv").write_text("a.jpg,1,2,3,4,cat,9\n")
    data = Data(format="csv", root=str(tmp_path), val="train")
    with pytest.raises(DatasetError, match=r"train\.csv, line 1: expected 6 fields"):
        class_names(data)


def test_a_root_that_is_not_there(tmp_path):
    for data_format in ("voc", "coco", "csv", "yolo", "crowdhuman", "labelme", "cvat"):
        data = Data(format=data_format, root=str(tmp_path / "none"), classes=("person",))
        with pytest.raises(DatasetError, match="none: no such folder"):
            read_split(data, "train", ("person",))


def test_defects_are_listed_in_the_diary(tmp_path):
    (tmp_path / "train.csv").write_text("a.png,1,2,3,4,cat\nb.png,1,2,3,4,cat\n")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    data = Data(format="csv", root=str(tmp_path), on_bad_annotation="drop")
    lines = []
    sink = logger.add(lines.append, format="{level} {message}")
    log_defects(read_split(data, "train", ("cat",)))
    logger.remove(sink)
    assert "1 x missing image" in lines[0]
    assert "WARNING" in lines[0]
    assert "expected the image b.png" in lines[1]


# ------------------------------------------------------------------------------------------------
# Formats
# ------------------------------------------------------------------------------------------------


def test_an_unknown_format_lists_those_there_are(tmp_path):
    with pytest.raises(ConfigError) as caught:
        class_names(Data(format="vocx", root=str(tmp_path)))
    expected = "voc, coco, csv, yolo, crowdhuman, labelme, cvat, tfrecord, tfds, shapes"
    assert str(caught.value) == f"data.format: expected one of {expected}, found 'vocx'"


OF_A_FORMAT = {
    "images": ("pictures",),
    "val_fraction": 0.3,
    "csv": Csv(header=False),
    "yolo": Yolo(lines="boxes"),
    "person_box": "visible",
    "check_images": False,
}


def test_every_setting_of_a_format_is_tried():
    assert OF_A_FORMAT.keys() == SETTINGS.keys()


@pytest.mark.parametrize("setting", OF_A_FORMAT)
@pytest.mark.parametrize("name", FORMATS)
def test_a_setting_that_a_format_has_no_use_for_is_refused(name, setting, tmp_path, monkeypatch):
    """Others reach the reader, under its own name for them."""
    taken = {}

    def read(*args, **options):
        taken.update(options)
        raise DatasetError("read")

    fake = replace(FORMATS[name], read=read, prepare=None)
    monkeypatch.setitem(FORMATS, name, fake)
    data = Data(format=name, root=str(tmp_path), **{setting: OF_A_FORMAT[setting]})
    if SETTINGS[setting] in fake.options:
        with pytest.raises(DatasetError, match=r"^read$"):
            read_split(data, "train", ())
        nested = {"csv": ("header", False), "yolo": ("lines", "boxes")}
        name, expected = nested.get(setting, (setting, OF_A_FORMAT[setting]))
        assert setting == "val_fraction" or taken[name] == expected, "that is tried above"
    else:
        with pytest.raises(ConfigError, match=rf"^data\.{setting}: expected .* unless format is "):
            read_split(data, "train", ())
        assert not taken
