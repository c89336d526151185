"""A dataset on disk -> tf.data batches, the same way for training, evaluation and pictures.

A batch is a dict: images (B, H, W, 3) float32 RGB 0-255, zero-padded at the bottom and right;
sizes (B, 2) int32 height, width of the content; scales (B, 2) float32 x, y: input pixels a pixel of
the (augmented) image; boxes (B, G, 4) float32 xyxy in input pixels; labels (B, G) int32, PADDING
where there is no object and IGNORE for regions; index (B,) int64 of the image in the dataset.
Everything random comes from (seed, epoch, index) alone.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from configs.schema import Augment, Canvas, Data, ShortLong
from data.augment import color_jitter, flip, zoom
from data.images import decode_image
from data.records import Dataset, DatasetError
from data.resize import pad, resize
from utils.boxes import IGNORE, PADDING


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Full batches in an epoch. Raises ValueError where the dataset is smaller than a batch."""
    if len(dataset) < batch_size:
        raise ValueError(
            f"train.batch_size: expected at most the {len(dataset)} images of {dataset.name}, "
            f"found {batch_size}"
        )
    return len(dataset) // batch_size


def training_batches(
    dataset: Dataset,
    data: Data,
    rule: Canvas | ShortLong,
    *,
    batch_size: int,
    seed: int,
    epochs: range,
    skip_steps: int = 0,
    read: Callable | None = None,
) -> tf.data.Dataset:
    """Shuffled, augmented batches of `epochs`, without those of the first `skip_steps` steps.

    read: index -> image, see `image_reader`; the default makes one as `data.cache` says.
    Each epoch is a permutation of its own, cut to full batches. Skipped samples are never read, so
    a resumed run goes on where it was.
    """
    num_samples = steps_per_epoch(dataset, batch_size) * batch_size
    load = _loader(dataset, read or image_reader(dataset, data.cache), data.train_on_difficult)

    def order(epoch):
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        shuffled = tf.random.experimental.stateless_shuffle(np.arange(len(dataset)), key)
        pairs = tf.data.Dataset.from_tensor_slices(shuffled[:num_samples])
        return pairs.map(lambda index: (epoch, index))

    def sample(epoch, index):
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        key = tf.random.experimental.stateless_fold_in(key, index)
        return augmented(load(index), data.augment, rule, key)

    stream = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(order)
    stream = stream.skip(skip_steps * batch_size).map(sample, tf.data.AUTOTUNE)
    return _batched(stream, rule, batch_size, drop_remainder=True)


def evaluation_batches(
    dataset: Dataset,
    rule: Canvas | ShortLong,
    *,
    batch_size: int,
    train_on_difficult: bool = True,
    read: Callable | None = None,
) -> tf.data.Dataset:
    """Every image once, in order, unchanged but for the resizing; the last batch may be smaller."""
    load = _loader(dataset, read or image_reader(dataset), train_on_difficult)
    stream = tf.data.Dataset.range(len(dataset))
    stream = stream.map(lambda index: _resized(load(index), rule), tf.data.AUTOTUNE)
    return _batched(stream, rule, batch_size, drop_remainder=False)


def checked(batches: tf.data.Dataset) -> Iterator[dict]:
    """Iterates, raising a reader's DatasetError as it was, without TensorFlow's wrapping."""
    try:
        yield from batches
    except tf.errors.OpError as error:
        found = re.search(r"DatasetError: (.*)", error.message)
        if not found:
            raise
        raise DatasetError(found[1]) from None


def augmented(sample: dict, augment: Augment, rule: Canvas | ShortLong, key: tf.Tensor) -> dict:
    """One sample changed as the settings say and resized; `key` (2,) is its stateless seed."""
    seeds = tf.random.split(key, 4)
    image, boxes, labels = sample["images"], sample["boxes"], sample["labels"]
    if augment.flip:
        image, boxes = flip(image, boxes, seeds[0], augment.flip)
    if augment.vertical_flip:
        image, boxes = flip(image, boxes, seeds[1], augment.vertical_flip, vertical=True)
    if augment.zoom != (1.0, 1.0):
        image, boxes, labels = zoom(
            image, boxes, labels, seeds[2], augment.zoom, augment.min_visibility
        )
    strengths = (augment.brightness, augment.contrast, augment.saturation, augment.hue)

    def recolor(image):
        return color_jitter(image, seeds[3], *strengths) if any(strengths) else image

    return _resized(sample | {"images": image, "boxes": boxes, "labels": labels}, rule, recolor)


def image_reader(dataset: Dataset, cache: bool = False) -> Callable:
    """A function index -> (H, W, 3) uint8; with `cache` it decodes each image once and keeps it."""
    memory: dict[int, np.ndarray] = {}

    def read(index):
        index = int(index)
        if index in memory:
            return memory[index]
        image = decode_image(dataset.images[index])
        if cache:
            memory[index] = image
        return image

    return read


def _loader(dataset: Dataset, read: Callable, train_on_difficult: bool) -> Callable:
    """index -> the sample as it is on disk, for use inside tf.data."""
    boxes, row_splits = tf.constant(dataset.boxes), tf.constant(dataset.row_splits)
    labels = dataset.labels
    if not train_on_difficult:
        labels = np.where(dataset.difficult, IGNORE, labels)
    labels = tf.constant(labels, tf.int32)

    def load(index):
        image = tf.ensure_shape(tf.numpy_function(read, [index], tf.uint8), [None, None, 3])
        start, end = row_splits[index], row_splits[index + 1]
        return {
            "images": image,
            "boxes": boxes[start:end],
            "labels": labels[start:end],
            "index": index,
        }

    return load


def _resized(
    sample: dict, rule: Canvas | ShortLong, recolor: Callable = lambda image: image
) -> dict:
    """The sample at the network's size; colours are changed there, where there are fewer pixels."""
    image, scales = resize(sample["images"], rule)
    size = tf.shape(image)[:2]
    image = pad(recolor(image), rule)
    boxes = sample["boxes"] * tf.concat([scales, scales], axis=0)
    return sample | {"images": image, "boxes": boxes, "sizes": size, "scales": scales}


def _batched(stream, rule, batch_size: int, drop_remainder: bool) -> tf.data.Dataset:
    size = [rule.height, rule.width] if isinstance(rule, Canvas) else [None, None]
    shapes = {
        "images": [*size, 3],
        "boxes": [None, 4],
        "labels": [None],
        "index": [],
        "sizes": [2],
        "scales": [2],
    }
    padding = {name: np.array(PADDING, np.int32) if name == "labels" else None for name in shapes}
    stream = stream.padded_batch(batch_size, shapes, padding, drop_remainder)
    return stream.prefetch(tf.data.AUTOTUNE)
