"""Your own boxes in CSV files: change root, train and val, see docs/datasets.md.

python train.py --config configs/boxes_csv.py --set data.root=PATH data.train=train.csv
"""

from configs.schema import Augment, Canvas, Config, Cosine, Data, Model, Train

config = Config(
    name="boxes_csv",
    data=Data(
        format="csv",
        root="datasets/mine",
        train="train",
        val="val",
        augment=Augment(flip=0.5, brightness=0.1, contrast=0.2, zoom=(0.7, 1.5)),
    ),
    model=Model(backbone="resnet18", resize=Canvas(height=416, width=416)),
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
