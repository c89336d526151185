"""No dead knob: another value of any setting changes something that can be seen.

The settings are found by walking the dataclasses of configs/schema.py, so that a new one without a
case fails by itself. That one which does nothing beside others is refused: test_checked.py in
tests/configs; flags of the command lines that do nothing beside others: below.
"""

import collections
import dataclasses
import json
import shutil
import typing
from pathlib import Path
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import data.pipeline
import evaluate
import train
import training.phases
import training.plan
import training.reports
import training.resuming
import training.validation
import visualize
from configs import Config, override, preset
from configs.checked import Checked
from core.build import (
    build_anchors,
    build_backbone,
    build_criterion,
    build_model,
    build_optimizer,
    build_postprocess,
    build_schedule,
)
from core.engine import train_step, validation_step
from core.layers import BatchNorm, Conv2D
from core.optimizers import averaged
from core.schedules import ConstantRate
from core.weights.published import open_weights
from core.weights.transfer import transfer
from data import check, preview
from data.convert import __main__ as convert
from data.datasets import class_names, read_split
from data.download import __main__ as download
from data.formats.shapes import CLASSES, make_shapes
from data.pipeline import image_reader, steps_per_epoch, training_batches
from detector import Detector
from results.scoring import score
from training.meter import EpochMeter
from training.phases import begin_phase
from training.resuming import Progress
from utils.checkpoints import save_checkpoint
from utils.detections import DetectionTable

pytestmark = pytest.mark.full

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "blank": " ", "pipe": "|"}


class Tiny(keras.layers.Layer):
    """A backbone of two convolutions, so that a run takes a second."""

    def __init__(self):
        super().__init__(name="backbone")
        self.convs = [Conv2D(8, 3, stride, name=f"conv{stride}") for stride in (4, 2)]
        self.norms = [BatchNorm(name=f"bn{i}") for i in range(2)]

    def call(self, x, training=False):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = tf.nn.relu(norm(conv(x), training=training))
        return [x, x[:, ::2, ::2], x[:, ::4, ::4]]


BASE = preset(
    "shapes",
    {
        "data.format": "voc",
        "data.root": "shapes",
        "data.cache": False,
        "data.augment.flip": 0.0,
        "model.backbone": Tiny,
        "model.neck_width": 32,
        "model.head_width": 32,
        "model.head_depth": 1,
        "model.detect.score_threshold": 0.001,
        "model.resize.height": 64,
        "model.resize.width": 64,
        "train.epochs": 2,
        "train.batch_size": 2,
        "train.warmup_steps": 1,
        "train.validate_every": 1,
        "train.sample_pictures": 0,
        "train.eager": True,
    },
)


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    """Datasets of a few small images, in a folder that is the present one."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_shapes("shapes", 4, 2, image_size=(64, 90))
        make_shapes("others", 4, 2, image_size=(64, 90), seed=1)
        for file in Path("shapes/Annotations").iterdir():
            text = file.read_text()
            file.write_text(text.replace("<difficult>0", "<difficult>1", 1))
        Path("shapes/names.csv").write_text("".join(f"{c},{i}\n" for i, c in enumerate(CLASSES)))
        for part in ("Annotations", "JPEGImages"):
            shutil.copytree(Path("shapes") / part, "flat", dirs_exist_ok=True)
        shutil.copytree("shapes", "bad")
        shutil.copytree("shapes", "any")
        for file in Path("bad/Annotations").iterdir():
            file.write_text(file.read_text().replace("<xmin>", "<xmin>99", 1))
        make_tables(Path("csv"))
        make_crowd(Path("crowd"))
        make_coco(Path("coco"))
        make_any(Path("any"))
        make_yolo(Path("yolo"))
        keras.utils.set_random_seed(5)
        Detector(build_model(BASE.model, len(CLASSES)), CLASSES, BASE.model).save("start.npz")
        yield folder


def make_tables(root):
    """A box each in files of every delimiter, without a header and with one; images elsewhere."""
    for folder in ("pictures", "drawings"):
        (root / folder).mkdir(parents=True)
        for name in ("a.png", "b.png"):
            Image.new("RGB", (40, 30)).save(root / folder / name)
    header = ["image", "xmin", "ymin", "xmax", "ymax", "class"]
    for name, mark in DELIMITERS.items():
        row = mark.join(["pictures/a.png", "1", "2", "20", "22", "cat"])
        (root / f"{name}.csv").write_text(f"{row}\n")
        (root / f"{name}_headed.csv").write_text(f"{mark.join(header)}\n{row}\n")
    (root / "elsewhere.csv").write_text("b.png,1,2,20,22,cat\n")


def make_crowd(root):
    """A person of whom half is seen."""
    (root / "Images").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(root / "Images" / "a.jpg")
    boxes = {"fbox": [1, 2, 20, 24], "vbox": [1, 2, 20, 12], "hbox": [5, 2, 6, 6]}
    line = {"ID": "a", "gtboxes": [boxes | {"tag": "person", "head_attr": {}, "extra": {}}]}
    (root / "annotation_train.odgt").write_text(json.dumps(line))


def make_coco(root):
    """An image that is none."""
    (root / "train").mkdir(parents=True)
    (root / "train" / "a.jpg").write_text("no image")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 20, 20], "area": 400}
        ],
    }
    (root / "train.json").write_text(json.dumps(content))


def make_yolo(root):
    """A line that is a box with two keypoints or a polygon of four points."""
    (root / "train").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(root / "train" / "a.jpg")
    (root / "data.yaml").write_text("train: train\nval: train\nnames: [cat]\n")
    (root / "train" / "a.txt").write_text("0 0.5 0.5 0.5 0.5 0.4 0.4 0.6 0.5\n")


def make_any(root):
    """Beside a tree of VOC the same split in every other format."""
    shutil.copytree("crowd", root, dirs_exist_ok=True)
    shutil.copytree("coco", root, dirs_exist_ok=True)
    shutil.copy(root / "Images" / "a.jpg", root / "train" / "a.jpg")
    (root / "train.csv").write_text("Images/a.jpg,1,2,20,22,cat\n")
    (root / "data.yaml").write_text("train: train\nval: train\nnames: [cat]\n")
    (root / "train" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")


# ------------------------------------------------------------------------------------------------
# What can be seen of a config
# ------------------------------------------------------------------------------------------------


class Failed(str):
    """Why there is nothing to be seen."""


def records(config):
    """What a training reads, or why it does not."""
    try:
        classes = class_names(config.data)
        splits = (config.data.train, config.data.val)
        return [vars(read_split(config.data, split, classes)) for split in splits]
    except ValueError as error:
        return Failed(error)


def tables(config):
    """`records` of the CSV files of every layout."""
    names = [name + end for name in DELIMITERS for end in (".csv", "_headed.csv")]
    layout = [{"data.train": name, "data.val": name} for name in names]
    return [records(override(config, changes)) for changes in layout]


def train_split(config):
    return read_split(config.data, config.data.train, CLASSES)


def batches(config):
    """All that two epochs feed the network."""
    epochs = sum(phase.epochs for phase in config.train.all_phases())
    stream = training_batches(
        train_split(config),
        config.data,
        config.model.resize,
        batch_size=config.train.all_phases()[0].batch_size,
        seed=config.train.seed,
        epochs=range(epochs),
    )
    return list(stream.as_numpy_iterator())


def reread(config):
    """Whether an image that was read is asked for again: it is gone meanwhile."""
    dataset = train_split(config)
    read, view = image_reader(dataset, config.data.cache), np.array([0, 0, 64, 90])
    read(0, view, np.array([32, 45]), True, 1)
    image = Path(dataset.images[0])
    hidden = image.rename(image.with_suffix(".gone"))
    try:
        return read(0, view, np.array([32, 45]), True, 1)
    except (ValueError, OSError):
        return "read again"
    finally:
        hidden.rename(image)


def blocks(config):
    """What a backbone is made of."""
    backbone = build_backbone(config.model)
    convs = [[block.convs for block in stage] for stage in getattr(backbone, "stages", [])]
    return [[[(c.filters, c.strides) for c in block] for block in stage] for stage in convs]


def outputs(config):
    """Shapes and numbers of a fresh network's outputs, and what of it learns."""
    keras.utils.set_random_seed(0)
    model = build_model(config.model, 2)
    noise = np.random.default_rng(0).integers(0, 255, [1, 128, 128, 3])
    learns = [variable.path for variable in model.trainable_variables]
    found = [model(tf.constant(noise, tf.uint8), training=is_on) for is_on in (True, False)]
    return learns, *({name: value.numpy() for name, value in each.items()} for each in found)


def start(config):
    """The weights that a training begins with."""
    keras.utils.set_random_seed(config.train.seed)
    model = build_model(config.model, len(CLASSES))
    if config.model.weights:
        weights = open_weights(config.model.weights, config.model.backbone)
        transfer(weights, model, config.model, CLASSES)
    return [variable.numpy() for variable in model.variables]


def answers(config):
    """Made-up outputs for two images of 72x104, and objects of three and one: see `losses`."""
    random = np.random.default_rng(3)
    count = len(build_anchors(config.model)(72, 104))
    made_up = {
        "class_logits": random.normal(-2, 2, [2, count, 2]),
        "box_deltas": random.normal([0, 0, 0, 1.5], 0.3, [2, count, 4]),
    }
    batch = {
        "images": tf.zeros([2, 72, 104, 3]),
        "sizes": tf.constant([[72, 104]] * 2),
        "scales": tf.ones([2, 2]),
        "boxes": tf.constant(
            [[[8.0, 8, 30, 40], [0, 0, 9, 70], [60, 5, 99, 50]], [[4, 4, 20, 20], *[[0] * 4] * 2]]
        ),
        "labels": tf.constant([[0, 1, 0], [1, -1, -1]]),
    }
    return {name: tf.constant(value, tf.float32) for name, value in made_up.items()}, batch


def losses(config):
    return [float(value) for value in build_criterion(config)(*answers(config)).values()]


def detections(config):
    found = build_postprocess(config.model)(*answers(config))
    return {name: value.numpy() for name, value in found.items()}


def detected(config):
    """What a saved detector finds when it is used as evaluate.py does."""
    detector = Detector.load("start.npz", config.model, eager=True)
    return vars(detector.detect_dataset(read_split(config.data, "val", CLASSES)))


def deep(config):
    """What a detector finds in an image of 12 bits a value, as the config says how to read it."""
    cv2.imwrite("deep.png", np.random.default_rng(0).integers(0, 4096, (64, 96), np.uint16))
    detector = Detector.load("start.npz", config.model, eager=True)
    return vars(detector.detect("deep.png"))


def rates(config):
    """The learning rate of every batch."""
    dataset, found = train_split(config), []
    for phase in config.train.all_phases():
        steps = steps_per_epoch(dataset, config.data, phase.batch_size) * phase.epochs
        schedule = build_schedule(phase, steps, config.train.accumulate)
        found.append([float(schedule(i)) for i in range(steps)])
    return found


def learning(config):
    """What learns in the first phase, and what kind of step teaches it."""
    model, dataset = build_model(config.model, 2), train_split(config)
    phase = training.plan.plan_phases(config, dataset)[0]
    begun = begin_phase(config, dataset, phase, Progress(data=("", "")), model, None)
    kinds = [type(part) for part in vars(begun).values()]
    return [variable.path for variable in model.trainable_variables], kinds


def updates(config):
    """Two kernels, one of them the backbone's, after each of three batches; then averaged."""
    kernels = [keras.Variable(np.full([2, 2], start), dtype="float32") for start in (1.0, -2.0)]
    model = SimpleNamespace(
        backbone=SimpleNamespace(trainable_variables=kernels[:1]), trainable_variables=kernels
    )
    optimizer, found = build_optimizer(config, ConstantRate(0.1), model), []
    for size in (30.0, 0.5, -2.0):
        optimizer.apply([tf.fill([2, 2], size), tf.fill([2, 2], -size)], kernels)
        found.append([kernel.numpy() for kernel in kernels])
    with averaged(optimizer, kernels):
        return found, [kernel.numpy() for kernel in kernels]


def scores(config):
    """With the data as they are, and in the formats that have a metric of their own.

    Of four objects one is found well, two at an IoU of a half and a little less, one not.
    """
    dataset = train_split(config)
    dataset = dataclasses.replace(dataset, labels=np.zeros_like(dataset.labels))
    kind = np.arange(len(dataset.boxes)) % 4
    boxes = dataset.boxes.astype(np.float64)
    height = boxes[:, 3] - boxes[:, 1]
    boxes[:, 3] = boxes[:, 1] + np.choose(kind, [height, height / 2, height / 2 - 0.4, 0])
    table = DetectionTable(
        image=dataset.image_index[kind < 3],
        boxes=boxes[kind < 3],
        scores=np.linspace(0.9, 0.1, np.count_nonzero(kind < 3)),
        labels=dataset.labels[kind < 3],
        image_ids=dataset.image_ids,
        classes=dataset.classes,
    )
    formats = [{}, {"data.format": "coco"}, {"data.format": "crowdhuman", "data.classes": ()}]
    results = [score(table, dataset, override(config, changes)) for changes in formats]
    return [(result.headline, result.figures) for result in results]


def run(config):
    """All that a run of train.py does and leaves: see `Watch`. Those of a config are one."""
    if repr(config) not in RUNS:
        RUNS[repr(config)] = fresh_run(config)
    return RUNS[repr(config)]


RUNS = {}


def fresh_run(config):
    watch, before = Watch(), set(Path().rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.plan.configs, "load", lambda *_: config)
        patch.setattr(training.phases, "train_step", watch.train_step)
        patch.setattr(training.validation, "validation_step", watch.validation_step)
        patch.setattr(train, "EpochMeter", watch.meter)
        patch.setattr(training.resuming, "save_checkpoint", watch.save)
        patch.setattr(training.reports, "training_curves", lambda *_: None)
        patch.setattr(train, "write_all", lambda *_: None)
        headline = train.main([])
    made = sorted(set(Path().rglob("*")) - before)
    (metrics,) = (path.read_text().splitlines() for path in made if path.name == "metrics.csv")
    clocks = [metrics[0].split(",").index(name) for name in CLOCKS]
    rows = [[v for i, v in enumerate(row.split(",")) if i not in clocks] for row in metrics]
    names = [str(path) for path in made if "tfevents" not in path.name]
    for path in made:
        shutil.rmtree(path, ignore_errors=True)
    return headline, rows, names, watch.seen


CLOCKS = ("images_per_second", "data_wait", "seconds")


class Watch:
    """Looks over the shoulder of a run: steps, validations, reads of the losses, checkpoints."""

    def __init__(self):
        self.seen = []

    def train_step(self, model, criterion, optimizer, batch):
        self.seen.append(["step", model.compute_dtype])
        return train_step(model, criterion, optimizer, batch)

    def validation_step(self, model, criterion, postprocess, batch):
        self.seen.append(["validation", *batch["images"].shape])
        return validation_step(model, criterion, postprocess, batch)

    def save(self, path, *content, **more):
        self.seen.append(["saved", Path(path).name])
        save_checkpoint(path, *content, **more)

    def meter(self, phase, dataset, every):
        """As on a GPU."""
        meter, seen = EpochMeter(phase, dataset, every), self.seen
        meter.every, read = every, meter.read

        def watched():
            seen.append(["read", len(meter.unread)])
            read()

        meter.read = watched
        return meter


# ------------------------------------------------------------------------------------------------
# The settings
# ------------------------------------------------------------------------------------------------

Case = collections.namedtuple("Case", ["observe", "values", "beside"])


def case(observe, *values, **beside):
    """values: each must give another observation. beside: what else it takes, "." as "__"."""
    return Case(observe, values, {name.replace("__", "."): v for name, v in beside.items()})


CSV = {"data__format": "csv", "data__root": "csv", "data__classes": ("cat",)}
RESNET = {"model__backbone": "resnet18"}
BIFPN = {"model__neck": "bifpn"}
BRIEF = {"train__epochs": 1}
SMALL = {"model__resize__short": 41, "model__resize__long": 60}
OPEN = {"loss__box": "smooth_l1"}
MAY_FAIL = {  # setting -> the value that shows itself by an error, and why
    "Data.format": "shapes",  # it would make 1600 images
    "Data.check_images": True,  # what is no image is found
    "Data.on_bad_annotation": "error",
    "Yolo.lines": "",  # refused where lines leave two meanings
}
CASES = {
    "Config.name": case(run, "shapes", "b", **BRIEF),
    "Config.output": case(run, "runs", "elsewhere", **BRIEF),
    "Config.matcher": case(losses, "iou", "atss"),
    # Data
    "Data.format": case(
        records, "voc", "coco", "csv", "yolo", "crowdhuman", "shapes",
        data__root="any", data__val="train",
    ),
    "Data.root": case(records, "shapes", "others"),
    "Data.images": case(
        records, ("pictures",), ("drawings",),
        **CSV, data__train="elsewhere.csv", data__val="elsewhere.csv",
    ),
    "Data.limit": case(records, 0, 1),
    "Data.train": case(records, "train", "val"),
    "Data.val": case(records, "train", "val"),
    "Data.val_fraction": case(records, 0.2, 0.7, data__root="flat"),
    "Data.classes": case(records, (), tuple(CLASSES[::-1])),
    "Data.class_file": case(records, "", "names.csv"),
    "Data.person_box": case(
        records, "full", "visible",
        data__format="crowdhuman", data__root="crowd", data__val="train", data__classes=(),
    ),
    "Data.check_images": case(
        records, True, False, data__format="coco", data__root="coco", data__val="train"
    ),
    "Data.on_bad_annotation": case(records, "error", "drop", data__root="bad"),
    "Data.train_on_difficult": case(batches, True, False),
    "Data.repeat_threshold": case(batches, 0.0, 1.0),
    "Data.cache": case(reread, False, True),
    "Csv.delimiter": case(tables, "", *DELIMITERS, **CSV),
    "Csv.header": case(tables, None, True, False, **CSV),
    "Yolo.lines": case(
        records, "", "boxes", "polygons",
        data__format="yolo", data__root="yolo", data__val="train",
    ),
    **{
        f"Augment.{name}": case(batches, 0.0, 0.5)
        for name in ("brightness", "contrast", "saturation", "hue", "translate")
    },
    **{
        f"Augment.{name}": case(batches, 0.0, 1.0)
        for name in ("flip", "vertical_flip", "iou_crop", "jpeg", "cutout")
    },
    "Augment.blur": case(batches, 0.0, 1.0, model__resize__height=416, model__resize__width=416),
    "Augment.zoom": case(batches, (1.0, 1.0), (0.5, 0.5), (2.0, 2.0)),
    "Augment.rotate": case(batches, 0.0, 30.0),
    "Augment.shear": case(batches, 0.0, 30.0),
    "Augment.canvas_scales": case(batches, (1.0,), (0.5,)),
    "Augment.min_visibility": case(batches, 0.0, 1.0, data__augment__zoom=(2.0, 2.0)),
    **{f"Mixing.{name}": case(batches, 0.0, 1.0) for name in ("mixup", "cutmix", "mosaic")},
    "Mixing.mixup_alpha": case(batches, 0.1, 5.0, data__mixing__mixup=1.0),
    "Mixing.cutmix_alpha": case(batches, 0.1, 5.0, data__mixing__cutmix=1.0),
    "Mixing.closing_epochs": case(batches, 0, 1, data__mixing__mosaic=1.0),
    # Input
    "Model.resize": case(batches, "canvas", "short_long"),
    "Canvas.height": case(batches, 64, 32),
    "Canvas.width": case(batches, 64, 32),
    "Canvas.antialias": case(batches, True, False),
    "ShortLong.short": case(batches, 41, 50, **SMALL),
    "ShortLong.long": case(batches, 50, 60, **SMALL),
    "ShortLong.multiple": case(batches, 32, 1, **SMALL),
    "ShortLong.antialias": case(batches, True, False, **SMALL),
    "ShortLong.rounding": case(batches, "floor", "nearest", **SMALL),
    "ShortLong.always_pad": case(batches, True, False, model__resize__short=64),
    "Model.bits": case(deep, None, 8, 12),
    # Network
    "Model.weights": case(start, None, "start.npz"),
    "Model.aliases": case(start, {}, {CLASSES[0]: CLASSES[1]}, model__weights="start.npz"),
    "Model.backbone": case(blocks, Tiny, *(f"resnet{n}" for n in (18, 34, 50, 101, 152))),
    "Model.bottleneck_stride": case(blocks, "3x3", "1x1", model__backbone="resnet50"),
    "Model.bn_mode": case(outputs, "live", "frozen_stats", "frozen", **RESNET),
    "Model.bn_epsilon": case(outputs, 1e-5, 0.1, **RESNET),
    "Model.same_padding": case(outputs, (), ("conv1",), ("pool1",), ("p6",), ("p7",), **RESNET),
    "Model.neck": case(outputs, "fpn", "panet", "bifpn"),
    "Model.neck_width": case(outputs, 32, 16),
    "Model.p6_from": case(outputs, "c5", "p5"),
    "Model.head_depth": case(outputs, 0, 1),
    "Model.head_width": case(outputs, 32, 16),
    "Model.head_norm": case(outputs, "none", "group"),
    "Model.prior": case(outputs, 0.01, 0.1),
    "Model.normalization": case(outputs, "torch", "caffe"),
    "Bifpn.repeats": case(outputs, 1, 2, **BIFPN),
    "Bifpn.separable": case(outputs, True, False, **BIFPN),
    "Bifpn.norm": case(outputs, "batch", "group", "none", **BIFPN),
    # Anchors, losses, detections
    "Anchors.sizes": case(losses, (16, 32, 64, 128, 256), (8, 16, 32, 64, 128)),
    "Anchors.ratios": case(losses, (0.5, 1.0, 2.0), (1.0,)),
    "Anchors.scales": case(losses, (1.0, 1.5), (1.0,)),
    "Anchors.center_offset": case(losses, 0.5, 0.0),
    "Anchors.stride": case(losses, "nominal", "grid"),
    "Anchors.rounding": case(losses, True, False),
    "Coder.form": case(losses, "center", "corner"),
    "Coder.stds": case(losses, (1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)),
    "Coder.max_log_scale": case(detections, None, 1.0),
    "Matcher.positive_iou": case(losses, 0.5, 0.7),
    "Matcher.negative_iou": case(losses, 0.2, 0.4),
    "Matcher.low_quality": case(losses, True, False),
    "Atss.top_k": case(losses, 9, 1),
    "Loss.alpha": case(losses, None, 0.25),
    "Loss.gamma": case(losses, 0.0, 2.0),
    "Loss.box": case(losses, "smooth_l1", "l1", "giou", "diou", "ciou"),
    "Loss.beta": case(losses, 0.1, 1.0, **OPEN),
    "Loss.box_weight": case(losses, 1.0, 2.0),
    "Loss.normalization": case(losses, "batch", "image"),
    "Detect.score_threshold": case(detections, 0.05, 0.99),
    "Detect.top_k": case(detections, 1000, 3),
    "Detect.nms": case(
        detections, "hard", "linear", "gaussian", model__detect__max_detections=1000
    ),
    "Detect.nms_iou": case(detections, 0.2, 0.8),
    "Detect.soft_sigma": case(detections, 0.5, 0.1, model__detect__nms="gaussian"),
    "Detect.max_detections": case(detections, 100, 3),
    "Detect.flip": case(detected, False, True),
    "Detect.scales": case(detected, (1.0,), (1.0, 2.0)),
    "Detect.precision": case(detected, "float32", "mixed_float16", "mixed_bfloat16"),
    # Training
    "Train.epochs": case(rates, 1, 2),
    "Train.batch_size": case(batches, 1, 2),
    "Train.learning_rate": case(rates, 0.1, 0.2),
    "Train.schedule": case(
        rates, "constant", "cosine", "step", "polynomial", "exponential",
        lambda rate, steps: ConstantRate(rate / steps),
    ),
    "Train.warmup_steps": case(rates, 0, 2),
    "Train.freeze": case(learning, (), ("backbone",), ("neck",), ("class_head",), ("box_head",)),
    "Train.phases": case(rates, [{"epochs": 1}], [{"epochs": 1}] * 2, train__epochs=None),
    "Train.accumulate": case(updates, 1, 2),
    "Train.optimizer": case(updates, "sgd", "adam", "adamw", keras.optimizers.Lion),
    "Train.momentum": case(updates, 0.9, 0.0, train__optimizer="sgd"),
    "Train.weight_decay": case(updates, 0.0, 0.5),
    "Train.clip_norm": case(updates, None, 1.0, train__optimizer="sgd"),
    "Train.backbone_rate": case(updates, 1.0, 0.5),
    "Train.ema": case(updates, None, 0.9),
    "Train.precision": case(run, "float32", "mixed_float16", "mixed_bfloat16", **BRIEF),
    "Train.eager": case(learning, True, False),
    "Train.seed": case(run, 0, 1, **BRIEF),
    "Train.validate_every": case(run, 0, 1),
    "Train.checkpoint_every": case(run, 1, 2),
    "Train.early_stopping": case(run, 0, 1, train__epochs=3),
    "Train.log_every": case(run, 1, 2, **BRIEF),
    "Train.sample_pictures": case(run, 0, 1, **BRIEF),
    "Cosine.final": case(rates, 0.0, 0.5),
    "Step.at": case(rates, (0.2,), (0.5,)),
    "Step.factor": case(rates, 0.1, 0.5),
    "Polynomial.power": case(rates, 0.9, 2.0),
    "Polynomial.final": case(rates, 0.0, 0.5),
    "Exponential.final": case(rates, 0.01, 0.5),
    "Phase.epochs": case(rates, 1, 2),
    "Phase.freeze": case(learning, (), ("neck",)),
    "Phase.batch_size": case(batches, None, 1),
    "Phase.learning_rate": case(rates, None, 0.5),
    "Phase.schedule": case(
        rates, None, "constant", "step", "polynomial", "exponential", train__schedule="cosine"
    ),
    "Phase.warmup_steps": case(rates, None, 0),
    # Evaluation
    "Evaluate.metric": case(scores, "auto", "voc", "coco", "crowdhuman"),
    "Evaluate.iou_thresholds": case(scores, (0.5,), (0.5, 0.75)),
    "Evaluate.ap": case(scores, "area", "11point"),
    "Evaluate.plus_one": case(scores, False, True),
    "Evaluate.strict": case(scores, False, True),
    "Evaluate.batch_size": case(run, 1, 2, **BRIEF),
}  # fmt: skip


def settings(cls=Config, path="", chosen=None):
    """{"Class.field": (dotted name, what chooses its class, its type)} of all but plain groups."""
    found, hints = {}, typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, dotted = hints[field.name], path + field.name
        kinds = [arg for arg in (hint, *typing.get_args(hint)) if _is_group(arg)]
        if kinds != [hint]:
            found[f"{cls.__name__}.{field.name}"] = (dotted, chosen or {}, hint)
        for kind in kinds:
            choice = {dotted: kind.kind} if hasattr(kind, "kind") else {}
            found = settings(kind, f"{dotted}.", (chosen or {}) | choice) | found
    return found


def _is_group(hint):
    return isinstance(hint, type) and issubclass(hint, Checked)


def choices(hint):
    """The values of a setting that there are only a few of."""
    if _is_group(hint):
        return {hint.kind} if hasattr(hint, "kind") else set()
    if hint is bool:
        return {True, False}
    if typing.get_origin(hint) is typing.Literal:
        return set(typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return set()
    return {choice for arg in typing.get_args(hint) for choice in choices(arg)}


SETTINGS = settings()


def with_value(name, value):
    """BASE with a value of a setting, and what it takes to be of use."""
    dotted, chosen, _ = SETTINGS[name]
    changes = {dotted: value}
    if name.startswith("Phase."):
        phase = {"epochs": 1, name.removeprefix("Phase."): value}
        changes = {"train.epochs": None, "train.phases": [phase]}
    return override(BASE, chosen | CASES[name].beside | changes)


def plain(observation):
    """Equal for the same observation alone."""
    if isinstance(observation, dict):
        return tuple((name, plain(value)) for name, value in observation.items())
    if isinstance(observation, (list, tuple)):
        return tuple(plain(value) for value in observation)
    if isinstance(observation, np.ndarray) and observation.dtype != object:
        return observation.shape, str(observation.dtype), observation.tobytes()
    return repr(observation)


def has_failed(observation):
    """Whether nothing but errors was seen."""
    parts = observation if isinstance(observation, list) else [observation]
    return bool(parts) and all(isinstance(part, Failed) for part in parts)


def require_effect(name):
    """Fails where two values of a setting do the same, or one does no more than to fail."""
    seen = {}
    for value in CASES[name].values:
        found = CASES[name].observe(with_value(name, value))
        may_fail = name in MAY_FAIL and value == MAY_FAIL[name]
        assert has_failed(found) == may_fail, f"{name}, {value!r}: {found}"
        observation = plain(found)
        assert observation not in seen, f"{name} does nothing: {value!r} as {seen[observation]!r}"
        seen[observation] = value


def test_every_setting_has_a_case():
    """So that the test below sees them all; of a few choices each has to do something else."""
    assert CASES.keys() == SETTINGS.keys()
    for name, (_, _, hint) in SETTINGS.items():
        missing = choices(hint) - {v for v in CASES[name].values if v.__hash__}
        if name not in ("Phase.schedule",):
            assert not missing, f"{name}: expected a value for {missing}"
        assert len(CASES[name].values) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_does_something(name):
    require_effect(name)


@pytest.mark.slow
@pytest.mark.parametrize("observe", dict.fromkeys(case.observe for case in CASES.values()))
def test_nothing_else_changes_an_observation(observe):
    """Or the test above could not fail."""
    name = next(name for name in CASES if CASES[name].observe is observe)
    config = with_value(name, CASES[name].values[0])
    first = plain(observe(config))
    RUNS.clear()
    assert first == plain(observe(config))


def test_a_dead_setting_is_named(monkeypatch):
    monkeypatch.setattr(data.pipeline, "blur", lambda sample, *_: sample)
    with pytest.raises(AssertionError, match=r"Augment\.blur does nothing: 1\.0 as 0\.0"):
        require_effect("Augment.blur")


def test_a_setting_that_only_fails_is_named(monkeypatch):
    monkeypatch.setitem(CASES, "Data.class_file", case(records, "", "nowhere.csv"))
    with pytest.raises(AssertionError, match=r"Data\.class_file, 'nowhere\.csv': .*No such file"):
        require_effect("Data.class_file")


# ------------------------------------------------------------------------------------------------
# Flags of the command lines
# ------------------------------------------------------------------------------------------------

FLAGS = [
    (train.main, "--resume x --set train.seed=3", "a resumed run keeps its settings, but for"),
    (evaluate.main, "runs/x --detections y", "either weights or --detections"),
    (evaluate.main, "--detections y --eager", "--eager needs a model"),
    (evaluate.main, "--detections y --set model.detect.top_k=9", "top_k=9 needs a model"),
    (evaluate.main, "--detections y --set evaluate.batch_size=9", "batch_size=9 needs a model"),
    (evaluate.main, "--metric voc --set evaluate.metric=coco", "either --metric or --set"),
    (visualize.main, "photo.jpg --split val", "either a source or"),
    (check.main, "--anchors --out x", "neither --out nor --no-pixels"),
    (check.main, "--anchors --no-pixels", "neither --out nor --no-pixels"),
    (convert.main, "x --to coco --out y --seed 3", "--seed is of --split-fractions"),
    (convert.main, "x --to coco --out y --names a", "--names and --make-class-file go together"),
    *(
        (convert.main, f"--names a --make-class-file x {flags}", "it takes --names alone")
        for flags in ("--to coco", "--splits train", "--images copy", "--seed 3", "--classes a",
                      "--person-box full", "--on-bad-annotation drop", "--images-from b")
    ),
    *(
        (convert.main, f"x --make-class-map y {flags}", "it takes SOURCE, --from and --splits")
        for flags in ("--out z", "--classes a", "--class-map b", "--split-fractions a=1",
                      "--images none", "--on-bad-annotation drop")
    ),
    (download.main, "crowdhuman --keep-archives", "--keep-archives: those of crowdhuman come by"),
    (preview.main, "--columns 0", "--columns: expected at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("main", "line", "message"), FLAGS, ids=[line for _, line, _ in FLAGS])
def test_flags_that_would_do_nothing_are_refused(main, line, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
