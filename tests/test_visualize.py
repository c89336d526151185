"""visualize.py: sources, videos, and what is right, wrong and missed."""

import json
import os
import signal
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

import configs
import visualize
from core.build import build_model
from data.formats.shapes import CLASSES, make_shapes
from detector import Detector
from results import videos
from results.pictures import detections_on
from tests.test_detector import SMALL
from utils.video import open_video, video_file
from visualize import find_sources

pytestmark = pytest.mark.full

SIZE, CLIP = (64, 80), (192, 240)  # height, width of images and of videos


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("data") / "tiny", 2, 5, image_size=SIZE)


@pytest.fixture(scope="module")
def run(tmp_path_factory, root):
    """A run's folder with an untrained detector."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    changes = {"data.format": "voc", "data.root": str(root), "output": str(folder.parent)}
    config = configs.preset("shapes", SMALL | changes)
    keras.utils.set_random_seed(0)
    model = build_model(config.model, len(CLASSES))
    Detector(model, CLASSES, config.model).save(folder / "checkpoints" / "best.npz")
    (folder / "config.json").write_text(json.dumps(configs.to_dict(config)))
    return folder


@pytest.fixture(scope="module")
def detector(run):
    return Detector.load(run)


def frames_of(num_frames):
    """A ground of soft spots that moves to the right."""
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(0, 255, (4, 5, 3), np.uint8), CLIP[::-1])
    return [np.roll(ground, 4 * number, axis=1) for number in range(num_frames)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.v1.mp4"
    with video_file(path, 12.5, CLIP) as add:
        for pixels in frames_of(21):
            add(pixels)
    return path


def decoded(path, **kwargs):
    with open_video(str(path)) as source:
        return source.fps, list(source.frames(**kwargs))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same(ours, theirs):
    for name in ("image", "boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)


# ------------------------------------------------------------------------------------------------
# Detector.detect_arrays
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["canvas", "short_long"])
def test_arrays_give_the_detections_of_files_to_the_bit(resize, run, tmp_path):
    rng = np.random.default_rng(1)
    changes = {"resize": resize}
    if resize == "short_long":
        changes |= {"resize.short": 64, "resize.long": 90}
    detector = Detector.load(run, changes=changes)
    files, arrays = [], []
    for name, size in (("a.png", (200, 333)), ("b.bmp", (50, 60)), ("c.jpg", (120, 180))):
        files.append(tmp_path / name)
        pixels = cv2.resize(rng.integers(0, 255, (20, 30, 3), np.uint8), size[::-1])
        cv2.imwrite(str(files[-1]), pixels)
        arrays.append(cv2.imread(str(files[-1]))[..., ::-1])  # a view, as is usual
    table = detector.detect_arrays(arrays)
    assert_same(table, detector.detect(files))
    assert len(table) == 3 * 7
    assert table.image_ids == ("0", "1", "2")


def test_arrays_of_several_sizes_and_many_calls_are_one_graph(detector):
    arrays = [np.full((h, w, 3), 2 * h, np.uint8) for h, w in ((30, 40), (100, 60), (64, 96))]
    together = detector.detect_arrays(arrays, batch_size=2)
    detect = detector.array_detector(2)
    for index, array in enumerate(arrays):
        alone, rows = detect([array]), together.image == index
        np.testing.assert_array_equal(alone.labels, together.labels[rows])
        np.testing.assert_allclose(alone.boxes, together.boxes[rows], atol=1e-3)
    assert detector._compiled.experimental_get_tracing_count() == 1


# ------------------------------------------------------------------------------------------------
# Sources
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "one.mp4", "sub/c.jpg", "x[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_files_folders_and_patterns_stand_for_images(folder):
    def names(*sources):
        images, videos = find_sources([str(folder / source) for source in sources])
        assert videos == []
        return [str(image.relative_to(folder)) for image in images]

    assert names("b.jpg") == ["b.jpg"]
    assert names(".") == ["a.PNG", "b.jpg", "x[1].jpg"]
    assert names("*.jpg") == ["b.jpg", "x[1].jpg"]
    assert names("**/*.jpg") == ["b.jpg", "sub/c.jpg", "x[1].jpg"]
    assert names("[ab]*") == ["a.PNG", "b.jpg"]
    assert names("x[1].jpg") == ["x[1].jpg"], "a file that is there is no pattern"
    assert names("sub", "b.jpg", "*.jpg") == ["sub/c.jpg", "b.jpg", "x[1].jpg"], "each once"
    assert find_sources([]) == ([], [])


def test_videos_and_addresses(folder):
    assert find_sources([str(folder / "*.mp4")]) == ([], [str(folder / "one.mp4")])
    for address in ("rtsp://host/path", "HTTP://host:80/a.mjpg"):
        assert find_sources([address]) == ([], [address])


def test_sources_that_are_none(folder, run):
    for name, message in (
        ("none", "no such file or folder"),
        ("*.gif", "pattern of images or videos, found 0 files"),
        ("*.txt", "pattern of images or videos, found 1 files and none"),
        ("*", "expected images or videos, found both: .*PNG and .*mp4"),
    ):
        with pytest.raises(ValueError, match=message):
            find_sources([str(folder / name)])
    with pytest.raises(ValueError, match=r"found both: .*b\.jpg and rtsp://cam/live$"):
        find_sources([str(folder / "b.jpg"), "rtsp://user:p@ss@cam/live?token=secret"])
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: expected images \(\.jpg.*found none"):
        find_sources([str(folder / "empty")])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a.jpg", "--split", "val"], "either a source or --camera or --split"),
        (["a.mp4", "--camera", "0"], "either a source or --camera or --split"),
        (["a.mp4", "--every", "0"], "--every: expected at least 1, found 0"),
        (["a.mp4", "--limit", "-1"], "--limit: expected at least 1, found -1"),
        (["a.jpg", "--threshold", "30"], "--threshold: expected a score from 0 to 1, found 30"),
        (["a.jpg", "--threshold", "-0.1"], "a score from 0 to 1, found -0.1"),
        (["a.jpg", "--threshold", "nan"], "a score from 0 to 1, found nan"),
        *(
            ([*given, "--set", f"{name}=1"], f"--set: expected settings of the {of}, found '{name}")
            for given, of, names in (
                (["a.jpg"], "model (model.*)", ("data.val", "train.epochs", "name", "output")),
                (["--camera", "0"], "model (model.*)", ("data.root", "evaluate.metric")),
                (
                    ["--split", "val"],
                    "model or the data (model.*, data.*)",
                    ("train.epochs", "loss.gamma", "matcher.low", "evaluate.metric", "name"),
                ),
            )
            for name in names
        ),
    ],
)
def test_arguments_that_do_not_go_together(given, message, capsys):
    with pytest.raises(SystemExit):
        visualize.main(given)
    assert message in capsys.readouterr().err


def test_what_cannot_be_is_said_before_a_detector_is_loaded(folder):
    out = folder / "notes.txt"
    with pytest.raises(ValueError, match=r"--out: expected a folder, found the file .*notes\.txt"):
        visualize.main([str(folder / "b.jpg"), "--weights", "none", "--out", str(out)])
    with pytest.raises(ValueError, match="--every 2: expected a video, found none"):
        visualize.main([str(folder / "b.jpg"), "--weights", "none", "--every", "2"])


def test_settings_that_do_something_are_taken():
    for given in (["a.jpg"], ["--camera", "0"], ["--split", "val"], []):
        settings = ["model.detect.flip=True", "evaluate.batch_size=2"]
        settings += ["data.root=x"] if not given or "--split" in given else []
        args = visualize.parse_arguments([*given, "--set", *settings])
        assert args.overrides == settings


@pytest.mark.slow
def test_a_threshold_below_the_models_own_is_told(run, root, tmp_path, capsys):
    image = str(root / "JPEGImages" / "val_00000.jpg")
    given = [image, "--weights", str(run), "--out", str(tmp_path)]
    changes = ["--set", "model.detect.score_threshold=0.2"]
    expected = "--threshold 0.1: nothing below model.detect.score_threshold, 0.2, is detected"
    for threshold, is_told in (("0.1", True), ("0.2", False)):
        visualize.main([*given, "--threshold", threshold, *changes])
        said = " ".join(capsys.readouterr().err.split())
        assert (expected in said, "nothing below" in said) == (is_told, is_told)


def test_a_pattern_gives_pictures_and_a_sheet(run, root, tmp_path):
    pattern = str(root / "JPEGImages" / "val_*.jpg")
    visualize.main([pattern, "--weights", str(run), "--out", str(tmp_path), "--threshold", "0"])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{n:05d}_val_{n:05d}.jpg" for n in range(5)] + ["contact_sheet.png"]


# ------------------------------------------------------------------------------------------------
# Videos
# ------------------------------------------------------------------------------------------------


def test_a_video_comes_back_with_boxes_and_its_detections(run, clip, tmp_path, detector):
    given = ["--weights", str(run), "--out", str(tmp_path), "--threshold", "0"]
    visualize.main([str(clip), *given])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["00000_clip.v1.jsonl", "00000_clip.v1.mp4"]
    fps, frames = decoded(tmp_path / "00000_clip.v1.mp4")
    assert (fps, len(frames)) == (12.5, 21)
    entries = lines(tmp_path / "00000_clip.v1.jsonl")
    assert [entry["frame"] for entry in entries] == list(range(21))
    assert [entry["seconds"] for entry in entries[:3]] == [0, 0.08, 0.16]
    _, sources = decoded(clip)
    table = detector.detect_arrays([frame.pixels for frame in sources])
    assert sum(len(entry["detections"]) for entry in entries) == len(table) == 21 * 7
    last = table.image == 20
    drawn = frames[20].pixels.astype(int)
    expected = detections_on(sources[20].pixels, table, np.flatnonzero(last))
    error, change = (np.abs(drawn - other).mean() for other in (expected, sources[20].pixels))
    assert error < 0.7 * change, "thin lines of strong colours, as MPEG-4 keeps them"
    for entry, row in zip(entries[20]["detections"], np.flatnonzero(last), strict=True):
        assert entry["label"] == CLASSES[table.labels[row]]
        assert entry["score"] == pytest.approx(table.scores[row], abs=1e-5)
        assert entry["box"] == pytest.approx(table.boxes[row].tolist(), abs=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "num_frames"),
    [([], 21 + 21), (["--every", "2"], 11 + 11), (["--every", "2", "--limit", "3"], 3 + 3)],
)
def test_several_videos_share_a_detector_made_for_all(
    given, num_frames, run, clip, tmp_path, monkeypatch
):
    made, array_detector = [], Detector.array_detector

    def counting(self, num_images, batch_size):
        made.append(num_images)
        return array_detector(self, num_images, batch_size)

    monkeypatch.setattr(Detector, "array_detector", counting)
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    visualize.main([str(clip), str(other), "--weights", str(run), "--out", str(tmp_path), *given])
    assert made == [num_frames]
    counts = [len(lines(tmp_path / f"{name}.jsonl")) for name in ("00000_clip.v1", "00001_other")]
    assert counts == [num_frames // 2] * 2


@pytest.mark.slow
def test_every_and_limit_of_several_videos(run, clip, tmp_path):
    given = ["--weights", str(run), "--out", str(tmp_path), "--every", "2", "--limit", "3"]
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    visualize.main([str(clip), str(other), *given, "--threshold", "1"])
    for name in ("00000_clip.v1", "00001_other"):
        fps, frames = decoded(tmp_path / f"{name}.mp4")
        assert (fps, len(frames)) == (6.25, 3)
        entries = lines(tmp_path / f"{name}.jsonl")
        numbers = [(entry["frame"], entry["seconds"]) for entry in entries]
        assert numbers == [(0, 0), (2, 0.16), (4, 0.32)]
        assert [entry["detections"] for entry in entries] == [[], [], []]


@pytest.mark.slow
def test_the_commands_of_the_page(run, clip, tmp_path, monkeypatch):
    """Those on videos; the others are run with all pages' commands."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "shapes").symlink_to(run)
    (tmp_path / "clip.mp4").symlink_to(clip)
    page = (Path(__file__).parents[1] / "docs" / "visualize.md").read_text()
    monkeypatch.chdir(tmp_path)
    commands = [line.split() for line in page.splitlines() if "visualize.py clip.mp4" in line]
    assert len(commands) == 2
    for (_, _, *given), num_frames in zip(commands, (21, 5), strict=True):
        visualize.main([*given, "--out", str(tmp_path / "out")])
        assert len(decoded(tmp_path / "out" / "00000_clip.mp4")[1]) == num_frames


def test_a_stream_ends_with_ctrl_c_and_leaves_a_playable_file(
    run, clip, tmp_path, tmp_path_factory, monkeypatch
):
    """Whatever was decoded when the signal came is in the file, and nothing of what came after."""
    frames = videos.Video.frames

    def interrupted(self, limit, is_over):
        for frame in frames(self, limit, is_over):
            if frame.number == 6:
                os.kill(os.getpid(), signal.SIGINT)
                while not is_over():
                    pass
            yield frame

    monkeypatch.setattr(videos.Video, "frames", interrupted)
    never_reached = tmp_path_factory.mktemp("other") / "never_reached.mp4"
    never_reached.write_bytes(clip.read_bytes())
    given = ["--weights", str(run), "--out", str(tmp_path)]
    before = signal.getsignal(signal.SIGINT)
    visualize.main([str(clip), str(never_reached), *given])
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is before
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl", ".mp4"]
    assert len(decoded(tmp_path / "00000_clip.v1.mp4")[1]) == 7
    assert len(lines(tmp_path / "00000_clip.v1.jsonl")) == 7


def test_a_failure_in_the_middle_of_a_video_leaves_nothing(run, clip, tmp_path, monkeypatch):
    calls = []

    def failing(*args):
        calls.append(args)
        if len(calls) == 18:
            raise RuntimeError("no more")
        return args[0]

    monkeypatch.setattr(videos, "detections_on", failing)
    with pytest.raises(RuntimeError, match="no more"):
        visualize.main([str(clip), "--weights", str(run), "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_damage_is_said_and_a_file_that_is_no_video_writes_nothing(run, tmp_path, capsys):
    broken = tmp_path / "broken.avi"
    writer = cv2.VideoWriter(str(broken), cv2.VideoWriter.fourcc(*"MJPG"), 10, CLIP[::-1])
    for pixels in frames_of(9):
        writer.write(pixels)
    writer.release()
    data = broken.read_bytes()
    broken.write_bytes(data[: len(data) * 2 // 3])
    out = tmp_path / "out"
    given = ["--weights", str(run), "--out", str(out)]
    visualize.main([str(broken), *given])
    count = len(lines(out / "00000_broken.jsonl"))
    expected = f"{9 - count} of 9 frames could not be decoded and are left out"
    assert 2 < count < 9
    assert expected in " ".join(capsys.readouterr().err.split())
    none = tmp_path / "none.mp4"
    none.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"none\.mp4: expected a video, found nothing"):
        visualize.main([str(none), *given[:2], "--out", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


# ------------------------------------------------------------------------------------------------
# A split
# ------------------------------------------------------------------------------------------------


def test_a_split_is_judged_from_the_command_line(run, tmp_path):
    given = ["--weights", str(run), "--split", "val", "--threshold", "0.1"]
    out = visualize.main([*given, "--out", str(tmp_path / "out")])
    names = {path.name for path in out.iterdir()}
    assert {"contact_sheet.png", "worst.png", "worst.csv", "00004_val_00004.jpg"} <= names
    assert len(names) == 5 + 3
