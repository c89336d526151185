"""Draws what a training will see: its first samples of an epoch, with every change made to them.

    python -m data.preview                                as config.py says
    python -m data.preview --set data.augment.zoom=.5,2   what a setting would do
    python -m data.preview --config configs/voc.py --epoch 3 --count 36 --columns 6

Pixels, objects and order are those of train.py for the same config and seed, batch for batch.
Objects are framed in their class's colour, with the weight they count with unless it is 1; regions
to ignore are dashed. Beside smaller inputs of a batch, black is padding. Writes the sheet to
<config.output>/preview.png or --out, in the place of the one there.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from utils.program import make_parser, run_program

import numpy as np
from loguru import logger

import configs
from configs import Config
from configs.schema import Augment, Data, Mixing
from core.weights.published import find, open_weights
from data.datasets import class_names, read_split
from data.images.bit_depth import depth_of
from data.images.render import pad
from data.pipeline import checked, training_batches
from data.records import Dataset
from utils.boxes import IGNORE
from utils.diary import diary
from utils.draw import class_colors, contact_sheet, draw_boxes, write_image
from utils.files import cache_folder

MOST = 640  # px, the longer side of a picture on the sheet


def main(argv: list[str] | None = None) -> Path:
    """Runs the command line; returns the file written. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    config = configs.load(args.config, args.overrides)
    with diary():
        config = with_input_size(config)
        classes = class_names(config.data, config.data.train)
        dataset = read_split(config.data, config.data.train, classes)
        depth = None if config.model.bits else depth_of(dataset.images)
        dataset = replace(dataset, bits=depth.bits if depth else config.model.bits)
        samples = list(islice(training_samples(config, dataset, args.epoch), args.count))
        out = Path(args.out or Path(config.output) / "preview.png")
        write_image(out, sheet(samples, dataset, args.columns))
        changes = ", ".join(f"{name}={value}" for name, value in switched_on(config.data))
        logger.info("switched on: {}", changes or "nothing")
        logger.info("{} samples of epoch {} in {}", len(samples), args.epoch, out)
    return out


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "data.preview")
    configs.add_arguments(parser)
    parser.add_argument("--count", type=int, default=16, help="samples; default: 16")
    parser.add_argument("--epoch", type=int, default=0, help="default: 0, the first")
    parser.add_argument("--columns", type=int, default=4, help="default: 4")
    parser.add_argument("--out", metavar="FILE", help="default: <config.output>/preview.png")
    args = parser.parse_args(argv)
    for name, least in (("count", 1), ("epoch", 0), ("columns", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name}: expected at least {least}, found {getattr(args, name)}")
    return args


def with_input_size(config: Config) -> Config:
    """The config with an input size that it leaves open as its weights have it, like train.py.

    Nothing is downloaded: published detectors are looked at if they came before.
    """
    source, backbone = config.model.weights, config.model.backbone
    published = find(source, backbone) if source else None
    if source is None or (published and not published.ap):  # a backbone knows no input size
        return config
    if published and not (cache_folder() / published.file).is_file():
        logger.warning(
            "{} is not downloaded yet: what model.resize leaves open may follow it in training, "
            "here it does not",
            source,
        )
        return config
    return replace(config, model=open_weights(source, backbone).settle(config.model))


def training_samples(config: Config, dataset: Dataset, epoch: int) -> Iterator[dict]:
    """Rows of the batches that a training gets in an epoch, as arrays.

    The batch size is that of the epoch's phase. Raises ValueError for an epoch after the last.
    """
    phases = config.train.all_phases()
    ends = np.cumsum([phase.epochs for phase in phases]).tolist()
    if epoch >= ends[-1]:
        raise ValueError(f"epoch: expected below the {ends[-1]} of the training, found {epoch}")
    batch_size = phases[np.searchsorted(ends, epoch, side="right")].batch_size
    batches = training_batches(
        dataset,
        config.data,
        config.model.resize,
        batch_size=batch_size,
        seed=config.train.seed,
        epochs=range(epoch, epoch + 1),
        num_epochs=ends[-1],
    )
    for batch in checked(batches):
        arrays = {name: value.numpy() for name, value in batch.items()}
        for row in range(batch_size):
            yield {name: array[row] for name, array in arrays.items()}


def sheet(samples: list[dict], dataset: Dataset, columns: int) -> np.ndarray:
    """(H, W, 3) uint8: the samples at one scale, under each the name of its (first) image."""
    pictures = [draw(sample, dataset.classes) for sample in samples]
    size = np.max([picture.shape[:2] for picture in pictures], axis=0)
    cell = np.ceil(size * min(1, MOST / size.max())).astype(int)
    names = [Path(dataset.images[sample["index"]]).stem for sample in samples]
    return contact_sheet([pad(picture, size) for picture in pictures], columns, cell, names)


def draw(sample: dict, classes: tuple[str, ...]) -> np.ndarray:
    """The pixels of a sample as uint8, its objects and regions framed."""
    boxes, labels, weights = sample["boxes"], sample["labels"], sample["weights"]
    picture = np.rint(sample["images"]).astype(np.uint8)
    regions = boxes[labels == IGNORE]
    unnamed = np.zeros(len(regions), int)
    picture = draw_boxes(picture, regions, unnamed, ("ignore",), style="dashed", colors=[[255] * 3])

    is_object = labels >= 0
    labels, weights = labels[is_object], weights[is_object]
    names = [
        classes[label] if weight == 1 else f"{classes[label]} × {weight:.2f}"
        for label, weight in zip(labels, weights, strict=True)
    ]
    colors = class_colors(len(classes))[labels]
    return draw_boxes(picture, boxes[is_object], np.arange(len(names)), names, colors=colors)


def switched_on(data: Data) -> list[tuple[str, object]]:
    """(dotted name, value) of what is not neutral in data.augment and data.mixing."""
    neutral = replace(data, augment=Augment(flip=0.0), mixing=Mixing())
    found = configs.differences(configs.to_dict(data), configs.to_dict(neutral))
    return [(f"data.{name}", value) for name, value, _ in found]


if __name__ == "__main__":
    run_program(main)
