"""The steps of training and prediction: plain functions that run eagerly line by line.

`compiled` wraps one in a graph; nothing else differs between `--eager` and the default.
A batch is a dict: images (B, H, W, 3), sizes (B, 2), scales (B, 2), boxes (B, G, 4), labels (B, G),
index (B,).
"""

from collections.abc import Callable

import tensorflow as tf


def train_step(model, criterion, optimizer, batch: dict) -> dict[str, tf.Tensor]:
    """One update of the model's trainable weights; returns the criterion's scalars."""
    with tf.GradientTape() as tape:
        outputs = model(batch["images"], batch["sizes"], training=True)
        losses = criterion(outputs, batch)
        # model.losses: regularisers that a part of the user's own may bring.
        scaled_loss = optimizer.scale_loss(tf.add_n([losses["loss"], *model.losses]))
    gradients = tape.gradient(scaled_loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return losses


def validation_step(model, criterion, postprocess, batch: dict) -> tuple[dict, dict]:
    """The criterion's scalars and the detections of a batch, from one forward pass."""
    outputs = model(batch["images"], batch["sizes"], training=False)
    return criterion(outputs, batch), postprocess(outputs, batch)


def predict(model, postprocess, batch: dict) -> dict[str, tf.Tensor]:
    """Detections of a batch in original pixels, see `Postprocess`."""
    return postprocess(model(batch["images"], batch["sizes"], training=False), batch)


def compiled(step: Callable, element_spec: dict, eager: bool = False) -> Callable:
    """`step(batch)` as a graph traced once for all batches of `element_spec`; as it is if eager."""
    return step if eager else tf.function(step, input_signature=[element_spec])
