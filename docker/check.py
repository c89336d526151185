"""Executes the Dockerfile's steps without an engine, then trains and evaluates in what they made.

    python -m docker.check             as root, with debootstrap installed: in a folder that holds
                                       the base image's Debian and nothing else, by chroot
    python -m docker.check --venv      anyone: in a new virtual environment with an empty home; of
                                       the RUN steps only those of pip
    python -m docker.check --no-gpu    without looking up what the GPU image installs: pip fetches
                                       those 3 GB to read their requirements, and drops them

Takes 4 GB below $TMPDIR while it runs. Standard library only.
"""

import json
import os
import re
import shutil
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from utils.program import make_parser

from docker.files import context_files, instructions

PROJECT = Path(__file__).parents[1]
GPU = {"TENSORFLOW": "tensorflow[and-cuda]"}
CUDA = ("nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu12", "nvidia-nccl-cu12")
STRANGER = "4242:4242"  # a `docker run --user` whom no file of users knows and who owns nothing
TINY = ("data.limit=8", "train.epochs=1", "train.batch_size=4", "train.warmup_steps=1")
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# How this machine reaches the registries goes along with the RUN steps; nothing else of it does.
NETWORK = re.compile(r"PIP_(CERT|INDEX_URL|DEFAULT_TIMEOUT)|(HTTPS?|NO|ALL)_PROXY", re.IGNORECASE)
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


@dataclass
class Image:
    """What the steps have come to so far, in the folder `root`."""

    root: Path
    is_chroot: bool
    looks_up_gpu: bool
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    command: list[str] = field(default_factory=list)

    def place(self, path: str) -> Path:
        """Where a path of the image, absolute or below its WORKDIR, lies on this machine."""
        return self.root / os.path.join(self.workdir, path).lstrip("/")

    def run(self, command: list[str], user: str, extra: dict[str, str] | None = None) -> str:
        """Runs a command as `docker run --user` would; shows and returns what it printed.

        extra: variables beside the image's own. Raises SystemExit unless the command succeeds.
        """
        print("+", *command, flush=True)
        env = self.env | (extra or {})
        if self.is_chroot:
            outer = [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
                *(f"--mount-proc={self.root}/proc", "chroot", f"--userspec={user}", "--groups="),
                *(str(self.root), "env", f"--chdir={self.workdir}"),
            ]
        else:
            inside = {n: str(self.place(v)) for n, v in self.env.items() if v.startswith("/")}
            env |= inside | {"PATH": f"{self.place('/usr/local/bin')}:{PATH}"}
            outer = ["env", f"--chdir={self.place('.')}"]
        outer += [f"{name}={value}" for name, value in env.items()]
        printed = []
        with subprocess.Popen(
            [*outer, *command], env={"PATH": PATH}, stdout=subprocess.PIPE, text=True
        ) as process:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                printed.append(line)
        if process.returncode:
            raise SystemExit(f"error: expected exit code 0, found {process.returncode}")
        return "".join(printed)


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. Raises SystemExit at the first step that fails."""
    parser = make_parser(__doc__, "docker.check")
    parser.add_argument("--venv", action="store_true", help="in a virtual environment, no chroot")
    parser.add_argument("--no-gpu", action="store_true", help="the image for CPUs alone")
    args = parser.parse_args(argv)
    if not args.venv and not (os.geteuid() == 0 and shutil.which("debootstrap", path=PATH)):
        parser.error("expected to be root and to find debootstrap; --venv needs neither")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="docker-check-") as folder:
        Path(folder).chmod(0o755)
        image = Image(Path(folder), is_chroot=not args.venv, looks_up_gpu=not args.no_gpu)
        for keyword, argument in instructions((PROJECT / "Dockerfile").read_text("utf-8")):
            if keyword not in STEPS:
                raise SystemExit(f"Dockerfile: expected one of {', '.join(STEPS)}, found {keyword}")
            print(f"== {time.perf_counter() - start:.0f} s: {keyword} {argument}", flush=True)
            STEPS[keyword](image, argument)
        for user in (STRANGER, image.user) if image.is_chroot else (image.user,):
            print(f"== {time.perf_counter() - start:.0f} s: as user {user}", flush=True)
            run_folder = train(image, user)
        image.run(["python", "evaluate.py", run_folder], image.user)
        image.run(["python", "-m", "page", "--help"], image.user)
        size = sum(path.lstat().st_size for path in image.root.rglob("*"))
    print(f"passed in {time.perf_counter() - start:.0f} s; the files take {size / 1e9:.1f} GB")


# ------------------------------------------------------------------------------------------------
# The steps
# ------------------------------------------------------------------------------------------------


def start_from(image: Image, argument: str) -> None:
    """FROM: Debian's minimal system and its own Python stand for the base image's.

    A virtual environment at /usr/local has python, pip and what is installed where that image does.
    """
    base = re.fullmatch(r"python:(\d+\.\d+)-slim-(\w+)", argument)
    if not base:
        raise SystemExit(f"FROM: expected python:VERSION-slim-DEBIAN, found {argument!r}")
    version, release = base.groups()
    if not image.is_chroot:
        subprocess.run([sys.executable, "-m", "venv", image.place("/usr/local")], check=True)
        return
    packages = f"--include=python{version},python3-venv,ca-certificates"
    # Mounts made on the way end with the namespace, and cannot be removed with the folder.
    subprocess.run(
        ["unshare", "--mount", "debootstrap", "--variant=minbase", packages, release, image.root],
        env=network() | {"PATH": PATH},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    if os.path.exists(CERTIFICATES):
        shutil.copyfile(CERTIFICATES, image.place(CERTIFICATES))
    image.run([f"python{version}", "-m", "venv", "/usr/local"], image.user)


def network() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if NETWORK.fullmatch(name)}


def set_workdir(image: Image, argument: str) -> None:
    image.workdir = os.path.join(image.workdir, argument)
    image.place(".").mkdir(parents=True, exist_ok=True)


def set_variables(image: Image, argument: str) -> None:
    for name, value in (pair.split("=", 1) for pair in argument.split()):
        image.env[name] = string.Template(value).substitute(image.arguments | image.env)


def set_argument(image: Image, argument: str) -> None:
    name, _, value = argument.partition("=")
    image.arguments[name] = value


def copy(image: Image, argument: str) -> None:
    """COPY of one file or of all into the WORKDIR, less what .dockerignore leaves out."""
    source, target = argument.split()
    files = [file for file in context_files(PROJECT) if source in (".", file)]
    if not files or target != "./":
        raise SystemExit(f"COPY: expected '. ./' or 'FILE ./' with files, found {argument!r}")
    for file in files:
        image.place(file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / file, image.place(file))


def run_shell(image: Image, argument: str) -> None:
    """RUN by /bin/sh; before it, what is the GPU image's is looked up with pip's --dry-run."""
    if not image.is_chroot and not argument.startswith("pip "):
        print("(left out in a virtual environment)")
        return
    shell = ["/bin/sh", "-c", argument]
    extra = network() | image.arguments
    if image.looks_up_gpu and any(f"${name}" in argument for name in GPU):
        found = image.run(shell, image.user, extra | GPU | {"PIP_DRY_RUN": "1"})
        for name in CUDA:
            if f" {name}-" not in found.splitlines()[-1]:
                raise SystemExit(f"GPU image: expected {name} to be installed, found it is not")
    image.run(shell, image.user, extra)


def set_user(image: Image, argument: str) -> None:
    image.user = argument


def set_command(image: Image, argument: str) -> None:
    image.command = json.loads(argument)


STEPS: dict[str, Callable[[Image, str], None]] = {
    "FROM": start_from,
    "WORKDIR": set_workdir,
    "ENV": set_variables,
    "ARG": set_argument,
    "COPY": copy,
    "RUN": run_shell,
    "USER": set_user,
    "CMD": set_command,
}


# ------------------------------------------------------------------------------------------------
# What docker run would do
# ------------------------------------------------------------------------------------------------


def train(image: Image, user: str) -> str:
    """The image's command on eight images, as `user`, in a home that is empty; the run's folder.

    Raises SystemExit if it fails, if home or the cache of weights cannot be written, or if a file
    that training left belongs to somebody else.
    """
    home = image.place(image.env["HOME"])
    home.mkdir(parents=True, exist_ok=True)
    for left in home.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    image.run(["/bin/sh", "-c", 'mkdir -p "$HOME/.keras" "$RETINANET_CACHE"'], user)
    name = f"check-{user.split(':')[0]}"
    image.run([*image.command, "--set", f"name={name}", *TINY], user)
    files = [path for path in image.place(f"runs/{name}").rglob("*") if path.is_file()]
    owners = {f"{path.stat().st_uid}:{path.stat().st_gid}" for path in files}
    if image.is_chroot and owners != {user}:
        raise SystemExit(f"runs/{name}: expected files of {user} alone, found {sorted(owners)}")
    return f"runs/{name}"


if __name__ == "__main__":
    main()
