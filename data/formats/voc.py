"""Pascal VOC annotations -> Dataset: the VOC2007/2012 tree, or folders of images and XML.

What is wrong is either an error that names file, object, field, expected and found, or dropped and
counted; which of the two is the caller's choice. Nothing is skipped silently.
Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, and its devkit.
Letters: G boxes of one image.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data.formats.bad_annotations import Judge
from data.formats.class_names import class_label, fit_names
from data.formats.format import Format, Target
from data.formats.image_files import check_size
from data.formats.plausibility import require_plausible
from data.formats.text_files import decimal, flag, has_no_value, number_in, quoted
from data.formats.voc_layout import VocFiles, find_files, find_splits, undivided
from data.formats.voc_xml import CORNERS, ROTATED, Annotation, VocObject, parse_annotation
from data.images.decode import MAX_PIXELS, ImageHeader, read_header
from data.records import Dataset, DatasetError
from data.writers.voc import write_voc

Loaded = dict[str, tuple[Annotation, Path, ImageHeader]]  # by id

MAX_ANGLE = 2 * math.pi + 0.01  # of a rotated box: more is degrees


def read_voc(
    root: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    on_bad_annotation: str = "error",
    image_sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Dataset:
    """Reads one split of a dataset annotated in Pascal VOC XML.

    root: a VOC tree (Annotations, JPEGImages, ImageSets/Main), a folder that holds exactly one such
      tree, or a folder of images and XML side by side or in sibling folders (images, annotations),
      which may have folders in them.
    split: the name of a list in ImageSets/Main, in ImageSets or in root, or several joined by "+"
      ("train+val"); without lists a folder (train, images/train), or "all". Where there is no val,
      it is valid or validation. A folder below root may come before it ("VOC2007/train").
    classes: names in label order; None takes those found in this split, sorted.
    image_sizes: id -> (width, height), for judging detections that were made elsewhere: an image
      need then not be there, and what is not among the sizes is as `<size>` says.

    An image that no list names and no XML belongs to is one without objects, and counted.
    Image ids are the paths of the XML files below their folder, without suffix. Order: the list's,
    else by id. 1-based inclusive corners become (xmin - 1, ymin - 1, xmax, ymax), as the devkit
    measures them. Up to 2 px outside the image are clipped and counted whatever
    `on_bad_annotation` says. For that and for errors see `Format`.
    """
    judge = Judge(on_bad_annotation)
    files, ids = find_files(Path(root), split, judge)
    loaded = judge.load(lambda image_id: _load(files, image_id, image_sizes), ids)
    loaded = _without_shared_images(loaded, judge)
    for image_id in loaded.keys() - files.annotations.keys():
        image = files.unlabelled[image_id]
        judge.defects.add("image without XML", f"{image}: taken as an image without objects")
    annotations = [annotation for annotation, _, _ in loaded.values()]
    if classes is None:
        classes = _class_names(annotations)
    name, rows = f"{files.name}/{split.rpartition('/')[2]}", _objects(annotations, classes, judge)
    sizes = np.array([(header.width, header.height) for _, _, header in loaded.values()])
    # With inverted boxes, which widths and heights in the place of corners are: these go next.
    require_plausible(name, _boxes(rows), sizes.reshape(-1, 2)[rows["image"]], "corners")
    rows = rows[_are_in_order(rows, annotations, judge)]
    return judge.assemble(
        name,
        classes,
        {image_id: (image, header) for image_id, (_, image, header) in loaded.items()},
        lambda row: _where_box(annotations[rows["image"][row]], rows["number"][row]),
        image_index=rows["image"],
        boxes=_boxes(rows),
        first_pixel=1,
        labels=rows["label"],
        difficult=rows["difficult"],
    )


def voc_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """The class names in the annotations of a split, sorted; arguments as `read_voc`.

    Looks at names only: a file that cannot be read is left for `read_voc` to report.
    """
    judge = Judge("drop")
    files, ids = find_files(Path(root), split, judge)
    paths = [files.annotations[i] for i in ids if i in files.annotations]
    return _class_names(judge.load(parse_annotation, paths).values())


# ------------------------------------------------------------------------------------------------
# Files -> texts
# ------------------------------------------------------------------------------------------------


def _load(
    files: VocFiles, image_id: str, image_sizes: Mapping[str, tuple[int, int]] | None
) -> tuple[Annotation, Path, ImageHeader]:
    """What the files of one image say."""
    if image_id not in files.annotations:
        missing, image = files.annotation_folder / f"{image_id}.xml", files.unlabelled[image_id]
        if files.are_listed:  # unlabelled or empty? Only its owner knows
            found = (
                f"only the image {image}; an image without objects needs an XML without <object>"
            )
            raise DatasetError(f"{missing}: expected the file, found {found}", "missing annotation")
        return Annotation(str(missing), None, None, (None, None), ()), image, read_header(image)
    annotation = parse_annotation(files.annotations[image_id])
    name = files.named.get(image_id, f"{image_id}.*")
    try:
        image = files.finder.find(name, annotation.path)
        header = read_header(image)
    except DatasetError as error:
        if error.kind != "missing image":
            raise
        if image_sizes is None:
            message = f"{error}, nor a free one named {annotation.filename!r}"
            raise DatasetError(message, error.kind) from error
        image = Path(f"{image_id}.jpg")
        header = _stated_header(annotation, image_sizes.get(image_id))
    # Tools leave a size out or write 0; one that is filled in and not the image's says that the
    # boxes are another image's.
    if not all(has_no_value(text or "") or text == "0" for text in annotation.size):
        check_size(_stated_size(annotation), header, f"{annotation.path}, size")
    return annotation, image, header


def _without_shared_images(loaded: Loaded, judge: Judge) -> Loaded:
    """Rejects what has the image of another: XML in two folders, and one folder of images."""
    first: dict[Path, str] = {}
    kept: Loaded = {}
    for image_id, (annotation, image, header) in loaded.items():
        other = first.setdefault(image, image_id)
        if other == image_id:
            kept[image_id] = annotation, image, header
            continue
        message = f"{annotation.path}: expected an image of its own, found {image}, that of {other}"
        judge.reject(DatasetError(message, "ambiguous image"))
    return kept


def _stated_header(annotation: Annotation, size: tuple[int, int] | None) -> ImageHeader:
    """Of an image that is not there; size: if it is known from elsewhere."""
    width, height = size or _stated_size(annotation)
    if not (width >= 1 <= height and width * height <= MAX_PIXELS):
        message = f"{annotation.path}, size: expected the image's, found {width:g}x{height:g}"
        raise DatasetError(message, kind="size disagrees with the image")
    return ImageHeader(int(width), int(height), orientation=1)


def _stated_size(annotation: Annotation) -> tuple[float, float]:
    names, where = ("width", "height"), f"{annotation.path}, size"
    sides = [number_in(s, f"{where}/{n}") for n, s in zip(names, annotation.size, strict=True)]
    return sides[0], sides[1]


def _class_names(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    objects = (item for annotation in annotations for item in annotation.objects)
    return fit_names(item.name for item in objects if not item.is_deleted)


# ------------------------------------------------------------------------------------------------
# Texts -> objects
# ------------------------------------------------------------------------------------------------


_ROW = np.dtype(
    [
        ("image", np.int64),
        ("number", np.int64),
        ("label", np.int32),
        ("corners", np.float64, 4),
        ("difficult", bool),
    ]
)


def _objects(annotations: Sequence[Annotation], classes: Sequence[str], judge: Judge) -> np.ndarray:
    """(T,) `_ROW`: the objects that say what they must."""
    label_of = {name: label for label, name in enumerate(classes)}
    rows = []
    for image, annotation in enumerate(annotations):
        for number, item in enumerate(annotation.objects):
            where = annotation.where(number)
            if item.is_deleted:
                judge.defects.add("deleted object left out", f"{where}, deleted: found '1'")
                continue
            try:
                label = class_label(item.name, label_of, f"{where}, name")
                corners = _corners(item, f"{where}, {item.shape}")
            except DatasetError as error:
                judge.reject(error)
                continue
            _note_shape(annotation.objects, number, where, judge)
            difficult = _difficult(item.difficult, f"{where}, difficult", judge)
            rows.append((image, number, label, corners, difficult))
    return np.array(rows, _ROW)


def _boxes(rows: np.ndarray) -> np.ndarray:
    return rows["corners"] - [1, 1, 0, 0]


def _are_in_order(rows: np.ndarray, annotations: Sequence[Annotation], judge: Judge) -> np.ndarray:
    """(T,) bool: whose second corner is right of and below the first; the others are rejected."""
    is_good, boxes = np.ones(len(rows), bool), _boxes(rows)
    for row in np.flatnonzero((boxes[:, 2:] <= boxes[:, :2] + 1).any(axis=1)).tolist():
        annotation, number = annotations[rows["image"][row]], rows["number"][row]
        try:
            _require_order(annotation.objects[number], _where_box(annotation, number))
        except DatasetError as error:
            judge.reject(error)
            is_good[row] = False
    return is_good


def _require_order(item: VocObject, where: str) -> None:
    if item.shape == "robndbox":
        return
    values = [decimal(text) for text in item.texts]
    for low, high in ((0, 2), (1, 3)):
        if values[high] <= values[low]:
            expected = f"a number > {CORNERS[low]} = {values[low]:g}"
            message = (
                f"{where}/{CORNERS[high]}: expected {expected}, found {quoted(item.texts[high])}"
            )
            raise DatasetError(message, kind="empty or inverted box")


def _where_box(annotation: Annotation, number: int) -> str:
    return f"{annotation.where(number)}, {annotation.objects[number].shape}"


def _corners(item: VocObject, where: str) -> tuple[float, ...]:
    """xmin, ymin, xmax, ymax, 1-based and inclusive. where: file, object and shape."""
    if item.shape == "robndbox":
        return _around_rotated(item, where)
    values = [number_in(t, f"{where}/{n}") for n, t in zip(CORNERS, item.texts, strict=True)]
    return _from_1(values) if "/" in item.shape else tuple(values)


def _around_rotated(item: VocObject, where: str) -> tuple[float, ...]:
    """The hull of a rotated box, as `_corners`."""
    numbers = [number_in(t, f"{where}/{n}") for n, t in zip(ROTATED, item.texts, strict=True)]
    cx, cy, width, height, angle = numbers
    for name, side in (("w", width), ("h", height)):
        if side <= 0:
            message = f"{where}/{name}: expected a number > 0, found {side:g}"
            raise DatasetError(message, kind="empty or inverted box")
    if abs(angle) > MAX_ANGLE:
        message = f"{where}/angle: expected radians, at most 2 pi, found {angle:g}"
        raise DatasetError(message, kind="bad number")
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    dx, dy = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return _from_1([cx - dx, cy - dy, cx + dx, cy + dy])


def _from_1(box: Sequence[float]) -> tuple[float, ...]:
    """Continuous x1, y1, x2, y2 as VOC counts pixels."""
    return box[0] + 1, box[1] + 1, box[2], box[3]


def _note_shape(objects: Sequence[VocObject], number: int, where: str, judge: Judge) -> None:
    """Counts a box that stands for another shape, and one that is not its object's first."""
    item = objects[number]
    if item.shape != "bndbox":
        what = {"robndbox": "rotated box", "segm/box": "mask"}.get(item.shape, "polygon")
        message = f"{where}: expected <bndbox>, found {item.shape}"
        judge.defects.add(f"{what} taken as its box", message)
    if number and objects[number - 1].number == item.number:
        message = f"{where}: expected one <{item.shape}>, found another: read as one more object"
        judge.defects.add("second box in an object", message)


def _difficult(text: str | None, where: str, judge: Judge) -> bool:
    """A text other than 0 and 1 is counted; what is neither true nor false is not difficult."""
    if text in (None, "", "0", "1"):
        return text == "1"
    is_difficult = bool(flag(text))
    message = f"{where}: expected 0 or 1, found {quoted(text)}, taken for {int(is_difficult)}"
    judge.defects.add("difficult flag other than 0 or 1", message)
    return is_difficult


# ------------------------------------------------------------------------------------------------
# The format
# ------------------------------------------------------------------------------------------------


FORMAT = Format(
    read_voc,
    voc_classes,
    find_splits,
    undivided,
    uses=("image_sizes",),
    target=Target(write_voc, "JPEGImages", by_stem=True, flat=True),
)
