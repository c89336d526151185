"""The rule that brings an image, and its boxes, to the network's size.

Letters: M images, T boxes.
"""

from typing import TypeAlias

import numpy as np

from configs.schema import Canvas, ShortLong
from data.records import Dataset

Rule: TypeAlias = Canvas | ShortLong


def fitted_size(height: np.ndarray, width: np.ndarray, rule: Rule) -> np.ndarray:
    """Height and width after resizing, aspect ratio kept: (...) -> (..., 2) int32."""
    sides = np.stack([height, width], axis=-1).astype(np.float64)
    if isinstance(rule, Canvas):
        scale = ([rule.height, rule.width] / sides).min(axis=-1, keepdims=True)
        # 1e-6, so that a side that should fit exactly is not a rounding error short of it.
        size = np.floor(sides * scale + 1e-6)
    else:
        # Sorted, the sides are the short and the long one. Rounding errors stay: where they make
        # 799 of a side, torchvision's do too.
        scale = ([rule.short, rule.long] / np.sort(sides)).min(axis=-1, keepdims=True)
        size = np.floor(sides * scale) if rule.rounding == "floor" else np.round(sides * scale)
    return np.maximum(size.astype(np.int32), 1)


def padded_size(size: np.ndarray, rule: Rule) -> np.ndarray:
    """Height and width with the padding at the bottom and right: the canvas or whole multiples."""
    if isinstance(rule, Canvas):
        return np.array([rule.height, rule.width], np.int32)
    cells = size // rule.multiple + 1 if rule.always_pad else -(-size // rule.multiple)
    return cells * rule.multiple


def at_input_size(dataset: Dataset, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as the network sees them without augmentation, cut off at their image's border.

    Returns (T, 4) float32 xyxy and (M, 2) int32 height, width of the images, both at that size.
    """
    sizes = fitted_size(dataset.sizes[:, 1], dataset.sizes[:, 0], rule)
    scales = sizes[:, [1, 0, 1, 0]] / dataset.sizes[:, [0, 1, 0, 1]]
    limits = dataset.sizes[:, [0, 1, 0, 1]][dataset.image_index]
    boxes = dataset.boxes.clip(0, limits) * scales[dataset.image_index]
    return boxes.astype(np.float32), sizes


def objects_at_input(dataset: Dataset, rule: Rule) -> tuple[np.ndarray, tuple[int, int]]:
    """Boxes of `at_input_size` without ignore regions; height, width of the largest input, px."""
    boxes, sizes = at_input_size(dataset, rule)
    height, width = padded_size(sizes.max(axis=0), rule).tolist()
    return boxes[~dataset.ignore], (height, width)
