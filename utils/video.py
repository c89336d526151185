"""Video files, streams and cameras -> frames, and frames -> a video file, by OpenCV.

A frame is (H, W, 3) uint8 RGB, turned as the file says it is to be seen.
"""

import contextlib
import itertools
import math
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # damage is counted, not told by macroblock

import cv2
import numpy as np
from loguru import logger

from utils.files import whole_file, write_error

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts",
)  # fmt: skip
ADDRESS = re.compile(r"(https?|rtsps?|rtmps?|rtp|udp|tcp|srt)://", re.IGNORECASE)
CODEC = "mp4v"  # MPEG-4 part 2: what OpenCV's own FFmpeg can write everywhere; H.264 it cannot
USUAL_FPS = 25.0  # of a source that says none, or more than FASTEST_FPS
FASTEST_FPS = 480.0
MOST_FAILURES = 100  # attempts in a row after which no more is expected of a damaged file

T = TypeVar("T")


@dataclass(frozen=True)
class Frame:
    """number: its place in the source, from 0. pixels: (H, W, 3) uint8 RGB.

    seconds: the source's own time stamp; of a live one, when it was read, from the first on.
    """

    number: int
    seconds: float
    pixels: np.ndarray


class Video:
    """An opened source of frames, which `frames` gives once.

    name: for messages. fps: frames a second. size: (height, width) of the first frame, in pixels.
    announced: how many frames a file says it has, 0 of a stream.
    missing: how many could not be decoded as far as `frames` has come.
    every: of the source each so many-th frame is looked at.
    live: a stream that announces no frames.
    Raises ValueError where there is no frame.
    """

    def __init__(
        self, name: str, capture: cv2.VideoCapture, every: int = 1, is_stream: bool = False
    ):
        self.name, self.every, self.missing = name, every, 0
        fps, announced = (capture.get(p) for p in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if 0 < fps <= FASTEST_FPS else USUAL_FPS
        self.announced = int(announced) if 0 < announced < math.inf else 0
        self.live = is_stream and not self.announced
        self._decoded = self._decode(capture)
        first = next(self._decoded, None)
        if first is None:
            raise ValueError(f"{name}: expected frames, found none that can be decoded")
        self._first, self.size = first, first.pixels.shape[:2]

    def frames(
        self, limit: int | None = None, is_over: Callable[[], object] = lambda: False
    ) -> Iterator[Frame]:
        """The first `limit` frames, or all; after one of them `is_over` ends it too.

        What cannot be decoded is left out. A frame of another size than the first ends it, with a
        warning: no file can hold both.
        """
        all_frames = itertools.chain([self._first], self._decoded)
        for frame in itertools.islice(all_frames, limit):
            height, width = frame.pixels.shape[:2]
            if (height, width) != self.size:
                expected = f"{self.size[1]}x{self.size[0]} pixels"
                found = f"{width}x{height} from frame {frame.number} on, where this ends"
                logger.warning("{}: expected {}, found {}", self.name, expected, found)
                return
            yield frame
            if is_over():
                return

    def _decode(self, capture: cv2.VideoCapture) -> Iterator[Frame]:
        """Goes on past damage as far as the file says there are frames; a stream has then ended."""
        number = failures = 0
        start = time.monotonic()
        while failures < MOST_FAILURES:
            is_there, pixels = capture.grab(), None
            now = time.monotonic()
            start = start if number else now
            if is_there and number % self.every == 0:
                is_there, pixels = capture.retrieve()
            if is_there:
                self.missing += failures
                failures = 0
                if pixels is not None:
                    own = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                    seconds = now - start if self.live else own
                    yield Frame(number, seconds, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
            elif number >= self.announced:
                break
            else:
                failures += 1
            number += 1
        self.missing += max(self.announced - (number - failures), 0)


def without_secrets(source: str) -> str:
    """An address without user, password and query, which are not for the diary; a file as it is."""
    return re.sub(r"^(\w+://)([^/?#]*@)?([^?]*).*", r"\1\3", source, flags=re.DOTALL)


@contextlib.contextmanager
def open_video(source: str | int, every: int = 1) -> Iterator[Video]:
    """Inside `with`, the `Video` of a file, of an address (rtsp://, http:// ...) or of a camera.

    source: an int is a camera's number. Raises ValueError if it cannot be opened or has no frame.
    """
    if isinstance(source, int):
        name, capture = f"camera {source}", cv2.VideoCapture(source)
    else:
        name = without_secrets(source)
        capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise ValueError(f"{name}: expected a video, found nothing that OpenCV can open as one")
        is_stream = isinstance(source, int) or bool(ADDRESS.match(source))
        yield Video(name, capture, every, is_stream)
    finally:
        capture.release()


@contextlib.contextmanager
def video_file(
    path: str | Path, fps: float, size: tuple[int, int]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Inside `with`, a function that adds a frame (H, W, 3) uint8 RGB to an mp4 file.

    size: (height, width) of the frames, px; of an odd side the file leaves out the last line.
    The file appears complete or not at all. Raises WriteError if it cannot be written, ValueError
    for a frame of another size.
    """
    height, width = size
    with whole_file(path) as part:
        codec = cv2.VideoWriter.fourcc(*CODEC)
        writer = cv2.VideoWriter(str(part), cv2.CAP_FFMPEG, codec, fps, (width, height))
        if not writer.isOpened():
            _raise_reason(part)
            wanted = f"{CODEC} video of {width}x{height} pixels at {fps:g} frames/s"
            raise write_error(path, f"OpenCV cannot write {wanted} here")
        count = 0

        def add(pixels: np.ndarray) -> None:
            nonlocal count
            if pixels.shape != (height, width, 3):  # OpenCV drops it without a word
                raise ValueError(f"{path}: expected ({height}, {width}, 3), found {pixels.shape}")
            writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
            count += 1

        try:
            yield add
        finally:
            writer.release()
        found = count_frames(part)
        if found != count:
            _raise_reason(part)
            raise write_error(path, f"expected {count} frames once written, found {found}")


def _raise_reason(path: Path) -> None:
    """Raises the OSError that OpenCV keeps to itself, if it is one of the disk."""
    with open(path, "ab") as file:
        file.write(bytes(1 << 16))


def count_frames(path: str | Path) -> int:
    """What a file says it has; 0 of one that does not say, or is no video."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    finally:
        capture.release()


def groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last of what is left."""
    iterator = iter(items)
    while group := list(itertools.islice(iterator, size)):
        yield group


def ahead(items: Iterable[list[T]]) -> Generator[list[T], None, None]:
    """The same lists, none empty, each made in a thread while the one before it is in use.

    Close it (`contextlib.closing`) before what the items are made from: the thread is at work.
    """
    iterator = iter(items)
    nothing: list[T] = []
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, iterator, nothing)
        while group := coming.result():
            coming = pool.submit(next, iterator, nothing)
            yield group
