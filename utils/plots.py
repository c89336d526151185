"""Pictures of a run and of an evaluation, as PNG files, and what the project's pictures share.

Figures are made without pyplot: no window, no global state, safe in a server and in a test.
Letters: K classes, C points of a curve.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.files import write_bytes

MAX_CURVES = 20  # as many as a legend lists and colours tell apart
SHOWN_EACH_END = 5  # with more classes than that: so many of the best and of the worst
MISS_RATE_TICKS = (
    (0.01, 0.1, 1, 10),
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1),
)
MAX_COUNTS = 25  # up to so many rows the counts are written into the confusion matrix
DPI = 130
GRID = "#e3e5e8"
INK = "#2b2f36"
Colour: TypeAlias = str | tuple[float, ...]
Values: TypeAlias = Sequence[float] | np.ndarray
Curve: TypeAlias = tuple[Values, Values, float]  # x, y, what the legend says
PALETTE = ("#3b6fb6", "#d1603d", "#4c9f70", "#8b5fbf", "#c9a227", "#3aa6b9", "#b5476b", "#6b7280")


def precision_recall_curves(path: str | Path, curves: Mapping[str, Curve], title: str) -> None:
    """Draws precision over recall, a line a class, best average precision first.

    curves: class name -> (recall (C,), precision (C,), average precision). An average precision of
        nan (a class without objects) is counted in the legend and not drawn. With more than
        MAX_CURVES classes the best, the worst and the mean are drawn, over all in grey.

    Raises ValueError if there is no curve, or if recall and precision differ in length.
    """
    _check_curves(curves, "class", "recalls", "precisions")
    figure, axes = one_panel(title, "recall", "precision", height=5.4)
    axes.set(xlim=(0, 1.005), ylim=(0, 1.02))
    _draw_ranked(axes, curves, "average precision", best=max)
    save(figure, path)


def miss_rate_curves(
    path: str | Path, curves: Mapping[str, Curve], title: str, places: Values
) -> None:
    """Draws miss rate over false positives per image, both logarithmic, a line a class.

    curves: class name -> (false positives per image (C,), ascending, miss rate (C,), MR-2). The
        lowest MR-2 comes first. One of nan (a class without objects) is counted in the legend and
        not drawn. With more than MAX_CURVES classes the best and the worst are drawn, over all in
        grey.
    places: the false positives per image whose miss rates MR-2 is the geometric mean of.

    Dotted lines mark the places, dots what each curve has there: that of the first point at or
    beyond the place, else of the last.
    Dollár et al., "Pedestrian Detection: An Evaluation of the State of the Art", TPAMI 2012.
    Raises ValueError if there is no curve, or if the two differ in length.
    """
    _check_curves(curves, "class", "false positives", "miss rates")
    figure, axes = one_panel(title, "false positives per image", "miss rate", height=5.4)
    _logarithmic(axes, [misses for _, misses, rate in curves.values() if rate == rate], places)
    _draw_ranked(axes, curves, "MR-2, lower is better", best=min, places=places)
    save(figure, path)


def confusion_matrix_picture(
    path: str | Path, matrix: Sequence[Sequence[int]] | np.ndarray, classes: Sequence[str]
) -> None:
    """Draws a confusion matrix, each row coloured by its shares, with the counts while legible.

    matrix: (K + 1, K + 1) counts, rows the truth and columns the prediction, background last.
    classes: K names.

    Raises ValueError if the shape does not fit the classes.
    """
    counts = np.asarray(matrix)
    size = len(classes) + 1
    if counts.shape != (size, size):
        raise ValueError(f"matrix: expected shape {(size, size)}, found {counts.shape}")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = min(max(4.0, 0.42 * size + 2.0), 15.0)  # inches
    figure = Figure(figsize=(side + 0.9, side), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, "Confusion matrix", "predicted", "truth")
    axes.grid(False)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    small = min(9.0, 0.6 * 72 * (side - 2.0) / size)  # points: 60 % of a row
    ticks = np.arange(size)
    names = [_plain(name) for name in classes]
    axes.set_xticks(ticks, [*names, "missed"], rotation=90 if size > 4 else 0, fontsize=small)
    axes.set_yticks(ticks, [*names, "background"], fontsize=small)
    axes.tick_params(length=0)
    # Errors that are not about classes stand apart from those that are.
    for line in (axes.axvline, axes.axhline):
        line(size - 1.5, color=INK, linewidth=0.8)
    if size <= MAX_COUNTS:
        _write_counts(axes, counts, shares)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("share of the row", color=INK)
    bar.outline.set_visible(False)
    save(figure, path)


def training_curves(path: str | Path, columns: Mapping[str, Sequence[float]]) -> None:
    """Draws the losses, the learning rate and the mAP of a run by epoch, a panel each.

    columns: of metrics.csv, as `utils.runs.read_metrics` returns them; nan is a gap.
    """
    panels = {
        "loss": [name for name in columns if name.endswith("loss")],
        "learning rate": ["learning_rate"],
        "metrics": ["val_map"],
    }
    figure = Figure(figsize=(8.6, 0.8 + 2.4 * len(panels)), dpi=DPI, layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True)
    for axes, (panel, names) in zip(grid, panels.items(), strict=True):
        style_axes(axes, "", y=panel)
        for index, name in enumerate(names):
            # A value between two gaps has no line to be seen by.
            marker = "o" if _has_lonely(columns[name]) else None
            style = {"color": _colour(index, len(names)), "marker": marker, "markersize": 3.5}
            axes.plot(columns["epoch"], columns[name], label=name, linewidth=1.5, **style)
        _legend(axes)
    figure.align_ylabels(grid)
    grid[-1].set_xlabel("epoch", color=INK)
    grid[-1].xaxis.get_major_locator().set_params(integer=True)
    save(figure, path)


def comparison_curves(
    path: str | Path,
    runs: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    is_comparable: bool = True,
) -> None:
    """Draws the training loss and the mAP of several runs over epochs, a colour a run.

    runs: name -> its columns "epoch", "loss" and "val_map" (others are not looked at), equally
        long; nan is a gap, which validations a few epochs apart are joined over. A run without them
        has not begun and is in the legend only.
    is_comparable: False says at the axis that the mAPs are not measured alike.

    Raises ValueError if there is no run, or if a run's columns differ in length.
    """
    columns = ("epoch", "loss", "val_map")
    curves = {
        name: [np.asarray(run.get(column, []), float) for column in columns]
        for name, run in runs.items()
    }
    _check_curves(curves, "run", "epochs", "losses", "mAPs")
    maps_are = "mAP" if is_comparable else "mAP, not measured alike"
    figure, upper, lower = two_panels("", "epoch", ("training loss", maps_are), height=5.6)
    for index, (name, (epochs, losses, maps)) in enumerate(curves.items()):
        style = {"color": _colour(index, len(curves)), "linewidth": 1.6, "markersize": 3.5}
        # A single epoch has no line to be seen by.
        marker = "o" if len(epochs) == 1 else None
        upper.plot(epochs, losses, label=_plain(name), marker=marker, **style)
        measured = ~np.isnan(maps)
        lower.plot(epochs[measured], maps[measured], marker="o", **style)
    _legend(upper)
    lower.xaxis.get_major_locator().set_params(integer=True)
    save(figure, path)


def one_panel(title: str, x: str, y: str, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one panel, as `style_axes` has it."""
    figure = Figure(figsize=(8.6, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, title, x, y)
    return figure, axes


def two_panels(title: str, x: str, ys: tuple[str, str], height: float) -> tuple[Figure, Any, Any]:
    """A figure of so many inches with two panels above each other that share their x."""
    figure = Figure(figsize=(8.6, height), dpi=DPI, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    style_axes(upper, title, "", ys[0])
    style_axes(lower, "", x, ys[1])
    figure.align_ylabels([upper, lower])
    return figure, upper, lower


def style_axes(
    axes: Axes, title: str, x: str = "", y: str = "", sizes: tuple[float, float] = (12, 9)
) -> None:
    """The looks of all pictures. sizes: of the title's letters and of the others, points."""
    axes.set_title(_plain(title), loc="left", color=INK, fontsize=sizes[0], fontweight="bold")
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=sizes[1])
    for side in axes.spines.values():
        side.set_visible(False)


def draw_lines(
    axes: Axes, curves: Mapping[str, tuple[Values, Values]], linewidth: float = 1.8
) -> None:
    """A line a curve, and a legend beside the axes."""
    for index, (name, (x, y)) in enumerate(curves.items()):
        axes.plot(x, y, color=_colour(index, len(curves)), label=name, linewidth=linewidth)
    _legend(axes)


def png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor="white")
    return picture.getvalue()


def save(figure: Figure, path: str | Path) -> None:
    """Writes a PNG file, whole or not at all."""
    write_bytes(path, png(figure))  # not by Pillow, which does not say that a disk is full


def _colour(index: int, count: int) -> Colour:
    if count <= len(PALETTE):
        return PALETTE[index]
    return colormaps["tab20"]((2 * index + index // 10) % 20 / 20 + 0.025)  # dark ones first


def _check_curves(curves: Mapping[str, Sequence], kind: str, *columns: str) -> None:
    """At least one curve of `kind`, whose first values are `columns` of one length."""
    if not curves:
        raise ValueError(f"curves: expected at least one {kind}, found none")
    for name, values in curves.items():
        lengths = [len(column) for column in values[: len(columns)]]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"curves[{name!r}]: expected as many {' as '.join(columns)}, "
                f"found {' and '.join(map(str, lengths))}"
            )


def _plain(name: str) -> str:
    """A name as matplotlib shows it as it is: no formula between $, no leading _ that hides it."""
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def _legend(axes: Axes, **options: Any) -> None:
    """A legend beside the axes."""
    beside = (1.01, 1.0)
    axes.legend(loc="upper left", bbox_to_anchor=beside, frameon=False, fontsize=8.5, **options)


def _draw_ranked(
    axes: Axes,
    curves: Mapping[str, Curve],
    title: str,
    best: Callable,
    places: Values | None = None,
) -> None:
    """A line a class and the legend, the best value first; dots at `places` for miss rates.

    best: max or min. Of more than MAX_CURVES classes the best, the worst and, for average
    precision, the mean are drawn, over all in grey.
    """
    sign = -1 if best is max else 1
    present = {name: curve for name, curve in curves.items() if not math.isnan(curve[2])}
    ranked = dict(sorted(present.items(), key=lambda item: sign * item[1][2]))
    if len(ranked) > MAX_CURVES:
        for x, y, _ in ranked.values():
            _draw_curve(axes, x, y, "_hidden", "#c9cdd3", linewidth=0.6)
        if places is None:
            _draw_mean(axes, list(ranked.values()))
        _draw_ends(axes, ranked)
    else:
        for index, (name, (x, y, value)) in enumerate(ranked.items()):
            colour = _colour(index, len(ranked))
            _draw_curve(axes, x, y, f"{_plain(name)}  {value:.3f}", colour)
            if places is not None:
                _mark_miss_rates(axes, x, y, places, colour)
    if len(ranked) < len(curves):
        axes.plot([], [], " ", label=f"{len(curves) - len(ranked)} without objects")
    _legend(axes, title=title, title_fontsize=9, alignment="left")


def _draw_curve(axes: Axes, x: Values, y: Values, label: str, colour: Colour, **style: Any) -> None:
    """A curve from the axis on, where its first point's y holds, as the envelope of recall has it.

    On a logarithmic axis 0 is far outside the picture, and a line there is drawn as far as seen.
    """
    if len(x) == 0:
        axes.plot([], [], color=colour, label=label)
        return
    axes.plot([0, *x], [y[0], *y], color=colour, label=label, **style)


def _logarithmic(axes: Axes, misses: Sequence[Values], places: Values) -> None:
    """Axes with MR-2's places, down to the lowest miss rate but not below 0.001."""
    values = np.concatenate([[0.2], *misses])
    lowest = max(1e-3, values[values > 0].min())
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(MISS_RATE_TICKS[0], [f"{x:g}" for x in MISS_RATE_TICKS[0]])
    axes.set_yticks(MISS_RATE_TICKS[1], [f"{y:g}" for y in MISS_RATE_TICKS[1]])
    axes.minorticks_off()
    axes.set(xlim=(3e-3, 30), ylim=(0.9 * lowest, 1.03))  # after the ticks, which widen them
    for place in places:
        axes.axvline(place, color=INK, linewidth=0.7, linestyle=":", alpha=0.5, zorder=1)


def _mark_miss_rates(
    axes: Axes,
    positives: Values,
    misses: Values,
    places: Values,
    colour: Colour,
) -> None:
    """Dots at the miss rates that MR-2 is made of."""
    if len(positives):
        at = np.searchsorted(positives, places).clip(max=len(positives) - 1)
        axes.plot(places, np.asarray(misses)[at], "o", color=colour, markersize=3.5)


def _draw_mean(axes: Axes, curves: Sequence[Curve]) -> None:
    at = np.linspace(0, 1, 101)
    mean = np.mean([_envelope(recall, precision, at) for recall, precision, _ in curves], axis=0)
    mean_ap = np.mean([ap for _, _, ap in curves])
    _draw_curve(axes, at, mean, f"mean of {len(curves)}  {mean_ap:.3f}", INK, linewidth=2.6)


def _draw_ends(axes: Axes, ranked: Mapping[str, Curve]) -> None:
    """The best and the worst classes in colour, with what they reach in the legend."""
    names = list(ranked)
    for label, ends, colours in (
        ("best", names[:SHOWN_EACH_END], colormaps["Greens"]),
        ("worst", names[-SHOWN_EACH_END:], colormaps["Oranges"]),
    ):
        axes.plot([], [], " ", label=label)
        for place, name in enumerate(ends):
            x, y, value = ranked[name]
            colour = colours(0.4 + 0.12 * place)
            _draw_curve(axes, x, y, f"{_plain(name)}  {value:.3f}", colour, linewidth=1.4)


def _envelope(recall: Values, precision: Values, at: np.ndarray) -> np.ndarray:
    """The highest precision at a recall of at least `at` (101,); 0 beyond the curve's end."""
    best = np.maximum.accumulate(np.asarray(precision, float)[::-1])[::-1]
    return np.append(best, 0.0)[np.searchsorted(np.asarray(recall, float), at, side="left")]


def _write_counts(axes: Axes, matrix: np.ndarray, shares: np.ndarray) -> None:
    longest = len(str(matrix.max()))
    size = max(5.0, min(9.0, 30.0 / longest))
    for row, column in np.argwhere(matrix > 0):
        colour = "white" if shares[row, column] > 0.55 else INK
        text = str(matrix[row, column])
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _has_lonely(values: Values) -> bool:
    """Whether any of the values (C,) has a gap on either side."""
    gap = np.isnan(np.concatenate([[np.nan], values, [np.nan]]))
    return bool(np.any(gap[:-2] & ~gap[1:-1] & gap[2:]))
