"""keras-hub's RetinaNetObjectDetector. Variants: "no XLA", "XLA".

With the same weights its network gives the same numbers, but its NMS takes one class an anchor,
knows no classes and cuts no level to its best 1,000, so that its detections are others. Its images
come normalised, outside the time. Its losses are its own.
"""

import os
import re
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from benchmarks.contestants.job import (
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Job,
    images_of,
    objects_of,
)
from configs.schema import Model
from core.weights.formats.format import Format
from core.weights.npz_files import Weights

BLOCKS = {18: ("basic_block", [2, 2, 2, 2]), 50: ("bottleneck_block", [3, 4, 6, 3])}


def _block(found: re.Match) -> str:
    stage, block, number, kind = found.groups()
    layer = f"downsample_{int(kind == 'bn')}" if number == "0" else f"{kind}{number}"
    return f"backbone/layer{int(stage) + 1}_{block}/{layer}"


NAMES = Format(  # their layers -> ours, which the file of weights names
    name="keras-hub",
    library="keras",
    marks=(),
    layers=(
        (r"conv1_(conv|bn)", r"backbone/\g<1>1"),
        (r"stack(\d)_block(\d+)_(\d)_(conv|bn)", _block),
        (r"fpn/(lateral|output)_conv_P(\d)", r"neck/\1\2"),
        (r"fpn/coarser_P(\d)", r"neck/p\1"),
        (r"(class|box)(?:ification)?_head/conv2d_(\d)", r"\1_head/conv\2"),
        (r"(class|box)(?:ification)?_head/logits_layer", r"\1_head/output"),
    ),
    conventions=Model(),
)


class Detector(keras_hub.models.RetinaNetObjectDetector):
    """As it is, but for a cast without which it cannot decode half precision."""

    def decode_predictions(self, predictions: dict[str, tf.Tensor], data: tf.Tensor) -> dict:
        predictions = {name: keras.ops.cast(p, "float32") for name, p in predictions.items()}
        return super().decode_predictions(predictions, data)


def make(job: Job) -> Callable[[], dict]:
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[job.precision]
    keras.config.set_dtype_policy(policy)
    detector = _build(job)
    _load(detector, f"{job.weights}/weights.npz")
    images = images_of(job) / np.float32(255)
    images = ((images - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)
    return {"inference": _inference, "train": _training}[job.task](job, detector, images)


def _build(job: Job) -> Detector:
    shape = (job.size, job.size, 3)
    block, counts = BLOCKS[job.depth]
    resnet = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=counts,
        stackwise_num_strides=[1, 2, 2, 2],
        block_type=block,
        image_shape=shape,
    )
    backbone = keras_hub.models.RetinaNetBackbone(
        image_encoder=resnet, min_level=3, max_level=7, use_p5=False, image_shape=shape
    )
    decoder = keras_hub.layers.NonMaxSuppression(
        "xyxy", from_logits=True, confidence_threshold=0.05, max_detections=300
    )
    detector = Detector(backbone, job.classes, "xyxy", prediction_decoder=decoder)
    detector.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY),
        jit_compile=job.variant == "XLA",
    )
    return detector


def _load(detector: Detector, file: str) -> None:
    arrays = Weights.load(file).arrays
    for variable in detector.variables:
        place = NAMES.place(variable.path)
        assert place, "ignored is nothing"
        variable.assign(arrays[place])


def _inference(job: Job, detector: Detector, images: np.ndarray) -> Callable[[], dict]:
    """What `predict` calls for each step; predict_on_batch fails in its decode_predictions."""
    detector.make_predict_function()
    steps = [tf.constant(images)]

    def infer() -> dict:
        found = detector.predict_function(steps)
        count = int(found["num_detections"][0])
        names = {"boxes": "boxes", "scores": "confidence", "labels": "labels"}
        return {ours: found[theirs][0, :count].numpy() for ours, theirs in names.items()}

    return infer


def _training(job: Job, detector: Detector, images: np.ndarray) -> Callable[[], dict]:
    """What `fit` calls for each step; train_on_batch takes no labels in a dict."""
    boxes, labels = objects_of(job)
    batch = (images, {"boxes": boxes, "labels": labels})
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    detector.fit(batches, steps_per_epoch=1, verbose=0)
    iterator = iter(batches)
    return lambda: {"loss": float(detector.train_function(iterator)["loss"])}
