"""This project. Variants: "compiled"; for inference "frozen"; for training "eager"."""

import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from benchmarks.contestants.job import LEARNING_RATE, MOMENTUM, Job, images_of, objects_of
from configs.schema import Config, Loss, Matcher, Model, Train
from core.build import build_criterion, build_model, build_optimizer, build_postprocess
from core.engine import compiled, predict, train_step
from core.predictor import frozen
from core.retinanet import RetinaNet
from core.weights.npz_files import Weights
from core.weights.transfer import transfer

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def make(job: Job) -> Callable[[], dict]:
    return {"inference": _inference, "train": _training}[job.task](job)


def _loaded(job: Job) -> tuple[RetinaNet, Model]:
    """The model in the job's precision, and its conventions."""
    weights = Weights.load(f"{job.weights}/weights.npz")
    model = build_model(weights.model, job.classes, POLICIES[job.precision])
    transfer(weights, model, weights.model, weights.classes)
    return model, weights.model


def _inference(job: Job) -> Callable[[], dict]:
    model, config = _loaded(job)
    postprocess = build_postprocess(config)
    batch = batch_of(job)
    step = lambda batch: predict(model, postprocess, batch)  # noqa: E731
    if job.variant == "frozen":
        step = frozen(step, model, spec_of(batch))
    else:
        step = compiled(step, spec_of(batch))

    def infer() -> dict:
        found = {name: value.numpy() for name, value in step(batch).items()}
        count = found["counts"][0]
        return {name: found[name][0, :count] for name in ("boxes", "scores", "labels")}

    return infer


def _training(job: Job) -> Callable[[], dict]:
    """With torchvision's losses, so that they can be compared."""
    model, conventions = _loaded(job)
    config = Config(
        model=conventions,
        matcher=Matcher(low_quality=True),
        loss=Loss(box="l1", normalization="image"),
        train=Train(learning_rate=LEARNING_RATE, momentum=MOMENTUM, clip_norm=None),
    )
    criterion = build_criterion(config)
    optimizer = build_optimizer(config, LEARNING_RATE, model)
    batch = batch_of(job)
    step = compiled(
        lambda batch: train_step(model, criterion, optimizer, batch),
        spec_of(batch),
        eager=job.variant == "eager",
    )

    def train() -> dict:
        losses = step(batch)
        return {name: losses[name].numpy() for name in ("class_loss", "box_loss")}

    return train


def batch_of(job: Job) -> dict[str, tf.Tensor]:
    """The images of a job and what their task needs beside them."""
    batch = {"images": tf.constant(images_of(job)), "sizes": tf.fill([job.batch, 2], job.size)}
    if job.task == "inference":
        return batch | {"scales": tf.ones([job.batch, 2])}
    boxes, labels = objects_of(job)
    return batch | {"boxes": tf.constant(boxes), "labels": tf.constant(labels)}


def spec_of(batch: dict[str, tf.Tensor]) -> dict[str, tf.TensorSpec]:
    return {name: tf.TensorSpec(value.shape, value.dtype) for name, value in batch.items()}
