"""What TensorBoard's files hold, also where the disk refuses."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray

from utils.board import Board

pytestmark = pytest.mark.quick


def read(folder):
    """{(step, tag): (plugin, value)} of all event files of a folder."""
    events = [
        event for file in sorted(folder.iterdir()) for event in EventFileLoader(str(file)).Load()
    ]
    return {
        (event.step, value.tag): (
            value.metadata.plugin_data.plugin_name,
            make_ndarray(value.tensor).tolist(),
        )
        for event in events
        for value in event.summary.value
    }


def test_texts_figures_histograms_and_pictures_come_back(tmp_path):
    board = Board(tmp_path / "board")
    board.text("config", "a\n b")
    board.row({"epoch": 2, "loss": 0.5, "val_loss": 1.5, "positives": 3, "seconds": ""})
    report = {
        "metric": "crowdhuman", "ap": 0.25, "mr2": None, "ji": 0.5,
        "classes": {"cat": {"ap": 0.75}, "dog": {"ap": None}},
    }  # fmt: skip
    board.report(2, report, {"background": np.array([3, 1])})
    (tmp_path / "a.png").write_bytes(b"png")
    board.picture(2, "samples", tmp_path / "a.png", (5, 7))
    assert read(tmp_path / "board") == {
        (0, "config"): ("text", b"    a\n     b\n"),
        (2, "training/loss"): ("scalars", 0.5),
        (2, "validation/loss"): ("scalars", 1.5),
        (2, "anchors/positives"): ("scalars", 3.0),
        (2, "scores/background"): ("histograms", [[0.0, 0.5, 3.0], [0.5, 1.0, 1.0]]),
        (2, "metric/AP"): ("scalars", 0.25),
        (2, "metric/JI"): ("scalars", 0.5),
        (2, "class_ap/cat"): ("scalars", 0.75),
        (2, "samples"): ("images", [b"7", b"5", b"png"]),
    }


def test_a_file_in_the_place_of_the_folder_is_told_once(tmp_path, messages):
    path = tmp_path / "tensorboard"
    path.write_text("a file")
    board = Board(path)
    board.text("config", "text")
    board.row({"epoch": 1, "loss": 0.5})
    (line,) = messages
    assert line.startswith(f"{path}: cannot be written: File exists; a file is in the place")
    assert line.endswith("; goes on without what TensorBoard shows\n")
    assert path.read_text() == "a file"


def test_a_disk_that_was_full_for_a_while(tmp_path, messages, monkeypatch):
    """Events that are half written do not stay: no reader gets past one."""
    writer = tf.io.TFRecordWriter

    class Full(writer):
        is_full = False

        def flush(self):
            super().flush()
            if Full.is_full:
                raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")

    monkeypatch.setattr(tf.io, "TFRecordWriter", Full)
    board = Board(tmp_path)
    for epoch in range(1, 6):
        Full.is_full = epoch in (2, 3)
        board.row({"epoch": epoch, "loss": float(epoch)})
    found = {step: value for (step, _), (_, value) in read(tmp_path).items()}
    assert found == {1: 1.0, 4: 4.0, 5: 5.0}
    (line,) = messages
    assert f"{tmp_path}: cannot be written: No space left on device; " in line
