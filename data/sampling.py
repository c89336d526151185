"""Repeat-factor sampling: images with rare classes are seen more than once in an epoch.

Source: Gupta et al., "LVIS", section 4.3 (arXiv:1908.03195). Letters: M images, K classes.
"""

import numpy as np

from data.records import Dataset, learnable


def repeat_factors(
    dataset: Dataset, threshold: float, train_on_difficult: bool = True
) -> np.ndarray:
    """(M,) float64 of 1 or more: how often an epoch should hold each image.

    With f(c) the share of images that have an object of class c, a class asks for
    r(c) = max(1, sqrt(threshold / f(c))), and an image for the most that one of its classes does.
    Regions to ignore are no objects, nor are difficult ones unless they are trained on.
    threshold: share of images below which a class is repeated; 0: none is. At 1 all are, each by
        1 / sqrt(f(c)), which goes half of the way to classes seen equally often.
    """
    if not threshold:
        return np.ones(len(dataset))
    is_object, num_classes = learnable(dataset, train_on_difficult), len(dataset.classes)
    pairs = np.unique((dataset.image_index * num_classes + dataset.labels)[is_object])
    image, label = np.divmod(pairs, num_classes)
    share = np.bincount(label, minlength=num_classes) / len(dataset)
    factors = np.ones(len(dataset))
    np.maximum.at(factors, image, np.sqrt(threshold / share[label]))
    return factors


def samples_per_epoch(factors: np.ndarray) -> int:
    """Samples of every epoch: the sum of the factors, rounded down."""
    return int(factors.sum())


def epoch_order(factors: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """(samples_per_epoch, 2) int64: image and number of its copy, in random order.

    seed and epoch settle all. The copies of an image are 0, 1, ..., to be augmented differently.
    Each image comes floor(factor) or ceil(factor) times, on average factor times: one random offset
    rounds the running sum of the factors of images in random order, so that the total is settled,
    too (systematic sampling). Where it is one more than the sum rounded down, the last is left out.
    """
    random = np.random.default_rng([seed, epoch, len(factors)])  # an index that no image has
    images = random.permutation(len(factors))
    ends = np.cumsum(factors[images])
    ends[-1] = factors.sum()  # in one order, so that rounding errors cannot make a sample less
    ends = np.floor(ends + random.random()).astype(np.int64)
    counts = np.diff(ends, prepend=0)
    copies = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    samples = np.stack([np.repeat(images, counts), copies], axis=1)
    return random.permutation(samples)[: samples_per_epoch(factors)]
