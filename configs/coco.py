"""COCO 2017: ResNet-50 from ImageNet weights, 12 epochs, the paper's recipe at torchvision's size.

python -m data.download coco2017
python train.py --config configs/coco.py

Meant for GPUs: batches of 16 images of 800x1333. Not trained here to its end: no GPU was at hand.
"""

from configs.schema import Augment, Config, Data, Evaluate, Model, ShortLong, Step, Train

config = Config(
    name="coco",
    data=Data(
        format="coco",
        root="datasets/coco",
        train="train2017",
        val="val2017",
        on_bad_annotation="drop",  # a few of its boxes have no width or height
        check_images=False,  # the official files are as they say
        augment=Augment(flip=0.5),
    ),
    model=Model(
        weights="imagenet", backbone="resnet50", bn_mode="frozen_stats", resize=ShortLong()
    ),
    train=Train(epochs=12, batch_size=16, learning_rate=0.01, schedule=Step(), warmup_steps=500),
    evaluate=Evaluate(batch_size=8),
)
