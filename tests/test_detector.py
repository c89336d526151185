"""Saving, loading and using a detector; evaluate.py and visualize.py on one."""

import json
import math

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

import configs
import detector as detector_module
import evaluate
import visualize
from core.build import build_model
from core.engine import predict
from data.detections import DetectionTable, read_json
from data.pipeline import evaluation_batches
from data.shapes import CLASSES, make_shapes
from data.voc import read_voc
from detector import Detector, gather_detections, open_detector
from scoring import score, summarize
from utils.checkpoints import CheckpointError, save_checkpoint

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


def test_eager_and_compiled_detections_are_the_same(run, root):
    dataset = read_voc(root, "val", CLASSES)
    eager = Detector.load(run, eager=True).detect_dataset(dataset)
    compiled = Detector.load(run).detect_dataset(dataset)
    np.testing.assert_array_equal(eager.image, compiled.image)
    np.testing.assert_allclose(eager.scores, compiled.scores, atol=1e-5)
    np.testing.assert_allclose(eager.boxes, compiled.boxes, atol=1e-2)


@pytest.mark.parametrize("resize", ["canvas", "short_long"])
def test_many_images_go_through_a_frozen_graph_with_the_same_detections(
    resize, run, root, monkeypatch
):
    dataset = read_voc(root, "val", CLASSES)
    detector = Detector.load(run, changes={"resize": resize})
    expected = detector.detect_dataset(dataset, batch_size=2)
    frozen = []
    freeze = detector_module.frozen
    monkeypatch.setattr(detector_module, "FREEZE_FROM", len(dataset))
    monkeypatch.setattr(detector_module, "frozen", lambda *a: frozen.append(a) or freeze(*a))
    found = detector.detect_dataset(dataset, batch_size=2)
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
    # Other weights later are used, not those that were frozen.
    for variable in detector.model.class_head.variables:
        variable.assign(variable + 0.1)
    other = detector.detect_dataset(dataset, batch_size=2)
    assert abs(other.scores - found.scores).max() > 1e-3
    assert len(frozen) == 2


@pytest.mark.parametrize("resize", ["canvas", "short_long"])
def test_more_views_and_soft_nms_compiled_eager_and_frozen(resize, run, root, monkeypatch):
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
    monkeypatch.setattr(detector_module, "FREEZE_FROM", len(dataset))
    frozen = detector.detect_dataset(dataset, batch_size=2)
    eager = Detector.load(run, eager=True, changes=changes).detect_dataset(dataset, batch_size=2)
    for found in (frozen, eager):
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_detecting_in_half_precision(precision, run, root, monkeypatch):
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
    assert table.scores.dtype == np.float32
    monkeypatch.setattr(detector_module, "FREEZE_FROM", 1)
    frozen = half.detect_dataset(dataset)
    assert len(table) == len(frozen) == 5 * 7
    np.testing.assert_allclose(frozen.scores, table.scores, atol=0.01)


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
    report = summarize(score(table, dataset, config), table)
    json.dumps(report, allow_nan=False)
    assert report["classes"]["hexagon"]["ap"]["0.5"]["area"] is None
    assert math.isclose(report["value"], 1.0)


def test_settings_of_the_model_may_be_overridden_where_they_are_free(run):
    evaluate.main([str(run), "--set", "model.detect.max_detections=2"])
    dataset_ids = [f"val_{i:05d}" for i in range(5)]
    table, _ = read_json(run / "evaluation" / "detections.json", dataset_ids, CLASSES)
    assert len(table) == 10
    views = ["model.detect.flip=true", "model.detect.scales=0.5,1.0", "model.detect.nms=linear"]
    evaluate.main([str(run), "--set", "model.detect.max_detections=2", *views])
    other, _ = read_json(run / "evaluation" / "detections.json", dataset_ids, CLASSES)
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
