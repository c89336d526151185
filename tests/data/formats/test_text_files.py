"""Lines, fields and numbers."""

import math

import pytest

from data.formats.text_files import (
    csv_fields,
    decimal,
    flag,
    numbered_lines,
    quoted,
    text_lines,
)
from data.records import DatasetError

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


def test_a_line_with_a_nul_may_be_rejected_alone(classes):
    rejected = []
    path = classes("a\nb\0\nc\n\0")
    assert text_lines(path, reject=rejected.append) == ["a", "", "c", ""]
    ends = [f"{path}, line {line}: expected text, found a NUL character" for line in (2, 4)]
    assert [str(error) for error in rejected] == ends
    with pytest.raises(DatasetError, match=r"line 2: expected text, found a NUL"):
        text_lines(path)


def test_fields_are_trimmed_after_quotes_are_taken_off():
    assert csv_fields(' a b , "c, d",,"e""f" ') == ["a b", "c, d", "", 'e"f']
    assert csv_fields("a,b;c", ";") == ["a,b", "c"]
    assert csv_fields("a , b,, c ") == ["a", "b", "", "c"]
    assert csv_fields("\ta\t", "\t") == ["", "a", ""]


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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True), (0, False), (2, True), (None, False), ("1", True), ("0.0", False),
        ("-1", True), ("Yes", True), (" TRUE ", True), ("no", False), ("False", False),
        ("nan", False), ("", False), ("Unspecified", None), ([], None),
    ],
)  # fmt: skip
def test_flags(value, expected):
    assert flag(value) is expected
