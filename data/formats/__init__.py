"""Annotations -> Dataset, a module a format; the others find images, judge boxes, read text."""

from data.formats import boxes_csv, coco, crowdhuman, shapes, voc, yolo

# The names of data.format, and of --from and --to of `python -m data.convert`.
FORMATS = {
    "voc": voc.FORMAT,
    "coco": coco.FORMAT,
    "csv": boxes_csv.FORMAT,
    "yolo": yolo.FORMAT,
    "crowdhuman": crowdhuman.FORMAT,
    "shapes": shapes.FORMAT,
}
TARGETS = {name: form.target for name, form in FORMATS.items() if form.target}
