"""Batches: which samples, in which order, the same again, and with which labels."""

import dataclasses
import shutil
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import tensorflow as tf

from configs.schema import Augment, Canvas, Data, Mixing, ShortLong
from data.datasets import class_names, read_split
from data.formats.shapes import make_shapes
from data.images import render
from data.images.decode import decode_image
from data.inputs import unlabelled
from data.pipeline import (
    AHEAD,
    checked,
    detection_batches,
    detection_spec,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
    training_sample,
)
from data.records import DatasetError, first_images
from data.sampling import epoch_order, repeat_factors
from utils.boxes import IGNORE, PADDING

NUM_IMAGES, BATCH = 11, 4
STEPS = NUM_IMAGES // BATCH
RULE = Canvas(48, 64)
SIZE = (64, 80)
pytestmark = pytest.mark.full
FIRST = range(1)  # epochs


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("data") / "shapes", NUM_IMAGES, 5, SIZE, seed=1)


@pytest.fixture(scope="module")
def data(root):
    augment = Augment(flip=0.5, brightness=0.2, zoom=(0.8, 1.5))
    return Data(format="voc", root=str(root), augment=augment)


@pytest.fixture(scope="module")
def dataset(data):
    return read_split(data, "train", class_names(data))


def batches(dataset, data, epochs=FIRST, rule=RULE, batch_size=BATCH, seed=0, skip_steps=0):
    """Training batches as a list of dicts of arrays."""
    stream = training_batches(
        dataset, data, rule, batch_size=batch_size, seed=seed, epochs=epochs, skip_steps=skip_steps
    )
    return list(stream.as_numpy_iterator())


def same(a, b):
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(np.array_equal(x[name], y[name]) for name in x)
        for x, y in zip(a, b, strict=True)
    )


def order(batches):
    return np.concatenate([batch["index"] for batch in batches]).tolist()


# ------------------------------------------------------------------------------------------------
# Order
# ------------------------------------------------------------------------------------------------


def test_every_epoch_is_a_permutation_of_its_own(dataset, data):
    """One batch of all 11 images an epoch; epochs are the same alone or after others."""
    orders = [order([batch]) for batch in batches(dataset, data, range(6), batch_size=11)]
    assert all(sorted(found) == list(range(NUM_IMAGES)) for found in orders)
    assert len({tuple(found) for found in orders}) == 6
    later = [order([batch]) for batch in batches(dataset, data, range(4, 6), batch_size=11)]
    assert later == orders[4:]


def test_epochs_are_cut_to_full_batches(dataset, data):
    """Two batches of four of 11 images; over the epochs every image has its turn."""
    assert steps_per_epoch(dataset, data, BATCH) == STEPS == 2
    found = batches(dataset, data, range(8))
    assert len(found) == 8 * STEPS
    assert {batch["images"].shape for batch in found} == {(BATCH, 48, 64, 3)}
    epochs = [order(found[i : i + STEPS]) for i in range(0, len(found), STEPS)]
    assert all(len(set(epoch)) == STEPS * BATCH for epoch in epochs), "no image twice"
    assert set().union(*epochs) == set(range(NUM_IMAGES))


def test_a_dataset_smaller_than_a_batch_is_refused(dataset, data):
    with pytest.raises(ValueError, match=r"batch_size: expected at most the 11 .*/train, found 12"):
        batches(dataset, data, batch_size=12)


def test_images_of_rare_classes_are_repeated_and_changed_differently(dataset, data):
    """As `epoch_order` says; the first copy is the image as it is without repetition."""
    often = dataclasses.replace(data, repeat_threshold=1.0)
    factors = repeat_factors(dataset, 1.0)
    assert NUM_IMAGES + BATCH < factors.sum() < 3 * NUM_IMAGES
    steps = steps_per_epoch(dataset, often, BATCH)
    assert steps == int(factors.sum()) // BATCH > STEPS
    found = batches(dataset, often, range(1, 3), seed=2)
    assert len(found) == 2 * steps
    expected = [epoch_order(factors, 2, epoch)[: steps * BATCH] for epoch in (1, 2)]
    assert order(found) == np.concatenate(expected)[:, 0].tolist()
    resumed = batches(dataset, often, range(1, 3), seed=2, skip_steps=steps + 1)
    assert same(resumed, found[steps + 1 :])

    pictures = {}
    for sample, image in zip(
        expected[0], np.concatenate([batch["images"] for batch in found]), strict=False
    ):
        pictures[tuple(sample)] = image
    (plain,) = batches(dataset, data, range(1, 2), seed=2, batch_size=11)
    for (index, copy), picture in pictures.items():
        once = plain["images"][plain["index"].tolist().index(index)]
        assert np.array_equal(picture, once) == (copy == 0)


# ------------------------------------------------------------------------------------------------
# The same again
# ------------------------------------------------------------------------------------------------


def test_seed_and_epoch_decide_everything(dataset, data):
    once = batches(dataset, data, range(3, 5), seed=7)
    assert same(once, batches(dataset, data, range(3, 5), seed=7))
    assert not same(once[:STEPS], once[STEPS:]), "epochs differ"
    for other in ({"seed": 8}, {"seed": 3}, {"epochs": range(2, 4)}):
        arguments = {"seed": 7, "epochs": range(3, 5)} | other
        assert not same(once, batches(dataset, data, **arguments))


def test_a_sample_depends_on_seed_epoch_and_index_alone(dataset, data):
    """Not on its place in the batch, the batch size, or how many threads work."""
    by_index = {}
    for batch in batches(dataset, data, range(2, 3), batch_size=11):
        for row, index in enumerate(batch["index"]):
            by_index[index] = {name: batch[name][row] for name in ("images", "sizes", "scales")}
    for batch in batches(dataset, data, range(2, 3), batch_size=3):
        for row, index in enumerate(batch["index"]):
            for name, value in by_index[index].items():
                np.testing.assert_array_equal(batch[name][row], value)

    stream = training_batches(dataset, data, RULE, batch_size=BATCH, seed=0, epochs=range(2))
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    one_thread = list(stream.with_options(options).as_numpy_iterator())
    assert same(one_thread, batches(dataset, data, range(2)))


def test_a_sample_made_by_hand_is_the_row_of_its_batch(dataset, data):
    """To the bit, so that what a breakpoint shows is what training sees."""
    sample = training_sample(dataset, data, RULE, seed=0)
    for batch in batches(dataset, data, range(2, 4)):
        for row, index in enumerate(batch["index"]):
            found = [sample(index, epoch) for epoch in (2, 3)]
            is_same = [np.array_equal(one["images"], batch["images"][row]) for one in found]
            assert sum(is_same) == 1
            one = found[is_same.index(True)]
            count = len(one["boxes"])
            np.testing.assert_array_equal(one["boxes"], batch["boxes"][row, :count])
            np.testing.assert_array_equal(one["labels"], batch["labels"][row, :count])
            assert (batch["labels"][row, count:] == PADDING).all()


def test_one_image_looks_different_every_epoch(dataset, data):
    pictures = [
        batch["images"][batch["index"].tolist().index(5)]
        for batch in batches(dataset, data, range(3), batch_size=11)
    ]
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[1], pictures[2])


def test_the_samples_of_an_epoch_are_changed_differently(dataset, data):
    """One file under every index: no two pictures of it are alike."""
    copies = dataclasses.replace(dataset, images=dataset.images[:1] * NUM_IMAGES)
    (batch,) = batches(copies, data, batch_size=NUM_IMAGES)
    assert len({image.tobytes() for image in batch["images"]}) == NUM_IMAGES


def test_skipping_leaves_exactly_the_rest(dataset, data):
    """As a resumed run needs it, also from the middle of a later epoch."""
    whole = batches(dataset, data, range(4, 7))
    assert len(whole) == 3 * STEPS
    for skip_steps in (1, STEPS, STEPS + 1, 3 * STEPS):
        rest = batches(dataset, data, range(4, 7), skip_steps=skip_steps)
        assert same(rest, whole[skip_steps:])


def test_skipped_images_are_never_read(dataset, data, monkeypatch):
    read = []
    read_image = render.read_image
    monkeypatch.setattr(render, "read_image", lambda path: read.append(path) or read_image(path))
    (batch,) = batches(dataset, data, skip_steps=STEPS - 1)
    assert sorted(read) == sorted(dataset.images[i] for i in batch["index"])


def test_the_cache_changes_nothing_but_the_reading_where_nothing_is_reduced(
    dataset, data, monkeypatch
):
    plain = batches(dataset, data, range(2))
    cached = dataclasses.replace(data, cache=True)
    assert same(plain, batches(dataset, cached, range(2)))

    read = []
    read_image = render.read_image
    monkeypatch.setattr(render, "read_image", lambda path: read.append(path) or read_image(path))
    for keep, count in ((data, 2 * NUM_IMAGES), (cached, NUM_IMAGES)):
        read.clear()
        stream = training_batches(dataset, keep, RULE, batch_size=NUM_IMAGES, seed=0, epochs=FIRST)
        first, second = (list(stream.as_numpy_iterator()) for _ in range(2))
        assert same(first, second)
        assert len(read) == count


# ------------------------------------------------------------------------------------------------
# Contents
# ------------------------------------------------------------------------------------------------


def test_objects_come_with_their_image_and_padding_after_them(dataset, data):
    """Nothing augmented, nothing resized: the boxes are those of the dataset."""
    plain = dataclasses.replace(data, augment=Augment(flip=0.0))
    (batch,) = batches(dataset, plain, rule=Canvas(*SIZE), batch_size=NUM_IMAGES)
    counts = np.diff(dataset.row_splits)[batch["index"]]
    assert batch["boxes"].shape == (NUM_IMAGES, counts.max(), 4)
    assert batch["labels"].dtype == np.int32
    assert counts.min() < counts.max(), "something is padded"
    for row, index in enumerate(batch["index"]):
        rows, count = dataset.rows(index), counts[row]
        np.testing.assert_array_equal(batch["boxes"][row, :count], dataset.boxes[rows])
        np.testing.assert_array_equal(batch["labels"][row, :count], dataset.labels[rows])
        assert (batch["labels"][row, count:] == PADDING).all()
        assert not batch["boxes"][row, count:].any()
        image = decode_image(dataset.images[index])
        np.testing.assert_array_equal(batch["images"][row], image)


def test_difficult_objects_can_be_looked_away_from(dataset, data):
    difficult = dataset.difficult.copy()
    difficult[::2] = True
    dataset = dataclasses.replace(dataset, difficult=difficult)
    for train_on_difficult in (True, False):
        settings = dataclasses.replace(
            data, augment=Augment(flip=0.0), train_on_difficult=train_on_difficult
        )
        (batch,) = batches(dataset, settings, batch_size=NUM_IMAGES)
        for row, index in enumerate(batch["index"]):
            rows = dataset.rows(index)
            labels = dataset.labels[rows]
            if not train_on_difficult:
                labels = np.where(dataset.difficult[rows], IGNORE, labels)
            np.testing.assert_array_equal(batch["labels"][row, : len(labels)], labels)


def test_regions_to_ignore_are_looked_away_from(dataset, data):
    """Whatever `train_on_difficult` says; zooming leaves of them what is seen."""
    ignore = np.arange(len(dataset.labels)) % 3 == 0
    dataset = dataclasses.replace(dataset, ignore=ignore)
    for zoom in ((1.0, 1.0), (1.5, 1.5)):
        settings = dataclasses.replace(data, augment=Augment(flip=0.0, zoom=zoom))
        (batch,) = batches(dataset, settings, batch_size=NUM_IMAGES)
        labels = batch["labels"]
        for row, index in enumerate(batch["index"]):
            real = dataset.labels[dataset.rows(index)][~ignore[dataset.rows(index)]]
            found = labels[row][labels[row] >= 0]
            if zoom[0] == 1.0:
                np.testing.assert_array_equal(found, real)
                assert (labels[row] == IGNORE).sum() == ignore[dataset.rows(index)].sum()
            else:
                assert Counter(found.tolist()) <= Counter(real.tolist())
        assert (labels == IGNORE).any()


def test_of_a_box_that_leaves_the_image_the_part_inside_is_learnt(dataset, data):
    """As detections are clipped; one wholly outside is padding."""
    height, width = SIZE
    boxes = dataset.boxes.copy()
    first = [dataset.rows(i).start for i in range(2)]
    assert np.diff(dataset.row_splits)[:2].all(), "both images have objects"
    boxes[first[0]] = [-30, 10, width + 50, height + 9]
    boxes[first[1]] = [width + 5, 10, width + 50, 20]
    dataset = dataclasses.replace(dataset, boxes=boxes)
    settings = dataclasses.replace(data, augment=Augment(flip=0.0))
    (batch,) = batches(dataset, settings, rule=Canvas(*SIZE), batch_size=NUM_IMAGES)
    row = order([batch]).index(0)
    np.testing.assert_array_equal(batch["boxes"][row, 0], [0, 10, width, height])
    assert batch["labels"][row, 0] == dataset.labels[first[0]]
    row = order([batch]).index(1)
    assert (batch["labels"][row] >= 0).sum() == np.diff(dataset.row_splits)[1] - 1
    assert batch["weights"][row].sum() == np.diff(dataset.row_splits)[1] - 1


def test_a_batch_of_images_without_objects(dataset, data):
    empty = dataclasses.replace(
        dataset,
        boxes=dataset.boxes[:0],
        labels=dataset.labels[:0],
        difficult=dataset.difficult[:0],
        ignore=dataset.ignore[:0],
        areas=dataset.areas[:0],
        row_splits=np.zeros_like(dataset.row_splits),
    )
    found = [batches(empty, mixed(data, mixing)) for mixing in (Mixing(), *MIXINGS[:3])]
    for batch in chain(*found):
        assert batch["boxes"].shape == (BATCH, 0, 4)
        assert batch["labels"].shape == (BATCH, 0)
        assert batch["images"].max() > 0


# ------------------------------------------------------------------------------------------------
# Mixing
# ------------------------------------------------------------------------------------------------

MIXINGS = [
    Mixing(mixup=1.0),
    Mixing(cutmix=1.0),
    Mixing(mosaic=1.0),
    Mixing(mixup=0.3, cutmix=0.3, mosaic=0.3),
]
NAMES = ["mixup", "cutmix", "mosaic", "all"]


def mixed(data, mixing, **changes):
    return dataclasses.replace(data, mixing=mixing, **changes)


def assert_is_row(one, batch, row):
    """A sample made by hand is the row of a batch, which may be padded."""
    for name in ("images", "boxes", "labels", "weights", "sizes", "scales"):
        value, found = one[name], batch[name][row]
        assert value.dtype == found.dtype
        part = tuple(slice(side) for side in value.shape)
        np.testing.assert_array_equal(found[part], value)
        rest = found.copy()
        rest[part] = PADDING if name == "labels" else 0
        assert (rest == (PADDING if name == "labels" else 0)).all()


@pytest.mark.parametrize("mixing", MIXINGS, ids=NAMES)
def test_a_mixed_sample_depends_on_seed_epoch_and_index_alone(dataset, data, mixing):
    """Made by hand in any order, by one thread or many, with a cache: the same to the bit."""
    data = mixed(data, mixing, cache=True)
    sample = training_sample(dataset, data, RULE, seed=0)
    stream = training_batches(dataset, data, RULE, batch_size=11, seed=0, epochs=range(2, 3))
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    for found in (stream, stream.with_options(options)):
        (batch,) = found.as_numpy_iterator()
        for row in np.argsort(batch["index"]):
            assert_is_row(sample(batch["index"][row], 2), batch, row)
    assert not same([batch], batches(dataset, data, range(2, 3), batch_size=11, seed=1))


def test_probabilities_of_mixing(dataset, data):
    """Each is as if it were the only one; unmixed samples are those of a run without mixing."""
    data = mixed(data, Mixing(), cache=True)
    plain = training_sample(dataset, data, RULE, seed=0)
    sample = training_sample(
        dataset, mixed(data, Mixing(mixup=0.2, cutmix=0.3, mosaic=0.4)), RULE, seed=0
    )
    alone = [training_sample(dataset, mixed(data, mixing), RULE, seed=0) for mixing in MIXINGS[:3]]
    counts = np.zeros(4, int)
    for epoch in range(12):
        for index in range(NUM_IMAGES):
            picture = sample(index, epoch)["images"]
            kinds = [make(index, epoch)["images"] for make in (*alone, plain)]
            is_same = [np.array_equal(picture, kind) for kind in kinds]
            assert any(is_same)
            counts[is_same.index(True)] += 1
    shares = np.array([0.2, 0.3, 0.4, 0.1])
    sigma = np.sqrt(shares * (1 - shares) * counts.sum())
    assert (np.abs(counts - shares * counts.sum()) < 4 * sigma).all(), counts


def test_partners_are_changed_each_by_numbers_of_its_own(dataset, data):
    """All images are of one grey: the quadrants of a mosaic differ by their brightness alone."""
    settings = mixed(data, MIXINGS[2], augment=Augment(flip=0.0, brightness=0.3))

    def read(index, source, size, antialias, kept):
        return np.full([*size, 3], 128, np.uint8)

    sample = training_sample(dataset, settings, RULE, seed=0, read=read)
    images = [sample(0, epoch)["images"] for epoch in range(20)]
    corners = np.array([[image[y, x, 0] for y in (0, 47) for x in (0, 59)] for image in images])
    assert [len(set(four)) for four in corners.tolist()].count(4) > 15
    assert all(len(set(column)) > 10 for column in corners.T.tolist()), "and from epoch to epoch"


def test_closing_epochs_are_not_mixed(dataset, data):
    """Those of the run, however its epochs are cut into phases, and where it was resumed."""
    closing = mixed(data, Mixing(mixup=1.0, closing_epochs=2), cache=True)
    always, never = (mixed(closing, mixing) for mixing in (Mixing(mixup=1.0), Mixing()))

    def made(settings, epochs, **more):
        stream = training_batches(
            dataset, settings, RULE, batch_size=BATCH, seed=0, epochs=epochs, **more
        )
        return list(stream.as_numpy_iterator())

    expected = made(always, range(3)) + made(never, range(3, 5))
    assert same(made(closing, range(5)), expected), "the run ends with these epochs"
    phases = made(closing, range(2), num_epochs=5) + made(closing, range(2, 5), num_epochs=5)
    assert same(phases, expected)
    rest = made(closing, range(2, 5), num_epochs=5, skip_steps=1)
    assert same(rest, expected[2 * STEPS + 1 :])
    assert same(made(closing, range(2), num_epochs=2), made(never, range(2)))
    sample = training_sample(dataset, closing, RULE, seed=0)
    assert not np.array_equal(
        sample(0, 10**6)["images"], training_sample(dataset, never, RULE, 0)(0, 10**6)["images"]
    )


@pytest.mark.parametrize("mixing", MIXINGS[:3], ids=NAMES[:3])
@pytest.mark.parametrize("antialias", [False, True])
def test_mixed_samples_of_any_shape_make_a_legal_batch(dataset, data, mixing, antialias):
    """Upright beside lying images: a blend is as high as the one and as wide as the other."""
    rule = ShortLong(40, 60, 16, antialias)
    settings = mixed(data, mixing, augment=Augment(flip=0.5))
    turned = dataclasses.replace(dataset, sizes=dataset.sizes.copy())
    turned.sizes[:6] = [32, 80]
    boxes = np.clip(dataset.boxes, 0, np.tile(turned.sizes, 2)[dataset.image_index])
    turned = dataclasses.replace(turned, boxes=boxes)

    def read(index, source, size, antialias, kept):
        pixels = np.full([*size, 3], 10 + index)
        return pixels.astype(np.uint8 if antialias else np.float32)

    shapes = set()
    stream = training_batches(
        turned, settings, rule, batch_size=BATCH, seed=0, epochs=range(4), read=read
    )
    for batch in stream.as_numpy_iterator():
        assert batch["images"].dtype == (np.uint8 if antialias else np.float32)
        height, width = batch["images"].shape[1:3]
        assert (height, width) == tuple(-(-batch["sizes"].max(axis=0) // 16) * 16)
        for image, size, boxes, labels in zip(
            *(batch[name] for name in ("images", "sizes", "boxes", "labels")), strict=True
        ):
            shapes.add(tuple(size.tolist()))
            assert image[: size[0], : size[1]].min() >= 10
            assert not image[size[0] :].any()
            assert not image[:, size[1] :].any()
            real = boxes[labels != PADDING]
            assert (real[:, :2] < real[:, 2:]).all()
            assert (real >= 0).all()
            assert (real <= np.tile(size[::-1], 2) + 1e-3).all()
    alone = {(40, 50), (60, 24)}
    assert shapes == (alone | {(60, 50)} if mixing.mixup else alone)


@pytest.mark.parametrize("mixing", MIXINGS[:3], ids=NAMES[:3])
def test_partners_are_fitted_to_the_canvas_of_their_batch(dataset, data, mixing):
    """What of a small canvas came onto a large one would leave most of it grey."""
    scales = Augment(canvas_scales=(1.0, 2.0))
    found = batches(dataset, mixed(data, mixing, augment=scales), range(6), rule=Canvas(64, 80))
    assert {batch["images"].shape[1:3] for batch in found} == {(64, 80), (128, 160)}
    for batch in found:
        size = batch["images"].shape[1:3]
        assert (batch["sizes"] == size).all()
        assert ((batch["images"] == render.GREY).all(axis=-1).mean(axis=(1, 2)) < 0.05).all()


@pytest.mark.parametrize("mixing", MIXINGS[:3], ids=NAMES[:3])
def test_a_dataset_of_one_image_is_mixed_with_itself(dataset, data, mixing):
    one = dataclasses.replace(
        dataset,
        images=dataset.images[:1],
        image_ids=dataset.image_ids[:1],
        sizes=dataset.sizes[:1],
        row_splits=dataset.row_splits[:2],
        **{
            name: getattr(dataset, name)[dataset.rows(0)]
            for name in ("boxes", "labels", "difficult", "ignore", "areas")
        },
    )
    pictures = [
        batch["images"] for batch in batches(one, mixed(data, mixing), range(3), batch_size=1)
    ]
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_regions_to_ignore_come_along_with_partners(dataset, data):
    """In a blend all of both; the weights of each image's objects are its share."""
    ignore = np.arange(len(dataset.labels)) % 3 == 0
    dataset = dataclasses.replace(dataset, ignore=ignore)
    settings = mixed(data, Mixing(mixup=1.0), augment=Augment(flip=0.0))
    counts = np.diff(dataset.row_splits)
    regions = [ignore[dataset.rows(i)].sum() for i in range(NUM_IMAGES)]
    sample = training_sample(dataset, settings, Canvas(*SIZE), seed=0)
    for index in range(NUM_IMAGES):
        row = sample(index, 0)
        own = dataset.rows(index)
        np.testing.assert_array_equal(row["boxes"][: counts[index]], dataset.boxes[own])
        partner = [
            i
            for i in range(NUM_IMAGES)
            if np.array_equal(row["boxes"][counts[index] :], dataset.boxes[dataset.rows(i)])
        ]
        assert len(partner) == 1
        assert partner[0] != index
        assert (row["labels"] == IGNORE).sum() == regions[index] + regions[partner[0]]
        shares = row["weights"][: counts[index]], row["weights"][counts[index] :]
        assert all(len(np.unique(share)) <= 1 for share in shares)
        if counts[index] and counts[partner[0]]:
            np.testing.assert_allclose(shares[0][0] + shares[1][0], 1, atol=1e-6)


# ------------------------------------------------------------------------------------------------
# Evaluation
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [RULE, ShortLong(40, 60), Canvas(200, 100)])
def test_evaluation_takes_every_image_once_in_order(dataset, rule):
    stream = evaluation_batches(dataset, rule, batch_size=BATCH)
    found = list(stream.as_numpy_iterator())
    assert [len(batch["index"]) for batch in found] == [4, 4, 3]
    assert order(found) == list(range(NUM_IMAGES))
    assert same(found, list(stream.as_numpy_iterator())), "nothing is random"


@pytest.mark.parametrize("rule", [RULE, ShortLong(40, 60), Canvas(200, 100)])
def test_scales_lead_back_to_the_annotations(dataset, rule):
    """Detections are divided by `scales`: so divided, the boxes are those of the files."""
    for batch in evaluation_batches(dataset, rule, batch_size=BATCH).as_numpy_iterator():
        for row, index in enumerate(batch["index"]):
            rows = dataset.rows(index)
            count = rows.stop - rows.start
            boxes = batch["boxes"][row, :count] / np.tile(batch["scales"][row], 2)
            np.testing.assert_allclose(boxes, dataset.boxes[rows], atol=1e-3)
            np.testing.assert_array_equal(batch["labels"][row, :count], dataset.labels[rows])
            size = batch["sizes"][row][::-1] / batch["scales"][row]
            np.testing.assert_allclose(size, dataset.sizes[index], atol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 50])
@pytest.mark.parametrize(
    "rule", [RULE, Canvas(48, 64, False), ShortLong(40, 60), ShortLong(32, 90, 1)]
)
def test_batches_for_detection_are_those_of_evaluation(dataset, rule, batch_size):
    """What a detector needs of them, to the bit and of the same types, as its spec says."""
    dataset = dataclasses.replace(dataset, sizes=dataset.sizes.copy())
    dataset.sizes[::3] = [32, 80]

    def read(index, source, size, antialias, kept):
        pixels = np.random.default_rng(index).integers(0, 256, [*size, 3])
        return pixels.astype(np.uint8 if antialias else np.float32)

    stream = evaluation_batches(dataset, rule, batch_size=batch_size, read=read)
    expected = list(stream.as_numpy_iterator())
    found = list(detection_batches(dataset, rule, batch_size=batch_size, read=read))
    assert len(found) == len(expected) == -(-NUM_IMAGES // batch_size)
    spec = detection_spec(rule)
    for ours, theirs in zip(found, expected, strict=True):
        assert set(ours) == {"images", "sizes", "scales", "index"}
        for name, array in ours.items():
            assert array.dtype == theirs[name].dtype
            np.testing.assert_array_equal(array, theirs[name])
        assert all(one.is_compatible_with(tf.constant(ours[name])) for name, one in spec.items())
    assert {name: stream.element_spec[name] for name in spec} == spec


def test_few_batches_are_read_ahead_and_none_after_the_iterator_is_closed(dataset):
    many, _ = unlabelled([np.zeros((64, 80, 3), np.uint8)] * 99, dataset.classes)
    seen = []

    def read(index, source, size, antialias, kept):
        seen.append(index)
        return np.zeros([*size, 3], np.uint8)

    batches = detection_batches(many, RULE, batch_size=3, read=read)
    assert not seen
    for number in range(1, 4):
        next(batches)
        assert len(seen) <= (number + AHEAD) * 3
    batches.close()
    num_seen = len(seen)
    assert num_seen <= (3 + AHEAD) * 3 < len(many)
    assert sorted(seen) == list(range(num_seen))


def test_a_batch_for_detection_has_at_least_one_image(dataset):
    with pytest.raises(ValueError, match="batch_size: expected at least 1, found 0"):
        next(detection_batches(dataset, RULE, batch_size=0))


def test_a_canvas_has_one_shape_known_beforehand(dataset, data):
    """So that the graph is compiled once."""
    stream = training_batches(dataset, data, RULE, batch_size=BATCH, seed=0, epochs=FIRST)
    assert stream.element_spec["images"].shape == (BATCH, 48, 64, 3)
    assert stream.element_spec["boxes"].shape.as_list() == [BATCH, None, 4]
    spec = evaluation_batches(dataset, RULE, batch_size=BATCH).element_spec
    assert spec["images"].shape.as_list() == [None, 48, 64, 3]


def test_short_long_pads_to_a_multiple(root, dataset, tmp_path):
    """Images of different shapes share a batch: padded to the largest, zeros outside `sizes`."""
    turned = tmp_path / "turned.png"
    image = decode_image(dataset.images[1])
    tf.io.write_file(str(turned), tf.io.encode_png(np.rot90(image)))
    mixed = dataclasses.replace(
        dataset,
        images=(dataset.images[0], str(turned), *dataset.images[2:]),
        sizes=np.array([row[::-1] if i == 1 else row for i, row in enumerate(dataset.sizes)]),
    )
    stream = evaluation_batches(mixed, ShortLong(40, 70, multiple=16), batch_size=BATCH)
    assert stream.element_spec["images"].shape.as_list() == [None, None, None, 3]
    batch = next(stream.as_numpy_iterator())
    np.testing.assert_array_equal(batch["sizes"], [[40, 50], [50, 40], [40, 50], [40, 50]])
    assert batch["images"].shape == (BATCH, 64, 64, 3), "50 and 50, up to multiples of 16"
    for image, (height, width) in zip(batch["images"], batch["sizes"], strict=True):
        assert image[:height, :width].min() > 0 or image[:height, :width].mean() > 1
        assert not image[height:].any()
        assert not image[:, width:].any()
    rest = [b["images"].shape[1:3] for b in stream.as_numpy_iterator()][1:]
    assert rest == [(48, 64)] * 2, "batches without the turned one are smaller"


# ------------------------------------------------------------------------------------------------
# Errors
# ------------------------------------------------------------------------------------------------


def test_a_broken_image_is_named(root, data, tmp_path):
    """The reader's own error, file first, in one line, whichever thread met it."""
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    broken = dataclasses.replace(data, root=str(copy))
    dataset = read_split(broken, "train", class_names(broken))
    path = dataset.images[6]
    with open(path, "rb+") as file:
        file.truncate(700)
    streams = (
        training_batches(dataset, data, RULE, batch_size=11, seed=0, epochs=FIRST),
        evaluation_batches(dataset, RULE, batch_size=BATCH),
    )
    for stream in streams:
        with pytest.raises(DatasetError) as caught:
            list(checked(stream))
        assert str(caught.value).startswith(f"{path}: truncated")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_images", [1, NUM_IMAGES])
def test_what_goes_wrong_while_detecting_comes_as_it_is(dataset, num_images):
    """Also from the threads that read ahead, and what comes before it comes first."""
    error = DatasetError("a.jpg: truncated")

    def read(index, source, size, antialias, kept):
        if index == num_images - 1:
            raise error
        return np.zeros([*size, 3], np.uint8)

    few = first_images(dataset, num_images)
    batches = detection_batches(few, RULE, batch_size=2, read=read)
    found = [next(batches)["index"].tolist() for _ in range((num_images - 1) // 2)]
    assert list(chain(*found)) == list(range(num_images - 1))
    with pytest.raises(DatasetError) as caught:
        next(batches)
    assert caught.value is error


def test_other_errors_of_tensorflow_pass_unchanged():
    stream = tf.data.Dataset.range(3).map(lambda i: tf.debugging.check_numerics(1 / (1 - i), "x"))
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(checked(stream))
