"""labelme's JSON annotations -> Dataset: a file an image, beside it or in a folder of their own.

{"shapes": [{"label", "points": [[x, y], ...], "shape_type", "flags", "group_id"}], "imagePath",
"imageData", "imageHeight", "imageWidth"}, see https://github.com/wkentaro/labelme. Points are
continuous pixels, 0 at the left edge of the first pixel. An object's box is
- of a rectangle: its corners', in any order; X-AnyLabeling writes all four;
- of a circle, a centre and a point of the rim: the circle's, cut off at the image's border;
- of a mask, whose points are its first and last pixel: that of all its pixels;
- of a polygon, a line or a line strip: the hull of its points. Those of one label that have the
  same group_id are one object, as in labelme's own converter to COCO.
A point has no box. The shape flag "difficult" (or X-AnyLabeling's key) is VOC's flag, "ignore"
makes a region to ignore; one labelled __ignore__, as labelme's examples have it, is ignored for all
classes.
"""

import math
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Raw, Struct

from data.files import open_data, read_data
from data.formats.bad_annotations import Judge
from data.formats.class_names import class_label, fit_names
from data.formats.format import Format, Target
from data.formats.image_files import (
    ImageFinder,
    check_size,
    files_in,
    folders_below,
    folders_in,
    names_in,
    require_folder,
)
from data.formats.json_text import decode_json
from data.formats.text_files import flag, quoted
from data.images.decode import ImageHeader, read_header
from data.records import Dataset, DatasetError
from data.writers.labelme import IGNORED, write_labelme

JSON = (".json",)
MAX_BYTES = 2**28  # of a file, which may hold its image
MAX_COORDINATE = 2.0**24  # pixels; up to here float32 tells whole ones apart
MAX_PARSED = 2**15  # files whose boxes are kept
LOOKED_AT = 5  # files of a folder, to see whether they are labelme's
HEAD = 2**20  # bytes of a file that are looked at for this
ANNOTATION_FOLDERS = ("annotations", "labels", "labelme", "json", "jsons", "ann")
IMAGE_FOLDERS = ("images", "img", "jpegimages")
SPLITS = ("train", "training", "trainval", "val", "valid", "validation", "dev", "test", "testing")

RECTANGLE, CIRCLE, MASK = "rectangle", "circle", "mask"
POINTS = ("point", "points")
# Of these the hull is taken, and what it is counted as; the last four are X-AnyLabeling's.
HULLS = {"polygon": "polygon", "linestrip": "line", "line": "line", "cuboid": "cuboid",
         "oriented_rectangle": "rotated box", "rotation": "rotated box",
         "quadrilateral": "polygon"}  # fmt: skip


_Corners = tuple[float, float, float, float]


class _Shape(Struct, frozen=True, gc=False):
    points: list[tuple[float, float]]
    label: str | int | None = None
    shape_type: str | None = None
    group_id: int | float | str | None = None
    flags: dict[str, Any] | None = None
    difficult: Any = None


class _File(Struct, frozen=True, gc=False, rename="camel"):
    shapes: list[Raw]
    image_path: str | None = None
    image_data: Raw = Raw(b"null")
    image_width: float | None = None
    image_height: float | None = None
    flags: dict[str, Any] | None = None


_FILES = msgspec.json.Decoder(_File)
_SHAPES = msgspec.json.Decoder(_Shape)


class _Box(NamedTuple):
    """A shape's box. number: its place in the file; points have no box; group: None: of none."""

    number: int
    label: str | None
    kind: str
    corners: _Corners | None
    group: int | float | str | None
    difficult: object
    ignore: object


class Annotation(NamedTuple):
    """What a file says. malformed: the errors of the shapes that no box can be taken from."""

    path: str
    image_path: str | None
    holds_image: bool
    size: tuple[float, float]
    flags: tuple[str, ...]
    boxes: tuple[_Box, ...]
    malformed: tuple[DatasetError, ...]

    def where(self, box: _Box) -> str:
        """Names a shape in messages."""
        return f"{self.path}, shapes[{box.number}] ({quoted(box.label)})"


def read_labelme(
    root: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    images: Sequence[str | Path] = (),
    on_bad_annotation: str = "error",
) -> Dataset:
    """Reads one split of a dataset annotated in labelme's JSON.

    root: the folder of the dataset.
    split: a folder below root, of files in it and in its folders; root/annotations/<split> and the
      like, see ANNOTATION_FOLDERS; "all" for everything below root. Hidden folders are passed over.
    classes: names in label order; None takes those found in this split, sorted.
    images: folders, relative to root or absolute, looked through after the file's own, before the
      usual ones. An image is found by imagePath, else by the name of its JSON file.

    Order: by path. An image's id is its JSON file's path below the folder that holds all of them,
    without suffix. An image without a file is left out and counted: labelme writes one when a shape
    is drawn. Counted too are shapes of which the box is not what was drawn.
    For on_bad_annotation and errors see `Format`.
    """
    root, judge = Path(root), Judge(on_bad_annotation)
    folder = _folder(root, split)
    files = [
        os.path.join(place, name)
        for place in folders_below(folder)
        for name in names_in(place, JSON)
    ]
    finders = _finders(root, split, files, images)
    loaded = judge.load(lambda path: _load(path, finders[os.path.dirname(path)]), files)
    loaded = _one_each(loaded, judge)
    _count_unlabelled(files, loaded, judge)
    annotations = [annotation for annotation, _, _ in loaded.values()]
    if classes is None:
        classes = _class_names(annotations)
    headers = [header for _, _, header in loaded.values()]
    objects = list(_objects(annotations, headers, classes, judge))
    ids = _image_ids(loaded)
    return judge.assemble(
        f"{root.resolve().name}/{split}",
        classes,
        {ids[path]: (image, header) for path, (_, image, header) in loaded.items()},
        lambda row: annotations[objects[row].image].where(objects[row].box),
        image_index=[item.image for item in objects],
        boxes=[item.corners for item in objects],
        labels=[item.label for item in objects],
        difficult=[item.difficult for item in objects],
        ignore=[item.ignore for item in objects],
    )


def labelme_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """The labels in the files of a split, sorted; arguments as `read_labelme`.

    Looks at names only: a file that cannot be read is left for `read_labelme` to report.
    """
    files = _files_below(_folder(Path(root), split))
    return _class_names(Judge("drop").load(parse_labelme, files).values())


# ------------------------------------------------------------------------------------------------
# Which files
# ------------------------------------------------------------------------------------------------


def _folder(root: Path, split: str) -> Path:
    """The folder of a split's JSON files."""
    require_folder(root)
    above, _, name = split.rpartition("/")
    if name == "all" and not (root / split).is_dir():
        require_folder(root / above)
        return root / above
    folders = [base / split for base in _bases(root)]
    for folder in folders:
        if folder.is_dir() and [
            os.path.join(place, name)
            for place in folders_below(folder)
            for name in names_in(place, JSON)
        ]:
            return folder
    found = ", ".join(find_splits(root)) or "none"
    raise DatasetError(
        f"{root}: expected labelme's JSON files in a folder {split}, found {found}; "
        "'all' is everything below the root"
    )


def _bases(root: Path) -> list[Path]:
    """The folders that may hold those of the splits."""
    names = (*ANNOTATION_FOLDERS, *IMAGE_FOLDERS)
    return [root, *(path for path in folders_in(root) if path.name.lower() in names)]


def _files_below(folder: Path) -> list[str]:
    """All JSON files below a folder, by path, but for hidden folders."""
    places = folders_below(folder)
    return [os.path.join(place, name) for place in places for name in names_in(place, JSON)]


def _finders(
    root: Path, split: str, files: Iterable[str], images: Sequence[str | Path]
) -> dict[str, ImageFinder]:
    """What finds the images of the files of each folder."""
    given = [root / folder for folder in images]
    image_folders = _image_folders(root)
    usual = [root / split, *(path / split for path in image_folders), *image_folders, root]
    finders = {}
    for place in dict.fromkeys(map(os.path.dirname, files)):
        folders = [Path(place), *given, *_mirrored(root, Path(place)), *usual]
        finders[place] = ImageFinder([path for path in folders if path.is_dir()])
    return finders


def _image_folders(folder: Path) -> list[Path]:
    return [path for path in folders_in(folder) if path.name.lower() in IMAGE_FOLDERS]


def _mirrored(root: Path, place: Path) -> Iterator[Path]:
    """The folders of images that are to be expected for one of JSON files: img/x for ann/x."""
    parts = place.relative_to(root).parts
    for index, part in enumerate(parts):
        if part.lower() in ANNOTATION_FOLDERS:
            for folder in _image_folders(root.joinpath(*parts[:index])):
                yield from (folder.joinpath(*parts[index + 1 :]), folder)


def find_splits(root: Path) -> list[str]:
    """The folders of labelme's files, by name; "all" where the files lie in no such folder."""
    if _are_labelme(files_in(root, JSON)):
        return ["all"]
    for base in _bases(root):
        if base != root and _are_labelme(files_in(base, JSON)):
            return ["all"]
        folders = [path for path in folders_in(base) if path not in _bases(root)]
        splits = [
            path.name
            for path in folders
            if _are_labelme(
                [
                    os.path.join(place, name)
                    for place in folders_below(path)
                    for name in names_in(place, JSON)
                ]
            )
        ]
        if splits:
            return splits
    return []


def undivided(root: Path) -> str | None:
    """ "all" where no folder of labelme's files has the name of a split, else None."""
    splits = find_splits(root)
    return "all" if splits and not {name.lower() for name in splits} & set(SPLITS) else None


def _are_labelme(paths: Sequence[str | Path]) -> bool:
    return any(_is_labelme(path) for path in paths[:LOOKED_AT])


def _is_labelme(path: str | Path) -> bool:
    """Whether a file looks like labelme's; not one that cannot be read."""
    try:
        with open_data(path, MAX_BYTES) as file:
            head = file.read(HEAD)
    except DatasetError:
        return False
    return b'"shapes"' in head and b'"points"' in head


# ------------------------------------------------------------------------------------------------
# Files -> boxes
# ------------------------------------------------------------------------------------------------


def parse_labelme(path: str) -> Annotation:
    """Takes a labelme file apart; its boxes are kept, as its classes are looked for first.

    Raises DatasetError if it is no regular file of up to MAX_BYTES or not labelme's JSON.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return _parse(path)  # raises the error of all files that cannot be read
    return _parse(path, found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(MAX_PARSED)
def _parse(path: str, *stamp: int) -> Annotation:
    """stamp: another one if the file has changed."""
    kind = "unreadable JSON"
    data = read_data(path, MAX_BYTES, kind).removeprefix(b"\xef\xbb\xbf")
    contents = decode_json(_FILES, data, path, kind)
    boxes, malformed = [], []
    for number, raw in enumerate(contents.shapes):
        where = f"{path}, shapes[{number}]"
        try:
            boxes.append(_box(number, decode_json(_SHAPES, raw, where, "malformed shape"), where))
        except DatasetError as error:
            malformed.append(error)
    return Annotation(
        path,
        contents.image_path,
        bytes(memoryview(contents.image_data)[:4]) not in (b"null", b'""'),
        (contents.image_width or 0, contents.image_height or 0),
        tuple(name for name, is_set in (contents.flags or {}).items() if is_set),
        tuple(boxes),
        tuple(malformed),
    )


def _box(number: int, shape: _Shape, where: str) -> _Box:
    kind = shape.shape_type or "polygon"
    label = shape.label if shape.label is None else str(shape.label)
    flags = {name.lower(): value for name, value in (shape.flags or {}).items()}
    corners, group = _corners(kind, shape.points, f"{where} ({quoted(label)})"), None
    if kind == RECTANGLE and len({x for x, _ in shape.points}) > 2:
        kind = "rotation"
    if kind in HULLS:
        group = shape.group_id
    difficult = flags.get("difficult", shape.difficult)
    return _Box(number, label, kind, corners, group, difficult, flags.get("ignore"))


def _corners(kind: str, points: Sequence[tuple[float, float]], where: str) -> _Corners | None:
    """x1, y1, x2, y2 of a shape, None for points. Raises DatasetError for one that has no box."""
    if kind in POINTS:
        return None
    counts: Sequence[int] = {RECTANGLE: (2, 4), CIRCLE: (2,), MASK: (2,)}.get(kind, ())
    if not counts and kind not in HULLS:
        known = ", ".join((RECTANGLE, CIRCLE, MASK, *POINTS, *HULLS))
        message = f"{where}, shape_type: expected one of {known}, found {quoted(kind)}"
        raise DatasetError(message, "unknown shape type")
    if (counts and len(points) not in counts) or not points:
        expected = " or ".join(map(str, counts)) or "some"
        message = f"{where}: expected {expected} points of a {kind}, found {len(points)}"
        raise DatasetError(message, "malformed shape")
    xs, ys = zip(*points, strict=True)
    largest = max(map(abs, xs + ys))
    if largest > MAX_COORDINATE:
        message = f"{where}: expected numbers up to {MAX_COORDINATE:g}, found {largest:g}"
        raise DatasetError(message, "bad number")
    if kind == CIRCLE:
        radius = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        return xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius
    last = 1 if kind == MASK else 0  # its second point is a pixel of it
    return min(xs), min(ys), max(xs) + last, max(ys) + last


def _load(path: str, finder: ImageFinder) -> tuple[Annotation, Path, ImageHeader]:
    """What a file says, its image and the image's header."""
    annotation = parse_labelme(path)
    by_name = os.path.splitext(os.path.basename(path))[0] + ".*"
    try:
        image = finder.find(annotation.image_path or by_name, path)
    except DatasetError as error:
        if error.kind != "missing image":
            raise
        try:
            image = finder.find(by_name, path)
        except DatasetError:
            hint = "; the file holds it as imageData: save it as a file beside"
            message = str(error) + (hint if annotation.holds_image else "")
            raise DatasetError(message, error.kind) from error
    image = _without_dots(image)
    header = read_header(image)
    if annotation.size != (0, 0):  # written by hand, or unknown
        check_size(annotation.size, header, f"{path}, imageWidth and imageHeight")
    return annotation, image, header


def _without_dots(path: Path) -> Path:
    """The path without ".."; as it is where a symbolic link makes that another file."""
    if ".." not in str(path):
        return path
    plain = Path(os.path.normpath(path))
    return plain if plain.exists() and plain.samefile(path) else path


def _one_each(
    loaded: dict[str, tuple[Annotation, Path, ImageHeader]], judge: Judge
) -> dict[str, tuple[Annotation, Path, ImageHeader]]:
    """The files of which each has its own image; images taken by another name are counted."""
    file_of: dict[Path, str] = {}
    for path, (annotation, image, _) in loaded.items():
        other = file_of.setdefault(image, path)
        if other != path:
            message = f"{path}: expected an image of its own, found {image}, which is {other}'s"
            judge.reject(DatasetError(message, "ambiguous image"))
            continue
        named = annotation.image_path
        if named and os.path.splitext(named)[1].lower() != image.suffix.lower():
            message = f"{path}: expected the image {named}, took {image}"
            judge.defects.add("image under another suffix", message)
        elif named and _plain_stem(named) != _plain_stem(image.name):
            message = f"{path}, imagePath: expected {image.name} as the file's name, found {named}"
            judge.defects.add("image found by its file's name", message)
    kept = set(file_of.values())
    return {path: entry for path, entry in loaded.items() if path in kept}


def _plain_stem(name: str) -> str:
    return unicodedata.normalize("NFC", PureWindowsPath(name).stem).casefold()


def _count_unlabelled(files: Sequence[str], loaded: dict, judge: Judge) -> None:
    """Counts images beside JSON files that no file is of: labelled ones or not, nobody knows."""
    known = {str(image) for _, image, _ in loaded.values()}
    stems = {os.path.splitext(path)[0] for path in files}
    for folder in dict.fromkeys(map(os.path.dirname, files)):
        for name in names_in(folder):
            path = os.path.join(folder, name)
            if path not in known and os.path.splitext(path)[0] not in stems:
                message = f"{path}: expected its JSON file, found none: left out"
                judge.defects.add("image without JSON file left out", message)


def _image_ids(paths: Iterable[str]) -> dict[str, str]:
    """{JSON file: id of its image}."""
    paths = list(paths)
    folder = os.path.commonpath(list(map(os.path.dirname, paths))) if paths else ""
    return {path: os.path.splitext(os.path.relpath(path, folder))[0] for path in paths}


def _class_names(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    boxes = (box for annotation in annotations for box in annotation.boxes)
    return fit_names(box.label for box in boxes if box.corners and box.label != IGNORED)


# ------------------------------------------------------------------------------------------------
# Boxes -> objects
# ------------------------------------------------------------------------------------------------


class _Object(NamedTuple):
    image: int
    box: _Box
    corners: _Corners
    label: int
    difficult: bool
    ignore: bool


def _objects(
    annotations: Sequence[Annotation],
    headers: Sequence[ImageHeader],
    classes: Sequence[str],
    judge: Judge,
) -> Iterator[_Object]:
    label_of = {name: label for label, name in enumerate(classes)}
    for image, annotation in enumerate(annotations):
        for error in annotation.malformed:
            judge.reject(error)
        if annotation.flags:
            message = f"{annotation.path}: the image has flags: {', '.join(annotation.flags)[:200]}"
            judge.defects.add("flags of an image not read", message)
        for box, corners in _boxes(annotation, headers[image], judge):
            where = annotation.where(box)
            if box.label == IGNORED:
                judge.defects.add("region ignored for all classes", f"{where}: ignored")
                for label in label_of.values():
                    yield _Object(image, box, corners, label, difficult=False, ignore=True)
                continue
            try:
                label = class_label(box.label, label_of, f"{where}, label")
            except DatasetError as error:
                judge.reject(error)
                continue
            difficult = _flag("difficult", box.difficult, where, judge)
            ignore = _flag("ignore", box.ignore, where, judge)
            yield _Object(image, box, corners, label, difficult, ignore)


def _boxes(
    annotation: Annotation, header: ImageHeader, judge: Judge
) -> Iterator[tuple[_Box, _Corners]]:
    """Yields the shapes that have a box, those of a group as one; says which are not as drawn."""
    groups: dict[tuple[object, object], list[_Corners]] = {}
    for box in annotation.boxes:
        if box.group is not None and box.corners is not None:
            groups.setdefault((box.label, box.group), []).append(box.corners)
    for box in annotation.boxes:
        where, corners = annotation.where(box), box.corners
        if corners is None:
            judge.defects.add("shape without a box left out", f"{where}: a {box.kind} has no box")
            continue
        group = groups.get((box.label, box.group), [])
        if len(group) > 1:
            if corners is not group[0]:
                continue
            message = f"{where}: one object of the {len(group)} shapes of group {box.group!r:.60}"
            judge.defects.add("shapes of a group taken as one object", message)
            lows, highs = np.min(group, axis=0), np.max(group, axis=0)
            corners = (*lows[:2].tolist(), *highs[2:].tolist())
        elif box.kind != RECTANGLE:
            kind = HULLS.get(box.kind, box.kind)
            judge.defects.add(f"{kind} taken as its box", f"{where}: took the box around it")
        if box.kind == CIRCLE:
            x1, y1, x2, y2 = corners
            corners = max(x1, 0.0), max(y1, 0.0), min(x2, header.width), min(y2, header.height)
            if corners != box.corners:
                message = f"{where}: reaches beyond the image, cut off at its border"
                judge.defects.add("shape beyond the image, cut off", message)
        yield box, corners


def _flag(name: str, value: object, where: str, judge: Judge) -> bool:
    is_set = bool(flag(value))
    if value not in (None, False, True, 0, 1):
        found = f"found {quoted(str(value))}: taken for {str(is_set).lower()}"
        message = f"{where}, flags: expected {name} to be true or false, {found}"
        judge.defects.add(f"{name} flag other than 0 or 1", message)
    return is_set


FORMAT = Format(
    read_labelme,
    labelme_classes,
    find_splits,
    undivided=undivided,
    uses=("images",),
    target=Target(write_labelme, "{split}", by_stem=True),
)
