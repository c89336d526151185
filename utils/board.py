"""What a run writes for TensorBoard, by epoch: scalars, histograms, pictures, text.

Looked at with `tensorboard --logdir runs`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.histogram.metadata import create_summary_metadata as histogram_metadata
from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata

from utils.reports import class_aps, headline_figures


class Board:
    """Event files in `folder`; a run that is resumed adds one to those that are there."""

    def __init__(self, folder: str | Path):
        self._writer = tf.summary.create_file_writer(str(folder))

    def text(self, name: str, text: str) -> None:
        """A text of the whole run, shown as it is, line by line."""
        with self._writer.as_default(step=0):
            # Markdown takes what is indented for code.
            tf.summary.text(name, "".join(f"    {line}\n" for line in text.splitlines()))
        self._writer.flush()

    def row(self, row: Mapping[str, Any]) -> None:
        """An epoch's row of metrics.csv, each figure in the panel of its kind; "" is left out."""
        values = {name: value for name, value in row.items() if name != "epoch" and value != ""}
        self._scalars(row["epoch"], {panel(name): value for name, value in values.items()})

    def report(self, epoch: int, report: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
        """A validation: the metric's figures, each class's AP, and how scores are spread.

        report: as evaluation/metrics.json has it. scores: name -> counts in equal bins from 0 to 1.
        """
        figures = {f"metric/{name}": value for name, value in headline_figures(report).items()}
        aps = {f"class_ap/{name}": value for name, value in class_aps(report).items()}
        with self._writer.as_default(step=epoch):
            for name, counts in scores.items():
                edges = np.linspace(0, 1, len(counts) + 1)
                buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
                # tf.summary.histogram would count, and these are counted.
                metadata = histogram_metadata(None, None)
                tf.summary.write(f"scores/{name}", buckets, metadata=metadata)
        self._scalars(epoch, figures | aps)

    def picture(self, epoch: int, name: str, path: str | Path, size: tuple[int, int]) -> None:
        """path: of a PNG file. size: its height and width, pixels."""
        height, width = size
        # tf.summary.image would encode the pixels again, which takes a second or two.
        image = tf.constant([str(width), str(height), Path(path).read_bytes()])
        with self._writer.as_default(step=epoch):
            tf.summary.write(name, image, metadata=image_metadata(None, None))
        self._writer.flush()

    def _scalars(self, epoch: int, values: Mapping[str, float | None]) -> None:
        with self._writer.as_default(step=epoch):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(name, value)
        self._writer.flush()


def panel(column: str) -> str:
    """Where a column of metrics.csv is shown: val_loss as validation/loss."""
    if column.startswith("val_"):
        return f"validation/{column.removeprefix('val_')}"
    is_count = column.startswith("positives") or column == "ignored"
    return f"{'anchors' if is_count else 'training'}/{column}"
