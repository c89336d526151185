"""Files -> batches: knows nothing of anchors or models.

The way of a training sample: a reader (voc, coco, boxes_csv, yolo, crowdhuman) makes records, whose
order sampling draws; augment and views say which part of an image is seen and where, images and
render make it pixels, warp, effects and mixing change a sample (samples), and pipeline, which calls
all of them, batches it.
"""
