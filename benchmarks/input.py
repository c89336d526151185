"""How fast images become batches: this project against torchvision v2, on the same generated JPEGs.

    make .venv-parity/.installed                  torch and torchvision, once
    .venv-parity/bin/python -m benchmarks.input

Both decode, flip, change colours (all four), scale by 0.5 to 2 of what fits, and crop or expand to
416x416, boxes with the image, batches of 8. torchvision as its DataLoader comes, a worker a core:
"colour first" in the usual order (decode, flip, colour, scale, crop), "colour last" in the order
that is cheapest for it. Every round is a process of its own, and rounds take turns; the first
batches of a round are not counted. Leaves in --out input.json and input.md.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from benchmarks.interleave import once
from benchmarks.program import begin, leave, make_parser, markdown_table

SIZES = {"640x480": (640, 480), "12 megapixels": (4000, 3000)}
SIDE, BATCH, FILES = 416, 8, 32
WORKERS = len(os.sched_getaffinity(0))
CONTESTANTS = (
    "torchvision, colour first",
    "torchvision, colour last",
    "ours",
    "ours, never reduced",
    "ours, cache",
)
COLORS = {"brightness": 0.1, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}


def main(argv: list[str] | None = None) -> None:
    parser = make_parser(__doc__, "input", rounds=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="counted in a round")
    args = parser.parse_args(argv)
    report = begin(args.busy)
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            write_photos(Path(folder) / name, *size)
        for _ in range(args.rounds):
            for name in SIZES:
                for contestant in CONTESTANTS:
                    rates = results.setdefault(name, {}).setdefault(contestant, [])
                    fields = {"contestant": contestant, "folder": f"{folder}/{name}"}
                    fields["seconds"] = args.seconds
                    rates.append(once("benchmarks.input", fields)["rate"])
    print(leave(args.out, "input", report | {"rates": results}, table(results)))


def make(contestant: str, folder: str, seconds: float) -> Callable[[], dict]:
    """A round of a contestant, as a worker does it."""
    return lambda: {"rate": one_round(contestant, Path(folder), seconds)}


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: median and least of the rounds, and the medians' ratio to torchvision's."""
    lines = []
    for name, rows in results.items():
        middle = {contestant: statistics.median(rates) for contestant, rates in rows.items()}
        for contestant, rates in rows.items():
            ratios = [middle[contestant] / middle[other] for other in CONTESTANTS[:2]]
            numbers = (middle[contestant], min(rates), *ratios)
            lines.append([name, contestant, *(f"{number:.1f}" for number in numbers)])
    heading = ("photos", "", "images/s", "slowest round", "x colour first", "x colour last")
    return markdown_table(heading, lines, num_texts=2)


def write_photos(folder: Path, width: int, height: int) -> None:
    """JPEGs of quality 90, 4:2:0: matplotlib's portrait, enlarged, with a camera's noise."""
    from matplotlib.cbook import get_sample_data

    folder.mkdir()
    portrait = cv2.imread(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    assert portrait is not None, "matplotlib brings it"
    photo = cv2.resize(portrait, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    for i in range(FILES):
        noise = np.random.default_rng(i).normal(0, 6, photo.shape)
        picture = np.clip(photo + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i:02d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])


def boxes_of(width: int, height: int) -> np.ndarray:
    """(8, 4) float32 xyxy."""
    corners = np.sort(np.random.default_rng(0).uniform(0, 1, [8, 2, 2]), axis=1)
    return (corners * [width, height]).reshape(8, 4).astype(np.float32)


def one_round(contestant: str, folder: Path, seconds: float) -> float:
    """Images/s once the first batches are through (of a cache: once it is filled)."""
    library, _, variant = contestant.partition(", ")
    batches = iter({"torchvision": torchvision, "ours": ours}[library](folder, variant))
    # Workers that began together also end together: a batch of each at a time.
    for _ in range(WORKERS * (1 + (FILES // BATCH if variant == "cache" else 0))):
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(WORKERS):
            next(batches)
        count += WORKERS * BATCH
    return count / (time.perf_counter() - start)


def ours(folder: Path, variant: str) -> Iterator[dict[str, np.ndarray]]:
    from configs import override
    from configs.schema import Augment, Canvas, Data
    from data.images import render
    from data.images.decode import image_size
    from data.pipeline import training_batches
    from data.records import Defects, assemble

    if variant == "never reduced":
        render.REDUCTIONS = (1,)
    paths = sorted(folder.iterdir())
    sizes = [image_size(path) for path in paths]
    boxes = [boxes_of(width, height) for width, height in sizes]
    image_index = np.repeat(np.arange(len(paths)), [*map(len, boxes)])
    augment = override(Augment(zoom=(0.5, 2.0)), COLORS)
    data = Data(cache=variant == "cache", augment=augment)
    dataset = assemble(
        "photos",
        ("thing",),
        images=[str(path) for path in paths],
        image_ids=[path.stem for path in paths],
        sizes=sizes,
        image_index=image_index,
        boxes=np.concatenate(boxes),
        labels=np.zeros(len(image_index)),
        defects=Defects(),
    )
    rule = Canvas(SIDE, SIDE)
    return training_batches(
        dataset, data, rule, batch_size=BATCH, seed=0, epochs=range(1_000_000)
    ).as_numpy_iterator()


def torchvision(folder: Path, variant: str) -> Iterable[tuple]:
    import torch
    from torchvision import tv_tensors
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    color = v2.ColorJitter(**COLORS)
    geometry = [
        v2.ScaleJitter((SIDE, SIDE), (0.5, 2.0), antialias=True),
        v2.RandomCrop((SIDE, SIDE), pad_if_needed=True, fill=116),
        v2.SanitizeBoundingBoxes(),
    ]
    flip = v2.RandomHorizontalFlip(0.5)
    order = [flip, color, *geometry] if variant == "colour first" else [*geometry, flip, color]
    change = v2.Compose(order)
    paths = sorted(str(path) for path in folder.iterdir())

    class Photos(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1_000_000

        def __getitem__(self, index: int) -> tuple:
            image = tv_tensors.Image(decode_image(paths[index % FILES], ImageReadMode.RGB))
            height, width = image.shape[-2:]
            boxes = torch.from_numpy(boxes_of(width, height))
            boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
            return change(
                image, {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.long)}
            )

    def collate(samples: list[tuple]) -> tuple:
        images, targets = zip(*samples, strict=True)
        return torch.stack(images), targets

    # "fork" is its default on Linux, but not below a process that was spawned itself.
    return torch.utils.data.DataLoader(
        Photos(), BATCH, num_workers=WORKERS, collate_fn=collate, multiprocessing_context="fork"
    )


if __name__ == "__main__":
    main()
