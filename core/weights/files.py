"""Files of torch and Keras -> arrays by name, without running anything that is in them.

A file may be damaged or made to harm: whatever is wrong with it ends in a WeightsError.
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

ZIP, HDF5, PICKLE = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x80"
WRAPPERS = ("model", "state_dict", "model_state_dict")  # keys that hold the state dict of a run
LEAVES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean",
          "moving_variance")}  # fmt: skip


class WeightsError(ValueError):
    """Weights that cannot be used; the message names the file, expected and found."""


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    path: the file; library: "torch" or "keras".
    arrays: float32 by name: "layer1.0.conv1.weight" of torch, "conv1/kernel" of Keras.
    layers: of Keras, the names of all layers the file lists, those without weights too.
    """

    path: Path
    library: str
    arrays: dict[str, np.ndarray]
    layers: frozenset[str] = frozenset()


def read_file(path: str | Path) -> Contents:
    """Reads a torch state dict (zip or legacy) or a Keras .h5 file, known by its first bytes.

    Raises WeightsError for a file that is missing, damaged, of another kind, would run code, or
    claims more data than it has.
    """
    path = Path(path)
    try:
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


def _read(path: Path, read, kind: str) -> Contents:
    try:
        return read(path)
    except WeightsError:
        raise
    except Exception as error:  # what a parser raises for a damaged file is anybody's guess
        reason = str(error).strip().split("\n")[0][:200]
        raise WeightsError(
            f"{path}: expected a whole {kind} file, found a damaged one ({reason})"
        ) from None


# ------------------------------------------------------------------------------------------------
# torch
# ------------------------------------------------------------------------------------------------


def _read_torch(path: Path) -> Contents:
    try:
        import torch
    except ImportError:
        raise WeightsError(
            f"{path}: reading a torch file needs torch, which nothing else here does: "
            "pip install torch"
        ) from None
    _refuse_bombs(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        found = re.search(
            r"GLOBAL (\S+)|Unsupported (?:class|global|operand)[: ]+(\S+)", str(error)
        )
        if not found:
            raise
        raise WeightsError(
            f"{path}: expected nothing but tensors, found {found[1] or found[2]}, which could run "
            "code. If you trust the file, open it where it comes from and save its state dict: "
            "torch.save(model.state_dict(), FILE)"
        ) from None
    state = _state_dict(path, loaded)
    arrays = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise WeightsError(
                f"{path}: expected tensors by name, found {type(tensor).__name__} at {name!r}"
            )
        # Strides may repeat a few bytes any number of times.
        held = tensor.untyped_storage().nbytes() if tensor.layout == torch.strided else -1
        if held < tensor.numel() * tensor.element_size():
            raise WeightsError(f"{path}: {name} claims more data than the file holds")
        if tensor.is_floating_point():
            arrays[name] = tensor.to(torch.float32).contiguous().numpy()
    return Contents(path, "torch", arrays)


def _refuse_bombs(path: Path) -> None:
    """torch does not compress: a zip that unpacks to more than its size is none of its files."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > path.stat().st_size:
        raise WeightsError(
            f"{path}: expected an uncompressed archive, as torch writes it, found "
            f"{path.stat().st_size:,} bytes that unpack to {unpacked:,}"
        )


def _state_dict(path: Path, loaded) -> dict:
    """The state dict itself, or inside the dict of a training run; "module." is taken off."""
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(
            f"{path}: expected a state dict, found {type(loaded).__name__}"
            + (" without entries" if isinstance(loaded, Mapping) else "")
        )
    if all(str(name).startswith("module.") for name in loaded):
        return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}
    return dict(loaded)


# ------------------------------------------------------------------------------------------------
# Keras
# ------------------------------------------------------------------------------------------------


def _read_keras(path: Path) -> Contents:
    """Weights or a whole model, as Keras 1, 2 and 3 write them; the model's config is not read."""
    arrays, layers, claimed = {}, set(), 0
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        for name, dataset in _datasets(path, root, layers):
            claimed += dataset.nbytes
            if claimed > path.stat().st_size:
                raise WeightsError(f"{path}: {name} claims more data than the file holds")
            if name in arrays:
                raise WeightsError(f"{path}: expected one {name}, found two")
            if dataset.dtype.kind == "f":
                arrays[name] = np.asarray(dataset, np.float32)
    return Contents(path, "keras", arrays, frozenset(layers))


def _datasets(path: Path, group: h5py.Group, layers: set[str]):
    """(layer/leaf, dataset) of all below `group`; names of layers and their groups to `layers`."""
    for key in group:
        link = group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise WeightsError(f"{path}: expected data, found a link at {group.name}/{key}")
        item = group[key]
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise WeightsError(f"{path}: expected data, found other files' at {item.name}")
            yield _keras_name(item), item
        elif key not in ("optimizer", "optimizer_weights"):
            layers.add(key)
            yield from _datasets(path, item, layers)


def _keras_name(dataset: h5py.Dataset) -> str:
    """ ".../conv1/kernel:0" -> "conv1/kernel"; Keras 3 numbers a layer's variables instead."""
    parent, leaf = dataset.name.split("/")[-2:]
    if parent == "vars" and leaf.isdigit():
        names = LEAVES.get(len(dataset.parent), ())
        layer = dataset.parent.attrs.get("name", dataset.name.split("/")[-3])
        return f"{layer}/{names[int(leaf)] if int(leaf) < len(names) else leaf}"
    return f"{parent}/{re.sub(r'(_[0-9]+)?(:[0-9]+)?$', '', leaf)}"
