"""Comparing what contestants found."""

import numpy as np
import pytest

from benchmarks.outputs import compare, matched, sentence

pytestmark = pytest.mark.quick


def found(*rows):
    """(x1, y1, x2, y2, score, label) each."""
    rows = np.array(rows, np.float32).reshape(-1, 6)
    return {"boxes": rows[:, :4], "scores": rows[:, 4], "labels": rows[:, 5].astype(np.int64)}


A = (0, 0, 10, 10, 0.9, 1)
SHIFTED = (0, 0, 10, 9, 0.8, 1)  # IoU .9 with A
OTHER_LABEL = (0, 0, 10, 10, 0.9, 2)


@pytest.mark.parametrize(
    ("ours", "theirs", "iou", "count"),
    [
        pytest.param([A, SHIFTED], [SHIFTED, A], 0.99, 2, id="order does not matter"),
        pytest.param([A], [SHIFTED], 0.99, 0, id="too far"),
        pytest.param([A], [SHIFTED], 0.85, 1, id="near enough"),
        pytest.param([A], [OTHER_LABEL], 0.5, 0, id="another label"),
        pytest.param([A, A], [A], 0.99, 1, id="one to one"),
        pytest.param([A], [], 0.99, 0, id="they found nothing"),
        pytest.param([], [A], 0.99, 0, id="we found nothing"),
    ],
)
def test_matched(ours, theirs, iou, count):
    assert matched(found(*ours), found(*theirs), iou) == count


def test_compare_detections():
    compared = compare(found(A, SHIFTED), found(A), 0.99)
    assert compared == {"ours": 2, "theirs": 1, "matched": 1, "iou": 0.99}
    expected = "x: 1 matched (IoU > 0.99, same label) of ours 2 and theirs 1"
    assert sentence("x", compared) == expected


def test_compare_losses():
    compared = compare({"class_loss": 1.01, "box_loss": 2.0}, {"class_loss": 1.0}, 0.99)
    assert compared == {"class_loss": pytest.approx(0.01)}
    assert sentence("x", compared) == "x: class loss differs by 0.01"
    assert "no loss that can be compared" in sentence("x", compare({"loss": 1}, {}, 0.99))
