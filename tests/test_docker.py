"""The Dockerfile, .dockerignore, the lines of docs/docker.md and the hooks before a commit.

What needs minutes, executing the steps and training in what they made, is `python -m docker.check`.
With REQUIRE_BUILDAH=1 a test that needs root and buildah and cannot run has failed.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docker import check
from docker.check import CUDA, GPU, buildah

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[1]
NOT_IN_THE_IMAGE = {"tests", "benchmarks", "images", "docker", "notebooks"}
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")} - NOT_IN_THE_IMAGE
PAGE = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
# (keyword, argument) of each instruction, continued lines joined, comments left out.
CODE = re.sub(r"\s*\\\n\s*", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE))
STEPS = [tuple(line.split(" ", 1)) for line in CODE.splitlines() if line]


def hadolint(text):
    tool = Path(sys.executable).with_name("hadolint")
    return subprocess.run([tool, "-"], input=text, text=True, capture_output=True, check=False)


# ------------------------------------------------------------------------------------------------
# The Dockerfile
# ------------------------------------------------------------------------------------------------


def test_the_linter_finds_nothing():
    found = hadolint(TEXT)
    assert (found.stdout, found.returncode) == ("", 0), found.stderr


def test_the_linter_would_find_something():
    found = hadolint("FROM python:latest\nRUN pip install numpy\n")
    assert found.returncode == 1
    assert "DL3007" in found.stdout


def test_the_base_is_a_slim_python_that_the_makefile_would_take():
    keyword, base = STEPS[0]
    minor = re.fullmatch(r"python:3\.(\d+)-slim-[a-z]+", base)
    assert keyword == "FROM"
    assert 11 <= int(minor[1]) <= 13


def test_changed_code_does_not_install_tensorflow_again():
    """A layer is made again when a file copied before it changed: here the requirements alone."""
    install = next(i for i, (_, argument) in enumerate(STEPS) if "pip install" in argument)
    copied = [argument for keyword, argument in STEPS[:install] if keyword == "COPY"]
    assert copied == ["requirements.txt ./"]
    assert ("COPY", ". ./") in STEPS[install:]


def test_it_runs_as_a_number_that_is_not_root():
    """By number, so that an orchestrator can see that it is not root; nothing runs after it."""
    assert STEPS[-2:] == [("USER", "1000:1000"), ("CMD", '["python", "train.py"]')]


def test_the_gpu_image_is_an_argument_of_the_same_file():
    name, _, value = GPU.partition("=")
    assert [a.split("=")[0] for keyword, a in STEPS if keyword == "ARG"] == [name]
    assert f'--build-arg {name}="{value}"' in PAGE
    assert all(name.startswith("nvidia-") for name in CUDA)


# ------------------------------------------------------------------------------------------------
# docker/check.py
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """As root, beside a buildah that is a shell script -> what writes that script."""
    monkeypatch.setattr(check, "PATH", f"{tmp_path}/bin:{check.PATH}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "bin").mkdir()

    def write(script):
        for name, text in (("buildah", script), ("debootstrap", ""), ("unshare", "")):
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / "bin" / name).chmod(0o755)

    return write


def test_buildah_sees_nothing_of_this_machine_and_its_failure_ends_the_check(
    fake, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("SECRET", "1")
    fake("env; exit 0")
    seen = dict(line.split("=", 1) for line in buildah(tmp_path, "images").splitlines())
    assert seen.keys() - {"PWD", "SHLVL", "_"} == {"PATH", "TMPDIR", "BUILDAH_ISOLATION"}
    assert seen["TMPDIR"] == str(tmp_path)
    assert f"TMPDIR={tmp_path}" in capfd.readouterr().out
    fake("exit 3")
    with pytest.raises(SystemExit, match="buildah images: exit code 3"):
        buildah(tmp_path, "images")


def test_without_root_or_a_tool_one_line_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check, "PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit):
        check.main([])
    expected = (
        "expected to be root and to find buildah and debootstrap, found user 1000, no buildah"
    )
    assert f"error: {expected}, no debootstrap\n" in capsys.readouterr().err


def test_the_steps_of_the_file_are_built_and_then_its_command_is_tried_by_two_users(
    fake, tmp_path, monkeypatch
):
    monkeypatch.setenv("PIP_INDEX_URL", "https://a/simple")
    monkeypatch.setenv("PIP_TARGET", "/tmp")
    root = tmp_path / "root"
    (root / "etc" / "ssl" / "certs").mkdir(parents=True)
    fake(
        f'echo "$@" >> {tmp_path}/log; case "$4" in from) echo one;; mount) echo {root};; '
        f"bud) cat ${{TMPDIR}}/Dockerfile > {tmp_path}/steps;; esac"
    )
    check.main(["--no-gpu"])
    log = [line.split()[3:] for line in (tmp_path / "log").read_text().splitlines()]
    assert [words[0] for words in log] == ["from", "mount", "config", "run", "commit", "bud"]
    assert log[4][-1] == f"docker.io/library/{STEPS[0][1]}"
    variables = {word.split("=")[1] for word in log[2] if word.startswith("--env=")}
    assert {"PATH", "PIP_INDEX_URL"} <= variables
    assert "PIP_TARGET" not in variables
    assert {"--pull-never", str(ROOT)} <= {*log[5]}
    steps = (tmp_path / "steps").read_text()
    assert steps.startswith(TEXT)
    users, command = steps[len(TEXT) :].split("USER 4242:4242"), json.loads(STEPS[-1][1])
    for text, name in zip(users, ("own", "stranger"), strict=True):
        assert f"{shlex.join(command)} --set name={name} " in text
    (folder,) = [Path(word.split("=")[1]).parent for word in log[5] if word.startswith("--file=")]
    assert not folder.exists()


def test_a_gpu_image_without_cuda_ends_the_check(fake, tmp_path):
    found = " ".join(f"{name}-12.9" for name in CUDA[1:])
    (tmp_path / "etc" / "ssl" / "certs").mkdir(parents=True)
    fake(f'case "$4" in mount) echo {tmp_path};; bud) echo "Would install {found}";; esac')
    with pytest.raises(SystemExit, match=f"expected {CUDA[0]} to be installed, found it is not"):
        check.main([])


def test_a_base_that_debian_cannot_stand_for_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"^FROM: expected .*, found 'python:3\.13'"):
        check.make_base(tmp_path, "python:3.13")


# ------------------------------------------------------------------------------------------------
# .dockerignore
# ------------------------------------------------------------------------------------------------


def test_all_programs_and_packages_are_let_in_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    all_out, *let_in, caches, hidden = (line for line in lines if not line.startswith("#"))
    assert (all_out, caches, hidden) == ("*", "**/__pycache__", "**/.*")
    assert {*let_in} == {f"!{name}" for name in PACKAGES | {"*.py", "requirements.txt"}}


def test_nothing_private_and_no_cache_goes_to_the_engine(tmp_path):
    if os.geteuid() or not shutil.which("buildah"):
        message = "expected to be root and to find buildah (Debian: apt-get install buildah)"
        assert os.environ.get("REQUIRE_BUILDAH") != "1", message
        pytest.skip(message)
    private = [
        ".git/config", ".env", ".venv/bin/python", ".venv-parity/pyvenv.cfg", ".mypy_cache/a.json",
        "runs/shapes/config.json", "datasets/mine/1.jpg", "weights/coco/weights.npz", "photo.jpg",
        "tests/conftest.py", "core/__pycache__/heads.pyc", "data/.ipynb_checkpoints/a.py",
        "core/.part-a", "page/static/.DS_Store", "README.md", "key.pem",
    ]  # fmt: skip
    public = {"config.py", "core/heads.py", "page/static/page.css", "requirements.txt"}
    context = tmp_path / "context"
    for name in (*private, *public):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).touch()
    shutil.copy(ROOT / ".dockerignore", context)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . ./\n")
    buildah(tmp_path, "bud", f"--file={tmp_path}/Dockerfile", "--tag=files", str(context))
    container = buildah(tmp_path, "from", "localhost/files").strip()
    root = Path(buildah(tmp_path, "mount", container).strip())
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == public


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
        program = Path(f"{inner[2]}/__main__.py" if inner[1] == "-m" else inner[1])
        assert (ROOT / program).is_file()
        assert program.parts[0] in PACKAGES or len(program.parts) == 1
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
