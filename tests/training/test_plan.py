"""What a run is about: its phases, when it is finished, and what is refused before it begins."""

import dataclasses
import shutil

import pytest

import configs
from data.formats.shapes import CLASSES
from data.records import DatasetError
from tests.tiny import STEPS, write_config
from training.plan import PlannedPhase, make_plan, require_resumable
from training.resuming import Progress, fingerprint
from utils.checkpoints import Checkpoint, CheckpointError, save_checkpoint

pytestmark = pytest.mark.full


def plan(folder, shapes, changes=None):
    return make_plan(str(write_config(folder, shapes, changes)), [], None)


def test_phases_follow_one_another(tmp_path, shapes):
    found, progress = plan(tmp_path, shapes)
    phases = [(phase.first, phase.end, phase.steps, phase.num_steps) for phase in found.phases]
    assert phases == [(0, 1, STEPS, STEPS), (1, 3, STEPS, 2 * STEPS)]
    assert found.num_epochs == 3
    prints = fingerprint(found.train_set), fingerprint(found.val_set)
    assert progress == Progress(prints)
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("epoch", "stale", "expected"), [(0, 0, 0), (2, 1, 0), (2, 2, 1), (3, 0, 1)]
)
def test_a_run_is_finished_after_its_epochs_or_by_early_stopping(
    tmp_path, shapes, epoch, stale, expected
):
    found, progress = plan(tmp_path, shapes, {"train.early_stopping": 2})
    progress.epoch, progress.stale = epoch, stale
    assert found.is_finished(progress) == bool(expected)


@pytest.mark.parametrize(("every", "epochs"), [(0, [5]), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5])])
def test_the_last_epoch_is_always_validated(tmp_path, shapes, every, epochs):
    changes = {"train.phases": (), "train.epochs": 5, "train.validate_every": every}
    found, _ = plan(tmp_path, shapes, changes)
    assert [epoch for epoch in range(1, 6) if found.is_validation_due(epoch)] == epochs


def test_a_schedule_of_the_user_s_own(tmp_path, shapes):
    path = write_config(tmp_path, shapes)
    path.write_text(
        path.read_text()
        + "from configs import override\n"
        + "from core.schedules import ConstantRate\n"
        + "changes = {'train.schedule': lambda rate, steps: ConstantRate(rate / steps),\n"
        + "           'train.warmup_steps': 0, 'train.learning_rate': 6e-3}\n"
        + "config = override(config, changes)\n"
    )
    found, _ = make_plan(str(path), [], None)
    rates = [float(phase.schedule(0)) for phase in found.phases]
    assert rates == pytest.approx([6e-3 / STEPS, 3e-3 / STEPS])


def test_more_batches_an_update_than_there_are_in_a_phase_are_refused(tmp_path, shapes):
    message = r"train\.accumulate: expected at most the 3 batches of a phase of 1 epochs, found 4"
    with pytest.raises(configs.ConfigError, match=message):
        plan(tmp_path, shapes, {"train.accumulate": 4})


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "copy/train: expected objects to learn, found none"),
        ("val", "objects that are neither difficult nor"),
    ],
)
def test_a_split_without_objects_is_refused(tmp_path, shapes, split, message):
    root = shutil.copytree(shapes, tmp_path / "copy")
    empty = root / "Annotations" / f"{split}_00000.xml"
    before, found, rest = empty.read_text().partition("<object>")
    assert found
    empty.write_text(before + rest.rpartition("</object>")[2])
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{split}_00000\n")
    with pytest.raises(DatasetError, match=message):
        plan(tmp_path, root, {"data.classes": CLASSES, "train.batch_size": 1})


@pytest.mark.parametrize(
    ("epoch", "step", "most"),
    [
        (0, 0, None), (0, 4, None), (1, 4, None), (2, 0, None), (2, 10, None), (3, 0, None),
        (0, 5, 4), (1, 5, 4), (2, 11, 10), (3, 1, 0),
    ],
)  # fmt: skip
def test_the_epoch_has_the_step(tmp_path, shapes, epoch, step, most):
    """Two epochs of 4 steps, then one of 10; after all steps a validation may be due."""
    found, progress = plan(tmp_path, shapes)
    phases = [PlannedPhase(None, 0, 2, 4, None), PlannedPhase(None, 2, 3, 10, None)]
    found = dataclasses.replace(found, phases=phases)
    progress.epoch, progress.step = epoch, step
    model = configs.to_dict(found.config.model)
    save_checkpoint(tmp_path / "a.npz", {}, {"classes": found.train_set.classes, "model": model})
    if most is None:
        require_resumable(found, Checkpoint(tmp_path / "a.npz"), progress)
        return
    message = rf"a\.npz: progress: expected step to be at most {most}, found {step}"
    with pytest.raises(CheckpointError, match=message):
        require_resumable(found, Checkpoint(tmp_path / "a.npz"), progress)


def test_anchors_that_match_nothing_are_an_error_before_the_first_step(tmp_path, shapes):
    """Of 1e-3 px no anchor has an IoU of .5 with an object; `low_quality` takes the best."""
    small = {"model.anchors.sizes": (0.001, 0.002, 0.004, 0.008, 0.016)}
    message = (
        r"expected anchors that match some objects, found none: .* 0\.0% .*data\.check --anchors"
    )
    with pytest.raises(DatasetError, match=message):
        plan(tmp_path, shapes, small)
    found, _ = plan(tmp_path, shapes, small | {"matcher.low_quality": True})
    assert found.coverage.share == 0
    found, _ = plan(tmp_path, shapes)
    assert found.coverage.share > 0.5
