"""Tables of detections for the tests of metrics: images "0", "1" ..., classes "a", "b" ..."""

import string
from dataclasses import replace

import numpy as np

from utils.detections import DetectionTable


def table(image, boxes, scores, labels, num_images=None) -> DetectionTable:
    """Of 26 classes, and as many images as there are or are said; see `of`."""
    num_images = max(9, *image, 0) + 1 if num_images is None else num_images
    ids = tuple(map(str, range(num_images)))
    return DetectionTable(ids, tuple(string.ascii_lowercase), image, boxes, scores, labels)


def detections(*rows) -> DetectionTable:
    """From rows (image, label, score, x1, y1, x2, y2)."""
    columns = np.array(rows, float).reshape(-1, 7)
    image, labels = columns[:, 0].astype(int), columns[:, 1].astype(int)
    return table(image, columns[:, 3:], columns[:, 2], labels)


def of(found: DetectionTable, num_classes, num_images=None) -> DetectionTable:
    """The same detections as those of a split with so many classes and images."""
    ids = found.image_ids if num_images is None else tuple(map(str, range(num_images)))
    return replace(found, image_ids=ids, classes=found.classes[:num_classes])
