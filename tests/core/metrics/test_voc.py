"""VOC average precision and confusion matrix, against plain loops and other people's numbers."""

import math

import numpy as np
import pytest

from core.metrics import overlaps, voc
from core.metrics.ground_truth import GroundTruth
from core.metrics.voc import confusion_matrix, voc_matches, voc_metric
from tests.core.metrics.tables import detections, of, table

pytestmark = pytest.mark.quick

# Seven images of one class, the sample of github.com/rafaelpadilla/Object-Detection-Metrics (MIT
# licence, copyright 2018 Rafael Padilla). Rows are image, [score,] x, y, width, height.
PADILLA_OBJECTS = np.array(
    [
        [1, 25, 16, 38, 56],
        [1, 129, 123, 41, 62],
        [2, 123, 11, 43, 55],
        [2, 38, 132, 59, 45],
        [3, 16, 14, 35, 48],
        [3, 123, 30, 49, 44],
        [3, 99, 139, 47, 47],
        [4, 53, 42, 40, 52],
        [4, 154, 43, 31, 34],
        [5, 59, 31, 44, 51],
        [5, 48, 128, 34, 52],
        [6, 36, 89, 52, 76],
        [6, 62, 58, 44, 67],
        [7, 28, 31, 55, 63],
        [7, 58, 67, 50, 58],
    ]
)
PADILLA_DETECTIONS = np.array(
    [
        [1, 0.88, 5, 67, 31, 48],
        [1, 0.70, 119, 111, 40, 67],
        [1, 0.80, 124, 9, 49, 67],
        [2, 0.71, 64, 111, 64, 58],
        [2, 0.54, 26, 140, 60, 47],
        [2, 0.74, 19, 18, 43, 35],
        [3, 0.18, 109, 15, 77, 39],
        [3, 0.67, 86, 63, 46, 45],
        [3, 0.38, 160, 62, 36, 53],
        [3, 0.91, 105, 131, 47, 47],
        [3, 0.44, 18, 148, 40, 44],
        [4, 0.35, 83, 28, 28, 26],
        [4, 0.78, 28, 68, 42, 67],
        [4, 0.45, 87, 89, 25, 39],
        [4, 0.14, 10, 155, 60, 26],
        [5, 0.62, 50, 38, 28, 46],
        [5, 0.44, 95, 11, 53, 28],
        [5, 0.95, 29, 131, 72, 29],
        [5, 0.23, 29, 163, 72, 29],
        [6, 0.45, 43, 48, 74, 38],
        [6, 0.84, 17, 155, 29, 35],
        [6, 0.43, 95, 110, 25, 42],
        [7, 0.48, 16, 20, 101, 88],
        [7, 0.95, 33, 116, 37, 49],
    ]
)


def objects(*rows) -> GroundTruth:
    """From rows (image, label, difficult, x1, y1, x2, y2)."""
    table = np.array(rows, float).reshape(-1, 7)
    image, labels = table[:, 0].astype(int), table[:, 1].astype(int)
    return GroundTruth(image, table[:, 3:], labels, table[:, 2].astype(bool))


def xywh_to_xyxy(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


# ---------------------------------------------------------------- an independent reference


def plain_iou(a, b, one):
    width = min(a[2], b[2]) - max(a[0], b[0]) + one
    height = min(a[3], b[3]) - max(a[1], b[1]) + one
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + one) * (box[3] - box[1] + one) for box in (a, b)]
    return width * height / (areas[0] + areas[1] - width * height)


def plain_flags(det, truth, label, threshold, plus_one, strict):
    """voc_eval in loops: [(score, is true positive)] without the ignored ones, and npos."""
    mine = [i for i in range(len(det)) if det.labels[i] == label]
    mine.sort(key=lambda i: -det.scores[i])  # Python's sort is stable
    used, flags = set(), []
    for i in mine:
        best, best_iou = None, -math.inf
        for j in range(len(truth)):
            if truth.image[j] == det.image[i] and truth.labels[j] == label:
                iou = plain_iou(det.boxes[i], truth.boxes[j], plus_one)
                if iou > best_iou:
                    best, best_iou = j, iou
        over = best_iou > threshold if strict else best_iou >= threshold
        if over and truth.difficult[best]:
            continue
        flags.append((det.scores[i], bool(over and best not in used)))
        if over:
            used.add(best)
    npos = sum(1 for j in range(len(truth)) if truth.labels[j] == label and not truth.difficult[j])
    return flags, npos


def plain_ap(flags, npos):
    """Both average precisions, from the recall and precision lists of the flags."""
    recall, precision, positives = [], [], 0
    for count, (_, positive) in enumerate(flags, start=1):
        positives += positive
        recall.append(positives / npos)
        precision.append(positives / count)
    eleven = 0.0
    for t in np.arange(0, 1.1, 0.1):
        eleven += max((p for r, p in zip(recall, precision, strict=True) if r >= t), default=0) / 11
    mrec, mpre = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    area = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))
    return area, eleven


def plain_best_f1(flags, npos):
    """The highest F1 over all thresholds that are a score."""
    best = 0.0
    for score, _ in flags:
        kept = [positive for s, positive in flags if s >= score]
        best = max(best, 2 * sum(kept) / (len(kept) + npos))
    return best


def plain_confusion(det, truth, num_classes, iou_threshold, score_threshold):
    pairs = []
    for i in range(len(det)):
        for j in range(len(truth)):
            if det.scores[i] >= score_threshold and det.image[i] == truth.image[j]:
                iou = plain_iou(det.boxes[i], truth.boxes[j], 0)
                wrong = det.labels[i] != truth.labels[j]
                if iou >= iou_threshold:
                    pairs.append((-iou, -det.scores[i], wrong, i, j))
    matrix = np.zeros((num_classes + 1, num_classes + 1), int)
    matched, found = set(), set()
    for _, _, _, i, j in sorted(pairs):
        if not truth.difficult[j] and i not in matched and j not in found:
            matched.add(i)
            found.add(j)
            matrix[truth.labels[j], det.labels[i]] += 1
    on_difficult = {i for *_, i, j in pairs if truth.difficult[j]}
    for j in range(len(truth)):
        if j not in found and not truth.difficult[j]:
            matrix[truth.labels[j], num_classes] += 1
    for i in range(len(det)):
        if det.scores[i] >= score_threshold and i not in matched | on_difficult:
            matrix[num_classes, det.labels[i]] += 1
    return matrix


def random_case(seed, num_classes=3):
    """A few images on a grid so coarse that equal boxes, equal IoU and equal scores are common."""
    rng = np.random.default_rng(seed)
    num_detections, num_objects = rng.integers(0, 30), rng.integers(0, 12)

    def boxes(n):
        corner = rng.integers(0, 4, (n, 2))
        return np.concatenate([corner, corner + rng.integers(1, 4, (n, 2))], axis=1) * 4.0

    def labels(n):
        return rng.integers(0, rng.integers(1, num_classes + 1), n)  # the last ones often absent

    det = table(
        rng.integers(0, 4, num_detections),
        boxes(num_detections),
        rng.integers(0, 8, num_detections) / 8,
        labels(num_detections),
    )
    truth = GroundTruth(
        rng.integers(0, 4, num_objects),
        boxes(num_objects),
        labels(num_objects),
        rng.random(num_objects) < 0.25,
    )
    return det, truth


@pytest.fixture(params=[2, 1_000_000], ids=["tiny chunks", "one chunk"])
def chunked(request, monkeypatch):
    monkeypatch.setattr(overlaps, "PAIRS_PER_CHUNK", request.param)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("plus_one", [False, True])
def test_equals_plain_loops(plus_one, strict):
    thresholds = (0.25, 0.5, 1.0)  # values that the grid's overlaps hit exactly
    finite = 0
    for seed in range(80):
        det, truth = random_case(seed)
        result = voc_metric(of(det, 3), truth, thresholds, plus_one=plus_one, strict=strict)
        for row, threshold in zip(result.classes, thresholds, strict=True):
            for label, got in enumerate(row):
                flags, npos = plain_flags(det, truth, label, threshold, plus_one, strict)
                assert got.num_objects == npos
                np.testing.assert_array_equal(got.scores, [score for score, _ in flags])
                positives = np.round(got.precision * np.arange(1, len(flags) + 1))
                np.testing.assert_array_equal(positives, np.cumsum([p for _, p in flags]))
                if npos == 0:
                    assert math.isnan(got.ap_area)
                    assert math.isnan(got.ap_11_point)
                    continue
                finite += 1
                assert (got.ap_area, got.ap_11_point) == pytest.approx(plain_ap(flags, npos))
                assert got.best.f1 == pytest.approx(plain_best_f1(flags, npos))
                assert got.max_recall == pytest.approx(sum(p for _, p in flags) / npos)
    assert finite > 300  # the cases are not all empty


@pytest.mark.usefixtures("chunked")
def test_confusion_matrix_equals_plain_loops():
    total = np.zeros((4, 4), int)
    for seed in range(300):
        det, truth = random_case(seed)
        got = confusion_matrix(of(det, 3), truth, iou_threshold=0.4, score_threshold=0.25)
        expected = plain_confusion(det, truth, 3, 0.4, 0.25)
        np.testing.assert_array_equal(got, expected, err_msg=f"seed {seed}")
        total += got
    assert total[3, 3] == 0
    assert (np.delete(total.ravel(), 15) > 0).all()  # every other cell was put to the test


# ---------------------------------------------------------------- other people's numbers


@pytest.mark.parametrize(
    ("plus_one", "iou", "area", "eleven"),
    [
        (True, 0.1, 0.3371981, 0.3333333),
        (True, 0.3, 0.2456867, 0.2683983),
        (True, 0.5, 0.0222222, 0.0303030),
        (True, 0.75, 0.0, 0.0),
        (False, 0.1, 0.2801329, None),
        (False, 0.3, 0.2253968, None),
        (False, 0.5, 0.0222222, None),
    ],
)
def test_padilla_figures(plus_one, iou, area, eleven):
    """What Padilla's own evaluator printed for these boxes, and the same with its +1 taken out."""
    det = table(
        PADILLA_DETECTIONS[:, 0].astype(int),
        xywh_to_xyxy(PADILLA_DETECTIONS[:, 2:]),
        PADILLA_DETECTIONS[:, 1],
        np.zeros(24, int),
    )
    truth = GroundTruth(
        PADILLA_OBJECTS[:, 0],
        xywh_to_xyxy(PADILLA_OBJECTS[:, 1:]),
        np.zeros(15, int),
        np.zeros(15, bool),
    )
    (got,) = voc_metric(of(det, 1), truth, (iou,), plus_one=plus_one).classes[0]
    assert got.ap_area == pytest.approx(area, abs=6e-8)
    if eleven is not None:
        assert got.ap_11_point == pytest.approx(eleven, abs=6e-8)


# ---------------------------------------------------------------- by hand

SQUARE = (0, 0, 10, 10)
AWAY = (50, 50, 60, 60)


def test_hand_computed_curve():
    truth = objects((0, 0, 0, *SQUARE), (1, 0, 0, *SQUARE))
    det = detections((0, 0, 0.9, *SQUARE), (0, 0, 0.8, *AWAY), (1, 0, 0.7, *SQUARE))
    (got,) = voc_metric(of(det, 1), truth).classes[0]
    np.testing.assert_allclose(got.precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(got.recall, [0.5, 0.5, 1])
    assert got.ap_area == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert got.ap_11_point == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert got.best == voc.OperatingPoint(
        pytest.approx(2 / 3), pytest.approx(1.0), pytest.approx(0.8), 0.7
    )


def test_eleven_point_thresholds_lie_above_the_decimal():
    """Recall 3/10 does not reach arange's .30000000000000004; a decimal list would give 4/11."""
    truth = objects(*[(i, 0, 0, *SQUARE) for i in range(10)])
    det = detections(*[(i, 0, 0.9, *SQUARE) for i in range(3)])
    (got,) = voc_metric(of(det, 1), truth).classes[0]
    assert got.ap_11_point == pytest.approx(3 / 11)


def test_no_second_choice():
    """The second detection prefers the taken object and so misses the free one, at IoU .54."""
    truth = objects((0, 0, 0, 0, 0, 10, 10), (0, 0, 0, 0, 4, 10, 14))
    det = detections((0, 0, 0.9, 0, 0, 10, 10), (0, 0, 0.8, 0, 1, 10, 11))
    (got,) = voc_metric(of(det, 1), truth).classes[0]
    np.testing.assert_allclose(got.precision, [1, 1 / 2])
    assert confusion_matrix(of(det, 1), truth)[0, 0] == 2  # which does give a second choice


def test_exact_overlap_tie_goes_to_the_first_object():
    middle = (0, 2, 10, 12)
    det = detections((0, 0, 0.9, *middle))
    first, second = (0, 0, 10, 10), (0, 4, 10, 14)  # both at IoU 2/3
    real_first = objects((0, 0, 0, *first), (0, 0, 1, *second))
    on_real = voc_metric(of(det, 1), real_first).classes[0][0]
    difficult_first = objects((0, 0, 1, *first), (0, 0, 0, *second))
    on_difficult = voc_metric(of(det, 1), difficult_first).classes[0][0]
    assert on_real.ap_area == 1.0
    assert len(on_difficult.scores) == 0
    assert on_difficult.ap_area == 0.0


def test_difficult_object_neither_earns_nor_costs():
    truth = objects((0, 0, 0, *SQUARE), (0, 0, 1, *AWAY))
    found = detections((0, 0, 0.95, *AWAY), (0, 0, 0.94, *AWAY), (0, 0, 0.9, *SQUARE))
    (got,) = voc_metric(of(found, 1), truth).classes[0]
    assert (got.num_objects, got.ap_area, len(got.scores)) == (1, 1.0, 1)
    np.testing.assert_array_equal(confusion_matrix(of(found, 1), truth), [[1, 0], [0, 0]])


def test_strict_differs_only_at_equality():
    truth, det = objects((0, 0, 0, 0, 0, 10, 10)), detections((0, 0, 0.9, 0, 0, 10, 5))
    assert voc_metric(of(det, 1), truth, (0.5,)).ap_area[0, 0] == 1.0
    assert voc_metric(of(det, 1), truth, (0.5,), strict=True).ap_area[0, 0] == 0.0
    assert voc_metric(of(det, 1), truth, (0.49,), strict=True).ap_area[0, 0] == 1.0


def test_equal_scores_keep_the_order_of_the_input():
    truth = objects((0, 0, 0, *SQUARE))
    hit, miss = (0, 0, 0.5, *SQUARE), (0, 0, 0.5, *AWAY)
    assert voc_metric(of(detections(hit, miss), 1), truth).ap_area[0, 0] == 1.0
    assert voc_metric(of(detections(miss, hit), 1), truth).ap_area[0, 0] == 0.5


def test_best_threshold_keeps_all_detections_of_its_score():
    """F1 is 1 after the first detection, but no threshold keeps it without its equal."""
    truth = objects((0, 0, 0, *SQUARE))
    det = detections((0, 0, 0.5, *SQUARE), (0, 0, 0.5, *AWAY))
    best = voc_metric(of(det, 1), truth).classes[0][0].best
    assert best == voc.OperatingPoint(0.5, 1.0, pytest.approx(2 / 3), 0.5)


def test_continuous_boxes_overlap_as_the_devkits_inclusive_corners():
    """IoU of (x1 - 1, y1 - 1, x2, y2) without +1 is the IoU of (x1, y1, x2, y2) with it."""
    rng = np.random.default_rng(5)
    corner = rng.integers(1, 30, (500, 2, 2))
    inclusive = np.concatenate([corner, corner + rng.integers(0, 30, (500, 2, 2))], -1).astype(
        float
    )
    continuous = inclusive - [1, 1, 0, 0]
    expected = voc._iou(inclusive[:, 0], inclusive[:, 1], plus_one=True)
    np.testing.assert_array_equal(voc._iou(*continuous.swapaxes(0, 1), plus_one=False), expected)
    assert np.count_nonzero(expected) > 100


def test_means_leave_out_classes_without_objects():
    truth = objects((0, 0, 0, *SQUARE), (0, 1, 0, *AWAY), (0, 2, 1, *AWAY))
    det = detections((0, 0, 0.9, *SQUARE), (0, 2, 0.9, *SQUARE), (0, 3, 0.9, *SQUARE))
    result = voc_metric(of(det, 4), truth, (0.5, 0.75))
    assert [one.num_objects for one in result.classes[0]] == [1, 1, 0, 0]
    np.testing.assert_array_equal(result.ap_area, [[1, 0, np.nan, np.nan]] * 2)
    np.testing.assert_array_equal(result.map_area, [0.5, 0.5])
    np.testing.assert_array_equal(result.map_11_point, [0.5, 0.5])
    never_detected, only_difficult = result.classes[0][1], result.classes[0][2]
    assert (never_detected.max_recall, never_detected.best.f1) == (0.0, 0.0)
    assert math.isnan(never_detected.best.score)
    assert math.isnan(only_difficult.best.f1)
    assert len(only_difficult.scores) == 1


def test_nothing_at_all():
    none = of(detections(), 2)
    assert np.isnan(voc_metric(none, objects()).map_area).all()
    np.testing.assert_array_equal(confusion_matrix(none, objects()), np.zeros((3, 3)))


def test_boxes_without_area_overlap_nothing():
    point = (5, 5, 5, 5)
    det, truth = detections((0, 0, 0.9, *point)), objects((0, 0, 0, *point))
    result = voc_metric(of(det, 1), truth, (0.01,))
    assert result.ap_area[0, 0] == 0.0


def test_matches_by_hand():
    """Found twice, a second object missed; difficult ones and regions count on neither side."""
    cat, region, dog = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]
    truth = GroundTruth(
        image=[0, 0, 0, 1, 1],
        boxes=[cat, dog, region, cat, dog],
        labels=[0, 1, 0, 0, 1],
        difficult=[False, False, False, True, True],
        ignore=[False, False, True, False, False],
    )
    found = table(
        image=[0, 0, 0, 0, 1],
        boxes=[cat, cat, region, dog, cat],
        scores=[0.5, 0.9, 0.8, 0.7, 0.6],
        labels=[0, 0, 0, 0, 0],
    )
    matches = voc_matches(of(found, 2), truth)
    assert matches.true_positive.tolist() == [False, True, False, False, False]
    assert matches.false_positive.tolist() == [True, False, False, True, False]
    assert matches.missed.tolist() == [False, True, False, False, False]


def test_matches_equal_plain_loops():
    for seed in range(40):
        det, truth = random_case(seed)
        matches = voc_matches(of(det, 3), truth, 0.5)
        assert not (matches.true_positive & matches.false_positive).any()
        for label in range(3):
            flags, npos = plain_flags(det, truth, label, 0.5, False, False)
            counted = matches.true_positive | matches.false_positive
            rows = np.flatnonzero(counted & (det.labels == label))
            rows = rows[np.argsort(-det.scores[rows], kind="stable")]
            found = zip(det.scores[rows], matches.true_positive[rows], strict=True)
            assert list(found) == flags
            missed = matches.missed[truth.labels == label].sum()
            assert missed == npos - sum(positive for _, positive in flags)
        assert not (matches.missed & truth.difficult).any()


def test_matches_of_nothing():
    matches = voc_matches(of(detections(), 2), objects())
    assert len(matches.true_positive) == len(matches.false_positive) == len(matches.missed) == 0


def test_confusion_matrix_by_hand():
    truth = objects((0, 0, 0, *SQUARE), (0, 1, 0, *AWAY), (1, 1, 0, *SQUARE))
    det = detections(
        (0, 1, 0.9, *SQUARE),  # class 0 taken for 1
        (0, 1, 0.8, *AWAY),  # right
        (0, 0, 0.7, *AWAY),  # the same box again: false
        (1, 1, 0.2, *SQUARE),  # below the score threshold: its object is missed
    )
    matrix = confusion_matrix(of(det, 2), truth, score_threshold=0.25)
    np.testing.assert_array_equal(matrix, [[0, 1, 0], [0, 1, 1], [1, 0, 0]])


def test_confusion_matrix_among_equal_boxes():
    """The higher score comes first, then the right class: what the object was surest taken for."""
    det = detections((0, 1, 0.8, *SQUARE), (0, 0, 0.9, *SQUARE))
    both = objects((0, 1, 0, *SQUARE), (0, 0, 0, *SQUARE))
    one = objects((0, 1, 0, *SQUARE))
    det = of(det, 2)
    np.testing.assert_array_equal(confusion_matrix(det, both), np.diag([1, 1, 0]))
    np.testing.assert_array_equal(confusion_matrix(det, one), [[0, 0, 0], [1, 0, 0], [0, 1, 0]])


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("metric", [voc_metric, confusion_matrix])
def test_labels_and_thresholds_are_checked(metric):
    det, truth = detections((0, 0, 0.9, *SQUARE)), objects((0, 0, 0, *SQUARE))
    with pytest.raises(ValueError, match=r"GroundTruth.labels: expected .* 0 to 0 .* found 1"):
        metric(of(det, 1), objects((0, 1, 0, *SQUARE)))
    bad = (50,) if metric is voc_metric else 50
    with pytest.raises(ValueError, match=r"IoU threshold: expected one or more in \(0, 1\]"):
        metric(of(det, 1), truth, bad)
