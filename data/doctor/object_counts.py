"""How many objects an image has, against how many detections are kept: what lies beyond is missed.

Letters: M images, T objects.
"""

import numpy as np

from data.records import Dataset

# Set as max_detections, times the most objects: before the last right detection come false ones.
HEADROOM = 1.5
# Candidates an object has before NMS. A level keeps its best top_k over all classes; neighbours of
# an object's best anchor score alike, and those of clear objects stand before the best of others.
# With fewer than FEWEST an object, some have none left; MANY are enough.
FEWEST, MANY = 2, 4
COCO_DETECTIONS = 100  # best ones of a class in an image that COCO's metric looks at


def limits(
    dataset: Dataset, max_detections: int, top_k: int, is_coco: bool = False
) -> list[tuple[str, str]]:
    """(kind, message) of each limit that a split's images reach; ignore regions do not count.

    max_detections, top_k: of `model.detect`. is_coco: whether COCO's metric judges.
    """
    counts = objects_an_image(dataset)
    most, found = int(counts.max(initial=0)), []
    wanted_top_k = rounded_up(MANY * most) if top_k < FEWEST * most else top_k
    if most > max_detections:
        advice = f"set model.detect.max_detections={rounded_up(HEADROOM * most)}"
        if wanted_top_k == top_k:
            advice += f"; model.detect.top_k={top_k} is enough"
        else:
            advice += f" and model.detect.top_k={wanted_top_k}"
        text = (
            f"{_images(dataset, counts, max_detections)} more than model.detect.max_detections="
            f"{max_detections} objects, up to {most}: {advice}"
        )
        found.append(("more objects than max_detections", text))
    if wanted_top_k != top_k:
        text = (
            f"{_images(dataset, counts, top_k // FEWEST)} more than {top_k // FEWEST} objects, up "
            f"to {most}; model.detect.top_k={top_k} keeps fewer than {FEWEST} candidates per "
            f"object: set model.detect.top_k={wanted_top_k}"
        )
        found.append(("more objects than candidates", text))
    of_class = objects_of_a_class(dataset) if is_coco else counts[:0]
    if (of_class > COCO_DETECTIONS).any():
        text = (
            f"{_images(dataset, of_class, COCO_DETECTIONS)} more than {COCO_DETECTIONS} objects of "
            "a class: COCO's metric looks at no more detections, whatever is set"
        )
        found.append(("more objects than COCO's metric looks at", text))
    return found


def _images(dataset: Dataset, counts: np.ndarray, limit: int) -> str:
    number = int((counts > limit).sum())
    return f"{dataset.name}: {number} of {len(dataset)} images hold{'s' * (number == 1)}"


def objects_an_image(dataset: Dataset) -> np.ndarray:
    """(M,) int64, difficult ones among them: they are detected, too."""
    return np.bincount(dataset.image_index[~dataset.ignore], minlength=len(dataset))


def objects_of_a_class(dataset: Dataset) -> np.ndarray:
    """(M,) int64: of the class that an image has most of."""
    is_object, num_classes = ~dataset.ignore, len(dataset.classes)
    pairs = dataset.image_index[is_object] * num_classes + dataset.labels[is_object]
    counts = np.bincount(pairs, minlength=len(dataset) * num_classes)
    return counts.reshape(len(dataset), num_classes).max(axis=1)


def rounded_up(number: float) -> int:
    """To one digit and zeros above 100, else to tens."""
    unit = 10 ** max(len(str(int(number))) - 1, 1)
    return int(-(-number // unit) * unit)
