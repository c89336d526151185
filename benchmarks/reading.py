"""How fast an annotation file of COCO's size becomes a dataset: `python -m benchmarks.reading`.

Generates, in a temporary folder, an instances file as large as COCO's train2017 - 118,287 images,
860,001 boxes, each with a polygon - and image files, empty but for their names: with
check_images=False none is opened. Then measures, each time in a fresh process, our reader against
pycocotools, which loads the same file with `json` and indexes it, but looks for no image and judges
nothing. Memory is the peak above what was there after the imports; ours includes the pages of the
mapped file. Leaves in --out reading.json and reading.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from utils.program import make_parser

import numpy as np

from benchmarks.interleave import ROOT
from benchmarks.machine import description, headline, require_idle
from benchmarks.worker import Memory
from utils.files import write_text

IMAGES, BOXES, CATEGORIES = 118_287, 860_001, 80  # COCO's train2017
SPLIT = "train2017"
OURS, THEIRS = "ours", "pycocotools"


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--boxes", type=int, default=BOXES)
    parser.add_argument("--out", default="runs/benchmarks/reading")
    parser.add_argument("--busy", action="store_true", help="measure though others compute")
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.reader:
        print(json.dumps(READERS[args.reader](Path(args.root))))
        return
    others = require_idle(allow_busy=args.busy)
    with tempfile.TemporaryDirectory() as folder:
        size = generate(Path(folder), args.images, args.boxes)
        found: dict[str, list[dict]] = {name: [] for name in READERS}
        for _ in range(args.rounds):
            for name, results in found.items():
                results.append(in_fresh_process(name, folder))
    report = {"machine": description(), "others_at_start": others, "busy": args.busy}
    report |= {"images": args.images, "boxes": args.boxes, "bytes": size, "found": found}
    write_text(Path(args.out) / "reading.json", json.dumps(report, indent=1))
    write_text(Path(args.out) / "reading.md", markdown(report))
    print(markdown(report))


def in_fresh_process(reader: str, root: str) -> dict:
    """seconds, peak and objects of one run; it has the file in the system's cache."""
    command = [sys.executable, "-m", "benchmarks.reading", "--reader", reader, "--root", root]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


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


def ours(root: Path) -> dict:
    from data.formats.coco import read_coco

    memory, start = Memory(), time.perf_counter()
    dataset = read_coco(root, SPLIT, check_images=False)
    seconds = time.perf_counter() - start
    arrays = [getattr(dataset, field.name) for field in fields(dataset)]
    held = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    peak = memory.read()["above_imports"]
    return {"seconds": seconds, "peak": peak, "objects": len(dataset.labels), "held": held}


def theirs(root: Path) -> dict:
    from pycocotools.coco import COCO

    memory, start = Memory(), time.perf_counter()
    coco = COCO(str(root / "annotations" / f"instances_{SPLIT}.json"))
    seconds = time.perf_counter() - start
    peak = memory.read()["above_imports"]
    return {"seconds": seconds, "peak": peak, "objects": len(coco.anns)}


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
    lines = [headline(report["machine"], report["busy"]), ""]
    lines += [
        f"{report['images']:,} images, {report['boxes']:,} boxes, {size / 2**20:,.0f} MiB",
        "",
    ]
    lines += ["| reader | minimum | / ours | peak memory | / ours | peak less the file |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    for name, values in best.items():
        cells = [name, f"{values['seconds']:.2f} s", _ratio(best, name, "seconds")]
        cells += [f"{values['peak'] / 2**20:,.0f} MiB", _ratio(best, name, "peak")]
        cells.append(f"{(values['peak'] - size) / 2**20:,.0f} MiB")
        lines.append("| " + " | ".join(cells) + " |")
    held = found[OURS][0]["held"] / 2**20
    lines += ["", f"Minima of {len(found[OURS])} runs. Our dataset's arrays hold {held:.1f} MiB."]
    return "\n".join(lines) + "\n"


def _ratio(best: dict, name: str, key: str) -> str:
    return f"{best[name][key] / best[OURS][key]:.2f}"


if __name__ == "__main__":
    main()
