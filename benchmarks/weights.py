"""Weights for all contestants, made by a worker.

Leaves theirs.pth, a state dict of torchvision, and weights.npz, what `import_file` makes of it. In
a process of its own, so that those that are timed need not import the other's library.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.contestants import torchvision  # before TensorFlow: its libraries clash otherwise
from benchmarks.contestants.job import SEED
from core.weights.importing import import_file


def make(depth: int, classes: int, folder: str) -> Callable[[], dict]:
    def write() -> dict:
        file = Path(folder) / "theirs.pth"
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state_dict(depth, classes), file)
        names = [f"class {k}" for k in range(classes)]
        import_file(file, classes=names).save(file.with_name("weights.npz"))
        return {}

    return write


def state_dict(depth: int, classes: int) -> dict:
    """Of a detector that finds something: otherwise nothing would reach NMS."""
    torch.manual_seed(SEED)
    model = torchvision.build(depth, 416, classes).train()
    head = model.head.classification_head.cls_logits
    with torch.no_grad():
        for name, bias in model.named_parameters():
            if name.endswith("bias"):  # zeros would be optimised away, as no trained ones are
                torch.nn.init.normal_(bias, std=0.01)
        noise = torch.rand(4, 3, 52, 52).repeat_interleave(8, 2).repeat_interleave(8, 3)
        for _ in range(20):  # running statistics of batch norm
            model.backbone(model.transform(list(noise))[0].tensors)
        # Logits of deviation 1 about a mean that lets some hundred candidates pass .05.
        model.eval()
        torch.nn.init.normal_(head.weight, std=0.05)
        features = model.backbone(model.transform(list(noise))[0].tensors)
        head.weight /= model.head(list(features.values()))["cls_logits"].std()
        head.bias.fill_(-6.5)
    return model.state_dict()
