"""Videos and streams with what was detected in them."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from loguru import logger
from rich.markup import escape

from data.detections.project_json import JSON
from detector import Detector
from results.pictures import detections_on
from utils.detections import DetectionTable
from utils.diary import progress_bar
from utils.files import whole_file
from utils.runs import StopSignal
from utils.video import ADDRESS, Frame, Video, ahead, count_frames, groups, open_video, video_file

BATCHES = 4  # of a video that are decoded, or waited for, while those before are detected on


def draw_videos(
    out: Path,
    sources: Sequence[str | int],
    detector: Detector,
    *,
    batch_size: int,
    threshold: float,
    every: int = 1,
    limit: int | None = None,
) -> None:
    """Of each source a video with boxes and its detections; Ctrl-C ends them in good order.

    threshold: the lowest score to draw. every: of the source each so many-th frame is looked at.
    limit: at most so many frames of each source.
    """
    num_frames = sum(_announced(source, every, limit) for source in sources)
    detect = detector.array_detector(num_frames, batch_size)
    with StopSignal() as stop:
        for number, source in enumerate(sources):
            with open_video(source, every) as video:
                total = _most(video.announced, every, limit)
                frames = video.frames(limit, lambda: stop.received)
                path = out / f"{number:05d}_{_video_name(source)}"
                with contextlib.closing(ahead(groups(frames, BATCHES * batch_size))) as incoming:
                    draw_video(path, video, incoming, total, detect, threshold)
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
            table = detect([frame.pixels for frame in group]).at_least(threshold)
            found = zip(group, table.rows_by_image(), JSON.detections_by_image(table), strict=True)
            for frame, rows, detections in found:
                add(detections_on(frame.pixels, table, rows))
                about = {"frame": frame.number, "seconds": round(frame.seconds, 3)}
                entry = about | {"detections": detections}
                lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
            count += len(group)
            speed = count / (time.perf_counter() - start)
            bar.update(task, completed=count, total=total or count, text=f"{speed:.1f} frames/s")
    if video.missing:
        broken = f"{video.missing} of {video.announced} frames"
        logger.warning("{}: {} could not be decoded and are left out", video.name, broken)
    logger.info("{}: {} frames, {:.1f} frames/s, in {}.mp4", video.name, count, speed, path)


def _video_name(source: str | int) -> str:
    if isinstance(source, int):
        return f"camera{source}"
    return "stream" if ADDRESS.match(source) else Path(source).stem
