"""A set of 12-bit images from training to pictures: the bits are found once and used by all."""

import json
import shutil

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from loguru import logger

import configs
import evaluate
import train
import visualize
from configs import preset
from core.layers import Conv2D
from data import preview
from data.formats.shapes import make_shapes
from detector import Detector

pytestmark = pytest.mark.slow


class Tiny(keras.layers.Layer):
    """A backbone of two convolutions."""

    def __init__(self):
        super().__init__(name="backbone")
        self.convs = [Conv2D(8, 3, stride, name=f"conv{stride}") for stride in (4, 2)]

    def call(self, x, training=False):
        for conv in self.convs:
            x = tf.nn.relu(conv(x))
        return [x, x[:, ::2, ::2], x[:, ::4, ::4]]


def to_bits(root, bits):
    """Replaces the images of a VOC folder by grey ones of so many bits; 8: by files of 8 bits."""
    for path in (root / "JPEGImages").iterdir():
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        path.unlink()
        values = grey if bits == 8 else grey.astype(np.uint16) << (bits - 8) | 3
        values.flat[0] = 255 if bits == 8 else 2**bits - 1
        cv2.imwrite(str(path.with_suffix(".png")), values)
    return root


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The same pictures as files of 8 and of 12 bits a value."""
    folder = tmp_path_factory.mktemp("sets")
    make_shapes(folder / "bits8", 4, 3, image_size=(64, 64))
    shutil.copytree(folder / "bits8", folder / "bits12")
    return {bits: to_bits(folder / f"bits{bits}", bits) for bits in (8, 12)}


def settings(root, output, **changes):
    return {
        "name": "tiny", "output": str(output), "data.format": "voc", "data.root": str(root),
        "model.neck_width": 8, "model.head_width": 8, "model.head_depth": 1,
        "model.backbone": Tiny, "model.resize.height": 64, "model.resize.width": 64,
        "model.detect.score_threshold": 0.001, "train.phases": (), "train.epochs": 1,
        "train.batch_size": 4, "train.warmup_steps": 0, "train.sample_pictures": 1,
    } | changes  # fmt: skip


def call(main, arguments, changes):
    """Runs a program's main with a config that no file can hold; returns what the diary said."""
    lines, config = [], preset("shapes", changes)
    load, remove = configs.load, logger.remove

    def made(path=None, overrides=()):
        if str(path).endswith(".json"):
            return load(path, overrides)
        return configs.override(config, dict(map(configs.assignment, overrides)))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(configs, "load", made)
        patched.setattr(logger, "remove", lambda *args: remove(*args) if args else None)
        handle = logger.add(lines.append, format="{message}")
        try:
            main(arguments)
        finally:
            remove(handle)
    return "".join(lines)


@pytest.fixture(scope="module")
def runs(sets, tmp_path_factory):
    """A run on each, and its diary."""
    folder = tmp_path_factory.mktemp("runs")
    told = {b: call(train.main, [], settings(sets[b], folder / str(b))) for b in sets}
    return {b: folder / str(b) / "tiny" for b in sets}, told


def test_bits_are_found_saved_and_used_by_all(sets, runs):
    folders, told = runs
    assert "16-bit images: 4 of 4, values up to 4095, read as 12 bits (model.bits)" in told[12]
    assert "16-bit" not in told[8]
    saved = {b: json.loads((folders[b] / "config.json").read_text())["model"] for b in folders}
    assert (saved[8]["bits"], saved[12]["bits"]) == (None, 12)
    # Training saw the same pictures: the weights and the samples are equal to the bit.
    loaded = {b: Detector.load(folders[b], preset("shapes", settings("", "")).model) for b in sets}
    assert (loaded[8].config.bits, loaded[12].config.bits) == (None, 12)
    for ours, theirs in zip(*(loaded[b].model.variables for b in sets), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    pictures = [(folders[b] / "samples" / "epoch_0001.png").read_bytes() for b in sets]
    assert pictures[0] == pictures[1]
    # Detection, too, by path.
    images = {b: sorted((sets[b] / "JPEGImages").iterdir()) for b in sets}
    tables = [loaded[b].detect(images[b]) for b in sets]
    assert len(tables[0])
    for column in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(tables[0], column), getattr(tables[1], column))


@pytest.mark.parametrize("program", ["visualize", "split", "preview"])
def test_pictures_show_what_the_detector_sees(sets, runs, tmp_path, program):
    folders, _ = runs
    sheets = []
    for bits, root in sets.items():
        out, changes = tmp_path / f"out{bits}", settings(root, tmp_path)
        weights = ["--weights", str(folders[bits]), "--config", "made", "--out", str(out)]
        if program == "visualize":
            call(visualize.main, [str(root / "JPEGImages"), *weights], changes)
        elif program == "split":
            call(visualize.main, ["--split", "val", *weights], changes)
        else:
            call(preview.main, ["--count", "2", "--out", str(out / "contact_sheet.png")], changes)
        sheets.append(cv2.imread(str(out / "contact_sheet.png")))
    assert sheets[0].mean() > 40  # not black
    np.testing.assert_array_equal(sheets[0], sheets[1])


def test_a_run_that_starts_from_another_follows_its_bits(sets, runs, tmp_path):
    folders, _ = runs
    weights = {"model.weights": str(folders[12])}
    told = call(train.main, [], settings(sets[12], tmp_path / "next", **weights))
    assert "bits=12" in told
    assert "become white" not in told
    assert json.loads((tmp_path / "next/tiny/config.json").read_text())["model"]["bits"] == 12
    # From weights of 8-bit images they are found, as those have none.
    weights = {"model.weights": str(folders[8])}
    told = call(train.main, [], settings(sets[12], tmp_path / "other", **weights))
    assert "read as 12 bits" in told


def test_evaluation_of_another_number_of_bits_is_said(sets, runs, tmp_path):
    folders, _ = runs
    changes = settings(sets[12], tmp_path)
    arguments = [str(folders[12]), "--config", "made", "--out", str(tmp_path / "eval")]
    assert "becomes white" not in call(evaluate.main, arguments, changes)
    arguments += ["--set", "model.bits=10"]
    assert "what is above 1023 (model.bits=10) becomes white" in call(
        evaluate.main, arguments, changes
    )
