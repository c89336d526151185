"""CrowdHuman's figures against plain loops over images and detections, and by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from core.metrics import overlaps
from core.metrics.crowdhuman import crowdhuman_metric, maximum_weight_matching
from core.metrics.ground_truth import GroundTruth
from tests.core.metrics.tables import detections, of, table

pytestmark = pytest.mark.full

REFERENCES = (0.0100, 0.0178, 0.0316, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.000)


def objects(*rows) -> GroundTruth:
    """From rows (image, label, ignore, x1, y1, x2, y2)."""
    table = np.array(rows, float).reshape(-1, 7)
    image, labels = table[:, 0].astype(int), table[:, 1].astype(int)
    ignore = table[:, 2].astype(bool)
    return GroundTruth(image, table[:, 3:], labels, np.zeros(len(table), bool), ignore)


# ---------------------------------------------------------------- an independent reference


def clip(box, size):
    (x1, y1, x2, y2), (w, h) = box, size
    return (
        min(max(x1, 0), w - 1), min(max(y1, 0), h - 1), min(max(x2, 0), w), min(max(y2, 0), h)
    )  # fmt: skip


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def intersection(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def iou(a, b):
    shared = intersection(a, b)
    return shared / (area(a) + area(b) - shared + 1e-6)


def in_a_region(box, regions):
    return any(intersection(box, region) / (area(box) + 1e-6) > 0.5 for region in regions)


def one_image(det, truth, sizes, image, label):
    """[(score, box)] by descending score, real boxes and regions of a class, clipped."""
    found = [
        (det.scores[i], clip(det.boxes[i], sizes[image]))
        for i in range(len(det))
        if det.image[i] == image and det.labels[i] == label
    ]
    found.sort(key=lambda one: -one[0])  # Python's sort is stable
    real, regions = [], []
    for j in range(len(truth)):
        if truth.image[j] == image and truth.labels[j] == label:
            side = regions if truth.difficult[j] or truth.ignore[j] else real
            side.append(clip(truth.boxes[j], sizes[image]))
    return found, real, regions


def plain_flags(found, real, regions):
    """[(score, is true positive)] of an image, without the dropped ones."""
    taken, flags = set(), []
    for score, box in found:
        best, best_iou = None, 0.5
        for j, other in enumerate(real):
            if j not in taken and iou(box, other) > best_iou:
                best, best_iou = j, iou(box, other)
        if best is not None:
            taken.add(best)
            flags.append((score, True))
        elif not in_a_region(box, regions):
            flags.append((score, False))
    return flags


def plain_ap_and_mr2(flags, npos, num_images):
    recall, precision, fppi, tp, fp = [], [], [], 0, 0
    for _, positive in flags:
        tp, fp = tp + positive, fp + (not positive)
        recall.append(tp / npos)
        precision.append(tp / (tp + fp))
        fppi.append(fp / num_images)
    ap = 0.0
    for i in range(1, len(flags)):
        ap += (recall[i] - recall[i - 1]) * (precision[i] + precision[i - 1]) / 2
    logs = []
    for reference in REFERENCES if flags else ():
        point = next((i for i, value in enumerate(fppi) if value >= reference), len(fppi) - 1)
        logs.append(math.log(1 - recall[point]) if recall[point] < 1 else -math.inf)
    return ap, math.exp(sum(logs) / 9), recall, fppi


def all_matchings(edges):
    """Every set of pairs with no end in common; edges: {(i, j): weight}."""
    if not edges:
        yield ()
        return
    (pair, _), *others = edges.items()
    yield from all_matchings(dict(others))
    apart = {p: w for p, w in others if p[0] != pair[0] and p[1] != pair[1]}
    for matching in all_matchings(apart):
        yield (pair, *matching)


def image_indices(found, real, regions, threshold):
    """{JI, or None where nothing counts} of the heaviest matchings, found by trying them all."""
    boxes = [box for score, box in found if score > threshold]
    edges = {
        (i, j): iou(a, b)
        for (i, a), (j, b) in itertools.product(enumerate(boxes), enumerate(real))
        if iou(a, b) > 0.5
    }
    matchings = list(all_matchings(edges))
    weights = [sum(edges[pair] for pair in matching) for matching in matchings]
    values = set()
    for matching, weight in zip(matchings, weights, strict=True):
        if weight > max(weights) - 1e-9:
            k = len(matching)
            n = sum(
                i in {pair[0] for pair in matching} or not in_a_region(box, regions)
                for i, box in enumerate(boxes)
            )
            m = sum(
                j in {pair[1] for pair in matching} or not in_a_region(box, regions)
                for j, box in enumerate(real)
            )
            values.add(k / (m + n - k + 1e-6) if m or n else None)
    return values


def compare(det, truth, sizes, num_classes):
    """Asserts that all is equal; how many JI were compared that no tie leaves open."""
    result = crowdhuman_metric(of(det, num_classes, len(sizes)), truth, sizes)
    sharp = 0
    for label, got in enumerate(result.classes):
        images = [one_image(det, truth, sizes, i, label) for i in range(len(sizes))]
        flags = [flag for image in images for flag in plain_flags(*image)]
        flags.sort(key=lambda flag: -flag[0])
        npos = sum(len(real) for _, real, _ in images)
        assert got.num_objects == npos
        np.testing.assert_array_equal(got.scores, [score for score, _ in flags])
        if npos == 0:
            assert all(map(math.isnan, (got.ap, got.mr2, got.ji, got.ji_score, got.recall)))
            continue
        ap, mr2, recall, fppi = plain_ap_and_mr2(flags, npos, len(sizes))
        assert got.ap == pytest.approx(ap, abs=1e-12)
        assert got.mr2 == pytest.approx(mr2, abs=1e-12)
        assert got.recall == (recall[-1] if recall else 0)
        np.testing.assert_array_equal(got.recalls, recall)
        np.testing.assert_array_equal(got.fppi, fppi)
        np.testing.assert_array_equal(got.miss_rate, 1 - np.array(recall))
        for i in range(10):
            each = [image_indices(*image, 0.1 * i) for image in images]
            counted = [values for values in each if values != {None}]
            if not counted:
                assert math.isnan(got.ji_curve[i])
                continue
            low, high = (sum(map(f, counted)) / len(counted) for f in (min, max))
            assert low - 1e-12 <= got.ji_curve[i] <= high + 1e-12
            sharp += low == high
        if not np.isnan(got.ji_curve).all():
            assert got.ji == np.nanmax(got.ji_curve)
            assert got.ji_score == 0.1 * np.nanargmax(got.ji_curve)
    return sharp


def random_case(seed, coarse):
    """Three images, the last one often empty; coarse: whole corners, scores in eighths."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(9, 17, (3, 2))
    num_detections, num_objects = rng.integers(0, 25), rng.integers(0, 19)

    def boxes(n):
        if coarse:
            corner = rng.integers(-2, 8, (n, 2))
            return np.concatenate([corner, corner + rng.integers(5, 9, (n, 2))], axis=1)
        corner = rng.integers(-1, 2, (n, 2)) * 5 + rng.normal(0, 1, (n, 2))
        return np.concatenate([corner, corner + rng.uniform(6, 8, (n, 2))], axis=1)

    scores = rng.integers(0, 9, num_detections) / 8 if coarse else rng.random(num_detections)
    det = table(
        rng.integers(0, rng.integers(1, 4), num_detections),
        boxes(num_detections),
        scores,
        rng.integers(0, rng.integers(1, 3), num_detections),
    )
    flags = rng.random((2, num_objects)) < 0.12
    truth = GroundTruth(
        rng.integers(0, rng.integers(1, 4), num_objects),
        boxes(num_objects),
        rng.integers(0, rng.integers(1, 3), num_objects),
        *flags,
    )
    return det, truth, sizes


@pytest.fixture(params=[2, 200_000], ids=["tiny chunks", "one chunk"])
def chunked(request, monkeypatch):
    monkeypatch.setattr(overlaps, "PAIRS_PER_CHUNK", request.param)


@pytest.mark.slow
@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("coarse", [True, False])
def test_equals_plain_loops(coarse):
    sharp = sum(compare(*random_case(seed, coarse), num_classes=2) for seed in range(200))
    assert sharp > 2000  # the cases are neither empty nor all ties


# ---------------------------------------------------------------- by hand

SIZES = np.array([[100, 100], [100, 100]])
SQUARE = (0, 0, 10, 10)
AWAY = (50, 50, 60, 60)


def only(det, truth, sizes=SIZES):
    (got,) = crowdhuman_metric(of(det, 1, len(sizes)), truth, sizes).classes
    return got


def test_hand_computed_curve():
    truth = objects((0, 0, 0, *SQUARE), (1, 0, 0, *SQUARE))
    det = detections((0, 0, 0.85, *SQUARE), (0, 0, 0.75, *AWAY), (1, 0, 0.65, *SQUARE))
    got = only(det, truth)
    np.testing.assert_allclose(got.precisions, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(got.recalls, [0.5, 0.5, 1])
    np.testing.assert_allclose(got.fppi, [0, 0.5, 0.5])  # false positives over two images
    assert got.ap == pytest.approx(0.5 * (1 / 2 + 2 / 3) / 2)  # nothing before the first point
    # References up to .3162 are reached by the second point, of miss rate 1/2; .5623 and 1 by
    # none, so that the last point is taken, where nothing is missed.
    assert got.mr2 == 0.0
    # All kept: image 0 has k=1, m=1, n=2, so 1/2; image 1 has 1. Above .7 image 1 has none: 0.
    np.testing.assert_allclose(got.ji_curve, [0.75] * 7 + [0.25, 0.5, 0.0], atol=1e-6)
    assert (got.ji_score, got.recall) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("num_images", "num_detections", "found"),
    [
        # fppi is n / 10,000 from the n-th false positive on, before which n - 1 were found.
        (10_000, 20_000, (99, 177, 315, 561, 999, 1777, 3161, 5622, 9999)),
        # .01 is reached by the first of five, .0178 by the second, .0316 by the fourth, the others
        # by none, so that the last point counts.
        (100, 10, (0, 1, 3, 5, 5, 5, 5, 5, 5)),
    ],
)
def test_miss_rate_at_the_references(num_images, num_detections, found):
    """Two objects an image, and a curve that goes false, true, false, true, an image each time."""
    place = np.arange(2 * num_images)
    truth = GroundTruth(place // 2, np.tile([SQUARE, AWAY], (num_images, 1)), place * 0, place < 0)
    place = np.arange(num_detections)
    boxes = np.tile([(20, 20, 30, 30), SQUARE], (num_detections // 2, 1))
    got = only(
        table(place // 2, boxes, -place / 20_000, place * 0),
        truth,
        np.full((num_images, 2), 100),
    )
    logs = [math.log(1 - hits / (2 * num_images)) for hits in found]
    assert got.mr2 == pytest.approx(math.exp(sum(logs) / 9), rel=1e-12)


def test_second_choice():
    """The second detection prefers the taken object and gets the free one, at IoU .54."""
    truth = objects((0, 0, 0, 0, 0, 10, 10), (0, 0, 0, 0, 4, 10, 14))
    det = detections((0, 0, 0.9, 0, 0, 10, 10), (0, 0, 0.8, 0, 1, 10, 11))
    np.testing.assert_array_equal(only(det, truth).precisions, [1, 1])


def test_region_drops_what_has_no_object_left():
    """A detection in a region is dropped, or takes a free object there; never a false positive."""
    truth = objects((0, 0, 0, *SQUARE), (0, 0, 1, 0, 0, 30, 30))
    det = detections((0, 0, 0.9, *SQUARE), (0, 0, 0.8, *SQUARE), (0, 0, 0.7, 20, 20, 28, 28))
    got = only(det, truth)
    np.testing.assert_array_equal(got.scores, [0.9])
    assert got.recall == 1.0
    # k = 1, and the two left over leave n.
    assert got.ji == pytest.approx(1 / (1 + 1e-6), abs=1e-15)


def test_unmatched_object_in_a_region_leaves_the_jaccard_index_but_not_the_recall():
    truth = objects((0, 0, 0, *SQUARE), (0, 0, 1, 0, 0, 30, 30), (0, 0, 0, *AWAY))
    got = only(detections((0, 0, 0.9, *AWAY)), truth)
    assert got.num_objects == 2
    assert got.recall == 0.5
    assert got.ji == pytest.approx(1.0, abs=2e-6)


@pytest.mark.parametrize("flag", ["difficult", "ignore"])
def test_difficult_objects_are_regions(flag):
    flags = {"difficult": [False, False], "ignore": [False, False]} | {flag: [True, False]}
    truth = GroundTruth([0, 0], np.array([SQUARE, AWAY]), [0, 0], **{
        name: np.array(values) for name, values in flags.items()
    })  # fmt: skip
    got = only(detections((0, 0, 0.9, *SQUARE), (0, 0, 0.8, *AWAY)), truth)
    np.testing.assert_array_equal(got.scores, [0.8])


def test_region_of_another_class_or_image_excuses_nothing():
    det = detections((0, 0, 0.9, *AWAY))
    truth = objects((0, 0, 0, *SQUARE), (0, 1, 1, *AWAY), (1, 0, 1, *AWAY))
    assert len(crowdhuman_metric(of(det, 2, 2), truth, SIZES).classes[0].scores) == 1


def test_both_sides_are_clipped_to_the_image():
    """Beyond the right edge all boxes become the last pixel's column, and overlap fully."""
    truth = objects((0, 0, 0, 120, 0, 140, 50))
    got = only(detections((0, 0, 0.9, 300, 0, 310, 50)), truth)
    assert got.recall == 1.0
    # Left of it they become an empty box at 0, which overlaps nothing.
    left = objects((0, 0, 0, -40, 0, -20, 50))
    assert only(detections((0, 0, 0.9, -40, 0, -20, 50)), left).recall == 0.0


@pytest.mark.parametrize(("lower", "recall"), [(5.0, 0.0), (5.00001, 1.0)])
@pytest.mark.parametrize("scale", [1, 100_000])  # from which on the 1e-6 is too small to matter
def test_overlap_must_be_more_than_half(lower, recall, scale):
    det = detections((0, 0, 0.9, 0, 0, 10 * scale, lower * scale))
    truth = objects((0, 0, 0, 0, 0, 10 * scale, 10 * scale))
    assert only(det, truth, SIZES * scale).recall == recall


def test_equal_scores_go_by_image_and_then_by_the_order_of_the_input():
    truth = objects((0, 0, 0, *SQUARE), (1, 0, 0, *SQUARE))
    hit, miss = (0, 0, 0.5, *SQUARE), (0, 0, 0.5, *AWAY)
    later = (1, 0, 0.5, *SQUARE)
    np.testing.assert_allclose(
        only(detections(later, hit, miss), truth).precisions, [1, 1 / 2, 2 / 3]
    )
    np.testing.assert_allclose(
        only(detections(later, miss, hit), truth).precisions, [0, 1 / 2, 2 / 3]
    )


def test_equal_overlap_goes_to_the_first_object():
    """The tie's winner decides whether the second detection finds its only object free."""
    low, high, middle = (0, 0, 10, 10), (0, 4, 10, 14), (0, 2, 10, 12)
    det = detections((0, 0, 0.9, *middle), (0, 0, 0.8, *low))
    assert only(det, objects((0, 0, 0, *low), (0, 0, 0, *high))).recall == 0.5
    assert only(det, objects((0, 0, 0, *high), (0, 0, 0, *low))).recall == 1.0


def test_jaccard_index_keeps_scores_above_the_threshold():
    got = only(detections((0, 0, 0.5, *SQUARE)), objects((0, 0, 0, *SQUARE)))
    np.testing.assert_allclose(got.ji_curve, [1.0] * 5 + [0.0] * 5, atol=2e-6)
    assert only(detections((0, 0, 0.0, *SQUARE)), objects((0, 0, 0, *SQUARE))).ji == 0.0


def test_jaccard_index_counts_images_with_detections_or_objects():
    sizes = np.full((5, 2), 100)
    got = only(
        detections((0, 0, 0.9, *SQUARE), (1, 0, 0.9, *SQUARE)), objects((0, 0, 0, *SQUARE)), sizes
    )
    assert got.ji == pytest.approx(0.5, abs=1e-6)


def test_heaviest_matching_is_neither_greedy_nor_the_largest():
    # Greedy takes .9 alone; together the two .8 weigh more.
    a, b = np.array([0, 0, 1]), np.array([0, 1, 0])
    got = maximum_weight_matching(a, b, np.array([0.9, 0.8, 0.8]))
    assert set(zip(*map(np.ndarray.tolist, got), strict=True)) == {(0, 1), (1, 0)}
    # Three pairs are possible, but two weigh more: a path of .51 .99 .51 .99 .51.
    a, b = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 2])
    got = maximum_weight_matching(a, b, np.array([0.51, 0.99, 0.51, 0.99, 0.51]))
    assert set(zip(*map(np.ndarray.tolist, got), strict=True)) == {(0, 1), (1, 2)}


def test_components_are_matched_as_the_whole_would_be():
    stars = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        weights = np.where(rng.random((30, 20)) < 0.06, rng.uniform(0.5, 1, (30, 20)), 0)
        a, b = np.nonzero(weights)
        rows, columns = linear_sum_assignment(weights, maximize=True)
        real = weights[rows, columns] > 0
        expected = set(zip(rows[real].tolist(), columns[real].tolist(), strict=True))
        got = maximum_weight_matching(a, b, weights[a, b])
        assert set(zip(*map(np.ndarray.tolist, got), strict=True)) == expected
        stars += len(a) > len(expected)
    assert stars == 100


# ---------------------------------------------------------------- what is not there


def test_without_detections():
    got = only(detections(), objects((0, 0, 0, *SQUARE)))
    assert (got.ap, got.mr2, got.ji, got.ji_score, got.recall) == (0.0, 1.0, 0.0, 0.0, 0.0)
    assert got.num_objects == 1
    assert len(got.fppi) == len(got.scores) == 0


def test_means_leave_out_classes_without_objects():
    truth = objects((0, 0, 0, *SQUARE), (0, 1, 0, *AWAY), (0, 2, 1, *AWAY))
    det = detections((0, 0, 0.9, *SQUARE), (0, 0, 0.8, *AWAY), (0, 3, 0.9, *SQUARE))
    result = crowdhuman_metric(of(det, 4, 2), truth, SIZES)
    assert [one.num_objects for one in result.classes] == [1, 1, 0, 0]
    assert result.mr2 == pytest.approx((0.0 + 1.0) / 2)
    assert result.ji == pytest.approx(0.5, abs=1e-5)
    assert result.ap == 0.0
    empty = result.classes[3]
    np.testing.assert_array_equal(empty.fppi, [0.5])
    assert np.isnan([empty.ap, empty.mr2, empty.ji, *empty.recalls, *empty.miss_rate]).all()


def test_jaccard_index_of_nothing_that_counts():
    """The only object lies in a region and is not found: no image is left to take the mean of."""
    truth = objects((0, 0, 0, *SQUARE), (0, 0, 1, *SQUARE), (0, 1, 0, *AWAY))
    result = crowdhuman_metric(of(detections((0, 1, 0.9, *AWAY)), 2, 2), truth, SIZES)
    hidden = result.classes[0]
    assert (hidden.num_objects, hidden.recall) == (1, 0.0)
    assert np.isnan([hidden.ji, hidden.ji_score, *hidden.ji_curve]).all()
    assert result.ji == pytest.approx(1.0, abs=2e-6)


def test_nothing_at_all():
    result = crowdhuman_metric(of(detections(), 2, 0), objects(), np.zeros((0, 2), int))
    assert np.isnan([result.ap, result.mr2, result.ji]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": np.ones((2, 3))}, r"sizes: expected shape \(2, 2\), found \(2, 3\)"),
        ({"sizes": [[9, 9], [9, 0]]}, r"sizes: expected at least 1 pixel, found \[9 0\] in row 1"),
        ({"sizes": [[9, 9]]}, r"sizes: expected shape \(2, 2\), found \(1, 2\)"),
        ({"num_classes": 1}, "GroundTruth.labels: expected indices 0 to 0 .* found 1 in row 0"),
    ],
)
def test_bad_inputs(change, message):
    det, truth = detections((1, 0, 0.9, *SQUARE)), objects((0, 1, 0, *SQUARE))
    case = {"sizes": SIZES, "num_classes": 2} | change
    with pytest.raises(ValueError, match=message):
        crowdhuman_metric(of(det, case["num_classes"], 2), truth, case["sizes"])
