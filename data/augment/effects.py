"""Changes of a sample that move no box: how it was taken and stored, and what stands before it.

Each takes a Sample and a generator, and returns a new Sample, or the same one where nothing
happens; an operation that is off draws nothing. uint8 stays uint8 and float32 float32, 0-255.
What lies around the image, and is grey, changes with it.
Letters: h w pixels of the content, G boxes.
"""

import math

import cv2
import numpy as np

from data.augment.sample import Sample
from data.images.render import GREY

SIGMAS = (0.002, 0.006)  # of a blur, in shares of the shorter side: 0.8 to 2.5 px of 416
QUALITIES = (20, 90)  # of a JPEG file, 1-100
HOLE_AREAS = (0.05, 0.2)  # of what is cut out, in shares of the content
HOLE_RATIOS = (0.5, 2.0)  # its height / width, those of the content being 1


def _happens(rng: np.random.Generator, probability: float) -> bool:
    return probability > 0 and rng.random() < probability


def blur(sample: Sample, rng: np.random.Generator, probability: float = 0.0) -> Sample:
    """A Gaussian blur with the given probability, its sigma evenly drawn within SIGMAS."""
    if not _happens(rng, probability):
        return sample
    sigma = rng.uniform(*SIGMAS) * min(sample.pixels.shape[:2])
    return sample._replace(pixels=cv2.GaussianBlur(sample.pixels, (0, 0), sigma))


def jpeg(sample: Sample, rng: np.random.Generator, probability: float = 0.0) -> Sample:
    """Stored as JPEG and read again with the given probability, of a quality within QUALITIES."""
    if not _happens(rng, probability):
        return sample
    quality = int(rng.integers(*QUALITIES, endpoint=True))
    pixels = sample.pixels.round().astype(np.uint8)
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, file = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])
    read = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)
    assert read is not None, "it has just been written"
    return sample._replace(pixels=read.astype(sample.pixels.dtype, copy=False))


def cutout(
    sample: Sample,
    rng: np.random.Generator,
    probability: float = 0.0,
    min_visibility: float = 0.25,
) -> Sample:
    """One grey rectangle over the content, with the given probability.

    Its area is evenly drawn within HOLE_AREAS, its shape log-uniform within HOLE_RATIOS, its place
    evenly; it lies wholly in the content. Of objects behind it see `Sample.hide`.
    DeVries and Taylor, arXiv:1708.04552; of random area and shape as Zhong et al.,
    arXiv:1708.04896, within narrower limits.
    """
    if not _happens(rng, probability):
        return sample
    size = np.array(sample.pixels.shape[:2])
    side = math.sqrt(rng.uniform(*HOLE_AREAS))
    stretch = math.exp(rng.uniform(*np.log(HOLE_RATIOS)) / 2)
    hole = np.maximum(np.round(size * side * [stretch, 1 / stretch]).astype(int), 1)
    y, x = (rng.random(2) * (size - hole + 1)).astype(int)
    pixels = sample.pixels.copy()
    pixels[y : y + hole[0], x : x + hole[1]] = GREY
    rectangle = np.array([x, y, x + hole[1], y + hole[0]])
    return sample._replace(pixels=pixels).hide(rectangle, min_visibility)
