"""How far an exported detector's detections lie from the detector's own."""

import numpy as np
import pytest

from benchmarks.export import deviation, markdown, summed

pytestmark = pytest.mark.quick


def detections(*rows):
    """(x1, y1, x2, y2, score, label) each."""
    array = np.array(rows, np.float32).reshape(-1, 6)
    return array[:, :4], array[:, 4], array[:, 5].astype(np.int32)


def test_counterparts_have_the_class_and_overlap():
    expected = detections(
        (0, 0, 10, 10, 0.9, 0), (50, 50, 60, 60, 0.8, 1), (0, 0, 9, 9, 0.2, 1)
    )  # fmt: skip
    found = detections(
        (0, 0, 10, 12, 0.85, 0), (50, 50, 60, 60, 0.8, 0), (80, 80, 90, 90, 0.1, 2)
    )  # fmt: skip
    gap = deviation(found, expected, 0.3)
    assert (gap["due"], gap["lost"], gap["new"]) == (2, 1, 1)
    np.testing.assert_allclose(gap["pixels"], [2])
    np.testing.assert_allclose(gap["scores"], [0.05], atol=1e-6)


def test_of_nothing():
    one = detections((0, 0, 10, 10, 0.9, 0))
    found = summed([deviation(one, detections(), 0.3)])
    assert found == {"due": 0, "lost": 0, "new": 1, "pixels": [0, 0], "scores": [0, 0]}
    assert deviation(detections(), one, 0.3)["lost"] == 1
    assert deviation(detections(), detections(), 0.3)["due"] == 0


def test_counts_add_up_and_the_largest_difference_stays():
    def gap(due, lost, new, pixels, scores):
        values = {"pixels": np.array(pixels), "scores": np.array(scores)}
        return {"due": due, "lost": lost, "new": new, **values}

    expected = {"due": 5, "lost": 2, "new": 2, "pixels": [0.497, 0.5], "scores": [0.3, 0.3]}
    found = summed([gap(2, 1, 0, [0.5], [0.3]), gap(3, 1, 2, [0.2], [0.3])])
    np.testing.assert_allclose(found.pop("pixels"), expected["pixels"])
    np.testing.assert_allclose(found.pop("scores"), expected["scores"])
    assert found == {"due": 5, "lost": 2, "new": 2}
    row = expected | {"name": "ONNX", "seconds": 0.0123, "megabytes": 79.61}
    formats = [{"name": "this project", "seconds": 0.5}, row]
    report = {"photos": 2, "threshold": 0.3, "formats": formats}
    text = markdown(report)
    assert "| ONNX | 79.6 MB | 12 ms | 0.5, 0.5 pixels | 0.3, 0.3 | 2, 2, 5 |" in text
    assert "| this project |  | 500 ms |  |  |  |" in text
