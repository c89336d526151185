"""Objects an image against the limits of detection, counted by hand."""

import numpy as np
import pytest

from data.doctor.object_counts import limits, objects_an_image, objects_of_a_class, rounded_up
from data.records import Defects, assemble

pytestmark = pytest.mark.quick


def dataset(*images):
    """Images of (objects of class a, of class b, regions to ignore) each."""
    counts, numbers = np.array(images).reshape(-1, 3), range(len(images))
    image_index = np.repeat(numbers, counts.sum(axis=1))
    return assemble(
        "bccd/test",
        ("a", "b"),
        images=[f"{number}.jpg" for number in numbers],
        image_ids=[str(number) for number in numbers],
        sizes=[[100, 100]] * len(images),
        image_index=image_index,
        boxes=np.tile([0.0, 0, 10, 10], (len(image_index), 1)),
        labels=np.repeat([0, 1, 0] * len(images), counts.ravel()),
        difficult=np.concatenate([np.arange(count) % 2 == 0 for count in counts.sum(axis=1)]),
        ignore=np.repeat([False, False, True] * len(images), counts.ravel()),
        defects=Defects(),
    )


def messages(*args, **options):
    return [text for _, text in limits(*args, **options)]


def test_objects_are_counted_without_regions_to_ignore():
    split = dataset((3, 4, 50), (0, 0, 9), (5, 0, 0))
    assert objects_an_image(split).tolist() == [7, 0, 5]
    assert objects_of_a_class(split).tolist() == [4, 0, 5]


def test_images_with_more_objects_than_detections_are_named_with_what_to_set():
    split = dataset((375, 0, 0), (60, 41, 0), (50, 50, 80), (3, 0, 0))
    assert messages(split, 100, 1000) == [
        "bccd/test: 2 of 4 images hold more than model.detect.max_detections=100 objects, up to "
        "375: set model.detect.max_detections=600; model.detect.top_k=1000 is enough"
    ]
    assert messages(split, 375, 1000) == []


def test_candidates_are_compared_too():
    split = dataset((501, 0, 0), (3, 0, 0))
    assert messages(split, 1000, 1000) == [
        "bccd/test: 1 of 2 images holds more than 500 objects, up to 501; model.detect.top_k=1000 "
        "keeps fewer than 2 candidates per object: set model.detect.top_k=3000"
    ]
    assert messages(dataset((500, 0, 0)), 1000, 1000) == []
    both = messages(split, 100, 1000)
    assert len(both) == 2
    assert both[0].endswith("set model.detect.max_detections=800 and model.detect.top_k=3000")


def test_cocos_metric_looks_at_100_of_a_class():
    assert messages(dataset((100, 100, 0)), 1000, 1000, is_coco=True) == []
    assert messages(dataset((101, 0, 0), (5, 5, 0)), 1000, 1000, is_coco=True) == [
        "bccd/test: 1 of 2 images holds more than 100 objects of a class: COCO's metric looks at "
        "no more detections, whatever is set"
    ]
    assert messages(dataset((101, 0, 0)), 1000, 1000) == []


def test_a_split_without_objects_reaches_nothing():
    assert messages(dataset((0, 0, 5)), 1, 1, is_coco=True) == []


def test_following_the_advice_ends_it():
    for most in (101, 375, 999, 4000):
        split = dataset((most, 0, 0))
        advice = rounded_up(1.5 * most), rounded_up(4 * most)
        assert messages(split, *advice) == []


def test_rounding():
    assert [rounded_up(n) for n in (1, 10, 11, 99, 100, 101, 562.5, 1500, 2004)] == [
        10, 10, 20, 100, 100, 200, 600, 2000, 3000
    ]  # fmt: skip
