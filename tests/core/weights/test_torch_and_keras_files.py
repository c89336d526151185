"""Damaged and hostile files: a WeightsError that says what is wrong, and nothing else happens.

Structure is tried on a ResNet-18 under the names of keras.applications, containers on a few arrays.
What could take the memory or the process down is read in a process of its own. torch's files are
in tests/parity/test_torch_files.py.
"""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import types
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from configs.schema import Model
from core.build import build_backbone
from core.weights.__main__ import main
from core.weights.formats.keras_applications import RESNET
from core.weights.importing import import_file
from core.weights.npz_files import Weights
from core.weights.torch_and_keras_files import WeightsError, read_file
from utils.names import printable

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[3]
SMALL = {"conv1/kernel:0": np.arange(24.0, dtype="f4").reshape(2, 3, 4), "bn1/beta": np.ones(5)}

# ------------------------------------------------------------------------------------------------
# Files and how they are refused
# ------------------------------------------------------------------------------------------------


def their_name(place: str) -> str:
    """A place in our ResNet -> the name of keras.applications."""
    parts = place.split("/")[1:]
    if len(parts) == 2:
        return f"conv1_{'conv' if parts[0] == 'conv1' else 'bn'}/{parts[1]}"
    stage, block = re.fullmatch(r"layer(\d)_(\d+)", parts[0]).groups()
    kind = "conv" if parts[1] in ("conv1", "conv2", "conv3", "downsample_0") else "bn"
    number = 0 if parts[1].startswith("downsample") else parts[1][-1]
    return f"conv{int(stage) + 1}_block{int(block) + 1}_{number}_{kind}/{parts[2]}"


@pytest.fixture(scope="module")
def resnet18():
    """Arrays by the names of keras.applications; variances are positive."""
    backbone = build_backbone(Model(backbone="resnet18"))
    backbone(np.zeros([1, 64, 64, 3], np.float32))
    rng = np.random.default_rng(0)
    return {
        their_name(variable.path): rng.random(variable.shape, np.float32)
        for variable in backbone.variables
    }


def write(path: Path, arrays, layout: str = "{layer}/{layer}/{leaf}:0") -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            layer, leaf = name.split("/")
            file[layout.format(layer=layer, leaf=leaf)] = array
    return path


@pytest.fixture
def folder(tmp_path):
    """Emptied at once: pytest would keep some GB of weights."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def assert_plain(error: Exception, path: Path) -> None:
    message = str(error)
    assert type(error) is WeightsError
    assert message.startswith(f"{path}: ")
    assert message == printable(message), "one line, nothing that a terminal acts on"
    assert len(message) < 800
    assert error.__cause__ is None


def refused(path: Path, *words: str) -> None:
    """The command refuses the file, says all of `words`, and writes nothing."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(WeightsError) as caught:
        main(["import", str(path), "--out", str(path.parent / "out")])
    assert_plain(caught.value, path)
    for word in words:
        assert word in str(caught.value)
    assert sorted(path.parent.iterdir()) == before


def read_apart(path: Path, limit_mib: int = 600) -> str:
    """What reading the file ends in, in a process of its own that must not take much memory."""
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from core.weights.torch_and_keras_files import WeightsError, read_file\n"
        "try:\n"
        "    print('read', len(read_file(sys.argv[1]).arrays))\n"
        "except WeightsError as error:\n"
        "    print(error)\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *message, peak = done.stdout.splitlines()
    assert int(peak) < limit_mib * 1024, "KiB at most in memory"
    return "\n".join(message)


# ------------------------------------------------------------------------------------------------
# No weights at all
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"layer1.0.conv1.weight = 1\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\x1b[2J\x1b]0;title\x07",
        b"<html>404</html>",
    ],
)
def test_a_file_of_another_kind_is_refused(folder, content):
    path = folder / "weights.pth"
    path.write_bytes(content)
    refused(path, "expected a torch file (.pth, .pt) or a Keras .h5", repr(content[:8]))


def test_what_cannot_be_opened_is_refused(folder):
    os.mkfifo(folder / "fifo")
    for path in (folder, folder / "missing.h5", folder / "fifo", Path("/dev/zero")):
        with pytest.raises(WeightsError) as caught:
            read_file(path)
        assert_plain(caught.value, path)


def test_an_unreadable_file_is_refused(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = write(folder / "weights.h5", SMALL)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(WeightsError, match=r"cannot be read .Permission denied"):
        read_file(path)


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_without_torch_the_message_says_how_to_get_it(folder, monkeypatch, container):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = folder / "weights.pth"
    path.write_bytes(b"\x80\x02}.")
    if container == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", b"\x80\x02}.")
    refused(path, "needs torch", "pip install")


def test_an_old_torch_is_refused(folder, monkeypatch):
    """Its weights_only could be got round."""
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__="2.5.1+cu121"))
    path = folder / "weights.pth"
    path.write_bytes(b"\x80\x02}.")
    refused(path, "expected torch 2.6 or newer", "2.5.1")


def test_an_archive_of_keras_is_told_from_one_of_torch(folder):
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", b"\x89HDF")
    refused(path, "found a .keras archive", "save_weights")


def test_a_layer_made_twice_keeps_the_name_of_its_group(folder):
    path = folder / "twice.h5"
    with h5py.File(path, "w") as file:
        file["conv1/conv1_1/kernel:0"] = np.ones([1, 1, 2, 2], np.float32)
        file["bn_conv1/bn_conv1_1/gamma_1:0"] = np.ones(2, np.float32)
    assert set(read_file(path).arrays) == {"conv1/kernel", "bn_conv1/gamma"}


# ------------------------------------------------------------------------------------------------
# Names of Keras
# ------------------------------------------------------------------------------------------------


def write_keras3(path: Path, arrays) -> Path:
    """Variables by number, layers by an attribute, as save_weights of Keras 3 does."""
    layers = {}
    for name, array in arrays.items():
        layer, leaf = name.split("/")
        layers.setdefault(layer, {})[leaf] = array
    order = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
    with h5py.File(path, "w") as file:
        for i, (layer, leaves) in enumerate(layers.items()):
            group = file.create_group(f"layers/conv2d_{i}/vars")
            group.attrs["name"] = layer
            for number, leaf in enumerate(sorted(leaves, key=order.index)):
                group[str(number)] = leaves[leaf]
    return path


@pytest.mark.parametrize(
    "layout",
    [
        "{layer}/{leaf}:0",
        "{layer}/{layer}/{leaf}:0",
        "{layer}/{layer}/{leaf}",
        "{layer}/{layer}_1/{leaf}_2:0",
        "model_weights/{layer}/{layer}/{leaf}:0",
        "keras 3",
    ],
)
def test_every_naming_of_keras_gives_the_same_arrays(folder, layout):
    arrays = {
        "conv1/kernel": np.random.rand(3, 3, 2, 4).astype("f4"),
        "conv1/bias": np.random.rand(4).astype("f4"),
        **{
            f"bn1/{leaf}": np.random.rand(4).astype("f4")
            for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        },
    }
    path = folder / "weights.h5"
    if layout == "keras 3":
        write_keras3(path, arrays)
    else:
        write(path, arrays, layout)
    read = read_file(path).arrays
    if "{layer}_1" in layout:  # the inner name is the layer's
        read = {name.replace("_1/", "/"): array for name, array in read.items()}
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == np.float32


@pytest.mark.parametrize("layout", ["{layer}/{layer}/{leaf}:0", "model_weights/{layer}/{leaf}:0"])
def test_the_resnet_that_the_rest_breaks_is_whole(folder, resnet18, layout):
    path = write(folder / "weights.h5", resnet18, layout)
    weights = import_file(path)
    assert weights.model.backbone == "resnet18"
    assert {their_name(place) for place in weights.arrays} == set(resnet18)
    for place, array in weights.arrays.items():
        np.testing.assert_array_equal(array, resnet18[their_name(place)])


# ------------------------------------------------------------------------------------------------
# Damaged and hostile HDF5
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.5, 0.9, 0.999999])
def test_a_truncated_file_is_refused(folder, resnet18, share):
    path = write(folder / "weights.h5", resnet18)
    os.truncate(path, max(9, int(path.stat().st_size * share)))
    refused(path, "expected a whole Keras .h5 file, found a damaged one")


def test_flipped_bytes_end_in_an_error_or_in_arrays_of_the_files_size(folder):
    """In a process of its own, because HDF5 is C."""
    path = write(folder / "weights.h5", {**SMALL, "conv2/kernel": np.ones([3, 3])})
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = [b"conv1", b"bn1"]
        group = file.create_group("layers/conv/vars")
        group.attrs["name"] = "conv3"
        group["0"] = np.ones(3)
    program = """
import random, sys
from utils.names import printable
from core.weights.torch_and_keras_files import WeightsError, read_file
whole = open(sys.argv[1], "rb").read()
refused = 0
for seed in range(600):
    rng = random.Random(seed)
    data = bytearray(whole)
    end = 96 if seed % 3 == 0 else len(data)  # a third in the superblock
    for _ in range(rng.choice([1, 2, 8])):
        data[rng.randrange(8, end)] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
    with open(sys.argv[1], "wb") as file:
        file.write(data)
    try:
        arrays = read_file(sys.argv[1]).arrays.values()
    except WeightsError as error:
        refused += 1
        assert str(error) == printable(str(error)), (seed, str(error))
        continue
    assert sum(array.nbytes for array in arrays) <= 2 * len(data), seed
print(refused)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100


@pytest.mark.parametrize("where", ["conv9", "conv1/kernel_2", "model_weights"])
@pytest.mark.parametrize("kind", ["soft", "dangling", "external", "absent"])
def test_links_are_not_followed(folder, where, kind):
    (folder / "secret").mkdir()
    other = str(write(folder / "secret" / "other.h5", SMALL))
    link = {
        "soft": h5py.SoftLink("/bn1"),
        "dangling": h5py.SoftLink("/nowhere"),
        "external": h5py.ExternalLink(other, "/"),
        "absent": h5py.ExternalLink("/nowhere.h5", "/"),
    }[kind]
    path = write(folder / "weights.h5", SMALL, "{layer}/{leaf}")
    with h5py.File(path, "a") as file:
        file[where] = link
    refused(path, "expected data, found a link at", where)


def test_data_of_other_files_is_not_read(folder):
    secret = folder / "secret.bin"
    secret.write_bytes(np.arange(8, dtype="f4").tobytes())
    path = folder / "external.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("conv1/kernel", (8,), "f4", external=[(str(secret), 0, 32)])
    refused(path, "other files'", "/conv1/kernel")
    source = write(folder / "source.h5", SMALL, "{layer}/{leaf}")
    layout = h5py.VirtualLayout((5,), "f8")
    layout[:] = h5py.VirtualSource(str(source), "bn1/beta", (5,))
    path = folder / "virtual.h5"
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("bn1/beta", layout)
    refused(path, "other files'", "/bn1/beta")


def claim(file):
    """No storage at all, nothing but a shape."""
    file.create_dataset("conv1/kernel", (2**20, 2**20), "f4")


def claim_in_parts(file):
    for i in range(100):
        file.create_dataset(f"conv{i}/kernel", (2**30,), "f4")


def claim_within_limits(file):
    """Each array is smaller than the file, together they are not."""
    data = file.create_dataset("conv1/kernel", data=np.ones(10**6))
    for i in range(100):
        file[f"again{i}/kernel"] = data


def compress(file):
    file.create_dataset("conv1/kernel", data=np.zeros(2**26), compression="gzip")


def model_weights_are_data(file):
    """Iterating over it would read the first row."""
    file.create_dataset("model_weights", (4, 2**40), "f4")


@pytest.mark.parametrize(
    "fill", [claim, claim_in_parts, claim_within_limits, compress, model_weights_are_data]
)
def test_bombs_do_not_go_off(folder, fill):
    path = folder / "weights.h5"
    with h5py.File(path, "w") as file:
        fill(file)
    message = read_apart(path)
    assert re.search("claims more data than the file holds|found data at model_weights", message)


def test_a_chunk_that_unpacks_to_a_gigabyte_is_not_unpacked(folder):
    path = folder / "weights.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "conv1/kernel", (8,), "f4", maxshape=(None,), chunks=(2**28,), compression="gzip"
        )
        data.id.write_direct_chunk((0,), zlib.compress(bytes(2**30), 1))
    assert "claims more data than the file holds" in read_apart(path)


def test_groups_in_more_than_one_place_are_refused(folder):
    path = folder / "cycle.h5"
    with h5py.File(path, "w") as file:
        file["a/b/c/kernel"] = np.ones(3)
        file["a/b/c/a"] = file["a"]
    refused(path, "expected each group once")
    path = folder / "fan.h5"  # 2^60 ways to the end
    with h5py.File(path, "w") as file:
        group = file.create_group("end")
        for i in range(60):
            above = file.create_group(f"level{i}")
            above["a"] = above["b"] = group
            group = above
    refused(path, "expected each group once")


def test_groups_in_groups_without_end_are_refused(folder):
    path = folder / "weights.h5"
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(3000):
            group = group.create_group("a")
        group["kernel"] = np.ones(3)
    assert "expected a whole Keras .h5 file" in read_apart(path)


def test_two_arrays_of_one_name_are_refused(folder):
    path = folder / "weights.h5"
    with h5py.File(path, "w") as file:
        file["conv1/kernel:0"] = np.ones(3)
        file["block/conv1/kernel"] = np.ones(3)
    refused(path, "expected one conv1/kernel, found two")


def test_what_is_no_float_is_left_out(folder):
    path = folder / "weights.h5"
    with h5py.File(path, "w") as file:
        file["conv1/kernel"] = np.ones(3, "f2")
        file["conv1/text"] = "text"
        file["conv1/texts"] = np.array(["a", "b"], object)
        file["conv1/fixed"] = np.array([b"abc"])
        file["conv1/step"] = np.arange(3)
        file["conv1/flag"] = np.array([True])
        file["conv1/complex"] = np.array([1j])
        file["conv1/nothing"] = h5py.Empty("f4")
        file["conv1/reference"] = file["conv1"].ref
        data = file.create_dataset("conv1/ragged", (2,), h5py.vlen_dtype(np.float32))
        data[0], data[1] = [1, 2], [3]
        file.create_dataset("conv1/record", (2,), [("a", "f4"), ("b", "i4")])
    arrays = read_file(path).arrays
    assert list(arrays) == ["conv1/kernel"]
    assert arrays["conv1/kernel"].dtype == np.float32
    np.testing.assert_array_equal(arrays["conv1/kernel"], 1)


def test_a_type_without_data_is_refused(folder):
    path = write(folder / "weights.h5", SMALL)
    with h5py.File(path, "a") as file:
        file["conv3"] = np.dtype("f4")
    refused(path, "expected a whole Keras .h5 file")


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "x" * 5000, "kern\x85el", "\u202ekernel"])
def test_names_for_a_terminal_are_refused(folder, name):
    path = folder / "weights.h5"
    with h5py.File(path, "w") as file:
        file[f"{name}/kernel"] = np.ones(3)
    refused(path, "expected names of tensors")
    with h5py.File(path, "w") as file:
        file[f"{name}/link"] = h5py.SoftLink("/nowhere")
        file[name]["data"] = np.ones(3)
    refused(path)


@pytest.mark.parametrize("attribute", ["model_config", "training_config", "layer_names"])
def test_configs_are_not_read(folder, resnet18, attribute):
    """A Lambda layer and a pickle, either of which would leave a file behind."""
    proof = folder / "proof"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {proof}",)

    run = pickle.dumps(Payload())
    config = {
        "class_name": "Functional",
        "config": {
            "layers": [
                {
                    "class_name": "Lambda",
                    "config": {"function": ["4wEAAAAAAAAA", None, None], "pickled": repr(run)},
                }
            ]
        },
    }
    path = write(folder / "weights.h5", resnet18, "model_weights/{layer}/{layer}/{leaf}:0")
    with h5py.File(path, "a") as file:
        file.attrs[attribute] = json.dumps(config)
        file["model_weights"].attrs[attribute] = np.void(run)
    weights = import_file(path)
    np.testing.assert_array_equal(
        weights.arrays["backbone/conv1/kernel"], resnet18["conv1_conv/kernel"]
    )
    assert not proof.exists()
    pickle.loads(run)
    assert proof.exists(), "the payload works"


# ------------------------------------------------------------------------------------------------
# Weights that are none of a ResNet
# ------------------------------------------------------------------------------------------------


def without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


BROKEN = {
    "no layer": (
        lambda arrays: {k: v for k, v in arrays.items() if "block2_1_conv" not in k},
        ["found none for backbone/layer1_1/conv1/kernel"],
    ),
    "no mean": (
        lambda arrays: without(arrays, "conv1_bn/moving_mean"),
        ["found none for backbone/bn1/moving_mean"],
    ),
    "no mean under a bias": (
        lambda arrays: without(arrays, "conv1_bn/moving_mean")
        | {"conv1_conv/bias": np.ones(64, "f4")},
        ["expected backbone/bn1/moving_mean", "found none"],
    ),
    "one more layer": (
        lambda arrays: arrays | {"conv1_preact/kernel": np.ones([1, 1, 2, 2])},
        ["expected only tensors of keras-applications", "found conv1_preact/kernel"],
    ),
    "one more block": (
        lambda arrays: arrays | {"conv2_block9_1_conv/kernel": np.ones([3, 3, 64, 64])},
        ["[3, 2, 2, 2] basic blocks"],
    ),
    "one more tensor": (
        lambda arrays: arrays | {"conv1_bn/renorm_mean": np.ones(64)},
        ["found backbone/bn1/renorm_mean too"],
    ),
    "a name that is a sign": (
        lambda arrays: arrays | {"conv1_bn/-": np.ones(64)},
        ["expected only tensors of keras-applications"],
    ),
    "an endless number": (
        lambda arrays: arrays | {f"conv2_block{'1' * 150}_1_conv/kernel": np.ones([1, 1, 1, 1])},
        ["[3, 2, 2, 2] basic blocks"],
    ),
    "transposed": (
        lambda arrays: arrays
        | {"conv1_conv/kernel": arrays["conv1_conv/kernel"].transpose(3, 2, 0, 1)},
        ["expected backbone/conv1/kernel of shape (7, 7, 3, 64), found (64, 3, 7, 7)"],
    ),
    "wrong shape": (
        lambda arrays: arrays | {"conv1_bn/gamma": np.ones(63, "f4")},
        ["expected backbone/bn1/gamma of shape (64,), found (63,)"],
    ),
    "vectors that lie across": (
        lambda arrays: arrays
        | {
            "conv1_conv/bias": np.ones([10**6, 1], "f4"),
            "conv1_bn/moving_mean": np.ones([1, 10**6], "f4"),
        },
        ["to be a vector"],
    ),
    "a bias that does not fit": (
        lambda arrays: arrays | {"conv1_conv/bias": np.ones(63, "f4")},
        ["expected a bias that fits"],
    ),
    "nothing in it": (
        lambda arrays: arrays | {"conv1_conv/kernel": np.ones([0, 7, 3, 2**40], "f4")},
        ["expected numbers, found none in backbone/conv1/kernel"],
    ),
    "no numbers": (
        lambda arrays: arrays | {"conv1_bn/gamma": np.arange(64)},
        ["found none for backbone/bn1/gamma"],
    ),
    "nan": (
        lambda arrays: arrays | {"conv1_bn/beta": np.full(64, np.nan, "f4")},
        ["expected finite numbers, found others in backbone/bn1/beta"],
    ),
    "inf": (
        lambda arrays: arrays | {"conv1_bn/beta": np.float32([1] * 63 + [-np.inf])},
        ["expected finite numbers, found others in backbone/bn1/beta"],
    ),
    "too large for float32": (
        lambda arrays: arrays | {"conv1_bn/beta": np.full(64, 1e300)},
        ["expected finite numbers, found others in backbone/bn1/beta"],
    ),
    "negative variance": (
        lambda arrays: arrays
        | {"conv1_bn/moving_variance": np.float32([1] * 63 + [-1e-6])},
        ["expected variances, found negative ones in backbone/bn1/moving_variance"],
    ),
    "another network": (
        lambda arrays: {"block1_conv1/kernel": np.ones([3, 3, 3, 64])},
        ["expected weights of one of", "keras-applications", "block1_conv1/kernel"],
    ),
    "nothing": (lambda arrays: {}, ["a keras file of 0 tensors"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_network_that_is_not_whole_is_refused(folder, resnet18, kind):
    change, words = BROKEN[kind]
    refused(write(folder / "weights.h5", change(resnet18)), *words)


def test_blocks_of_no_resnet_are_refused(folder):
    """A chain of 3, 4, 5, 3 bottlenecks; the sizes of the arrays do not matter yet."""
    arrays = {"conv1_conv/kernel": np.ones([7, 7, 3, 64])} | {
        f"conv{stage}_block{block + 1}_{number}_conv/kernel": np.ones([1, 1, 2, 2])
        for stage, blocks in zip((2, 3, 4, 5), (3, 4, 5, 3), strict=True)
        for block in range(blocks)
        for number in (1, 2, 3)
    }
    refused(write(folder / "weights.h5", arrays), "[3, 4, 5, 3] bottlenecks", "18, 34, 50, 101")


def test_widths_of_terabytes_are_compared_and_not_made(folder, resnet18):
    """A detector of keras-retinanet whose neck and heads would have millions of channels."""
    layers = {
        re.sub(
            r"conv(\d)_block(\d)_(\d)_(conv|bn)",
            lambda m: (
                f"{'res' if m[4] == 'conv' else 'bn'}{m[1]}{'ab'[int(m[2]) - 1]}_branch"
                + ("1" if m[3] == "0" else f"2{'abc'[int(m[3]) - 1]}")
            ),
            name.replace("conv1_bn", "bn_conv1").replace("conv1_conv", "conv1"),
        ): array
        for name, array in resnet18.items()
    }
    wide = np.ones([1, 1, 1, 2 * 10**6], "f4")
    for level in (3, 4, 5):
        layers[f"C{level}_reduced/kernel"] = layers[f"P{level}/kernel"] = wide
    layers["P6/kernel"] = layers["P7/kernel"] = wide
    for head, outputs in (("classification", 720), ("regression", 36)):
        layers[f"pyramid_{head}_0/kernel"] = wide
        layers[f"pyramid_{head}/kernel"] = np.ones([1, 1, 2 * 10**6, 1], "f4")
        layers[f"pyramid_{head}/bias"] = np.ones(outputs, "f4")
    refused(write(folder / "weights.h5", layers), "neck_width: expected 1 to 4096, found 2000000")


def test_a_format_that_the_file_is_not_of_is_refused(folder, resnet18):
    path = write(folder / "weights.h5", resnet18)
    with pytest.raises(WeightsError) as caught:
        import_file(path, format_name="keras-retinanet")
    assert_plain(caught.value, path)
    with pytest.raises(WeightsError, match=r"format: expected one of .*found 'mine'"):
        import_file(path, format_name="mine")
    with pytest.raises(WeightsError, match="holds a backbone alone, which has no classes"):
        import_file(path, classes=["cat"])


def test_the_names_here_are_those_of_the_importer(resnet18):
    for name in resnet18:
        assert their_name(RESNET.place(name)) == name


# ------------------------------------------------------------------------------------------------
# Our own files
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ours(resnet18, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    import_file(write(folder / "weights.h5", resnet18)).save(folder / "weights.npz")
    yield folder / "weights.npz"
    shutil.rmtree(folder)


def test_a_truncated_npz_is_refused(folder, ours):
    data = ours.read_bytes()
    path = folder / "weights.npz"
    for length in (0, 3, 100, len(data) // 2, len(data) - 30, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
            Weights.load(path)


def test_pickled_objects_in_an_npz_are_not_loaded(folder, ours):
    proof = folder / "proof"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {proof}",)

    for name in ("backbone|00000|backbone/conv1/kernel", "state"):
        with np.load(ours) as file:
            arrays = dict(file)
        arrays[name] = np.array([Payload()], object)
        path = folder / "weights.npz"
        np.savez(path, **arrays)
        proof.unlink(missing_ok=True)
        with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
            Weights.load(path)
        assert not proof.exists()
        with np.load(path, allow_pickle=True) as file:
            file[name]
        assert proof.exists(), "the payload works"


def test_an_npz_whose_entry_is_damaged_is_refused(folder, ours):
    path = folder / "weights.npz"
    data = bytearray(ours.read_bytes())
    with zipfile.ZipFile(ours) as archive:
        entry = archive.infolist()[5]
    data[entry.header_offset + 300] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
        Weights.load(path)
