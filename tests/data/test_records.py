"""Assembling flat arrays and taking them apart again."""

import numpy as np
import pytest

from data.records import (
    OF_OBJECTS,
    DatasetError,
    Defects,
    assemble,
    concatenate,
    first_images,
    select,
)

pytestmark = pytest.mark.quick


def record(name, *labels, size=(40, 30)):
    """One image; box i of its objects is (i, 0, i + 1, label + 1), odd labels are difficult."""
    return name, labels, size


def made(name, classes, records, defects):
    rows = [(m, i, label) for m, r in enumerate(records) for i, label in enumerate(r[1])]
    return assemble(
        name,
        classes,
        images=[f"{name}.jpg" for name, _, _ in records],
        image_ids=[name for name, _, _ in records],
        sizes=[size for _, _, size in records],
        image_index=[m for m, _, _ in rows],
        boxes=[(i, 0, i + 1, label + 1) for _, i, label in rows],
        labels=[label for _, _, label in rows],
        difficult=[label % 2 for _, _, label in rows],
        defects=defects,
    )


def defects(*kinds):
    return Defects([(kind, f"some file: {kind}") for kind in kinds])


@pytest.fixture
def dataset():
    records = [record("a", 2), record("b"), record("c", 1, 0, 3, size=(50, 60)), record("d")]
    return made("set/train", ["w", "x", "y", "z"], records, defects("bad", "bad", "odd"))


def test_assemble(dataset):
    """Objects one image after another; images without any take no rows."""
    assert dataset.name == "set/train"
    assert dataset.classes == ("w", "x", "y", "z")
    assert dataset.images == ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert dataset.image_ids == ("a", "b", "c", "d")
    assert len(dataset) == 4
    np.testing.assert_array_equal(dataset.sizes, [[40, 30], [40, 30], [50, 60], [40, 30]])
    np.testing.assert_array_equal(dataset.labels, [2, 1, 0, 3])
    np.testing.assert_array_equal(dataset.difficult, [False, True, False, True])
    expected = [[0, 0, 1, 3], [0, 0, 1, 2], [1, 0, 2, 1], [2, 0, 3, 4]]
    np.testing.assert_array_equal(dataset.boxes, expected)
    np.testing.assert_array_equal(dataset.row_splits, [0, 1, 1, 4, 4])
    dtypes = {name: getattr(dataset, name).dtype for name in ("boxes", "labels", "difficult")}
    assert dtypes == {"boxes": np.float64, "labels": np.int32, "difficult": bool}
    assert (dataset.row_splits.dtype, dataset.sizes.dtype) == (np.int64, np.int32)
    assert dataset.defects.counts() == {"bad": 2, "odd": 1}


def test_rows_and_image_index_agree(dataset):
    np.testing.assert_array_equal(dataset.image_index, [0, 2, 2, 2])
    assert [dataset.rows(i) for i in range(4)] == [
        slice(0, 1), slice(1, 1), slice(1, 4), slice(4, 4)
    ]  # fmt: skip
    for i in range(4):
        rows = np.arange(4)[dataset.rows(i)]
        np.testing.assert_array_equal(rows, np.flatnonzero(dataset.image_index == i))


def test_a_dataset_without_any_object():
    dataset = made("set", ["w"], [record("a"), record("b")], Defects())
    assert dataset.boxes.shape == (0, 4)
    assert dataset.labels.shape == dataset.difficult.shape == dataset.image_index.shape == (0,)
    np.testing.assert_array_equal(dataset.row_splits, [0, 0, 0])


def test_no_image_left_says_what_was_dropped():
    with pytest.raises(DatasetError, match=r"set/train: no images .*2 x unreadable image"):
        made("set/train", ["w"], [], defects("unreadable image", "unreadable image"))


def test_concatenate_keeps_order_objects_and_defects(dataset):
    other = made("other/val", dataset.classes, [record("e", 3, 2), record("f")], defects("odd"))
    third = made("third", dataset.classes, [record("g", 0)], Defects())
    joined = concatenate([dataset, other, third])
    assert joined.name == "set/train + other/val + third"
    assert joined.image_ids == tuple("abcdefg")
    assert joined.images == tuple(f"{name}.jpg" for name in "abcdefg")
    assert joined.defects.counts() == {"bad": 2, "odd": 2}
    parts = [(part, i) for part in (dataset, other, third) for i in range(len(part))]
    for index, (part, i) in enumerate(parts):
        for name in ("boxes", "labels", "difficult"):
            found = getattr(joined, name)[joined.rows(index)]
            np.testing.assert_array_equal(found, getattr(part, name)[part.rows(i)])
        np.testing.assert_array_equal(joined.sizes[index], part.sizes[i])
    assert joined.row_splits.dtype == dataset.row_splits.dtype


def test_concatenate_of_one_is_that_one(dataset):
    assert concatenate([dataset]) is dataset


def test_image_ids_that_two_splits_have_are_led_by_their_split(dataset):
    """Detections are filed under the id: they could not be told apart."""
    other = made("other/val", dataset.classes, [record("x"), record("c", 1)], Defects())
    joined = concatenate([dataset, other])
    assert joined.image_ids[2:] == ("set/train/c", "set/train/d", "other/val/x", "other/val/c")
    with pytest.raises(DatasetError, match=r"set/train \+ set/train: .*'set/train/a' 2 times"):
        concatenate([dataset, dataset])


def test_no_image_left_says_why():
    with pytest.raises(DatasetError, match=r"s: .* read: 1 x bad, 1 x odd; the first: some file"):
        made("s", ["x"], [], defects("bad", "odd"))
    with pytest.raises(DatasetError, match=r"s: no images left to read: none listed"):
        made("s", ["x"], [], defects())


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_first_images(dataset, count):
    first = first_images(dataset, count)
    assert len(first) == len(first.sizes) == len(first.row_splits) - 1 == min(count, 4)
    assert first.image_ids == dataset.image_ids[:count]
    assert first.images == dataset.images[:count]
    assert len(first.boxes) == len(first.labels) == len(first.difficult) == first.row_splits[-1]
    for i in range(len(first)):
        np.testing.assert_array_equal(first.boxes[first.rows(i)], dataset.boxes[dataset.rows(i)])
    assert len(dataset) == 4, "the whole is left alone"


def test_a_defect_is_filed_under_its_kind():
    found = Defects()
    found.add("empty box", "a.xml: ...")
    found.add("empty box", "b.xml: ...")
    assert found.messages == [("empty box", "a.xml: ..."), ("empty box", "b.xml: ...")]
    assert found.counts() == {"empty box": 2}
    assert DatasetError("a.xml: ...").kind == "unreadable"


# ------------------------------------------------------------------------------------------------
# Objects that come in no order
# ------------------------------------------------------------------------------------------------


def test_assemble_groups_objects_by_image_and_keeps_their_order():
    dataset = assemble(
        "set/val",
        ["x", "y"],
        images=["a.jpg", "b.jpg", "c.jpg"],
        image_ids=["a", "b", "c"],
        sizes=[[40, 30]] * 3,
        image_index=[2, 0, 2, 0],
        boxes=[[1, 0, 4, 5], [2, 0, 3, 1], [3, 0, 4, 1], [4, 0, 6, 3]],
        labels=[0, 1, 1, 0],
        ignore=[True, False, False, False],
        areas=[7, 1, 1, 6],
        category_ids=[18, 44],
        defects=defects(),
    )
    np.testing.assert_array_equal(dataset.boxes[:, 0], [2, 4, 1, 3])
    np.testing.assert_array_equal(dataset.labels, [1, 0, 0, 1])
    np.testing.assert_array_equal(dataset.ignore, [False, False, True, False])
    np.testing.assert_array_equal(dataset.areas, [1, 6, 7, 1])
    np.testing.assert_array_equal(dataset.difficult, [False] * 4)
    np.testing.assert_array_equal(dataset.row_splits, [0, 2, 2, 4])
    assert dataset.category_ids == (18, 44)


def test_what_is_left_open_follows_from_the_boxes_and_the_classes(dataset):
    np.testing.assert_array_equal(dataset.areas, [3, 2, 1, 4])
    np.testing.assert_array_equal(dataset.ignore, [False] * 4)
    assert dataset.category_ids == (1, 2, 3, 4)


def test_an_id_that_occurs_twice_is_refused():
    with pytest.raises(DatasetError, match="s: expected different image ids, found 'a' 2 times"):
        made("s", ["x"], [record("a"), record("b"), record("a")], defects())


@pytest.mark.parametrize("indices", [[2, 0], [3], [], [1, 2, 2]])
def test_select_takes_images_with_their_objects(dataset, indices):
    chosen = select(dataset, indices)
    assert chosen.image_ids == tuple(dataset.image_ids[i] for i in indices)
    np.testing.assert_array_equal(chosen.sizes, dataset.sizes[indices])
    for place, i in enumerate(indices):
        for name in OF_OBJECTS:
            expected = getattr(dataset, name)[dataset.rows(i)]
            np.testing.assert_array_equal(getattr(chosen, name)[chosen.rows(place)], expected)
    assert chosen.row_splits[-1] == len(chosen.labels)
