"""A page to try a detector on: drop a picture onto it, see what is found.

    python -m page                          the latest run of config.py
    python -m page runs/shapes --port 8080
    python -m page --set model.detect.max_detections=300

It is served to this machine only, unless --host says otherwise, until Ctrl-C.
"""

import argparse
from utils.program import make_parser, run_program

from loguru import logger

import configs
from data.images.decode import MAX_PIXELS
from detector import open_detector
from page.server import Limits, create_app, is_unspecified, listen, warm_up
from utils.diary import diary


def main(argv: list[str] | None = None) -> None:
    """Runs the command line until Ctrl-C. Raises ValueError for bad input, OSError for an address
    or a port that cannot be had."""
    args = parse_arguments(argv)
    with diary():
        folder, _, detector = open_detector(args.weights, args.config, args.overrides)
        warm_up(detector)
        limits = Limits(args.max_megabytes, args.max_megapixels)
        app = create_app(detector, name=folder.name, host=args.host, limits=limits)
        with listen(app, args.host, args.port) as server:
            shown = f"[{args.host}]" if ":" in args.host else args.host
            if is_unspecified(args.host):
                logger.warning("everyone who can reach this machine can reach the page")
                shown = "localhost"
            logger.info("open http://{}:{}/ (Ctrl-C ends it)", shown, server.port)
            server.serve_forever()


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "page")
    parser.add_argument("weights", nargs="?", help="a run's folder or a checkpoint")
    configs.add_arguments(parser, None, "default: the run's own, else config.py")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any that is free")
    parser.add_argument(
        "--max-megabytes", type=float, default=20, help="of a file; default: 20 (million bytes)"
    )
    parser.add_argument(
        "--max-megapixels", type=float, default=40, help="of a picture; default: 40 (million)"
    )
    args = parser.parse_args(argv)
    if not 0 <= args.port < 2**16:
        parser.error(f"--port: expected 0 to 65535, found {args.port}")
    if not args.max_megabytes > 0:
        parser.error(f"--max-megabytes: expected above 0, found {args.max_megabytes:g}")
    most = MAX_PIXELS / 1e6  # beyond it no picture is read
    if not 0 < args.max_megapixels <= most:
        found = f"{args.max_megapixels:g}"
        parser.error(f"--max-megapixels: expected above 0 to {most:g}, found {found}")
    configs.require_useful(parser, args.overrides)
    return args


if __name__ == "__main__":
    run_program(main)
