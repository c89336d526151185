"""CrowdHuman's AP, log-average miss rate (MR-2) and Jaccard index (JI): arrays in, numbers out.

Letters: D detections, T ground-truth objects, K classes, M images, P pairs of a detection and an
object, C points of a curve.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from core.metrics.ground_truth import GroundTruth
from core.metrics.overlaps import areas, greedy_one_to_one, intersections, overlapping_pairs
from utils.arrays import rows_of_each
from utils.detections import DetectionTable

EPSILON = 1e-6  # in every denominator, as the evaluators have it
MORE_THAN_HALF = np.nextafter(0.5, 1.0)  # an overlap counts from here
# False positives an image at which MR-2 takes the miss rate, with the evaluators' four digits.
REFERENCES = np.array([0.0100, 0.0178, 0.0316, 0.0562, 0.1000, 0.1778, 0.3162, 0.5623, 1.000])
JI_SCORES = 0.1 * np.arange(10)


@dataclass(frozen=True)
class ClassResult:
    """One class. ap, mr2, ji, ji_score and recall are nan if num_objects is 0.

    ap: area under the trapezoids between the curve's points; 0 without two detections.
    mr2: geometric mean of the miss rates at REFERENCES, less is better; 1 without detections, which
        miss everything, and 0 if one of those miss rates is 0.
    ji: the best of ji_curve; nan if all of it is.
    ji_score: the one of JI_SCORES that it comes from, the lowest among equals.
    recall: of all detections together; 0 without any.
    num_objects: ground-truth objects that are neither difficult nor to be ignored.
    fppi, miss_rate, precisions, recalls, scores: (C,) float64, the curve, one point a detection by
        descending score: false positives an image, 1 - recall, and so on. Detections that were
        dropped are not in it. miss_rate and recalls are nan if num_objects is 0.
    ji_curve: (10,) float64, the Jaccard index of the detections with score > each of JI_SCORES; nan
        where no image has anything to count: no detection, no object but unmatched ones in regions.
    """

    ap: float
    mr2: float
    ji: float
    ji_score: float
    recall: float
    num_objects: int
    fppi: np.ndarray
    miss_rate: np.ndarray
    precisions: np.ndarray
    recalls: np.ndarray
    scores: np.ndarray
    ji_curve: np.ndarray


@dataclass(frozen=True)
class CrowdHumanResult:
    """What `crowdhuman_metric` returns; the means leave out nan, and are nan if all of it is."""

    classes: tuple[ClassResult, ...]

    @property
    def ap(self) -> float:
        return self._mean("ap")

    @property
    def mr2(self) -> float:
        return self._mean("mr2")

    @property
    def ji(self) -> float:
        return self._mean("ji")

    def _mean(self, name: str) -> float:
        values = np.array([getattr(result, name) for result in self.classes])
        present = values[~np.isnan(values)]
        return float(present.mean()) if present.size else np.nan


@dataclass(frozen=True)
class _Boxes:
    """corners: (4, N) float64 xyxy, clipped; a row each, since most of the time goes into taking
    them apart. group: (N,) int64, image * K + label."""

    corners: np.ndarray
    group: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "_Boxes":
        return _Boxes(self.corners[:, rows], self.group[rows])


def crowdhuman_metric(
    detections: DetectionTable, ground_truth: GroundTruth, sizes: np.ndarray
) -> CrowdHumanResult:
    """CrowdHuman's three figures of every class.

    Boxes are clipped to their image first. For AP and MR-2 each detection, by descending score,
    takes the object of its image and class with the largest IoU > .5 among those that are free, the
    first of equals, and is a true positive. Where there is none, it is dropped if more than half of
    it lies in a region to ignore, and a false positive otherwise. Equal scores keep their order
    within an image and then go by image. Difficult objects are treated as regions to ignore.

    JI matches detections and objects with IoU > .5 so that the sum of the IoU is the highest. In
    each image it divides the k pairs by the m objects and n detections that are in a pair or not
    in a region to ignore, less k, and takes the mean over the images with either.

    sizes: (M, 2) width and height of every image, in pixels; M divides the false positives.

    Raises ValueError for objects of other images or classes, and sizes of another shape or below 1.
    Follows the evaluator of github.com/Purkialo/CrowdDet (lib/evaluate). The paper: Shao
    et al., "CrowdHuman: A Benchmark for Detecting Human in a Crowd", 2018.
    """
    ground_truth.require_fit(detections)
    num_classes, sizes = len(detections.classes), _checked(sizes, len(detections.image_ids))
    found = _clipped(detections, sizes, num_classes)
    objects = _clipped(ground_truth, sizes, num_classes)
    real, regions = objects[~ground_truth.excused], objects[ground_truth.excused]
    pairs = _overlapping(found, real, _iou)
    excused = _any_over_half(found, regions)
    by_score = np.lexsort((detections.image, -detections.scores))
    positive = _greedy(by_score, *pairs)
    kept = by_score[(positive | ~excused)[by_score]]
    num_objects = ground_truth.num_objects(num_classes)
    ji = _jaccard_indices(
        detections.scores, found.group, real.group, excused, _any_over_half(real, regions), pairs,
        shape=(len(sizes), num_classes),
    )  # fmt: skip
    results = []
    for k, places in enumerate(rows_of_each(detections.labels[kept], num_classes)):
        members = kept[places]
        curve = (detections.scores[members], positive[members])
        results.append(_class_result(*curve, int(num_objects[k]), len(sizes), ji[:, k]))
    return CrowdHumanResult(tuple(results))


def _checked(sizes: ArrayLike, num_images: int) -> np.ndarray:
    sizes = np.asarray(sizes)
    if sizes.shape != (num_images, 2):
        raise ValueError(f"sizes: expected shape ({num_images}, 2), found {sizes.shape}")
    if sizes.size and not sizes.min() >= 1:
        row = np.argwhere(~(sizes >= 1))[0][0]
        raise ValueError(f"sizes: expected at least 1 pixel, found {sizes[row]} in row {row}")
    return sizes.astype(np.float64)


# ------------------------------------------------------------------------------------------------
# Overlaps
# ------------------------------------------------------------------------------------------------


def _clipped(given: DetectionTable | GroundTruth, sizes: np.ndarray, num_classes: int) -> _Boxes:
    """All boxes are kept, and keep at least the image's last pixel or its first edge."""
    upper = np.concatenate([sizes - 1, sizes], axis=1)[given.image]
    corners = np.ascontiguousarray(np.clip(given.boxes, 0.0, upper).T)
    return _Boxes(corners, given.image * num_classes + given.labels)


def _overlapping(
    a: _Boxes, b: _Boxes, measure: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices (P,), (P,) and overlap (P,) of the pairs of a group that overlap by more than .5."""

    def overlap(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        overlaps = np.zeros(len(i))
        left, right = a.corners[0][i], a.corners[2][i]
        apart = (b.corners[0][j] >= right) | (b.corners[2][j] <= left)  # as most of an image's are
        near = np.flatnonzero(~apart)
        overlaps[near] = measure(a.corners[:, i[near]], b.corners[:, j[near]])
        return overlaps

    return overlapping_pairs(a.group, b.group, overlap, MORE_THAN_HALF)


def _any_over_half(boxes: _Boxes, regions: _Boxes) -> np.ndarray:
    """(N,) bool: more than half of the box lies in a region of its group."""
    inside = np.zeros(len(boxes.group), bool)
    inside[_overlapping(boxes, regions, _ioa)[0]] = True
    return inside


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(4, P) and (4, P) float64 xyxy -> (P,) IoU of each with its like."""
    intersection = intersections(a, b)
    return intersection / (areas(a) + areas(b) - intersection + EPSILON)


def _ioa(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(4, P) and (4, P) float64 xyxy -> (P,) the share of a that lies in b."""
    return intersections(a, b) / (areas(a) + EPSILON)


# ------------------------------------------------------------------------------------------------
# AP and MR-2
# ------------------------------------------------------------------------------------------------


def _greedy(
    by_score: np.ndarray, detection: np.ndarray, obj: np.ndarray, iou: np.ndarray
) -> np.ndarray:
    """(D,) bool: the detections that get an object; pairs (P,), (P,), (P,).

    Detections choose one after another, so the pairs are walked down by the detection's rank, and
    then by the IoU.
    """
    rank = np.empty(len(by_score), np.int64)
    rank[by_score] = np.arange(len(by_score))
    order = np.lexsort((obj, -iou, rank[detection]))
    positive = np.zeros(len(by_score), bool)
    positive[greedy_one_to_one(detection[order], obj[order])[0]] = True
    return positive


def _class_result(
    scores: np.ndarray, positive: np.ndarray, num_objects: int, num_images: int, ji: np.ndarray
) -> ClassResult:
    """The numbers of a class from its detections, (C,) and (C,), by descending score."""
    true_positives, false_positives = np.cumsum(positive), np.cumsum(~positive)
    precisions = true_positives / (true_positives + false_positives)
    fppi = false_positives / num_images
    if num_objects == 0:
        nowhere = np.full(len(scores), np.nan)
        nan = (np.nan,) * 5
        return ClassResult(*nan, 0, fppi, nowhere, precisions, nowhere, scores, ji)
    recalls = true_positives / num_objects
    best = int(np.argmax(np.nan_to_num(ji, nan=-1.0)))
    return ClassResult(
        ap=float(np.sum(np.diff(recalls) * (precisions[1:] + precisions[:-1]) / 2)),
        mr2=_log_average(fppi, 1 - recalls),
        ji=float(ji[best]),
        ji_score=float(JI_SCORES[best]) if ji[best] >= 0 else np.nan,
        recall=float(recalls[-1]) if len(recalls) else 0.0,
        num_objects=num_objects,
        fppi=fppi,
        miss_rate=1 - recalls,
        precisions=precisions,
        recalls=recalls,
        scores=scores,
        ji_curve=ji,
    )


def _log_average(fppi: np.ndarray, miss_rate: np.ndarray) -> float:
    """At the first point that reaches each of REFERENCES, or at the last point."""
    if len(fppi) == 0:
        return 1.0
    points = np.minimum(np.searchsorted(fppi, REFERENCES, side="left"), len(fppi) - 1)
    with np.errstate(divide="ignore"):  # all objects found: exp(-inf) is 0
        return float(np.exp(np.log(miss_rate[points]).mean()))


# ------------------------------------------------------------------------------------------------
# JI
# ------------------------------------------------------------------------------------------------


def _jaccard_indices(
    scores: np.ndarray,
    found: np.ndarray,
    real: np.ndarray,
    found_excused: np.ndarray,
    real_excused: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    shape: tuple[int, int],
) -> np.ndarray:
    """(10, K) float64, at each of JI_SCORES; shape: (M, K).

    found, scores (D,) and real (T,): group of the detections and of the real objects. *_excused:
    whether one leaves when it is in no pair.
    """

    def per_group(groups: np.ndarray) -> np.ndarray:
        return np.bincount(groups, minlength=shape[0] * shape[1]).reshape(shape)

    indices = []
    for threshold in JI_SCORES:
        above = scores > threshold
        detection, obj = maximum_weight_matching(*(part[above[pairs[0]]] for part in pairs))
        counted_found, counted_real = above & ~found_excused, ~real_excused
        counted_found[detection] = True
        counted_real[obj] = True
        k, n, m = (per_group(g) for g in (real[obj], found[counted_found], real[counted_real]))
        total = (k / (m + n - k + EPSILON)).sum(axis=0)
        images = ((m > 0) | (n > 0)).sum(axis=0)
        indices.append(np.divide(total, images, out=np.full(shape[1], np.nan), where=images > 0))
    return np.array(indices)


def maximum_weight_matching(
    a: np.ndarray, b: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (P,), (P,) with weights (P,) > 0 -> those of a matching of the highest total weight.

    Pairs are connected where they share an end, and each connected component is matched on its own.
    In a star the heaviest pair is the matching. Elsewhere an assignment is solved in which what is
    no pair weighs 0: every matching can be filled up with such to a full assignment of the same
    weight, and every assignment gives back a matching of the same weight without them, so the
    heaviest assignment gives a heaviest matching.

    Where matchings weigh exactly the same (equal boxes; .9 + .9 and three times .6), which one is
    taken, and even how many pairs it has, is nobody's rule, and evaluators may differ there. In a
    star it is the first pair.
    """
    num_a = a.max(initial=-1) + 1
    size = num_a + b.max(initial=-1) + 1
    graph = coo_array((np.ones(len(a), bool), (a, num_a + b)), shape=(size, size))
    num_components, of_end = connected_components(graph, directed=False)
    ends = (np.bincount(side, minlength=num_components) for side in np.split(of_end, [num_a]))
    component = of_end[a]
    star = (np.minimum(*ends) == 1)[component]
    order = np.lexsort((-weight, component))
    stars, rest = order[star[order]], order[~star[order]]
    heaviest = stars[np.diff(component[stars], prepend=-1) > 0]
    solved = _assigned(a[rest], b[rest], weight[rest], component[rest])
    chosen = np.concatenate([heaviest, rest[solved]])
    return a[chosen], b[chosen]


def _assigned(
    a: np.ndarray, b: np.ndarray, weight: np.ndarray, component: np.ndarray
) -> np.ndarray:
    """(P,) bool: the pairs in the heaviest assignment of their component; all by component."""
    chosen = np.zeros(len(a), bool)
    starts = np.flatnonzero(np.diff(component, prepend=-1))
    lengths = np.diff(starts, append=len(a))
    rows, columns = (_places(end, component, starts, lengths) for end in (a, b))
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        part = slice(start, start + length)
        row, column = rows[part], columns[part]
        weights = np.zeros((row.max() + 1, column.max() + 1))
        weights[row, column] = weight[part]
        taken = np.zeros(weights.shape, bool)
        taken[linear_sum_assignment(weights, maximize=True)] = True
        chosen[part] = taken[row, column]
    return chosen


def _places(
    end: np.ndarray, component: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """(P,) the place of each end among the different ones of its component, from 0."""
    order = np.lexsort((end, component))
    new = np.diff(end[order], prepend=-1) != 0
    place = np.empty_like(end)
    place[order] = np.cumsum(new)
    return place - np.repeat(np.minimum.reduceat(place, starts), lengths)
