"""Mutated config.json files of runs: a Config, or one line, in little time and memory.

100 mutations; `make fuzz` says another number by FUZZ_EXAMPLES, make slow runs 500.
"""

import contextlib
import copy
import json
import os
import resource
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs import PRESETS, Config, ConfigError, load, load_saved, preset, to_dict
from core.build import build_anchors, require_size

pytestmark = pytest.mark.quick
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
DEEP = "a place that is nested too deep for json.dumps"

VALUES = st.one_of(
    st.sampled_from(
        [None, True, "", "x", "auto", "callable:a.b", "a\nb", "\ud800", [], {}, [{}], DEEP,
         {"kind": "atss"}, {"kind": "none"}, {"kind": []}, [1.0] * 10**5, ["x" * 10**5]]
    ),
    st.sampled_from([0, -1, 1, 10**9, 10**400, 0.5, 1e300, -1e300, float("nan"), float("inf")]),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(-2, 1000) | st.text(max_size=3) | st.floats(0, 2), max_size=8),
)  # fmt: skip


def places(value):
    """(container, key) of everything in nested dicts and lists."""
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


def mutate(data, config):
    """The bytes of a config.json in which up to three things are not as they were."""
    saved = copy.deepcopy(to_dict(config))
    for _ in range(data.draw(st.integers(0, 3))):
        found = list(places(saved)) or [(saved, "new")]
        container, key = found[data.draw(st.integers(0, len(found) - 1))]
        match data.draw(st.sampled_from(["replace", "replace", "delete", "rename"])):
            case "replace":
                container[key] = copy.deepcopy(data.draw(VALUES))  # it may be mutated itself
            case "delete":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[data.draw(st.text(max_size=8))] = container.pop(key)
    text = json.dumps(saved).replace(json.dumps(DEEP), "[" * 10**4 + "]" * 10**4)
    found = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.sampled_from([0, 0, 0, 1, 5]))):
        if found:
            found[data.draw(st.integers(0, len(found) - 1))] = data.draw(st.integers(0, 255))
    return bytes(found)


def peak():
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check_one(data, path):
    path.write_bytes(mutate(data, preset(data.draw(st.sampled_from(PRESETS)))))
    before, start = peak(), time.process_time()
    for read in (load, load_saved):
        try:
            config = read(path)
        except ConfigError as error:
            message = str(error)
            assert message.startswith(str(path))
            assert message.isprintable()
            assert len(message) < 2000
            continue
        if isinstance(config, Config):
            assert load_saved(path) == to_dict(config)
            build_anchors(config.model)
            with contextlib.suppress(ConfigError):
                require_size(config.model, max(1, len(config.data.classes)))
    assert time.process_time() - start < 5
    assert peak() - before < 2**30


ALLOWED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=ALLOWED, derandomize=True)
@given(data=st.data())
def test_a_mutated_config_is_a_config_or_one_line(data, tmp_path):
    check_one(data, tmp_path / "config.json")


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=ALLOWED)
@given(data=st.data())
def test_many_mutated_configs_are_configs_or_one_line(data, tmp_path):
    check_one(data, tmp_path / "config.json")
