"""Lays runs side by side: the settings they differ in, what came of them, and their curves.

    python compare_runs.py runs/shapes runs/shapes-2
    python compare_runs.py runs/shapes runs/shapes-2 --out curves.png --json figures.json

Prints a table and draws training losses and mAP over epochs, by default into comparison.png beside
the first run. A run that goes on, or was stopped, is shown as far as it has come; a single run may
be given, too.
"""

import argparse
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from utils.program import make_parser, run_program

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import configs
from configs.schema import METRIC_OF_FORMAT
from utils.files import write_text
from utils.headline_figures import class_aps, headline_figures
from utils.names import printable
from utils.plots import comparison_curves
from utils.runs import read_metrics, weights_file
from utils.safe_reading import read_json

NOT_COMPARED = ("name", "output")  # where a run lies is no setting of its training
MEASURED_ON = (  # settings of data that, beside the split, make the images or objects others
    "root", "val_fraction", "classes", "class_file", "person_box", "images", "on_bad_annotation",
)  # fmt: skip
LAST = {  # figure -> the column of metrics.csv whose last value it is
    "last_map": "val_map",
    "last_loss": "loss",
    "last_class_loss": "class_loss",
    "last_box_loss": "box_loss",
    "last_val_loss": "val_loss",
}
LABELS = {  # of figures whose names do not say it well enough
    "training": {
        "metric": "validated by",
        "images": "validated on",
        "epochs": "epochs done",
        "planned_epochs": "epochs planned",
        "best_map": "best mAP",
        "last_map": "last mAP",
        "last_val_loss": "last validation loss",
        "images_per_second": "images/s",
        "seconds": "time",
        "weights_bytes": "weights",
    },
    "evaluation": {"metric": "evaluated by", "images": "evaluated on"},
}
CELL = 40  # characters; what is longer is folded


@dataclass(frozen=True)
class Run:
    """What a run's files say.

    config: config.json, completed. metrics: columns of metrics.csv, none before the first epoch.
    report: evaluation/metrics.json, None where there is none yet.
    """

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, list[float]]
    report: dict[str, Any] | None


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the command line; returns what --json writes. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    runs = read_runs([Path(folder) for folder in args.runs])
    is_comparable = {
        "training": is_same(
            (training_measure(run.config), measured_on(run.config)) for run in runs.values()
        ),
        "evaluation": is_same(
            (report_measure(run.report), sorted(run.report["classes"]), measured_on(run.config))
            for run in runs.values()
            if run.report
        ),
    }
    figures = {
        "comparable": is_comparable,
        "settings": differences({name: flatten(run.config) for name, run in runs.items()}),
        "training": {name: training_figures(run) for name, run in runs.items()},
        "evaluation": {name: report_figures(run.report) for name, run in runs.items()},
        "epochs": {name: epochs_done(run) for name, run in runs.items()},
    }
    out = Path(args.out) if args.out else next(iter(runs.values())).folder.parent / "comparison.png"
    curves = {name: run.metrics for name, run in runs.items()}
    comparison_curves(out, curves, is_comparable=is_comparable["training"])
    if args.json:
        write_text(args.json, json.dumps(figures, indent=1))
    show(comparison_table(figures))
    print(f"curves in {out}")
    return figures


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
    parser.add_argument("--out", help="file of the picture; default: comparison.png beside the run")
    parser.add_argument("--json", help="file for all figures")
    return parser.parse_args(argv)


# ------------------------------------------------------------------------------------------------
# Reading
# ------------------------------------------------------------------------------------------------


def read_runs(folders: Sequence[Path]) -> dict[str, Run]:
    """Runs by the names of their folders, or by their paths where two have one name."""
    for path, count in Counter(folder.resolve() for folder in folders).items():
        if count > 1:
            raise ValueError(f"{path}: expected each run once, found it {count} times")
    names = Counter(folder.resolve().name for folder in folders)
    runs = {}
    for folder in folders:
        name = folder.resolve().name
        runs[name if names[name] == 1 else str(folder)] = read_run(folder)
    return runs


def read_run(folder: Path) -> Run:
    """Raises ValueError, naming file and line, for what is no run or a file that is damaged."""
    path, metrics = folder / "config.json", folder / "metrics.csv"
    if not path.exists():
        raise ValueError(f"{folder}: expected a run's folder, found no config.json in it")
    config = configs.load_saved(path)
    report = read_report(folder / "evaluation" / "metrics.json")
    return Run(folder, config, read_metrics(metrics) if metrics.exists() else {}, report)


def read_report(path: Path) -> dict[str, Any] | None:
    """What evaluate.py wrote, None if it did not."""
    if not path.exists():
        return None
    report = read_json(path)
    try:
        sorted(report["classes"])
        for name, value in report_figures(report).items():
            if not isinstance(value, str | int | float | None):
                raise TypeError(f"{name}: {type(value).__name__}")
    except (LookupError, TypeError, AttributeError, ValueError, StopIteration) as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"{path}: expected figures of an evaluation, found {found}") from None
    return report


# ------------------------------------------------------------------------------------------------
# Figures
# ------------------------------------------------------------------------------------------------


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def differences(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Setting -> run -> value, of the settings that are not the same in all runs.

    A run lacks those of a choice it did not make.
    """
    names = dict.fromkeys(name for settings in runs.values() for name in settings)
    found = {
        name: {run: settings[name] for run, settings in runs.items() if name in settings}
        for name in names
        if name not in NOT_COMPARED
    }
    return {
        name: values
        for name, values in found.items()
        if len(values) < len(runs) or not is_same(values.values())
    }


def is_same(values: Iterable[Any]) -> bool:
    """Whether all are equal, and of one type."""
    return len({repr(value) for value in values}) <= 1


def training_measure(config: Mapping[str, Any]) -> dict[str, str]:
    """By which metric and on which images the epochs of a training are measured."""
    data, settings = config["data"], config["evaluate"]
    metric = settings["metric"]
    if metric == "auto":
        metric = METRIC_OF_FORMAT.get(data["format"], "voc")
    limit = f", first {data['limit']}" if data["limit"] else ""
    images = f"{data['root']}/{data['val']}{limit}"
    return {"metric": metric_words(metric, settings), "images": images}


def measured_on(config: Mapping[str, Any]) -> dict[str, Any]:
    """What, beside the split, decides on the images and objects that a run is measured on."""
    return {name: config["data"][name] for name in MEASURED_ON}


def report_measure(report: Mapping[str, Any]) -> dict[str, str]:
    """By which metric and on which images an evaluation was made."""
    metric = metric_words(report["metric"], report["settings"])
    return {"metric": metric, "images": f"{report['dataset']}, {report['images']} images"}


def metric_words(metric: str, settings: Mapping[str, Any]) -> str:
    """A metric with the settings that make it another; only VOC's has some."""
    if metric != "voc":
        return metric
    rules = [name for name in ("plus_one", "strict") if settings[name]]
    return " ".join([f"voc@{settings['iou_thresholds'][0]:.2f}", settings["ap"], *rules])


def planned_epochs(config: Mapping[str, Any]) -> int:
    train = config["train"]
    return sum(phase["epochs"] for phase in train["phases"]) or train["epochs"]


def training_figures(run: Run) -> dict[str, Any]:
    """What came of a training so far; None: not known, or not yet.

    seconds: of training and validation; of an epoch that was resumed, those since.
    """
    known = {
        name: [value for value in values if not math.isnan(value)]
        for name, values in run.metrics.items()
    }
    num_epochs = len(run.metrics.get("epoch", []))
    best = max(known.get("val_map", []), default=None)
    figures = {
        **training_measure(run.config),
        "epochs": num_epochs,
        "planned_epochs": planned_epochs(run.config),
        "best_epoch": None if best is None else run.metrics["val_map"].index(best) + 1,
        "best_map": best,
    }
    for name, column in LAST.items():
        figures[name] = known[column][-1] if known.get(column) else None
    rates, seconds = known.get("images_per_second"), known.get("seconds", [])
    figures["images_per_second"] = statistics.median(rates) if rates else None
    figures["seconds"] = sum(seconds) if num_epochs and len(seconds) == num_epochs else None
    figures["weights_bytes"] = weights_size(run.folder)
    return figures


def weights_size(folder: Path) -> int | None:
    try:
        return weights_file(folder).stat().st_size
    except ValueError:  # no checkpoint yet
        return None


def report_figures(report: Mapping[str, Any] | None) -> dict[str, Any]:
    """The metric's figures and each class's AP; nothing where there is no report."""
    if report is None:
        return {}
    aps = {f"AP of {name}": value for name, value in class_aps(report).items()}
    return {**report_measure(report), **headline_figures(report), **aps}


def epochs_done(run: Run) -> dict[str, list[float | None]]:
    """The columns of metrics.csv as JSON knows them: None for nan and infinity."""
    return {
        name: [value if math.isfinite(value) else None for value in values]
        for name, values in run.metrics.items()
    }


# ------------------------------------------------------------------------------------------------
# Showing
# ------------------------------------------------------------------------------------------------


def comparison_table(figures: Mapping[str, Any]) -> Table:
    """A column a run: settings that differ, training, evaluation."""
    runs, comparable = list(figures["training"]), figures["comparable"]
    caption = None
    if not all(comparable.values()):
        caption = "* not comparable: another metric, or other images"
    table = Table(caption=caption, caption_justify="left")
    table.add_column("", max_width=CELL)
    for run in runs:
        table.add_column(plain(run), justify="right", overflow="fold", max_width=CELL)
    for name, values in figures["settings"].items():
        table.add_row(plain(name), *(setting(values, run) for run in runs))
    for part in ("training", "evaluation"):
        table.add_section()
        for name in dict.fromkeys(name for run in runs for name in figures[part][run]):
            is_map = part == "evaluation" or name.endswith("_map")
            mark = " *" if is_map and not comparable[part] else ""
            label = LABELS[part].get(name, name if is_map else name.replace("_", " "))
            cells = (cell(name, figures[part][run].get(name)) for run in runs)
            table.add_row(plain(label) + mark, *cells)
    return table


def plain(text: str) -> str:
    """Text as the table shows it: no markup, and no codes that a terminal would obey."""
    return escape(printable(text))


def setting(values: Mapping[str, Any], run: str) -> str:
    """A value as --set takes it; a dash where the run has no such setting."""
    if run not in values:
        return "-"
    return plain(values[run] if isinstance(values[run], str) else repr(values[run]))


def cell(name: str, value: Any) -> str:
    """A figure as it is read best; a dash where it is not known."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return plain(value)
    match name:
        case "seconds":
            return str(timedelta(seconds=round(value)))
        case "weights_bytes":
            return f"{value / 2**20:.1f} MiB"
        case "images_per_second":
            return f"{value:.1f}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def show(table: Table) -> None:
    """On a screen as wide as that is, into a file as wide as the table is."""
    width = None if sys.stdout.isatty() else Console(width=10_000).measure(table).maximum
    Console(width=width).print(table)


if __name__ == "__main__":
    run_program(main)
