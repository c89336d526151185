"""Boxes and names on pictures, and pictures beside each other. RGB uint8 in and out.

Lines and letters grow with the picture, so that a photograph of 4000 px reads like one of 400.
Letters: H W pixels, G boxes, K classes.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from utils.files import write_bytes

STYLES = {"solid": 0, "dashed": 4, "striped": 3}  # length of a dash and of a gap in line widths
PAPER = np.array((24, 24, 27), np.uint8)  # ground of sheets
INK = np.array((235, 235, 235), np.uint8)  # captions on it
_JPEG_SUFFIXES = (".jpg", ".jpeg")


# --------------------------------------------------------------------------------------------------
# Colours and letters
# --------------------------------------------------------------------------------------------------


@functools.cache
def _palette(num_colors: int) -> np.ndarray:
    """Farthest-point choice among vivid colours, by distance in CIELAB; the first k do not depend
    on how many are asked for."""
    steps = np.linspace(0, 1, 13, dtype=np.float32)
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = cv2.cvtColor(rgb[None], cv2.COLOR_RGB2Lab)[0]
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    keep = (lab[:, 0] > 45) & (lab[:, 0] < 92) & (chroma > 40)  # seen on dark and on light grounds
    rgb, lab = rgb[keep], lab[keep]
    chosen = [int(np.argmin(np.abs(rgb - (1.0, 0.25, 0.25)).sum(axis=1)))]
    distance = np.linalg.norm(lab - lab[chosen[0]], axis=1)
    for _ in range(1, min(num_colors, len(rgb))):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    return np.round(255 * rgb[chosen]).astype(np.uint8)


def class_colors(num_classes: int) -> np.ndarray:
    """(K, 3) uint8 RGB, as different from each other as can be; class k's colour is the same
    whatever K is. Past about a thousand classes colours repeat."""
    palette = _palette(num_classes)
    return palette[np.arange(num_classes) % len(palette)]


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: cv2's own fonts know ASCII only."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _text_mask(text: str, size: int) -> np.ndarray:
    """(h, w) float32, 0-1: text in letters of `size` px with a margin; one height for all texts."""
    font = _font(size)
    ascent, descent = font.getmetrics()
    margin = max(1, size // 6)
    width = math.ceil(font.getlength(text)) + 2 * margin
    image = Image.new("L", (width, ascent + descent), 0)
    ImageDraw.Draw(image).text((margin, 0), text, fill=255, font=font)
    return np.asarray(image, np.float32) / 255


def _text_size(height: int, width: int) -> int:
    """Letter height in px for a picture of this size."""
    return max(10, round(0.028 * math.sqrt(height * width)))


def _readable_on(color: ArrayLike) -> np.ndarray:
    """Black or white, whichever is legible on a (3,) RGB colour."""
    luminance = np.dot(np.asarray(color, np.float64), (0.299, 0.587, 0.114))
    return np.full(3, 0 if luminance > 130 else 255, np.uint8)


def _write_text(image: np.ndarray, mask: np.ndarray, x: int, y: int, ink: np.ndarray) -> None:
    """Blends a text mask into image in place, its corner at column x and row y, cropped to fit."""
    window = image[y : y + mask.shape[0], x : x + mask.shape[1]]
    alpha = mask[: window.shape[0], : window.shape[1], None]
    window[:] = np.round(window + alpha * (ink.astype(np.float32) - window))


# --------------------------------------------------------------------------------------------------
# Boxes
# --------------------------------------------------------------------------------------------------


def _check_image(image: ArrayLike) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    return image


def _check_boxes(
    boxes: ArrayLike, labels: ArrayLike, scores: ArrayLike | None, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Boxes (G, 4) float64, labels (G,) and scores (G,) or None, without rows of negative label."""
    labels = np.asarray(labels).reshape(-1).astype(np.int64)
    boxes = np.asarray(boxes, np.float64)
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    if boxes.shape != (len(labels), 4):
        raise ValueError(f"boxes: expected ({len(labels)}, 4) for the labels, got {boxes.shape}")
    if scores is not None:
        scores = np.asarray(scores, np.float64).reshape(-1)
        if len(scores) != len(labels):
            raise ValueError(f"scores: expected {len(labels)} as labels, got {len(scores)}")
    keep = labels >= 0
    boxes, labels, scores = boxes[keep], labels[keep], None if scores is None else scores[keep]
    if labels.size and labels.max() >= num_classes:
        raise ValueError(f"labels: expected below {num_classes} classes, got {labels.max()}")
    if not np.isfinite(boxes).all():
        row = int(np.flatnonzero(~np.isfinite(boxes).all(axis=1))[0])
        raise ValueError(f"boxes: expected finite numbers, got {boxes[row]}")
    return boxes, labels, scores


def _draw_frame(
    image: np.ndarray,
    box: tuple[int, int, int, int],
    thickness: int,
    dash: int,
    color: np.ndarray,
) -> None:
    """Draws a frame in place.

    box: (4,) integer xyxy, clipped. The innermost line runs on the box's own outermost pixels and
    a thicker one grows outwards, so that a small object is not painted over; at the picture's
    border it grows inwards. dash: px, 0 for a solid line.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    left, top = max(x1 - thickness + 1, 0), max(y1 - thickness + 1, 0)
    right, bottom = min(x2 + thickness - 1, width), min(y2 + thickness - 1, height)
    columns, rows = np.arange(left, right), np.arange(top, bottom)
    if dash:
        columns = columns[(columns - left) // dash % 2 == 0]
        rows = rows[(rows - top) // dash % 2 == 0]
    for first in (top, max(bottom - thickness, top)):
        image[first : min(first + thickness, bottom), columns] = color
    for first in (left, max(right - thickness, left)):
        image[rows, first : min(first + thickness, right)] = color


def _clip(box: np.ndarray, height: int, width: int) -> tuple[int, int, int, int] | None:
    """(4,) xyxy -> integers inside the picture, at least one pixel; None if the box is outside."""
    x1, y1, x2, y2 = np.round(np.clip(box, -1, (width + 1, height + 1) * 2)).astype(int).tolist()
    x2, y2 = min(max(x2, x1 + 1), width), min(max(y2, y1 + 1), height)
    x1, y1 = max(x1, 0), max(y1, 0)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _place_label(
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
    height: int,
    width: int,
) -> tuple[int, int]:
    """Column and row for a label of size (h, w): above its box, below or in it, where it hides no
    other label if that can be; always inside the picture as far as it fits."""
    x1, y1, _, y2 = box
    x = max(0, min(x1, width - size[1]))
    spots = [y for y in (y1 - size[0], y2, y1, y2 - size[0]) if 0 <= y <= height - size[0]]
    spots = spots or [max(0, min(y1, height - size[0]))]
    for y in spots:
        if not any(
            x < tx + tw and tx < x + size[1] and y < ty + th and ty < y + size[0]
            for tx, ty, th, tw in taken
        ):
            return x, y
    return x, spots[0]


def draw_boxes(
    image: np.ndarray,
    boxes: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    scores: ArrayLike | None = None,
    style: str | Sequence[str] = "solid",
    colors: ArrayLike | None = None,
    thickness: int | None = None,
    text_size: int | None = None,
    show_labels: bool = True,
) -> np.ndarray:
    """Boxes with their class names (and scores) on a copy of a picture.

    image: (H, W, 3) uint8 RGB. boxes: (G, 4) xyxy, px. labels: (G,) ints; rows below 0 are not
    drawn. classes: K names. scores: (G,) 0-1 or None; the highest comes on top, and nan, for a box
    without a score, above that. style: "solid", "dashed" or "striped" (dashes on a dark line, seen
    on any ground), for all or one a class (by habit: detections solid, ground truth dashed).
    colors: (K, 3) uint8 RGB; class_colors(K) if None. thickness, text_size: px; from the picture's
    size if None. show_labels: False draws frames only; nor does a picture under two letters' height
    get labels. Names may hold what DejaVu Sans has: Latin, Greek, Cyrillic and more, not Chinese.

    Returns a new (H, W, 3) uint8. Raises ValueError for wrong shapes, a label without a class,
    a box that is not finite, or an unknown style.
    """
    styles = [style] * len(classes) if isinstance(style, str) else list(style)
    if len(styles) != len(classes) or not set(styles) <= set(STYLES):
        raise ValueError(f"style: expected one of {tuple(STYLES)} or one a class, got {style!r}")
    image = _check_image(image).copy()
    boxes, labels, scores = _check_boxes(boxes, labels, scores, len(classes))
    height, width = image.shape[:2]
    thickness = thickness or max(1, round(math.sqrt(height * width) / 250))
    text_size = text_size or _text_size(height, width)
    colors = class_colors(len(classes)) if colors is None else np.asarray(colors, np.uint8)

    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-areas if scores is None else scores, kind="stable")  # the last is on top
    captions = []
    for row in order:
        box, color = _clip(boxes[row], height, width), colors[labels[row]]
        if box is None:
            continue
        line = styles[labels[row]]
        if line == "striped":
            _draw_frame(image, box, thickness, 0, PAPER)
        _draw_frame(image, box, thickness, STYLES[line] * thickness, color)
        score = "" if scores is None or np.isnan(scores[row]) else f" {scores[row]:.2f}"
        captions.append((f"{classes[labels[row]]}{score}", box, color))

    if show_labels:
        _draw_labels(image, captions, text_size)
    return image


def _draw_labels(
    image: np.ndarray,
    captions: Sequence[tuple[str, tuple[int, int, int, int], np.ndarray]],
    text_size: int,
) -> None:
    """Writes (text, clipped box, colour) beside the boxes, in place; the last ones lie on top."""
    height, width = image.shape[:2]
    spots, taken = [], list[tuple[int, int, int, int]]()
    for text, box, color in reversed(captions):  # the topmost has first choice
        mask = _text_mask(text, text_size)
        if 2 * mask.shape[0] > height:
            return
        x, y = _place_label(box, mask.shape, taken, height, width)
        taken.append((x, y, *mask.shape))
        spots.append((mask, x, y, color))
    for mask, x, y, color in reversed(spots):
        image[y : y + mask.shape[0], x : x + mask.shape[1]] = color
        _write_text(image, mask, x, y, _readable_on(color))


# --------------------------------------------------------------------------------------------------
# Sheets and files
# --------------------------------------------------------------------------------------------------


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 scaled to fit height and width px, its shape kept; itself if it does."""
    scale = min(height / image.shape[0], width / image.shape[1])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    if size == image.shape[1::-1]:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _caption_mask(text: str, size: int, width: int) -> np.ndarray:
    """Text mask no wider than width px: what does not fit is cut, with an ellipsis."""
    mask = _text_mask(text, size)
    keep = len(text)
    while mask.shape[1] > width and keep > 0:
        keep = min(keep - 1, int(keep * width / mask.shape[1]) + 1)
        mask = _text_mask(text[:keep].rstrip() + "…", size)
    return mask[:, :width]


def contact_sheet(
    images: Sequence[np.ndarray],
    columns: int | None = None,
    cell: tuple[int, int] = (256, 256),
    captions: Sequence[str] | None = None,
) -> np.ndarray:
    """Pictures in a grid, row by row.

    images: a sequence of (H, W, 3) uint8 RGB, of any sizes. columns: as many as make the grid about
    square if None. cell: (height, width) px that each picture is scaled to fit, its shape kept,
    centred. captions: one string a picture, under it, or None.

    Returns (H, W, 3) uint8. Raises ValueError for no images, wrong shapes or counts.
    """
    images = [_check_image(image) for image in images]
    if not images:
        raise ValueError("images: expected at least one, got none")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"captions: expected {len(images)} as images, got {len(captions)}")
    columns = math.ceil(math.sqrt(len(images))) if columns is None else columns
    if columns < 1 or min(cell) < 1:
        raise ValueError(f"columns, cell: expected 1 or more, got {columns}, {cell}")
    height, width = cell
    gap = max(2, min(cell) // 40)
    text_size = _text_size(height, width) + 2
    strip = 0 if captions is None else _text_mask("", text_size).shape[0]

    grid_rows = math.ceil(len(images) / columns)
    columns = min(columns, len(images))
    sheet = np.empty(
        (grid_rows * (height + strip + gap) + gap, columns * (width + gap) + gap, 3), np.uint8
    )
    sheet[:] = PAPER
    for index, image in enumerate(images):
        y = gap + index // columns * (height + strip + gap)
        x = gap + index % columns * (width + gap)
        picture = fit(image, height, width)
        h, w = picture.shape[:2]
        top, left = y + (height - h) // 2, x + (width - w) // 2
        sheet[top : top + h, left : left + w] = picture
        if captions is not None:
            mask = _caption_mask(captions[index], text_size, width)
            _write_text(sheet, mask, x + (width - mask.shape[1]) // 2, y + height, INK)
    return sheet


def side_by_side(
    left: np.ndarray, right: np.ndarray, captions: Sequence[str] | None = None
) -> np.ndarray:
    """Two pictures beside each other at the larger one's size: a contact sheet of two.

    left, right: (H, W, 3) uint8 RGB. captions: two strings or None. Returns (H, W, 3) uint8.
    Raises ValueError as `contact_sheet` does.
    """
    cell = max(left.shape[0], right.shape[0]), max(left.shape[1], right.shape[1])
    return contact_sheet([left, right], columns=2, cell=cell, captions=captions)


def with_legend(image: np.ndarray, entries: Sequence[tuple[str, np.ndarray, str]]) -> np.ndarray:
    """A picture with what its lines mean below it, beside each other or, for want of room, in rows.

    image: (H, W, 3) uint8 RGB. entries: text, (3,) RGB and style of each line.
    Returns a new (H', W, 3) uint8; text that is too long is cut. Raises ValueError as `draw_boxes`.
    """
    height, width = _check_image(image).shape[:2]
    text_size = min(_text_size(height, width) + 2, max(10, width // 60))  # of a wide sheet less
    line_height, space = _text_mask("", text_size).shape[0], text_size // 2
    sample = 3 * line_height  # a box as wide as that
    room = max(width - sample - 3 * space, 1)
    masks = [_caption_mask(text, text_size, room) for text, _, _ in entries]
    extents = [sample + 3 * space + mask.shape[1] for mask in masks]
    in_rows = sum(extents) > width
    starts = [0] * len(entries) if in_rows else np.cumsum([0, *extents[:-1]]).tolist()
    strip = np.empty((line_height * (len(entries) if in_rows else 1), width, 3), np.uint8)
    strip[:] = PAPER
    for row, ((_, color, style), mask, x) in enumerate(zip(entries, masks, starts, strict=True)):
        y = line_height * row if in_rows else 0
        thick = max(2, line_height // 8)
        inset = 2 * thick
        box = x + space, y + inset, x + space + sample, y + line_height - inset
        strip = draw_boxes(
            strip, [box], [0], [""], None, style, color[None], thickness=thick, show_labels=False
        )
        _write_text(strip, mask, x + 2 * space + sample, y, INK)
    return np.concatenate([image, strip])


def write_image(path: str | Path, rgb: np.ndarray, quality: int = 92) -> None:
    """Writes (H, W, 3) uint8 RGB as PNG or JPEG, by path's suffix; makes the folder if need be.

    quality: of a JPEG, 1-100. The file appears complete or not at all. Raises ValueError for
    another suffix or a wrong shape, WriteError (with the path) if it cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".png", *_JPEG_SUFFIXES):
        raise ValueError(f"{path}: expected the suffix .png, .jpg or .jpeg, got {path.suffix!r}")
    try:
        image = _check_image(rgb)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in _JPEG_SUFFIXES else []
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise OSError(f"{path}: cv2 could not encode an image of shape {image.shape}")
    write_bytes(path, data.tobytes())
