"""Checkpoints: every variable comes back, damage is noticed, a failed save harms nothing."""

import os
import pickle
import zipfile

import keras
import numpy as np
import pytest

from utils import __version__
from utils.checkpoints import Checkpoint, CheckpointError, save_checkpoint

pytestmark = pytest.mark.full

STATE = {"classes": ["cat", "hund å"], "progress": {"epoch": 3, "best": 0.25}, "none": None}


class Net(keras.Model):
    """Layers in a list, which Keras's own tracking has lost before, and moving statistics."""

    def __init__(self, width=4):
        super().__init__()
        self.blocks = [keras.layers.Dense(width), keras.layers.BatchNormalization()]
        self.head = keras.layers.Dense(2, name="head")

    def call(self, x, training=False):
        x = self.blocks[1](self.blocks[0](x), training=training)
        return self.head(x)


def make(width=4):
    """A model and an optimizer with all their variables."""
    model = Net(width)
    model(np.zeros([1, 3], np.float32))
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def scramble(variables, number):
    rng = np.random.default_rng(number)
    for variable in variables:
        variable.assign(np.asarray(rng.uniform(1, 100, variable.shape)).astype(variable.dtype))


def values(variables):
    return [variable.numpy().copy() for variable in variables]


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint's path and what it holds."""
    model, optimizer = make()
    scramble([*model.weights, *optimizer.variables], 0)
    path = tmp_path / "run" / "checkpoints" / "last.npz"
    save_checkpoint(path, {"model": model.weights, "optimizer": optimizer.variables}, STATE)
    return path, values(model.weights), values(optimizer.variables)


def test_every_variable_comes_back(saved):
    """Into a model made anew, moving statistics and the optimizer's moments and step included."""
    path, weights, slots = saved
    model, optimizer = make()
    names = [variable.path for variable in model.weights]
    assert sum("moving_" in name for name in names) == 2
    assert len(weights) == 8
    assert len(slots) == 2 + 2 * 6, "step and learning rate, two moments a trainable variable"
    checkpoint = Checkpoint(path)
    assert checkpoint.state == STATE | {"project_version": __version__}
    checkpoint.restore("model", model.weights)
    checkpoint.restore("optimizer", optimizer.variables)
    assert_same(values(model.weights), weights)
    assert_same(values(optimizer.variables), slots)
    for value, variable in zip(weights, model.weights, strict=True):
        assert not np.array_equal(value, np.zeros_like(value)), f"{variable.path} was told apart"


def test_more_than_ten_variables_keep_their_order(tmp_path):
    """By number, not by the alphabet, where 10 comes before 2."""
    variables = [keras.Variable(float(i)) for i in range(120)]
    save_checkpoint(tmp_path / "a.npz", {"many": variables}, {})
    scramble(variables, 1)
    Checkpoint(tmp_path / "a.npz").restore("many", variables)
    assert [float(variable.numpy()) for variable in variables] == list(range(120))


def test_what_does_not_fit_is_refused_and_nothing_assigned(saved):
    path, _, _ = saved
    checkpoint = Checkpoint(path)
    model, optimizer = make(width=5)
    scramble(model.weights, 3)
    before = values(model.weights)
    cases = {
        r"expected .*kernel of shape \(3, 5\), found .*kernel of \(3, 4\)": model.weights,
        "expected 7 variables of model, found 8": model.weights[:-1],
        "expected 14 variables of model, found 8": optimizer.variables,
    }
    for message, variables in cases.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            checkpoint.restore("model", variables)
        assert str(path) in str(caught.value)
    with pytest.raises(CheckpointError, match="expected 8 variables of ema, found 0"):
        checkpoint.restore("ema", model.weights)
    assert_same(values(model.weights), before)


def test_a_mismatch_at_the_end_assigns_nothing(saved):
    path, _, _ = saved
    model, _ = make()
    scramble(model.weights, 4)
    before = values(model.weights)
    with pytest.raises(CheckpointError, match="of shape"):
        Checkpoint(path).restore("model", [*model.weights[:-1], keras.Variable(np.zeros(9))])
    assert_same(values(model.weights), before)


# ------------------------------------------------------------------------------------------------
# Damage
# ------------------------------------------------------------------------------------------------


def damaged(path, damage):
    """Does something to a checkpoint file."""
    whole = path.read_bytes()
    middle = len(whole) // 2
    if damage == "half":
        path.write_bytes(whole[:middle])
    elif damage == "without its end":
        path.write_bytes(whole[:-30])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif damage == "text":
        path.write_text("<html>404: Not Found</html>")
    elif damage == "one array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "another npz":
        np.savez(path, a=np.zeros(3))
    elif damage == "npz of other names":
        np.savez(path, state=np.frombuffer(b"{}", np.uint8), weights=np.zeros(3))
    elif damage == "state that is no JSON":
        np.savez(path, state=np.frombuffer(b"{,", np.uint8))
    elif damage == "a flipped bit":
        with np.load(path) as file:
            at = whole.index(file[file.files[-1]].tobytes())
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    elif damage == "a folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        "half",
        "without its end",
        "empty",
        "garbage",
        "text",
        "one array",
        "another npz",
        "npz of other names",
        "state that is no JSON",
        "a flipped bit",
        "a folder",
    ],
)
def test_a_damaged_file_is_named(saved, damage):
    path, _, _ = saved
    damaged(path, damage)
    with pytest.raises(CheckpointError, match="no whole checkpoint") as caught:
        Checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"last\.npz: no such checkpoint"):
        Checkpoint(tmp_path / "last.npz")


class Bomb:
    """Makes a folder when unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_file_that_pickles_code_is_refused(saved, tmp_path):
    """Weights come from strangers: reading them must not run what they brought."""
    path, _, _ = saved
    bomb = Bomb(tmp_path / "executed")
    inside = np.array([bomb], dtype=object)
    state = np.frombuffer(b"{}", np.uint8)
    for arrays in ({"state": inside}, {"state": state, "model|00000|kernel": inside}):
        np.savez(path, allow_pickle=True, **arrays)
        with pytest.raises(CheckpointError):
            Checkpoint(path)
    path.write_bytes(pickle.dumps(bomb))
    with pytest.raises(CheckpointError):
        Checkpoint(path)
    assert not bomb.folder.exists()
    pickle.loads(path.read_bytes())
    assert bomb.folder.exists(), "it would have run"


# ------------------------------------------------------------------------------------------------
# Saving
# ------------------------------------------------------------------------------------------------


def test_a_failure_while_writing_leaves_the_old_file_whole(saved, monkeypatch):
    """A full disk in the middle of the file, and the run can still be resumed."""
    path, weights, _ = saved
    model, _ = make()

    def fail_half_way(file, **arrays):
        file.write(b"PK\x03\x04 half of")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", fail_half_way)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"model": model.weights}, {"progress": "lost"})
    monkeypatch.undo()
    checkpoint = Checkpoint(path)
    assert checkpoint.state == STATE | {"project_version": __version__}
    checkpoint.restore("model", model.weights)
    assert_same(values(model.weights), weights)

    scramble(model.weights, 5)
    save_checkpoint(path, {"model": model.weights}, {"progress": "saved"})
    assert Checkpoint(path).state["progress"] == "saved"
    assert [file.name for file in path.parent.iterdir()] == ["last.npz"], "no leftover"


def test_arrays_can_be_read_without_this_project(saved):
    """A plain .npz: names tell group, place and variable."""
    path, weights, _ = saved
    with np.load(path) as file:
        names = [name for name in file.files if name.startswith("model|")]
        assert len(names) == len(weights)
        np.testing.assert_array_equal(file[sorted(names)[-1]], weights[-1])
    assert zipfile.is_zipfile(path)


def test_a_checkpoint_that_unpacks_to_more_than_its_size_is_none_of_ours(tmp_path):
    state = np.frombuffer(b"{}", np.uint8)
    np.savez_compressed(tmp_path / "bomb.npz", state=state, **{"model|0|a": np.zeros(10**6)})
    with pytest.raises(CheckpointError, match=r"bomb\.npz: no whole checkpoint \(it unpacks to 8,"):
        Checkpoint(tmp_path / "bomb.npz")


@pytest.mark.parametrize("state", ["3", "[" * 100_000, '"text"', "null"])
def test_a_state_that_is_no_dict_is_damage(tmp_path, state):
    np.savez(tmp_path / "a.npz", state=np.frombuffer(state.encode(), np.uint8))
    with pytest.raises(CheckpointError, match=r"a\.npz: no whole checkpoint"):
        Checkpoint(tmp_path / "a.npz")
