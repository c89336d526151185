"""The Dockerfile, .dockerignore, the lines of docs/docker.md and the hooks before a commit.

What needs minutes, executing the steps and training in what they made, is `python -m docker.check`.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docker.check import CUDA, GPU, STEPS, Image, copy, set_variables, set_workdir
from docker.files import context_files, instructions

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[1]
STEPS_OF_OURS = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
NOT_IN_THE_IMAGE = {"tests", "benchmarks", "images", "docker", "notebooks"}
PAGE = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")


def hadolint(text):
    tool = Path(sys.executable).with_name("hadolint")
    return subprocess.run([tool, "-"], input=text, text=True, capture_output=True, check=False)


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


# ------------------------------------------------------------------------------------------------
# The Dockerfile
# ------------------------------------------------------------------------------------------------


def test_the_linter_finds_nothing():
    found = hadolint((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert (found.stdout, found.returncode) == ("", 0), found.stderr


def test_the_linter_would_find_something():
    found = hadolint("FROM python:latest\nRUN pip install numpy\n")
    assert found.returncode == 1
    assert "DL3007" in found.stdout


def test_the_base_is_a_slim_python_that_the_makefile_would_take():
    keyword, base = STEPS_OF_OURS[0]
    minor = re.fullmatch(r"python:3\.(\d+)-slim-[a-z]+", base)
    assert keyword == "FROM"
    assert 11 <= int(minor[1]) <= 13


def test_changed_code_does_not_install_tensorflow_again():
    """A layer is made again when a file copied before it changed: here the requirements alone."""
    install = next(i for i, (_, argument) in enumerate(STEPS_OF_OURS) if "pip install" in argument)
    copied = [argument for keyword, argument in STEPS_OF_OURS[:install] if keyword == "COPY"]
    assert copied == ["requirements.txt ./"]
    assert ("COPY", ". ./") in STEPS_OF_OURS[install:]


def test_it_runs_as_a_number_that_is_not_root():
    """By number, so that an orchestrator can see that it is not root; nothing runs after it."""
    assert STEPS_OF_OURS[-2:] == [("USER", "1000:1000"), ("CMD", '["python", "train.py"]')]


def test_the_gpu_image_is_an_argument_of_the_same_file():
    arguments = dict(a.split("=") for keyword, a in STEPS_OF_OURS if keyword == "ARG")
    assert arguments.keys() == GPU.keys()
    assert [f'--build-arg {name}="{value}"' in PAGE for name, value in GPU.items()] == [True]
    assert all(name.startswith("nvidia-") for name in CUDA)


def test_every_instruction_can_be_executed_by_the_check():
    assert {keyword for keyword, _ in STEPS_OF_OURS} <= STEPS.keys()


def test_instructions_are_joined_and_comments_left_out():
    text = (
        "# a\nFROM x:1\n\nRUN one \\\n    # why\n    && two\nENV A=1 \\\n  B=$A\nrun three # no\n"
    )
    assert instructions(text) == [
        ("FROM", "x:1"),
        ("RUN", "one && two"),
        ("ENV", "A=1 B=$A"),
        ("RUN", "three # no"),
    ]


def test_a_step_changes_what_the_next_ones_see(tmp_path):
    image = Image(tmp_path, is_chroot=False, looks_up_gpu=False)
    set_workdir(image, "/app")
    set_workdir(image, "sub")
    set_variables(image, "HOME=/home/a LIST=$HOME")
    assert (image.workdir, image.place("f"), image.place("/f")) == (
        "/app/sub", tmp_path / "app/sub/f", tmp_path / "f",
    )  # fmt: skip
    assert image.env["LIST"] == "/home/a"
    copy(image, "requirements.txt ./")
    assert [path.name for path in image.place(".").iterdir()] == ["requirements.txt"]
    with pytest.raises(SystemExit, match=r"COPY: expected .*, found 'tests/conftest.py ./'"):
        copy(image, "tests/conftest.py ./")


def test_a_command_sees_nothing_of_this_machine_and_its_failure_ends_the_check(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("SECRET", "1")
    image = Image(tmp_path, is_chroot=False, looks_up_gpu=False)
    set_variables(image, "HOME=/home/a")
    seen = image.run(["env"], "0:0", {"MORE": "2"})
    assert {line.split("=")[0] for line in seen.splitlines()} == {"PATH", "HOME", "MORE"}
    assert f"HOME={tmp_path}/home/a\n" in seen
    with pytest.raises(SystemExit, match="expected exit code 0, found 3"):
        image.run(["/bin/sh", "-c", "exit 3"], "0:0")
    assert "+ /bin/sh -c exit 3" in capfd.readouterr().out


# ------------------------------------------------------------------------------------------------
# .dockerignore
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ("", "a.py b/.c/d.py b/a.py b/e/a.py b/e/f.txt c"),
        ("*", ""),
        ("*\n!*.py", "a.py"),  # a * stops at a slash
        ("*\n!b", "b/.c/d.py b/a.py b/e/a.py b/e/f.txt"),  # what a folder holds goes with it
        ("*\n!b\n**/.*", "b/a.py b/e/a.py b/e/f.txt"),
        ("*\n!b/e", "b/e/a.py b/e/f.txt"),  # let in from an ignored folder
        ("b/e/\n/c", "a.py b/.c/d.py b/a.py"),
        ("a.py", "b/.c/d.py b/a.py b/e/a.py b/e/f.txt c"),  # at the root alone, unlike git's
        ("**/a.py", "b/.c/d.py b/e/f.txt c"),  # ** may be no folder at all
        ("b/**", "a.py c"),
        ("!a.py\n*.py\n# b\n?", ""),
        ("*.py\n!a.py", "a.py b/.c/d.py b/a.py b/e/a.py b/e/f.txt c"),  # the last one decides
    ],
)
def test_patterns_mean_what_they_mean_to_an_engine(tmp_path, patterns, kept):
    names = ["a.py", "b/.c/d.py", "b/a.py", "b/e/a.py", "b/e/f.txt", "c"]
    write(tmp_path, dict.fromkeys(names, "") | {".dockerignore": patterns})
    assert [name for name in context_files(tmp_path) if name != ".dockerignore"] == kept.split()


def test_a_pattern_that_is_not_read_is_refused(tmp_path):
    write(tmp_path, {".dockerignore": "*.py[co]"})
    with pytest.raises(ValueError, match=r"\.dockerignore: expected .*, found '\*\.py\[co\]'"):
        context_files(tmp_path)


def test_all_programs_and_packages_are_in_the_image_and_nothing_else():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - NOT_IN_THE_IMAGE
    programs = {path.name for path in ROOT.glob("*.py")}
    files = context_files(ROOT)
    assert {file.split("/")[0] for file in files} == packages | programs | {"requirements.txt"}
    assert {"data/doctor/page.html", "core/weights/__main__.py", "configs/shapes.py"} <= set(files)


def test_nothing_private_and_no_cache_goes_to_the_engine(tmp_path):
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    private = [
        ".git/config", ".env", ".venv/bin/python", ".venv-parity/pyvenv.cfg", ".mypy_cache/a.json",
        "runs/shapes/config.json", "datasets/mine/1.jpg", "weights/coco/weights.npz", "photo.jpg",
        "tests/conftest.py", "core/__pycache__/heads.pyc", "data/.ipynb_checkpoints/a.py",
        "core/.part-a", "page/static/.DS_Store", "README.md", "key.pem",
    ]  # fmt: skip
    public = ["config.py", "core/heads.py", "page/static/page.css", "requirements.txt"]
    write(tmp_path, dict.fromkeys(private + public, "") | {".dockerignore": rules})
    assert context_files(tmp_path) == public


# ------------------------------------------------------------------------------------------------
# docs/docker.md
# ------------------------------------------------------------------------------------------------


def runs():
    """(options, image and what it runs) of each `docker run` of the page."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = "".join(text for language, text in blocks if not language)
    for line in lines.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:2] == ["docker", "run"]:
            image = next(i for i, word in enumerate(words) if word.startswith("retinanet"))
            yield pytest.param(words[2:image], words[image:], id=" ".join(words[image:]))


@pytest.mark.parametrize(("options", "command"), runs())
def test_a_line_of_the_page_names_what_is_there(options, command):
    image, *inner = command
    assert image in ("retinanet", "retinanet:gpu")
    assert ("--gpus" in options) == (image == "retinanet:gpu")
    assert {"--rm", "--init", "--user"} <= set(options)
    mounts = [options[i + 1].split(":") for i, option in enumerate(options) if option == "-v"]
    for here, there, *_ in mounts:
        assert there == here.replace("$PWD", "/app")
    if inner and inner[0] == "python":
        program = f"{inner[2]}/__main__.py" if inner[1] == "-m" else inner[1]
        assert program in context_files(ROOT)
    ports = [options[i + 1] for i, option in enumerate(options) if option == "-p"]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert bool(ports) == ("--host" in inner), "a server that others cannot reach, or no server"


def test_the_page_has_lines():
    assert len(list(runs())) >= 5


# ------------------------------------------------------------------------------------------------
# .pre-commit-config.yaml
# ------------------------------------------------------------------------------------------------


def test_hooks_are_local_and_use_the_versions_of_the_tests():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = {hook["id"]: hook for hook in config["repos"][0]["hooks"]}
    assert {"ruff-check", "ruff-format", "mypy", "hadolint"} <= hooks.keys()
    wanted = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    for name in ("ruff-check", "ruff-format", "hadolint"):
        assert set(hooks[name]["additional_dependencies"]) <= set(wanted)
