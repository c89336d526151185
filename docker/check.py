"""Executes the Dockerfile's steps by buildah, then trains and evaluates in what they made.

    python -m docker.check             as root, with buildah and debootstrap installed
    python -m docker.check --no-gpu    without looking up what the GPU image installs: pip fetches
                                       those 3 GB to read their requirements, and drops them

Takes 4 GB below $TMPDIR while it runs. Standard library only.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from utils.program import make_parser

PROJECT = Path(__file__).parents[1]
GPU = "TENSORFLOW=tensorflow[and-cuda]"
CUDA = ("nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu12", "nvidia-nccl-cu12")
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# How this machine reaches the registries goes along with the steps; nothing else of it does.
NETWORK = re.compile(r"PIP_(CERT|INDEX_URL|DEFAULT_TIMEOUT)|(HTTPS?|NO|ALL)_PROXY", re.IGNORECASE)
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
# What `docker run` would do: as the image's user, then in an empty home as one whom no file of
# users knows and who owns nothing. The last stage keeps buildah from storing the image, a minute.
TRAIN = r"""
RUN mkdir -p "$HOME/.keras" "$RETINANET_CACHE" && {command} --set name={name} \
    data.limit=8 train.epochs=1 train.batch_size=4 train.warmup_steps=1 \
    && ! find runs/{name} '(' ! -uid "$(id -u)" -o ! -gid "$(id -g)" ')' -ls | grep .
"""
EVALUATE = "RUN python evaluate.py runs/own && python -m page --help"
STRANGER = """
USER 0:0
RUN find "$HOME" -mindepth 1 -delete
USER 4242:4242
"""
RUNS_ALONE = """
FROM scratch
COPY --from=0 /app/runs /runs
"""


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. Raises SystemExit at the first step that fails."""
    parser = make_parser(__doc__, "docker.check")
    parser.add_argument("--no-gpu", action="store_true", help="the image for CPUs alone")
    args = parser.parse_args(argv)
    missing = [
        f"no {tool}" for tool in ("buildah", "debootstrap") if not shutil.which(tool, path=PATH)
    ]
    if os.geteuid() or missing:
        here = ", ".join([f"user {os.geteuid()}", *missing])
        parser.error(f"expected to be root and to find buildah and debootstrap, found {here}")
    start = time.perf_counter()
    steps = (PROJECT / "Dockerfile").read_text("utf-8")
    found = dict(re.findall(r"^(FROM|CMD) (.*)$", steps, re.MULTILINE))
    if found.keys() != {"FROM", "CMD"}:
        raise SystemExit(f"Dockerfile: expected a FROM and a CMD, found {found}")
    with tempfile.TemporaryDirectory(prefix="docker-check-") as folder:
        store = Path(folder)
        make_base(store, found["FROM"])
        if not args.no_gpu:
            printed = build(store, steps, f"--build-arg={GPU}", "--env=PIP_DRY_RUN=1")
            for name in CUDA:
                if not re.search(rf"^Would install .* {name}-", printed, re.MULTILINE):
                    raise SystemExit(f"GPU image: expected {name} to be installed, found it is not")
        own, stranger = (
            TRAIN.format(command=shlex.join(json.loads(found["CMD"])), name=name)
            for name in ("own", "stranger")
        )
        build(store, steps + own + EVALUATE + STRANGER + stranger + RUNS_ALONE)
    print(f"passed in {time.perf_counter() - start:.0f} s")


def make_base(store: Path, name: str) -> None:
    """The image that FROM names: Debian's minimal system and its own Python stand for its content.

    A virtual environment at /usr/local has python, pip and what is installed where that image does.
    """
    base = re.fullmatch(r"python:(\d+\.\d+)-slim-(\w+)", name)
    if not base:
        raise SystemExit(f"FROM: expected python:VERSION-slim-DEBIAN, found {name!r}")
    version, release = base.groups()
    container = buildah(store, "from", "scratch").strip()
    root = buildah(store, "mount", container).strip()
    packages = f"--include=python{version},python3-venv,ca-certificates"
    network = {name: value for name, value in os.environ.items() if NETWORK.fullmatch(name)}
    # Mounts made on the way end with the namespace, and cannot be removed with the folder.
    subprocess.run(
        ["unshare", "--mount", "debootstrap", "--variant=minbase", packages, release, root],
        env=network | {"PATH": PATH},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    if Path("/", CERTIFICATES).exists():
        shutil.copyfile(Path("/", CERTIFICATES), Path(root, CERTIFICATES))
    variables = [f"--env={name}={value}" for name, value in {**network, "PATH": PATH}.items()]
    buildah(store, "config", *variables, container)
    buildah(store, "run", container, "--", f"python{version}", "-m", "venv", "/usr/local")
    buildah(store, "commit", "--rm", container, f"docker.io/library/{name}")


def build(store: Path, steps: str, *options: str) -> str:
    """Builds the project's folder as a Dockerfile of these `steps` says; what that printed."""
    (store / "Dockerfile").write_text(steps, "utf-8")
    options = ("--layers=false", "--pull-never", f"--file={store}/Dockerfile", *options)
    return buildah(store, "bud", *options, str(PROJECT))


def buildah(store: Path, *arguments: str) -> str:
    """Runs buildah without an environment of its own, with its files in the folder `store`.

    Shows and returns what it printed. Raises SystemExit unless it succeeds.
    """
    where = [f"--root={store}/images", f"--runroot={store}/run", "--storage-driver=vfs"]
    environment = {"PATH": PATH, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(store)}
    printed = []
    with subprocess.Popen(
        ["buildah", *where, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            printed.append(line)
    if process.returncode:
        raise SystemExit(f"error: buildah {arguments[0]}: exit code {process.returncode}")
    return "".join(printed)


if __name__ == "__main__":
    main()
