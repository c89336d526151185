"""Whether contestants found the same: otherwise their times say nothing.

Letters: D detections.
"""

from collections.abc import Mapping

import numpy as np


def matched(ours: Mapping, theirs: Mapping, iou: float) -> int:
    """How many detections have a counterpart of the same label and more than that IoU, one to one.

    ours, theirs: boxes (D, 4), scores (D,), labels (D,); better ones of ours choose first.
    """
    from utils.boxes import pairwise_iou  # TensorFlow, which workers would import before torch

    fits = pairwise_iou(ours["boxes"], theirs["boxes"]).numpy()
    fits[ours["labels"][:, None] != theirs["labels"]] = 0
    count = 0
    for i in np.argsort(-ours["scores"], kind="stable"):
        if fits.shape[1] and fits[i].max() > iou:
            fits[:, fits[i].argmax()] = 0
            count += 1
    return count


def compare(ours: Mapping, theirs: Mapping, iou: float) -> dict:
    """JSON-ready: of detections the numbers and those matched, of losses the relative differences.

    Empty where the two tell nothing of the same name.
    """
    if "boxes" in ours:
        counts = {"ours": len(ours["scores"]), "theirs": len(theirs["scores"])}
        return counts | {"matched": matched(ours, theirs, iou), "iou": iou}
    shared = [name for name in ours if name in theirs]
    return {name: float(abs(ours[name] / theirs[name] - 1)) for name in shared}


def sentence(name: str, compared: Mapping) -> str:
    """What `compare` found, for a report."""
    if not compared:
        return f"{name}: tells no loss that can be compared"
    if "matched" in compared:
        template = (
            "{matched} matched (IoU > {iou:g}, same label) of ours {ours} and theirs {theirs}"
        )
        return f"{name}: {template.format(**compared)}"
    parts = [f"{loss.replace('_', ' ')} differs by {value:.1g}" for loss, value in compared.items()]
    return f"{name}: {', '.join(parts)}"
