"""The server that the tests of whole processes share."""

import functools
import subprocess

import pytest

from tests import processes

pytestmark = pytest.mark.quick


def test_a_server_that_died_is_one_clear_error(monkeypatch):
    dead = subprocess.Popen(["false"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    dead.wait()
    monkeypatch.setattr(processes, "_server", functools.cache(lambda: dead))
    message = "false: expected it to run a script, found it ended with status 1"
    with pytest.raises(RuntimeError, match=message):
        processes.run_script("", [], {})
