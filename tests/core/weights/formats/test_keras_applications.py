"""ImageNet weights of keras.applications give here what they give there."""

import shutil

import h5py
import keras
import numpy as np
import pytest

from core.build import build_backbone
from core.retinanet import normalize
from core.weights.formats.keras_applications import RESNET
from core.weights.importing import import_file
from core.weights.npz_files import OF_BACKBONE, Weights
from core.weights.torch_and_keras_files import WeightsError

pytestmark = pytest.mark.full

RESNETS = {
    50: keras.applications.ResNet50,
    101: keras.applications.ResNet101,
    152: keras.applications.ResNet152,
}
LAST = {
    50: ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    101: ("conv3_block4_out", "conv4_block23_out", "conv5_block3_out"),
    152: ("conv3_block8_out", "conv4_block36_out", "conv5_block3_out"),
}


# ------------------------------------------------------------------------------------------------
# Their networks and files
# ------------------------------------------------------------------------------------------------


def make_network(depth: int) -> keras.Model:
    """Without the classifier, for any size; random weights, biases and statistics."""
    network = RESNETS[depth](weights=None, include_top=False, input_shape=(None, None, 3))
    rng = np.random.default_rng(depth)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            is_last = layer.name.endswith("3_bn")
            size = 0.3 if is_last else 1.0  # or every block would double the variance
            lows, highs = (0.6 * size, -0.3, -0.3, 0.5), (1.4 * size, 0.3, 0.3, 1.5)
            for weight, low, high in zip(layer.weights, lows, highs, strict=True):
                weight.assign(rng.uniform(low, high, weight.shape))
        elif layer.weights:
            height, width, inputs, _ = layer.kernel.shape
            he = np.sqrt(2 / (height * width * inputs))
            scale = he / 60 if layer.name == "conv1_conv" else he  # pixels are of 0-255
            layer.kernel.assign(rng.normal(0, scale, layer.kernel.shape))
            layer.bias.assign(rng.normal(0, 0.3, layer.bias.shape))
    return network


def with_top(network: keras.Model, depth: int) -> keras.Model:
    whole = RESNETS[depth](weights=None, include_top=True, input_shape=(64, 64, 3))
    whole.set_weights(network.get_weights() + whole.get_layer("predictions").get_weights())
    return whole


def write_legacy(network: keras.Model, path) -> None:
    """As Keras 2 wrote weights alone, the published files among them."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.2.4"
        for layer in network.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = weight.numpy()


WRITERS = {
    "legacy.h5": write_legacy,
    "whole.h5": lambda network, path: network.save(path),
    "ours.weights.h5": lambda network, path: network.save_weights(path),
}


@pytest.fixture
def folder(tmp_path):
    """Emptied at once: pytest would keep some GB of weights."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def resnet50():
    return make_network(50)


@pytest.fixture(scope="module")
def resnet50_with_top(resnet50):
    return with_top(resnet50, 50)


def assert_conventions(weights: Weights, depth: int) -> None:
    model = weights.model
    assert model.given == set(OF_BACKBONE)
    assert (model.backbone, model.bottleneck_stride) == (f"resnet{depth}", "1x1")
    assert (model.bn_epsilon, model.same_padding) == (1.001e-5, ())
    assert model.normalization == "caffe"


def assert_features_agree(weights: Weights, network: keras.Model, depth: int, sizes) -> None:
    backbone = build_backbone(weights.model)
    backbone(np.zeros([1, 64, 64, 3], np.float32))
    for variable, (place, array) in zip(backbone.variables, weights.arrays.items(), strict=True):
        assert variable.path == place
        variable.assign(array)
    theirs = keras.Model(network.input, [network.get_layer(name).output for name in LAST[depth]])
    rng = np.random.default_rng(0)
    for size in sizes:
        images = rng.integers(0, 256, (2, *size, 3)).astype(np.float32)
        features = theirs(keras.applications.resnet.preprocess_input(images.copy()))
        ours = backbone(normalize(images, None, weights.model.normalization))
        for a, b in zip(ours, features, strict=True):
            assert a.shape == b.shape
            assert np.abs(a - b).max() < 1e-4 * np.std(b)


# ------------------------------------------------------------------------------------------------
# Names and biases
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("conv1_conv/kernel", "backbone/conv1/kernel"),
        ("conv1_bn/moving_variance", "backbone/bn1/moving_variance"),
        ("conv2_block1_0_conv/bias", "backbone/layer1_0/downsample_0/bias"),
        ("conv2_block1_0_bn/gamma", "backbone/layer1_0/downsample_1/gamma"),
        ("conv3_block8_1_conv/kernel", "backbone/layer2_7/conv1/kernel"),
        ("conv4_block36_2_bn/beta", "backbone/layer3_35/bn2/beta"),
        ("conv5_block3_3_bn/moving_mean", "backbone/layer4_2/bn3/moving_mean"),
        ("predictions/kernel", None),
    ],
)
def test_places(name, place):
    assert RESNET.place(name) == place


def test_a_bias_moves_into_the_mean_of_its_norm():
    arrays = {
        "backbone/layer2_0/conv2/bias": np.array([2.0, -1.0]),
        "backbone/layer2_0/bn2/moving_mean": np.array([0.5, 0.25]),
        "backbone/layer2_0/downsample_0/bias": np.array([3.0]),
        "backbone/layer2_0/downsample_1/moving_mean": np.array([-1.0]),
        "backbone/conv1/bias": np.array([0.5]),
        "backbone/bn1/moving_mean": np.array([4.0]),
    }
    RESNET.finish(arrays)
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "backbone/layer2_0/bn2/moving_mean": [-1.5, 1.25],
        "backbone/layer2_0/downsample_1/moving_mean": [-4.0],
        "backbone/bn1/moving_mean": [3.5],
    }


# ------------------------------------------------------------------------------------------------
# Files
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "top"),
    [
        ("legacy.h5", True),
        ("legacy.h5", False),
        ("whole.h5", True),
        ("ours.weights.h5", True),
        ("ours.weights.h5", False),
    ],
)
def test_every_kind_of_file_gives_the_arrays_of_the_network(
    file, top, folder, resnet50, resnet50_with_top
):
    WRITERS[file](resnet50_with_top if top else resnet50, folder / file)
    weights = import_file(folder / file)
    assert (weights.kind, weights.classes) == ("backbone", ())
    assert weights.origin["format"] == "keras-applications"
    assert_conventions(weights, 50)
    theirs = {}
    for layer in resnet50.layers:
        for weight in layer.weights:
            theirs[RESNET.place(f"{layer.name}/{weight.name}")] = weight.numpy()
    RESNET.finish(theirs)
    assert weights.arrays.keys() == theirs.keys()
    for place, array in weights.arrays.items():
        np.testing.assert_array_equal(array, theirs[place], err_msg=place)


def test_a_backbone_has_no_classes(folder, resnet50):
    write_legacy(resnet50, folder / "theirs.h5")
    with pytest.raises(WeightsError, match=r"theirs.h5: holds a backbone alone"):
        import_file(folder / "theirs.h5", classes=["person"])


def test_the_second_version_of_the_networks_is_refused(folder):
    with h5py.File(folder / "v2.h5", "w") as file:
        for name in (
            "conv1_conv/kernel",
            "conv2_block1_1_conv/kernel",
            "conv2_block1_preact_bn/gamma",
        ):
            file[f"{name.split('/')[0]}/{name}:0"] = np.zeros(3, np.float32)
    with pytest.raises(
        WeightsError, match="only tensors of keras-applications, found conv2_block1_preact"
    ):
        import_file(folder / "v2.h5")


# ------------------------------------------------------------------------------------------------
# Features
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "file", "sizes"),
    [
        (50, "whole.h5", [(96, 128), (97, 131)]),
        (101, "ours.weights.h5", [(64, 96), (97, 131)]),
        (152, "legacy.h5", [(65, 96)]),  # one, for time
    ],
)
def test_features_agree(depth, file, sizes, folder, resnet50):
    network = resnet50 if depth == 50 else make_network(depth)
    WRITERS[file](network, folder / file)
    weights = import_file(folder / file)
    weights.save(folder / "weights.npz")
    loaded = Weights.load(folder)
    assert_conventions(loaded, depth)
    assert (loaded.kind, loaded.classes, loaded.origin) == ("backbone", (), weights.origin)
    assert_features_agree(loaded, network, depth, sizes)
