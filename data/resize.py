"""The rule that brings an image to the network's size."""

import numpy as np

from configs.schema import Canvas, ShortLong


def fitted_size(height: np.ndarray, width: np.ndarray, rule: Canvas | ShortLong) -> np.ndarray:
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


def padded_size(size: np.ndarray, rule: Canvas | ShortLong) -> np.ndarray:
    """Height and width with the padding at the bottom and right: the canvas or whole multiples."""
    if isinstance(rule, Canvas):
        return np.array([rule.height, rule.width], np.int32)
    cells = size // rule.multiple + 1 if rule.always_pad else -(-size // rule.multiple)
    return cells * rule.multiple
