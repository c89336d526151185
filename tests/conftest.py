"""What all tests share."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data; a test that needs it is skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RETINANET_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder} (RETINANET_DATA names another folder)")
    return folder


TIERS = ("quick", "full", "slow")  # make quick, make test, make slow: see Makefile


def pytest_collection_modifyitems(items):
    """Each module says its tier; a single test may be slow beside it."""
    for module in {item.getparent(pytest.Module) for item in items}:
        tiers = [mark.name for mark in module.own_markers if mark.name in TIERS]
        if len(tiers) != 1:
            expected = f"pytestmark = pytest.mark.{' or '.join(TIERS)}"
            raise pytest.UsageError(f"{module.path}: expected one {expected}, found {tiers}")
