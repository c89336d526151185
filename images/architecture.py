"""The detector as one picture, its sizes read from a model that is built for it.

Paper: Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002, figure 3.
"""

from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from configs.schema import Model
from core.build import build_anchors, build_model
from utils.plots import DPI, INK, PALETTE, save

BLUE, RED, GREEN, VIOLET = PALETTE[:4]
PAPER = "#f4f6f9"
COLUMNS = {"image": 0.9, "backbone": 3.1, "neck": 5.6, "heads": 8.6, "outputs": 12.3}


@dataclass(frozen=True)
class Block:
    """A rectangle with text. x, y: its middle; level l of the pyramid stands at y = l."""

    x: float
    y: float
    text: str
    colour: str
    width: float = 1.7
    height: float = 0.62

    @property
    def left(self) -> tuple[float, float]:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> tuple[float, float]:
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> tuple[float, float]:
        return self.x, self.y - self.height / 2


def draw(path: str | Path, config: Model | None = None, size: int = 640, classes: int = 80) -> None:
    """A RetinaNet with an FPN for square images: which map goes where, how large each is.

    config: of the model; its defaults if None.
    """
    config = config or Model()
    model = build_model(config, classes)
    maps = model.backbone(tf.zeros([1, size, size, 3]))
    pyramid = model.neck(maps)
    figure = Figure(figsize=(13.4, 6.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-0.2, 13.9), ylim=(1.7, 8.1))
    axes.set_axis_off()

    c3, c4, c5 = (_map(axes, "backbone", f"C{3 + i}", x, BLUE, i) for i, x in enumerate(maps))
    levels = [_map(axes, "neck", f"P{3 + i}", x, GREEN, i) for i, x in enumerate(pyramid)]
    p3, p4, p5, p6, p7 = levels
    image = _block(axes, Block(COLUMNS["image"], 3, f"image\n{size} × {size} × 3", INK))
    for start, end in ((image.right, c3.left), (c3.top, c4.bottom), (c4.top, c5.bottom)):
        _arrow(axes, start, end)
    for lateral, level in ((c3, p3), (c4, p4), (c5, p5)):
        _arrow(axes, lateral.right, level.left)
    for coarse, fine in ((p5, p4), (p4, p3)):
        _arrow(axes, coarse.bottom, fine.top, RED)
    _arrow(axes, *((p5.top, p6.bottom) if config.p6_from == "p5" else (c5.top, p6.left)))
    _arrow(axes, p6.top, p7.bottom)

    _draw_heads(axes, config, classes, levels)
    parts = {"backbone": config.backbone, "neck": config.neck}
    for name, kind in parts.items():
        millions = getattr(model, name).count_params() / 1e6
        title = f"{name}: {str(kind).replace('resnet', 'ResNet-').replace('fpn', 'FPN')}"
        _title(axes, name, f"{title}\n{millions:.1f} M parameters")
    millions = (model.class_head.count_params() + model.box_head.count_params()) / 1e6
    _title(axes, "heads", f"two subnets, each for all levels\n{millions:.1f} M parameters")
    count = build_anchors(config)(size, size).shape[0]
    _title(axes, "outputs", f"outputs for\nN = {count:,} anchors")
    axes.text(p4.x + 0.1, 4.5, "upsampled,\nadded", color=RED, fontsize=8, va="center")
    save(figure, path)


def _map(axes: Axes, column: str, name: str, values: tf.Tensor, colour: str, place: int) -> Block:
    _, height, width, channels = values.shape
    text = f"{name}\n{height} × {width} × {channels}"
    return _block(axes, Block(COLUMNS[column], 3 + place, text, colour))


def _draw_heads(axes: Axes, config: Model, classes: int, levels: list[Block]) -> None:
    per_cell = build_anchors(config).num_anchors
    layers = f"{config.head_depth} × (conv 3×3, {config.head_width}, ReLU)"
    heads = (
        (6, VIOLET, "class", f"{per_cell} × {classes}", f"class logits\nN × {classes}",
         f"bias −log((1 − π) / π), π = {config.prior:g};\ntrained with the focal loss"),
        (4, PALETTE[4], "box", f"{per_cell} × 4", "box deltas\nN × 4",
         "trained with L1, smooth L1 or an\nIoU loss, on positive anchors"),
    )  # fmt: skip
    ends = []
    for y, colour, name, channels, output, note in heads:
        text = f"{name} subnet\n{layers}\nconv 3×3, {channels}"
        head = _block(axes, Block(COLUMNS["heads"], y, text, colour, width=2.9, height=0.95))
        for level in levels:
            _arrow(axes, level.right, head.left, "#b9bfc9")
        ends.append(_block(axes, Block(COLUMNS["outputs"], y, output, colour)))
        _arrow(axes, head.right, ends[-1].left)
        axes.text(head.x, y - 0.62, note, ha="center", va="top", color=INK, fontsize=8)
    text = (
        f"sigmoid, the best {config.detect.top_k:,} of each level,\ndecoded, NMS within each class"
    )
    found = _block(axes, Block(COLUMNS["outputs"] - 0.1, 2.4, text, INK, width=3.2))
    logits, deltas = ends
    _arrow(axes, deltas.bottom, (deltas.x, found.top[1]))
    _arrow(axes, logits.right, (logits.right[0] + 0.25, found.top[1]), bent=-0.15)


def _title(axes: Axes, column: str, text: str) -> None:
    axes.text(COLUMNS[column], 7.95, text, ha="center", va="top", color=INK, fontsize=10)


def _block(axes: Axes, block: Block) -> Block:
    corner = (block.x - block.width / 2, block.y - block.height / 2)
    shape = FancyBboxPatch(
        corner, block.width, block.height, boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=PAPER, edgecolor=block.colour, linewidth=1.6,
    )  # fmt: skip
    axes.add_patch(shape)
    axes.text(block.x, block.y, block.text, ha="center", va="center", color=INK, fontsize=9)
    return block


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str = INK,
    bent: float = 0.0,
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=10, shrinkA=1, shrinkB=1,
            color=colour, linewidth=1.3, connectionstyle=f"arc3,rad={bent}",
        )
    )  # fmt: skip
