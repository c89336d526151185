"""A trained detector: weights and their conventions from one file, images in, detections out.

    from detector import Detector
    detector = Detector.load("runs/shapes")
    table = detector.detect(["street.jpg", "harbour.png"])

What training, evaluate.py, visualize.py and a notebook share. Letters: D detections.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from loguru import logger

import configs
from configs import (
    Config,
    ConfigError,
    adopt,
    assignment,
    completed,
    differences,
    from_dict,
    override,
    to_dict,
)
from configs.schema import Model
from core.build import build_model, build_postprocess
from core.engine import compiled, predict
from core.predictor import frozen
from core.retinanet import RetinaNet
from core.weights.store import DETECTOR, stated
from data.detections import DetectionTable
from data.images import image_size
from data.pipeline import checked, evaluation_batches
from data.records import Dataset, Defects, Record, pack
from data.render import Reader, resample
from utils.checkpoints import Checkpoint, CheckpointError, save_checkpoint
from utils.devices import use_devices
from utils.runs import latest_run, weights_file

# Of a model's conventions, what may differ from the weights' without changing what they mean; where
# they started from is none.
FREE_TO_DETECT = ("resize", "detect", "weights", "aliases")
# Images from which on 5 to 12 s of freezing are won back by some 25 ms an image (ResNet-50 at 416;
# in bfloat16 40 ms), if memory allows 2 GB more: docs/performance.md.
FREEZE_FROM = 400
Step: TypeAlias = Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]  # batch -> detections


class Detector:
    """A model with the conventions it was trained under.

    model: a RetinaNet; classes: names in label order; config: the conventions.
    eager: no compiled graph, so that breakpoints work in every line.
    """

    def __init__(
        self, model: RetinaNet, classes: Sequence[str], config: Model, eager: bool = False
    ):
        self.model, self.classes, self.config, self.eager = model, tuple(classes), config, eager
        self.postprocess = build_postprocess(config)
        self._compiled: Step | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        config: Model | None = None,
        eager: bool = False,
        changes: Mapping[str, Any] | None = None,
    ) -> "Detector":
        """From a run's folder (its best weights) or a checkpoint file.

        config: the conventions, in place of those saved with the weights. They may differ in what
            is `FREE_TO_DETECT`, and what they leave open is as the weights need it; a part of your
            own can only be made from the config that defines it.
        changes: settings of Model by dotted names, laid over either.
        Raises CheckpointError if the file is damaged or holds no detector, ConfigError if `config`
        contradicts it, naming the field, or if it is missing for a part of your own.
        """
        file = weights_file(path)
        checkpoint = Checkpoint(file)
        if "model" not in checkpoint.state:
            raise CheckpointError(f"{file}: no conventions of a detector inside, so it is none")
        saved = completed(Model, checkpoint.state["model"])
        config = adopt(config, stated(DETECTOR, saved)) if config else from_dict(Model, saved)
        config = override(config, changes or {}, "model.")
        for name, wanted, trained in differences(to_dict(config), saved):
            if name.split(".")[0] not in FREE_TO_DETECT:
                raise ConfigError(
                    f"model.{name}: {file} was trained with {trained!r}, the config says {wanted!r}"
                )
        classes = checkpoint.state["classes"]
        model = build_model(config, len(classes), config.detect.precision)
        checkpoint.restore("model", model.variables)
        return cls(model, classes, config, eager)

    @property
    def conventions(self) -> dict:
        """What travels with the weights, JSON-ready."""
        return {"model": to_dict(self.config), "classes": list(self.classes)}

    def save(self, path: str | Path) -> None:
        save_checkpoint(path, {"model": self.model.variables}, self.conventions)

    def detect(self, images: Sequence[str | Path], batch_size: int = 4) -> DetectionTable:
        """Detections of image files, in their own pixels. Raises DatasetError for a bad file."""
        return self.detect_dataset(unlabelled(images, self.classes), batch_size)

    def detect_dataset(self, dataset: Dataset, batch_size: int = 4) -> DetectionTable:
        """Detections of a dataset's images, in their own pixels."""
        batches = evaluation_batches(dataset, self.config.resize, batch_size=batch_size)
        step = self._predictor(batches.element_spec, len(dataset))
        found = ((batch["index"], step(batch)) for batch in checked(batches))
        return gather_detections(found, dataset.image_ids, self.classes)

    def detect_arrays(self, images: Sequence[np.ndarray], batch_size: int = 4) -> DetectionTable:
        """Detections of images in memory, in their own pixels; their ids are "0", "1" ...

        images: (H, W, 3) uint8 RGB each, of any sizes.
        What `detect` says of the same pixels in a file, to the bit; only a file that was decoded at
        a reduced size (a JPEG of twice the input's sides or more) or turned by its EXIF orientation
        is resized in other steps. Raises ValueError for no image, another shape or another type.
        """
        return self.array_detector(len(images), batch_size)(images)

    def array_detector(
        self, num_images: int, batch_size: int = 4
    ) -> Callable[[Sequence[np.ndarray]], DetectionTable]:
        """`detect_arrays` for many calls, as on a video; num_images: how many they are to be."""
        step: Step | None = None

        def detect(images: Sequence[np.ndarray]) -> DetectionTable:
            nonlocal step
            dataset, read = in_memory(images, self.classes)
            rule = self.config.resize
            batches = evaluation_batches(dataset, rule, batch_size=batch_size, read=read)
            step = step or self._predictor(batches.element_spec, num_images)
            found = [(batch["index"], step(batch)) for batch in batches]
            return gather_detections(found, dataset.image_ids, self.classes)

        return detect

    def _predictor(self, element_spec: dict[str, tf.TensorSpec], num_images: int) -> Step:
        """Batch -> detections: compiled once and for all weights, or frozen with the present."""
        flip, scales = self.config.detect.flip, self.config.detect.scales

        def step(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return predict(self.model, self.postprocess, batch, flip=flip, scales=scales)

        # Kernels used at several scales do not take batch norms in: nothing is won by freezing.
        is_worth_it = num_images >= FREEZE_FROM and len(scales) == 1
        if is_worth_it and not self.eager:
            return frozen(step, self.model, element_spec)
        if self._compiled is None:
            self._compiled = compiled(step, element_spec, self.eager)
        return self._compiled


def open_detector(
    weights: str | Path | None,
    config_file: str | Path | None,
    overrides: Sequence[str],
    eager: bool = False,
) -> tuple[Path, Config, Detector]:
    """What a command line means: the run's folder, the config for the data, and the detector.

    weights: a run or a checkpoint; None: the latest run of the config.
    config_file: None: the run's own config.json, or config.py where it has none.
    overrides: "section.field=value" changes of that config. Of the model, only what is
        `FREE_TO_DETECT` may differ from what the weights were trained with.
    Raises ConfigError, CheckpointError or ValueError for what does not fit or is not there.
    """
    use_devices()
    if weights is None:
        config = configs.load(config_file or "config.py")
        weights = latest_run(config.output, config.name)
    file = weights_file(weights)
    run = file.parents[1] if file.parent.name == "checkpoints" else file.parent
    own = run / "config.json"
    path = config_file or (own if own.is_file() else "config.py")
    if config_file:
        config = configs.load(path, overrides)
        detector = Detector.load(file, config.model, eager)
    else:  # of the model the weights say all; config.py may only know which data to read
        ours = [item for item in overrides if item.startswith("model.")]
        config = configs.load(path, [item for item in overrides if item not in ours])
        changes = dict(assignment(item.removeprefix("model.")) for item in ours)
        detector = Detector.load(file, None, eager, changes)
    is_about = config_file or own.is_file()
    if is_about and config.data.classes and config.data.classes != detector.classes:
        raise ConfigError(
            f"data.classes: {file} knows {list(detector.classes)}, "
            f"{path} says {list(config.data.classes)}"
        )
    logger.info("weights {}, config {}", file, path)
    return run, config, detector


def gather_detections(
    found: Iterable[tuple[tf.Tensor, dict[str, tf.Tensor]]],
    image_ids: Sequence[str],
    classes: Sequence[str],
) -> DetectionTable:
    """(image indices (B,), output of `Postprocess`) of each batch -> one table, padding dropped."""
    columns: dict[str, list[np.ndarray]] = {"image": [], "boxes": [], "scores": [], "labels": []}
    for index, detections in found:
        counts = detections["counts"].numpy()
        is_real = np.arange(detections["scores"].shape[1]) < counts[:, None]
        columns["image"].append(np.repeat(index.numpy(), counts))
        for name in ("boxes", "scores", "labels"):
            columns[name].append(detections[name].numpy()[is_real])
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    return DetectionTable(image_ids=tuple(image_ids), classes=tuple(classes), **arrays)


def unlabelled(images: Sequence[str | Path], classes: Sequence[str]) -> Dataset:
    """Image files as a dataset without objects; ids are the paths."""
    return _without_objects(map(str, images), map(image_size, images), classes)


def in_memory(images: Sequence[np.ndarray], classes: Sequence[str]) -> tuple[Dataset, Reader]:
    """Images (H, W, 3) uint8 RGB as a dataset without objects, and what reads it in place of files.

    Raises ValueError for no image, another shape or another type.
    """
    for index, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            found = f"{image.shape} {image.dtype}"
            raise ValueError(f"image {index}: expected (H, W, 3) uint8, found {found}")

    def read(
        index: int, source: np.ndarray, size: np.ndarray, antialias: bool, kept: int
    ) -> np.ndarray:
        return resample(np.ascontiguousarray(images[index]), size, antialias)

    sizes = [(image.shape[1], image.shape[0]) for image in images]
    return _without_objects(map(str, range(len(images))), sizes, classes), read


def _without_objects(
    names: Iterable[str], sizes: Iterable[tuple[int, int]], classes: Sequence[str]
) -> Dataset:
    nothing = {
        "boxes": np.zeros([0, 4], np.float32),
        "labels": np.zeros(0, np.int32),
        "difficult": np.zeros(0, bool),
    }
    records = [
        Record(name, name, width, height, **nothing)
        for name, (width, height) in zip(names, sizes, strict=True)
    ]
    return pack("images", classes, records, Defects())
