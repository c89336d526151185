"""What becomes of a defect, and what a box may be."""

import numpy as np
import pytest

from data.formats.bad_annotations import Judge
from data.images.decode import ImageHeader
from data.records import DatasetError

pytestmark = pytest.mark.quick

SIZES = [[40, 30]]


def clip(box, policy="drop", **options):
    judge = Judge(policy)
    boxes, is_good = judge.clip(np.array([box]), SIZES, lambda row: f"f.csv, line {row}", **options)
    return boxes[0].tolist(), bool(is_good[0]), judge.defects


@pytest.mark.parametrize(
    ("box", "expected", "kind"),
    [
        ([0, 0, 40, 30], [0, 0, 40, 30], None),
        ([1.5, 2, 3, 4.25], [1.5, 2, 3, 4.25], None),
        ([-0.01, 0, 40.001, 30], [0, 0, 40, 30], None),
        ([-2, 0, 40, 32], [0, 0, 40, 30], "box clipped to the image"),
        ([0, 0, 42.01, 30], None, "box outside the image"),
        ([-2.01, 0, 40, 30], None, "box outside the image"),
        ([40, 0, 41, 30], None, "box outside the image"),
        ([1e9, 1e9, 2e9, 2e9], None, "box outside the image"),
        ([5, 5, 5, 9], None, "empty or inverted box"),
        ([5, 5, 5 + 1e-9, 9], None, "empty or inverted box"),
        ([0, 0, 1e300, 9], None, "box outside the image"),
        ([9, 5, 5, 9], None, "empty or inverted box"),
        ([-9, -9, -9, -9], None, "empty or inverted box"),
    ],
)
def test_a_box_is_kept_clipped_or_rejected(box, expected, kind):
    found, is_good, defects = clip(box)
    assert is_good == (expected is not None)
    assert list(defects.counts()) == ([kind] if kind else [])
    if is_good:
        assert found == expected


def test_the_message_says_where_what_was_expected_and_what_was_found():
    _, _, defects = clip([1, 2, 50, 3])
    ((_, message),) = defects.messages
    assert message == "f.csv, line 0: expected a box inside 0 0 40 30, found 1 2 50 3"
    with pytest.raises(DatasetError, match=r"line 0: expected a box with x1 < x2 .* found 1 2 1 3"):
        clip([1, 2, 1, 3], "error")
    assert clip([-1, 2, 3, 4], "error")[2].counts() == {"box clipped to the image": 1}


def test_boxes_may_leave_the_image_where_the_format_has_such():
    found, is_good, defects = clip([-100, 5, 90, 60], beyond="any")
    assert (found, is_good) == ([-100, 5, 90, 60], True)
    assert not defects.messages
    assert not clip([-100, 5, -100, 60], beyond="any")[1], "but not be empty"


def test_a_little_beyond_the_image_may_be_kept():
    found, is_good, defects = clip([-1, 5, 42, 30], beyond="keep")
    assert (found, is_good) == ([-1, 5, 42, 30], True)
    assert defects.counts() == {"box slightly beyond the image": 1}
    assert not clip([-3, 5, 40, 30], beyond="keep")[1]


def test_each_box_is_judged_by_its_own_image():
    judge, sizes = Judge("drop"), np.array([[10, 10], [100, 100]])
    _, is_good = judge.clip(np.array([[0, 0, 50, 50]] * 2), sizes, str)
    assert is_good.tolist() == [False, True]


def test_nothing_to_judge():
    boxes, is_good = Judge().clip(np.zeros([0, 4]), np.zeros([0, 2]), str)
    assert (boxes.shape, is_good.shape) == ((0, 4), (0,))


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="expected 'error' or 'drop', found 'skip'"):
        Judge("skip")


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_what_is_loaded_keeps_its_order_without_what_is_rejected(policy):
    def halve(number):
        if number % 2:
            raise DatasetError(f"{number} is odd", "odd")
        return number // 2

    judge = Judge(policy)
    assert list(judge.load(halve, [4, 6, 2]).items()) == [(4, 2), (6, 3), (2, 1)]
    if policy == "error":
        with pytest.raises(DatasetError, match="3 is odd"):
            judge.load(halve, [4, 3, 2])
    else:
        assert judge.load(halve, [4, 3, 2]) == {4: 2, 2: 1}
        assert judge.defects.messages == [("odd", "3 is odd")]


def test_what_was_mended_in_an_image_is_counted_once_each():
    judge = Judge("error")
    headers = {
        "1": ("a.jpg", ImageHeader(40, 30, 1, notes=("one", "other"))),
        "2": ("b.jpg", ImageHeader(40, 30, 1)),
    }
    objects = {"image_index": [0, 0], "boxes": [[1, 1, 9, 9]] * 2, "labels": [0, 0]}
    dataset = judge.assemble("x", ["dog"], headers, str, **objects)
    assert dataset.defects.messages == [("one", "a.jpg: one"), ("other", "a.jpg: other")]
