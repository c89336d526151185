"""Where a run goes on: two generations, none of them trusted before it is read."""

import dataclasses
import errno
import math
import os
import shutil

import numpy as np
import pytest

from data.records import Defects, assemble
from training.resuming import (
    BEST,
    LAST,
    PREVIOUS,
    SUMMED,
    Progress,
    find_best,
    fingerprint,
    has_epochs,
    newest_checkpoint,
    put_aside,
    require_same_data,
    save_best,
    save_progress,
)
from utils.checkpoints import Checkpoint, CheckpointError, save_checkpoint
from utils.runs import RunError

pytestmark = pytest.mark.quick
DATA = ("abc", "def")  # fingerprints
FIELDS = ("data", "epoch", "step", "sums", "best", "best_epoch", "stale")
WHOLE = {
    "data": DATA, "epoch": 3, "step": 2, "sums": [1.0] * len(SUMMED),
    "best": 0.5, "best_epoch": 2, "stale": 1,
}  # fmt: skip


class Variable:
    """As much of a Keras variable as a checkpoint takes."""

    path = "retinanet/kernel"

    def __init__(self, value):
        self.value = np.full(3, value, np.float32)

    def numpy(self):
        return self.value


def save(run, epoch):
    save_progress(run, {"model": [Variable(epoch)]}, {"classes": ["a"]}, Progress(DATA, epoch))


def epoch_of(checkpoint):
    """The epoch of a checkpoint, which its variable has, too."""
    progress = Progress.of(checkpoint, 9)
    (array,) = checkpoint.arrays("model").values()
    assert (array == progress.epoch).all()
    return progress.epoch


@pytest.fixture
def run(tmp_path):
    """A run that has saved twice: epochs 1 and 2."""
    for epoch in (1, 2):
        save(tmp_path, epoch)
    return tmp_path


# ------------------------------------------------------------------------------------------------
# Two generations
# ------------------------------------------------------------------------------------------------


def test_the_one_before_is_kept(tmp_path):
    for epoch in range(1, 5):
        save(tmp_path, epoch)
        generations = [path for path in (LAST, PREVIOUS) if (tmp_path / path).exists()]
        found = [epoch_of(Checkpoint(tmp_path / path)) for path in generations]
        assert found == [epoch, epoch - 1][: len(generations)]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["last.npz", "previous.npz"]


def test_the_one_before_is_kept_without_hard_links(run, monkeypatch):
    def no_links(*args):
        raise PermissionError

    monkeypatch.setattr(os, "link", no_links)
    save(run, 3)
    assert epoch_of(Checkpoint(run / LAST)) == 3
    assert epoch_of(Checkpoint(run / PREVIOUS)) == 2


def test_a_write_that_fails_leaves_both_generations(run, monkeypatch):
    def half(file, **arrays):
        file.write(b"PK half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(OSError, match="No space left"):
        save(run, 3)
    assert epoch_of(Checkpoint(run / LAST)) == 2
    assert epoch_of(Checkpoint(run / PREVIOUS)) == 1
    assert len(os.listdir(run / "checkpoints")) == 2


@pytest.mark.parametrize("damage", ["gone", "a folder", "half", "best.npz", "negative", "huge"])
def test_the_older_is_used_with_a_warning(run, damage):
    last = run / LAST
    if damage == "half":
        last.write_bytes(last.read_bytes()[:100])
    elif damage == "best.npz":  # weights and conventions, but no progress
        save_checkpoint(last, {"model": [Variable(1)]}, {"classes": ["a"]})
    elif damage in ("negative", "huge"):
        state = {"progress": WHOLE | {"epoch": -1 if damage == "negative" else 10**30}}
        save_checkpoint(last, {"model": [Variable(1)]}, state)
    else:
        last.unlink()
    if damage == "a folder":
        last.mkdir()
    checkpoint, progress, warning = newest_checkpoint(run, 9)
    assert epoch_of(checkpoint) == progress.epoch == 1
    assert warning.startswith(f"{last}: ")
    assert warning.endswith("goes on from checkpoints/previous.npz: epoch 1, step 0")
    put_aside(last)
    save(run, 2)
    assert epoch_of(Checkpoint(run / LAST)) == 2
    assert epoch_of(Checkpoint(run / PREVIOUS)) == 1, "what is damaged takes no whole one's place"


def test_the_newest_is_used_without_a_word(run):
    checkpoint, progress, warning = newest_checkpoint(run, 9)
    assert (epoch_of(checkpoint), progress.epoch, warning) == (2, 2, "")


@pytest.mark.parametrize("left", [BEST, "metrics.csv", "damaged"])
def test_where_a_run_has_progress_nothing_begins_anew(run, left):
    shutil.copy(run / LAST, run / BEST)
    (run / "metrics.csv").write_text("epoch,loss\n1,0.5\n")
    for name in {LAST, PREVIOUS, BEST, "metrics.csv"} - {left}:
        (run / name).unlink()
    if left == "damaged":
        (run / PREVIOUS).write_bytes(b"")
    message = r"expected a checkpoint to go on from, found none: .*last\.npz: no such checkpoint"
    with pytest.raises(RunError, match=message) as caught:
        newest_checkpoint(run, 9)
    assert (f"--set model.weights={run / BEST}" in str(caught.value)) == (left == BEST)
    assert "\n" not in str(caught.value)


def test_a_run_without_progress_begins_anew(tmp_path):
    assert newest_checkpoint(tmp_path, 9) == (None, None, "")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".part-1234-previous.npz").write_bytes(b"PK half")
    (tmp_path / "metrics.csv").write_text("epoch,loss\n")
    (tmp_path / "config.json").write_text("{}")
    assert not has_epochs(tmp_path)
    assert newest_checkpoint(tmp_path, 9) == (None, None, "")


def save_beginning(run):
    groups = {"model": [Variable(0)]}
    save_progress(run, groups, {"classes": ["a"]}, Progress(DATA), is_beginning=True)


def test_a_run_killed_in_its_first_epoch_has_lost_nothing(tmp_path):
    save_beginning(tmp_path)
    checkpoint, progress, warning = newest_checkpoint(tmp_path, 9)
    assert (epoch_of(checkpoint), progress.epoch, warning) == (0, 0, "")
    (tmp_path / "metrics.csv").write_text("epoch,loss\n1,0.5\n")
    assert "last.npz: no such checkpoint; goes on from" in newest_checkpoint(tmp_path, 9)[2]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_is_no_damage(run, number, monkeypatch):
    """Else a sound last.npz would be put aside."""

    def failing(*args, **more):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(np, "load", failing)
    with pytest.raises(OSError, match=r"last\.npz") as caught:
        newest_checkpoint(run, 9)
    assert caught.value.errno == number


# ------------------------------------------------------------------------------------------------
# The best weights
# ------------------------------------------------------------------------------------------------


def test_best_weights_say_their_epoch(run):
    progress = Progress(DATA, 3, best=0.5, best_epoch=3)
    save_best(run, {"model": [Variable(3)]}, {}, progress.epoch)
    progress.epoch = 5
    (array,) = find_best(run, progress).arrays("model").values()
    assert (array == 3).all()
    progress.best_epoch = 2
    with pytest.raises(CheckpointError, match=r"best\.npz: expected .* of epoch 2, found 3"):
        find_best(run, progress)
    save_checkpoint(run / BEST, {"model": [Variable(3)]}, {})
    with pytest.raises(CheckpointError, match=r"best\.npz: expected .* of epoch 2, found None"):
        find_best(run, progress)
    (run / BEST).unlink()
    with pytest.raises(CheckpointError, match=r"best\.npz: no such checkpoint"):
        find_best(run, progress)


# ------------------------------------------------------------------------------------------------
# The state is checked as the arrays are
# ------------------------------------------------------------------------------------------------


def read(tmp_path, progress):
    save_checkpoint(tmp_path / "a.npz", {}, {"progress": progress})
    return Progress.of(Checkpoint(tmp_path / "a.npz"), 9)


def test_a_whole_progress_is_read(tmp_path):
    assert read(tmp_path, WHOLE) == Progress(**WHOLE)
    fresh = Progress(DATA)
    assert read(tmp_path, vars(fresh)) == fresh


BROKEN = {
    "epoch": [-1, 10, 10**9, 10**30, 2.5, "3", True, None, [], math.nan],
    "step": [-1, "2", None, 1.5],
    "sums": [
        None,
        3,
        ["x"],
        [math.inf] * len(SUMMED),
        [math.nan] * len(SUMMED),
        [0.0] * (len(SUMMED) + 1),
        [0.0] * 2,
        {"loss": 1.0},
    ],
    "best": [None, "0.5", 1.5, -2, math.nan, math.inf, []],
    "best_epoch": [4, -1, "2", None],
    "stale": [4, -1, 0.5, {}],
    "data": [None, 3, "abc", ["abc"], ["abc", 3], ["abc", "def", "ghi"]],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BROKEN.items() for value in values]
)
def test_a_field_that_cannot_be_is_refused(tmp_path, name, value):
    with pytest.raises(CheckpointError, match=r"a\.npz: progress: ") as caught:
        read(tmp_path, WHOLE | {name: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_missing_is_refused(tmp_path, name):
    left = {key: value for key, value in WHOLE.items() if key != name}
    with pytest.raises(CheckpointError, match=rf"a\.npz: progress: expected .*{name}"):
        read(tmp_path, left)
    with pytest.raises(CheckpointError, match=r"a\.npz: progress: expected .*, found .*'more'"):
        read(tmp_path, WHOLE | {"more": 1})


@pytest.mark.parametrize("progress", [3, "text", [1, 2], True])
def test_a_progress_that_is_no_mapping_is_refused(tmp_path, progress):
    with pytest.raises(CheckpointError, match=r"a\.npz: progress: expected data, epoch"):
        read(tmp_path, progress)


@pytest.mark.parametrize("is_null", [True, False])
def test_weights_alone_are_no_progress(tmp_path, is_null):
    state = {"model": {}, "classes": ["a"]} | ({"progress": None} if is_null else {})
    save_checkpoint(tmp_path / "a.npz", {}, state)
    with pytest.raises(CheckpointError, match="expected the progress of a training, found weights"):
        Progress.of(Checkpoint(tmp_path / "a.npz"), 9)


@pytest.mark.parametrize("value", [0.5, 0.4, 0.6, None])
def test_an_epoch_is_finished_with_or_without_a_validation(value):
    progress = Progress(**WHOLE)
    assert progress.is_better(0.6)
    assert not progress.is_better(0.5), "as good is no better"
    progress.finish_epoch(value)
    best = (0.6, 4, 0) if value == 0.6 else (0.5, 2, 1 if value is None else 2)
    assert (progress.best, progress.best_epoch, progress.stale) == best
    assert (progress.epoch, progress.step, set(progress.sums)) == (4, 0, {0.0})


# ------------------------------------------------------------------------------------------------
# The data
# ------------------------------------------------------------------------------------------------


def dataset(split, change=""):
    """One image with one object, a property of which may be another."""
    return assemble(
        f"some/{split}", ("a", "b"), images=["a.jpg"],
        image_ids=["b" if change == "id" else "a"], sizes=[[9, 9]], image_index=[0],
        boxes=[[1.0, 2.0, 5.5 if change == "box" else 5.0, 6.0]], labels=[change != "label"],
        difficult=[change == "difficult"], ignore=[change == "ignore"], defects=Defects(),
    )  # fmt: skip


def saved(tmp_path, progress):
    state = {"classes": ["a", "b"], "progress": vars(progress)}
    save_checkpoint(tmp_path / "a.npz", {}, state)
    return Checkpoint(tmp_path / "a.npz")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("other", ["as it was", "box", "label", "difficult", "ignore", "id"])
def test_a_split_that_changed_is_refused(tmp_path, split, other):
    """A resumed run would learn, or be judged by, something else."""
    before = {name: dataset(name) for name in ("train", "val")}
    progress = Progress(tuple(map(fingerprint, before.values())))
    checkpoint = saved(tmp_path, progress)
    require_same_data(checkpoint, progress, *before.values())
    after = before | {split: dataset(split, other)}
    if other == "as it was":
        require_same_data(checkpoint, progress, *after.values())
        return
    message = rf"a\.npz: expected some/{split} as it was when .* other images, boxes or labels"
    with pytest.raises(CheckpointError, match=message) as caught:
        require_same_data(checkpoint, progress, *after.values())
    assert "\n" not in str(caught.value)


def test_other_classes_are_refused(tmp_path):
    datasets = dataset("train"), dataset("val")
    progress = Progress(tuple(map(fingerprint, datasets)))
    checkpoint = saved(tmp_path, progress)
    others = [dataclasses.replace(found, classes=("a", "c")) for found in datasets]
    message = r"on the classes \['a', 'b'\], some/train has \['a', 'c'\]"
    with pytest.raises(CheckpointError, match=message):
        require_same_data(checkpoint, progress, *others)
