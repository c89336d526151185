"""The converter as a command: what arrives, what is told, what is refused and leaves nothing."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.convert import writing
from data.convert.__main__ import keep_inside, main, remarks
from data.formats import FORMATS, TARGETS, recognition
from data.formats.boxes_csv import read_csv
from data.formats.class_files import read_class_file
from data.formats.coco import read_coco
from data.formats.labelme import read_labelme
from data.formats.tfrecord import read_tfrecord
from data.formats.voc import read_voc
from data.formats.yolo import read_yolo
from data.records import Defects, assemble
from data.writers import tfrecord
from tests.records import example, png, write_records

pytestmark = pytest.mark.full

CLASSES = ("cat", "dog", "owl")


def make_dataset(folder, objects, image_names, **changes):
    """A Dataset of images made in `folder`; objects are (image, box, label)."""
    for name in image_names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), tuple(zlib.crc32(name.encode()).to_bytes(4)[:3])).save(
            folder / name
        )
    return assemble(
        "made/up",
        CLASSES,
        images=[str(folder / name) for name in image_names],
        image_ids=image_names,
        sizes=np.tile([40, 30], (len(image_names), 1)),
        image_index=np.array([image for image, _, _ in objects], np.int64),
        boxes=np.array([box for _, box, _ in objects], np.float32),
        labels=np.array([label for _, _, label in objects], np.int32),
        defects=Defects(),
        **changes,
    )


@pytest.fixture
def source(tmp_path):
    """source("coco") writes splits train (4 images, the last empty) and val (2) in a format."""

    def source(format_name, **changes):
        root, target = tmp_path / f"source_{format_name}", TARGETS[format_name]
        for split, num in (("train", 4), ("val", 2)):
            names = [f"{split}{i}.png" for i in range(num)]
            folder = tmp_path / "records" / split
            if target.image_folder is not None:
                folder = root / target.image_folder.format(split=split)
            objects = [(i, (i, 2, 20.5, 12), i % 3) for i in range(num - (split == "train"))]
            dataset = make_dataset(folder, objects, names, **changes)
            target.write(dataset, root, split, names)
        return root

    return source


def files_below(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def run(*words):
    main([str(word) for word in words])


# ------------------------------------------------------------------------------------------------
# From format to format
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bccd_comes_back_from_a_round_trip(shared_data, tmp_path, capsys):
    """VOC -> COCO -> CSV -> VOC gives, byte for byte, what VOC -> VOC gives.

    That is: each source XML parsed, its two boxes without area dropped, and serialised by the
    writer, which leaves out what a Dataset does not hold (path, truncated, pose, blanks).
    """
    bccd, drop = shared_data / "bccd", ("--on-bad-annotation", "drop")
    run(bccd, "--to", "voc", "--out", tmp_path / "direct", *drop)
    assert "2 x empty or inverted box" in capsys.readouterr().err
    run(bccd, "--to", "coco", "--out", tmp_path / "coco", *drop)
    assert "lost: val: 87 image ids" in capsys.readouterr().err
    run(tmp_path / "coco", "--to", "csv", "--out", tmp_path / "csv")
    run(tmp_path / "csv", "--to", "voc", "--out", tmp_path / "voc")
    assert "lost" not in capsys.readouterr().err
    found, expected = files_below(tmp_path / "voc"), files_below(tmp_path / "direct")
    assert found == expected
    assert len(found) == 364 * 2 + 4
    for split in ("train", "val", "test", "trainval"):
        assert found[f"ImageSets/Main/{split}.txt"].split() == (
            (bccd / f"ImageSets/Main/{split}.txt").read_bytes().split()
        )
        first = read_voc(bccd, split, on_bad_annotation="drop")
        last = read_voc(tmp_path / "voc", split)
        np.testing.assert_array_equal(last.boxes, first.boxes)
        np.testing.assert_array_equal(last.labels, first.labels)
        np.testing.assert_array_equal(last.row_splits, first.row_splits)
        for image, original in zip(last.images, first.images, strict=True):
            assert os.path.samefile(image, original)


@pytest.mark.parametrize("of", TARGETS)
@pytest.mark.parametrize("to", TARGETS)
def test_each_format_to_each(source, tmp_path, of, to):
    run(source(of), "--to", to, "--out", tmp_path / "out")
    readers = {"voc": read_voc, "coco": read_coco, "csv": read_csv, "yolo": read_yolo,
               "tfrecord": read_tfrecord, "labelme": read_labelme}  # fmt: skip
    for split, num in (("train", 4), ("val", 2)):
        found = readers[to](tmp_path / "out", split, CLASSES)
        assert [Path(p).name for p in found.images] == [f"{split}{i}.png" for i in range(num)]
        num_boxes = num - (split == "train")
        expected = np.float32([(i, 2, 20.5, 12) for i in range(num_boxes)])
        np.testing.assert_array_equal(found.boxes, expected)
        assert found.labels.tolist() == list(range(num_boxes))
        assert len(found.boxes[found.rows(num - 1)]) == (split == "val")


def test_real_crowds_become_what_the_target_knows(shared_data, tmp_path, capsys):
    coco, out = shared_data / "tiny_coco", tmp_path / "out"
    run(coco, "--to", "coco", "--out", out)
    assert "lost" not in capsys.readouterr().err
    first, last = read_coco(coco, "val2017"), read_coco(out, "val2017")
    for name in ("boxes", "labels", "ignore", "areas", "row_splits", "sizes"):
        np.testing.assert_array_equal(getattr(last, name), getattr(first, name), err_msg=name)
    assert first.ignore.sum() == 5
    for name in ("image_ids", "classes", "category_ids"):
        assert getattr(last, name) == getattr(first, name)
    run(coco, "--to", "csv", "--out", tmp_path / "csv", "--splits", "val2017")
    told = capsys.readouterr().err
    assert "lost: val2017: 5 regions to ignore: left out, CSV has none" in told
    assert "lost: val2017: 80 category ids: CSV has none" in told


@pytest.fixture
def crowd(tmp_path):
    """CrowdHuman: a person beyond the left border, one far outside, and a mask."""
    root = tmp_path / "crowd"
    (root / "Images").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(root / "Images" / "273271,1a0d.jpg")
    boxes = {"vbox": [1, 2, 9, 9], "hbox": [2, 2, 3, 3], "extra": {"box_id": 0}}
    line = {
        "ID": "273271,1a0d",
        "gtboxes": [
            {"tag": "person", "fbox": [-5, 2, 15, 20], "head_attr": {}, **boxes},
            {"tag": "person", "fbox": [50, 2, 15, 20], "head_attr": {}, **boxes},
            {"tag": "mask", "fbox": [0, 0, 9, 9], **boxes},
        ],
    }
    (root / "annotation_val.odgt").write_text(json.dumps(line) + "\n")
    return root


def test_csv_from_crowdhuman(crowd, tmp_path, capsys):
    run(crowd, "--to", "csv", "--out", tmp_path / "out")
    line = '"images/273271,1a0d.jpg",0,2,10,22,person\n'
    assert (tmp_path / "out/val.csv").read_text() == line
    told = capsys.readouterr().err
    assert "lost: val: 2 objects of class 'head': left out" in told
    assert "lost: val: 1 regions to ignore of class 'head': left out" in told
    assert "lost: val: 1 boxes reach beyond the image: clipped" in told
    assert "lost: val: 1 boxes outside the image: left out" in told
    assert "lost: val: 1 regions to ignore: left out, CSV has none" in told
    words = ("--classes", "head", "person", "--person-box", "visible", "--from", "crowdhuman")
    run(crowd, "--to", "csv", "--out", tmp_path / "both", *words)
    assert (tmp_path / "both/classes.csv").read_text() == "head,0\nperson,1\n"
    assert ",1,2,10,11,person\n" in (tmp_path / "both/val.csv").read_text()


def test_a_class_map_of_crowdhuman_names_both_classes(crowd, tmp_path, capsys):
    file, out = tmp_path / "map.csv", tmp_path / "out"
    words = (crowd, "--to", "csv", "--out", out, "--class-map", file)
    file.write_text("person,person\nhed,head\n")
    message = r"map\.csv: class: expected one of person, head, found 'hed'; did you mean 'head'\?"
    with pytest.raises(ValueError, match=message):
        run(*words)
    file.write_text("head,face\n")
    with pytest.raises(ValueError, match=r"'person,' to leave it out\), found no 'person'"):
        run(*words)
    file.write_text("head,face\nperson,\n")
    run(*words)
    assert (out / "classes.csv").read_text() == "face,0\n"
    told = capsys.readouterr().err
    assert "lost: val: 2 objects of class 'person': left out" in told
    assert "'head'" not in told


def test_a_defect_of_a_class_left_out_does_not_stop_crowdhuman(crowd, tmp_path):
    path = crowd / "annotation_val.odgt"
    path.write_text(path.read_text().replace("[2, 2, 3, 3]", "[2, 2, 0, 3]"))
    run(crowd, "--to", "csv", "--out", tmp_path / "out")
    with pytest.raises(ValueError, match="hbox: expected a box with"):
        run(crowd, "--to", "csv", "--out", tmp_path / "heads", "--classes", "head")


def test_crowdhuman_keeps_its_regions_in_coco(crowd, tmp_path):
    run(crowd, "--to", "coco", "--out", tmp_path / "out")
    dataset = read_coco(tmp_path / "out", "val")
    assert dataset.ignore.tolist() == [False, True]
    assert dataset.areas.tolist() == [200, 81], "the area of the clipped box"


# ------------------------------------------------------------------------------------------------
# Which source, which splits
# ------------------------------------------------------------------------------------------------


def test_formats_are_recognised(source, crowd, tmp_path):
    for name in TARGETS:
        root = source(name)
        assert recognition.recognise(root) == name
        assert set(recognition.found_splits(root, name)) == {"train", "val"}
    assert recognition.recognise(crowd) == "crowdhuman"
    (crowd / "train.csv").write_text("a.png,1,2,3,4,dog\n")
    with pytest.raises(ValueError, match="of one format, found csv, crowdhuman; say it: --from"):
        run(crowd, "--to", "voc", "--out", tmp_path / "out")
    with pytest.raises(ValueError, match="source_voc: found no coco annotations; name them"):
        run(source("voc"), "--from", "coco", "--to", "csv", "--out", tmp_path / "out")


def test_nothing_to_recognise(tmp_path):
    with pytest.raises(ValueError, match="expected annotations of one format, found none"):
        run(tmp_path, "--to", "voc", "--out", tmp_path / "out")
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        run(tmp_path / "nowhere", "--to", "voc", "--out", tmp_path / "out")


def test_class_image_sets_are_no_splits(source):
    root = source("voc")
    (root / "ImageSets/Main/cat_train.txt").write_text("train0  1\ntrain1 -1\n")
    (root / "ImageSets/Main/my_train.txt").write_text("train0\n")
    assert list(recognition.found_splits(root, "voc")) == ["my_train", "train", "val"]


def test_flat_voc_folders_are_one_split(source, tmp_path):
    root = source("voc")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in [*root.glob("Annotations/*"), *root.glob("JPEGImages/*")]:
        path.rename(flat / path.name)
    assert recognition.found_splits(flat, "voc") == {"all": "all"}


def test_folders_that_are_flat_voc_folders_are_splits(source, tmp_path):
    root, folders = source("voc"), tmp_path / "folders"
    for place, pattern in (
        ("train/images", "JPEGImages/train*"),
        ("train/annots", "Annotations/train*"),
        ("test", "*/val*"),
    ):
        (folders / place).mkdir(parents=True)
        for path in root.glob(pattern):
            path.rename(folders / place / path.name)
    (folders / ".idea").mkdir()
    (folders / ".idea/workspace.xml").write_text("<project/>")
    assert recognition.recognise(folders) == "voc"
    run(folders, "--to", "coco", "--out", tmp_path / "all")
    found = {split: read_coco(tmp_path / "all", split) for split in ("train", "test")}
    assert {split: len(dataset) for split, dataset in found.items()} == {"train": 4, "test": 2}
    assert found["test"].classes == found["train"].classes == CLASSES
    assert found["test"].labels.tolist() == [0, 1]
    run(folders, "--to", "csv", "--out", tmp_path / "one", "--from", "voc", "--splits", "test")
    assert (tmp_path / "one/classes.csv").read_text() == "cat,0\ndog,1\n"


def test_an_image_set_comes_before_a_folder_of_its_name(source):
    root = source("voc")
    (root / "train").mkdir()
    (root / "train/train0.xml").write_text("<annotation/>")
    assert len(read_voc(root, "train")) == 4


def test_real_folders_of_voc(shared_data, tmp_path):
    root = shared_data / "microcontroller"
    words = ("--from", "voc", "--on-bad-annotation", "drop", "--images", "none")
    run(root, "--to", "coco", "--out", tmp_path / "out", "--splits", "train", "test", *words)
    for split in ("train", "test"):
        content = json.loads((tmp_path / f"out/annotations/instances_{split}.json").read_text())
        assert len(content["images"]) == len([*root.glob(f"{split}/*.xml")])
    assert set(recognition.found_splits(root, "voc")) == {"train", "test"}


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["annotations/instances_a.json", "annotations/captions_a.json"], ["a"]),
        (["annotations/a.json"], ["a"]),
        (["train/_annotations.coco.json", "valid/_annotations.coco.json"], ["train", "valid"]),
        (["train.json", "settings.json"], ["train"]),
    ],
)
def test_coco_files(tmp_path, files, splits):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        content = (
            "{}" if "settings" in file else '{"images": [], "categories": [], "annotations": []}'
        )
        (tmp_path / file).write_text(content)
    assert list(recognition.found_splits(tmp_path, "coco")) == splits


@pytest.mark.parametrize(
    ("text", "splits"),
    [
        ("train: images/a\nval: b\ntest:  # none\nnames: [x]\n", ["train", "val"]),
        ("train:\n  - a\n  - b\ntest:\nnames:\n  0: x\nnc: 1\npath: .\n", ["train"]),
        ("names: [x]\nlicense: MIT\nchannels: 3\nval: b\ntrain: a\n", ["train", "val"]),
        ("{names: [x], train: a}", ["train"]),
        ("names: [x]\nlicense: MIT\n", ["folder"]),
    ],
)
def test_yolo_files(tmp_path, text, splits):
    (tmp_path / "labels/folder").mkdir(parents=True)
    (tmp_path / "other.yaml").write_text("not: read\n")
    (tmp_path / "data.yml").write_text(text)
    assert recognition.recognise(tmp_path) == "yolo"
    assert list(recognition.found_splits(tmp_path, "yolo")) == splits


def test_other_keys_of_the_yaml_are_no_splits(source, tmp_path):
    root = source("yolo")
    with open(root / "data.yaml", "a") as file:
        file.write("license: CC BY 4.0\nchannels: 3\n")
    run(root, "--to", "csv", "--out", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == (
        {"train.csv", "val.csv", "classes.csv"}
    )


def test_what_labelimg_writes_for_yolo_is_one_split(source, tmp_path):
    root, flat = source("yolo"), tmp_path / "flat"
    flat.mkdir()
    (root / "images/train").rename(flat / "images")
    (root / "labels/train").rename(flat / "labels")
    (flat / "labels/classes.txt").write_text("cat\ndog\nowl\n")
    run(flat, "--to", "csv", "--out", tmp_path / "out")
    assert len(read_csv(tmp_path / "out", "all", CLASSES)) == 4
    run(flat, "--to", "yolo", "--out", tmp_path / "again")
    assert len(read_yolo(tmp_path / "again", "all").labels) == 3


def test_a_broken_yaml_is_told_unless_another_format_is_there(source, tmp_path):
    root = source("csv")
    (root / "settings.yaml").write_text("a: [")
    assert recognition.recognise(root) == "csv"
    (tmp_path / "data.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"found none \(.*data\.yaml: not a YAML file to read"):
        recognition.recognise(tmp_path)


def test_csv_files_that_tools_call_alike(source, tmp_path):
    """As Roboflow exports them: images and _annotations.csv in a folder a split."""
    root, folders = source("csv"), tmp_path / "folders"
    for split, name in (("train", "train"), ("val", "valid")):
        (folders / name).mkdir(parents=True)
        text = (root / f"{split}.csv").read_text().replace("images/", "")
        header = "filename,xmin,ymin,xmax,ymax,class\n"
        (folders / name / "_annotations.csv").write_text(header + text)
        for path in root.glob(f"images/{split}*"):
            path.rename(folders / name / path.name)
    files = ["train/_annotations.csv", "valid/_annotations.csv"]
    assert recognition.recognise(folders) == "csv"
    assert recognition.found_splits(folders, "csv") == dict(
        zip(("train", "valid"), files, strict=True)
    )
    run(folders, "--to", "coco", "--out", tmp_path / "out", "--splits", *files)
    assert [len(read_coco(tmp_path / "out", split)) for split in ("train", "valid")] == [4, 2]
    assert recognition.named_splits(["_annotations.csv"]) == {"_annotations": "_annotations.csv"}


def test_names_of_splits():
    splits = [
        "a/instances_x.json",
        "annotation_y.odgt",
        "z_labels.csv",
        "v1.0",
        "t/_annotations.coco.json",
    ]
    assert list(recognition.named_splits(splits)) == ["x", "y", "z", "v1.0", "t"]
    with pytest.raises(ValueError, match=r"a/x\.json and b/x\.json would both be called 'x'"):
        recognition.named_splits(["a/x.json", "b/x.json"])
    with pytest.raises(ValueError, match="expected a name or a file, found 'train\\+val'"):
        recognition.named_splits(["train+val"])
    with pytest.raises(ValueError, match=r"expected a name or a file, found '\.\.'"):
        recognition.named_splits([".."])


def test_only_the_splits_asked_for(source, tmp_path):
    run(source("csv"), "--to", "coco", "--out", tmp_path / "out", "--splits", "val")
    assert sorted(os.listdir(tmp_path / "out")) == ["annotations", "val"]
    assert os.listdir(tmp_path / "out/annotations") == ["instances_val.json"]


def test_images_from_elsewhere(source, tmp_path):
    root = source("csv")
    (root / "images").rename(tmp_path / "photos")
    text = (root / "val.csv").read_text()
    (root / "val.csv").write_text(text.replace("images/", ""))
    words = ("--splits", "val", "--images-from", tmp_path / "photos")
    run(root, "--to", "voc", "--out", tmp_path / "out", *words)
    assert len(read_voc(tmp_path / "out", "val")) == 2
    with pytest.raises(
        ValueError, match=r"--images-from: is for coco, csv, yolo, crowdhuman, labelme.*; .* is voc"
    ):
        run(tmp_path / "out", "--to", "csv", "--out", tmp_path / "x", "--images-from", ".")


# ------------------------------------------------------------------------------------------------
# Classes
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", TARGETS)
def test_chosen_classes(source, tmp_path, capsys, of):
    run(source(of), "--to", "csv", "--out", tmp_path / "out", "--classes", "owl", "cat")
    assert read_class_file(tmp_path / "out/classes.csv") == ("owl", "cat")
    found = read_csv(tmp_path / "out", "train", ("owl", "cat"))
    assert found.labels.tolist() == [1, 0]
    assert len(found) == 4, "an image stays when its objects go"
    told = capsys.readouterr().err
    assert "lost: train: 1 objects of class 'dog': left out" in told
    assert "lost: val: 1 objects of class 'dog': left out" in told


def test_classes_that_are_not_there(source, tmp_path):
    words = (source("coco"), "--to", "csv", "--out", tmp_path / "out", "--classes")
    with pytest.raises(
        ValueError, match=r"expected one of cat, dog, owl, found 'dgo'; did you mean 'd"
    ):
        run(*words, "dgo")
    with pytest.raises(ValueError, match="--classes: expected each once, found dog, dog"):
        run(*words, "dog", "dog")


def test_a_class_map_renames_merges_and_leaves_out(source, tmp_path, capsys):
    root, file, out = source("coco", category_ids=(7, 3, 5)), tmp_path / "map.csv", tmp_path / "out"
    run(root, "--make-class-map", file)
    assert file.read_text() == "dog,dog\nowl,owl\ncat,cat\n", "by category id"
    file.write_text('owl,"bird, of prey"\n\ncat,pet\ndog , pet\n')
    run(root, "--to", "coco", "--out", out, "--class-map", file)
    found = read_coco(out, "train")
    assert dict(zip(found.classes, found.category_ids, strict=True)) == (
        {"bird, of prey": 5, "pet": 7}
    )
    assert [found.classes[label] for label in found.labels] == ["pet", "pet", "bird, of prey"]
    file.write_text("owl,\ncat,cat\ndog,dog\n")
    capsys.readouterr()
    run(root, "--to", "voc", "--out", tmp_path / "voc", "--class-map", file)
    assert "lost: train: 1 objects of class 'owl': left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat,cat\nowl,owl\n", r"map.csv: expected a line for each class of .*found no 'dog'"),
        ("cat,\ndgo,a\nowl,\n", r"map.csv: class: expected one of .*'dgo'; did you mean 'dog'"),
        ("cat,a\ndog,a\nowl,a\nunicorn,\n", r"map.csv: class: expected .*found 'unicorn'$"),
        ("cat\n", r"map.csv, line 1: expected old,new, found 'cat'"),
        ("cat,a,b\n", r"map.csv, line 1: expected old,new, found 'cat,a,b'"),
        (",a\n", r"map.csv, line 1: expected old,new, found ',a'"),
        ('cat,"a\n', r"map.csv, line 1: expected old,new"),
        ("cat,a\n\ncat,b\n", r"map.csv, line 3: class 'cat' is there twice"),
        ("cat,\ndog,\nowl,\n", r"expected a class to keep, found none"),
    ],
)
def test_class_maps_that_do_not_fit(source, tmp_path, text, message):
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        run(
            source("csv"),
            "--to",
            "voc",
            "--out",
            tmp_path / "out",
            "--class-map",
            tmp_path / "map.csv",
        )
    assert not (tmp_path / "out").exists()


def test_class_files_from_names(tmp_path):
    run("--names", "person, head", "--make-class-file", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "person,0\nhead,1\n"
    (tmp_path / "names.txt").write_text('person\n"head, of state"\n')
    run("--names", tmp_path / "names.txt", "--make-class-file", tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == 'person,0\n"head, of state",1\n'
    with pytest.raises(ValueError, match=r"b\.csv: is there already"):
        run("--names", "a,b", "--make-class-file", tmp_path / "b.csv")
    for bad in ("a,,b", "a,a"):
        with pytest.raises(ValueError, match=f"--names: expected different names .* found '{bad}'"):
            run("--names", bad, "--make-class-file", tmp_path / "c.csv")


def test_splits_that_disagree_about_category_ids(source, tmp_path, capsys):
    root = source("coco", category_ids=(7, 3, 5))
    path = root / "annotations/instances_val.json"
    text = path.read_text().replace('"id":7,"name":"cat"', '"id":9,"name":"cat"')
    path.write_text(text.replace('"category_id":7', '"category_id":9'))
    run(root, "--to", "coco", "--out", tmp_path / "out")
    assert "category ids: the splits disagree, counted from 1" in capsys.readouterr().err
    train, val = (read_coco(tmp_path / "out", split) for split in ("train", "val"))
    assert train.classes == val.classes
    assert train.category_ids == val.category_ids == (1, 2, 3)
    assert [val.classes[label] for label in val.labels] == ["cat", "dog"]


# ------------------------------------------------------------------------------------------------
# Images
# ------------------------------------------------------------------------------------------------


def test_links_copies_or_nothing(source, tmp_path, monkeypatch):
    root = source("voc")
    original = root / "JPEGImages/val0.png"

    def convert_to(name, *words):
        run(root, "--to", "csv", "--out", tmp_path / name, *words)
        return tmp_path / name / "images/val0.png"

    assert convert_to("linked").samefile(original)
    assert not convert_to("copied", "--images", "copy").samefile(original)
    assert (tmp_path / "copied/images/val0.png").read_bytes() == original.read_bytes()
    assert not convert_to("bare", "--images", "none").parent.exists()
    assert (tmp_path / "bare/val.csv").read_text() == (tmp_path / "linked/val.csv").read_text()

    def refuse(*paths):
        raise OSError("not on this disk")

    monkeypatch.setattr(os, "link", refuse)
    assert convert_to("symbolic").is_symlink()
    assert (tmp_path / "symbolic/images/val0.png").read_bytes() == original.read_bytes()
    monkeypatch.setattr(os, "symlink", refuse)
    assert not convert_to("refused").is_symlink()
    assert (tmp_path / "refused/images/val0.png").read_bytes() == original.read_bytes()


@pytest.fixture
def nested(tmp_path):
    """nested([names], ...) makes a CSV of one split for each list of names."""

    def nested(*splits):
        root = tmp_path / "nested"
        for number, names in enumerate(splits):
            dataset = make_dataset(root / "images", [(0, (1, 2, 9, 9), 0)], names)
            TARGETS["csv"].write(dataset, root, f"s{number}", names)
        return root

    return nested


def names_below(folder, pattern):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(pattern))


def test_subfolders_are_kept_but_in_voc(nested, tmp_path):
    root = nested(["a/x.png", "b/c/x.png", "b/y.png"])
    for to, folder in (("csv", "images"), ("coco", "s0"), ("yolo", "images/s0")):
        run(root, "--to", to, "--out", tmp_path / to)
        found = names_below(tmp_path / to / folder, "*.png")
        assert found == ["a/x.png", "b/c/x.png", "b/y.png"]
    assert len(read_yolo(tmp_path / "yolo", "s0")) == 3
    run(root, "--to", "voc", "--out", tmp_path / "voc")
    expected = ["a_x.png", "b_c_x.png", "b_y.png"]
    assert names_below(tmp_path / "voc/JPEGImages", "*") == expected
    assert len(read_voc(tmp_path / "voc", "s0")) == 3


def test_folders_of_splits_count_only_where_names_clash(source, nested, tmp_path):
    run(source("coco"), "--to", "csv", "--out", tmp_path / "plain")
    assert "train0.png" in names_below(tmp_path / "plain/images", "*.png")
    root = nested(["a/x.png", "a/y.png"], ["b/x.png"])
    run(root, "--to", "coco", "--out", tmp_path / "coco")
    assert names_below(tmp_path / "coco", "*.png") == ["s0/x.png", "s0/y.png", "s1/x.png"]
    run(tmp_path / "coco", "--to", "voc", "--out", tmp_path / "voc")
    expected = ["s0_x.png", "s0_y.png", "s1_x.png"]
    assert names_below(tmp_path / "voc/JPEGImages", "*") == expected


def test_names_that_still_clash_are_refused(nested, tmp_path):
    root = nested(["x.png", "x.bmp"])
    run(root, "--to", "csv", "--out", tmp_path / "csv")
    for to in ("voc", "yolo"):
        with pytest.raises(
            ValueError, match=r"x\.png, .*x\.bmp: would both be called x\.bmp; rename"
        ):
            run(root, "--to", to, "--out", tmp_path / to)
        assert not (tmp_path / to).exists()
    root = nested(["a_x.png", "a/x.png"])
    with pytest.raises(ValueError, match=r"a_x\.png, .*a/x\.png: would both be called a_x\.png"):
        run(root, "--to", "voc", "--out", tmp_path / "out")


# ------------------------------------------------------------------------------------------------
# New splits
# ------------------------------------------------------------------------------------------------


def split_ids(folder, *splits):
    return [(folder / f"ImageSets/Main/{split}.txt").read_text().split() for split in splits]


@pytest.fixture
def records(tmp_path):
    """Splits of two images each, one of them a JPEG called as if it were a PNG."""
    names = ["a.png", "b/A.jpg", "x", "a.png"]
    images = [png(0), png(1), png(2, suffix="JPEG"), png(3)]
    examples = [
        example(image, [(1, 2, 20, 12, "cat")], filename=[name.encode()], source_id=[b"%d" % n])
        for n, (image, name) in enumerate(zip(images, names, strict=True))
    ]
    write_records(tmp_path / "records/train.record", examples[:2])
    write_records(tmp_path / "records/val.record", examples[2:])
    return tmp_path / "records", images


@pytest.mark.parametrize("to", ["voc", "coco", "csv", "yolo"])
@pytest.mark.parametrize("how", ["link", "copy"])
def test_images_in_records_become_files(records, tmp_path, to, how):
    """By their names, with a number where two would have one, and the suffix of what they are."""
    root, images = records
    main([str(root), "--to", to, "--out", str(tmp_path / "out"), "--images", how])
    folders = [TARGETS[to].image_folder.format(split=split) for split in ("train", "val")]
    # Only where splits have folders of their own may an image of each have one name.
    last = "a.png" if folders[0] != folders[1] else "a-3.png"
    places = zip(
        [folders[0]] * 2 + [folders[1]] * 2, ["a.png", "A-2.png", "x.jpg", last], strict=True
    )
    for (folder, name), image in zip(places, images, strict=True):
        path = tmp_path / "out" / folder / name
        assert path.read_bytes() == image
        assert not path.is_symlink()
    form = FORMATS[to]
    dataset = form.read_split(tmp_path / "out", "train", None, "error", {})
    assert dataset.boxes.tolist() == [[1, 2, 20, 12]] * 2


def test_records_in_a_store(tmp_path, monkeypatch):
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path / "cache"))  # no file there has a time
    write_records("ram://convert/train.record", [example(png(4), [(1, 2, 20, 12, "cat")])])
    main(["ram://convert", "--to", "voc", "--out", str(tmp_path / "out")])
    assert (tmp_path / "out/JPEGImages/a.png").read_bytes() == png(4)


def test_new_splits_of_records(records, tmp_path):
    root, images = records
    shares = ["--split-fractions", "train=.5", "val=.5"]
    main([str(root), "--to", "coco", "--out", str(tmp_path / "out"), *shares])
    found = {path.read_bytes() for path in (tmp_path / "out").rglob("*.[jp][pn]g")}
    assert found == set(images)


def test_new_splits_hold_every_image_once(source, tmp_path):
    root, words = source("csv"), ("--to", "voc", "--split-fractions", "a=.5", "b=.5")
    run(root, *words, "--out", tmp_path / "one")
    a, b = split_ids(tmp_path / "one", "a", "b")
    assert sorted(a + b) == ["train0", "train1", "train2", "train3", "val0", "val1"]
    assert len(a) == len(b) == 3
    for split in ("a", "b"):
        found = read_voc(tmp_path / "one", split, CLASSES)
        assert {0, 1} <= set(found.labels.tolist())
    run(root, *words, "--out", tmp_path / "two", "--seed", "0")
    assert files_below(tmp_path / "two") == files_below(tmp_path / "one")
    others = []
    for seed in range(1, 6):
        run(root, *words, "--out", tmp_path / str(seed), "--seed", seed)
        others.append(split_ids(tmp_path / str(seed), "a", "b"))
    assert any(other != [a, b] for other in others)


def test_new_splits_of_overlapping_ones(source, tmp_path, capsys):
    root = source("voc")
    train, val = split_ids(root, "train", "val")
    (root / "ImageSets/Main/trainval.txt").write_text("\n".join(train + val))
    words = ("--split-fractions", "a=.5", "b=.5")
    run(root, "--to", "coco", "--out", tmp_path / "coco", *words)
    assert "trainval: 4 images are in an earlier split, too" in capsys.readouterr().err
    found = [read_coco(tmp_path / "coco", split) for split in "ab"]
    assert sum(map(len, found)) == 6


def test_new_splits_where_image_ids_are_counted_in_each(source, tmp_path):
    root = source("coco")
    assert read_coco(root, "val").image_ids == ("1", "2")
    run(root, "--to", "coco", "--out", tmp_path / "out", "--split-fractions", "a=.5", "b=.5")
    found = [read_coco(tmp_path / "out", split) for split in "ab"]
    names = sorted(Path(image).name for dataset in found for image in dataset.images)
    assert names == ["train0.png", "train1.png", "train2.png", "train3.png", "val0.png", "val1.png"]


def test_images_of_the_same_bytes_stay_together(source, tmp_path):
    root = source("voc")
    for number in range(4):
        path = root / f"JPEGImages/train{number}.png"
        path.write_bytes((root / "JPEGImages/val0.png").read_bytes())
    words = ("--split-fractions", "a=.5", "b=.5")
    run(root, "--to", "voc", "--out", tmp_path / "out", *words)
    assert sorted(map(len, split_ids(tmp_path / "out", "a", "b"))) == [1, 5]


def test_shares_that_were_not_reached_are_told(source, tmp_path, capsys):
    root, words = source("voc"), ("--split-fractions", "a=.5", "b=.5")
    run(root, "--to", "voc", "--out", tmp_path / "even", *words)
    assert "wanted" not in capsys.readouterr().err
    for number in range(4):
        path = root / f"JPEGImages/train{number}.png"
        path.write_bytes((root / "JPEGImages/val0.png").read_bytes())
    run(root, "--to", "voc", "--out", tmp_path / "out", *words)
    told = capsys.readouterr().err
    assert "83% of the images, 50% wanted" in told
    assert "17% of the images, 50% wanted" in told


def test_five_points_off_are_not_told():
    datasets = {"a": range(11), "b": range(9)}
    assert remarks(datasets, "csv", [("a", 0.5), ("b", 0.5)]) == []
    assert len(remarks(datasets, "csv", [("a", 0.49), ("b", 0.51)])) == 2


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (["train=80", "val=20"], "expected shares above 0 that make 1 together, found train=80, v"),
        (["a=1", "b=0"], "expected shares above 0 that make 1 together, found a=1, b=0$"),
        (["a=.5", "a=.5"], "expected each name once, found 'a' again$"),
    ],
)
def test_shares_are_checked_before_anything_is_read(tmp_path, shares, message):
    with pytest.raises(ValueError, match=f"^--split-fractions: {message}"):
        run(tmp_path / "nowhere", "--to", "csv", "--out", tmp_path, "--split-fractions", *shares)


# ------------------------------------------------------------------------------------------------
# What is refused, what is left behind
# ------------------------------------------------------------------------------------------------


def test_a_folder_in_use_is_left_alone(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    root = source("voc")
    run(root, "--to", "coco", "--out", out)  # empty: taken
    before = files_below(out)
    with pytest.raises(ValueError, match="out: expected a new or empty folder, found it in use"):
        run(root, "--to", "csv", "--out", out)
    assert files_below(out) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file: expected a new or empty folder"):
        run(root, "--to", "csv", "--out", tmp_path / "file")


def test_a_link_to_an_empty_folder_is_filled(source, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    run(source("voc"), "--to", "csv", "--out", tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk/train.csv").is_file()


def test_ultralytics_needs_train_and_val(source, tmp_path, capsys):
    root = source("csv")
    run(root, "--to", "yolo", "--out", tmp_path / "both")
    assert "Ultralytics" not in capsys.readouterr().err
    run(root, "--to", "yolo", "--out", tmp_path / "one", "--splits", "train")
    message = "yolo: expected the splits train and val, without which Ultralytics does not train; "
    assert message + "found train" in capsys.readouterr().err
    run(root, "--to", "coco", "--out", tmp_path / "coco", "--splits", "train")
    assert "Ultralytics" not in capsys.readouterr().err


@pytest.mark.parametrize("to", TARGETS)
def test_a_run_that_fails_leaves_nothing(source, tmp_path, monkeypatch, to):
    root = source("csv")
    before = files_below(tmp_path)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(writing, "place", fail)
    monkeypatch.setattr(tfrecord, "_serialized", fail)
    with pytest.raises(OSError, match="disk full"):
        run(root, "--to", to, "--out", tmp_path / "out")
    assert files_below(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [root.name]


def test_defects_stop_or_are_listed(source, tmp_path, capsys):
    root = source("csv")
    lines = (root / "val.csv").read_text() + "images/val0.png,5,5,5,9,dog\n" * 30
    (root / "val.csv").write_text(lines)
    remedy = r"\(--on-bad-annotation drop leaves such things out, counted\)$"
    message = r"val\.csv, line 3.*expected a box with x1 < x2.* "
    with pytest.raises(ValueError, match=message + remedy):
        run(root, "--to", "voc", "--out", tmp_path / "out")
    run(root, "--to", "voc", "--out", tmp_path / "out", "--on-bad-annotation", "drop")
    told = capsys.readouterr().err
    assert "30 x empty or inverted box" in told
    assert told.count("val.csv, line") == 20
    assert "and 10 more" in told
    assert len(read_voc(tmp_path / "out", "val").labels) == 2


def test_no_remedy_is_named_for_a_file_that_is_not_there(crowd, tmp_path):
    with pytest.raises(ValueError, match=r"expected annotation_x\.odgt .*_val\.odgt$"):
        run(crowd, "--to", "voc", "--out", tmp_path / "out", "--splits", "x")


def test_help_has_no_letters(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert "--on-bad-annotation drop" in told
    assert "Letters" not in told


def test_the_summary_counts(source, tmp_path, capsys):
    run(source("yolo"), "--to", "voc", "--out", tmp_path / "out")
    rows = [line.split() for line in capsys.readouterr().err.splitlines() if "│" in line]
    counts = [[cell for cell in row if cell != "│"] for row in rows]
    assert counts == [["train", "4", "1", "3", "0", "0"], ["val", "2", "0", "2", "0", "0"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected SOURCE"),
        (["x"], "expected --to and --out"),
        (["x", "--to", "voc"], "expected --to and --out"),
        (["x", "--to", "voc", "--out", "y", "--seed", "1"], "--seed is of --split-fractions"),
        (["--names", "a,b"], "--names and --make-class-file go together"),
        (["x", "--names", "a", "--make-class-file", "y"], "it takes --names alone"),
        (["x", "--make-class-map", "y", "--out", "z"], "it takes SOURCE, --from and --splits"),
        (["x", "--make-class-file", "y"], "--names and --make-class-file go together"),
        (["x", "--to", "crowdhuman", "--out", "y"], "invalid choice: 'crowdhuman'"),
        (["x", "--split-fractions", "train"], "expected NAME=SHARE, found 'train'"),
        (["x", "--split-fractions", "a/b=.5"], "expected NAME=SHARE, found 'a/b=.5'"),
        (["x", "--split-fractions", "..=1"], "expected NAME=SHARE, found '..=1'"),
        (["x", "--split-fractions", "a=much"], "expected NAME=SHARE, found 'a=much'"),
        (["x", "--classes", "a", "--class-map", "b"], "not allowed with argument"),
        (["x", "--to", "tfrecord", "--out", "y", "--images", "none"], "lie in its own files"),
    ],
)
def test_options_that_do_not_go_together(words, message, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err


def test_options_of_other_formats(source, tmp_path):
    words = (source("voc"), "--to", "csv", "--out", tmp_path / "out")
    with pytest.raises(ValueError, match=r"--person-box: is for crowdhuman; .* is voc"):
        run(*words, "--person-box", "full")


def test_a_clipped_box_keeps_the_area_of_its_outline():
    """It becomes the box's only where that is smaller."""
    dataset = assemble(
        "set/val", ["x"], images=["a.jpg"], image_ids=["a"], sizes=[[40, 30]],
        image_index=[0, 0, 0], boxes=[[-1, 0, 20, 10], [-1, 0, 20, 10], [0, 0, 4, 4]],
        labels=[0, 0, 0], areas=[70, 210, 900], defects=Defects(),
    )  # fmt: skip
    kept, losses = keep_inside({"val": dataset})
    np.testing.assert_array_equal(kept["val"].areas, [70, 200, 900])
    assert losses == ["val: 2 boxes reach beyond the image: clipped"]
