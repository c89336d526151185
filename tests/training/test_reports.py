"""What the diary says before the first step."""

import pytest

from core.build import build_criterion, build_model
from tests.tiny import ONE_STEP, write_config
from training.phases import phases_to_do
from training.plan import make_plan
from training.reports import describe

pytestmark = pytest.mark.full


def said(folder, shapes, messages, changes):
    """What is said of a run until its first phase is there."""
    plan, progress = make_plan(str(write_config(folder, shapes, changes)), [], None)
    describe(plan, "CPU")
    model = build_model(plan.config.model, len(plan.train_set.classes))
    next(phases_to_do(plan, progress, model, build_criterion(plan.config)))
    return "".join(messages)


def test_a_split_is_counted(tmp_path, shapes, messages):
    """As the annotations have it."""
    text = said(tmp_path, shapes, messages, {})
    for split, num_images in (("train", 12), ("val", 4)):
        files = [path.read_text() for path in (shapes / "Annotations").glob(f"{split}_*.xml")]
        counts = {
            name: sum(file.count(f"<name>{name}</name>") for file in files)
            for name in ("circle", "cross", "square", "star", "triangle")
        }
        empty = sum("<object>" not in file for file in files)
        difficult = sum(file.count("<difficult>1</difficult>") for file in files)
        objects = ", ".join(f"{name} {count}" for name, count in counts.items())
        assert (
            f"tiny/{split}: {num_images} images ({empty} without objects), {sum(counts.values())} "
            f"objects ({difficult} difficult), 0 regions to ignore: {objects}\n"
        ) in text


def test_a_shortened_warm_up_is_said(tmp_path, shapes, messages):
    text = said(tmp_path, shapes, messages, ONE_STEP | {"train.warmup_steps": 9})
    assert "train.warmup_steps: 9 are more than half of the 1 updates of 1 epochs; 0 are" in text
    assert "batch norms" not in text, "which see four images a step"


def test_few_images_for_batch_norms_are_said(tmp_path, shapes, messages):
    text = said(tmp_path, shapes, messages, ONE_STEP | {"train.batch_size": 1, "data.limit": 1})
    assert "train.batch_size: the batch norms of backbone see 1 image a step" in text
