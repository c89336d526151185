"""The label of each class name, and what is said of names that have none."""

import numpy as np
import pytest

from data.formats.class_names import choose_classes, class_label
from data.records import DatasetError, Defects

pytestmark = pytest.mark.quick


def test_class_labels():
    label_of = {"cat": 0, "dog": 1}
    assert class_label("dog", label_of, "f") == 1
    with pytest.raises(DatasetError, match="found 'cta'; did you mean 'cat'"):
        class_label("cta", label_of, "f")
    with pytest.raises(DatasetError, match=r"f: expected one of cat, dog, found 'zebra'$"):
        class_label("zebra", label_of, "f")
    for name in (None, ""):
        with pytest.raises(DatasetError, match="f: expected a class name, found none") as caught:
            class_label(name, label_of, "f")
        assert caught.value.kind == "missing name"


def test_choose_classes():
    defects = Defects()
    for classes, labels in ((None, [0, 1, 2]), (["c", "a"], [1, -1, 0])):
        found = choose_classes(["a", "b", "c"], classes, "x", defects)
        np.testing.assert_array_equal(found, labels)
    assert not defects.messages
    np.testing.assert_array_equal(choose_classes(["a"], ["b", "a"], "x", defects), [1])
    assert defects.messages == [("class not declared", "x: class: expected one of a, found 'b'")]
