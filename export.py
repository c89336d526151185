"""Writes a trained detector as a file that runs without this project.

    python export.py runs/shapes --format savedmodel
    python export.py runs/shapes --format onnx --nms outside
    python export.py runs/shapes --format tflite --precision int8
    python export.py runs/shapes --format onnx --set model.detect.score_threshold=0.3

Without a run: the latest of config.py. deploy/exported.py, copied beside the file, opens each of
them with NumPy and OpenCV; what they hold, and how to open them without it: docs/export.md.
"""

import argparse
from pathlib import Path
from utils.program import make_parser, run_program

from loguru import logger

import configs
from deploy import FORMATS
from deploy.tflite import PRECISIONS
from detector import open_detector
from utils.diary import diary


def main(argv: list[str] | None = None) -> Path:
    """Runs the command line; returns what was written. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    form = FORMATS[args.format]
    chosen = {name: getattr(args, name) for name in form.options if getattr(args, name)}
    with diary():
        run, _, detector = open_detector(args.weights, args.config, args.overrides)
        path = Path(args.out) if args.out else run / "export" / file_name(args)
        form.write(detector, path, **chosen)
        logger.info("{}: {:.1f} MB, {} classes", path, megabytes(path), len(detector.classes))
    return path


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("weights", nargs="?", help="a run's folder or a checkpoint")
    parser.add_argument("--format", required=True, choices=tuple(FORMATS))
    parser.add_argument("--out", help="file, of a SavedModel the folder; default: in RUN/export")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of TFLite's weights; default: float32"
    )
    parser.add_argument(
        "--nms", choices=("inside", "outside"), help="of ONNX: in the file or not; default: inside"
    )
    configs.add_arguments(parser, None, "default: the run's own, else config.py")
    args = parser.parse_args(argv)
    for option in ("precision", "nms"):
        if getattr(args, option) and option not in FORMATS[args.format].options:
            parser.error(f"--{option}: does nothing for {args.format}")
    suffix = Path(file_name(args)).suffix
    if args.out and suffix and Path(args.out).suffix != suffix:
        parser.error(f"--out: expected a name that ends in {suffix}, found {args.out!r}")
    configs.require_useful(parser, args.overrides)
    return args


def file_name(args: argparse.Namespace) -> str:
    """savedmodel, detector.onnx, detector_candidates.onnx, detector.tflite, ..._int8.tflite."""
    form = FORMATS[args.format]
    added = [values.get(getattr(args, option), "") for option, values in form.options.items()]
    path = Path(form.name)
    return "".join([path.stem, *added, path.suffix])


def megabytes(path: Path) -> float:
    """Of a file, or of all files below a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


if __name__ == "__main__":
    run_program(main)
