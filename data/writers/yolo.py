"""Dataset -> YOLO: labels/<split>/*.txt, data.yaml, images in images/<split>."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import yaml

from data.records import Dataset
from data.writers.common import check_names, lost_flags, lost_numbers
from utils.files import write_text


def write_yolo(dataset: Dataset, root: str | Path, split: str, names: Sequence[str]) -> list[str]:
    """Writes one split as a text file an image, `label x y width height` in fractions.

    names: file names in images/<split>, one for each image, subfolders and all; different stems.
    Fractions have all their digits. An image without objects has an empty file. Regions to ignore
    are left out: they would become objects. data.yaml lists all splits written so far, without the
    key `path`: Ultralytics takes a relative one, "." as well, for one below its own folder of
    datasets, and without it the YAML file's folder.
    Returns the losses. Raises ValueError for a name that cannot be used.
    """
    check_names(names, dataset, by_stem=True)
    if "images" in (folder for name in names for folder in PurePosixPath(name).parts[:-1]):
        raise ValueError(f"{root}: a folder below images/{split} cannot be called images in YOLO")
    root = Path(root)
    for index, name in enumerate(names):
        path = (root / "labels" / split / name).with_suffix(".txt")
        write_text(path, "".join(_lines(dataset, index)))
    _write_settings(root, dataset.classes)
    return lost_flags(dataset, "YOLO") + lost_numbers(dataset, "YOLO")


def _write_settings(root: Path, classes: Sequence[str]) -> None:
    splits = sorted(path.name for path in (root / "labels").iterdir())
    settings: dict[str, object] = {split: f"images/{split}" for split in splits}
    settings["names"] = dict(enumerate(classes))
    text = yaml.safe_dump(settings, allow_unicode=True, sort_keys=False)
    write_text(root / "data.yaml", text)


def _lines(dataset: Dataset, index: int) -> list[str]:
    rows, size = dataset.rows(index), dataset.sizes[index]
    lines = []
    for row in range(rows.start, rows.stop):
        if not dataset.ignore[row]:
            x1, y1, x2, y2 = dataset.boxes[row].tolist()
            x, width = fractions(x1, x2, int(size[0]))
            y, height = fractions(y1, y2, int(size[1]))
            lines.append(f"{dataset.labels[row]} {x!r} {y!r} {width!r} {height!r}\n")
    return lines


def fractions(low: float, high: float, side: int) -> tuple[float, float]:
    """Centre and length of an interval in fractions of a side."""
    return (low + high) / 2 / side, (high - low) / side
