"""The notebooks run from top to bottom, and what is committed is of the cells as they are."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

import configs
from configs import Config
from notebooks.execute import execute, fingerprint, normalise

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Where a kernel starts, and what is smaller than in the committed run.
RUNS = {
    "custom_dataset": (FOLDER, {"NUM_IMAGES": 40, "EPOCHS": 2}),
    "eager_debugging": (ROOT, {}),
}
MOST_BYTES = 600_000
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|var|work|Users|private)/\S*|\b[A-Z]:\\\w+")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook):
    """Each cell's source and what is text in its outputs."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            yield from (t for kind, t in output.get("data", {}).items() if kind.startswith("text/"))


def kinds(notebook):
    """What each code cell puts out: the names of streams and the types of pictures."""
    return [
        [output.get("name") or sorted(output.data) for output in cell.outputs]
        for cell in code_cells(notebook)
    ]


def problems(notebook):
    """What a committed notebook should not have."""
    cells = code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        yield "cells were not run in order, each once"
    if notebook.metadata.get("executed") != fingerprint(notebook):
        yield "a cell was changed after it was run: python -m notebooks.execute"
    outputs = [output for cell in cells for output in cell.outputs]
    if any(output.output_type == "error" for output in outputs):
        yield "an error among the outputs"
    if any(output.get("name") == "stderr" for output in outputs):
        yield "something was written to stderr"
    yield from (f"absolute path {found}" for t in texts(notebook) for found in ABSOLUTE.findall(t))


@every_notebook
def test_it_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    """From the root or from its folder, where it leaves nothing; its cells assert what must hold.

    Each cell puts out what the committed one did: text, pictures, nothing.
    """
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder, parameters = RUNS[path.stem]
    notebook = read(path)
    committed, before = kinds(notebook), set(folder.iterdir())
    execute(notebook, folder, parameters, timeout=170)
    normalise(notebook)
    assert kinds(notebook) == committed
    assert {file.name for file in set(folder.iterdir()) - before} <= {"__pycache__"}


@every_notebook
def test_it_is_committed_as_it_was_run(path):
    assert list(problems(read(path))) == []
    assert path.stat().st_size < MOST_BYTES


@every_notebook
def test_what_its_text_names_exists(path):
    """Files of ours, settings, and what the table of breakpoints says is in a file."""
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    quoted = re.findall(r"`([^`]+)`", text)
    files = [name for name in quoted if re.fullmatch(r"\w+/[\w/]+\.(py|md)", name)]
    assert files
    assert [name for name in files if not (ROOT / name).is_file()] == []

    known = configs.to_dict(Config())
    for name in quoted:
        group, *keys = re.match(r"[\w.]*", name.lstrip('"'))[0].split(".")
        if group in known and keys and keys != ["py"]:
            inner = known[group]
            for key in keys:
                assert key in inner, name
                inner = inner[key]

    for file, place, look in re.findall(r"^\|.*\| `([\w/]+\.py)`,(.*)\|(.*)\|$", text, re.M):
        code = (ROOT / file).read_text(encoding="utf-8")
        for word in re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", place + look))):
            assert word in ("tf", "reduce_max", "abs", "x") or word in code, f"{file}: {word}"


# ------------------------------------------------------------------------------------------------
# What holds them to it
# ------------------------------------------------------------------------------------------------


def notebook_of(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])


@pytest.fixture(scope="module")
def executed():
    notebook = notebook_of("a = 1", "print('12:34:56 hello')\nprint(a)")
    notebook.cells[0].metadata["tags"] = ["parameters"]
    execute(notebook, FOLDER, {"a": 2}, timeout=60)
    normalise(notebook)
    return notebook


def test_parameters_take_the_place_of_the_cells_own(executed):
    assert executed.cells[1].outputs[0].text == "hello\n2\n"


def test_normalising_leaves_what_means_something():
    notebook = notebook_of("a")
    chatter = "I0000 00:00:1795.2 port.cc:153] oneDNN custom operations are on.\n"
    picture = {"image/jpeg": "abcd", "text/plain": "<Figure size 640x480>"}
    notebook.cells[0].outputs = [
        nbformat.v4.new_output("stream", name="stderr", text=chatter),
        nbformat.v4.new_output("stream", name="stdout", text=f"{chatter}09:00:00 loss 1\n"),
        nbformat.v4.new_output("display_data", picture, metadata={"image/jpeg": {"width": 9}}),
    ]
    notebook.cells[0].metadata["execution"] = {"iopub.execute_input": "2026-01-01"}
    notebook.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    normalise(notebook)
    assert [output.output_type for output in notebook.cells[0].outputs] == [
        "stream",
        "display_data",
    ]
    assert notebook.cells[0].outputs[0].text == "loss 1\n"
    assert notebook.cells[0].outputs[1].data == {"image/jpeg": "abcd"}
    assert notebook.cells[0].outputs[1].metadata == {}
    assert notebook.cells[0].metadata == {}
    assert notebook.metadata["language_info"] == {"name": "python"}


def test_a_cell_that_fails_stops_it():
    with pytest.raises(CellExecutionError, match="loss rises"):
        execute(notebook_of("assert False, 'loss rises'"), FOLDER, timeout=60)


def test_a_sound_notebook_has_no_problems(executed):
    assert list(problems(executed)) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda n: n.cells[0].update(execution_count=None), "in order"),
        (lambda n: n.cells.reverse(), "in order"),
        (lambda n: n.cells[0].update(source="a = 3"), "changed after it was run"),
        (lambda n: n.cells[1].outputs[0].update(name="stderr"), "stderr"),
        (lambda n: n.cells[1].outputs[0].update(text="in /home/jo/x"), "path /home/jo/x"),
        (lambda n: n.cells[1].outputs[0].update(text="'C:\\me'"), "absolute path"),
        (
            lambda n: n.cells[1].outputs.append(nbformat.v4.new_output("error", ename="E")),
            "an error among",
        ),
    ],
)
def test_each_problem_is_found(executed, change, expected):
    notebook = nbformat.from_dict(executed)
    notebook = nbformat.reads(nbformat.writes(notebook), as_version=4)
    change(notebook)
    assert any(expected in problem for problem in problems(notebook))
