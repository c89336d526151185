"""The first steps of a training, with and without the focal loss and the prior bias.

    python -m benchmarks.first_steps --config benchmarks/ablation.py --set data.root=PATH/TO/bccd \\
        --out images/foreground_share.csv

Trains the config's detector from scratch for --steps steps, once for each of STARTS, and writes
COLUMNS of each step; `python -m images.make` draws that file.
Paper: Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002, sections 3.3 and 4.1.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from utils.program import make_parser, run_program

import keras
from loguru import logger

import configs
from configs import Config, ConfigError
from core.build import build_criterion, build_model
from data.datasets import class_names, read_split
from data.pipeline import checked
from data.records import Dataset
from training.phases import begin_phase
from training.plan import plan_phases
from training.resuming import Progress
from utils.devices import use_devices
from utils.diary import diary
from utils.files import whole_file

CROSS_ENTROPY: dict[str, float | None] = {"loss.gamma": 0.0, "loss.alpha": None}
STARTS: dict[str, dict[str, float | None]] = {  # name -> what differs from the config
    "gamma 2, prior 0.01": {"loss.gamma": 2.0, "model.prior": 0.01},
    "gamma 2, prior 0.5": {"loss.gamma": 2.0, "model.prior": 0.5},
    "cross-entropy, prior 0.01": CROSS_ENTROPY | {"model.prior": 0.01},
    "cross-entropy, prior 0.5": CROSS_ENTROPY | {"model.prior": 0.5},
}
COLUMNS = ("step", "class_loss", "foreground_loss")


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    configs.add_arguments(parser)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", required=True, help="a CSV file")
    args = parser.parse_args(argv)
    config = configs.load(args.config, args.overrides)
    if config.model.weights:
        raise ConfigError(
            f"model.weights: expected None, for a start from scratch, found {config.model.weights}"
        )
    use_devices()
    with diary():
        dataset = read_split(config.data, config.data.train, class_names(config.data))
        runs = {}
        for name, changes in STARTS.items():
            logger.info("{}: {} steps", name, args.steps)
            runs[name] = first_steps(configs.override(config, changes), dataset, args.steps)
    write_steps(args.out, runs)


def first_steps(config: Config, dataset: Dataset, steps: int) -> list[tuple]:
    """COLUMNS of each of the first steps, as train.py would take them in the first phase."""
    phase = plan_phases(config, dataset)[0]
    keras.utils.set_random_seed(config.train.seed)
    model = build_model(config.model, len(dataset.classes), config.train.precision)
    criterion = build_criterion(config)
    begun = begin_phase(config, dataset, phase, Progress(data=("", "")), model, criterion)
    rows = []
    for number, batch in enumerate(checked(begun.batches.take(steps)), start=1):
        losses = begun.step(batch)
        rows.append((number, *(float(losses[name]) for name in COLUMNS[1:])))
    return rows


def write_steps(path: str | Path, runs: Mapping[str, Sequence[tuple]]) -> None:
    """name -> rows of COLUMNS, as a CSV file with the name in front."""
    with whole_file(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", *COLUMNS])
        for name, rows in runs.items():
            writer.writerows((name, *(f"{value:.6g}" for value in row)) for row in rows)


if __name__ == "__main__":
    run_program(main)
