"""Under which names images go into a converted dataset, and how they get there."""

import contextlib
import filecmp
import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.formats.format import Target
from data.records import Dataset
from utils.files import whole_file


def image_names(datasets: dict[str, Dataset], target: Target, is_pooled: bool) -> dict[str, str]:
    """{image: its name below the target's image folder}: its path below the source's.

    That is the folder that holds all images of a split; or of all splits, where images would share
    a name otherwise. is_pooled: the splits will be mixed.
    Raises ValueError naming two images that would get the same name.
    """
    splits = [list(dataset.images) for dataset in datasets.values()]
    whole = [image for images in splits for image in images]
    names = {k: v for images in splits for k, v in _relative_names(images, target.flat).items()}
    if not is_pooled and "{split}" in target.image_folder:
        scopes = splits
    else:
        scopes = [whole]
        if _clash(whole, names, target.by_stem):
            names = _relative_names(whole, target.flat)
    for images in scopes:
        if clash := _clash(images, names, target.by_stem):
            a, b = clash
            raise ValueError(f"{a}, {b}: would both be called {names[b]}; rename one of them")
    return names


def _relative_names(images: Sequence[str], is_flat: bool) -> dict[str, str]:
    """{image: path below the folder that holds them all}; is_flat: "_" for "/"."""
    paths = [os.path.abspath(image) for image in images]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    parts = (Path(path).relative_to(folder).parts for path in paths)
    # A folder "images" tells nothing, and in YOLO's trees it would mislead.
    names = [("_" if is_flat else "/").join(p for p in path if p != "images") for path in parts]
    return dict(zip(images, names, strict=True))


def _clash(images: Sequence[str], names: dict[str, str], by_stem: bool) -> tuple[str, str] | None:
    """Two images of the same name; copies of one, which overlapping splits may have, are none."""
    taken: dict[str, str] = {}
    for image in images:
        name = names[image]
        key = str(PurePosixPath(name).with_suffix("")) if by_stem else name
        first = taken.setdefault(key, image)
        if first != image and (names[first] != name or not _is_copy(first, image)):
            return first, image
    return None


def _is_copy(a: str, b: str) -> bool:
    return os.path.samefile(a, b) or filecmp.cmp(a, b, shallow=False)


def place(image: str, path: Path, is_copy: bool) -> None:
    """Puts an image at `path`, unless it is there: as a hard link, a symbolic one, a copy.

    The first of them that the disk allows; is_copy: a copy in any case.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    source = os.path.realpath(image)
    if path.exists():
        return
    for link in () if is_copy else (os.link, os.symlink):
        with contextlib.suppress(OSError):
            link(source, path)
            return
    with whole_file(path) as part:
        shutil.copyfile(source, part)
