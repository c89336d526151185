"""Pictures of detections, alone or beside the ground truth."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.images.decode import decode_image
from data.records import Dataset
from utils.detections import DetectionTable
from utils.draw import contact_sheet, draw_boxes, fit, side_by_side, write_image

SHEET = 24  # pictures on a contact sheet
IMAGE_CELL = (320, 320)  # height, width in pixels


def draw_images(out: Path, dataset: Dataset, table: DetectionTable) -> None:
    """One picture an image and `contact_sheet.png`."""
    draw_each(
        out, dataset, table, lambda _, image, rows: detections_on(image, table, rows), IMAGE_CELL
    )


def draw_each(
    out: Path,
    dataset: Dataset,
    table: DetectionTable,
    draw: Callable[[int, np.ndarray, np.ndarray], np.ndarray],
    cell: tuple[int, int],
) -> None:
    """Writes a picture an image, and a contact sheet of the first ones.

    draw: the image's index, its pixels and the rows of its detections -> the picture.
    cell: height, width in pixels that a picture has on the sheet.
    """
    sheet = []
    for index, rows in enumerate(table.rows_by_image()):
        picture = draw(index, decode_image(dataset.images[index], dataset.bits), rows)
        write_image(out / f"{index:05d}_{Path(dataset.images[index]).stem}.jpg", picture)
        if index < SHEET:
            sheet.append(fit(picture, *cell))
    write_image(out / "contact_sheet.png", contact_sheet(sheet, cell=cell))


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
