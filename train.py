"""Trains a detector: config -> data -> model -> phases of epochs -> the run's folder.

    python train.py                                            as config.py says
    python train.py --config configs/voc.py --set train.epochs=20 --set model.backbone=resnet18
    python train.py --resume runs/voc                          goes on where the run was stopped
    python train.py --eager                                    breakpoints work in every line

A run leaves in <output>/<name>: config.json, diary.log, metrics.csv, curves.png, tensorboard/,
checkpoints/ (best and last), samples/, evaluation/. The last line printed is the headline.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from loguru import logger

import configs
from configs import Config, ConfigError
from core.build import build_anchors, build_criterion, build_model, build_optimizer, build_schedule
from core.engine import compiled, train_step, validation_step
from core.targets import best_overlaps
from data.datasets import prepare, read_split
from data.detections import DetectionTable
from data.pipeline import checked, evaluation_batches, steps_per_epoch, training_batches
from data.records import Dataset
from data.resize import fitted_size
from detector import Detector, gather_detections
from evaluate import headline, mean_ap, score, show, summarize, write_all, write_text
from utils.checkpoints import Checkpoint, save_checkpoint
from utils.diary import diary, progress_bar, versions
from utils.draw import contact_sheet, write_image
from utils.plots import training_curves
from utils.runs import MetricsFile, StopSignal, new_run
from visualize import with_truth

PARTS = ("backbone", "neck", "class_head", "box_head")
SCALARS = ("loss", "class_loss", "box_loss", "positives")
SIZES = (16, 32, 64, 128)  # pixels at the network's input: limits of the diary's size classes


@dataclass
class Progress:
    """How far a run has come: all that a checkpoint needs beside the variables."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done in the epoch after them
    sums: list[float] = field(default_factory=lambda: [0.0] * len(SCALARS))  # over those steps
    best: float = -1.0  # mAP of the best validation
    best_epoch: int = 0
    stale: int = 0  # validations since


def main(argv: list[str] | None = None) -> float:
    """Runs the command line; returns the headline's mAP. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    run, config, checkpoint = open_run(args)
    with diary(run / "diary.log"), StopSignal() as stop:
        return train(run, config, checkpoint, stop)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", help="default: config.py, or that of the run resumed")
    parser.add_argument(
        "--set", nargs="*", default=[], action="extend", metavar="FIELD=VALUE", dest="overrides"
    )
    parser.add_argument("--resume", metavar="RUN", help="the folder of a run that was stopped")
    parser.add_argument("--eager", action="store_true", help="no compiled graph, for breakpoints")
    args = parser.parse_args(argv)
    if args.resume and args.overrides:
        parser.error("a resumed run keeps its settings: --set does not go with --resume")
    return args


def open_run(args: argparse.Namespace) -> tuple[Path, Config, Checkpoint | None]:
    """The run's folder, its config, and where it was stopped, if it was.

    Raises ConfigError where a config given for a resumed run is not the one it was started with.
    """
    if args.resume:
        run = Path(args.resume)
        config = configs.load(args.config or run / "config.json")
        saved = json.loads((run / "config.json").read_text(encoding="utf-8"))
        wanted = configs.to_dict(config)
        for section in saved:
            if wanted[section] != saved[section]:
                raise ConfigError(
                    f"{section}: {run} was started with {saved[section]!r}, "
                    f"{args.config} says {wanted[section]!r}"
                )
        last = run / "checkpoints" / "last.npz"
        checkpoint = Checkpoint(last) if last.is_file() else None
    else:
        config = configs.load(args.config or "config.py", args.overrides)
        run = new_run(config.output, config.name)
        write_text(run / "config.json", json.dumps(configs.to_dict(config), indent=1))
        checkpoint = None
    if args.eager:
        config = configs.override(config, {"train.eager": True})
    return run, config, checkpoint


def train(run: Path, config: Config, checkpoint: Checkpoint | None, stop: StopSignal) -> float:
    """The training run, from the first image read to the headline."""
    settings = config.train
    devices = use_devices()

    # ---- Data and model ----------------------------------------------------------------------
    classes = prepare(config.data)
    train_set = read_split(config.data, config.data.train, classes)
    val_set = read_split(config.data, config.data.val, classes)
    keras.utils.set_random_seed(settings.seed)
    model = build_model(config.model, len(classes), settings.precision)
    detector = Detector(model, classes, config.model, settings.eager)
    criterion = build_criterion(config)
    describe(config, devices, train_set, val_set, model)

    # ---- Where it was stopped ----------------------------------------------------------------
    progress = Progress()
    if checkpoint:
        if checkpoint.state["classes"] != list(classes):
            raise ValueError(
                f"{run}: was trained on the classes {checkpoint.state['classes']}, "
                f"the data has {list(classes)}"
            )
        checkpoint.restore("model", model.weights)
        progress = Progress(**checkpoint.state["progress"])
        logger.info("resumed after epoch {}, step {}", progress.epoch, progress.step)
    metrics = MetricsFile(run / "metrics.csv", progress.epoch)
    board = tf.summary.create_file_writer(str(run / "tensorboard"))
    validate = make_validation(detector, criterion, val_set, config)
    best_table = None
    num_epochs = sum(phase.epochs for phase in settings.all_phases())

    # ---- Phases ------------------------------------------------------------------------------
    first_epoch = 0
    for phase in settings.all_phases():
        epochs = range(first_epoch, first_epoch + phase.epochs)
        first_epoch = epochs.stop
        if progress.epoch >= epochs.stop:
            continue
        for part in PARTS:
            getattr(model, part).trainable = part not in phase.freeze
        steps = steps_per_epoch(train_set, phase.batch_size)
        schedule = build_schedule(phase, steps * phase.epochs)
        optimizer = build_optimizer(config, schedule, model)
        done = (progress.epoch - epochs.start) * steps + progress.step
        if done:
            checkpoint.restore("optimizer", optimizer.variables)
        batches = training_batches(
            train_set,
            config.data,
            config.model.resize,
            batch_size=phase.batch_size,
            seed=settings.seed,
            epochs=range(progress.epoch, epochs.stop),
            skip_steps=progress.step,
        )
        step = compiled(
            lambda batch, optimizer=optimizer: train_step(model, criterion, optimizer, batch),
            batches.element_spec,
            settings.eager,
        )
        stream = iter(checked(batches))
        saved = {"model": model.weights, "optimizer": optimizer.variables}
        window = LossWindow(
            train_set, progress, steps, 1 if devices == "CPU" else settings.log_every
        )

        # ---- Epochs --------------------------------------------------------------------------
        for epoch in range(progress.epoch, epochs.stop):
            start, waited, first_step = time.perf_counter(), 0.0, progress.step
            with progress_bar() as bar:
                task = bar.add_task(f"epoch {epoch + 1}/{num_epochs}", total=steps, text="")
                while progress.step < steps and not stop.received:
                    before = time.perf_counter()
                    batch = next(stream)
                    waited += time.perf_counter() - before
                    window.add(step(batch), batch["index"])
                    progress.step += 1
                    if window.is_read or progress.step == steps:
                        seconds = time.perf_counter() - start
                        speed = (progress.step - first_step) * phase.batch_size / seconds
                        with tf.device("CPU"):  # on a GPU this would wait for the step
                            rate = float(schedule((epoch - epochs.start) * steps + progress.step))
                        text = (
                            f"{window} lr {rate:.2g} {speed:.1f} img/s data {waited / seconds:.0%}"
                        )
                        bar.update(task, completed=progress.step, text=text)
            window.read()
            state = detector.conventions | {"progress": asdict(progress)}
            if stop.received:
                save_checkpoint(run / "checkpoints" / "last.npz", saved, state)
                logger.warning("{}: saved; go on with --resume {}", stop.received, run)
                sys.exit(143 if stop.received == "SIGTERM" else 130)

            # ---- After an epoch --------------------------------------------------------------
            means = dict(zip(SCALARS, np.array(progress.sums) / steps, strict=True))
            progress.epoch, progress.step, progress.sums = epoch + 1, 0, [0.0] * len(SCALARS)
            row = {"epoch": epoch + 1, "learning_rate": rate, **means}
            row |= {"images_per_second": speed, "data_wait": waited / seconds}
            row |= {f"val_{name}": "" for name in (*SCALARS, "map")}
            every, is_last = settings.validate_every, epoch + 1 == num_epochs
            if is_last or (every and (epoch + 1) % every == 0):
                losses, table = validate()
                row |= {f"val_{name}": value for name, value in losses.items()}
                row["val_map"] = mean_ap(score(table, val_set, config), config)
                progress.stale += 1
                if row["val_map"] > progress.best:
                    progress.best, progress.best_epoch = row["val_map"], epoch + 1
                    progress.stale, best_table = 0, table
                    detector.save(run / "checkpoints" / "best.npz")
                write_samples(run, board, epoch + 1, val_set, table, settings.sample_pictures)
            logger.info(describe_epoch(row, optimizer, (epoch + 1 - epochs.start) * steps))
            metrics.add(row)
            write_scalars(board, row)
            state["progress"] = asdict(progress)
            is_over = bool(settings.early_stopping) and progress.stale >= settings.early_stopping
            if is_last or is_over or (epoch + 1) % settings.checkpoint_every == 0:
                save_checkpoint(run / "checkpoints" / "last.npz", saved, state)
            if is_over:
                logger.info("no better mAP in {} validations: ended early", progress.stale)
                break
        if is_over:
            break

    # ---- The end -----------------------------------------------------------------------------
    if best_table is None:
        Checkpoint(run / "checkpoints" / "best.npz").restore("model", model.weights)
        best_table = detector.detect_dataset(val_set, config.evaluate.batch_size)
    training_curves(run / "curves.png", metrics.columns())
    result = score(best_table, val_set, config)
    report = summarize(result, best_table, val_set, config)
    write_all(run / "evaluation", config.data.val, result, report, best_table, val_set)
    show(result, val_set, config)
    logger.info("best epoch {} of {}; everything in {}", progress.best_epoch, num_epochs, run)
    print(headline(result, config), flush=True)
    return report["map"]


def use_devices() -> str:
    """Lets GPUs take memory as they need it; returns the names of what will be computed on."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    return ", ".join(map(str, names)) or "CPU"


class LossWindow:
    """The losses of the last steps, left on the device until `every` of them are there.

    Reading waits for the device, so on a GPU it is done once in a while; on a CPU it costs nothing.
    Raises FloatingPointError for a loss that is not finite, naming step and image files.
    """

    def __init__(self, dataset: Dataset, progress: Progress, steps: int, every: int):
        self.dataset, self.progress, self.steps, self.every = dataset, progress, steps, every
        self.waiting: list[tuple] = []
        self.latest = dict.fromkeys(SCALARS, float("nan"))

    def add(self, losses: dict, index: tf.Tensor) -> None:
        self.waiting.append((self.progress.step, losses, index))
        if len(self.waiting) >= self.every:
            self.read()

    @property
    def is_read(self) -> bool:
        return not self.waiting

    def read(self) -> None:
        for step, losses, index in self.waiting:
            self.latest = {name: float(losses[name]) for name in SCALARS}
            if not np.isfinite(list(self.latest.values())).all():
                files = [self.dataset.images[i] for i in index.numpy()]
                raise FloatingPointError(
                    f"epoch {self.progress.epoch + 1}, step {step + 1} of {self.steps}: expected "
                    f"finite losses, found {self.latest}, from {', '.join(files)}. "
                    "checkpoints/last.npz is from before; a lower train.learning_rate, more "
                    "train.warmup_steps or train.clip_norm may help"
                )
            values = self.latest.values()
            self.progress.sums = [a + b for a, b in zip(self.progress.sums, values, strict=True)]
        self.waiting = []

    def __str__(self) -> str:
        return "loss {loss:.3f} = class {class_loss:.3f} + box {box_loss:.3f}".format(**self.latest)


def make_validation(detector: Detector, criterion, dataset: Dataset, config: Config):
    """A function without arguments -> mean losses by name, detections of the whole split."""
    size = config.evaluate.batch_size
    batches = evaluation_batches(dataset, config.model.resize, batch_size=size)
    step = compiled(
        lambda batch: validation_step(detector.model, criterion, detector.postprocess, batch),
        batches.element_spec,
        config.train.eager,
    )

    def validate() -> tuple[dict[str, float], DetectionTable]:
        sums = dict.fromkeys(SCALARS, 0.0)
        found = []
        for batch in checked(batches):
            losses, detections = step(batch)
            found.append((batch["index"], detections))
            for name in SCALARS:  # weighted, because the last batch may be smaller
                sums[name] += float(losses[name]) * len(batch["index"])
        means = {name: value / len(dataset) for name, value in sums.items()}
        return means, gather_detections(found, dataset.image_ids, dataset.classes)

    return validate


# ------------------------------------------------------------------------------------------------
# What the diary says
# ------------------------------------------------------------------------------------------------


def describe(config: Config, devices: str, train_set: Dataset, val_set: Dataset, model) -> None:
    """Writes to the diary what a run is, before its first step."""
    logger.debug("config {}", json.dumps(configs.to_dict(config)))
    logger.info("{}; device {}; {}", versions(), devices, config.train.precision)
    for dataset in (train_set, val_set):
        counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
        objects = ", ".join(f"{name} {n}" for name, n in zip(dataset.classes, counts, strict=True))
        empty = int((np.diff(dataset.row_splits) == 0).sum())
        logger.info(
            "{}: {} images ({} without objects), {} objects ({} difficult): {}",
            dataset.name, len(dataset), empty, len(dataset.labels), int(dataset.difficult.sum()),
            objects,
        )  # fmt: skip
        for kind, count in dataset.defects.counts().items():
            logger.warning("{}: {} x {}; each is in diary.log", dataset.name, count, kind)
        for kind, message in dataset.defects.messages:
            logger.debug("{}: {}", kind, message)
    logger.info(anchor_coverage(train_set, config))
    logger.info("{} parameters", f"{model.count_params():,}")


def anchor_coverage(dataset: Dataset, config: Config) -> str:
    """Which share of the objects has an anchor at the positive IoU, by size, in one line.

    An object without one is never learnt unless matcher.low_quality is on. At most 5,000 objects
    are looked at.
    """
    rows = np.linspace(0, len(dataset.labels) - 1, min(len(dataset.labels), 5000)).astype(int)
    sizes = fitted_size(dataset.sizes[:, 1], dataset.sizes[:, 0], config.model.resize).numpy()
    scales = sizes[:, [1, 0, 1, 0]] / dataset.sizes[:, [0, 1, 0, 1]]
    boxes = (dataset.boxes * scales[dataset.image_index])[rows].astype(np.float32)
    anchors = build_anchors(config.model)(*(int(side) for side in sizes.max(axis=0)))
    covered = best_overlaps(anchors, tf.constant(boxes)).numpy() >= config.matcher.positive_iou
    side = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    group = np.digitize(side, SIZES)
    limits = ["0", *map(str, SIZES), "inf"]
    shares = [
        f"{limits[i]}-{limits[i + 1]} px {covered[group == i].mean():.1%} of {(group == i).sum()}"
        for i in range(len(SIZES) + 1)
        if (group == i).any()
    ]
    total = f"{covered.mean():.1%}" if len(covered) else "no objects"
    return f"anchor coverage at IoU {config.matcher.positive_iou}: {total} ({', '.join(shares)})"


def describe_epoch(row: dict, optimizer, steps: int) -> str:
    """An epoch in one line of the diary."""
    parts = [
        f"epoch {row['epoch']}",
        "loss {loss:.4f} = class {class_loss:.4f} + box {box_loss:.4f}".format(**row),
        f"{row['positives']:.1f} positives a batch",
        f"lr {row['learning_rate']:.3g}",
        f"{row['images_per_second']:.1f} images/s",
        f"data wait {row['data_wait']:.0%}",
    ]
    if row["val_map"] != "":
        parts.append(f"val loss {row['val_loss']:.4f}, mAP {row['val_map']:.4f}")
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        scale, applied = float(optimizer.dynamic_scale), int(optimizer.inner_optimizer.iterations)
        parts.append(f"{steps - applied} overflow steps skipped, loss scale {scale:g}")
        if scale < 1:
            raise FloatingPointError(f"{parts[-1]}: float16 cannot hold these gradients")
    return ", ".join(parts)


def write_scalars(board, row: dict) -> None:
    with board.as_default(step=row["epoch"]):
        for name, value in row.items():
            if name != "epoch" and value != "":
                prefix = "validation" if name.startswith("val_") else "training"
                tf.summary.scalar(f"{prefix}/{name.removeprefix('val_')}", value)
    board.flush()


def write_samples(
    run: Path, board, epoch: int, dataset: Dataset, table: DetectionTable, count: int
) -> None:
    """The first images of a split, truth beside detections, as a file and in TensorBoard."""
    if not count:
        return
    pictures = [with_truth(dataset, i, table) for i in range(min(count, len(dataset)))]
    height, width = np.max([picture.shape[:2] for picture in pictures], axis=0)
    sheet = contact_sheet(pictures, columns=1, cell=(min(height, 480), min(width, 1280)))
    write_image(run / "samples" / f"epoch_{epoch:04d}.png", sheet)
    with board.as_default(step=epoch):
        tf.summary.image("validation/samples", sheet[None])


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
