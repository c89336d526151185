"""Writes datasets into a new folder."""

import os
from functools import partial
from pathlib import Path

from data.formats import TARGETS
from data.records import Dataset
from data.writers.images import place
from utils.diary import progress_bar
from utils.files import whole_folder


def write(
    datasets: dict[str, Dataset], names: dict[str, str], out: Path, format_name: str, how: str
) -> list[str]:
    """Writes annotations and images into a new folder; returns the losses in words."""
    target, losses = TARGETS[format_name], []
    num_images = sum(map(len, datasets.values()))
    with whole_folder(out) as part, progress_bar() as bar:
        task = bar.add_task("writing", total=num_images, text="")
        for split, dataset in datasets.items():
            of_images = [names[image] for image in dataset.images]
            advance = partial(bar.advance, task)
            if target.image_folder is None:
                found = target.write(dataset, part, split, of_images, advance)
            else:
                found = target.write(dataset, part, split, of_images)
                folder = part / target.image_folder.format(split=split)
                for image, name in zip(dataset.images, of_images, strict=True):
                    if how != "none":
                        place(image, folder / name, is_copy=how == "copy")
                    advance()
            losses += [f"{split}: {loss}" for loss in found]
    return losses


def require_new(path: Path) -> None:
    """Raises ValueError for anything but an empty folder, or none."""
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(
            f"{path}: expected a new or empty folder, found it in use; it is left alone"
        )


def new_file(path: str) -> Path:
    """Raises ValueError for a file that is there."""
    if os.path.lexists(path):
        raise ValueError(f"{path}: is there already; remove it or choose another name")
    return Path(path)
