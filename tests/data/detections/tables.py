"""Detections for the files to hold."""

from collections.abc import Sequence

import numpy as np

from utils.detections import DetectionTable


def random_table(
    image_ids: Sequence[str],
    classes: Sequence[str],
    num: int = 40,
    seed: int = 0,
    dtype: type = np.float32,
    images: Sequence[int] = (0, 1, 2),
) -> DetectionTable:
    """Detections on these images, of the first two classes, in no order."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-5, 300, (num, 2)).astype(dtype)
    return DetectionTable(
        image_ids=tuple(image_ids),
        classes=tuple(classes),
        image=rng.choice(images, num),
        boxes=np.concatenate([corner, corner + rng.uniform(0, 90, (num, 2)).astype(dtype)], axis=1),
        scores=rng.random(num).astype(dtype),
        labels=rng.integers(0, 2, num),
    )
