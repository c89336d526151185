"""The work of growth.py, a function a curve; `make(curve, at, folder)` builds one point of it.

Each takes what grows and returns a function that does the work once; a dataset's image lies in
`folder`.
"""

import os
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np
import tensorflow as tf

from benchmarks.contestants.job import Job, objects_of
from benchmarks.contestants.ours import batch_of, spec_of
from configs.schema import Canvas, Config, Data, Detect, Model, Train
from core.build import (
    build_anchors,
    build_criterion,
    build_model,
    build_optimizer,
    build_postprocess,
)
from core.engine import compiled, predict, train_step
from data.pipeline import training_batches
from data.records import Dataset, Defects, assemble
from utils.boxes import PADDING

SIZE, CLASSES, BATCH = 416, 20, 2
BOXES_A_RECORD = 4
IMAGES_A_RUN = 256  # of the curve "images"
MODEL = Model(backbone="resnet18")


def make(curve: str, at: int, folder: str) -> Callable[[], dict]:
    if curve in OF_DATASETS:
        return OF_DATASETS[curve](at, folder)
    return OF_TENSORS[curve](at)


def random_outputs(size: int, classes: int, batch: int) -> dict[str, tf.Tensor]:
    """What a trained network says: most logits low, a few per mille above a score of .05."""
    counts = build_anchors(MODEL).level_counts(size, size)
    anchors = sum(int(count) for count in counts)
    return {
        "class_logits": tf.random.stateless_normal([batch, anchors, classes], [0, 1], mean=-6.5),
        "box_deltas": tf.random.stateless_normal([batch, anchors, 4], [2, 3], stddev=0.1),
    }


def targets_and_losses(boxes: int) -> Callable[[], dict]:
    """The criterion and its gradient by the network's outputs."""
    criterion = build_criterion(Config(model=MODEL))
    outputs = random_outputs(SIZE, CLASSES, BATCH)
    gt_boxes, labels = objects_of(_job("train", SIZE, CLASSES), max(boxes, 1))
    labels = labels if boxes else np.full_like(labels, PADDING)
    batch = {
        "images": tf.zeros([BATCH, SIZE, SIZE, 3]),
        "boxes": tf.constant(gt_boxes),
        "labels": tf.constant(labels),
    }

    def step(outputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = criterion(outputs, batch)["loss"]
        return loss, tape.gradient(loss, outputs)

    step = tf.function(step)
    return lambda: {"loss": step(outputs)[0].numpy()}


def training(classes: int) -> Callable[[], dict]:
    """A whole step of ResNet-18."""
    config = Config(model=MODEL, train=Train(clip_norm=None))
    model = build_model(MODEL, classes)
    criterion, optimizer = build_criterion(config), build_optimizer(config, 1e-3, model)
    batch = batch_of(_job("train", SIZE, classes))
    batch["images"] = tf.cast(batch["images"], tf.float32)
    step = compiled(lambda batch: train_step(model, criterion, optimizer, batch), spec_of(batch))
    return lambda: {"loss": step(batch)["loss"].numpy()}


def postprocessing(classes: int) -> Callable[[], dict]:
    postprocess = build_postprocess(MODEL)
    outputs = random_outputs(SIZE, classes, batch=1)
    images = tf.zeros([1, SIZE, SIZE, 3])
    batch = {"images": images, "sizes": tf.fill([1, 2], SIZE), "scales": tf.ones([1, 2])}
    step = tf.function(lambda outputs: postprocess(outputs, batch))
    return lambda: {"counts": step(outputs)["counts"].numpy()}


def inference(side: int) -> Callable[[], dict]:
    """ResNet-18; its threshold lets all candidates of a fresh network through to NMS."""
    model = build_model(MODEL, CLASSES)
    postprocess = build_postprocess(Model(backbone="resnet18", detect=Detect(score_threshold=0.0)))
    batch = batch_of(_job("inference", side, CLASSES))
    step = compiled(lambda batch: predict(model, postprocess, batch), spec_of(batch))
    return lambda: {"counts": step(batch)["counts"].numpy()}


def _job(task: str, size: int, classes: int) -> Job:
    return Job("ours", task, "float32", "compiled", 18, size, classes, weights="")


# ------------------------------------------------------------------------------------------------
# Datasets
# ------------------------------------------------------------------------------------------------


def records(count: int, folder: str) -> list[np.ndarray]:
    """The boxes of each of so many images, which share one small file: decoding takes no part."""
    cv2.imwrite(f"{folder}/shared.png", np.zeros([64, 64, 3], np.uint8))
    corners = np.random.default_rng(0).uniform(0, 32, [count, BOXES_A_RECORD, 2])
    return list(np.concatenate([corners, corners + 16], axis=2))


def _packed(boxes: list[np.ndarray], folder: str) -> Dataset:
    count = len(boxes)
    return assemble(
        "generated",
        ["thing"],
        images=[f"{folder}/shared.png"] * count,
        image_ids=[f"{i:07d}" for i in range(count)],
        sizes=np.full((count, 2), 64),
        image_index=np.repeat(np.arange(count), [*map(len, boxes)]),
        boxes=np.concatenate(boxes),
        labels=np.zeros(count * BOXES_A_RECORD),
        defects=Defects(),
    )


def packing(count: int, folder: str) -> Callable[[], dict]:
    found = records(count, folder)
    return lambda: {"boxes": len(_packed(found, folder).boxes)}


def first_batch(count: int, folder: str) -> Callable[[], dict]:
    """From a packed dataset to its first shuffled, augmented batch."""
    dataset = _packed(records(count, folder), folder)
    return lambda: {"index": next(_stream(dataset))["index"].numpy()}


def images(count: int, folder: str) -> Callable[[], dict]:
    """So many images of a stream that goes on; small datasets begin new epochs meanwhile."""
    stream = _stream(_packed(records(count, folder), folder))
    next(stream)

    def draw() -> dict:
        for _ in range(IMAGES_A_RUN // 8):
            index = next(stream)["index"]
        return {"index": index.numpy()}

    return draw


def _stream(dataset: Dataset) -> Iterator[dict[str, tf.Tensor]]:
    data, rule = Data(cache=True), Canvas(64, 64)
    return iter(training_batches(dataset, data, rule, batch_size=8, seed=0, epochs=range(10**6)))


OF_TENSORS = {
    "targets and losses": targets_and_losses,
    "train step": training,
    "postprocess": postprocessing,
    "inference": inference,
}
OF_DATASETS = {"pack records": packing, "first batch": first_batch, "images": images}
