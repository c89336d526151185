"""A small set of your own, hundreds of images, from scratch: the recipe of docs/accuracy.md.

python train.py --config configs/small.py --set data.root=PATH data.train=train data.val=val
"""

from configs.schema import Augment, Canvas, Config, Cosine, Data, Loss, Model, Train

config = Config(
    name="small",
    data=Data(
        root="datasets/mine",
        augment=Augment(flip=0.5, brightness=0.1, contrast=0.2, zoom=(0.8, 1.25)),
    ),
    model=Model(backbone="resnet18", resize=Canvas(height=416, width=416)),
    loss=Loss(box="giou"),
    train=Train(
        epochs=20,
        batch_size=4,
        optimizer="adamw",
        learning_rate=5e-4,
        weight_decay=0.05,
        schedule=Cosine(),
        warmup_steps=100,
    ),
)
