"""Files of detectors that were edited or damaged: each loads or is refused in one line, at once."""

import copy
import json
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import configs
from configs import ConfigError
from core.build import build_model
from core.weights.npz_files import Weights
from core.weights.torch_and_keras_files import WeightsError
from detector import Detector
from tests.test_detector import SMALL
from utils.checkpoints import CheckpointError

pytestmark = pytest.mark.full
SECONDS, BYTES = 5, 1e9  # the most of the processor's time, and of memory beyond what was in use
CLASSES = ("circle", "square", "star")


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """(state, arrays by their keys) of a tiny detector's file."""
    path = tmp_path_factory.mktemp("whole") / "best.npz"
    config = configs.preset("shapes", SMALL).model
    keras.utils.set_random_seed(0)
    Detector(build_model(config, len(CLASSES)), CLASSES, config).save(path)
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(bytes(arrays.pop("state"))), arrays


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "best.npz"


def write(file, state, arrays):
    text = state if isinstance(state, bytes) else json.dumps(state).encode()
    np.savez(file, **{"state": np.frombuffer(text, np.uint8), **arrays})


def peak():
    """The most memory this process ever had, in bytes, since `forget_peak`."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) * 1024


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")


def outcome(load, file):
    """What loading raised, None if nothing; its message, time and memory are looked at."""
    forget_peak()
    before, start = peak(), time.process_time()
    error = None
    try:
        load(file)
    except (CheckpointError, ConfigError, WeightsError) as refusal:
        error = refusal
    assert time.process_time() - start < SECONDS
    assert peak() - before < BYTES
    if error is not None:
        assert str(error).startswith(f"{file}: ")
        assert len(str(error).splitlines()) == 1
        assert len(str(error)) < 2000
    keras.utils.clear_session(free_memory=False)
    return error


# ------------------------------------------------------------------------------------------------
# One by one
# ------------------------------------------------------------------------------------------------


def edited(contents, place, value):
    state = json.loads(json.dumps(contents[0]))
    *groups, last = place.split(".")
    inner = state
    for name in groups:
        inner = inner[name]
    inner[last] = value
    return state


CONTRADICTIONS = [
    ("model.neck_width", 10**9, ""),
    ("model.neck_width", 16, "expected neck/p7/kernel of 16 to 16 channels"),
    ("model.head_width", 2048, "expected class_head/conv0/kernel of 8 to 2048 channels"),
    ("model.head_depth", 3000, ""),
    ("model.head_depth", 50, "expected class_head/conv49/kernel of 8 to 8 channels"),
    ("model.backbone", "resnet152", "expected backbone/layer3_35/conv2/kernel of 256 to 256"),
    ("model.anchors.ratios", [1.0] * 4, "expected class_head/output/kernel of 8 to 36 channels"),
    ("model.resize.height", 10**9, ""),
    ("model.detect.max_detections", 10**9, ""),
    ("model.detect.scales", [1.0] * 10**5, ""),
    ("model.coder", [1], ""),
    ("model.backbone", "callable:mine.Backbone", "an object of your own"),
    ("model.neck", "callable:mine.Neck", "neck_width: expected the default, 256, unless neck is"),
    ("model", [1, 2], "expected an object of settings, found [1, 2]"),
    ("model", None, "expected an object of settings, found None"),
    ("classes", 5, "expected a list of classes, found 5"),
    ("classes", None, "expected a list of classes, found None"),
    ("classes", "abc", "expected a list of classes, found 'abc'"),
    ("classes", [], "expected a list of classes, found []"),
    ("classes", ["a", 5, "b"], "expected names of classes, found 5"),
    ("classes", ["a", "b\nc"], r"of one line without control characters, found 'b\nc'"),
    ("classes", ["a", "\x1b[2J"], "without control characters, found"),
    ("classes", ["a"] * 10**6, "expected class_head/output/kernel of 8 to 9000000 channels"),
]


@pytest.mark.parametrize(
    ("place", "value", "told"), CONTRADICTIONS, ids=[str(c)[:50] for c in CONTRADICTIONS]
)
def test_conventions_that_the_arrays_contradict(place, value, told, contents, file):
    write(file, edited(contents, place, value), contents[1])
    assert told in str(outcome(Detector.load, file))
    if place.startswith("model."):  # weights to start from need not name their neck
        refused = outcome(Weights.load, file)
        assert "callable" in str(value) or told in str(refused)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (b"[]", "its state is no JSON object"),
        (b"[" * 10**5, "no whole checkpoint"),
        (b'{"model": ' * 900 + b"1" + b"}" * 900, "is no setting"),
        (b"{}", "no conventions of a detector"),
        (b"\xff", "no whole checkpoint"),
    ],
    ids=["list", "deep", "nested", "empty", "no text"],
)
def test_a_state_that_is_none(state, told, contents, file):
    write(file, state, contents[1])
    assert told in str(outcome(Detector.load, file))


@pytest.mark.parametrize("dtype", [complex, "U3", object])
def test_arrays_without_numbers(dtype, contents, file):
    state, arrays = contents
    key = next(key for key in arrays if key.endswith("box_head/output/bias"))
    write(file, state, arrays | {key: np.zeros(arrays[key].shape, dtype)})
    told = "no whole" if dtype is object else "expected retinanet/box_head/output/bias of shape"
    assert told in str(outcome(Detector.load, file))


def test_the_file_as_it_was_loads(contents, file):
    write(file, *contents)
    assert outcome(Detector.load, file) is None
    assert outcome(Weights.load, file) is None


# ------------------------------------------------------------------------------------------------
# By chance
# ------------------------------------------------------------------------------------------------

NOTHING = object()  # stands for a value that is taken away
deep = [1]
for _ in range(80):
    deep = [deep]
VALUES = st.sampled_from(
    [NOTHING, None, True, -1, 0, 1, 7, 10**9, -(10**9), 10**400, 0.5, 1e308, -1e-300, float("nan"),
     float("inf"), "", "x", "none", "a\nb", "x" * 10**5, "callable:os.system", [], [None], [[]],
     [1.0] * 10**5, [0.5, "x"], {}, {"kind": "canvas"}, {"x": {"y": [1]}}, deep]
) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
)  # fmt: skip


def places(value, path=()):
    """The path of everything inside a state."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items if isinstance(value, (dict, list)) else ():
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


@st.composite
def state_edits(draw, state):
    state = json.loads(json.dumps(state))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(sorted(places(state), key=str) or [()]))
        inner, value = state, draw(VALUES)
        if value is not NOTHING:
            value = copy.deepcopy(value)  # else a second edit would change the first, or VALUES
        for key in path[:-1]:
            inner = inner[key]
        if path and value is NOTHING:
            del inner[path[-1]]
        elif path:
            inner[path[-1]] = value
    return state


@st.composite
def array_edits(draw, arrays):
    arrays = dict(arrays)
    key = draw(st.sampled_from(sorted(arrays)))
    array = arrays.pop(key)
    kind = draw(st.sampled_from(("remove", "rename", "reshape", "retype", "fill")))
    if kind == "rename":
        names = ("x", "model", "model|x", "model|0|a|b", key.lower() + "_1", "|", "backbone|0|x")
        arrays[draw(st.sampled_from(names))] = array
    elif kind == "reshape":
        shapes = ((-1,), (1, -1), (*array.shape, 1), array.shape[::-1])
        reshaped = [array.reshape(shape) for shape in shapes]
        arrays[key] = draw(st.sampled_from([*reshaped, array[:0], array[..., :1]]))
    elif kind == "retype":
        dtypes = (object, complex, "U2", "S1", np.float16, np.int64, bool, "V4", ">f4")
        arrays[key] = np.zeros(array.shape, draw(st.sampled_from(dtypes)))
    elif kind == "fill":
        arrays[key] = np.full_like(array, draw(st.sampled_from((np.nan, np.inf, 3e38))))
    return arrays


@st.composite
def byte_edits(draw, data):
    size = len(data)
    if draw(st.booleans()):
        return data[: draw(st.integers(0, size))]
    data = bytearray(data)
    # Anywhere, or where the state or the archive's directory lies.
    spots = st.integers(0, size - 1) | st.integers(0, 4000) | st.integers(size - 12000, size - 1)
    for spot in draw(st.lists(spots, min_size=1, max_size=20)):
        data[spot] = draw(st.integers(0, 255))
    return bytes(data)


def damage(contents, file, data):
    kind = data.draw(st.sampled_from(("state", "state", "arrays", "bytes")))
    state, arrays = contents
    if kind == "state":
        state = data.draw(state_edits(state))
    elif kind == "arrays":
        arrays = data.draw(array_edits(arrays))
    write(file, state, arrays)
    if kind == "bytes":
        file.write_bytes(data.draw(byte_edits(file.read_bytes())))


OPTIONS = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=30, derandomize=True, **OPTIONS)
@given(data=st.data())
def test_damaged_files_load_or_are_refused_in_one_line(contents, file, data):
    damage(contents, file, data)
    outcome(Detector.load, file)


@pytest.mark.slow
@settings(max_examples=200, **OPTIONS)
@given(data=st.data())
def test_many_damaged_files_to_detect_with_and_to_start_from(contents, file, data):
    damage(contents, file, data)
    outcome(Detector.load, file)
    outcome(Weights.load, file)
