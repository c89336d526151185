"""Anchors against boxes worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from core.anchors import STRIDES, AnchorGenerator, cell_anchors, spatial_size

pytestmark = pytest.mark.quick

TORCHVISION_SIZES = [
    (32, 40, 50),
    (64, 80, 101),
    (128, 161, 203),
    (256, 322, 406),
    (512, 645, 812),
]


def centers(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def sides(boxes):
    return boxes[..., 2:] - boxes[..., :2]


def test_cell_anchors_by_hand():
    """Ratio 4 (height / width) of area 32 x 32 is 16 wide and 64 high; scale is the inner loop."""
    boxes = cell_anchors(32, [0.25, 1, 4], [1, 2], rounding=False)
    expected = [
        [-32, -8, 32, 8],
        [-64, -16, 64, 16],
        [-16, -16, 16, 16],
        [-32, -32, 32, 32],
        [-8, -32, 8, 32],
        [-16, -64, 16, 64],
    ]
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    assert boxes.dtype == np.float32


def test_areas_and_ratios_of_the_defaults():
    """All nine keep the area of their scale and the height / width of their ratio."""
    ratios, scales = (0.5, 1.0, 2.0), (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    for size, cell in zip((32, 64, 128, 256, 512), AnchorGenerator().cells, strict=True):
        width, height = sides(cell.astype(np.float64)).T
        np.testing.assert_allclose(width * height, np.tile((size * np.array(scales)) ** 2, 3), 1e-6)
        np.testing.assert_allclose(height / width, np.repeat(ratios, 3), 1e-6)
        np.testing.assert_allclose(centers(cell), 0, atol=1e-6)


@pytest.mark.parametrize(("offset", "first"), [(0.5, 4.0), (0.0, 0.0)])
def test_first_cells_by_hand(offset, first):
    """On P3: cells go along the row, 8 pixels apart, then down a row."""
    make = AnchorGenerator(ratios=[1.0], scales=[1.0], center_offset=offset)
    boxes = make(16, 24).numpy()
    expected = [
        [x - 16, y - 16, x + 16, y + 16]
        for y in (first, first + 8)
        for x in (first, first + 8, first + 16)
    ]
    np.testing.assert_allclose(boxes[:6], expected)
    # P4 follows: one row of two cells of stride 16 with a side of 64; then one cell a level.
    x, y = 16 * offset, 16 * offset
    np.testing.assert_allclose(boxes[6], [x - 32, y - 32, x + 32, y + 32])
    np.testing.assert_allclose(boxes[7], [x - 16, y - 32, x + 48, y + 32])
    np.testing.assert_allclose(sides(boxes[8:])[:, 0], [128, 256, 512])
    np.testing.assert_allclose(centers(boxes[8:])[:, 0], np.array([32, 64, 128]) * offset)
    assert len(boxes) == 11


def test_order_is_level_row_column_ratio_scale():
    """The place of each anchor, from its indices alone."""
    ratios, scales = [0.5, 2.0], [1.0, 1.25, 1.5]
    make = AnchorGenerator(ratios=ratios, scales=scales)
    boxes, place = make(33, 70).numpy(), 0
    for level, stride in enumerate(STRIDES):
        for row in range(-(-33 // stride)):
            for column in range(-(-70 // stride)):
                for ratio in ratios:
                    for scale in scales:
                        box = boxes[place]
                        center = [(column + 0.5) * stride, (row + 0.5) * stride]
                        np.testing.assert_allclose(centers(box), center, atol=1e-4)
                        side = 32 * 2**level * scale
                        expected = [side / ratio**0.5, side * ratio**0.5]
                        np.testing.assert_allclose(sides(box), expected, rtol=1e-5)
                        place += 1
    assert place == len(boxes)


def test_rounding_gives_torchvisions_whole_numbers():
    """Sizes cut, corners rounded half to even (torchvision 0.27, anchor_utils.py)."""
    make = AnchorGenerator(rounding=True, center_offset=0.0, stride="grid")
    for cell, expected in zip(make.cells, TORCHVISION_SIZES, strict=True):
        np.testing.assert_array_equal(sides(cell[3:6])[:, 0], 2 * np.round(np.array(expected) / 2))
    np.testing.assert_array_equal(
        make.cells[0],
        [
            # 32: 45.25 x 22.63; 40: 56.57 x 28.28; 50: 70.71 x 35.36 before halving and rounding
            [-23, -11, 23, 11],
            [-28, -14, 28, 14],
            [-35, -18, 35, 18],
            [-16, -16, 16, 16],
            [-20, -20, 20, 20],
            [-25, -25, 25, 25],
            [-11, -23, 11, 23],
            [-14, -28, 14, 28],
            [-18, -35, 18, 35],
        ],
    )
    # 101 / 2 = 50.5 and 161 / 2 = 80.5 go to the even neighbour.
    np.testing.assert_array_equal(make.cells[1][5], [-50, -50, 50, 50])
    np.testing.assert_array_equal(make.cells[2][4], [-80, -80, 80, 80])


def level_boxes(make, height, width, level):
    counts = make.level_counts(height, width)
    start = sum(counts[:level])
    return make(height, width).numpy()[start : start + counts[level]]


def test_grid_stride_is_image_size_by_grid_size():
    """At height 800: P6 has 13 rows 61 apart, P7 7 rows 114 apart; at nominal stride 64 and 128."""
    settings = {"ratios": [1.0], "scales": [1.0], "center_offset": 0.0}
    for stride, expected in (("grid", (8, 16, 32, 61, 114)), ("nominal", STRIDES)):
        make = AnchorGenerator(stride=stride, **settings)
        for level, step in enumerate(expected):
            rows, columns = make.grids(800, 256)[level]
            y = centers(level_boxes(make, 800, 256, level))[::columns, 1]
            np.testing.assert_array_equal(y, np.arange(rows) * step)


def test_grid_stride_of_rows_and_columns_differ():
    """40 x 56: P4 has 3 rows 13 apart and 4 columns 14 apart."""
    make = AnchorGenerator(ratios=[1.0], scales=[1.0], center_offset=0.0, stride="grid")
    boxes = centers(level_boxes(make, 40, 56, 1)).reshape(3, 4, 2)
    np.testing.assert_array_equal(boxes[:, 0, 1], [0, 13, 26])
    np.testing.assert_array_equal(boxes[0, :, 0], [0, 14, 28, 42])


@pytest.mark.parametrize("stride", ["nominal", "grid"])
def test_sizes_known_late_give_the_same_anchors(stride):
    """Heights and widths as tensors in a graph, as with images of varying size."""
    make = AnchorGenerator(stride=stride)
    graph = tf.function(make, input_signature=[tf.TensorSpec([], tf.int32)] * 2)
    for height, width in ((64, 96), (33, 65), (129, 7)):
        np.testing.assert_array_equal(graph(height, width), make(height, width))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 65), (100, 37), (1, 1)])
def test_level_counts_sum_to_the_number_of_anchors(height, width):
    make = AnchorGenerator()
    counts = make.level_counts(height, width)
    assert counts[0] == 9 * int(np.ceil(height / 8)) * int(np.ceil(width / 8))
    assert make(height, width).shape == (sum(counts), 4)


def test_spatial_size_is_known_early_where_it_can_be():
    assert spatial_size(tf.zeros([2, 5, 7, 3])) == (5, 7)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 7, 3])])
    def late(images):
        height, width = spatial_size(images)
        assert width == 7
        return height

    assert late(tf.zeros([2, 5, 7, 3])) == 5


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="sizes: expected 5, one a level"):
        AnchorGenerator(sizes=(32, 64))
    with pytest.raises(ValueError, match="stride: expected nominal or grid, found 'torch'"):
        AnchorGenerator(stride="torch")
