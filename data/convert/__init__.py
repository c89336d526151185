"""Turns a dataset of one format into another: VOC, COCO, CSV, YOLO, and from CrowdHuman.

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
other, and symbolic links end with their source; --images copy keeps them apart. New splits keep
images of the same bytes together.
"""

import argparse
import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from utils.program import make_parser

import numpy as np
from loguru import logger
from rich.markup import escape
from rich.table import Table

from data.convert.splits import make_whole, stratified_splits
from data.formats import FORMATS, TARGETS
from data.formats.class_files import read_class_file
from data.formats.judge import POLICIES
from data.formats.recognition import (
    SOURCES,
    SPLIT_NAME,
    found_splits,
    named_splits,
    recognise,
)
from data.formats.texts import csv_fields, expected_one_of, text_lines
from data.records import OF_OBJECTS, Dataset, DatasetError, concatenate, select
from data.writers.boxes_csv import write_classes, write_rows
from data.writers.common import lost
from data.writers.images import image_names, place
from utils.diary import console, diary, progress_bar
from utils.files import whole_folder

MAX_LISTED = 20  # defects of a kind that are shown one by one
MAX_OFF = 0.05  # by which a new split's share of the images differs from the wanted one untold


@dataclass(frozen=True)
class Source:
    """What is converted. splits: by the name in the target, what stands for it in the source."""

    root: Path
    format: str
    splits: dict[str, str]
    images: tuple[str, ...] = ()
    person_box: str = "full"
    on_bad_annotation: str = "error"


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. Raises ValueError for bad input, OSError if the disk refuses."""
    args = parse_arguments(argv)
    with diary():
        if args.make_class_file:
            write_classes(new_file(args.make_class_file), class_names(args.names))
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
    if args.seed is not None and not args.split_fractions:
        parser.error("--seed is of --split-fractions")


def _fraction(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    if not re.fullmatch(SPLIT_NAME, name):
        raise argparse.ArgumentTypeError(f"expected NAME=SHARE, found {text!r}")
    try:
        return name, float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=SHARE, found {text!r}") from None


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


# ------------------------------------------------------------------------------------------------
# What lies in the source
# ------------------------------------------------------------------------------------------------


def open_source(args: argparse.Namespace) -> Source:
    """Raises ValueError for a folder whose format or splits are not clear."""
    root = Path(args.source)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
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


# ------------------------------------------------------------------------------------------------
# Classes
# ------------------------------------------------------------------------------------------------


def source_classes(source: Source) -> tuple[str, ...]:
    """The names in all splits: declared ones (COCO, YOLO) in their order, others sorted."""
    form = FORMATS[source.format]
    found: dict[str, None] = {}
    for split in source.splits.values():
        found |= dict.fromkeys(form.split_classes(source.root, split, {}))
    return tuple(found if form.declares_classes or form.default_classes else sorted(found))


def class_mapping(args: argparse.Namespace, source: Source) -> dict[str, str]:
    """{class: its new name, "" to leave it out}, in the order of the new labels.

    Raises ValueError for a class chosen or mapped that the source lacks, and one the map lacks.
    """
    found = source_classes(source)
    mapping = {name: name for name in FORMATS[source.format].default_classes or found}
    if args.classes:
        _require_known(args.classes, found, f"--classes: {source.root}")
        if len(set(args.classes)) < len(args.classes):
            raise ValueError(f"--classes: expected each once, found {', '.join(args.classes)}")
        mapping = {name: name for name in args.classes}
    elif args.class_map:
        mapping = read_class_map(args.class_map)
        _require_known(mapping, found, f"{args.class_map}: class")
        missing = [name for name in found if name not in mapping]
        if missing:
            expected = f"a line for each class of {source.root} ('{missing[0]},' to leave it out)"
            raise DatasetError(f"{args.class_map}: expected {expected}, found no {missing[0]!r}")
    return mapping | {name: "" for name in found if name not in mapping}


def _require_known(names: Iterable[str], found: Sequence[str], where: str) -> None:
    for name in names:
        if name not in found:
            raise DatasetError(f"{where}: {expected_one_of(found, name)}")


def read_class_map(path: str | Path) -> dict[str, str]:
    """{old: new} of lines `old,new`, new "" where nothing follows the comma.

    A name with a comma is in double quotes. Raises DatasetError, naming the line, for anything else
    and for a class given twice.
    """
    mapping: dict[str, str] = {}
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            fields = csv_fields(line)
        except csv.Error:
            fields = []
        if len(fields) != 2 or not fields[0]:
            raise DatasetError(f"{path}, line {number}: expected old,new, found {line[:60]!r}")
        if fields[0] in mapping:
            raise DatasetError(f"{path}, line {number}: class {fields[0]!r} is there twice")
        mapping[fields[0]] = fields[1]
    return mapping


def class_names(given: str) -> list[str]:
    """Different names, by comma or from a class file. Raises ValueError for none or one twice."""
    if os.path.isfile(given):
        return list(read_class_file(given))
    names = [name.strip() for name in given.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"--names: expected different names by comma or a file, found {given!r}")
    return names


# ------------------------------------------------------------------------------------------------
# Reading
# ------------------------------------------------------------------------------------------------


def read_source(source: Source, mapping: dict[str, str]) -> tuple[dict[str, Dataset], list[str]]:
    """All splits with one list of classes, those `mapping` gives; and the losses in words."""
    classes = tuple(dict.fromkeys(filter(None, mapping.values())))
    if not classes:
        raise DatasetError(f"{source.root}: expected a class to keep, found none")
    datasets, losses = {}, []
    for name, split in source.splits.items():
        logger.info("reading {} ({}) of {}", split, source.format, source.root)
        datasets[name] = dataset = _read_advised(source, split, mapping)
        list_defects(dataset)
        parts = [dataset]
        unread = {old: old for old in mapping if old not in dataset.classes}
        if FORMATS[source.format].default_classes and unread:  # only what is chosen was counted
            parts.append(_read(replace(source, on_bad_annotation="drop"), split, unread))
        losses += [f"{name}: {loss}" for part in parts for loss in _left_out(part, mapping)]
    numbers = None
    if FORMATS[source.format].numbers_classes:
        numbers = _category_ids(datasets.values(), mapping, classes)
        losses += [] if numbers else ["category ids: the splits disagree, counted from 1 instead"]
    numbers = numbers or tuple(range(1, len(classes) + 1))
    return {k: _relabeled(d, mapping, classes, numbers) for k, d in datasets.items()}, losses


def _left_out(dataset: Dataset, mapping: dict[str, str]) -> list[str]:
    """What goes with the classes that are left out, in words."""
    counts = Counter(zip(dataset.labels.tolist(), dataset.ignore.tolist(), strict=True))
    return [
        f"{counts[label, is_ignored]} {what} of class {old!r}: left out"
        for label, old in enumerate(dataset.classes)
        for is_ignored, what in ((False, "objects"), (True, "regions to ignore"))
        if not mapping[old] and counts[label, is_ignored]
    ]


def _read_advised(source: Source, split: str, mapping: dict[str, str]) -> Dataset:
    """As `_read`; the error of a defect that may be dropped says how."""
    try:
        return _read(source, split, mapping)
    except DatasetError as error:
        if source.on_bad_annotation == "drop" or error.kind == "unreadable":  # as a whole
            raise
        advice = "--on-bad-annotation drop leaves such things out, counted"
        raise DatasetError(f"{error} ({advice})", error.kind) from error


def _read(source: Source, split: str, mapping: dict[str, str]) -> Dataset:
    """One split with the classes it has in the source."""
    form = FORMATS[source.format]
    classes: list[str] | None = list(mapping)
    if form.default_classes:
        classes = [name for name, new in mapping.items() if new]
    elif form.declares_classes:
        classes = None
    options = {"images": source.images, "person_box": source.person_box}
    return form.read_split(source.root, split, classes, source.on_bad_annotation, options)


def list_defects(dataset: Dataset) -> None:
    """Says what the reader dropped or mended, by kind."""
    for kind, count in dataset.defects.counts().items():
        logger.warning("{}: {} x {}", dataset.name, count, kind)
        messages = [message for of, message in dataset.defects.messages if of == kind]
        for message in messages[:MAX_LISTED]:
            logger.warning("  {}", message)
        if count > MAX_LISTED:
            logger.warning("  and {} more", count - MAX_LISTED)


def _category_ids(
    datasets: Iterable[Dataset], mapping: dict[str, str], classes: Sequence[str]
) -> tuple[int, ...] | None:
    """The COCO ids of the new classes, of several made one the first; None if splits disagree."""
    pairs = {pair for d in datasets for pair in zip(d.classes, d.category_ids, strict=True)}
    number_of = dict(pairs)
    if len(number_of) < len(pairs) or len(set(number_of.values())) < len(pairs):
        return None
    first = {new: old for old, new in reversed(mapping.items()) if old in number_of}
    return tuple(number_of[first[name]] for name in classes)


def _relabeled(
    dataset: Dataset, mapping: dict[str, str], classes: tuple[str, ...], numbers: tuple[int, ...]
) -> Dataset:
    """The dataset with new classes, without the objects of those left out."""
    label_of = {name: label for label, name in enumerate(classes)}
    new = np.array([label_of.get(mapping[old], -1) for old in dataset.classes], np.int32)
    labels = new[dataset.labels]
    dataset = replace(dataset, classes=classes, category_ids=numbers, labels=labels)
    return _with_rows(dataset, labels >= 0)


def _with_rows(dataset: Dataset, kept: np.ndarray) -> Dataset:
    """The dataset with those objects that `kept`, a bool for each, says."""
    counts = np.bincount(dataset.image_index[kept], minlength=len(dataset))
    return replace(
        dataset,
        row_splits=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        **{name: getattr(dataset, name)[kept] for name in OF_OBJECTS},
    )


def keep_inside(datasets: dict[str, Dataset]) -> tuple[dict[str, Dataset], list[str]]:
    """Clips to the image what may leave it, CrowdHuman's full boxes; and the losses in words."""
    kept, losses = {}, []
    for name, dataset in datasets.items():
        boxes = dataset.boxes.clip(0, np.tile(dataset.sizes[dataset.image_index], 2))
        is_clipped = (boxes != dataset.boxes).any(axis=1)
        is_inside = np.all(boxes[:, :2] < boxes[:, 2:], axis=1)
        # A COCO file's area is the outline's: what lies outside of the image is no part of it.
        most = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        areas = np.where(is_clipped, np.minimum(dataset.areas, most), dataset.areas)
        kept[name] = _with_rows(replace(dataset, boxes=boxes, areas=areas), is_inside)
        for count, what in (
            (np.count_nonzero(is_clipped & is_inside), "boxes reach beyond the image: clipped"),
            (np.count_nonzero(~is_inside), "boxes outside the image: left out"),
        ):
            losses += [f"{name}: {loss}" for loss in lost(count, what)]
    return kept, losses


# ------------------------------------------------------------------------------------------------
# New splits
# ------------------------------------------------------------------------------------------------


def new_splits(
    datasets: dict[str, Dataset], names: dict[str, str], shares: list[tuple[str, float]], seed: int
) -> dict[str, Dataset]:
    """All images distributed anew; one that several splits hold is taken from the first.

    names: {image: its name in the target}, which becomes the image's id where two have the same.
    """
    parts, seen = [], set()
    for name, dataset in datasets.items():
        fresh = [i for i, image in enumerate(dataset.images) if names[image] not in seen]
        if num_seen := len(dataset) - len(fresh):
            logger.warning("{}: {} images are in an earlier split, too", name, num_seen)
        seen |= {names[image] for image in dataset.images}
        parts += [select(dataset, fresh)] if fresh else []
    ids = [image_id for part in parts for image_id in part.image_ids]
    if len(set(ids)) < len(ids):
        parts = [replace(p, image_ids=tuple(names[image] for image in p.images)) for p in parts]
    whole = concatenate(parts)
    indices = stratified_splits(whole, [share for _, share in shares], seed)
    return {name: select(whole, i) for (name, _), i in zip(shares, indices, strict=True)}


# ------------------------------------------------------------------------------------------------
# Writing
# ------------------------------------------------------------------------------------------------


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
            found = target.write(dataset, part, split, of_images)
            losses += [f"{split}: {loss}" for loss in found]
            folder = part / target.image_folder.format(split=split)
            for image, name in zip(dataset.images, of_images, strict=True):
                if how != "none":
                    place(image, folder / name, is_copy=how == "copy")
                bar.advance(task)
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
