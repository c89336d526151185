"""Weights of fizyr/keras-retinanet give here what they give there.

Its ResNet-50 network is written once more below in plain Keras layers, with its names, random
weights and statistics. Letters: B batch, N anchors, K classes.
"""

import shutil

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.schema import Anchors, Coder, Model, ShortLong
from core.anchors import AnchorGenerator
from core.build import build_anchors, build_backbone, build_model
from core.weights.formats.keras_retinanet import RETINANET
from core.weights.importing import import_file
from core.weights.npz_files import Weights
from detector import Detector

pytestmark = pytest.mark.full

CLASSES, WIDTH = 80, 32  # 256 channels in theirs
BGR_MEAN = (103.939, 116.779, 123.68)
layers = keras.layers


# ------------------------------------------------------------------------------------------------
# The network, theirs
# ------------------------------------------------------------------------------------------------


class UpsampleLike(layers.Layer):
    """Resizes a map to the size of another, as its backend.resize_images."""

    def call(self, maps):
        source, target = maps
        return tf.compat.v1.image.resize_images(source, tf.shape(target)[1:3], "nearest")

    def compute_output_shape(self, shapes):
        return (*shapes[1][:3], shapes[0][3])


def bottleneck(x, filters: int, block: str, stride: int, project: bool):
    """block: stage and letter; the first 1x1 convolution has the stride."""

    def conv(x, filters, size, name, **options):
        x = layers.Conv2D(filters, size, use_bias=False, name=f"res{name}", **options)(x)
        return layers.BatchNormalization(epsilon=1e-5, name=f"bn{name}")(x)

    def relu(x, name):
        return layers.Activation("relu", name=f"res{name}_relu")(x)

    y = relu(conv(x, filters, 1, f"{block}_branch2a", strides=stride), f"{block}_branch2a")
    y = layers.ZeroPadding2D(1, name=f"padding{block}_branch2b")(y)
    y = relu(conv(y, filters, 3, f"{block}_branch2b"), f"{block}_branch2b")
    y = conv(y, 4 * filters, 1, f"{block}_branch2c")
    if project:
        x = conv(x, 4 * filters, 1, f"{block}_branch1", strides=stride)
    return relu(layers.Add(name=f"res{block}")([y, x]), block)


def resnet50(x, conv1_same: bool) -> list:
    """conv1_same: as keras-resnet 0.2; 0.1, of the published weights, has a layer that pads."""
    if not conv1_same:
        x = layers.ZeroPadding2D(3, name="padding_conv1")(x)
    padding = "same" if conv1_same else "valid"
    x = layers.Conv2D(64, 7, 2, padding, use_bias=False, name="conv1")(x)
    x = layers.BatchNormalization(epsilon=1e-5, name="bn_conv1")(x)
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.MaxPooling2D(3, 2, "same", name="pool1")(x)
    outputs = []
    for stage, letters in zip((2, 3, 4, 5), ("abc", "abcd", "abcdef", "abc"), strict=True):
        for letter in letters:
            first = letter == "a"
            stride = 2 if first and stage > 2 else 1
            x = bottleneck(x, 16 * 2**stage, f"{stage}{letter}", stride, first)
        outputs.append(x)
    return outputs[1:]


def pyramid(c3, c4, c5) -> list:
    def conv(name, size=3, stride=1):
        return layers.Conv2D(WIDTH, size, stride, "same", name=name)

    p5 = conv("C5_reduced", 1)(c5)
    up5 = UpsampleLike(name="P5_upsampled")([p5, c4])
    p4 = layers.Add(name="P4_merged")([up5, conv("C4_reduced", 1)(c4)])
    up4 = UpsampleLike(name="P4_upsampled")([p4, c3])
    p3 = layers.Add(name="P3_merged")([up4, conv("C3_reduced", 1)(c3)])
    p6 = conv("P6", stride=2)(c5)
    p7 = conv("P7", stride=2)(layers.Activation("relu", name="C6_relu")(p6))
    return [conv("P3")(p3), conv("P4")(p4), conv("P5")(p5), p6, p7]


def submodel(kind: str, outputs: int) -> keras.Model:
    x = first = keras.Input((None, None, WIDTH))
    for i in range(4):
        name = f"pyramid_{kind}_{i}"
        x = layers.Conv2D(WIDTH, 3, padding="same", activation="relu", name=name)(x)
    x = layers.Conv2D(9 * outputs, 3, padding="same", name=f"pyramid_{kind}")(x)
    x = layers.Reshape((-1, outputs), name=f"pyramid_{kind}_reshape")(x)
    if kind == "classification":
        x = layers.Activation("sigmoid", name="pyramid_classification_sigmoid")(x)
    return keras.Model(first, x, name=f"{kind}_submodel")


def make_network(conv1_same: bool = False) -> keras.Model:
    """BGR minus mean -> [deltas (B, N, 4), scores (B, N, K), P3 ... P7], random throughout."""
    keras.backend.clear_session()
    images = keras.Input((None, None, 3), name="input_1")
    levels = pyramid(*resnet50(images, conv1_same))
    outputs = [
        layers.Concatenate(axis=1, name=kind)([model(x) for x in levels])
        for kind, model in (
            ("regression", submodel("regression", 4)),
            ("classification", submodel("classification", CLASSES)),
        )
    ]
    network = keras.Model(images, outputs + levels, name="retinanet")
    rng = np.random.default_rng(0)
    for layer in layers_with_weights(network).values():
        set_random(layer, rng)
    return network


def layers_with_weights(network: keras.Model) -> dict:
    """By name, and those of submodels as submodel/name."""
    found = {}
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            found |= {f"{layer.name}/{name}": x for name, x in layers_with_weights(layer).items()}
        elif layer.weights:
            found[layer.name] = layer
    return found


def set_random(layer, rng) -> None:
    """Weights, biases and statistics that keep the signal's size through the depth."""
    if isinstance(layer, layers.BatchNormalization):
        size = 0.3 if layer.name.endswith("2c") else 1.0  # or blocks would double the variance
        for weight, low, high in zip(
            layer.weights, (0.6 * size, -0.3, -0.3, 0.5), (1.4 * size, 0.3, 0.3, 1.5), strict=True
        ):
            weight.assign(rng.uniform(low, high, weight.shape))
        return
    height, width, inputs, _ = layer.kernel.shape
    he = np.sqrt(2 / (height * width * inputs))
    scale = he / 60 if layer.name == "conv1" else he  # pixels are of 0-255
    layer.kernel.assign(rng.normal(0, scale, layer.kernel.shape))
    if layer.use_bias:
        layer.bias.assign(rng.normal(0, 0.3, layer.bias.shape))


def their_outputs(network: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Of (B, H, W, 3) RGB 0-255; the class logits before the sigmoid."""
    deltas, _, *levels = network(images[..., ::-1] - np.float32(BGR_MEAN), training=False)
    whole = network.get_layer("classification_submodel")
    logits = keras.Model(whole.input, whole.get_layer("pyramid_classification_reshape").output)
    class_logits = np.concatenate([logits(level) for level in levels], axis=1)
    return {"class_logits": class_logits, "box_deltas": deltas.numpy()}


# ------------------------------------------------------------------------------------------------
# Their files
# ------------------------------------------------------------------------------------------------


def write_legacy(network: keras.Model, path) -> None:
    """As Keras 2 wrote the published files, with what training left behind."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.1.3"
        for layer in network.layers:
            group = root.create_group(layer.name)
            inner = layers_with_weights(layer) if isinstance(layer, keras.Model) else {}
            if layer.weights and not inner:
                inner = {layer.name: layer}
            names = []
            for name, part in inner.items():
                for weight in part.weights:
                    names.append(f"{name}/{weight.name}:0")
                    group[names[-1]] = weight.numpy()
            group.attrs["weight_names"] = [name.encode() for name in names]
        left = file.create_group("optimizer_weights/training/Adam")
        left["conv1/kernel/m:0"] = np.zeros((7, 7, 3, 64), np.float32)
        left["iterations:0"] = np.int64(1)
        file.attrs["training_config"] = "not read"


def write_whole(network, path) -> None:
    network.compile("sgd", ["mse"] * 7)
    network.save(path)


WRITERS = {
    "legacy.h5": write_legacy,
    "whole.h5": write_whole,
    "ours.weights.h5": lambda network, path: network.save_weights(path),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Emptied at the end: pytest would keep some GB of weights."""
    path = tmp_path_factory.mktemp("keras_retinanet")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def imported(network, folder) -> dict[str, Weights]:
    """By the name of the file."""
    weights = {}
    for name, write in WRITERS.items():
        write(network, folder / name)
        weights[name] = import_file(folder / name)
        (folder / name).unlink()
    return weights


@pytest.fixture(scope="module")
def detector(imported, folder):
    imported["legacy.h5"].save(folder / "weights.npz")
    return Detector.load(folder)


def random_images(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, height, width, 3)).astype(np.float32)


def deviation(ours, theirs: np.ndarray, size: tuple[int, int]) -> float:
    """The largest difference on any level, in standard deviations of the level's outputs."""
    assert ours.shape == theirs.shape
    ends = np.cumsum(AnchorGenerator().level_counts(*size))[:-1]
    pairs = zip(np.split(ours, ends, axis=1), np.split(theirs, ends, axis=1), strict=True)
    return max(float(np.abs(a - b).max() / b.std()) for a, b in pairs)


# ------------------------------------------------------------------------------------------------
# Names
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("conv1/kernel", "backbone/conv1/kernel"),
        ("bn_conv1/moving_mean", "backbone/bn1/moving_mean"),
        ("res2a_branch1/kernel", "backbone/layer1_0/downsample_0/kernel"),
        ("bn2a_branch1/gamma", "backbone/layer1_0/downsample_1/gamma"),
        ("res2c_branch2a/kernel", "backbone/layer1_2/conv1/kernel"),
        ("bn3d_branch2b/beta", "backbone/layer2_3/bn2/beta"),
        ("res3b3_branch2c/kernel", "backbone/layer2_3/conv3/kernel"),  # stage 3 of ResNet-101
        ("res4b1_branch2a/kernel", "backbone/layer3_1/conv1/kernel"),
        ("bn4b22_branch2c/moving_variance", "backbone/layer3_22/bn3/moving_variance"),
        ("res4b35_branch2b/kernel", "backbone/layer3_35/conv2/kernel"),  # of ResNet-152
        ("res4f_branch2b/kernel", "backbone/layer3_5/conv2/kernel"),  # of ResNet-50
        ("bn5a_branch1/beta", "backbone/layer4_0/downsample_1/beta"),
        ("C4_reduced/bias", "neck/lateral4/bias"),
        ("P3/kernel", "neck/output3/kernel"),
        ("P6/bias", "neck/p6/bias"),
        ("P7/kernel", "neck/p7/kernel"),
        ("pyramid_classification_3/kernel", "class_head/conv3/kernel"),
        ("pyramid_classification/bias", "class_head/output/bias"),
        ("pyramid_regression_0/bias", "box_head/conv0/bias"),
        ("pyramid_regression/kernel", "box_head/output/kernel"),
    ],
)
def test_places(name, place):
    assert RETINANET.place(name) == place


@pytest.mark.parametrize("name", ["res6a_branch2a/kernel", "res2a_branch3/kernel", "P8/kernel"])
def test_other_names_have_no_place(name):
    with pytest.raises(KeyError):
        RETINANET.place(name)


def test_resnet101_has_a_name_for_each_variable():
    batch_norm = ("gamma", "beta", "moving_mean", "moving_variance")
    names = ["conv1/kernel", *(f"bn_conv1/{leaf}" for leaf in batch_norm)]
    for stage, count in zip((2, 3, 4, 5), (3, 4, 23, 3), strict=True):
        blocks = ["a", *(f"b{i}" for i in range(1, count))]
        if stage in (2, 5):
            blocks = ["a", "b", "c"]
        for block in blocks:
            for branch in ("1", "2a", "2b", "2c")[block != "a" :]:
                names.append(f"res{stage}{block}_branch{branch}/kernel")
                names += [f"bn{stage}{block}_branch{branch}/{leaf}" for leaf in batch_norm]
    backbone = build_backbone(Model(backbone="resnet101"))
    backbone(tf.zeros([1, 32, 32, 3]))
    places = [RETINANET.place(name) for name in names]
    assert sorted(places) == sorted(variable.path for variable in backbone.variables)


# ------------------------------------------------------------------------------------------------
# Files
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_kind_of_file_gives_the_arrays_of_the_network(imported, network):
    theirs = {}
    for name, layer in layers_with_weights(network).items():
        for weight in layer.weights:
            theirs[RETINANET.place(f"{name.split('/')[-1]}/{weight.name}")] = weight.numpy()
    for kind, weights in imported.items():
        assert weights.kind == "model"
        assert weights.origin["format"] == "keras-retinanet"
        assert weights.arrays.keys() == theirs.keys()
        for place, array in weights.arrays.items():
            np.testing.assert_array_equal(array, theirs[place], err_msg=f"{kind} {place}")


@pytest.mark.slow
def test_the_conventions_are_theirs(imported):
    for weights in imported.values():
        model = weights.model
        assert (model.backbone, model.bottleneck_stride, model.p6_from) == ("resnet50", "1x1", "c5")
        assert set(model.same_padding) == {"pool1", "p6", "p7"}
        assert (model.bn_mode, model.bn_epsilon) == ("frozen", 1e-5)
        assert (model.neck_width, model.head_width, model.head_depth) == (WIDTH, WIDTH, 4)
        assert (model.head_norm, model.normalization, model.prior) == ("none", "caffe", 0.01)
        assert model.anchors == Anchors()
        assert model.coder == Coder("corner", (0.2, 0.2, 0.2, 0.2))
        assert model.resize == ShortLong(800, 1333, 1, antialias=False, rounding="nearest")
        assert (model.detect.score_threshold, model.detect.nms_iou) == (0.05, 0.5)
        assert model.detect.max_detections == 300
        assert len(weights.classes) == CLASSES
        assert (weights.classes[0], weights.classes[79]) == ("person", "toothbrush")


# ------------------------------------------------------------------------------------------------
# Outputs
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("size", [(128, 160), (129, 163), (97, 130)])
def test_outputs_agree(detector, network, size):
    images = random_images(*size)
    outputs = detector.model(images, training=False)
    for name, theirs in their_outputs(network, images).items():
        assert deviation(outputs[name], theirs, size) < 1e-4


def test_in_training_the_statistics_stay_and_nothing_of_batch_norm_learns(detector):
    images, backbone = random_images(64, 96), detector.model.backbone
    before = [variable.numpy() for variable in backbone.variables]
    outputs = detector.model(images, training=True)
    expected = detector.model(images, training=False)
    for name, output in outputs.items():
        np.testing.assert_array_equal(output, expected[name])
    for variable, value in zip(backbone.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)
    assert {variable.name for variable in backbone.trainable_variables} == {"kernel"}
    assert len(backbone.trainable_variables) == 53


@pytest.mark.slow
def test_a_later_keras_resnet_pads_conv1_as_tensorflow(folder):
    network = make_network(conv1_same=True)
    for name in ("whole.h5", "ours.weights.h5"):
        WRITERS[name](network, folder / name)
        weights = import_file(folder / name)
        assert set(weights.model.same_padding) == {"conv1", "pool1", "p6", "p7"}, name
        (folder / name).unlink()
    model = build_model(weights.model, CLASSES)
    for variable, array in zip(model.variables, weights.arrays.values(), strict=True):
        variable.assign(array)
    for size in [(96, 128), (97, 130)]:  # even sizes, where the paddings differ, and an odd one
        images = random_images(*size)
        outputs = model(images, training=False)
        for name, theirs in their_outputs(network, images).items():
            assert deviation(outputs[name], theirs, size) < 1e-4


def test_boxes(detector):
    # P3's first square anchor: 32 a side around (4, 4). Deltas are fifths of its sides.
    anchors = build_anchors(detector.config)(64, 64)
    np.testing.assert_allclose(anchors[3], [-12, -12, 20, 20])
    deltas = tf.constant([[1.0, -2.0, 0.5, 2.5]])
    boxes = detector.postprocess.coder.decode(deltas, anchors[3:4])
    np.testing.assert_allclose(boxes, [[-12 + 6.4, -12 - 12.8, 20 + 3.2, 20 + 16]], rtol=1e-6)
    # The first one is twice as wide as high: sides 32 * sqrt(2) and 32 / sqrt(2).
    width, height = 32 * 2**0.5, 32 / 2**0.5
    boxes = detector.postprocess.coder.decode(deltas, anchors[:1])
    expected = [
        4 - width / 2 + 0.2 * width, 4 - height / 2 - 0.4 * height,
        4 + width / 2 + 0.1 * width, 4 + height / 2 + 0.5 * height,
    ]  # fmt: skip
    np.testing.assert_allclose(boxes, [expected], rtol=1e-6)
