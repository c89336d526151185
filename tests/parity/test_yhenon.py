"""Weights of yhenon/pytorch-retinanet give here what they give there.

Its network is written once more below from its code (retinanet/model.py, anchors.py, utils.py),
with its names, random weights and statistics. Letters: B batch, H W pixels, N anchors, K classes.
"""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from configs.schema import Anchors, Coder, ShortLong
from core.anchors import AnchorGenerator
from core.weights.importing import import_file
from core.weights.torch_and_keras_files import WeightsError, read_file
from detector import Detector

pytestmark = pytest.mark.full

torch = pytest.importorskip("torch", reason="make parity")
nn = torch.nn

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIZE = (96, 160)  # multiples of 32: its pyramid adds maps that were doubled, and never cuts them


# ------------------------------------------------------------------------------------------------
# The network, theirs
# ------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block of two 3x3, or of 1x1, 3x3 (with the stride), 1x1."""

    def __init__(self, inputs: int, width: int, stride: int, is_deep: bool):
        super().__init__()
        convs = [(width, 3, stride), (width, 3, 1)]
        if is_deep:
            convs = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        self.num_convs, self.outputs = len(convs), convs[-1][0]
        before = inputs
        for i, (filters, size, step) in enumerate(convs, 1):
            conv = nn.Conv2d(before, filters, size, step, size // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(filters))
            before = filters
        self.downsample = None
        if stride > 1 or inputs != self.outputs:
            shortcut = nn.Conv2d(inputs, self.outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(self.outputs))

    def forward(self, x):
        y = x
        for i in range(1, self.num_convs + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y if i == self.num_convs else y.relu()
        return (y + (self.downsample(x) if self.downsample else x)).relu()


class Pyramid(nn.Module):
    def __init__(self, channels, width: int):
        super().__init__()
        for level, inputs in zip((3, 4, 5), channels, strict=True):
            self.add_module(f"P{level}_1", nn.Conv2d(inputs, width, 1))
            self.add_module(f"P{level}_2", nn.Conv2d(width, width, 3, padding=1))
        self.P6 = nn.Conv2d(channels[-1], width, 3, 2, 1)
        self.P7_2 = nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, c3, c4, c5):
        double = nn.Upsample(scale_factor=2, mode="nearest")
        p5 = self.P5_1(c5)
        p4 = self.P4_1(c4) + double(p5)
        p3 = self.P3_1(c3) + double(p4)
        p6 = self.P6(c5)
        return [self.P3_2(p3), self.P4_2(p4), self.P5_2(p5), p6, self.P7_2(p6.relu())]


class Subnet(nn.Module):
    def __init__(self, width: int, outputs: int):
        super().__init__()
        for i in range(1, 5):
            self.add_module(f"conv{i}", nn.Conv2d(width, width, 3, padding=1))
        self.output = nn.Conv2d(width, 9 * outputs, 3, padding=1)
        self.num_outputs = outputs

    def forward(self, x):
        for i in range(1, 5):
            x = getattr(self, f"conv{i}")(x).relu()
        x = self.output(x).permute(0, 2, 3, 1)
        return x.reshape(len(x), -1, self.num_outputs)


class Network(nn.Module):
    """Normalised images (B, 3, H, W) -> class logits (B, N, K), box deltas (B, N, 4)."""

    def __init__(self, depth: int, num_classes: int, width: int = 256):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs, channels = 64, []
        for stage, count in enumerate(BLOCKS[depth]):
            blocks = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                blocks.append(Block(inputs, 64 * 2**stage, stride, depth >= 50))
                inputs = blocks[-1].outputs
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            channels.append(inputs)
        self.fpn = Pyramid(channels[1:], width)
        self.regressionModel = Subnet(width, 4)
        self.classificationModel = Subnet(width, num_classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        features = []
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            features.append(x)
        pyramid = self.fpn(*features[1:])
        subnets = self.classificationModel, self.regressionModel
        return [torch.cat([subnet(x) for x in pyramid], 1) for subnet in subnets]


def make_network(depth: int, num_classes: int = 80, width: int = 256) -> Network:
    """With random weights, biases and statistics that keep the signal's size through the depth."""
    network = Network(depth, num_classes, width)
    random = torch.Generator().manual_seed(depth)

    def uniform(tensor, low, high):
        tensor.data.uniform_(low, high, generator=random)

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=random)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.3, generator=random)
        elif isinstance(module, nn.BatchNorm2d):
            uniform(module.weight, 0.6, 1.4)
            uniform(module.bias, -0.3, 0.3)
            uniform(module.running_mean, -0.3, 0.3)
            uniform(module.running_var, 0.5, 1.5)
    for module in network.modules():
        if isinstance(module, Block):  # or every block would double the variance
            getattr(module, f"bn{module.num_convs}").weight.data.mul_(0.3)
    return network.eval()


def their_outputs(network: Network, images: np.ndarray) -> list[np.ndarray]:
    """Of (B, H, W, 3) RGB 0-255: class logits and box deltas."""
    x = ((images / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
    with torch.no_grad():
        return [outputs.numpy() for outputs in network(torch.from_numpy(x.copy()))]


# ------------------------------------------------------------------------------------------------
# The comparison
# ------------------------------------------------------------------------------------------------


def deviation(ours, theirs: np.ndarray) -> float:
    """The largest difference on any level, in standard deviations of the level's outputs."""
    assert ours.shape == theirs.shape
    ends = np.cumsum(AnchorGenerator().level_counts(*SIZE))[:-1]
    pairs = zip(np.split(ours, ends, axis=1), np.split(theirs, ends, axis=1), strict=True)
    return max(float(np.abs(a - b).max() / b.std()) for a, b in pairs)


@pytest.fixture
def folder(tmp_path):
    """Emptied at once: pytest would keep some GB of weights."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    """A network of few channels and three classes, for what has nothing to do with them."""
    return make_network(18, num_classes=3, width=32)


NAMES = ("ape", "bee", "cow")


@pytest.mark.parametrize("depth", BLOCKS)
def test_outputs_agree(depth, folder, images):
    network = make_network(depth, width=256 if depth == 50 else 32)  # theirs: 256
    torch.save(network.state_dict(), folder / "theirs.pth")
    weights = import_file(folder / "theirs.pth")
    weights.save(folder / "ours" / "weights.npz")
    detector = Detector.load(folder / "ours")
    assert weights.origin["format"] == "yhenon"
    assert detector.config.backbone == f"resnet{depth}"
    outputs = detector.model(images, training=False)
    for ours, theirs in zip(outputs.values(), their_outputs(network, images), strict=True):
        assert deviation(ours, theirs) < 1e-4


def test_the_conventions_are_theirs(folder, small):
    torch.save(small.state_dict(), folder / "theirs.pth")
    model = import_file(folder / "theirs.pth", classes=NAMES).model
    assert (model.bottleneck_stride, model.p6_from, model.same_padding) == ("3x3", "c5", ())
    assert (model.bn_mode, model.bn_epsilon) == ("frozen_stats", 1e-5)
    assert (model.neck_width, model.head_width, model.head_depth) == (32, 32, 4)
    assert (model.head_norm, model.normalization, model.prior) == ("none", "torch", 0.01)
    assert model.anchors == Anchors()
    assert model.coder == Coder("center", (0.1, 0.1, 0.2, 0.2), max_log_scale=None)
    assert model.resize == ShortLong(
        short=608, long=1024, multiple=32, antialias=True, rounding="nearest", always_pad=True
    )
    assert model.detect.score_threshold == 0.05
    assert (model.detect.nms_iou, model.detect.max_detections) == (0.5, 100)


# ------------------------------------------------------------------------------------------------
# Anchors and boxes
# ------------------------------------------------------------------------------------------------


def their_anchors(height: int, width: int) -> np.ndarray:
    """(N, 4) corners: cell by cell, in a cell ratio by ratio, of a ratio size by size."""
    boxes = []
    for level in range(3, 8):
        stride = 2**level
        for row in range((height + stride - 1) // stride):
            for column in range((width + stride - 1) // stride):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                for ratio in (0.5, 1, 2):
                    for step in range(3):
                        side = 4 * stride * 2 ** (step / 3)
                        w = (side * side / ratio) ** 0.5
                        h = w * ratio
                        boxes.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return np.array(boxes)


def their_boxes(anchors: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    """(N, 4) and (B, N, 4) -> (B, N, 4): centres move by sides, sides grow without a limit."""
    deltas = deltas * torch.tensor([0.1, 0.1, 0.2, 0.2])
    sides = anchors[:, 2:] - anchors[:, :2]
    centers = anchors[:, :2] + sides / 2 + deltas[..., :2] * sides
    half = deltas[..., 2:].exp() * sides / 2
    return torch.cat([centers - half, centers + half], -1)


def test_boxes_agree(folder, small, images):
    torch.save(small.state_dict(), folder / "theirs.pth")
    import_file(folder / "theirs.pth", classes=NAMES).save(folder / "weights.npz")
    postprocess = Detector.load(folder).postprocess
    anchors = their_anchors(*SIZE)
    np.testing.assert_allclose(postprocess.anchors(*SIZE), anchors, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(
        postprocess.anchors(90, 131), their_anchors(90, 131), rtol=1e-5, atol=1e-3
    )
    deltas = their_outputs(small, images)[1].copy()
    deltas[0, 0] = 0, 0, 30, 40  # e^6 and e^8 times the anchor's sides, which a limit would cut
    anchors = anchors.astype(np.float32)
    theirs = their_boxes(torch.from_numpy(anchors), torch.from_numpy(deltas)).numpy()
    ours = postprocess.coder.decode(tf.constant(deltas), tf.constant(anchors))
    assert theirs[0, 0, 2] - theirs[0, 0, 0] > 400 * (anchors[0, 2] - anchors[0, 0])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


# ------------------------------------------------------------------------------------------------
# Files
# ------------------------------------------------------------------------------------------------


def assert_same(first: dict, second: dict) -> None:
    assert list(first) == list(second)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def test_every_way_to_write_it_gives_the_same_arrays(folder, small):
    state = small.state_dict()
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(state, folder / "plain.pth")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(parallel, folder / "parallel.pth")
    torch.save({"epoch": 3, "state_dict": parallel}, folder / "run.pth")
    assert (folder / "legacy.pt").read_bytes()[:1] == b"\x80"  # a pickle, no zip
    plain = read_file(folder / "plain.pth").arrays
    for name in ("legacy.pt", "parallel.pth", "run.pth"):
        assert_same(read_file(folder / name).arrays, plain)
    first, second = (
        import_file(folder / name, classes=NAMES).arrays for name in ("plain.pth", "parallel.pth")
    )
    assert_same(first, second)
    np.testing.assert_array_equal(
        first["backbone/layer2_0/downsample_0/kernel"][0, 0],
        state["layer2.0.downsample.0.weight"][:, :, 0, 0].T,
    )
    np.testing.assert_array_equal(
        first["backbone/layer4_1/bn2/moving_variance"], state["layer4.1.bn2.running_var"]
    )


def test_eighty_classes_are_those_of_coco(folder):
    torch.save(make_network(18, 80, width=32).state_dict(), folder / "theirs.pth")
    classes = import_file(folder / "theirs.pth").classes
    assert len(set(classes)) == 80
    # Places by COCO's category ids 1, 13, 14, 44, 90, without the ids that are not used.
    assert [classes[i] for i in (0, 11, 12, 39, 79)] == [
        "person", "stop sign", "parking meter", "bottle", "toothbrush",
    ]  # fmt: skip


def test_other_classes_need_their_names(folder, small):
    torch.save(small.state_dict(), folder / "theirs.pth")
    with pytest.raises(WeightsError, match=r"theirs.pth: 3 classes whose names .* --classes"):
        import_file(folder / "theirs.pth")
    with pytest.raises(WeightsError, match="expected 3 different class names, found 2: ape, bee"):
        import_file(folder / "theirs.pth", classes=NAMES[:2])
    weights = import_file(folder / "theirs.pth", classes=NAMES)
    assert (weights.kind, weights.classes) == ("model", NAMES)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickled_network_is_refused_and_not_run(folder, is_zip):
    network = make_network(18, 3, width=32)
    whole, trapped = folder / "whole.pt", folder / "trapped.pt"
    options = {"_use_new_zipfile_serialization": is_zip}
    torch.save(network, whole, **options)
    torch.save(network.state_dict() | {"trap": Trap(folder / "sprung")}, trapped, **options)
    for path in (whole, trapped):
        with pytest.raises(WeightsError, match=r"torch.save\(model.state_dict\(\), FILE\)"):
            import_file(path, classes=NAMES)
    assert not (folder / "sprung").exists()
    torch.load(trapped, weights_only=False)
    assert (folder / "sprung").exists()  # the trap works
