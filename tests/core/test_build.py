"""Config -> parts: what is refused before anything is built."""

import time

import pytest

from configs import ConfigError, preset
from core.build import MOST_WEIGHTS, build_model, require_size

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
