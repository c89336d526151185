"""The preview: pixels and objects of training's batches, in their order, and what is refused."""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import configs
from configs.schema import Augment, Canvas, Data, Mixing, Phase
from data import preview
from data.datasets import class_names, read_split
from data.formats.shapes import make_shapes
from data.pipeline import training_batches
from data.records import DatasetError
from utils.boxes import IGNORE, PADDING
from utils.draw import class_colors, draw_boxes

pytestmark = pytest.mark.full

CONFIG = Path(__file__).parents[2] / "configs" / "voc.py"
NUM_IMAGES, BATCH = 10, 4
SIZE = (240, 320)
RULE = Canvas(*SIZE)
AUGMENT = Augment(flip=0.5, zoom=(0.8, 1.4), blur=0.3, cutout=0.5)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("data") / "shapes", NUM_IMAGES, 2, (96, 128), seed=3)


@pytest.fixture
def arguments(root, tmp_path):
    settings = {
        "output": tmp_path / "out",
        "data.root": root,
        "data.train": "train",
        "data.val": "val",
        "data.augment.blur": 0.3,
        "data.augment.cutout": 0.5,
        "data.mixing.mosaic": 0.3,
        "data.mixing.mixup": 0.3,
        "model.resize": "canvas",
        "model.resize.height": RULE.height,
        "model.resize.width": RULE.width,
        "train.batch_size": BATCH,
        "train.epochs": 3,
        "train.seed": 5,
    }
    return ["--config", str(CONFIG), "--set", *(f"{k}={v}" for k, v in settings.items())]


@pytest.fixture
def config(root):
    config = configs.load(CONFIG)
    data = Data(root=str(root), augment=AUGMENT)
    train = replace(config.train, batch_size=BATCH, epochs=3, seed=5)
    return replace(config, data=data, train=train, model=replace(config.model, resize=RULE))


@pytest.fixture
def dataset(config):
    return read_split(config.data, "train", class_names(config.data))


def rows(batches):
    """Batches taken apart."""
    for batch in batches.as_numpy_iterator():
        for row in range(len(batch["index"])):
            yield {name: array[row] for name, array in batch.items()}


def seen(config, dataset, epochs, **changes):
    """What a training sees, called as train.py does."""
    settings = {"batch_size": BATCH, "seed": 5, "num_epochs": 3} | changes
    data, rule = settings.pop("data", config.data), config.model.resize
    return list(rows(training_batches(dataset, data, rule, epochs=epochs, **settings)))


def same(a, b):
    return len(a) == len(b) and all(
        np.array_equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x
    )


def cells(path, columns, count, size):
    """The pictures on a sheet of pictures of (height, width) `size`, in order."""
    picture = np.asarray(Image.open(path).convert("RGB"))
    gap, num_rows = max(2, min(size) // 40), -(-count // columns)
    assert picture.shape[1] == columns * (size[1] + gap) + gap
    pitch = (len(picture) - gap) // num_rows
    for cell in range(count):
        y, x = gap + cell // columns * pitch, gap + cell % columns * (size[1] + gap)
        yield picture[y : y + size[0], x : x + size[1]]


def away_from(boxes, height, width):
    """(height, width) bool: where neither a frame nor a caption reaches."""
    is_away = np.ones([height, width], bool)
    for x1, y1, x2, y2 in np.round(boxes).astype(int):
        is_away[max(y1 - 20, 0) : y2 + 20, max(min(x1, width - 110) - 5, 0) : x1 + 110] = False
        is_away[max(y1 - 5, 0) : y2 + 5, max(x1 - 5, 0) : x2 + 5] = False
    return is_away


# ------------------------------------------------------------------------------------------------
# What training sees
# ------------------------------------------------------------------------------------------------


def test_the_sheet_shows_the_first_samples_of_an_epoch_of_training(arguments, dataset, tmp_path):
    out = preview.main([*arguments, "--epoch", "1", "--count", "6", "--columns", "3"])
    assert out == tmp_path / "out" / "preview.png"
    config = configs.load(CONFIG, arguments[3:])
    expected = seen(config, dataset, range(1, 2))[:6]
    num_away = 0
    for cell, sample in zip(cells(out, 3, 6, SIZE), expected, strict=True):
        is_away = away_from(sample["boxes"][sample["labels"] != PADDING], *SIZE)
        np.testing.assert_array_equal(cell[is_away], sample["images"][is_away])
        assert (cell != sample["images"]).any() or is_away.all(), "objects are framed"
        num_away += is_away.sum()
    assert num_away > 10000, "something was compared"
    assert len({sample["images"].tobytes() for sample in expected}) == 6
    assert any((sample["weights"] % 1).any() for sample in expected), "one is mixed"


def test_samples_are_those_of_train_py(config, dataset):
    """10 images are two batches of 4 an epoch."""
    trained = seen(config, dataset, range(3))
    for epoch in range(3):
        found = list(preview.training_samples(config, dataset, epoch))
        assert same(found, trained[8 * epoch : 8 * (epoch + 1)])


def test_the_batch_size_is_that_of_the_phase(config, dataset):
    """It decides how many samples an epoch has."""
    phases = (Phase(epochs=1, batch_size=3), Phase(epochs=2, batch_size=5))
    config = replace(config, train=replace(config.train, epochs=None, phases=phases))
    for epoch, batch_size in ((0, 3), (1, 5), (2, 5)):
        found = list(preview.training_samples(config, dataset, epoch))
        assert same(found, seen(config, dataset, range(epoch, epoch + 1), batch_size=batch_size))


def test_closing_epochs_are_not_mixed(config, dataset):
    mixing = Mixing(mosaic=1.0, closing_epochs=1)
    config = replace(config, data=replace(config.data, mixing=mixing))
    plain = replace(config.data, mixing=Mixing())
    last = list(preview.training_samples(config, dataset, 2))
    assert same(last, seen(config, dataset, range(2, 3), data=plain))
    assert not same(list(preview.training_samples(config, dataset, 1)), last)


def test_more_samples_than_there_are(arguments):
    """Two batches of four, and the epoch ends."""
    out = preview.main([*arguments, "--count", "50"])
    assert len(list(cells(out, 4, 8, SIZE))) == 8


def test_the_validation_split_need_not_be_there(arguments):
    assert preview.main([*arguments, "--count", "1", "--set", "data.val=nowhere"]).is_file()


def test_an_input_size_left_open_is_that_of_the_weights(arguments, monkeypatch, tmp_path):
    """As in train.py; open_weights and settle have tests of their own."""
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path))
    (tmp_path / preview.find("coco").file).touch()
    settled = []

    def open_weights(source, backbone):
        settled.append((source, backbone))
        return SimpleNamespace(settle=lambda model: replace(model, resize=Canvas(64, 96)))

    monkeypatch.setattr(preview, "open_weights", open_weights)
    out = preview.main([*arguments, "model.weights=coco", "--count", "1", "--columns", "1"])
    assert settled == [("coco", "resnet50")]
    assert Image.open(out).width == 96 + 2 * 2


@pytest.mark.parametrize(("source", "is_open"), [("coco", True), ("imagenet", False)])
def test_nothing_is_downloaded(arguments, monkeypatch, tmp_path, capsys, source, is_open):
    """Of a backbone no input size follows, so that nothing is to be said."""
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path))
    out = preview.main([*arguments, f"model.weights={source}", "--count", "1", "--columns", "1"])
    assert Image.open(out).width == RULE.width + 2 * (RULE.height // 40)
    assert ("coco is not downloaded yet" in capsys.readouterr().err) == is_open


# ------------------------------------------------------------------------------------------------
# How it is drawn
# ------------------------------------------------------------------------------------------------

CLASSES = ("cat", "dog")


def sample_of(boxes, labels, weights=None, height=100, width=140):
    """A dark sample."""
    weights = np.ones(len(labels)) if weights is None else weights
    return {
        "images": np.full([height, width, 3], 20, np.uint8),
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.array(labels, np.int32),
        "weights": np.array(weights, np.float32),
        "index": np.int64(0),
    }


def test_objects_have_the_colour_and_name_of_their_class():
    sample = sample_of([[30, 40, 60, 80], [70, 10, 120, 90], [0, 0, 0, 0]], [1, 0, PADDING])
    expected = draw_boxes(sample["images"], sample["boxes"][:2], [1, 0], CLASSES)
    np.testing.assert_array_equal(preview.draw(sample, CLASSES), expected)


def test_a_weight_is_written_unless_it_is_1():
    box = [[30, 40, 60, 80]]
    plain = preview.draw(sample_of(box, [0]), CLASSES)
    weighted = preview.draw(sample_of(box, [0], [0.37]), CLASSES)
    dark = sample_of(box, [0])["images"]
    named = draw_boxes(dark, box, [0], ["cat × 0.37"], colors=class_colors(2)[:1])
    np.testing.assert_array_equal(weighted, named)
    assert not np.array_equal(plain, weighted)


def test_regions_are_dashed_and_of_no_class():
    sample = sample_of([[30, 30, 100, 90]], [IGNORE])
    top = preview.draw(sample, CLASSES)[30, 32:98]
    is_drawn = (top != 20).any(axis=-1)
    assert 0.3 < is_drawn.mean() < 0.7
    assert (top[is_drawn] == 255).all()


def test_samples_without_objects_are_the_pixels():
    sample = sample_of([], [])
    np.testing.assert_array_equal(preview.draw(sample, CLASSES), sample["images"])


def test_pictures_of_several_sizes_have_one_scale(config, dataset, tmp_path):
    """Batches of two canvases; pixels that are not smoothed are float32."""
    scales = replace(config.data, augment=Augment(flip=0.0, canvas_scales=(1.0, 0.5)))
    model = replace(config.model, resize=Canvas(96, 128, antialias=False))
    config = replace(config, data=scales, model=model)
    samples = [s for epoch in range(3) for s in preview.training_samples(config, dataset, epoch)]
    assert {sample["images"].shape[:2] for sample in samples} == {(96, 128), (64, 64)}
    out = tmp_path / "sheet.png"
    preview.write_image(out, preview.sheet(samples, dataset, 4))
    for cell, sample in zip(cells(out, 4, 24, (96, 128)), samples, strict=True):
        assert sample["images"].dtype == np.float32
        height, width = sample["images"].shape[:2]
        shown = preview.draw(sample, dataset.classes)
        np.testing.assert_array_equal(cell[:height, :width], shown)
        assert not cell[height:].any()


def test_large_pictures_are_shrunk():
    dataset = SimpleNamespace(images=["a/cat.jpg"], classes=CLASSES)
    wide = preview.sheet([sample_of([], [], height=500, width=2000)], dataset, 4)
    assert wide.shape[1] == 640 + 2 * (160 // 40)


def test_what_is_switched_on(config):
    values = {"flip": 0.5, "zoom": [0.8, 1.4], "blur": 0.3, "cutout": 0.5}
    names = {f"data.augment.{name}": value for name, value in values.items()}
    assert dict(preview.switched_on(config.data)) == names
    mixed = replace(Data(augment=Augment(flip=0.0)), mixing=Mixing(mosaic=0.2))
    assert preview.switched_on(mixed) == [("data.mixing.mosaic", 0.2)]


# ------------------------------------------------------------------------------------------------
# What is refused
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.augment.blur=2"], r"blur: expected a share from 0 to 1, found 2"),
        (["data.root=nowhere"], r"nowhere"),
        (["train.batch_size=11"], r"batch_size: expected at most the 10 images .*found 11"),
        (["--epoch", "3"], r"epoch: expected below the 3 of the training, found 3"),
        (["--out", "sheet.gif"], r"sheet.gif: expected the suffix .png"),
    ],
)
def test_what_cannot_be_is_said(arguments, tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        preview.main([*arguments, *more])
    assert not (tmp_path / "out").exists()


def test_an_image_that_cannot_be_read_is_named(arguments, root, tmp_path):
    make_shapes(tmp_path / "spoilt", NUM_IMAGES, 2, (96, 128), seed=3)
    for image in (tmp_path / "spoilt" / "JPEGImages").iterdir():
        image.write_bytes(image.read_bytes()[:-2000])
    with pytest.raises(DatasetError, match=r"spoilt/JPEGImages/.*"):
        preview.main([*arguments, f"data.root={tmp_path / 'spoilt'}"])


@pytest.mark.parametrize("option", ["--count", "--columns"])
def test_counts_below_1_are_refused(arguments, option, capsys):
    with pytest.raises(SystemExit) as refusal:
        preview.main([*arguments, option, "0"])
    assert refusal.value.code == 2
    assert f"{option}: expected at least 1, found 0" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of runpy, that it is imported already
def test_the_command_ends_with_the_error(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["preview", "--config", "nowhere.py"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("data.preview", run_name="__main__")
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: nowhere.py: no such config file\n"
