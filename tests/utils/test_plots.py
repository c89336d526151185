"""The pictures: written, legible in size, showing what they should; wrong input is refused."""

import sys

import cv2
import matplotlib.figure
import numpy as np
import pytest

from utils import plots

pytestmark = pytest.mark.full

PLACES = 10 ** np.linspace(-2, 0, 9)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, so that a test can look at lines and texts and not at pixels."""
    figures = []
    save = plots.save
    monkeypatch.setattr(
        plots, "save", lambda figure, path: (figures.append(figure), save(figure, path))
    )
    return figures


def lines(axes):
    """Label -> (x, y) of the lines that have a label and points."""
    return {
        line.get_label(): line.get_data()
        for line in axes.get_lines()
        if len(line.get_xdata()) and not line.get_label().startswith("_")
    }


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def assert_picture(path):
    """A picture that can be read, is large enough to be legible, and is not one colour."""
    image = cv2.imread(str(path))
    assert image is not None
    assert min(image.shape[:2]) > 300
    assert image.std() > 3


def curve(ap):
    recall = np.linspace(0.1, 0.9, 9)
    return recall, 1 - (1 - ap) * recall, ap


def test_precision_recall_curves(tmp_path, drawn):
    curves = {"worse": curve(0.4), "better": curve(0.8), "absent": ([], [], np.nan)}
    curves["never detected"] = ([], [], 0.0)
    plots.precision_recall_curves(tmp_path / "pr.png", curves, "voc at .5")
    assert_picture(tmp_path / "pr.png")
    (axes,) = drawn[0].axes
    expected = ["better  0.800", "worse  0.400", "never detected  0.000", "1 without objects"]
    assert legend(axes) == expected
    x, y = lines(axes)["better  0.800"]
    np.testing.assert_allclose(x, [0, *curve(0.8)[0]])
    np.testing.assert_allclose(y[1:], curve(0.8)[1])
    assert axes.get_title(loc="left") == "voc at .5"


def test_precision_recall_curves_of_many_classes(tmp_path, drawn):
    aps = np.linspace(0.1, 0.9, 40)
    curves = {f"class {i}": curve(ap) for i, ap in enumerate(aps)}
    plots.precision_recall_curves(tmp_path / "pr.png", curves, "coco")
    assert_picture(tmp_path / "pr.png")
    texts = legend(drawn[0].axes[0])
    assert texts[0] == "mean of 40  0.500"
    assert texts[2] == "class 39  0.900"
    assert texts[-1] == "class 0  0.100"
    assert len(texts) == 1 + 2 * (1 + plots.SHOWN_EACH_END)
    _, mean = lines(drawn[0].axes[0])["mean of 40  0.500"]
    at_half = 1 + 50  # the curve starts twice at recall 0
    assert mean[at_half] == pytest.approx(np.mean(1 - (1 - aps) * 0.5))
    assert mean[-1] == 0.0  # no curve reaches recall 1


def miss_curve(rate):
    """From one miss rate at no false positive to a tenth of it at ten an image."""
    positives = np.array([0, 0.005, 0.01, 0.02, 0.1, 1, 10])
    return positives, rate * np.linspace(1, 0.1, 7), rate


@pytest.mark.parametrize("name", [r"$\foo$", "a$b$", "_hidden", "$"])
def test_names_are_no_formulas_and_none_is_hidden(tmp_path, drawn, name):
    plots.precision_recall_curves(tmp_path / "a.png", {name: ([0.5], [0.5], 0.5)}, name)
    plots.confusion_matrix_picture(tmp_path / "b.png", [[1, 0], [0, 0]], [name])
    plots.miss_rate_curves(tmp_path / "c.png", {name: ([0.5], [0.5], 0.5)}, name, PLACES)
    for figure in (drawn[0], drawn[2]):
        (text,) = legend(figure.axes[0])
        assert text.replace(r"\$", "$").strip() == f"{name}  0.500"


def dots(axes):
    return [line.get_data() for line in axes.get_lines() if line.get_marker() == "o"]


def test_miss_rate_curves(tmp_path, drawn):
    curves = {"worse": miss_curve(0.8), "better": miss_curve(0.4), "absent": ([], [], np.nan)}
    curves["never detected"] = ([], [], 1.0)
    plots.miss_rate_curves(tmp_path / "mr.png", curves, "CrowdHuman", PLACES)
    assert_picture(tmp_path / "mr.png")
    (axes,) = drawn[0].axes
    expected = ["better  0.400", "worse  0.800", "never detected  1.000", "1 without objects"]
    assert legend(axes) == expected
    assert axes.get_legend().get_title().get_text() == "MR-2, lower is better"
    x, y = lines(axes)["better  0.400"]
    np.testing.assert_allclose(x, [0, *miss_curve(0.4)[0]])
    np.testing.assert_allclose(y[1:], miss_curve(0.4)[1])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylim() == pytest.approx((0.9 * 0.04, 1.03))
    shown = dict(zip(axes.get_yticks(), axes.get_yticklabels(), strict=True))
    assert shown[0.1].get_text() == "0.1"
    assert axes.get_title(loc="left") == "CrowdHuman"


def test_miss_rates_are_marked_where_mr_2_looks(tmp_path, drawn):
    """At each place the first point at or beyond it, and the last where the curve ends before."""
    plots.miss_rate_curves(
        tmp_path / "mr.png",
        {"dog": ([0, 0.01, 0.02, 0.1, 0.5], [0.9, 0.8, 0.7, 0.6, 0.5], 0.6)},
        "",
        PLACES,
    )
    (axes,) = drawn[0].axes
    ((x, y),) = dots(axes)
    places = [0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1]
    np.testing.assert_allclose(x, places, rtol=2e-3)
    np.testing.assert_allclose(y, [0.8, 0.7, 0.6, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5])
    marked = [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"]
    np.testing.assert_allclose(marked, x)


@pytest.mark.parametrize(
    ("curve", "lowest"),
    [
        (([], [], 1.0), 0.2),
        (([], [], np.nan), 0.2),
        (([0.02], [0.7], 0.7), 0.2),
        (([0.0], [0.0], 0.0), 0.2),
        (([0, 0.5, 1], [0.5, 0.05, 0], 0.1), 0.05),
        (([0, 0.5, 1], [0.5, 1e-6, 0], 0.1), 0.001),
        (([0, 0.5, 1], [0.5, 0.1, np.nan], 0.1), 0.1),
    ],
)
@pytest.mark.filterwarnings("error")
def test_odd_miss_rates_are_drawn(tmp_path, drawn, curve, lowest):
    """Zeros have no place on a logarithmic axis and do not move its end."""
    plots.miss_rate_curves(tmp_path / "mr.png", {"dog": curve}, "", PLACES)
    assert_picture(tmp_path / "mr.png")
    assert drawn[0].axes[0].get_ylim()[0] == pytest.approx(0.9 * lowest)


def test_miss_rate_curves_of_many_classes(tmp_path, drawn):
    curves = {f"class {i}": miss_curve(rate) for i, rate in enumerate(np.linspace(0.1, 0.9, 40))}
    plots.miss_rate_curves(tmp_path / "mr.png", curves, "coco", PLACES)
    assert_picture(tmp_path / "mr.png")
    texts = legend(drawn[0].axes[0])
    assert texts[:2] == ["best", "class 0  0.100"]
    assert texts[-1] == "class 39  0.900"
    assert len(texts) == 2 * (1 + plots.SHOWN_EACH_END)


def test_twenty_curves_have_twenty_colours():
    for count in (1, 3, 8, 9, 20):
        assert len({plots._colour(i, count) for i in range(count)}) == count


@pytest.mark.parametrize(("num_classes", "written"), [(1, True), (3, True), (40, False)])
def test_confusion_matrix_picture(tmp_path, drawn, num_classes, written):
    size = num_classes + 1
    matrix = np.full((size, size), 7)
    matrix[0] = 0  # a class without objects: its row has no shares
    matrix[1, 0] = 21
    plots.confusion_matrix_picture(
        tmp_path / "cm.png", matrix, [f"c{i}" for i in range(num_classes)]
    )
    assert_picture(tmp_path / "cm.png")
    axes = drawn[0].axes[0]
    shares = axes.get_images()[0].get_array()
    np.testing.assert_allclose(shares[0], 0)
    np.testing.assert_allclose(
        shares[1], np.array([21] + [7] * num_classes) / (21 + 7 * num_classes)
    )
    texts = [text.get_text() for text in axes.texts]
    assert texts == (["21"] + ["7"] * (size * (size - 1) - 1) if written else [])
    assert [t.get_text() for t in axes.get_xticklabels()][-1] == "missed"
    assert [t.get_text() for t in axes.get_yticklabels()][-1] == "background"


def test_training_curves(tmp_path, drawn):
    nan = np.nan
    columns = {
        "epoch": [1, 2, 3, 4],
        "learning_rate": [0.1, 0.2, 0.3, 0.4],
        "class_loss": [1.5, nan, 0.5, 0.25],
        "val_loss": [2.0, nan, 1.0, nan],
        "seconds": [9, 9, 9, 9],
        "val_map": [nan, 0.5, nan, 0.75],
    }
    plots.training_curves(tmp_path / "run.png", columns)
    assert_picture(tmp_path / "run.png")
    loss, rate, metrics = drawn[0].axes
    assert (legend(loss), legend(rate)) == (["class_loss", "val_loss"], ["learning_rate"])
    assert legend(metrics) == ["val_map"]
    epochs, values = lines(loss)["class_loss"]
    np.testing.assert_array_equal(epochs, [1, 2, 3, 4])
    np.testing.assert_array_equal(values, [1.5, nan, 0.5, 0.25])
    np.testing.assert_array_equal(lines(loss)["val_loss"][1], [2, nan, 1, nan])
    # Two measurements with gaps around them are seen only as marks.
    assert metrics.get_lines()[0].get_marker() == "o"
    assert rate.get_lines()[0].get_marker() == "None"


def test_comparison_curves(tmp_path, drawn):
    """Validations every other epoch are joined; a run that has not begun is in the legend."""
    nan = np.nan
    long = {"epoch": [1, 2, 3, 4], "loss": [4, 3, 2, 1], "val_map": [nan, 0.25, nan, 0.75]}
    runs = {
        "long": long | {"more": ["x"]},
        "$short$": {"epoch": [1], "loss": [2], "val_map": [nan]},
    }
    plots.comparison_curves(tmp_path / "runs.png", runs | {"begun": {}})
    assert_picture(tmp_path / "runs.png")
    loss, maps = drawn[0].axes
    assert legend(loss) == ["long", r"\$short\$", "begun"]
    np.testing.assert_array_equal(lines(loss)["long"], [[1, 2, 3, 4], [4, 3, 2, 1]])
    np.testing.assert_array_equal(maps.get_lines()[0].get_data(), [[2, 4], [0.25, 0.75]])
    colours = [[line.get_color() for line in axes.get_lines()] for axes in (loss, maps)]
    assert colours[0] == colours[1]
    assert len(set(colours[0])) == 3
    assert [line.get_marker() for line in loss.get_lines()][:2] == ["None", "o"]
    assert maps.get_ylabel() == "mAP"
    plots.comparison_curves(tmp_path / "runs.png", runs, is_comparable=False)
    assert drawn[1].axes[1].get_ylabel() == "mAP, not measured alike"


def test_runs_to_compare_that_are_none_or_of_unequal_columns(tmp_path):
    with pytest.raises(ValueError, match="expected at least one run, found none"):
        plots.comparison_curves(tmp_path / "a.png", {})
    runs = {"a": {"epoch": [1, 2], "loss": [1, 2]}}
    message = r"'a'.*as many epochs as losses as mAPs, found 2 and 2 and 0"
    with pytest.raises(ValueError, match=message):
        plots.comparison_curves(tmp_path / "a.png", runs)


def test_no_global_figure_is_made(tmp_path, drawn):
    plots.comparison_curves(tmp_path / "runs.png", {"a": {}})
    assert type(drawn[0]) is matplotlib.figure.Figure
    pyplot = sys.modules.get("matplotlib.pyplot")  # others may have imported it: then it knows none
    assert pyplot is None or pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: plots.precision_recall_curves(p, {}, ""), "curves: expected at least one class"),
        (
            lambda p: plots.precision_recall_curves(p, {"dog": ([0, 1], [1], 0.5)}, ""),
            r"curves\['dog'\]: expected as many recalls as precisions, found 2 and 1",
        ),
        (
            lambda p: plots.miss_rate_curves(p, {}, "", PLACES),
            "curves: expected at least one class",
        ),
        (
            lambda p: plots.miss_rate_curves(p, {"dog": ([0, 1], [1], 0.5)}, "", PLACES),
            r"curves\['dog'\]: expected as many false positives as miss rates, found 2 and 1",
        ),
        (
            lambda p: plots.confusion_matrix_picture(p, np.zeros((2, 2)), ["a", "b"]),
            r"matrix: expected shape \(3, 3\), found \(2, 2\)",
        ),
    ],
)
def test_wrong_input_is_refused(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())
