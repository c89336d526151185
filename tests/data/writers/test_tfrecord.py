import hashlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.records import Defects, assemble
from data.writers import tfrecord
from data.writers.tfrecord import write_tfrecord
from utils.files import WriteError

pytestmark = pytest.mark.full

ROWS = [
    (0, (10, 15, 30, 30), 1, True, False, None),
    (0, (1, 3, 5, 6), 0, False, True, 7.5),
    (2, (0, 0, 641, 427), 3, False, False, None),
]
# As research/object_detection/data_decoders/tf_example_decoder.py of tensorflow/models has them.
TEXTS = ("encoded", "format", "filename", "source_id", "key/sha256")
OF_OBJECTS = {
    "bbox/xmin": tf.float32, "bbox/ymin": tf.float32, "bbox/xmax": tf.float32,
    "bbox/ymax": tf.float32, "area": tf.float32, "class/text": tf.string, "class/label": tf.int64,
    "difficult": tf.int64, "is_crowd": tf.int64,
}  # fmt: skip
KEYS = (
    {f"image/{key}": tf.io.FixedLenFeature((), tf.string) for key in TEXTS}
    | {f"image/{key}": tf.io.FixedLenFeature((), tf.int64) for key in ("height", "width")}
    | {f"image/object/{key}": tf.io.VarLenFeature(of) for key, of in OF_OBJECTS.items()}
)


def parsed(*paths):
    """The records of files, as tf.io reads them: {key without "image/": value or list}."""
    found = []
    for record in tf.data.TFRecordDataset([str(path) for path in paths]):
        values = tf.io.parse_single_example(record, KEYS)
        found.append(
            {
                key.removeprefix("image/"): value.values.numpy().tolist()
                if isinstance(value, tf.SparseTensor)
                else value.numpy()
                for key, value in values.items()
            }
        )
    return found


def test_the_records_of_one_split(toolbox, tmp_path):
    counted = []
    dataset = toolbox.dataset(ROWS)
    losses = write_tfrecord(dataset, tmp_path, "train", toolbox.names, lambda: counted.append(1))
    assert losses == []
    assert len(counted) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "label_map.pbtxt",
        "train-00000-of-00001",
    ]
    first, second, third = parsed(tmp_path / "train-00000-of-00001")
    data = Path(toolbox.images[0]).read_bytes()
    assert first == {
        "encoded": data,
        "format": b"png",
        "filename": b"a#t=1.png",
        "source_id": b"a#t=1",
        "key/sha256": hashlib.sha256(data).hexdigest().encode(),
        "height": 30,
        "width": 40,
        "object/bbox/xmin": [0.25, np.float32(0.025)],
        "object/bbox/ymin": [0.5, np.float32(0.1)],
        "object/bbox/xmax": [0.75, 0.125],
        "object/bbox/ymax": [1.0, np.float32(0.2)],
        "object/area": [300.0, 7.5],
        "object/class/text": ["ключ".encode(), b"chat, noir"],
        "object/class/label": [2, 1],
        "object/difficult": [1, 0],
        "object/is_crowd": [0, 1],
    }
    assert [second[f"object/{key}"] for key in OF_OBJECTS] == [[]] * len(OF_OBJECTS)
    assert (third["object/class/label"], third["object/bbox/ymax"]) == ([4], [1.0])


def test_the_label_map(toolbox, tmp_path):
    write_tfrecord(toolbox.dataset(ROWS), tmp_path, "train", toolbox.names)
    assert (tmp_path / "label_map.pbtxt").read_text("utf-8") == (
        'item {\n  id: 1\n  name: "chat, noir"\n}\n'
        'item {\n  id: 2\n  name: "ключ"\n}\n'
        'item {\n  id: 3\n  name: "no"\n}\n'
        'item {\n  id: 4\n  name: "<&\\"\'>"\n}\n'
    )


@pytest.mark.parametrize(
    ("category_ids", "labels", "lost"),
    [
        ((3, 90, 4, 1), [90, 3], []),
        ((0, 1, 2, 3), [2, 1], ["4 category ids: those of a label map are numbers from 1 on"]),
    ],
)
def test_labels_are_the_category_ids(toolbox, tmp_path, category_ids, labels, lost):
    dataset = toolbox.dataset(ROWS, category_ids=category_ids)
    assert write_tfrecord(dataset, tmp_path, "val", toolbox.names) == lost
    assert parsed(tmp_path / "val-00000-of-00001")[0]["object/class/label"] == labels
    first = (tmp_path / "label_map.pbtxt").read_text("utf-8").split("}")[1]
    assert f"id: {labels[0]}\n" in first


def test_a_shard_ends_where_it_is_full(toolbox, tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "SHARD_BYTES", 1)
    write_tfrecord(toolbox.dataset(ROWS), tmp_path, "train", toolbox.names)
    paths = [tmp_path / f"train-0000{i}-of-00003" for i in range(3)]
    assert sorted(tmp_path.glob("train*")) == paths
    assert [parsed(path)[0]["filename"].decode() for path in paths] == list(toolbox.names)
    first = paths[0].stat().st_size - 16  # a record's frame
    monkeypatch.setattr(tfrecord, "SHARD_BYTES", first + 1)
    write_tfrecord(toolbox.dataset(ROWS), tmp_path, "val", toolbox.names)
    assert [len(parsed(path)) for path in sorted(tmp_path.glob("val*"))] == [2, 1]


def test_what_is_lost(toolbox, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (40, 30)).save(tmp_path / "plain.bmp")
    names = ["turned.jpg", "plain.bmp"]
    dataset = assemble(
        "set/train",
        ["cat"],
        images=[str(tmp_path / name) for name in names],
        image_ids=["1", "2"],
        sizes=[(40, 30)] * 2,
        image_index=[0, 1],
        boxes=[(0.125, 1, 20, 30), (0.1, 2, 3, 4)],
        labels=[0, 0],
        areas=[16777217, 5.8],
        defects=Defects(),
    )
    assert write_tfrecord(dataset, tmp_path / "out", "train", names) == [
        "1 boxes: rounded to 1/1024 pixel",
        "1 areas: rounded to float32",
        "1 images neither JPEG nor PNG: the API takes no others, convert them",
        "1 EXIF orientations: boxes are of the image once turned, and TensorFlow's decoders do not "
        "turn it",
    ]
    records = parsed(tmp_path / "out/train-00000-of-00001")
    assert [record["encoded"] for record in records] == [
        (tmp_path / name).read_bytes() for name in names
    ]
    assert [record["format"] for record in records] == [b"jpeg", b"bmp"]
    assert (records[0]["width"], records[0]["height"]) == (40, 30)
    assert records[0]["object/bbox/xmax"] == [0.5]


def test_a_disk_that_refuses_is_named(toolbox, tmp_path):
    (tmp_path / "train-00000").mkdir()
    with pytest.raises(WriteError, match=r"train-00000: cannot be written: Is a directory"):
        write_tfrecord(toolbox.dataset(ROWS), tmp_path, "train", toolbox.names)
