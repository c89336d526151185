"""Every setting there is, with its type, its range, its default and why one would turn it.

Presets and config.py hold only their differences from these defaults. A type that says a range, or
another rule, has its name below; `check` is for what holds between settings.
Paper: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017 (arXiv:1708.02002).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, get_args

from configs.checked import Checked, ConfigError, Rule, within

# The largest values, generous: what lies beyond can only be a mistake, and would end in hours or in
# no memory instead of in a message.
SIDE = 16384  # pixels of the network's input
BATCH = 65536  # images
COUNT = 10**6  # epochs, batches, steps
STEPS = 10**9  # steps, images of a dataset
FACTOR = 1000  # of learning rates, shares, sizes of boxes
RATIOS = 32  # anchors.ratios and .scales
METRIC_OF_FORMAT = {"coco": "coco", "crowdhuman": "crowdhuman"}  # every other: voc


def _are_different(values: tuple) -> bool:
    return len(set(values)) == len(values)


def _are_scales(scales: tuple[float, ...]) -> bool:
    is_each_met = all(0.1 <= scale <= 10 for scale in scales)
    return 1 <= len(scales) <= RATIOS and _are_different(scales) and is_each_met


# Types with the range that a value has to be in.
Share = Annotated[float, within(0, 1, "a share from 0 to 1")]
ShareAboveZero = Annotated[float, within(0, 1, "a share above 0, up to 1", above=True)]
ShareBelowOne = Annotated[float, Rule("a share from 0 to below 1", lambda x: 0 <= x < 1)]
Fraction = Annotated[float, Rule("a share between 0 and 1", lambda x: 0 < x < 1)]
Positive = Annotated[float, within(0, FACTOR, above=True)]
Floats = tuple[float, ...]
Scales = Annotated[Floats, Rule("1 to 32 different multiples from 0.1 to 10", _are_scales)]
Side = Annotated[int, within(32, SIDE)]
Width = Annotated[int, within(1, 4096)]
Batch = Annotated[int, within(1, BATCH)]
Count = Annotated[int, within(1, COUNT)]
CountOr0 = Annotated[int, within(0, COUNT)]
Steps = Annotated[int, within(0, STEPS)]


@dataclass(frozen=True)
class Augment(Checked):
    """Random changes of a training sample; each is off at its neutral value."""

    flip: Share = 0.5  # probability of a horizontal flip
    vertical_flip: Share = 0.0  # the same upside down, where up and down mean nothing
    brightness: Share = 0.0  # up to this share of the full range is added or taken away
    contrast: Share = 0.0  # distance from the mean colour is multiplied by 1 +- this
    saturation: Share = 0.0  # distance from grey is multiplied by 1 +- this
    # Turns the colour circle by up to this share (0.5 = anywhere).
    hue: Annotated[float, within(0, 0.5)] = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)  # below 1 expands on a grey canvas, above 1 crops
    iou_crop: Share = 0.0  # probability of a window chosen by its IoU with an object, not by zoom
    # By up to so many degrees either way; boxes grow: 10 degrees, a third.
    rotate: Annotated[float, within(0, 180, "degrees from 0 to 180")] = 0.0
    # Columns and rows are slanted by up to so many degrees.
    shear: Annotated[float, within(0, 30, "degrees from 0 to 30")] = 0.0
    translate: ShareBelowOne = 0.0  # moved by up to this share of the sides
    # Each batch has one of these multiples of the canvas, but for 1 rounded to 32 pixels.
    canvas_scales: Scales = (1.0,)
    blur: Share = 0.0  # probability of a Gaussian blur: sigma 0.2 to 0.6 % of the shorter side
    jpeg: Share = 0.0  # probability of having been a JPEG file, of quality 20 to 90
    cutout: Share = 0.0  # probability of one grey rectangle over 5 to 20 % of the picture
    min_visibility: Share = 0.25  # a box that keeps less than this share of its area is dropped

    def check(self) -> None:
        is_met = 0.01 <= self.zoom[0] <= self.zoom[1] <= 100
        self.require("zoom", is_met, "(smallest, largest), from 0.01 to 100")
        self.require_used("zoom", self.iou_crop < 1, "iou_crop is below 1")


@dataclass(frozen=True)
class Mixing(Checked):
    """Training samples put together from several images; one sample by one of the three at most."""

    # Probability of a blend with another image, objects weigh as it does; under ShortLong it is as
    # high and as wide as the larger of the two.
    mixup: Share = 0.0
    cutmix: Share = 0.0  # probability of a rectangle of another image in place of its own
    mosaic: Share = 0.0  # probability of windows of four images around a point, not scaled
    # Shares are drawn from Beta(alpha, alpha): above 1 often near a half.
    mixup_alpha: Positive = 1.5
    cutmix_alpha: Positive = 1.0  # 1: the rectangle's share of the area is uniform
    closing_epochs: CountOr0 = 0  # at the end of the run nothing is mixed for so many epochs

    @property
    def total(self) -> float:
        """The probability that a sample is mixed."""
        return math.fsum([self.mixup, self.cutmix, self.mosaic])

    def check(self) -> None:
        if self.total > 1:
            raise ConfigError(
                "data.mixing: expected mixup, cutmix and mosaic to be at most 1 together, found "
                f"{self.mixup:g}, {self.cutmix:g} and {self.mosaic:g}"
            )
        self.require_used("mixup_alpha", self.mixup > 0, "mixup is above 0")
        self.require_used("cutmix_alpha", self.cutmix > 0, "cutmix is above 0")
        self.require_used("closing_epochs", self.total > 0, "something is mixed")


@dataclass(frozen=True)
class Csv(Checked):
    """How a CSV file is laid out, where its content does not tell."""

    delimiter: Literal["", "comma", "semicolon", "tab", "blank", "pipe"] = ""  # empty: found out
    header: bool | None = None  # whether the first line names the columns; None: found out


@dataclass(frozen=True)
class Yolo(Checked):
    """What YOLO's label files hold, where data.yaml and they themselves do not tell."""

    # Of lines of more than 5 numbers. boxes: numbers 2 to 5, and keypoints, a confidence or a track
    # id to leave out; polygons: points, of which the box is taken; empty: found out or refused.
    lines: Literal["", "boxes", "polygons"] = ""


@dataclass(frozen=True)
class Data(Checked):
    """Which images and boxes, and how they are read: docs/datasets.md."""

    # voc, coco, csv, yolo, crowdhuman, labelme, cvat, tfrecord, tfds; shapes: VOC too, generated at
    # `root` if absent.
    format: str = "voc"
    root: str = "datasets/VOCdevkit"  # the folder of the dataset
    images: tuple[str, ...] = ()  # folders of images elsewhere than usual, below root or absolute
    limit: Steps = 0  # use only this many images of each split, for a quick try; 0: all
    train: str = "train"  # split or annotation file, or several: "VOC2007/train + VOC2012/train"
    val: str = "val"  # the same for validation and for evaluate.py
    val_fraction: Fraction = 0.2  # of a dataset without splits of its own, the share that is val
    # Empty: found in the annotations, saved with the run.
    classes: Annotated[tuple[str, ...], Rule("each class once", _are_different)] = ()
    class_file: str = ""  # or they stand in a file below root: "name,id" lines, or a name a line
    csv: Csv = Csv()
    yolo: Yolo = Yolo()
    person_box: Literal["full", "visible"] = "full"  # of CrowdHuman's persons
    check_images: bool = True  # read every image's header; False: trust a COCO file, start faster
    on_bad_annotation: Literal["error", "drop"] = "error"  # drop: leave out, count and report
    train_on_difficult: bool = True  # False: `difficult` objects are neither object nor background
    # Images of a class that less than this share of all images has are repeated in an epoch, by
    # sqrt(threshold / share) (LVIS: 0.001); 1: of every class, by 1 / sqrt(share); 0: of none.
    repeat_threshold: Share = 0.0
    # Keep decoded images in memory: width * height * 3 bytes an image, of a JPEG with `antialias` a
    # 4th, 16th or 64th of it where the largest augment.zoom (10/3 with iou_crop) still shows it at
    # the network's size, on the largest canvas.
    # Pixels differ a little from those decoded for each view.
    cache: bool = False
    augment: Augment = Augment()
    mixing: Mixing = Mixing()

    def check(self) -> None:
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
    height: Side = 416
    width: Side = 416
    antialias: bool = True  # smooth before shrinking


@dataclass(frozen=True)
class ShortLong(Checked):
    """The short side becomes `short`, or the long one `long`; padded to a multiple."""

    kind: ClassVar[str] = "short_long"
    short: Side = 800
    long: int = 1333
    # Height and width of a batch are rounded up to a multiple of this.
    multiple: Annotated[int, within(1, 1024)] = 32
    antialias: bool = False  # torchvision's default is without
    rounding: Literal["floor", "nearest"] = "floor"  # of the sides; nearest: yhenon, fizyr
    always_pad: bool = False  # a side that is a multiple already gets one more (yhenon)

    def check(self) -> None:
        is_met = self.short <= self.long <= SIDE
        self.require("long", is_met, f"at least short = {self.short}, at most {SIDE}")


Multiples = Annotated[
    Floats,
    Rule(f"1 to {RATIOS} numbers", lambda values: 1 <= len(values) <= RATIOS),
    within(1 / FACTOR, FACTOR),
]


@dataclass(frozen=True)
class Anchors(Checked):
    """The boxes that the network's outputs are relative to (paper section 4)."""

    sizes: Annotated[  # side on P3, P4, P5, P6, P7
        Floats,
        Rule("five sizes, for P3 to P7", lambda sizes: len(sizes) == 5),
        within(0, 10 * SIDE, above=True),
    ] = (32.0, 64.0, 128.0, 256.0, 512.0)
    ratios: Multiples = (0.5, 1.0, 2.0)  # height / width, area kept
    scales: Multiples = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # steps within a level
    center_offset: Share = 0.5  # centre in its cell; torchvision, detectron2, mmdet: 0
    stride: Literal["nominal", "grid"] = "nominal"  # grid: image size // grid size (torchvision)
    rounding: bool = False  # whole-number sizes and rounded corners (torchvision)


@dataclass(frozen=True)
class Coder(Checked):
    """How a box is written relative to its anchor."""

    form: Literal["center", "corner"] = "center"  # corner: x1, y1, x2, y2 (keras-retinanet)
    stds: Annotated[  # yhenon: .1, .1, .2, .2
        tuple[float, float, float, float], within(0, FACTOR, above=True)
    ] = (1.0, 1.0, 1.0, 1.0)
    # Limit of a growing side, here log(1000 / 16); exp(89) is no number in float32.
    max_log_scale: Annotated[float, within(0, 80, above=True)] | None = 4.135166556742356

    def check(self) -> None:
        self.require_used("max_log_scale", self.form == "center", "form is center")


@dataclass(frozen=True)
class Detect(Checked):
    """From network outputs to final boxes."""

    score_threshold: ShareBelowOne = 0.05  # detections below are dropped
    top_k: Annotated[int, within(1, 10**6)] = 1000  # best candidates of a level that go on to NMS
    nms_iou: Share = 0.5  # of two boxes of a class that overlap more, the better one stays
    # Soft-NMS (arXiv:1704.04503) keeps the worse one at a lower score: linear times 1 - IoU, above
    # nms_iou; gaussian, at any overlap, times exp(-IoU^2 / soft_sigma).
    nms: Literal["hard", "linear", "gaussian"] = "hard"
    soft_sigma: Positive = 0.5
    max_detections: Annotated[int, within(1, 10**5)] = 100  # kept for an image
    # More views of each image, whose candidates go through one NMS. Validation while training has
    # one, the image as it is, whatever these say: it would take as many times as long.
    flip: bool = False  # also look at the mirrored image
    scales: Scales = (1.0,)  # look at these multiples of the input's size
    # Of evaluate.py, visualize.py and Detector.load, whatever was trained in; bfloat16 where the
    # hardware has it. Validation while training is in train.precision.
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"

    def check(self) -> None:
        is_gaussian = self.nms == "gaussian"
        self.require_used("soft_sigma", is_gaussian, "nms is gaussian")
        self.require_used("nms_iou", not is_gaussian, "nms is hard or linear")


BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
Padded = tuple[Literal["conv1", "pool1", "p6", "p7"], ...]


@dataclass(frozen=True)
class Bifpn(Checked):
    """Of model.neck = "bifpn" (EfficientDet, arXiv:1911.09070 section 3)."""

    # Rounds, each from P7 down to P3 and back up; EfficientDet-D7 has 8.
    repeats: Annotated[int, within(1, 16)] = 3
    separable: bool = True  # 3x3 convolutions are depthwise and 1x1: an eighth of the weights
    # After each convolution; batch is live whatever model.bn_mode is, group for tiny batches.
    norm: Literal["batch", "group", "none"] = "batch"


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
    bn_epsilon: Annotated[float, within(0, 1)] = 1e-5
    same_padding: Padded = ()  # where stride 2 pads as TensorFlow's "same" (keras-retinanet)
    # Or () -> layer: [C3, C4, C5] -> [P3 ... P7]. A part of your own takes no settings from here.
    neck: Literal["fpn", "panet", "bifpn"] | Callable = "fpn"
    bifpn: Bifpn = Bifpn()
    neck_width: Width = 256
    p6_from: Literal["c5", "p5"] = "c5"  # c5: paper; p5: torchvision v1
    head_depth: Annotated[int, within(0, 64)] = 4  # 3x3 convolutions before the output
    head_width: Width = 256
    head_norm: Literal["none", "group"] = "none"  # group: GroupNorm of 32 groups (torchvision v2)
    prior: Fraction = 0.01  # score of everything before training (paper section 3.3)
    normalization: Literal["torch", "caffe"] = "torch"  # caffe: BGR minus mean (keras-retinanet)
    anchors: Anchors = Anchors()
    coder: Coder = Coder()
    # Of the 16 of a value, how many are in use in image files that have so many: 12 of many
    # cameras. None: found over the training split, and saved. Files of 8 bits are as they are.
    bits: Annotated[int, within(8, 16, "a whole number from 8 to 16")] | None = None
    resize: Canvas | ShortLong = Canvas()
    detect: Detect = Detect()

    def check(self) -> None:
        self.require_used("bifpn", self.neck == "bifpn", "neck is bifpn")
        is_met = self.bifpn.norm != "group" or self.neck_width % 32 == 0
        self.require("neck_width", is_met, "a multiple of 32 for bifpn.norm = 'group'")
        is_met = self.head_norm == "none" or self.head_width % 32 == 0
        self.require("head_width", is_met, "a multiple of 32 for head_norm = 'group'")
        is_met = bool(self.weights) or not self.aliases
        self.require("aliases", is_met, "none without model.weights")
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
    positive_iou: ShareAboveZero = 0.5  # from here on an anchor is an object
    negative_iou: float = 0.4  # below it is background; between, it is ignored
    low_quality: bool = False  # each object also keeps its best anchor, however poor (torchvision)

    def check(self) -> None:
        limit = self.positive_iou
        self.require(
            "negative_iou", 0 <= self.negative_iou <= limit, f"0 to positive_iou = {limit}"
        )


@dataclass(frozen=True)
class Atss(Checked):
    """Each object sets the IoU its anchors must have (arXiv:1912.02424); the rest is background."""

    kind: ClassVar[str] = "atss"
    # Cells nearest to an object, on each level, whose anchors are looked at.
    top_k: Annotated[int, within(1, 10**4)] = 9


@dataclass(frozen=True)
class Loss(Checked):
    """Focal loss on the classes, smooth L1 or another on the boxes of positive anchors."""

    alpha: Fraction | None = 0.25  # weight of objects, 1 - alpha of background; None: both 1
    gamma: Annotated[float, within(0, 100)] = 2.0  # 0, with alpha None, is plain cross-entropy
    # torchvision: l1; its v2: giou; diou, ciou: giou with centres and with shapes as well
    box: Literal["smooth_l1", "l1", "giou", "diou", "ciou"] = "smooth_l1"
    beta: Annotated[  # where smooth L1 turns from squared to linear
        float, within(0, FACTOR, f"above 0, up to {FACTOR} (for 0, choose box = 'l1')", above=True)
    ] = 1 / 9
    box_weight: Annotated[float, within(0, 10**6)] = 1.0
    normalization: Literal["batch", "image"] = "batch"  # positives of the batch, or image by image

    def check(self) -> None:
        self.require_used("beta", self.box == "smooth_l1", "box is smooth_l1")


@dataclass(frozen=True)
class Constant(Checked):
    """The learning rate stays."""

    kind: ClassVar[str] = "constant"


@dataclass(frozen=True)
class Cosine(Checked):
    """Half a cosine down to `final` times the learning rate."""

    kind: ClassVar[str] = "cosine"
    final: Share = 0.0


def _rise(shares: tuple[float, ...]) -> bool:
    is_each_met = all(0 < share < 1 for share in shares)
    return bool(shares) and is_each_met and list(shares) == sorted(set(shares))


@dataclass(frozen=True)
class Step(Checked):
    """Multiplied by `factor` at each of the given shares of the phase."""

    kind: ClassVar[str] = "step"
    # 60k and 80k of 90k iterations, as in the paper.
    at: Annotated[Floats, Rule("rising shares between 0 and 1", _rise)] = (0.667, 0.889)
    factor: Positive = 0.1


@dataclass(frozen=True)
class Polynomial(Checked):
    """Down to `final` times the learning rate along (1 - progress) ** power."""

    kind: ClassVar[str] = "polynomial"
    power: Annotated[float, within(0, 100, above=True)] = 0.9
    final: Share = 0.0

    def check(self) -> None:
        self.require_used("power", self.final < 1, "final is below 1")


@dataclass(frozen=True)
class Exponential(Checked):
    """Falls by the same factor in every step, to `final` times the learning rate at the end."""

    kind: ClassVar[str] = "exponential"
    final: ShareAboveZero = 0.01


Schedule = Constant | Cosine | Step | Polynomial | Exponential | Callable
# Of a ResNet, stem is conv1 and bn1, stage1 to stage4 are layer1 to layer4 (C2 to C5).
Stage = Literal[
    "backbone.stem", "backbone.stage1", "backbone.stage2", "backbone.stage3", "backbone.stage4"
]


def _freezes_backbone(freeze: Sequence[str]) -> bool:
    return "backbone" in freeze or {*get_args(Stage)} <= {*freeze}


def _leaves_something(freeze: Sequence[str]) -> bool:
    return not (_freezes_backbone(freeze) and {"neck", "class_head", "box_head"} <= {*freeze})


FrozenParts = Annotated[
    tuple[Literal["backbone", "neck", "class_head", "box_head", Stage], ...],
    Rule("a part that learns", _leaves_something),
]
INHERITED = ("batch_size", "learning_rate", "schedule", "warmup_steps")  # by phases


@dataclass(frozen=True)
class Phase(Checked):
    """A stretch of training with an optimizer of its own; None takes the value of `train`."""

    epochs: Count
    freeze: FrozenParts = ()  # parts that do not learn; their batch norm uses its statistics
    batch_size: Batch | None = None
    learning_rate: Positive | None = None
    schedule: Schedule | None = None
    warmup_steps: Steps | None = None


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

    epochs: Count | None = 12  # None where `phases` say
    batch_size: Batch = 4
    learning_rate: Positive = 0.01  # for SGD and batches of 16, as in the paper; less for AdamW
    # Or (learning_rate, steps) -> Keras schedule, or such a schedule, whose rates are its own.
    schedule: Schedule = Cosine()
    warmup_steps: Steps = 500  # the rate rises from 0.1 % of itself; at most half of a phase
    freeze: FrozenParts = ()  # e.g. ("backbone",), or only ("backbone.stem", "backbone.stage1")
    phases: tuple[Phase, ...] = ()  # e.g. first with the backbone frozen, then all
    # Batches an update: it takes the mean of their gradients, each normalised by its own positives.
    # Schedules and warm-up count updates; groups go on over epochs, the last of a phase if full.
    accumulate: Count = 1
    # Or (schedule) -> Keras optimizer, which brings its own decay, clipping, ema and the like.
    optimizer: Literal["sgd", "adam", "adamw"] | Callable = "sgd"
    momentum: ShareBelowOne = 0.9  # of SGD
    # Not on norms and biases; None: 1e-4, and 0 with Adam.
    weight_decay: Annotated[float, within(0, FACTOR)] | None = None
    # Longest gradient over all weights; None: any.
    clip_norm: Annotated[float, within(0, 10**9, above=True)] | None = 10.0
    # Factor of the backbone's learning rate, and of AdamW's decay there.
    backbone_rate: Annotated[
        float, within(0, 1, "above 0, up to 1 (for 0, freeze the backbone)", above=True)
    ] = 1.0
    # Decay of averaged weights, e.g. 0.998: they are validated and kept as best; a phase's begin
    # with its first weights.
    ema: Fraction | None = None
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    eager: bool = False  # no compiled graph: breakpoints work in every line
    seed: Annotated[int, within(0, 2**31 - 1, "0 to 2**31 - 1")] = 0
    validate_every: CountOr0 = 1  # epochs between validations (loss, mAP); 0: only after the last
    checkpoint_every: Count = 1  # epochs between writes of last.npz; a kill loses what is after it
    early_stopping: CountOr0 = 0  # validations without a better mAP before the run ends; 0: never
    # On a GPU, steps between reads of the losses, each of which waits for it; a CPU: 1.
    log_every: Count = 20
    sample_pictures: Annotated[int, within(0, 1000)] = 4  # images drawn at each validation

    def check(self) -> None:
        if (self.epochs is None) == (not self.phases):
            raise ConfigError(
                "train: expected either train.epochs or train.phases (each with its epochs), found "
                f"epochs={self.epochs!r} and {len(self.phases)} phases; set the other to None or ()"
            )
        if self.early_stopping and not self.validate_every:
            raise ConfigError("train.early_stopping: needs validations, found validate_every = 0")
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
        phases = self.phases if self.epochs is None else (Phase(self.epochs, self.freeze),)
        return tuple(
            FullPhase(
                **{
                    name: getattr(self if getattr(phase, name) is None else phase, name)
                    for name in ("epochs", "freeze", *INHERITED)
                }
            )
            for phase in phases
        )


def _are_ious(ious: tuple[float, ...]) -> bool:
    return 1 <= len(ious) <= 100 and _are_different(ious) and all(0 < iou <= 1 for iou in ious)


Ious = Annotated[Floats, Rule("up to 100 different IoUs above 0, up to 1", _are_ious)]


@dataclass(frozen=True)
class Evaluate(Checked):
    """How detections are judged."""

    # auto: that of data.format; iou_thresholds, ap, plus_one and strict are of voc alone
    metric: Literal["auto", "voc", "coco", "crowdhuman"] = "auto"
    iou_thresholds: Ious = (0.5,)  # the first one gives the headline
    ap: Literal["area", "11point"] = "area"  # area: VOC 2010 on; 11point: VOC 2007
    plus_one: bool = False  # widths are x2 - x1 + 1; for comparing with evaluators that do so
    strict: bool = False  # IoU must exceed the threshold (py-faster-rcnn), not only reach it
    batch_size: Batch = 4


def _is_folder_name(name: str) -> bool:
    is_short = len(name.encode("utf-8", "replace")) <= 200  # bytes; disks take 255
    return is_short and bool(name.strip(". ")) and not set(name) & set('/\\:*?"<>|')


@dataclass(frozen=True)
class Config(Checked):
    """A run."""

    # Outputs go to <output>/<name>.
    name: Annotated[str, Rule("a folder name of up to 200 bytes", _is_folder_name)] = "run"
    output: str = "runs"
    data: Data = Data()
    model: Model = Model()
    matcher: Matcher | Atss = Matcher()  # which anchors learn which object
    loss: Loss = Loss()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()

    @property
    def metric(self) -> str:
        """The metric asked for, or the one that goes with the data's format."""
        asked = self.evaluate.metric
        return METRIC_OF_FORMAT.get(self.data.format, "voc") if asked == "auto" else asked

    def check(self) -> None:
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
