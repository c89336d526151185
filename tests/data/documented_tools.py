"""Reads datasets with the settings that docs/datasets.md gives for a tool's files."""

import re
from dataclasses import replace
from pathlib import Path

import configs
from data.datasets import class_names, read_split
from data.records import Dataset

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"


def splits_of(tool: str, name: str, root: Path) -> dict[str, Dataset]:
    """Train and val of the dataset at root, by the config `name` in the tool's section."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n### {tool}\n")[1].split("\n#")[0]
    found: dict = {"preset": configs.preset}
    for text in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(text, found)
    data = replace(found[name].data, root=str(root))
    classes = class_names(data)
    return {name: read_split(data, getattr(data, name), classes) for name in ("train", "val")}
