"""Class names: the label of each, those that a reader is to take, and what to say of others."""

import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data.formats.text_files import SHOWN, quoted
from data.records import BAD_NAME, DatasetError, Defects
from utils.names import name_problem


def class_label(name: str | None, label_of: Mapping[str, int], where: str) -> int:
    """The label of a class.

    where: file, object and field. Raises DatasetError of kind "missing name", BAD_NAME or "unknown
    class", with the close match.
    """
    if not name:
        raise DatasetError(f"{where}: expected a class name, found none", "missing name")
    if name in label_of:
        return label_of[name]
    problem = name_problem(name)
    if problem:
        raise DatasetError(f"{where}: {problem}", BAD_NAME)
    raise DatasetError(f"{where}: {expected_one_of(label_of, name)}", "unknown class")


def fit_names(names: Iterable[str | None]) -> tuple[str, ...]:
    """Those of the names found with objects that a class can have, sorted.

    The others are judged object by object, by `class_label`.
    """
    return tuple(sorted({name for name in names if name and not name_problem(name)}))


def require_known(names: Iterable[str], known: Collection[str], where: str) -> None:
    """Raises DatasetError for the first of the names that is not known."""
    for name in names:
        if name not in known:
            raise DatasetError(f"{where}: {expected_one_of(known, name)}")


def choose_classes(
    declared: Sequence[str], classes: Sequence[str] | None, where: str | Path, defects: Defects
) -> np.ndarray:
    """(number of declared,) int64: the label each declared class gets, -1 for those left out.

    classes: names in label order, None for all as declared. where: names the file in messages. A
    name that is not declared has no objects here; another split may have some: it is counted.
    Raises ValueError for no name or one given twice.
    """
    if classes is None:
        return np.arange(len(declared))
    if not classes or len(set(classes)) != len(classes):
        raise ValueError(f"classes: expected different names, found {list(classes)}")
    for name in classes:
        if name not in declared:
            message = f"{where}: class: {expected_one_of(declared, name)}"
            defects.add("class not declared", message)
    label_of = {name: label for label, name in enumerate(classes)}
    return np.array([label_of.get(name, -1) for name in declared])


def count_left_out(names: Iterable[str], where: str | Path, defects: Defects) -> None:
    """Counts objects of classes that are not asked for, of which these are the names."""
    for name, count in Counter(names).items():
        defects.add("class left out", f"{where}: class {name!r} is not asked for", count)


def expected_one_of(names: Collection[str], found: str) -> str:
    """ "expected one of cat, dog, found 'cta'; did you mean 'cat'?" """
    close = difflib.get_close_matches(found[:SHOWN], names, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"expected one of {', '.join(names)}, found {quoted(found)}{hint}"
