"""How the programs of the project begin, describe themselves and end.

Imported before TensorFlow, to which it says how much to print: pyproject.toml sorts it first.
"""

import argparse
import os
import sys
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def make_parser(description: str | None, module: str | None = None) -> argparse.ArgumentParser:
    """Returns a parser whose help shows a docstring as it stands.

    module: of a program that is run as `python -m module`.
    """
    return argparse.ArgumentParser(
        prog=f"python -m {module}" if module else None,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run_program(main: Callable[[], object], failure: int = 1) -> None:
    """Runs a program; where its input or the disk is at fault, ends with one line.

    failure: the exit status then.
    """
    try:
        main()
    except (OSError, ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(failure)
