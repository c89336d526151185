"""Pictures of the page: samples, examples of findings, bars; each as a data URI.

Letters: H W pixels.
"""

import base64
from collections.abc import Mapping, Sequence
from itertools import islice

import cv2
import numpy as np
from matplotlib.figure import Figure

from data.doctor.findings import Finding, Shown
from data.images.decode import decode_image
from data.records import Dataset, DatasetError
from utils.draw import contact_sheet, draw_boxes, side_by_side
from utils.plots import PALETTE, png, style_axes

NUM_SAMPLES = 12
NUM_EXAMPLES = 4  # of a kind of finding
SIDE = 360  # px: longest side of an example
MARGIN = 1.0  # of the framed boxes' longer side, shown around them
LEAST = 96  # px of the image that an example shows at least


def jpeg_uri(rgb: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB -> a data URI."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 82]
    data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def samples(dataset: Dataset) -> str | None:
    """A contact sheet of random images with their boxes; None if none of them decodes."""
    chosen = np.random.default_rng(0).permutation(len(dataset))[: 2 * NUM_SAMPLES]
    tried = ((i, _picture(dataset, Shown("", i))) for i in sorted(chosen.tolist()))
    pictures = dict(islice((pair for pair in tried if pair[1] is not None), NUM_SAMPLES))
    if not pictures:
        return None
    names = [dataset.image_ids[i] for i in pictures]
    sheet = contact_sheet([*pictures.values()], columns=4, cell=(240, 240), captions=names)
    return jpeg_uri(sheet)


def examples(findings: Sequence[Finding], datasets: Mapping[str, Dataset]) -> list[tuple[str, str]]:
    """(data URI, message) of the first findings that something can be shown of."""
    found = []
    for finding in findings:
        tried = [_picture(datasets[one.split], one) for one in finding.shown]
        pictures = [picture for picture in tried if picture is not None]
        if pictures:
            picture = pictures[0] if len(pictures) == 1 else side_by_side(pictures[0], pictures[1])
            found.append((jpeg_uri(picture), finding.message))
        if len(found) == NUM_EXAMPLES:
            break
    return found


def _picture(dataset: Dataset, shown: Shown) -> np.ndarray | None:
    """An image with all its boxes, or the part of it around the framed ones, SIDE px long."""
    try:
        image = decode_image(dataset.images[shown.image], dataset.bits)
    except DatasetError:
        return None
    height, width = image.shape[:2]
    rows = list(shown.rows) or np.arange(len(dataset.labels))[dataset.rows(shown.image)]
    boxes, labels = dataset.boxes[rows], dataset.labels[rows]
    window = np.array([0, 0, width, height])
    if shown.rows:
        corners = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
        middle, side = (corners[:2] + corners[2:]) / 2, (corners[2:] - corners[:2]).max()
        reach = max(LEAST, side * (1 + 2 * MARGIN)) / 2
        window = np.concatenate([middle - reach, middle + reach])
        window = np.round(window).astype(int).clip(0, [width, height, width, height])
    x1, y1, x2, y2 = window
    part = image[y1:y2, x1:x2]
    scale = SIDE / max(part.shape[:2])
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    part = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    return draw_boxes(part, (boxes - [x1, y1, x1, y1]) * scale, labels, dataset.classes)


def bars(title: str, series: Mapping[str, Mapping[str, int]]) -> str:
    """Bars beside each other, as shares of each series: name -> {bar: count}. A PNG data URI."""
    figure = Figure(figsize=(4.6, 2.5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(series)
    for number, (name, counts) in enumerate(series.items()):
        values = np.array(list(counts.values()), float)
        places = np.arange(len(values)) + (number - (len(series) - 1) / 2) * width
        axes.bar(places, values / max(1, values.sum()), width, color=PALETTE[number], label=name)
    names = list(next(iter(series.values())))
    axes.set_xticks(np.arange(len(names)), names, rotation=45, ha="right", fontsize=8)
    style_axes(axes, title, sizes=(10, 8))
    axes.tick_params(length=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="x", visible=False)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8)
    return "data:image/png;base64," + base64.b64encode(png(figure)).decode("ascii")
