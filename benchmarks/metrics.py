"""What the metrics cost beside the definitions they follow: `python -m benchmarks.metrics`.

    python -m benchmarks.metrics --small --busy

COCO: all of `coco_metric` over the time inside pycocotools' evaluate, accumulate and summarize; 1
is nothing added. VOC and CrowdHuman: plain loops over the detections, written below after the
evaluators whose rules the metrics follow, over the metrics; more is faster, and the figures must be
equal. Generated detections, interleaved rounds, the ratio of the minima. --small is for trying.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from utils.program import make_parser

import numpy as np
from pycocotools.cocoeval import COCOeval
from scipy.optimize import linear_sum_assignment

from benchmarks.machine import description, headline, require_idle
from core.metrics.arrays import Detections, GroundTruth
from core.metrics.coco import coco_metric
from core.metrics.crowdhuman import REFERENCES, crowdhuman_metric
from core.metrics.voc import voc_metric

Result = TypeVar("Result")
SIDE = 800  # pixels of the generated images
STEPS = ("evaluate", "accumulate", "summarize")


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="one image of a hundred")
    parser.add_argument("--busy", action="store_true", help="measure though others compute")
    args = parser.parse_args(argv)
    require_idle(allow_busy=args.busy)
    share = 100 if args.small else 1
    print(headline(description(), args.busy))
    print(coco(5000 // share, args.rounds), flush=True)
    print(voc(5000 // share, args.rounds), flush=True)
    print(crowdhuman(4370 // share, args.rounds), flush=True)


def coco(num_images: int, rounds: int) -> str:
    detections, truth = scene(num_images, num_objects=7, num_detections=100, num_classes=80)
    totals, inside = [], []
    for _ in range(rounds):
        with inside_pycocotools() as spent:
            totals.append(seconds(lambda: coco_metric(detections, truth, num_images, 80))[0])
        inside.append(sum(spent))
    least = int(np.argmin(totals))
    return (
        f"COCO, {num_images} images x 100 detections x 80 classes: {totals[least]:.1f} s, of which "
        f"{inside[least]:.1f} s in pycocotools: {totals[least] / inside[least]:.3f}"
    )


def voc(num_images: int, rounds: int) -> str:
    detections, truth = scene(num_images, num_objects=7, num_detections=100, num_classes=20)

    def ours() -> list[float]:
        return [one.ap_area for one in voc_metric(detections, truth, 20, strict=True).classes[0]]

    def loop() -> list[float]:
        return [plain_voc(detections, truth, label) for label in range(20)]

    return f"VOC, {num_images} images x 100 detections x 20 classes: {compared(ours, loop, rounds)}"


def crowdhuman(num_images: int, rounds: int) -> str:
    detections, truth = scene(num_images, num_objects=23, num_detections=100, num_classes=1)
    sizes = np.full((num_images, 2), SIDE)

    def ours() -> list[float]:
        (one,) = crowdhuman_metric(detections, truth, sizes, 1).classes
        return [one.ap, one.mr2, *one.ji_curve]

    def loop() -> list[float]:
        return plain_crowdhuman(detections, truth, num_images)

    return f"CrowdHuman, {num_images} images x 100 detections: {compared(ours, loop, rounds)}"


def compared(ours: Callable[[], list[float]], loop: Callable[[], list[float]], rounds: int) -> str:
    """Raises AssertionError where the figures differ."""
    times = []
    for _ in range(rounds):
        our_time, found = seconds(ours)
        loop_time, expected = seconds(loop)
        times.append((our_time, loop_time))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    fast, slow = map(min, zip(*times, strict=True))
    return f"{fast:.2f} s, the plain loop {slow:.1f} s: {slow / fast:.1f}"


def seconds(run: Callable[[], Result]) -> tuple[float, Result]:
    """And what it returned."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


@contextmanager
def inside_pycocotools() -> Iterator[list[float]]:
    """The list is filled with the seconds of each call of COCOeval's three steps."""
    spent: list[float] = []
    originals = {name: getattr(COCOeval, name) for name in STEPS}

    def timed(step: Callable[[COCOeval], None]) -> Callable[[COCOeval], None]:
        def run(self: COCOeval) -> None:
            spent.append(seconds(lambda: step(self))[0])

        return run

    for name, step in originals.items():
        setattr(COCOeval, name, timed(step))
    try:
        yield spent
    finally:
        for name, step in originals.items():
            setattr(COCOeval, name, step)


# ------------------------------------------------------------------------------------------------
# Detections as a network makes them
# ------------------------------------------------------------------------------------------------


def scene(
    num_images: int, *, num_objects: int, num_detections: int, num_classes: int
) -> tuple[Detections, GroundTruth]:
    """Objects of all sizes, a twelfth of them difficult; about two detections near each, of its
    class and with higher scores, and the rest anywhere, of the classes of the image's objects."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(num_images), rng.poisson(num_objects, num_images))
    boxes = random_boxes(rng, len(image))
    labels = rng.integers(num_classes, size=len(image))
    near = rng.integers(len(image), size=2 * len(image))
    size = np.tile(boxes[near, 2:] - boxes[near, :2], 2)
    moved = boxes[near] + rng.normal(scale=0.1, size=size.shape) * size
    away = rng.integers(len(image), size=max(num_images * num_detections - len(near), 0))
    origin = np.concatenate([near, away])
    found = np.concatenate([moved, random_boxes(rng, len(away))])
    scores = np.concatenate([rng.beta(3, 2, len(near)), rng.beta(1, 6, len(away))])
    order = np.argsort(image[origin], kind="stable")
    origin = origin[order]
    detections = Detections(image[origin], found[order], scores[order], labels[origin])
    return detections, GroundTruth(image, boxes, labels, rng.random(len(image)) < 1 / 12)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4) upright, like people; some leave the image a little."""
    height = np.exp(rng.normal(4.7, 0.7, count)).clip(10, SIDE)
    corner = rng.uniform(-10, SIDE - 30, (count, 2))
    return np.concatenate([corner, corner + np.stack([0.5 * height, height], axis=1)], axis=1)


# ------------------------------------------------------------------------------------------------
# Plain loops
# ------------------------------------------------------------------------------------------------


def by_image(boxes: Detections | GroundTruth, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Image -> those of the rows that lie in it, in order."""
    found: dict[int, list[int]] = {}
    for row in rows.tolist():
        found.setdefault(int(boxes.image[row]), []).append(row)
    return {image: np.array(rows) for image, rows in found.items()}


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(..., 4) and (..., 4) xyxy, broadcast -> (...)."""
    size = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    return np.maximum(size, 0).prod(axis=-1)


def area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)


def plain_voc(detections: Detections, truth: GroundTruth, label: int) -> float:
    """py-faster-rcnn's voc_eval without its +1: the area under the envelope."""
    objects = by_image(truth, np.flatnonzero(truth.labels == label))
    mine = np.flatnonzero(detections.labels == label)
    mine = mine[np.argsort(-detections.scores[mine], kind="stable")]
    used = np.zeros(len(truth), bool)
    tp, fp = np.zeros(len(mine)), np.zeros(len(mine))
    for place, i in enumerate(mine):
        best = -1
        if (rows := objects.get(detections.image[i])) is not None:
            box, others = detections.boxes[i], truth.boxes[rows]
            shared = intersection(box, others)
            iou = shared / (area(box) + area(others) - shared)
            best = int(rows[np.argmax(iou)]) if iou.max() > 0.5 else -1
        if best >= 0 and truth.difficult[best]:
            continue
        tp[place] = best >= 0 and not used[best]
        fp[place] = not tp[place]
        used[best] |= best >= 0
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    recall = tp / np.count_nonzero((truth.labels == label) & ~truth.difficult)
    precision = tp / np.maximum(tp + fp, np.finfo(float).eps)
    recall, precision = np.array([0, *recall, 1]), np.array([0, *precision, 0])
    for end in range(len(precision) - 1, 0, -1):
        precision[end - 1] = max(precision[end - 1], precision[end])
    changes = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[changes + 1] - recall[changes]) * precision[changes + 1]))


def plain_crowdhuman(detections: Detections, truth: GroundTruth, num_images: int) -> list[float]:
    """AP, MR-2 and JI at ten scores, of one class, by CrowdDet's rules."""
    found = by_image(detections, np.argsort(-detections.scores, kind="stable"))
    objects = by_image(truth, np.arange(len(truth)))
    pooled: list[tuple[float, bool]] = []
    jaccard: list[list[float | None]] = [[] for _ in range(10)]
    none = np.zeros(0, int)
    for image in range(num_images):
        mine, others = found.get(image, none), objects.get(image, none)
        boxes, scores = clipped(detections.boxes[mine]), detections.scores[mine]
        real = clipped(truth.boxes[others[~truth.difficult[others]]])
        regions = clipped(truth.boxes[others[truth.difficult[others]]])
        iou = np.zeros((len(boxes), len(real)))
        excused = np.zeros(len(boxes), bool)
        used = np.zeros(len(real), bool)
        for i, box in enumerate(boxes):
            shared = intersection(box, real)
            iou[i] = shared / (area(box) + area(real) - shared + 1e-6)
            excused[i] = mostly_inside(box, regions)
            free = np.where(used, 0, iou[i])
            hit = free.max(initial=0) > 0.5
            if hit:
                used[np.argmax(free)] = True
            if hit or not excused[i]:
                pooled.append((scores[i], hit))
        real_excused = np.array([mostly_inside(box, regions) for box in real], bool)
        for i, indices in enumerate(jaccard):
            above = scores > 0.1 * i
            indices.append(jaccard_index(iou[above], excused[above], real_excused))
    pooled.sort(key=lambda one: -one[0])
    num_objects = int(np.count_nonzero(~truth.difficult))
    ji = [float(np.mean([one for one in indices if one is not None])) for indices in jaccard]
    return [*ap_and_mr2([hit for _, hit in pooled], num_objects, num_images), *ji]


def clipped(boxes: np.ndarray) -> np.ndarray:
    return np.clip(boxes, 0, [SIDE - 1, SIDE - 1, SIDE, SIDE])


def mostly_inside(box: np.ndarray, regions: np.ndarray) -> bool:
    return bool((intersection(box, regions) / (area(box) + 1e-6) > 0.5).any())


def jaccard_index(iou: np.ndarray, excused: np.ndarray, real_excused: np.ndarray) -> float | None:
    rows, columns = linear_sum_assignment(np.where(iou > 0.5, iou, 0), maximize=True)
    pairs = iou[rows, columns] > 0.5
    excused, real_excused = excused.copy(), real_excused.copy()
    excused[rows[pairs]] = real_excused[columns[pairs]] = False
    n, m, k = np.count_nonzero(~excused), np.count_nonzero(~real_excused), pairs.sum()
    return k / (m + n - k + 1e-6) if m or n else None


def ap_and_mr2(hits: list[bool], num_objects: int, num_images: int) -> tuple[float, float]:
    recall, precision, fppi, tp = [], [], [], 0
    for count, hit in enumerate(hits, start=1):
        tp += hit
        recall.append(tp / num_objects)
        precision.append(tp / count)
        fppi.append((count - tp) / num_images)
    ap = 0.0
    for i in range(1, len(hits)):
        ap += (recall[i] - recall[i - 1]) * (precision[i] + precision[i - 1]) / 2
    logs = []
    for reference in REFERENCES:
        reached = (i for i, value in enumerate(fppi) if value >= reference)
        logs.append(np.log(1 - recall[next(reached, -1)]))
    return ap, float(np.exp(np.mean(logs)))


if __name__ == "__main__":
    main()
