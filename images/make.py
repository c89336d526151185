"""Makes the README's pictures: `python -m images.make` (or `make images`).

python -m images.make                            schedules.png, necks.png, focal_loss.png, ...
python -m images.make --run runs/shapes          detections.jpg too, from a trained run
python -m images.make --run runs/bccd --name bccd
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from configs.schema import Constant, Cosine, Exponential, Phase, Polynomial, Step
from core.build import build_schedule
from data.datasets import read_split
from data.records import first_images
from detector import open_detector
from images import focal, necks
from utils.diary import diary
from utils.draw import contact_sheet, write_image
from utils.plots import schedule_curves
from visualize import with_truth

FOLDER = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", help="draw detections of this run on its validation split")
    parser.add_argument("--name", default="detections", help="of that picture")
    parser.add_argument("--count", type=int, default=8, help="images on that picture")
    args = parser.parse_args()
    with diary():
        schedules(FOLDER / "schedules.png")
        necks.draw(FOLDER / "necks.png")
        focal.draw_loss(FOLDER / "focal_loss.png")
        focal.draw_first_steps(FOLDER / "foreground_share.png")
        if args.run:
            detections(FOLDER / f"{args.name}.jpg", args.run, args.count)


def schedules(path: Path, steps: int = 1000) -> None:
    """Every schedule, as a phase of 1,000 steps with 100 of warm-up gets it."""
    curves = {}
    for schedule in (Constant(), Cosine(), Step(), Polynomial(), Exponential()):
        phase = Phase(1, learning_rate=0.01, schedule=schedule, warmup_steps=100)
        rate = build_schedule(phase, steps)
        curves[schedule.kind] = (np.arange(steps), [float(rate(step)) for step in range(steps)])
    schedule_curves(path, curves)


def detections(path: Path, run: str, count: int) -> None:
    """The first images of a run's validation split, truth beside detections."""
    _, config, detector = open_detector(run, None, [])
    dataset = first_images(read_split(config.data, config.data.val, detector.classes), count)
    table = detector.detect_dataset(dataset)
    pictures = [with_truth(dataset, i, table) for i in range(len(dataset))]
    height, width = pictures[0].shape[:2]
    scale = min(1.0, 460 / width)
    cell = (round(height * scale), round(width * scale))
    write_image(path, contact_sheet(pictures, columns=2, cell=cell))


if __name__ == "__main__":
    main()
