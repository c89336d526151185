"""Saving, loading and using a detector; evaluate.py and visualize.py on one."""

import json
import math
import os
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import configs
import detector as detector_module
import evaluate
import visualize
from core.build import build_model
from core.engine import predict
from core.predictor import frozen
from data.detections.project_json import JSON
from data.formats.shapes import CLASSES, make_shapes
from data.formats.voc import read_voc
from data.inputs import unlabelled
from data.pipeline import detection_batches, detection_spec, evaluation_batches
from detector import Detector, gather_detections, open_detector
from results.scoring import score
from utils.checkpoints import CheckpointError, save_checkpoint
from utils.detections import DetectionTable

pytestmark = pytest.mark.full
ROOT = Path(detector_module.__file__).parent
SMALL = {
    "model.neck_width": 8,
    "model.head_width": 8,
    "model.head_depth": 1,
    "model.prior": 0.4,  # so that an untrained model detects something
    "model.resize.height": 64,
    "model.resize.width": 96,
    "model.detect.max_detections": 7,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("data") / "tiny", 4, 5, image_size=(64, 80))


@pytest.fixture(scope="module")
def run(tmp_path_factory, root):
    """A run's folder with an untrained detector of non-trivial statistics, and its config."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = configs.preset(
        "shapes", SMALL | {"data.format": "voc", "data.root": str(root), "name": "tiny",
                           "output": str(folder.parent)}
    )  # fmt: skip
    keras.utils.set_random_seed(0)  # some draws saturate every score
    model = build_model(config.model, len(CLASSES))
    rng = np.random.default_rng(0)
    for variable in model.backbone.weights:  # statistics that make a difference
        if len(variable.shape) == 1:
            variable.assign(variable.numpy() + rng.uniform(0, 0.2, variable.shape))
    Detector(model, CLASSES, config.model).save(folder / "checkpoints" / "best.npz")
    (folder / "config.json").write_text(json.dumps(configs.to_dict(config)))
    return folder


def test_a_saved_detector_comes_back_with_weights_classes_and_conventions(run, root):
    first, second = Detector.load(run), Detector.load(run / "checkpoints" / "best.npz")
    assert first.classes == CLASSES
    assert first.config == configs.load(run / "config.json").model
    dataset = read_voc(root, "val", CLASSES)
    ours, theirs = first.detect_dataset(dataset), second.detect_dataset(dataset, batch_size=2)
    assert len(ours) == 5 * 7
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-3)


@pytest.mark.slow
def test_eager_and_compiled_detections_are_the_same(run, root):
    dataset = read_voc(root, "val", CLASSES)
    eager = Detector.load(run, eager=True).detect_dataset(dataset)
    compiled = Detector.load(run).detect_dataset(dataset)
    np.testing.assert_array_equal(eager.image, compiled.image)
    np.testing.assert_allclose(eager.scores, compiled.scores, atol=1e-5)
    np.testing.assert_allclose(eager.boxes, compiled.boxes, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["canvas", "short_long"])
def test_a_frozen_graph_finds_the_same(resize, run, root):
    dataset = read_voc(root, "val", CLASSES)
    detector = Detector.load(run, changes={"resize": resize})
    expected = detector.detect_dataset(dataset, batch_size=2)
    step = lambda batch: predict(detector.model, detector.postprocess, batch)  # noqa: E731
    step = frozen(step, detector.model, detection_spec(detector.config.resize))
    found = detector._detect(dataset, 2, step)
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "graphs"),
    [
        ({"detect.precision": "mixed_bfloat16"}, 2),
        ({"detect.precision": "mixed_float16"}, 2),
        ({"detect.precision": "mixed_bfloat16", "detect.scales": (0.5, 1.0)}, 0),
        ({}, 0),
    ],
)
def test_many_images_in_half_precision_go_through_a_graph_of_the_moment_s_weights(
    changes, graphs, run, root, monkeypatch
):
    dataset = read_voc(root, "val", CLASSES)
    detector = Detector.load(run, changes=changes)
    expected = detector.detect_dataset(dataset, batch_size=2)
    made = []
    monkeypatch.setattr(detector_module, "FREEZE_FROM", len(dataset))
    monkeypatch.setattr(detector_module, "frozen", lambda *a: made.append(a) or frozen(*a))
    found = detector.detect_dataset(dataset, batch_size=2)
    assert len(found) == len(expected) == 5 * 7
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.01)
    # Other weights later are used, not those that were frozen.
    for variable in detector.model.class_head.variables:
        variable.assign(variable + 0.1)
    other = detector.detect_dataset(dataset, batch_size=2)
    assert abs(other.scores - found.scores).max() > 1e-3
    assert len(made) == graphs


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["canvas", "short_long"])
def test_more_views_and_soft_nms_compiled_and_eager(resize, run, root):
    dataset = read_voc(root, "val", CLASSES)
    changes = {"resize": resize, "detect.max_detections": 50}
    if resize == "short_long":
        changes |= {"resize.short": 64, "resize.long": 90}
    plain = Detector.load(run, changes=changes).detect_dataset(dataset, batch_size=2)
    changes |= {"detect.flip": True, "detect.scales": (0.5, 1.0), "detect.nms": "gaussian"}
    detector = Detector.load(run, changes=changes)
    expected = detector.detect_dataset(dataset, batch_size=2)
    assert detector._compiled.experimental_get_tracing_count() == 1
    assert len(expected) == len(plain) == 5 * 50
    assert abs(expected.scores - plain.scores).max() > 1e-3
    assert (expected.boxes.max(axis=0) <= [80, 64, 80, 64]).all()
    eager = Detector.load(run, eager=True, changes=changes).detect_dataset(dataset, batch_size=2)
    np.testing.assert_array_equal(eager.image, expected.image)
    np.testing.assert_allclose(eager.scores, expected.scores, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_detecting_in_half_precision(precision, run, root):
    dataset = read_voc(root, "val", CLASSES)
    whole = Detector.load(run)
    half = Detector.load(run, changes={"detect.precision": precision})
    assert half.model.backbone.compute_dtype == precision.removeprefix("mixed_")
    for ours, theirs in zip(half.model.variables, whole.model.variables, strict=True):
        assert ours.dtype == "float32"
        np.testing.assert_array_equal(ours, theirs)
    outputs = [d.model(tf.fill([1, 64, 96, 3], 99)) for d in (half, whole)]
    for name in outputs[0]:
        ours, theirs = (output[name].numpy() for output in outputs)
        assert ours.dtype == np.float32
        assert 0 < abs(ours - theirs).max() < 0.05 * abs(theirs).max()
    table = half.detect_dataset(dataset)
    rounded = tf.cast(tf.cast(table.scores, half.model.backbone.compute_dtype), tf.float64)
    assert (table.scores != rounded.numpy()).any(), "scores have the digits of a float32"
    assert len(table) == 5 * 7


def test_image_files_and_a_dataset_give_the_same(run, root):
    dataset = read_voc(root, "val", CLASSES)
    detector = Detector.load(run)
    files, whole = detector.detect(dataset.images), detector.detect_dataset(dataset)
    np.testing.assert_array_equal(files.scores, whole.scores)
    np.testing.assert_array_equal(files.boxes, whole.boxes)


def test_detections_lie_inside_the_original_image(run, root):
    """64x80 images go through a 64x96 canvas; boxes come back in their own pixels, clipped."""
    boxes = Detector.load(run).detect_dataset(read_voc(root, "val", CLASSES)).boxes
    assert boxes.min() >= 0
    assert (boxes.max(axis=0) <= [80, 64, 80, 64]).all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()


def test_gathering_keeps_real_rows_and_their_images():
    found = [
        (
            tf.constant([4, 2]),
            {
                "counts": tf.constant([1, 2]),
                "boxes": tf.reshape(tf.range(24.0), [2, 3, 4]),
                "scores": tf.constant([[0.9, 0, 0], [0.8, 0.7, 0]]),
                "labels": tf.constant([[1, -1, -1], [0, 1, -1]]),
            },
        )
    ]
    table = gather_detections(found, list("abcde"), ["x", "y"])
    assert table.image.tolist() == [4, 2, 2]
    assert table.labels.tolist() == [1, 0, 1]
    assert table.boxes[:, 0].tolist() == [0, 12, 16]


def test_a_config_that_contradicts_the_weights_is_refused_by_name(run):
    config = configs.load(run / "config.json")
    changes = {
        "model.anchors.sizes": (8, 16, 32, 64, 128),
        "model.coder.form": "corner",
        "model.normalization": "caffe",
        "model.p6_from": "p5",
    }
    for field, value in changes.items():
        other = configs.override(config, {field: value}).model
        with pytest.raises(configs.ConfigError, match="model." + field.split(".")[1]):
            Detector.load(run, other)
    free = configs.override(config, {"model.resize.width": 64, "model.detect.nms_iou": 0.3}).model
    assert Detector.load(run, free).config == free


def test_a_file_that_is_no_detector_is_refused(tmp_path, run):
    save_checkpoint(tmp_path / "other.npz", {"model": []}, {"progress": {}})
    with pytest.raises(CheckpointError, match="no conventions"):
        Detector.load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="expected a run, imported weights or a checkpoint"):
        Detector.load(tmp_path)


def test_no_retracing_over_batches_of_any_size(run, root):
    """Images of other sizes, the smaller last batch, another dataset: one trace."""
    detector = Detector.load(run)
    detector.detect_dataset(read_voc(root, "val", CLASSES), batch_size=2)
    detector.detect_dataset(read_voc(root, "train", CLASSES), batch_size=3)
    assert detector._compiled.experimental_get_tracing_count() == 1


def test_padding_changes_no_detection_on_a_canvas_of_other_size(run, root):
    """What a batch pads with is not seen: raw values beyond `sizes` have no effect."""
    detector = Detector.load(run)
    dataset = read_voc(root, "val", CLASSES)
    batch = next(iter(evaluation_batches(dataset, detector.config.resize, batch_size=2)))
    assert int(batch["sizes"][0, 1]) < batch["images"].shape[2]
    painted = batch | {
        "images": tf.where(batch["images"] == 0, tf.constant(200, tf.uint8), batch["images"])
    }
    inside = tf.sequence_mask(batch["sizes"][:, 1], batch["images"].shape[2])[:, None, :, None]
    painted["images"] = tf.where(inside, batch["images"], painted["images"])
    clean, dirty = (predict(detector.model, detector.postprocess, b) for b in (batch, painted))
    np.testing.assert_array_equal(clean["scores"], dirty["scores"])


# ------------------------------------------------------------------------------------------------
# Images of a program's own
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(run):
    return Detector.load(run)


@pytest.fixture(scope="module")
def photo():
    """(80, 100, 3) uint8 RGB with colours that are no grey."""
    rng = np.random.default_rng(2)
    return cv2.resize(rng.integers(0, 255, (16, 20, 3), np.uint8), (100, 80))


def assert_same(ours, theirs):
    for name in ("image", "boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)


def test_one_image_is_a_list_of_one(detector, photo, tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), photo[..., ::-1])
    expected = detector.detect([str(path)])
    assert len(expected) == 7
    assert expected.image_ids == (str(path),)
    for image in (str(path), path, photo, PIL.Image.open(path)):
        table = detector.detect(image)
        assert_same(table, expected)
        assert table.image_ids == (str(path) if isinstance(image, (str, Path)) else "0",)


def test_several_images_of_any_kind_in_any_sequence(detector, photo, tmp_path):
    path = tmp_path / "photo.bmp"
    cv2.imwrite(str(path), photo[..., ::-1])
    grey = photo[..., 0]
    images = [photo, path, PIL.Image.fromarray(photo), grey, grey[..., None], photo[::-1]]
    expected = detector.detect([photo, photo, photo, *[np.dstack([grey] * 3)] * 2, photo[::-1]])
    array = np.empty(len(images), object)
    array[:] = images
    for several in (images, tuple(images), (image for image in images), deque(images), array):
        table = detector.detect(several, batch_size=4)
        assert table.image_ids == ("0", str(path), "2", "3", "4", "5")
        assert_same(table, expected)
    assert_same(detector.detect_arrays(images), expected)
    assert_same(detector.array_detector(1)(images), expected)


@pytest.mark.parametrize("resize", ["canvas", "short_long"])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGB", "png"), ("RGBA", "png"), ("LA", "png"),
     ("L", "png"), ("P", "png"), ("1", "png"), ("RGB", "bmp"), ("P", "bmp")],
)  # fmt: skip
def test_an_image_of_pil_gives_what_its_file_gives(mode, suffix, resize, run, photo, tmp_path):
    path, other = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    image = PIL.Image.fromarray(photo)
    if mode in ("RGBA", "LA"):
        image.putalpha(PIL.Image.fromarray(photo[..., 1]))
    image.convert(mode).save(path)
    exif = PIL.Image.Exif()
    exif[274] = 6  # a quarter turn
    image.convert(mode).save(other, **({} if suffix == "bmp" else {"exif": exif}))
    rule = {"resize": resize} | ({"resize.short": 64, "resize.long": 90} if "_" in resize else {})
    pictures = [PIL.Image.open(path), PIL.Image.open(other)]
    assert pictures[0].mode == mode
    (ours, _), (theirs, _) = unlabelled(pictures, CLASSES), unlabelled([path, other], CLASSES)
    np.testing.assert_array_equal(ours.sizes, theirs.sizes)
    assert suffix == "bmp" or ours.sizes.tolist() == [[100, 80], [80, 100]]
    rule = configs.override(configs.load(run / "config.json").model, rule).resize
    batches = [
        next(detection_batches(dataset, rule, batch_size=2, read=read))
        for dataset, read in (unlabelled(pictures, CLASSES), unlabelled([path, other], CLASSES))
    ]
    for name, array in batches[0].items():
        np.testing.assert_array_equal(array, batches[1][name], name)


class Tensor:
    """As of torch, which is iterated as its rows are."""

    def numpy(self):
        raise AssertionError("nothing is converted")

    def __iter__(self):
        raise AssertionError("nor is it taken apart")


ANY = "a path, a (H, W, 3) or (H, W) uint8 array or a PIL image"


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (None, f"{ANY}, found None; cv2.imread returns None for a file it cannot read"),
        (tf.zeros([4, 5, 3], tf.uint8), f"{ANY}, found a tensor; pass tensor.numpy()"),
        (Tensor(), f"{ANY}, found a tensor; pass tensor.numpy()"),
        (7, f"{ANY}, found int"),
        (b"a.png", f"{ANY}, found bytes"),
        ({"a": 1}, f"{ANY}, found dict"),
        (np.zeros((2, 4, 5, 3), np.uint8),
         f"{ANY}, found a batch of (2, 4, 5, 3) uint8; pass list(images)"),
        (np.zeros((4, 5, 3), np.float32), f"{ANY}, found (4, 5, 3) float32; bring the values to "
         "0-255, then image.astype(np.uint8)"),
        (np.zeros((4, 5), np.uint16), f"{ANY}, found (4, 5) uint16; bring the values to "
         "0-255, then image.astype(np.uint8)"),
        (np.zeros((4, 5, 4), np.uint8),
         "1 or 3 bands, (H, W, 3) or (H, W), found 4: (4, 5, 4) uint8"),
        (np.zeros((4, 5, 2), np.uint8),
         "1 or 3 bands, (H, W, 3) or (H, W), found 2: (4, 5, 2) uint8"),
        (np.zeros((0, 5, 3), np.uint8), f"{ANY}, found (0, 5, 3) uint8"),
        (np.zeros((), np.uint8), f"{ANY}, found () uint8"),
        (PIL.Image.new("I;16", (4, 5)),
         f"{ANY}, found a PIL image of mode I;16, whose values have no 8 bits"),
        (PIL.Image.new("F", (4, 5)),
         f"{ANY}, found a PIL image of mode F, whose values have no 8 bits"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_one_line(image, found, detector, photo):
    for images, index in ((image, 0), ([photo, photo, image], 2)):
        with pytest.raises(ValueError, match="expected") as caught:
            detector.detect(images)
        assert str(caught.value) == f"image {index}: expected {found}"


@pytest.mark.parametrize("images", [[], (), np.zeros(0), iter([])])
def test_no_image_at_all(images, detector):
    with pytest.raises(ValueError, match="images: expected at least one, found no images"):
        detector.detect(images)


def test_a_picture_of_pil_that_ends_early_is_named(detector, photo, tmp_path):
    path = tmp_path / "a.png"
    PIL.Image.fromarray(photo).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(
        ValueError, match=r"image 1: .* PIL image of mode RGB .*truncated"
    ) as caught:
        detector.detect([photo, PIL.Image.open(path)])
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------
# Threads and processes
# ------------------------------------------------------------------------------------------------


def test_eight_threads_on_a_new_detector_agree_with_one_to_the_bit(run, photo):
    images = [np.roll(photo, 10 * i, axis=1)[: 80 - i] for i in range(8)]
    alone = Detector.load(run)
    expected = [alone.detect(image) for image in images]
    detector, ready = Detector.load(run), threading.Barrier(8)

    def work(number):
        ready.wait()
        return [detector.detect(images[(number + i) % 8]) for i in range(8)]

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(work, range(8))):
            for i, table in enumerate(found):
                assert_same(table, expected[(number + i) % 8])
    assert detector._compiled.experimental_get_tracing_count() == 1


def test_a_detector_in_another_process_than_its_own_is_refused(run, detector, photo, monkeypatch):
    """Each use, in a line that says what to do; nothing of TensorFlow is asked before."""
    detect = detector.array_detector(1)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    uses = [
        lambda: detector.detect(photo), lambda: detector.detect_arrays([photo]),
        lambda: detect([photo]), lambda: detector.array_detector(1), lambda: Detector.load(run),
        lambda: detector.save(run / "other.npz"), lambda: open_detector(run, None, []),
        lambda: Detector(detector.model, CLASSES, detector.config),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(RuntimeError, match="process 1 was forked from ") as caught:
            use()
        assert 'multiprocessing.get_context("spawn"), or "forkserver"' in str(caught.value)
        assert "\n" not in str(caught.value)


FORKING = """
import multiprocessing, os, sys
import numpy as np
from detector import Detector

def use(image):
    try:
        detector.detect(image)
    except RuntimeError as error:
        return str(error)

def load(path):
    try:
        Detector.load(path)
    except RuntimeError as error:
        return str(error)

detector = Detector.load(sys.argv[1])
image = np.zeros((40, 50, 3), np.uint8)
detector.detect(image)
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply(use, [image]))
    print(pool.apply(load, [sys.argv[1]]))
print(len(detector.detect(image).image_ids))
"""
SPAWNING = """
import multiprocessing, sys
import numpy as np
from detector import Detector

def count(path):
    return len(Detector.load(path).detect(np.zeros((40, 50, 3), np.uint8)).image_ids)

if __name__ == "__main__":
    print(count(sys.argv[1]))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(count, sys.argv[1:]))
"""


def python(file, text, *arguments, path=(), timeout=300):
    """Runs a program; path: of its modules, before the folder of the program itself."""
    file.write_text(text)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, str(file), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
    )


@pytest.mark.slow
def test_a_forked_process_says_so_at_once_and_a_spawned_one_works(run, tmp_path):
    done = python(tmp_path / "forking.py", FORKING, run, path=[ROOT])
    assert done.returncode == 0, done.stderr
    used, loaded, last = done.stdout.splitlines()
    assert "was forked from" in used
    assert "was forked from" in loaded
    assert last == "1"
    done = python(tmp_path / "spawning.py", SPAWNING, run, path=[ROOT])
    assert done.stdout.split() == ["1", "1"], done.stderr


IMPORTING = """
import sys
import {first}
sys.path.append({root!r})
import detector
"""


@pytest.mark.parametrize(
    ("stranger", "first"),
    [("utils.py", "os"), ("utils/__init__.py", "os"), ("data/__init__.py", "data"),
     ("core.py", "os"), ("configs/__init__.py", "configs"), ("utils/a.py", "utils")],
)  # fmt: skip
def test_a_package_of_the_same_name_is_named_at_once(stranger, first, tmp_path):
    """Also one that was imported before, and a folder without __init__.py."""
    file = tmp_path / stranger
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    done = python(tmp_path / "program.py", IMPORTING.format(first=first, root=str(ROOT)))
    name = stranger.split("/")[0].removesuffix(".py")
    last = done.stderr.splitlines()[-1]
    found = f"{name} from {None if stranger == 'utils/a.py' else file}"
    assert last == (
        f"ImportError: detector.py: expected the packages of {ROOT}, found {found}: put that "
        "folder first on sys.path before anything imports what has the same name, or use "
        "deploy/exported.py, which needs no other file"
    )
    assert "tensorflow" not in done.stderr, "nothing is waited for"


# ------------------------------------------------------------------------------------------------
# evaluate.py
# ------------------------------------------------------------------------------------------------


def perfect(dataset) -> DetectionTable:
    """Every object found, with scores that differ."""
    scores = np.linspace(0.5, 0.9, len(dataset.labels))
    return DetectionTable(
        dataset.image_ids, dataset.classes, dataset.image_index, dataset.boxes, scores,
        dataset.labels,
    )  # fmt: skip


def test_evaluate_prints_the_headline_last_and_writes_every_file(run, capfd, tmp_path):
    value = evaluate.main([str(run), "--json", str(tmp_path / "all.json")])
    last = capfd.readouterr().out.strip().splitlines()[-1]
    assert last == f"VOC mAP@0.50: {value:.4f}"
    report = json.loads((tmp_path / "all.json").read_text())
    assert report == json.loads((run / "evaluation" / "metrics.json").read_text())
    assert report["headline"] == last
    assert report["images"] == 5
    assert set(report["classes"]) == set(CLASSES)
    assert set(report["map_by_iou"]) == {"0.5", "0.75"}
    assert np.shape(report["confusion_matrix"]["rows"]) == (6, 6)
    for name in ("precision_recall.png", "confusion_matrix.png", "detections.json"):
        assert (run / "evaluation" / name).stat().st_size > 0
    assert len(list((run / "evaluation" / "devkit").glob("comp4_det_val_*.txt"))) == 5


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["voc", "coco", "crowdhuman"])
def test_the_files_it_wrote_give_the_same_figure_without_a_model(run, root, tmp_path, metric):
    value = evaluate.main([str(run), "--metric", metric])
    config = tmp_path / "plain.py"
    config.write_text(
        "from configs import preset\n"
        f"config = preset('voc', {{'data.root': {str(root)!r}, 'data.val': 'val',"
        f" 'data.train': 'train', 'evaluate.ap': 'area', 'data.classes': {CLASSES!r}}})\n"
    )  # in the run's order, by which COCO's results are numbered
    for source in ("devkit", "detections.json", "coco_results.json"):
        given = ["--detections", str(run / "evaluation" / source), "--config", str(config)]
        assert evaluate.main([*given, "--metric", metric]) == pytest.approx(value, abs=1e-9)


def test_detections_that_are_not_there(root):
    given = ["--set", f"data.root={root}", "data.format=voc", "--detections", str(root / "none")]
    with pytest.raises(ValueError, match="none: no such file or folder of detections"):
        evaluate.main(given)


def test_perfect_detections_score_one_and_missing_half_scores_less(root):
    config = configs.preset("shapes", {"evaluate.iou_thresholds": (0.5, 0.9)})
    dataset = read_voc(root, "val", CLASSES)
    table = perfect(dataset)
    scores = score(table, dataset, config)
    assert scores.value == 1.0
    assert scores.headline == "VOC mAP@0.50: 1.0000"
    half = DetectionTable(
        table.image_ids, table.classes, table.image[::2], table.boxes[::2], table.scores[::2],
        table.labels[::2],
    )  # fmt: skip
    assert score(half, dataset, config).value < 1.0


def test_a_class_without_objects_is_null_in_the_report(root):
    dataset = read_voc(root, "val", (*CLASSES, "hexagon"))
    config = configs.preset("shapes")
    table = perfect(dataset)
    report = score(table, dataset, config).report
    json.dumps(report, allow_nan=False)
    assert report["classes"]["hexagon"]["ap"]["0.5"]["area"] is None
    assert math.isclose(report["value"], 1.0)


@pytest.mark.slow
def test_settings_of_the_model_may_be_overridden_where_they_are_free(run):
    evaluate.main([str(run), "--set", "model.detect.max_detections=2"])
    dataset_ids = [f"val_{i:05d}" for i in range(5)]
    table = JSON.read(run / "evaluation" / "detections.json", dataset_ids, CLASSES)
    assert len(table) == 10
    views = ["model.detect.flip=true", "model.detect.scales=0.5,1.0", "model.detect.nms=linear"]
    evaluate.main([str(run), "--set", "model.detect.max_detections=2", *views])
    other = JSON.read(run / "evaluation" / "detections.json", dataset_ids, CLASSES)
    assert len(other) == 10
    assert (other.scores >= table.scores - 1e-6).all()
    assert (other.scores > table.scores + 1e-3).any()
    with pytest.raises(configs.ConfigError, match=r"model\.neck_width"):
        evaluate.main([str(run), "--set", "model.neck_width=16"])


def test_weights_without_a_config_of_their_own_take_nothing_but_the_data_from_config_py(
    run, root, tmp_path, monkeypatch
):
    """config.py is about another model and other classes; its data may still be looked at."""
    Detector.load(run).save(tmp_path / "weights.npz")
    about_others = {"data.classes": ("cat",), "model.resize": "short_long"}
    settings = {"data.format": "voc", "data.root": str(root)} | about_others
    text = f"from configs import preset\nconfig = preset('voc', {settings!r})\n"
    (tmp_path / "config.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    changes = ["model.detect.max_detections=3", "model.resize.height=32", "data.limit=1"]
    folder, config, detector = open_detector(tmp_path, None, changes)
    assert folder == tmp_path
    assert (config.data.root, config.data.limit) == (str(root), 1)
    assert detector.classes == CLASSES
    assert detector.config.detect.max_detections == 3
    assert (detector.config.resize.height, detector.config.resize.width) == (32, 96)
    with pytest.raises(configs.ConfigError, match=r"model\.backbone: .* says 'resnet50'"):
        open_detector(tmp_path, "config.py", [])


# ------------------------------------------------------------------------------------------------
# visualize.py
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pictures_of_a_split_of_a_folder_and_of_one_image(run, root, tmp_path):
    out = visualize.main(["--weights", str(run), "--split", "train", "--threshold", "0.1"])
    assert out == run / "pictures"
    assert len(list(out.glob("*_train_*.jpg"))) == 4
    beside = cv2.imread(str(next(out.glob("*_train_*.jpg"))))
    assert beside.shape[1] >= 2 * 80  # truth and detections
    assert (out / "contact_sheet.png").exists()
    out = tmp_path / "folder"
    folder = root / "JPEGImages"
    visualize.main([str(folder), "--weights", str(run), "--out", str(out), "--limit", "3"])
    assert len(list(out.glob("*.jpg"))) == 3
    image = folder / "val_00000.jpg"
    out = tmp_path / "one"
    visualize.main([str(image), "--weights", str(run), "--out", str(out), "--threshold", "1"])
    plain = cv2.imread(str(next(out.glob("*.jpg")))).astype(int)
    assert np.abs(plain - cv2.imread(str(image))).mean() < 4  # nothing reached the threshold
    visualize.main([str(image), "--weights", str(run), "--out", str(out), "--threshold", "0"])
    drawn = cv2.imread(str(next(out.glob("*.jpg")))).astype(int)
    assert np.abs(drawn - plain).mean() > 4


def test_sources_that_are_none(run, tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        visualize.main([str(tmp_path / "absent"), "--weights", str(run)])
    with pytest.raises(ValueError, match="expected images"):
        visualize.main([str(tmp_path), "--weights", str(run)])
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.jpg"):
        visualize.main([str(tmp_path), "--weights", str(run)])
