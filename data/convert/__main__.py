"""Turns a dataset of one format into another: VOC, COCO, CSV, YOLO, labelme, TFRecord.

CrowdHuman's, CVAT's and TFDS's are read, too.

    python -m data.convert datasets/VOC2007 --to coco --out datasets/voc_coco
    python -m data.convert datasets/mine --to voc --out datasets/new \\
        --split-fractions train=.8 val=.1 test=.1

CSV annotations from CrowdHuman:

    python -m data.convert datasets/crowdhuman --to csv --out datasets/crowd --classes person head

A class file, lines of `name,id`, from a list of names, or from a file of one a line:

    python -m data.convert --names person,head --make-class-file classes.csv

Classes renamed, merged or left out, by lines of `old,new`: write them as they are, change the
second column, where nothing leaves a class out, and convert:

    python -m data.convert datasets/mine --make-class-map map.csv
    python -m data.convert datasets/mine --to csv --out datasets/new --class-map map.csv

A dataset with defects stops at the first; to leave out and count what is defective:

    python -m data.convert datasets/mine --to coco --out datasets/new --on-bad-annotation drop

What the target cannot hold is said, with counts. What no reader takes is not kept: VOC's truncated
and pose, COCO's segmentations, keypoints and licences. DIR appears complete or not at all. Images
are hard links where the disk allows, else symbolic ones: who changes the pixels of one changes the
other, and symbolic links end with their source; --images copy keeps them apart. TFRecord holds
them in its own files, byte for byte. New splits keep images of the same bytes together.
"""

import argparse
import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from utils.program import make_parser, run_program

import numpy as np
from loguru import logger
from rich.markup import escape
from rich.table import Table

from data.convert.classes import class_mapping, names_given, source_classes
from data.convert.reading import Source, keep_inside, read_source
from data.convert.splits import new_splits
from data.convert.writing import new_file, require_new, write
from data.formats import FORMATS, TARGETS
from data.formats.bad_annotations import POLICIES
from data.formats.image_files import require_folder
from data.formats.recognition import (
    SOURCES,
    SPLIT_NAME,
    found_splits,
    named_splits,
    recognise,
)
from data.records import Dataset
from data.storage import address, is_remote
from data.stratify import make_whole
from data.writers.boxes_csv import write_classes, write_rows
from data.writers.images import image_names
from utils.diary import console, diary

MAX_OFF = 0.05  # by which a new split's share of the images differs from the wanted one untold


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. Raises ValueError for bad input, OSError if the disk refuses."""
    args = parse_arguments(argv)
    with diary():
        if args.make_class_file:
            write_classes(new_file(args.make_class_file), names_given(args.names))
            logger.info("class file written to {}", args.make_class_file)
            return
        check_shares(args.split_fractions)
        source = open_source(args)
        if args.make_class_map:
            rows = [(name, name) for name in source_classes(source)]
            write_rows(new_file(args.make_class_map), rows)
            logger.info("{} classes written to {}", len(rows), args.make_class_map)
            return
        require_new(Path(args.out))
        mapping = class_mapping(args, source)
        datasets, losses = read_source(source, mapping)
        names = image_names(datasets, TARGETS[args.to], is_pooled=bool(args.split_fractions))
        if args.split_fractions:
            datasets = new_splits(datasets, names, args.split_fractions, args.seed or 0)
        datasets, more = keep_inside(datasets)
        losses += more + write(datasets, names, Path(args.out), args.to, args.images)
        show(datasets, losses, args.out)
        for remark in remarks(datasets, args.to, args.split_fractions):
            logger.warning(remark)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "data.convert")
    add = parser.add_argument
    add("source", nargs="?", metavar="SOURCE", help="folder of the dataset")
    add("--from", choices=SOURCES, dest="format", help="default: recognised")
    add("--to", choices=TARGETS)
    add("--out", metavar="DIR", help="a new or empty folder")
    add("--splits", nargs="+",
        help="names, annotation files or (VOC) folders below SOURCE; default: all")  # fmt: skip
    add("--images", choices=("link", "copy", "none"), default="link", help="default: link")
    add("--images-from", nargs="+", default=(), metavar="DIR",
        help="where the images lie, relative to SOURCE or absolute")  # fmt: skip
    add("--on-bad-annotation", choices=POLICIES, default="error", help="default: error")
    add("--person-box", choices=("full", "visible"), help="of CrowdHuman; default: full")
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument("--classes", nargs="+", help="only these, in this order of labels")
    classes.add_argument("--class-map", metavar="FILE", help="lines of old,new")
    add("--split-fractions", nargs="+", type=_fraction, default=(), metavar="NAME=SHARE",
        help="distribute the images of all splits anew, stratified by class")  # fmt: skip
    add("--seed", type=int, help="of the new splits; default: 0")
    add("--make-class-map", metavar="FILE", help="write a map of SOURCE's classes and stop")
    add("--make-class-file", metavar="FILE", help="write name,id lines of --names and stop")
    add("--names", help="class names by comma, or a file of one a line")
    args = parser.parse_args(argv)
    _check_together(parser, args)
    return args


def _check_together(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuses options that lack their partner: nothing is accepted and ignored."""
    if bool(args.names) != bool(args.make_class_file):
        parser.error("--names and --make-class-file go together")
    given = {name for name, value in vars(args).items() if value != parser.get_default(name)}
    if args.make_class_file:
        if given - {"make_class_file", "names"}:
            parser.error("--make-class-file converts nothing: it takes --names alone")
        return
    if not args.source:
        parser.error("expected SOURCE, the folder of a dataset")
    if args.make_class_map and given - {"make_class_map", "source", "format", "splits"}:
        parser.error("--make-class-map converts nothing: it takes SOURCE, --from and --splits")
    if not args.make_class_map and not (args.to and args.out):
        parser.error("expected --to and --out")
    if args.to and args.images == "none" and TARGETS[args.to].image_folder is None:
        parser.error(f"--images none: the images of {args.to} lie in its own files")
    if args.seed is not None and not args.split_fractions:
        parser.error("--seed is of --split-fractions")


def _fraction(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    with contextlib.suppress(ValueError):
        if re.fullmatch(SPLIT_NAME, name):
            return name, float(share)
    raise argparse.ArgumentTypeError(f"expected NAME=SHARE, found {text!r}")


def check_shares(shares: Sequence[tuple[str, float]]) -> None:
    """Raises ValueError for a name given twice, and for shares that make no whole."""
    names = [name for name, _ in shares]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--split-fractions: expected each name once, found {name!r} again")
    if shares and not make_whole([share for _, share in shares]):
        found = ", ".join(f"{name}={share:g}" for name, share in shares)
        expected = "expected shares above 0 that make 1 together"
        raise ValueError(f"--split-fractions: {expected}, found {found}")


def open_source(args: argparse.Namespace) -> Source:
    """Raises ValueError for a folder whose format or splits are not clear."""
    root = Path(args.source)
    if not is_remote(address(root)):
        require_folder(root)
    format_name = args.format or recognise(root)
    for option, given, name in (
        ("--images-from", args.images_from, "images"),
        ("--person-box", args.person_box, "person_box"),
    ):
        formats = [source for source in SOURCES if name in FORMATS[source].uses]
        if given and format_name not in formats:
            raise ValueError(f"{option}: is for {', '.join(formats)}; {root} is {format_name}")
    return Source(
        root=root,
        format=format_name,
        splits=named_splits(args.splits) if args.splits else found_splits(root, format_name),
        images=tuple(args.images_from),
        person_box=args.person_box or "full",
        on_bad_annotation=args.on_bad_annotation,
    )


def show(datasets: dict[str, Dataset], losses: list[str], out: str) -> None:
    """Prints what was written and what was lost."""
    table = Table(title=escape(out), title_justify="left")
    table.add_column("split")
    for column in ("images", "without objects", "objects", "difficult", "regions to ignore"):
        table.add_column(column, justify="right")
    for name, dataset in datasets.items():
        is_object = ~dataset.ignore
        num_shown = len(np.unique(dataset.image_index[is_object]))
        counts = (len(dataset), len(dataset) - num_shown, is_object.sum(),
                  (dataset.difficult & is_object).sum(), dataset.ignore.sum())  # fmt: skip
        table.add_row(escape(name), *map(str, counts))
    console.print(table)
    for loss in losses:
        logger.info("lost: {}", loss)


def remarks(
    datasets: dict[str, Dataset], format_name: str, shares: Sequence[tuple[str, float]]
) -> list[str]:
    """What to know of the new dataset: splits its format's tools need, and shares not reached."""
    found, needed = [], TARGETS[format_name].needed
    if not set(needed) <= datasets.keys():
        expected = f"expected the splits {' and '.join(needed)}, without which Ultralytics does not"
        found.append(f"{format_name}: {expected} train; found {', '.join(datasets)}")
    num_images = sum(map(len, datasets.values()))
    for name, wanted in shares:
        share = len(datasets[name]) / num_images
        if round(abs(share - wanted), 6) > MAX_OFF:
            reason = "few images, rare classes or files of the same bytes decide"
            found.append(f"{name}: {share:.0%} of the images, {wanted:.0%} wanted: {reason}")
    return found


if __name__ == "__main__":
    run_program(main)
