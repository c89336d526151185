"""The README's pictures come out of the project."""

import cv2

from images import make


def test_the_picture_of_the_schedules_is_drawn(tmp_path):
    make.schedules(tmp_path / "schedules.png", steps=50)
    assert cv2.imread(str(tmp_path / "schedules.png")).std() > 5
