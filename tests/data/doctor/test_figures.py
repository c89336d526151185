"""The figures of a split, counted by hand."""

import numpy as np
import pytest

from configs.schema import Canvas
from data.doctor.figures import class_figures, split_figures
from data.images.resize import at_input_size
from data.records import Defects, assemble

pytestmark = pytest.mark.quick

RULE = Canvas(height=100, width=100)


@pytest.fixture
def dataset():
    """Three images, 200x100, 200x100 and 50x50; five objects, one of them an ignore region."""
    return assemble(
        "set/train",
        ("cat", "dog", "eel"),
        images=["a.jpg", "b.jpg", "c.jpg"],
        image_ids=["a", "b", "c"],
        sizes=np.array([[200, 100], [200, 100], [50, 50]]),
        image_index=np.array([0, 0, 0, 2, 0]),
        boxes=[
            [0, 0, 20, 20],
            [10, 10, 30, 50],
            [0, 0, 200, 100],
            [10, 10, 30, 20],
            [5, 5, 6, 6],
        ],
        labels=[0, 1, 0, 1, 0],
        difficult=np.array([True, False, False, False, False]),
        ignore=np.array([False, False, False, False, True]),
        defects=Defects(),
    )


def test_boxes_at_the_networks_size(dataset):
    """200x100 shrinks by half to 100x50, 50x50 grows to 100x100."""
    boxes, sizes = at_input_size(dataset, RULE)
    np.testing.assert_array_equal(sizes, [[50, 100], [50, 100], [100, 100]])
    np.testing.assert_array_equal(boxes[1], [5, 5, 15, 25])
    np.testing.assert_array_equal(boxes[4], [20, 20, 60, 40])


def test_boxes_that_leave_their_image_are_cut_off(dataset):
    dataset.boxes[0] = [-50, 10, 30, 150]
    np.testing.assert_array_equal(at_input_size(dataset, RULE)[0][0], [0, 5, 15, 50])


def test_classes(dataset):
    """The ignore region, a cat, is none."""
    assert class_figures(dataset) == [
        {"name": "cat", "objects": 2, "images": 1, "share": 0.5},
        {"name": "dog", "objects": 2, "images": 2, "share": 0.5},
        {"name": "eel", "objects": 0, "images": 0, "share": 0.0},
    ]


def test_counts(dataset):
    figures = split_figures(dataset, RULE)
    assert (figures["name"], figures["images"], figures["empty_images"]) == ("set/train", 3, 1)
    assert (figures["objects"], figures["difficult"], figures["ignore_regions"]) == (4, 1, 1)
    assert figures["imbalance"] == 1.0, "a class without objects is a finding of its own"
    assert figures["boxes_per_image"]["most"] == 3
    assert figures["boxes_per_image"]["mean"] == pytest.approx(4 / 3)
    assert figures["boxes_per_image"]["median"] == 1
    filled = {k: n for k, n in figures["boxes_per_image"]["histogram"].items() if n}
    assert filled == {"0": 1, "1": 1, "3-4": 1}
    assert figures["image_sizes"] == {
        "different": 2,
        "most_frequent": {"200x100": 2, "50x50": 1},
    }


def test_sizes_and_ratios(dataset):
    """At the input the objects are 10x10, 10x20, 100x50 and 40x20."""
    figures = split_figures(dataset, RULE)
    filled = {
        name: {k: n for k, n in figures[name].items() if n} for name in figures if "_at" in name
    }
    assert filled["sides_at_input"] == {"8-16": 2, "16-32": 1, "64-128": 1}
    assert filled["ratios_at_input"] == {"0.5-0.67": 2, "0.8-1.25": 1, "2-3": 1}
    assert figures["coco_sizes_at_input"] == {"small": 3, "medium": 1, "large": 0}
    assert figures["coco_sizes"] == {"small": 3, "medium": 0, "large": 1}


def test_a_split_without_objects(dataset):
    dataset.ignore[:] = True
    figures = split_figures(dataset, RULE)
    assert (figures["objects"], figures["imbalance"], figures["ignore_regions"]) == (0, None, 5)
    assert sum(figures["sides_at_input"].values()) == 0
