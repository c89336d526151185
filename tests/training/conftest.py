"""What tests of training's parts share."""

import pytest

from data.formats.shapes import make_shapes
from tests.utils.conftest import messages  # noqa: F401  # a fixture: the lines of the log


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """12 training and 4 validation images of 64x64."""
    return make_shapes(tmp_path_factory.mktemp("data") / "tiny", 12, 4, image_size=(64, 64))
