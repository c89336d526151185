"""The picture of the necks is what the necks do."""

import cv2
import pytest

from core.necks.bifpn import BiFPN
from core.necks.fpn import FPN
from core.necks.panet import PANet
from images import necks

pytestmark = pytest.mark.slow


def places(neck):
    """Nodes as (level, column, kind), and edges between such."""
    nodes, edges = necks.structure(neck)
    place = {name: (node.level, node.column, node.kind) for name, node in nodes.items()}
    return sorted(place.values()), {(place[a], place[b]) for a, b in edges}


def test_the_feature_pyramid():
    """By hand: C5's lateral and P6 are used twice, the sums are those of levels 4 and 3."""
    nodes, edges = places(FPN(4))
    c3, c4, c5 = ((level, 0, "end") for level in (3, 4, 5))
    p3, p4, p5, p6, p7 = ((level, 2, "end") for level in (3, 4, 5, 6, 7))
    i3, i4, i5, i6 = (3, 1, "sum"), (4, 1, "sum"), (5, 1, "split"), (6, 1, "split")
    assert nodes == sorted([c3, c4, c5, i3, i4, i5, i6, p3, p4, p5, p6, p7])
    assert edges == {
        *((c3, i3), (c4, i4), (c5, i5), (c5, i6), (i5, i4), (i4, i3)),
        *((i3, p3), (i4, p4), (i5, p5), (i6, p6), (i6, p7)),
    }


def test_p6_from_p5_is_another_picture():
    """P5 goes out and on to level 6; from C5 nothing does."""
    _, edges = places(FPN(4, p6_from="p5"))
    assert {a for a, b in edges if b[0] == 6 and a[0] == 5} == {(5, 2, "split")}


def test_path_aggregation_adds_a_way_up():
    nodes, edges = places(PANet(4))
    assert [node for node in nodes if node[1] == 2] == [(level, 2, "sum") for level in (4, 5, 6, 7)]
    up = {(a[0], b[0]) for a, b in edges if a[1] == b[1] == 2}
    assert up == {(4, 5), (5, 6), (6, 7)}
    assert ((3, 1, "sum"), (4, 2, "sum")) in edges


def test_the_weighted_pyramid_has_its_skips():
    """A round is 4 fusions down and 4 up; levels 4 to 6 have an edge over the one in between."""
    nodes, edges = places(BiFPN(4, repeats=2))
    assert sum(kind == "fusion" for _, _, kind in nodes) == 2 * 8
    for down, up in ((2, 3), (4, 5)):
        assert {a[0] for a, b in edges if (a[1], b[1]) == (down, down)} == {6, 5, 4}
        assert {a[0] for a, b in edges if (a[1], b[1]) == (up, up)} == {4, 5, 6}
        skips = {a[0] for a, b in edges if (a[1], b[1]) == (down - 1, up) and a[0] == b[0]}
        assert skips == {4, 5, 6, 7}


def test_the_picture_is_drawn(tmp_path):
    necks.draw(tmp_path / "necks.png", rounds=1)
    assert cv2.imread(str(tmp_path / "necks.png")).std() > 5
