"""TFRecords of the TF Object Detection API: what is read, by which names, and what is refused."""

import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from configs.schema import Augment, Canvas, Data, Mixing
from data.datasets import class_names, read_split
from data.formats import FORMATS
from data.formats import tfrecord_index as indexing
from data.formats.recognition import recognise
from data.formats.shapes import make_shapes
from data.formats.tfrecord import read_tfrecord, tfrecord_classes
from data.formats.voc import read_voc
from data.images.decode import decode_image
from data.pipeline import training_batches
from data.records import DatasetError
from data.storage import address, join
from data.writers.tfrecord import GRID
from tests.records import HEIGHT, WIDTH, example, png, write_records
from tests.tiny import call_train, read_metrics, write_config

pytestmark = pytest.mark.full

CAT, DOG = (3, 4, 20, 12, "cat"), (0, 0, 40, 30, "dog")
MAP = "item { id: 3 name: 'dog' }\nitem { id: 7 name: 'cat' display_name: 'Cat' }\n"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RETINANET_CACHE", str(folder))
    return folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "set"


def record(number, *objects, **changes):
    """An example of its own image, called p<number>.png."""
    names = {"filename": [b"p%d.png" % number], "source_id": [b"%d" % number]}
    return example(png(number), objects, **names | changes)


# ------------------------------------------------------------------------------------------------
# What is read
# ------------------------------------------------------------------------------------------------


def test_everything_that_is_read(root):
    write_records(root / "train-00000-of-00002", [record(0, CAT, DOG), record(1)])
    crowd = record(
        2, CAT, DOG, CAT, CAT,
        object__difficult=[0, 1, 0, 0], object__is_crowd=[0, 0, 1, 0],
        object__group_of=[0, 0, 0, 1], object__area=[100.5, 7.1, 1.0, 2.0],
        object__truncated=[0, 1, 0, 0], object__view=[b"Left"] * 4,
    )  # fmt: skip
    write_records(root / "train-00001-of-00002", [crowd])
    dataset = read_tfrecord(root, "train")
    assert dataset.name == "set/train"
    assert dataset.classes == tfrecord_classes(root, "train") == ("cat", "dog")
    assert dataset.image_ids == ("0", "1", "2")
    assert dataset.sizes.tolist() == [[WIDTH, HEIGHT]] * 3
    cat, dog = [3, 4, 20, 12], [0, 0, 40, 30]
    assert dataset.boxes.tolist() == [cat, dog, cat, dog, cat, cat]
    assert dataset.labels.tolist() == [0, 1, 0, 1, 0, 0]
    assert dataset.row_splits.tolist() == [0, 2, 2, 6]
    assert dataset.difficult.tolist() == [False, False, False, True, False, False]
    assert dataset.ignore.tolist() == [False, False, False, False, True, True]
    assert dataset.areas.tolist() == [136, 1200, 100.5, 7.1, 1, 2]
    assert dataset.category_ids == (1, 2)
    assert dataset.defects.messages == []
    for number, image in enumerate(dataset.images):
        assert image.endswith(f"/p{number}.png")
        expected = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        np.testing.assert_array_equal(decode_image(image), expected)


def test_whole_pixels_come_back_exactly_up_to_16384(root):
    """A float32 in [1/2, 1) is off by up to 2**-25, of 2**14 px 2**-11: half a step of the grid."""
    for width in (16384, 1000, 7):
        pixels = np.arange(width * GRID + 1, dtype=np.float64) / GRID
        fractions = (pixels / width).astype(np.float32).astype(np.float64)
        np.testing.assert_array_equal(np.round(fractions * width * GRID) / GRID, pixels)
    boxes = [(x, 1, x + 1, 2, "cat") for x in range(0, 998, 7)]
    write_records(root / "train.record", [example(png(0, (999, 3)), boxes, (999, 3))])
    assert read_tfrecord(root, "train").boxes.tolist() == [[x, 1, x + 1, 2] for x, *_ in boxes]


def test_numbers_count_where_there_is_no_text_and_texts_before_numbers(root):
    label = "object__class__label"
    write_records(
        root / "train.record",
        [
            record(0, CAT, DOG, object__class__text=None, **{label: [7, 3]}),
            record(1, CAT, DOG, object__class__text=[b"", b"Cat"], **{label: [3, 7]}),
            record(2, CAT, **{label: [3]}),
        ],
    )
    (root / "label_map.pbtxt").write_text(MAP)
    dataset = read_tfrecord(root, "train")
    assert dataset.classes == ("dog", "cat")
    assert dataset.category_ids == (3, 7)
    assert dataset.labels.tolist() == [1, 0, 0, 1, 1]
    [(kind, message)] = dataset.defects.messages
    assert kind == "class of another number than its text"
    assert message == (
        f"{root}/train.record, record 2, object 0: its text is 'cat', its number 'dog': "
        "the text counts"
    )


def test_chosen_classes(root):
    write_records(root / "train.record", [record(0, CAT, DOG), record(1, DOG)])
    dataset = read_tfrecord(root, "train", ("dog",))
    assert dataset.labels.tolist() == [0, 0]
    assert dataset.defects.counts() == {"class left out": 1}


@pytest.mark.parametrize("of_config", [False, True])
def test_a_label_map_elsewhere(root, of_config):
    write_records(
        root / "train.record",
        [record(0, CAT, object__class__text=None, object__class__label=[7])],
    )
    (root / "maps").mkdir()
    (root / "maps/mine.pbtxt").write_text(MAP)
    with pytest.raises(DatasetError, match="expected image/object/class/text, or image/object/"):
        read_tfrecord(root, "train", ("dog", "cat"))
    if of_config:
        options = {"class_file": "maps/mine.pbtxt"}
        found = FORMATS["tfrecord"].joint_classes(root, ["train"], options)
        assert found == ("dog", "cat")
        dataset = FORMATS["tfrecord"].read_split(root, "train", found, "error", options)
    else:
        dataset = read_tfrecord(root, "train", class_file=str(root / "maps/mine.pbtxt"))
    assert dataset.labels.tolist() == [1]


def test_ids_and_names(root):
    names = [(b"p/a.jpg", b"7"), (b"a.png", b""), (b"", b""), (b"../x\n.png", b"x/y.jpg")]
    write_records(
        root / "train.record",
        [record(n, filename=[a], source_id=[b]) for n, (a, b) in enumerate(names)],
    )
    (root / "label_map.pbtxt").write_text(MAP)
    dataset = read_tfrecord(root, "train")
    assert dataset.image_ids == ("7", "a", "train.record-000002", "x/y")
    names = [image.rpartition("/")[2] for image in dataset.images]
    assert names == ["a.jpg", "a.png", "train.record-000002", "x_.png"]


def test_an_id_given_twice_is_made_another_and_counted(root):
    write_records(root / "train.record", [record(0, CAT), record(0, CAT)])
    dataset = read_tfrecord(root, "train")
    assert dataset.image_ids == ("0", f"0 ({root}/train.record, record 1)")
    assert dataset.defects.counts() == {"image id given twice": 1}


def test_ids_that_differ_in_the_suffix_alone_keep_it(root):
    ids = [b"a.jpg", b"a.png", b"b.png"]
    write_records(root / "train.record", [record(n, source_id=[i]) for n, i in enumerate(ids)])
    (root / "label_map.pbtxt").write_text(MAP)
    assert read_tfrecord(root, "train").image_ids == ("a.jpg", "a.png", "b")


# ------------------------------------------------------------------------------------------------
# Which files
# ------------------------------------------------------------------------------------------------

LAYOUTS = {
    "train": ["train.tfrecord"],
    "train ": ["train.record", "val.record", "label_map.pbtxt"],
    "train  ": ["train.tfrecords"],
    "train   ": ["train-00000-of-00002", "train-00001-of-00002", "val-00000-of-00001"],
    "train    ": ["train.tfrecord-00000-of-00002", "train.tfrecord-00001-of-00002"],
    "train     ": ["train-00000-of-00001.tfrecord", "trainval.tfrecord"],
    "train      ": ["train/cats.tfrecord", "train/cats_label_map.pbtxt", "valid/cats.tfrecord"],
    "train       ": ["coco_train.record-00000-of-00001", "coco_val.record-00000-of-00001"],
    "coco_train": ["coco_train.record-00000-of-00001", "coco_val.record-00000-of-00001"],
    "a/b/train": ["a/b/train.record"],
    "a/x.record": ["a/x.record", "a/y.record"],
    "a/x-?????-of-?????": ["a/x-00000-of-00001", "a/xy-00000-of-00001"],
    "a/x-0000[01]-of-00003": ["a/x-00000-of-00003", "a/x-00001-of-00003"],
}


@pytest.mark.parametrize("split", LAYOUTS)
def test_where_a_split_may_lie(root, split):
    """The others of a layout hold a class that must not be seen."""
    wanted = {"a/x-0000[01]-of-00003": 2, "train   ": 2, "train    ": 2}.get(split, 1)
    for number, name in enumerate(LAYOUTS[split]):
        if name.endswith(".pbtxt"):
            (root / name).write_text(MAP)
        else:
            write_records(root / name, [record(number, CAT if number < wanted else DOG)])
    dataset = read_tfrecord(root, split.strip(), ("cat",))
    assert dataset.image_ids == tuple(map(str, range(wanted)))
    assert dataset.labels.tolist() == [0] * wanted


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        (["val.record"], "train", r"expected train\.tfrecord, train\.record, .*found val\.record"),
        ([], "train", "found no such file"),
        (["train-00000-of-00003", "train-00002-of-00003"], "train",
         "expected 3 shards of 'train', found 2; missing: 00001"),
        (["train-00000-of-00003", "train-00002-of-00003"], "train-?????-of-?????",
         "expected 3 shards of 'train', found 2; missing: 00001"),
        (["train.record", "train.tfrecord"], "train", "expected one file or one set of shards"),
        (["train.record", "train-00000-of-00001"], "train", "expected one file or one set"),
        (["train-00000-of-00001", "train-00000-of-00002"], "train", "expected one file or one set"),
        (["train-00000-of-00001", "train.record-00000-of-00001"], "train",
         "expected one of .* both"),
        (["train-00001-of-00001"], "train",
         "expected 1 shards of 'train', found 1; missing: 00000"),
        (["a_train.record", "b_train.record"], "train", "found a_train.record, b_train.record"),
        (["train.record"], "x*", r"expected files of the pattern x\*, found none"),
    ],
)  # fmt: skip
def test_files_that_are_missing_or_too_many(root, files, split, message):
    root.mkdir()
    for name in files:
        (root / name).touch()
    with pytest.raises(DatasetError, match=message):
        read_tfrecord(root, split)


def test_several_label_maps_need_a_word(root):
    write_records(root / "train.record", [record(0, CAT)])
    for name in ("a_label_map.pbtxt", "b_label_map.pbtxt"):
        (root / name).write_text(MAP)
    with pytest.raises(
        DatasetError, match=r"expected one label map.*class_file, found a_label_map"
    ):
        read_tfrecord(root, "train")


def test_recognised_by_what_the_first_record_holds(root):
    write_records(root / "train/cats.tfrecord", [record(0, CAT)])
    write_records(root / "valid/cats.tfrecord", [record(0, CAT)])
    assert FORMATS["tfrecord"].find_splits(root) == ["train", "valid"]
    assert recognise(root) == "tfrecord"
    assert FORMATS["tfrecord"].undivided(root) is None
    shutil.rmtree(root / "valid")
    (root / "train").rename(root / "mine")
    assert FORMATS["tfrecord"].undivided(root) == "mine"


def test_other_records_are_no_datasets(root):
    write_records(root / "events.out.tfevents.1700000000.host", [record(0, CAT)])
    write_records(root / "images.tfrecord", [example(b"x", encoded=None, label=[1])])
    write_records(root / "voc/1.0.0/voc-train.tfrecord-00000-of-00001", [record(0, CAT)])
    (root / "voc/1.0.0/dataset_info.json").write_text("{}")
    assert FORMATS["tfrecord"].find_splits(root) == []
    assert FORMATS["tfrecord"].find_splits(root / "voc/1.0.0") == []
    message = "expected the key image/encoded, found image/filename, image/format"
    with pytest.raises(DatasetError, match=message):
        read_tfrecord(root, "images")


def test_an_undivided_set_is_shared_out(root):
    write_records(root / "default.tfrecord", [record(n, CAT) for n in range(10)])
    data = Data(format="tfrecord", root=str(root), val_fraction=0.3)
    sizes = [len(read_split(data, split, class_names(data))) for split in ("train", "val")]
    assert sizes == [7, 3]


# ------------------------------------------------------------------------------------------------
# Defects
# ------------------------------------------------------------------------------------------------


def assert_defect(root, bad, kind, *parts, num_images=2, num_boxes=2):
    """One defect of the second of three records: raised, or counted."""
    write_records(root / "train.record", [record(0, CAT), bad, record(2, CAT)])
    with pytest.raises(DatasetError) as caught:
        read_tfrecord(root, "train")
    message = str(caught.value)
    assert message.startswith(f"{root}/train.record, record 1")
    for part in parts:
        assert part in message
    assert caught.value.kind == kind
    dataset = read_tfrecord(root, "train", on_bad_annotation="drop")
    assert dataset.defects.messages == [(kind, message)]
    assert (len(dataset), len(dataset.labels)) == (num_images, num_boxes)


IMAGE_DEFECTS = {
    "no image": ({"encoded": None}, "unreadable image", "expected an image in image/encoded"),
    "an empty image": ({"encoded": [b""]}, "unreadable image", "expected an image"),
    "two images": ({"encoded": [b"a", b"b"]}, "damaged record", "expected one image"),
    "no such image": ({"encoded": [b"abc"]}, "unreadable image", "expected a JPEG, PNG, BMP"),
    "size": (
        {"width": [30], "height": [40]}, "size disagrees with the image",
        "image/width and image/height: expected 40x30 as the image has, found 30x40",
    ),
    "a list too short": (
        {"object__bbox__ymax": [0.5]}, "lists of different lengths",
        "expected 2 values of image/object/bbox/ymax, as of image/object/bbox/xmin, found 1",
    ),
    "a list missing": ({"object__bbox__ymax": None}, "lists of different lengths", "found 0"),
    "texts": ({"object__class__text": [b"cat"]}, "lists of different lengths", "class/text"),
    "flags": ({"object__difficult": [1]}, "lists of different lengths", "difficult"),
    "kind of number": (
        {"object__difficult": [0.5, 1.5]}, "bad number",
        "image/object/difficult: expected whole numbers, found a float_list",
    ),
    "text for a number": ({"object__bbox__xmin": [b"1"] * 2}, "bad number", "found a bytes_list"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGE_DEFECTS)
def test_defects_of_images(root, name):
    changes, kind, part = IMAGE_DEFECTS[name]
    assert_defect(root, record(1, CAT, DOG, **changes), kind, part)


OBJECT_DEFECTS = {
    "nan": ({"object__bbox__xmin": [np.nan, 0.0]}, "bad number", "found nan"),
    "infinite": ({"object__bbox__xmin": [np.inf, 0.0]}, "bad number", "found inf"),
    "huge": ({"object__bbox__xmin": [-1e30, 0.0]}, "bad number", "found -1e+30"),
    "inverted": ({"object__bbox__xmin": [0.75, 0.0]}, "empty or inverted box", "found 30 4 20 12"),
    "outside": ({"object__bbox__xmax": [1.5, 1.0]}, "box outside the image", "found 3 4 60 12"),
    "area": ({"object__area": [-1.0, 1.0]}, "bad number", "expected a number from 0 on"),
    "nan as area": ({"object__area": [np.nan, 1.0]}, "bad number", "found nan"),
    "no text": ({"object__class__text": [b"", b"dog"]}, "missing name", "found none"),
    "no class": ({"object__class__text": [b"\xff", b"dog"]}, "bad class name", "class/text"),
}


@pytest.mark.parametrize("name", OBJECT_DEFECTS)
def test_defects_of_objects(root, name):
    changes, kind, part = OBJECT_DEFECTS[name]
    bad = record(1, CAT, DOG, **changes)
    assert_defect(root, bad, kind, "object 0", part, num_images=3, num_boxes=3)


def test_a_class_that_the_label_map_lacks(root):
    root.mkdir()
    (root / "label_map.pbtxt").write_text(MAP)
    bad = record(1, (3, 4, 20, 12, "cta"), DOG)
    part = "class/text: expected one of dog, cat, Cat, found 'cta'; did you mean 'cat'?"
    assert_defect(root, bad, "unknown class", part, num_images=3, num_boxes=3)
    bad = record(1, CAT, DOG, object__class__text=None, object__class__label=[1, 3])
    part = f"expected image/object/class/label of {root}/label_map.pbtxt, found 1"
    assert_defect(root, bad, "unknown class", part, num_images=3, num_boxes=3)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ((WIDTH, HEIGHT), "expected fractions of the image, found pixels"),
        ((1 / WIDTH, 1 / HEIGHT), "expected pixels, found fractions of the image"),
    ],
    ids=["pixels", "divided twice"],
)
@pytest.mark.parametrize("policy", ["error", "drop"])
def test_corners_in_another_unit_are_refused(root, scale, message, policy):
    x, y = scale
    boxes = [(3 * x, 4 * y, 20 * x, 12 * y, "cat")] * 2
    write_records(root / "train.record", [record(n, *boxes) for n in range(2)])
    with pytest.raises(DatasetError, match=f"^set/train: {message}: so it looks for 4 of 4 boxes"):
        read_tfrecord(root, "train", on_bad_annotation=policy)


def test_odd_flags_are_taken_for_1_and_counted(root):
    write_records(root / "train.record", [record(0, CAT, DOG, object__difficult=[2, 1])])
    dataset = read_tfrecord(root, "train")
    assert dataset.difficult.tolist() == [True, True]
    [(kind, message)] = dataset.defects.messages
    assert kind == "flag that is neither 0 nor 1, taken as 1"
    where = f"{root}/train.record, record 0, object 0, image/object/difficult"
    assert message == f"{where}: expected 0 or 1, found 2"


def test_a_size_that_is_not_stated_is_no_defect(root):
    write_records(root / "train.record", [record(0, CAT, width=None, height=None)])
    assert read_tfrecord(root, "train").boxes.tolist() == [[3, 4, 20, 12]]


# ------------------------------------------------------------------------------------------------
# Damaged files
# ------------------------------------------------------------------------------------------------


def test_the_sum_of_a_record():
    """CRC-32C of "123456789" is E3069283 (RFC 3720's check value), masked as TensorFlow does."""
    crc = 0xE3069283
    assert indexing.masked_sum(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_a_file_cut_anywhere_is_told_with_its_place(root):
    """Three records: what lies before the cut is read with drop, the rest is named."""
    data = write_records(root / "train.record", [record(n, CAT) for n in range(3)]).read_bytes()
    ends = [0]
    while ends[-1] < len(data):
        length = int.from_bytes(data[ends[-1] : ends[-1] + 8], "little")
        ends.append(ends[-1] + length + 16)
    for end in {*range(0, len(data), 997), *ends, *(e + 1 for e in ends), *(e - 1 for e in ends)}:
        if not 0 <= end < len(data):
            continue
        (root / "train.record").write_bytes(data[:end])
        whole = sum(0 < e <= end for e in ends)
        if end in ends and end:  # a file that ends well
            assert len(read_tfrecord(root, "train")) == whole
            continue
        with pytest.raises(DatasetError) as caught:
            read_tfrecord(root, "train")
        if not end:
            assert "1 x empty file of records" in str(caught.value)
            continue
        place = f"{root}/train.record, record {whole}, byte {ends[whole]}: expected a record"
        assert str(caught.value).startswith(place)
        assert "cut short: the rest of the file" in str(caught.value)
        if whole:
            dataset = read_tfrecord(root, "train", on_bad_annotation="drop")
            assert dataset.image_ids == tuple(map(str, range(whole)))
            assert dataset.defects.counts() == {"damaged record": 1}


@pytest.mark.parametrize(
    ("where", "is_lost"),
    [("length", True), ("sum of the length", True), ("data", False), ("sum of the data", False)],
)
def test_a_byte_changed(root, where, is_lost):
    """Behind damaged data the next record is found; behind a damaged length nothing is."""
    data = bytearray(
        write_records(root / "train.record", [record(n, CAT) for n in range(3)]).read_bytes()
    )
    start = int.from_bytes(data[:8], "little") + 16
    length = int.from_bytes(data[start : start + 8], "little")
    offset = {"length": 3, "sum of the length": 9, "data": 500, "sum of the data": length + 14}
    data[start + offset[where]] ^= 1
    (root / "train.record").write_bytes(data)
    with pytest.raises(DatasetError) as caught:
        read_tfrecord(root, "train")
    assert str(caught.value).startswith(f"{root}/train.record, record 1, byte {start}: expected")
    assert ("bytes, is lost" in str(caught.value)) == is_lost
    dataset = read_tfrecord(root, "train", on_bad_annotation="drop")
    assert dataset.image_ids == (("0",) if is_lost else ("0", "2"))
    assert dataset.defects.messages == [("damaged record", str(caught.value))]


def test_a_record_that_is_no_example(root):
    assert_defect(root, b"\xff" * 40, "damaged record", "expected a tf.Example, found '")


def test_a_file_that_is_none(root):
    root.mkdir()
    (root / "train.record").write_text("this is a text, no TFRecord at all")
    message = r"train\.record, record 0, byte 0: expected a record, its length has the sum 0x"
    with pytest.raises(DatasetError, match=message):
        read_tfrecord(root, "train")


def test_an_empty_shard_is_counted(root):
    write_records(root / "train-00000-of-00002", [record(0, CAT)])
    write_records(root / "train-00001-of-00002", [])
    dataset = read_tfrecord(root, "train")
    assert dataset.defects.counts() == {"empty file of records": 1}


# ------------------------------------------------------------------------------------------------
# The index
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def shards(root):
    return [
        write_records(root / f"train-0000{n}-of-00002", [record(2 * n, CAT), record(2 * n + 1)])
        for n in range(2)
    ]


@pytest.fixture
def looked_at(monkeypatch):
    """The shards that are read to be indexed, in order of their names."""
    found, records = [], indexing._records

    def noted(shard, *args):
        found.append(os.path.basename(shard))
        return records(shard, *args)

    monkeypatch.setattr(indexing, "_records", noted)
    return found


def same(a, b):
    assert (a.images, a.image_ids, a.classes) == (b.images, b.image_ids, b.classes)
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.row_splits, b.row_splits)


def test_the_index_is_made_once(root, shards, looked_at):
    first = read_tfrecord(root, "train")
    assert sorted(looked_at) == [shard.name for shard in shards]
    [index] = root.glob(".*.index")
    same(first, read_tfrecord(root, "train"))
    assert len(looked_at) == 2
    assert [index] == list(root.glob(".*.index"))


def test_a_changed_shard_is_indexed_again_and_no_other(root, shards, looked_at):
    read_tfrecord(root, "train")
    looked_at.clear()
    write_records(shards[1], [record(7, DOG)])
    assert read_tfrecord(root, "train").image_ids == ("0", "1", "7")
    os.utime(shards[0], ns=(1, 1))  # of the same size
    read_tfrecord(root, "train")
    assert looked_at == [shards[1].name, shards[0].name]


def test_a_moved_folder_keeps_its_index(root, shards, looked_at):
    read_tfrecord(root, "train")
    dataset = read_tfrecord(root.rename(root.with_name("moved")), "train")
    assert len(looked_at) == 2
    assert decode_image(dataset.images[3]).shape == (HEIGHT, WIDTH, 3)


def test_a_folder_that_cannot_be_written(root, shards, looked_at, cache):
    root.chmod(0o555)
    read_tfrecord(root, "train")
    read_tfrecord(root, "train")
    root.chmod(0o755)
    assert len(looked_at) == 2
    assert not list(root.glob(".*"))
    assert len(list((cache / "indexes").iterdir())) == 1


def test_no_place_for_an_index_is_no_error(root, shards, cache):
    root.chmod(0o555)
    (cache / "indexes").write_text("a file in the way")
    assert len(read_tfrecord(root, "train")) == 4
    root.chmod(0o755)


def test_an_index_cut_or_changed_anywhere_gives_the_same_or_is_made_anew(root, shards):
    first = read_tfrecord(root, "train")
    [path] = root.glob(".*.index")
    data = path.read_bytes()
    for end in range(0, len(data), max(len(data) // 40, 1)):
        path.write_bytes(data[:end])
        same(first, read_tfrecord(root, "train"))
    for place in range(0, len(data), max(len(data) // 60, 1)):
        changed = bytearray(data)
        changed[place] ^= 0x41
        path.write_bytes(changed)
        try:
            dataset = read_tfrecord(root, "train", on_bad_annotation="drop")
        except DatasetError:
            continue
        assert (dataset.boxes[:, :2] < dataset.boxes[:, 2:]).all()


def test_an_image_of_a_shard_that_was_cut_since(root, shards):
    image = read_tfrecord(root, "train").images[3]
    shards[1].write_bytes(shards[1].read_bytes()[:600])
    message = r"train-00001-of-00002: expected \d+ bytes from byte \d+ on \(p3\.png\), found 0: the"
    with pytest.raises(DatasetError, match=message):
        decode_image(image)


def test_fields_in_another_order_and_a_text_that_looks_like_the_image_s_key(root):
    """Of a message's fields any may come first: here a value comes before its key."""
    image, plain = png(5), record(0, CAT)

    def field(number, data):
        return bytes([number << 3 | 2]) + varint(len(data)) + data

    def varint(value):
        return (bytes([value & 127 | 128]) + varint(value >> 7)) if value > 127 else bytes([value])

    def value(data):
        return field(2, field(1, field(1, data)))

    key = field(1, b"image/encoded")
    like_it = field(1, field(1, b"a") + value(b"image/encoded\x12\x01\n\x01\n\x01"))
    others = tf.train.Example.FromString(plain)
    del others.features.feature["image/encoded"]
    rest = others.features.SerializeToString()
    entries = [field(1, value(image) + key), field(1, key + value(image))]
    records = [field(1, before + entry + rest) for before in (b"", like_it) for entry in entries]
    write_records(root / "train.record", records)
    expected = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    dataset = read_tfrecord(root, "train")
    assert len(dataset) == 4
    for place in dataset.images:
        np.testing.assert_array_equal(decode_image(place), expected)


# ------------------------------------------------------------------------------------------------
# Compressed, and in stores
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GZIP", "ZLIB"])
def test_compressed_files_are_unpacked_once(root, kind, cache, monkeypatch):
    plain = write_records(root / "plain.record", [record(n, CAT) for n in range(3)])
    write_records(root / "train.record.gz", [record(n, CAT) for n in range(3)], kind)
    assert FORMATS["tfrecord"].find_splits(root) == ["plain", "train"]
    dataset = read_tfrecord(root, "train")
    [unpacked] = cache.glob("records/*/00000-*")
    assert unpacked.read_bytes() == plain.read_bytes()
    assert all(image.startswith(f"{unpacked}#") for image in dataset.images)
    monkeypatch.setattr("data.formats.record_files._unpack", None)
    same(dataset, read_tfrecord(root, "train"))
    monkeypatch.undo()
    monkeypatch.setenv("RETINANET_CACHE", str(cache))
    write_records(root / "train.record.gz", [record(7, CAT)], kind)
    assert read_tfrecord(root, "train").image_ids == ("7",)


def test_a_compressed_file_cut_short_or_damaged_leaves_nothing(root, cache):
    data = write_records(root / "train.record", [record(0, CAT)] * 3, "GZIP").read_bytes()
    for changed in (data[:-9], data[:-1000], data[:200] + b"\x00\xff" * 50 + data[300:], data[:20]):
        (root / "train.record").write_bytes(changed)
        with pytest.raises(DatasetError, match=r"train\.record"):
            read_tfrecord(root, "train")
        assert not [path for path in cache.glob("records/*/*") if path.is_file()]


def test_gzip_files_behind_each_other_are_one(root):
    first = write_records(root / "a.gz", [record(0, CAT)], "GZIP").read_bytes()
    second = write_records(root / "a.gz", [record(1, CAT)], "GZIP").read_bytes()
    (root / "train.record").write_bytes(first + second)
    assert read_tfrecord(root, "train").image_ids == ("0", "1")


def test_too_little_room_is_said_before_anything_is_unpacked(root, monkeypatch):
    write_records(root / "train.record", [record(0, CAT)], "GZIP")
    free = SimpleNamespace(free=1_000_000)
    monkeypatch.setattr("data.formats.record_files.shutil.disk_usage", lambda _: free)
    with pytest.raises(
        DatasetError, match=r"expected \d+ MB free to unpack, found 1; set RETINANET"
    ):
        read_tfrecord(root, "train")


def test_a_store_that_tensorflow_opens(cache, looked_at):
    root = "ram://bucket/set"
    write_records(f"{root}/train-00000-of-00001", [record(0, CAT), record(1, DOG)])
    with tf.io.gfile.GFile(f"{root}/label_map.pbtxt", "w") as file:
        file.write(MAP)
    data = Data(format="tfrecord", root=root, train="train", val="train")
    dataset = read_split(data, "train", class_names(data))
    assert dataset.name == "set/train"
    assert dataset.category_ids == (3, 7)
    assert dataset.boxes.tolist() == [[3, 4, 20, 12], [0, 0, 40, 30]]
    assert dataset.images[1].startswith("ram://bucket/set/train-00000-of-00001#")
    expected = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    np.testing.assert_array_equal(decode_image(dataset.images[1]), expected)
    same(dataset, read_split(data, "train-*", dataset.classes))
    assert len(list((cache / "indexes").iterdir())) == 2
    with pytest.raises(
        DatasetError, match=r"ram://bucket/set: expected val\.tfrecord, .*, found tr"
    ):
        read_tfrecord(root, "val")


def test_a_store_that_it_does_not_know(tmp_path):
    expected = r"s3://b/set.*: expected a path of this machine or one of .*gs.*, found s3://: copy"
    with pytest.raises(DatasetError, match=expected):
        read_tfrecord("s3://b/set", "train")
    data = Data(format="tfrecord", root="s3://b/set")
    with pytest.raises(DatasetError, match=expected):
        class_names(data)


def test_addresses():
    assert address("gs:/b/c") == address("gs://b/c") == "gs://b/c"
    assert address("file:///a/b") == "/a/b"
    assert address("a/b:c/d") == "a/b:c/d"
    assert join("/", "a") == "/a"


# ------------------------------------------------------------------------------------------------
# Training
# ------------------------------------------------------------------------------------------------


def as_records(dataset, path):
    """Writes the same image files, objects and difficult flags as records."""
    examples = []
    for index, (image, image_id) in enumerate(zip(dataset.images, dataset.image_ids, strict=True)):
        rows = dataset.rows(index)
        names = [dataset.classes[label] for label in dataset.labels[rows]]
        objects = [(*box, name) for box, name in zip(dataset.boxes[rows], names, strict=True)]
        with open(image, "rb") as file:
            data = file.read()
        size = tuple(dataset.sizes[index].tolist())
        changes = {"object__difficult": dataset.difficult[rows].astype(int).tolist()}
        name = [image_id.encode()]
        examples.append(example(data, objects, size, source_id=name, filename=name, **changes))
    write_records(path, examples)


def test_batches_are_those_of_the_same_images_as_files(tmp_path, root):
    shapes = make_shapes(tmp_path / "shapes", 9, 2, (80, 64), seed=3)
    files = read_voc(shapes, "train")
    as_records(files, root / "train.record")
    records = read_tfrecord(root, "train")
    assert records.classes == files.classes
    changes = Augment(flip=0.5, brightness=0.2, zoom=(0.8, 1.5), rotate=5.0)
    data = Data(augment=changes, mixing=Mixing(mosaic=0.5))
    for cache in (False, True):
        streams = [
            training_batches(
                dataset,
                Data(augment=changes, mixing=data.mixing, cache=cache),
                Canvas(64, 64),
                batch_size=4,
                seed=1,
                epochs=range(2),
            ).as_numpy_iterator()
            for dataset in (files, records)
        ]
        for ours, theirs in zip(*streams, strict=True):
            for key in theirs:
                np.testing.assert_array_equal(ours[key], theirs[key])


@pytest.mark.slow
def test_a_training_gives_the_same_weights(tmp_path, root):
    shapes = make_shapes(tmp_path / "shapes", 12, 6, (80, 64), seed=3)
    for split in ("train", "val"):
        as_records(read_voc(shapes, split), root / f"{split}.record")
    folders = []
    for name, changes in (("voc", {}), ("tfrecord", {"data.format": "tfrecord"})):
        (tmp_path / name).mkdir()
        place = root if changes else shapes
        config = write_config(tmp_path / name, place, changes)
        call_train(["--config", config])
        folders.append(next((tmp_path / name / "runs").rglob("checkpoints")).parent)
    with (
        np.load(folders[0] / "checkpoints/last.npz") as ours,
        np.load(folders[1] / "checkpoints/last.npz") as theirs,
    ):
        names = [name for name in ours.files if ours[name].dtype.kind == "f"]
        assert len(names) > 20
        for name in names:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert read_metrics(folders[0]) == read_metrics(folders[1])
