"""The default dataset: drawn shapes on textured grounds, made once and the same each time.

A VOC folder of five classes with what makes real sets awkward: unequal classes, scales from 32 to
100 px, occlusion, objects cut by the border, empty images, clutter that is no object.
Made by `python -m data.formats.shapes --root datasets/shapes`; some 10 ms an image on one core.
Letters: H W pixels of the image, h w pixels of one object's stencil.
"""

import colorsys
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from utils.program import make_parser, run_program

import cv2
import numpy as np

from data.formats import voc
from data.writers.voc import annotation
from utils.draw import write_image
from utils.files import whole_folder, write_bytes, write_text

CLASSES = ("circle", "square", "triangle", "star", "cross")
CLASS_SHARES = (0.32, 0.25, 0.19, 0.14, 0.10)
COUNT_SHARES = (0.06, 0.10, 0.14, 0.18, 0.18, 0.14, 0.10, 0.06, 0.04)  # of 0, 1 ... 8 objects
SPLITS = ("train", "val")
MARKER = "shapes.json"
GENERATOR_VERSION = 1  # raise it when the same seed no longer gives the same pictures

SIZES = (32 / 192, 100 / 192)  # longer side of an object over the image's shorter side
SMALLEST = 12.0  # px; below this star and cross look the same
MAX_ROTATION = 35.0  # degrees either way: things in photographs have an upright, too
MIN_VISIBLE = 0.5  # share of an object that border and later objects leave to see
MAX_IOU = 0.45  # between two boxes, so that non-maximum suppression at .5 can keep both
DIFFICULT_VISIBLE = 0.6  # an object seen less than this is marked difficult
DIFFICULT_SIZE = 1.03 * SIZES[0]  # ... and so is one that is hardly larger than the smallest
TYPICAL_COLOR = 0.95  # share of objects in a colour of their class: it tells much, not all
HUE_SPREAD = 0.04  # standard deviation of that colour, of the whole circle
MIN_CONTRAST = 80.0  # RGB distance between an object and the mean of what it covers
SUPERSAMPLE = 4
# Of 255; coverage below this is not drawn, so that box and drawn pixels agree. It must exceed
# 255 / SUPERSAMPLE: cv2.fillPoly paints one row and column too many where an edge lies between two.
FAINT = 80


@dataclass(frozen=True)
class Parameters:
    """Everything a dataset follows from; kept in its marker file."""

    num_train: int
    num_val: int
    image_size: tuple[int, ...]
    seed: int
    generator_version: int = GENERATOR_VERSION

    def __post_init__(self) -> None:
        if self.num_train < 1 or self.num_val < 1:
            raise ValueError(
                "num_train, num_val: expected at least 1 image each, "
                f"got {self.num_train}, {self.num_val}"
            )
        if len(self.image_size) != 2 or min(self.image_size) < 64:
            raise ValueError(
                f"image_size: expected (height, width) of at least 64, got {self.image_size}"
            )
        if self.seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {self.seed}")


@dataclass(frozen=True)
class Stencil:
    """One object's pixels: the part of it that lies inside the image.

    name: the class. coverage: (h, w) uint8, 0 where nothing is drawn, 255 where nothing shines
    through; its border rows and columns each hold a drawn pixel, so its frame is the tight box.
    inner: (h, w) uint8, the part inside the outline. x, y: column and row of its first pixel.
    full_area: drawn pixels had the image no border.
    """

    name: str
    coverage: np.ndarray
    inner: np.ndarray
    x: int
    y: int
    full_area: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """xyxy in continuous coordinates: the frame of the drawn pixels."""
        height, width = self.coverage.shape
        return self.x, self.y, self.x + width, self.y + height

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the stencil lies on."""
        x1, y1, x2, y2 = self.box
        return slice(y1, y2), slice(x1, x2)

    @property
    def truncated(self) -> bool:
        return bool(np.count_nonzero(self.coverage) < self.full_area)


@dataclass(frozen=True)
class SceneObject:
    """An object as the annotation describes it; visible: share of its whole area left to see."""

    stencil: Stencil
    visible: float
    difficult: bool


# --------------------------------------------------------------------------------------------------
# Ground
# --------------------------------------------------------------------------------------------------


def _color(
    rng: np.random.Generator,
    saturation: tuple[float, float],
    value: tuple[float, float],
    hue: float | None = None,
) -> np.ndarray:
    """(3,) float32 RGB 0-255; saturation and value are (low, high) in 0-1, hue None is any."""
    hue = rng.random() if hue is None else hue % 1.0
    rgb = colorsys.hsv_to_rgb(hue, rng.uniform(*saturation), rng.uniform(*value))
    return 255 * np.array(rgb, np.float32)


def _ramp(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W) float32, -1 to 1 across the frame in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    ramp = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    return ramp / max(float(np.abs(ramp).max()), 1e-6)


def _noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32, smooth noise of several grain sizes, mostly grey, some 40 levels deep."""
    total = np.zeros((height, width, 3), np.float32)
    for grain, strength in ((48, 14.0), (16, 9.0), (5, 6.0)):
        rows, columns = height // grain + 2, width // grain + 2
        grid = rng.normal(size=(rows, columns, 1)) + 0.4 * rng.normal(size=(rows, columns, 3))
        grid = (grid * strength * rng.uniform(0.3, 1.2)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return total


def _blobs(rng: np.random.Generator, image: np.ndarray) -> None:
    """Paints a few soft, long blobs on image (H, W, 3) float32, in place."""
    height, width = image.shape[:2]
    scale = min(height, width) / 192
    for _ in range(rng.integers(0, 4)):
        mask = np.zeros((height, width), np.uint8)
        center = rng.integers(0, (width, height)).tolist()
        long = rng.uniform(8, 40) * scale
        axes = (int(long) + 1, int(long * rng.uniform(0.25, 0.6)) + 1)
        cv2.ellipse(mask, center, axes, rng.uniform(0, 180), 0, 360, 255, -1)
        mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(4, 9) * scale).astype(np.float32)
        alpha = mask[..., None] * np.float32(rng.uniform(0.3, 0.7) / 255)
        image += alpha * (_color(rng, (0.1, 0.6), (0.2, 0.9)) - image)


def _strokes(rng: np.random.Generator, image: np.ndarray) -> None:
    """Paints a few lines, arcs and short bars on image (H, W, 3) uint8, in place."""
    height, width = image.shape[:2]
    scale = min(height, width) / 192
    thin = max(1, round(scale))
    for _ in range(rng.integers(0, 7)):
        color = _color(rng, (0.0, 0.7), (0.1, 1.0)).tolist()
        start, end = rng.integers(0, (width, height), size=(2, 2)).tolist()
        kind = rng.choice(("line", "arc", "bar"), p=(0.5, 0.3, 0.2))
        if kind == "line":
            cv2.line(image, start, end, color, int(rng.integers(1, 3)) * thin, cv2.LINE_AA)
        elif kind == "arc":
            axes = (rng.uniform(10, 60, size=2) * scale).astype(int).tolist()
            first, sweep = rng.uniform(0, 360), rng.uniform(40, 130)
            cv2.ellipse(image, start, axes, 0, first, first + sweep, color, thin, cv2.LINE_AA)
        else:
            end = (start + rng.uniform(-35, 35, size=2) * scale).astype(int).tolist()
            cv2.line(image, start, end, color, int(rng.integers(3, 6)) * thin, cv2.LINE_AA)


def _ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32 RGB: a blend of two colours under noise, stripes and what is no object."""
    first = _color(rng, (0.05, 0.55), (0.15, 0.95))
    second = first + rng.uniform(-60, 60, size=3).astype(np.float32)
    blend = (_ramp(rng, height, width) + 1)[..., None] / 2
    image = first + blend * (second - first) + _noise(rng, height, width)
    if rng.random() < 0.4:
        waves = rng.uniform(3, 20) * _ramp(rng, height, width) + rng.uniform(0, 6)
        image += np.float32(rng.uniform(5, 22)) * np.sin(np.pi * waves)[..., None]
    image = image.astype(np.float32)
    _blobs(rng, image)
    image = np.clip(image, 0, 255).astype(np.uint8)  # cv2 smooths the edges of 8-bit lines only
    _strokes(rng, image)
    return image.astype(np.float32)


# --------------------------------------------------------------------------------------------------
# Objects
# --------------------------------------------------------------------------------------------------


def _ring(num: int, radius: float = 1.0) -> np.ndarray:
    """(num, 2) x, y of points on a circle, the first one at the top."""
    angles = 2 * np.pi * np.arange(num) / num - np.pi / 2
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _star() -> np.ndarray:
    points = _ring(10)
    points[1::2] *= 0.45
    return points


def _cross(arm: float = 0.3) -> np.ndarray:
    quarter = np.array([(arm, -1.0), (arm, -arm), (1.0, -arm)])
    turn = np.array([(0.0, 1.0), (-1.0, 0.0)])  # of row vectors: right becomes down
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


POLYGONS = {
    "circle": _ring(72),
    "square": np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]),
    "triangle": _ring(3),
    "star": _star(),
    "cross": _cross(),
}


def _coverage(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) uint8 coverage 0-255 of a polygon (P, 2) of continuous x, y."""
    fine = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), np.uint8)
    bits = 4  # cv2 counts from pixel centres, in 16ths here
    points = np.round((polygon * SUPERSAMPLE - 0.5) * 2**bits).astype(np.int32)
    cv2.fillPoly(fine, [points], 255, shift=bits)
    coverage = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    coverage[coverage < FAINT] = 0
    return coverage


def make_stencil(
    name: str,
    size: float,
    center: tuple[float, float],
    image_size: Sequence[int],
    rotation: float = 0.0,
    squeeze: float = 1.0,
    outline: float = 0.0,
) -> Stencil | None:
    """Rasterises one object.

    name: one of CLASSES. size: longer side of the object's frame, px. center: its x, y, px.
    image_size: (height, width). rotation: degrees, clockwise. squeeze: width over its own width.
    outline: width of the outline over the object's size. Returns a Stencil, or None if no pixel of
    the object lies inside the image.
    """
    angle = np.deg2rad(rotation)
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    polygon = POLYGONS[name] * (squeeze, 1.0) @ turn
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    scale = size / (high - low).max()
    anchor = np.array(center) - (low + high) / 2 * scale  # where the polygon's origin comes to lie
    corner = np.floor(anchor + low * scale).astype(int) - 1
    w, h = np.ceil((high - low) * scale).astype(int) + 4
    coverage = _coverage(polygon * scale + anchor - corner, h, w)
    inner = _coverage(polygon * scale * (1 - 2 * outline) + anchor - corner, h, w)

    full_area = int(np.count_nonzero(coverage))
    height, width = image_size
    x0, y0 = np.maximum(-corner, 0)
    x1, y1 = np.minimum((w, h), np.array((width, height)) - corner)
    drawn = coverage[y0 : max(y1, y0), x0 : max(x1, x0)]
    if not drawn.any():
        return None
    rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
    top, left = rows[0] + y0, columns[0] + x0
    window = slice(top, rows[-1] + 1 + y0), slice(left, columns[-1] + 1 + x0)
    x, y = int(corner[0] + left), int(corner[1] + top)
    return Stencil(name, coverage[window], inner[window], x, y, full_area)


def paint(
    image: np.ndarray,
    stencil: Stencil,
    fill: np.ndarray,
    border: np.ndarray,
    shade: np.ndarray | float = 0.0,
) -> None:
    """Paints a stencil on image (H, W, 3) float32 RGB, in place.

    fill, border: (3,) RGB 0-255, inside the outline and of it. shade: (h, w) or a number, levels
    added to the fill. Every pixel of nonzero coverage is touched and no other.
    """
    inner = stencil.inner[..., None] / np.float32(255)
    color = border + inner * (fill + np.atleast_2d(shade)[..., None] - border)
    window = image[stencil.window]
    window += stencil.coverage[..., None] / np.float32(255) * (color - window)


def _paint_random(rng: np.random.Generator, image: np.ndarray, stencil: Stencil) -> None:
    """Paints a stencil in a colour of its class that stands out from what it covers."""
    behind = image[stencil.window][stencil.coverage > 0].mean(axis=0)
    hue = CLASSES.index(stencil.name) / len(CLASSES) + rng.normal(scale=HUE_SPREAD)
    hue = hue if rng.random() < TYPICAL_COLOR else rng.random()
    choices = np.stack([_color(rng, (0.4, 1.0), (0.25, 1.0), hue) for _ in range(8)])
    contrast = np.linalg.norm(choices - behind, axis=1)
    # The first that stands out enough, else the one that does so most.
    fill = choices[np.argmax(np.minimum(contrast, MIN_CONTRAST))]
    border = fill * rng.uniform(0.25, 0.6) + (rng.random() < 0.3) * 130
    height, width = stencil.coverage.shape
    shade = rng.uniform(0, 28) * _ramp(rng, height, width)
    shade += rng.normal(scale=rng.uniform(0, 6), size=(height, width))
    paint(image, stencil, *(values.astype(np.float32) for values in (fill, border, shade)))


def _random_stencil(
    rng: np.random.Generator, name: str, image_size: Sequence[int]
) -> Stencil | None:
    """A Stencil of random size and place, now and then across the border; None if it is outside."""
    height, width = image_size
    side = min(image_size)
    size = np.exp(rng.uniform(*np.log((max(SIZES[0] * side, SMALLEST), SIZES[1] * side))))
    crosses = rng.random() < 0.12
    margin = 0.0 if crosses else min(size / 2 + 1, side / 2)
    return make_stencil(
        name,
        size,
        center=(rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)),
        image_size=image_size,
        rotation=rng.uniform(-MAX_ROTATION, MAX_ROTATION),
        squeeze=rng.uniform(0.85, 1.15),
        outline=rng.choice((0.0, rng.uniform(0.05, 0.12))),
    )


def _iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _fits(stencil: Stencil, placed: Sequence[Stencil], owner: np.ndarray) -> bool:
    """Whether a stencil can go on top and leave enough to see of itself and of all others."""
    if np.count_nonzero(stencil.coverage) < MIN_VISIBLE * stencil.full_area:
        return False
    if any(_iou(stencil.box, other.box) > MAX_IOU for other in placed):
        return False
    covered = owner[stencil.window][stencil.coverage > 0]
    hidden = np.bincount(covered + 1, minlength=len(placed) + 1)[1:]
    return all(
        np.count_nonzero(owner == k) - hidden[k] >= MIN_VISIBLE * other.full_area
        for k, other in enumerate(placed)
        if hidden[k]
    )


def make_scene(
    rng: np.random.Generator, image_size: Sequence[int]
) -> tuple[np.ndarray, list[SceneObject]]:
    """One picture and what is in it.

    rng: numpy Generator. image_size: (height, width). Returns image (H, W, 3) uint8 RGB and a list
    of SceneObject, the hindmost first.
    """
    height, width = image_size
    image = _ground(rng, height, width)
    owner = np.full((height, width), -1, np.int16)  # which object each pixel shows
    placed: list[Stencil] = []
    # Classes are drawn before places are tried, so that a full image changes no class's share.
    for name in rng.choice(
        CLASSES, size=rng.choice(len(COUNT_SHARES), p=COUNT_SHARES), p=CLASS_SHARES
    ):
        for _ in range(20):
            stencil = _random_stencil(rng, str(name), image_size)
            if stencil is not None and _fits(stencil, placed, owner):
                _paint_random(rng, image, stencil)
                owner[stencil.window][stencil.coverage > 0] = len(placed)
                placed.append(stencil)
                break
    image = (image - 128) * rng.uniform(0.75, 1.1) + 128 + rng.uniform(-25, 20)
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 0.9))
    image += rng.normal(scale=rng.uniform(0.5, 6), size=image.shape)
    return np.clip(np.round(image), 0, 255).astype(np.uint8), _describe(placed, owner)


def _describe(placed: Sequence[Stencil], owner: np.ndarray) -> list[SceneObject]:
    """The list of SceneObject for stencils and the (H, W) map of which one each pixel shows."""
    tiny = DIFFICULT_SIZE * min(owner.shape)
    objects = []
    for index, stencil in enumerate(placed):
        visible = np.count_nonzero(owner == index) / stencil.full_area
        difficult = visible < DIFFICULT_VISIBLE or max(stencil.coverage.shape) < tiny
        objects.append(SceneObject(stencil, visible, bool(difficult)))
    return objects


# --------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------


def _annotation(filename: str, image_size: Sequence[int], objects: Sequence[SceneObject]) -> bytes:
    """The VOC annotation of one image, as bytes of XML."""
    height, width = image_size
    rows = []
    for item in objects:
        x1, y1, x2, y2 = item.stencil.box
        rows.append(
            {
                "name": item.stencil.name,
                "truncated": item.stencil.truncated,
                "difficult": item.difficult,
                # VOC counts pixels from 1 and names the last one: column 0 is 1, column c is c + 1.
                "corners": (x1 + 1, y1 + 1, x2, y2),
            }
        )
    return annotation(filename, (width, height), rows, database="shapes")


def _write(root: Path, parameters: Parameters) -> None:
    """Fills an empty folder; the marker comes last."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number, (split, count) in enumerate(
        zip(SPLITS, (parameters.num_train, parameters.num_val), strict=True)
    ):
        stems = [f"{split}_{index:05d}" for index in range(count)]
        for index, stem in enumerate(stems):
            rng = np.random.default_rng((parameters.seed, number, index))
            image, objects = make_scene(rng, parameters.image_size)
            write_image(root / "JPEGImages" / f"{stem}.jpg", image, quality=92)
            xml = _annotation(f"{stem}.jpg", parameters.image_size, objects)
            write_bytes(root / "Annotations" / f"{stem}.xml", xml)
        write_text(root / "ImageSets/Main" / f"{split}.txt", "".join(f"{s}\n" for s in stems))
    write_text(root / MARKER, json.dumps(asdict(parameters), indent=2) + "\n")


def _check_same(root: Path, parameters: Parameters) -> None:
    """Raises ValueError unless root was made by this generator from the same parameters."""
    wanted = json.loads(json.dumps(asdict(parameters)))
    try:
        found = json.loads((root / MARKER).read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{root}: exists and has no {MARKER}, so it is not a shapes dataset and is left alone; "
            "name another folder or remove this one"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{root / MARKER}: expected the parameters as JSON, got {error}"
        ) from error
    if found != wanted:
        raise ValueError(
            f"{root}: holds a shapes dataset of {found}, asked for {wanted}; "
            "name another folder or remove this one"
        )


def make_shapes(
    root: str | Path,
    num_train: int = 1400,
    num_val: int = 200,
    image_size: Sequence[int] = (192, 192),
    seed: int = 0,
) -> Path:
    """Makes the shapes dataset, or finds it made.

    root: folder to make, in VOC's layout: JPEGImages/*.jpg, Annotations/*.xml,
    ImageSets/Main/{train,val}.txt. num_train, num_val: images. image_size: (height, width), px, at
    least 64. seed: 0 or more. Image i of a split depends on seed, split, i and image_size alone, so
    a larger set begins with the smaller one's images. Boxes frame what is drawn of
    an object inside the image before later objects cover some of it: 1-based inclusive corners.

    Returns root. It appears complete or not at all. Raises ValueError if a parameter is out of
    range, or root exists and is anything but this dataset with these parameters.
    """
    root = Path(root)
    parameters = Parameters(num_train, num_val, tuple(int(v) for v in image_size), seed)
    if os.path.lexists(root):
        _check_same(root, parameters)
        return root
    try:
        with whole_folder(root) as part:
            _write(part, parameters)
    except OSError:  # somebody else may have made it meanwhile
        if not os.path.lexists(root):
            raise
        _check_same(root, parameters)
    return root


FORMAT = replace(voc.FORMAT, undivided=None, prepare=make_shapes, target=None)


def main() -> None:
    parser = make_parser("Makes the shapes dataset, a VOC folder.", "data.formats.shapes")
    parser.add_argument("--root", default="datasets/shapes", help="folder to make")
    parser.add_argument("--num-train", type=int, default=1400)
    parser.add_argument("--num-val", type=int, default=200)
    parser.add_argument(
        "--image-size", type=int, nargs=2, default=(192, 192), metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    root = make_shapes(**vars(arguments))
    print(f"{root}: {arguments.num_train} training and {arguments.num_val} validation images")


if __name__ == "__main__":
    run_program(main)
