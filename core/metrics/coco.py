"""COCO's average precision and recall, by pycocotools: arrays in, numbers out.

pycocotools decides everything; here its input is built without files, and its output taken apart.
Letters: D detections, T ground-truth objects, K classes, M images.
"""

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from core.metrics.ground_truth import GroundTruth
from utils.detections import DetectionTable

# AP, at IoU .50 and .75, of small, medium and large objects; AR given 1, 10 and 100 detections an
# image, of small, medium and large objects. A number is the mean over IoU .50, .55 ... .95 where it
# names no IoU; small is up to 32 x 32, medium up to 96 x 96 pixels.
STAT_NAMES = (
    "AP", "AP50", "AP75", "AP small", "AP medium", "AP large",
    "AR1", "AR10", "AR100", "AR small", "AR medium", "AR large",
)  # fmt: skip

SIDE_DECIMALS = 9  # of a pixel
IOU_50, IOU_75 = 0, 5  # places in pycocotools' thresholds .50, .55 ... .95
MOST_DETECTIONS = 2  # place in its limits of detections an image: 1, 10, 100


@dataclass(frozen=True)
class ClassResult:
    """One class. All of it is nan, num_objects excepted, if the class has no object that counts.

    ap: mean over IoU .50 to .95. ap50, ap75: at one IoU. ap_small, ap_medium, ap_large: over the
        objects of a size; nan if there are none.
    ar100: mean over IoU .50 to .95 of the recall of the best 100 detections an image.
    num_objects: those that count, of any size.
    recall, precision: (101,) float64, the curve at IoU .50: recall 0, .01 ... 1, and the highest
        precision at that recall or a higher one, 0 where it is not reached.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar100: float
    num_objects: int
    recall: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True)
class CocoResult:
    """What `coco_metric` returns.

    stats: (12,) float64, the numbers of STAT_NAMES in COCO's order, means over the classes with
        objects. Where there are none, pycocotools says -1; here it is nan.
    classes: K of them.
    """

    stats: np.ndarray
    classes: tuple[ClassResult, ...]

    @property
    def mean_ap(self) -> float:
        """COCO's first number, AP@[.50:.95]; nan if there are no objects."""
        return float(self.stats[0])


def coco_metric(detections: DetectionTable, ground_truth: GroundTruth) -> CocoResult:
    """COCO's twelve numbers, and those of every class.

    Difficult objects and regions to ignore both become crowds, since COCO knows nothing else that
    must not be found: a detection on one is left out, and so may be any number of them, with
    intersection / area of the detection for the IoU. Objects are small, medium or large by
    `ground_truth.areas`, detections by width x height. Equal scores keep their order within an
    image and go by image across them, by their ids where all of these are numbers, as pycocotools
    goes through a file; equal overlaps go to the later object.

    Raises ValueError for objects of other images or classes.
    Source: github.com/ppwwyyxx/cocoapi (pycocotools), `COCOeval` for boxes.
    """
    ground_truth.require_fit(detections)
    num_classes, ids = len(detections.classes), _image_numbers(detections.image_ids)
    excused = ground_truth.excused.astype(int)
    assert ground_truth.areas is not None, "filled in by GroundTruth"
    objects = _annotations(ground_truth, ids, ground_truth.areas, "iscrowd", excused)
    areas = _sides(detections).prod(axis=1)
    found = _annotations(detections, ids, areas, "score", detections.scores)
    images = [{"id": i} for i in range(1, len(ids) + 1)]
    categories = [{"id": k} for k in range(1, num_classes + 1)]
    with redirect_stdout(StringIO()):
        truth = _indexed({"images": images, "categories": categories, "annotations": objects})
        evaluation = COCOeval(truth, _indexed({"annotations": found}), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    num_objects = ground_truth.num_objects(num_classes)
    return CocoResult(_known(evaluation.stats), _class_results(evaluation, num_objects))


def _image_numbers(image_ids: Sequence[str]) -> np.ndarray:
    """(M,) int64 from 1, in the order of the ids if all are numbers, else in that of the images."""
    numbers = np.arange(1, len(image_ids) + 1)
    if all(image_id.isdecimal() for image_id in image_ids):
        order = sorted(range(len(image_ids)), key=lambda i: int(image_ids[i]))
        numbers[order] = numbers.copy()
    return numbers


def _annotations(
    boxes: DetectionTable | GroundTruth,
    ids: np.ndarray,
    areas: np.ndarray,
    name: str,
    values: np.ndarray,
) -> list[dict]:
    """pycocotools' dictionaries, one a box, in order; name, values: what else each one holds.

    ids: (M,) of the images. All count from 1: an object of id 0 could never be matched.
    """
    corner_and_sides = np.concatenate([boxes.boxes[:, :2], _sides(boxes)], axis=1)
    columns = (ids[boxes.image], boxes.labels + 1, corner_and_sides, areas, values)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {"id": i, "image_id": image, "category_id": label, "bbox": box, "area": area, name: value}
        for i, (image, label, box, area, value) in enumerate(rows, start=1)
    ]


def _sides(boxes: DetectionTable | GroundTruth) -> np.ndarray:
    """(N, 2) width and height. Rounded, they are a COCO file's own again: 0.7 for 1.1 - 0.4.

    IoU on a threshold are frequent enough for a last bit to be seen in the twelve numbers.
    """
    return np.round(boxes.boxes[:, 2:] - boxes.boxes[:, :2], SIDE_DECIMALS)


def _indexed(dataset: dict) -> COCO:
    """Detections too: `COCO.loadRes` would fail without any, and draws outlines nobody needs."""
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _known(values: np.ndarray) -> np.ndarray:
    return np.where(values == -1, np.nan, values)


def _class_results(evaluation: COCOeval, num_objects: np.ndarray) -> tuple[ClassResult, ...]:
    # (IoU, recall, class, area, limit) and (IoU, class, area, limit)
    precision = _known(evaluation.eval["precision"])[..., MOST_DETECTIONS]
    recall = _known(evaluation.eval["recall"])[..., MOST_DETECTIONS]
    by_size = precision.mean(axis=(0, 1))  # nan for all or for none of the IoU and recall
    by_iou = precision[..., 0].mean(axis=1)
    average_recall = recall[..., 0].mean(axis=0)
    return tuple(
        ClassResult(
            ap=float(by_size[k, 0]),
            ap50=float(by_iou[IOU_50, k]),
            ap75=float(by_iou[IOU_75, k]),
            ap_small=float(by_size[k, 1]),
            ap_medium=float(by_size[k, 2]),
            ap_large=float(by_size[k, 3]),
            ar100=float(average_recall[k]),
            num_objects=int(num_objects[k]),
            recall=evaluation.params.recThrs,
            precision=precision[IOU_50, :, k, 0],
        )
        for k in range(len(num_objects))
    )
