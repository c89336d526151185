"""Rotation, shear and shift of a sample by one affine map about the centre of its content.

Points are (x, y) in pixels; (0, 0) is the top-left corner of the top-left pixel.
"""

import math

import cv2
import numpy as np

from data.augment.sample import Sample
from data.images.render import GREY


def warp(
    sample: Sample,
    rng: np.random.Generator,
    rotate: float = 0.0,
    shear: float = 0.0,
    translate: float = 0.0,
    min_visibility: float = 0.25,
) -> Sample:
    """Turns, slants and shifts by up to as much to either side, see `affine`; off where all are 0.

    min_visibility: see `views.is_visible`.
    """
    if not (rotate or shear or translate):
        return sample
    size = np.array(sample.pixels.shape[:2])
    return moved(sample, affine(size, rng.random(5), rotate, shear, translate), min_visibility)


def affine(
    size: np.ndarray,
    values: np.ndarray,
    rotate: float = 0.0,
    shear: float = 0.0,
    translate: float = 0.0,
) -> np.ndarray:
    """A random map of a content of (height, width) `size`: shear, then rotation, then shift.

    values: (5,) in [0, 1) for the rotation, the shear along x and along y, the shift along x and
        along y; each uniform from minus to plus its limit.
    rotate, shear: limits in degrees; translate: limit as a share of the sides.
    Returns (2, 3) float64: a point p of the content goes to [:, :2] @ p + [:, 2].
    """
    shares = 2.0 * values - 1.0
    turn, along_x, along_y = np.radians(shares[:3] * [rotate, shear, shear])
    cos, sin = math.cos(turn), math.sin(turn)
    slant = [[1.0, math.tan(along_x)], [math.tan(along_y), 1.0]]
    linear = np.array([[cos, -sin], [sin, cos]]) @ slant
    sides = size[::-1]
    return np.column_stack([linear, sides * (0.5 + shares[3:] * translate) - linear @ sides / 2])


def moved(sample: Sample, matrix: np.ndarray, min_visibility: float = 0.25) -> Sample:
    """Moves pixels (bilinear, grey from beyond) and boxes by a map of `affine`; the size stays.

    A box becomes the hull of its four corners, which is larger than the object in it: that of a
    square turned by 10 degrees is 16 % wider and higher, 34 % larger. What is visible is judged
    against this hull, before it is cut off where the content ends.
    """
    height, width, _ = sample.pixels.shape
    linear, shift = matrix[:, :2], matrix[:, 2]
    # OpenCV counts from the centre of the top-left pixel.
    centred = np.column_stack([linear, shift + linear @ [0.5, 0.5] - 0.5])
    pixels = cv2.warpAffine(sample.pixels, centred, (width, height), borderValue=(GREY,) * 3)
    corners = sample.boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] @ linear.T + shift
    hulls = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    sample = sample._replace(pixels=pixels, boxes=hulls)
    return sample.clip(np.array([0, 0, width, height]), min_visibility)
