"""CrowdHuman, people and heads: fine-tuned from a COCO detector, with anchors of upright people.

python -m data.download crowdhuman        says what to put where: it needs a licence
python train.py --config configs/crowdhuman.py

Meant for GPUs. On an own set in this format change data.root; people only: data.classes=person.
Not trained here to its end: neither the images nor a GPU were at hand.
"""

from configs.schema import (
    Anchors,
    Augment,
    Config,
    Data,
    Detect,
    Evaluate,
    Loss,
    Matcher,
    Model,
    ShortLong,
    Step,
    Train,
)

config = Config(
    name="crowdhuman",
    data=Data(
        format="crowdhuman",
        root="datasets/crowdhuman",
        train="train",
        val="val",
        classes=("person", "head"),
        on_bad_annotation="drop",
        augment=Augment(flip=0.5),
    ),
    model=Model(
        weights="coco",
        backbone="resnet50",
        bn_mode="frozen_stats",
        # Upright people are up to three times as high as wide, heads near square and small.
        anchors=Anchors(sizes=(16.0, 32.0, 64.0, 128.0, 256.0), ratios=(1.0, 2.0, 3.0)),
        resize=ShortLong(short=800, long=1400),
        detect=Detect(max_detections=500),  # crowds have hundreds of people, each with a head
    ),
    matcher=Matcher(low_quality=True),
    loss=Loss(box="giou"),  # as the weights were trained
    train=Train(epochs=20, batch_size=8, learning_rate=0.005, schedule=Step(), warmup_steps=1000),
    evaluate=Evaluate(batch_size=8),
)
