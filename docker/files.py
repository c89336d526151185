"""Reads a Dockerfile's instructions and which files .dockerignore lets through, as an engine does.

Docker's own reference: "Dockerfile reference" and "Build context" of docs.docker.com.
"""

import os
import re
from pathlib import Path

WILDCARDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def instructions(text: str) -> list[tuple[str, str]]:
    """(keyword, argument) of each instruction, continued lines joined, comments left out."""
    lines = [line.strip() for line in text.splitlines()]
    code = "\n".join(line for line in lines if line and not line.startswith("#"))
    joined = re.sub(r"\s*\\\n", " ", code)
    split = [line.partition(" ") for line in joined.splitlines()]
    return [(keyword.upper(), argument.strip()) for keyword, _, argument in split]


def context_files(root: Path) -> list[str]:
    """Sorted paths, relative to `root`, of the files that its .dockerignore lets through.

    Raises ValueError for a pattern with brackets or a backslash, which are not read here.
    """
    rules = _rules((root / ".dockerignore").read_text(encoding="utf-8"))
    kept = [pattern for pattern, is_out in rules if not is_out]
    found = []
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        paths = {name: (here / name).as_posix() for name in folders + files}
        found += [paths[name] for name in files if not is_ignored(paths[name], rules)]
        # What lies in an ignored folder may be let in again, by a pattern that begins with it.
        folders[:] = [
            name
            for name in folders
            if not is_ignored(paths[name], rules)
            or any(pattern.startswith(f"{paths[name]}/") for pattern in kept)
        ]
    return sorted(found)


def is_ignored(path: str, rules: list[tuple[str, bool]]) -> bool:
    """Whether the last of the (pattern, leaves out) that fits `path` or a folder above leaves out.

    Unlike git's, a pattern without a slash fits at the root only.
    """
    parts = path.split("/")
    above = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    verdicts = [is_out for pattern, is_out in rules if any(_fits(pattern, p) for p in above)]
    return bool(verdicts) and verdicts[-1]


def _rules(text: str) -> list[tuple[str, bool]]:
    lines = [line.strip() for line in text.splitlines()]
    patterns = [line for line in lines if line and not line.startswith("#")]
    for pattern in patterns:
        if set(pattern) & set("[]\\"):
            raise ValueError(f".dockerignore: expected *, ** and ? alone, found {pattern!r}")
    return [(pattern.lstrip("!").strip("/"), pattern[0] != "!") for pattern in patterns]


def _fits(pattern: str, path: str) -> bool:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return bool(re.fullmatch("".join(WILDCARDS.get(p, re.escape(p)) for p in parts), path))
