"""How many, how large, how uneven: a split in numbers, JSON-ready.

Letters: M images, T objects, K classes.
"""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data.doctor.object_counts import objects_an_image
from data.images.resize import Rule, at_input_size
from data.records import Dataset

COCO_LIMITS = (32**2, 96**2)  # px^2 between COCO's small, medium and large
SIDES = (8, 16, 32, 64, 128, 256, 512)  # px between the bars of the sizes
RATIOS = (0.2, 0.33, 0.5, 0.67, 0.8, 1.25, 1.5, 2.0, 3.0, 5.0)  # height / width
COUNTS = (1, 2, 3, 5, 9, 17, 33, 65)  # boxes an image from which the next bar begins
MAX_SIZES = 10  # image sizes that are listed


def split_figures(dataset: Dataset, rule: Rule) -> dict:
    """All figures of a split; ignore regions are counted and otherwise left out.

    rule: `model.resize`, for the sizes at the network's input.
    """
    is_object = ~dataset.ignore
    boxes = at_input_size(dataset, rule)[0][is_object]
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    per_image = objects_an_image(dataset)
    classes = class_figures(dataset)
    present = [row["objects"] for row in classes if row["objects"]]
    return {
        "name": dataset.name,
        "images": len(dataset),
        "empty_images": int((np.diff(dataset.row_splits) == 0).sum()),
        "objects": int(is_object.sum()),
        "difficult": int((dataset.difficult & is_object).sum()),
        "ignore_regions": int(dataset.ignore.sum()),
        "classes": classes,
        "imbalance": max(present) / min(present) if present else None,
        "boxes_per_image": {
            "mean": float(per_image.mean()),
            "median": float(np.median(per_image)),
            "most": int(per_image.max()),
            "histogram": _histogram(per_image, COUNTS, whole=True),
        },
        "sides_at_input": _histogram(np.sqrt(width * height), SIDES),
        "ratios_at_input": _histogram(height / width.clip(1e-6), RATIOS),
        "coco_sizes": _coco_sizes(dataset.areas[is_object]),
        "coco_sizes_at_input": _coco_sizes(width * height),
        "image_sizes": _image_sizes(dataset.sizes),
    }


def class_figures(dataset: Dataset) -> list[dict]:
    """One entry a class, in label order: objects, images they are in, share of all objects."""
    is_object, num_classes = ~dataset.ignore, len(dataset.classes)
    labels = dataset.labels[is_object]
    objects = np.bincount(labels, minlength=num_classes)
    pairs = np.unique(dataset.image_index[is_object] * num_classes + labels)
    images = np.bincount(pairs % num_classes, minlength=num_classes)
    shares = objects / max(1, objects.sum())
    return [
        {"name": name, "objects": int(count), "images": int(seen), "share": float(share)}
        for name, count, seen, share in zip(dataset.classes, objects, images, shares, strict=True)
    ]


def _histogram(values: np.ndarray, limits: Sequence[float], whole: bool = False) -> dict[str, int]:
    """{"below the first limit": n, "first-second": n, ...}; whole: bars of whole numbers."""
    ends = [0, *limits]
    if whole:
        names = [
            f"{low}" if high - low == 1 else f"{low}-{high - 1}"
            for low, high in itertools.pairwise(ends)
        ]
    else:
        names = [f"{low:g}-{high:g}" for low, high in itertools.pairwise(ends)]
    return _counts(values, limits, [*names, f"{ends[-1]:g}+"])


def _coco_sizes(areas: np.ndarray) -> dict[str, int]:
    return _counts(areas, COCO_LIMITS, ("small", "medium", "large"))


def _counts(values: np.ndarray, limits: Sequence[float], names: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(np.digitize(values, limits), minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def _image_sizes(sizes: np.ndarray) -> dict:
    """The most frequent sizes, and how many others there are."""
    counts = Counter(f"{width}x{height}" for width, height in sizes.tolist())
    return {"different": len(counts), "most_frequent": dict(counts.most_common(MAX_SIZES))}
