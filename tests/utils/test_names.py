"""Class names that are fit, those that are not, and messages that cannot move a cursor."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.names import CONTROL, UNFIT, judge_class_names, name_problem, printable

pytestmark = pytest.mark.quick

FIT = [
    "cat",
    "traffic light",
    "naïve",
    "图像",
    "کتاب\u200cخانه",
    "\U0001f469\u200d\U0001f680",
    "a" * 200,
]
PROBLEMS = {
    "two\nlines": r"without control characters, found 'two\nlines'",
    "\x1b[2Jgone": r"without control characters, found '\x1b[2Jgone'",
    "a\u202eb": r"without control characters, found 'a\u202eb'",
    "a\u2028b": r"without control characters, found 'a\u2028b'",
    "\ud800": r"without control characters, found '\ud800'",
    "\x9b31m": r"without control characters, found '\x9b31m'",
    "": "expected a class name, found ''",
    " \t": r"expected a class name, found ' \t'",
    "a" * 201: "of at most 200 characters, found 201: 'aaa",
}


@pytest.mark.parametrize("name", FIT)
def test_names_of_any_language_are_fit(name):
    assert name_problem(name) is None


@pytest.mark.parametrize("name", PROBLEMS)
def test_names_that_are_not(name):
    with pytest.raises(ValueError, match=r"^classes\.txt, line 3: expected") as caught:
        judge_class_names(["cat", name], "classes.txt, line 3")
    assert PROBLEMS[name] in str(caught.value)
    assert str(caught.value).isprintable()


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_printed_has_no_control_characters_and_loses_none_of_the_others(text):
    shown = printable(text)
    assert not {"Cc", "Cs", "Zl", "Zp"} & {unicodedata.category(character) for character in shown}
    shown.encode("utf-8")
    assert "\n".join(map(printable, text.split("\n"))) == printable(text, keep="\n")
    if text.isprintable():
        assert shown == text


def test_what_is_unfit_is_so_by_unicode_s_categories():
    characters = [chr(code) for code in range(0x110000)]
    kinds = {c: (unicodedata.category(c), unicodedata.bidirectional(c)) for c in characters}
    turns = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    expected = {c for c, (kind, _) in kinds.items() if kind in ("Cc", "Cs", "Zl", "Zp")}
    expected |= {c for c, (_, direction) in kinds.items() if direction in turns}
    assert {c for c in characters if UNFIT.search(c)} == expected
    assert {c for c in characters if CONTROL.search(c)} == {
        c for c, (kind, _) in kinds.items() if kind == "Cc"
    }


def test_escapes_by_hand():
    assert printable("a\x1b[31m\nb\udc80\u202e") == r"a\x1b[31m\nb\udc80\u202e"
