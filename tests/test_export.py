"""export.py: what it writes into a run, what it refuses; how programs end where a disk is full."""

import argparse
import json
import runpy
from pathlib import Path

import pytest

import configs
import export
from core.build import build_model
from data.formats.shapes import CLASSES
from deploy.exported import ExportedDetector
from detector import Detector

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["export", "evaluate", "train", "visualize", "compare_runs"])
def test_a_full_disk_is_an_error_of_one_line(name, monkeypatch, capsys):
    def parse_args(parser, argv=None):
        raise OSError(28, "No space left on device", "a.npz")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device: 'a.npz'\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with an untrained detector of the default preset, made small."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    small = {"model.neck_width": 8, "model.head_width": 8, "model.head_depth": 1}
    config = configs.preset("shapes", small | {"output": str(folder.parent), "name": "tiny"})
    model = build_model(config.model, len(CLASSES))
    Detector(model, CLASSES, config.model).save(folder / "checkpoints" / "best.npz")
    (folder / "config.json").write_text(json.dumps(configs.to_dict(config)))
    return folder


@pytest.mark.slow
def test_the_command_writes_into_the_run_with_the_settings_given(run):
    settings = ["--set", "model.detect.score_threshold=0.3", "model.resize.width=96"]
    path = export.main([str(run), "--format", "savedmodel", *settings])
    assert path == run / "export" / "savedmodel"
    about = ExportedDetector.load(path).conventions
    assert about["detect"]["score_threshold"] == 0.3
    assert (about["resize"]["height"], about["resize"]["width"]) == (128, 96)
    path = export.main([str(run), "--format", "tflite", "--precision", "int8"])
    assert path == run / "export" / "detector_int8.tflite"
    out = run / "other" / "a.tflite"
    assert export.main([str(run), "--format", "tflite", "--out", str(out)]) == out
    assert ExportedDetector.load(out).conventions["precision"] == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onnx", "--precision", "int8"], "--precision: does nothing for onnx"),
        (["--format", "tflite", "--nms", "inside"], "--nms: does nothing for tflite"),
        (["--format", "savedmodel", "--nms", "inside"], "--nms: does nothing for savedmodel"),
        (["--format", "torch"], "invalid choice: 'torch'"),
        (["--format", "onnx", "--out", "a.tflite"], "expected a name that ends in .onnx, found"),
        (["--format", "onnx", "--set", "train.epochs=3"], "settings of the model (model.*), found"),
        ([], "the following arguments are required: --format"),
    ],
)
def test_what_would_do_nothing_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        export.parse_arguments(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["savedmodel"], "savedmodel"),
        (["onnx"], "detector.onnx"),
        (["onnx", "--nms", "inside"], "detector.onnx"),
        (["onnx", "--nms", "outside"], "detector_candidates.onnx"),
        (["tflite"], "detector.tflite"),
        (["tflite", "--precision", "float16"], "detector_float16.tflite"),
    ],
)
def test_names_of_files(arguments, name):
    assert export.file_name(export.parse_arguments(["--format", *arguments])) == name
    assert Path(name).suffix in ("", ".onnx", ".tflite")
