"""Reads files of detections by what is in them: which format it is, nobody has to say."""

from pathlib import Path

from data.detections.coco import read_coco_results
from data.detections.devkit import image_set_name, read_devkit
from data.detections.odgt import read_odgt, read_odgt_sizes
from data.detections.project_json import read_json, read_json_sizes
from data.files import open_data
from data.records import Dataset, DatasetError
from utils.detections import DetectionTable


def read_detections(path: str | Path, split: str, dataset: Dataset) -> DetectionTable:
    """Detections of a file or folder in any format of `data.detections`.

    Raises DatasetError as the format's reader does.
    """
    path = Path(path)
    if path.is_dir():
        return read_devkit(path, image_set_name(split), dataset.image_ids, dataset.classes)
    if _is_odgt(path):
        return read_odgt(path, dataset.image_ids, dataset.classes)
    if _is_of_images(path):
        return read_json(path, dataset.image_ids, dataset.classes)
    return read_coco_results(path, dataset.image_ids, dataset.classes, dataset.category_ids)


def image_sizes(path: str | Path) -> dict[str, tuple[int, int]]:
    """Image id -> (width, height) as far as a file of detections says; nothing for a folder.

    Raises DatasetError where there is none.
    """
    path = Path(path)
    if path.is_dir():
        return {}
    if _is_odgt(path):
        return read_odgt_sizes(path)
    return read_json_sizes(path) if _is_of_images(path) else {}


def _is_odgt(path: Path) -> bool:
    """Whether a file has an object a line, not one list."""
    return _beginning(path).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def _is_of_images(path: Path) -> bool:
    """Whether a JSON file has an entry an image, as ours have; COCO's have one a detection."""
    return b'"detections"' in _beginning(path)


def _beginning(path: Path) -> bytes:
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder of detections")
    with open_data(path) as file:
        return file.read(4096)
