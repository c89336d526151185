"""A file of another project -> `Weights`: recognised, renamed, checked; nothing is written here."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from configs.checked import ConfigError, adopt, override, to_dict
from configs.schema import Model
from core.backbones.resnet import BLOCKS
from core.build import build_anchors, build_backbone, build_model
from core.weights import keras_applications, keras_retinanet, torchvision, yhenon
from core.weights.files import Contents, WeightsError, read_file
from core.weights.names import Format
from core.weights.store import BACKBONE, DETECTOR, OF_BACKBONE, Weights, stated

FORMATS = {
    known.name: known
    for known in (
        torchvision.RETINANET,
        yhenon.RETINANET,
        torchvision.RESNET,  # after the detectors that have its names, too
        keras_retinanet.RETINANET,
        keras_applications.RESNET,
    )
}
OUTPUT = "class_head/output/kernel"  # a file without it is a backbone alone


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
    known = _format(contents, format_name)
    arrays = _placed(contents, known)
    _check_numbers(path, arrays)
    try:
        structure = Model(**_structure(path, arrays))
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from None
    model = adopt(structure, known.conventions(arrays, contents.listed))
    _check_changes(changes or {}, is_backbone=OUTPUT not in arrays)
    model = override(model, changes or {})
    names: tuple[str, ...] = ()
    if OUTPUT in arrays:
        names = _class_names(path, arrays, model, known, classes)
    elif classes:
        raise WeightsError(f"{path}: holds a backbone alone, which has no classes")
    arrays = _fitted(path, arrays, model, len(names))
    origin = {"file": Path(path).name, "format": known.name, "sha256": _sha256(path)}
    model = stated(DETECTOR if names else BACKBONE, to_dict(model))
    return Weights(Path(path), arrays, model, names, origin)


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


def _format(contents: Contents, name: str | None) -> Format:
    if name is not None:
        if name not in FORMATS:
            raise WeightsError(f"format: expected one of {', '.join(FORMATS)}, found {name!r}")
        return FORMATS[name]
    for known in FORMATS.values():
        if known.recognises(contents.library, list(contents.arrays)):
            return known
    some = ", ".join(list(contents.arrays)[:4]) or "none"
    raise WeightsError(
        f"{contents.path}: expected weights of one of {', '.join(FORMATS)}, found a "
        f"{contents.library} file of {len(contents.arrays)} tensors ({some} ...)"
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
            raise WeightsError(f"{contents.path}: {name} and {theirs[place]} are the same tensor")
        if place is not None:
            arrays[place], theirs[place] = known.array(array), name
    if unknown:
        raise WeightsError(
            f"{contents.path}: expected only tensors of {known.name}, found {_some(unknown)}"
        )
    for place, array in arrays.items():
        if not array.size:
            raise WeightsError(f"{contents.path}: expected numbers, found none in {place}")
        # Two vectors that lie across would make a matrix of any size when one is added.
        if array.ndim != 1 and not place.endswith("/kernel"):
            raise WeightsError(
                f"{contents.path}: expected {place} to be a vector, found shape {array.shape}"
            )
    try:
        known.finish(arrays)
    except KeyError as error:
        raise WeightsError(f"{contents.path}: expected {error.args[0]}, found none") from None
    except ValueError as error:
        raise WeightsError(f"{contents.path}: expected a bias that fits, found {error}") from None
    return arrays


def _check_numbers(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    for place, array in arrays.items():
        if not np.isfinite(array).all():
            raise WeightsError(f"{path}: expected finite numbers, found others in {place}")
        if place.endswith("moving_variance") and (array < 0).any():
            raise WeightsError(f"{path}: expected variances, found negative ones in {place}")


def _structure(path: str | Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
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
            f"{path}: expected the blocks of a ResNet of {', '.join(map(str, BLOCKS))}, found "
            f"{stages} {'bottlenecks' if is_deep else 'basic blocks'}"
        )
    structure = {"backbone": f"resnet{depths[0]}"}
    if OUTPUT not in arrays:
        return structure

    def channels(place: str, axis: int) -> int:
        if place not in arrays or arrays[place].ndim != 4:
            raise WeightsError(f"{path}: expected {place}, a 4-dimensional kernel, found none")
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
    path: str | Path,
    arrays: Mapping[str, np.ndarray],
    model: Model,
    known: Format,
    classes: Sequence[str] | None,
) -> tuple[str, ...]:
    """Names of the class outputs. Raises WeightsError asking for --classes if the file has none."""
    num_anchors = build_anchors(model).num_anchors
    outputs, deltas = (
        len(arrays.get(f"{head}/output/bias", ())) for head in ("class_head", "box_head")
    )
    if deltas != 4 * num_anchors or outputs % num_anchors or not outputs:
        raise WeightsError(
            f"{path}: expected 4 x {num_anchors} box outputs and a multiple of {num_anchors} class "
            f"outputs, found {deltas} and {outputs}; for other anchors give theirs, e.g. --set "
            "anchors.ratios=0.5,1,2 anchors.scales=1,1.26,1.59"
        )
    count = outputs // num_anchors
    if classes is None:
        classes = (known.classes or {}).get(count)
        if classes is None:
            raise WeightsError(
                f"{path}: {count} classes whose names the file does not hold: give them in the "
                "order of the labels (of torchvision the first is the background): python -m "
                "core.weights import FILE --out DIR --classes person,head"
            )
    if len(classes) != count or len(set(classes)) != count:
        raise WeightsError(
            f"{path}: expected {count} different class names, found {len(classes)}: "
            f"{', '.join(classes)}"
        )
    return tuple(classes)


def _fitted(
    path: str | Path, arrays: Mapping[str, np.ndarray], model: Model, num_classes: int
) -> dict[str, np.ndarray]:
    """The arrays in the order of the model's variables; there must be one for each, and no more."""
    with tf.Graph().as_default():  # shapes alone: a file's widths could be those of terabytes
        if num_classes:
            variables = build_model(model, num_classes).variables
            variables = {variable.path.split("/", 1)[1]: variable for variable in variables}
        else:
            backbone = build_backbone(model)
            backbone(tf.zeros([1, 64, 64, 3]))
            variables = {variable.path: variable for variable in backbone.variables}
    missing, unused = variables.keys() - arrays.keys(), arrays.keys() - variables.keys()
    if missing or unused:
        raise WeightsError(
            f"{path}: expected the tensors of {model.backbone}"
            + (f", found none for {_some(missing)}" if missing else "")
            + (f", found {_some(unused)} too" if unused else "")
        )
    for place, variable in variables.items():
        if arrays[place].shape != tuple(variable.shape):
            raise WeightsError(
                f"{path}: expected {place} of shape {tuple(variable.shape)}, found "
                f"{arrays[place].shape}"
            )
    return {place: arrays[place] for place in variables}


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
