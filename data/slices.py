"""Images that lie inside a larger file, as in a TFRecord: their place as one text, and back.

`Dataset.images` holds "FILE#OFFSET+LENGTH/NAME" for such an image: LENGTH bytes from byte OFFSET of
FILE, which somebody called NAME. As a path it ends in the image's own name, which is what captions
and outputs take from it. `data.files` opens it as if it were a file; a real file of that whole name
comes first.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

_SLICE = re.compile(r"(.+)#(\d{1,18})\+(\d{1,18})/([^/]+)", re.DOTALL)


class Slice(NamedTuple):
    """file: its address. offset, length: bytes. name: without "/"."""

    file: str
    offset: int
    length: int
    name: str

    def __str__(self) -> str:
        return f"{self.file}#{self.offset}+{self.length}/{self.name}"


def find_slice(path: str | Path) -> Slice | None:
    """The slice that a text stands for; None for any other path."""
    text = os.fspath(path)
    match = _SLICE.fullmatch(text) if "#" in text else None
    if match is None or ("\0" not in text and os.path.lexists(text)):
        return None
    return Slice(match[1], int(match[2]), int(match[3]), match[4])
