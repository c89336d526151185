"""What detections and objects turned out to be - right, false, missed - and pictures of it.

Letters: M images, T objects, D detections.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from loguru import logger

from core.metrics.voc import voc_matches
from data.records import Dataset
from results.pictures import SHEET, beside_truth, draw_each
from results.scoring import ground_truth
from utils.detections import DetectionTable
from utils.draw import contact_sheet, draw_boxes, fit, with_legend, write_image
from utils.files import write_text

TRUTH_CELL, WORST_CELL = (256, 512), (400, 400)  # height, width in pixels
MATCH_IOU = 0.5  # overlap from which on a detection has found an object
# What a detection or an object turned out to be; the colours are Okabe and Ito's, which people who
# confuse red and green tell apart.
OUTCOMES = (
    ("right (TP)", (0, 114, 178), "solid"),
    ("false alarms (FP)", (213, 94, 0), "dashed"),
    ("missed (FN)", (240, 228, 66), "striped"),
    ("not counted", (160, 160, 160), "solid"),
)
RIGHT, FALSE_ALARM, MISSED, UNCOUNTED = range(len(OUTCOMES))


@dataclass(frozen=True)
class Outcomes:
    """How the detections of a split, `table`, compare with its objects.

    detections: (D,) int, the place of each in OUTCOMES. missed: (T,) bool, which objects are.
    counts: (M, 4) int, how many of each outcome an image has.
    worst: (M,) the images by false alarms and misses together, the most first; among equals by
        their surest false alarm.
    """

    dataset: Dataset
    table: DetectionTable
    detections: np.ndarray
    missed: np.ndarray
    counts: np.ndarray
    worst: np.ndarray


def judge(dataset: Dataset, table: DetectionTable) -> Outcomes:
    """Compares all detections of a table with a split's objects, as the VOC metric does."""
    matches = voc_matches(table, ground_truth(dataset), MATCH_IOU)
    detections = np.full(len(table), UNCOUNTED)
    detections[matches.true_positive] = RIGHT
    detections[matches.false_positive] = FALSE_ALARM
    counts = np.zeros((len(dataset), len(OUTCOMES)), int)
    np.add.at(counts, (table.image, detections), 1)
    np.add.at(counts, (dataset.image_index[matches.missed], MISSED), 1)
    surest_alarm = np.zeros(len(dataset))
    false = matches.false_positive
    np.maximum.at(surest_alarm, table.image[false], table.scores[false])
    worst = np.lexsort((-surest_alarm, -counts[:, [FALSE_ALARM, MISSED]].sum(axis=1)))
    return Outcomes(dataset, table, detections, matches.missed, counts, worst)


def draw_outcomes(out: Path, dataset: Dataset, table: DetectionTable) -> None:
    """One picture an image, `contact_sheet.png`, and of the worst `worst.png` and `worst.csv`."""
    outcomes = judge(dataset, table)
    worst: dict[int, np.ndarray] = {}

    def draw(index: int, image: np.ndarray, rows: np.ndarray) -> np.ndarray:
        judged = outcomes_on(image, index, rows, outcomes)
        if index in outcomes.worst[:SHEET]:
            worst[index] = fit(judged, *WORST_CELL)
        beside = beside_truth(dataset, index, image, judged)
        return with_legend(beside, _legend(outcomes.counts[index]))

    draw_each(out, dataset, table, draw, TRUTH_CELL)
    pictures = [worst[index] for index in outcomes.worst[:SHEET]]
    write_image(out / "worst.png", _worst_sheet(pictures, outcomes))
    write_text(out / "worst.csv", _worst_first(outcomes))
    right, false, missed = outcomes.counts.sum(axis=0)[:UNCOUNTED].tolist()
    logger.info(
        "{} at IoU {:g}: {} right, {} false alarms, {} missed: precision {:.3f}, recall {:.3f}",
        *(dataset.name, MATCH_IOU, right, false, missed),
        *(right / n if n else np.nan for n in (right + false, right + missed)),
    )


def outcomes_on(image: np.ndarray, index: int, rows: np.ndarray, outcomes: Outcomes) -> np.ndarray:
    """An image (H, W, 3) with its detections, these rows of the table, and the objects missed."""
    dataset, table = outcomes.dataset, outcomes.table
    first = dataset.rows(index).start
    missed = first + np.flatnonzero(outcomes.missed[dataset.rows(index)])
    names = len(dataset.classes)
    labels = outcomes.detections[rows] * names + table.labels[rows]
    return draw_boxes(
        image,
        np.concatenate([table.boxes[rows], dataset.boxes[missed]]),
        np.concatenate([labels, MISSED * names + dataset.labels[missed]]),
        dataset.classes * len(OUTCOMES),
        np.concatenate([table.scores[rows], np.full(len(missed), np.nan)]),
        style=[style for _, _, style in OUTCOMES for _ in dataset.classes],
        colors=np.repeat([color for _, color, _ in OUTCOMES], names, axis=0),
    )


def _legend(counts: np.ndarray) -> list[tuple[str, np.ndarray, str]]:
    """The lines of (4,) counts; the last only where there is any."""
    shown = zip(counts.tolist(), OUTCOMES, strict=True)
    return [
        (f"{count} {text}", np.array(color, np.uint8), style)
        for place, (count, (text, color, style)) in enumerate(shown)
        if count or place != UNCOUNTED
    ]


def _worst_sheet(pictures: Sequence[np.ndarray], outcomes: Outcomes) -> np.ndarray:
    """The worst images' pictures, fit to WORST_CELL, with their counts, and those of the split."""
    captions = []
    for index in outcomes.worst[: len(pictures)]:
        right, false, missed, _ = outcomes.counts[index]
        name = Path(outcomes.dataset.images[index]).name
        captions.append(f"{name}: {right} TP, {false} FP, {missed} FN")
    cell = max(picture.shape[0] for picture in pictures), WORST_CELL[1]
    sheet = contact_sheet(pictures, cell=cell, captions=captions)
    return with_legend(sheet, _legend(outcomes.counts.sum(axis=0)))


def _worst_first(outcomes: Outcomes) -> str:
    """CSV, a row an image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "true_positives", "false_positives", "false_negatives"))
    for index in outcomes.worst:
        writer.writerow((outcomes.dataset.images[index], *outcomes.counts[index, :UNCOUNTED]))
    return text.getvalue()
