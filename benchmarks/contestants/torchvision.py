"""torchvision's RetinaNet v1 with live batch norm.

Variants: "as it comes"; "channels_last"; for inference "inductor": that compiled by torch.compile
with its weights frozen, which folds batch norms too. It needs a C++ compiler and a minute.
"""

import os
from collections.abc import Callable

import torch
import torchvision
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.contestants.job import (
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Job,
    images_of,
    objects_of,
)


def build(depth: int, size: int, classes: int) -> RetinaNet:
    """For images whose sides are `size` already."""
    resnet = getattr(torchvision.models, f"resnet{depth}")()
    levels = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
    backbone = _resnet_fpn_extractor(resnet, 5, **levels)
    return RetinaNet(backbone, classes, min_size=size, max_size=size)


def make(job: Job) -> Callable[[], dict]:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = build(job.depth, job.size, job.classes)
    model.load_state_dict(torch.load(f"{job.weights}/theirs.pth"))
    images = torch.from_numpy(images_of(job)).permute(0, 3, 1, 2).contiguous()
    if job.variant != "as it comes":
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    half = torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bfloat16")
    return {"inference": _inference, "train": _training}[job.task](job, model, images, half)


def _inference(
    job: Job, model: RetinaNet, images: torch.Tensor, half: torch.autocast
) -> Callable[[], dict]:
    model.eval()
    if job.variant == "inductor":
        torch._inductor.config.freezing = True
        model.backbone, model.head = torch.compile(model.backbone), torch.compile(model.head)

    def infer() -> dict:
        with torch.inference_mode(), half:
            [found] = model(list(images.float() / 255))
        return {name: found[name].float().numpy() for name in ("boxes", "scores", "labels")}

    return infer


def _training(
    job: Job, model: RetinaNet, images: torch.Tensor, half: torch.autocast
) -> Callable[[], dict]:
    model.train()
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    boxes, labels = map(torch.from_numpy, objects_of(job))
    targets = [{"boxes": b, "labels": k.long()} for b, k in zip(boxes, labels, strict=True)]
    pixels = images.float() / 255  # a data loader's work

    def train() -> dict:
        with half:
            losses = model(list(pixels), targets)
            loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        names = {"class_loss": "classification", "box_loss": "bbox_regression"}
        return {ours: float(losses[theirs].detach()) for ours, theirs in names.items()}

    return train
