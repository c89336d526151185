"""A video with boxes, and the lines of its detections."""

import json

import numpy as np
import pytest

from results.videos import draw_video
from utils.detections import DetectionTable
from utils.video import Frame, open_video, video_file

pytestmark = pytest.mark.quick


def one_in_each(images):
    """A box of a cat in each frame, surer from frame to frame, and one that is not sure enough."""
    num = len(images)
    return DetectionTable(
        tuple(map(str, range(num))),
        ("dog", "cat"),
        np.tile(np.arange(num), 2),
        np.tile([8.0, 8.0, 40.5, 30.0], (2 * num, 1)),
        [*(0.5 + 0.125 * np.arange(num)), *([0.25] * num)],
        np.ones(2 * num, int),
    )


def test_each_frame_has_a_line_with_the_time_of_its_source(tmp_path):
    ground = np.full((48, 64, 3), 127, np.uint8)
    with video_file(tmp_path / "clip.mp4", 12.5, (48, 64)) as add:
        add(ground)
    frames = [Frame(n, n**2 + 0.0004, ground) for n in range(3)]
    with open_video(str(tmp_path / "clip.mp4")) as source:
        draw_video(tmp_path / "a", source, [frames[:2], frames[2:]], 3, one_in_each, 0.3)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    box = [8.0, 8.0, 40.5, 30.0]
    assert lines == [
        {
            "frame": number,
            "seconds": number**2,
            "detections": [{"label": "cat", "score": score, "box": box}],
        }
        for number, score in enumerate((0.5, 0.625, 0.5))
    ]
    with open_video(str(tmp_path / "a.mp4")) as source:
        drawn = list(source.frames())
    assert len(drawn) == 3
    assert all(np.ptp(frame.pixels[8:30, 8].astype(int), axis=-1).max() > 60 for frame in drawn)
