"""Images as a program has them, files, arrays or PIL's, as a dataset without objects.

Letters: B images, H W pixels.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from data.images.decode import ImageHeader, image_size, orient
from data.images.exif import exif_orientation
from data.images.render import Decoded, Reader, image_reader
from data.records import Dataset, Defects, assemble

# A path, an array (H, W, 3) RGB or (H, W) or (H, W, 1) grey of uint8, or an image of PIL, which is
# no type here because this module does without PIL.
Image: TypeAlias = Any
EXPECTED = "a path, a (H, W, 3) or (H, W) uint8 array or a PIL image"


def unlabelled(
    images: Any, classes: Sequence[str], bits: int | None = None
) -> tuple[Dataset, Reader]:
    """One image or several, see `Image`, as a dataset without objects, and what reads them.

    Several are a list or anything else that can be iterated. Ids are the paths; without one, the
    place among the images. bits: see `Dataset`.
    Raises ValueError for anything else and where there is none, DatasetError for a damaged file.
    """
    images = list(images) if _are_several(images) else [images]
    if not images:
        raise ValueError("images: expected at least one, found no images")
    memory: dict[int, tuple[np.ndarray, int]] = {}
    names, sizes = [], []
    for index, image in enumerate(images):
        if isinstance(image, (str, os.PathLike)):
            name = os.fspath(image)
            sizes.append(image_size(name))
        else:
            name, memory[index] = str(index), as_stored(image, index)
            sizes.append(orient(*memory[index]).shape[1::-1])
        names.append(name)
    dataset = assemble(
        "images",
        classes,
        images=names,
        image_ids=[str(index) for index in range(len(names))],
        sizes=sizes,
        defects=Defects(),
    )
    # Only here, as the same image may come twice.
    dataset = replace(dataset, image_ids=tuple(names), bits=bits)
    from_file = image_reader(dataset)

    def read(
        index: int, source: np.ndarray, size: np.ndarray, antialias: bool, kept: int
    ) -> np.ndarray:
        if index not in memory:
            return from_file(index, source, size, antialias, kept)
        pixels, orientation = memory[index]
        width, height = dataset.sizes[index].tolist()
        header = ImageHeader(width, height, orientation)
        return Decoded(np.ascontiguousarray(pixels), 1, header).part(source, size, antialias)

    return dataset, read


def _are_several(images: Any) -> bool:
    if isinstance(images, (str, bytes, os.PathLike, Mapping)) or _is_tensor(images):
        return False
    if isinstance(images, np.ndarray):
        return images.ndim == 1  # of paths; a batch of pixels is refused
    try:
        iter(images)
    except TypeError:
        return False
    return True


def as_stored(image: Image, index: int) -> tuple[np.ndarray, int]:
    """An array or an image of PIL as (h, w, 3) uint8 RGB, and its EXIF orientation.

    An image of PIL is turned only once it is resized, as a file is: the same numbers come out.
    Raises ValueError that names the image by its index for anything else.
    """
    orientation = 1
    if _is_pil(image):
        image, orientation = _of_pil(image, index)
    if not isinstance(image, np.ndarray):
        raise _refusal(index, _described(image))
    found = f"{image.shape} {image.dtype}"
    if image.ndim == 4:
        raise _refusal(index, f"a batch of {found}; pass list(images)")
    if image.dtype != np.uint8:
        raise _refusal(index, f"{found}; bring the values to 0-255, then image.astype(np.uint8)")
    if image.ndim not in (2, 3) or not image.size:
        raise _refusal(index, found)
    bands = image.shape[2] if image.ndim == 3 else 1
    if bands not in (1, 3):
        raise ValueError(
            f"image {index}: expected 1 or 3 bands, (H, W, 3) or (H, W), found {bands}: {found}"
        )
    height, width = image.shape[:2]
    pixels = image.reshape(height, width, bands)  # a view, as what follows
    return np.broadcast_to(pixels, (height, width, 3)), orientation


def _refusal(index: int, found: str) -> ValueError:
    return ValueError(f"image {index}: expected {EXPECTED}, found {found}")


def _described(image: Any) -> str:
    if image is None:
        return "None; cv2.imread returns None for a file it cannot read"
    if _is_tensor(image):
        return "a tensor; pass tensor.numpy()"
    return f"{type(image).__name__}"


def _is_tensor(image: Any) -> bool:
    """Whether it is of TensorFlow, Keras or torch."""
    return hasattr(image, "numpy") and not isinstance(image, np.ndarray)


def _is_pil(image: Any) -> bool:
    pil = sys.modules.get("PIL.Image")  # where that was never imported there is no image of it
    return pil is not None and isinstance(image, pil.Image)


def _of_pil(image: Image, index: int) -> tuple[np.ndarray, int]:
    """Pixels (h, w, 3) as a decoded file has them, without alpha, and the EXIF orientation."""
    if image.mode[0] in "IF":  # PIL would cut their values off at 255
        raise _refusal(index, f"a PIL image of mode {image.mode}, whose values have no 8 bits")
    try:
        image.load()
        pixels = _of_cmyk(image) if image.mode == "CMYK" else np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise _refusal(index, f"a PIL image of mode {image.mode} ({problem})") from None
    exif = image.info.get("exif") or b""
    return pixels, exif_orientation(exif.removeprefix(b"Exif\0\0"))


def _of_cmyk(image: Image) -> np.ndarray:
    """As OpenCV has it of a file; PIL rounds otherwise."""
    ink = np.asarray(image).astype(np.int32)
    light = 255 - ink[..., 3:]
    return (light - (ink[..., :3] * light >> 8)).astype(np.uint8)
