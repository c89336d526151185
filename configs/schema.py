"""Every setting there is, with its type, its default and why one would turn it.

Presets and config.py hold only their differences from these defaults. Standard library only.
Paper: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017 (arXiv:1708.02002).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from configs.checked import Checked, ConfigError

# The largest values, generous: what lies beyond can only be a mistake, and would end in hours or in
# no memory instead of in a message.
SIDE = 16384  # pixels of the network's input
BATCH = 65536  # images
EPOCHS = 10**6
STEPS = 10**9
FACTOR = 1000  # of learning rates, shares, sizes of boxes
RATIOS = 32  # anchors.ratios and .scales
SCALES = "1 to 32 different multiples from 0.1 to 10"
METRIC_OF_FORMAT = {"coco": "coco", "crowdhuman": "crowdhuman"}  # every other: voc


def _are_scales(values: tuple[float, ...]) -> bool:
    is_each_met = all(0.1 <= value <= 10 for value in values)
    return 1 <= len(values) <= RATIOS and len(set(values)) == len(values) and is_each_met


@dataclass(frozen=True)
class Augment(Checked):
    """Random changes of a training sample; each is off at its neutral value."""

    flip: float = 0.5  # probability of a horizontal flip
    vertical_flip: float = 0.0  # the same upside down, where up and down mean nothing
    brightness: float = 0.0  # up to this share of the full range is added or taken away
    contrast: float = 0.0  # distance from the mean colour is multiplied by 1 +- this
    saturation: float = 0.0  # distance from grey is multiplied by 1 +- this
    hue: float = 0.0  # turns the colour circle by up to this share (0.5 = anywhere)
    zoom: tuple[float, float] = (1.0, 1.0)  # below 1 expands on a grey canvas, above 1 crops
    iou_crop: float = 0.0  # probability of a window chosen by its IoU with an object, not by zoom
    rotate: float = 0.0  # by up to so many degrees either way; boxes grow: 10 degrees, a third
    shear: float = 0.0  # columns and rows are slanted by up to so many degrees
    translate: float = 0.0  # moved by up to this share of the sides
    # Each batch has one of these multiples of the canvas, but for 1 rounded to 32 pixels.
    canvas_scales: tuple[float, ...] = (1.0,)
    blur: float = 0.0  # probability of a Gaussian blur: sigma 0.2 to 0.6 % of the shorter side
    jpeg: float = 0.0  # probability of having been a JPEG file, of quality 20 to 90
    cutout: float = 0.0  # probability of one grey rectangle over 5 to 20 % of the picture
    min_visibility: float = 0.25  # a box that keeps less than this share of its area is dropped

    GONE: ClassVar[dict[str, float]] = {"noise": 0.0, "grayscale": 0.0}

    def check(self) -> None:
        for name in ("flip", "vertical_flip", "iou_crop", "min_visibility"):
            self.require(name, 0 <= getattr(self, name) <= 1, "a share from 0 to 1")
        for name in ("blur", "jpeg", "cutout"):
            self.require(name, 0 <= getattr(self, name) <= 1, "a share from 0 to 1")
        for name in ("brightness", "contrast", "saturation"):
            self.require(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        self.require("hue", 0 <= self.hue <= 0.5, "a number from 0 to 0.5")
        is_met = 0.01 <= self.zoom[0] <= self.zoom[1] <= 100
        self.require("zoom", is_met, "(smallest, largest), from 0.01 to 100")
        for name, most in (("rotate", 180), ("shear", 30)):
            self.require(name, 0 <= getattr(self, name) <= most, f"degrees from 0 to {most}")
        self.require("translate", 0 <= self.translate < 1, "a share from 0 to below 1")
        self.require("canvas_scales", _are_scales(self.canvas_scales), SCALES)
        self.require_used("zoom", self.iou_crop < 1, "iou_crop is below 1")


@dataclass(frozen=True)
class Mixing(Checked):
    """Training samples put together from several images; one sample by one of the three at most."""

    # Probability of a blend with another image, objects weigh as it does; under ShortLong it is as
    # high and as wide as the larger of the two.
    mixup: float = 0.0
    cutmix: float = 0.0  # probability of a rectangle of another image in place of its own
    mosaic: float = 0.0  # probability of windows of four images around a point, not scaled
    mixup_alpha: float = 1.5  # shares are drawn from Beta(alpha, alpha): above 1 often near a half
    cutmix_alpha: float = 1.0  # 1: the rectangle's share of the area is uniform
    closing_epochs: int = 0  # at the end of the run nothing is mixed for so many epochs

    @property
    def total(self) -> float:
        """The probability that a sample is mixed."""
        return math.fsum([self.mixup, self.cutmix, self.mosaic])

    def check(self) -> None:
        for name in ("mixup", "cutmix", "mosaic"):
            self.require(name, 0 <= getattr(self, name) <= 1, "a share from 0 to 1")
        if self.total > 1:
            raise ConfigError(
                "data.mixing: expected mixup, cutmix and mosaic to be at most 1 together, found "
                f"{self.mixup:g}, {self.cutmix:g} and {self.mosaic:g}"
            )
        self.require_range("mixup_alpha cutmix_alpha", 0, FACTOR, above=True)
        self.require_range("closing_epochs", 0, EPOCHS)
        self.require_used("mixup_alpha", self.mixup > 0, "mixup is above 0")
        self.require_used("cutmix_alpha", self.cutmix > 0, "cutmix is above 0")
        self.require_used("closing_epochs", self.total > 0, "something is mixed")


@dataclass(frozen=True)
class Csv(Checked):
    """How a CSV file is laid out, where its content does not tell."""

    delimiter: Literal["", "comma", "semicolon", "tab", "blank", "pipe"] = ""  # empty: found out
    header: bool | None = None  # whether the first line names the columns; None: found out


@dataclass(frozen=True)
class Data(Checked):
    """Which images and boxes, and how they are read: docs/datasets.md."""

    # voc, coco, csv, yolo, crowdhuman; shapes: VOC too, generated at `root` if absent.
    format: str = "voc"
    root: str = "datasets/VOCdevkit"  # the folder of the dataset
    images: tuple[str, ...] = ()  # folders of images elsewhere than usual, below root or absolute
    limit: int = 0  # use only this many images of each split, for a quick try; 0: all
    train: str = "train"  # split or annotation file, or several: "VOC2007/train + VOC2012/train"
    val: str = "val"  # the same for validation and for evaluate.py
    val_fraction: float = 0.2  # of a flat folder or a single CSV, the share of images held out
    classes: tuple[str, ...] = ()  # empty: found in the annotations, saved with the run
    class_file: str = ""  # or they stand in a file below root: "name,id" lines, or a name a line
    csv: Csv = field(default_factory=Csv)
    person_box: Literal["full", "visible"] = "full"  # of CrowdHuman's persons
    check_images: bool = True  # read every image's header; False: trust a COCO file, start faster
    on_bad_annotation: Literal["error", "drop"] = "error"  # drop: leave out, count and report
    train_on_difficult: bool = True  # False: `difficult` objects are neither object nor background
    # Images of a class that less than this share of all images has are repeated in an epoch, by
    # sqrt(threshold / share) (LVIS: 0.001); 1: of every class, by 1 / sqrt(share); 0: of none.
    repeat_threshold: float = 0.0
    # Keep decoded images in memory: width * height * 3 bytes an image, of a JPEG with `antialias` a
    # 4th, 16th or 64th of it where the largest augment.zoom (10/3 with iou_crop) still shows it at
    # the network's size, on the largest canvas.
    # Pixels differ a little from those decoded for each view.
    cache: bool = False
    augment: Augment = field(default_factory=Augment)
    mixing: Mixing = field(default_factory=Mixing)

    def check(self) -> None:
        self.require_range("limit", 0, STEPS)
        self.require("repeat_threshold", 0 <= self.repeat_threshold <= 1, "a share from 0 to 1")
        self.require("val_fraction", 0 < self.val_fraction < 1, "a share between 0 and 1")
        self.require("classes", len(set(self.classes)) == len(self.classes), "each class once")
        self.require("class_file", not (self.classes and self.class_file), "none beside classes")
        augment, mixing = self.augment, self.mixing
        of_augment = ("iou_crop", "rotate", "shear", "translate", "cutout")
        cuts = [getattr(augment, name) for name in of_augment] + [mixing.cutmix, mixing.mosaic]
        where = f"something cuts objects off: zoom above 1, {', '.join(of_augment)}, cutmix, mosaic"
        self.require_used("augment.min_visibility", augment.zoom[1] > 1 or any(cuts), where)


@dataclass(frozen=True)
class Canvas(Checked):
    """Every image is scaled to fit one fixed canvas and padded at the bottom and right."""

    kind: ClassVar[str] = "canvas"
    height: int = 416
    width: int = 416
    antialias: bool = True  # smooth before shrinking

    def check(self) -> None:
        self.require_range("height width", 32, SIDE)


@dataclass(frozen=True)
class ShortLong(Checked):
    """The short side becomes `short`, or the long one `long`; padded to a multiple."""

    kind: ClassVar[str] = "short_long"
    short: int = 800
    long: int = 1333
    multiple: int = 32  # height and width of a batch are rounded up to a multiple of this
    antialias: bool = False  # torchvision's default is without
    rounding: Literal["floor", "nearest"] = "floor"  # of the sides; nearest: yhenon, fizyr
    always_pad: bool = False  # a side that is a multiple already gets one more (yhenon)

    def check(self) -> None:
        self.require_range("short", 32, SIDE)
        is_met = self.short <= self.long <= SIDE
        self.require("long", is_met, f"at least short = {self.short}, at most {SIDE}")
        self.require_range("multiple", 1, 1024)


@dataclass(frozen=True)
class Anchors(Checked):
    """The boxes that the network's outputs are relative to (paper section 4)."""

    sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)  # side on P3, P4, P5, P6, P7
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width, area kept
    scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # steps within a level
    center_offset: float = 0.5  # centre in its cell; torchvision, detectron2, mmdet: 0
    stride: Literal["nominal", "grid"] = "nominal"  # grid: image size // grid size (torchvision)
    rounding: bool = False  # whole-number sizes and rounded corners (torchvision)

    def check(self) -> None:
        self.require("sizes", len(self.sizes) == 5, "five sizes, for P3 to P7")
        for name in ("ratios", "scales"):
            self.require(name, 1 <= len(getattr(self, name)) <= RATIOS, f"1 to {RATIOS} numbers")
        self.require_range("sizes", 0, 10 * SIDE, above=True)
        self.require_range("ratios scales", 1 / FACTOR, FACTOR)
        self.require("center_offset", 0 <= self.center_offset <= 1, "a number from 0 to 1")


@dataclass(frozen=True)
class Coder(Checked):
    """How a box is written relative to its anchor."""

    form: Literal["center", "corner"] = "center"  # corner: x1, y1, x2, y2 (keras-retinanet)
    stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)  # yhenon: .1, .1, .2, .2
    max_log_scale: float | None = 4.135166556742356  # log(1000 / 16): limit of a growing side

    def check(self) -> None:
        self.require_range("stds", 0, FACTOR, above=True)
        self.require_range("max_log_scale", 0, 80, above=True)  # exp(89) is none of float32
        self.require_used("max_log_scale", self.form == "center", "form is center")


@dataclass(frozen=True)
class Detect(Checked):
    """From network outputs to final boxes."""

    score_threshold: float = 0.05  # detections below are dropped
    top_k: int = 1000  # best candidates of a level that go on to NMS
    nms_iou: float = 0.5  # of two boxes of a class that overlap more, the better one stays
    # Soft-NMS (arXiv:1704.04503) keeps the worse one at a lower score: linear times 1 - IoU, above
    # nms_iou; gaussian, at any overlap, times exp(-IoU^2 / soft_sigma).
    nms: Literal["hard", "linear", "gaussian"] = "hard"
    soft_sigma: float = 0.5
    max_detections: int = 100  # kept for an image
    # More views of each image, whose candidates go through one NMS. Validation while training has
    # one, the image as it is, whatever these say: it would take as many times as long.
    flip: bool = False  # also look at the mirrored image
    scales: tuple[float, ...] = (1.0,)  # look at these multiples of the input's size
    # Of evaluate.py, visualize.py and Detector.load, whatever was trained in; bfloat16 where the
    # hardware has it. Validation while training is in train.precision.
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"

    def check(self) -> None:
        self.require("score_threshold", 0 <= self.score_threshold < 1, "a score from 0 to below 1")
        self.require("nms_iou", 0 <= self.nms_iou <= 1, "an IoU from 0 to 1")
        self.require_range("soft_sigma", 0, FACTOR, above=True)
        is_gaussian = self.nms == "gaussian"
        self.require_used("soft_sigma", is_gaussian, "nms is gaussian")
        self.require_used("nms_iou", not is_gaussian, "nms is hard or linear")
        self.require("scales", _are_scales(self.scales), SCALES)
        self.require_range("top_k", 1, 10**6)
        self.require_range("max_detections", 1, 10**5)


BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
Padded = tuple[Literal["conv1", "pool1", "p6", "p7"], ...]


@dataclass(frozen=True)
class Bifpn(Checked):
    """Of model.neck = "bifpn" (EfficientDet, arXiv:1911.09070 section 3)."""

    repeats: int = 3  # rounds, each from P7 down to P3 and back up
    separable: bool = True  # 3x3 convolutions are depthwise and 1x1: an eighth of the weights
    # After each convolution; batch is live whatever model.bn_mode is, group for tiny batches.
    norm: Literal["batch", "group", "none"] = "batch"

    def check(self) -> None:
        self.require_range("repeats", 1, 16)  # EfficientDet-D7: 8


@dataclass(frozen=True)
class Model(Checked):
    """The network and the conventions that travel with its weights.

    With `weights`, whatever is not set here is as the weights need it.
    """

    # To start from: "imagenet" (a backbone), "coco" (a detector), another name of
    # `python -m core.weights list`, or a path: an imported folder, a run, a checkpoint.
    weights: str | None = None
    aliases: dict[str, str] = field(default_factory=dict)  # class -> its name in the weights
    backbone: BackboneName | Callable = "resnet50"  # or () -> layer: images -> [C3, C4, C5]
    bottleneck_stride: Literal["3x3", "1x1"] = "3x3"  # 3x3: torchvision; 1x1: keras-retinanet
    # Of the backbone's batch norms; frozen_stats: gamma and beta learn, statistics stay.
    bn_mode: Literal["live", "frozen_stats", "frozen"] = "live"
    bn_epsilon: float = 1e-5
    same_padding: Padded = ()  # where stride 2 pads as TensorFlow's "same" (keras-retinanet)
    # Or () -> layer: [C3, C4, C5] -> [P3 ... P7]. A part of your own takes no settings from here.
    neck: Literal["fpn", "panet", "bifpn"] | Callable = "fpn"
    bifpn: Bifpn = field(default_factory=Bifpn)
    neck_width: int = 256
    p6_from: Literal["c5", "p5"] = "c5"  # c5: paper; p5: torchvision v1
    head_depth: int = 4  # 3x3 convolutions before the output
    head_width: int = 256
    head_norm: Literal["none", "group"] = "none"  # group: GroupNorm of 32 groups (torchvision v2)
    prior: float = 0.01  # score of everything before training (paper section 3.3)
    normalization: Literal["torch", "caffe"] = "torch"  # caffe: BGR minus mean (keras-retinanet)
    anchors: Anchors = field(default_factory=Anchors)
    coder: Coder = field(default_factory=Coder)
    # Of the 16 of a value, how many are in use in image files that have so many: 12 of many
    # cameras. None: found over the training split, and saved. Files of 8 bits are as they are.
    bits: int | None = None
    resize: Canvas | ShortLong = field(default_factory=Canvas)
    detect: Detect = field(default_factory=Detect)

    def check(self) -> None:
        is_met = self.bits is None or 8 <= self.bits <= 16
        self.require("bits", is_met, "None or a whole number from 8 to 16")
        self.require_range("bn_epsilon", 0, 1)
        self.require_range("neck_width head_width", 1, 4096)
        self.require_used("bifpn", self.neck == "bifpn", "neck is bifpn")
        is_met = self.bifpn.norm != "group" or self.neck_width % 32 == 0
        self.require("neck_width", is_met, "a multiple of 32 for bifpn.norm = 'group'")
        self.require_range("head_depth", 0, 64)
        is_met = self.head_norm == "none" or self.head_width % 32 == 0
        self.require("head_width", is_met, "a multiple of 32 for head_norm = 'group'")
        is_met = bool(self.weights) or not self.aliases
        self.require("aliases", is_met, "none without model.weights")
        self.require("prior", 0 < self.prior < 1, "a probability between 0 and 1")
        self.require_used("head_norm", self.head_depth > 0, "head_depth is above 0")
        deep = ("resnet50", "resnet101", "resnet152")
        where = f"backbone is {' or '.join(deep)}"
        self.require_used("bottleneck_stride", self.backbone in deep, where)
        self._check_own_parts()

    def _check_own_parts(self) -> None:
        """Parts of the user's own take no settings from here."""
        is_ours = {"backbone": not callable(self.backbone), "neck": not callable(self.neck)}
        self.require_used("bn_mode", is_ours["backbone"], "backbone is a ResNet by name")
        for name in ("neck_width", "p6_from"):
            self.require_used(name, is_ours["neck"], "neck is one by name")
        is_used = is_ours["backbone"] or (self.neck == "bifpn" and self.bifpn.norm == "batch")
        where = "backbone is a ResNet by name or bifpn.norm is batch"
        self.require_used("bn_epsilon", is_used, where)
        for part, layers in (("backbone", {"conv1", "pool1"}), ("neck", {"p6", "p7"})):
            is_used = is_ours[part] or not layers & {*self.same_padding}
            self.require_used("same_padding", is_used, f"{part} is one by name or not padded")


@dataclass(frozen=True)
class Matcher(Checked):
    """Anchors are objects, background or neither by their IoU with an object (paper section 4)."""

    kind: ClassVar[str] = "iou"
    positive_iou: float = 0.5  # from here on an anchor is an object
    negative_iou: float = 0.4  # below it is background; between, it is ignored
    low_quality: bool = False  # each object also keeps its best anchor, however poor (torchvision)

    def check(self) -> None:
        self.require("positive_iou", 0 < self.positive_iou <= 1, "an IoU above 0, up to 1")
        limit = self.positive_iou
        self.require(
            "negative_iou", 0 <= self.negative_iou <= limit, f"0 to positive_iou = {limit}"
        )


@dataclass(frozen=True)
class Atss(Checked):
    """Each object sets the IoU its anchors must have (arXiv:1912.02424); the rest is background."""

    kind: ClassVar[str] = "atss"
    top_k: int = 9  # cells nearest to an object, on each level, whose anchors are looked at

    def check(self) -> None:
        self.require_range("top_k", 1, 10**4)


@dataclass(frozen=True)
class Loss(Checked):
    """Focal loss on the classes, smooth L1 or another on the boxes of positive anchors."""

    alpha: float | None = 0.25  # weight of objects, 1 - alpha of background; None: both 1
    gamma: float = 2.0  # 0, with alpha None, is plain cross-entropy
    # torchvision: l1; its v2: giou; diou, ciou: giou with centres and with shapes as well
    box: Literal["smooth_l1", "l1", "giou", "diou", "ciou"] = "smooth_l1"
    beta: float = 1 / 9  # where smooth L1 turns from squared to linear
    box_weight: float = 1.0
    normalization: Literal["batch", "image"] = "batch"  # positives of the batch, or image by image

    GONE: ClassVar[dict[str, float]] = {"label_smoothing": 0.0}

    def check(self) -> None:
        self.require("alpha", self.alpha is None or 0 < self.alpha < 1, "None or between 0 and 1")
        self.require_range("gamma", 0, 100)
        is_met = 0 < self.beta <= FACTOR
        self.require("beta", is_met, f"above 0, up to {FACTOR} (for 0, choose box = 'l1')")
        self.require_used("beta", self.box == "smooth_l1", "box is smooth_l1")
        self.require_range("box_weight", 0, 10**6)


@dataclass(frozen=True)
class Constant(Checked):
    """The learning rate stays."""

    kind: ClassVar[str] = "constant"


@dataclass(frozen=True)
class Cosine(Checked):
    """Half a cosine down to `final` times the learning rate."""

    kind: ClassVar[str] = "cosine"
    final: float = 0.0

    def check(self) -> None:
        self.require("final", 0 <= self.final <= 1, "a share from 0 to 1")


@dataclass(frozen=True)
class Step(Checked):
    """Multiplied by `factor` at each of the given shares of the phase."""

    kind: ClassVar[str] = "step"
    at: tuple[float, ...] = (0.667, 0.889)  # 60k and 80k of 90k iterations, as in the paper
    factor: float = 0.1

    def check(self) -> None:
        is_met = list(self.at) == sorted(set(self.at)) and all(0 < share < 1 for share in self.at)
        self.require("at", bool(self.at) and is_met, "rising shares between 0 and 1")
        self.require_range("factor", 0, FACTOR, above=True)


@dataclass(frozen=True)
class Polynomial(Checked):
    """Down to `final` times the learning rate along (1 - progress) ** power."""

    kind: ClassVar[str] = "polynomial"
    power: float = 0.9
    final: float = 0.0

    def check(self) -> None:
        self.require_range("power", 0, 100, above=True)
        self.require("final", 0 <= self.final <= 1, "a share from 0 to 1")
        self.require_used("power", self.final < 1, "final is below 1")


@dataclass(frozen=True)
class Exponential(Checked):
    """Falls by the same factor in every step, to `final` times the learning rate at the end."""

    kind: ClassVar[str] = "exponential"
    final: float = 0.01

    def check(self) -> None:
        self.require("final", 0 < self.final <= 1, "a share above 0, up to 1")


Schedule = Constant | Cosine | Step | Polynomial | Exponential | Callable
# Of a ResNet, stem is conv1 and bn1, stage1 to stage4 are layer1 to layer4 (C2 to C5).
Stage = Literal[
    "backbone.stem", "backbone.stage1", "backbone.stage2", "backbone.stage3", "backbone.stage4"
]
FrozenParts = tuple[Literal["backbone", "neck", "class_head", "box_head", Stage], ...]


def _freezes_backbone(freeze: FrozenParts) -> bool:
    return "backbone" in freeze or {*get_args(Stage)} <= {*freeze}


def _leaves_something(freeze: FrozenParts) -> bool:
    return not (_freezes_backbone(freeze) and {"neck", "class_head", "box_head"} <= {*freeze})


def _require_pace(settings: "Phase | Train") -> None:
    """Checks what a phase has of its own or takes from `train`."""
    settings.require_range("epochs", 1, EPOCHS)
    settings.require_range("batch_size", 1, BATCH)
    settings.require_range("learning_rate", 0, FACTOR, above=True)
    settings.require_range("warmup_steps", 0, STEPS)


INHERITED = ("batch_size", "learning_rate", "schedule", "warmup_steps")  # by phases


@dataclass(frozen=True)
class Phase(Checked):
    """A stretch of training with an optimizer of its own; None takes the value of `train`."""

    epochs: int
    freeze: FrozenParts = ()  # parts that do not learn; their batch norm uses its statistics
    batch_size: int | None = None
    learning_rate: float | None = None
    schedule: Schedule | None = None
    warmup_steps: int | None = None

    def check(self) -> None:
        self.require("freeze", _leaves_something(self.freeze), "a part that learns")
        _require_pace(self)


@dataclass(frozen=True)
class FullPhase:
    """A phase whose every setting is known, see `Train.all_phases`."""

    epochs: int
    freeze: FrozenParts
    batch_size: int
    learning_rate: float
    schedule: Schedule
    warmup_steps: int


@dataclass(frozen=True)
class Train(Checked):
    """How long, how fast, and what is kept."""

    epochs: int | None = 12  # None where `phases` say
    batch_size: int = 4
    learning_rate: float = 0.01  # for SGD and batches of 16, as in the paper; less for AdamW
    # Or (learning_rate, steps) -> Keras schedule, or such a schedule, whose rates are its own.
    schedule: Schedule = field(default_factory=Cosine)
    warmup_steps: int = 500  # the rate rises from 0.1 % of itself; at most half of a phase
    freeze: FrozenParts = ()  # e.g. ("backbone",), or only ("backbone.stem", "backbone.stage1")
    phases: tuple[Phase, ...] = ()  # e.g. first with the backbone frozen, then all
    # Batches an update: it takes the mean of their gradients, each normalised by its own positives.
    # Schedules and warm-up count updates; groups go on over epochs, the last of a phase if full.
    accumulate: int = 1
    # Or (schedule) -> Keras optimizer, which brings its own decay, clipping, ema and the like.
    optimizer: Literal["sgd", "adam", "adamw"] | Callable = "sgd"
    momentum: float = 0.9  # of SGD
    weight_decay: float | None = None  # not on norms and biases; None: 1e-4, and 0 with Adam
    clip_norm: float | None = 10.0  # longest gradient over all weights; None: any
    backbone_rate: float = 1.0  # factor of the backbone's learning rate, and of AdamW's decay there
    # Decay of averaged weights, e.g. 0.998: they are validated and kept as best; a phase's begin
    # with its first weights.
    ema: float | None = None
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    eager: bool = False  # no compiled graph: breakpoints work in every line
    seed: int = 0
    validate_every: int = 1  # epochs between validations (loss and mAP); 0: only after the last
    checkpoint_every: int = 1  # epochs between writes of last.npz; a kill loses what is after it
    early_stopping: int = 0  # validations without a better mAP before the run ends; 0: never
    log_every: int = 20  # on a GPU, steps between reads of the losses, each waits for it; a CPU: 1
    sample_pictures: int = 4  # validation images drawn at each validation

    def check(self) -> None:
        self.require("freeze", _leaves_something(self.freeze), "a part that learns")
        _require_pace(self)
        if (self.epochs is None) == (not self.phases):
            raise ConfigError(
                "train: expected either train.epochs or train.phases (each with its epochs), found "
                f"epochs={self.epochs!r} and {len(self.phases)} phases; set the other to None or ()"
            )
        self.require_range("validate_every early_stopping", 0, EPOCHS)
        self.require_range("sample_pictures", 0, 1000)
        self.require("momentum", 0 <= self.momentum < 1, "0 to below 1")
        self.require_range("weight_decay", 0, FACTOR)
        if self.early_stopping and not self.validate_every:
            raise ConfigError("train.early_stopping: needs validations, found validate_every = 0")
        self.require_range("clip_norm", 0, 10**9, above=True)
        rate_is_met = 0 < self.backbone_rate <= 1
        self.require("backbone_rate", rate_is_met, "above 0, up to 1 (for 0, freeze the backbone)")
        self.require("ema", self.ema is None or 0 < self.ema < 1, "None or between 0 and 1")
        self.require_range("accumulate log_every checkpoint_every", 1, EPOCHS)
        self.require("seed", 0 <= self.seed < 2**31, "0 to 2**31 - 1")
        self._check_use()

    def _check_use(self) -> None:
        optimizer, phases = self.optimizer, self.phases
        self.require_used("momentum", optimizer == "sgd", "optimizer is sgd")
        takes_decay = optimizer in ("sgd", "adamw") or (optimizer, self.weight_decay) == ("adam", 0)
        self.require_used("weight_decay", takes_decay, "optimizer is sgd or adamw")
        for name in ("clip_norm", "accumulate", "backbone_rate", "ema"):
            self.require_used(name, not callable(optimizer), "optimizer is sgd, adam or adamw")
        self.require_used("freeze", not phases, "there are no phases, which have their own")
        is_frozen = all(_freezes_backbone(part.freeze) for part in phases or (self,))
        where = "some of the backbone learns (freeze, phases)"
        self.require_used("backbone_rate", not is_frozen, where)
        for name in INHERITED:
            is_open = not phases or any(getattr(phase, name) is None for phase in phases)
            self.require_used(name, is_open, "one of train.phases leaves it open")

    def all_phases(self) -> tuple[FullPhase, ...]:
        """The phases with every None filled in."""
        phases = self.phases
        if self.epochs is not None:
            phases = (Phase(epochs=self.epochs, freeze=self.freeze),)
        return tuple(
            FullPhase(
                epochs=phase.epochs,
                freeze=phase.freeze,
                **{
                    name: getattr(self if getattr(phase, name) is None else phase, name)
                    for name in INHERITED
                },
            )
            for phase in phases
        )


@dataclass(frozen=True)
class Evaluate(Checked):
    """How detections are judged."""

    # auto: that of data.format; iou_thresholds, ap, plus_one and strict are of voc alone
    metric: Literal["auto", "voc", "coco", "crowdhuman"] = "auto"
    iou_thresholds: tuple[float, ...] = (0.5,)  # the first one gives the headline
    ap: Literal["area", "11point"] = "area"  # area: VOC 2010 on; 11point: VOC 2007
    plus_one: bool = False  # widths are x2 - x1 + 1; for comparing with evaluators that do so
    strict: bool = False  # IoU must exceed the threshold (py-faster-rcnn), not only reach it
    batch_size: int = 4

    def check(self) -> None:
        ious = self.iou_thresholds
        is_met = bool(ious) and all(0 < iou <= 1 for iou in ious) and len(set(ious)) == len(ious)
        is_met = is_met and len(ious) <= 100
        self.require("iou_thresholds", is_met, "up to 100 different IoUs above 0, up to 1")
        self.require_range("batch_size", 1, BATCH)


@dataclass(frozen=True)
class Config(Checked):
    """A run."""

    name: str = "run"  # outputs go to <output>/<name>
    output: str = "runs"
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    matcher: Matcher | Atss = field(default_factory=Matcher)  # which anchors learn which object
    loss: Loss = field(default_factory=Loss)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)

    @property
    def metric(self) -> str:
        """The metric asked for, or the one that goes with the data's format."""
        asked = self.evaluate.metric
        return METRIC_OF_FORMAT.get(self.data.format, "voc") if asked == "auto" else asked

    def check(self) -> None:
        plain = self.name and not set(self.name) & set('/\\:*?"<>|') and self.name.strip(". ")
        is_short = len(self.name.encode("utf-8", "replace")) <= 200  # bytes; disks take 255
        self.require("name", bool(plain) and is_short, "a folder name of up to 200 bytes")
        mixing = self.data.mixing
        epochs = sum(phase.epochs for phase in self.train.all_phases())
        if mixing.closing_epochs >= epochs:
            raise ConfigError(
                f"data.mixing.closing_epochs: expected fewer than the {epochs} epochs of the "
                f"training, found {mixing.closing_epochs}"
            )
        is_canvas = isinstance(self.model.resize, Canvas)
        self.require_used("data.augment.canvas_scales", is_canvas, "model.resize is canvas")
        where = f"the metric is voc (evaluate.metric and data.format make it {self.metric})"
        for name in ("iou_thresholds", "ap", "plus_one", "strict"):
            self.require_used(f"evaluate.{name}", self.metric == "voc", where)
