"""The steps of training and prediction: plain functions that run eagerly line by line.

`compiled` wraps one in a graph; nothing else differs between `--eager` and the default.
A batch is a dict: images (B, H, W, 3), sizes (B, 2), scales (B, 2), boxes (B, G, 4), labels (B, G),
weights (B, G), index (B,).
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import keras
import tensorflow as tf

from core.histograms import score_histograms
from core.losses import Criterion
from core.postprocess import Postprocess
from core.tta import join_mirrored, scaled, with_mirrored

Outputs = TypeVar("Outputs")


def train_step(
    model: keras.Model,
    criterion: Criterion,
    optimizer: keras.optimizers.Optimizer,
    batch: dict[str, tf.Tensor],
) -> dict[str, tf.Tensor]:
    """Runs forward and backward on one batch and applies the gradients (accumulated if configured).

    Returns the criterion's scalars.
    """
    with tf.GradientTape() as tape:
        outputs = model(batch["images"], batch["sizes"], training=True)
        losses = criterion(outputs, batch)
        # model.losses: regularisers that a part of the user's own may bring.
        scaled_loss = optimizer.scale_loss(tf.add_n([losses["loss"], *model.losses]))
    gradients = tape.gradient(scaled_loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return losses


def validation_step(
    model: keras.Model,
    criterion: Criterion,
    postprocess: Postprocess,
    batch: dict[str, tf.Tensor],
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """The criterion's scalars, `score_histograms` and the detections of a batch, from one forward
    pass: one view."""
    outputs = model(batch["images"], batch["sizes"], training=False)
    targets = criterion.targets(batch)
    histograms = score_histograms(outputs["class_logits"], batch["labels"], targets.matches)
    return criterion(outputs, batch, targets), histograms, postprocess(outputs, batch)


def predict(
    model: keras.Model,
    postprocess: Postprocess,
    batch: dict[str, tf.Tensor],
    *,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
) -> dict[str, tf.Tensor]:
    """Detections of a batch in original pixels, see `Postprocess.suppress`.

    flip, scales: see `candidates`. The candidates of all views go through one NMS.
    """
    found = candidates(model, postprocess, batch, flip=flip, scales=scales)
    return postprocess.suppress(*found, batch)


def candidates(
    model: keras.Model,
    postprocess: Postprocess,
    batch: dict[str, tf.Tensor],
    *,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes and scores of a batch before NMS, see `Postprocess.candidates`.

    flip: also look at the mirrored images. scales: look at these multiples of the input's size.
    """
    views = with_mirrored(batch) if flip else batch
    found = []
    for scale in scales:
        view = scaled(views, scale)
        outputs = model(view["images"], view["sizes"], training=False)
        boxes, scores = postprocess.candidates(outputs, view["images"])
        found.append((boxes / scale, scores))
    boxes, scores = (tf.concat(parts, axis=1) for parts in zip(*found, strict=True))
    if flip:
        return join_mirrored(boxes, scores, batch["sizes"])
    return boxes, scores


def compiled(
    step: Callable[[dict[str, tf.Tensor]], Outputs],
    element_spec: dict[str, tf.TensorSpec],
    eager: bool = False,
    *,
    by_size: bool = False,
) -> Callable[[dict[str, tf.Tensor]], Outputs]:
    """`step(batch)` as a graph traced once for all batches of `element_spec`; as it is if eager.

    by_size: traced once for each height and width of the images, so that anchors are constants in
        each graph. For batches of a few sizes.
    """
    if eager:
        return step
    # Without AutoGraph, which nothing here needs and which takes a third of the tracing. It does
    # not reach layers in any case: Keras calls them unconverted.
    if not by_size:
        return tf.function(step, input_signature=[element_spec], autograph=False)

    @functools.cache
    def graph(*shape: int) -> Callable[[dict[str, tf.Tensor]], Outputs]:
        images = tf.TensorSpec(shape, element_spec["images"].dtype)
        return tf.function(
            step, input_signature=[element_spec | {"images": images}], autograph=False
        )

    return lambda batch: graph(*batch["images"].shape)(batch)
