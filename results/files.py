"""The files of an evaluation: figures, detections in every format that can hold them, pictures."""

import json
from pathlib import Path

from loguru import logger

from configs import Config
from data.detections.coco import read_coco_results, write_coco_results
from data.detections.devkit import read_devkit, write_devkit
from data.detections.odgt import read_odgt, read_odgt_sizes, write_odgt
from data.detections.project_json import read_json, read_json_sizes, write_json
from data.detections.table import DetectionTable
from data.files import open_data
from data.records import Dataset, DatasetError
from results.scoring import Scores, draw
from utils.files import write_text


def read_detections(path: str | Path, split: str, dataset: Dataset) -> DetectionTable:
    """Detections of a file or folder in any of the formats that `write_all` writes.

    Raises DatasetError as the format's reader does.
    """
    path = Path(path)
    if path.is_dir():
        return read_devkit(path, image_set(split), dataset.image_ids, dataset.classes)
    if is_odgt(path):
        return read_odgt(path, dataset.image_ids, dataset.classes)[0]
    if is_of_images(path):
        return read_json(path, dataset.image_ids, dataset.classes)[0]
    return read_coco_results(path, dataset.image_ids, dataset.classes, dataset.category_ids)


def image_sizes(path: str | Path) -> dict[str, tuple[int, int]]:
    """Image id -> (width, height) as far as a file of detections says; nothing for a folder.

    Raises DatasetError where there is none.
    """
    path = Path(path)
    if path.is_dir():
        return {}
    if is_odgt(path):
        return read_odgt_sizes(path)
    return read_json_sizes(path) if is_of_images(path) else {}


def is_odgt(path: Path) -> bool:
    """Whether a file has an object a line, not one list."""
    return beginning(path).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def is_of_images(path: Path) -> bool:
    """Whether a JSON file has an entry an image, as ours have; COCO's have one a detection."""
    return b'"detections"' in beginning(path)


def beginning(path: Path) -> bytes:
    """The first bytes of a file of detections. Raises DatasetError if it cannot be read."""
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder of detections")
    with open_data(path) as file:
        return file.read(4096)


def evaluation_folder(split: str, config: Config) -> str:
    """evaluation for the validation split, evaluation_<split> for another."""
    return "evaluation" if split == config.data.val else f"evaluation_{image_set(split)}"


def image_set(split: str) -> str:
    """The split as it stands in file names."""
    return split.replace("/", "_").replace("+", "_").replace(" ", "")


def write_all(out: Path, split: str, scores: Scores, report: dict, table: DetectionTable) -> None:
    """metrics.json, the detections in every format that can hold them, and the pictures."""
    dataset = scores.dataset
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "metrics.json", json.dumps(report, indent=1))
    write_json(out / "detections.json", table, dataset.sizes)
    write_coco_results(out / "coco_results.json", table, dataset.category_ids)
    write_devkit(out / "devkit", image_set(split), table)
    if scores.config.data.format == "crowdhuman":
        write_odgt(out / "detections.odgt", table, dataset.sizes)
    draw(out, scores, report)
    logger.info("figures, curves and detections in {}", out)
