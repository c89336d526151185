"""Files -> batches: knows nothing of anchors or models.

The way of a training sample: formats/ reads annotations into a Dataset (records), in whose order
sampling draws; augment/ says which part of an image is seen and where, images/ makes it pixels,
augment/ changes the sample, and pipeline, which calls all of them, batches it.
"""
