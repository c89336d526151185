"""Splits that have their share of every class; what they make of an undivided dataset."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.records import DatasetError, Defects, assemble, select
from data.stratify import (
    _distribute,
    _wanted,
    make_whole,
    same_content,
    shared_out,
    stratified_splits,
)

pytestmark = pytest.mark.quick

FRACTIONS = (0.8, 0.1, 0.1)


@pytest.fixture
def dataset(tmp_path):
    """dataset({"a": [classes]}) makes images of those ids, each with a file of its own bytes."""

    def dataset(labels_of, ignore_of=(), same=()):
        """ignore_of: ids whose objects are regions to ignore. same: ids of files alike."""
        ids = list(labels_of)
        for image_id in ids:
            content = "same" if image_id in same else f"{image_id:>9}"
            (tmp_path / image_id).write_text(content)
        image_index = np.repeat(np.arange(len(ids)), [len(labels_of[i]) for i in ids])
        labels = [label for image_id in ids for label in labels_of[image_id]]
        return assemble(
            "set/all",
            ["common", "some", "rare"],
            images=[str(tmp_path / image_id) for image_id in ids],
            image_ids=ids,
            sizes=np.full((len(ids), 2), 9),
            image_index=image_index,
            boxes=np.tile(np.float32([0, 0, 1, 1]), (len(labels), 1)),
            labels=np.array(labels, np.int32),
            ignore=np.array([ids[i] in ignore_of for i in image_index], bool),
            defects=Defects(),
        )

    return dataset


def ids_of(dataset, splits):
    return [{dataset.image_ids[i] for i in split} for split in splits]


def made_up(num, seed=0):
    """Ids with labels: half common, a quarter some, 4 rare in all, and images without objects."""
    rng = np.random.default_rng(seed)
    labels_of = {}
    for i in range(num):
        labels_of[f"i{i:04}"] = [k for k, share in ((0, 0.5), (1, 0.25)) if rng.random() < share]
    for i in range(0, num, num // 4):
        labels_of[f"i{i:04}"].append(2)
    return labels_of


def test_every_class_and_the_empty_images_are_spread(dataset):
    labels_of = made_up(400)
    whole = dataset(labels_of)
    splits = stratified_splits(whole, FRACTIONS)
    assert sorted(np.concatenate(splits)) == list(range(400))
    assert all((np.diff(split) > 0).all() for split in splits)
    for label in (0, 1, None):
        with_it = {i for i, labels in labels_of.items() if label in labels or labels == [label]}
        if label is None:
            with_it = {i for i, labels in labels_of.items() if not labels}
        counts = np.array([len(ids & with_it) for ids in ids_of(whole, splits)])
        np.testing.assert_allclose(counts, np.multiply(FRACTIONS, len(with_it)), atol=2)
    rare = {i for i, labels in labels_of.items() if 2 in labels}
    assert sorted(len(ids & rare) for ids in ids_of(whole, splits)) == [1, 1, 2]
    np.testing.assert_allclose([len(split) for split in splits], [320, 40, 40], atol=4)


def test_fractions_of_one_class_are_exact(dataset):
    whole = dataset({str(i): [0] for i in range(20)})
    assert [len(split) for split in stratified_splits(whole, FRACTIONS)] == [16, 2, 2]


def test_the_seed_decides_and_nothing_else(dataset):
    labels_of = made_up(60)
    whole = dataset(labels_of)
    expected = ids_of(whole, stratified_splits(whole, FRACTIONS, seed=3))
    assert ids_of(whole, stratified_splits(whole, FRACTIONS, seed=3)) == expected
    assert ids_of(whole, stratified_splits(whole, FRACTIONS, seed=4)) != expected


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(40)))
def test_the_order_of_images_does_not_count(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("files")
    labels_of = made_up(40)
    for image_id in labels_of:
        (folder / image_id).write_text(image_id)
    rows = [(i, label) for i, labels in enumerate(labels_of.values()) for label in labels]
    whole = assemble(
        "set/all",
        ["common", "some", "rare"],
        images=[str(folder / image_id) for image_id in labels_of],
        image_ids=list(labels_of),
        sizes=np.full((40, 2), 9),
        image_index=np.array([i for i, _ in rows]),
        boxes=np.zeros((len(rows), 4)),
        labels=np.array([label for _, label in rows]),
        defects=Defects(),
    )
    shuffled = select(whole, order)
    assert ids_of(shuffled, stratified_splits(shuffled, (0.5, 0.3, 0.2))) == ids_of(
        whole, stratified_splits(whole, (0.5, 0.3, 0.2))
    )


def test_the_order_of_classes_does_not_count(dataset):
    labels_of = made_up(60)
    whole = dataset(labels_of)
    turned = dataset({i: [2 - label for label in labels] for i, labels in labels_of.items()})
    turned = type(whole)(**{**vars(turned), "classes": whole.classes[::-1]})
    assert ids_of(turned, stratified_splits(turned, FRACTIONS)) == ids_of(
        whole, stratified_splits(whole, FRACTIONS)
    )


def test_regions_to_ignore_are_no_objects(dataset):
    labels_of = {str(i): [i % 2] for i in range(40)}
    ones = {i for i, labels in labels_of.items() if labels == [1]}
    whole = dataset(labels_of, ignore_of=ones)
    empty = dataset({i: [] if i in ones else labels for i, labels in labels_of.items()})
    assert ids_of(whole, stratified_splits(whole, (0.5, 0.5))) == ids_of(
        empty, stratified_splits(empty, (0.5, 0.5))
    )


def test_files_alike_stay_together(dataset):
    labels_of = made_up(40)
    same = [f"i{i:04}" for i in (1, 8, 15, 22, 39)]
    for seed in range(8):  # by chance they would all be together once in a hundred times
        whole = dataset(labels_of, same=same)
        sides = [
            ids & set(same) for ids in ids_of(whole, stratified_splits(whole, FRACTIONS, seed))
        ]
        assert sorted(map(len, sides)) == [0, 0, 5]


def test_same_content(tmp_path):
    """Files alike in length, or in length and end, differ where they differ."""
    end = b"e" * 5000
    contents = [b"a" + end, b"b" + end, b"xy", b"xz", b"a" + end, b"xy", b"", b"long" * 10]
    for i, content in enumerate(contents):
        (tmp_path / str(i)).write_bytes(content)
    groups = same_content([str(tmp_path / str(i)) for i in range(len(contents))])
    assert sorted(map(sorted, groups)) == [[0, 4], [1], [2, 5], [3], [6], [7]]
    assert same_content([]) == []


def test_what_is_wanted_of_few():
    wanted = [(0, [0, 0, 0]), (2, [1.6, 0.2, 0.2]), (3, [1, 1, 1]), (5, [3, 1, 1])]
    wanted += [(10, [8, 1, 1]), (15, [12, 1.5, 1.5])]
    for count, expected in wanted:
        np.testing.assert_allclose(_wanted(count, np.array(FRACTIONS)), expected)
    np.testing.assert_allclose(_wanted(4, np.array([0.5, 0.26, 0.14, 0.1])), [1, 1, 1, 1])


def test_the_rarest_class_goes_first():
    """By hand: class 1 has unit 0 alone, which takes class 0 along; the rest makes up for it."""
    presence = np.array([[1, 1], [1, 0], [1, 0], [1, 0]])
    sides = _distribute(presence, np.ones(4, int), np.array([0.5, 0.5]))
    assert sides.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("fractions", [(), (0.5, 0.4), (1.5, -0.5), (1.0, 0.0), (float("nan"), 1)])
def test_fractions_that_make_no_whole(dataset, fractions):
    with pytest.raises(
        ValueError, match="fractions: expected numbers above 0 that make 1 together"
    ):
        stratified_splits(dataset({"a": [0]}), fractions)


@pytest.mark.parametrize(
    ("fractions", "expected"), [((0.8, 0.2), True), ((1,), True), ((80, 20), False), ((), False)]
)
def test_make_whole(fractions, expected):
    assert make_whole(fractions) is expected


def test_a_split_without_images_is_refused(dataset):
    whole = dataset({i: [0] for i in "abcd"}, same="abcd")
    message = r"expected images for every split, found (4, 0|0, 4) of 4 \(1 different files\)"
    with pytest.raises(ValueError, match=message):
        stratified_splits(whole, (0.5, 0.5))


def test_an_undivided_dataset_is_shared_out_by_class(dataset):
    """Of 40, 20 and 10 images of a class a fifth each is val; the rest is train, in its order."""
    labels_of = {f"{i:02}": [0] if i < 40 else [1] if i < 60 else [2] for i in range(70)}
    whole = dataset(labels_of)
    train, val = (shared_out(whole, split, 0.2) for split in ("train", "val"))
    assert np.bincount(val.labels).tolist() == [8, 4, 2]
    assert np.bincount(train.labels).tolist() == [32, 16, 8]
    assert sorted(train.image_ids + val.image_ids) == sorted(labels_of)
    assert list(train.image_ids) == sorted(train.image_ids)
    assert shared_out(whole, "val", 0.2).image_ids == val.image_ids
    assert shared_out(whole, "val", 0.2, seed=1).image_ids != val.image_ids
    assert len(shared_out(whole, "val", 0.5)) == 35
    assert shared_out(whole, "all", 0.2) is whole


@pytest.mark.parametrize(("split", "share"), [("val", 1), ("train", 0)])
def test_all_images_on_one_side(dataset, split, share):
    whole = dataset({"a": [0], "b": [0]})
    assert shared_out(whole, split, share) is whole
    other = {"val": "train", "train": "val"}[split]
    with pytest.raises(DatasetError, match=rf"found 2 in all and data.val_fraction {share}$"):
        shared_out(whole, other, share)


def test_an_image_that_is_not_there_is_like_no_other(dataset):
    whole = dataset({"a": [0], "b": [0], "c": [0], "d": [0]}, same=("a", "b"))
    together = {frozenset(shared_out(whole, s, 0.5).image_ids) for s in ("train", "val")}
    assert together == {frozenset("ab"), frozenset("cd")}
    for image in whole.images:
        Path(image).unlink()
    assert len(shared_out(whole, "val", 0.25)) == 1


def test_images_that_are_all_alike_are_shared_out_all_the_same(dataset):
    whole = dataset({"a": [0], "b": [0], "c": [0], "d": [0]}, same="abcd")
    assert len(shared_out(whole, "val", 0.25)) == 1
    with pytest.raises(DatasetError, match=r"found 1 in all and data.val_fraction 0.2$"):
        shared_out(dataset({"a": [0]}), "val", 0.2)
