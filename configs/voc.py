"""PASCAL VOC 2007 + 2012, or your own data in that format: change root, train and val.

python train.py --config configs/voc.py --set data.root=PATH/TO/VOCdevkit
"""

from configs.schema import Augment, Canvas, Config, Data, Evaluate, Model, Step, Train

config = Config(
    name="voc",
    data=Data(
        root="datasets/VOCdevkit",
        train="VOC2007/trainval + VOC2012/trainval",
        val="VOC2007/test",
        train_on_difficult=False,
        augment=Augment(
            flip=0.5, brightness=0.1, contrast=0.3, saturation=0.3, hue=0.02, zoom=(0.6, 1.8)
        ),
    ),
    model=Model(backbone="resnet50", resize=Canvas(height=512, width=512)),
    train=Train(
        epochs=24,
        batch_size=8,
        learning_rate=0.005,
        schedule=Step(),
        warmup_steps=1000,
        validate_every=2,
    ),
    evaluate=Evaluate(ap="11point", batch_size=8),  # as VOC 2007 is quoted
)
