"""Boxes of another unit or order: refused by their share, and what only looks like it is not."""

import numpy as np
import pytest

from data.formats.plausibility import require_plausible
from data.records import DatasetError

pytestmark = pytest.mark.quick
WIDTH, HEIGHT = 160, 120


def judge(boxes, written="corners", areas=None):
    boxes = np.array(boxes, np.float64)
    sizes = np.tile([WIDTH, HEIGHT], (len(boxes), 1))
    require_plausible("set/train", boxes, sizes, written, areas)


def suspicion(*args):
    with pytest.raises(DatasetError) as caught:
        judge(*args)
    return str(caught.value)


def from_size(*numbers):
    """x, y, width, height as a reader makes corners of them."""
    return [[x, y, x + width, y + height] for x, y, width, height in numbers]


def from_fractions(*numbers):
    scale = np.array([WIDTH, HEIGHT])
    return [
        [*(scale * (x - w / 2, y - h / 2)), *(scale * (x + w / 2, y + h / 2))]
        for x, y, w, h in numbers
    ]


@pytest.mark.parametrize("written", ["corners", "corner and size"])
def test_fractions_as_pixels(written):
    """One in pixels, and one number above 1, change nothing."""
    boxes = [[0.125, 0.25, 0.5, 0.75], [0.1, 0.2, 1.0004, 0.75], [20, 30, 80, 90]]
    expected = (
        "set/train: expected pixels, found fractions of the image: so it looks for 2 of 3 boxes"
    )
    assert suspicion(boxes, written) == expected
    assert "1 of 1 boxes" in suspicion(boxes[:1], written)
    judge([boxes[0], boxes[2]], written)
    several = [boxes[0]] * 3 + [boxes[2]] * 9  # a quarter
    assert "so it looks for 3 of 12 boxes" in suspicion(several, written)
    judge([*several, boxes[2]], written)
    judge([[0, 0, 0, 0]] * 3, written)  # boxes without area are no fractions


@pytest.mark.parametrize("numbers", [(5, 6, 6, 6), (50, 60, 60, 60)])
def test_pixels_as_fractions(numbers):
    good = (0.5, 0.5, 0.2, 0.2)
    message = suspicion(from_fractions(numbers, numbers, good), "fractions")
    assert "expected fractions of the image, found pixels: so it looks for 2 of 3" in message
    judge(from_fractions(numbers, good), "fractions")
    judge(from_fractions((0.99, 0.5, 0.2, 0.2), good), "fractions")


def test_corners_as_width_and_height():
    """60 50 110 100 is no box of 110x100 at 60, 50: it would end at 170, 150."""
    wrong, right = (60, 50, 110, 100), (60, 50, 100, 70)
    message = suspicion(from_size(wrong, wrong, right), "corner and size")
    assert "expected width and height, found a second corner: so it looks for 2 of 3" in message
    judge(from_size(wrong, wrong), "corner and size")  # two are too few
    judge(from_size(wrong, right, right), "corner and size")
    judge(from_size((60, 50, 110, 40), (60, 50, 110, 40), right), "corner and size")
    judge(from_size(*[(-5, -5, 60, 60)] * 3), "corner and size")  # left of the image is no sign
    fit = (20, 30, 80, 90)
    assert "for 3 of 12 boxes" in suspicion(from_size(*[wrong] * 3, *[fit] * 9), "corner and size")
    corners = (0.4, 0.5, 0.7, 0.9)  # as centre, width and height: from .05, .05 to .75, .95
    beyond = (0.6, 0.5, 0.9, 0.9)  # to 1.05, .95
    assert "a second corner" in suspicion(from_fractions(beyond, beyond, corners), "fractions")


def test_areas_tell_corners_that_fit():
    """20 30 80 90 with an area of 3600 = 60 * 60 are corners; 80x90 would be 7200."""
    boxes = from_size(*[(20, 30, 80, 90)] * 3)
    assert "3 of 3 boxes" in suspicion(boxes, "corner and size", np.full(3, 3600.0))
    for areas in (np.full(3, 7200.0), np.full(3, 5000.0), np.full(3, np.nan), None):
        judge(boxes, "corner and size", areas)


def test_width_and_height_as_corners():
    """80 70 30 20 at the right and below are left of and above their first corner."""
    boxes = [[80, 70, 30, 20]] * 3 + [[10, 20, 30, 30]] * 6
    message = suspicion(boxes)
    assert "found a corner, width and height: so it looks for 3 of 9 boxes" in message
    judge(boxes[1:])  # two inverted boxes are two inverted boxes
    judge([*boxes, [100, 20, 150, 100]])  # a width of 150 from 100 on there is not
    judge([[10, 20, 30, 20]] * 9)  # no height, no width left of the corner


def test_corners_in_the_other_order():
    message = suspicion([[80, 90, 20, 30]] * 3)
    assert (
        "found the second before the first, or width and height: so it looks for 3 of 3" in message
    )


def test_no_box_is_no_suspicion():
    judge(np.zeros((0, 4)))
