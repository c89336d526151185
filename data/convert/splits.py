"""New splits of a dataset that is converted."""

from dataclasses import replace

from loguru import logger

from data.records import Dataset, concatenate, select
from data.stratify import stratified_splits


def new_splits(
    datasets: dict[str, Dataset], names: dict[str, str], shares: list[tuple[str, float]], seed: int
) -> dict[str, Dataset]:
    """All images distributed anew; one that several splits hold is taken from the first.

    names: {image: its name in the target}, which becomes the image's id where two have the same.
    """
    parts, seen = [], set()
    for name, dataset in datasets.items():
        fresh = [i for i, image in enumerate(dataset.images) if names[image] not in seen]
        if num_seen := len(dataset) - len(fresh):
            logger.warning("{}: {} images are in an earlier split, too", name, num_seen)
        seen |= {names[image] for image in dataset.images}
        parts += [select(dataset, fresh)] if fresh else []
    ids = [image_id for part in parts for image_id in part.image_ids]
    if len(set(ids)) < len(ids):
        parts = [replace(p, image_ids=tuple(names[image] for image in p.images)) for p in parts]
    whole = concatenate(parts)
    indices = stratified_splits(whole, [share for _, share in shares], seed)
    return {name: select(whole, i) for (name, _), i in zip(shares, indices, strict=True)}
