"""Draws what a detector sees: images, videos and streams, or a split beside its ground truth.

    python visualize.py photo.jpg
    python visualize.py holiday/ "more/*.png" --weights runs/voc --threshold 0.5
    python visualize.py drive.mp4 --every 2          the video with boxes, and its detections
    python visualize.py rtsp://host/path             a stream, until Ctrl-C; or --camera 0
    python visualize.py --split val --limit 24       what is right, what is wrong, what is missed

Writes annotated images and contact sheets, or videos, to RUN/pictures or --out.
"""

import argparse
import contextlib
import csv
import glob
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from loguru import logger
from rich.markup import escape

import configs
from core.metrics.voc import voc_matches
from data.datasets import read_split
from data.detections.table import DetectionTable, rows_by_image
from data.images.decode import IMAGE_SUFFIXES, decode_image
from data.inputs import unlabelled
from data.records import Dataset, first_images
from detector import Detector, open_detector
from scoring import arrays
from utils.diary import diary, progress_bar
from utils.draw import contact_sheet, draw_boxes, fit, side_by_side, with_legend, write_image
from utils.files import whole_file, write_text
from utils.program import make_parser, run_program
from utils.runs import StopSignal
from utils.video import (
    ADDRESS,
    VIDEO_SUFFIXES,
    Frame,
    Video,
    ahead,
    count_frames,
    groups,
    open_video,
    video_file,
    without_secrets,
)

SHEET = 24  # pictures on a contact sheet
IMAGE_CELL, TRUTH_CELL, WORST_CELL = (320, 320), (256, 512), (400, 400)  # height, width, px
BATCHES = 4  # of a video that are decoded, or waited for, while those before are detected on
USEFUL = ("model.", "evaluate.batch_size=")  # settings; of a split also those of the data
MATCH_IOU = 0.5  # overlap from which on a detection has found an object
# What a detection or an object turned out to be; the colours are Okabe and Ito's, which people who
# confuse red and green tell apart.
OUTCOMES = (
    ("right (TP)", (0, 114, 178), "solid"),
    ("false alarms (FP)", (213, 94, 0), "dashed"),
    ("missed (FN)", (240, 228, 66), "striped"),
    ("not counted", (160, 160, 160), "solid"),
)
RIGHT, FALSE_ALARM, MISSED, UNCOUNTED = range(len(OUTCOMES))


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
            draw_videos(out, videos, detector, args, batch_size)
        else:
            if images:
                dataset, _ = unlabelled(images, detector.classes)
            else:
                dataset = read_split(config.data, args.split or config.data.val, detector.classes)
            if args.limit:
                dataset = first_images(dataset, args.limit)
            dataset = replace(dataset, bits=detector.config.bits)
            table = at_least(detector.detect_dataset(dataset, batch_size), args.threshold)
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


# --------------------------------------------------------------------------------------------------
# Images
# --------------------------------------------------------------------------------------------------


def at_least(table: DetectionTable, threshold: float) -> DetectionTable:
    """The detections of at least a score."""
    rows = table.scores >= threshold
    names = ("image", "boxes", "scores", "labels")
    return replace(table, **{name: getattr(table, name)[rows] for name in names})


def draw_images(out: Path, dataset: Dataset, table: DetectionTable) -> None:
    """One picture an image and `contact_sheet.png`."""
    sheet = []
    for index, rows in enumerate(rows_by_image(table)):
        picture = detections_on(decode_image(dataset.images[index], dataset.bits), table, rows)
        write_image(_picture_file(out, dataset, index), picture)
        if index < SHEET:
            sheet.append(fit(picture, *IMAGE_CELL))
    write_image(out / "contact_sheet.png", contact_sheet(sheet, cell=IMAGE_CELL))


def _picture_file(out: Path, dataset: Dataset, index: int) -> Path:
    return out / f"{index:05d}_{Path(dataset.images[index]).stem}.jpg"


def detections_on(image: np.ndarray, table: DetectionTable, rows: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB with these rows of the table drawn on a copy of it."""
    return draw_boxes(
        image, table.boxes[rows], table.labels[rows], table.classes, table.scores[rows]
    )


def with_truth(
    dataset: Dataset, index: int, table: DetectionTable, threshold: float = 0.3
) -> np.ndarray:
    """The annotated objects at the left, the detections of at least a score at the right."""
    image = decode_image(dataset.images[index], dataset.bits)
    rows = np.flatnonzero((table.image == index) & (table.scores >= threshold))
    return _beside_truth(dataset, index, image, detections_on(image, table, rows))


def _beside_truth(
    dataset: Dataset, index: int, image: np.ndarray, picture: np.ndarray
) -> np.ndarray:
    rows = dataset.rows(index)
    labels = np.where(dataset.ignore[rows], len(dataset.classes), dataset.labels[rows])
    classes = (*dataset.classes, "ignore")
    truth = draw_boxes(image, dataset.boxes[rows], labels, classes, style="dashed")
    return side_by_side(truth, picture, ("ground truth", "detections"))


# --------------------------------------------------------------------------------------------------
# Right, wrong and missed
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcomes:
    """How the detections of a split compare with its objects.

    detections: (D,) int, the place of each in OUTCOMES. missed: (T,) bool, which objects are.
    counts: (M, 4) int, how many of each outcome an image has.
    worst: (M,) the images by false alarms and misses together, the most first; among equals by
        their surest false alarm.
    """

    detections: np.ndarray
    missed: np.ndarray
    counts: np.ndarray
    worst: np.ndarray


def judge(dataset: Dataset, table: DetectionTable) -> Outcomes:
    """Compares all detections of a table with a split's objects, as the VOC metric does."""
    matches = voc_matches(*arrays(table, dataset), len(dataset.classes), MATCH_IOU)
    detections = np.full(len(table), UNCOUNTED)
    detections[matches.true_positive] = RIGHT
    detections[matches.false_positive] = FALSE_ALARM
    counts = np.zeros((len(dataset), len(OUTCOMES)), int)
    np.add.at(counts, (table.image, detections), 1)
    np.add.at(counts, (dataset.image_index[matches.missed], MISSED), 1)
    surest_alarm = np.zeros(len(dataset))
    false = matches.false_positive
    np.maximum.at(surest_alarm, table.image[false], table.scores[false])
    worst = np.lexsort((-surest_alarm, -counts[:, [FALSE_ALARM, MISSED]].sum(axis=1)))
    return Outcomes(detections, matches.missed, counts, worst)


def draw_outcomes(out: Path, dataset: Dataset, table: DetectionTable) -> None:
    """One picture an image, `contact_sheet.png`, and of the worst `worst.png` and `worst.csv`."""
    outcomes = judge(dataset, table)
    sheet, worst = [], {}
    for index, rows in enumerate(rows_by_image(table)):
        image = decode_image(dataset.images[index], dataset.bits)
        judged = outcomes_on(image, dataset, index, table, rows, outcomes)
        beside = _beside_truth(dataset, index, image, judged)
        picture = with_legend(beside, _legend(outcomes.counts[index]))
        write_image(_picture_file(out, dataset, index), picture)
        if index < SHEET:
            sheet.append(fit(picture, *TRUTH_CELL))
        if index in outcomes.worst[:SHEET]:
            worst[index] = fit(judged, *WORST_CELL)
    write_image(out / "contact_sheet.png", contact_sheet(sheet, cell=TRUTH_CELL))
    pictures = [worst[index] for index in outcomes.worst[:SHEET]]
    write_image(out / "worst.png", _worst_sheet(pictures, dataset, outcomes))
    write_text(out / "worst.csv", _worst_first(dataset, outcomes))
    right, false, missed = outcomes.counts.sum(axis=0)[:UNCOUNTED].tolist()
    logger.info(
        "{} at IoU {:g}: {} right, {} false alarms, {} missed: precision {:.3f}, recall {:.3f}",
        *(dataset.name, MATCH_IOU, right, false, missed),
        *(right / n if n else np.nan for n in (right + false, right + missed)),
    )


def outcomes_on(
    image: np.ndarray,
    dataset: Dataset,
    index: int,
    table: DetectionTable,
    rows: np.ndarray,
    outcomes: Outcomes,
) -> np.ndarray:
    """An image (H, W, 3) with its detections, these rows of the table, and the objects missed."""
    first = dataset.rows(index).start
    missed = first + np.flatnonzero(outcomes.missed[dataset.rows(index)])
    names = len(dataset.classes)
    labels = outcomes.detections[rows] * names + table.labels[rows]
    return draw_boxes(
        image,
        np.concatenate([table.boxes[rows], dataset.boxes[missed]]),
        np.concatenate([labels, MISSED * names + dataset.labels[missed]]),
        dataset.classes * len(OUTCOMES),
        np.concatenate([table.scores[rows], np.full(len(missed), np.nan)]),
        style=[style for _, _, style in OUTCOMES for _ in dataset.classes],
        colors=np.repeat([color for _, color, _ in OUTCOMES], names, axis=0),
    )


def _legend(counts: np.ndarray) -> list[tuple[str, np.ndarray, str]]:
    """The lines of (4,) counts; the last only where there is any."""
    shown = zip(counts.tolist(), OUTCOMES, strict=True)
    return [
        (f"{count} {text}", np.array(color, np.uint8), style)
        for place, (count, (text, color, style)) in enumerate(shown)
        if count or place != UNCOUNTED
    ]


def _worst_sheet(
    pictures: Sequence[np.ndarray], dataset: Dataset, outcomes: Outcomes
) -> np.ndarray:
    """The worst images' pictures, fit to WORST_CELL, with their counts, and those of the split."""
    captions = []
    for index in outcomes.worst[: len(pictures)]:
        right, false, missed, _ = outcomes.counts[index]
        name = Path(dataset.images[index]).name
        captions.append(f"{name}: {right} TP, {false} FP, {missed} FN")
    cell = max(picture.shape[0] for picture in pictures), WORST_CELL[1]
    sheet = contact_sheet(pictures, cell=cell, captions=captions)
    return with_legend(sheet, _legend(outcomes.counts.sum(axis=0)))


def _worst_first(dataset: Dataset, outcomes: Outcomes) -> str:
    """CSV, a row an image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "true_positives", "false_positives", "false_negatives"))
    for index in outcomes.worst:
        writer.writerow((dataset.images[index], *outcomes.counts[index, :UNCOUNTED]))
    return text.getvalue()


# --------------------------------------------------------------------------------------------------
# Videos
# --------------------------------------------------------------------------------------------------


def draw_videos(
    out: Path,
    sources: Sequence[str | int],
    detector: Detector,
    args: argparse.Namespace,
    batch_size: int,
) -> None:
    """Of each source a video with boxes and its detections; Ctrl-C ends them in good order."""
    every = args.every or 1
    num_frames = sum(_announced(source, every, args.limit) for source in sources)
    detect = detector.array_detector(num_frames, batch_size)
    with StopSignal() as stop:
        for number, source in enumerate(sources):
            with open_video(source, every) as video:
                total = _most(video.announced, every, args.limit)
                frames = video.frames(args.limit, lambda: stop.received)
                path = out / f"{number:05d}_{_video_name(source)}"
                with contextlib.closing(ahead(groups(frames, BATCHES * batch_size))) as incoming:
                    draw_video(path, video, incoming, total, detect, args.threshold)
            if stop.received:
                logger.warning("ended by {}", stop.received)
                return


def _announced(source: str | int, every: int, limit: int | None) -> int:
    """At most how many frames of a source are looked at; sys.maxsize where nobody knows."""
    nobody_knows = isinstance(source, int) or ADDRESS.match(source)
    return _most(0 if nobody_knows else count_frames(str(source)), every, limit) or sys.maxsize


def _most(announced: int, every: int, limit: int | None) -> int:
    return min(filter(None, (limit, -(-announced // every))), default=0)


def draw_video(
    path: Path,
    video: Video,
    incoming: Iterable[list[Frame]],
    total: int,
    detect: Callable[[Sequence[np.ndarray]], DetectionTable],
    threshold: float,
) -> None:
    """Writes PATH.mp4, and PATH.jsonl with an object a frame; each is whole or not there.

    total: how many frames there will be, for the bar; 0 where nobody knows.
    """
    start, count, speed = time.perf_counter(), 0, 0.0
    with (
        progress_bar() as bar,
        video_file(path.with_name(f"{path.name}.mp4"), video.fps / video.every, video.size) as add,
        # The inner one: what a full disk says without a name in here is of the lines.
        whole_file(path.with_name(f"{path.name}.jsonl")) as part,
        open(part, "w", encoding="utf-8") as lines,
    ):
        task = bar.add_task(escape(video.name), total=total, text="")
        for group in incoming:
            table = at_least(detect([frame.pixels for frame in group]), threshold)
            for frame, rows in zip(group, rows_by_image(table), strict=True):
                add(detections_on(frame.pixels, table, rows))
                lines.write(_line(frame, table, rows))
            count += len(group)
            speed = count / (time.perf_counter() - start)
            bar.update(task, completed=count, total=total or count, text=f"{speed:.1f} frames/s")
    if video.missing:
        broken = f"{video.missing} of {video.announced} frames"
        logger.warning("{}: {} could not be decoded and are left out", video.name, broken)
    logger.info("{}: {} frames, {:.1f} frames/s, in {}.mp4", video.name, count, speed, path)


def _line(frame: Frame, table: DetectionTable, rows: np.ndarray) -> str:
    detections = [
        {"label": table.classes[label], "score": score, "box": box}
        for label, score, box in zip(
            *(column[rows].tolist() for column in (table.labels, table.scores, table.boxes)),
            strict=True,
        )
    ]
    entry = {"frame": frame.number, "seconds": round(frame.seconds, 3), "detections": detections}
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _video_name(source: str | int) -> str:
    if isinstance(source, int):
        return f"camera{source}"
    return "stream" if ADDRESS.match(source) else Path(source).stem


if __name__ == "__main__":
    run_program(main)
