"""Random changes of one sample, an operation a function, and the canvases of multi-scale training.

Each takes its random numbers, evenly drawn from [0, 1), or what draws them, and its own settings.
None touches a pixel: they say what is to be done to them, and render.py does it.
Letters: G boxes of one image, T tries.
"""

import math
from dataclasses import replace

import numpy as np

from configs.schema import ShortLong
from data.images.resize import Rule, fitted_size
from data.images.views import View, areas, cut_off, frame, is_visible, part, reduction, whole

TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
FROM_YIQ = np.linalg.inv(TO_YIQ)
TRIES = 50
MIN_IOUS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # 0: any window
SMALLEST_CROP = 0.3  # of a side of the image


def canvases(rule: Rule, scales: tuple[float, ...]) -> list[Rule]:
    """The rule at each scale; other than at 1, the sides are rounded to multiples of 32."""

    if isinstance(rule, ShortLong):  # which the config allows no other scale than 1
        return [rule]

    def scaled(side: int, scale: float) -> int:
        return max(round(side * scale / 32), 1) * 32

    return [
        rule
        if scale == 1
        else replace(rule, height=scaled(rule.height, scale), width=scaled(rule.width, scale))
        for scale in scales
    ]


def flip(view: View, value: float, probability: float = 0.5, vertical: bool = False) -> View:
    """Mirrors left and right, or top and bottom, with the given probability; `value` decides."""
    if value >= probability:
        return view
    return view._replace(flips=view.flips ^ np.array([vertical, not vertical]))


def zoom(
    size: np.ndarray,
    rule: Rule,
    values: np.ndarray,
    limits: tuple[float, float] = (0.5, 2.0),
) -> View:
    """A view of an image of (height, width) `size`, enlarged by a random factor.

    values: (3,) for the factor, log-uniform within `limits`, and the place (y, x), uniform. Above 1
    a window of 1 / factor of the image's sides is seen; below 1 the whole image, that much smaller
    on a grey canvas (expand). The aspect ratio stays. Windows of images so large that they can be
    decoded at a reduced size begin and end at whole reduced pixels.
    """
    low, high = (math.log(limit) for limit in limits)
    factor = math.exp(low + values[0] * (high - low))
    view = part(_window(size, size / max(factor, 1.0), values[1:], rule), rule)
    shrunk = np.maximum(np.round(view.size * min(factor, 1.0)).astype(int), 1)
    corner = (values[1:] * (view.size - shrunk + 1)).astype(int)
    return view._replace(target=np.concatenate([corner, shrunk]))


def iou_crop(
    size: np.ndarray,
    rule: Rule,
    boxes: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    min_visibility: float = 0.25,
) -> View:
    """A view of a window that has a minimum IoU with an object, itself drawn from `MIN_IOUS`.

    size: (2,) height, width of the image. boxes: (G, 4) xyxy in its pixels; labels: (G,).
    Sides are uniform from 0.3 to all of the image's, independently; windows whose width / height is
    not within 0.5 and 2 do not count. The first of `TRIES` windows that will do is taken, the whole
    image if there is none, as is usual for a high minimum and small objects, and always so for an
    image over 6.7 times as long as wide. Without objects, any window of that shape will do.
    Source: Liu et al., SSD, arXiv:1512.02325, section 2.2. There sides begin at 0.1, objects stay
    whose centre is in the window, and the window is stretched to the input. Here an object stays
    that has `min_visibility` of its area in it, as when zooming, only such an object counts for
    the IoU, and the aspect ratio stays.
    """
    least = MIN_IOUS[int(rng.random() * len(MIN_IOUS))]
    values = rng.random([TRIES, 4])
    sides = size * (SMALLEST_CROP + (1 - SMALLEST_CROP) * values[:, :2])
    windows = _window(size, sides, values[:, 2:], rule)
    aspects = windows[:, 3] / windows[:, 2]
    will_do = (aspects >= 0.5) & (aspects <= 2)
    is_object = labels >= 0
    if least and is_object.any():
        boxes, labels = boxes[is_object], labels[is_object]
        all_of_it, inside = areas(boxes), areas(cut_off(boxes, frame(windows)[:, None]))
        union = all_of_it + windows[:, 2:].prod(axis=1, keepdims=True) - inside
        stays = is_visible(all_of_it, inside, labels, min_visibility)
        will_do &= (stays & (inside >= least * union)).any(axis=1)
    return part(windows[will_do.argmax()], rule) if will_do.any() else whole(size, rule)


def _window(size: np.ndarray, sides: np.ndarray, values: np.ndarray, rule: Rule) -> np.ndarray:
    """Parts of an image with about these sides, at random places.

    size: (2,); sides, values: (..., 2), all y, x. Returns (..., 4) int y, x, height, width; on
    whole reduced pixels where the part can be decoded at a reduced size.
    """
    sides = np.maximum(np.round(sides).astype(int), 1)
    step = reduction(sides, fitted_size(sides[..., 0], sides[..., 1], rule), rule)[..., None]
    sides = np.where(sides < size, sides // step * step, size)
    corner = (values * ((size - sides) // step + 1)).astype(int) * step
    return np.concatenate([corner, sides], axis=-1)


def color_matrix(
    values: np.ndarray,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> np.ndarray:
    """A change of colours by (4,) values, in this order; the settings are those of configs Augment.

    All four are linear in a pixel's colour, so they are one matrix: saturation and hue, then
    contrast, then brightness. Hue turns the colour circle in YIQ space, which keeps the luma.
    Returns (3, 4) for `render.recolor`: RGB 0-255 -> RGB, and what is added to each.
    """
    shares = 2.0 * values - 1.0
    gain = 1.0 + shares[1] * contrast
    chroma = 1.0 + shares[2] * saturation
    angle = shares[3] * hue * 2 * math.pi
    cos, sin = chroma * math.cos(angle), chroma * math.sin(angle)
    matrix = gain * FROM_YIQ @ [[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]] @ TO_YIQ
    return np.column_stack([matrix, np.full(3, shares[0] * brightness * 255.0)])
