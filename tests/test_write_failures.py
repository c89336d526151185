"""A disk that is full, once for every file that the programs write, one after another.

A process with tests/failing_disk.c preloaded runs each program without a failure to learn what it
writes, then again for every one of these files (FAILURES: the write itself, its creation, the
rename, the sync, the making of a folder). `python -m pytest tests/test_write_failures.py -s` shows
the table of all places.
"""

import contextlib
import ctypes
import errno
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SHIM = Path(__file__).with_name("failing_disk.c")
# What fails, as the shim counts it, and with which error.
FAILURES = {
    "write": (0, errno.ENOSPC),
    "open": (1, errno.EACCES),
    "rename": (2, errno.ENOSPC),
    "sync": (3, errno.EDQUOT),
    "mkdir": (4, errno.ENOSPC),
}
ALWAYS = ("write", "open", "rename", "mkdir")
# How many files each program writes at least. (train: those that going on does not show.)
PLACES = {
    "train": 1, "resume": 14, "evaluate": 9, "images": 3, "split": 5, "video": 2,
    "savedmodel": 4, "onnx": 1, "tflite": 1, "voc": 8, "coco": 5, "csv": 6, "yolo": 7,
    "tfrecord": 3, "class files": 2, "check": 2, "preview": 1, "compare": 2, "shapes": 9,
    "download": 5,
}  # fmt: skip


@dataclass
class Scenario:
    """A program's run.

    run: writes below `disk`. before: a folder that `disk` is a copy of before. kinds: of FAILURES.
    only: which files, all if None. spare: of these names the run goes on and warns.
    named: a folder by which its files are named, where a library writes it.
    known: the name on the disk -> the name by which the user knows the file.
    """

    name: str
    run: Callable[[], object]
    before: Path | None = None
    kinds: tuple[str, ...] = ALWAYS
    only: Callable[[str, str], bool] = lambda kind, name: True
    spare: tuple[str, ...] = ()
    named: str = "\0"
    known: Callable[[str], str] = lambda name: name.replace(".part-", "")


@dataclass
class Place:
    """What happened when one file could not be written."""

    scenario: str
    kind: str
    name: str
    outcome: str = ""
    message: str = ""
    problems: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------
# The tests
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Every Place of every Scenario, by the process that has the shim."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler (cc) for the disk that fails")
    folder = tmp_path_factory.mktemp("disk")
    library = folder / "failing_disk.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, SHIM, "-ldl", "-pthread"], check=True
    )
    environment = {"LD_PRELOAD": str(library), "TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "1000"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.test_write_failures", folder],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    found = [Place(**row) for row in json.loads((folder / "places.json").read_text())]
    print()
    for place in found:
        line = f"{place.scenario:<11} {place.kind:<6} {place.outcome:<8} {place.name}"
        print(line, "" if not place.problems else f"  <- {place.problems}: {place.message[:300]}")
    print(f"{len(found)} places, {sum(not place.problems for place in found)} as they should be")
    return found


def test_every_place_names_the_file_and_leaves_the_rest_whole(places):
    wrong = [place for place in places if place.problems]
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("name", PLACES)
def test_no_place_is_left_out(places, name):
    found = {place.name for place in places if (place.scenario, place.kind) == (name, "write")}
    assert len(found) >= PLACES[name], sorted(found)


# ------------------------------------------------------------------------------------------------
# The process with the shim
# ------------------------------------------------------------------------------------------------


class Disk:
    """The folder that is watched, and the shim that watches it."""

    def __init__(self, folder: Path):
        self.folder, self._shim = folder, ctypes.CDLL(None)
        self._shim.disk_name.restype = ctypes.c_char_p

    def fail(self, kind: str, name: str = "") -> None:
        number, code = FAILURES[kind]
        folder = os.fsencode(self.folder)
        self._shim.disk_watch(folder, number, os.fsencode(name), code)

    def names(self) -> list[str]:
        return [os.fsdecode(self._shim.disk_name(i)) for i in range(self._shim.disk_count())]

    def num_failures(self) -> int:
        return self._shim.disk_failed()

    def rest(self) -> None:
        self._shim.disk_watch(os.fsencode(self.folder), -1, b"", 0)

    def reset(self, before: Path | None) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if before:
            shutil.copytree(before, self.folder, symlinks=True)
        else:
            self.folder.mkdir()


def try_places(disk: Disk, scenario: Scenario) -> list[Place]:
    """Every file of a scenario, failing one after another."""
    places = []
    for kind in scenario.kinds:
        disk.reset(scenario.before)
        disk.fail(kind)
        error, _ = outcome(scenario.run)
        names, problems = disk.names(), wholeness(disk.folder)
        disk.rest()
        if error is not None or problems:
            text = "".join(traceback.format_exception(error)) if error else str(problems)
            raise AssertionError(f"{scenario.name} without a failure: {text}")
        for name in names:
            if scenario.only(kind, name):
                disk.reset(scenario.before)
                places.append(try_place(disk, scenario, Place(scenario.name, kind, name)))
    return places


def try_place(disk: Disk, scenario: Scenario, place: Place) -> Place:
    there = {path for path in disk.folder.rglob("*") if path.is_file()}
    disk.fail(place.kind, place.name)
    error, screen = outcome(scenario.run)
    has_failed = disk.num_failures()
    disk.rest()
    text = f"error: {error}" if error is not None else screen
    place.message = text.strip()
    wanted = str(disk.folder / scenario.known(place.name))
    named = f"{disk.folder}/{scenario.named}"
    line = next((line for line in text.splitlines() if wanted in line or named in line), "")
    is_spare = any(part in place.name for part in scenario.spare)
    if isinstance(error, OSError | ValueError):
        place.outcome = "error"
    else:
        place.outcome = "warning" if error is None and line else "silent" if not error else "crash"
    reason = os.strerror(FAILURES[place.kind][1])
    for problem, is_so in {
        "did not fail": not has_failed,
        "a traceback": place.outcome == "crash" or "Traceback" in screen,
        "no line names the file": not line,
        "several lines": error is not None and "\n" in text,
        "no reason": bool(line) and reason not in line,
        "ended the run": is_spare and error is not None,
        "went on": not is_spare and error is None,
    }.items():
        place.problems += [problem] if is_so else []
    place.problems += wholeness(disk.folder)
    place.problems += [f"gone: {path}" for path in there if not path.is_file()]
    return place


def outcome(run: Callable[[], object]) -> tuple[BaseException | None, str]:
    """The exception that ended a program, if any, and what its screen showed."""
    screen = io.StringIO()
    with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(screen):
        try:
            run()
        except BaseException as error:  # whatever it is, it is what is looked at
            return error, screen.getvalue()
    return None, screen.getvalue()


def wholeness(folder: Path) -> list[str]:
    """What is left half-written, or is not what its name says."""
    problems = []
    for path in sorted(folder.rglob("*")):
        if re.match(r"\.(part|old)-", path.name) or path.name.endswith(".tmp"):
            problems.append(f"left behind: {path.name}")
        elif path.is_file():
            try:
                CHECKS.get("tfevents" if "tfevents" in path.name else path.suffix, read)(path)
            except Exception as error:  # each reader has its own
                problems.append(f"not whole: {path.name} ({type(error).__name__}: {error})")
    return problems


def read(path: Path) -> None:
    path.read_bytes()


def read_lines(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text or text.endswith("\n"), "the last line is cut"


def read_events(path: Path) -> None:
    from tensorflow.data import TFRecordDataset

    assert list(TFRecordDataset(str(path)))


def read_picture(path: Path) -> None:
    import cv2

    assert cv2.imread(str(path)) is not None


def read_video(path: Path) -> None:
    from utils.video import count_frames

    assert count_frames(path) > 0


def read_checkpoint(path: Path) -> None:
    from utils.checkpoints import Checkpoint

    Checkpoint(path)


def read_xml(path: Path) -> None:
    from lxml import etree

    etree.parse(str(path))


def read_onnx(path: Path) -> None:
    import onnx

    onnx.load(str(path))


CHECKS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".npz": read_checkpoint,
    ".png": read_picture,
    ".jpg": read_picture,
    ".mp4": read_video,
    ".xml": read_xml,
    ".onnx": read_onnx,
    ".csv": read_lines,
    ".txt": read_lines,
    ".yaml": read_lines,
    ".log": read_lines,
    ".jsonl": read_lines,
    "tfevents": read_events,
}


# ------------------------------------------------------------------------------------------------
# The programs
# ------------------------------------------------------------------------------------------------

CONFIG = """
config = preset("shapes", {{
    "name": "tiny", "output": {output!r}, "data.format": "voc", "data.root": {root!r},
    "model.backbone": Tiny, "model.neck_width": 8, "model.head_width": 8, "model.head_depth": 1,
    "model.prior": 0.4, "model.detect.max_detections": 3, "model.resize.height": 64,
    "model.resize.width": 64, "train.epochs": 2, "train.batch_size": 2, "train.warmup_steps": 0,
    "train.validate_every": 1, "train.checkpoint_every": 1, "train.sample_pictures": 1,
    "data.val": "train", "data.limit": 2,
}})
"""


def scenarios(work: Path, disk: Path) -> list[Scenario]:
    """The programs with the least that makes them write everything."""
    from data.formats.shapes import make_shapes
    from tests.tiny import TINY

    shapes = make_shapes(work / "data", 2, 1, image_size=(64, 64))
    config = work / "tiny.py"
    config.write_text(TINY + CONFIG.format(output=str(disk / "runs"), root=str(shapes)))
    return [
        *others(work, disk, shapes, config),
        *of_training(work, disk, config),
        *of_a_model(work, disk, shapes, config),
    ]


def of_training(work: Path, disk: Path, config: Path) -> list[Scenario]:
    """A new run, and one that goes on in its second epoch."""
    import train

    def new(*more: str) -> None:
        train.main(["--config", str(config), "--eager", *more])

    def is_new(kind: str, name: str) -> bool:
        """What going on does not show."""
        return "evaluation" not in name and (kind != "write" or "config.json" in name)

    def is_resumed(kind: str, name: str) -> bool:
        """Each file once; what is made durable is a file: a folder's sync may fail."""
        return kind == "write" or ("evaluation" not in name and Path(name).suffix != "")

    spare = ("diary.log", "tensorboard", "samples", "curves.png")
    describe, done = train.describe_epoch, []

    def die(*args: object) -> str:
        done.append(args)
        if len(done) == 2:
            raise KeyboardInterrupt
        return describe(*args)

    if not (work / "stopped").exists():
        disk.mkdir(exist_ok=True)
        train.describe_epoch = die
        with contextlib.suppress(KeyboardInterrupt):
            new()
        train.describe_epoch = describe
        disk.rename(work / "stopped")
    run = disk / "runs" / "tiny"
    return [
        Scenario(
            "train",
            lambda: new("--set", "train.epochs=1"),
            kinds=("write", "open", "mkdir"),
            only=is_new,
            spare=spare,
            named="runs/tiny/tensor",
        ),
        Scenario(
            "resume",
            lambda: train.main(["--resume", str(run), "--config", str(config), "--eager"]),
            work / "stopped",
            kinds=("write", "rename", "sync"),
            only=is_resumed,
            spare=spare,
            named="runs/tiny/tensor",
        ),
    ]


def of_a_model(work: Path, disk: Path, shapes: Path, config: Path) -> list[Scenario]:
    """What detects and exports; the model stands once, and is converted once."""
    import cv2
    import numpy as np
    import tf2onnx

    import export
    import visualize
    from deploy import tflite
    from detector import open_detector

    once = functools.cache(open_detector)
    visualize.open_detector = export.open_detector = lambda path, config, overrides: once(
        path, config, tuple(overrides)
    )
    tflite._converted = kept(tflite._converted)
    tf2onnx.convert.from_function = kept(tf2onnx.convert.from_function)
    weights = ["--weights", str(work / "stopped/runs/tiny"), "--config", str(config)]
    writer = cv2.VideoWriter(
        str(work / "a.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48)
    )
    for shade in (0, 80, 160):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()

    def draws(*source: object) -> Callable[[], object]:
        return lambda: visualize.main(
            [*map(str, source), *weights, "--threshold", "0", "--out", str(disk / "out")]
        )

    def exports(form: str, name: str) -> Callable[[], object]:
        given = [weights[1], *weights[2:], "--format", form, "--out", str(disk / name)]
        return lambda: export.main(given)

    once_more = work / "older"  # an older export that has to survive
    for form, name in (("savedmodel", "out"), ("onnx", "a.onnx"), ("tflite", "a.tflite")):
        if not (once_more / form).exists():
            disk.mkdir(exist_ok=True)
            exports(form, name)()
            shutil.move(disk, once_more / form)
    images = shapes / "JPEGImages"
    return [
        Scenario("images", draws(*sorted(images.glob("train*")))),
        Scenario("split", draws("--split", "train")),
        Scenario("video", draws(work / "a.mp4")),
        # A conversion takes seconds: of one file, the write stands for all that may fail.
        Scenario("onnx", exports("onnx", "a.onnx"), once_more / "onnx", ("write",)),
        Scenario("tflite", exports("tflite", "a.tflite"), once_more / "tflite", ("write",)),
        Scenario(
            "savedmodel",
            exports("savedmodel", "out"),
            once_more / "savedmodel",
            kinds=("write", "rename"),
            # A disk that refuses every rename to `out` refuses the older folder's way back, too.
            only=lambda kind, name: "/" in name,
            named="out",
        ),
    ]


def kept(function: Callable) -> Callable:
    """Its first result again and again, a copy of it if it can be changed."""
    results = []

    def first(*args: object, **kwargs: object) -> object:
        if not results:
            results.append(function(*args, **kwargs))
        return results[0]

    return first


def others(work: Path, disk: Path, shapes: Path, config: Path) -> list[Scenario]:
    """What needs no model."""
    import numpy as np

    import compare_runs
    import evaluate
    from data import check, preview
    from data.convert import __main__ as convert
    from data.detections.project_json import JSON
    from data.formats import TARGETS
    from data.formats.shapes import make_shapes
    from data.formats.voc import read_voc
    from utils.detections import DetectionTable

    dataset = read_voc(shapes, "train")
    table = DetectionTable(
        dataset.image_ids, dataset.classes, dataset.image_index, dataset.boxes,
        np.full(len(dataset.boxes), 0.5), dataset.labels,
    )  # fmt: skip
    JSON.write(work / "detections.json", table, dataset.sizes)
    out = ["--out", str(disk / "out")]
    own = ["--config", str(config)]

    def converts(form: str) -> Callable[[], object]:
        return lambda: convert.main([str(shapes), "--to", form, "--images", "copy", *out])

    def class_files() -> None:
        convert.main(["--make-class-file", str(disk / "classes.csv"), "--names", "a,b"])
        convert.main([str(shapes), "--make-class-map", str(disk / "map.csv")])

    def evaluates() -> None:
        given = ["--detections", str(work / "detections.json"), "--json", str(disk / "a.json")]
        evaluate.main([*own, *given, *out])

    run = str(work / "stopped/runs/tiny")
    pictures = ["--json", str(disk / "a.json"), "--out", str(disk / "a.png")]
    fewer = ("write", "mkdir")  # of programs that draw for a second each time
    return [
        Scenario("evaluate", evaluates, kinds=fewer),
        *(Scenario(form, converts(form)) for form in TARGETS if form != "tfrecord"),
        # A shard is renamed once it is known of how many it is one.
        Scenario("tfrecord", converts("tfrecord"), known=lambda name: name.partition("-of-")[0]),
        Scenario("class files", class_files),
        Scenario("check", lambda: check.main([*own, *out]), kinds=fewer),
        Scenario("preview", lambda: preview.main([*own, "--out", str(disk / "a.png")])),
        Scenario("compare", lambda: compare_runs.main([run, *pictures]), kinds=fewer),
        Scenario("shapes", lambda: make_shapes(disk / "out", 2, 1, image_size=(64, 64))),
        of_a_download(work, disk),
    ]


def of_a_download(work: Path, disk: Path) -> Scenario:
    """An archive from a server of this process, unpacked."""
    from data.download.archives import extract
    from utils.download import fetch

    served = work / "served"
    served.mkdir(exist_ok=True)
    with tarfile.open(served / "a.tar", "w") as archive:
        for name in ("one", "two"):
            entry = tarfile.TarInfo(f"folder/{name}.bin")
            entry.size = 5
            archive.addfile(entry, io.BytesIO(b"bytes"))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Nothing for the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["no_proxy"] = "*"

    def run() -> None:
        address = f"http://127.0.0.1:{server.server_port}/a.tar"
        path = fetch(address, disk / "a.tar")
        extract(path, disk / "out", max_bytes=10_000, max_files=10)

    def known(name: str) -> str:
        """What is beside the archive is of the archive, what it unpacks to comes without a part."""
        name = re.sub(r"^a\.tar\..*", "a.tar", name)
        return name.replace("out/.part-a.tar", "out")

    return Scenario("download", run, known=known)


def main(folder: Path, chosen: tuple[str, ...]) -> None:
    disk, places = Disk(folder / "disk"), []
    for scenario in scenarios(folder, disk.folder):
        if not chosen or scenario.name in chosen:
            start, used = time.perf_counter(), time.process_time()
            places += try_places(disk, scenario)
            took, cpu = time.perf_counter() - start, time.process_time() - used
            print(f"{scenario.name}: {took:.0f} s, {cpu:.0f} s of CPU", flush=True)
            (folder / "places.json").write_text(json.dumps([asdict(place) for place in places]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]))
