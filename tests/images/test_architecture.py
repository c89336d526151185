"""The picture of the detector says what the network is."""

import cv2
import pytest
from matplotlib.axes import Axes

from configs.schema import Model
from images import architecture

pytestmark = pytest.mark.quick


@pytest.fixture
def texts(monkeypatch):
    """What is written on the pictures drawn."""
    found, original = [], Axes.text

    def text(axes, x, y, content, **style):
        found.append(content)
        return original(axes, x, y, content, **style)

    monkeypatch.setattr(Axes, "text", text)
    return found


def test_sizes_and_counts_are_the_networks(tmp_path, texts):
    """ResNet-18 at 128 px: strides 8 to 128; 9 (16^2 + 8^2 + 4^2 + 2^2 + 1) = 3,069 anchors."""
    model = Model(backbone="resnet18", neck_width=64, head_depth=2, head_width=32)
    path = tmp_path / "picture.png"
    architecture.draw(path, model, size=128, classes=5)
    assert cv2.imread(str(path)).std() > 5
    assert {"C3\n16 × 16 × 128", "C5\n4 × 4 × 512", "P3\n16 × 16 × 64", "P7\n1 × 1 × 64"} <= set(
        texts
    )
    written = "\n".join(texts)
    for line in ("N = 3,069 anchors", "N × 5", "conv 3×3, 9 × 5", "conv 3×3, 9 × 4", "2 × (conv"):
        assert line in written
    assert "backbone: ResNet-18\n11.2 M parameters" in texts
