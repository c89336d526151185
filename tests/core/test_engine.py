"""A model learns: eight images by heart, and the steps do the same eagerly and compiled."""

import numpy as np
import pytest
import tensorflow as tf

import configs
from core.build import build_criterion, build_model, build_optimizer, build_postprocess
from core.engine import compiled, predict, train_step
from core.metrics.arrays import Detections, GroundTruth
from core.metrics.voc import voc_metric
from core.optimizers import make_optimizer
from core.schedules import cosine
from data.pipeline import evaluation_batches, training_batches
from data.shapes import CLASSES, make_shapes
from data.voc import read_voc
from detector import gather_detections

STEPS = 100


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = make_shapes(tmp_path_factory.mktemp("data") / "eight", 8, 1, image_size=(96, 96))
    return read_voc(root, "train", CLASSES)


def test_eight_images_are_learnt_by_heart(dataset):
    """mAP 1 at IoU .5 and at least .95 at .75, from scratch, with a small model."""
    config = configs.preset(
        "overfit",
        {
            "model.resize.height": 96,
            "model.resize.width": 96,
            "model.anchors.sizes": (12, 24, 48, 96, 192),
        },
    )
    tf.keras.utils.set_random_seed(0)
    model = build_model(config.model, len(CLASSES))
    criterion = build_criterion(config)
    optimizer = build_optimizer(config, cosine(1e-3, STEPS), model)
    batches = training_batches(
        dataset, config.data, config.model.resize, batch_size=8, seed=0, epochs=range(STEPS)
    )
    step = compiled(
        lambda batch: train_step(model, criterion, optimizer, batch), batches.element_spec
    )
    losses = [float(step(batch)["loss"]) for batch in batches]
    assert losses[-1] < losses[0] / 20
    assert step.experimental_get_tracing_count() == 1

    postprocess = build_postprocess(config.model)
    found = [
        (batch["index"], predict(model, postprocess, batch))
        for batch in evaluation_batches(dataset, config.model.resize, batch_size=8)
    ]
    table = gather_detections(found, dataset.image_ids, CLASSES)
    result = voc_metric(
        Detections(table.image, table.boxes, table.scores, table.labels),
        GroundTruth(dataset.image_index, dataset.boxes, dataset.labels, dataset.difficult),
        len(CLASSES),
        (0.5, 0.75),
    )
    assert result.map_area[0] == 1.0
    assert result.map_area[1] >= 0.95


def small_step(dataset, eager: bool, epochs: int):
    """A model of the same weights each time -> model, its training step, batches of 4."""
    changes = {"neck_width": 8, "head_width": 8, "head_depth": 1}
    changes |= {"resize.height": 64, "resize.width": 64}
    config = configs.preset("shapes", {f"model.{name}": v for name, v in changes.items()})
    tf.keras.utils.set_random_seed(1)
    model = build_model(config.model, len(CLASSES))
    criterion = build_criterion(config)
    optimizer = make_optimizer("sgd", 1e-3, model.trainable_variables)
    batches = training_batches(
        dataset, config.data, config.model.resize, batch_size=4, seed=0, epochs=range(epochs)
    )
    step = compiled(
        lambda batch: train_step(model, criterion, optimizer, batch), batches.element_spec, eager
    )
    return model, step, batches


@pytest.mark.parametrize("eager", [True, False])
def test_one_trace_serves_batches_with_any_number_of_objects(dataset, eager):
    """Four batches through one step; eagerly there is nothing to trace."""
    _, step, batches = small_step(dataset, eager, epochs=2)
    assert len({batch["boxes"].shape[1] for batch in batches}) > 1
    assert np.isfinite([float(step(batch)["loss"]) for batch in batches]).all()
    if not eager:
        assert step.experimental_get_tracing_count() == 1


def test_a_step_does_the_same_eagerly_and_compiled(dataset, monkeypatch):
    """From equal weights: equal losses and equal weights, statistics included.

    With softplus for relu: a unit within rounding of 0 has another slope to either side, and moves
    the gradient by 1e-2 of its norm, as an image brighter by 1e-7 does.
    """
    monkeypatch.setattr(tf.nn, "relu", tf.nn.softplus)
    results = []
    for eager in (True, False):
        model, step, batches = small_step(dataset, eager, epochs=1)
        losses = {name: float(value) for name, value in step(next(iter(batches))).items()}
        results.append((losses, model.get_weights()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
