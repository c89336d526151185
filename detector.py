"""A trained detector: weights and their conventions from one file, images in, detections out.

    from detector import Detector
    detector = Detector.load("runs/shapes")
    table = detector.detect(["street.jpg", "harbour.png"])

What training, evaluate.py, visualize.py and a notebook share. Letters: D detections.
"""

import functools
import importlib.util
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

if _strangers := [  # the imports below would fail somewhere deep inside
    f"{name} from {file}"
    for name in ("configs", "core", "data", "utils")
    if (file := getattr(importlib.util.find_spec(name), "origin", None)) is None
    or Path(file).resolve() != (Path(__file__).parent / name / "__init__.py").resolve()
]:
    raise ImportError(
        f"detector.py: expected the packages of {Path(__file__).resolve().parent}, found "
        f"{', '.join(_strangers)}: put that folder first on sys.path before anything imports what "
        "has the same name, or use deploy/exported.py, which needs no other file"
    )

import numpy as np
import tensorflow as tf
from loguru import logger

import configs
from configs import (
    Config,
    ConfigError,
    adopt,
    assignment,
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
from core.weights.npz_files import DETECTOR, conventions_of, stated
from data.images.render import Reader
from data.inputs import unlabelled
from data.pipeline import detection_batches, detection_spec
from data.records import Dataset
from utils.checkpoints import Checkpoint, save_checkpoint
from utils.detections import DetectionTable
from utils.devices import use_devices
from utils.runs import latest_run, weights_file

# Of a model's conventions, what may differ from the weights' without changing what they mean; where
# they started from is none.
FREE_TO_DETECT = ("resize", "detect", "weights", "aliases", "bits")
# Images from which on 5 to 12 s of freezing are won back by some 35 ms an image (ResNet-50 at 416,
# bfloat16; float32 gains nothing), if memory allows 2 GB more: docs/performance.md.
FREEZE_FROM = 400
Step: TypeAlias = Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]  # batch -> detections


class ForkedProcessError(RuntimeError):
    """A detector in a process that was forked from one with a detector, where it would hang."""


@functools.cache
def first_process() -> int:
    """The id of the process that asked first; one forked from it hears the same."""
    return os.getpid()


def require_own_process() -> None:
    """Raises ForkedProcessError where TensorFlow's threads were left behind in the parent."""
    if os.getpid() != first_process():
        raise ForkedProcessError(
            f"process {os.getpid()} was forked from {first_process()}, which had made a detector "
            "already: TensorFlow would hang here; start processes by "
            'multiprocessing.get_context("spawn"), or "forkserver", and load the detector in each'
        )


class Detector:
    """A model with the conventions it was trained under.

    model: a RetinaNet; classes: names in label order; config: the conventions.
    eager: no compiled graph, so that breakpoints work in every line.
    """

    def __init__(
        self, model: RetinaNet, classes: Sequence[str], config: Model, eager: bool = False
    ):
        require_own_process()
        self.model, self.classes, self.config, self.eager = model, tuple(classes), config, eager
        self.postprocess = build_postprocess(config)
        self._compiled: Step | None = None
        self._lock = threading.Lock()

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
        require_own_process()
        file = weights_file(path)
        checkpoint = Checkpoint(file)
        saved, classes = conventions_of(checkpoint)
        if config:
            config = adopt(config, stated(DETECTOR, saved))
        else:
            config = from_dict(Model, saved, f"{file}: model")
        config = override(config, changes or {}, "model.")
        for name, wanted, trained in differences(to_dict(config), saved):
            if name.split(".")[0] not in FREE_TO_DETECT:
                raise ConfigError(
                    f"model.{name}: {file} was trained with {trained!r}, the config says {wanted!r}"
                )
        model = build_model(config, len(classes), config.detect.precision)
        checkpoint.restore("model", model.variables)
        return cls(model, classes, config, eager)

    @property
    def conventions(self) -> dict:
        """What travels with the weights, JSON-ready."""
        return {"model": to_dict(self.config), "classes": list(self.classes)}

    def save(self, path: str | Path) -> None:
        require_own_process()
        save_checkpoint(path, {"model": self.model.variables}, self.conventions)

    def detect(self, images: Any, batch_size: int = 4) -> DetectionTable:
        """Detections of one image or several, in their own pixels.

        images: a path, a (H, W, 3) uint8 RGB or a (H, W) grey array, or an image of PIL; or a list
            of these, mixed as you like, or whatever else can be iterated. An image's id in the
            table is its path, or its place among them.
        The same pixels give the same detections to the bit, however they come; only a file that is
        decoded at a reduced size (a JPEG of twice the input's sides or more), or an array that was
        turned by an EXIF orientation before, is resized in other steps.
        Raises ValueError for what is no image, DatasetError for a bad file.
        """
        dataset, read = unlabelled(images, self.classes, self.config.bits)
        return self._detect(dataset, batch_size, self._predictor(len(dataset)), read)

    def detect_dataset(self, dataset: Dataset, batch_size: int = 4) -> DetectionTable:
        """Detections of a dataset's images, in their own pixels."""
        dataset = replace(dataset, bits=self.config.bits)
        return self._detect(dataset, batch_size, self._predictor(len(dataset)))

    def detect_arrays(self, images: Sequence[np.ndarray], batch_size: int = 4) -> DetectionTable:
        """`detect`, of images in memory; their ids are "0", "1" ..."""
        return self.detect(images, batch_size)

    def array_detector(self, num_images: int, batch_size: int = 4) -> Callable[..., DetectionTable]:
        """`detect` for many calls, as on a video; num_images: how many they are to be.

        The graph is prepared once for all of them, and in half precision from `FREEZE_FROM` images
        on has the weights of this moment built in.
        """
        step = self._predictor(num_images)

        def detect(images: Any) -> DetectionTable:
            dataset, read = unlabelled(images, self.classes, self.config.bits)
            return self._detect(dataset, batch_size, step, read)

        return detect

    def _detect(
        self, dataset: Dataset, batch_size: int, step: Step, read: Reader | None = None
    ) -> DetectionTable:
        require_own_process()
        batches = detection_batches(dataset, self.config.resize, batch_size=batch_size, read=read)
        found = (
            (batch.pop("index"), step({name: tf.constant(array) for name, array in batch.items()}))
            for batch in batches
        )
        return gather_detections(found, dataset.image_ids, self.classes)

    def _predictor(self, num_images: int) -> Step:
        """Batch -> detections: compiled once and for all weights, or frozen with the present."""
        require_own_process()
        spec = detection_spec(self.config.resize)
        flip, scales = self.config.detect.flip, self.config.detect.scales

        def step(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return predict(self.model, self.postprocess, batch, flip=flip, scales=scales)

        # Kernels used at several scales do not take batch norms in: nothing is won by freezing.
        is_half = self.model.compute_dtype != "float32"
        is_worth_it = is_half and num_images >= FREEZE_FROM and len(scales) == 1
        with self._lock:  # of threads that come together one makes the graph
            if is_worth_it and not self.eager:
                return frozen(step, self.model, spec)
            if self._compiled is None:
                self._compiled = compiled(step, spec, self.eager)
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
    require_own_process()
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
    found: Iterable[tuple[np.ndarray, dict[str, tf.Tensor]]],
    image_ids: Sequence[str],
    classes: Sequence[str],
) -> DetectionTable:
    """(image indices (B,), output of `Postprocess`) of each batch -> one table, padding dropped."""
    columns: dict[str, list[np.ndarray]] = {"image": [], "boxes": [], "scores": [], "labels": []}
    for index, detections in found:
        counts = detections["counts"].numpy()
        is_real = np.arange(detections["scores"].shape[1]) < counts[:, None]
        columns["image"].append(np.repeat(index, counts))
        for name in ("boxes", "scores", "labels"):
            columns[name].append(detections[name].numpy()[is_real])
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    return DetectionTable(image_ids=tuple(image_ids), classes=tuple(classes), **arrays)
