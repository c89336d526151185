"""Imports weights of other projects, and lists those that are published.

    python -m core.weights list
    python -m core.weights import retinanet_resnet50_fpn_coco-eeacb38b.pth --out weights/coco-v1
    python -m core.weights import mine.pth --out weights/mine --classes person,head \\
        --set bn_epsilon=1e-5

Then: python visualize.py photo.jpg --weights weights/coco-v1, or model.weights in config.py.
"""

import argparse
import os
from pathlib import Path
from utils.program import make_parser, run_program

from loguru import logger
from rich.console import Console
from rich.table import Table

from configs.checked import assignment, to_dict
from core.weights.formats import FORMATS
from core.weights.npz_files import OF_BACKBONE, Weights
from core.weights.published import PUBLISHED, SHORT, open_weights
from core.weights.torch_and_keras_files import WeightsError
from utils.diary import diary
from utils.files import cache_folder

NOT_IN_THE_FILE = (
    "no file holds bn_epsilon, normalization, coder, anchors, resize, detect: they are the "
    "publisher's; for weights trained otherwise say so, e.g. --set bn_epsilon=1e-5"
)


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    if args.command == "list":
        Console().print(listing())
        return
    out = Path(args.out) / "weights.npz"
    if out.exists():
        raise WeightsError(f"{out}: is there already; remove it or choose another folder")
    with diary():
        weights = open_weights(
            args.source,
            format_name=args.format,
            changes=dict(assignment(item) for item in args.changes),
            classes=class_names(args.classes),
        )
        describe(weights)
        weights.save(out)
        logger.info("written to {}", out)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "core.weights")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="published weights, their licences and where they go")
    add = commands.add_parser("import", help="a file of another project, or a name of the list")
    add.add_argument("source", metavar="FILE", help=".pth, .pt, .h5, or a name of the list")
    add.add_argument("--out", required=True, metavar="DIR", help="folder to write weights.npz to")
    add.add_argument("--format", choices=list(FORMATS), help="default: recognised from the file")
    add.add_argument("--classes", help="names by comma in label order, or a file of one a line")
    add.add_argument(
        "--set", nargs="*", default=[], action="extend", metavar="FIELD=VALUE", dest="changes",
        help="a setting of configs.schema.Model that is not the publisher's",
    )  # fmt: skip
    return parser.parse_args(argv)


def class_names(given: str | None) -> list[str] | None:
    """Names by comma, or the lines of a file."""
    if given is None:
        return None
    is_file = os.path.isfile(given)  # pathlib's raises for a name as long as that of 80 classes
    parts = Path(given).read_text(encoding="utf-8").splitlines() if is_file else given.split(",")
    return [part.strip() for part in parts if part.strip()]


def listing() -> Table:
    table = Table(title=f"model.weights = NAME; files come to {cache_folder()}")
    table.add_column("name", no_wrap=True)
    for column in ("COCO AP", "MiB", "hash; code's licence; address"):
        table.add_column(column, overflow="fold")
    for one in PUBLISHED:
        ap, size = one.ap or "backbone", one.mebibytes or "?"
        digest = one.digest or "recorded at the first download"
        about = f"{digest}; {one.licence}\n{one.url}"
        table.add_row(one.name, str(ap), str(size), about)
    short = ", ".join(f"{name} = {full}" for name, full in SHORT.items())
    table.caption = f"{short}. AP as published, val2017. The photographs have terms of their own."
    return table


def describe(weights: Weights) -> None:
    """The conventions that were written, for the eyes of who knows what the file should hold."""
    model = to_dict(weights.model)
    names = [name for name in model if name not in ("weights", "aliases")]
    logger.info("{} ({})", weights.origin["file"], weights.origin["format"])
    for name in names if weights.classes else OF_BACKBONE:
        logger.info("{}: {}", name, model[name])
    if weights.classes:
        logger.info("{} classes: {}", len(weights.classes), ", ".join(weights.classes))
    logger.info(NOT_IN_THE_FILE)


if __name__ == "__main__":
    run_program(main)
