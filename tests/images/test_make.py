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


def test_an_unknown_picture_is_refused(capsys):
    with pytest.raises(SystemExit):
        make.main(["speed.jpg"])
    assert "found speed.jpg" in capsys.readouterr().err
