"""A dataset on disk -> tf.data batches, the same way for training, evaluation and pictures.

A batch is a dict: images (B, H, W, 3) RGB 0-255, zero-padded at the bottom and right, uint8 where
the rule smooths (antialias) and float32 where it does not; sizes (B, 2) int32 height, width of the
content; scales (B, 2) float32 x, y: input pixels a pixel of the image; boxes (B, G, 4) float32 xyxy
in input pixels; labels (B, G) int32, PADDING where there is no object and IGNORE for regions;
weights (B, G) float32, how much an object counts in the losses, 0 where there is none; index (B,)
int64 of the image in the dataset.
Everything random comes from (seed, epoch, index, copy) alone, the last for an image that an epoch
repeats; which canvas a batch has, from seed, epoch and its place in the epoch.
"""

import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from configs.schema import Canvas, Data
from data.augment.effects import blur, cutout, jpeg
from data.augment.geometry import SMALLEST_CROP, canvases, color_matrix, flip, iou_crop, zoom
from data.augment.mixing import cutmix, draw_partners, mixup, mosaic
from data.augment.sample import Sample
from data.augment.warp import warp
from data.images.render import Reader, compose, image_reader, pad, recolor
from data.images.resize import Rule, fitted_size, padded_size
from data.images.views import View, clip, place, reduction, whole
from data.records import Dataset, DatasetError, learnable
from data.sampling import epoch_order, repeat_factors, samples_per_epoch
from utils.boxes import IGNORE, PADDING

Row: TypeAlias = dict[str, np.ndarray]  # of a batch, by name
# (index of an image, generator, rule) -> the changed sample, and its view.
Single: TypeAlias = Callable[[int, np.random.Generator, Rule], tuple[Sample, View]]

DETECTION = ("images", "sizes", "scales", "index")  # what detecting needs of a batch
AHEAD = 4  # batches that are decoded while the network has the one before them
MOST_THREADS = 16  # that decode, and only as many as there are cores


def steps_per_epoch(dataset: Dataset, data: Data, batch_size: int) -> int:
    """Full batches in an epoch. Raises ValueError where it is smaller than a batch.

    With `data.repeat_threshold` an epoch has more images than the dataset.
    """
    factors = repeat_factors(dataset, data.repeat_threshold, data.train_on_difficult)
    num_samples = samples_per_epoch(factors)
    if num_samples < batch_size:
        raise ValueError(
            f"train.batch_size: expected at most the {num_samples} images of an epoch of "
            f"{dataset.name}, found {batch_size}"
        )
    return num_samples // batch_size


def training_batches(
    dataset: Dataset,
    data: Data,
    rule: Rule,
    *,
    batch_size: int,
    seed: int,
    epochs: range,
    num_epochs: int | None = None,
    skip_steps: int = 0,
    read: Reader | None = None,
) -> tf.data.Dataset:
    """Shuffled, augmented batches of `epochs`, without those of the first `skip_steps` steps.

    num_epochs: of the whole run, `epochs.stop` unless given; `mixing.closing_epochs` are its last.
    read: see `image_reader`; the default makes one as `data.cache` says.
    Each epoch has an order of its own, see `epoch_order`, cut to full batches. Skipped samples are
    never read, so a resumed run goes on where it was.
    """
    factors = repeat_factors(dataset, data.repeat_threshold, data.train_on_difficult)
    num_steps = steps_per_epoch(dataset, data, batch_size)
    rules = canvases(rule, data.augment.canvas_scales)
    num_epochs = epochs.stop if num_epochs is None else num_epochs
    sample = training_sample(dataset, data, rule, seed, read, num_epochs)

    def order(epoch: int) -> np.ndarray:
        samples = epoch_order(factors, seed, epoch)[: num_steps * batch_size]
        # An index that neither an image has nor `epoch_order`: numbers of their own.
        random = np.random.default_rng([seed, epoch, len(dataset) + 1])
        canvas = np.repeat(random.integers(len(rules), size=num_steps), batch_size)
        return np.column_stack([samples, canvas])

    def epoch_of_samples(epoch: tf.Tensor) -> tf.data.Dataset:
        rows = tf.numpy_function(order, [epoch], tf.int64)
        rows = tf.ensure_shape(rows, [num_steps * batch_size, 3])
        rows = tf.data.Dataset.from_tensor_slices(tuple(tf.unstack(rows, axis=1)))
        return rows.map(lambda index, copy, canvas: (index, epoch, canvas, copy))

    stream = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(epoch_of_samples)
    stream = stream.skip(skip_steps * batch_size)
    return _batched(stream, sample, rules, batch_size, drop_remainder=True)


def evaluation_batches(
    dataset: Dataset,
    rule: Rule,
    *,
    batch_size: int,
    train_on_difficult: bool = True,
    read: Reader | None = None,
) -> tf.data.Dataset:
    """Every image once, in order, unchanged but for the resizing; the last batch may be smaller.

    Made once for many passes: TensorFlow keeps the pipeline, and what `read` holds, to the end of
    the process. `detection_batches` is for what comes and goes.
    """
    sample = evaluation_sample(dataset, rule, train_on_difficult, read)
    stream = tf.data.Dataset.range(len(dataset))
    return _batched(stream, sample, [rule], batch_size, drop_remainder=False)


def detection_batches(
    dataset: Dataset, rule: Rule, *, batch_size: int, read: Reader | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches of `evaluation_batches` as arrays, but only what `DETECTION` names.

    Threads decode up to `AHEAD` batches beforehand. Errors of `read` come as they are, in the order
    of the images. Nothing is kept once the last batch is used, or the iterator closed.
    Raises ValueError for a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, found {batch_size}")
    sample = evaluation_sample(dataset, rule, read=read)
    if len(dataset) == 1:  # threads would only cost time
        yield _stacked([sample(0)])
        return
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS))
    pending: deque[Future[Row]] = deque()
    try:
        for index in range(len(dataset)):
            pending.append(pool.submit(sample, index))
            if len(pending) == (1 + AHEAD) * batch_size:
                yield _stacked([pending.popleft().result() for _ in range(batch_size)])
        while pending:
            size = min(batch_size, len(pending))
            yield _stacked([pending.popleft().result() for _ in range(size)])
    finally:
        pool.shutdown(cancel_futures=True)


def detection_spec(rule: Rule) -> dict[str, tf.TensorSpec]:
    """The spec of what the network is given of a batch of `detection_batches`: all but `index`."""
    specs = _specs([rule])
    return {
        name: tf.TensorSpec([None, *specs[name].shape], specs[name].dtype)
        for name in DETECTION
        if name != "index"
    }


def _stacked(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Rows as one batch, their images padded to the largest height and width among them."""
    largest = np.max([row["images"].shape[:2] for row in rows], axis=0)
    rows = [row | {"images": pad(row["images"], largest)} for row in rows]
    return {name: np.stack([row[name] for row in rows]) for name in DETECTION}


def checked(batches: tf.data.Dataset) -> Iterator[dict[str, tf.Tensor]]:
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
    rule: Rule,
    seed: int,
    read: Reader | None = None,
    num_epochs: float = math.inf,
) -> Callable[..., Row]:
    """A function (index, epoch, canvas, copy) -> one row of a batch as the settings change it.

    canvas: the place in `augment.canvas_scales`, the first unless given.
    copy: how often the epoch had the image before, see `epoch_order`; each is changed differently.
    num_epochs: of the run; `mixing.closing_epochs` are its last.
    tf.data calls it from its threads; called by hand, breakpoints work in every line.
    """
    augment, mixing = data.augment, data.mixing
    rules = canvases(rule, augment.canvas_scales)
    single = _augmenter(dataset, data, rules, read or image_reader(dataset, data.cache))
    mix = _mixer(single, len(dataset), data)
    mixed_epochs = num_epochs - mixing.closing_epochs if mixing.total else 0

    def sample(index: int, epoch: int, canvas: int = 0, copy: int = 0) -> Row:
        rule = rules[canvas]
        rng = np.random.default_rng([seed, epoch, index, copy])
        sample, view = single(index, rng, rule)
        if epoch < mixed_epochs:
            sample = mix(sample, index, rng, rule)
        sample = cutout(sample, rng, augment.cutout, augment.min_visibility)
        return _row(index, sample, view, rule)

    return sample


def evaluation_sample(
    dataset: Dataset, rule: Rule, train_on_difficult: bool = True, read: Reader | None = None
) -> Callable[[int], Row]:
    """A function index -> one row of a batch, unchanged but for the resizing."""
    sizes, objects = dataset.sizes[:, ::-1], _objects(dataset, train_on_difficult)
    render = _renderer(dataset, [rule], read or image_reader(dataset))

    def sample(index: int) -> Row:
        view = whole(sizes[index], rule)
        boxes, labels = objects(index)
        return _row(index, Sample.of(render(index, view), place(boxes, view), labels), view, rule)

    return sample


def _augmenter(dataset: Dataset, data: Data, rules: list[Rule], read: Reader) -> Single:
    """The changes of one image, by one of the rules."""
    augment, sizes = data.augment, dataset.sizes[:, ::-1]
    objects = _objects(dataset, data.train_on_difficult)
    most_zoom = max(augment.zoom[1], 1 / SMALLEST_CROP if augment.iou_crop else 1.0)
    render = _renderer(dataset, rules, read, most_zoom)
    strengths = (augment.brightness, augment.contrast, augment.saturation, augment.hue)

    def single(index: int, rng: np.random.Generator, rule: Rule) -> tuple[Sample, View]:
        values, size, least = rng.random(9), sizes[index], augment.min_visibility
        boxes, labels = objects(index)
        if augment.iou_crop and rng.random() < augment.iou_crop:
            view = iou_crop(size, rule, boxes, labels, rng, least)
        elif augment.zoom != (1.0, 1.0):
            view = zoom(size, rule, values[2:5], augment.zoom)
        else:
            view = whole(size, rule)
        if (view.source[2:] < size).any():
            boxes, labels = clip(boxes, labels, view, least)
        view = flip(view, values[0], augment.flip)
        view = flip(view, values[1], augment.vertical_flip, vertical=True)
        matrix = color_matrix(values[5:9], *strengths) if any(strengths) else None
        sample = Sample.of(render(index, view, matrix), place(boxes, view), labels)
        sample = warp(sample, rng, augment.rotate, augment.shear, augment.translate, least)
        sample = blur(sample, rng, augment.blur)
        return jpeg(sample, rng, augment.jpeg), view

    return single


def _mixer(single: Single, num_images: int, data: Data) -> Callable[..., Sample]:
    """(sample, index, generator, rule) -> the sample with others mixed in, or as it is.

    single: of `_augmenter`; others are changed each by numbers of its own.
    """
    mixing, least = data.mixing, data.augment.min_visibility
    limits = np.cumsum([mixing.mixup, mixing.cutmix, mixing.mosaic])

    def mix(sample: Sample, index: int, rng: np.random.Generator, rule: Rule) -> Sample:
        value = rng.random()
        if value >= limits[2]:
            return sample
        partners = draw_partners(index, num_images, 1 if value < limits[1] else 3, rng)
        others = [
            single(partner, child, rule)[0]
            for partner, child in zip(partners, rng.spawn(len(partners)), strict=True)
        ]
        if value < limits[0]:
            return mixup(sample, others[0], rng, mixing.mixup_alpha)
        if value < limits[1]:
            return cutmix(sample, others[0], rng, mixing.cutmix_alpha, least)
        return mosaic([sample, *others], rng, least)

    return mix


def _objects(
    dataset: Dataset, train_on_difficult: bool
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """index -> boxes and labels of an image, as they are on disk, inside the image.

    Of a box that leaves the image (CrowdHuman's may) the part inside is learnt, as detections are
    clipped, too; one wholly outside is an object of no image.
    """
    is_ignored = ~learnable(dataset, train_on_difficult)
    limits = np.tile(dataset.sizes, 2)[dataset.image_index].astype(np.float32)
    boxes = np.clip(dataset.boxes.astype(np.float32), 0, limits)
    is_seen = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    boxes = boxes[is_seen]
    labels = np.where(is_ignored, IGNORE, dataset.labels).astype(np.int32)[is_seen]
    splits = np.concatenate([[0], np.cumsum(is_seen)])[dataset.row_splits]

    def objects(index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(splits[index], splits[index + 1])
        return boxes[rows], labels[rows]

    return objects


def _renderer(
    dataset: Dataset, rules: list[Rule], read: Reader, most_zoom: float = 1.0
) -> Callable[..., np.ndarray]:
    """(index, view by one of the rules, colour matrix) -> the pixels of the content."""
    sizes = dataset.sizes[:, ::-1]
    smallest = np.maximum((sizes / max(most_zoom, 1.0)).astype(np.int32), 1)
    height, width = smallest.T
    keep = np.min(
        [reduction(smallest, fitted_size(height, width, rule), rule) for rule in rules], axis=0
    )
    antialias = rules[0].antialias

    def render(index: int, view: View, matrix: np.ndarray | None = None) -> np.ndarray:
        pixels = read(index, view.source, view.target[2:], antialias, keep[index])
        if matrix is not None:
            pixels = recolor(pixels, matrix)
        return compose(pixels, view)

    return render


def _row(index: int, sample: Sample, view: View, rule: Rule) -> Row:
    size = np.array(sample.pixels.shape[:2], np.int32)
    return {
        "images": pad(sample.pixels, padded_size(size, rule)),
        "boxes": sample.boxes,
        "labels": sample.labels,
        "weights": sample.weights,
        "index": np.array(index, np.int64),
        "sizes": size,
        "scales": view.scales[::-1].astype(np.float32),
    }


def _specs(rules: list[Rule]) -> dict[str, tf.TensorSpec]:
    """Shapes and types of a row by one of the rules, in its order."""
    rule, *others = rules
    canvas: tuple[int | None, int | None] = None, None
    if isinstance(rule, Canvas) and not others:
        canvas = rule.height, rule.width
    return {
        "images": tf.TensorSpec([*canvas, 3], tf.uint8 if rule.antialias else tf.float32),
        "boxes": tf.TensorSpec([None, 4], tf.float32),
        "labels": tf.TensorSpec([None], tf.int32),
        "weights": tf.TensorSpec([None], tf.float32),
        "index": tf.TensorSpec([], tf.int64),
        "sizes": tf.TensorSpec([2], tf.int32),
        "scales": tf.TensorSpec([2], tf.float32),
    }


def _batched(
    stream: tf.data.Dataset,
    sample: Callable[..., Row],
    rules: list[Rule],
    batch_size: int,
    drop_remainder: bool,
) -> tf.data.Dataset:
    """Samples, a function of the stream's elements, as padded batches, each by one of the rules."""
    specs = _specs(rules)

    def in_graph(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
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
