"""Draws what a detector sees: images, videos and streams, or a split beside its ground truth.

    python visualize.py photo.jpg
    python visualize.py holiday/ "more/*.png" --weights runs/voc --threshold 0.5
    python visualize.py drive.mp4 --every 2          the video with boxes, and its detections
    python visualize.py rtsp://host/path             a stream, until Ctrl-C; or --camera 0
    python visualize.py --split val --limit 24       what is right, what is wrong, what is missed

Writes annotated images and contact sheets, or videos, to RUN/pictures or --out.
"""

import argparse
import glob
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from utils.program import make_parser, run_program

from loguru import logger

import configs
from data.datasets import read_split
from data.images.decode import IMAGE_SUFFIXES
from data.inputs import unlabelled
from data.records import first_images
from detector import open_detector
from results.outcomes import draw_outcomes
from results.pictures import draw_images
from results.videos import draw_videos
from utils.diary import diary
from utils.video import ADDRESS, VIDEO_SUFFIXES, without_secrets

USEFUL = ("model.", "evaluate.batch_size=")  # settings; of a split also those of the data


def main(argv: list[str] | None = None) -> Path:
    """Runs the command line; returns the folder written. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    with diary():
        images, videos = find_sources(args.source)
        if args.camera is not None:
            videos = [args.camera]
        if args.every and not videos:
            raise ValueError(f"--every {args.every}: expected a video, found none")
        if args.out and os.path.lexists(args.out) and not Path(args.out).is_dir():
            raise ValueError(f"--out: expected a folder, found the file {args.out}")
        folder, config, detector = open_detector(args.weights, args.config, args.overrides)
        lowest = detector.config.detect.score_threshold
        if args.threshold < lowest:
            told = "--threshold {:g}: nothing below model.detect.score_threshold, {:g}, is detected"
            logger.warning(told, args.threshold, lowest)
        out = Path(args.out) if args.out else folder / "pictures"
        batch_size = config.evaluate.batch_size
        if videos:
            draw_videos(
                out, videos, detector, batch_size=batch_size, threshold=args.threshold,
                every=args.every or 1, limit=args.limit,
            )  # fmt: skip
        else:
            if images:
                dataset, _ = unlabelled(images, detector.classes)
            else:
                dataset = read_split(config.data, args.split or config.data.val, detector.classes)
            if args.limit:
                dataset = first_images(dataset, args.limit)
            dataset = replace(dataset, bits=detector.config.bits)
            table = detector.detect_dataset(dataset, batch_size).at_least(args.threshold)
            draw = draw_images if images else draw_outcomes
            draw(out, dataset, table)
            logger.info("{} pictures in {}", len(dataset), out)
    return out


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        "source",
        nargs="*",
        help="images, folders of them, patterns in quotes; or videos, addresses of streams; "
        "default: a dataset split",
    )
    parser.add_argument("--camera", type=int, metavar="N", help="the camera of this number")
    parser.add_argument("--weights", help="a run's folder or a checkpoint; default: the latest run")
    parser.add_argument("--split", help="of the config's dataset; default: data.val")
    parser.add_argument("--limit", type=int, help="at most this many images, or frames of a video")
    parser.add_argument("--every", type=int, metavar="N", help="of a video only each N-th frame")
    parser.add_argument("--threshold", type=float, default=0.3, help="lowest score to draw")
    parser.add_argument("--out", help="folder; default: RUN/pictures")
    configs.add_arguments(parser, None, "default: the run's own, else config.py")
    args = parser.parse_args(argv)
    if sum([bool(args.source), args.camera is not None, bool(args.split)]) > 1:
        parser.error("either a source or --camera or --split")
    for name in ("limit", "every"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: expected at least 1, found {value}")
    if not 0 <= args.threshold <= 1:
        parser.error(f"--threshold: expected a score from 0 to 1, found {args.threshold:g}")
    is_split = not args.source and args.camera is None
    parts = "model or the data (model.*, data.*)" if is_split else "model (model.*)"
    configs.require_useful(parser, args.overrides, USEFUL + ("data.",) * is_split, parts)
    return args


# --------------------------------------------------------------------------------------------------
# Sources
# --------------------------------------------------------------------------------------------------


def find_sources(sources: Sequence[str | Path]) -> tuple[list[Path], list[str | int]]:
    """The images, or the videos, that files, folders, patterns and addresses of streams stand for.

    Of a folder its images, by name; of a pattern the files that are one or the other. Each once.
    Raises ValueError for what is not there or holds none, and for images beside videos.
    """
    found = dict.fromkeys(item for source in sources for item in _find(str(source)))
    videos = [item for item in found if _is_video(item)]
    images = [Path(item) for item in found if not _is_video(item)]
    if images and videos:
        shown = without_secrets(videos[0])
        raise ValueError(f"expected images or videos, found both: {images[0]} and {shown}")
    return images, list(videos)


def _find(source: str) -> list[str]:
    path = Path(source)
    if ADDRESS.match(source) or path.is_file():
        return [source]
    if path.is_dir():
        found = [str(p) for p in sorted(path.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise ValueError(f"{source}: expected images ({', '.join(IMAGE_SUFFIXES)}), found none")
        return found
    if not glob.has_magic(source):
        raise ValueError(f"{source}: no such file or folder")
    known = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    matches = sorted(glob.glob(source, recursive=True))
    found = [match for match in matches if match.lower().endswith(known)]
    if not found:
        raise ValueError(
            f"{source}: expected a pattern of images or videos, found {len(matches)} files and "
            "none of these"
        )
    return found


def _is_video(source: str) -> bool:
    return bool(ADDRESS.match(source)) or source.lower().endswith(VIDEO_SUFFIXES)


if __name__ == "__main__":
    run_program(main)
