"""Pictures of detections, alone or beside the ground truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from data.detections.table import DetectionTable, rows_by_image
from data.images.decode import decode_image
from data.records import Dataset
from utils.draw import contact_sheet, draw_boxes, fit, side_by_side, write_image

SHEET = 24  # pictures on a contact sheet
IMAGE_CELL = (320, 320)  # height, width in pixels


def at_least(table: DetectionTable, threshold: float) -> DetectionTable:
    """The detections of at least a score."""
    rows = table.scores >= threshold
    names = ("image", "boxes", "scores", "labels")
    return replace(table, **{name: getattr(table, name)[rows] for name in names})


def draw_images(out: Path, dataset: Dataset, table: DetectionTable) -> None:
    """One picture an image and `contact_sheet.png`."""
    sheet = []
    for index, rows in enumerate(rows_by_image(table)):
        picture = detections_on(decode_image(dataset.images[index], dataset.bits), table, rows)
        write_image(picture_file(out, dataset, index), picture)
        if index < SHEET:
            sheet.append(fit(picture, *IMAGE_CELL))
    write_image(out / "contact_sheet.png", contact_sheet(sheet, cell=IMAGE_CELL))


def picture_file(out: Path, dataset: Dataset, index: int) -> Path:
    return out / f"{index:05d}_{Path(dataset.images[index]).stem}.jpg"


def detections_on(image: np.ndarray, table: DetectionTable, rows: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB with these rows of the table drawn on a copy of it."""
    return draw_boxes(
        image, table.boxes[rows], table.labels[rows], table.classes, table.scores[rows]
    )


def with_truth(
    dataset: Dataset, index: int, table: DetectionTable, threshold: float = 0.3
) -> np.ndarray:
    """The annotated objects at the left, the detections of at least a score at the right."""
    image = decode_image(dataset.images[index], dataset.bits)
    rows = np.flatnonzero((table.image == index) & (table.scores >= threshold))
    return beside_truth(dataset, index, image, detections_on(image, table, rows))


def beside_truth(
    dataset: Dataset, index: int, image: np.ndarray, picture: np.ndarray
) -> np.ndarray:
    rows = dataset.rows(index)
    labels = np.where(dataset.ignore[rows], len(dataset.classes), dataset.labels[rows])
    classes = (*dataset.classes, "ignore")
    truth = draw_boxes(image, dataset.boxes[rows], labels, classes, style="dashed")
    return side_by_side(truth, picture, ("ground truth", "detections"))
