"""`python -m core.weights`: what it writes, prints, and leaves alone."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from core.weights.__main__ import class_names, main
from core.weights.formats.coco import COCO_80
from core.weights.npz_files import Weights
from core.weights.published import PUBLISHED
from core.weights.torch_and_keras_files import WeightsError
from utils.checkpoints import Checkpoint

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    path = tmp_path_factory.mktemp("theirs") / "resnet50.h5"
    keras.applications.ResNet50(weights=None, include_top=False).save(path)
    return path


def test_the_list_names_all_that_is_published(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    main(["list"])
    text = capsys.readouterr().out
    for one in PUBLISHED:
        assert one.name in text
        assert one.url in text
    assert "recorded at the first download" in text
    assert "coco = coco-torchvision-v2" in text


@pytest.mark.slow
def test_an_import_is_written_and_described(resnet, tmp_path, capsys):
    main(["import", str(resnet), "--out", str(tmp_path / "out")])
    weights = Weights.load(tmp_path / "out")
    assert weights.kind == "backbone"
    assert weights.model.bn_epsilon == 1.001e-5
    text = capsys.readouterr().err
    assert "resnet50.h5 (keras-applications)" in text
    assert "normalization: caffe" in text
    assert "neck_width" not in text, "a backbone has none"
    assert f"written to {tmp_path / 'out' / 'weights.npz'}" in " ".join(text.split("\n"))
    state = Checkpoint(tmp_path / "out" / "weights.npz").state
    assert state["origin"]["format"] == "keras-applications"


def test_what_the_file_cannot_tell_is_set(resnet, tmp_path):
    main(["import", str(resnet), "--out", str(tmp_path), "--set", "bn_epsilon=1e-3"])
    weights = Weights.load(tmp_path)
    assert weights.model.bn_epsilon == 1e-3
    assert weights.model.normalization == "caffe"


def test_nothing_is_overwritten(resnet, tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"mine")
    with pytest.raises(WeightsError, match=r"weights\.npz: is there already"):
        main(["import", str(resnet), "--out", str(tmp_path)])
    assert (tmp_path / "weights.npz").read_bytes() == b"mine"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "bn_eps=1"], "'bn_eps' is no setting; did you mean 'bn_epsilon'"),
        (
            ["--set", "anchors.ratios=1"],
            "anchors.ratios is no convention of a backbone; ",
        ),
        (["--set", "weights=coco"], "weights is no convention"),
        (["--set", "backbone=resnet101"], "expected the tensors of resnet101, found none for"),
        (["--classes", "a,b"], "holds a backbone alone, which has no classes"),
        (["--format", "keras-retinanet"], "expected only tensors of keras-retinanet, found conv"),
        (["--format", "torchvision"], "expected only tensors of torchvision, found conv"),
    ],
)
def test_a_failed_import_leaves_nothing(resnet, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        main(["import", str(resnet), "--out", str(tmp_path / "out"), *arguments])
    assert list(tmp_path.iterdir()) == []


def test_what_is_ours_already_is_not_imported(resnet, tmp_path):
    main(["import", str(resnet), "--out", str(tmp_path / "a")])
    with pytest.raises(WeightsError, match="is ours already: use it as it is"):
        main(["import", str(tmp_path / "a"), "--out", str(tmp_path / "b")])
    assert not (tmp_path / "b").exists()


def test_class_names_by_comma_or_from_a_file(tmp_path):
    assert class_names(None) is None
    assert class_names("person, traffic light") == ["person", "traffic light"]
    assert class_names(",".join(COCO_80)) == list(COCO_80)
    file = tmp_path / "names.txt"
    file.write_text("person\ntraffic light\n\nStraße\n", encoding="utf-8")
    assert class_names(str(file)) == ["person", "traffic light", "Straße"]


@pytest.mark.slow
def test_the_command_ends_with_a_line_and_not_with_a_traceback(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"nothing of the kind")
    command = [sys.executable, "-m", "core.weights", "import", str(tmp_path / "a.pth")]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().split("\n")[-1]
    assert last.startswith("error: ")
    assert "a.pth: expected a torch file (.pth, .pt) or a Keras .h5" in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_arrays_are_those_of_the_file(resnet, tmp_path):
    main(["import", str(resnet), "--out", str(tmp_path)])
    model = keras.models.load_model(resnet, compile=False)
    there = model.get_layer("conv3_block1_2_conv").kernel.numpy()
    np.testing.assert_array_equal(
        Weights.load(tmp_path).arrays["backbone/layer2_0/conv2/kernel"], there
    )
