"""The annotated objects that metrics take: what is refused."""

import numpy as np
import pytest

from core.metrics.ground_truth import GroundTruth
from tests.core.metrics.tables import detections, of

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"difficult": [0]}, "GroundTruth.difficult: expected bool, found int64"),
        ({"difficult": [True, False]}, r"GroundTruth.difficult: expected shape \(1,\)"),
        ({"boxes": [[0, 0, np.inf, 1]]}, "GroundTruth.boxes: expected finite numbers"),
        ({"labels": [0.0]}, "GroundTruth.labels: expected an integer type, found float64"),
        ({"areas": [[1.0]]}, r"GroundTruth.areas: expected shape \(1,\), found \(1, 1\)"),
        ({"ignore": [1]}, "GroundTruth.ignore: expected bool, found int64"),
    ],
)
def test_ground_truth_is_checked(change, message):
    good = {"image": [0], "boxes": np.zeros((1, 4)), "labels": [0], "difficult": [False]}
    GroundTruth(**good)
    with pytest.raises(ValueError, match=message):
        GroundTruth(**good | change)


@pytest.mark.parametrize(
    ("change", "num_classes", "message"),
    [
        ({"image": [2]}, 1, r"GroundTruth.image: expected indices 0 to 1 .* found 2 in row 0"),
        ({"image": [-1]}, 1, "GroundTruth.image: expected indices 0 to 1 .* found -1 in row 0"),
        ({"labels": [1]}, 1, r"GroundTruth.labels: expected indices 0 to 0 .* found 1 in row 0"),
        ({"labels": [-1]}, 2, r"GroundTruth.labels: .* \(padding dropped\), found -1 in row 0"),
        ({}, 0, "classes: expected at least one, found none"),
    ],
)
def test_objects_are_of_the_images_and_classes_of_the_detections(change, num_classes, message):
    good = {"image": [0], "boxes": np.zeros((1, 4)), "labels": [0], "difficult": [False]}
    GroundTruth(**good).require_fit(of(detections(), 1, 2))
    with pytest.raises(ValueError, match=message):
        GroundTruth(**good | change).require_fit(of(detections(), num_classes, 2))
