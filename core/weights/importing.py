"""A file of another project -> `Weights`: recognised, renamed, checked; nothing is written here."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from configs.checked import ConfigError, adopt, override, to_dict
from configs.schema import Model
from core.backbones.resnet import BLOCKS
from core.build import build_anchors, build_backbone, build_model
from core.weights.formats import FORMATS
from core.weights.formats.format import Format
from core.weights.npz_files import BACKBONE, DETECTOR, OF_BACKBONE, Weights, by_place, stated
from core.weights.torch_and_keras_files import Contents, WeightsError, read_file
from core.weights.transfer import some

OUTPUT = "class_head/output/kernel"  # a file without it is a backbone alone
MOST = 5  # names of tensors in a message


def import_file(
    path: str | Path,
    *,
    format_name: str | None = None,
    changes: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
) -> Weights:
    """Weights of a file of another project, with the conventions of its published files.

    format_name: one of `FORMATS`; None: recognised by the names in the file.
    changes: settings of `Model` that differ from those conventions, as for `configs.override`.
    classes: names in label order; None: those of COCO where the format and their number say so.
    Raises WeightsError for a file that is damaged, of no known format, or not whole; ConfigError
    for impossible changes.
    """
    contents = read_file(path)
    if format_name is not None and format_name not in FORMATS:
        raise WeightsError(f"format: expected one of {', '.join(FORMATS)}, found {format_name!r}")
    try:
        known = FORMATS[format_name] if format_name else _recognised(contents)
        arrays, model, names = _imported(contents, known, changes or {}, classes)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    origin = {"file": Path(path).name, "format": known.name, "sha256": _sha256(path)}
    model = stated(DETECTOR if names else BACKBONE, to_dict(model))
    return Weights(Path(path), arrays, model, names, origin)


def _imported(
    contents: Contents, known: Format, changes: Mapping[str, Any], classes: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], Model, tuple[str, ...]]:
    """Arrays by place, their conventions, names of classes. Messages do not name the file."""
    arrays = _placed(contents, known)
    _check_numbers(arrays)
    try:
        structure = Model(**_structure(arrays))
    except ConfigError as error:
        raise WeightsError(str(error)) from None
    said = known.conventions
    model = adopt(structure, said(arrays, contents.listed) if callable(said) else said)
    _check_changes(changes, is_backbone=OUTPUT not in arrays)
    model = override(model, changes)
    names: tuple[str, ...] = ()
    if OUTPUT in arrays:
        names = _class_names(arrays, model, known, classes)
    elif classes:
        raise WeightsError("holds a backbone alone, which has no classes")
    return _fitted(arrays, model, len(names)), model, names


def _check_changes(changes: Mapping[str, Any], is_backbone: bool) -> None:
    """Raises ConfigError for a setting that these weights have no room for."""
    names = {field.name for field in fields(Model)} - {"weights", "aliases"}
    names = set(OF_BACKBONE) if is_backbone else names
    for name in changes:
        top = name.split(".")[0]
        if top not in names and top in Model.__dataclass_fields__:
            raise ConfigError(
                f"{name} is no convention of {'a backbone' if is_backbone else 'weights'}; "
                f"choices: {', '.join(sorted(names))}"
            )


def _recognised(contents: Contents) -> Format:
    for known in FORMATS.values():
        if known.recognises(contents.library, list(contents.arrays)):
            return known
    few = ", ".join(list(contents.arrays)[:4]) or "none"
    raise WeightsError(
        f"expected weights of one of {', '.join(FORMATS)}, found a {contents.library} file of "
        f"{len(contents.arrays)} tensors ({few} ...)"
    )


def _placed(contents: Contents, known: Format) -> dict[str, np.ndarray]:
    """Arrays by place and in TensorFlow's layout."""
    arrays: dict[str, np.ndarray] = {}
    theirs: dict[str, str] = {}
    unknown = []
    for name, array in contents.arrays.items():
        try:
            place = known.place(name)
        except (KeyError, ValueError):  # ValueError: a number without end
            unknown.append(name)
            continue
        if place in arrays:
            raise WeightsError(f"{name} and {theirs[place]} are the same tensor")
        if place is not None:
            arrays[place], theirs[place] = known.array(array), name
    if unknown:
        found = some(sorted(unknown), MOST)
        raise WeightsError(f"expected only tensors of {known.name}, found {found}")
    for place, array in arrays.items():
        if not array.size:
            raise WeightsError(f"expected numbers, found none in {place}")
        # Two vectors that lie across would make a matrix of any size when one is added.
        if array.ndim != 1 and not place.endswith("/kernel"):
            raise WeightsError(f"expected {place} to be a vector, found shape {array.shape}")
    try:
        known.finish(arrays)
    except KeyError as error:
        raise WeightsError(f"expected {error.args[0]}, found none") from None
    except ValueError as error:
        raise WeightsError(f"expected a bias that fits, found {error}") from None
    return arrays


def _check_numbers(arrays: Mapping[str, np.ndarray]) -> None:
    for place, array in arrays.items():
        if not np.isfinite(array).all():
            raise WeightsError(f"expected finite numbers, found others in {place}")
        if place.endswith("moving_variance") and (array < 0).any():
            raise WeightsError(f"expected variances, found negative ones in {place}")


def _structure(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The settings of `Model` that shapes and names tell."""
    stages = [
        len({place.split("/")[1] for place in arrays if place.startswith(f"backbone/layer{i}_")})
        for i in range(1, 5)
    ]
    is_deep = "backbone/layer1_0/conv3/kernel" in arrays
    depths = [
        depth
        for depth, blocks in BLOCKS.items()
        if [*blocks] == stages and (depth >= 50) == is_deep
    ]
    if not depths:
        raise WeightsError(
            f"expected the blocks of a ResNet of {', '.join(map(str, BLOCKS))}, found "
            f"{stages} {'bottlenecks' if is_deep else 'basic blocks'}"
        )
    structure = {"backbone": f"resnet{depths[0]}"}
    if OUTPUT not in arrays:
        return structure

    def channels(place: str, axis: int) -> int:
        if place not in arrays or arrays[place].ndim != 4:
            raise WeightsError(f"expected {place}, a 4-dimensional kernel, found none")
        return arrays[place].shape[axis]

    width = channels("neck/lateral5/kernel", 3)
    from_c5 = channels("neck/p6/kernel", 2) == channels("neck/lateral5/kernel", 2)
    return structure | {
        "neck": "fpn",
        "neck_width": width,
        "p6_from": "c5" if from_c5 else "p5",
        "head_depth": sum(f"class_head/conv{i}/kernel" in arrays for i in range(10)),
        "head_width": channels(OUTPUT, 2),
        "head_norm": "group" if "class_head/norm0/gamma" in arrays else "none",
    }


def _class_names(
    arrays: Mapping[str, np.ndarray], model: Model, known: Format, classes: Sequence[str] | None
) -> tuple[str, ...]:
    """Names of the class outputs. Raises WeightsError asking for --classes if the file has none."""
    num_anchors = build_anchors(model).num_anchors
    outputs, deltas = (
        len(arrays.get(f"{head}/output/bias", ())) for head in ("class_head", "box_head")
    )
    if deltas != 4 * num_anchors or outputs % num_anchors or not outputs:
        raise WeightsError(
            f"expected 4 x {num_anchors} box outputs and a multiple of {num_anchors} class "
            f"outputs, found {deltas} and {outputs}; for other anchors give theirs, e.g. --set "
            "anchors.ratios=0.5,1,2 anchors.scales=1,1.26,1.59"
        )
    count = outputs // num_anchors
    if classes is None:
        classes = (known.classes or {}).get(count)
        if classes is None:
            raise WeightsError(
                f"{count} classes whose names the file does not hold: give them in the "
                "order of the labels (of torchvision the first is the background): python -m "
                "core.weights import FILE --out DIR --classes person,head"
            )
    if len(classes) != count or len(set(classes)) != count:
        raise WeightsError(
            f"expected {count} different class names, found {len(classes)}: {', '.join(classes)}"
        )
    return tuple(classes)


def _fitted(
    arrays: Mapping[str, np.ndarray], model: Model, num_classes: int
) -> dict[str, np.ndarray]:
    """The arrays in the order of the model's variables; there must be one for each, and no more."""
    with tf.Graph().as_default():  # shapes alone: a file's widths could be those of terabytes
        if num_classes:
            built = build_model(model, num_classes)
        else:
            built = build_backbone(model)
            built(tf.zeros([1, 64, 64, 3]))
        variables = by_place(built.variables)
    missing, unused = variables.keys() - arrays.keys(), arrays.keys() - variables.keys()
    if missing or unused:
        raise WeightsError(
            f"expected the tensors of {model.backbone}"
            + (f", found none for {some(sorted(missing), MOST)}" if missing else "")
            + (f", found {some(sorted(unused), MOST)} too" if unused else "")
        )
    for place, variable in variables.items():
        if arrays[place].shape != tuple(variable.shape):
            raise WeightsError(
                f"expected {place} of shape {tuple(variable.shape)}, found {arrays[place].shape}"
            )
    return {place: arrays[place] for place in variables}


def _sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
