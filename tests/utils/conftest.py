"""What tests of writing share."""

import pytest
from loguru import logger


@pytest.fixture
def messages():
    """The lines of the log."""
    lines = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{message}")
    yield lines
    logger.remove(sink)
