"""Label maps of the TF Object Detection API, `label_map.pbtxt`: the classes by number and name.

A StringIntLabelMap in protobuf's text format: `item { id: 1 name: 'cat' display_name: "Cat" }`,
with or without commas, "#" before comments. Other fields of an item are passed over.
https://github.com/tensorflow/models, research/object_detection/protos/string_int_label_map.proto;
https://protobuf.dev/reference/protobuf/textformat-spec/
"""

import re
from pathlib import Path
from typing import NamedTuple

from data.formats.text_files import quoted, text_lines
from data.records import DatasetError, require_fit_names

MAX_BYTES = 2**24  # Open Images, 601 classes, takes 40 KB
MAX_ID = 2**31 - 1
_TOKEN = re.compile(
    r"""\s*(?:\#.*|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|([\w.+-]+)|([][{}<>:,;]))\s*"""
)
_ID = re.compile(r"0[xX][0-9a-fA-F]{1,8}|\d{1,10}", re.ASCII)
_ESCAPE = re.compile(
    rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)
_LETTERS = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_LETTERS |= {b"v": b"\v"}
_OPENING, _CLOSING = "{<[", "}>]"


_CODE = re.compile(r"/[a-z]/\S+")  # Freebase's names of things, as /m/01g317 for a person


class Item(NamedTuple):
    """A class of a label map; line: where it begins. display_name: "" where there is none."""

    line: int
    id: int
    name: str
    display_name: str

    @property
    def title(self) -> str:
        """What to call the class: its name, or display_name where the name is a mere code."""
        return (self.display_name if _CODE.fullmatch(self.name) else "") or self.name


class _Token(NamedTuple):
    """line: from 1. text: unquoted. is_text: whether it stood in quotes."""

    line: int
    text: str
    is_text: bool = False


def read_label_map(path: str | Path) -> dict[int, str]:
    """Returns {id: title} of a label map, in the order of the file; errors as `read_items`."""
    return {item.id: item.title for item in read_items(path)}


def read_items(path: str | Path) -> tuple[Item, ...]:
    """Returns the items of a label map, in the order of the file.

    An item without a name is called by its display_name. Item 0 is left out where it is
    "background", for which the API reserves that number.
    Raises DatasetError, naming file and line, for what is no label map, an item without id or
    name, an id or name given twice, and a file of more than MAX_BYTES.
    """
    tokens = _tokens(path)[::-1]
    items: list[Item] = []
    while tokens:
        word = tokens.pop()
        is_item = word.text == "item" and not word.is_text
        _expect(is_item, "item { id: 1 name: 'cat' }", word, path)
        items.append(_item(tokens, word, path))
        _skip(tokens, ",;")
    items = [item for item in items if (item.id, item.name.lower()) != (0, "background")]
    if not items:
        raise DatasetError(f"{path}: expected items of a label map, found none")
    for field in ("id", "name", "title"):
        first_of: dict[object, Item] = {}
        for item in items:
            value = getattr(item, field)
            first = first_of.setdefault(value, item)
            if first is not item:
                what = "name" if field == "title" else field
                message = f"{what} {quoted(str(value))} is given twice, first in line {first.line}"
                raise DatasetError(f"{path}, line {item.line}: {message}")
    return tuple(items)


def _tokens(path: str | Path) -> list[_Token]:
    tokens = []
    for number, line in enumerate(text_lines(path, MAX_BYTES), start=1):
        position = 0
        while position < len(line):
            match = _TOKEN.match(line, position)
            if match is None:
                if not line[position:].strip():
                    break
                expected = "expected item { id: 1 name: 'cat' }"
                raise DatasetError(
                    f"{path}, line {number}: {expected}, found {quoted(line.strip())}"
                )
            text, word, sign = match.groups()
            if text:
                tokens.append(_Token(number, _unescaped(text, f"{path}, line {number}"), True))
            elif word or sign:
                tokens.append(_Token(number, word or sign))
            position = match.end()
    return tokens


def _unescaped(text: str, where: str) -> str:
    """A text less its quotes; protobuf writes what is not ASCII as octal bytes of UTF-8."""

    def value(match: re.Match[bytes]) -> bytes:
        octal, byte, short, long, letter = match.groups()
        if octal or byte:
            return bytes([(int(octal, 8) if octal else int(byte, 16)) % 256])
        if short or long:
            code = int(short or long, 16)
            return chr(min(code, 0x10FFFF)).encode("utf-8", "surrogatepass")
        return _LETTERS.get(letter, letter)

    try:
        return _ESCAPE.sub(value, text[1:-1].encode()).decode()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{where}: expected text in UTF-8, found {quoted(text)}") from error


def _item(tokens: list[_Token], first: _Token, path: str | Path) -> Item:
    """Parses an item behind its first word."""
    fields: dict[str, str] = {}
    _skip(tokens, ":")
    _expect(bool(tokens) and tokens[-1].text in ("{", "<"), "{", _next(tokens, first), path)
    close = _CLOSING[_OPENING.index(tokens.pop().text)]
    while (token := _next(tokens, first)).text != close or token.is_text:
        _expect(token.text.isidentifier(), f"a field or {close}", token, path)
        tokens.pop()
        _skip(tokens, ":")
        found = _value(tokens, token, path)
        if token.text in Item._fields:
            _expect(token.text not in fields, f"{token.text} once in an item", token, path)
            _expect(found.is_text == (token.text != "id"), f"a value of {token.text}", found, path)
            fields[token.text] = found.text
        _skip(tokens, ",;")
    tokens.pop()
    where = f"{path}, line {first.line}"
    name = fields.get("name") or fields.get("display_name", "")
    number = fields.get("id", "")
    if not _ID.fullmatch(number) or _int(number) > MAX_ID:
        found_id = quoted(number) if number else "none"
        raise DatasetError(f"{where}: expected an item with an id from 1 on, found {found_id}")
    if not name:
        raise DatasetError(f"{where}: expected an item with a name, found none", "missing name")
    item = Item(first.line, _int(number), name, fields.get("display_name", ""))
    require_fit_names([item.title], where)
    return item


def _value(tokens: list[_Token], field: _Token, path: str | Path) -> _Token:
    """Takes a value: texts that follow each other are one; a message or list is passed over."""
    found = _next(tokens, field)
    if found.is_text:
        parts = []
        while tokens and tokens[-1].is_text:
            parts.append(tokens.pop().text)
        return found._replace(text="".join(parts))
    _expect(found.text not in ("", *_CLOSING, *":,;"), f"a value of {field.text}", found, path)
    tokens.pop()
    depth = int(found.text in tuple(_OPENING))
    while depth:
        token = _next(tokens, found)
        _expect(bool(tokens), "the end of a message", token, path)
        tokens.pop()
        if not token.is_text:
            depth += (token.text in tuple(_OPENING)) - (token.text in tuple(_CLOSING))
    return found


def _int(text: str) -> int:
    return int(text, 16) if text[1:2] in ("x", "X") else int(text)


def _next(tokens: list[_Token], last: _Token) -> _Token:
    """The next token, not taken; behind the last one an empty one in its line."""
    return tokens[-1] if tokens else _Token(last.line, "")


def _skip(tokens: list[_Token], signs: str) -> None:
    while tokens and not tokens[-1].is_text and tokens[-1].text in tuple(signs):
        tokens.pop()


def _expect(condition: bool, expected: str, found: _Token, path: str | Path) -> None:
    if not condition:
        what = quoted(found.text) if found.text or found.is_text else "the end of the file"
        raise DatasetError(f"{path}, line {found.line}: expected {expected}, found {what}")
