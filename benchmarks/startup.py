"""How long until training trains: `python -m benchmarks.startup`.

Seconds from the command `python train.py` with the default preset, as a user types it, to its first
finished step and to its first finished validation. The command runs unchanged in a terminal of its
own, and what it shows there is the clock: the progress bar's first loss, drawn at most a tenth of a
second after its step, and the diary's first line with a validation. For the latter the data is cut
to --limit images, because an epoch's length is no start-up cost. The dataset is generated before.
Leaves in --out startup.json and startup.md.
"""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from utils.program import make_parser

import numpy as np

from benchmarks.interleave import ROOT
from benchmarks.machine import description, headline, require_idle
from utils.files import write_text

# The bar holds this only once a step has been made; the diary's lines begin with the time.
FIRST_STEP = r"loss \d+\.\d+ = class"
FIRST_VALIDATION = r"epoch 1, .*val loss"
TIMEOUT = 600  # seconds
GENERATE = "import sys; from data.formats.shapes import make_shapes; make_shapes(sys.argv[1])"


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, default=64, help="images until the first validation")
    parser.add_argument("--out", default="runs/benchmarks/startup")
    parser.add_argument("--busy", action="store_true", help="measure though others compute")
    args = parser.parse_args(argv)
    others = require_idle(allow_busy=args.busy)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), args.repeats, args.limit)
    report = {"machine": description(), "others_at_start": others, "busy": args.busy, **found}
    write_text(Path(args.out) / "startup.json", json.dumps(report, indent=1))
    write_text(Path(args.out) / "startup.md", markdown(report))
    print(markdown(report))


def measure(folder: Path, repeats: int, limit: int) -> dict[str, list[float]]:
    """Seconds by what was waited for."""
    data = folder / "shapes"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", GENERATE, str(data)], cwd=ROOT, check=True)
    found = {"generating the dataset": [time.perf_counter() - start]}
    common = [f"data.root={data}", f"output={folder / 'runs'}"]
    short = [*common, f"data.limit={limit}", "train.validate_every=1"]
    waits = {
        "first step": (FIRST_STEP, common),
        f"first validation, {limit} images": (FIRST_VALIDATION, short),
    }
    for name, (pattern, settings) in waits.items():
        command = [sys.executable, "train.py", "--set", *settings]
        found[name] = [seconds_until(pattern, command) for _ in range(repeats)]
    return found


def seconds_until(pattern: str, command: Sequence[str], timeout: float = TIMEOUT) -> float:
    """Runs the command in a terminal until it shows the pattern, and stops it there.

    Raises RuntimeError, with the end of what it showed, if it ends or takes too long before.
    """
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "250", "LINES": "50"}
    start, shown = time.perf_counter(), ""
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        while time.perf_counter() - start < timeout:
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            text = _read(ours)
            now = time.perf_counter() - start
            shown += plain(text)
            if re.search(pattern, shown):
                return now
            if not text:
                break
        raise RuntimeError(f"{' '.join(command)}: never showed {pattern!r}, only\n{shown[-2000:]}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)


def _read(terminal: int) -> str:
    """What is there; empty at the end, which Linux calls an error."""
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:
        return ""


def plain(text: str) -> str:
    """Without the terminal's codes for colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def markdown(report: dict) -> str:
    lines = [headline(report["machine"], report["busy"]), ""]
    lines += ["| from the command to | minimum | median | runs |", "|---|---:|---:|---:|"]
    for name, values in report.items():
        if isinstance(values, list):
            numbers = f"{min(values):.1f} s | {np.median(values):.1f} s | {len(values)}"
            lines.append(f"| {name} | {numbers} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
