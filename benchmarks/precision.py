"""What bfloat16 costs in mAP: training in it, and detecting in it with weights trained in float32.

    python -m benchmarks.precision PATH/TO/bccd

BCCD at a long side of 192 pixels, ResNet-18 with a slim neck and heads, from scratch; each seed is
trained in both precisions. Leaves in --out the runs, results.json and results.md; a run that lies
there is used again. Minutes a run on two cores.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from utils.program import make_parser

import numpy as np

from benchmarks.interleave import ROOT
from benchmarks.machine import description
from benchmarks.program import leave, markdown_table

SMALL = (
    "model.resize.height=144",
    "model.resize.width=192",
    "model.anchors.sizes=(10,20,40,80,160)",
    "model.neck_width=128",
    "model.head_width=128",
    "model.head_depth=2",
)
COLUMNS = {  # name -> precision of training, of detecting
    "float32": ("float32", "float32"),
    "trained in bfloat16": ("mixed_bfloat16", "float32"),
    "detecting in bfloat16": ("float32", "mixed_bfloat16"),
    "both in bfloat16": ("mixed_bfloat16", "mixed_bfloat16"),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("root", help="the BCCD dataset")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--out", default="runs/benchmarks/precision")
    args = parser.parse_args(argv)
    found: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for seed in range(args.seeds):
        runs = {p: train(args, p, seed) for p in ("float32", "mixed_bfloat16")}
        for name, (training, detecting) in COLUMNS.items():
            found[name].append(evaluate(runs[training], detecting))
            print(f"seed {seed}, {name}: mAP {found[name][-1]:.4f}", file=sys.stderr, flush=True)
    report = {"machine": description(), "epochs": args.epochs, "set": SMALL, "map": found}
    print(leave(args.out, "results", report, markdown(found, args.epochs)))


def train(args: argparse.Namespace, precision: str, seed: int) -> Path:
    """Trains one run, unless it is there, or goes on with it; returns its folder."""
    name = f"{precision}-{args.epochs}-{seed}"
    run = Path(args.out) / name
    if (run / "config.json").is_file():
        if not (run / "evaluation" / "metrics.json").is_file():
            call("train.py", "--resume", str(run))
    else:
        settings = (
            f"data.root={args.root}", f"output={args.out}", f"name={name}", *SMALL,
            f"train.precision={precision}", f"train.seed={seed}", f"train.epochs={args.epochs}",
        )  # fmt: skip
        call("train.py", "--config", "configs/bccd.py", "--set", *settings)
    return run


def evaluate(run: Path, precision: str) -> float:
    figures = run / f"{precision}.json"
    call(
        "evaluate.py", str(run), "--set", f"model.detect.precision={precision}",
        "--json", str(figures), "--out", str(run / f"evaluation_{precision}"),
    )  # fmt: skip
    return json.loads(figures.read_text(encoding="utf-8"))["value"]


def call(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def markdown(found: dict[str, list[float]], epochs: int) -> str:
    """mAP by precision: every seed, the mean, and the difference from float32 seed by seed."""
    first = np.array(next(iter(found.values())))
    rows = []
    for name, values in found.items():
        seeds = ", ".join(f"{value:.4f}" for value in values)
        differences = ", ".join(f"{value:+.4f}" for value in np.array(values) - first)
        rows.append((name, seeds, f"{np.mean(values):.4f}", differences))
    title = f"BCCD test mAP@.5, {epochs} epochs at 144x192, {len(first)} seeds"
    heading = ("", "mAP of each seed", "mean", "minus float32 of the same seed")
    return f"{title}\n\n{markdown_table(heading, rows)}"


if __name__ == "__main__":
    main()
