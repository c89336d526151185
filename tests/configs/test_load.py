"""Config files that are broken, hostile or no files: one ConfigError line in no time."""

import json
import os
import time

import pytest

from configs import Config, ConfigError, load, load_saved, preset, to_dict

pytestmark = pytest.mark.quick


def refused(path, read=load):
    """The message without the file's name, which it begins with."""
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert time.process_time() - start < 5
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < 1500
    return message.removeprefix(str(path))


# ------------------------------------------------------------------------------------------------
# A run's config.json
# ------------------------------------------------------------------------------------------------

ONES = "1," * 10**6 + "1"
BROKEN = {
    "null": (": expected a JSON object, found null", "null"),
    "a list": (": expected a JSON object, found list", "[]"),
    "deep": (": expected at most 64 levels of nesting, found more", '{"model":' * 10**4),
    "a key twice": (": expected each key once, found 'train' twice", '{"train":{},"train":{}}'),
    "an unknown key": (": Config.'\\x1b[31m\\n' is no setting; ", '{"\\u001b[31m\\n": 1}'),
    "nan": (": expected JSON, which has no NaN", '{"train":{"learning_rate":NaN}}'),
    "a list as group": (": Config.data: expected Data, found [1]", '{"data":[1]}'),
    "null as group": (": Config.model: expected Model, found None", '{"model":null}'),
    "a huge number": (
        ": Config.train.learning_rate: expected a number, found 1000",
        f'{{"train":{{"learning_rate":1{"0" * 400}}}}}',
    ),
    "a million ratios": (
        ": Config.model.anchors.ratios: expected at most 1000 values, found 1000001",
        f'{{"model":{{"anchors":{{"ratios":[{ONES}]}}}}}}',
    ),
    "40 ratios": (
        ": Config.model.anchors.ratios: expected 1 to 32 numbers, found (1.0, ",
        f'{{"model":{{"anchors":{{"ratios":[{ONES[:79]}]}}}}}}',
    ),
    "a million phases": (
        ": Config.train.phases: expected at most 1000 values, found 1000001",
        f'{{"train":{{"phases":[{ONES}]}}}}',
    ),
    "a long name": (
        ": Config.name: expected a folder name of up to 200 bytes, found 'aaaa",
        f'{{"name":"{"a" * 10**4}"}}',
    ),
    "a zero byte": (
        ": Config.data.root: expected at most 65536 characters, none of them a control character",
        '{"data":{"root":"a\\u0000b"}}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("read", [load, load_saved])
def test_a_broken_config_json_is_named_with_its_field(name, read, tmp_path):
    message, text = BROKEN[name]
    path = tmp_path / "config.json"
    path.write_text(text)
    assert refused(path, read).startswith(message)


def test_settings_that_were_saved_in_another_form_are_completed(tmp_path):
    """Forms that a field takes but `to_dict` does not write: a kind alone, a number for a list."""
    path = tmp_path / "config.json"
    changes = {"train": {"schedule": "step"}, "evaluate": {"iou_thresholds": 0.75}}
    path.write_text(json.dumps(changes))
    expected = {"train.schedule": "step", "evaluate.iou_thresholds": (0.75,)}
    assert load_saved(path) == to_dict(load(path))
    assert load(path).train.schedule.kind == expected["train.schedule"]
    assert load(path).evaluate.iou_thresholds == expected["evaluate.iou_thresholds"]


def test_an_object_of_one_s_own_is_completed_by_its_name(tmp_path):
    path = tmp_path / "config.json"
    saved = to_dict(Config()) | {"name": "callable:is.a.plain.name"}
    saved["model"]["neck"] = "callable:mine.neck"
    path.write_text(json.dumps(saved))
    assert ": Config.name: expected a folder name" in refused(path, load_saved)
    saved["name"] = "plain"
    path.write_text(json.dumps(saved))
    found = load_saved(path)
    assert found["model"]["neck"] == "callable:mine.neck"
    assert "names an object of your own (mine.neck)" in refused(path)


# ------------------------------------------------------------------------------------------------
# A Python file
# ------------------------------------------------------------------------------------------------

RAISES = {
    "syntax": (", line 2: SyntaxError: '(' was never closed", "a = 1\nb = (\n"),
    "indentation": (", line 2: IndentationError: expected an indented block", "if 1:\nx = 1"),
    "name": (", line 3: NameError: name 'x' is not defined", "\n\nx\n"),
    "division": (
        ", line 2: ZeroDivisionError: division by zero",
        "def f():\n    return 1 / 0\nf()\n",
    ),
    "import": (", line 1: ModuleNotFoundError: No module named 'nonesuch'", "import nonesuch"),
    "inside a library": (
        ", line 2: JSONDecodeError: Expecting property name",
        "import json\njson.loads('{')",
    ),
    "exit": (", line 1: SystemExit: 3", "raise SystemExit(3)"),
    "exit without status": (", line 2: SystemExit", "import sys\nsys.exit()"),
    "recursion": (
        ", line 2: RecursionError: maximum recursion depth exceeded",
        "def f():\n    f()\nf()",
    ),
    "without text": (", line 1: AssertionError", "assert False"),
    "several lines": (", line 1: ValueError: a b c", "raise ValueError('a\\nb\\n  c')"),
    "a setting": (
        ", line 3: train.epochs: expected None or 1 to 1000000, found 0",
        "from configs import preset\n\nconfig = preset('shapes', {'train.epochs': 0})\n",
    ),
    "a zero byte": (": SyntaxError: source code string cannot contain null bytes", "a = 1\0"),
    "parentheses": (", line 1: SyntaxError: too many nested parentheses", "(" * 10**5),
    "a large list": (
        ": expected it to define `config`, a Config; found [1, 1,",
        "config=[1]*10**5",
    ),
    "a class": (": expected it to define `config`, a Config; found <class", "class config: ..."),
}


@pytest.mark.parametrize("name", RAISES)
def test_what_a_config_raises_is_named_with_its_line(name, tmp_path):
    message, text = RAISES[name]
    path = tmp_path / "config.py"
    path.write_text(text)
    found = refused(path)
    if name == "a zero byte":  # Python 3.11.4 and newer; before, a ValueError
        assert "null bytes" in found
    else:
        assert found.startswith(message)


def test_the_line_is_that_of_the_config_not_of_what_it_imports(tmp_path, monkeypatch):
    (tmp_path / "parts.py").write_text("\n\n\nx = (")
    (tmp_path / "config.py").write_text("import sys\nimport parts")
    monkeypatch.syspath_prepend(tmp_path)
    assert refused(tmp_path / "config.py").startswith(", line 2: SyntaxError: '(' was never closed")


def test_ctrl_c_is_let_through(tmp_path):
    path = tmp_path / "config.py"
    path.write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load(path)


@pytest.mark.parametrize("ending", [".py", ".json"])
def test_what_is_no_regular_file_is_named(ending, tmp_path):
    (tmp_path / f"folder{ending}").mkdir()
    os.mkfifo(tmp_path / f"pipe{ending}")
    (tmp_path / f"zeros{ending}").symlink_to("/dev/zero")
    for name, found in (("folder", "a folder"), ("pipe", "a named pipe"), ("zeros", "a device")):
        message = refused(tmp_path / f"{name}{ending}")
        assert message == f": expected a regular file, found {found}"
    with open(tmp_path / f"large{ending}", "wb") as file:
        file.truncate(2**30)
    assert refused(tmp_path / f"large{ending}") == ": expected at most 4 MiB, found 1,024.0 MiB"
    (tmp_path / f"latin{ending}").write_bytes(b'x = "\xff"\n')
    assert "0xff" in refused(tmp_path / f"latin{ending}")
    assert refused(tmp_path / ("x" * 300 + ending)) == ": no such config file"


def test_a_file_knows_where_it_is(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(
        "from pathlib import Path\nfrom configs import preset\n"
        "config = preset('shapes', {'name': Path(__file__).parent.name})\n"
    )
    assert load(path) == preset("shapes", {"name": tmp_path.name})
