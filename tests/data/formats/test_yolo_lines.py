"""What lines of YOLO's label files hold: told, found out, or refused as not clear."""

from pathlib import Path

import numpy as np
import pytest

from data.formats.yolo_lines import POINTS, TRACK, UNDECLARED, Declared, meaning_of, parse_lines
from data.records import DatasetError

pytestmark = pytest.mark.quick

BOX = "0 .5 .5 .5 .5"  # from .25 .25 to .75 .75
FACE = f"{BOX} .4 .4 .6 .4 .5 .5 .4 .6 .6 .6"  # five points of a face
QUAD = "0 .1 .1 .9 .2 .8 .7 .2 .6"  # as a box it would leave the image
UPRIGHT = "0 .4 .4 .6 .4 .6 .6 .4 .6"  # corners of a box; .1 .2 .7 .6 with two points is possible


def parsed(*texts):
    return parse_lines(list(enumerate(texts, start=1)), 1, Path("a.txt"))


def meaning(*texts, declared=UNDECLARED):
    lines = parsed(*texts)
    counts = lines.rows[lines.rows[:, 5] > 5, 5]
    return meaning_of(counts, lines.long, declared, lambda row: f"a.txt, long line {row}")


def assert_meaning(found, kind, *, has_hull, fits):
    assert (found.kind, found.has_hull, found.fits.tolist()) == (kind, has_hull, fits)


def test_numbers_by_hand():
    """Numbers 2 to 5 as a box; the hull of .5 .6, .2 .4, .55 .7, .6 .65."""
    lines = parsed("0 .5 .5 .25 .5", "0 .5 .6 .2 .4 .55 .7 .6 .65", "0 x")
    expected = [[0, 0.375, 0.25, 0.625, 0.75, 5, 1], [0, 0.4, 0.4, 0.6, 0.8, 9, 2]]
    np.testing.assert_allclose(lines.rows, expected)
    np.testing.assert_allclose(lines.long, [[0.2, 0.4, 0.6, 0.7, POINTS, 0]])
    assert [str(defect) for defect in lines.defects] == [
        "a.txt, line 3: expected finite numbers, found '0 x'"
    ]


AFTER_BOX = {
    "points": (".3 .3 .7 .7", POINTS),
    "a-point-beside-the-box": (".3 .3 .84 .7", POINTS),  # .1 is the margin
    "a-point-further-off": (".3 .3 .86 .7", 0),
    "absent": ("-1 -1 0 0", POINTS),
    "one-coordinate-absent": ("-1 .5 .5 .5", 0),
    "visibility": (".3 .3 2 .7 .7 1 0 0 0", POINTS),
    "no-visibility": (".3 .3 .5 .7 .7 1 0 0 0", 0),
    "visibility-and-far-off": (".3 .3 2 .9 .7 1 0 0 0", 0),
    "confidence": (".9", 0),
    "track": ("7", 0),
    "confidence-and-track": (".9 7", TRACK),
    "track-and-confidence": ("1 .5", TRACK),
    "confidence-and-no-track": (".9 7.5", 0),
}


@pytest.mark.parametrize("name", AFTER_BOX)
def test_what_may_follow_a_box(name):
    rest, expected = AFTER_BOX[name]
    assert parsed(f"{BOX} {rest}").long[0, 4] == expected


@pytest.mark.parametrize(
    "box", ["0 .2 .5 .5 .5", "0 .5 .5 0 .5", "0 .5 .5 .5 -.5", "0 .5 .8 .5 .5"]
)
def test_nothing_follows_what_is_no_box_in_the_image(box):
    assert parsed(f"{box} .5 .5 .5 .5").long[0, 4] == 0


def test_which_points_are_a_parallelogram():
    """Also a rhombus; not with a corner .01 off, nor five points."""
    rhombus, off = "0 .5 .3 .7 .5 .5 .7 .3 .5", UPRIGHT.replace("0 .4", "0 .41")
    lines = parsed(UPRIGHT, rhombus, off, QUAD, f"{UPRIGHT} .4 .4")
    assert lines.long[:, 5].tolist() == [1, 1, 0, 0, 0]


# ------------------------------------------------------------------------------------------------
# Nothing declared
# ------------------------------------------------------------------------------------------------

POLYGON, REST = "polygon taken as its box", "numbers after the box left out"


def test_points_of_a_box_or_of_a_polygon_are_refused():
    """Some objects without points do not matter, nor does one polygon that cannot be a box."""
    other = "0 .1 .1 .9 .1 .9 .9 .5 .9 .3 .5 .2 .4 .1 .3"
    with pytest.raises(DatasetError) as caught:
        meaning(BOX, FACE, BOX, FACE, other)
    message = str(caught.value)
    assert message.startswith("a.txt, long line 0: expected lines of one meaning, found 3 of 15 ")
    for part in (
        "box and keypoints",
        "7 points of a polygon",
        "kpt_shape",
        "data.yolo.lines=boxes",
    ):
        assert part in message
    with pytest.raises(DatasetError, match="found 2 of 15 numbers"):
        meaning(FACE, FACE)


def test_points_that_cannot_be_a_polygons_are_left_out():
    """-1 for absent ones, and a visibility of 2, lie outside of the image."""
    absent = f"{BOX} -1 -1 -1 -1 -1 -1 -1 -1 -1 -1"
    assert_meaning(meaning(FACE, absent), REST, has_hull=False, fits=[True] * 2)
    visible = f"{BOX} .3 .3 2 .7 .7 1"
    assert_meaning(meaning(visible, visible), REST, has_hull=False, fits=[True] * 2)
    even = f"{BOX} .3 .3 0"
    assert_meaning(meaning(even), REST, has_hull=False, fits=[True])
    other = meaning(even, even, f"{BOX} .3 .3 .5")  # then no polygon either
    assert_meaning(other, POLYGON, has_hull=True, fits=[False] * 3)
    with pytest.raises(DatasetError, match="may be class, box and keypoints"):
        meaning(absent, f"{FACE[:-2]} .95")  # the last point is far from its box


def test_lines_of_several_lengths_are_polygons():
    found = meaning(BOX, FACE, UPRIGHT, QUAD)
    assert_meaning(found, POLYGON, has_hull=True, fits=[True] * 3)


def test_lines_that_mostly_cannot_be_boxes_are_polygons():
    possible = f"{BOX} .45 .45 .6 .5"
    found = meaning(QUAD, QUAD, possible)
    assert_meaning(found, POLYGON, has_hull=True, fits=[True] * 3)
    with pytest.raises(DatasetError, match="found 2 of 9 numbers"):
        meaning(QUAD, possible)


def test_corners_of_rectangles_are_polygons_though_boxes_would_fit():
    possible = f"{BOX} .45 .45 .6 .5"
    found = meaning(UPRIGHT, possible)
    assert_meaning(found, POLYGON, has_hull=True, fits=[True] * 2)


def test_what_predictions_add_is_never_taken_for_a_point():
    with pytest.raises(
        DatasetError, match=r"long line 1: .* found 2 .* confidence and track id, or"
    ):
        meaning(f"{BOX} .9", f"{BOX} .9 7", f"{BOX} .8 1")
    found = meaning(f"{BOX} .9", f"{BOX} 7", f"{UPRIGHT} .9", f"{QUAD} .2 .1 .9")
    assert_meaning(found, POLYGON, has_hull=True, fits=[False] * 4)
    assert "data.yolo.lines=boxes" in found.hint


# ------------------------------------------------------------------------------------------------
# Declared
# ------------------------------------------------------------------------------------------------


def test_what_is_declared_decides():
    lines = FACE, f"{BOX} .9", f"{BOX} .9 7", UPRIGHT
    boxes = meaning(*lines, declared=Declared("boxes"))
    assert_meaning(boxes, REST, has_hull=False, fits=[True] * 4)
    polygons = meaning(*lines, declared=Declared("polygons"))
    assert_meaning(polygons, POLYGON, has_hull=True, fits=[True, False, True, True])
    oriented = meaning(*lines, declared=Declared("oriented"))
    kind = "oriented box taken as its upright box"
    assert_meaning(oriented, kind, has_hull=True, fits=[False, False, False, True])
    points = meaning(*lines, declared=Declared(keypoints=(5, 2)))
    assert_meaning(points, "keypoints left out", has_hull=False, fits=[True, False, False, False])
    assert points.expected.endswith("box and 5 points of 2 (kpt_shape), 15 numbers")
    assert {boxes.hint, polygons.hint, oriented.hint, points.hint} == {""}
