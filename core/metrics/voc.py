"""PASCAL VOC average precision, and a confusion matrix: arrays in, numbers out.

Letters: D detections, T ground-truth objects, K classes, I IoU thresholds, P pairs of a detection
and an object, C points of a curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.metrics.ground_truth import GroundTruth
from core.metrics.overlaps import (
    areas,
    first_of_each,
    greedy_one_to_one,
    intersections,
    overlapping_pairs,
    pair_chunks,
)
from utils.arrays import rows_of_each
from utils.detections import DetectionTable

# Written as voc_eval writes it: its 0.3, 0.6 and 0.7 lie one ulp above the decimal, so that a
# recall of exactly 3/10 does not reach the fourth threshold.
ELEVEN_POINTS = np.arange(0, 1.1, 0.1)


@dataclass(frozen=True)
class OperatingPoint:
    """What keeping the detections with score >= `score` gives; nan where it is not defined."""

    precision: float
    recall: float
    f1: float
    score: float


@dataclass(frozen=True)
class ClassResult:
    """One class at one IoU threshold.

    ap_area: area under the precision envelope (VOC 2010 and later); nan if num_objects is 0.
    ap_11_point: mean of the envelope at recall 0, .1 ... 1 (VOC 2007); nan if num_objects is 0.
    num_objects: ground-truth objects that are not difficult.
    precision, recall, scores: (C,) float64, the curve, one point a detection by descending score.
        Detections on difficult objects are not in it. recall is nan if num_objects is 0.
    max_recall: recall of all detections together; nan if num_objects is 0.
    best: the point of the highest F1, the highest score among equals. Its precision and score are
        nan if there is no detection; all of it is nan if num_objects is 0.
    """

    ap_area: float
    ap_11_point: float
    num_objects: int
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    max_recall: float
    best: OperatingPoint


@dataclass(frozen=True)
class VocResult:
    """What `voc_metric` returns: `classes[i][k]` is class k at `iou_thresholds[i]`.

    The means leave out a class that has no object but difficult ones, as chainercv and Cartucho/mAP
    do; py-faster-rcnn takes the plain mean over its list, which such a class turns into nan.
    """

    iou_thresholds: tuple[float, ...]
    classes: tuple[tuple[ClassResult, ...], ...]

    @property
    def ap_area(self) -> np.ndarray:
        """(I, K) float64, nan for a class without objects."""
        return np.array([[result.ap_area for result in row] for row in self.classes])

    @property
    def ap_11_point(self) -> np.ndarray:
        """(I, K) float64, nan for a class without objects."""
        return np.array([[result.ap_11_point for result in row] for row in self.classes])

    @property
    def map_area(self) -> np.ndarray:
        """(I,) float64, mean over the classes with objects; nan if none has any."""
        return _mean_of_present(self.ap_area)

    @property
    def map_11_point(self) -> np.ndarray:
        """(I,) float64, mean over the classes with objects; nan if none has any."""
        return _mean_of_present(self.ap_11_point)


@dataclass(frozen=True)
class VocMatches:
    """What `voc_matches` returns.

    true_positive, false_positive: (D,) bool; a detection on a difficult object is neither.
    missed: (T,) bool; a difficult object never is.
    """

    true_positive: np.ndarray
    false_positive: np.ndarray
    missed: np.ndarray


def voc_metric(
    detections: DetectionTable,
    ground_truth: GroundTruth,
    iou_thresholds: Sequence[float] = (0.5,),
    plus_one: bool = False,
    strict: bool = False,
) -> VocResult:
    """PASCAL VOC average precision of every class at every IoU threshold.

    Each detection, by descending score (equal scores keep their order), goes to the object of its
    image and class that it overlaps most, difficult and taken ones included, the first of equals.
    Below the threshold it is a false positive; on a difficult object it is left out; on an object
    that is still free it is a true positive; otherwise a false positive, with no second choice.
    VOC knows no regions to ignore: they are treated as difficult objects.

    iou_thresholds: each in (0, 1].
    plus_one: take x2 - x1 + 1 for a width. False is right for this project's continuous boxes,
        which then overlap exactly as their 1-based inclusive corners do in the devkit; True is for
        comparing with evaluators that add the 1 to continuous boxes too (Padilla's).
    strict: demand IoU > threshold, as py-faster-rcnn does, rather than IoU >= threshold as the
        MATLAB devkit, Cartucho/mAP and Padilla's do.

    Raises ValueError for objects of other images or classes, and for thresholds that are none.
    Follows `voc_eval` of py-faster-rcnn (lib/datasets/voc_eval.py).
    """
    _check_inputs(detections, ground_truth, iou_thresholds)
    best_iou, best_object = _best_match(detections, ground_truth, plus_one)
    num_classes = len(detections.classes)
    by_score = np.argsort(-detections.scores, kind="stable")
    by_class = rows_of_each(detections.labels[by_score], num_classes)
    objects = ground_truth.num_objects(num_classes)
    rows = []
    for threshold in iou_thresholds:
        hit = best_iou > threshold if strict else best_iou >= threshold
        positive, left_out = _verdicts(hit, best_object, by_score, ground_truth.excused)
        row = []
        for num_objects, places in zip(objects, by_class, strict=True):
            members = by_score[places]
            kept = members[~left_out[members]]
            row.append(_class_result(detections.scores[kept], positive[kept], int(num_objects)))
        rows.append(tuple(row))
    return VocResult(tuple(float(t) for t in iou_thresholds), tuple(rows))


def voc_matches(
    detections: DetectionTable, ground_truth: GroundTruth, iou_threshold: float = 0.5
) -> VocMatches:
    """Which detections are right and which objects are missed, as `voc_metric` counts them.

    detections: those to be judged; one of a higher score is never judged by those below it.
    Raises ValueError as `voc_metric` does.
    """
    _check_inputs(detections, ground_truth, (iou_threshold,))
    best_iou, best_object = _best_match(detections, ground_truth, plus_one=False)
    by_score = np.argsort(-detections.scores, kind="stable")
    hit = best_iou >= iou_threshold
    positive, left_out = _verdicts(hit, best_object, by_score, ground_truth.excused)
    missed = ~ground_truth.excused
    missed[best_object[positive]] = False
    return VocMatches(positive, ~(positive | left_out), missed)


def confusion_matrix(
    detections: DetectionTable,
    ground_truth: GroundTruth,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.25,
) -> np.ndarray:
    """Which class is taken for which: (K + 1, K + 1) int64, rows the truth, columns the prediction.

    The last row counts detections on no object (by their class), the last column objects that were
    missed (by theirs); the corner is 0. Detections with score >= score_threshold are matched to
    objects whatever their class, one to one and greedily: the pair of the highest IoU first, then
    the next among what is left, down to IoU >= iou_threshold. By IoU and not by score, as in
    Ultralytics' ConfusionMatrix (after kaanakan/object_detection_confusion_matrix), since the
    matrix asks what an object was taken for, and the box that fits it best says so. Unlike there,
    a detection whose best object is gone may take its next best.
    Equal IoU: the higher score, then the right class, then the order of the input.

    Difficult objects count nowhere: real ones are matched first, and a detection that is left over
    and overlaps a difficult one at the threshold is dropped, as COCO's evaluation treats crowds.

    Raises ValueError as `voc_metric` does.
    """
    _check_inputs(detections, ground_truth, (iou_threshold,))
    kept = detections.scores >= score_threshold
    rows = np.flatnonzero(kept)

    def overlap(row: np.ndarray, obj: np.ndarray) -> np.ndarray:
        return _iou(detections.boxes[rows[row]], ground_truth.boxes[obj], plus_one=False)

    row, obj, iou = overlapping_pairs(
        detections.image[rows], ground_truth.image, overlap, iou_threshold
    )
    detection = rows[row]
    on_difficult = ground_truth.excused[obj]
    excused = detection[on_difficult]
    detection, obj, iou = (values[~on_difficult] for values in (detection, obj, iou))
    wrong_class = detections.labels[detection] != ground_truth.labels[obj]
    rank = np.lexsort((obj, detection, wrong_class, -detections.scores[detection], -iou))
    detection, obj = greedy_one_to_one(detection[rank], obj[rank])

    missed = ~ground_truth.excused
    missed[obj] = False
    unmatched = kept.copy()
    unmatched[excused] = False
    unmatched[detection] = False
    num_classes = len(detections.classes)
    size = num_classes + 1
    cells = np.concatenate(
        [
            ground_truth.labels[obj] * size + detections.labels[detection],
            ground_truth.labels[missed] * size + num_classes,
            num_classes * size + detections.labels[unmatched],
        ]
    )
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def _check_inputs(
    detections: DetectionTable, ground_truth: GroundTruth, iou_thresholds: Sequence[float]
) -> None:
    ground_truth.require_fit(detections)
    if len(iou_thresholds) == 0 or not all(0 < t <= 1 for t in iou_thresholds):
        raise ValueError(f"IoU threshold: expected one or more in (0, 1], found {iou_thresholds}")


def _best_match(
    detections: DetectionTable, ground_truth: GroundTruth, plus_one: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(D,) highest IoU with an object of the same image and class, and (D,) that object.

    Among objects of exactly equal IoU it is the first. A detection whose image has no object of its
    class gets -inf and -1.
    """
    best_iou = np.full(len(detections), -np.inf)
    best_object = np.full(len(detections), -1)
    num_classes = len(detections.classes)
    chunks = pair_chunks(
        detections.image * num_classes + detections.labels,
        ground_truth.image * num_classes + ground_truth.labels,
    )
    for detection, obj in chunks:
        iou = _iou(detections.boxes[detection], ground_truth.boxes[obj], plus_one)
        starts = np.flatnonzero(np.diff(detection, prepend=-1))
        highest = np.maximum.reduceat(iou, starts)
        lengths = np.diff(starts, append=len(iou))
        position = np.arange(len(iou))
        position[iou < np.repeat(highest, lengths)] = len(iou)
        winner = np.minimum.reduceat(position, starts)
        best_iou[detection[starts]] = highest
        best_object[detection[starts]] = obj[winner]
    return best_iou, best_object


def _verdicts(
    hit: np.ndarray, best_object: np.ndarray, by_score: np.ndarray, excused: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(D,) whether a detection is a true positive, and (D,) whether it is left out.

    hit: (D,) whether it overlaps its best object enough. by_score: (D,) the order of judgement.
    """
    left_out = np.zeros(len(hit), bool)
    left_out[hit] = excused[best_object[hit]]
    kept = by_score[~left_out[by_score]]
    positive = np.zeros(len(hit), bool)
    positive[kept] = first_of_each(best_object[kept], hit[kept])
    return positive, left_out


def _iou(a: np.ndarray, b: np.ndarray, plus_one: bool) -> np.ndarray:
    """(P, 4) and (P, 4) float64 xyxy -> (P,) IoU, row with row; 0 where both are empty."""
    a, b, one = a.T, b.T, float(plus_one)
    intersection = intersections(a, b, one)
    union = areas(a, one) + areas(b, one) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _class_result(scores: np.ndarray, positive: np.ndarray, num_objects: int) -> ClassResult:
    """The numbers of a class from its detections, (C,) and (C,), by descending score."""
    true_positives = np.cumsum(positive)
    precision = true_positives / np.arange(1, len(positive) + 1)
    if num_objects == 0:
        recall = np.full(len(positive), np.nan)
        nowhere = OperatingPoint(np.nan, np.nan, np.nan, np.nan)
        return ClassResult(np.nan, np.nan, 0, precision, recall, scores, np.nan, nowhere)
    recall = true_positives / num_objects
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return ClassResult(
        ap_area=float(np.sum(np.diff(recall, prepend=0.0) * envelope)),
        ap_11_point=_eleven_point(recall, envelope),
        num_objects=num_objects,
        precision=precision,
        recall=recall,
        scores=scores,
        max_recall=float(recall[-1]) if len(recall) else 0.0,
        best=_best_point(precision, recall, scores),
    )


def _eleven_point(recall: np.ndarray, envelope: np.ndarray) -> float:
    reached = np.searchsorted(recall, ELEVEN_POINTS, side="left")
    return float(np.append(envelope, 0.0)[reached].sum() / len(ELEVEN_POINTS))


def _best_point(precision: np.ndarray, recall: np.ndarray, scores: np.ndarray) -> OperatingPoint:
    if scores.size == 0:
        return OperatingPoint(precision=np.nan, recall=0.0, f1=0.0, score=np.nan)
    # A threshold keeps all detections of an equal score or none: only the last of them is a choice.
    choices = np.flatnonzero(np.append(np.diff(scores) != 0, True))
    precision, recall, scores = precision[choices], recall[choices], scores[choices]
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    best = int(np.argmax(f1))
    return OperatingPoint(*(float(v[best]) for v in (precision, recall, f1, scores)))


def _mean_of_present(ap: np.ndarray) -> np.ndarray:
    """(I, K) -> (I,) means over the columns that are not nan, the same ones in every row."""
    present = ap[:, ~np.isnan(ap[0])]
    return present.mean(axis=1) if present.size else np.full(len(ap), np.nan)
