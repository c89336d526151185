"""How fast an annotation file of COCO's size becomes a dataset: `python -m benchmarks.annotations`.

Generates, in a temporary folder, an instances file as large as COCO's train2017 - 118,287 images,
860,001 boxes, each with a polygon - and image files, empty but for their names: with
check_images=False none is opened. Then measures, each time in a fresh process, our reader against
pycocotools, which loads the same file with `json` and indexes it, but looks for no image and judges
nothing. Memory is the peak above what was there after the imports; ours includes the pages of the
mapped file. Leaves in --out annotations.json and annotations.md.
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from benchmarks.interleave import once
from benchmarks.program import begin, leave, make_parser, markdown_table

IMAGES, BOXES, CATEGORIES = 118_287, 860_001, 80  # COCO's train2017
SPLIT = "train2017"
OURS, THEIRS = "ours", "pycocotools"


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "annotations", rounds=3)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--boxes", type=int, default=BOXES)
    args = parser.parse_args(argv)
    report = begin(args.busy)
    with tempfile.TemporaryDirectory() as folder:
        size = generate(Path(folder), args.images, args.boxes)
        found: dict[str, list[dict]] = {name: [] for name in READERS}
        for _ in range(args.rounds):
            for name, results in found.items():
                # A process that has the file in the system's cache.
                run = once("benchmarks.annotations", {"reader": name, "root": folder})
                results.append({"peak": run.pop("above_built"), **run})
    report |= {"images": args.images, "boxes": args.boxes, "bytes": size, "found": found}
    print(leave(args.out, "annotations", report, markdown(report)))


# ------------------------------------------------------------------------------------------------
# The dataset
# ------------------------------------------------------------------------------------------------


def generate(root: Path, images: int, boxes: int) -> int:
    """Writes the instances file and the images' names; returns the file's bytes."""
    rng = np.random.default_rng(0)
    (root / SPLIT).mkdir()
    (root / "annotations").mkdir()
    sizes = rng.integers(200, 641, [images, 2])
    names = [f"{image_id:012d}.jpg" for image_id in range(1, images + 1)]
    for name in names:
        os.close(os.open(root / SPLIT / name, os.O_CREAT | os.O_WRONLY))
    path = root / "annotations" / f"instances_{SPLIT}.json"
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"info": {"year": 2017}, "licenses": [], "images": [')
        for number, (name, (width, height)) in enumerate(zip(names, sizes.tolist(), strict=True)):
            file.write(", " * (number > 0) + json.dumps(image(number + 1, name, width, height)))
        file.write('], "annotations": [')
        owners = rng.integers(0, images, boxes)
        for number, owner in enumerate(owners.tolist()):
            entry = annotation(rng, number + 1, owner + 1, sizes[owner])
            file.write(", " * (number > 0) + json.dumps(entry))
        categories = [
            {"supercategory": "thing", "id": n, "name": f"class {n}"}
            for n in range(1, CATEGORIES + 1)
        ]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return path.stat().st_size


def image(image_id: int, name: str, width: int, height: int) -> dict:
    """An entry with the fields COCO's have."""
    return {
        "license": 3,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/{SPLIT}/{name}",
        "height": height,
        "width": width,
        "date_captured": "2013-11-14 11:18:45",
        "flickr_url": f"http://farm9.staticflickr.com/8186/{image_id}_4e622c8349_z.jpg",
        "id": image_id,
    }


def annotation(rng: np.random.Generator, number: int, owner: int, size: np.ndarray) -> dict:
    """A polygon of 10 to 20 points, with two decimals, in its box; one in 100 is a crowd."""
    draws = rng.random(5 + 2 * int(rng.integers(10, 21)))
    extent = np.maximum(draws[:2] * size / 2, 2)
    corner = draws[2:4] * (size - extent - 1)
    points = (corner + draws[5:].reshape(-1, 2) * extent).ravel()
    return {
        "segmentation": [points.round(2).tolist()],
        "area": float(0.6 * extent.prod()),
        "iscrowd": int(draws[4] < 0.01),
        "image_id": owner,
        "bbox": [*corner.round(2).tolist(), *extent.round(2).tolist()],
        "category_id": number % CATEGORIES + 1,
        "id": number,
    }


# ------------------------------------------------------------------------------------------------
# The readers, each in a process of its own
# ------------------------------------------------------------------------------------------------


def make(reader: str, root: str) -> Callable[[], dict]:
    return READERS[reader](Path(root))


def ours(root: Path) -> Callable[[], dict]:
    from data.formats.coco import read_coco

    def read() -> dict:
        dataset = read_coco(root, SPLIT, check_images=False)
        arrays = [getattr(dataset, field.name) for field in fields(dataset)]
        held = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
        return {"objects": len(dataset.labels), "held": held}

    return read


def theirs(root: Path) -> Callable[[], dict]:
    from pycocotools.coco import COCO

    return lambda: {"objects": len(COCO(root / "annotations" / f"instances_{SPLIT}.json").anns)}


READERS = {OURS: ours, THEIRS: theirs}


# ------------------------------------------------------------------------------------------------
# The report
# ------------------------------------------------------------------------------------------------


def markdown(report: dict) -> str:
    found, size = report["found"], report["bytes"]
    best = {
        name: {key: min(result[key] for result in results) for key in ("seconds", "peak")}
        for name, results in found.items()
    }
    rows = []
    for name, values in best.items():
        cells = [name, f"{values['seconds']:.2f} s", _ratio(best, name, "seconds")]
        cells += [f"{values['peak'] / 2**20:,.0f} MiB", _ratio(best, name, "peak")]
        cells.append(f"{(values['peak'] - size) / 2**20:,.0f} MiB")
        rows.append(cells)
    heading = ("reader", "minimum", "/ ours", "peak memory", "/ ours", "peak less the file")
    held = found[OURS][0]["held"] / 2**20
    return (
        f"{report['images']:,} images, {report['boxes']:,} boxes, {size / 2**20:,.0f} MiB\n\n"
        f"{markdown_table(heading, rows)}\n\n"
        f"Minima of {len(found[OURS])} runs. Our dataset's arrays hold {held:.1f} MiB."
    )


def _ratio(best: dict, name: str, key: str) -> str:
    return f"{best[name][key] / best[OURS][key]:.2f}"


if __name__ == "__main__":
    main()
