"""Path aggregation against a plain NumPy forward pass."""

import numpy as np
import pytest

from core.necks.panet import PANet
from tests.core.necks.test_fpn import build, features, plain_conv, plain_fpn

pytestmark = pytest.mark.quick


def plain_panet(c3, c4, c5, weights, p6_from):
    n, *coarser = plain_fpn(c3, c4, c5, weights, p6_from)
    outputs = [n]
    for level, p in zip((4, 5, 6, 7), coarser, strict=True):
        down, fused = f"down{level}", f"fused{level}"
        n = plain_conv(n, weights[f"{down}/kernel"], 2) + weights[f"{down}/bias"]
        n = np.maximum(n, 0) + p
        n = np.maximum(plain_conv(n, weights[f"{fused}/kernel"]) + weights[f"{fused}/bias"], 0)
        outputs.append(n)
    return outputs


@pytest.mark.parametrize("p6_from", ["c5", "p5"])
@pytest.mark.parametrize(
    "shapes", [((8, 12), (4, 6), (2, 3)), ((5, 9), (3, 5), (2, 3)), ((1, 3), (1, 2), (1, 1))]
)
def test_equals_a_plain_forward_pass(p6_from, shapes):
    """FPN's levels, then up from the finest by stride 2, a relu after each convolution."""
    neck, weights = build(p6_from, kind=PANet)
    assert len(weights) == 2 * (8 + 8)
    maps = features(*shapes)
    expected = plain_panet(*maps, weights, p6_from)
    outputs = neck(maps)
    assert len(outputs) == 5
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=5e-5)
    assert np.min(outputs[0]) < 0 == np.min(outputs[1]), "the finest level has no relu"
    assert np.max(outputs[4]) > 0


def test_the_finest_level_reaches_the_coarsest():
    """What the path is for: with the top-down additions alone, C3 changes nothing but P3."""
    neck, _ = build(width=32, kind=PANet)
    maps = features((16, 16), (8, 8), (4, 4))
    before = neck(maps)
    after = neck([maps[0] + 1, *maps[1:]])
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(after, before, strict=True))


def test_unknown_origin_of_p6_is_refused():
    with pytest.raises(ValueError, match="p6_from: expected c5 or p5, found 'c4'"):
        PANet(p6_from="c4")
