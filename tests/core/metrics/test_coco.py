"""COCO's numbers against pycocotools as it is used from files, and the published ones."""

import json
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from core.metrics.coco import STAT_NAMES, coco_metric
from core.metrics.ground_truth import GroundTruth
from tests.core.metrics.tables import detections, of, table
from utils.detections import DetectionTable

pytestmark = pytest.mark.full

FAKEBBOX100 = [
    0.504581, 0.696973, 0.572982, 0.585626, 0.519400, 0.501398,
    0.386813, 0.593680, 0.595353, 0.639811, 0.566421, 0.564291,
]  # fmt: skip


def objects(*rows, areas=None) -> GroundTruth:
    """From rows (image, label, ignore, x1, y1, x2, y2)."""
    table = np.array(rows, float).reshape(-1, 7)
    image, labels = table[:, 0].astype(int), table[:, 1].astype(int)
    ignore = table[:, 2].astype(bool)
    difficult = np.zeros(len(table), bool)
    return GroundTruth(image, table[:, 3:], labels, difficult, ignore, areas)


# ---------------------------------------------------------------- pycocotools from files


def ordinary(annotations: dict, results: list) -> COCOeval:
    """As everybody calls it: the ground truth's dictionary and a list of results."""
    with redirect_stdout(StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def as_files(det: DetectionTable, truth: GroundTruth, num_images: int, num_classes: int):
    """Ids count from 1; a crowd is what is to be ignored."""

    def xywh(box):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations = [
        {
            "id": j + 1,
            "image_id": int(truth.image[j]) + 1,
            "category_id": int(truth.labels[j]) + 1,
            "bbox": xywh(truth.boxes[j].tolist()),
            "area": float(truth.areas[j]),
            "iscrowd": int(truth.ignore[j]),
        }
        for j in range(len(truth))
    ]
    results = [
        {
            "image_id": int(det.image[i]) + 1,
            "category_id": int(det.labels[i]) + 1,
            "bbox": xywh(det.boxes[i].tolist()),
            "score": float(det.scores[i]),
        }
        for i in range(len(det))
    ]
    images = [{"id": i + 1} for i in range(num_images)]
    categories = [{"id": k + 1} for k in range(num_classes)]
    return {"images": images, "categories": categories, "annotations": annotations}, results


def mean(values: np.ndarray) -> float:
    """As summarize takes it, of what is not -1."""
    return float(values[values > -1].mean()) if (values > -1).any() else np.nan


def assert_equal(got, evaluation: COCOeval):
    """Every number, the classes' too, computed here from pycocotools' own arrays."""
    expected = np.array(evaluation.stats)
    expected[expected == -1] = np.nan
    np.testing.assert_allclose(got.stats, expected, rtol=0, atol=1e-12)
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    for k, one in enumerate(got.classes):
        numbers = {
            "ap": precision[:, :, k, 0, 2],
            "ap50": precision[0, :, k, 0, 2],
            "ap75": precision[5, :, k, 0, 2],
            "ap_small": precision[:, :, k, 1, 2],
            "ap_medium": precision[:, :, k, 2, 2],
            "ap_large": precision[:, :, k, 3, 2],
            "ar100": recall[:, k, 0, 2],
        }
        for name, values in numbers.items():
            np.testing.assert_allclose(getattr(one, name), mean(values), atol=1e-12, err_msg=name)
        curve = precision[0, :, k, 0, 2]
        np.testing.assert_array_equal(one.precision, np.where(curve == -1, np.nan, curve))
        np.testing.assert_allclose(one.recall, np.arange(101) / 100)


# ---------------------------------------------------------------- the published numbers


@pytest.fixture
def fakebbox100(shared_data):
    folder = shared_data / "evaluators" / "coco_fakebbox100"
    names = ("instances_val2014_100", "instances_val2014_fakebbox100_results")
    return [json.loads((folder / f"{n}.json").read_text(encoding="utf-8")) for n in names]


def from_files(annotations: dict, results: list):
    """Flat arrays; images and classes by id, as pycocotools has them: equal scores go by image."""

    def places(rows):
        return {identity: i for i, identity in enumerate(sorted(row["id"] for row in rows))}

    images, labels = places(annotations["images"]), places(annotations["categories"])

    def columns(rows):
        boxes = np.array([row["bbox"] for row in rows])
        boxes[:, 2:] += boxes[:, :2]
        return (
            np.array([images[row["image_id"]] for row in rows]),
            boxes,
            np.array([labels[row["category_id"]] for row in rows]),
        )

    image, boxes, label = columns(results)
    scores = np.array([row["score"] for row in results])
    ids = tuple(str(identity) for identity in sorted(images))
    names = tuple(f"class {identity}" for identity in sorted(labels))
    det = DetectionTable(ids, names, image, boxes, scores, label)
    rows = annotations["annotations"]
    crowd = np.array([row["iscrowd"] for row in rows], bool)
    areas = np.array([row["area"] for row in rows])
    truth = GroundTruth(*columns(rows), np.zeros(len(rows), bool), crowd, areas)
    return det, truth


def test_published_figures(fakebbox100):
    det, truth = from_files(*fakebbox100)
    got = coco_metric(det, truth)
    assert (len(det.image_ids), len(det.classes), len(STAT_NAMES)) == (100, 80, 12)
    np.testing.assert_allclose(got.stats, FAKEBBOX100, rtol=0, atol=1e-6)
    assert got.mean_ap == got.stats[0]


def test_every_number_of_the_real_data(fakebbox100):
    got = coco_metric(*from_files(*fakebbox100))
    assert_equal(got, ordinary(*fakebbox100))
    assert sum(one.num_objects for one in got.classes) == sum(
        not row["iscrowd"] for row in fakebbox100[0]["annotations"]
    )


def test_crowds_are_neither_objects_nor_absent(fakebbox100):
    det, truth = from_files(*fakebbox100)
    none = np.zeros(len(truth), bool)

    def with_flags(kept, difficult, ignore):
        changed = GroundTruth(
            truth.image[kept], truth.boxes[kept], truth.labels[kept],
            difficult[kept], ignore[kept], truth.areas[kept],
        )  # fmt: skip
        return coco_metric(det, changed).mean_ap

    assert with_flags(~none, none, none) == pytest.approx(0.502346, abs=1e-6)
    assert with_flags(~truth.ignore, none, none) == pytest.approx(0.503647, abs=1e-6)
    assert with_flags(~none, truth.ignore, none) == pytest.approx(FAKEBBOX100[0], abs=1e-6)


# ---------------------------------------------------------------- small cases


def random_case(seed):
    """Whole corners, so that equal overlaps and equal scores are common; sizes of all classes."""
    rng = np.random.default_rng(seed)
    num_detections, num_objects = rng.integers(1, 25), rng.integers(0, 15)

    def boxes(n):
        corner = rng.integers(0, 3, (n, 2)) * 8.0
        return np.concatenate([corner, corner + rng.choice([16, 24, 32, 96, 104], (n, 2))], axis=1)

    det = table(
        rng.integers(0, 3, num_detections),
        boxes(num_detections),
        rng.integers(0, 8, num_detections) / 8,
        rng.integers(0, 3, num_detections),
    )
    found = boxes(num_objects)
    truth = GroundTruth(
        rng.integers(0, 4, num_objects),
        found,
        rng.integers(0, rng.integers(1, 4), num_objects),
        np.zeros(num_objects, bool),
        rng.random(num_objects) < 0.2,
        (found[:, 2:] - found[:, :2]).prod(axis=1) * rng.choice([0.5, 1], num_objects),
    )
    return det, truth


@pytest.mark.parametrize("seed", range(60))
def test_random_cases(seed):
    det, truth = random_case(seed)
    got = coco_metric(of(det, 3, 4), truth)
    assert_equal(got, ordinary(*as_files(det, truth, 4, 3)))
    counted = [np.count_nonzero(truth.labels[~truth.ignore] == k) for k in range(3)]
    assert [one.num_objects for one in got.classes] == counted


SQUARE = (0, 0, 40, 40)  # medium
AWAY = (50, 50, 90, 90)


def test_hand_computed():
    """One of two objects found exactly: precision 1 up to recall .5, so 51 of 101 points."""
    truth = objects((0, 0, 0, *SQUARE), (1, 0, 0, *AWAY))
    got = coco_metric(of(detections((0, 0, 0.9, *SQUARE)), 1, 2), truth)
    (one,) = got.classes
    assert [one.ap, one.ap50, one.ap75, one.ap_medium] == pytest.approx([51 / 101] * 4)
    assert np.isnan([one.ap_small, one.ap_large]).all()
    assert (one.ar100, one.num_objects) == (0.5, 2)
    np.testing.assert_allclose(one.precision, [1.0] * 51 + [0.0] * 50)


def test_the_first_annotation_can_be_found():
    """pycocotools takes an object's id for whether it was matched: one of id 0 never is."""
    truth, det = objects((0, 0, 0, *SQUARE)), detections((0, 0, 0.9, *SQUARE))
    assert coco_metric(of(det, 1, 1), truth).mean_ap == pytest.approx(1.0)
    files, results = as_files(det, truth, 1, 1)
    files["annotations"][0]["id"] = 0
    assert ordinary(files, results).stats[0] == 0.0


def test_equal_overlap_goes_to_the_later_object():
    """The tie's winner decides whether the second detection finds its only object free."""
    low, high, middle = (0, 0, 40, 40), (0, 16, 40, 56), (0, 8, 40, 48)
    det = detections((0, 0, 0.9, *middle), (0, 0, 0.8, *low))

    def recall(*boxes):
        truth = objects(*[(0, 0, 0, *box) for box in boxes])
        return coco_metric(of(det, 1, 1), truth).classes[0].precision[100]

    assert recall(low, high) == 1.0
    assert recall(high, low) == 0.0


def test_equal_scores_keep_the_order_of_the_input():
    truth = objects((0, 0, 0, *SQUARE))
    hit, miss = (0, 0, 0.5, *SQUARE), (0, 0, 0.5, *AWAY)
    assert coco_metric(of(detections(hit, miss), 1, 1), truth).mean_ap == pytest.approx(1.0)
    assert coco_metric(of(detections(miss, hit), 1, 1), truth).mean_ap == pytest.approx(0.5)


@pytest.mark.parametrize("flag", ["difficult", "ignore"])
def test_a_crowd_takes_any_number_of_detections(flag):
    flags = {name: np.array([False, name == flag]) for name in ("difficult", "ignore")}
    truth = GroundTruth([0, 0], np.array([SQUARE, (50, 50, 500, 500)]), [0, 0], **flags)
    inside = [(0, 0, 0.9, *AWAY), (0, 0, 0.8, 100, 100, 140, 140)]
    got = coco_metric(of(detections(*inside, (0, 0, 0.7, *SQUARE)), 1, 1), truth)
    assert got.mean_ap == pytest.approx(1.0)
    assert got.classes[0].num_objects == 1


def test_size_is_by_the_given_area():
    truth = objects((0, 0, 0, *SQUARE), areas=[32.0 * 32.0])  # the bound belongs to both
    stats = coco_metric(of(detections((0, 0, 0.9, *SQUARE)), 1, 1), truth).stats
    np.testing.assert_allclose(stats[3:6], [1, 1, np.nan])


# ---------------------------------------------------------------- what is not there


def test_without_detections():
    truth = objects((0, 0, 0, *SQUARE), (0, 0, 0, 0, 0, 10, 10), (0, 0, 0, 0, 0, 200, 200))
    got = coco_metric(of(detections(), 2, 2), truth)
    np.testing.assert_array_equal(got.stats, np.zeros(12))
    np.testing.assert_array_equal(got.classes[0].precision, np.zeros(101))


def test_class_without_objects_is_left_out_of_the_means():
    truth = objects((0, 0, 0, *SQUARE), (0, 1, 1, *SQUARE))
    det = detections((0, 0, 0.9, *SQUARE), (0, 1, 0.9, *AWAY), (0, 2, 0.9, *AWAY))
    got = coco_metric(of(det, 3, 1), truth)
    assert got.mean_ap == pytest.approx(1.0)
    for one in got.classes[1:]:
        assert np.isnan([one.ap, one.ap50, one.ar100, *one.precision]).all()
        assert one.num_objects == 0


@pytest.mark.parametrize("num_images", [0, 3])
def test_nothing_at_all(num_images, capsys):
    got = coco_metric(of(detections(), 2, num_images), objects())
    assert np.isnan(got.stats).all()
    assert np.isnan(got.mean_ap)
    assert len(got.classes) == 2
    assert capsys.readouterr() == ("", "")


def test_equal_scores_go_by_the_number_of_their_image():
    """As pycocotools goes through a file, whatever the order of the images is here."""
    truth = objects((0, 0, 0, *SQUARE), (1, 0, 0, *SQUARE))
    rows = [(0, 0, 0.5, *SQUARE), (0, 0, 0.5, *SQUARE), (1, 0, 0.5, *SQUARE)]

    def mean_ap(*image_ids):
        return coco_metric(replace(of(detections(*rows), 1, 2), image_ids=image_ids), truth).mean_ap

    assert mean_ap("9", "10") == mean_ap("a", "10") < mean_ap("10", "9")


def test_bad_inputs():
    det, truth = detections((1, 0, 0.9, *SQUARE)), objects((0, 1, 0, *SQUARE))
    with pytest.raises(ValueError, match=r"GroundTruth.labels: .* 0 to 0 .* found 1 in row 0"):
        coco_metric(of(det, 1), truth)
