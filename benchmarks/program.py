"""What the benchmarks share around their content: options, the machine, tables, what they leave."""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.machine import description, headline, require_idle
from utils import program
from utils.files import write_text


def make_parser(
    text: str | None, name: str | None = None, *, rounds: int | None = None
) -> argparse.ArgumentParser:
    """A parser with --busy, with --out if there is a name and --rounds if there is a default."""
    parser = program.make_parser(text)
    if rounds:
        parser.add_argument("--rounds", type=int, default=rounds)
    if name:
        parser.add_argument("--out", default=f"runs/benchmarks/{name}")
    parser.add_argument("--busy", action="store_true", help="measure though others compute")
    return parser


def begin(allow_busy: bool) -> dict:
    """What a report says of its machine. Raises BusyMachineError as `require_idle` does."""
    others = require_idle(allow_busy=allow_busy)
    return {"machine": description(), "others_at_start": others, "busy": allow_busy}


def leave(folder: str | Path, name: str, report: dict, text: str) -> str:
    """Writes NAME.json and NAME.md, the text below a line about the machine; returns the latter.

    report: JSON-ready, with what `begin` gave (of a measurement that takes no time, the machine).
    """
    text = f"{headline(report['machine'], report.get('busy', False))}\n\n{text}\n"
    write_text(Path(folder) / f"{name}.json", json.dumps(report, indent=1))
    write_text(Path(folder) / f"{name}.md", text)
    return text


def markdown_table(
    heading: Sequence[str], rows: Iterable[Sequence[str]], num_texts: int = 1
) -> str:
    """Markdown; all columns but the first `num_texts` hold numbers."""
    rule = ["---"] * num_texts + ["---:"] * (len(heading) - num_texts)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, rule, *rows))
