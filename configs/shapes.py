"""Generated shapes: the whole machinery in minutes on two CPU cores.

python train.py
"""

from configs.schema import Anchors, Augment, Canvas, Config, Data, Evaluate, Loss, Model, Train

config = Config(
    name="shapes",
    data=Data(
        format="shapes",
        root="datasets/shapes",
        train="train",
        val="val",
        cache=True,
        augment=Augment(flip=0.5),
    ),
    model=Model(
        backbone="resnet18",
        neck_width=128,
        head_depth=2,
        head_width=128,
        anchors=Anchors(sizes=(16.0, 32.0, 64.0, 128.0, 256.0)),  # objects of 18 to 67 pixels
        resize=Canvas(height=128, width=128),  # of 192x192 images: half the time
    ),
    loss=Loss(box="l1"),
    train=Train(
        epochs=4,
        batch_size=8,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=1e-2,
        warmup_steps=100,
        validate_every=2,
    ),
    evaluate=Evaluate(iou_thresholds=(0.5, 0.75), batch_size=16),
)
