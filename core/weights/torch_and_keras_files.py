"""Files of torch and Keras -> arrays by name, without running anything that is in them.

A file may be damaged or made to harm: whatever is wrong with it ends in a WeightsError.
"""

import argparse
import contextlib
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from utils.names import printable

if sys.platform != "win32":  # which has none
    import resource

ZIP, HDF5, PICKLE = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x80"
WRAPPERS = ("model", "state_dict", "model_state_dict")  # keys that hold the state dict of a run
LEAVES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean",
          "moving_variance")}  # fmt: skip


STATM = Path("/proc/self/statm")  # Linux: pages of address space in use, first of its numbers
INSTALL = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
SPARE = 2**31  # bytes of memory that reading may take beyond a few times the file's size
LONGEST = 200  # characters of a tensor's name, and of what a message quotes


class WeightsError(ValueError):
    """Weights that cannot be used; the message names the file, expected and found."""


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    library: "torch" or "keras".
    arrays: float32 by name: "layer1.0.conv1.weight" of torch, "conv1/kernel" of Keras.
    listed: all that the file names, needed or not: of torch tensors, of Keras layers.
    """

    library: str
    arrays: dict[str, np.ndarray]
    listed: frozenset[str] = frozenset()


def read_file(path: str | Path) -> Contents:
    """Reads a torch state dict (zip or legacy) or a Keras .h5 file, known by its first bytes.

    Raises WeightsError for a file that is missing, damaged, of another kind, would run code, or
    claims more data than it has.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise WeightsError(f"{path}: expected a file, found a folder or a device")
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    if start.startswith(HDF5):
        return _read(path, _read_keras, "Keras .h5")
    if start.startswith((ZIP, PICKLE)):
        return _read(path, _read_torch, "torch")
    raise WeightsError(
        f"{path}: expected a torch file (.pth, .pt) or a Keras .h5, found a file that begins with "
        f"{start!r}"
    )


def _read(path: Path, read: Callable[[Path], Contents], kind: str) -> Contents:
    try:
        contents = read(path)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:  # what a parser raises for a damaged file is anybody's guess
        reason = _plain(str(error)) or type(error).__name__
        raise WeightsError(
            f"{path}: expected a whole {kind} file, found a damaged one ({reason})"
        ) from None
    for name in contents.arrays:
        if len(name) > LONGEST or not name.isprintable():
            raise WeightsError(f"{path}: expected names of tensors, found {name[:LONGEST]!a}")
    return contents


def _plain(text: str) -> str:
    """The first line, without what a terminal would act on, and not for ever."""
    return printable(text.strip().split("\n")[0][:LONGEST])


@contextlib.contextmanager
def _bounded_memory(path: Path) -> Iterator[None]:
    """A MemoryError for what a few bytes of a hostile file can ask a parser to make; on Linux."""
    if sys.platform == "win32" or not STATM.exists():
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(STATM.read_text().split()[0]) * resource.getpagesize()
    limit = used + SPARE + 4 * path.stat().st_size
    limits = [value for value in (limit, before, hard) if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


# ------------------------------------------------------------------------------------------------
# torch
# ------------------------------------------------------------------------------------------------


def _read_torch(path: Path) -> Contents:
    _check_archive(path)
    try:
        import torch
    except ImportError:
        raise WeightsError(
            f"reading a torch file needs torch, which nothing else here does: {INSTALL}"
        ) from None
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise WeightsError(
            "expected torch 2.6 or newer, before which weights_only could be got round "
            f"(CVE-2025-32434), found {torch.__version__}"
        )
    try:
        # torchvision's training scripts save their command line, which runs nothing, beside.
        harmless = torch.serialization.safe_globals([argparse.Namespace])
        with _bounded_memory(path), harmless:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        found = re.search(r"GLOBAL (\S+)|(?:class|function) (\S+)", str(error))
        if "Unsupported operand" in str(error):
            raise WeightsError("expected a torch file, found another pickle") from None
        if not found:
            raise
        raise WeightsError(
            f"expected nothing but tensors, found {_plain(found[1] or found[2])}, which could run "
            "code. If you trust the file, open it where it comes from and save its state dict: "
            "torch.save(model.state_dict(), FILE)"
        ) from None
    state = _state_dict(loaded, torch.Tensor)
    arrays, claimed = {}, 0
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise WeightsError(f"expected tensors by name, found a {type(name).__name__}")
        if not isinstance(tensor, torch.Tensor):
            raise WeightsError(
                f"expected tensors by name, found {type(tensor).__name__} at {_plain(name)}"
            )
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise WeightsError(f"expected dense tensors, found {tensor.layout} at {_plain(name)}")
        # Strides may repeat a few bytes any number of times, names the same tensor.
        claimed += tensor.numel() * tensor.element_size()
        if claimed > path.stat().st_size:
            raise WeightsError(
                f"{_plain(name)} claims more data than the file holds, or shares another's"
            )
        # Counters are integers, but who makes all of a state half precision makes them floats.
        if tensor.is_floating_point() and not name.endswith("num_batches_tracked"):
            arrays[name] = tensor.detach().to(torch.float32).contiguous().numpy()
    return Contents("torch", _without_prefix(arrays), frozenset(state))


def _check_archive(path: Path) -> None:
    """torch neither compresses its zip files, so that larger content is a bomb, nor checks them."""
    with open(path, "rb") as file:
        if file.read(4) != ZIP:
            return
    with zipfile.ZipFile(path) as archive:
        if "model.weights.h5" in archive.namelist():
            raise WeightsError(
                "expected a torch file or a Keras .h5, found a .keras archive; save the weights "
                "alone: model.save_weights('FILE.weights.h5')"
            )
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:
            raise WeightsError(
                "expected an uncompressed archive, as torch writes it, found "
                f"{path.stat().st_size:,} bytes that unpack to {unpacked:,}"
            )
        if damaged := archive.testzip():
            raise ValueError(f"checksum of {damaged}")


def _state_dict(loaded: object, tensor: type) -> dict:
    """The state dict itself, or the one inside the dict of a training run."""
    if isinstance(loaded, Mapping) and not any(isinstance(v, tensor) for v in loaded.values()):
        inside = {key: value for key, value in loaded.items() if isinstance(value, Mapping)}
        named = [inside[key] for key in WRAPPERS if key in inside]
        if named or len(inside) == 1:
            return _state_dict((named or list(inside.values()))[0], tensor)
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(
            f"expected a state dict, found {type(loaded).__name__}"
            + (" without entries" if isinstance(loaded, Mapping) else "")
        )
    return dict(loaded)


def _without_prefix(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without what all names begin with, such as the "module." or "model." of a wrapper."""
    while len({name.partition(".")[0] for name in arrays}) == 1:
        shorter = {name.partition(".")[2]: array for name, array in arrays.items()}
        if not all("." in name for name in shorter):  # a layer and its tensor are the least
            break
        arrays = shorter
    return arrays


# ------------------------------------------------------------------------------------------------
# Keras
# ------------------------------------------------------------------------------------------------


def _read_keras(path: Path) -> Contents:
    """Weights or a whole model, as Keras 1, 2 and 3 write them; the model's config is not read."""
    arrays: dict[str, np.ndarray] = {}
    listed: set[str] = set()
    claimed = 0
    with _bounded_memory(path), h5py.File(path, "r") as file:
        is_model = "model_weights" in file
        root = _item(file, "model_weights") if is_model else file
        if not isinstance(root, h5py.Group):
            raise WeightsError("expected groups of weights, found data at model_weights")
        for name, dataset in _datasets(root, listed, set()):
            chunk = int(np.prod(dataset.chunks or (0,), dtype=object)) * dataset.dtype.itemsize
            claimed += max(dataset.nbytes or 0, chunk)  # None of a dataset without any shape
            if claimed > path.stat().st_size:
                raise WeightsError(
                    f"{_plain(name)} claims more data than the file holds; if it is compressed, "
                    "h5repack -f NONE undoes that"
                )
            if name in arrays:
                raise WeightsError(f"expected one {_plain(name)}, found two")
            if dataset.dtype.kind == "f" and dataset.shape is not None:
                arrays[name] = np.asarray(dataset, np.float32)
    return Contents("keras", arrays, frozenset(listed))


def _item(group: h5py.Group, key: str) -> h5py.Group | h5py.Dataset:
    """What is in the file itself at `key`, not where a link leads."""
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise WeightsError(f"expected data, found a link at {_plain(f'{group.name}/{key}')}")
    return group[key]


def _datasets(
    group: h5py.Group, listed: set[str], seen: set[int]
) -> Iterator[tuple[str, h5py.Dataset]]:
    """(layer/leaf, dataset) of all below `group`; names of layers and their groups to `listed`.

    seen: addresses of the groups above and before: one in two places would have no end.
    """
    for key in group:
        item = _item(group, key)
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise WeightsError(f"expected data, found other files' at {_plain(item.name)}")
            yield _keras_name(item), item
        elif key not in ("optimizer", "optimizer_weights"):
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise WeightsError(f"expected each group once, found {_plain(item.name)} again")
            seen.add(address)
            # Keras 3 names groups by class and number, and the layer in an attribute.
            listed.add(str(item.attrs.get("name", key)) if key == "vars" else key)
            yield from _datasets(item, listed, seen)


def _keras_name(dataset: h5py.Dataset) -> str:
    """ ".../conv1/kernel:0" -> "conv1/kernel"; Keras 3 numbers a layer's variables instead."""
    *above, parent, leaf = dataset.name.strip("/").split("/")
    # Keras 2 numbered the variables of a layer that was made twice, and not its group.
    if above and re.fullmatch(re.escape(above[-1]) + r"_\d+", parent):
        parent = above[-1]
    if parent == "vars" and leaf.isdigit():
        names = LEAVES.get(len(dataset.parent), ())
        layer = dataset.parent.attrs.get("name", above[-1] if above else "")
        return f"{layer}/{names[int(leaf)] if int(leaf) < len(names) else leaf}"
    return f"{parent}/{re.sub(r'(_[0-9]+)?(:[0-9]+)?$', '', leaf)}"
