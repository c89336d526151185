"""What the pictures of the focal loss show comes out of the project: its loss, its first steps."""

import cv2
import numpy as np
import pytest

from benchmarks.first_steps import STARTS
from images import focal

pytestmark = pytest.mark.quick


@pytest.fixture
def drawn(monkeypatch):
    """The panels of the pictures that were saved."""
    panels, original = [], focal.save
    monkeypatch.setattr(
        focal, "save", lambda figure, path: (panels.extend(figure.axes), original(figure, path))
    )
    return panels


def lines_of(axes):
    """Label -> (x, y) of a panel's lines."""
    return {line.get_label(): line.get_data() for line in axes.get_lines()}


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_loss_is_the_papers(tmp_path, drawn):
    """Figure 1: FL(p) = -(1 - p)^gamma log p."""
    focal.draw_loss(tmp_path / "loss.png")
    assert cv2.imread(str(tmp_path / "loss.png")).std() > 5
    (axes,) = drawn
    lines = lines_of(axes)
    assert list(lines) == [f"gamma {gamma}" for gamma in ("0", "0.5", "1", "2", "5")]
    assert legend(axes) == list(lines)
    (text,) = axes.texts
    assert (text.get_text(), axes.patches[0].get_x()) == ("well classified", 0.6)
    for name, (p, losses) in lines.items():
        expected = -((1 - p) ** float(name.split()[1])) * np.log(p)
        np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-7)


def test_the_picture_has_the_steps_of_the_file(tmp_path, drawn):
    """The one that the picture in the docs is drawn from: every start, all of one length."""
    runs = focal.read_steps(focal.STEPS_FILE)
    assert list(runs) == list(STARTS)
    focal.draw_first_steps(tmp_path / "share.png")
    assert cv2.imread(str(tmp_path / "share.png")).std() > 5
    losses, shares = map(lines_of, drawn)
    assert [axes.get_yscale() for axes in drawn] == ["log", "linear"]
    assert legend(drawn[0]) == list(runs)
    assert drawn[1].get_legend() is None
    for name, rows in runs.items():
        steps, total, foreground = np.transpose(rows)
        np.testing.assert_array_equal(steps, np.arange(1, 151))
        np.testing.assert_array_equal(losses[name], (steps, total))
        np.testing.assert_array_equal(shares[name], (steps, foreground / total))


def test_what_the_docs_say_of_the_first_step():
    """Share of the loss that objects have; the loss without the prior over that with it."""
    first = {name: rows[0] for name, rows in focal.read_steps(focal.STEPS_FILE).items()}
    shares = [100 * foreground / total for _, total, foreground in first.values()]
    np.testing.assert_allclose(shares, [99.98, 0.7, 57, 0.9], rtol=0.03)
    focal_prior, focal_none, prior, none = (total for _, total, _ in first.values())
    assert round(focal_none / focal_prior) == 39
    assert round(none / prior) == 30


def test_what_the_prior_does_before_the_first_step(tmp_path, drawn):
    """With p the prior: objects cost alpha (1 - p)^gamma (-log p) each, background (1 - alpha)
    p^gamma (-log(1 - p)) each."""
    focal.draw_prior(tmp_path / "bias.png", anchors=1000, classes=2, positives=4)
    assert cv2.imread(str(tmp_path / "bias.png")).std() > 5
    (axes,) = drawn
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    lines = lines_of(axes)
    p, objects = lines["focal loss, objects"]
    np.testing.assert_allclose(objects, -0.25 * (1 - p) ** 2 * np.log(p), rtol=1e-3)
    p, background = lines["focal loss, background"]
    expected = -0.75 * p**2 * np.log1p(-p) * 1996 / 4
    np.testing.assert_allclose(background, expected, rtol=1e-3)
    p, background = lines["cross-entropy, background"]
    np.testing.assert_allclose(background, -np.log1p(-p) * 1996 / 4, rtol=1e-3)
