"""No setting takes what can only be a mistake, and messages stay short whatever is found."""

import pytest

from configs import Config, ConfigError, from_dict, override, preset, to_dict
from configs.checked import assignment, completed

pytestmark = pytest.mark.quick

SCALES = tuple(1 + i / 10 for i in range(32))
# The largest value of each setting that takes a number and is not a share; one more is refused.
LARGEST = {
    "data.limit": 10**9,
    "data.augment.zoom": (1.0, 100.0),
    "data.augment.canvas_scales": SCALES,
    "model.neck_width": 4096,
    "model.head_width": 4096,
    "model.head_depth": 64,
    "model.bn_epsilon": 1.0,
    "model.resize.height": 16384,
    "model.resize.width": 16384,
    "model.anchors.sizes": (163840.0,) * 5,
    "model.anchors.ratios": (1000.0,) * 32,
    "model.anchors.scales": (1000.0,) * 32,
    "model.coder.stds": (1000.0,) * 4,
    "model.coder.max_log_scale": 80.0,
    "model.detect.top_k": 10**6,
    "model.detect.max_detections": 10**5,
    "model.detect.scales": SCALES,
    "loss.gamma": 100.0,
    "loss.box_weight": 1e6,
    "train.epochs": 10**6,
    "train.batch_size": 65536,
    "train.learning_rate": 1000.0,
    "train.warmup_steps": 10**9,
    "train.accumulate": 10**6,
    "train.weight_decay": 1000.0,
    "train.clip_norm": 1e9,
    "train.validate_every": 10**6,
    "train.checkpoint_every": 10**6,
    "train.early_stopping": 10**6,
    "train.log_every": 10**6,
    "train.sample_pictures": 1000,
    "evaluate.iou_thresholds": tuple(i / 100 for i in range(1, 101)),
    "evaluate.batch_size": 65536,
    "name": "n" * 200,
}


def refused(changes, config=None):
    """The one line with which `changes` of the shapes preset are refused."""
    with pytest.raises(ConfigError) as caught:
        override(config or preset("shapes"), changes)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    return message


def beyond(value):
    """A value that is larger by one, or longer by one."""
    if isinstance(value, str):
        return value + "n"
    if isinstance(value, tuple):
        return (*value[:-1], value[-1] + 1) if len(value) in (2, 4, 5) else (*value, 0.995)
    return value + 1


@pytest.mark.parametrize("field", LARGEST)
def test_the_largest_value_is_taken_and_one_beyond_it_is_refused(field):
    found = preset("shapes", {field: LARGEST[field]})
    for part in field.split("."):
        found = getattr(found, part)
    assert found == LARGEST[field]
    assert refused({field: beyond(LARGEST[field])}).startswith(f"{field}: expected ")


def numbers(values, prefix=""):
    """(dotted name, length) of the numbers and lists of numbers in a nested dict."""
    for key, item in values.items():
        if isinstance(item, dict):
            yield from numbers(item, f"{prefix}{key}.")
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield prefix + key, 1
        elif isinstance(item, list) and item and isinstance(item[0], float):
            yield prefix + key, len(item)


KINDS = (
    {},
    {"model.resize": "short_long", "matcher": "atss", "model.neck": "bifpn"},
    {"train.schedule": "step", "loss.box": "smooth_l1", "model.detect.nms": "gaussian"},
    {"train.schedule": "polynomial", "data.mixing.mixup": 0.5, "data.mixing.cutmix": 0.5},
    {"train.schedule": "exponential", "train.optimizer": "sgd"},
)


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_no_number_is_without_a_bound(changes):
    """So that no setting that comes later takes what runs for hours or exhausts the memory."""
    config = preset("shapes", changes)
    for field, size in numbers(to_dict(config)):
        for huge in (10**300, 1e300):
            value = (huge,) * size if size > 1 else huge
            assert refused({field: value}, config).startswith(field)


@pytest.mark.parametrize("huge", [10**400, -(10**400)])
def test_a_whole_number_beyond_every_float_is_no_number(huge):
    message = refused({"train.learning_rate": huge})
    assert message.startswith("train.learning_rate: expected a number, found ")


@pytest.mark.parametrize(
    ("field", "value"), [("data.classes", ["a"] * 100_001), ("train.phases", [3] * 1001)]
)
def test_a_list_of_any_length_is_no_setting(field, value):
    assert f"{field}: expected at most {len(value) - 1} values, found" in refused({field: value})


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "a\0", "x" * 2**17])
@pytest.mark.parametrize("field", ["data.root", "data.classes", "output", "model.weights"])
def test_no_text_holds_what_no_name_or_path_does(field, text):
    assert refused({field: [text] if field == "data.classes" else text}).startswith(field)


@pytest.mark.parametrize("values", [None, [], "x", 3, [{}]])
@pytest.mark.parametrize("read", [from_dict, completed])
def test_settings_are_an_object(values, read):
    with pytest.raises(ConfigError, match=r"^Config: expected an object of settings, found "):
        read(Config, values)


@pytest.mark.parametrize("text", ["(" * 10**5, "[" * 10**4 + "]" * 10**4, "{[]: 1}", "1+" * 10**5])
def test_text_of_the_command_line_that_is_no_literal_is_text(text):
    message = refused({"train.epochs": assignment(f"train.epochs={text}")[1]})
    assert message.startswith("train.epochs: expected a whole number or None, found ")
