"""What the comparisons with other libraries share: how a deviation is judged, told and required.

They need torch and torchvision, which nothing else here does; `make parity` runs them in an
environment of their own, with REQUIRE_PARITY=1, where a test that does not run is a failure.
"""

import os
import sys

import numpy as np
import pytest

REQUIRED = os.environ.get("REQUIRE_PARITY") == "1"
DEVIATION = "deviation: "  # begins the name of a recorded property, which survives pytest-xdist


def _obstacle() -> str | None:
    """Why no comparison can run here; None: torch and torchvision are imported."""
    # torchvision imports triton, which takes the process down if TensorFlow was there first.
    if "tensorflow" in sys.modules and "torchvision" not in sys.modules:
        return "torchvision has to be imported before TensorFlow, so run this alone: make parity"
    try:
        import torch
        import torchvision  # noqa: F401
    except ModuleNotFoundError as error:
        return f"{error}: make parity"
    torch.set_num_threads(1)  # there are two workers, and TensorFlow has threads, too
    return None


OBSTACLE = _obstacle()


class Skipped(pytest.Module):
    """A test module that is not even imported."""

    def collect(self):
        pytest.skip(OBSTACLE, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return Skipped.from_parent(parent, path=module_path) if OBSTACLE else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector):
    return _failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    return _failed_if_skipped((yield))


def _failed_if_skipped(report):
    if REQUIRED and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, although REQUIRE_PARITY=1: {report.longrepr}"
    return report


@pytest.fixture
def within(record_property):
    """within(limit, what, value): asserts it, and has the largest value of `what` reported.

    What stands in brackets at the end of `what` is for the message alone.
    """

    def check(limit, what, value):
        record_property(DEVIATION + what.split(" (")[0], float(value))
        assert value <= limit, f"{what}: expected at most {limit}, found {value}"

    return check


@pytest.fixture
def agree(within):
    """agree(limit, what, ours, theirs): the largest difference over their largest number."""

    def check(limit, what, ours, theirs):
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        assert ours.shape == theirs.shape, f"{what}: {ours.shape} against {theirs.shape}"
        assert np.isfinite(theirs).all(), f"{what}: nothing to compare with"
        difference = np.abs(ours - theirs).max()
        within(np.inf, f"{what}, absolute", difference)
        within(limit, f"{what}, relative", difference / np.abs(theirs).max())

    return check


def pytest_terminal_summary(terminalreporter):
    """The largest deviation of each kind, for the README."""
    largest = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in getattr(report, "user_properties", ()):
                if report.when == "call" and name.startswith(DEVIATION):
                    largest[name] = max(value, largest.get(name, 0.0))
    if largest:
        terminalreporter.section("largest deviations")
    for name, value in sorted(largest.items()):
        terminalreporter.write_line(f"{value:9.1e}  {name.removeprefix(DEVIATION)}")
