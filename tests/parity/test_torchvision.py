"""torchvision's RetinaNets and ResNets, imported: the same numbers as torchvision itself.

Every model is randomly initialised, with statistics, biases and outputs that a trained one could
have; nothing is downloaded. "Theirs" is torchvision, "ours" this project, through the same doors
that a user takes: a file, `import_file`, a folder, `Detector.load`.
Letters: B batch, H W pixels, N anchors, K classes, D detections.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
import torch
import torchvision
from matplotlib.cbook import get_sample_data
from torch import nn
from torchvision.models.detection import RetinaNet, retinanet_resnet50_fpn_v2
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d, box_iou
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from configs.checked import override
from configs.schema import Config, Loss, Matcher
from core.build import build_backbone, build_criterion
from core.retinanet import TORCH_MEAN, TORCH_STD
from core.weights.formats.coco import COCO_91
from core.weights.formats.torchvision import RETINANET
from core.weights.importing import import_file
from core.weights.npz_files import BACKBONE, Weights
from data.images.decode import decode_image
from detector import Detector
from utils.boxes import PADDING

pytestmark = pytest.mark.full

PHOTO = get_sample_data("grace_hopper.jpg", asfileobj=False)
NAMES = ("cat", "dog", "bird")  # of the small detector

# ------------------------------------------------------------------------------------------------
# Models
# ------------------------------------------------------------------------------------------------


def v1(depth=50, num_classes=91, epsilon=0.0):
    """As retinanet_resnet50_fpn(weights=COCO_V1) builds it, but for the weights themselves."""
    resnet = getattr(torchvision.models, f"resnet{depth}")(norm_layer=FrozenBatchNorm2d)
    backbone = _resnet_fpn_extractor(
        resnet, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
    )
    model = RetinaNet(backbone, num_classes)
    overwrite_eps(model, epsilon)
    return model


def v2():
    return retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None)


def randomize(model, seed=0, score_logit=-7.0):
    """Numbers such as training leaves, in place of the ones and zeros that hide mistakes.

    score_logit: of a detector, the average logit; so low, because there are millions of them and
        only the best some thousand should pass a score of .05.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, mean, std):
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
                randomize_norm(module, normal, generator)
            elif isinstance(module, nn.GroupNorm):
                normal(module.weight, 1.0, 0.2)
                normal(module.bias, 0.0, 0.2)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                normal(module.weight, 0.0, math.sqrt(2 / fan_in))
                if module.bias is not None:
                    normal(module.bias, 0.0, 0.1)
        for module in model.modules():
            if isinstance(module, (BasicBlock, Bottleneck)):
                # Else each of the blocks doubles the variance.
                (module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight *= 0.25
        if isinstance(model, RetinaNet):
            fpn = model.backbone.fpn
            for module in (*fpn.inner_blocks.modules(), *fpn.layer_blocks.modules()):
                if isinstance(module, nn.Conv2d):
                    module.weight *= 0.3  # it adds up what is large already
            randomize_head(model.head, normal, score_logit)
    return model


def randomize_norm(norm, normal, generator):
    """One channel in eight hardly varies: there alone the epsilon matters."""
    normal(norm.weight, 1.0, 0.1)
    normal(norm.bias, 0.0, 0.1)
    normal(norm.running_mean, 0.0, 0.1)
    norm.running_var.copy_(0.5 + torch.rand(norm.running_var.shape, generator=generator))
    norm.running_var[::8] *= 1e-4
    norm.weight[::8] *= 1e-2


def randomize_head(head, normal, score_logit):
    """Scores on both sides of .05, boxes that differ from their anchors."""
    for part in (head.classification_head, head.regression_head):
        for module in part.conv.modules():
            # Outputs so small that GroupNorm's epsilon matters, too.
            if isinstance(module, nn.Conv2d) and module.bias is None:
                module.weight *= 0.1
    logits, deltas = head.classification_head.cls_logits, head.regression_head.bbox_reg
    normal(logits.weight, 0.0, 0.03)
    normal(logits.bias, score_logit, 0.3)
    normal(deltas.weight, 0.0, 0.01)


@dataclass(repr=False)
class Pair:
    """The same detector, theirs and ours."""

    name: str
    theirs: "RetinaNet"
    ours: Detector


def imported(model, folder, **options):
    """A torch model -> file -> our folder, as a user does it; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "theirs.pth")
    import_file(folder / "theirs.pth", **options).save(folder / "weights.npz")
    return folder


@pytest.fixture(scope="module", params=["v1", "v2"])
def pair(request, tmp_path_factory):
    """Both versions as published, ResNet-50 with 91 classes."""
    name = request.param
    theirs = randomize(v1(), score_logit=-9.0) if name == "v1" else randomize(v2())
    ours = Detector.load(imported(theirs.eval(), tmp_path_factory.mktemp(name)))
    assert ours.classes == COCO_91
    return Pair(name, theirs, ours)


# ------------------------------------------------------------------------------------------------
# The network
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo():
    """(600, 512, 3) uint8 RGB: the photograph that comes with matplotlib."""
    return decode_image(PHOTO)


def padded(images, height, width):
    """Images of any size -> one batch (B, height, width, 3) float32 0-255, and its sizes (B, 2)."""
    batch = np.zeros([len(images), height, width, 3], np.float32)
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return batch, np.int32([image.shape[:2] for image in images])


def tensors(images):
    """What torchvision's detectors take: (3, h, w) 0-1 each."""
    return [torch.tensor(image).permute(2, 0, 1) / 255 for image in images]


def normalised(images, height, width):
    """What its backbones take: (B, 3, height, width), normalised before it is padded."""
    batch = torch.zeros([len(images), 3, height, width])
    mean, std = (torch.tensor(values)[:, None, None] for values in (TORCH_MEAN, TORCH_STD))
    for row, image in zip(batch, tensors(images), strict=True):
        row[:, : image.shape[1], : image.shape[2]] = (image - mean) / std
    return batch


def compare_networks(theirs, ours, images, size, agree, name):
    """Class logits and box deltas of images padded to `size`."""
    with torch.no_grad():
        features = theirs.backbone(normalised(images, *size))
        expected = theirs.head(list(features.values()))
    outputs = ours.model(*padded(images, *size))
    agree(1e-4, f"{name} class logits", outputs["class_logits"], expected["cls_logits"])
    agree(1e-4, f"{name} box deltas", outputs["box_deltas"], expected["bbox_regression"])


@pytest.mark.parametrize(
    ("contents", "size"),
    [
        pytest.param([(224, 320)], (224, 320), id="even"),
        pytest.param([(257, 383)], (257, 383), id="odd"),
        pytest.param([(800, 1333)], (800, 1344), id="as published"),
        pytest.param([(224, 320), (256, 301)], (256, 320), id="batch of two"),
    ],
)
def test_network(pair, photo, agree, contents, size):
    images = [cv2.resize(photo, (width, height)) for height, width in contents]
    compare_networks(pair.theirs, pair.ours, images, size, agree, pair.name)


# ------------------------------------------------------------------------------------------------
# Files -> detections
# ------------------------------------------------------------------------------------------------


def odd_side():
    """An odd side that rounding errors bring to 799 instead of 800."""
    return next(side for side in range(301, 600, 2) if math.floor(side * (800 / side)) == 799)


@pytest.fixture(scope="module")
def photos(photo, tmp_path_factory):
    """Name -> file: parts of the photograph, and pictures of COCO where they are at hand."""
    folder = tmp_path_factory.mktemp("photos")
    side = odd_side()
    pictures = {
        "portrait": photo[:590, -250:],  # the long side becomes 1333
        "landscape": photo[:200],
        "799 pixels": photo[:side, -side - 60 :],
        "shrinks": cv2.resize(photo, (1027, 1203)),
    }
    files = {}
    for name, picture in pictures.items():
        files[name] = folder / f"{name}.png"
        assert cv2.imwrite(str(files[name]), picture[:, :, ::-1])
    coco = Path(__file__).parents[3] / "shared" / "data" / "tiny_coco" / "val2017"
    files |= {path.stem: path for path in sorted(coco.glob("*.jpg"))[:3]}
    return files


def detections(detector, files, batch_size=1):
    """Ours of each file: dicts of boxes, scores, labels, as torchvision gives them."""
    table = detector.detect(files, batch_size)
    return [
        {name: getattr(table, name)[table.image == i] for name in ("boxes", "scores", "labels")}
        for i in range(len(files))
    ]


def counterparts(ours, theirs):
    """Of each detection of ours, in order of score, the place of its counterpart among theirs.

    A counterpart has the same label, a score that differs by 1e-4 at most and an IoU above .999;
    boxes that clipping left without area, which have no IoU, differ by 1e-3 pixels at most.
    """
    ious = box_iou(torch.tensor(ours["boxes"]), torch.tensor(theirs["boxes"])).numpy()
    corners = np.abs(ours["boxes"][:, None] - theirs["boxes"]).max(-1)
    scores = np.abs(ours["scores"][:, None] - theirs["scores"])
    fits = (ours["labels"][:, None] == theirs["labels"]) & (scores <= 1e-4)
    fits &= (ious > 0.999) | (np.isnan(ious) & (corners < 1e-3))
    places = np.full(len(ious), -1)
    for i in np.argsort(-ours["scores"]):
        if fits[i].any():
            places[i] = np.where(fits[i], corners[i], np.inf).argmin()
            fits[:, places[i]] = False
    return places


def compare_detections(ours, theirs, within, name):
    """One to one, and enough of them to show something."""
    theirs = {key: value.numpy() for key, value in theirs.items()}
    places = counterparts(ours, theirs)
    others = np.setdiff1d(np.arange(len(theirs["scores"])), places)
    assert not (places < 0).any(), f"only ours: {[v[places < 0] for v in ours.values()]}"
    assert not len(others), f"only theirs: {[v[others] for v in theirs.values()]}"
    assert len(places) >= 100, f"{len(places)} detections show little"
    within(1e-4, f"{name} scores", np.abs(ours["scores"] - theirs["scores"][places]).max())
    pixels = np.abs(ours["boxes"] - theirs["boxes"][places]).max()
    within(0.01, f"{name} boxes, pixels", pixels)


def test_detections(pair, photos, within):
    """From the file to the last box, one image at a time."""
    found = detections(pair.ours, list(photos.values()))
    for file, ours in zip(photos.values(), found, strict=True):
        with torch.no_grad():
            [theirs] = pair.theirs(tensors([decode_image(file)]))
        compare_detections(ours, theirs, within, f"{pair.name} detections,")


def test_detections_of_a_batch(pair, photos, within):
    """Images of different sizes share an input, whose size decides where the anchors are."""
    files = [PHOTO, photos["799 pixels"]]
    with torch.no_grad():
        theirs = pair.theirs(tensors([decode_image(file) for file in files]))
    for mine, other in zip(detections(pair.ours, files, batch_size=2), theirs, strict=True):
        compare_detections(mine, other, within, f"{pair.name} detections,")


def test_all_candidates(pair, photos, within, monkeypatch):
    """Without a limit of 300, so that the score threshold and the top 1000 of a level show."""
    config = override(pair.ours.config, {"detect.max_detections": 5000})
    unlimited = Detector(pair.ours.model, pair.ours.classes, config)
    monkeypatch.setattr(pair.theirs, "detections_per_img", 5000)
    [ours] = detections(unlimited, [photos["799 pixels"]])
    with torch.no_grad():
        [theirs] = pair.theirs(tensors([decode_image(photos["799 pixels"])]))
    compare_detections(ours, theirs, within, f"{pair.name} all candidates,")


# ------------------------------------------------------------------------------------------------
# Training
# ------------------------------------------------------------------------------------------------

# Boxes (xyxy) and labels of an image of 256 x 320 and of one of 224 x 288. The small one has no
# anchor with an IoU of .4: only low-quality matching finds it.
LARGE = ([[20, 30, 120, 200], [150, 40, 310, 230], [201, 199, 213, 210]], [3, 17, 90])
SMALL = ([[5, 8, 60, 40], [30, 20, 280, 215]], [44, 1])
EMPTY = ([], [])


@pytest.fixture
def training_pair(pair):
    """Both in training, and afterwards as they were."""
    before = {name: tensor.clone() for name, tensor in pair.theirs.state_dict().items()}
    values = [variable.numpy() for variable in pair.ours.model.variables]
    pair.theirs.train()
    pair.theirs.transform._skip_resize = True
    yield pair
    pair.theirs.float().load_state_dict(before)
    pair.theirs.transform._skip_resize = False
    pair.theirs.eval().zero_grad(set_to_none=True)
    for variable, value in zip(pair.ours.model.variables, values, strict=True):
        variable.assign(value)


def their_step(model, images, objects):
    """Losses by name, and gradients by place and in our layout."""
    targets = [
        {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
        }
        for boxes, labels in objects
    ]
    dtype = next(model.parameters()).dtype
    losses = model([image.to(dtype) for image in tensors(images)], targets)
    sum(losses.values()).backward()
    gradients = {
        RETINANET.place(name): RETINANET.array(weight.grad.numpy())
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    return {name: loss.item() for name, loss in losses.items()}, gradients


def our_step(detector, criterion, images, objects):
    """The same of ours."""
    height, width = np.max([image.shape[:2] for image in images], axis=0)  # multiples of 32
    batch_images, sizes = padded(images, height, width)
    most = max(len(labels) for _, labels in objects)
    boxes = np.zeros([len(objects), most, 4], np.float32)
    labels = np.full([len(objects), most], PADDING, np.int32)
    for i, (its_boxes, its_labels) in enumerate(objects):
        boxes[i, : len(its_labels)] = np.reshape(its_boxes, [-1, 4])
        labels[i, : len(its_labels)] = its_labels
    batch = {"images": batch_images, "boxes": boxes, "labels": labels}
    batch = {name: tf.constant(array) for name, array in batch.items()}
    variables = detector.model.trainable_variables
    with tf.GradientTape() as tape:
        losses = criterion(detector.model(batch["images"], sizes, training=True), batch)
    gradients = zip(variables, tape.gradient(losses["loss"], variables), strict=True)
    gradients = {
        variable.path.removeprefix("retinanet/"): gradient.numpy()
        for variable, gradient in gradients
        if gradient is not None
    }
    return {name: float(loss) for name, loss in losses.items()}, gradients


@pytest.fixture
def smooth(monkeypatch):
    """softplus in place of every relu, in both libraries.

    The derivative of relu jumps: an activation that rounds to the other side of 0 changes its
    gradient by all there is. TensorFlow's sums in batch norm and convolutions are some ten times
    less exact than torch's (compared in float64), and flip enough to hide smaller mistakes.
    """
    monkeypatch.setattr(tf.nn, "relu", tf.nn.softplus)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: nn.functional.softplus(x))
    monkeypatch.setattr(nn.functional, "relu", nn.functional.softplus)


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param([LARGE], id="one image"),
        pytest.param([LARGE, SMALL], id="two images"),
        pytest.param([LARGE, EMPTY], id="one without objects"),
    ],
)
def test_training(training_pair, smooth, photo, agree, within, objects):
    """Losses, gradients of all weights and what batch norm keeps, from one step of each."""
    compare_steps(training_pair, photo, objects, agree, within, "", 1e-3)


def test_training_with_relu(training_pair, photo, agree, within):
    """As it is, see `smooth`, against torch in float64.

    Either library's float32 may flip a relu, and which one does depends on the processor: on an
    EPYC torch's own gradients of v1 were 6e-3 from its float64 and ours 2e-4; of v2 6e-3 and 3e-2.
    """
    training_pair.theirs.double()
    limit = {"v1": 0.005, "v2": 0.05}[training_pair.name]
    compare_steps(training_pair, photo, [LARGE, SMALL], agree, within, " with relu", limit)


def compare_steps(pair, photo, objects, agree, within, remark, limit):
    images = [cv2.resize(photo, size) for size in [(320, 256), (288, 224)][: len(objects)]]
    config = Config(
        model=pair.ours.config,
        matcher=Matcher(low_quality=True),
        loss=Loss(box={"v1": "l1", "v2": "giou"}[pair.name], normalization="image"),
    )
    theirs, their_gradients = their_step(pair.theirs, images, objects)
    ours, our_gradients = our_step(pair.ours, build_criterion(config), images, objects)

    name = pair.name + remark
    assert ours["positives"] > 3
    agree(1e-4, f"{name} class loss", ours["class_loss"], theirs["classification"])
    agree(1e-4, f"{name} box loss", ours["box_loss"], theirs["bbox_regression"])
    assert our_gradients.keys() == their_gradients.keys()
    for place, expected in their_gradients.items():
        difference = np.linalg.norm(our_gradients[place] - expected) / np.linalg.norm(expected)
        within(limit, f"{name} gradients, norm of difference / norm ({place})", difference)
    for leaf, average, expected in moving_averages(pair):
        agree(1e-4, f"{name} {leaf}", average, expected)


def moving_averages(pair):
    """(moving_mean or moving_variance, ours, theirs) of each batch norm."""
    theirs = {
        RETINANET.place(name): tensor.numpy()
        for name, tensor in pair.theirs.state_dict().items()
        if ".running_" in name
    }
    for variable in pair.ours.model.non_trainable_variables:
        place = variable.path.removeprefix("retinanet/")
        if place in theirs:
            yield place.rsplit("/", 1)[1], variable.numpy(), theirs.pop(place)
    assert not theirs


# ------------------------------------------------------------------------------------------------
# Files
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """A detector of three classes on ResNet-18, as one trains for oneself: epsilon 1e-5."""
    return randomize(v1(depth=18, num_classes=3, epsilon=1e-5)).eval()


@pytest.fixture(scope="module")
def small_weights(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    changes = {"bn_epsilon": 1e-5}
    return Weights.load(imported(small, folder, classes=NAMES, changes=changes))


def test_small_detector(small, small_weights, photo, agree):
    assert small_weights.classes == NAMES
    assert small_weights.model.backbone == "resnet18"
    ours = Detector.load(small_weights.path)
    image = cv2.resize(photo, (223, 161))
    compare_networks(small, ours, [image], (161, 223), agree, "ResNet-18 detector")


def until_0_12(state):
    """Names of torchvision 0.12 and before, where a convolution was no list of one."""
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1.", name)
        name = re.sub(r"\.conv\.(\d)\.0\.", lambda found: f".conv.{2 * int(found[1])}.", name)
        renamed[name] = tensor
    return renamed


def test_names_until_0_12(small):
    """torchvision itself reads what `until_0_12` makes."""
    old = until_0_12(small.state_dict())
    assert "head.classification_head.conv.3.0.weight" not in old
    fresh = v1(depth=18, num_classes=3)
    fresh.load_state_dict(old)
    for name, tensor in small.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("change", "options"),
    [
        pytest.param(until_0_12, {}, id="old names"),
        pytest.param(lambda state: {"model": state, "epoch": 3}, {}, id="inside a run"),
        pytest.param(
            lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
            {},
            id="of DataParallel",
        ),
        pytest.param(dict, {"_use_new_zipfile_serialization": False}, id="legacy file"),
        pytest.param(
            lambda state: {"model": {f"module.{k}": v for k, v in until_0_12(state).items()}},
            {"_use_new_zipfile_serialization": False},
            id="all of it",
        ),
    ],
)
def test_other_files(small, small_weights, tmp_path, change, options):
    """The same arrays from all forms in which a state dict is found."""
    torch.save(change(small.state_dict()), tmp_path / "theirs.pth", **options)
    weights = import_file(tmp_path / "theirs.pth", classes=NAMES)
    assert list(weights.arrays) == list(small_weights.arrays)
    for place, array in weights.arrays.items():
        np.testing.assert_array_equal(array, small_weights.arrays[place], err_msg=place)


# ------------------------------------------------------------------------------------------------
# Backbones
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_resnet(depth, photo, tmp_path, agree):
    """The file of an ImageNet classifier, its last layer included."""
    model = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    randomize(model).eval()
    weights = Weights.load(imported(model, tmp_path))
    assert weights.kind == BACKBONE
    assert weights.model.backbone == f"resnet{depth}"
    image = cv2.resize(photo, (163, 129))
    x = normalised([image], 129, 163)
    backbone = build_backbone(weights.model)
    backbone(tf.zeros([1, 64, 64, 3]))
    for variable in backbone.variables:
        variable.assign(weights.arrays[variable.path])
    features = backbone(x.numpy().transpose(0, 2, 3, 1))

    with torch.no_grad():
        x = model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(x)))))
        for level, ours in enumerate(features, 3):
            x = getattr(model, f"layer{level - 1}")(x)
            agree(1e-4, f"ResNet-{depth} C{level}", ours, x.permute(0, 2, 3, 1))
