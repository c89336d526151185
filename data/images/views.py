"""Which part of an image the network gets to see, and where: all geometry of a sample in numbers.

A view is drawn before anything is decoded, so that no more is decoded than will be seen. Boxes and
pixels (render.py) follow the same view and so cannot disagree.
Letters: G boxes of one image.
"""

from typing import NamedTuple

import numpy as np

from data.images.decode import REDUCTIONS
from data.images.resize import Rule, fitted_size
from utils.boxes import IGNORE


class View(NamedTuple):
    """The rectangle `source` of the image, resized to the rectangle `target` of the content.

    source: (4,) int y, x, height, width in pixels of the image, inside it.
    target: (4,) int y, x, height, width in pixels of the network's input, inside the content.
    size: (2,) int height, width of the content; it is grey outside `target`.
    flips: (2,) bool: whether the content, once put together, is mirrored top-bottom, left-right.
    """

    source: np.ndarray
    target: np.ndarray
    size: np.ndarray
    flips: np.ndarray

    @property
    def scales(self) -> np.ndarray:
        """(2,) float64 y, x: input pixels a pixel of the image."""
        return self.target[2:] / self.source[2:]


def whole(size: np.ndarray, rule: Rule) -> View:
    """All of an image of (height, width) `size`, at the size that the rule brings it to."""
    return part(np.concatenate([[0, 0], size]), rule)


def part(source: np.ndarray, rule: Rule) -> View:
    """The rectangle `source` of an image alone, at the size that the rule brings it to."""
    content = fitted_size(source[2], source[3], rule)
    return View(source, np.concatenate([[0, 0], content]), content, np.array([False, False]))


def reduction(size: np.ndarray, content: np.ndarray, rule: Rule) -> np.ndarray:
    """The most that both sides can be divided by and still be no smaller than the content's.

    size, content: (..., 2) int height, width. Returns (...) int of `REDUCTIONS`; 1 where the rule
    does not smooth, because a reduced image is a smoothed one.
    """
    if not rule.antialias:
        return np.ones(size.shape[:-1], int)
    room = (size // content).min(axis=-1).clip(1)
    return np.array(REDUCTIONS)[np.searchsorted(REDUCTIONS, room, side="right") - 1]


def place(boxes: np.ndarray, view: View) -> np.ndarray:
    """(G, 4) float32 xyxy in pixels of the image -> in pixels of the network's input."""
    xyxy = [1, 0, 1, 0]
    boxes = (boxes - view.source[xyxy]) * view.scales[xyxy] + view.target[xyxy]
    if view.flips[1]:
        boxes[:, [0, 2]] = view.size[1] - boxes[:, [2, 0]]
    if view.flips[0]:
        boxes[:, [1, 3]] = view.size[0] - boxes[:, [3, 1]]
    return boxes.astype(np.float32)


def frame(source: np.ndarray) -> np.ndarray:
    """(..., 4) y, x, height, width -> xyxy."""
    corner = source[..., [1, 0]]
    return np.concatenate([corner, corner + source[..., [3, 2]]], axis=-1)


def cut_off(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """(..., 4) xyxy moved into a (..., 4) xyxy frame; without area where they lie outside."""
    return np.clip(boxes, frame[..., [0, 1, 0, 1]], frame[..., [2, 3, 2, 3]])


def areas(boxes: np.ndarray) -> np.ndarray:
    """(..., 4) xyxy, none inverted -> (...) float64, the same for the same box in float32."""
    boxes = boxes.astype(np.float64)
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)


def is_visible(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, min_visibility: float
) -> np.ndarray:
    """Whether objects stay when of areas `before` only `after` is left, (..., G) each -> (..., G).

    They do with at least the share `min_visibility`, ignore regions while anything is left. Each
    operation judges by the boxes it is given, whatever those before it cut off.
    """
    is_enough = (after >= min_visibility * before) | (labels == IGNORE)
    return (after > 0) & is_enough


def clip(
    boxes: np.ndarray, labels: np.ndarray, view: View, min_visibility: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts boxes off where the view ends, still in pixels of the image -> boxes, labels."""
    clipped = cut_off(boxes, frame(view.source))
    is_kept = is_visible(areas(boxes), areas(clipped), labels, min_visibility)
    return clipped[is_kept].astype(np.float32), labels[is_kept]
