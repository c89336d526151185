"""How fast, against whom: `make bench`. Figures and what they mean: docs/performance.md.

models.py     inference and training step beside torchvision, keras-hub and the floor
startup.py    from `python train.py` to the first finished step
growth.py     what grows with boxes, classes, pixels and images
input.py      the input pipeline beside torchvision's
precision.py  what bfloat16 costs in mAP (needs BCCD, so make bench leaves it out)
"""
