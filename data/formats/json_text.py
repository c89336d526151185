"""JSON that is decoded by types: what is wrong with it becomes one line that says where."""

import re
from typing import TypeVar

import msgspec

from data.records import DatasetError

Decoded = TypeVar("Decoded")
BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode_json(
    decoder: msgspec.json.Decoder[Decoded], data: bytes | msgspec.Raw, where: str, kind: str
) -> Decoded:
    """Decodes JSON; the DatasetError says what was found in msgspec's words, or shows it."""
    try:
        return decoder.decode(data)
    except BAD_JSON as error:
        place, problem = json_problem(error)
        if ", found" not in problem:
            problem += f", found {bytes(data)[:60]!r}"
        where = f"{where}, {place}" if place else where
        raise DatasetError(f"{where}: {problem}", kind) from error


def json_problem(error: Exception) -> tuple[str, str]:
    """What msgspec says, in our words: ("[3].score", "expected `float`, found `str`")."""
    problem, _, place = str(error).partition(" - at `$")
    missing = r"expected an object with the field \1, found none"
    problem = re.sub(r"^Object missing required field (.*)", missing, problem)
    problem = problem.replace("Expected", "expected").replace(", got", ", found")
    return place.rstrip("`").removeprefix("."), problem
