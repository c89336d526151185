"""Times -> statistics, a table in Markdown, a picture.

Ratios are to the first row, which is ours: above 1, ours is faster, or smaller.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.program import markdown_table
from utils.plots import DPI, INK, PALETTE, save, style_axes

SIZES = (10.5, 8.5)  # of letters, see `style_axes`
COLUMNS = (
    "contestant", "minimum", "median", "spread", "minima / first", "medians / first",
    "in each round", "memory", "memory / first",
)  # fmt: skip


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """spread: between the quartiles, over the median."""
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return {"min": min(seconds), "median": float(median), "spread": float((high - low) / median)}


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> dict:
    """Of the minima, of the medians, and the quartiles of those within each round."""
    rounds = np.quantile(np.divide(theirs, ours), [0.25, 0.75])
    return {
        "minima": min(theirs) / min(ours),
        "medians": float(np.median(theirs) / np.median(ours)),
        "rounds": [float(value) for value in rounds],
    }


def table(rows: Sequence[Mapping]) -> str:
    """Markdown. rows: name, what `summary` gives, optionally ratios, memory and memory_ratio."""
    lines = []
    for row in rows:
        cells = [row["name"], _time(row["min"]), _time(row["median"]), f"{row['spread']:.0%}"]
        found = row.get("ratios")
        if found:
            low, high = found["rounds"]
            cells += [f"{found['minima']:.2f}", f"{found['medians']:.2f}", f"{low:.2f}-{high:.2f}"]
        else:
            cells += [""] * 3
        cells.append(f"{row['memory'] / 2**20:,.0f} MiB" if "memory" in row else "")
        cells.append(f"{row['memory_ratio']:.2f}" if "memory_ratio" in row else "")
        lines.append(cells)
    return markdown_table(COLUMNS, lines)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def picture(path: str | Path, groups: Mapping[str, Sequence[Mapping]]) -> None:
    """Bars of the medians, with a mark at the minima; groups: title -> rows as for `table`."""
    heights = [len(rows) + 1.2 for rows in groups.values()]
    figure = Figure(figsize=(8.6, 0.5 + 0.34 * sum(heights)), dpi=DPI, layout="constrained")
    grid = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, rows) in zip(grid, groups.items(), strict=True):
        style_axes(axes, title, sizes=SIZES)
        axes.invert_yaxis()
        for place, row in enumerate(rows):
            axes.barh(place, row["median"], color=_colour(row["name"]), height=0.7)
            axes.plot([row["min"]] * 2, [place - 0.35, place + 0.35], color=INK, linewidth=1.2)
            text = f" {_time(row['median'])}"
            if "ratios" in row:
                text += f"   x {row['ratios']['medians']:.2f}"
            axes.text(row["median"], place, text, va="center", color=INK, fontsize=8)
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8.5)
        axes.set_xlim(0, 1.22 * max(row["median"] for row in rows))
        axes.grid(axis="y", visible=False)
    grid[-1].set_xlabel("seconds: bar the median, line the minimum; x times the first", color=INK)
    save(figure, path)


def _colour(name: str) -> str:
    for library, colour in zip(("ours", "torchvision", "keras-hub"), PALETTE, strict=False):
        if name.startswith(library):
            return colour
    return "#c9cdd3"
