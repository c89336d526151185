"""Executes the notebooks here, top to bottom in a fresh kernel, and writes them with their outputs.

    python -m notebooks.execute                                  all of them
    python -m notebooks.execute notebooks/custom_dataset.ipynb

What differs from run to run without meaning anything (times of the diary, metadata) is left out.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from utils.program import make_parser, run_program

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
CLOCK = re.compile(r"^\d\d:\d\d:\d\d ", re.MULTILINE)  # before each line of the diary
# What TensorFlow's C++ says of the machine before it can be told not to.
CHATTER = re.compile(r"^(WARNING: All log messages before absl|[IWE]0000 ).*\n", re.MULTILINE)


def main() -> None:
    parser = make_parser(__doc__)
    default = sorted(FOLDER.glob("*.ipynb"))
    parser.add_argument("notebooks", nargs="*", type=Path, default=default)
    for path in parser.parse_args().notebooks:
        notebook = nbformat.read(path, as_version=4)
        execute(notebook, FOLDER)
        normalise(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {len(notebook.cells)} cells, {path.stat().st_size / 1000:.0f} kB")


def execute(
    notebook: nbformat.NotebookNode,
    folder: Path,
    parameters: Mapping[str, Any] | None = None,
    timeout: int = 600,
) -> None:
    """Runs all cells in place, in a new kernel started in `folder`.

    parameters: values in place of those that the cell tagged "parameters" sets.
    timeout: seconds a cell may take. Raises CellExecutionError at the first cell that fails.
    """
    if parameters:
        cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
        lines = [f"{name} = {value!r}" for name, value in parameters.items()]
        cell.source = "\n".join([cell.source, *lines])
    client = NotebookClient(
        notebook,
        timeout=timeout,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Leaves out, in place, what only says when and where it was run; notes what was run."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "executed": fingerprint(notebook),
        }
    )
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        outputs = cell.get("outputs", [])
        for output in outputs:
            if "text" in output:
                output.text = CHATTER.sub("", CLOCK.sub("", output.text))
            if "image/jpeg" in output.get("data", {}):
                output.data.pop("text/plain", None)  # "<Figure size 1040x230 with 6 Axes>"
                output.metadata = nbformat.from_dict({})
        outputs[:] = [output for output in outputs if output.get("text", "some").strip()]


def fingerprint(notebook: nbformat.NotebookNode) -> str:
    """Of the code of all cells, in order: tells whether outputs are of the cells as they are."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


if __name__ == "__main__":
    run_program(main)
