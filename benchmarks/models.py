"""Inference and training step beside torchvision, keras-hub and the floor.

    python -m benchmarks.models                    ResNet-50, 416 px, 20 classes
    python -m benchmarks.models --all              every depth, size and number of classes
    python -m benchmarks.models --depth 18 --tasks train --only 'torchvision|eager' --rounds 5

In an environment with requirements-parity.txt. Leaves in --out results.json, results.md and
results.png. The same weights, pixels and boxes for all; only what has the same task, network and
precision is compared, in the same rounds, in processes of their own of which one works at a time.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from utils.program import make_parser

import numpy as np

from benchmarks import report
from benchmarks.contestants.job import BATCH, Job
from benchmarks.interleave import ROOT, Times, Worker, interleaved
from benchmarks.machine import description, headline, require_idle
from benchmarks.outputs import compare, sentence
from utils.files import write_text

ALL = {"depth": (18, 50), "size": (320, 416, 640), "classes": (20, 80)}
HEADLINE = {"depth": (50,), "size": (416,), "classes": (20,)}
EAGER_AT = (50, 416, 20)  # depth, size, classes at which the step without a graph is timed
IOU = {"float32": 0.99, "bfloat16": 0.9}  # above it, detections count as the same
CONTESTANTS = {  # precision -> (library, variant); of a group, others are compared to the first
    "float32": (
        ("ours", "frozen"),
        ("ours", "compiled"),
        ("ours", "eager"),
        ("torchvision", "as it comes"),
        ("torchvision", "channels_last"),
        ("torchvision", "inductor"),
        ("keras_hub", "no XLA"),
        ("keras_hub", "XLA"),
        ("floor", "convolutions at matmul speed"),
    ),
    "bfloat16": (
        ("ours", "frozen"),
        ("ours", "compiled"),
        ("torchvision", "channels_last"),
        ("torchvision", "inductor"),
        ("keras_hub", "no XLA"),
        ("keras_hub", "XLA"),
        ("floor", "convolutions at matmul speed"),
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    jobs = chosen(jobs_of(args), args.only)
    others = require_idle(allow_busy=args.busy)
    groups = []
    with tempfile.TemporaryDirectory() as folder:
        for key, members in itertools.groupby(jobs, key=lambda job: job.group):
            print(f"{title(key)} ...", file=sys.stderr, flush=True)
            groups.append(measure(key, list(members), folder, args.rounds, args.busy))
            # After each group, so that a run that is stopped leaves what it has found.
            write(Path(args.out), groups, args, others)
    print((Path(args.out) / "results.md").read_text(encoding="utf-8"))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    for name in ALL:
        parser.add_argument(f"--{name}", type=int, nargs="+", help=f"default {HEADLINE[name][0]}")
    parser.add_argument("--all", action="store_true", help=f"all of {ALL} not given otherwise")
    parser.add_argument("--tasks", nargs="+", default=list(BATCH), choices=list(BATCH))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--only", metavar="PATTERN", help="these, beside the first: a regular expression"
    )
    parser.add_argument("--out", default="runs/benchmarks/models")
    parser.add_argument("--busy", action="store_true", help="measure though others compute")
    args = parser.parse_args(argv)
    for name in ALL:
        if getattr(args, name) is None:
            setattr(args, name, (ALL if args.all else HEADLINE)[name])
    return args


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """All contestants, those that are compared beside each other; weights are not made yet."""
    jobs = []
    networks = itertools.product(args.depth, args.size, args.classes)
    for network, task, precision in itertools.product(networks, args.tasks, CONTESTANTS):
        depth, size, classes = network
        for library, variant in CONTESTANTS[precision]:
            if variant in ("frozen", "inductor") and task != "inference":
                continue
            if variant == "eager" and (task != "train" or network != EAGER_AT):
                continue
            jobs.append(Job(library, task, precision, variant, depth, size, classes, weights=""))
    return jobs


def chosen(jobs: Sequence[Job], pattern: str | None) -> list[Job]:
    """Those whose name the pattern is found in, and in each group the one compared to."""
    firsts = {job.group: job for job in reversed(jobs)}
    return [
        job
        for job in jobs
        if not pattern or job is firsts[job.group] or re.search(pattern, job.name)
    ]


def title(key: tuple) -> str:
    depth, size, classes, task, precision = key
    batch = f"batch {BATCH[task]}"
    return f"ResNet-{depth}, {size} px, {classes} classes: {task}, {precision}, {batch}"


# ------------------------------------------------------------------------------------------------
# One group
# ------------------------------------------------------------------------------------------------


def measure(key: tuple, jobs: Sequence[Job], folder: str, rounds: int, allow_busy: bool) -> dict:
    """JSON-ready: title, rows for the table, outputs compared, how busy the machine was."""
    weights = make_weights(jobs[0].depth, jobs[0].classes, folder)
    with ExitStack() as stack:
        workers = []
        for job in jobs:
            fields = asdict(replace(job, weights=weights))
            worker = Worker(job.name, f"benchmarks.contestants.{job.library}", fields)
            workers.append(stack.enter_context(worker))
            worker.ask("warm")  # before the next one is started: one works at a time
        times = interleaved(workers, rounds, allow_busy=allow_busy)
        memory = {worker.name: worker.ask("memory")["above_imports"] for worker in workers}
        outputs = {worker.name: outputs_of(worker, folder) for worker in workers}
    rows = [row(job, times, outputs, memory, first=jobs[0].name) for job in jobs]
    first = outputs[jobs[0].name]
    compared = {
        job.name: compare(first, outputs[job.name], IOU[job.precision])
        for job in jobs[1:]
        if job.library != "floor"
    }
    busy = {"others_at_most": max(times.others), "discarded_rounds": times.discarded}
    return {"title": title(key), "rows": rows, "outputs": compared, **busy}


def make_weights(depth: int, classes: int, folder: str) -> str:
    """The folder of weights.py for that network, made when it is first asked for."""
    path = Path(folder) / f"resnet{depth}_{classes}"
    if not (path / "weights.npz").is_file():
        command = [sys.executable, "-m", "benchmarks.weights", str(depth), str(classes), str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return str(path)


def outputs_of(worker: Worker, folder: str) -> dict[str, np.ndarray]:
    path = os.path.join(folder, "outputs.npz")
    worker.ask("outputs", path)
    with np.load(path) as arrays:
        return dict(arrays)


def row(job: Job, times: Times, outputs: dict, memory: dict, first: str) -> dict:
    """One line of the table; a floor's seconds become those of the network.

    first: the name of the one compared to.
    """
    seconds = times.seconds[job.name]
    extra: dict[str, object] = {}
    if job.library == "floor":
        network, product = (
            int(outputs[job.name][f"{name}_flops"]) for name in ("network", "matmul")
        )
        extra = {"gflops": network / 1e9, "gflops_a_second": product / min(seconds) / 1e9}
        seconds = [value * network / product for value in seconds]
    else:
        extra = {"memory": memory[job.name]}
    if job.name != first:
        extra["ratios"] = report.ratios(seconds, times.seconds[first])
        if "memory" in extra:
            extra["memory_ratio"] = memory[job.name] / memory[first]
    return {"name": job.name, **report.summary(seconds), **extra, "seconds": seconds}


# ------------------------------------------------------------------------------------------------
# The report
# ------------------------------------------------------------------------------------------------


def write(out: Path, groups: Sequence[dict], args: argparse.Namespace, others: float) -> None:
    machine = description()
    settings = {"rounds": args.rounds, "others_at_start": others, "busy": args.busy}
    found = {"machine": machine, **settings, "groups": groups}
    write_text(out / "results.json", json.dumps(found, indent=1))
    write_text(out / "results.md", markdown(machine, args.rounds, args.busy, groups))
    report.picture(out / "results.png", {group["title"]: group["rows"] for group in groups})


def markdown(machine: dict, rounds: int, allow_busy: bool, groups: Sequence[dict]) -> str:
    busiest = max(group["others_at_most"] for group in groups)
    discarded = sum(group["discarded_rounds"] for group in groups)
    lines = [
        headline(machine, allow_busy),
        "",
        f"{rounds} rounds, interleaved; others used at most {busiest:.0%} of the cores in a round, "
        f"{discarded} rounds were discarded because of them. Spread: between the quartiles, over "
        "the median. Ratios are to the first row. Memory: peak above the imports.",
    ]
    for group in groups:
        lines += ["", f"### {group['title']}", "", report.table(group["rows"]), ""]
        for name, compared in group["outputs"].items():
            lines.append(f"- {sentence(name, compared)}")
        for row in group["rows"]:
            if "gflops" in row:
                text = "{gflops:.1f} GFLOP at {gflops_a_second:.0f} GFLOP/s".format(**row)
                lines.append(f"- floor: {text}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
