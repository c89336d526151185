"""Checks of arrays, and rows by group.

A check returns the array in its own type, or raises ValueError: its name, expected, found.
"""

import numpy as np
from numpy.typing import ArrayLike


def whole_numbers(name: str, values: ArrayLike, length: int | None = None) -> np.ndarray:
    """(length,) int64; None: of any length."""
    array = np.asarray(values)
    if array.ndim != 1 or (length is not None and len(array) != length):
        expected = "(any length,)" if length is None else f"({length},)"
        raise ValueError(f"{name}: expected shape {expected}, found {array.shape}")
    # An empty list arrives as float64 and is still a valid set of no objects.
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: expected an integer type, found {array.dtype}")
    return array.astype(np.int64)


def require_indices(name: str, indices: np.ndarray, count: int) -> None:
    """Raises ValueError unless each of (any length,) indices is one of `count` things."""
    wrong = np.flatnonzero((indices < 0) | (indices >= count))
    if wrong.size:
        row = wrong[0]
        raise ValueError(
            f"{name}: expected indices 0 to {count - 1} (padding dropped), "
            f"found {indices[row]} in row {row}"
        )


def finite(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Float64 of this shape, none of it nan or infinite; an empty list is of any length 0."""
    array = np.asarray(values)
    if array.shape == (0,) and shape[0] == 0:
        array = array.reshape(shape)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, found {array.shape}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        row = np.argwhere(~np.isfinite(array))[0][0]
        raise ValueError(f"{name}: expected finite numbers, found {array[row]} in row {row}")
    return array


def flags(name: str, values: ArrayLike, length: int) -> np.ndarray:
    """(length,) bool."""
    array = np.asarray(values)
    if array.shape != (length,):
        raise ValueError(f"{name}: expected shape ({length},), found {array.shape}")
    if array.size and array.dtype != bool:
        raise ValueError(f"{name}: expected bool, found {array.dtype}")
    return array.astype(bool)


def rows_of_each(groups: np.ndarray, count: int) -> list[np.ndarray]:
    """(N,) int -> for each of the groups 0 to count - 1 its rows, in order."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(count))
    return np.split(order, starts)[1:]


def set_fields(instance: object, **values: object) -> None:
    """Sets fields of a frozen dataclass, in its __post_init__ only."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)
