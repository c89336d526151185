"""Statistics by hand, the table, the pictures."""

import json

import cv2
import pytest

from benchmarks import growth, report
from benchmarks.program import leave, make_parser
from benchmarks.report import ratios, summary, table

pytestmark = pytest.mark.quick


def test_summary():
    """Quartiles of 1, 2, 3, 4, 10 are 2 and 4."""
    assert summary([10.0, 2.0, 1.0, 4.0, 3.0]) == {"min": 1.0, "median": 3.0, "spread": 2 / 3}


def test_ratios_are_theirs_over_ours():
    """Within the rounds 3, 1, 2, 4, 5; quartiles of those are 2 and 4."""
    found = ratios([3.0, 2.0, 4.0, 4.0, 10.0], [1.0, 2.0, 2.0, 1.0, 2.0])
    assert found == {"minima": 2.0, "medians": 2.0, "rounds": [2.0, 4.0]}


OURS = {"name": "ours, compiled", "min": 0.2, "median": 0.25, "spread": 0.1, "memory": 2**30}
THEIRS = {
    "name": "torchvision, as it comes",
    "min": 1.5,
    "median": 2.0,
    "spread": 0.25,
    "ratios": {"minima": 7.5, "medians": 8.0, "rounds": [6.0, 9.0]},
    "memory": 3 * 2**29,
    "memory_ratio": 1.5,
}


def test_table():
    heading, rule, ours, theirs = table([OURS, THEIRS]).splitlines()
    assert heading.count("|") == rule.count("|") == ours.count("|") == theirs.count("|")
    assert ours == "| ours, compiled | 200 ms | 250 ms | 10% |  |  |  | 1,024 MiB |  |"
    numbers = "1.50 s | 2.00 s | 25% | 7.50 | 8.00 | 6.00-9.00 | 1,536 MiB | 1.50"
    assert theirs == f"| torchvision, as it comes | {numbers} |"


def test_picture(tmp_path):
    report.picture(tmp_path / "out" / "bars.png", {"float32": [OURS, THEIRS], "half": [OURS]})
    assert cv2.imread(str(tmp_path / "out" / "bars.png")).std() > 10


# ------------------------------------------------------------------------------------------------
# Growth
# ------------------------------------------------------------------------------------------------


def test_upper_slope():
    """Flat first, then quadratic: only the end counts."""
    assert growth.upper_slope([1, 10, 100, 1000, 10000], [5, 5, 1, 100, 10000]) == pytest.approx(2)
    assert growth.upper_slope([1, 2, 4], [3, 6, 12]) == pytest.approx(1)


def test_no_slope_from_nothing():
    assert growth.upper_slope([1, 2, 4], [0, 6, 12]) is None
    assert growth.upper_slope([0, 1, 2], [1, 6, 12]) is None


def test_picture_and_table_of_growth(tmp_path):
    curve = {
        "name": "targets and losses",
        "panel": "boxes an image",
        "x": [0, 1, 10, 100],
        "min": [0.1, 0.1, 0.2, 1.5],
        "median": [0.1, 0.1, 0.2, 1.6],
        "memory": [0, 2**20, 2**21, 2**24],
        "slope": 0.59,
        "memory_slope": None,
    }
    others = {"name": "images", "panel": "images of the dataset", "x": [1, 10, 100, 1000]}
    growth.picture(tmp_path / "growth.png", [curve, curve | others])
    assert cv2.imread(str(tmp_path / "growth.png")).std() > 10
    row = "| targets and losses | boxes an image | 0 | 100 | 0.1 to 1.5 | 0.59 | 0 to 16 MiB |  |"
    assert row in growth.markdown([curve]).splitlines()


# ------------------------------------------------------------------------------------------------
# What a benchmark leaves
# ------------------------------------------------------------------------------------------------


def test_a_report_is_left_in_two_files(tmp_path):
    machine = {name: name for name in ("processor", "cores", "memory", "versions", "date")}
    found = {"machine": machine, "busy": True, "seconds": [1.5]}
    text = leave(tmp_path / "out", "some", found, "| a table |")
    first, *_, last = text.splitlines()
    assert first == "processor, cores cores, memory; versions; date"
    assert "not required to be idle" in text
    assert last == "| a table |"
    assert (tmp_path / "out" / "some.md").read_text() == text
    assert json.loads((tmp_path / "out" / "some.json").read_text()) == found
    assert "not required" not in leave(tmp_path, "some", {"machine": machine}, "")


def test_options_that_benchmarks_share():
    args = make_parser("Text.", "some", rounds=3).parse_args(["--busy"])
    assert vars(args) == {"rounds": 3, "out": "runs/benchmarks/some", "busy": True}
    assert vars(make_parser("Text.").parse_args([])) == {"busy": False}
