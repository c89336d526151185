"""Every command and every piece of Python in README.md, CONTRIBUTING.md and docs/ is run.

As it stands there, in a folder with tiny data and a tiny trained run, but for what makes a training
short (`SHORTER`) and for paths that stand for one's own (`STANDS_FOR`). Of some only that their
arguments are taken (`PARSED`); make's targets and what sets up are looked up.
"""

import argparse
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

import configs
from data.formats import FORMATS
from data.formats.shapes import make_shapes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL, PYTHON = ("", "sh"), ("python",)
TINY = {
    "train.epochs": 1, "train.batch_size": 2, "data.limit": 4, "model.resize": "canvas",
    "model.resize.height": 64, "model.resize.width": 64, "model.neck_width": 32,
    "model.head_width": 32, "model.head_depth": 1,
}  # fmt: skip
SHORTER = {"train.py": ["--set", *(f"{name}={value}" for name, value in TINY.items())]}
STANDS_FOR = {"PATH/TO/bccd": "datasets/bccd", "PATH": "datasets/bccd", "SOURCE": "datasets/mine"}
# Hours, servers, cameras or downloads: of these only that they take the arguments.
PARSED = (
    "-m benchmarks.", "-m core.weights import", "-m data.download", "-m docker.check",
    "-m images.make", "-m page", "visualize.py rtsp:", "visualize.py --camera",
    "train.py --resume runs/mine --set",
)  # fmt: skip
# What installs and what only an engine can do; what it is about is there.
SETS_UP = {
    "python3 -m venv": "Makefile",
    ". .venv/bin/activate": "Makefile",
    "pre-commit install": ".pre-commit-config.yaml",
    "docker build": "Dockerfile",
    "pip install onnxruntime": "requirements-export.txt",
    "pip install playwright": "requirements-dev.txt",
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
    inline = [" ".join(text.split()) for text in inline]
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
    """Each once, though several pages may have it; of `docker run` what runs inside."""
    found = {}
    for page in reversed(PAGES):
        for words in commands(page):
            if words[:2] == ["docker", "run"]:
                image = next(i for i, word in enumerate(words) if word.startswith("retinanet"))
                words = words[image + 1 :] or ["python", "train.py"]
            found[tuple(words)] = page.name
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
        tiny = replace(FORMATS["shapes"], prepare=tiny_shapes)
        monkeypatch.setitem(FORMATS, "shapes", tiny)
        run(["train.py"])
        for name in ("mine", "bccd", "a", "b"):
            shutil.copytree("runs/shapes", f"runs/{name}", copy_function=os.link)
        Path("weights/coco").mkdir(parents=True)
        shutil.copy("runs/shapes/checkpoints/best.npz", "weights/coco/weights.npz")
        yield folder


def tiny_shapes(root):
    return make_shapes(root, 8, 8, image_size=(64, 64))


@pytest.mark.parametrize("words", all_commands())
def test_a_command_runs(words, folder, monkeypatch):
    monkeypatch.chdir(folder)
    shutil.rmtree("DIR", ignore_errors=True)
    match words:
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["pip", "install", "-r", name] | ["python", "-m", "pytest", name, *_]:
            assert (ROOT / name).is_file()
        case ["python", "-m", "pytest"]:
            assert "-m pytest" in (ROOT / "Makefile").read_text()
        case ["tensorboard", *_]:
            assert Path(sys.executable).with_name("tensorboard").is_file()
        case ["python", *rest]:
            if " ".join(rest).startswith(PARSED):
                monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
            run_to_the_end(rest)
        case _:
            (file,) = (file for start, file in SETS_UP.items() if " ".join(words).startswith(start))
            assert (ROOT / file).is_file()


def run_to_the_end(words):
    try:
        run(words)
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
def test_a_piece_of_python_runs(text, folder, tmp_path, monkeypatch):
    """With a copy of deploy/exported.py on the path, as the docs say."""
    monkeypatch.chdir(folder)
    shutil.copy(ROOT / "deploy" / "exported.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "exported", raising=False)
    exec(compile(text, "docs", "exec"), {"preset": configs.preset})
