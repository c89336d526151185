"""Trains a detector: config -> data -> model -> phases of epochs -> the run's folder.

    python train.py                                            as config.py says
    python train.py --config configs/voc.py --set train.epochs=20 --set model.backbone=resnet18
    python train.py --resume runs/voc                          goes on where the run was stopped
    python train.py --resume runs/voc --set train.epochs=40    trains longer, if the schedule can
    python train.py --eager                                    breakpoints work in model and losses

A run leaves in <output>/<name>: config.json, diary.log, metrics.csv, curves.png, tensorboard/,
checkpoints/ (best, last and the one before), samples/, evaluation/. The last line printed is the
headline.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn
from utils.program import make_parser, run_program

import keras
import tensorflow as tf
from loguru import logger

import configs
from core.build import build_criterion, build_model
from core.optimizers import averaged
from core.weights.transfer import transfer
from data.pipeline import checked
from detector import Detector
from results.evaluation import write_all
from training.meter import EpochMeter, check_finite
from training.phases import TrainingPhase, phases_to_do
from training.plan import Plan, begin_run, make_plan, settle_best, write_config
from training.reports import Report, describe, describe_epoch
from training.resuming import LAST, Progress, find_best, put_aside, save_best, save_progress
from training.validation import Validated, Validation
from utils.devices import use_devices
from utils.diary import console, diary, progress_bar
from utils.files import WriteError
from utils.runs import RunLock, StopSignal


def main(argv: list[str] | None = None) -> float:
    """Runs the command line; returns the headline's figure. Raises ValueError for bad input."""
    args = parse_arguments(argv)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(RunLock(args.resume)) if args.resume else None
        device = use_devices()
        plan, progress = make_plan(args.config, args.overrides, lock.run if lock else None)
        # The folder is made only now, so that a config or dataset that is refused leaves none.
        lock = lock or stack.enter_context(RunLock(begin_run(plan.config)))
        stack.enter_context(diary(lock.run / "diary.log"))
        stop = stack.enter_context(StopSignal())
        if args.resume and plan.config != plan.began:
            write_config(lock.run, plan.config)
        if args.eager:
            plan = replace(plan, config=configs.override(plan.config, {"train.eager": True}))
        describe(plan, device)
        if lock.warning:
            logger.warning(lock.warning)
        if plan.warning:  # last.npz is damaged, and the run goes on from previous.npz
            logger.warning(plan.warning)
            put_aside(lock.run / LAST)
        try:
            return train(lock, plan, progress, stop)
        except WriteError as error:
            error.also(f"then go on with --resume {lock.run}")
            raise


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    configs.add_arguments(parser, None, "default: config.py, or that of the run resumed")
    parser.add_argument("--resume", metavar="RUN", help="the folder of a run that was stopped")
    parser.add_argument("--eager", action="store_true", help="no compiled graph, for breakpoints")
    args = parser.parse_args(argv)
    for item in args.overrides if args.resume else ():
        if not item.startswith("train.epochs="):
            parser.error(
                "a resumed run keeps its settings, but for train.epochs, which may grow; found "
                f"--set {item}: to begin a new run from its weights: "
                f"--set model.weights={args.resume}"
            )
    return args


def train(lock: RunLock, plan: Plan, progress: Progress, stop: StopSignal) -> float:
    """The training run: model, phases of epochs, headline."""
    run, config, settings = lock.run, plan.config, plan.config.train

    # ---- Model -------------------------------------------------------------------------------
    keras.utils.set_random_seed(settings.seed)
    classes = plan.train_set.classes
    model = build_model(config.model, len(classes), settings.precision)
    detector = Detector(model, classes, config.model, settings.eager)
    criterion = build_criterion(config)
    if plan.weights:
        transferred = transfer(plan.weights, model, config.model, classes)
        logger.info("weights from {}: {}", plan.weights.path, "; ".join(transferred.lines()))
    else:
        logger.info("{} parameters", f"{model.count_params():,}")

    # ---- Where it was stopped ----------------------------------------------------------------
    report = Report(run, progress.epoch)
    if plan.checkpoint:
        plan.checkpoint.restore("model", model.variables)
        logger.info("resumed after epoch {}, step {}", progress.epoch, progress.step)
        settle_best(run, plan, progress)
    else:
        groups = {"model": model.variables}
        save_progress(run, groups, detector.conventions, progress, is_beginning=True)
        report.board.text("config", json.dumps(configs.to_dict(config), indent=1))
    validation = Validation(detector, criterion, plan.val_set, config)

    # ---- Phases of epochs --------------------------------------------------------------------
    best = None  # of this process; what a resumed run found before is in best.npz
    for phase in phases_to_do(plan, progress, model, criterion):
        best = train_phase(phase, lock, plan, detector, validation, report, stop) or best

    # ---- The end -----------------------------------------------------------------------------
    if progress.epoch < plan.num_epochs:
        logger.info("no better mAP in {} validations: ended early", progress.stale)
    if best is None:  # found before the run was resumed
        find_best(run, progress).restore("model", model.variables)
        best = validation.run(stop)
        if not best:
            leave(run, stop)
    lock.require_folder()
    report.curves()
    write_all(run / "evaluation", config.data.val, best.scores)
    console.print(best.scores.table())
    best_epoch = f"{progress.best_epoch} of {plan.num_epochs}"
    logger.info("best epoch {}; everything in {}", best_epoch, run)
    print(best.scores.headline, flush=True)
    return best.scores.value


def train_phase(
    phase: TrainingPhase,
    lock: RunLock,
    plan: Plan,
    detector: Detector,
    validation: Validation,
    report: Report,
    stop: StopSignal,
) -> Validated | None:
    """The epochs of a phase, each with what follows it; returns the best validation, if any."""
    run, progress, settings = lock.run, phase.progress, plan.config.train
    weights = {"model": detector.model.variables}
    saved = weights | {"optimizer": phase.optimizer.variables}
    stream, best = iter(checked(phase.batches)), None
    while progress.epoch < phase.planned.end and not plan.is_finished(progress):
        start = time.perf_counter()
        row = run_epoch(phase, stream, plan, stop)
        check_finite(saved, phase.optimizer, progress)
        lock.require_folder()
        is_due = plan.is_validation_due(progress.epoch + 1)
        found = None
        if row and is_due:
            with averaged(phase.optimizer, detector.model.trainable_variables):
                found = validation.run(stop)
                lock.require_folder()  # one that went meanwhile is not made anew
                if found and progress.is_better(found.scores.value):
                    best = found
                    save_best(run, weights, detector.conventions, progress.epoch + 1)
        if not row or (is_due and not found):  # told to stop
            save_progress(run, saved, detector.conventions, progress)
            leave(run, stop)
        progress.finish_epoch(found.scores.value if found else None)
        if found:
            row |= found.row()
            report.validation(progress.epoch, found, settings.sample_pictures)
        row["seconds"] = time.perf_counter() - start
        logger.info(describe_epoch(row, phase.optimizer, phase.steps_done))
        report.epoch(row)
        if plan.is_finished(progress) or progress.epoch % settings.checkpoint_every == 0:
            save_progress(run, saved, detector.conventions, progress)
    return best


def run_epoch(
    phase: TrainingPhase, stream: Iterator[dict[str, tf.Tensor]], plan: Plan, stop: StopSignal
) -> dict[str, float | str]:
    """Does the steps of an epoch that are left: none, if a stop came in its validation.

    Returns its metrics, or {} if `stop` came before its last step.
    """
    progress, steps = phase.progress, phase.planned.steps
    meter = EpochMeter(phase, plan.train_set, plan.config.train.log_every)
    with progress_bar() as bar:
        title = f"epoch {progress.epoch + 1}/{plan.num_epochs}"
        task = bar.add_task(title, total=steps, text="")
        while progress.step < steps and not stop.received:
            start = time.perf_counter()
            batch = next(stream)
            waited = time.perf_counter() - start
            meter.add(phase.step(batch), batch["index"], waited)
            progress.step += 1
            if not meter.unread:
                bar.update(task, completed=progress.step, text=str(meter))
    meter.read()
    return meter.row() if progress.step == steps else {}


def leave(run: Path, stop: StopSignal) -> NoReturn:
    """Ends the program as the signal has it, once all is saved."""
    logger.warning("{}: saved; go on with --resume {}", stop.received, run)
    sys.exit(stop.exit_code)


if __name__ == "__main__":
    run_program(main)
