"""The table of choices: sound settings, what is run and gone on with, figures by hand."""

import json
import os

import pytest

import configs
from benchmarks import ablation
from configs import ConfigError

pytestmark = pytest.mark.quick

BASE = ablation.config
ROWS = (
    ("base", "base", {}),
    ("sizes", "small", {"model.neck_width": 64, "model.anchors.sizes": (8, 16, 32, 64, 128)}),
    ("augmentation", "noaug", {"data.augment.flip": 0.0}),
    ("augmentation", "some", {"data.augment.flip": 0.25}),
    ("detection", "soft", {"model.detect.score_threshold": 0.1}),
)


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    monkeypatch.setattr(ablation, "ROWS", ROWS)


def write_run(folder, value, seconds=0.1, changes=None, complete=True):
    """A run's folder as train.py leaves it; the first epoch is slow and the last one quick."""
    (folder / "evaluation").mkdir(parents=True)
    (own,) = (changes for _, name, changes in ROWS if folder.name.startswith(name))
    place = {"name": folder.name, "output": "elsewhere", "train.seed": int(folder.name[-1])}
    config = configs.override(BASE, {**own, **place, **(changes or {})})
    (folder / "config.json").write_text(json.dumps(configs.to_dict(config)))
    rates = "".join(f"{n + 1},{1 / (seconds * x)}\n" for n, x in enumerate((9, 1, 0.5)))
    (folder / "metrics.csv").write_text("epoch,images_per_second\n" + rates)
    classes = {"cell": {"ap": {"0.5": {"area": value + 0.125, "11point": 0}}}}
    if complete:
        report = {"value": value, "classes": classes}
        (folder / "evaluation" / "metrics.json").write_text(json.dumps(report))


def gathered(capsys, runs, *arguments):
    """Row -> its cells, of the printed table."""
    ablation.main(["--gather", "--runs", str(runs), *arguments])
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    heading = cells[0]
    return {row[1]: dict(zip(heading, row, strict=True)) for row in cells[2:]}


# ------------------------------------------------------------------------------------------------
# The rows
# ------------------------------------------------------------------------------------------------


def test_every_row_of_the_table_is_sound_and_changes_the_base(tmp_path, monkeypatch):
    monkeypatch.undo()
    args = ablation.argparse.Namespace(runs=str(tmp_path), root="bccd")
    before = configs.to_dict(BASE)
    for row in ablation.ROWS:
        run = ablation.planned(*row, 1, args)
        after = configs.to_dict(run.config)
        changed = {name for name, _, _ in configs.differences(after, before)}
        changed -= {"name", "output", "data.root", "train.seed"}
        assert bool(changed) == (row[1] != "base"), row
        assert all(name.startswith("model.detect.") for name in changed) == (
            row[0] in (ablation.DETECTION, "base")
        ), row
    names = [row[1] for row in ablation.ROWS]
    assert len(set(names)) == len(names)
    assert set(ablation.REFERENCES.values()) <= set(names)


def test_the_plain_rows_augment_nothing():
    """Whatever the preset turns on is off in it, or the rows that stand alone would not."""
    plain = configs.override(BASE, ablation.PLAIN).data.augment
    neutral = configs.override(configs.schema.Augment(), {"flip": 0.0})
    assert plain == neutral


def test_the_file_is_the_config_of_its_base():
    assert configs.load("benchmarks/ablation.py") == BASE


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, ["base", "small", "noaug", "some", "soft"]),
        ("sizes", ["base", "small"]),
        ("some", ["base", "noaug", "some"]),
        ("detection,small", ["base", "small", "soft"]),
    ],
)
def test_chosen_rows_come_with_those_they_are_compared_with(names, expected):
    assert [name for _, name, _ in ablation.chosen(names)] == expected


def test_an_unknown_row_is_refused():
    with pytest.raises(ValueError, match=r"expected some of base, sizes, small, .*, found necks"):
        ablation.chosen("small,necks")


def test_a_row_that_cannot_be_fails_before_anything_is_run(tmp_path, monkeypatch):
    bad = (*ROWS, ("sizes", "none", {"model.neck_width": 0}))
    monkeypatch.setattr(ablation, "ROWS", bad)
    monkeypatch.setattr(ablation.subprocess, "run", lambda *_, **__: pytest.fail("has run"))
    with pytest.raises(ConfigError, match=r"row none: model\.neck_width: expected 1 to 4096"):
        ablation.main(["--runs", str(tmp_path)])
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------
# The runs
# ------------------------------------------------------------------------------------------------


def plan(runs, seeds=1):
    args = ablation.argparse.Namespace(runs=str(runs), root="bccd")
    return {
        run.folder.name: run
        for run in (ablation.planned(*row, s, args) for s in range(seeds) for row in ROWS)
    }


def test_a_run_is_begun_with_the_settings_of_its_row(tmp_path):
    small = plan(tmp_path, seeds=2)["small_s1"]
    ablation.begin(small)
    assert ablation.command(small) == ["train.py", "--resume", str(tmp_path / "small_s1")]
    config = configs.load(tmp_path / "small_s1" / "config.json")  # as train.py reads it
    assert config == small.config
    assert (config.model.neck_width, config.train.seed, config.data.root) == (64, 1, "bccd")
    assert config.model.anchors.sizes == (8, 16, 32, 64, 128)
    assert (config.output, config.name) == (str(tmp_path), "small_s1")
    assert config.model.head_width == BASE.model.head_width == 128


def test_a_run_that_was_stopped_goes_on(tmp_path):
    write_run(tmp_path / "base_s0", 0.5, complete=False)
    command = ablation.command(plan(tmp_path)["base_s0"])
    assert command == ["train.py", "--resume", str(tmp_path / "base_s0")]


def test_what_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "base_s0").mkdir()
    ablation.begin(plan(tmp_path)["base_s0"])
    (tmp_path / "small_s0").mkdir()
    (tmp_path / "small_s0" / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"small_s0: expected a run, found no config\.json"):
        ablation.begin(plan(tmp_path)["small_s0"])
    assert (tmp_path / "small_s0" / "thesis.txt").is_file()


def test_detection_evaluates_the_weights_of_the_same_seed(tmp_path):
    soft = plan(tmp_path, seeds=2)["soft_s1"]
    ablation.begin(soft)
    assert ablation.command(soft) == [
        "evaluate.py", str(tmp_path / "base_s1"),
        "--out", str(tmp_path / "soft_s1" / "evaluation"),
        "--set", "model.detect.score_threshold=0.1",
    ]  # fmt: skip
    assert configs.load(tmp_path / "soft_s1" / "config.json") == soft.config


@pytest.mark.parametrize("name", ["small_s0", "soft_s0"])
def test_a_run_of_other_settings_is_not_gone_on_with(tmp_path, name):
    write_run(tmp_path / name, 0.5, changes={"train.epochs": 13})
    message = rf"{name}: expected train\.epochs = 12, found 13"
    with pytest.raises(ConfigError, match=message):
        ablation.main(["--gather", "--runs", str(tmp_path)])


def test_a_run_from_before_a_setting_came_counts(tmp_path, capsys):
    write_run(tmp_path / "base_s0", 0.5)
    file = tmp_path / "base_s0" / "config.json"
    saved = json.loads(file.read_text())
    del saved["matcher"]["low_quality"]
    file.write_text(json.dumps(saved))
    assert gathered(capsys, tmp_path)["base"]["mAP"] == "0.5000"


@pytest.mark.parametrize("jobs", [1, 3])
def test_what_is_not_complete_is_run(tmp_path, monkeypatch, capsys, jobs):
    """Detection last, because it needs the base; a run that fails stops no other."""
    write_run(tmp_path / "some_s0", 0.5)
    order = []

    def call(run, cores):
        order.append(run.folder.name)
        if run.row == "small":
            return 1
        if run.group == ablation.DETECTION:
            assert (tmp_path / "base_s0" / "config.json").is_file()
        write_run(run.folder, 0.75)
        return 0

    monkeypatch.setattr(ablation, "call", call)
    with pytest.raises(SystemExit, match="error: failed: small_s0"):
        ablation.main(["--runs", str(tmp_path), "--seeds", "1", "--jobs", str(jobs)])
    assert sorted(order) == ["base_s0", "noaug_s0", "small_s0", "soft_s0"]
    assert order[-1] == "soft_s0"
    assert "| base | base | 1 | 0.7500 |" in capsys.readouterr().out
    order.clear()
    with pytest.raises(SystemExit):
        ablation.main(["--runs", str(tmp_path), "--seeds", "1"])
    assert order == ["small_s0"]


def test_a_run_is_a_process_on_its_share_of_the_cores(tmp_path, monkeypatch, capsys):
    """What it says last is told: of what it printed, or of why it died."""
    cores = sorted(os.sched_getaffinity(0))[:1]
    script = "import os; print('first'); print(os.sched_getaffinity(0), os.environ['{}'])"
    script = script.format("TF_NUM_INTRAOP_THREADS")
    monkeypatch.setattr(ablation, "command", lambda run: ["-c", script])
    run = plan(tmp_path)["base_s0"]
    assert ablation.call(run, cores) == 0
    assert capsys.readouterr().err == f"base_s0: {set(cores)} 1\n"
    monkeypatch.setattr(ablation, "command", lambda run: ["-c", "import sys; sys.exit('bad data')"])
    assert ablation.call(run, cores) == 1
    assert capsys.readouterr().err == "base_s0: bad data\n"


# ------------------------------------------------------------------------------------------------
# The table
# ------------------------------------------------------------------------------------------------


def test_the_table(tmp_path, capsys):
    """By hand: mean .80 and spread .02 of the base; small is .04 and .06 below, noaug .09 below and
    .03 above, some .05 above noaug."""
    for name, values, seconds in (
        ("base", (0.79, 0.81, 0.80), 0.1),
        ("small", (0.75, 0.75), 0.05),
        ("noaug", (0.70, 0.84), 0.1),
        ("some", (0.75,), 0.12),
    ):
        for seed, value in enumerate(values):
            write_run(tmp_path / f"{name}_s{seed}", value, seconds)
    write_run(tmp_path / "soft_s0", 0.81)
    (tmp_path / "soft_s0" / "metrics.csv").unlink()
    write_run(tmp_path / "some_s1", 0.0, complete=False)
    rows = gathered(capsys, tmp_path)
    assert list(rows) == ["base", "small", "noaug", "some", "soft"]
    assert rows["base"] == {
        "group": "base", "row": "base", "seeds": "3", "mAP": "0.8000", "spread": "0.0200",
        "against": "", "difference": "", "cell": "0.925", "time": "1.00",
    }  # fmt: skip
    columns = ("seeds", "mAP", "spread", "against", "difference", "time")
    found = {name: tuple(row[key] for key in columns) for name, row in rows.items()}
    assert found["small"] == ("2", "0.7500", "0.0000", "base", "-0.0500 *", "0.50")
    assert found["noaug"] == ("2", "0.7700", "0.1400", "base", "-0.0300", "1.00")
    assert found["some"] == ("1", "0.7500", "", "noaug", "+0.0500", "1.20")
    assert found["soft"] == ("1", "0.8100", "", "base", "+0.0200", "")


def test_single_seeds_have_no_spread_to_exceed(tmp_path, capsys):
    write_run(tmp_path / "base_s0", 0.5)
    write_run(tmp_path / "small_s0", 0.9)
    assert gathered(capsys, tmp_path)["small"]["difference"] == "+0.4000"


def test_rows_without_the_base_are_compared_with_nothing(tmp_path, capsys):
    write_run(tmp_path / "small_s0", 0.9)
    small = gathered(capsys, tmp_path)["small"]
    assert (small["mAP"], small["difference"], small["time"]) == ("0.9000", "", "")


def test_only_the_rows_and_seeds_asked_for_are_gathered(tmp_path, capsys):
    for name in ("base_s0", "base_s1", "small_s0", "noaug_s0"):
        write_run(tmp_path / name, 0.5)
    rows = gathered(capsys, tmp_path, "--rows", "sizes", "--seeds", "1")
    assert {name: row["seeds"] for name, row in rows.items()} == {"base": "1", "small": "1"}


def test_what_differs_is_compared_by_seed(tmp_path, capsys):
    for name in ("base_s0", "base_s2", "small_s1"):
        write_run(tmp_path / name, 0.5)
    assert gathered(capsys, tmp_path)["small"]["difference"] == ""


@pytest.mark.parametrize("option", ["--jobs", "--seeds"])
def test_something_has_to_run(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        ablation.main(["--runs", str(tmp_path), option, "0"])
    assert "expected a seed and a job at least" in capsys.readouterr().err


def test_no_run_at_all(tmp_path):
    with pytest.raises(ValueError, match="no complete run of base, small, noaug, some, soft"):
        ablation.main(["--gather", "--runs", str(tmp_path)])
