"""The presets, config.py, and how a config file is read."""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest

import configs
from configs import Config, ConfigError, from_dict, load, override, preset, to_dict

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]


def commented_settings(text):
    """[(key, value)] of the lines '# "key": value,' of a config file."""
    found = []
    for line in re.findall(r'^\s*#\s*("[\w.]+":.*)$', text, re.MULTILINE):
        ((key, value),) = ast.literal_eval(f"{{{line}\n}}").items()
        found.append((key, value))
    return found


def defines_config(path):
    """Whether a Python file assigns `config` at its top level."""
    return any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "config"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
    )


# ------------------------------------------------------------------------------------------------
# Presets
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", configs.PRESETS)
def test_each_preset_loads_and_comes_back_from_json_equal(name):
    config = preset(name)
    assert isinstance(config, Config)
    assert config.name == name
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config
    assert load(ROOT / "configs" / f"{name}.py") == config
    assert importlib.import_module(f"configs.{name}").__doc__.count("python train.py"), (
        "its command"
    )


def test_every_preset_file_is_listed():
    files = {path.stem for path in (ROOT / "configs").glob("*.py") if defines_config(path)}
    assert files == set(configs.PRESETS)


def test_an_unknown_preset_lists_the_others():
    with pytest.raises(
        ConfigError, match=r"preset: expected one of shapes, small, voc.*found 'cocoo'"
    ):
        preset("cocoo")


def test_the_overfit_preset_changes_nothing_while_it_looks():
    """It is to learn its images by heart: the same images every time, and judged on them."""
    config = preset("overfit")
    augment = config.data.augment
    assert (augment.flip, augment.vertical_flip, augment.zoom) == (0, 0, (1.0, 1.0))
    assert not any((augment.brightness, augment.contrast, augment.saturation, augment.hue))
    assert config.data.val == config.data.train
    assert config.data.limit >= config.train.batch_size


# ------------------------------------------------------------------------------------------------
# config.py
# ------------------------------------------------------------------------------------------------


SETTINGS = commented_settings((ROOT / "config.py").read_text(encoding="utf-8"))
GROUPS = dict(SETTINGS)


def test_the_commented_settings_are_found():
    """So that the test below cannot pass because it looks at nothing."""
    keys = [key for key, _ in SETTINGS]
    assert {"name", "data.root", "model.resize", "model.resize.height", "train.epochs"} <= set(keys)
    assert len(keys) == len(set(keys)) > 15


@pytest.mark.parametrize(("key", "value"), SETTINGS, ids=[key for key, _ in SETTINGS])
def test_each_commented_setting_of_config_py_can_be_switched_on(key, value):
    """Alone, and with the settings it is a part of ("model.resize" for "model.resize.height")."""
    parents = {other: GROUPS[other] for other in GROUPS if key.startswith(f"{other}.")}
    config = preset("shapes", parents | {key: value})
    found = config
    for part in key.split("."):
        found = getattr(found, part)
    if not hasattr(found, "kind"):
        assert found == value
    else:
        assert found.kind == value


def test_all_commented_settings_of_config_py_go_together():
    """Whoever removes every # gets a config, not an error."""
    config = preset("shapes", dict(SETTINGS))
    assert config != preset("shapes")
    assert config.model.resize.kind == GROUPS["model.resize"]


def test_config_py_as_it_comes_is_the_default_preset():
    assert load(ROOT / "config.py") == preset("shapes")


# ------------------------------------------------------------------------------------------------
# load
# ------------------------------------------------------------------------------------------------


def test_overrides_on_the_command_line():
    config = load(
        ROOT / "config.py",
        [
            "train.schedule.factor=0.2",
            "train.schedule=step",
            "model.resize = short_long",
            "data.classes=person,head",
            "train.clip_norm=none",
            "train.eager=true",
            "train.learning_rate=1e-2",
            "data.augment.zoom=(0.5, 2)",
            "evaluate.iou_thresholds=0.5,0.75",
            "data.root=/some/where=else",
        ],
    )
    changes = {
        "train.schedule": "step",
        "train.schedule.factor": 0.2,
        "model.resize": "short_long",
        "data.classes": ("person", "head"),
        "train.clip_norm": None,
        "train.eager": True,
        "train.learning_rate": 0.01,
        "data.augment.zoom": (0.5, 2.0),
        "evaluate.iou_thresholds": (0.5, 0.75),
        "data.root": "/some/where=else",
    }
    assert config == override(preset("shapes"), changes)


def test_phases_on_the_command_line():
    phases = "train.phases=[{'epochs': 1, 'freeze': ['backbone']}, {'epochs': 2}]"
    first, second = load(ROOT / "config.py", ["train.epochs=none", phases]).train.phases
    assert (first.epochs, first.freeze) == (1, ("backbone",))
    assert (second.epochs, second.freeze) == (2, ())


@pytest.mark.parametrize("item", ["train.epochs", "=3", ""])
def test_an_override_that_is_none(item):
    with pytest.raises(ConfigError, match=r"--set: expected section.field=value, found"):
        load(ROOT / "config.py", [item])


def test_a_run_reads_its_config_again(tmp_path):
    config = preset("voc", {"train.epochs": 3})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(config)), encoding="utf-8")
    assert load(path) == config
    assert load(path, ["train.epochs=4"]).train.epochs == 4


def test_a_user_s_file_with_parts_of_its_own(tmp_path):
    """The Python file can hold what the JSON cannot."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import preset\n"
        "def neck(): ...\n"
        "config = preset('shapes', {'model.neck': neck})\n",
        encoding="utf-8",
    )
    config = load(path)
    assert config.model.neck.__name__ == "neck"
    saved = tmp_path / "config.json"
    saved.write_text(json.dumps(to_dict(config)), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"model\.neck: .*\.neck\).*with --config") as caught:
        load(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("absent.py", None, "no such config file"),
        ("absent.json", None, "no such config file"),
        ("empty.py", "", "expected it to define `config`, a Config; found None"),
        ("other.py", "config = {'epochs': 3}", "a Config; found {'epochs': 3}"),
        ("config.yaml", "epochs: 3", "expected a .py or .json file"),
        ("half.json", '{"name": "a", "trai', "Unterminated string"),
        ("wrong.json", '{"train": {"epochs": "x"}}', "train.epochs: expected a whole number"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, name, text, expected):
    path = tmp_path / name
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith((f"{path}: ", f"{path}, line 1: "))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("item", "field", "value"),
    [
        ("name=2024", "name", "2024"),
        ("data.train=2007", "data.train", "2007"),
        ("data.classes=1,2", "data.classes", ("1", "2")),
        ("data.classes=person, head", "data.classes", ("person", "head")),
        ("data.classes=('a, b', 'c')", "data.classes", ("a, b", "c")),
        ("train.clip_norm=none", "train.clip_norm", None),
        ("data.cache=TRUE", "data.cache", True),
        ("train.learning_rate=1e-3", "train.learning_rate", 1e-3),
    ],
)
def test_the_type_of_the_field_says_what_text_of_the_command_line_means(item, field, value):
    config = load(ROOT / "config.py", [item])
    for name in field.split("."):
        config = getattr(config, name)
    assert config == value
