"""Anchors: the boxes the network's outputs are relative to (paper section 4).

Letters: N anchors over all levels, A anchors a cell.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

STRIDES = (8, 16, 32, 64, 128)  # of P3 ... P7
Count: TypeAlias = int | tf.Tensor  # a number that is known beforehand, or only when the graph runs


def cell_anchors(
    size: float, ratios: Sequence[float], scales: Sequence[float], rounding: bool
) -> np.ndarray:
    """(A, 4) xyxy float32 around the origin; ratio is the outer, scale the inner loop.

    ratios: height / width at equal area. rounding: sizes cut to whole numbers and corners rounded
    half to even, as torchvision does.
    """
    sides = [int(size * scale) if rounding else size * scale for scale in scales]
    roots = np.sqrt(np.asarray(ratios, np.float64))[:, None]
    widths = (np.asarray(sides) / roots).ravel()
    heights = (np.asarray(sides) * roots).ravel()
    boxes = np.stack([-widths, -heights, widths, heights], axis=1) / 2
    return (np.round(boxes) if rounding else boxes).astype(np.float32)


def spatial_size(images: tf.Tensor) -> tuple[Count, Count]:
    """(B, H, W, 3) -> height, width: ints where known, so that anchors fold to constants."""
    height, width = (images.shape[i] or tf.shape(images)[i] for i in (1, 2))
    return height, width


class AnchorGenerator:
    """(height, width) of the network's input -> (N, 4) xyxy anchors in its pixels.

    sizes: side of the square anchor of scale 1 on each of the five levels, pixels.
    ratios, scales, rounding: see `cell_anchors`.
    center_offset: place of the centre in its cell, 0.5 in the middle, 0 at the top left.
    stride: "nominal" is 8 ... 128; "grid" is image size // grid size (torchvision).
    """

    def __init__(
        self,
        *,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        scales: Sequence[float] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3)),
        center_offset: float = 0.5,
        stride: str = "nominal",
        rounding: bool = False,
    ):
        if len(sizes) != len(STRIDES):
            raise ValueError(f"sizes: expected {len(STRIDES)}, one a level, found {list(sizes)}")
        if stride not in ("nominal", "grid"):
            raise ValueError(f"stride: expected nominal or grid, found {stride!r}")
        self.cells = [cell_anchors(size, ratios, scales, rounding) for size in sizes]
        self.num_anchors = len(ratios) * len(scales)
        self.center_offset = center_offset
        self.stride = stride

    def grids(self, height: Count, width: Count) -> list[tuple[Count, Count]]:
        """(rows, columns) of cells on each level; ints or scalar tensors as given."""
        # Not -(-height // stride): an exported graph's integer division cuts towards zero.
        return [((height + s - 1) // s, (width + s - 1) // s) for s in STRIDES]

    def level_counts(self, height: Count, width: Count) -> list[Count]:
        """Anchors on each level; they sum to N."""
        return [rows * columns * self.num_anchors for rows, columns in self.grids(height, width)]

    def __call__(self, height: Count, width: Count) -> tf.Tensor:
        levels = []
        for (rows, columns), nominal, cell in zip(
            self.grids(height, width), STRIDES, self.cells, strict=True
        ):
            steps = (nominal, nominal)
            if self.stride == "grid":
                steps = (height // rows, width // columns)
            y, x = (
                (tf.range(count, dtype=tf.float32) + self.center_offset) * tf.cast(step, tf.float32)
                for count, step in zip((rows, columns), steps, strict=True)
            )
            x, y = tf.meshgrid(x, y)
            centers = tf.reshape(tf.stack([x, y, x, y], axis=-1), [-1, 1, 4])
            levels.append(tf.reshape(centers + cell, [-1, 4]))
        return tf.concat(levels, axis=0)
