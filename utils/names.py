"""Names and messages that are fit to be shown and written: no control characters, one line.

A class name stands in files of a name a line, on terminals and in pictures.
"""

import re
from collections.abc import Iterable

MOST_CHARACTERS = 200  # of a class name
SHOWN = 60  # characters of a name in a message
# Line ends and the escapes of terminals among them (category Cc): no path has them, either.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Also halves of characters that no file can hold (Cs), the line and paragraph separators (Zl, Zp),
# and what turns the direction of all that follows a name (https://trojansource.codes).
UNFIT = re.compile(rf"{CONTROL.pattern}|[\ud800-\udfff\u2028-\u202e\u2066-\u2069]")


def name_problem(name: str) -> str | None:
    """What is wrong with a class name, as "expected ..., found ..."; None if it is fit."""
    if not name.strip():
        return f"expected a class name, found {name!r}"
    if len(name) > MOST_CHARACTERS:
        expected = f"expected a class name of at most {MOST_CHARACTERS} characters"
        return f"{expected}, found {len(name)}: {name[:SHOWN]!r}..."
    if UNFIT.search(name):
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

    def escape(match: re.Match) -> str:
        character = match[0]
        return character if character in keep else character.encode("unicode_escape").decode()

    return UNFIT.sub(escape, text)
