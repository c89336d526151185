"""What one training sample is while it is being put together, before it is padded to a batch.

Letters: h w pixels of the content, G boxes.
"""

from typing import NamedTuple

import numpy as np

from data.images.views import areas, cut_off, is_visible


class Sample(NamedTuple):
    """Pixels and what is to be found in them; operations return a new one.

    pixels: (h, w, 3) RGB 0-255, uint8 or float32; never written to, as a cache may hold them.
    boxes: (G, 4) float32 xyxy in these pixels, within them.
    labels: (G,) int32, IGNORE for regions.
    weights: (G,) float32, how much an object counts in the losses.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> "Sample":
        """Objects that count in full."""
        return cls(pixels, boxes, labels, np.ones(len(labels), np.float32))

    def keep(self, is_kept: np.ndarray) -> "Sample":
        """Only the objects of a (G,) mask."""
        objects = (array[is_kept] for array in self[1:])
        return Sample(self.pixels, *objects)

    def clip(self, frame: np.ndarray, min_visibility: float) -> "Sample":
        """Objects cut off where a (4,) xyxy frame ends; `is_visible` says who stays."""
        boxes = cut_off(self.boxes, frame)
        is_kept = is_visible(areas(self.boxes), areas(boxes), self.labels, min_visibility)
        return self._replace(boxes=boxes.astype(np.float32)).keep(is_kept)

    def hide(self, rectangle: np.ndarray, min_visibility: float) -> "Sample":
        """Objects that something stands before: a (4,) xyxy rectangle; pixels are not changed.

        Those of which it leaves less than `min_visibility` uncovered are dropped (ignore regions:
        nothing). The others are the hull of what is left: they end where the rectangle begins if it
        covers them from side to side, and keep their box if not.
        """
        hidden = cut_off(rectangle, self.boxes)
        before = areas(self.boxes)
        is_kept = is_visible(before, before - areas(hidden), self.labels, min_visibility)
        is_reached = hidden == self.boxes  # each edge
        is_across = (is_reached[:, :2] & is_reached[:, 2:])[:, ::-1]  # all of the other axis
        ends_there = is_reached & np.tile(is_across, 2)
        boxes = np.where(ends_there, hidden[:, [2, 3, 0, 1]], self.boxes).astype(np.float32)
        return self._replace(boxes=boxes).keep(is_kept)
