"""Runs side by side: folders written by hand, figures known, files damaged in one place."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

import compare_runs
from configs import to_dict
from configs.schema import Phase

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[1]
CONFIG = {
    "name": "a",
    "output": "runs",
    "data": {"format": "voc", "root": "datasets/cells", "val": "test", "limit": 0},
    "matcher": {"kind": "iou"},
    "train": {"epochs": 3, "phases": [], "learning_rate": 0.01, "ema": None},
    "evaluate": {
        "metric": "auto", "iou_thresholds": [0.5, 0.75], "ap": "area", "plus_one": False,
        "strict": False,
    },
}  # fmt: skip
PHASE, ONE_IOU = to_dict(Phase(epochs=5)), {"iou_thresholds": [0.5]}
COLUMNS = "epoch,loss,class_loss,box_loss,images_per_second,seconds,val_loss,val_map"
ROWS = ("1,3,2,1,4,60,,", "2,2,1.5,0.5,6,70.5,2.5,0.75", "3,1,0.75,0.25,5,60,2.25,0.5")
VOC = {
    "metric": "voc",
    "map_by_iou": {"0.5": {"area": 0.75, "11point": 0.7}, "0.75": {"area": 0.5, "11point": 0.4}},
    "classes": {
        "[red]": {"ap": {"0.5": {"area": 0.8, "11point": 0.1}, "0.75": {"area": 0.2}}},
        "white": {"ap": {"0.5": {"area": None, "11point": None}}},
    },
    "dataset": "cells/test",
    "images": 72,
    "settings": CONFIG["evaluate"],
}
COCO = VOC | {
    "metric": "coco",
    "stats": {"AP": 0.4, "AP50": 0.6},
    "classes": {"[red]": {"ap": 0.3}, "white": {"ap": None}},
}


def write_run(folder, *, rows=ROWS, columns=COLUMNS, report=VOC, weights=2**20, **changes):
    """A run's folder; changes: group -> settings of it."""
    (folder / "checkpoints").mkdir(parents=True)
    config = CONFIG | {
        group: CONFIG.get(group, {}) | settings if isinstance(settings, dict) else settings
        for group, settings in changes.items()
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    if rows is not None:
        (folder / "metrics.csv").write_text("".join(f"{row}\r\n" for row in (columns, *rows)))
    if report is not None:
        (folder / "evaluation").mkdir()
        (folder / "evaluation" / "metrics.json").write_text(json.dumps(report, indent=1))
    if weights:
        (folder / "checkpoints" / "best.npz").write_bytes(bytes(weights))
    return folder


def compare(*folders, arguments=()):
    return compare_runs.main([*map(str, folders), *map(str, arguments)])


def table_rows(text):
    """First cell of each row -> the others."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    return {row[0]: row[1:] for row in cells if row}


def test_two_runs_by_hand(tmp_path, capsys):
    a = write_run(tmp_path / "a")
    other = {"learning_rate": 0.02, "ema": 0.9, "phases": [PHASE], "epochs": None}
    b = write_run(
        tmp_path / "b", name="b", matcher={"kind": "atss", "top_k": 9}, train=other, rows=ROWS[:2]
    )
    figures = compare(a, b, arguments=["--json", tmp_path / "all" / "figures.json"])
    assert json.loads((tmp_path / "all" / "figures.json").read_text()) == figures
    assert figures["comparable"] == {"training": True, "evaluation": True}
    assert figures["settings"] == {
        "matcher.kind": {"a": "iou", "b": "atss"},
        "matcher.positive_iou": {"a": 0.5},
        "matcher.negative_iou": {"a": 0.4},
        "matcher.low_quality": {"a": False},
        "matcher.top_k": {"b": 9},
        "train.epochs": {"a": 3, "b": None},
        "train.phases": {"a": [], "b": [PHASE]},
        "train.learning_rate": {"a": 0.01, "b": 0.02},
        "train.ema": {"a": None, "b": 0.9},
    }
    assert figures["training"]["a"] == {
        "metric": "voc@0.50 area",
        "images": "datasets/cells/test",
        "epochs": 3,
        "planned_epochs": 3,
        "best_epoch": 2,
        "best_map": 0.75,
        "last_map": 0.5,
        "last_loss": 1,
        "last_class_loss": 0.75,
        "last_box_loss": 0.25,
        "last_val_loss": 2.25,
        "images_per_second": 5,
        "seconds": 190.5,
        "weights_bytes": 2**20,
    }
    shorter = figures["training"]["b"]
    assert (shorter["epochs"], shorter["planned_epochs"]) == (2, 5)
    assert figures["evaluation"]["a"] == {
        "metric": "voc@0.50 area",
        "images": "cells/test, 72 images",
        "mAP@0.50": 0.75,
        "mAP@0.75": 0.5,
        "AP of [red]": 0.8,
        "AP of white": None,
    }
    assert figures["epochs"]["a"]["val_map"] == [None, 0.75, 0.5]
    rows = table_rows(capsys.readouterr().out)
    assert "".join(rows["train.phases"]).startswith("[][{'epochs': 5,")
    assert rows["matcher.top_k"] == ["-", "9"]
    assert rows["time"] == ["0:03:10", "0:02:10"]
    assert rows["weights"] == ["1.0 MiB", "1.0 MiB"]
    assert rows["best mAP"] == ["0.7500", "0.7500"]
    assert rows["AP of [red]"] == ["0.8000", "0.8000"]
    assert rows["AP of white"] == ["-", "-"]
    assert cv2.imread(str(tmp_path / "comparison.png")) is not None


def test_equal_settings_and_none_known_are_not_listed(tmp_path, capsys):
    """Of runs that differ in nothing but where they lie."""
    runs = [write_run(tmp_path / name, name=name, output=name) for name in "ab"]
    assert compare(*runs)["settings"] == {}


def test_a_run_before_its_first_epoch_and_one_from_an_earlier_version(tmp_path, capsys):
    begun = write_run(tmp_path / "begun", rows=None, report=None, weights=0)
    empty = write_run(tmp_path / "empty", columns="", rows=(), report=None)
    old = write_run(tmp_path / "old", columns="epoch,loss,val_map", rows=("1,2,", "2,1,0.5"))
    figures = compare(begun, empty, old)
    for name in ("begun", "empty"):
        known = {k for k, value in figures["training"][name].items() if value is not None}
        assert known - {"weights_bytes"} == {"metric", "images", "epochs", "planned_epochs"}
        assert figures["training"][name]["epochs"] == 0
    assert figures["evaluation"]["begun"] == {}
    assert figures["training"]["old"]["seconds"] is None
    assert figures["training"]["old"]["best_epoch"] == 2
    rows = table_rows(capsys.readouterr().out)
    assert rows["best epoch"] == ["-", "-", "2"]
    assert rows["last loss"] == ["-", "-", "1.0000"]
    assert rows["mAP@0.50"] == ["-", "-", "0.7500"]


def test_the_time_of_a_run_whose_first_epochs_had_none_is_not_known(tmp_path):
    run = write_run(tmp_path / "a", rows=("1,3,2,1,4,,,", *ROWS[1:]))
    assert compare(run)["training"]["a"]["seconds"] is None


def test_one_run_alone_is_shown(tmp_path, capsys):
    figures = compare(write_run(tmp_path / "a"), arguments=["--out", tmp_path / "curves.png"])
    assert figures["training"].keys() == {"a"}
    assert "*" not in capsys.readouterr().out
    assert (tmp_path / "curves.png").exists()
    assert not (tmp_path / "comparison.png").exists()


@pytest.mark.parametrize(
    ("changes", "training", "evaluation"),
    [
        ({"evaluate": {"metric": "coco"} | ONE_IOU}, "coco", None),
        ({"data": {"format": "coco"}, "evaluate": ONE_IOU}, "coco", None),
        ({"evaluate": {"ap": "11point"}}, "voc@0.50 11point", None),
        ({"evaluate": {"iou_thresholds": [0.75]}}, "voc@0.75 area", None),
        ({"evaluate": {"strict": True}}, "voc@0.50 area strict", None),
        ({"data": {"limit": 10}}, None, None),
        ({"report": COCO}, None, "coco"),
        ({"report": VOC | {"images": 71}}, None, None),
    ],
)
def test_runs_measured_otherwise_are_marked(changes, training, evaluation, tmp_path, capsys):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", **changes)]
    figures = compare(*runs)
    differ = "evaluation" if "report" in changes else "training"
    assert figures["comparable"] == {"training": True, "evaluation": True} | {differ: False}
    for part, metric in (("training", training), ("evaluation", evaluation)):
        assert figures[part]["b"]["metric"] == metric or metric is None
    text = capsys.readouterr().out
    assert "* not comparable: another metric, or other images" in text
    marked = {name for name in table_rows(text) if name.endswith(" *")}
    assert {"best mAP *", "last mAP *"} <= marked or differ == "evaluation"
    assert ("mAP@0.50 *" in marked) == (differ == "evaluation")


@pytest.mark.parametrize(
    "data",
    [
        {"root": "datasets/others"},
        {"root": "elsewhere/cells"},
        {"val_fraction": 0.3},
        {"classes": ["red"]},
        {"class_file": "names.csv"},
        {"person_box": "visible"},
        {"images": ["pictures"]},
        {"on_bad_annotation": "drop"},
    ],
)
def test_other_images_or_objects_are_marked(data, tmp_path, capsys):
    """Of the training and of the evaluation, whose reports do not say where their images lie."""
    figures = compare(write_run(tmp_path / "a"), write_run(tmp_path / "b", data=data))
    assert figures["comparable"] == {"training": False, "evaluation": False}
    assert {"best mAP *", "mAP@0.50 *"} <= table_rows(capsys.readouterr().out).keys()


def test_an_evaluation_of_other_classes_is_marked(tmp_path):
    fewer = VOC | {"classes": {"white": VOC["classes"]["white"]}}
    figures = compare(write_run(tmp_path / "a"), write_run(tmp_path / "b", report=fewer))
    assert figures["comparable"] == {"training": True, "evaluation": False}


def test_what_an_earlier_version_did_not_save_had_the_default(tmp_path):
    data = CONFIG["data"] | {"person_box": "full", "on_bad_annotation": "error"}
    figures = compare(write_run(tmp_path / "a"), write_run(tmp_path / "b", data=data))
    assert all(figures["comparable"].values())
    assert figures["settings"] == {}


def test_only_the_first_iou_makes_another_metric(tmp_path):
    """Training goes by it; the second one is only reported."""
    runs = [write_run(tmp_path / "a")]
    runs.append(write_run(tmp_path / "b", evaluate={"iou_thresholds": [0.5]}))
    assert all(compare(*runs)["comparable"].values())


def test_two_folders_of_one_name_go_by_their_paths(tmp_path):
    runs = [write_run(tmp_path / name / "a") for name in ("x", "y")]
    assert list(compare(*runs)["training"]) == [str(run) for run in runs]


# ------------------------------------------------------------------------------------------------
# Bad input
# ------------------------------------------------------------------------------------------------


def test_what_is_no_run_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("folder", "absent"):
        with pytest.raises(ValueError, match=f"{name}: expected a run's folder, found no config"):
            compare(write_run(tmp_path / f"run_{name}"), tmp_path / name)


def test_a_run_given_twice_is_refused(tmp_path, monkeypatch):
    run = write_run(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"a: expected each run once, found it 2 times"):
        compare(run, "a/../a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{COLUMNS}\n{ROWS[0]}\n2,2,1.5\n", "line 3: expected 8 values, found 3"),
        (f"{COLUMNS}\n1,3,2,1,4,60,x,\n", "line 2, val_loss: expected a number, found 'x'"),
        (f"{COLUMNS}\n{ROWS[0]}\n{ROWS[2]}\n", "line 3: expected epoch 2, found 3"),
        (f"{COLUMNS}\n{ROWS[0]}\n{ROWS[0]}\n", "line 3: expected epoch 2, found 1"),
        (f"{COLUMNS}\n,3,2,1,4,60,,\n", "line 2: expected epoch 1, found nan"),
        (
            "loss,val_map\n1,2\n",
            "line 1: expected each column once, epoch among them, found loss, val_map",
        ),
        (f"{COLUMNS}\n{ROWS[0]}", "line 2: expected the end of a line, found the file's"),
    ],
)
def test_a_damaged_metrics_csv_is_named_with_its_line(tmp_path, text, message):
    run = write_run(tmp_path / "a")
    (run / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{run}/metrics.csv, {message}')}$"):
        compare(run)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", '{\n "a": 1,\n', ", line 3: expected JSON, found "),
        ("config.json", "[]", ": expected a JSON object, found list"),
        ("config.json", '{"data": {"rot": 1}}', ": Config.data.rot is no setting; choices: "),
        ("evaluation/metrics.json", "{", ", line 1: expected JSON, found "),
        ("evaluation/metrics.json", "{}", ": expected figures of an evaluation, found "),
        ("evaluation/metrics.json", '{"metric": "voc", "settings": {}}', ": expected figures"),
    ],
)
def test_a_damaged_json_file_is_named(tmp_path, file, text, message):
    run = write_run(tmp_path / "a")
    (run / file).write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{run}/{file}{message}')}"):
        compare(run)


def test_bytes_that_are_no_text_are_named(tmp_path):
    run = write_run(tmp_path / "a")
    (run / "config.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(
        ValueError, match=r"config\.json, line 1: expected text in UTF-8, found the byte 0xff"
    ):
        compare(run)


BROKEN = {
    "config.json": [
        ("null", ": expected a JSON object, found null"),
        ('{"data": ' * 10**4, ": expected at most 64 levels of nesting, found more"),
        ('{"data": [], "evaluate": {}}', ": Config.data: expected Data, found []"),
        ('{"data": {}, "evaluate": []}', ": Config.evaluate: expected Evaluate, found []"),
        ('{"data": {}, "data": {}}', ": expected each key once, found 'data' twice"),
    ],
    "metrics.csv": [
        ("epoch,loss\n1,\0\n", ", line 2, loss: expected a number, found '\\x00'"),
        ("epoch,epoch\n1,1\n", ", line 1: expected each column once, epoch among them, found e"),
        (f"epoch,loss\n1,{'1' * 200_000}\n", ", line 2: field larger than field limit (131072)"),
        (f"epoch,loss\n1,{'x' * 100_000}\n", ", line 2, loss: expected a number, found 'xxx"),
    ],
    "evaluation/metrics.json": [
        ("[]", ": expected a JSON object, found list"),
        ('{"metric": NaN}', ": expected JSON, which has no NaN"),
        (json.dumps(VOC | {"classes": []}), ": expected figures of an evaluation, found "),
        (json.dumps(COCO | {"stats": {"AP": {}}}), ": expected figures of an evaluation, found "),
        (json.dumps(VOC | {"map_by_iou": {"x": {}}}), ": expected figures of an evaluation, found"),
    ],
}


@pytest.mark.parametrize(
    ("file", "text", "message"), [(file, *case) for file in BROKEN for case in BROKEN[file]]
)
def test_any_broken_file_of_a_run_is_named_in_one_line(tmp_path, file, text, message):
    run = write_run(tmp_path / "a")
    (run / file).write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{run}/{file}{message}')}") as caught:
        compare(run)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("file", BROKEN)
def test_what_is_no_file_is_not_taken_for_an_absent_one(tmp_path, file):
    for kind, found in ((os.mkdir, "a folder"), (os.mkfifo, "a named pipe")):
        run = write_run(tmp_path / found)
        (run / file).unlink()
        kind(run / file)
        message = f"^{re.escape(f'{run}/{file}')}: expected a regular file, found {found}$"
        with pytest.raises(ValueError, match=message):
            compare(run)


def test_codes_that_a_terminal_would_obey_are_shown(tmp_path, capsys):
    classes = {"\x1b[2J": VOC["classes"]["white"]}
    report = VOC | {"classes": classes, "dataset": "a\x1b[31m"}
    run = write_run(tmp_path / "a\x07", report=report)
    compare(run, write_run(tmp_path / "b"))
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\x07" not in text
    assert {"AP of \\x1b[2J"} <= {name.removesuffix(" *") for name in table_rows(text)}


def test_piped_the_table_is_as_wide_as_it_needs(tmp_path):
    """Six runs of long names, in a process whose output is no terminal."""
    names = [f"a-run-of-a-rather-long-name-{i}" for i in range(6)]
    folders = [write_run(tmp_path / name) for name in names]
    result = subprocess.run(
        [sys.executable, "compare_runs.py", *map(str, folders)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert all(name in lines[1] for name in names)
    assert table_rows(result.stdout)["best epoch"] == ["2"] * 6


def test_an_error_is_a_line_and_a_status(tmp_path):
    result = subprocess.run(
        [sys.executable, "compare_runs.py", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 1
    expected = f"error: {tmp_path}: expected a run's folder, found no config.json in it"
    assert result.stderr.strip() == expected
