"""Lines, fields, numbers and class names."""

import math

import numpy as np
import pytest

from data.formats.texts import (
    choose_classes,
    class_label,
    csv_fields,
    decimal,
    numbered_lines,
    quoted,
    text_lines,
)
from data.records import DatasetError, Defects

pytestmark = pytest.mark.quick


@pytest.fixture
def classes(tmp_path):
    def write(text):
        path = tmp_path / "a.txt"
        path.write_bytes(text.encode())
        return path

    return write


def test_lines_end_with_lf_crlf_or_cr_only(classes):
    assert text_lines(classes("a\r\nb\nc\rd\x0b\x85\u2028e\n")) == [
        "a",
        "b",
        "c",
        "d\x0b\x85\u2028e",
        "",
    ]


def test_fields_are_trimmed_after_quotes_are_taken_off():
    assert csv_fields(' a b , "c, d",,"e""f" ') == ["a b", "c, d", "", 'e"f']
    assert csv_fields("a,b;c", ";") == ["a,b", "c"]


def test_blank_lines_keep_their_numbers(classes):
    assert numbered_lines(classes("\ufeff a b\n\n \nc")) == [(1, "a b"), (4, "c")]


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("-1.5", -1.5), ("+.5e1", 5), ("3.", 3), ("0012", 12)]
)
def test_decimal_numbers(text, value):
    assert decimal(text) == value


@pytest.mark.parametrize(
    "text", [None, "", "nan", "inf", "1_0", "0x1", "1,5", "１", "1e999", " 1", "9" * 101]
)
def test_other_texts_are_no_numbers(text):
    assert math.isnan(decimal(text))


def test_quoted_texts_are_short():
    assert quoted(None) == "nothing"
    assert quoted("a\nb") == r"'a\nb'"
    assert quoted("x" * 61) == repr("x" * 57 + "...")


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
