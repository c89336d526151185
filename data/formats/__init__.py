"""Annotations -> Dataset, a module a format; the others find images, judge boxes, read text."""

from dataclasses import replace

from data.formats import (
    boxes_csv,
    coco,
    crowdhuman,
    cvat,
    labelme,
    shapes,
    tfds,
    tfrecord,
    voc,
    yolo,
)

# The names of data.format, and of --from and --to of `python -m data.convert`.
_FORMATS = {
    "voc": voc.FORMAT,
    "coco": coco.FORMAT,
    "csv": boxes_csv.FORMAT,
    "yolo": yolo.FORMAT,
    "crowdhuman": crowdhuman.FORMAT,
    "labelme": labelme.FORMAT,
    "cvat": cvat.FORMAT,
    "tfrecord": tfrecord.FORMAT,
    "tfds": tfds.FORMAT,
    "shapes": shapes.FORMAT,
}
FORMATS = {name: replace(form, name=name) for name, form in _FORMATS.items()}
TARGETS = {name: form.target for name, form in FORMATS.items() if form.target}
