"""What a contestant is asked to do, and the images and boxes that all of them get.

Letters: B batch, H W pixels, G boxes of an image.
"""

from dataclasses import dataclass

import numpy as np

SEED = 7
BATCH = {"inference": 1, "train": 2}
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4  # of everybody's SGD


@dataclass(frozen=True)
class Job:
    """One line of a table.

    library: a module of this package. task: "inference" or "train".
    precision: "float32" or "bfloat16" (training keeps its weights in float32).
    variant: what its library can do in more than one way, see the module.
    depth: of the ResNet. size: side of the square images. weights: a folder of `weights.py`.
    """

    library: str
    task: str
    precision: str
    variant: str
    depth: int
    size: int
    classes: int
    weights: str

    @property
    def batch(self) -> int:
        return BATCH[self.task]

    @property
    def name(self) -> str:
        return f"{self.library.replace('_', '-')}, {self.variant}"

    @property
    def group(self) -> tuple:
        """What jobs must share for their times to be compared."""
        return self.depth, self.size, self.classes, self.task, self.precision


def images_of(job: Job) -> np.ndarray:
    """(B, H, W, 3) uint8: smooth noise, so that no layer sees a constant."""
    generator = np.random.default_rng(SEED)
    cells = job.size // 8
    coarse = generator.integers(0, 256, [job.batch, cells, cells, 3], np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def objects_of(job: Job, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """(B, G, 4) float32 xyxy and (B, G) int32: boxes of a sixteenth to half of the side."""
    generator = np.random.default_rng(SEED + 1)
    sides = job.size * generator.uniform(1 / 16, 1 / 2, [job.batch, count, 2])
    corner = generator.uniform(0, 1, sides.shape) * (job.size - sides)
    boxes = np.concatenate([corner, corner + sides], axis=2).astype(np.float32)
    return boxes, generator.integers(0, job.classes, [job.batch, count], np.int32)
