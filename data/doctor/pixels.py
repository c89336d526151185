"""What only shows in the image files: those that do not decode, are no plain RGB, or occur twice.

Letters: M images, H W pixels.
"""

import hashlib
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data.doctor.findings import Finding, Shown, of_image, of_split
from data.images.bit_depth import bits_of
from data.images.decode import EncodedImage, in_8_bits, orient, read_image
from data.images.gif import Gif
from data.images.tiff import Tiff
from data.images.webp import Webp
from data.records import Dataset, DatasetError
from data.slices import find_slice
from utils.diary import progress_bar

THUMBNAIL = 16  # px a side of what images are compared by
# Of a thumbnail's contrast, up to which another is the same picture: encoded again or smaller it is
# within .08, refocused or a frame later within .17; different pictures of one scene begin at .5.
NEAR_SHARE = 0.2
SAME_SHAPE = 0.02  # of width / height, by which the same picture may differ in another size
CHUNK = 1024  # thumbnails compared at a time
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WebP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}
PLAIN, DEEP = "RGB", "16 bits a value"
BECOMES = {
    "grayscale": "grey is repeated over the channels",
    "grayscale with alpha": "grey is repeated over the channels, alpha is dropped",
    "palette": "the palette is looked up",
    "RGB with alpha": "alpha is dropped, not blended",
    "CMYK": "it is converted to RGB",
    DEEP: "the highest 8 of the bits in use are kept",
}
_MODES = {
    "1": "grayscale",
    "L": "grayscale",
    "LA": "grayscale with alpha",
    "P": "palette",
    "PA": "palette",
    "RGBA": "RGB with alpha",
    "CMYK": "CMYK",
    "YCCK": "CMYK",
}


@dataclass(frozen=True)
class ImageFacts:
    """What is kept of an image once decoded.

    size: width, height. digest: of the pixels and their shape.
    thumbnail: (THUMBNAIL, THUMBNAIL, 3) uint8 RGB.
    format: of SUFFIXES, by content. colours: PLAIN or what it is instead.
    orientation: the EXIF value. most: of a file of 16 bits a value the largest, else 0.
    """

    size: tuple[int, int]
    digest: bytes
    thumbnail: np.ndarray
    format: str
    colours: str
    orientation: int
    most: int = 0


def read_facts(images: Sequence[str], title: str) -> list[ImageFacts | DatasetError]:
    """Decodes every image in full, in threads, with a progress bar; what fails gives its error."""
    with progress_bar() as bar, ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        task = bar.add_task(title, total=len(images), text="")
        facts = []
        for one in pool.map(_facts, images):
            facts.append(one)
            bar.advance(task)
    return facts


def decoded(facts: Sequence[ImageFacts | DatasetError]) -> dict[int, ImageFacts]:
    """By index, those of the images that could be decoded."""
    return {i: one for i, one in enumerate(facts) if isinstance(one, ImageFacts)}


def _facts(path: str) -> ImageFacts | DatasetError:
    try:
        encoded = read_image(path)
        values = encoded.values()
        pixels = np.ascontiguousarray(orient(values, encoded.header.orientation))
    except DatasetError as error:
        return error
    most = int(values.max()) if values.dtype == np.uint16 else 0
    shown = in_8_bits(pixels, bits_of(most))  # each by its own bits: the same picture looks alike
    size = encoded.header.width, encoded.header.height
    return ImageFacts(
        size=size,
        digest=hashlib.blake2b(pixels.data, digest_size=16, person=b"%dx%d" % size).digest(),
        thumbnail=cv2.resize(shown, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA),
        format=encoded.header.format,
        colours=_colours(encoded),
        orientation=encoded.header.orientation,
        most=most,
    )


def _colours(image: EncodedImage) -> str:
    """PLAIN or what else a file that decodes holds."""
    if image.header.bits == 16:
        return DEEP
    if isinstance(image.container, (Tiff, Webp, Gif)):
        return _MODES.get(image.container.mode, PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images: OpenCV has decoded it
        try:
            return _MODES.get(Image.open(io.BytesIO(image.data)).mode, PLAIN)
        except (OSError, Image.DecompressionBombError):  # Pillow knows fewer kinds of BMP
            return PLAIN


# ------------------------------------------------------------------------------------------------
# Image by image
# ------------------------------------------------------------------------------------------------


def file_findings(
    dataset: Dataset, facts: Sequence[ImageFacts | DatasetError], split: str
) -> list[Finding]:
    """Images that do not decode, whose suffix is wrong, that are turned, or are no plain RGB."""
    found = []
    for index, (path, one) in enumerate(zip(dataset.images, facts, strict=True)):
        if isinstance(one, DatasetError):
            stopped = Finding(one.kind, "error", split, path, "", str(one), True, image=path)
            found.append(stopped)
            continue
        for kind, severity, text in _remarks(path, one, tuple(dataset.sizes[index].tolist())):
            found.append(of_image(kind, severity, path, text, Shown(split, index)))
    return found


def _remarks(
    path: str, facts: ImageFacts, stated: tuple[int, int]
) -> Iterator[tuple[str, str, str]]:
    """(kind, severity, text) of each; stated: the size that the dataset says."""
    if stated != facts.size:
        expected, found = ("{}x{}".format(*size) for size in (facts.size, stated))
        text = f"expected {expected} as the image has, found {found} in the annotations"
        yield "size disagrees with the image", "warning", text
    # What a record calls its image is no file's name.
    if not find_slice(path) and Path(path).suffix.lower() not in SUFFIXES[facts.format]:
        text = f"is a {facts.format} file; it is read as what it is"
        yield "mislabelled image file", "note", text
    if facts.orientation != 1:
        text = f"EXIF orientation {facts.orientation}: the image is turned before boxes are laid"
        text = f"{text} on it; they fit if they were drawn on the turned one"
        yield "EXIF orientation", "note", text
    if facts.colours != PLAIN:
        yield "not plain RGB", "note", f"{facts.colours}: {BECOMES[facts.colours]}"


def depth_findings(
    datasets: Mapping[str, Dataset],
    facts: Mapping[str, Mapping[int, ImageFacts]],
    bits: int | None,
) -> tuple[list[Finding], int | None]:
    """What is in use of images of 16 bits a value, and how many bits training reads.

    facts: split -> `decoded`. bits: `model.bits`; None: what train uses.
    """
    found, used = [], {}
    for split, dataset in datasets.items():
        values = [one.most for one in facts[split].values() if one.colours == DEEP]
        used[split] = bits_of(max(values)) if values else None
        if not values:
            continue
        text = f"{dataset.name}: 16-bit images: {len(values)} of {len(dataset)}, values up to "
        text += f"{max(values)}: {used[split]} bits in use"
        found.append(of_split("16-bit images", "note", split, text))
        if len(values) < len(facts[split]):
            text = f"{dataset.name}: {len(values)} images have 16 bits a value and "
            text += f"{len(facts[split]) - len(values)} have 8; check that both are equally bright"
            found.append(of_split("images of 8 and of 16 bits", "warning", split, text))
    if not any(used.values()):
        return found, bits
    bits = bits or used["train"]
    for split, in_use in used.items():
        if in_use != bits:
            text = f"{datasets[split].name}: {_other_bits(in_use, bits or 16)}; check the cameras"
            found.append(of_split("other bits than are read", "warning", split, text))
    return found, bits


def _other_bits(in_use: int | None, bits: int) -> str:
    """Says how a split's bits differ from those that are read; in_use: None for 8-bit files."""
    if in_use is None:
        return f"all files have 8 bits, while 16-bit images are read as {bits} (model.bits)"
    found = f"uses {in_use} bits but is read as {bits} (model.bits)"
    if in_use < bits:
        return f"{found}, so it will look darker"
    return f"{found}, so values above {2**bits - 1} become white"


# ------------------------------------------------------------------------------------------------
# Images that are the same
# ------------------------------------------------------------------------------------------------


def same_within(dataset: Dataset, facts: Mapping[int, ImageFacts], split: str) -> list[Finding]:
    """Images of a split with the same pixels, by whether their boxes are the same too.

    facts: of `decoded`.
    """
    found = []
    for first, *others in _by_digest(facts).values():
        for index in others:
            text = f"the same pixels as {dataset.images[first]}, with "
            if _same_objects(dataset, first, index):
                kind, severity, text = "identical images", "note", text + "the same objects"
            else:
                kind, severity = "identical images, different boxes", "warning"
                text += "other objects"
            shown = Shown(split, first), Shown(split, index)
            found.append(of_image(kind, severity, dataset.images[index], text, *shown))
    return found


def _same_objects(dataset: Dataset, first: int, second: int) -> bool:
    """Whether two images have the same boxes of the same classes, in any order."""
    objects = [
        np.column_stack([dataset.boxes[rows], dataset.labels[rows]])
        for rows in (dataset.rows(first), dataset.rows(second))
    ]
    one, other = (array[np.lexsort(array.T)] for array in objects)
    return one.shape == other.shape and np.allclose(one, other, atol=0.5)


def same_files(train: Dataset, val: Dataset) -> list[Finding]:
    """Image files that both splits list, for when nothing is decoded."""
    places = {os.path.realpath(image): index for index, image in enumerate(train.images)}
    return [
        _leak(train, val, places[path], index, "the same file")
        for index, path in enumerate(map(os.path.realpath, val.images))
        if path in places
    ]


def same_across(
    train: Dataset,
    val: Dataset,
    known: Mapping[int, ImageFacts],
    others: Mapping[int, ImageFacts],
) -> list[Finding]:
    """Images of val that train has too: the same pixels, or nearly.

    known, others: of `decoded`, of train and of val.
    """
    places = _by_digest(known)
    found, rest = [], []
    for index, one in others.items():
        if one.digest in places:
            found.append(_leak(train, val, places[one.digest][0], index, "the same pixels"))
        else:
            rest.append(index)
    for first, index, rms in _nearest(known, others, rest):
        if rms < NEAR_SHARE * _contrast(others[index]):
            text = f"nearly the same picture, {rms:.1f} grey levels apart,"
            found.append(_leak(train, val, first, index, text))
    return found


def _contrast(facts: ImageFacts) -> float:
    """Grey levels that the thumbnail's pixels are from their mean, RMS."""
    pixels = facts.thumbnail.reshape(-1, 3).astype(np.float64)
    return float(np.sqrt(pixels.var(axis=0).mean()))


def _nearest(
    train: Mapping[int, ImageFacts], val: Mapping[int, ImageFacts], indices: Sequence[int]
) -> list[tuple[int, int, float]]:
    """(train image, val image, RMS between them) of each of `indices` and the thumbnail nearest.

    Of images of about the same shape; where there is none the RMS is infinite.
    """
    others = list(train)
    if not others or not indices:
        return []
    wanted, ratios = _vectors(val, indices), _ratios(val, indices)
    best, nearest = np.full(len(indices), np.inf), np.zeros(len(indices), int)
    for start in range(0, len(others), CHUNK):
        portion = others[start : start + CHUNK]
        vectors = _vectors(train, portion)
        squares = (wanted**2).sum(axis=1)[:, None] + (vectors**2).sum(axis=1)
        distance = (squares - 2 * wanted @ vectors.T).clip(0)
        difference = _ratios(train, portion) / ratios[:, None] - 1
        distance[np.abs(difference) > SAME_SHAPE] = np.inf
        closest = distance.argmin(axis=1)
        value = distance[np.arange(len(indices)), closest]
        nearest = np.where(value < best, np.array(portion)[closest], nearest)
        best = np.minimum(best, value)
    rms = np.sqrt(best / wanted.shape[1])
    return list(zip(nearest.tolist(), indices, rms.tolist(), strict=True))


def _vectors(facts: Mapping[int, ImageFacts], indices: Sequence[int]) -> np.ndarray:
    return np.array([facts[i].thumbnail.ravel() for i in indices], np.float32)


def _ratios(facts: Mapping[int, ImageFacts], indices: Sequence[int]) -> np.ndarray:
    """Width / height."""
    return np.array([facts[i].size[0] / facts[i].size[1] for i in indices])


def _by_digest(facts: Mapping[int, ImageFacts]) -> dict[bytes, list[int]]:
    groups = defaultdict(list)
    for index, one in facts.items():
        groups[one.digest].append(index)
    return groups


def _leak(train: Dataset, val: Dataset, first: int, index: int, how: str) -> Finding:
    kind = "image in train and val"
    if how.startswith("nearly"):
        kind = "near-identical image in train and val"
    text = f"{how} as {train.images[first]} in train: what is learnt by heart counts as known"
    shown = Shown("train", first), Shown("val", index)
    return of_image(kind, "warning", val.images[index], text, *shown)
