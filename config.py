"""The one file to edit: a preset, and below it what differs for you.

    python train.py                                  trains with this file
    python train.py --set train.epochs=20            changes a setting for one run
    python train.py --config configs/voc.py          trains with another file

Presets, in configs/: shapes (generated data, minutes), small, voc, coco, boxes_csv, crowdhuman,
bccd, overfit. Every setting, its meaning and its choices: configs/schema.py; data:
docs/datasets.md; what lifts accuracy: docs/accuracy.md.
"""

from configs import preset

config = preset(
    "shapes",
    {
        # "name": "my-run",                       # outputs go to runs/<name>
        # "data.format": "voc",                   # or coco, csv, yolo, labelme, ...; see docs
        # "data.root": "datasets/mine",           # voc: Annotations/, JPEGImages/, ImageSets/, or
        #                                         # simply images and their .xml files
        # "data.train": "train",                  # splits; a flat folder is split by itself
        # "data.val": "val",
        # "data.classes": ("cat", "dog"),         # default: what the annotations name
        # "data.on_bad_annotation": "drop",       # error: stop at the first; drop: count and report
        # "data.augment.zoom": (0.6, 1.8),        # below 1 shrinks the picture, above 1 crops it
        # "model.weights": "imagenet",            # or a run, or weights you imported, or "coco",
        #                                         # with preset "voc": docs/weights.md
        # "model.backbone": "resnet18",           # resnet18, 34, 50, 101, 152
        # "model.resize": "canvas",               # canvas: all images fitted into one size
        # "model.resize.height": 416,
        # "model.resize.width": 416,
        # "model.anchors.sizes": (32, 64, 128, 256, 512),  # pixels at that size, on P3 ... P7
        # "train.epochs": 12,
        # "train.batch_size": 8,
        # "train.optimizer": "adamw",             # sgd, adam, adamw
        # "train.learning_rate": 1e-3,            # sgd: about 0.01 for batches of 16
        # "train.schedule": "cosine",             # constant, cosine, step, polynomial, exponential
        # "train.precision": "mixed_bfloat16",    # faster where the hardware has it
        # "model.detect.precision": "mixed_bfloat16",  # the same for evaluate.py, visualize.py
        # "evaluate.metric": "voc",               # auto (as the format), voc, coco, crowdhuman
        # "evaluate.iou_thresholds": (0.5, 0.75),  # of voc
    },
)
