"""How fast, against whom: `make bench`. Figures and what they mean: docs/performance.md.

models.py       inference and training step beside torchvision, keras-hub and the floor
startup.py      from `python train.py` to the first finished step
growth.py       what grows with boxes, classes, pixels and images
input.py        the input pipeline beside torchvision's
annotations.py  an annotation file of COCO's size, beside pycocotools
tfrecord.py     images in TFRecords beside the same as files
metrics.py      what COCO's metric adds to pycocotools; VOC's and CrowdHuman's beside plain loops
precision.py    what bfloat16 costs in mAP (needs BCCD, so make bench leaves it out)
"""
