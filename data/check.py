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
from core.anchors import STRIDES
from core.build import build_anchors, build_matcher
from core.coverage import SIZES, Coverage, anchor_coverage
from core.targets import Atss, Matcher
from data.datasets import class_names, read_split
from data.doctor.anchor_fit import AnchorSet, Grid, fit_anchors, is_gain, is_harm
from data.doctor.figures import split_figures
from data.doctor.findings import (
    SEVERITIES,
    Finding,
    box_findings,
    class_findings,
    of_split,
    reader_findings,
)
from data.doctor.object_counts import limits
from data.doctor.page import by_kind, render
from data.doctor.pixels import (
    decoded,
    depth_findings,
    file_findings,
    read_facts,
    same_across,
    same_files,
    same_within,
)
from data.doctor.unlisted import unlisted_images
from data.doctor.voc_files import voc_findings
from data.images.decode import UNREADABLE
from data.images.resize import objects_at_input
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
        figures = {name: split_figures(d, config.model.resize) for name, d in datasets.items()}
        findings, bits = examine(config, datasets, figures, args.pixels)
        datasets = {split: replace(dataset, bits=bits) for split, dataset in datasets.items()}
        report = summarize(config, figures, findings, anchors)
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
    classes = class_names(data)
    splits = {"train": data.train}
    if data.val != data.train:
        splits["val"] = data.val
    return {name: read_split(data, split, classes) for name, split in splits.items()}


def examine(
    config: Config, datasets: dict[str, Dataset], figures: dict[str, dict], pixels: bool
) -> tuple[list[Finding], int | None]:
    """All findings, and the bits in use of 16-bit images as training would find them.

    figures: of each split. pixels: whether images are decoded for it; without, bits are what the
    config says.
    """
    bits, detect = config.model.bits, config.model.detect
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
        reached = limits(dataset, detect.max_detections, detect.top_k, config.metric == "coco")
        found += [of_split(kind, "warning", split, text) for kind, text in reached]
    found += class_findings(figures["train"], figures.get("val", figures["train"]))
    if val is None:
        text = f"{train.name}: train and val are the same: what is learnt by heart counts as known"
        found.append(of_split("train and val are the same split", "warning", "val", text))
    if pixels:
        facts = {split: read_facts(d.images, f"decoding {split}") for split, d in datasets.items()}
        whole = {split: decoded(found_there) for split, found_there in facts.items()}
        deep, bits = depth_findings(datasets, whole, bits)
        found += deep
        for split, dataset in datasets.items():
            found += file_findings(dataset, facts[split], split)
            found += same_within(dataset, whole[split], split)
        broken = {finding.file for finding in found if finding.kind == UNREADABLE}
        found = [f for f in found if f.severity != "note" or f.file not in broken]
        if val is not None:
            found += same_across(train, val, whole["train"], whole["val"])
    elif val is not None:
        found += same_files(train, val)
    return found, bits


def training_findings(config: Config, train: Dataset) -> list[Finding]:
    """What stops a training that has read its images: too few of them, nothing to learn."""
    texts = []
    for batch_size in dict.fromkeys(phase.batch_size for phase in config.train.all_phases()):
        try:
            steps_per_epoch(train, config.data, batch_size)
        except ValueError as error:
            texts.append(("fewer images than a batch", str(error)))
    if not learnable(train, config.data.train_on_difficult).any():
        text = f"{train.name}: expected objects to learn from, found none"
        texts.append(("nothing to learn in train", text))
    boxes, canvas = objects_at_input(train, config.model.resize)
    matcher = build_matcher(config)
    coverage = anchor_coverage(build_anchors(config.model), canvas, matcher, boxes)
    if coverage.is_hopeless(matcher):
        text = f"{train.name}: expected anchors that match some objects, found none"
        texts.append(("no anchor matches an object of train", f"{text}: {coverage.line()}"))
    return [of_split(kind, "error", "train", text, stops=True) for kind, text in texts]


def _files(dataset: Dataset) -> set[str]:
    return {os.path.realpath(image) for image in dataset.images}


def examine_anchors(config: Config, dataset: Dataset) -> dict:
    """Coverage by the config's anchors, and by fitted ones if they are worth a change."""
    settings, matcher = config.model.anchors, build_matcher(config)
    if isinstance(matcher, Atss):
        matcher = Matcher()  # ATSS has no IoU to fit anchors to
    boxes, canvas = objects_at_input(dataset, config.model.resize)

    def coverage(anchors: AnchorSet) -> Coverage:
        model = replace(config.model, anchors=replace(settings, **asdict(anchors)))
        return anchor_coverage(build_anchors(model), canvas, matcher, boxes)

    present = AnchorSet(settings.sizes, settings.ratios, settings.scales)
    before, proposed = coverage(present), None
    logger.info(before.line())
    grid = Grid(STRIDES, *canvas, settings.center_offset)
    fitted = fit_anchors(boxes, present, grid, matcher.positive_iou, SIZES)
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
    config: Config, splits: dict[str, dict], findings: Sequence[Finding], anchors: dict
) -> dict:
    """All that report.json holds. splits: the figures of each."""
    found = Counter(finding.severity for finding in findings)
    severities = {name: found[name] for name in SEVERITIES}
    return {
        "headline": headline(splits, severities, findings),
        "accepted": not any(finding.stops for finding in findings),
        "name": config.name,
        "data": configs.to_dict(config.data),
        "classes": [one["name"] for one in splits["train"]["classes"]],
        "severities": severities,
        "splits": splits,
        "anchors": anchors,
        "findings": [
            finding.to_dict() for group in by_kind(findings).values() for finding in group
        ],
    }


def headline(
    splits: dict[str, dict], severities: dict[str, int], findings: Sequence[Finding]
) -> str:
    """Size, findings by severity, and the verdict with its reasons, in one line."""
    images, objects = (
        " + ".join(str(figures[name]) for figures in splits.values())
        for name in ("images", "objects")
    )
    counts = ", ".join(f"{count} {name}s" for name, count in severities.items())
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
