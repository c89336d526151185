"""Pairs of two sets of boxes, over all images at once: which overlap, and who gets whom.

Letters: A and B boxes of either set, P pairs.
"""

from collections.abc import Callable, Iterator

import numpy as np

PAIRS_PER_CHUNK = 200_000  # bounds the memory, and lets a chunk's arrays stay in the cache


def intersections(a: np.ndarray, b: np.ndarray, one: float = 0.0) -> np.ndarray:
    """(4, P) and (4, P) xyxy -> (P,) areas of overlap of each with its like.

    one: is added to every side.
    """
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]) + one
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]) + one
    return np.maximum(width, 0.0) * np.maximum(height, 0.0)


def areas(boxes: np.ndarray, one: float = 0.0) -> np.ndarray:
    """(4, P) xyxy -> (P,)."""
    width, height = boxes[2:] - boxes[:2] + one
    return np.maximum(width, 0.0) * np.maximum(height, 0.0)


def pair_chunks(
    group_a: np.ndarray, group_b: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every a with every b of its group, about PAIRS_PER_CHUNK at a time.

    group_a (A,), group_b (B,): int, e.g. the image. Yields indices (P,), (P,), P > 0;
    the pairs of an a are never split, follow one another, and keep the order of the b.
    """
    order = np.argsort(group_b, kind="stable")
    start = np.searchsorted(group_b[order], group_a, side="left")
    count = np.searchsorted(group_b[order], group_a, side="right") - start
    paired = np.flatnonzero(count)
    if paired.size == 0:
        return
    cuts = np.flatnonzero(np.diff(np.cumsum(count[paired]) // PAIRS_PER_CHUNK)) + 1
    for rows in np.split(paired, cuts):
        repeats = count[rows]
        ends = np.cumsum(repeats)
        within = np.arange(ends[-1]) - np.repeat(ends - repeats, repeats)
        yield np.repeat(rows, repeats), order[np.repeat(start[rows], repeats) + within]


def overlapping_pairs(
    group_a: np.ndarray,
    group_b: np.ndarray,
    overlap: Callable[[np.ndarray, np.ndarray], np.ndarray],
    least: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices (P,), (P,) and overlap (P,) of the pairs within a group that reach `least`.

    overlap: from the indices of pairs. The order is that of `pair_chunks`.
    """
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for a, b in pair_chunks(group_a, group_b):
        values = overlap(a, b)
        close = values >= least
        found.append((a[close], b[close], values[close]))
    a, b, values = (np.concatenate(part) for part in zip(*found, strict=True))
    return a, b, values


def first_of_each(ids: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """(P,) ids, (P,) bool -> (P,) bool: the first hit of each id."""
    hits = np.flatnonzero(hit)
    _, first = np.unique(ids[hits], return_index=True)
    chosen = np.zeros(len(ids), bool)
    chosen[hits[first]] = True
    return chosen


def greedy_one_to_one(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (P,), (P,), best first -> those that a greedy walk down the list takes.

    A pair that is the best left for both its ends is one that the walk takes whatever happens
    elsewhere, so each round takes all of these at once. Every image that has pairs left gives one
    at least, so there are no more rounds than boxes in an image, and usually two or three.
    """
    taken_a, taken_b = [a[:0]], [b[:0]]
    while a.size:
        everywhere = np.ones(len(a), bool)
        mutual = first_of_each(a, everywhere) & first_of_each(b, everywhere)
        taken_a.append(a[mutual])
        taken_b.append(b[mutual])
        left = ~(np.isin(a, a[mutual]) | np.isin(b, b[mutual]))
        a, b = a[left], b[left]
    return np.concatenate(taken_a), np.concatenate(taken_b)
