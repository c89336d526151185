"""Three images with awkward names, and datasets drawn upon them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.records import Defects, assemble
from data.writers.images import place

CLASSES = ("chat, noir", "ключ", "no", "<&\"'>")
NAMES = ("a#t=1.png", "z 1.png", "été, là.png")  # in the order of their bytes
SIZES = ((40, 30), (1000, 777), (641, 427))


class Toolbox:
    """What the tests of all writers use; `folder` holds the images."""

    classes, names, sizes = CLASSES, NAMES, SIZES

    def __init__(self, folder: Path):
        self.folder = folder
        self.images = [str(folder / name) for name in NAMES]
        for image, size in zip(self.images, SIZES, strict=True):
            Image.new("RGB", size, (90, 120, 60)).save(image)
        self._numbers = itertools.count()

    def dataset(self, objects, image_ids=("a#t=1", "z 1", "été, là"), **changes):
        """Of objects (image, box, label, difficult, ignore, area); area None: the box's."""
        boxes = np.array([box for _, box, *_ in objects], np.float64).reshape(-1, 4)
        of_boxes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        areas = [
            own if item[5] is None else item[5] for own, item in zip(of_boxes, objects, strict=True)
        ]
        return assemble(
            "set/train",
            CLASSES,
            images=self.images,
            image_ids=image_ids,
            sizes=np.array(SIZES),
            image_index=np.array([item[0] for item in objects], np.int64),
            boxes=boxes,
            labels=np.array([item[2] for item in objects], np.int32),
            difficult=np.array([item[3] for item in objects], bool),
            ignore=np.array([item[4] for item in objects], bool),
            areas=np.array(areas, np.float64),
            defects=Defects(),
            **changes,
        )

    def written(self, write, dataset, image_folder):
        """(root, losses) of a new folder with the images and one split, train."""
        root = self.folder / f"written{next(self._numbers)}"
        for image, name in zip(self.images, NAMES, strict=True):
            place(image, root / image_folder / name, is_copy=False)
        return root, write(dataset, root, "train", NAMES)


@pytest.fixture(scope="session")
def toolbox(tmp_path_factory):
    return Toolbox(tmp_path_factory.mktemp("images"))
