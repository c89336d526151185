"""Readers fed with mutated files: never anything but a sound Dataset or a DatasetError.

300 mutations of each format; FUZZ_EXAMPLES says another number, `make fuzz` 10,000. And what is
made to exhaust time or memory is refused, in a process with little of both.
"""

import copy
import json
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.files import read_data
from data.formats import FORMATS
from data.formats.boxes_csv import csv_classes, read_csv
from data.formats.coco import coco_classes, read_coco
from data.formats.crowdhuman import read_crowdhuman
from data.formats.cvat import cvat_classes, read_cvat
from data.formats.label_map import read_label_map
from data.formats.labelme import labelme_classes, read_labelme
from data.formats.tfds import read_tfds, tfds_classes
from data.formats.tfrecord import read_tfrecord, tfrecord_classes
from data.formats.voc import read_voc, voc_classes
from data.formats.yolo import read_yolo, yolo_classes
from data.records import Dataset, DatasetError
from tests.records import example, serialized, write_records

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
WIDTH, HEIGHT = 40, 30

COCO = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
        {"id": 9, "coco_url": "http://x/b.png", "width": "40", "height": None},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 20, 10], "area": 150.5,
         "iscrowd": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]},
        {"id": 2, "image_id": 9, "category_id": 5, "bbox": [0.5, 2.25, 9, 9], "iscrowd": 1},
        {"id": 3, "image_id": "9", "category_id": 5, "segmentation": [[1, 2, 3, 4, 5, 6]],
         "iscrowd": None, "ignore": 1.0},
        {"id": 4, "image_id": 9, "category_id": "5", "area": "9",
         "segmentation": {"size": [30, 40], "counts": [31, 9, 1160]}},
        {"id": 5, "image_id": 9, "category_id": 5,
         "segmentation": {"size": [30, 40], "counts": "W1<h1"}},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
}  # fmt: skip
ODGT = [
    {"ID": "a", "gtboxes": [
        {"tag": "person", "fbox": [1, 2, 10, 20], "vbox": [1, 2, 9, 9], "hbox": [2, 2, 3, 3],
         "head_attr": {"ignore": 0}, "extra": {"box_id": 0, "ignore": 1}},
        {"tag": "mask", "fbox": [-5, 2, 10, 40], "vbox": [1, 2, 9, 9], "hbox": [2, 2, 3, 3]},
    ]},
    {"ID": "b", "gtboxes": []},
]  # fmt: skip
LABELME = {
    "version": "5.0.1", "flags": {}, "imagePath": "a.png", "imageData": None,
    "imageHeight": 30, "imageWidth": 40,
    "shapes": [
        {"label": "cat", "points": [[1, 2], [20.5, 12]], "group_id": None,
         "shape_type": "rectangle", "flags": {"difficult": True}},
        {"label": "dog", "points": [[1, 2], [20, 12], [3, 20]], "group_id": 1,
         "shape_type": "polygon", "flags": {}},
        {"label": "dog", "points": [[8, 9], [20, 12], [3, 20]], "group_id": 1,
         "shape_type": "polygon", "flags": {}},
        {"label": "cat", "points": [[9, 9], [9, 14]], "shape_type": "circle"},
        {"label": "cat", "points": [[9, 9]], "shape_type": "point"},
    ],
}  # fmt: skip
CVAT = """<annotations><meta><task><labels><label><name>cat</name><type>any</type></label></labels>
</task></meta><image id="0" name="a.png" subset="Train" width="40" height="30"><box label="cat"
xtl="1" ytl="2" xbr="20.5" ybr="12" rotation="5.0"><attribute name="difficult">true</attribute>
</box><polygon label="dog" points="1,2;20,12;3,20"/><ellipse label="cat" cx="9" cy="9" rx="3"
ry="4"/><mask label="cat" rle="1,2" left="3" top="4" width="5" height="6"/><tag label="cat"/>
</image><image id="1" name="b.png" width="40" height="30"><box label="dog" xtl="1"
ytl="2" xbr="9" ybr="9"/></image></annotations>"""
VOC = """<annotation><filename>{stem}.png</filename><size><width>40</width><height>30</height>
</size><object><name>cat</name><difficult>1</difficult><bndbox><xmin>2</xmin><ymin>3</ymin>
<xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"""
SHAPES = """<annotation><object><name>cat</name><difficult>no</difficult><robndbox><cx>20</cx>
<cy>15</cy><w>8</w><h>6</h><angle>0.5</angle></robndbox></object><object><name>dog</name><deleted>0
</deleted><polygon><pt><x>4</x><y>5</y></pt><pt><x>20</x><y>9</y></pt></polygon></object><object>
<name>dog</name><polygon><x1>2</x1><y1>3</y1><x2>9</x2><y2>9</y2></polygon></object></annotation>"""
VOC_LIST = "a\n./JPEGImages/b.png Annotations/b.xml\nC:\\x\\a.png 1\n"
CSV = "a.png,1,2,20,12,cat\na.png,3,4,10,11,dog\nb.png,,,,,\n"
CSV_HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,30,cat,1,2,20,12\n"
CSV_LAYOUTS = (
    CSV,
    CSV_HEADER,
    "filename,region_shape_attributes,region_attributes\na.png,"
    '"{""name"":""rect"",""x"":1,""y"":2,""width"":9,""height"":8}","{""label"":""cat""}"\n'
    'b.png,"{""name"":""polygon"",""all_points_x"":[1,9],""all_points_y"":[2,8]}","{""label"":{}}"\n',
    "TRAIN,gs://x/a.png,cat,0.1,0.2,,,0.5,0.6,,\nTEST,gs://x/b.png,,,,,,,,,\n",
    "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,/m/1,0.1,0.5,0.2,0.6,1\n",
    'sep=;\nimage_id;width;height;bbox;label\na;40;30;"[1, 2, 20,5, 10]";cat\nb;40;30;nan;none\n',
    "cat,1,2,20,10,a.png,40,30\ncat,1,2,20,10,images\\a.png,40,30\n",
    "image,x,y,w,h,class\na.png,1,2,20,10,cat\n./a.png,3,4,5,6,dog\n",
)
YOLO = "0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.1 0.1\n"
YOLO_LONG = "0 .5 .5 .4 .4 .4 .4 .6 .5\n1 .1 .1 .9 .2 .8 .7 .2 .6\n0 .5 .5 .5 .5 .9 1\n"
YAML = "path: .\ntrain: images/train\nval: images/train\nnames:\n  0: cat\n  1: dog\n"

LABEL_MAP = "item {\n id: 1\n name: 'cat'\n}\nitem { id: 2, name: \"d\\157g\" display_name: 'D' }"

TFDS = {
    "dataset_info.json": {
        "name": "pets", "fileFormat": "tfrecord", "moduleName": "tensorflow_datasets.pets",
        "splits": [{"name": "train", "shardLengths": ["1"],
                    "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}],
    },
    "features.json": {"featuresDict": {"features": {
        "image": {"image": {"dtype": "uint8"}},
        "image/filename": {"text": {}},
        "objects": {"sequence": {"feature": {"featuresDict": {"features": {
            "bbox": {"boundingBox": {"bboxFormat": "REL_YXYX"}},
            "label": {"classLabel": {"numClasses": "2"}},
            "is_crowd": {"tensor": {"dtype": "bool"}},
        }}}}},
    }}},
    "objects-label.labels.txt": "cat\ndog\n",
}  # fmt: skip

# What breaks parsers, and what numbers, names and structures turn into in real life.
ODD_VALUES = (
    None, True, -1, 0, 1, 2, 5, 1e9, -1e9, 1e308, 1e-320, 10**40, float("nan"), float("inf"), "",
    "a",
    "cat", "../../x", "/etc/passwd", "\x00", "1", "nan", "é" * 50, [], {}, [[]], [1], [1, 2, 3, 4],
    [0, 0, 0, 0], [5, 5, -1, -1], [1, 2, 3, "4"], {"id": 1}, "a" * 5000,
)  # fmt: skip
ODD_TEXTS = (
    b"NaN", b"Infinity", b"1e999", b"-1", b"1000000000", b"null", b"[" * 2000, b"{" * 500, b"\x00",
    b"\xff\xfe", b"\xef\xbb\xbf", b"&lol;", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"<", b">", b'"',
    b"'", b",", b";", b"\t", b" ", b"\n", b"\r", b"#", b"*a", b"&a", b"!!python/object:os.system",
    b"\\u0000", b"\\", b"]]>", b"0x10", b"1_0", b"9" * 400, "é".encode(), "１".encode(), b"%",
    b"--",
)  # fmt: skip


@st.composite
def mutated_bytes(draw, text):
    """A file with a few bytes changed, cut out, doubled, or with odd texts put in."""
    data = bytearray(text if isinstance(text, bytes) else text.encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        kind = draw(st.sampled_from(("replace", "cut", "double", "truncate")))
        if kind == "replace":
            data[start:end] = draw(st.sampled_from(ODD_TEXTS) | st.binary(max_size=6))
        elif kind == "cut":
            del data[start:end]
        elif kind == "double":
            data[start:start] = data[start:end]
        else:
            del data[start:]
    return bytes(data)


@st.composite
def mutated_json(draw, value):
    """A structure with one or two places changed, removed or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 2))):
        here = value
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(here[key], (dict, list)) and here[key] and draw(st.booleans()):
                here = here[key]
                continue
            kind = draw(st.sampled_from(("set", "set", "remove", "double")))
            if kind == "set":
                here[key] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
            elif kind == "remove":
                del here[key]
            elif isinstance(here, list):
                here.append(json.loads(json.dumps(here[key])))
            break
    return value


def json_files(value):
    return mutated_bytes(json.dumps(value)) | mutated_json(value).map(
        lambda mutated: json.dumps(mutated).encode()
    )


def odgt_files():
    text = "\n".join(json.dumps(line) for line in ODGT)
    lines = mutated_json(ODGT).map(
        lambda mutated: "\n".join(json.dumps(line) for line in mutated).encode()
    )
    return mutated_bytes(text) | lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images in every place where a format looks for them."""
    root = tmp_path_factory.mktemp("fuzz")
    for place in ("voc", "listed", "coco/images", "csv", "yolo/images/train", "crowdhuman/Images",
                  "labelme", "cvat"):  # fmt: skip
        (root / place).mkdir(parents=True)
        for stem in "ab":
            Image.new("RGB", (WIDTH, HEIGHT)).save(root / place / f"{stem}.png")
    (root / "yolo/labels/train").mkdir(parents=True)
    (root / "yolo/labels/train/b.txt").write_text(YOLO)
    (root / "yolo/data.yaml").write_text(YAML)
    for path in ("voc/b.xml", "listed/a.xml", "listed/b.xml"):
        (root / path).write_text(VOC.format(stem="b"))
    return root


def assert_sound(read, **options):
    """`read` returns a Dataset that training can trust, or raises DatasetError."""
    message, dataset = None, ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset = read(**options)
    except DatasetError as error:
        message = str(error)
    assert message is None or 0 < len(message) < 5000
    if not isinstance(dataset, Dataset):  # class names
        assert all(isinstance(name, str) for name in dataset)
        return
    boxes = dataset.boxes.astype(np.float32)  # as they are learnt
    assert np.isfinite(boxes).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert np.isfinite(dataset.areas).all()
    assert ((dataset.labels >= 0) & (dataset.labels < len(dataset.classes))).all()
    assert dataset.row_splits[-1] == len(dataset.labels) == len(dataset.ignore)
    assert (np.diff(dataset.row_splits) >= 0).all()
    assert len(set(dataset.image_ids)) == len(dataset.images) == len(dataset.sizes)
    assert all(len(read_data(image, 2**20)) > 0 for image in dataset.images)


fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
policies = st.sampled_from(("error", "drop"))


@fuzzed
@given(data=mutated_bytes(VOC.format(stem="a")) | mutated_bytes(SHAPES), policy=policies)
def test_voc(folder, data, policy):
    (folder / "voc/a.xml").write_bytes(data)
    assert_sound(lambda: read_voc(folder / "voc", "all", ("cat", "dog"), on_bad_annotation=policy))
    assert_sound(lambda: voc_classes(folder / "voc", "all"))


@fuzzed
@given(data=mutated_bytes(VOC_LIST), policy=policies)
def test_voc_list(folder, data, policy):
    (folder / "listed/train.txt").write_bytes(data)
    options = {"on_bad_annotation": policy}
    assert_sound(lambda: read_voc(folder / "listed", "train", ("cat", "dog"), **options))


@fuzzed
@given(data=json_files(COCO), policy=policies, check_images=st.booleans())
def test_coco(folder, data, policy, check_images):
    (folder / "coco/train.json").write_bytes(data)
    options = {"on_bad_annotation": policy, "check_images": check_images}
    assert_sound(lambda: read_coco(folder / "coco", "train", **options))
    assert_sound(lambda: read_coco(folder / "coco", "train", ("dog",), **options))
    assert_sound(lambda: coco_classes(folder / "coco", "train"))


@fuzzed
@given(data=st.one_of(*map(mutated_bytes, CSV_LAYOUTS)), policy=policies)
def test_csv(folder, data, policy):
    (folder / "csv/train.csv").write_bytes(data)
    assert_sound(lambda: read_csv(folder / "csv", "train", on_bad_annotation=policy))
    assert_sound(lambda: csv_classes(folder / "csv", "train"))


@fuzzed
@given(
    data=mutated_bytes(YOLO) | mutated_bytes(YOLO_LONG),
    policy=policies,
    lines=st.sampled_from(("", "boxes", "polygons")),
)
def test_yolo(folder, data, policy, lines):
    (folder / "yolo/labels/train/a.txt").write_bytes(data)
    (folder / "yolo/data.yaml").write_text(YAML)
    options = {"on_bad_annotation": policy, "lines": lines}
    assert_sound(lambda: read_yolo(folder / "yolo", "train", **options))


@fuzzed
@given(data=mutated_bytes(YAML) | mutated_bytes(f"{YAML}kpt_shape: [2, 2]\n"), policy=policies)
def test_yolo_yaml(folder, data, policy):
    (folder / "yolo/labels/train/a.txt").write_text(YOLO)
    (folder / "yolo/data.yaml").write_bytes(data)
    form = FORMATS["yolo"]
    assert_sound(lambda: form.read_split(folder / "yolo", "train", None, policy, {}))
    assert_sound(lambda: yolo_classes(folder / "yolo", "train"))


@fuzzed
@given(data=odgt_files(), policy=policies, person_box=st.sampled_from(("full", "visible")))
def test_crowdhuman(folder, data, policy, person_box):
    (folder / "crowdhuman/train.odgt").write_bytes(data)
    options = {"on_bad_annotation": policy, "person_box": person_box}
    assert_sound(
        lambda: read_crowdhuman(folder / "crowdhuman", "train", ("person", "head"), **options)
    )


@fuzzed
@given(data=st.data(), policy=policies, is_summed=st.booleans())
def test_tfrecord(folder, data, policy, is_summed):
    """The bytes of a file, or of its records with sums that fit."""
    root = folder / "tfrecord"
    examples = [record_of(folder, 0), record_of(folder, 1)]
    if is_summed:
        write_records(root / "train.record", [data.draw(mutated_bytes(one)) for one in examples])
    else:
        path = write_records(root / "train.record", examples)
        path.write_bytes(data.draw(mutated_bytes(path.read_bytes())))
    assert_sound(lambda: read_tfrecord(root, "train", on_bad_annotation=policy))
    assert_sound(lambda: tfrecord_classes(root, "train"))


def record_of(folder, number):
    image = (folder / "csv/a.png").read_bytes()
    objects = [(1, 2, 20, 12, "cat"), (3, 4, 10, 11, "dog")]
    return example(image, objects, source_id=[b"%d" % number], object__is_crowd=[0, 1])


@fuzzed
@given(data=st.data(), policy=policies, name=st.sampled_from([*TFDS]))
def test_tfds(folder, data, policy, name):
    """The files that say what is in the records."""
    root = folder / "tfds"
    if not root.is_dir():
        image = (folder / "csv/a.png").read_bytes()
        keys = {"image": [image], "image/filename": [b"a.png"], "objects/is_crowd": [0, 1]}
        keys |= {"objects/bbox": [0.1, 0.1, 0.5, 0.5] * 2, "objects/label": [1, 0]}
        write_records(root / "pets-train.tfrecord-00000-of-00001", [serialized(keys)])
    for other, contents in TFDS.items():
        text = contents if isinstance(contents, str) else json.dumps(contents)
        (root / other).write_text(text)
    fit = mutated_bytes if isinstance(TFDS[name], str) else json_files
    (root / name).write_bytes(data.draw(fit(TFDS[name])))
    assert_sound(lambda: read_tfds(root, "train", on_bad_annotation=policy))
    assert_sound(lambda: tfds_classes(root, "train"))


@fuzzed
@given(text=mutated_bytes(LABEL_MAP))
def test_label_map(folder, text):
    path = folder / "label_map.pbtxt"
    path.write_bytes(text)
    assert_sound(lambda: tuple(read_label_map(path).values()))


@fuzzed
@given(data=json_files(LABELME), policy=policies)
def test_labelme(folder, data, policy):
    (folder / "labelme/a.json").write_bytes(data)
    assert_sound(lambda: read_labelme(folder / "labelme", "all", on_bad_annotation=policy))
    assert_sound(lambda: read_labelme(folder / "labelme", "all", ("dog", "cat")))
    assert_sound(lambda: labelme_classes(folder / "labelme", "all"))


@fuzzed
@given(data=mutated_bytes(CVAT), policy=policies)
def test_cvat(folder, data, policy):
    (folder / "cvat/annotations.xml").write_bytes(data)
    for split in ("all", "train"):
        assert_sound(
            lambda split=split: read_cvat(folder / "cvat", split, on_bad_annotation=policy)
        )
    assert_sound(lambda: read_cvat(folder / "cvat", "all", ("dog",)))
    assert_sound(lambda: cvat_classes(folder / "cvat", "annotations.xml"))


# ------------------------------------------------------------------------------------------------
# Bombs
# ------------------------------------------------------------------------------------------------

LOL = "".join(f"<!ENTITY l{i} '{f'&l{i - 1};' * 10 if i else 'lol'}'>" for i in range(12))
ALIASES = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 1}]\n" for i in range(12))
DEEP = "[" * 2_000_000
BOMBS = {
    "entities": ("voc", "a.xml", f"<!DOCTYPE x [{LOL}]><annotation>&l11;</annotation>"),
    "nested elements": ("voc", "a.xml", "<annotation>" + "<a>" * 2_000_000),
    "nested JSON": ("coco", "train.json", DEEP),
    "nested inside": ("coco", "train.json", f'{{"images": [], "x": {DEEP}'),
    "long number": ("coco", "train.json", f'{{"images": [{{"id": {"9" * 2_000_000}}}]}}'),
    "entities of CVAT": (
        "cvat",
        "annotations.xml",
        f"<!DOCTYPE x [{LOL}]><annotations>&l11;</annotations>",
    ),
    "nested CVAT": ("cvat", "annotations.xml", "<annotations>" + "<image>" * 2_000_000),
    "nested shapes": ("labelme", "a.json", f'{{"shapes": [{{"flags": {DEEP}'),
    "nested line": ("crowdhuman", "train.odgt", f'{{"ID": "a", "gtboxes": {DEEP}'),
    "aliases": ("yolo", "data.yaml", f"{ALIASES}names: *a11\ntrain: images/train\n"),
    "nested YAML": ("yolo", "data.yaml", "names: " + "[" * 500_000),
    "one long line": ("csv", "train.csv", "a.png," + "1" * 20_000_000),
    "quote that never ends": ("csv", "train.csv", 'a.png,1,2,3,4,"' + "x\n" * 5_000_000),
    "billions of pixels": ("csv", "train.csv", "a.png,1,2,1000000000,1000000000,cat\n"),
}
READ = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
sys.path.insert(0, {project!r})
from data.formats.boxes_csv import read_csv
from data.formats.coco import read_coco
from data.formats.crowdhuman import read_crowdhuman
from data.records import DatasetError
from data.formats.cvat import read_cvat
from data.formats.labelme import read_labelme
from data.formats.voc import read_voc
from data.formats.yolo import read_yolo
read = {{"voc": lambda r: read_voc(r, "all"), "coco": lambda r: read_coco(r, "train"),
         "csv": lambda r: read_csv(r, "train"), "yolo": lambda r: read_yolo(r, "train"),
         "crowdhuman": lambda r: read_crowdhuman(r, "train"),
         "labelme": lambda r: read_labelme(r, "all"),
         "cvat": lambda r: read_cvat(r, "annotations.xml")}}[{name!r}]
try:
    read({root!r})
except DatasetError as error:
    print("refused:", str(error)[:300])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_time_and_memory(folder, name):
    """2 GiB of address space, 30 seconds."""
    place, file, text = BOMBS[name]
    (folder / place / file).write_text(text, encoding="utf-8")
    code = textwrap.dedent(READ.format(project=str(ROOT), name=place, root=str(folder / place)))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.startswith("refused:"), done.stderr[-2000:]


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (100_000, 100_000)])
def test_an_image_header_that_claims_too_much_is_refused(folder, width, height):
    """A PNG of 100 bytes that says it holds gigabytes of pixels: nothing is decoded."""
    path = folder / "csv/c.png"
    data = bytearray((folder / "csv/a.png").read_bytes())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    path.write_bytes(data)
    (folder / "csv/train.csv").write_text("c.png,1,2,3,4,cat\n")
    with pytest.raises(DatasetError, match=r"c\.png: expected a header with 1 to"):
        read_csv(folder / "csv", "train")
    path.unlink()
