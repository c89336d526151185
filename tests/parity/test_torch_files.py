"""Damaged and hostile torch files: a WeightsError that says what is wrong, and nothing else.

Structure is tried on a ResNet-18 of torchvision, containers on a few tensors. What could take the
memory or the process down is read in a process of its own. Keras files are in
tests/core/weights/test_torch_and_keras_files.py.
"""

import os
import pathlib
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from core.weights.__main__ import main
from core.weights.importing import import_file
from core.weights.torch_and_keras_files import WeightsError, read_file
from utils.names import printable

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
SMALL = {"conv1.weight": torch.arange(24.0).reshape(2, 3, 4), "bn1.bias": torch.ones(5)}
CONTAINERS = {"zip": True, "legacy": False}  # whether torch.save writes a zip file

# ------------------------------------------------------------------------------------------------
# Files and how they are refused
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Emptied at once: pytest would keep some GB of weights."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def resnet18():
    return torchvision.models.resnet18(weights=None).state_dict()


def save(path: Path, content, container: str = "zip") -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=CONTAINERS[container])
    return path


def refused(path: Path, *words: str) -> None:
    """The command refuses the file, says all of `words`, and writes nothing."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(WeightsError) as caught:
        main(["import", str(path), "--out", str(path.parent / "out")])
    message = str(caught.value)
    assert type(caught.value) is WeightsError
    assert message.startswith(f"{path}: ")
    assert message == printable(message), "one line, nothing that a terminal acts on"
    assert len(message) < 800
    assert caught.value.__cause__ is None
    for word in words:
        assert word in message
    assert sorted(path.parent.iterdir()) == before


def with_pickle(path: Path, target: Path, edit) -> Path:
    """A zip file of torch.save with another data.pkl."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, edit(data) if entry.filename.endswith(".pkl") else data)
    return target


def read_apart(*paths: Path, spare_mib: int = 400) -> list[str]:
    """What reading each file ends in, in a process of its own.

    It must not take more than `spare_mib` beyond what it has with torch loaded.
    """
    program = """
import re, sys, warnings
from pathlib import Path
import torch
from core.weights.torch_and_keras_files import WeightsError, read_file
warnings.simplefilter("ignore")
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
torch.save({"a": torch.ones(1)}, sys.argv[1])
read_file(sys.argv[1])
before = peak()
for path in sys.argv[2:]:
    try:
        print("read", len(read_file(path).arrays))
    except WeightsError as error:
        print(error)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(paths[0].parent / "warm.pth"), *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *messages, growth = done.stdout.splitlines()
    assert int(growth) < spare_mib * 1024, "KiB more in memory"
    assert len(messages) == len(paths)
    return messages


# ------------------------------------------------------------------------------------------------
# What imports
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_becomes_float32(folder, container, dtype):
    values = torch.linspace(-3, 3, 24).reshape(2, 3, 4).to(dtype)
    arrays = read_file(save(folder / "a.pth", {"conv1.weight": values}, container)).arrays
    assert arrays["conv1.weight"].dtype == np.float32
    np.testing.assert_array_equal(arrays["conv1.weight"], values.to(torch.float32).numpy())


@pytest.mark.parametrize("container", CONTAINERS)
def test_views_parameters_and_gradients_are_read(folder, container):
    base = torch.arange(24.0).reshape(4, 6)
    state = {"a": base.t(), "b": torch.nn.Parameter(base.clone()), "c": torch.tensor(3.0)}
    arrays = read_file(save(folder / "a.pth", state, container)).arrays
    np.testing.assert_array_equal(arrays["a"], base.numpy().T)
    np.testing.assert_array_equal(arrays["b"], base.numpy())
    assert arrays["c"] == 3
    leaf = torch.ones(3, requires_grad=True)
    assert read_file(save(folder / "b.pth", {"a": leaf}, container)).arrays["a"].sum() == 3


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": state, "best": 0.5, "milestones": Counter({8: 1})},
        lambda state: {"model_state_dict": state, "optimizer": {"state": {}, "param_groups": []}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"net": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"state": {}}, "args": Namespace(lr=0.1)},
        lambda state: {"state_dict": {f"model.{name}": v for name, v in state.items()}},
        lambda state: (
            {"n_averaged": torch.tensor(3)}
            | {f"module._orig_mod.{name}": v for name, v in state.items()}
        ),
        lambda state: state | {"head.weight": torch.ones(3), "head.bias": torch.ones(3)},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {name: tensor.half() for name, tensor in state.items()},
        dict,
    ],
)
def test_wrapped_states_are_the_same_weights(folder, resnet18, wrap):
    weights = import_file(save(folder / "weights.pth", wrap(resnet18)))
    assert weights.model.backbone == "resnet18"
    np.testing.assert_allclose(
        weights.arrays["backbone/conv1/kernel"],
        resnet18["conv1.weight"].numpy().transpose(2, 3, 1, 0),
        atol=1e-4,
    )


# ------------------------------------------------------------------------------------------------
# Code
# ------------------------------------------------------------------------------------------------


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("place", ["alone", "value", "key", "beside"])
def test_code_is_not_run(folder, container, place):
    proof = folder / "proof"
    payload = Payload(proof)
    content = {
        "alone": payload,
        "value": {**SMALL, "x": payload},
        "key": {**SMALL, ("x", payload): 1},
        "beside": {"model": SMALL, "args": payload},
    }[place]
    path = save(folder / "weights.pth", content, container)
    refused(path, "system", "could run code", "torch.save(model.state_dict(), FILE)")
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists(), "the payload works"


def test_code_in_a_bare_pickle_is_not_run(folder):
    proof = folder / "proof"
    for protocol in (2, 3, 4, 5):
        path = folder / "weights.pth"
        path.write_bytes(pickle.dumps({"x": Payload(proof)}, protocol))
        refused(path)
        assert not proof.exists()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.filterwarnings("ignore")
def test_whole_modules_and_settings_are_refused_by_name(folder, container):
    path = save(folder / "module.pth", torch.nn.Conv2d(1, 1, 1), container)
    refused(path, "torch.nn.modules.conv.Conv2d", "could run code")
    content = {"model": SMALL, "args": pathlib.PurePosixPath("a")}
    path = save(folder / "checkpoint.pth", content, container)
    refused(path, "pathlib.PurePosixPath", "could run code")


def test_scripts_are_refused(folder):
    path = folder / "script.pt"
    torch.jit.script(torch.nn.ReLU()).save(str(path))
    refused(path)


def test_names_for_a_terminal_are_refused(folder):
    for name in ("\x1b[2J.weight", "a\nb.weight", "x" * 5000, "\u202e.weight", ""):
        path = save(folder / "weights.pth", {name: torch.ones(3)})
        refused(path)
        path = save(folder / "weights.pth", {**SMALL, name: 3})
        refused(path, "expected tensors by name, found int")
    path = save(folder / "weights.pth", SMALL)
    evil = with_pickle(path, folder / "evil.pth", lambda data: b"\x80\x02c\x1b[2J\n" + b"y\n)R.")
    refused(evil)


# ------------------------------------------------------------------------------------------------
# Damage
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_truncated_file_is_refused(folder, resnet18, container):
    whole = save(folder / "whole.pth", resnet18, container)
    size = whole.stat().st_size
    path = folder / "weights.pth"
    for length in (4, 9, 100, 5000, size // 2, size - 1000, size - 30, size - 1):
        shutil.copy(whole, path)
        os.truncate(path, length)
        refused(path, "expected a whole torch file")


@pytest.mark.parametrize("container", CONTAINERS)
def test_flipped_bytes_end_in_an_error_or_in_arrays_of_the_files_size(folder, container):
    """In a process of its own, because torch is C++; a zip file knows its checksums."""
    path = save(folder / "weights.pth", SMALL, container)
    program = """
import random, sys, warnings
import numpy as np
from utils.names import printable
from core.weights.torch_and_keras_files import WeightsError, read_file
warnings.simplefilter("ignore")
whole = open(sys.argv[1], "rb").read()
right = read_file(sys.argv[1]).arrays
refused = different = 0
for seed in range(600):
    rng = random.Random(seed)
    data = bytearray(whole)
    for _ in range(rng.choice([1, 2, 8])):
        data[rng.randrange(len(data))] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
    with open(sys.argv[1], "wb") as file:
        file.write(data)
    try:
        arrays = read_file(sys.argv[1]).arrays
    except WeightsError as error:
        refused += 1
        assert str(error) == printable(str(error)), (seed, str(error))
        continue
    assert sum(array.nbytes for array in arrays.values()) <= 4 * len(data), seed
    same = arrays.keys() == right.keys()
    different += not (same and all(np.array_equal(arrays[name], right[name]) for name in right))
print(refused, different)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    num_refused, num_different = map(int, done.stdout.split())
    assert num_refused > 100
    assert container == "legacy" or num_different == 0


# ------------------------------------------------------------------------------------------------
# Bombs
# ------------------------------------------------------------------------------------------------


def test_a_compressed_archive_is_refused(folder):
    state = {"conv1.weight": torch.zeros(2**26)}
    path, bomb = save(folder / "weights.pth", state), folder / "bomb.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert bomb.stat().st_size < 2**20
    # Where Python sees no archive any more, another reader may see one still.
    disguised = folder / "disguised.pth"
    disguised.write_bytes(bomb.read_bytes() + b"PK\x05\x06")
    first, second = read_apart(bomb, disguised)
    assert "expected an uncompressed archive" in first
    assert "expected a whole torch file" in second


@pytest.mark.parametrize("container", CONTAINERS)
def test_strides_that_repeat_are_refused(folder, container):
    for tensor in (
        torch.empty(1).expand(2**20, 2**20),
        torch.zeros(16).as_strided((2**16, 2**16, 16), (0, 0, 1)),
        torch.zeros(1, dtype=torch.half).expand(2**34),
        torch.zeros(1, dtype=torch.int8).expand(2**40),
    ):
        path = save(folder / "weights.pth", {"conv1.weight": tensor}, container)
        refused(path, "conv1.weight claims more data than the file holds")


def test_one_tensor_under_many_names_is_refused(folder):
    """Each would be a copy in float32."""
    tensor = torch.zeros(10**5, dtype=torch.half)
    path = save(folder / "weights.pth", {f"conv{i}.weight": tensor for i in range(2000)})
    refused(path, "claims more data than the file holds")


def test_a_tensor_larger_than_its_storage_is_refused(folder):
    size = struct.pack("<i", 2**30)

    def claims(data, old):
        assert old in data
        return data.replace(old, b"J" + size + old[2:], 1)

    state = {"conv1.weight": torch.ones(199)}
    path, evil = save(folder / "weights.pth", state), []
    for old in (b"K\xc7\x85", b"K\xc7t"):  # the shape; the number of the storage
        evil.append(folder / f"evil{len(evil)}.pth")
        with_pickle(path, evil[-1], lambda data, old=old: claims(data, old))
    path = save(folder / "legacy.pth", state, "legacy")
    for old in (b"K\xc7\x85", b"K\xc7N"):
        evil.append(folder / f"evil{len(evil)}.pth")
        evil[-1].write_bytes(claims(path.read_bytes(), old))
    assert all("expected a whole torch file" in message for message in read_apart(*evil))


def test_a_storage_that_no_data_follows_is_refused(folder):
    """A legacy file lists at its end which storages it has; none, and nothing is filled."""
    path = save(folder / "legacy.pth", {"conv1.weight": torch.ones(199)}, "legacy")
    data = path.read_bytes()
    for old in (b"K\xc7N", b"K\xc7\x85"):
        data = data.replace(old, b"J" + struct.pack("<i", 2**28) + old[2:], 1)
    end = data.rindex(b"\x80\x02]")
    path.write_bytes(data[:end] + b"\x80\x02].")
    assert "claims more data than the file holds" in read_apart(path)[0]


CALLS = {
    "bytes": b"cbuiltins\nbytearray\n\x8a\x08" + struct.pack("<q", 2**36) + b"\x85R",
    "a tensor": b"ctorch\nTensor\n\x8a\x08" + struct.pack("<q", 2**40) + b"\x85R",
    # Twice as long each time.
    "hexadecimal": b"c_codecs\nencode\n" * 40
    + b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8\x86R"
    + b"X\x03\x00\x00\x00hex\x86R" * 40,
    "a long string": b"X\xff\xff\xff\x7f",
}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_what_torch_lets_a_pickle_call_takes_no_memory(folder):
    """All of these are on torch's list of what is safe."""
    whole, paths = save(folder / "whole.pth", SMALL), []
    for call, code in CALLS.items():
        content = b"\x80\x02" + code + b"."
        paths.append(folder / f"{call}.zip.pth")
        with_pickle(whole, paths[-1], lambda data, content=content: content)
        paths.append(folder / f"{call}.legacy.pth")
        paths[-1].write_bytes(content)
    # What doubles does so up to the limit.
    messages = read_apart(*paths, spare_mib=3000)
    assert all("expected a whole torch file" in message for message in messages)


# ------------------------------------------------------------------------------------------------
# Tensors and entries of other kinds
# ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(7).to_sparse(),
        torch.eye(7).to_sparse_csr(),
        torch.sparse_coo_tensor(torch.zeros([1, 1]), torch.ones(1), (2**50,)),
        torch.empty([2**20, 2**20], device="meta"),
    ],
    ids=["coo", "csr", "claims", "meta"],
)
def test_tensors_that_are_not_dense_are_refused(folder, tensor):
    refused(save(folder / "weights.pth", {"conv1.weight": tensor}), "expected dense tensors")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(64, dtype=torch.complex64),
        torch.ones(64, dtype=torch.int64),
        torch.quantize_per_tensor(torch.ones(64), 0.1, 0, torch.quint8),
    ],
    ids=["complex", "integer", "quantised"],
)
def test_tensors_that_are_no_floats_are_missing(folder, resnet18, tensor):
    path = save(folder / "weights.pth", {**resnet18, "bn1.weight": tensor})
    refused(path, "found none for backbone/bn1/gamma")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({1: torch.ones(1)}, "found a int"),
        ({("a", "b"): torch.ones(1)}, "found a tuple"),
        ({**SMALL, "epoch": 3}, "found int at epoch"),
        ({**SMALL, "names": ["a"]}, "found list at names"),
        ({"model": SMALL, "state_dict": {"x": 1}}, None),
        ({}, "without entries"),
        ({"model": {}}, "without entries"),
        (OrderedDict(), "without entries"),
        ([torch.ones(1)], "found list"),
        (torch.ones(1), "found Tensor"),
        (3, "found int"),
        (None, "found NoneType"),
        ("text", "found str"),
    ],
)
def test_what_is_no_state_dict_is_refused(folder, content, word):
    refused(save(folder / "weights.pth", content), *([word] if word else []))


# ------------------------------------------------------------------------------------------------
# Weights that are none of a ResNet
# ------------------------------------------------------------------------------------------------


def without(state, pattern):
    return {name: tensor for name, tensor in state.items() if not re.match(pattern, name)}


def deeper(state):
    """A third block in the first stage."""
    return state | {
        name.replace("layer1.1", "layer1.2"): tensor.clone()
        for name, tensor in state.items()
        if name.startswith("layer1.1")
    }


BROKEN = {
    "no layer": (
        lambda state: without(state, r"layer2\.1\.conv1"),
        ["found none for backbone/layer2_1/conv1/kernel"],
    ),
    "no block": (lambda state: without(state, r"layer2\.1"), ["[2, 1, 2, 2] basic blocks"]),
    "one more block": (deeper, ["[3, 2, 2, 2] basic blocks", "18, 34, 50, 101, 152"]),
    "one more layer": (
        lambda state: state | {"layer1.0.se.weight": torch.ones(1)},
        ["expected only tensors of torchvision-imagenet, found layer1.0.se.weight"],
    ),
    "one more tensor": (
        lambda state: state | {"conv1.bias": torch.ones(64)},
        ["found backbone/conv1/bias too"],
    ),
    "a name without a dot": (
        lambda state: state | {"temperature": torch.ones(1)},
        ["found temperature"],
    ),
    "another leaf": (
        lambda state: state | {"conv1.weight_orig": torch.ones(1)},
        ["found conv1.weight_orig"],
    ),
    "a prefix on some": (
        lambda state: {
            f"module.{name}" if name.startswith("layer4") else name: tensor
            for name, tensor in state.items()
        },
        ["found [2, 2, 2, 0] basic blocks"],
    ),
    "wrong shape": (
        lambda state: state | {"conv1.weight": torch.ones([64, 1, 7, 7])},
        ["expected backbone/conv1/kernel of shape (7, 7, 3, 64), found (7, 7, 1, 64)"],
    ),
    "transposed": (
        lambda state: state | {"conv1.weight": state["conv1.weight"].permute(2, 3, 1, 0)},
        ["expected backbone/conv1/kernel of shape (7, 7, 3, 64)"],
    ),
    "nan": (
        lambda state: state | {"bn1.bias": torch.full([64], torch.nan)},
        ["expected finite numbers, found others in backbone/bn1/beta"],
    ),
    "inf": (
        lambda state: state | {"bn1.bias": torch.full([64], -torch.inf)},
        ["expected finite numbers, found others in backbone/bn1/beta"],
    ),
    "too large for float32": (
        lambda state: state | {"bn1.bias": torch.full([64], 1e300, dtype=torch.float64)},
        ["expected finite numbers, found others in backbone/bn1/beta"],
    ),
    "negative variance": (
        lambda state: state | {"bn1.running_var": torch.full([64], -0.1)},
        ["expected variances, found negative ones in backbone/bn1/moving_variance"],
    ),
    "nothing in it": (
        lambda state: state | {"conv1.weight": torch.ones([64, 2**40, 0, 7])},
        ["expected numbers, found none in backbone/conv1/kernel"],
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_network_that_is_not_whole_is_refused(folder, resnet18, kind):
    change, words = BROKEN[kind]
    refused(save(folder / "weights.pth", change(dict(resnet18))), *words)


def test_two_names_of_one_place_are_refused(folder):
    """An output of torchvision's pyramid under the name up to 0.12 and the one since."""
    state = {
        "backbone.body.conv1.weight": torch.ones(1),
        "head.classification_head.cls_logits.bias": torch.ones(9),
        "backbone.fpn.inner_blocks.0.weight": torch.ones([1, 1, 1, 1]),
        "backbone.fpn.inner_blocks.0.0.weight": torch.ones([1, 1, 1, 1]),
    }
    refused(save(folder / "weights.pth", state), "are the same tensor", "inner_blocks.0.0.weight")


@pytest.mark.parametrize(
    "make",
    [
        torchvision.models.resnext50_32x4d,
        torchvision.models.wide_resnet50_2,
        torchvision.models.mobilenet_v3_small,
        torchvision.models.squeezenet1_1,
        lambda weights: fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None),
    ],
    ids=["resnext50", "wide_resnet50", "mobilenet", "squeezenet", "fasterrcnn"],
)
def test_other_networks_are_refused(folder, make):
    path = save(folder / "weights.pth", make(weights=None).state_dict())
    refused(path, "expected", "found")
