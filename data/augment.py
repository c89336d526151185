"""Random changes of one sample, an operation a function.

Each takes its random numbers, evenly drawn from [0, 1), and its own settings. None touches a pixel:
they say what is to be done to them, and render.py does it.
"""

import math

import numpy as np

from configs.schema import Canvas, ShortLong
from data.resize import fitted_size
from data.views import View, reduction

TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
FROM_YIQ = np.linalg.inv(TO_YIQ)


def flip(view: View, value: float, probability: float = 0.5, vertical: bool = False) -> View:
    """Mirrors left and right, or top and bottom, with the given probability; `value` decides."""
    if value >= probability:
        return view
    return view._replace(flips=view.flips ^ np.array([vertical, not vertical]))


def zoom(
    size: np.ndarray,
    rule: Canvas | ShortLong,
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
    window = np.maximum(np.round(size / max(factor, 1.0)).astype(int), 1)
    step = reduction(window, fitted_size(*window, rule), rule)
    window = np.where(window < size, window // step * step, size)
    content = fitted_size(*window, rule)
    shrunk = np.maximum(np.round(content * min(factor, 1.0)).astype(int), 1)

    source = (values[1:] * ((size - window) // step + 1)).astype(int) * step
    target = (values[1:] * (content - shrunk + 1)).astype(int)
    return View(
        source=np.concatenate([source, window]),
        target=np.concatenate([target, shrunk]),
        size=content,
        flips=np.array([False, False]),
    )


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
