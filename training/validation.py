"""Losses, detections and figures of the validation split while a model is trained."""

from dataclasses import dataclass

import numpy as np

from configs import Config
from core.engine import compiled, validation_step
from core.losses import Criterion
from data.pipeline import checked, evaluation_batches, image_reader
from data.records import Dataset
from detector import Detector, gather_detections
from results.scoring import Scores, score
from training.resuming import SCALARS
from utils.runs import StopSignal


@dataclass(frozen=True)
class Validated:
    """losses: means by name. histograms: see `core.losses.score_histograms`."""

    losses: dict[str, float]
    histograms: dict[str, np.ndarray]
    scores: Scores

    def row(self) -> dict[str, float]:
        """The columns of metrics.csv."""
        return {f"val_{name}": loss for name, loss in self.losses.items()} | {
            "val_map": self.scores.value
        }


class Validation:
    """The validation of a run. Compiled once; each `run` takes the model as it is."""

    def __init__(self, detector: Detector, criterion: Criterion, dataset: Dataset, config: Config):
        self.dataset, self.config = dataset, config
        self.batches = evaluation_batches(
            dataset,
            config.model.resize,
            batch_size=config.evaluate.batch_size,
            train_on_difficult=config.data.train_on_difficult,
            read=image_reader(dataset, config.data.cache),
        )
        self.step = compiled(
            lambda batch: validation_step(detector.model, criterion, detector.postprocess, batch),
            self.batches.element_spec,
            config.train.eager,
        )

    def run(self, stop: StopSignal) -> Validated | None:
        """Looks at every image of the split once; None if told to stop before the last."""
        sums = dict.fromkeys(SCALARS, 0.0)
        histograms: dict[str, np.ndarray] = {}
        found = []
        for batch in checked(self.batches):
            if stop.received:
                return None
            losses, counts, detections = self.step(batch)
            found.append((batch["index"], detections))
            for name, bins in counts.items():
                histograms[name] = histograms.get(name, 0) + bins.numpy().astype(np.int64)
            for name in SCALARS:  # weighted, because the last batch may be smaller
                sums[name] += float(losses[name]) * len(batch["index"])
        means = {name: value / len(self.dataset) for name, value in sums.items()}
        table = gather_detections(found, self.dataset.image_ids, self.dataset.classes)
        return Validated(means, histograms, score(table, self.dataset, self.config))
