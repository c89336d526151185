"""Config -> parts: what is refused before anything is built."""

import time
from types import SimpleNamespace

import keras
import pytest

from configs import ConfigError, preset
from core.build import (
    FEWEST_IMAGES,
    MOST_WEIGHTS,
    build_model,
    freeze,
    require_size,
    small_batch_warning,
)
from core.layers import BatchNorm

pytestmark = pytest.mark.full

TOO_LARGE = [
    ({"model.head_width": 4096, "model.head_depth": 8}, 5),
    ({"model.head_width": 2048, "model.head_depth": 64}, 5),
    ({"model.neck": "panet", "model.neck_width": 4096}, 5),
    ({"model.neck": "bifpn", "model.bifpn.repeats": 16, "model.neck_width": 4096}, 5),
    ({}, 100_000),
]


@pytest.mark.parametrize(("changes", "num_classes"), TOO_LARGE)
def test_a_model_larger_than_any_is_refused_before_it_is_built(changes, num_classes):
    config = preset("coco", changes).model
    start = time.process_time()
    with pytest.raises(ConfigError, match=r"^model: expected at most 1,000,000,000 weights in ne"):
        build_model(config, num_classes)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("changes", "num_classes"),
    [({}, 1203), ({}, 20_000), ({"model.neck": "bifpn", "model.bifpn.repeats": 8}, 80)],
)
def test_the_largest_that_people_train_are_taken(changes, num_classes):
    require_size(preset("coco", changes).model, num_classes)


@pytest.mark.parametrize("neck", ["fpn", "panet", "bifpn"])
def test_the_count_is_a_lower_bound_of_the_model_s(neck, monkeypatch):
    """Never more than the weights outside of the backbone, and more than a fifth of them."""
    changes = {"model.neck": neck, "model.backbone": "resnet18", "model.head_depth": 1}
    config = preset("coco", changes | {"model.neck_width": 32, "model.head_width": 32}).model
    model = build_model(config, 4)
    built = model.count_params() - model.backbone.count_params()
    monkeypatch.setattr("core.build.MOST_WEIGHTS", 0)
    with pytest.raises(ConfigError, match="weights in neck and heads, found ") as caught:
        require_size(config, 4)
    counted = int(str(caught.value).split("found ")[1].split(";")[0].replace(",", ""))
    assert 0.2 * built < counted <= built < MOST_WEIGHTS


# ------------------------------------------------------------------------------------------------
# Batch norms that see few images
# ------------------------------------------------------------------------------------------------


def model_of(**norms):
    """Stands for a model, each of whose parts is one layer, by default a convolution."""
    parts = dict.fromkeys(("backbone", "neck", "class_head", "box_head"))
    layers = {name: norms.get(name) or keras.layers.Conv2D(1, 1) for name in parts}
    return SimpleNamespace(**layers)


@pytest.mark.parametrize(
    ("norms", "named"),
    [
        ({}, None),
        ({"backbone": BatchNorm("live")}, "backbone"),
        ({"backbone": BatchNorm("frozen_stats")}, None),
        ({"backbone": BatchNorm("frozen")}, None),
        ({"backbone": BatchNorm("live", trainable=False)}, None),
        ({"neck": keras.layers.GroupNormalization(1)}, None),
        ({"neck": keras.layers.BatchNormalization()}, "neck"),
        ({"backbone": keras.layers.BatchNormalization(), "neck": BatchNorm()}, "backbone and neck"),
        ({"box_head": BatchNorm()}, "box_head"),
    ],
)
def test_batch_norms_that_see_few_images_are_named_with_what_to_set(norms, named):
    config = preset("shapes", {"model.neck": "bifpn"}).model
    model = model_of(**norms)
    assert small_batch_warning(config, model, FEWEST_IMAGES) is None
    for size in range(1, FEWEST_IMAGES):
        found = small_batch_warning(config, model, size)
        if named is None:
            assert found is None
            continue
        assert f"the batch norms of {named} see {size} image" in found
        assert f"train.batch_size = {FEWEST_IMAGES} or more (train.accumulate does not" in found
        assert ("model.bn_mode = frozen_stats" in found) == ("backbone" in named)
        assert ("model.bifpn.norm = group" in found) == ("neck" in named)


NARROW = {"model.neck_width": 32, "model.head_width": 32, "model.head_depth": 0}


def test_parts_of_ones_own_are_not_told_to_set_what_does_not_reach_them():
    config = preset("shapes", {"model.backbone": BatchNorm, "model.neck": BatchNorm}).model
    model = model_of(backbone=BatchNorm(), neck=BatchNorm())
    found = small_batch_warning(config, model, 1)
    assert "the batch norms of backbone and neck see 1 image a step" in found
    assert "model." not in found


def test_a_resnet_s_batch_norms_are_live_until_all_of_it_is_frozen():
    config = preset("shapes", NARROW).model
    model = build_model(config, 2)
    for parts in ((), ("backbone.stem", "backbone.stage1")):
        freeze(model, parts)
        assert "the batch norms of backbone see 1 image a" in small_batch_warning(config, model, 1)
    freeze(model, ("backbone",))
    assert small_batch_warning(config, model, 1) is None


def test_a_bifpn_s_batch_norms_are_live_whatever_those_of_the_backbone_are():
    changes = {"model.neck": "bifpn", "model.bifpn.repeats": 1, "model.bn_mode": "frozen_stats"}
    config = preset("shapes", NARROW | changes).model
    model = build_model(config, 2)
    assert "the batch norms of neck see 1 image a step" in small_batch_warning(config, model, 1)
    freeze(model, ("neck",))
    assert small_batch_warning(config, model, 1) is None
