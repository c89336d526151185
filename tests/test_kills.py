"""A run killed 25 times at random moments, resumed each time, equals one that was not.

Two runs, killed 13 and 12 times: twice before or about the first checkpoint, then in turn inside a
checkpoint's write and after a step, or in what follows it, drawn from all that come later.
"""

import itertools
import random

import pytest

from data.formats.shapes import make_shapes
from tests.tiny import assert_same_run, call_train, write_config

pytestmark = pytest.mark.slow
# Lets a process end itself as `kill -9` does: "early", AFTER seconds from when training begins;
# "late", AFTER seconds from the STEPS-th step once last.npz is there; "write": inside a checkpoint.
KILLED = """
import os, signal, threading, time
import numpy as np
import train
from tests.tiny import half_written

kind, after, steps = os.environ["KIND"], float(os.environ["AFTER"]), int(os.environ["STEPS"])
begin, add = train.train, train.EpochMeter.add

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

train.train, train.EpochMeter.add = train_and_die, add_and_die
np.savez = half_written(lambda: kind == "write" and last.exists())
"""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("data") / "tiny", 12, 4, image_size=(64, 64))


# Every other validation, which costs a process that is killed before it nothing.
LONG = {"train.phases": (), "train.epochs": 40, "train.validate_every": 2}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, shapes):
    folder = tmp_path_factory.mktemp("undisturbed")
    call_train(["--config", write_config(folder, shapes, LONG)])
    return folder / "runs" / "tiny"


def kill(arguments, kind, rng):
    """Begins or resumes a run and lets it be killed."""
    after = rng.uniform(0, 5) if kind == "early" else rng.uniform(0, 0.2)
    moment = {"KIND": kind, "AFTER": after, "STEPS": rng.randint(1, 5)}
    call_train(arguments, expected=-9, script=KILLED, **moment)


@pytest.mark.parametrize("num_kills", [13, 12])
def test_a_run_killed_again_and_again(num_kills, tmp_path, shapes, undisturbed):
    rng, arguments = random.Random(num_kills), ["--config", write_config(tmp_path, shapes, LONG)]
    folder = tmp_path / "runs" / "tiny"
    kill(arguments, "early", rng)
    arguments += ["--resume", folder]
    kinds = ["early", *itertools.islice(itertools.cycle(["write", "late"]), num_kills - 2)]
    for kind in kinds:
        kill(arguments, kind, rng)
    call_train(arguments)
    assert_same_run(folder, undisturbed)
