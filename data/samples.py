"""What one training sample is while it is being put together, before it is padded to a batch.

Letters: h w pixels of the content, G boxes.
"""

from typing import NamedTuple

import numpy as np

from data.views import areas, cut_off, is_visible


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
