"""What each choice is worth in mAP: `python -m benchmarks.ablation --root PATH/TO/bccd`.

    python -m benchmarks.ablation --root PATH --rows necks,mixing --seeds 2 --jobs 2
    python -m benchmarks.ablation --gather --runs runs/ablation

BCCD at 192x256, ResNet-18 with a slim neck and heads, from scratch, 12 epochs: `config` below is
the base, the bccd preset with L1 on the boxes and smaller, and each of ROWS changes it in one
thing; those of augmentation and mixing are alone, without the base's. Rows of the group "detection"
train nothing: they evaluate the base's weights. A run lies in --runs as <row>_s<seed>; one that is
complete is not run again and one that was stopped goes on, so that Ctrl-C may end this at any time.
Prints the table of what is there. Minutes a run on two cores; times compare where nothing else
computes.
"""

import argparse
import csv
import json
import os
import queue
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from utils.program import make_parser, run_program

import numpy as np

import configs
from benchmarks.program import markdown_table
from configs import Config, ConfigError, preset
from utils.files import write_text
from utils.safe_reading import read_json

ROOT = Path(__file__).parents[1]
config = preset(
    "bccd",
    {
        "model.resize.height": 192,
        "model.resize.width": 256,
        "model.anchors.sizes": (12.8, 25.6, 51.2, 102.4, 204.8),
        "model.neck_width": 128,
        "model.head_width": 128,
        "train.epochs": 12,
        "train.precision": "mixed_bfloat16",
        "train.sample_pictures": 0,
        "loss.box": "l1",
    },
)
PLAIN = {  # no augmentation
    "data.augment.flip": 0.0,
    "data.augment.vertical_flip": 0.0,
    "data.augment.brightness": 0.0,
    "data.augment.contrast": 0.0,
    "data.augment.zoom": (1.0, 1.0),
}
COLOUR = {"data.augment.brightness": 0.1, "data.augment.contrast": 0.2}
FLIPS = {"data.augment.flip": 0.5, "data.augment.vertical_flip": 0.5}
SAME = {"model.detect.precision": config.train.precision}  # as training ends with, to compare
ROWS: tuple[tuple[str, str, Mapping], ...] = (  # group, row, what it changes
    ("base", "base", {}),
    ("necks", "panet", {"model.neck": "panet"}),
    ("necks", "bifpn", {"model.neck": "bifpn"}),
    ("necks", "bifpn_headnorm", {"model.neck": "bifpn", "model.head_norm": "group"}),
    ("necks", "p6_from_p5", {"model.p6_from": "p5"}),
    ("heads", "headnorm", {"model.head_norm": "group"}),
    ("augmentation", "noaug", PLAIN),
    ("augmentation", "flips", PLAIN | FLIPS),
    ("augmentation", "colour", PLAIN | COLOUR),
    ("augmentation", "zoom", PLAIN | {"data.augment.zoom": (0.8, 1.25)}),
    ("augmentation", "rotate", PLAIN | {"data.augment.rotate": 10.0}),
    ("augmentation", "shear", PLAIN | {"data.augment.shear": 5.0}),
    ("augmentation", "translate", PLAIN | {"data.augment.translate": 0.1}),
    ("augmentation", "iou_crop", PLAIN | {"data.augment.iou_crop": 0.5}),
    ("augmentation", "blur", PLAIN | {"data.augment.blur": 0.5}),
    ("augmentation", "jpeg", PLAIN | {"data.augment.jpeg": 0.5}),
    ("augmentation", "cutout", PLAIN | {"data.augment.cutout": 0.5}),
    ("augmentation", "multiscale", PLAIN | {"data.augment.canvas_scales": (0.75, 1.0, 1.25)}),
    ("mixing", "mixup", PLAIN | {"data.mixing.mixup": 0.5}),
    ("mixing", "cutmix", PLAIN | {"data.mixing.cutmix": 0.5}),
    ("mixing", "mosaic", PLAIN | {"data.mixing.mosaic": 0.5}),
    ("together", "giou_mosaic", {"loss.box": "giou", "data.mixing.mosaic": 0.5}),
    (
        "together",
        "giou_mosaic_zoom",
        PLAIN | {"loss.box": "giou", "data.mixing.mosaic": 0.5, "data.augment.zoom": (0.8, 1.25)},
    ),
    ("sampling", "repeat", {"data.repeat_threshold": 1.0}),  # of platelets; epochs are longer
    ("assignment", "lowq", {"matcher.low_quality": True}),
    ("assignment", "atss", {"matcher": "atss"}),
    ("assignment", "atss_giou", {"matcher": "atss", "loss.box": "giou"}),
    ("boxes", "smoothl1", {"loss.box": "smooth_l1"}),
    ("boxes", "giou", {"loss.box": "giou"}),
    ("boxes", "diou", {"loss.box": "diou"}),
    ("boxes", "ciou", {"loss.box": "ciou"}),
    ("classes", "gamma0", {"loss.gamma": 0.0, "loss.alpha": None}),  # cross-entropy
    ("classes", "gamma1", {"loss.gamma": 1.0}),
    ("training", "ema", {"train.ema": 0.998}),
    ("training", "accumulate", {"train.accumulate": 2}),
    ("training", "backbone_rate", {"train.backbone_rate": 0.1}),
    ("detection", "softnms_linear", SAME | {"model.detect.nms": "linear"}),
    ("detection", "softnms_gaussian", SAME | {"model.detect.nms": "gaussian"}),
    ("detection", "tta_flip", SAME | {"model.detect.flip": True}),
    ("detection", "tta_scales", SAME | {"model.detect.scales": (0.75, 1.0, 1.25)}),
)
# Group -> the row it is compared with, if not the base.
REFERENCES = {"augmentation": "noaug", "mixing": "noaug"}
DETECTION = "detection"  # the group that trains nothing
NOTE = """\
mAP at IoU 0.5, AP of each class: means over seeds. spread: largest minus smallest mAP of a seed.
difference: mean over the seeds that both have; *: further from zero than those are from each other,
of two or more. time: of a training image, over the base's."""


class Run(NamedTuple):
    """A row with a seed: --set for `settings`, in its group of the table."""

    folder: Path
    group: str
    row: str
    settings: list[str]
    config: Config

    @property
    def report(self) -> Path:
        """There once the run is complete."""
        return self.folder / "evaluation" / "metrics.json"


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--root", default="datasets/bccd", help="the BCCD dataset")
    parser.add_argument("--rows", help="these groups or rows, with commas between; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="runs of a row")
    parser.add_argument("--jobs", type=int, default=1, help="at a time; they share the cores")
    parser.add_argument("--runs", default="runs/ablation", help="where the runs are")
    parser.add_argument("--gather", action="store_true", help="run nothing, only the table")
    args = parser.parse_args(argv)
    if min(args.seeds, args.jobs) < 1:
        parser.error(f"expected a seed and a job at least, found {args.seeds} and {args.jobs}")
    rows = chosen(args.rows)
    plan = [
        planned(group, name, changes, seed, args)
        for seed in range(args.seeds)
        for group, name, changes in rows
    ]
    failed = [] if args.gather else execute(plan, args.jobs)
    found: dict[str, dict[int, dict]] = {}
    for run in plan:
        if run.report.is_file():
            found.setdefault(run.row, {})[run.config.train.seed] = figures(run)
    if not found:
        raise ValueError(
            f"{args.runs}: no complete run of {', '.join(name for _, name, _ in rows)}"
        )
    print(markdown(rows, found))
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


def chosen(names: str | None) -> list[tuple[str, str, Mapping]]:
    """The rows of those groups and names, and those that they are compared with.

    Raises ValueError for a name that is none, with the choices.
    """
    known = dict.fromkeys(part for row in ROWS for part in row[:2])
    wanted = set(names.split(",") if names else known)
    if wanted - known.keys():
        unknown = ", ".join(sorted(wanted - known.keys()))
        raise ValueError(f"--rows: expected some of {', '.join(known)}, found {unknown}")
    found = [row for row in ROWS if wanted & set(row[:2])]
    wanted |= {"base", *(REFERENCES[group] for group, _, _ in found if group in REFERENCES)}
    return [row for row in ROWS if wanted & set(row[:2])]


def planned(group: str, name: str, changes: Mapping, seed: int, args: argparse.Namespace) -> Run:
    """A row's run. Raises ConfigError for settings that cannot be, or are not its folder's."""
    folder = Path(args.runs) / f"{name}_s{seed}"
    place = {"name": folder.name, "output": folder.parent, "data.root": args.root}
    settings = [f"{key}={value}" for key, value in {**changes, **place, "train.seed": seed}.items()]
    try:
        wanted = configs.override(config, dict(map(configs.assignment, settings)))
    except ConfigError as error:
        raise ConfigError(f"row {name}: {error}") from None
    if (folder / "config.json").is_file():
        begun = configs.load_saved(folder / "config.json")
        for key, ours, theirs in configs.differences(configs.to_dict(wanted), begun):
            if key not in ("output", "data.root"):
                raise ConfigError(f"{folder}: expected {key} = {ours!r}, found {theirs!r}")
    return Run(folder, group, name, settings, wanted)


def execute(plan: Sequence[Run], jobs: int) -> list[str]:
    """Runs what is not complete, `jobs` at a time; returns the names of those that failed."""
    is_pinned = shutil.which("taskset") is not None
    cores = sorted(os.sched_getaffinity(0)) if is_pinned else [*range(os.cpu_count() or 1)]
    share = max(1, len(cores) // jobs)
    free: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    for job in range(jobs):
        free.put([cores[(job * share + i) % len(cores)] for i in range(share)])

    def work(run: Run) -> int:
        mine = free.get()
        try:
            return call(run, mine)
        finally:
            free.put(mine)

    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        for is_last in (False, True):  # what trains nothing needs the base's weights
            todo = [r for r in plan if (r.group == DETECTION) == is_last and not r.report.is_file()]
            codes = pool.map(work, todo)
            failed += [run.folder.name for run, code in zip(todo, codes, strict=True) if code]
    return failed


def call(run: Run, cores: Sequence[int]) -> int:
    """The exit status of the run's process, which has these cores; stderr says how it went."""
    if not (run.folder / "config.json").is_file():
        begin(run)
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    env = os.environ | dict.fromkeys(names, str(len(cores)))
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if shutil.which("taskset") else []
    line = [*pinned, sys.executable, *command(run)]
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    said = (done.stderr if done.returncode else done.stdout).strip() or f"{done.returncode}"
    print(f"{run.folder.name}: {said.splitlines()[-1]}", file=sys.stderr, flush=True)
    return done.returncode


def begin(run: Run) -> None:
    """Makes the folder of a run with its config, from which train.py --resume begins, too.

    Raises ValueError where a folder of this name holds something else.
    """
    if run.folder.is_dir() and any(run.folder.iterdir()):
        raise ValueError(f"{run.folder}: expected a run, found no config.json; move it away")
    write_text(run.folder / "config.json", json.dumps(configs.to_dict(run.config), indent=1))


def command(run: Run) -> list[str]:
    """What begins a run, or goes on with one that was stopped."""
    if run.group == DETECTION:
        base = run.folder.with_name(f"base_s{run.config.train.seed}")
        changes = [item for item in run.settings if item.startswith("model.detect.")]
        return ["evaluate.py", str(base), "--out", str(run.report.parent), "--set", *changes]
    return ["train.py", "--resume", str(run.folder)]


def figures(run: Run) -> dict[str, float]:
    """What a complete run has left: mAP, AP of each class, and seconds a training image."""
    report = read_json(run.report)
    classes = {
        name: next(iter(of["ap"].values()))["area"] for name, of in report["classes"].items()
    }
    seconds = float("nan")  # the median over epochs, where there are any
    if run.group != DETECTION:
        with open(run.folder / "metrics.csv", newline="", encoding="utf-8") as file:
            seconds = np.median(
                [1 / float(row["images_per_second"]) for row in csv.DictReader(file)]
            )
    return {"mAP": report["value"], **classes, "seconds": float(seconds)}


def markdown(rows: Sequence[tuple], found: Mapping[str, Mapping[int, Mapping]]) -> str:
    """The table. found: row -> seed -> figures of that run; a row without one is left out."""
    any_run = next(iter(next(iter(found.values())).values()))
    classes = [key for key in any_run if key not in ("mAP", "seconds")]
    heading = ["group", "row", "seeds", "mAP", "spread", "against", "difference", *classes, "time"]
    lines = []

    def column(name: str, key: str) -> np.ndarray:
        return np.array([run[key] for run in found.get(name, {}).values()] or [np.nan])

    for group, name, _ in rows:
        if name not in found:
            continue
        other = REFERENCES.get(group, "base")
        other = "base" if other == name else other
        ours, theirs = column(name, "mAP"), found.get(other, {})
        pairs = [
            run["mAP"] - theirs[seed]["mAP"] for seed, run in found[name].items() if seed in theirs
        ]
        cells = [group, name, str(len(ours)), f"{ours.mean():.4f}"]
        cells += [f"{np.ptp(ours):.4f}" if len(ours) > 1 else ""]
        mark = " *" if len(pairs) > 1 and abs(np.mean(pairs)) > np.ptp(pairs) else ""
        difference = f"{np.mean(pairs):+.4f}{mark}" if pairs else ""
        cells += ["", ""] if name == "base" else [other, difference]
        cells += [f"{column(name, key).mean():.3f}" for key in classes]
        cells += [f"{column(name, 'seconds').mean() / column('base', 'seconds').mean():.2f}"]
        lines.append(["" if "nan" in cell else cell for cell in cells])
    return f"{markdown_table(heading, lines, num_texts=2)}\n\n{NOTE}"


if __name__ == "__main__":
    try:
        run_program(main)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
