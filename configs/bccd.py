"""Blood cells (BCCD, 364 images 640x480): ResNet-18 from scratch at a long side of 320.

python train.py --config configs/bccd.py --set data.root=PATH/TO/bccd
"""

from configs.checked import override
from configs.small import config as small

config = override(
    small,
    {
        "name": "bccd",
        "data.root": "datasets/bccd",
        "data.train": "trainval",
        "data.val": "test",
        "data.on_bad_annotation": "drop",  # BloodImage_00338 and _00343 have boxes without area
        "data.cache": True,
        "data.augment.vertical_flip": 0.5,  # a smear has no up and down
        "model.anchors.sizes": (16.0, 32.0, 64.0, 128.0, 256.0),  # platelets are 20 pixels wide
        "model.resize.height": 256,
        "model.resize.width": 320,
        "train.validate_every": 0,  # the test split is looked at once: it chooses no epoch
    },
)
