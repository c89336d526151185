"""Eight images learnt by heart: if this does not reach mAP 1, something is broken, not hard.

python train.py --config configs/overfit.py
"""

from configs import override
from configs.schema import Augment
from configs.shapes import config as shapes

config = override(
    shapes,
    {
        "name": "overfit",
        "data.limit": 8,
        "data.val": "train",
        "data.augment": Augment(flip=0.0),
        "matcher.low_quality": True,  # so that no object is left without an anchor
        "train.epochs": 150,
        "train.validate_every": 50,
        "train.checkpoint_every": 50,
        "train.warmup_steps": 20,
    },
)
