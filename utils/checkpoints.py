"""Variables on disk: one .npz file a checkpoint, whole or not there at all.

Groups of variables are saved as flat lists, in order, under their paths: `tf.train.Checkpoint`
silently skips layers that a subclassed Keras model holds in lists.
"""

import errno
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils import __version__
from utils.files import whole_file

REAL_NUMBERS = "fiu"  # kinds of NumPy's types that a variable can be given: no text, no complex


# Errors of a disk or of permissions: the file itself may be whole.
UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)


class CheckpointError(ValueError):
    """A checkpoint that is damaged or belongs to something else; names file, expected and found."""


def save_checkpoint(
    path: str | Path,
    groups: Mapping[str, Sequence | Mapping],
    state: dict,
    keep: str | Path | None = None,
) -> None:
    """Writes variables and a JSON-ready state; `path` holds the old or the new file at any moment.

    The state gets the project's version, as "project_version".
    groups: name -> variables of Keras, e.g. {"model": model.weights}, or arrays by path.
    keep: what the old file is kept as.
    """
    path = Path(path)
    text = json.dumps(state | {"project_version": __version__})
    arrays: dict[str, Any] = {"state": np.frombuffer(text.encode(), np.uint8)}
    for group, variables in groups.items():
        pairs: Iterable[tuple[str, np.ndarray]]
        if isinstance(variables, Mapping):
            pairs = variables.items()
        else:
            pairs = ((variable.path, variable.numpy()) for variable in variables)
        for i, (name, array) in enumerate(pairs):
            arrays[f"{group}|{i:05d}|{name}"] = array
    with whole_file(path, durable=True) as part:
        with open(part, "wb") as file:  # given a path, NumPy would add a suffix
            np.savez(file, **arrays)
        if keep and path.is_file():
            _keep(path, keep)


def _keep(path: Path, older: str | Path) -> None:
    """`older` becomes the file that `path` is, which stays there until its successor comes."""
    with whole_file(older) as part:
        try:
            os.link(path, part)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, part)


class Checkpoint:
    """A checkpoint read from a file.

    Raises CheckpointError if it is missing or damaged, OSError if it cannot be read now.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._arrays: dict[str, list[tuple[str, np.ndarray]]] = {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > self.path.stat().st_size:
                raise ValueError(f"it unpacks to {unpacked:,} bytes, and none of ours is packed")
            with np.load(self.path, allow_pickle=False) as file:
                self.state = json.loads(bytes(file["state"]))
                if not isinstance(self.state, dict):
                    raise ValueError("its state is no JSON object")
                for key in sorted(key for key in file.files if key != "state"):
                    group, _, name = key.split("|", 2)
                    self._arrays.setdefault(group, []).append((name, file[key]))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no such checkpoint") from None
        except Exception as error:  # what NumPy raises for a damaged file is anybody's guess
            number = getattr(error, "errno", None)
            if number in UNREADABLE:
                raise OSError(number, os.strerror(number), str(path)) from None
            problem = " ".join(str(error).split()) or type(error).__name__
            raise CheckpointError(f"{path}: no whole checkpoint ({problem})") from None

    def clear(self) -> None:
        """Forgets the arrays, once they are no longer needed."""
        self._arrays = {}

    def arrays(self, group: str) -> dict[str, np.ndarray]:
        """The arrays of a group by the paths of their variables."""
        return dict(self._arrays.get(group, []))

    def restore(self, group: str, variables: Sequence) -> None:
        """Assigns a group to variables; nothing is assigned unless all of it fits.

        Raises CheckpointError naming the first variable whose shape or kind of numbers differs, or
        the counts.
        """
        arrays = self._arrays.get(group, [])
        if len(arrays) != len(variables):
            raise CheckpointError(
                f"{self.path}: expected {len(variables)} variables of {group}, found {len(arrays)}"
            )
        for (name, array), variable in zip(arrays, variables, strict=True):
            # Of a path only the end, without the numbers that Keras gives to layers without a name.
            kinds = [re.sub(r"_\d+", "", path.rsplit("/", 1)[-1]) for path in (name, variable.path)]
            is_shaped = tuple(variable.shape) == array.shape and kinds[0] == kinds[1]
            if not is_shaped or array.dtype.kind not in REAL_NUMBERS:
                raise CheckpointError(
                    f"{self.path}: expected {variable.path} of shape {tuple(variable.shape)}, "
                    f"found {name} of {array.shape} {array.dtype}"
                )
        for (_, array), variable in zip(arrays, variables, strict=True):
            variable.assign(array)
