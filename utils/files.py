"""Files that are whole or not there at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; it takes the place of `path` if all goes well.

    Its name ends as that of `path` and is of this call alone: of several writers the last to end
    wins. Makes the folder. After an exception nothing is left; after a kill, a file named .part-*.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{secrets.token_hex(4)}-{path.name}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file, UTF-8."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
