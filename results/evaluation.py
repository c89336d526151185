"""The folder of an evaluation: figures, detections in every format that can hold them, pictures."""

import json
from pathlib import Path

from loguru import logger

from configs import Config
from data.detections.coco import write_coco_results
from data.detections.devkit import image_set_name, write_devkit
from data.detections.odgt import ODGT
from data.detections.project_json import JSON
from results.scoring import Scores
from utils.files import write_text


def evaluation_folder(split: str, config: Config) -> str:
    """evaluation for the validation split, evaluation_<split> for another."""
    return "evaluation" if split == config.data.val else f"evaluation_{image_set_name(split)}"


def write_all(out: Path, split: str, scores: Scores) -> None:
    """metrics.json, the detections in every format that can hold them, and the pictures."""
    dataset, table = scores.dataset, scores.detections
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "metrics.json", json.dumps(scores.report, indent=1))
    JSON.write(out / "detections.json", table, dataset.sizes)
    write_coco_results(out / "coco_results.json", table, dataset.category_ids, dataset.text_ids)
    write_devkit(out / "devkit", image_set_name(split), table)
    if scores.config.data.format == "crowdhuman":
        ODGT.write(out / "detections.odgt", table, dataset.sizes)
    scores.draw(out)
    logger.info("figures, curves and detections in {}", out)
