"""What holds of every neck and every backbone, in one table."""

from dataclasses import asdict

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.checked import to_dict
from configs.schema import Bifpn, Model
from core.build import NECKS as BUILT_IN
from core.build import build_anchors, build_model
from core.weights.npz_files import Weights, stated
from core.weights.transfer import transfer
from detector import Detector
from tests.core.necks.test_fpn import features
from utils.checkpoints import Checkpoint

pytestmark = pytest.mark.full

K, W, HEAD = 2, 8, 8  # classes; channels of the neck, and of a head's convolution
CLASSES = ("cat", "dog")
# Of torchvision's classifiers, less their last layer of 1,000 classes.
BACKBONE = {
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
    "resnet152": 60_192_808 - 2_049_000,
}
TABLE = [("resnet18", neck) for neck in ("fpn", "panet", "bifpn")] + [
    (backbone, "fpn") for backbone in ("resnet34", "resnet50", "resnet101", "resnet152")
]


@pytest.fixture(scope="module", params=TABLE, ids="-".join)
def detector(request):
    backbone, neck = request.param
    keras.utils.set_random_seed(0)
    settings = {"backbone": backbone, "neck": neck, "neck_width": W}
    config = Model(**settings, head_width=HEAD, head_depth=1)
    model = build_model(config, K)
    rng = np.random.default_rng(0)
    for variable in model.variables:  # none where a fresh model has them
        if len(variable.shape) == 1:
            variable.assign_add(rng.uniform(0, 0.1, variable.shape))
    return Detector(model, CLASSES, config)


def images(height, width, batch=2):
    values = np.random.default_rng(1).uniform(0, 255, [batch, height, width, 3])
    return tf.constant(values, tf.float32)


def num_parameters(backbone, neck):
    """What learns, by hand."""
    c3, c4, c5 = (128, 256, 512) if backbone in ("resnet18", "resnet34") else (512, 1024, 2048)
    conv3x3 = 9 * W * W + W
    in_neck = (c3 + c4 + c5) * W + 3 * W + 3 * conv3x3 + (9 * c5 * W + W) + conv3x3
    if neck == "panet":
        in_neck += 4 * 2 * conv3x3
    if neck == "bifpn":
        inputs = (c3 + c4 + c5) * W + 9 * c5 * W + 9 * W * W + 5 * 2 * W
        # Depthwise, 1x1, gamma and beta; 4 fusions of two maps down, 3 of three and 1 of two up.
        in_neck = inputs + 3 * (8 * (9 * W + W * W + 2 * W) + 4 * 2 + 3 * 3 + 2)
    head = 9 * W * HEAD + HEAD
    outputs = (9 * HEAD + 1) * 9 * (K + 4)
    return BACKBONE[backbone] + in_neck + 2 * head + outputs


@pytest.mark.slow
def test_parameters_are_counted_by_hand(detector):
    sizes = [int(np.prod(v.shape)) for v in detector.model.trainable_variables]
    assert sum(sizes) == num_parameters(detector.config.backbone, detector.config.neck)


@pytest.mark.slow
def test_no_two_kernels_start_alike(detector):
    """Not even up to scale in their first numbers, as the same seed shows in another shape."""
    kernels = [v.numpy().ravel() for v in detector.model.variables if len(v.shape) > 1]
    starts = np.array([kernel[1:9] / kernel[0] for kernel in kernels])
    assert len(np.unique(starts.round(3), axis=0)) == len(kernels) > 30


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 65), (37, 130), (1, 1)])
def test_any_size_gives_five_levels_of_ceil_size(height, width, detector):
    model = detector.model
    x = images(height, width, batch=1)
    pyramid = model.neck(model.backbone(x))
    cells = [(-(-height // s), -(-width // s)) for s in (8, 16, 32, 64, 128)]
    assert [tuple(p.shape) for p in pyramid] == [(1, *cell, W) for cell in cells]
    outputs = model(x)
    n = len(build_anchors(detector.config)(height, width))
    assert n == 9 * sum(rows * columns for rows, columns in cells)
    assert outputs["class_logits"].shape == (1, n, K)
    assert outputs["box_deltas"].shape == (1, n, 4)
    assert all(np.isfinite(value).all() for value in outputs.values())


@pytest.mark.slow
def test_a_gradient_reaches_every_trainable_weight(detector):
    """Under BiFPN P7 has two cells: of one cell in each of two images batch norm makes 1 and -1,
    whatever they are."""
    size = (96, 192) if detector.config.neck == "bifpn" else (64, 64)
    model = detector.model
    weights = model.get_weights()
    with tf.GradientTape() as tape:
        outputs = model(images(*size), training=True)
        loss = tf.add_n([tf.reduce_sum(tf.square(value + 1)) for value in outputs.values()])
    gradients = tape.gradient(loss, model.trainable_variables)
    model.set_weights(weights)
    lost = [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.any(gradient) or not np.all(np.isfinite(gradient))
    ]
    assert lost == []


@pytest.mark.slow
def test_saved_and_restored_it_is_the_same(detector, tmp_path):
    model = detector.model
    x = images(64, 80)
    expected = model(x)
    detector.save(tmp_path / "best.npz")
    for variable in model.variables:
        variable.assign(tf.zeros(variable.shape))
    assert all(not np.any(value) for value in model(x).values())
    Checkpoint(tmp_path / "best.npz").restore("model", model.variables)
    for name, value in model(x).items():
        assert np.std(value) > 0
        np.testing.assert_array_equal(value, expected[name])


NECKS = [
    {"neck": "fpn"},
    {"neck": "panet"},
    {"neck": "bifpn"},
    {"neck": "bifpn", "bifpn": Bifpn(repeats=1, separable=False, norm="none")},
    {"neck": "bifpn", "bifpn": Bifpn(repeats=1, norm="group"), "neck_width": 64},
]


@pytest.mark.slow
@pytest.mark.parametrize("neck", NECKS, ids=str)
def test_a_loaded_detector_has_its_neck(neck, tmp_path):
    settings = {"neck_width": W} | neck
    config = Model(**settings, backbone="resnet18", head_width=HEAD, head_depth=0)
    saved = Detector(build_model(config, K), CLASSES, config)
    saved.save(tmp_path / "best.npz")
    loaded = Detector.load(tmp_path / "best.npz")
    assert loaded.config == config
    expected, found = saved.model(images(64, 80)), loaded.model(images(64, 80))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def bare_neck(neck, precision, maps):
    """With nothing before or behind it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        settings = asdict(neck["bifpn"]) if "bifpn" in neck else {}
        layer = BUILT_IN[neck["neck"]](neck.get("neck_width", W), **settings)
        layer(maps)
    finally:
        keras.config.set_dtype_policy(before)
    return layer


@pytest.mark.slow
@pytest.mark.parametrize("neck", NECKS, ids=str)
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_near_the_whole(neck, precision):
    """Maps are of the compute type, variables float32."""
    keras.utils.set_random_seed(0)
    dtype = precision.removeprefix("mixed_")
    maps = [tf.cast(x, dtype) for x in features((9, 16), (5, 8), (3, 4))]
    exact_maps = [tf.cast(x, tf.float32) for x in maps]
    whole, half = bare_neck(neck, "float32", exact_maps), bare_neck(neck, precision, maps)
    half.set_weights(whole.get_weights())
    assert {v.dtype for v in half.variables} == {"float32"}
    for p, exact in zip(half(maps), whole(exact_maps), strict=True):
        assert p.dtype.name == dtype
        error = tf.abs(tf.cast(p, tf.float32) - exact)
        assert np.mean(error) < 0.03 * np.std(exact)
    for p in half(maps, training=True):
        assert p.dtype.name == dtype
        assert np.isfinite(tf.cast(p, tf.float32)).all()


@pytest.fixture(scope="module")
def backbone_weights():
    config = Model(backbone="resnet18", neck_width=W, head_width=HEAD, head_depth=0)
    variables = build_model(config, K).backbone.variables
    arrays = {v.path.split("/", 1)[1]: v.numpy() + 1 for v in variables}
    return Weights("imagenet.npz", arrays, stated("backbone", to_dict(config)))


@pytest.mark.slow
@pytest.mark.parametrize("neck", NECKS, ids=str)
def test_a_backbones_weights_go_into_any_neck(neck, backbone_weights):
    size = {"head_width": HEAD, "head_depth": 0}
    config = backbone_weights.settle(
        Model(weights="imagenet.npz", **{"neck_width": 32} | neck, **size)
    )
    model = build_model(config, K)
    report = transfer(backbone_weights, model, config, CLASSES)
    assert report.copied == list(backbone_weights.arrays)
    for variable, array in zip(
        model.backbone.variables, backbone_weights.arrays.values(), strict=True
    ):
        np.testing.assert_array_equal(variable, array)
    assert {v.path.split("/", 1)[1] for v in model.neck.variables} < set(report.initialised)
