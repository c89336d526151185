"""New splits of a dataset: each class's share of the images near the wanted one in every split.

Iterative stratification: Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label
data", ECML PKDD 2011.
Letters: M images, U units (files of the same bytes are one), K classes, J splits.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from data.files import open_data
from data.records import Dataset, DatasetError, select

ENDING = 4096  # bytes at the end of a file that tell most from others of their length


def stratified_splits(
    dataset: Dataset, fractions: Sequence[float], seed: int = 0, *, by_content: bool = True
) -> list[np.ndarray]:
    """Distributes the images over splits.

    fractions: J numbers above 0 that make 1 together. seed: another one gives other splits.

    The class with the fewest images left comes first; each of its images goes to the split that
    lacks most of the class, among equals to the one that lacks most images. Images without objects
    count as a class of their own; a region to ignore is no object. Other than in the paper, a class
    with J images or more is wanted in each split once at least, so that it can be measured there:
    where many classes are that rare, a small split grows beyond its share.
    by_content: files of the same bytes stay on one side.
    Who goes where follows from the images' ids, contents and classes and the seed, from no order.
    Returns J arrays of indices, ascending. Raises ValueError for other fractions and where a split
    would get no image.
    """
    if not make_whole(fractions):
        found = ", ".join(f"{fraction:g}" for fraction in fractions)
        raise ValueError(f"fractions: expected numbers above 0 that make 1 together, found {found}")
    units = same_content(dataset.images) if by_content else [[i] for i in range(len(dataset))]
    units = _in_order(units, dataset.image_ids, seed)
    sizes = np.array([*map(len, units)])
    sides = _distribute(_presence(dataset, units), sizes, np.asarray(fractions, np.float64))
    image_sides = np.empty(len(dataset), np.int64)
    for unit, side in zip(units, sides, strict=True):
        image_sides[unit] = side
    splits = [np.flatnonzero(image_sides == j) for j in range(len(fractions))]
    if not all(map(len, splits)):
        found = ", ".join(str(len(split)) for split in splits)
        message = f"expected images for every split, found {found} of {len(dataset)}"
        raise ValueError(f"{dataset.name}: {message} ({len(units)} different files)")
    return splits


def shared_out(dataset: Dataset, split: str, val_fraction: float, seed: int = 0) -> Dataset:
    """The images of an undivided dataset that are "train" or "val"; of "all" every one.

    val_fraction: share of the images that are val, by `stratified_splits`; of 0 and 1 all images
        are on one side. Raises DatasetError where a split has no image.
    """
    if split == "all" or val_fraction == (split == "val"):
        return dataset
    fractions = (1 - val_fraction, val_fraction)
    for by_content in (True, False):  # the second where nearly all files are alike
        with contextlib.suppress(ValueError):
            both = stratified_splits(dataset, fractions, seed, by_content=by_content)
            return select(dataset, both[split == "val"])
    found = f"found {len(dataset)} in all and data.val_fraction {val_fraction:g}"
    raise DatasetError(f"{dataset.name}: expected images for train and val, {found}")


def make_whole(fractions: Sequence[float]) -> bool:
    """Whether they are above 0 and make 1 together."""
    return all(fraction > 0 for fraction in fractions) and abs(sum(fractions) - 1) < 1e-6


def same_content(paths: Sequence[str]) -> list[list[int]]:
    """The indices of the files in groups of the same bytes.

    Most files are told apart by their length and a look at their end; only what agrees in both is
    read. One that is not there, as images of judged detections may be, is like no other.
    """
    groups = [list(range(len(paths)))]
    for key in (_length, _ending, _digest):
        groups = [part for group in groups for part in _parted(group, paths, key)]
    return groups


def _parted(
    group: list[int], paths: Sequence[str], key: Callable[[str], Hashable]
) -> list[list[int]]:
    if len(group) == 1:
        return [group]
    parts: dict[Hashable, list[int]] = {}
    for index in group:
        parts.setdefault(key(paths[index]), []).append(index)
    return list(parts.values())


def _length(path: str) -> int | str:
    """Of a file that cannot be opened its path: it is like no other."""
    try:
        with open_data(path) as file:
            return file.seek(0, os.SEEK_END)
    except DatasetError:
        return path


def _ending(path: str) -> bytes:
    with open_data(path) as file:
        file.seek(max(file.seek(0, os.SEEK_END) - ENDING, 0))
        return file.read(ENDING)


def _digest(path: str) -> bytes:
    with open_data(path) as file:
        return hashlib.file_digest(file, "blake2b").digest()


def _in_order(units: list[list[int]], image_ids: Sequence[str], seed: int) -> list[list[int]]:
    """Units in the order of a draw that the seed and their images' ids alone decide."""

    def draw(index: int) -> bytes:
        key = f"{seed}:{image_ids[index]}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(key, digest_size=8).digest()

    return sorted(units, key=lambda unit: min(map(draw, unit)))


def _presence(dataset: Dataset, units: list[list[int]]) -> np.ndarray:
    """(U, K + 1) int64: how many images of each unit show each class; last, how many show none.

    Classes in the order of their names, which is the same whatever labels they have.
    """
    images = np.zeros((len(dataset), len(dataset.classes) + 1), np.int64)
    rank = np.argsort(np.argsort(dataset.classes))
    counted = ~dataset.ignore
    images[dataset.image_index[counted], rank[dataset.labels[counted]]] = 1
    images[:, -1] = ~images.any(axis=1)
    return np.array([images[unit].sum(axis=0) for unit in units])


def _distribute(presence: np.ndarray, sizes: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """(U,) the split of each unit, given in the order in which equals are to be taken.

    presence: (U, K + 1) images a class; sizes: (U,) images.
    """
    lacking = np.stack([_wanted(count, fractions) for count in presence.sum(axis=0)], axis=1)
    lacking_images = sizes.sum() * fractions
    sides = np.full(len(sizes), -1)
    left = presence.sum(axis=0)
    while left.any():
        rarest = np.argmin(np.where(left > 0, left, left.max() + 1))
        for unit in np.flatnonzero((sides < 0) & (presence[:, rarest] > 0)):
            lacks = lacking[:, rarest].round(6)  # rounding decides no tie
            side = max(range(len(fractions)), key=lambda j: (lacks[j], lacking_images[j]))
            sides[unit] = side
            lacking[side] -= presence[unit]
            lacking_images[side] -= sizes[unit]
            left -= presence[unit]
    return sides


def _wanted(count: int, fractions: np.ndarray) -> np.ndarray:
    """(J,) images of a class wanted in each split: its share, but 1 where there is one for each."""
    wanted = count * fractions
    if count < len(fractions):
        return wanted
    few = np.zeros(len(fractions), bool)
    while (wanted[~few] < 1).any():
        few |= wanted < 1
        others = np.where(few, 0, fractions)
        wanted = np.where(few, 1, (count - few.sum()) * others / max(others.sum(), 1e-12))
    return wanted
