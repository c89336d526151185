"""Names and messages that are fit to be shown and written: no control characters, one line.

A class name stands in files of a name a line, on terminals and in pictures.
"""

import unicodedata
from collections.abc import Iterable

MOST_CHARACTERS = 200  # of a class name
SHOWN = 60  # characters of a name in a message
# Control characters (line ends and the escapes of terminals among them), halves of characters that
# no file can hold, and the line and paragraph separators.
UNFIT = ("Cc", "Cs", "Zl", "Zp")
# They turn the direction of what follows, beyond the name (https://trojansource.codes).
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def name_problem(name: str) -> str | None:
    """What is wrong with a class name, as "expected ..., found ..."; None if it is fit."""
    if not name.strip():
        return f"expected a class name, found {name!r}"
    if len(name) > MOST_CHARACTERS:
        expected = f"expected a class name of at most {MOST_CHARACTERS} characters"
        return f"{expected}, found {len(name)}: {name[:SHOWN]!r}..."
    if any(_is_unfit(character) for character in name):
        return f"expected a class name of one line without control characters, found {name!r}"
    return None


def judge_class_names(names: Iterable[str], where: str) -> None:
    """Raises ValueError for the first class name that is not fit; `where` begins its message."""
    for name in names:
        problem = name_problem(name)
        if problem:
            raise ValueError(f"{where}: {problem}")


def printable(text: str, keep: str = "") -> str:
    """The text with every unfit character but those of `keep` as its escape: "\\x1b", "\\n"."""
    if text.isprintable():
        return text
    return "".join(
        character if character in keep or not _is_unfit(character) else _escape(character)
        for character in text
    )


def _is_unfit(character: str) -> bool:
    return unicodedata.category(character) in UNFIT or character in BIDI_CONTROLS


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
