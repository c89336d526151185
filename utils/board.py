"""What a run writes for TensorBoard, by epoch: scalars, histograms, pictures, text.

Looked at with `tensorboard --logdir runs`.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from loguru import logger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram.metadata import create_summary_metadata as histogram_metadata
from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata
from tensorboard.plugins.scalar.metadata import create_summary_metadata as scalar_metadata
from tensorboard.plugins.text.metadata import create_summary_metadata as text_metadata
from tensorboard.util.tensor_util import make_tensor_proto

from utils.files import write_error
from utils.headline_figures import class_aps, headline_figures


class Board:
    """Event files in `folder`; a run that is resumed adds one to those that are there.

    A folder that cannot be written ends no run: a warning says so, once, and each later call tries
    again, in another file. (The writers of tf.summary drop events without a word.)
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self._writer: Any = None
        self._has_warned = False

    def text(self, name: str, text: str) -> None:
        """A text of the whole run, shown as it is, line by line."""
        # Markdown takes what is indented for code.
        code = "".join(f"    {line}\n" for line in text.splitlines())
        self._write(0, {name: (code, text_metadata(None, None))})

    def row(self, row: Mapping[str, Any]) -> None:
        """An epoch's row of metrics.csv, each figure in the panel of its kind; "" is left out."""
        values = {name: value for name, value in row.items() if name != "epoch" and value != ""}
        self._write(row["epoch"], _scalars({panel(name): value for name, value in values.items()}))

    def report(self, epoch: int, report: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
        """A validation: the metric's figures, each class's AP, and how scores are spread.

        report: as evaluation/metrics.json has it. scores: name -> counts in equal bins from 0 to 1.
        """
        figures = {f"metric/{name}": value for name, value in headline_figures(report).items()}
        aps = {f"class_ap/{name}": value for name, value in class_aps(report).items()}
        histograms = {}
        for name, counts in scores.items():
            edges = np.linspace(0, 1, len(counts) + 1)
            # tf.summary.histogram would count, and these are counted.
            buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
            histograms[f"scores/{name}"] = buckets, histogram_metadata(None, None)
        self._write(epoch, histograms | _scalars(figures | aps))

    def picture(self, epoch: int, name: str, path: str | Path, size: tuple[int, int]) -> None:
        """path: of a PNG file. size: its height and width, pixels."""
        height, width = size
        # tf.summary.image would encode the pixels again, which takes a second or two.
        image = [str(width).encode(), str(height).encode(), Path(path).read_bytes()]
        self._write(epoch, {name: (image, image_metadata(None, None))})

    def _write(self, step: int, values: Mapping[str, tuple[Any, Any]]) -> None:
        """Writes tag -> (value, metadata of its plugin); what cannot be written is lost."""
        entries = [
            Summary.Value(tag=tag, tensor=make_tensor_proto(value), metadata=metadata)
            for tag, (value, metadata) in values.items()
        ]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=entries))
        try:
            self._append(event)
        except (OSError, tf.errors.OpError) as error:
            if not self._has_warned:
                text = "{}; goes on without what TensorBoard shows"
                logger.warning(text, write_error(self._folder, error))
                self._has_warned = True

    def _append(self, event: Event) -> None:
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard looks for "tfevents" in names.
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.v2"
            self._path, self._size = self._folder / name, 0
            self._writer = tf.io.TFRecordWriter(str(self._path))
            self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))
        try:
            self._writer.write(event.SerializeToString())
            self._writer.flush()
        except tf.errors.OpError:
            self._break_off()
            raise
        self._size = self._path.stat().st_size

    def _break_off(self) -> None:
        """Leaves the file with its whole events, without one if it has none."""
        with contextlib.suppress(tf.errors.OpError):
            self._writer.close()
        self._writer = None
        if self._size:
            os.truncate(self._path, self._size)
        else:
            self._path.unlink(missing_ok=True)


def _scalars(values: Mapping[str, float | None]) -> dict[str, tuple[Any, Any]]:
    """As `Board._write` takes them; None, which is no figure, is left out."""
    return {
        name: (np.float32(value), scalar_metadata(None, None))
        for name, value in values.items()
        if value is not None
    }


def panel(column: str) -> str:
    """Where a column of metrics.csv is shown: val_loss as validation/loss."""
    if column.startswith("val_"):
        return f"validation/{column.removeprefix('val_')}"
    is_count = column.startswith("positives") or column == "ignored"
    return f"{'anchors' if is_count else 'training'}/{column}"
