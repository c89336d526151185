"""Blood cells (BCCD, 364 images 640x480): ResNet-18 from scratch at a long side of 320.

python train.py --config configs/bccd.py --set data.root=PATH/TO/bccd
"""

from configs.schema import Anchors, Augment, Canvas, Config, Cosine, Data, Loss, Model, Train

config = Config(
    name="bccd",
    data=Data(
        root="datasets/bccd",
        train="trainval",
        val="test",
        on_bad_annotation="drop",  # BloodImage_00338 and _00343 have boxes without area
        cache=True,
        augment=Augment(
            flip=0.5, vertical_flip=0.5, brightness=0.1, contrast=0.2, zoom=(0.8, 1.25)
        ),
    ),
    model=Model(
        backbone="resnet18",
        anchors=Anchors(sizes=(16.0, 32.0, 64.0, 128.0, 256.0)),  # platelets are 20 pixels wide
        resize=Canvas(height=256, width=320),
    ),
    loss=Loss(box="l1"),
    train=Train(
        epochs=20,
        batch_size=4,
        optimizer="adamw",
        learning_rate=5e-4,
        weight_decay=0.05,
        schedule=Cosine(),
        warmup_steps=100,
        validate_every=0,  # the test split is looked at once, so nothing is chosen by it
    ),
)
