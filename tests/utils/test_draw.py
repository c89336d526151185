import cv2
import numpy as np
import pytest

from utils import draw

pytestmark = pytest.mark.quick

CLASSES = ("cat", "dog", "bird")


def grey(height, width):
    return np.full((height, width, 3), 128, np.uint8)


def changed(before, after):
    return (before != after).any(axis=-1)


def test_colors_are_distinct_stable_and_legible():
    colors = draw.class_colors(20)
    assert colors.shape == (20, 3)
    assert colors.dtype == np.uint8
    np.testing.assert_array_equal(draw.class_colors(5), colors[:5])
    lab = cv2.cvtColor(np.float32(colors[None] / 255), cv2.COLOR_RGB2Lab)[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(20)
    assert apart.min() > 20
    assert len(np.unique(draw.class_colors(80), axis=0)) == 80
    assert draw.class_colors(5000).shape == (5000, 3)
    assert draw.class_colors(0).shape == (0, 3)


def test_edges_have_the_class_color():
    image = grey(100, 120)
    out = draw.draw_boxes(image, [[20, 30, 60, 80]], [1], CLASSES, thickness=1, show_labels=False)
    color = draw.class_colors(3)[1]
    assert (out[30, 20:60] == color).all()
    assert (out[79, 20:60] == color).all()
    assert (out[30:80, 20] == color).all()
    assert (out[30:80, 59] == color).all()
    assert changed(image, out).sum() == 2 * 40 + 2 * 50 - 4, "nothing but the frame"
    assert (image == 128).all(), "the input is not painted on"


def test_thick_lines_grow_outwards_but_stay_in_the_picture():
    image = grey(100, 100)
    out = draw.draw_boxes(image, [[20, 20, 40, 40]], [0], CLASSES, thickness=3, show_labels=False)
    assert changed(image, out)[21:39, 21:39].sum() == 0, "the object stays visible"
    assert changed(image, out)[18:42, 18:42].sum() == 24 * 24 - 18 * 18
    out = draw.draw_boxes(image, [[0, 0, 100, 100]], [0], CLASSES, thickness=3, show_labels=False)
    assert changed(image, out).sum() == 100 * 100 - 94 * 94


def test_dashes_leave_gaps():
    image = grey(100, 100)
    kwargs = {"thickness": 1, "show_labels": False}
    solid = changed(image, draw.draw_boxes(image, [[10, 10, 90, 90]], [0], CLASSES, **kwargs))
    dashed = changed(
        image, draw.draw_boxes(image, [[10, 10, 90, 90]], [0], CLASSES, style="dashed", **kwargs)
    )
    assert not (dashed & ~solid).any()
    assert 0.4 < dashed.sum() / solid.sum() < 0.6
    assert dashed[10, 10]


def test_stripes_are_dashes_on_a_dark_line():
    image = grey(100, 100)
    kwargs = {"thickness": 1, "show_labels": False}
    out = draw.draw_boxes(image, [[10, 10, 90, 90]], [0], CLASSES, style="striped", **kwargs)
    solid = changed(image, draw.draw_boxes(image, [[10, 10, 90, 90]], [0], CLASSES, **kwargs))
    np.testing.assert_array_equal(changed(image, out), solid)
    of_class = (out[solid] == draw.class_colors(3)[0]).all(axis=-1)
    assert 0.4 < of_class.mean() < 0.6
    assert (out[solid][~of_class] == draw.PAPER).all()


def test_classes_may_have_a_style_each_and_boxes_no_score():
    boxes = [[10, 10, 40, 40], [50, 10, 80, 40], [10, 10, 40, 40]]
    styles = ("solid", "dashed", "striped")
    colors = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    given = {"classes": CLASSES, "style": styles, "colors": colors, "thickness": 1}
    out = draw.draw_boxes(
        grey(60, 100), boxes, [0, 1, 2], scores=[0.9, 0.5, np.nan], show_labels=False, **given
    )
    red, green, blue = ((out == color).all(axis=-1).sum() for color in colors)
    assert red == 0, "the box without a score lies on top of the one with the highest"
    assert 0.4 < green / 116 < 0.6
    assert 0.4 < blue / 116 < 0.6
    with_score = draw.draw_boxes(grey(150, 200), boxes[:1], [0], scores=[0.9], **given)
    without = draw.draw_boxes(grey(150, 200), boxes[:1], [0], scores=[np.nan], **given)
    plain = draw.draw_boxes(grey(150, 200), boxes[:1], [0], **given)
    np.testing.assert_array_equal(without, plain)
    assert changed(with_score, plain).any()


@pytest.mark.parametrize("box", [[0, 0, 30, 30], [170, 0, 200, 20], [160, 120, 200, 150]])
def test_labels_stay_whole_inside_the_picture(box):
    """A label in a corner has as many inked pixels as its text."""
    out = draw.draw_boxes(grey(150, 200), [box], [2], CLASSES, [0.87])
    ink = draw._readable_on(draw.class_colors(3)[2])
    mask = draw._text_mask("bird 0.87", draw._text_size(150, 200))
    assert (out == ink).all(axis=-1).sum() == (mask > 0.997).sum() > 0


def test_text_is_dark_on_light_and_light_on_dark():
    assert draw._readable_on((255, 240, 80)).tolist() == [0, 0, 0]
    assert draw._readable_on((60, 40, 200)).tolist() == [255, 255, 255]


def test_labels_step_aside_for_each_other():
    taken = [(10, 20, 12, 40)]
    assert draw._place_label((10, 32, 60, 70), (12, 40), [], 100, 100) == (10, 20)
    assert draw._place_label((10, 32, 60, 70), (12, 40), taken, 100, 100) == (10, 70)


def test_names_beyond_ascii_are_written_as_they_are():
    masks = [draw._text_mask(text, 20) for text in ("???", "кот", "été", "ø")]
    for mask in masks[1:]:
        assert mask.max() > 0.9
    assert masks[0].shape != masks[1].shape or (masks[0] != masks[1]).any()
    missing = draw._text_mask("\U000f0000", 20)  # no font has it: the empty rectangle
    for letter in "кøéñßÅ":
        mask = draw._text_mask(letter, 20)
        assert mask.shape != missing.shape or np.abs(mask - missing).max() > 0.5
    image = grey(100, 200)
    out = draw.draw_boxes(image, [[50, 50, 90, 90]], [0], ["кот"])
    other = draw.draw_boxes(image, [[50, 50, 90, 90]], [0], ["???"])
    assert changed(out, other).any()


@pytest.mark.parametrize("scores", [None, []])
def test_no_boxes_leave_the_picture_as_it_is(scores):
    image = grey(30, 40)
    for boxes in ([], np.zeros((0, 4), np.float32)):
        out = draw.draw_boxes(image, boxes, [], CLASSES, scores)
        np.testing.assert_array_equal(out, image)
        assert out is not image


def test_padding_and_ignored_rows_are_not_drawn():
    image = grey(50, 50)
    boxes = [[5, 5, 20, 20], [np.nan] * 4]
    out = draw.draw_boxes(image, boxes, [-2, -1], CLASSES, [0.5, 0.1])
    np.testing.assert_array_equal(out, image)


def test_the_highest_score_lies_on_top():
    boxes = [[10, 10, 40, 40]] * 2
    out = draw.draw_boxes(grey(50, 50), boxes, [0, 1], CLASSES, [0.9, 0.2], show_labels=False)
    assert (out[10, 10] == draw.class_colors(3)[0]).all()


@pytest.mark.parametrize("box", [[60, 10, 80, 20], [-30, 0, -5, 10], [10, 1e9, 20, 2e9]])
def test_boxes_outside_draw_nothing(box):
    np.testing.assert_array_equal(draw.draw_boxes(grey(50, 50), [box], [0], CLASSES), grey(50, 50))


def test_boxes_that_overshoot_are_cut():
    out = draw.draw_boxes(grey(50, 50), [[-9, -9, 1e6, 99]], [0], CLASSES, show_labels=False)
    assert (out[[0, 0, -1, -1], [0, -1, 0, -1]] == draw.class_colors(3)[0]).all()


def test_tiny_and_large_pictures():
    tiny = draw.draw_boxes(grey(8, 8), [[1, 1, 7, 7]], [0], CLASSES, [0.5])
    assert changed(grey(8, 8), tiny).sum() == 20, "the frame, no label"
    point = draw.draw_boxes(grey(8, 8), [[3, 3, 3, 3]], [0], CLASSES)
    assert changed(grey(8, 8), point).sum() == 1
    large = draw.draw_boxes(grey(3000, 2000), [[500, 500, 1500, 1500]], [0], CLASSES)
    column = changed(grey(3000, 2000), large)[1000, :1000]
    assert column.sum() >= 8, "a line one can see in a photograph"
    rows = np.flatnonzero(changed(grey(3000, 2000), large)[:, 510])
    assert rows[0] < 460, "the label has grown, too"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": [[1, 2, 3]]}, r"boxes: expected \(1, 4\)"),
        ({"boxes": [[0, 0, np.nan, 3]]}, "boxes: expected finite"),
        ({"labels": [3]}, "labels: expected below 3"),
        ({"scores": [0.1, 0.2]}, "scores: expected 1"),
        ({"style": "dotted"}, "style: expected one of"),
        ({"style": ["solid", "dashed"]}, r"or one a class, got \['solid', 'dashed'\]"),
        ({"image": np.zeros((5, 5), np.uint8)}, "image: expected"),
        ({"image": np.zeros((5, 5, 3), np.float32)}, "image: expected"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = {"image": grey(9, 9), "boxes": [[1, 1, 5, 5]], "labels": [0], "classes": CLASSES}
    with pytest.raises(ValueError, match=message):
        draw.draw_boxes(**(good | change))


def test_sheets_keep_order_and_aspect():
    colors = draw.class_colors(5)
    images = [np.full((40, 20 + 20 * k, 3), color, np.uint8) for k, color in enumerate(colors)]
    sheet = draw.contact_sheet(images, columns=2, cell=(80, 80))
    gap = (sheet.shape[1] - 160) // 3
    assert sheet.shape == (3 * 80 + 4 * gap, 2 * 80 + 3 * gap, 3)
    for k, image in enumerate(images):
        y, x = gap + k // 2 * (80 + gap), gap + k % 2 * (80 + gap)
        mine = (sheet[y : y + 80, x : x + 80] == colors[k]).all(axis=-1)
        rows, columns = np.nonzero(mine)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert max(height, width) == 80
        assert width / height == pytest.approx(image.shape[1] / image.shape[0], rel=0.03)
        assert mine.sum() == height * width
        assert rows.min() == pytest.approx(79 - rows.max(), abs=1), "centred"


def test_a_sheet_takes_pictures_that_fit_as_they_are():
    rng = np.random.default_rng(0)
    cell = (80, 120)
    sizes = [(300, 100), (1, 700), (80, 120), (37, 53), *rng.integers(1, 400, (200, 2)).tolist()]
    images = [rng.integers(0, 255, (*size, 3), np.uint8) for size in sizes]
    fitted = [draw.fit(image, *cell) for image in images]
    assert all(draw.fit(image, *cell) is image for image in fitted)
    sheets = [draw.contact_sheet(pictures, cell=cell) for pictures in (images, fitted)]
    np.testing.assert_array_equal(*sheets)


def test_captions_get_room_and_are_cut_to_it():
    images = [grey(50, 50)] * 2
    plain = draw.contact_sheet(images, columns=2, cell=(50, 50))
    titled = draw.contact_sheet(images, 2, (50, 50), captions=["a", "a very long caption indeed"])
    assert titled.shape[0] > plain.shape[0]
    assert titled.shape[1] == plain.shape[1]
    strip = titled[-12:]
    assert (strip > 150).any(axis=-1).sum() > 10
    assert (titled[:, -1] == draw.PAPER).all()


def test_side_by_side_keeps_pixels():
    left, right = np.full((60, 80, 3), 10, np.uint8), np.full((60, 80, 3), 250, np.uint8)
    out = draw.side_by_side(left, right)
    gap = (out.shape[1] - 160) // 3
    np.testing.assert_array_equal(out[gap : gap + 60, gap : gap + 80], left)
    np.testing.assert_array_equal(out[gap : gap + 60, 2 * gap + 80 : -gap], right)
    assert draw.side_by_side(left, right, captions=("truth", "found")).shape[0] > out.shape[0]


def test_a_legend_lies_below_in_one_row_or_for_want_of_room_in_several():
    entries = [
        ("12 right", np.array((0, 114, 178)), "solid"),
        ("3 missed", np.array((240, 228, 66)), "striped"),
    ]
    for width, rows in ((600, 1), (120, 2)):
        image = grey(200, width)
        out = draw.with_legend(image, entries)
        np.testing.assert_array_equal(out[:200], image)
        strip = out[200:]
        found = [np.nonzero((strip == color).all(axis=-1)) for _, color, _ in entries]
        assert all(len(ys) for ys, _ in found)
        (first_y, first_x), (second_y, second_x) = found
        if rows == 1:
            assert first_x.max() < second_x.min()
            assert first_y.max() == second_y.max()
        else:
            assert first_y.max() < second_y.min()
        one = draw.with_legend(image, entries[:1])
        assert strip.shape[0] == rows * (one.shape[0] - 200)
        ink = (strip == draw.INK).all(axis=-1)
        assert ink.sum() > 20, "the text"


def test_a_legend_too_long_for_its_picture_is_cut():
    for width in (60, 8):
        out = draw.with_legend(grey(40, width), [("a long text", np.array((255, 0, 0)), "dashed")])
        assert out.shape[1] == width
        assert (out[40:] == (255, 0, 0)).all(axis=-1).any()


def test_bad_sheets_are_named():
    with pytest.raises(ValueError, match="at least one"):
        draw.contact_sheet([])
    with pytest.raises(ValueError, match="captions: expected 1"):
        draw.contact_sheet([grey(5, 5)], captions=["a", "b"])


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "new/folder/a.jpeg"])
def test_files_hold_rgb(tmp_path, name):
    image = grey(20, 30)
    image[:, :15] = (250, 10, 30)
    draw.write_image(tmp_path / name, image)
    read = cv2.cvtColor(cv2.imread(str(tmp_path / name)), cv2.COLOR_BGR2RGB)
    assert np.abs(read[:, 2:12].astype(int) - image[:, 2:12]).max() < 8
    assert [path.name for path in (tmp_path / name).parent.iterdir() if path.is_file()] == [
        (tmp_path / name).name
    ]


def test_files_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.webp: expected the suffix"):
        draw.write_image(tmp_path / "a.webp", grey(5, 5))
    with pytest.raises(ValueError, match=r"a\.png: image: expected"):
        draw.write_image(tmp_path / "a.png", np.zeros((5, 5)))
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError, match=r"a\.png"):
        draw.write_image(tmp_path / "a.png", grey(5, 5))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
