"""A run killed 25 times at random moments, resumed each time, equals one that was not.

Five runs, each killed five times: twice before or about its first checkpoint, once inside a
checkpoint's write, twice after a step, or in what follows it, drawn from all that come later.
"""

import random

import pytest

from data.formats.shapes import make_shapes
from tests.processes import run_script
from tests.test_train import assert_same_run, call_train, write_config

pytestmark = pytest.mark.slow
KINDS = ("early", "early", "write", "late", "late")
# Lets a process end itself as `kill -9` does: "early", AFTER seconds from when training begins;
# "late", AFTER seconds from the STEPS-th step once last.npz is there; "write": inside a checkpoint.
KILLED = """
import os, signal, threading, time
import numpy as np
import train

kind, after, steps = os.environ["KIND"], float(os.environ["AFTER"]), int(os.environ["STEPS"])
begin, add, savez = train.train, train.LossWindow.add, np.savez

def arm():
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()

def train_and_die(lock, *args):
    global last
    last = lock.run / train.LAST
    if kind == "early":
        arm()
    return begin(lock, *args)

def add_and_die(self, *args):
    global steps
    add(self, *args)
    time.sleep(0.05)  # so that there are moments to choose from
    if kind == "late" and last.exists():
        steps -= 1
        if steps == 0:
            arm()

def half_savez(file, **arrays):
    if kind == "write" and last.exists():
        file.write(b"PK" + b"half a checkpoint" * 1000)
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    savez(file, **arrays)

train.train, train.LossWindow.add, np.savez = train_and_die, add_and_die, half_savez
train.main()
"""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("data") / "tiny", 12, 4, image_size=(64, 64))


LONG = {"train.phases": (), "train.epochs": 8}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, shapes):
    folder = tmp_path_factory.mktemp("undisturbed")
    call_train(["--config", write_config(folder, shapes, LONG)])
    return folder / "runs" / "tiny"


def kill(arguments, kind, rng):
    """Begins or resumes a run and lets it be killed."""
    after = rng.uniform(0, 5) if kind == "early" else rng.uniform(0, 0.2)
    moment = {"KIND": kind, "AFTER": str(after), "STEPS": str(rng.randint(1, 5))}
    result = run_script(KILLED, [str(argument) for argument in arguments], moment)
    assert result.returncode == -9, f"{moment}: {result.output}"


@pytest.mark.parametrize("seed", range(5))
def test_five_kills(seed, tmp_path, shapes, undisturbed):
    rng, arguments = random.Random(seed), ["--config", write_config(tmp_path, shapes, LONG)]
    folder = tmp_path / "runs" / "tiny"
    kill(arguments, KINDS[0], rng)
    arguments += ["--resume", folder]
    for kind in KINDS[1:]:
        kill(arguments, kind, rng)
    call_train(arguments)
    assert_same_run(folder, undisturbed)
