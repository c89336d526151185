"""What grows, and how fast: `python -m benchmarks.growth`.

    python -m benchmarks.growth --only 'postprocess|batch' --rounds 3

Cost and memory against boxes an image, classes, pixels and images of the dataset: every point in a
process of its own, the points of a curve in interleaved rounds. Memory is the peak while working,
above what was there when all was built. Leaves in --out growth.json, growth.md and growth.png, with
the slope of each curve's upper end in logarithms: 1 is linear in what grows, less is better.
"""

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.interleave import measured
from benchmarks.program import begin, leave, make_parser, markdown_table
from benchmarks.report import SIZES
from utils.plots import DPI, INK, PALETTE, save, style_axes

END = 3  # points of a curve's upper end that its slope is fitted to
DECADES = 100  # a vertical axis spans at least this factor, so that noise looks like noise
NOTHING = 2**20  # bytes; less memory than this is noise, and no slope is fitted to it


@dataclass(frozen=True)
class Curve:
    """panel: what the horizontal axis shows. at: what growth_points.py is given.
    power: of it, what the work is to be linear in (pixels for a side)."""

    name: str
    panel: str
    at: tuple[int, ...]
    power: int = 1


RECORDS = "images of the dataset"
CURVES = (
    Curve("targets and losses", "boxes an image", (0, 1, 10, 100, 300, 1000)),
    Curve("train step", "classes", (1, 10, 80, 200, 400)),
    Curve("postprocess", "classes", (1, 10, 80, 200, 400)),
    Curve("inference", "pixels of the image", (256, 384, 512, 768, 1024), power=2),
    Curve("pack records", RECORDS, (10**2, 10**3, 10**4, 10**5, 10**6)),
    Curve("first batch", RECORDS, (10**2, 10**3, 10**4, 10**5, 10**6)),
    Curve("images", RECORDS, (10**2, 10**3, 10**4, 10**5, 10**6)),
)
LEGEND = {"images": "256 images of an epoch"}


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "growth", rounds=5)
    parser.add_argument("--only", metavar="PATTERN", help="these curves: a regular expression")
    args = parser.parse_args(argv)
    report, found = begin(args.busy), []
    for curve in CURVES:
        if not args.only or re.search(args.only, curve.name):
            print(f"{curve.name} ...", file=sys.stderr, flush=True)
            found.append(measure(curve, args.rounds, args.busy))
    text = leave(args.out, "growth", report | {"curves": found}, markdown(found))
    picture(Path(args.out) / "growth.png", found)
    print(text)


def measure(curve: Curve, rounds: int, allow_busy: bool) -> dict:
    """JSON-ready: at, seconds (minimum and median), bytes, and the slopes."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = {
            f"{curve.name} at {at}": (
                "benchmarks.growth_points", {"curve": curve.name, "at": at, "folder": folder},
            )
            for at in curve.at
        }  # fmt: skip
        times = measured(tasks, rounds, allow_busy=allow_busy, pause=0.1)
    seconds, memory = times.seconds.values(), [m["above_built"] for m in times.memory.values()]
    x = [at**curve.power for at in curve.at]
    minima = [min(values) for values in seconds]
    return {
        "name": curve.name,
        "panel": curve.panel,
        "x": x,
        "min": minima,
        "median": [float(np.median(values)) for values in seconds],
        "memory": memory,
        "slope": upper_slope(x, minima),
        "memory_slope": upper_slope(x, [0 if value < NOTHING else value for value in memory]),
        **times.disturbance(),
    }


def upper_slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Of the line through the last points in logarithms; None where one of them is not positive."""
    x, y = x[-END:], y[-END:]
    if min(*x, *y) <= 0:
        return None
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


# ------------------------------------------------------------------------------------------------
# The report
# ------------------------------------------------------------------------------------------------


def markdown(curves: Sequence[Mapping]) -> str:
    rows = []
    for curve in curves:
        x, seconds = curve["x"], curve["min"]
        memory = [value / 2**20 for value in curve["memory"]]
        cells = [
            LEGEND.get(curve["name"], curve["name"]),
            curve["panel"],
            f"{x[0]:,}",
            f"{x[-1]:,}",
            f"{seconds[0]:.3g} to {seconds[-1]:.3g}",
            _slope(curve["slope"]),
            f"{memory[0]:,.0f} to {memory[-1]:,.0f} MiB",
            _slope(curve["memory_slope"]),
        ]
        rows.append(cells)
    heading = ("cost of", "against", "from", "to", "seconds", "slope", "memory", "slope")
    note = f"Minima; slopes: of the last {END} points, both axes in logarithms."
    return f"{markdown_table(heading, rows, num_texts=2)}\n\n{note}"


def _slope(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def picture(path: str | Path, curves: Sequence[Mapping]) -> None:
    """A panel for each of what grows: seconds as lines, MiB dashed, and dots for linear."""
    panels = list(dict.fromkeys(curve["panel"] for curve in curves))
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(10.5, 3.6 * rows), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        draw(axes, panel, [curve for curve in curves if curve["panel"] == panel])
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    save(figure, path)


def draw(axes: Axes, panel: str, curves: Sequence[Mapping]) -> None:
    style_axes(axes, f"against {panel}", sizes=SIZES)
    memory_axes = axes.twinx()
    style_axes(memory_axes, "", sizes=SIZES)
    memory_axes.grid(visible=False)
    for curve, colour in zip(curves, PALETTE, strict=False):
        x, seconds = np.array(curve["x"], float), curve["min"]
        label = LEGEND.get(curve["name"], curve["name"])
        if curve["slope"] is not None:
            label += f", slope {curve['slope']:.2f}"
        axes.plot(x, seconds, color=colour, marker="o", markersize=4, label=label)
        upper = x[-END:]
        axes.plot(upper, seconds[-1] * upper / upper[-1], color=colour, linestyle=":")
        memory = [max(value, NOTHING) / 2**20 for value in curve["memory"]]
        memory_axes.plot(x, memory, color=colour, linestyle="--", linewidth=1, alpha=0.7)
    axes.plot([], [], color=INK, linestyle=":", label="linear from the last point")
    axes.plot([], [], color=INK, linestyle="--", linewidth=1, label="memory")
    if min(curves[0]["x"]) == 0:
        axes.set_xscale("symlog", linthresh=1)
    else:
        axes.set_xscale("log")
    for side, name in ((axes, "seconds"), (memory_axes, "MiB while working")):
        side.set_yscale("log")
        low, high = side.get_ylim()
        side.set_ylim(low, max(high, DECADES * low))
        side.yaxis.set_minor_formatter(NullFormatter())
        side.set_ylabel(name, color=INK, fontsize=9)
    axes.set_xlabel(panel, color=INK, fontsize=9)
    axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
