"""What README.md and docs/ name exists."""

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from benchmarks import ablation
from configs import Config
from utils import __version__

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FILES = (".py", ".json", ".odgt", ".txt", ".csv", ".yaml", ".xml", ".tfrecord", ".record")
GROUPS = [field.name for field in dataclasses.fields(Config)]


def settings(cls, prefix=""):
    """Dotted names of all fields, of every choice of a group."""
    for name, hint in typing.get_type_hints(cls).items():
        if name not in cls.__dataclass_fields__:
            continue
        yield prefix + name
        for choice in [hint, *typing.get_args(hint)]:
            if dataclasses.is_dataclass(choice):
                yield from settings(choice, f"{prefix}{name}.")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_are_named_exist(page):
    """What looks like a setting and is none is a file or a module."""
    pattern = rf"(?<![\w/.-])(?:{'|'.join(GROUPS)})\.[a-z][\w.]*\w"
    named = set(re.findall(pattern, page.read_text(encoding="utf-8")))
    named -= {name for name in named if name.endswith(FILES)}
    modules = {name: ROOT.joinpath(*name.split(".")[:2]) for name in named}
    named -= {
        name
        for name, path in modules.items()
        if path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    }
    assert named - set(settings(Config)) == set()


def test_the_changelog_begins_with_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (.+)$", text, re.MULTILINE)[1] == __version__


def test_settings_are_found():
    found = set(settings(Config))
    assert {"train.phases", "matcher.top_k", "train.schedule.factor", "model.resize.short"} <= found
    assert "train.nothing" not in found


def test_the_table_has_every_row_that_can_be_measured():
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (\w+) \| (\w+) \| \d", text, re.MULTILINE)
    groups = {row: group for group, row, _ in ablation.ROWS}
    assert {row for _, row in table} >= groups.keys()
    assert all(groups.get(row, group) == group for group, row in table)
