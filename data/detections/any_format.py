"""Reads files of detections by what is in them: which format it is, nobody has to say."""

from pathlib import Path, PureWindowsPath

from data.detections.coco import read_coco_results
from data.detections.devkit import image_set_name, read_devkit
from data.detections.odgt import ODGT
from data.detections.per_image import PerImage
from data.detections.project_json import JSON
from data.files import open_data
from data.records import Dataset, DatasetError
from utils.detections import DetectionTable


def read_detections(path: str | Path, split: str, dataset: Dataset) -> DetectionTable:
    """Detections of a file or folder in any format of `data.detections`.

    Raises DatasetError as the format's reader does.
    """
    path = Path(path)
    form = None if path.is_dir() else _per_image(path)
    ids, classes = dataset.image_ids, dataset.classes
    if path.is_dir():
        return read_devkit(path, image_set_name(split), ids, classes, dataset.images)
    if form:
        return form.read(path, ids, classes, dataset.images)
    return read_coco_results(path, ids, classes, dataset.category_ids, dataset.images)


def image_sizes(path: str | Path) -> dict[str, tuple[int, int]]:
    """Image id -> (width, height) as far as a file of detections says; nothing for a folder.

    An id that is the name of a file stands for its stem, too.
    Raises DatasetError where there is none.
    """
    path = Path(path)
    form = None if path.is_dir() else _per_image(path)
    sizes = form.read_sizes(path) if form else {}
    return {PureWindowsPath(name).stem: size for name, size in sizes.items()} | sizes


def _per_image(path: Path) -> PerImage | None:
    """The format of a file with an entry an image; None: COCO's results, one a detection."""
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder of detections")
    with open_data(path) as file:
        beginning = file.read(4096)
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return ODGT
    return JSON if b'"detections"' in beginning else None
