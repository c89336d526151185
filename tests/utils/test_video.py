"""Frames in and out of video files, damaged ones, and streams that end."""

import contextlib
import functools
import http.server
import struct
import threading

import cv2
import numpy as np
import pytest

from utils import video
from utils.files import WriteError
from utils.video import ahead, groups, open_video, video_file

pytestmark = pytest.mark.quick

FPS = 12.5


def scene(number, height=48, width=64):
    """A frame on which a square stands at 4 px a frame; its corner tells the number."""
    pixels = np.full((height, width, 3), (20, 60, 20), np.uint8)
    pixels[8:24, 2 * number : 2 * number + 8] = (250, 40, 10)
    return pixels


def write(path, num_frames=20, fps=FPS, **size):
    with video_file(path, fps, scene(0, **size).shape[:2]) as add:
        for number in range(num_frames):
            add(scene(number, **size))
    return str(path)


def corner(pixels):
    """The column at which the square begins."""
    return int(np.flatnonzero(pixels[16, :, 0] > 150)[0])


def write_jpegs(path, num_frames):
    """A video of independent frames, so that damage stays where it is."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 48))
    for number in range(num_frames):
        writer.write(scene(number)[..., ::-1].copy())
    writer.release()
    return str(path)


class Capture:
    """A stream as OpenCV would give it: frames, None for one that cannot be decoded."""

    def __init__(self, frames, fps=0.0, announced=-1.0):
        self.frames, self.fps, self.announced, self.at = frames, fps, announced, -1

    def get(self, name):
        return {
            cv2.CAP_PROP_FPS: self.fps,
            cv2.CAP_PROP_FRAME_COUNT: self.announced,
            cv2.CAP_PROP_POS_MSEC: 1000 * self.at**2,
        }[name]

    def grab(self):
        self.at += 1
        return self.at < len(self.frames) and self.frames[self.at] is not None

    def retrieve(self):
        return True, self.frames[self.at]


def test_what_was_written_comes_back_with_rate_size_and_colors(tmp_path):
    path = write(tmp_path / "new" / "a.mp4")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.mp4"]
    with open_video(path) as source:
        assert (source.fps, source.size, source.announced) == (FPS, (48, 64), 20)
        frames = list(source.frames())
    assert [frame.number for frame in frames] == list(range(20))
    assert [corner(frame.pixels) for frame in frames] == pytest.approx(range(0, 40, 2), abs=1)
    assert np.abs(frames[3].pixels.astype(int) - scene(3)).mean() < 8
    assert source.missing == 0


@pytest.mark.parametrize("fps", [25.0, 30000 / 1001, 60.0, 0.5])
def test_frame_rates_are_kept(fps, tmp_path):
    with open_video(write(tmp_path / "a.mp4", 3, fps)) as source:
        assert source.fps == pytest.approx(fps, abs=1e-3)


def with_uneven_times(path):
    """Gives the first 10 of 20 frames half their time, the others half as much again."""
    data = bytearray(path.read_bytes())
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):  # each in the one before
        at = data.find(name) - 4
        data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + 8)
    at = data.find(b"stts") + 8
    entries, count, ticks = struct.unpack(">3I", data[at : at + 12])
    assert (entries, count) == (1, 20)
    data[at : at + 12] = struct.pack(">5I", 2, 10, ticks // 2, 10, 3 * ticks // 2)
    path.write_bytes(data)


@pytest.mark.parametrize("every", [1, 3])
def test_frames_have_the_times_of_a_file_of_variable_rate(every, tmp_path):
    write(tmp_path / "a.mp4", 20, 12.5)
    with_uneven_times(tmp_path / "a.mp4")
    with open_video(str(tmp_path / "a.mp4"), every) as source:
        assert (source.fps, source.live) == (12.5, False), "the mean, which tells no frame's time"
        seconds = [frame.seconds for frame in source.frames()]
    expected = [0.04 * n for n in range(10)] + [0.4 + 0.12 * n for n in range(10)]
    assert seconds == pytest.approx(expected[::every], abs=1e-3)


def test_frames_of_a_live_source_have_the_time_they_came_at(monkeypatch):
    clock = iter([50.0, 60.0, 60.5, 62.0, 63.0])  # the first is before there is any frame
    monkeypatch.setattr(video.time, "monotonic", lambda: next(clock))
    live = video.Video("live", Capture([scene(0), scene(1), scene(2)]), is_stream=True)
    assert live.live
    assert [frame.seconds for frame in live.frames()] == [0, 0.5, 2]
    monkeypatch.undo()
    for stream, announced in ((True, 3.0), (False, -1.0)):  # a file behind an address; a plain file
        file = video.Video("file", Capture([scene(0)] * 3, FPS, announced), is_stream=stream)
        assert not file.live
        assert [frame.seconds for frame in file.frames()] == [0, 1, 4]


def test_of_an_odd_side_the_last_line_is_left_out(tmp_path):
    with open_video(write(tmp_path / "a.mp4", 3, height=49, width=65)) as source:
        assert source.size == (48, 64)


def test_a_turned_video_is_seen_upright(tmp_path):
    """A rotation by 90 degrees in the track's header, as phones write it."""
    path = tmp_path / "a.mp4"
    write(path, 2)
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4 + 4 + 20 + 8 + 8
    one = 1 << 16
    assert struct.unpack(">9i", data[at : at + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
    path.write_bytes(data)
    with open_video(str(path)) as source:
        first = next(source.frames())
    assert source.size == (64, 48)
    upright = np.rot90(scene(0), -1)
    assert np.abs(first.pixels.astype(int) - upright).mean() < 8


def test_every_nth_frame_up_to_a_limit_or_until_told(tmp_path):
    path = write(tmp_path / "a.mp4")
    with open_video(path, every=3) as source:
        frames = list(source.frames(limit=4))
        assert [frame.number for frame in frames] == [0, 3, 6, 9]
        assert [corner(frame.pixels) for frame in frames] == pytest.approx([0, 6, 12, 18], abs=1)
    with open_video(path, every=7) as source:
        assert [frame.number for frame in source.frames()] == [0, 7, 14]
        assert source.missing == 0
    seen = []
    with open_video(path) as source:
        for frame in source.frames(is_over=lambda: len(seen) == 5):
            seen.append(frame.number)
    assert seen == [0, 1, 2, 3, 4]


def test_a_damaged_frame_in_the_middle_is_left_out_and_counted(tmp_path):
    path = write_jpegs(tmp_path / "a.avi", 20)
    data = bytearray((tmp_path / "a.avi").read_bytes())
    starts = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xd8"]
    assert len(starts) == 20
    data[starts[9] : starts[10] - 8] = bytes(starts[10] - 8 - starts[9])
    (tmp_path / "a.avi").write_bytes(data)
    with open_video(path) as source:
        frames = list(source.frames())
    assert (len(frames), source.missing) == (19, 1)
    corners = [corner(frame.pixels) for frame in frames]
    assert corners == pytest.approx([2 * n for n in range(20) if n != 9], abs=1)


def test_a_file_that_ends_early_says_how_many_are_missing(tmp_path):
    path = write_jpegs(tmp_path / "a.avi", 20)
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(data[: len(data) * 2 // 3])
    with open_video(path) as source:
        count = len(list(source.frames()))
    assert 8 < count < 17
    assert source.missing == 20 - count


def test_a_file_goes_on_after_damage_where_a_stream_has_ended():
    frames = [scene(0), None, None, scene(3), scene(4)]
    file = video.Video("file", Capture(frames, FPS, 6.0))
    assert [frame.number for frame in file.frames()] == [0, 3, 4]
    assert file.missing == 3  # two in the middle, one that was announced and never came
    stream = video.Video("stream", Capture(frames))
    assert [frame.number for frame in stream.frames()] == [0]
    assert (stream.fps, stream.announced, stream.missing) == (video.USUAL_FPS, 0, 0)
    hopeless = video.Video("file", Capture([scene(0)], FPS, 1e6))
    assert len(list(hopeless.frames())) == 1
    assert hopeless.missing == 999_999


def test_an_address_is_read_as_it_comes(tmp_path):
    write_jpegs(tmp_path / "a.avi", 5)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_video(f"http://127.0.0.1:{server.server_port}/a.avi") as source:
            frames = list(source.frames())
        server.shutdown()
    assert [corner(frame.pixels) for frame in frames] == pytest.approx(range(0, 10, 2), abs=1)


def test_another_size_ends_the_video():
    frames = [scene(0), scene(1), scene(2, width=80), scene(3)]
    source = video.Video("stream", Capture(frames))
    assert [frame.number for frame in source.frames()] == [0, 1]


@pytest.mark.parametrize("data", [b"", b"no video at all" * 50])
def test_files_that_are_no_video(data, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    expected = r"a\.mp4: expected a video, found nothing that OpenCV"
    with pytest.raises(ValueError, match=expected), open_video(str(path)):
        pass


def test_a_video_without_a_frame_and_addresses_that_do_not_answer():
    with pytest.raises(ValueError, match="stream: expected frames, found none"):
        video.Video("stream", Capture([]))
    address = "http://user:secret@127.0.0.1:9/live"
    with pytest.raises(ValueError, match=r"^http://127\.0\.0\.1:9/live: expected a video"):
        open_video(address).__enter__()
    with pytest.raises(ValueError, match=r"^camera 99: expected a video"):
        open_video(99).__enter__()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://cam/live", "rtsp://cam/live"),
        ("rtsp://user:p@ss@cam:554/live", "rtsp://cam:554/live"),
        ("RTSP://user:p@ss@cam", "RTSP://cam"),
        ("http://cam/a@b.mjpg", "http://cam/a@b.mjpg"),
        ("http://cam/live?user=a&pwd=b@c/d?e", "http://cam/live"),
        ("http://cam?token=a@b", "http://cam"),
        ("srt://user:p@ss@cam:9000?passphrase=secret\n", "srt://cam:9000"),
        ("clips//me@home/what?.mp4", "clips//me@home/what?.mp4"),
    ],
)
def test_what_is_secret_in_an_address_is_not_shown(source, shown):
    assert video.without_secrets(source) == shown


def test_a_video_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    expected = r"a\.mp4: expected \(48, 64, 3\), found \(48, 66, 3\)"
    with contextlib.ExitStack() as stack:
        add = stack.enter_context(video_file(path, FPS, (48, 64)))
        add(scene(0))
        with pytest.raises(ValueError, match=expected):
            add(scene(0, width=66))
        stack.pop_all().__exit__(RuntimeError, RuntimeError(), None)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(video, "count_frames", lambda path: 1)
    with pytest.raises(OSError, match=r"a\.mp4: expected 2 frames once written, found 1"):
        write(path, 2)
    assert list(tmp_path.iterdir()) == []


def test_without_a_codec_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "CODEC", "zzzz")
    with pytest.raises(OSError, match=r"a\.mp4: OpenCV cannot write zzzz video of 64x48 pixels"):
        write(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_a_video_says_why(tmp_path):
    """OpenCV says nothing; a limit for files stands for a full disk."""
    resource = pytest.importorskip("resource", reason="Windows has no limits for files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"a\.mp4: cannot be written: File too large"):
            write(tmp_path / "a.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_groups_ahead_keep_order_and_errors():
    assert list(ahead(groups(range(7), 3))) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(ahead(groups([], 3))) == []

    def broken():
        yield from range(4)
        raise ValueError("no more")

    found = []
    with pytest.raises(ValueError, match="no more"):
        found.extend(group for group in ahead(groups(broken(), 2)))
    with contextlib.closing(ahead(groups(range(9), 2))) as incoming:
        assert next(incoming) == [0, 1]


def test_the_next_group_is_made_while_one_is_in_use():
    is_made = threading.Event()

    def items():
        yield 0
        is_made.set()
        yield 1

    with contextlib.closing(ahead(groups(items(), 1))) as incoming:
        assert next(incoming) == [0]
        assert is_made.wait(5)
