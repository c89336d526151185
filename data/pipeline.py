"""A dataset on disk -> tf.data batches, the same way for training, evaluation and pictures.

A batch is a dict: images (B, H, W, 3) RGB 0-255, zero-padded at the bottom and right, uint8 where
the rule smooths (antialias) and float32 where it does not; sizes (B, 2) int32 height, width of the
content; scales (B, 2) float32 x, y: input pixels a pixel of the image; boxes (B, G, 4) float32 xyxy
in input pixels; labels (B, G) int32, PADDING where there is no object and IGNORE for regions;
weights (B, G) float32, how much an object counts in the losses, 0 where there is none; index (B,)
int64 of the image in the dataset.
Everything random comes from (seed, epoch, index) alone.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from configs.schema import Canvas, Data, ShortLong
from data.augment import color_matrix, flip, zoom
from data.records import Dataset, DatasetError, learnable
from data.render import compose, image_reader, pad, recolor
from data.resize import fitted_size, padded_size
from data.samples import Sample
from data.views import View, clip, place, reduction, whole
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

    read: see `image_reader`; the default makes one as `data.cache` says.
    Each epoch is a permutation of its own, cut to full batches. Skipped samples are never read, so
    a resumed run goes on where it was.
    """
    num_samples = steps_per_epoch(dataset, batch_size) * batch_size
    sample = training_sample(dataset, data, rule, seed, read)

    def order(epoch):
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        shuffled = tf.random.experimental.stateless_shuffle(np.arange(len(dataset)), key)
        indices = tf.data.Dataset.from_tensor_slices(shuffled[:num_samples])
        return indices.map(lambda index: (index, epoch))

    stream = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(order)
    stream = stream.skip(skip_steps * batch_size)
    return _batched(stream, sample, rule, batch_size, drop_remainder=True)


def evaluation_batches(
    dataset: Dataset,
    rule: Canvas | ShortLong,
    *,
    batch_size: int,
    train_on_difficult: bool = True,
    read: Callable | None = None,
) -> tf.data.Dataset:
    """Every image once, in order, unchanged but for the resizing; the last batch may be smaller."""
    sizes, objects = dataset.sizes[:, ::-1], _objects(dataset, train_on_difficult)
    render = _renderer(dataset, rule, read or image_reader(dataset))

    def sample(index):
        view = whole(sizes[index], rule)
        boxes, labels = objects(index)
        return _row(index, Sample.of(render(index, view), place(boxes, view), labels), view, rule)

    stream = tf.data.Dataset.range(len(dataset))
    return _batched(stream, sample, rule, batch_size, drop_remainder=False)


def checked(batches: tf.data.Dataset) -> Iterator[dict]:
    """Iterates, raising a reader's DatasetError as it was, without TensorFlow's wrapping."""
    try:
        yield from batches
    except tf.errors.OpError as error:
        found = re.search(r"DatasetError: (.*)", error.message)
        if not found:
            raise
        raise DatasetError(found[1]) from None


def training_sample(
    dataset: Dataset,
    data: Data,
    rule: Canvas | ShortLong,
    seed: int,
    read: Callable | None = None,
) -> Callable:
    """A function (index, epoch) -> one row of a batch as the settings change it, in NumPy.

    tf.data calls it from its threads; called by hand, breakpoints work in every line.
    """
    augment, sizes = data.augment, dataset.sizes[:, ::-1]
    objects = _objects(dataset, data.train_on_difficult)
    read = read or image_reader(dataset, data.cache)
    render = _renderer(dataset, rule, read, augment.zoom[1])
    strengths = (augment.brightness, augment.contrast, augment.saturation, augment.hue)

    def single(index, rng):
        """The sample of one image, and its view."""
        values = rng.random(9)
        boxes, labels = objects(index)
        if augment.zoom == (1.0, 1.0):
            view = whole(sizes[index], rule)
        else:
            view = zoom(sizes[index], rule, values[2:5], augment.zoom)
            boxes, labels = clip(boxes, labels, view, augment.min_visibility)
        view = flip(view, values[0], augment.flip)
        view = flip(view, values[1], augment.vertical_flip, vertical=True)
        matrix = color_matrix(values[5:9], *strengths) if any(strengths) else None
        return Sample.of(render(index, view, matrix), place(boxes, view), labels), view

    def sample(index, epoch):
        sample, view = single(index, np.random.default_rng([seed, epoch, index]))
        return _row(index, sample, view, rule)

    return sample


def _objects(dataset: Dataset, train_on_difficult: bool) -> Callable:
    """index -> boxes and labels of an image, as they are on disk, inside the image.

    Of a box that leaves the image (CrowdHuman's may) the part inside is learnt, as detections are
    clipped, too; one wholly outside is an object of no image: padding.
    """
    is_ignored = ~learnable(dataset, train_on_difficult)
    limits = np.tile(dataset.sizes, 2)[dataset.image_index].astype(np.float32)
    boxes = np.clip(dataset.boxes.astype(np.float32), 0, limits)
    is_seen = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    labels = np.where(is_seen, np.where(is_ignored, IGNORE, dataset.labels), PADDING)
    labels = labels.astype(np.int32)

    def objects(index):
        rows = dataset.rows(index)
        return boxes[rows], labels[rows]

    return objects


def _renderer(
    dataset: Dataset, rule: Canvas | ShortLong, read: Callable, most_zoom: float = 1.0
) -> Callable:
    """(index, view, colour matrix) -> the pixels of the content."""
    sizes = dataset.sizes[:, ::-1]
    smallest = np.maximum((sizes / max(most_zoom, 1.0)).astype(np.int32), 1)
    keep = reduction(smallest, fitted_size(smallest[:, 0], smallest[:, 1], rule), rule)

    def render(index, view, matrix=None):
        pixels = read(index, view.source, view.target[2:], rule.antialias, keep[index])
        if matrix is not None:
            pixels = recolor(pixels, matrix)
        return compose(pixels, view)

    return render


def _row(index: int, sample: Sample, view: View, rule: Canvas | ShortLong) -> dict:
    size = np.array(sample.pixels.shape[:2], np.int32)
    return {
        "images": pad(sample.pixels, padded_size(size, rule)),
        "boxes": sample.boxes,
        "labels": sample.labels,
        "weights": sample.weights,
        "index": np.int64(index),
        "sizes": size,
        "scales": view.scales[::-1].astype(np.float32),
    }


def _batched(
    stream: tf.data.Dataset, sample: Callable, rule, batch_size: int, drop_remainder: bool
) -> tf.data.Dataset:
    """Samples, a function of the stream's elements, as padded batches."""
    canvas = [rule.height, rule.width] if isinstance(rule, Canvas) else [None, None]
    specs = {
        "images": tf.TensorSpec([*canvas, 3], tf.uint8 if rule.antialias else tf.float32),
        "boxes": tf.TensorSpec([None, 4], tf.float32),
        "labels": tf.TensorSpec([None], tf.int32),
        "weights": tf.TensorSpec([None], tf.float32),
        "index": tf.TensorSpec([], tf.int64),
        "sizes": tf.TensorSpec([2], tf.int32),
        "scales": tf.TensorSpec([2], tf.float32),
    }

    def in_graph(*inputs):
        dtypes = [spec.dtype for spec in specs.values()]
        values = tf.numpy_function(lambda *args: [*sample(*args).values()], inputs, dtypes)
        return {
            name: tf.ensure_shape(value, spec.shape)
            for (name, spec), value in zip(specs.items(), values, strict=True)
        }

    shapes = {name: spec.shape for name, spec in specs.items()}
    padding = {name: np.array(PADDING, np.int32) if name == "labels" else None for name in shapes}
    stream = stream.map(in_graph, tf.data.AUTOTUNE)
    stream = stream.padded_batch(batch_size, shapes, padding, drop_remainder)
    return stream.prefetch(tf.data.AUTOTUNE)
