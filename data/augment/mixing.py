"""Training samples put together from several: mixup, cutmix, mosaic.

`mixup`, `cutmix`, `mosaic` draw the numbers; `blend`, `paste`, `tile` do what the numbers say. All
pixels of a call must be of one type, uint8 or float32.
Letters: h w pixels of the content.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from data.augment.sample import Sample
from data.images.render import GREY

CENTERS = (0.3, 0.7)  # where the four quadrants of a mosaic meet, in shares of its sides


def draw_partners(index: int, num_images: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) indices of other images, evenly drawn; the same image again where it is the only."""
    return (index + 1 + rng.integers(max(num_images - 1, 1), size=count)) % num_images


# ------------------------------------------------------------------------------------------------
# Mixup
# ------------------------------------------------------------------------------------------------


def mixup(a: Sample, b: Sample, rng: np.random.Generator, alpha: float = 1.5) -> Sample:
    """A blend of two samples whose share is drawn from Beta(alpha, alpha).

    Zhang et al., "Bag of Freebies for Training Object Detection Neural Networks",
    arXiv:1902.04103, section 3.1, which has alpha = 1.5.
    """
    return blend(a, b, rng.beta(alpha, alpha))


def blend(a: Sample, b: Sample, share: float) -> Sample:
    """share * a + (1 - share) * b, top left corners together; objects weigh as much.

    As large as the larger in each side. What lies beyond a sample is grey, as everywhere else; the
    paper has black there, which is far from zero once normalised.
    """
    sizes = [sample.pixels.shape[:2] for sample in (a, b)]
    height, width = np.max(sizes, axis=0)
    first, second = (
        cv2.copyMakeBorder(
            sample.pixels, 0, height - h, 0, width - w, cv2.BORDER_CONSTANT, value=[GREY] * 3
        )
        for sample, (h, w) in zip((a, b), sizes, strict=True)
    )
    a = a._replace(weights=a.weights * np.float32(share))
    b = b._replace(weights=b.weights * np.float32(1 - share))
    return _joined(cv2.addWeighted(first, share, second, 1 - share, 0), [a, b])


# ------------------------------------------------------------------------------------------------
# Cutmix
# ------------------------------------------------------------------------------------------------


def cutmix(
    a: Sample,
    b: Sample,
    rng: np.random.Generator,
    alpha: float = 1.0,
    min_visibility: float = 0.25,
) -> Sample:
    """Sample a with a rectangle of b in it, of a share of the area drawn from Beta(alpha, alpha).

    The share is of the part that both samples have; the rectangle lies anywhere in it, wholly.
    Yun et al., "CutMix", arXiv:1905.04899, section 3.1, which cuts it off at the border instead.
    """
    both = np.minimum(a.pixels.shape[:2], b.pixels.shape[:2])
    size = np.maximum(np.round(both * math.sqrt(rng.beta(alpha, alpha))), 1).astype(int)
    y, x = rng.integers(both - size + 1)
    return paste(a, b, np.array([x, y, x + size[1], y + size[0]]), min_visibility)


def paste(a: Sample, b: Sample, rectangle: np.ndarray, min_visibility: float = 0.25) -> Sample:
    """Sample a, where b has taken the place of the (4,) int xyxy `rectangle`, which lies in both.

    Objects of b are cut off where the rectangle ends, a's are behind it.
    """
    x1, y1, x2, y2 = rectangle
    pixels = a.pixels.copy()
    pixels[y1:y2, x1:x2] = b.pixels[y1:y2, x1:x2]
    parts = a.hide(rectangle, min_visibility), b.clip(rectangle, min_visibility)
    return _joined(pixels, parts)


# ------------------------------------------------------------------------------------------------
# Mosaic
# ------------------------------------------------------------------------------------------------


def mosaic(
    samples: Sequence[Sample], rng: np.random.Generator, min_visibility: float = 0.25
) -> Sample:
    """Four samples around a centre drawn within CENTERS, as large as the first.

    Bochkovskiy et al., "YOLOv4", arXiv:2004.10934, section 3.4.
    """
    size = samples[0].pixels.shape[:2]
    center = np.round(size * rng.uniform(*CENTERS, 2)).astype(int)
    return tile(samples, center, rng.random((4, 2)), min_visibility)


def tile(
    samples: Sequence[Sample], center: np.ndarray, places: np.ndarray, min_visibility: float = 0.25
) -> Sample:
    """A window of each of four samples: above left, above right, below left, below right.

    center: (2,) int y, x where they meet. places: (4, 2) from [0, 1), y, x of each window within
    its sample, from top left to bottom right; a sample smaller than its quadrant is moved about in
    it, and the rest is grey.
    Nothing is scaled, so that objects keep a size that anchors have; `augment.zoom` is there to
    change it.
    """
    size = np.array(samples[0].pixels.shape[:2])
    pixels = np.full([*size, 3], GREY, samples[0].pixels.dtype)
    lines = np.stack([[0, 0], center, size])
    parts = []
    for number, (sample, place) in enumerate(zip(samples, places, strict=True)):
        quadrant = np.array(divmod(number, 2))
        start, end = (lines[quadrant + i, [0, 1]] for i in (0, 1))
        content = np.array(sample.pixels.shape[:2])
        hidden = content - (end - start)  # below 0: what is to be grey
        origin = start - (place * (hidden + np.copysign(1, hidden))).astype(int)
        y1, x1 = np.maximum(start, origin)
        y2, x2 = np.minimum(end, origin + content)
        y, x = origin
        pixels[y1:y2, x1:x2] = sample.pixels[y1 - y : y2 - y, x1 - x : x2 - x]
        moved = sample._replace(boxes=sample.boxes + np.array([x, y, x, y], np.float32))
        parts.append(moved.clip(np.array([x1, y1, x2, y2]), min_visibility))
    return _joined(pixels, parts)


def _joined(pixels: np.ndarray, parts: Sequence[Sample]) -> Sample:
    """Pixels with the objects of all parts."""
    objects = zip(*(part[1:] for part in parts), strict=True)
    return Sample(pixels, *(np.concatenate(arrays) for arrays in objects))
