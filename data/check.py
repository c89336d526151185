"""Examines a dataset before a training does: figures, everything wrong with it, fitting anchors.

    python -m data.check                                  as config.py says
    python -m data.check --config configs/voc.py --set data.root=datasets/mine
    python -m data.check --no-pixels                      annotations only, in seconds
    python -m data.check --anchors                        the anchors only

Reads the splits as a training would, but goes on at defects, and decodes every image. Writes
report.json and report.html to <config.output>/check or --out, in the place of those there; nothing
where a split cannot be read at all.
Exit status: 0 if training would accept the data, 1 if not, 2 for a command line or config that
cannot be; with --anchors 0 if the data can be read. The last line printed is the headline, with
--anchors the coverage by the proposed ones.
Image files that no split names are looked for in the folders of the images read, files without a
partner in VOC folders only.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from utils.program import make_parser, run_program

from loguru import logger
from rich.markup import escape
from rich.table import Table

import configs
from configs import Config
from configs.schema import Matcher
from core.anchors import STRIDES
from core.build import build_anchors
from core.coverage import SIZES, Coverage, anchor_coverage
from data.datasets import prepare, read_split
from data.doctor.anchor_fit import AnchorSet, Grid, fit_anchors, is_gain, is_harm
from data.doctor.figures import split_figures
from data.doctor.findings import (
    SEVERITIES,
    Finding,
    box_findings,
    class_findings,
    reader_findings,
)
from data.doctor.object_counts import limits
from data.doctor.page import by_kind, render
from data.doctor.pixels import (
    depth_findings,
    file_findings,
    read_facts,
    same_across,
    same_files,
    same_within,
)
from data.doctor.unlisted import unlisted_images
from data.doctor.voc_files import voc_findings
from data.images.resize import at_input_size, padded_size
from data.pipeline import steps_per_epoch
from data.records import Dataset, DatasetError, learnable
from utils.diary import console, diary
from utils.files import write_text
from utils.names import printable


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status. Raises ValueError for a bad config."""
    args = parse_arguments(argv)
    config = configs.load(args.config, args.overrides)
    with diary():
        try:
            datasets = read(config)
        except DatasetError as error:
            print(f"check: training would not accept the data: {error}; no report", flush=True)
            return 1
        anchors = examine_anchors(config, datasets["train"])
        if args.anchors:
            proposed = anchors["proposed"]["line"] if anchors["proposed"] else "no other anchors"
            print(f"present: {anchors['line']}\nproposed: {proposed}", flush=True)
            return 0
        findings, bits = examine(config, datasets, args.pixels)
        datasets = {split: replace(dataset, bits=bits) for split, dataset in datasets.items()}
        report = summarize(config, datasets, findings, anchors)
        out = Path(args.out) if args.out else Path(config.output) / "check"
        write_text(out / "report.json", json.dumps(report, indent=1))
        write_text(out / "report.html", render(report, findings, datasets))
        show(report, findings)
        logger.info("every finding, with pictures: {}", out / "report.html")
    print(report["headline"], flush=True)
    return 0 if report["accepted"] else 1


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "data.check")
    configs.add_arguments(parser)
    parser.add_argument("--out", metavar="DIR", help="default: <config.output>/check")
    parser.add_argument(
        "--no-pixels", action="store_false", dest="pixels", help="decode no image: headers only"
    )
    parser.add_argument(
        "--anchors", action="store_true", help="anchor coverage only; nothing is written"
    )
    args = parser.parse_args(argv)
    if args.anchors and (args.out or not args.pixels):
        parser.error("--anchors writes nothing and decodes no image: neither --out nor --no-pixels")
    return args


def read(config: Config) -> dict[str, Dataset]:
    """The splits by name, "train" and "val"; only "train" where both are the same."""
    data = replace(config.data, on_bad_annotation="drop")
    classes = prepare(data)
    splits = {"train": data.train}
    if data.val != data.train:
        splits["val"] = data.val
    return {name: read_split(data, split, classes) for name, split in splits.items()}


def examine(
    config: Config, datasets: dict[str, Dataset], pixels: bool
) -> tuple[list[Finding], int | None]:
    """All findings, and the bits in use of 16-bit images as training would find them.

    pixels: whether images are decoded for it; without, bits are what the config says.
    """
    bits = config.model.bits
    train, val = datasets["train"], datasets.get("val")
    if val is not None and _files(train) == _files(val):
        val = None
    found = training_findings(config, train)
    for split, dataset in datasets.items():
        found += reader_findings(dataset, split, config.data.on_bad_annotation)
    reported = [finding.file for finding in found]
    if config.data.format in ("voc", "shapes"):
        found += voc_findings(datasets, reported)
    elif not config.data.limit:
        found += unlisted_images(datasets, reported)
    for split, dataset in datasets.items():
        found += box_findings(dataset, split)
        found += limit_findings(config, dataset, split)
    found += class_findings(train, datasets.get("val", train))
    if val is None:
        text = f"{train.name}: train and val are the same: what is learnt by heart counts as known"
        found.append(Finding("train and val are the same split", "warning", "val", "", "", text))
    if pixels:
        facts = {split: read_facts(d.images, f"decoding {split}") for split, d in datasets.items()}
        deep, bits = depth_findings(datasets, facts, bits)
        found += deep
        for split, dataset in datasets.items():
            found += file_findings(dataset, facts[split], split)
            found += same_within(dataset, facts[split], split)
        if val is not None:
            found += same_across(train, val, facts["train"], facts["val"])
    elif val is not None:
        found += same_files(train, val)
    return found, bits


def limit_findings(config: Config, dataset: Dataset, split: str) -> list[Finding]:
    """More objects in an image than detections are kept of it."""
    detect = config.model.detect
    is_coco = config.metric == "coco"
    return [
        Finding(kind, "warning", split, "", "", text)
        for kind, text in limits(dataset, detect.max_detections, detect.top_k, is_coco)
    ]


def training_findings(config: Config, train: Dataset) -> list[Finding]:
    """What stops a training that has read its images: too few of them, nothing to learn."""
    found = []
    for batch_size in dict.fromkeys(phase.batch_size for phase in config.train.all_phases()):
        try:
            steps_per_epoch(train, config.data, batch_size)
        except ValueError as error:
            found.append(_of_train("fewer images than a batch", str(error)))
    if not learnable(train, config.data.train_on_difficult).any():
        text = f"{train.name}: expected objects to learn from, found none"
        found.append(_of_train("nothing to learn in train", text))
    return found


def _of_train(kind: str, message: str) -> Finding:
    return Finding(kind, "error", "train", "", "", message, stops=True)


def _files(dataset: Dataset) -> set[str]:
    return {os.path.realpath(image) for image in dataset.images}


def examine_anchors(config: Config, dataset: Dataset) -> dict:
    """Coverage by the config's anchors, and by fitted ones if they are worth a change."""
    settings, matcher = config.model.anchors, config.matcher
    iou = (matcher if isinstance(matcher, Matcher) else Matcher()).positive_iou  # ATSS has none
    boxes, sizes = at_input_size(dataset, config.model.resize)
    boxes = boxes[~dataset.ignore]
    height, width = (int(side) for side in padded_size(sizes.max(axis=0), config.model.resize))

    def coverage(anchors: AnchorSet) -> Coverage:
        model = replace(config.model, anchors=replace(settings, **asdict(anchors)))
        return anchor_coverage(build_anchors(model)(height, width), boxes, iou)

    present = AnchorSet(settings.sizes, settings.ratios, settings.scales)
    before, proposed = coverage(present), None
    logger.info(before.line())
    grid = Grid(STRIDES, height, width, settings.center_offset)
    fitted = fit_anchors(boxes, present, grid, iou, SIZES)
    if fitted != present:
        after = coverage(fitted)
        counted = before.covered, after.covered, before.counts
        if is_gain(*counted) and not is_harm(*counted):
            proposed = {
                **asdict(fitted),
                "snippet": fitted.snippet(),
                "line": after.line(),
                "coverage": after.to_dict(),
            }
    if proposed:
        count = f"{len(fitted)} anchors a cell, {len(present)} before"
        logger.info("fitted to the data, {}: {}; for config.py:", count, after.line())
        logger.info("\n{}", fitted.snippet())
    else:
        logger.info("no other sizes and ratios cover clearly more: the present set is fine")
    return {
        **asdict(present),
        "line": before.line(),
        "coverage": before.to_dict(),
        "proposed": proposed,
    }


def summarize(
    config: Config, datasets: dict[str, Dataset], findings: Sequence[Finding], anchors: dict
) -> dict:
    """All that report.json holds."""
    splits = {name: split_figures(d, config.model.resize) for name, d in datasets.items()}
    severities = Counter(finding.severity for finding in findings)
    return {
        "headline": headline(splits, findings),
        "accepted": not any(finding.stops for finding in findings),
        "name": config.name,
        "data": configs.to_dict(config.data),
        "classes": list(datasets["train"].classes),
        "severities": {name: severities[name] for name in SEVERITIES},
        "splits": splits,
        "anchors": anchors,
        "findings": [
            finding.to_dict() for group in by_kind(findings).values() for finding in group
        ],
    }


def headline(splits: dict[str, dict], findings: Sequence[Finding]) -> str:
    """Size, findings by severity, and the verdict with its reasons, in one line."""
    images, objects = (
        " + ".join(str(figures[name]) for figures in splits.values())
        for name in ("images", "objects")
    )
    severities = Counter(finding.severity for finding in findings)
    counts = ", ".join(f"{severities[name]} {name}s" for name in SEVERITIES)
    reasons = Counter(finding.kind for finding in findings if finding.stops)
    verdict = "training accepts the data"
    if reasons:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in reasons.items())
        verdict = f"training would not accept the data: {kinds}"
    return f"check: {images} images, {objects} objects; {counts}; {verdict}"


def show(report: dict, findings: Sequence[Finding]) -> None:
    """Prints the tables: splits, classes, kinds of findings."""
    splits = report["splits"]
    table = _table("splits", ["images", "empty", "objects", "difficult", "ignored", "an image"])
    for name, one in splits.items():
        per_image = f"{one['boxes_per_image']['mean']:.1f}"
        names = ("images", "empty_images", "objects", "difficult", "ignore_regions")
        table.add_row(escape(f"{name} ({one['name']})"), *(str(one[n]) for n in names), per_image)
    console.print(table)
    table = _table("objects (images) of each class", list(splits))
    for k, name in enumerate(report["classes"]):
        rows = [one["classes"][k] for one in splits.values()]
        table.add_row(escape(name), *(f"{row['objects']} ({row['images']})" for row in rows))
    console.print(table)
    sides = {name: one["sides_at_input"] for name, one in splits.items()}
    table = _table("object size at the network's input, px", list(sides["train"]))
    for name, counts in sides.items():
        table.add_row(name, *map(str, counts.values()))
    console.print(table)
    if not findings:
        return
    table = _table("findings", ["count"])
    table.add_column("for example", overflow="fold")
    for (severity, kind), group in by_kind(findings).items():
        table.add_row(f"{severity}: {kind}", str(len(group)), escape(printable(group[0].message)))
    console.print(table)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right")
    return table


if __name__ == "__main__":
    run_program(lambda: sys.exit(main()), failure=2)
