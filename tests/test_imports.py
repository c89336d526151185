"""Who may import whom, held by walking the syntax trees of the project's files.

utils imports nothing of ours; core and data never each other, and the config's types only where
they are turned into parts or read from weights; configs is standard library only, and so are
utils.safe_reading and utils.names, which it uses; torch is imported only to read its files and to
be compared with; a config reaches a program through configs.load, called by root scripts, by
training/plan.py for train.py, by data/check.py and data/preview.py, programs that lie in a package,
and by what makes pictures and measures (images/, benchmarks/). No program at the root is imported
by another, or by what they share.
"""

import ast
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[1]
PACKAGES = ("configs", "core", "data", "utils")
PLAIN = ("utils.safe_reading", "utils.names")
MAY_IMPORT = {
    "utils": {"utils"},
    "configs": {"configs"},  # and PLAIN, which is standard library only too
    "core": {"core", "utils"},
    "data": {"data", "utils"},
}
READ_THE_CONFIG = {
    "core/build.py",
    "data/augment/geometry.py",
    "data/datasets.py",
    "data/images/resize.py",
    "data/pipeline.py",
}
LOADS_FOR_TRAIN = "training/plan.py"
KNOW_CONVENTIONS = "core/weights/"
# Programs as those at the root, though they lie in a package.
COMMANDS = {"data/check.py", "data/preview.py"}
MAY_USE_TORCH = ("core/weights/torch_and_keras_files.py", "tests/parity/", "benchmarks/")
NOT_OURS = {"runs", "datasets"}
RUN_PROGRAMS = ("tests", "benchmarks", "images")  # as a person would


def python_files(root):
    """Paths relative to `root`; hidden folders, outputs and data sets are left out."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not any(part.startswith(".") for part in parts) and parts[0] not in NOT_OURS:
            yield path.relative_to(root)


def imported(tree, file):
    """(line, dotted module) of each import, also inside functions and by importlib."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            package = ".".join(file.parts[: -node.level])
            yield node.lineno, ".".join(filter(None, [package, node.module]))
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module
        elif isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).split(".")[-1]
            text = node.args[0]
            if name in ("import_module", "__import__") and isinstance(text, ast.Constant):
                yield node.lineno, text.value


def calls_of_load(tree):
    """Lines that call configs.load, under whatever name it was imported, or import it by name."""
    names = {"configs"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname for a in node.names if a.name == "configs" and a.asname}
        if isinstance(node, ast.ImportFrom) and node.module == "configs":
            yield from (node.lineno for alias in node.names if alias.name in ("load", "*"))
    for node in ast.walk(tree):
        is_load = isinstance(node, ast.Attribute) and node.attr == "load"
        if is_load and ast.unparse(node.value) in names:
            yield node.lineno


def violations(root):
    """One message for each rule that a file below `root` breaks."""
    scripts = {path.stem for path in root.glob("*.py")}
    programs = {path.stem for path in root.glob("*.py") if "__main__" in path.read_text("utf-8")}
    found = []
    for file in python_files(root):
        tree = ast.parse((root / file).read_text(encoding="utf-8"), str(file))
        name = file.as_posix()
        is_plain = ".".join(file.with_suffix("").parts) in PLAIN or file.parts[0] == "configs"
        package = "scripts" if name in COMMANDS else file.parts[0]
        allowed = MAY_IMPORT.get(package, set()) | (
            {"configs"} if name in READ_THE_CONFIG or name.startswith(KNOW_CONVENTIONS) else set()
        )
        for line, module in imported(tree, file):
            top = module.split(".")[0]
            is_ours = top in {*PACKAGES, "training", "results", "deploy", *scripts}
            where = f"{name}, line {line}: imports {module}"
            if top in programs and file.parts[0] not in (*PACKAGES, *RUN_PROGRAMS):
                found.append(f"{where}; no program imports another")
            elif package == "results" and top == "training":
                found.append(f"{where}; training imports results")
            elif top in ("torch", "torchvision") and not name.startswith(MAY_USE_TORCH):
                found.append(f"{where}; torch is no requirement")
            elif package == "configs" and module in PLAIN:
                continue
            elif package in PACKAGES and is_ours and top not in allowed:
                found.append(f"{where}; it may import {', '.join(sorted(allowed))}")
            elif is_plain and not is_ours and top not in sys.stdlib_module_names:
                found.append(f"{where}; configs is standard library only")
        if package in (*PACKAGES, "results", "training") and name != LOADS_FOR_TRAIN:
            for line in calls_of_load(tree):
                found.append(f"{name}, line {line}: only programs call configs.load")
    return found


def test_the_project_keeps_its_rules():
    assert violations(ROOT) == []


def test_the_project_is_looked_at():
    """So that the test above cannot pass because it found no file or no import."""
    files = {file.as_posix() for file in python_files(ROOT)}
    assert {"train.py", "config.py", "configs/schema.py", "tests/test_imports.py"} <= files
    assert files >= READ_THE_CONFIG | COMMANDS | {LOADS_FOR_TRAIN}, "no exception outlives its file"
    assert not any(file.startswith((".venv", "runs/", "datasets/")) for file in files)
    for file in READ_THE_CONFIG:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        modules = {module for _, module in imported(tree, Path(file))}
        assert "configs.schema" in modules, f"{file} needs no exception"
    for file in (LOADS_FOR_TRAIN, "evaluate.py"):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert list(calls_of_load(tree)), "calls of load are recognised"


# ------------------------------------------------------------------------------------------------
# The checker on files made up for it
# ------------------------------------------------------------------------------------------------


KEEPS = {
    "train.py": "import configs\nimport core.build\nconfigs.load('config.py')",
    "training/plan.py": "import configs\nimport results.scoring\nconfigs.load()",
    "evaluate.py": "if __name__ == '__main__':\n    pass",
    "images/make.py": "import evaluate",
    "config.py": "from configs import preset",
    "core/build.py": "from configs.schema import Model\nfrom core.heads import Head",
    "core/heads.py": "import keras\nfrom utils.boxes import area\nfrom . import build",
    "data/pipeline.py": "from configs.schema import Data\nfrom utils.boxes import area",
    "utils/boxes.py": "import tensorflow as tf\nfrom utils import draw\nfile.load('configs')",
    "configs/schema.py": "import json\nfrom configs.checked import Checked",
    "configs/reader.py": "from utils.safe_reading import read_json",
    "core/weights/torch_and_keras_files.py": "def f():\n    import torch",
    "core/weights/formats/yhenon.py": "from configs.schema import Model",
    "data/check.py": "import configs\nimport core.build\nconfigs.load()",
    "data/preview.py": "import configs\nimport core.weights.npz_files\nconfigs.load()",
    "tests/parity/test_torchvision.py": "import torch\nimport torchvision",
    "benchmarks/input.py": "import torch",
    "tests/test_a.py": "import configs\nconfigs.load('a')\nimport core.build, data.pipeline",
    ".venv/lib/torch/core.py": "import torch",
    "datasets/odd/data.py": "import torch",
}


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def test_a_tree_that_keeps_the_rules_passes(tmp_path):
    write(tmp_path, KEEPS)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("utils/a.py", "from core.heads import Head"),
        ("utils/a.py", "import data"),
        ("core/a.py", "from results.scoring import score"),
        ("data/a.py", "from deploy.common import conventions"),
        ("deploy/onnx.py", "import evaluate"),
        ("train.py", "from evaluate import main"),
        ("results/files.py", "import evaluate"),
        ("core/a.py", "from training.resuming import Progress"),
        ("results/a.py", "from training.resuming import Progress"),
        ("results/a.py", "import configs\nconfig = configs.load()"),
        ("training/phases.py", "import configs\nconfig = configs.load()"),
        ("training/phases.py", "from configs import load"),
        ("utils/a.py", "import configs.schema"),
        ("utils/a.py", "from train import main"),
        ("core/a.py", "from data.records import Dataset"),
        ("core/a.py", "def f():\n    import data.records as r"),
        ("core/a.py", "from configs.schema import Model"),
        ("core/necks/a.py", "from configs import Config"),
        ("core/a.py", "from config import config"),
        ("core/a.py", "import importlib\nimportlib.import_module('data.voc')"),
        ("core/build.py", "import data"),
        ("data/a.py", "import core.anchors"),
        ("data/a.py", "import numpy, core"),
        ("data/formats/voc.py", "from configs.schema import Data"),
        ("data/pipeline.py", "from core.anchors import AnchorGenerator"),
        ("configs/a.py", "import numpy as np"),
        ("configs/a.py", "from utils.boxes import area"),
        ("configs/a.py", "from utils import safe_reading"),
        ("utils/safe_reading.py", "import numpy"),
        ("utils/names.py", "import numpy"),
        ("configs/a.py", "import tensorflow"),
        ("train.py", "import torch"),
        ("core/a.py", "try:\n    import torch.nn\nexcept ImportError:\n    pass"),
        ("core/weights/transfer.py", "import torch"),
        ("core/weights/torch_and_keras_files.py", "import data.records"),
        ("train.py", "import torchvision"),
        ("tests/test_b.py", "from torch import nn"),
        ("core/build.py", "import configs\nconfig = configs.load()"),
        ("core/build.py", "import configs as c\nconfig = c.load()"),
        ("core/build.py", "from configs import load\nconfig = load()"),
        ("data/datasets.py", "from configs import load as read"),
        ("data/doctor/page.py", "import core.anchors"),
    ],
)
def test_each_broken_rule_is_found(tmp_path, file, text):
    write(tmp_path, KEEPS | {file: text})
    found = violations(tmp_path)
    assert len(found) == 1, found
    assert found[0].startswith(f"{file}, line ")
