"""The doctor on a clean set with one defect planted in it, on real sets, and as a command."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import configs
from configs import ConfigError
from configs.schema import Phase
from data import check
from data.datasets import class_names, read_split
from data.doctor.figures import split_figures
from data.images.resize import at_input_size
from data.pipeline import steps_per_epoch

pytestmark = pytest.mark.full

CONFIG = Path(__file__).parents[2] / "configs" / "voc.py"
W, H = 64, 48
TRAIN, VAL = [f"t{i:02d}" for i in range(12)], [f"v{i:02d}" for i in range(3)]
SAME, BESIDE = "train and val are the same split", "images that no split names"
STRAY = "image without annotation"
BOX = (11, 11, 40, 40)  # VOC corners: 30x30 px


def obj(name="cat", box=BOX, order=("xmin", "ymin", "xmax", "ymax"), extra=""):
    values = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    corners = "".join(f"<{corner}>{values[corner]}</{corner}>" for corner in order)
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def xml(stem, *objects, size=(W, H), extra=""):
    size = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return (
        f"<annotation><filename>{stem}.jpg</filename>{extra}{size}{''.join(objects)}</annotation>"
    )


def pixels(seed):
    """(H, W, 3) uint8: large squares of random colours."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return colours.repeat(8, axis=0).repeat(8, axis=1)


@pytest.fixture(scope="module")
def clean_set(tmp_path_factory):
    """15 images in a VOC tree; each has a cat and a dog and nothing wrong with it."""
    root = tmp_path_factory.mktemp("clean")
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for seed, stem in enumerate([*TRAIN, *VAL]):
        Image.fromarray(pixels(seed)).save(root / "JPEGImages" / f"{stem}.jpg", quality=95)
        objects = obj("cat"), obj("dog", (3, 5, 20, 44))
        (root / "Annotations" / f"{stem}.xml").write_text(xml(stem, *objects))
    (root / "ImageSets/Main/train.txt").write_text("\n".join(TRAIN))
    (root / "ImageSets/Main/val.txt").write_text("\n".join(VAL))
    return root


@pytest.fixture
def root(clean_set, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(clean_set, tmp_path / "set"))


def image(root, stem):
    return root / "JPEGImages" / f"{stem}.jpg"


def annotation(root, stem):
    return root / "Annotations" / f"{stem}.xml"


def annotate(root, stem, *objects, **options):
    annotation(root, stem).write_text(xml(stem, *objects, **options))


def config_of(root, **data):
    config = configs.load(CONFIG)
    fields = {"root": str(root), "train": "train", "val": "val"} | data
    changes = {f"data.{name}": value for name, value in fields.items()}
    return configs.override(config, changes | {"train.batch_size": 4})


def examined_with_bits(config, decode):
    datasets = check.read(config)
    figures = {
        split: split_figures(dataset, config.model.resize) for split, dataset in datasets.items()
    }
    return check.examine(config, datasets, figures, decode)


def examined(config, decode=True):
    return examined_with_bits(config, decode)[0]


def would_train(config):
    """Whether the readers let training begin, by asking them."""
    try:
        classes = class_names(config.data)
        read_split(config.data, config.data.val, classes)
        train = read_split(config.data, config.data.train, classes)
        for phase in config.train.all_phases():
            steps_per_epoch(train, config.data, phase.batch_size)
    except ValueError:
        return False
    return True


# ------------------------------------------------------------------------------------------------
# One defect each
# ------------------------------------------------------------------------------------------------


def plant_object(*args, **options):
    """One more object in t03."""
    return lambda root: annotate(root, "t03", obj("dog", (3, 5, 20, 44)), obj(*args, **options))


def plant_pair(name, box):
    return lambda root: annotate(root, "t03", obj("cat"), obj(name, box))


def plant_png(mode, name="t03.png"):
    def plant(root):
        picture = Image.fromarray(pixels(3))
        if mode:
            picture = picture.convert(mode)
        image(root, "t03").unlink()
        picture.save(root / "JPEGImages" / name, format="PNG")

    return plant


def plant_grey_jpeg(root):
    Image.fromarray(pixels(3)).convert("L").save(image(root, "t03"))


def plant_orientation(value):
    def plant(root):
        exif = Image.Exif()
        exif[274] = value
        Image.fromarray(pixels(3)).save(image(root, "t03"), exif=exif, quality=95)

    return plant


def plant_truncated(root):
    image(root, "t03").write_bytes(image(root, "t03").read_bytes()[:-200])


def plant_path(root):
    extra = r"<path>C:\Users\me\pictures\IMG_1.jpg</path>"
    annotate(root, "t03", obj("cat"), extra=extra)


def plant_filename(root):
    text = annotation(root, "t03").read_text()
    annotation(root, "t03").write_text(text.replace("t03.jpg", "gone.jpg"))


def plant_same_image(first, second):
    def plant(root):
        shutil.copy(image(root, first), image(root, second))

    return plant


def plant_same_image_other_boxes(root):
    plant_same_image("t02", "t03")(root)
    annotate(root, "t03", obj("dog", (21, 3, 60, 20)))


def plant_nearly_same_image(root):
    Image.open(image(root, "t02")).save(image(root, "v00"), quality=75)


def plant_readme(root):
    (root / "Annotations" / "README.txt").write_text("Labelled in 2019")


def plant_unlisted_image(root):
    shutil.copy(image(root, "t03"), image(root, "extra"))


def plant_unlisted_annotation(root):
    annotate(root, "extra", obj("cat"))


def plant_odd_name(root):
    for name in ("my photo #1 = a.jpg",):
        image(root, "t03").rename(root / "JPEGImages" / name)
        annotation(root, "t03").unlink()
        annotate(root, name.removesuffix(".jpg"), obj("cat"))
        listing = root / "ImageSets/Main/train.txt"
        listing.write_text(listing.read_text().replace("t03", name.removesuffix(".jpg")))


OTHER_ORDER = ("ymax", "xmin", "ymin", "xmax")
XML, JPG = "Annotations/t03.xml", "JPEGImages/t03.jpg"
PLANTS = {
    "a box without width": (plant_object("cat", (9, 9, 9, 30)), "empty or inverted box", XML),
    "an inverted box": (plant_object("cat", (30, 9, 9, 30)), "empty or inverted box", XML),
    "a row of zeros": (plant_object("cat", (0, 0, 0, 0)), "empty or inverted box", XML),
    "xmax = width + 1": (plant_object("cat", (30, 9, W + 1, 30)), "box clipped to the image", XML),
    "a corner at 0": (plant_object("cat", (0, 9, 30, 30)), "corner counted from 0, clipped", XML),
    "a box far outside": (plant_object("cat", (30, 9, 90, 30)), "box outside the image", XML),
    "a box drawn twice": (plant_pair("cat", BOX), "duplicate box", JPG),
    "a box nearly twice": (plant_pair("cat", (12, 11, 41, 40)), "near-duplicate box", JPG),
    "a box in two classes": (plant_pair("dog", BOX), "same box in two classes", JPG),
    "a box of 1 px": (plant_object("cat", (9, 9, 9.5, 9.5)), "tiny box", JPG),
    "a box of 3 px": (plant_object("cat", (9, 9, 11, 40)), "tiny box", JPG),
    "a box of everything": (plant_object("cat", (1, 1, W, H)), "box covers the image", JPG),
    "a size of 0x0": (
        lambda root: annotate(root, "t03", obj(), size=(0, 0)),
        "size not filled in",
        XML,
    ),
    "another size": (
        lambda root: annotate(root, "t03", obj(), size=(W, H + 1)),
        "size disagrees with the image",
        XML,
    ),
    "a PNG named .jpg": (plant_png(None, "t03.jpg"), "mislabelled image file", JPG),
    "alpha": (plant_png("RGBA"), "not plain RGB", "JPEGImages/t03.png"),
    "a palette": (plant_png("P"), "not plain RGB", "JPEGImages/t03.png"),
    "grey": (plant_grey_jpeg, "not plain RGB", JPG),
    "an orientation drawn without": (plant_orientation(6), "size disagrees with the image", XML),
    "an orientation of the same sides": (plant_orientation(3), "EXIF orientation", JPG),
    "a truncated image": (plant_truncated, "unreadable image", JPG),
    "a header cut off": (
        lambda root: image(root, "t03").write_bytes(b"\xff\xd8\xff"),
        "unreadable image",
        JPG,
    ),
    "<filename> of another": (plant_filename, "another file is named", XML),
    "<path> of another": (plant_path, "another file is named", XML),
    "no annotation": (lambda root: annotation(root, "t03").unlink(), "missing annotation", XML),
    "no image": (lambda root: image(root, "t03").unlink(), "missing image", XML),
    "an image of no annotation": (
        plant_unlisted_image,
        "image without annotation",
        "JPEGImages/extra.jpg",
    ),
    "an annotation of no image": (
        plant_unlisted_annotation,
        "annotation without image",
        "Annotations/extra.xml",
    ),
    "a README": (plant_readme, "stray file", "Annotations/README.txt"),
    "an unlabelled object": (plant_object(""), "missing name", XML),
    "the same image again": (plant_same_image("t02", "t03"), "identical images", JPG),
    "the same image, other boxes": (
        plant_same_image_other_boxes,
        "identical images, different boxes",
        JPG,
    ),
    "an image of train in val": (
        plant_same_image("t02", "v00"),
        "image in train and val",
        "JPEGImages/v00.jpg",
    ),
    "nearly an image of train in val": (
        plant_nearly_same_image,
        "near-identical image in train and val",
        "JPEGImages/v00.jpg",
    ),
}
HARMLESS = {
    "nothing": lambda root: None,
    "corners in another order": plant_object("cat", BOX, OTHER_ORDER),
    "an empty <difficult>": plant_object("cat", BOX, extra="<difficult></difficult>"),
    "an image without objects": lambda root: annotate(root, "t03"),
    "a name of blanks, # and =": plant_odd_name,
}


@pytest.mark.parametrize("name", PLANTS)
def test_finds_what_was_planted_and_nothing_else(root, name):
    plant, kind, file = PLANTS[name]
    plant(root)
    found = examined(config_of(root))
    assert [(finding.kind, finding.file) for finding in found] == [(kind, str(root / file))]
    assert str(root / file) in found[0].message
    strict = config_of(root, on_bad_annotation="error")
    stops = any(finding.stops for finding in examined(strict))
    assert stops == (not would_train(strict) or name == "a truncated image")
    assert (found[0].severity == "error") == stops


@pytest.mark.parametrize("name", HARMLESS)
def test_finds_nothing_where_nothing_is_wrong(root, name):
    HARMLESS[name](root)
    config = config_of(root)
    assert examined(config) == []
    train = check.read(config)["train"]
    assert len(train) == len(TRAIN)
    if name != "an image without objects":
        assert [10, 10, 40, 40] in train.boxes[train.rows(3)].tolist()


def test_what_is_dropped_is_accepted_but_not_pixels(root):
    """Under "drop" a reader's rejection stops nothing; an image that fails in training does."""
    plant_object("cat", (9, 9, 9, 30))(root)
    config = config_of(root, on_bad_annotation="drop")
    assert [(f.severity, f.stops) for f in examined(config)] == [("error", False)]
    plant_truncated(root)
    assert [f.kind for f in examined(config) if f.stops] == ["unreadable image"]
    undecoded = {f.kind: f.severity for f in examined(config, decode=False)}
    assert undecoded == {"empty or inverted box": "error", "JPEG without its end marker": "note"}


def test_unknown_classes_and_those_of_val_only(root):
    annotate(root, "v00", obj("cow"))
    assert {finding.kind for finding in examined(config_of(root))} == {"class in val only"}
    found = examined(config_of(root, classes=("cat", "dog")))
    assert [(f.kind, f.split, f.object) for f in found] == [
        ("unknown class", "val", "object 1 ('cow')")
    ]


def test_the_same_file_in_both_splits_needs_no_decoding(root):
    (root / "ImageSets/Main/val.txt").write_text("v00\nt05")
    (found,) = examined(config_of(root), decode=False)
    assert (found.kind, found.file) == ("image in train and val", str(image(root, "t05")))
    assert [finding.kind for finding in examined(config_of(root))] == [found.kind]


def test_one_split_for_both_is_read_once_and_said(root):
    config = config_of(root, val="train")
    assert list(check.read(config)) == ["train"]
    (found,) = examined(config)
    assert (found.kind, found.severity, found.stops) == (SAME, "warning", False)


@pytest.mark.parametrize("decode", [True, False])
def test_one_split_under_two_names_is_no_leak_of_each_image(root, decode):
    listing = root / "ImageSets/Main/train.txt"
    (root / "ImageSets/Main/again.txt").write_text("\n".join(reversed(listing.read_text().split())))
    found = examined(config_of(root, val="again"), decode)
    assert [finding.kind for finding in found if finding.kind != STRAY] == [SAME]
    (root / "ImageSets/Main/again.txt").write_text("\n".join(TRAIN[1:]))
    found = examined(config_of(root, val="again"), decode)
    assert {f.kind for f in found if f.kind != STRAY} == {"image in train and val"}


@pytest.mark.parametrize(
    ("sizes", "stopped"), [((12,), []), ((13,), [13]), ((4, None, 20, 20), [13, 20])]
)
def test_fewer_images_than_a_batch_stop(clean_set, sizes, stopped):
    """By the rule of training, for every phase; 13 is what a phase inherits."""
    changes = {"batch_size": sizes[0]}
    if len(sizes) > 1:
        phases = tuple(Phase(epochs=1, batch_size=size) for size in sizes)
        changes = {"batch_size": 13, "epochs": None, "phases": phases}
    config = config_of(clean_set)
    config = replace(config, train=replace(config.train, **changes))
    found = examined(config, decode=False)
    assert [(f.kind, f.severity, f.stops) for f in found] == [
        ("fewer images than a batch", "error", True)
    ] * len(stopped)
    for finding, size in zip(found, stopped, strict=True):
        assert "train.batch_size: expected at most the 12 images" in finding.message
        assert finding.message.endswith(f"found {size}")
    assert would_train(config) == (not stopped)


@pytest.mark.parametrize("with_difficult", [True, False])
def test_nothing_to_learn_stops(root, with_difficult):
    """Difficult objects alone are something only where they are trained on."""
    for stem in TRAIN:
        annotate(root, stem, obj(extra="<difficult>1</difficult>"))
    config = config_of(root, train_on_difficult=with_difficult, classes=("cat", "dog"))
    stops = [(f.kind, f.severity) for f in examined(config, decode=False) if f.stops]
    assert stops == ([] if with_difficult else [("nothing to learn in train", "error")])
    for stem in TRAIN:
        annotate(root, stem)
    stops = [f.kind for f in examined(config, decode=False) if f.stops]
    assert stops == ["nothing to learn in train"]


def test_a_csv_row_of_zeros(clean_set, tmp_path):
    """Written by some tools for an image without objects, and read as that."""
    header = "filename,width,height,class,xmin,ymin,xmax,ymax"
    for split, stems in (("train", TRAIN), ("val", VAL)):
        rows = [f"{stem}.jpg,{W},{H},cat,10,10,40,40" for stem in stems]
        (tmp_path / f"{split}.csv").write_text("\n".join([header, *rows]))
    images = (str(clean_set / "JPEGImages"),)
    config = config_of(tmp_path, format="csv", train="train.csv", val="val.csv", images=images)
    assert examined(config) == []
    path = tmp_path / "train.csv"
    path.write_text(path.read_text().replace("10,10,40,40", "0,0,0,0", 1))
    (found,) = examined(config)
    assert (found.kind, found.severity) == ("zero box taken as no object", "note")
    assert (found.file, found.object, found.stops) == (str(path), "line 2 ('cat')", False)
    assert len(check.read(config)["train"]) == len(TRAIN)


def csv_set(images, folder, *stems):
    """A CSV of one cat in each image, for train and val; images: the folder they lie in."""
    rows = [f"{stem}.jpg,10,10,40,40,cat" for stem in stems]
    (folder / "all.csv").write_text("\n".join(["filename,xmin,ymin,xmax,ymax,class", *rows]))
    return config_of(folder, format="csv", train="all.csv", val="all.csv", images=(str(images),))


def test_images_that_no_split_names_are_one_note(clean_set, tmp_path):
    images = clean_set / "JPEGImages"
    config = csv_set(images, tmp_path, *TRAIN)
    (found,) = [f for f in examined(config, decode=False) if f.kind != SAME]
    assert (found.kind, found.severity, found.file) == (
        "images that no split names",
        "note",
        str(images),
    )
    assert found.message == (f"{images}: 3 images beside those of train: v00.jpg, v01.jpg, v02.jpg")
    (found,) = [
        f for f in examined(csv_set(images, tmp_path, *VAL, *TRAIN[:4])) if f.kind == BESIDE
    ]
    assert found.message.endswith("t04.jpg, t05.jpg, t06.jpg, t07.jpg, t08.jpg and 3 more")
    config = replace(config, data=replace(config.data, limit=5))
    assert BESIDE not in {f.kind for f in examined(config, decode=False)}, "left out by limit"


def test_a_finding_of_an_image_names_it_for_all_kinds(root):
    """What the reader says of an XML and what shows in the boxes can be grouped."""
    box = (30, 9, W + 1, 30)
    annotate(root, "t03", obj("cat", box), obj("cat", box), obj("dog", (9, 9, 9, 30)))
    found = examined(config_of(root))
    assert {f.kind for f in found} == {
        "box clipped to the image", "duplicate box", "empty or inverted box"
    }  # fmt: skip
    assert {f.to_dict()["image"] for f in found} == {str(image(root, "t03"))}


# ------------------------------------------------------------------------------------------------
# Anchors
# ------------------------------------------------------------------------------------------------


def test_anchors_are_proposed_where_they_cover_more(root):
    for stem in TRAIN:
        annotate(root, stem, obj("cat", (5, 5, 8, 8)), obj("dog", (29, 21, 32, 24)))
    config = config_of(root)
    config = configs.override(
        config, {"model.resize": "canvas", "model.resize.height": 96, "model.resize.width": 128}
    )
    train = check.read(config)["train"]
    np.testing.assert_array_equal(at_input_size(train, config.model.resize)[0][0], [8, 8, 16, 16])
    found = check.examine_anchors(config, train)
    assert found["coverage"]["share"] == 0.0
    assert found["proposed"]["coverage"]["share"] == 1.0
    pasted = eval("{" + found["proposed"]["snippet"] + "}")
    again = check.examine_anchors(configs.override(config, pasted), train)
    assert again["coverage"] == found["proposed"]["coverage"]
    assert again["proposed"] is None, "what was proposed is fine"
    by_atss = configs.override(config, {"matcher": "atss"})
    assert check.examine_anchors(by_atss, train) == found, "anchors are fitted to IoU .5"


# ------------------------------------------------------------------------------------------------
# The command
# ------------------------------------------------------------------------------------------------


def run(root, out, *options):
    settings = [f"data.root={root}", "data.train=train", "data.val=val", "train.batch_size=4"]
    settings.append(f"output={out.parent / 'runs'}")
    place = [] if "--anchors" in options else ["--out", str(out)]
    return check.main(["--config", str(CONFIG), *place, *options, "--set", *settings])


def test_a_clean_set_is_accepted(clean_set, tmp_path, capsys):
    assert run(clean_set, tmp_path / "out") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "check: 12 + 3 images, 24 + 6 objects; 0 errors, 0 warnings, 0 notes; "
        "training accepts the data"
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["headline"], report["accepted"], report["findings"]) == (last, True, [])
    assert set(report) == {
        "headline", "accepted", "name", "data", "classes", "severities", "splits", "anchors",
        "findings",
    }  # fmt: skip
    assert report["splits"]["train"]["classes"][1] == {
        "name": "dog",
        "objects": 12,
        "images": 12,
        "share": 0.5,
    }


def test_a_spoilt_set_is_not_and_the_page_shows_why(root, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(root, out) == 0
    plant_pair("cat", BOX)(root)
    annotate(root, "t04", obj("cat"), obj("&lt;b&gt;&amp;", (9, 9, 9, 30)))
    assert run(root, out) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("training would not accept the data: empty or inverted box (1)")
    assert "2 warnings" in last, "the class <b>& has no object left"
    report = json.loads((out / "report.json").read_text())
    assert (report["accepted"], report["severities"]["error"]) == (False, 1)
    (error,) = [finding for finding in report["findings"] if finding["severity"] == "error"]
    assert error["file"] == str(annotation(root, "t04"))
    page = (out / "report.html").read_text()
    assert last.replace("<", "&lt;") in page
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page
    assert page.count("data:image/jpeg;base64,") == 3, "a finding and two sheets of samples"
    assert 'src="data:' in page
    assert "http" not in page.replace("http-equiv", ""), "self-contained"


def test_drop_accepts_what_error_does_not(root, tmp_path, capsys):
    plant_object("cat", (9, 9, 9, 30))(root)
    assert run(root, tmp_path, "--no-pixels") == 1
    assert run(root, tmp_path, "--no-pixels", "--set", "data.on_bad_annotation=drop") == 0
    assert "1 errors" in capsys.readouterr().out.splitlines()[-1]


def test_a_set_that_cannot_be_read_is_not_accepted(root, tmp_path, capsys):
    assert run(root / "gone", tmp_path / "out") == 1
    assert "gone: no such folder" in capsys.readouterr().out.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_set_without_its_images_says_where_they_were_looked_for(tmp_path, capsys):
    csv_set(tmp_path / "pictures", tmp_path, "a", "b", "c")
    options = ["data.format=csv", "data.train=all.csv", "data.val=all.csv"]
    settings = [f"data.root={tmp_path}", f"data.images={tmp_path / 'pictures'}", *options]
    assert check.main(["--config", str(CONFIG), "--out", str(tmp_path / "o"), "--set", *settings])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("check: training would not accept the data: ")
    assert "no images left to read" in last
    assert "missing image" in last
    assert "a.jpg" in last
    assert str(tmp_path / "pictures") in last
    assert last.endswith("; no report")
    assert not (tmp_path / "o").exists()


def test_anchors_alone_write_nothing(clean_set, tmp_path, capsys):
    assert run(clean_set, tmp_path / "out", "--anchors") == 0
    present, proposed = capsys.readouterr().out.splitlines()[-2:]
    assert present.startswith("present: anchor coverage at IoU 0.5: ")
    assert proposed == "proposed: no other anchors"
    assert not (tmp_path / "runs").exists()
    assert run(clean_set / "gone", tmp_path / "out", "--anchors") == 1


def test_anchors_alone_say_whose_coverage_it_is(root, tmp_path, capsys):
    for stem in TRAIN:
        annotate(root, stem, obj("cat", (5, 5, 8, 8)), obj("dog", (29, 21, 32, 24)))
    resize = ["model.resize=canvas", "model.resize.height=96", "model.resize.width=128"]
    assert run(root, tmp_path / "out", "--anchors", "--set", *resize) == 0
    present, proposed = capsys.readouterr().out.splitlines()[-2:]
    assert present.startswith("present: anchor coverage at IoU 0.5: 0.0% ")
    assert proposed.startswith("proposed: anchor coverage at IoU 0.5: 100.0% ")


def test_usage_and_config_errors(tmp_path):
    with pytest.raises(SystemExit) as caught:
        check.main(["--unknown"])
    assert caught.value.code == 2
    with pytest.raises(ConfigError, match="no such config file"):
        check.main(["--config", str(tmp_path / "none.py")])


# ------------------------------------------------------------------------------------------------
# Real sets
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bccds_own_defects(shared_data):
    config = config_of(shared_data / "bccd", train="trainval", val="test")
    found = examined(config, decode=False)
    expected = {f"BloodImage_{n}": "empty or inverted box" for n in ("00338", "00343")}
    twice = ("00020", "00100", "00104", "00251", "00284", "00331", "00403")
    expected |= {f"BloodImage_{n}": "near-duplicate box" for n in twice}
    assert {Path(finding.file).stem: finding.kind for finding in found} == expected
    assert len(found) == 9


@pytest.mark.slow
def test_bccds_one_field_of_view_in_two_splits(shared_data):
    """BloodImage_00037 and _00038 are one smear, refocused: one is in val, the other in train."""
    found = examined(config_of(shared_data / "bccd"))
    leaks = [finding for finding in found if "train and val" in finding.kind]
    (leak,) = leaks
    assert leak.kind == "near-identical image in train and val"
    assert Path(leak.file).stem == "BloodImage_00037"
    assert "BloodImage_00038.jpg" in leak.message


def test_nothing_is_wrong_with_the_microcontrollers(shared_data):
    config = config_of(shared_data / "microcontroller", train="train/all", val="test/all")
    assert examined(config) == []


def test_plates_are_pngs_named_jpg(shared_data):
    config = config_of(shared_data / "plates", train="all", val="all")
    found = examined(config)
    remarks = {(f.kind, f.severity) for f in found if f.file.endswith(".jpg")}
    assert {("mislabelled image file", "note"), ("not plain RGB", "note")} <= remarks
    assert not any(finding.stops for finding in found)


def test_names_in_brackets_are_no_markup(tmp_path):
    """In rich's tables "[/raw]" would raise."""
    (tmp_path / "[/raw]").mkdir(parents=True)
    Image.new("RGB", (W, H)).save(tmp_path / "[/raw]" / "a.png")
    (tmp_path / "all.csv").write_text("[/raw]/a.png,1,2,30,25,[/x]\n[/raw]/b.png,1,2,9,9,[/x]\n")
    config = CONFIG.parent / "boxes_csv.py"
    arguments = ["--config", str(config), "--out", str(tmp_path / "out"), "--set"]
    given = {"root": tmp_path, "train": "all.csv", "val": "all.csv", "on_bad_annotation": "drop"}
    settings = [f"data.{name}={value}" for name, value in given.items()]
    assert check.main([*arguments, *settings, "train.batch_size=1"]) == 0
    assert (tmp_path / "out" / "report.html").is_file()


# ------------------------------------------------------------------------------------------------
# Bits in use, limits of detection
# ------------------------------------------------------------------------------------------------


def to_bits(root, stems, bits):
    """Images of so many bits a value in the place of those there; 0 and the largest are in it."""
    for number, stem in enumerate(stems):
        values = np.random.default_rng(number).integers(0, 2**bits, (H, W), np.uint16)
        values[0, :2] = 0, 2**bits - 1
        image(root, stem).unlink()
        Image.fromarray(values).save(root / "JPEGImages" / f"{stem}.png")


def told(config, *kinds):
    findings, bits = examined_with_bits(config, True)
    return bits, [(f.severity, f.split, f.message) for f in findings if f.kind in kinds]


OF_BITS = ("16-bit images", "images of 8 and of 16 bits", "other bits than are read")


def test_bits_in_use_are_said(root):
    to_bits(root, TRAIN, 12)
    to_bits(root, VAL, 12)
    text = "16-bit images: {0} of {0}, values up to 4095: 12 bits in use"
    expected = [
        ("note", split, f"set/{split}: {text.format(count)}")
        for split, count in (("train", len(TRAIN)), ("val", len(VAL)))
    ]
    assert told(config_of(root), *OF_BITS) == (12, expected)
    fewer = configs.override(config_of(root), {"model.bits": 10})
    bits, found = told(fewer, OF_BITS[2])
    assert bits == 10
    text = "uses 12 bits but is read as 10 (model.bits), so values above 1023 become white"
    assert [message for _, _, message in found] == [
        f"set/{split}: {text}; check the cameras" for split in ("train", "val")
    ]
    more = configs.override(config_of(root), {"model.bits": 14})
    assert {message.split(": ", 1)[1] for _, _, message in told(more, OF_BITS[2])[1]} == {
        "uses 12 bits but is read as 14 (model.bits), so it will look darker; check the cameras"
    }


def test_mixed_bits_are_a_warning(root):
    to_bits(root, TRAIN[:4], 12)
    bits, found = told(config_of(root), *OF_BITS[1:])
    assert bits == 12
    assert [(severity, split) for severity, split, _ in found] == [
        ("warning", "train"), ("warning", "val")
    ]  # fmt: skip
    assert "set/train: 4 images have 16 bits a value and 8 have 8" in found[0][2]
    assert "set/val: all files have 8 bits, while 16-bit images are read as 12" in found[1][2]
    _, notes = told(config_of(root), "not plain RGB")
    assert [text.split(": ", 1)[1] for _, _, text in notes] == [
        "16 bits a value: the highest 8 of the bits in use are kept"
    ] * 4


def test_sets_of_8_bits_have_no_word_on_bits(root):
    assert told(config_of(root), *OF_BITS) == (None, [])


def test_more_objects_than_detections_are_kept(root):
    annotate(root, "t03", *[obj() for _ in range(5)])
    config = configs.override(config_of(root), {"model.detect.max_detections": 4})
    _, found = told(config, "more objects than max_detections")
    assert found == [
        (
            "warning",
            "train",
            "set/train: 1 of 12 images holds more than model.detect.max_detections=4 objects, "
            "up to 5: set model.detect.max_detections=10; model.detect.top_k=1000 is enough",
        )
    ]
