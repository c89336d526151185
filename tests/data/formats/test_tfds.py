"""Folders as TFDS 4.9 writes them, made by hand; TFDS itself writes one in tests/parity."""

import json

import pytest
import tensorflow as tf
from PIL import Image

from data.files import read_data
from data.formats.recognition import found_splits, recognise
from data.formats.tfds import FORMAT, read_tfds, tfds_classes
from data.records import DatasetError

pytestmark = pytest.mark.full

IMAGE = {"pythonClassName": "tfds.Image", "image": {"dtype": "uint8"}}
TEXT = {"pythonClassName": "tfds.Text", "text": {}}
FLAG = {"pythonClassName": "tfds.Tensor", "tensor": {"dtype": "bool"}}
BOX = {"pythonClassName": "tfds.BBoxFeature", "boundingBox": {"bboxFormat": "REL_YXYX"}}
XYWH = {"boundingBox": {"bboxFormat": "XYWH"}}
LABEL = {"pythonClassName": "tfds.ClassLabel", "classLabel": {"numClasses": "3"}}
OF_EACH = {"bbox": BOX, "label": LABEL, "is_difficult": FLAG, "is_crowd": FLAG}


def sequence(features):
    of_each = {"featuresDict": {"features": features}, "pythonClassName": "tfds.FeaturesDict"}
    return {"pythonClassName": "tfds.Sequence", "sequence": {"feature": of_each, "length": "-1"}}


FEATURES = {"image": IMAGE, "image/filename": TEXT, "objects": sequence(OF_EACH)}
# ymin, xmin, ymax, xmax of 40x30 pixels; number of the class; difficult, crowd
OBJECTS = [[((0.5, 0.25, 1, 0.75), 2, 1, 0), ((0, 0, 0.1, 0.1), 0, 0, 1)], []]
PIXELS = [[10, 15, 30, 30], [0, 0, 4, 3]]


def example(folder, name, objects, keys=None):
    """A record as TFDS writes it; keys: others than FEATURES have."""
    path = folder / name
    if not path.is_file():
        Image.new("RGB", (40, 30), (90, 120, 60)).save(path, "PNG")
    boxes, labels, difficult, crowds = ([o[n] for o in objects] for n in range(4))
    numbers = [number for box in boxes for number in box]
    values = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[path.read_bytes()])),
        "image/filename": tf.train.Feature(bytes_list=tf.train.BytesList(value=[name.encode()])),
        "objects/bbox": tf.train.Feature(float_list=tf.train.FloatList(value=numbers)),
    }
    flags = {"label": labels, "is_difficult": difficult, "is_crowd": crowds}
    for key, numbers in flags.items():
        feature = tf.train.Feature(int64_list=tf.train.Int64List(value=numbers))
        values[f"objects/{key}"] = feature
    values |= keys or {}
    return tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()


def make(folder, splits, *, features=FEATURES, names="cat\ndog\nowl\n", **info):
    """A builder's folder; splits: {name: [records of a shard]}."""
    folder.mkdir(parents=True)
    info = {"name": "pets", "version": "1.0.0", "fileFormat": "tfrecord"} | info
    info["splits"] = []
    for split, shards in splits.items():
        for number, records in enumerate(shards):
            name = f"{info['name']}-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
            with tf.io.TFRecordWriter(str(folder / name)) as writer:
                for record in records:
                    writer.write(record)
        lengths = [str(len(records)) for records in shards]
        info["splits"].append({"name": split, "shardLengths": lengths, "numBytes": "1"})
    (folder / "dataset_info.json").write_text(json.dumps(info))
    top = {"featuresDict": {"features": features}, "pythonClassName": "tfds.FeaturesDict"}
    (folder / "features.json").write_text(json.dumps(top))
    if names:
        (folder / "objects-label.labels.txt").write_text(names)
    return folder


@pytest.fixture
def pets(tmp_path):
    """Splits train, of two shards, and test."""
    first, second = (
        example(tmp_path, f"{stem}.png", objects)
        for stem, objects in zip("ab", OBJECTS, strict=True)
    )
    return make(tmp_path / "pets/1.0.0", {"train": [[first], [second]], "test": [[second]]})


def test_a_builders_folder(pets, tmp_path):
    dataset = read_tfds(pets, "train")
    assert dataset.name == "pets/train"
    assert dataset.classes == tfds_classes(pets, "train") == ("cat", "dog", "owl")
    assert dataset.category_ids == (1, 2, 3)
    assert dataset.image_ids == ("a", "b")
    assert dataset.boxes.tolist() == PIXELS
    assert dataset.labels.tolist() == [2, 0]
    assert dataset.difficult.tolist() == [True, False]
    assert dataset.ignore.tolist() == [False, True]
    assert dataset.row_splits.tolist() == [0, 2, 2]
    assert dataset.defects.counts() == {}
    for image, name in zip(dataset.images, ("a.png", "b.png"), strict=True):
        assert read_data(image, 2**20) == (tmp_path / name).read_bytes()
    assert read_tfds(pets, "test").image_ids == ("b",)


def test_chosen_classes(pets):
    dataset = read_tfds(pets, "train", ("owl", "dog"))
    assert (dataset.classes, dataset.labels.tolist()) == (("owl", "dog"), [0])
    assert dataset.category_ids == (3, 2)
    assert dataset.defects.counts() == {"class left out": 1}


def test_it_is_recognised(pets):
    assert recognise(pets) == recognise(pets.parent) == "tfds"
    assert found_splits(pets, "tfds") == {"train": "train", "test": "test"}


def test_one_split_is_shared_out(tmp_path):
    records = [example(tmp_path, f"{n}.png", OBJECTS[0]) for n in range(10)]
    root = make(tmp_path / "pets", {"train": [records]})
    options = {"val_fraction": 0.3}
    sizes = [
        len(FORMAT.read_split(root, split, None, "error", options))
        for split in ("train", "val", "all")
    ]
    assert sizes == [7, 3, 10]


def test_a_name_below_the_data_dir(pets, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    record = example(tmp_path, "new.png", OBJECTS[0])
    for version in ("1.10.0", "1.9.0"):
        make(tmp_path / "pets" / version, {"train": [[record]]})
    for name in ("pets", "pets/1.10.0", "pets:1.10.0"):
        assert read_tfds(name, "train").image_ids == ("new",), name
    assert read_tfds("pets/1.0.0", "train").image_ids == ("a", "b")
    for config in ("big", "small"):
        make(tmp_path / "farm" / config / "1.0.0", {"train": [[record]]})
    assert len(read_tfds("farm/small", "train")) == 1
    with pytest.raises(DatasetError, match=r"expected farm/CONFIG, one of big, small$"):
        read_tfds("farm", "train")


def test_what_is_not_prepared_is_said_with_the_way_to_prepare_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    message = (
        r"^voc/2007: expected a TFDS builder's folder, with features.json, or the name of a "
        rf"dataset prepared in {tmp_path}; pip install -r requirements-tfds.txt, then "
        r"tensorflow_datasets.builder\('voc/2007'\).download_and_prepare\(\) prepares it$"
    )
    with pytest.raises(DatasetError, match=message):
        read_tfds("voc/2007", "train")


def without(key):
    return {name: feature for name, feature in OF_EACH.items() if name != key}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"image": IMAGE}, r"a Sequence with a BBoxFeature, found image \(Image\)$"),
        (FEATURES | {"image": TEXT}, r"an Image, found image \(Text\), image/filename \(Text\)"),
        ({"a": IMAGE, "b": IMAGE}, r"an Image, 'image' if there are several, found a \(Image\), b"),
        (
            {"image": IMAGE, "objects": sequence(without("label"))},
            r"objects: expected a ClassLabel, found bbox \(BBoxFeature\), is_difficult \(Tensor\)",
        ),
        (
            {"image": IMAGE, "faces": sequence(OF_EACH | {"bbox": XYWH})},
            "faces/bbox: expected boxes as REL_YXYX, found 'XYWH'",
        ),
    ],
)  # fmt: skip
def test_other_features_are_refused_by_name(tmp_path, features, message):
    root = make(tmp_path / "pets", {"train": [[]]}, features=features)
    with pytest.raises(DatasetError, match=rf"features\.json(, |: ).*{message}"):
        read_tfds(root, "train")


def test_features_of_other_names(tmp_path):
    """As Open Images has them: bobjects with boxes, objects of the whole image without."""
    record = example(
        tmp_path,
        "a.png",
        [],
        {
            "bobjects/bbox": tf.train.Feature(
                float_list=tf.train.FloatList(value=OBJECTS[0][0][0])
            ),
            "bobjects/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
            "bobjects/is_group_of": tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
            "image/id": tf.train.Feature(int64_list=tf.train.Int64List(value=[139])),
        },
    )
    features = {
        "image": IMAGE,
        "image/id": FLAG,
        "objects": sequence({"label": LABEL}),
        "bobjects": sequence({"bbox": BOX, "label": LABEL, "is_group_of": FLAG}),
    }
    root = make(tmp_path / "pets", {"train": [[record]]}, features=features, names="")
    dataset = read_tfds(root, "train")
    assert dataset.classes == ("0", "1", "2"), "TFDS numbers classes that have no names"
    assert (dataset.boxes.tolist(), dataset.labels.tolist()) == ([PIXELS[0]], [1])
    assert dataset.ignore.tolist() == [True]
    assert dataset.image_ids == ("139",)


def test_files_of_another_format_are_refused(pets):
    path = pets / "dataset_info.json"
    path.write_text(path.read_text().replace('"fileFormat": "tfrecord"', '"fileFormat": "riegeli"'))
    with pytest.raises(DatasetError, match="expected files of the format tfrecord, found 'riegeli"):
        read_tfds(pets, "train")


def test_splits_and_shards_that_are_not_there(pets):
    with pytest.raises(DatasetError, match=r"one of the splits train, test, found 'val'$"):
        read_tfds(pets, "val")
    (pets / "pets-train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(DatasetError, match=r"train\.tfrecord-00001-of-00002: cannot be read"):
        read_tfds(pets, "train")


def test_a_shard_that_lacks_records(pets):
    (pets / "pets-train.tfrecord-00001-of-00002").write_bytes(b"")
    message = "expected 2 records of train, as dataset_info.json says, found 1$"
    with pytest.raises(DatasetError, match=message):
        read_tfds(pets, "train")
    dataset = read_tfds(pets, "train", on_bad_annotation="drop")
    assert len(dataset) == 1
    assert dataset.defects.counts() == {"damaged record": 1, "empty file of records": 1}


def test_boxes_and_labels_that_are_none(tmp_path):
    odd = tf.train.Feature(float_list=tf.train.FloatList(value=[0, 0, 1, 1, 0.5]))
    records = [
        example(tmp_path, "odd.png", OBJECTS[0], {"objects/bbox": odd}),
        example(tmp_path, "label.png", [((0, 0, 1, 1), -1, 0, 0)]),
        example(tmp_path, "good.png", OBJECTS[0]),
    ]
    root = make(tmp_path / "pets", {"train": [records]})
    dataset = read_tfds(root, "train", on_bad_annotation="drop")
    assert dataset.image_ids == ("label", "good")
    assert dataset.boxes.tolist() == PIXELS
    assert dataset.defects.counts() == {"lists of different lengths": 1, "unknown class": 1}


@pytest.mark.parametrize(
    ("name", "boxes", "kind"),
    [
        ("voc", [[9, 14, 30, 30], [0, 0, 4, 3]], "corner counted from 1, moved by a pixel"),
        ("kitti", [[10, 0, 30, 15], [0, 27, 4, 30]], "box counted from the bottom, turned over"),
    ],
)
def test_boxes_that_two_builders_count_in_another_way(tmp_path, name, boxes, kind):
    objects = [OBJECTS[0][0], ((1 / 30, 1 / 40, 0.1, 0.1), 0, 0, 1)]
    if name == "kitti":
        objects = OBJECTS[0]
    splits = {"train": [[example(tmp_path, "a.png", objects)]]}
    own = make(tmp_path / "own", splits, name=name, moduleName="me.pets")
    assert read_tfds(own, "train").boxes[0].tolist() == PIXELS[0], "somebody's own of that name"
    module = f"tensorflow_datasets.object_detection.{name}"
    dataset = read_tfds(make(tmp_path / name, splits, name=name, moduleName=module), "train")
    assert dataset.boxes.tolist() == boxes
    assert dataset.defects.counts() == {kind: 2}
