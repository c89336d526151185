"""The necks side by side, drawn from what TensorFlow traces of them: which map goes into which.

`python -m images.make` draws it. In what follows, a vertex is an input, an output, a layer of the
neck or an operation of its own.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from configs.schema import Bifpn
from core.necks.bifpn import BiFPN
from core.necks.fpn import FPN
from core.necks.panet import PANet
from utils.plots import DPI, INK, PALETTE, save

SIDES = (64, 32, 16)  # of C3, C4, C5 in the trace; whatever their level tells from their size
ACROSS, FROM_COARSER, FROM_FINER = PALETTE[7], PALETTE[1], PALETTE[0]
MARKS: dict[str, dict[str, Any]] = {
    "split": {"marker": "o", "markersize": 6, "color": INK},
    "sum": {"marker": "o", "markersize": 13, "color": "white", "markeredgecolor": INK},
    "fusion": {"marker": "o", "markersize": 13, "color": PALETTE[4], "markeredgecolor": INK},
    "end": {"marker": "s", "markersize": 21, "color": "#eef1f5", "markeredgecolor": INK},
}


@dataclass(frozen=True)
class Node:
    """A place in the picture.

    level: 3 to 7. column: from left to right.
    kind: "end" (an input or output), "sum" (an operation of several maps), "fusion" (a layer of
        several maps) or "split" (one map that goes several ways).
    """

    level: int
    column: int
    kind: str
    label: str = ""


def draw(path: str | Path, rounds: int = Bifpn.repeats) -> None:
    """FPN, PANet and BiFPN of so many rounds."""
    necks = {"FPN": FPN(8), "PANet": PANet(8), f"BiFPN, {rounds} rounds": BiFPN(8, repeats=rounds)}
    found = {title: structure(neck) for title, neck in necks.items()}
    widths = [1 + max(node.column for node in nodes.values()) for nodes, _ in found.values()]
    figure = Figure(figsize=(0.72 * sum(widths) + 1.2, 4.4), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, width_ratios=widths)
    for axes, (title, (nodes, edges)) in zip(panels, found.items(), strict=True):
        _draw_panel(axes, title, nodes, edges)
    lines = {
        "same level": ACROSS,
        "from the coarser level": FROM_COARSER,
        "from the finer level": FROM_FINER,
    }
    legend = [Line2D([], [], color=colour, label=name) for name, colour in lines.items()]
    texts = {"sum": "sum", "fusion": "weighted fusion", "split": "used several times"}
    legend += [Line2D([], [], linestyle="", label=text, **MARKS[k]) for k, text in texts.items()]
    figure.legend(handles=legend, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    save(figure, path)


def structure(neck: keras.layers.Layer) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    """Nodes by name, and edges between them, each a chain of what takes one map and gives one.

    Vertices come in the order of the graph. One that takes a single map makes no node but joins
    its source's: because nothing else takes its own result (a step of an edge), or because nothing
    else takes what it is made of (the convolution after a sum); `own` holds what a node consists
    of. A node stands one column right of the furthest that it takes from its own level, and above
    or below what it takes from others.
    """
    before, sides, layers = _traced(neck)
    after = defaultdict[str, set[str]](set)
    for name, sources in before.items():
        for source in sources:
            after[source].add(name)
    node_of: dict[str, str] = {}
    own: set[str] = set()
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    for name, sources in before.items():
        level = 3 + (SIDES[0] // sides[name]).bit_length() - 1
        from_nodes = sorted({node_of[source] for source in sources})
        # What alone takes the result of a fusion belongs to it: its convolution, say.
        has_one = len(sources) == 1
        is_rest = has_one and sources <= own and len(after[min(sources)]) == 1
        is_end = not sources or not after[name]
        if not is_end and (is_rest or (has_one and len(after[name]) == 1)):
            (node_of[name],) = from_nodes
            own |= {name} if is_rest else set()
            continue
        node_of[name] = name
        kind = ("fusion" if name in layers else "sum") if len(from_nodes) > 1 else "split"
        steps = [
            nodes[source].column + (nodes[source].level == level or nodes[source].kind == "end")
            for source in from_nodes
        ]
        nodes[name] = Node(level, max(steps, default=0), "end" if is_end else kind, name)
        own |= set() if is_end else {name}
        edges += [(source, name) for source in from_nodes]
    return _outputs_last(nodes), edges


def _traced(neck: keras.layers.Layer) -> tuple[dict[str, set[str]], dict[str, int], set[str]]:
    """Vertices with those they take maps from; the sides of their results; which are layers."""
    specs = [tf.TensorSpec([1, side, side, 4], name=f"C{i}") for i, side in enumerate(SIDES, 3)]
    graph = tf.function(neck).get_concrete_function(specs).graph
    vertex = {tensor.op.name: f"C{i}" for i, tensor in enumerate(graph.inputs[:3], 3)}
    ends = {tensor.op.name: f"P{i}" for i, tensor in enumerate(graph.outputs, 3)}
    before: dict[str, set[str]] = {name: set() for name in vertex.values()}
    sides, layers = dict(zip(before, SIDES, strict=True)), set[str]()
    for op in graph.get_operations():
        sources = {vertex[tensor.op.name] for tensor in op.inputs if tensor.op.name in vertex}
        if not sources:  # weights and numbers
            continue
        _, *scopes = op.name.split("/")  # neck, layer or operation, what is inside
        name = vertex[op.name] = ends.get(op.name) or scopes[0]
        layers |= {name} if len(scopes) > 1 else set()
        before[name] = before.get(name, set()) | (sources - {name})
        sides[name] = op.outputs[0].shape[1]
    return before, sides, layers


def _outputs_last(nodes: Mapping[str, Node]) -> dict[str, Node]:
    last = 1 + max(node.column for node in nodes.values() if node.kind != "end")
    return {
        name: Node(node.level, last, "end", name) if node.kind == "end" and node.column else node
        for name, node in nodes.items()
    }


def _draw_panel(
    axes: Axes, title: str, nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]]
) -> None:
    taken = {(node.column, node.level) for node in nodes.values()}
    for source, target in edges:
        a, b = nodes[source], nodes[target]
        between = {(column, a.level) for column in range(a.column + 1, b.column)}
        is_bent = a.level == b.level and bool(between & taken)
        colour = FROM_COARSER if a.level > b.level else FROM_FINER
        colour = ACROSS if a.level == b.level else colour
        arrow = FancyArrowPatch(
            (a.column, a.level),
            (b.column, b.level),
            connectionstyle="arc3,rad=-0.28" if is_bent else "arc3",
            arrowstyle="-|>",
            mutation_scale=10,
            shrinkA=6,
            shrinkB=13 if b.kind == "end" else 8,
            color=colour,
            linewidth=1.4,
        )
        axes.add_patch(arrow)
    for node in nodes.values():
        axes.plot(node.column, node.level, **MARKS[node.kind])
        text = {"end": node.label, "sum": "+"}.get(node.kind, "")
        axes.text(node.column, node.level, text, ha="center", va="center_baseline", color=INK)
    axes.set(xlim=(-0.5, max(node.column for node in nodes.values()) + 0.5), ylim=(2.6, 7.5))
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold")
    axes.set_axis_off()
