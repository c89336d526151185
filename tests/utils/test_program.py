"""How programs describe themselves and end."""

import importlib
import os

import pytest

from utils import program

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("error", [OSError(28, "No space left", "a.txt"), ValueError("a: b")])
def test_what_a_user_can_mend_is_one_line(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        program.run_program(main, failure=2)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_what_only_a_programmer_can_mend_keeps_its_traceback():
    with pytest.raises(KeyError):
        program.run_program(lambda: {}["a"])


def test_help_shows_the_docstring_as_it_stands():
    help_text = program.make_parser(
        "One line.\n\n    python -m a.b   does it\n", "a.b"
    ).format_help()
    assert "usage: python -m a.b" in help_text
    assert "\n    python -m a.b   does it\n" in help_text


def test_tensorflow_prints_no_more_than_warnings_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    importlib.reload(program)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "2"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    importlib.reload(program)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
