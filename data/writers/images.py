"""Under which names images go into a converted dataset, and how they get there."""

import contextlib
import filecmp
import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.files import open_data, read_data
from data.formats.format import Target
from data.images.decode import MAX_BYTES
from data.records import Dataset
from data.slices import Slice, find_slice
from utils.files import whole_file, write_bytes

# The suffixes of image files, by their first bytes; the first one for a file that has none of them.
SUFFIXES = {
    b"\xff\xd8\xff": (".jpg", ".jpeg", ".jfif"),
    b"\x89PNG": (".png",),
    b"BM": (".bmp",),
    b"GIF8": (".gif",),
    b"RIFF": (".webp",),
    b"II*\0": (".tif", ".tiff"),
    b"MM\0*": (".tif", ".tiff"),
}


def image_names(datasets: dict[str, Dataset], target: Target, is_pooled: bool) -> dict[str, str]:
    """{image: its name below the target's image folder}: its path below the source's.

    That is the folder that holds all images of a split; or of all splits, where images would share
    a name otherwise. Images inside larger files are called as those say, with the suffix of what
    they are, and a number where several have one name. is_pooled: the splits will be mixed.
    Raises ValueError naming two images that would get the same name.
    """
    splits = [list(dataset.images) for dataset in datasets.values()]
    whole = [image for images in splits for image in images]
    names = {k: v for images in splits for k, v in _relative_names(images, target.flat).items()}
    if not is_pooled and (target.image_folder is None or "{split}" in target.image_folder):
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
    inside = {image: part for image in images if (part := find_slice(image))}
    if inside:
        files = [image for image in images if image not in inside]
        return _slice_names(inside) | (_relative_names(files, is_flat) if files else {})
    paths = [os.path.abspath(image) for image in images]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    parts = (Path(path).relative_to(folder).parts for path in paths)
    # A folder "images" tells nothing, and in YOLO's trees it would mislead.
    names = [("_" if is_flat else "/").join(p for p in path if p != "images") for path in parts]
    return dict(zip(images, names, strict=True))


def _slice_names(parts: dict[str, Slice]) -> dict[str, str]:
    """{image: its name with the right suffix}; no two of one stem, whatever their case."""
    names, taken = {}, set()
    for image, part in parts.items():
        with open_data(image) as file:
            start = file.read(4)
        stem, suffix = os.path.splitext(part.name)
        fit = next((fit for sign, fit in SUFFIXES.items() if start.startswith(sign)), (suffix,))
        if suffix.lower() not in fit:
            is_one = any(suffix.lower() in suffixes for suffixes in SUFFIXES.values())
            stem, suffix = stem if is_one else part.name, fit[0]
        free = (stem if n == 1 else f"{stem}-{n}" for n in itertools.count(1))
        stem = next(name for name in free if name.lower() not in taken)
        taken.add(stem.lower())
        names[image] = stem + suffix
    return names


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
    if find_slice(a) or find_slice(b):
        return read_data(a, MAX_BYTES) == read_data(b, MAX_BYTES)
    return os.path.samefile(a, b) or filecmp.cmp(a, b, shallow=False)


def place(image: str, path: Path, is_copy: bool) -> None:
    """Puts an image at `path`, unless it is there: as a hard link, a symbolic one, a copy.

    The first of them that the disk allows; is_copy: a copy in any case, as of an image inside a
    larger file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    source = os.path.realpath(image)
    if path.exists():
        return
    if find_slice(image):
        write_bytes(path, read_data(image, MAX_BYTES))
        return
    for link in () if is_copy else (os.link, os.symlink):
        with contextlib.suppress(OSError):
            link(source, path)
            return
    with whole_file(path) as part:
        shutil.copyfile(source, part)
