"""The pictures of README and docs come out of the project, and are what it makes today."""

import cv2
import numpy as np
import pytest

from images import make

pytestmark = pytest.mark.full

# samples.png needs the 1,400 generated images, detections.jpg a training.
QUICK = sorted(set(make.PICTURES) - {"samples.png", "detections.jpg"})


def test_every_picture_in_the_folder_has_its_maker():
    pictures = {path.name for path in make.FOLDER.iterdir() if path.suffix in (".png", ".jpg")}
    assert pictures == set(make.PICTURES)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_picture_is_made_again(tmp_path, name):
    make.main([name, "--out", str(tmp_path)])
    made, there = (cv2.imread(str(folder / name)) for folder in (tmp_path, make.FOLDER))
    assert made.std() > 5
    assert made.shape == there.shape
    # Another version of matplotlib may place a letter elsewhere; another curve is more than that.
    assert np.abs(made.astype(int) - there).mean() < 1


def test_every_schedule_is_drawn(tmp_path, monkeypatch):
    """Warm-up reaches the full rate after 100 steps; all but the constant fall from there."""
    figures = []
    monkeypatch.setattr(make, "save", lambda figure, path: figures.append(figure))
    make.schedules(tmp_path / "schedules.png", steps=300)
    (axes,) = figures[0].axes
    names = ["constant", "cosine", "step", "polynomial", "exponential"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == names
    for line in axes.get_lines():
        steps, rates = line.get_data()
        np.testing.assert_array_equal(steps, np.arange(300))
        assert rates[0] < rates[50] < max(rates) <= 0.01 * (1 + 1e-6)
        assert (rates[-1] < max(rates) / 2) == (line.get_label() != "constant")


def test_an_unknown_picture_is_refused(capsys):
    with pytest.raises(SystemExit):
        make.main(["speed.jpg"])
    assert "found speed.jpg" in capsys.readouterr().err
