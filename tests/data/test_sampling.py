"""Repeat factors by hand, and how often images come over many epochs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.records import Defects, assemble
from data.sampling import epoch_order, repeat_factors, samples_per_epoch

pytestmark = pytest.mark.quick

CLASSES = ("dog", "cat", "owl", "emu")


def record(name, *labels, ignore=(), difficult=()):
    """An image with an object of each label; `ignore` and `difficult` are rows."""
    rows = np.arange(len(labels))
    return name, labels, np.isin(rows, difficult), np.isin(rows, ignore)


def make_dataset(*records):
    names, labels, difficult, ignore = zip(*records, strict=True)
    labels, difficult, ignore = map(np.concatenate, (labels, difficult, ignore))
    return assemble(
        "tiny",
        CLASSES,
        images=[f"{name}.jpg" for name in names],
        image_ids=names,
        sizes=[[50, 50]] * len(names),
        image_index=np.repeat(np.arange(len(names)), [len(record[1]) for record in records]),
        boxes=np.tile([5.0, 5.0, 20.0, 20.0], (len(labels), 1)),
        labels=labels,
        difficult=difficult,
        ignore=ignore,
        defects=Defects(),
    )


@pytest.fixture
def dataset():
    """16 images: dogs in 9, cats in 4, an owl in 1, an emu in 1, 4 without objects."""
    dogs = [record(f"dog{i}", 0, 0, 0) for i in range(7)]
    both = [record("both", 0, 1), record("all", 2, 1, 0, 2)]
    cats = [record("cat0", 1), record("cat1", 1, 3, ignore=[1])]
    nothing = [record(f"none{i}") for i in range(4)]
    hard = [record("hard", 3, difficult=[0])]
    return make_dataset(*dogs, *both, *cats, *nothing, *hard)


# ------------------------------------------------------------------------------------------------
# Factors
# ------------------------------------------------------------------------------------------------


def test_factors_by_hand(dataset):
    """f = 9/16, 4/16, 1/16 and 1/16; at a threshold of 1/4 a lone owl asks for sqrt(4) = 2."""
    found = repeat_factors(dataset, 0.25)
    expected = [1] * 7 + [1, 2] + [1, 1] + [1] * 4 + [2]
    np.testing.assert_allclose(found, expected)


def test_at_a_threshold_of_one_every_class_is_lifted(dataset):
    """1 / sqrt(f): 4/3, 2, 4 and 4; an image is repeated for the rarest of its classes."""
    found = repeat_factors(dataset, 1.0)
    expected = [4 / 3] * 7 + [2, 4] + [2, 2] + [1] * 4 + [4]
    np.testing.assert_allclose(found, expected)


def test_without_a_threshold_no_image_is_repeated(dataset):
    np.testing.assert_array_equal(repeat_factors(dataset, 0.0), np.ones(16))


def test_what_is_not_learnt_does_not_count(dataset):
    """The emu to ignore never makes "cat1" rare; the difficult one only where it is learnt."""
    assert repeat_factors(dataset, 1.0)[10] == 2
    found = repeat_factors(dataset, 1.0, train_on_difficult=False)
    assert (found[15], found[10]) == (1, 2)


def test_an_object_many_times_in_an_image_counts_once():
    dataset = make_dataset(record("a", *[1] * 9), record("b", 0), record("c", 0), record("d", 0))
    np.testing.assert_allclose(repeat_factors(dataset, 1.0), [2, *[np.sqrt(4 / 3)] * 3])


def test_a_dataset_without_objects_has_nothing_to_repeat():
    np.testing.assert_array_equal(repeat_factors(make_dataset(record("a")), 1.0), [1])


# ------------------------------------------------------------------------------------------------
# Order
# ------------------------------------------------------------------------------------------------


def images(factors, seed, epoch):
    return epoch_order(factors, seed, epoch)[:, 0]


FACTORS = np.array([1.0, 1.25, 2.5, 1.0, 3.9, np.sqrt(2), 1.1])  # sum 12.16


def test_images_come_as_often_as_their_factors_say():
    """Over 2,000 epochs, to 5 standard errors of rounding up or down and of the sample cut off.

    A count is one of two neighbours, so its deviation is at most 1/2; of 12.16 samples an epoch 12
    are kept.
    """
    epochs = 2000
    counts = np.array([np.bincount(images(FACTORS, 3, e), minlength=7) for e in range(epochs)])
    kept = samples_per_epoch(FACTORS) / FACTORS.sum()
    error = 5 * 0.5 / np.sqrt(epochs)
    assert (counts.mean(axis=0) < FACTORS + error).all()
    assert (counts.mean(axis=0) > FACTORS * kept - error).all()
    assert counts.sum() == epochs * 12
    assert (counts <= np.ceil(FACTORS)).all()
    assert (counts >= np.floor(FACTORS) - 1).all()


def test_the_order_is_random_and_comes_from_seed_and_epoch():
    factors = np.full(50, 1.5)
    np.testing.assert_array_equal(epoch_order(factors, 0, 0), epoch_order(factors, 0, 0))
    first = images(factors, 0, 0)
    for other in (images(factors, 0, 1), images(factors, 1, 0)):
        assert not np.array_equal(first, other)
        assert not np.array_equal(np.sort(first), np.sort(other)), "other images are repeated"
    assert np.abs(np.diff(first)).mean() > 10, "50 images in random order are 17 apart"


def test_factors_of_one_give_a_permutation():
    assert sorted(epoch_order(np.ones(20), 5, 7).tolist()) == [[i, 0] for i in range(20)]


def test_copies_of_an_image_are_numbered():
    order = epoch_order(np.array([3.0, 1.0, 2.0]), 0, 0).tolist()
    assert sorted(order) == [[0, 0], [0, 1], [0, 2], [1, 0], [2, 0], [2, 1]]


@given(st.lists(st.floats(1, 20), min_size=1, max_size=30), st.integers(0, 99), st.integers(0, 99))
def test_every_epoch_has_the_same_number_of_samples(factors, seed, epoch):
    """The sum rounded down, whatever rounding errors do; each image its factor, up or down."""
    factors = np.array(factors)
    order = epoch_order(factors, seed, epoch)
    assert len(order) == samples_per_epoch(factors) == int(factors.sum())
    assert len(np.unique(order, axis=0)) == len(order)
    counts = np.bincount(order[:, 0], minlength=len(factors))
    assert (counts <= np.ceil(factors + 1e-9)).all()
    assert (counts < np.floor(factors)).sum() <= 1
