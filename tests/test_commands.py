"""Every command and every piece of Python in README.md, CONTRIBUTING.md and docs/ is run.

As it stands there, in a folder with tiny data and a tiny trained run, but for what makes a training
short (`SHORTER`) and for paths that stand for one's own (`STANDS_FOR`); of benchmarks/ only that
the arguments are taken. What this cannot run is run or held elsewhere: `ELSEWHERE` says where.
"""

import argparse
import importlib
import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import cv2
import pytest

import configs
from data import datasets
from data.shapes import make_shapes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL, PYTHON = ("", "sh"), ("python",)
TINY = {
    "train.epochs": 1, "train.batch_size": 2, "data.limit": 4, "model.resize": "canvas",
    "model.resize.height": 64, "model.resize.width": 64,
}  # fmt: skip
SHORTER = {"train.py": ["--set", *(f"{name}={value}" for name, value in TINY.items())]}
STANDS_FOR = {"PATH/TO/bccd": "datasets/bccd", "PATH": "datasets/bccd", "SOURCE": "datasets/mine"}
# First words -> the file that runs them, or what they stand for.
ELSEWHERE = {
    "make": "Makefile",
    "python3 -m venv": "Makefile",
    ".": "Makefile",
    "pip install": "Makefile",
    "pre-commit install": ".pre-commit-config.yaml",
    "python -m pytest": "Makefile",
    "python -m core.weights import": "tests/core/weights/test_published.py",
    "python -m data.download": "tests/data/test_download.py",
    "python -m docker.check": "Makefile",
    "python -m images.make": "tests/images/test_make.py",
    "python -m page": "tests/page/test_browser.py",
    "python visualize.py rtsp://192.168.0.20/live": "tests/utils/test_video.py",
    "python visualize.py --camera": "tests/utils/test_video.py",
    "docker build": "tests/test_docker.py",
    "tensorboard": "tests/test_train.py",
}


def blocks(page, languages):
    """(line, text) of each fenced block of these languages."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if match[1] in languages:
            yield text[: match.start()].count("\n") + 2, match[2]


def commands(page):
    """The words of each command, without comments; lines that end with \\ go on.

    Of blocks, and those between backticks but for `python a.py ...` and `--metric voc|coco`.
    """
    inline = re.findall(r"`(python [^`|]+[^`|.])`", page.read_text(encoding="utf-8"))
    for text in [*(text for _, text in blocks(page, SHELL)), *inline]:
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                place = words.index("&&")
                yield words[:place]
                words = words[place + 1 :]
            if words:
                yield words


def all_commands():
    """Each once, though several pages may have it."""
    found = {tuple(words): page.name for page in reversed(PAGES) for words in commands(page)}
    for words, name in found.items():
        yield pytest.param(list(words), id=f"{name}: {' '.join(words)}")


def all_pieces():
    for page in PAGES:
        for line, text in blocks(page, PYTHON):
            yield pytest.param(text, id=f"{page.name}, line {line}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a person stands: config.py, datasets, photos, and runs of a tiny training."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "config.py", folder)
    (folder / "configs").symlink_to(ROOT / "configs")
    for name in ("mine", "shapes", "bccd"):
        tiny_shapes(folder / "datasets" / name)
    splits = folder / "datasets" / "bccd" / "ImageSets" / "Main"
    for name, other in (("train", "trainval"), ("val", "test")):
        (splits / f"{name}.txt").rename(splits / f"{other}.txt")
    photo = folder / "datasets" / "mine" / "JPEGImages" / "val_00000.jpg"
    for name in ("photo.jpg", "street.jpg", "harbour.png", "holiday/1.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(photo, folder / name)
    clip = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 64))
    for _ in range(6):
        clip.write(cv2.imread(str(photo)))
    clip.release()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(datasets, "make_shapes", tiny_shapes)
        run(["train.py"])
        for name in ("mine", "bccd", "a", "b"):
            shutil.copytree("runs/shapes", f"runs/{name}")
        Path("weights/coco").mkdir(parents=True)
        shutil.copy("runs/shapes/checkpoints/best.npz", "weights/coco/weights.npz")
        yield folder


def tiny_shapes(root):
    return make_shapes(root, 8, 8, image_size=(64, 64))


@pytest.mark.parametrize("words", all_commands())
def test_a_command_runs(words, folder, monkeypatch):
    monkeypatch.chdir(folder)
    shutil.rmtree("DIR", ignore_errors=True)
    elsewhere = [file for start, file in ELSEWHERE.items() if words[: len(s := start.split())] == s]
    if elsewhere:
        assert (ROOT / elsewhere[0]).is_file()
        return
    python, *rest = words
    assert python == "python", f"{words}: expected python, or a line in ELSEWHERE"
    if any(word.startswith("benchmarks.") for word in rest):  # hours: only that it takes these
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    try:
        run(rest)
    except SystemExit as stop:
        if stop.code:
            raise


def parse_and_stop(parser, argv=None):
    _, unknown = parser.parse_known_args(argv)
    raise SystemExit(f"unknown: {unknown}" if unknown else 0)


def run(words):
    """A script or a module, in this process."""
    if words[0] == "-m":
        name, given = words[1], words[2:]
        found = importlib.util.find_spec(name)
        is_package = found.submodule_search_locations is not None
        module = importlib.import_module(f"{name}.__main__" if is_package else name)
    else:
        name, given = words[0], words[1:]
        module = importlib.import_module(Path(name).stem)
    pattern = r"\b(" + "|".join(STANDS_FOR) + r")\b"
    given = [re.sub(pattern, lambda match: STANDS_FOR[match[0]], word) for word in given]
    if name == "train.py" and "--resume" not in given:
        given += SHORTER[name]
    module.main(given)


@pytest.mark.parametrize("text", all_pieces())
def test_a_piece_of_python_runs(text, folder, monkeypatch):
    monkeypatch.chdir(folder)
    exec(compile(text, "docs", "exec"), {"preset": configs.preset})
