"""Makes the README's and the docs' pictures: `python -m images.make` (or `make images`).

    python -m images.make                            all of them
    python -m images.make schedules.png bias.png     these

speed.png, growth.png, foreground_share.png and bccd_precision_recall.png are drawn from figures
measured once, which lie beside them: speed.json and growth.json are copies of what `make bench`
leaves in runs/benchmarks (models/results.json, growth/growth.json), foreground_share.csv is of
benchmarks/first_steps.py, bccd_precision_recall.csv of images/curves.py. detections.jpg needs
runs/shapes and trains it if there is none, 3 minutes.
"""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from utils.program import make_parser, run_program

import numpy as np
from loguru import logger

import configs
import train
from benchmarks import growth, report
from configs.schema import Constant, Cosine, Exponential, FullPhase, Polynomial, Step
from core.build import build_schedule
from data.datasets import class_names, read_split
from data.preview import sheet, training_samples
from data.records import first_images
from detector import open_detector
from images import architecture, curves, focal, necks
from results.pictures import with_truth
from utils.diary import diary
from utils.draw import contact_sheet, write_image
from utils.plots import draw_lines, one_panel, save

FOLDER = Path(__file__).parent
RUN = Path("runs/shapes")
# What samples.png shows: all that is moved, mixed, coloured and hidden, on the default's images.
SAMPLES = {
    "model.resize.height": 256,
    "model.resize.width": 256,
    "data.augment.zoom": (0.6, 1.6),
    "data.augment.rotate": 8.0,
    "data.augment.hue": 0.1,
    "data.augment.brightness": 0.2,
    "data.augment.blur": 0.3,
    "data.augment.cutout": 0.3,
    "data.mixing.mixup": 0.25,
    "data.mixing.cutmix": 0.25,
    "data.mixing.mosaic": 0.25,
}


def main(argv: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}")
    parser.add_argument("--out", default=FOLDER, type=Path, help="folder; default: images/")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.names) - set(PICTURES))
    if unknown:
        parser.error(f"expected names of {', '.join(PICTURES)}, found {', '.join(unknown)}")
    names = args.names or list(PICTURES)
    if "detections.jpg" in names and not (RUN / "checkpoints" / "best.npz").is_file():
        train.main(["--config", "configs/shapes.py"])
    with diary():
        for name in names:
            PICTURES[name](args.out / name)
            logger.info("{}", args.out / name)


def schedules(path: Path, steps: int = 1000) -> None:
    """Every schedule, as a phase of 1,000 steps with 100 of warm-up gets it."""
    curves = {}
    for schedule in (Constant(), Cosine(), Step(), Polynomial(), Exponential()):
        rate = build_schedule(FullPhase(1, (), 1, 0.01, schedule, warmup_steps=100), steps)
        curves[schedule.kind] = (np.arange(steps), [float(rate(step)) for step in range(steps)])
    figure, axes = one_panel("Learning rate schedules", "step", "learning rate", height=4.2)
    draw_lines(axes, curves)
    axes.margins(x=0.01)
    axes.set_ylim(bottom=0)
    save(figure, path)


def samples(path: Path, count: int = 8) -> None:
    """Training samples of the default dataset with much switched on, as data.preview draws them."""
    config = configs.override(configs.preset("shapes"), SAMPLES)
    dataset = read_split(config.data, config.data.train, class_names(config.data))
    found = list(islice(training_samples(config, dataset, epoch=0), count))
    write_image(path, sheet(found, dataset, columns=4))


def detections(path: Path, count: int = 8) -> None:
    """The first validation images of the default run, truth beside detections."""
    _, config, detector = open_detector(RUN, None, [])
    dataset = first_images(read_split(config.data, config.data.val, detector.classes), count)
    table = detector.detect_dataset(dataset)
    pictures = [with_truth(dataset, i, table) for i in range(len(dataset))]
    height, width = pictures[0].shape[:2]
    scale = min(1.0, 460 / width)
    cell = (round(height * scale), round(width * scale))
    write_image(path, contact_sheet(pictures, columns=2, cell=cell))


def speed(path: Path) -> None:
    measured = json.loads((FOLDER / "speed.json").read_text(encoding="utf-8"))
    report.picture(path, {group["title"]: group["rows"] for group in measured["groups"]})


def growing(path: Path) -> None:
    measured = json.loads((FOLDER / "growth.json").read_text(encoding="utf-8"))
    growth.picture(path, measured["curves"])


PICTURES: dict[str, Callable[[Path], None]] = {
    "architecture.png": architecture.draw,
    "bccd_precision_recall.png": curves.draw,
    "bias.png": focal.draw_prior,
    "detections.jpg": detections,
    "focal_loss.png": focal.draw_loss,
    "foreground_share.png": focal.draw_first_steps,
    "growth.png": growing,
    "necks.png": necks.draw,
    "samples.png": samples,
    "schedules.png": schedules,
    "speed.png": speed,
}


if __name__ == "__main__":
    run_program(main)
