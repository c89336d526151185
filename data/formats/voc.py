"""Pascal VOC annotations -> Dataset: the VOC2007/2012 tree, or a flat folder of images and XML.

What is wrong is either an error that names file, object, field, expected and found, or dropped and
counted; which of the two is the caller's choice. Nothing is skipped silently.
Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, and its devkit.
Letters: G boxes of one image.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np
from lxml import etree

from data.files import read_data
from data.formats.bad_annotations import Judge
from data.formats.class_names import class_label, fit_names
from data.formats.format import Format, Target
from data.formats.image_files import (
    ImageFinder,
    check_size,
    files_in,
    require_folder,
)
from data.formats.text_files import OF_DATASET, OF_ONE_IMAGE, number_in, numbered_lines, quoted
from data.images.decode import IMAGE_SUFFIXES, MAX_PIXELS, ImageHeader, read_header
from data.records import Dataset, DatasetError
from data.writers.voc import write_voc

CORNERS = ("xmin", "ymin", "xmax", "ymax")
XML = (".xml",)

IMAGE_FOLDERS = ("jpegimages", "images")
ANNOTATION_FOLDERS = ("annotations", "annots", "labels")
MAX_PARSED = 2**15  # files whose texts are kept: 40 MB at 1.2 kB each, with four objects

# The second column of a class's image set file ("dog_train.txt"): absent, difficult, present.
_PRESENCE = re.compile(r"\s+(?:-1|0|1)$")


class VocObject(NamedTuple):
    """The texts of one `<object>`, unchecked; None where the element is missing.

    corners: in the order of `CORNERS`, 1-based and inclusive.
    """

    name: str | None
    difficult: str | None
    corners: tuple[str | None, ...]


class Annotation(NamedTuple):
    """The texts of one VOC XML file, unchecked; None where the element is missing."""

    path: str
    filename: str | None
    image_path: str | None
    size: tuple[str | None, str | None]
    objects: tuple[VocObject, ...]

    def where(self, index: int) -> str:
        """Names an object in messages."""
        return f"{self.path}, object {index + 1} ({quoted(self.objects[index].name)})"


class _Folder(NamedTuple):
    """The files of a dataset.

    annotations: XML files by stem. named: stem of an XML file -> its image, where `<filename>`
    alone tells. unlabelled: the other images by stem. image_sets: None in a flat folder.
    """

    root: Path
    annotations: dict[str, Path]
    named: dict[str, str]
    unlabelled: dict[str, Path]
    finder: ImageFinder
    annotation_folder: Path
    image_sets: Path | None


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
      tree, or a flat folder: images and XML side by side or in sibling folders.
    split: in a tree, the name of an image set or several joined by "+" ("train+val"); "all" in a
      flat folder. A folder below root may come before it ("VOC2007/train"); a flat one alone is
      read whole.
    classes: names in label order; None takes those found in this split, sorted.
    image_sizes: id -> (width, height), for judging detections that were made elsewhere: an image
      need then not be there, and what is not among the sizes is as `<size>` says.

    Order: the image set's; by stem in a flat folder. 1-based inclusive corners become
    (xmin - 1, ymin - 1, xmax, ymax), as the devkit measures them. Up to 2 px outside the image are
    clipped and counted whatever `on_bad_annotation` says. For that and for errors see `Format`.
    """
    judge, (root, split) = Judge(on_bad_annotation), _located(Path(root), split)
    folder = _find_folder(root)
    ids = _list_split(folder, split, judge)
    loaded = judge.load(lambda image_id: _load(folder, image_id, image_sizes), ids)
    annotations = [annotation for annotation, _, _ in loaded.values()]
    if classes is None:
        classes = _class_names(annotations)
    rows = _objects(annotations, classes, judge)
    return judge.assemble(
        f"{folder.root.resolve().name}/{split}",
        classes,
        {image_id: (image, header) for image_id, (_, image, header) in loaded.items()},
        lambda row: f"{annotations[rows['image'][row]].where(rows['number'][row])}, bndbox",
        image_index=rows["image"],
        boxes=rows["corners"] - [1, 1, 0, 0],
        first_pixel=1,
        labels=rows["label"],
        difficult=rows["difficult"],
    )


def voc_classes(root: str | Path, split: str) -> tuple[str, ...]:
    """The class names in the annotations of a split, sorted; arguments as `read_voc`.

    Looks at names only: a file that cannot be read is left for `read_voc` to report.
    """
    judge, (root, split) = Judge("drop"), _located(Path(root), split)
    folder = _find_folder(root)
    ids = _list_split(folder, split, judge)
    paths = [folder.annotations[i] for i in ids if i in folder.annotations]
    return _class_names(judge.load(parse_annotation, paths).values())


# ------------------------------------------------------------------------------------------------
# Which files
# ------------------------------------------------------------------------------------------------


def _find_folder(root: Path) -> _Folder:
    """Finds out which of the known layouts `root` has, and pairs its images with its XML."""
    require_folder(root)
    trees = [root] if _is_tree(root) else _trees_below(root)
    if len(trees) > 1:
        found = ", ".join(str(tree) for tree in trees)
        raise DatasetError(f"{root}: expected one VOC tree, found {len(trees)}; name one: {found}")
    if trees:
        root = trees[0]
    annotation_folder = annotations_of(root)
    image_folder = _subfolder(root, IMAGE_FOLDERS, IMAGE_SUFFIXES)
    annotations = {path.stem: path for path in files_in(annotation_folder, XML)}
    if not annotations:
        raise DatasetError(
            f"{root}: expected a VOC tree (Annotations, JPEGImages, ImageSets/Main) or a folder of "
            f"images and XML files, found no XML file in {annotation_folder}"
        )
    finder = ImageFinder([image_folder])
    listing = finder.listing(str(image_folder))
    named = named_images(annotations, listing)
    known = annotations.keys() | {os.path.splitext(name)[0] for name in named.values()}
    unlabelled = {s: image_folder / names[0] for s, names in listing.items() if s not in known}
    image_sets = root / "ImageSets" / "Main" if trees else None
    return _Folder(root, annotations, named, unlabelled, finder, annotation_folder, image_sets)


def _is_tree(folder: Path) -> bool:
    return (folder / "Annotations").is_dir() and (folder / "ImageSets" / "Main").is_dir()


def _trees_below(root: Path) -> list[Path]:
    """VOC trees one or two levels down: VOCdevkit, or the folder that holds it."""
    children = sorted(path for path in root.iterdir() if path.is_dir())
    trees = [path for path in children if _is_tree(path)]
    return trees or [path for path in sorted(root.glob("*/*")) if _is_tree(path)]


def _subfolder(root: Path, names: Sequence[str], suffixes: Sequence[str]) -> Path:
    """The folder in `root` of one of these names, in any case, with such files; else `root`."""
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    named = [folders[name] for name in names if name in folders]
    return next((folder for folder in named if files_in(folder, suffixes)), root)


def annotations_of(root: Path) -> Path:
    """The folder that the XML files are in, `root` or one in it."""
    return _subfolder(root, ANNOTATION_FOLDERS, XML)


def named_images(
    annotations: Mapping[str, Path], images: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """{stem of an XML file: its image} of those whose image no stem, but `<filename>` tells.

    `<filename>` and `<path>` often lie: the first counts where no image has the stem, and only for
    an image that no other XML belongs to. images: file names by stem.
    """
    spare = {name for stem, names in images.items() if stem not in annotations for name in names}
    named: dict[str, str] = {}
    for stem, path in annotations.items():
        if stem in images or not spare:
            continue
        try:
            name = PureWindowsPath(parse_annotation(path).filename or "").name
        except DatasetError:
            continue  # reported when its turn comes
        if name in spare:
            spare.remove(name)
            named[stem] = name
    return named


def _list_split(folder: _Folder, split: str, judge: Judge) -> list[str]:
    """The ids of a split, in order and each once."""
    if folder.image_sets is not None:
        return _list_image_sets(folder.image_sets, folder.annotations, split, judge)
    if split != "all":
        expected = "expected split 'all' in a folder without ImageSets/Main"
        raise DatasetError(f"{folder.root}: {expected}, found {split!r}")
    return sorted(folder.annotations | folder.unlabelled)


def _list_image_sets(
    image_sets: Path, annotations: Mapping[str, Path], split: str, judge: Judge
) -> list[str]:
    ids: dict[str, str] = {}
    for name in split.split("+"):
        path = image_sets / f"{name.strip()}.txt"
        if not path.is_file():
            there = sorted(p.stem for p in image_sets.glob("*.txt"))
            raise DatasetError(f"{path}: no such image set; there are {', '.join(there) or 'none'}")
        for number, image_id in numbered_lines(path):
            if image_id not in annotations:  # a name may end in " 1" itself
                image_id = _PRESENCE.sub("", image_id)
            here = f"{path}, line {number}"
            if image_id in ids:
                message = f"{here}: {image_id!r} is listed twice, first in {ids[image_id]}"
                judge.reject(DatasetError(message, kind="duplicate id"))
            else:
                ids[image_id] = here
    return list(ids)


# ------------------------------------------------------------------------------------------------
# Files -> texts
# ------------------------------------------------------------------------------------------------


def parse_annotation(path: str | Path) -> Annotation:
    """Takes a VOC XML file apart without judging what it says.

    Children may come in any order. `<part>` boxes of the person layout task are no objects. What
    was found is kept, as a file is looked into for its classes before its objects are read.
    Raises DatasetError if it is no regular file of up to OF_ONE_IMAGE bytes, is not XML, declares a
    document type (which VOC does not need, and entity attacks do), or has a root other than
    `<annotation>`.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return _parse(str(path))  # raises the error of all files that cannot be read
    return _parse(str(path), found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(MAX_PARSED)
def _parse(path: str, *stamp: int) -> Annotation:
    """stamp: another one if the file has changed."""
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    data = read_data(path, OF_ONE_IMAGE, kind="unreadable XML")
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        problem = " ".join(str(error.msg).split())
        raise DatasetError(f"{path}: not an XML file: {problem}", kind="unreadable XML") from error
    if root.getroottree().docinfo.doctype:  # type: ignore[union-attr]  # unknown to the stubs
        message = f"{path}: expected no document type declaration, found one"
        raise DatasetError(message, kind="unreadable XML")
    if root.tag != "annotation":
        message = f"{path}: expected the root <annotation>, found <{root.tag}>: not a VOC file"
        raise DatasetError(message, kind="not a VOC file")
    fields, size = _texts(root), _texts(root.find("size"))
    return Annotation(
        path,
        fields.get("filename"),
        fields.get("path"),
        (size.get("width"), size.get("height")),
        tuple(_parse_object(element) for element in root.findall("object")),
    )


def _parse_object(element: etree._Element) -> VocObject:
    fields, corners = _texts(element), _texts(element.find("bndbox"))
    return VocObject(fields.get("name"), fields.get("difficult"), tuple(map(corners.get, CORNERS)))


def _texts(element: etree._Element | None) -> dict[str, str]:
    """{tag: text} of the direct children; equal texts are one in memory."""
    if element is None:
        return {}
    return {child.tag: sys.intern((child.text or "").strip()) for child in element}


def _load(
    folder: _Folder, image_id: str, image_sizes: Mapping[str, tuple[int, int]] | None
) -> tuple[Annotation, Path, ImageHeader]:
    """What the files of one image say."""
    if image_id not in folder.annotations:
        missing = folder.annotation_folder / f"{image_id}.xml"
        found = "neither it nor an image of that name"
        if image_id in folder.unlabelled:  # unlabelled or empty? Only its owner knows
            found = f"only the image {folder.unlabelled[image_id]}; "
            found += "an image without objects needs an XML without <object>"
        raise DatasetError(f"{missing}: expected the file, found {found}", "missing annotation")
    annotation = parse_annotation(folder.annotations[image_id])
    name = folder.named.get(image_id, f"{image_id}.*")
    try:
        image = folder.finder.find(name, annotation.path)
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
    if not all(text in (None, "", "0") for text in annotation.size):
        check_size(_stated_size(annotation), header, f"{annotation.path}, size")
    return annotation, image, header


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
    return fit_names(item.name for annotation in annotations for item in annotation.objects)


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
            try:
                label = class_label(item.name, label_of, f"{where}, name")
                corners = _corners(item, where)
                rows.append((image, number, label, corners, _difficult(item.difficult, where)))
            except DatasetError as error:
                judge.reject(error)
    return np.array(rows, _ROW)


def _corners(item: VocObject, where: str) -> tuple[float, ...]:
    """xmin, ymin, xmax, ymax as the file gives them; judged before anything is clipped."""
    where = f"{where}, bndbox/"
    values = [number_in(t, where + n) for n, t in zip(CORNERS, item.corners, strict=True)]
    for low, high in ((0, 2), (1, 3)):
        if values[high] <= values[low]:
            expected = f"a number > {CORNERS[low]} = {values[low]:g}"
            message = (
                f"{where}{CORNERS[high]}: expected {expected}, found {quoted(item.corners[high])}"
            )
            raise DatasetError(message, kind="empty or inverted box")
    return tuple(values)


def _difficult(text: str | None, where: str) -> bool:
    if text not in (None, "", "0", "1"):
        message = f"{where}, difficult: expected 0 or 1, found {quoted(text)}"
        raise DatasetError(message, kind="bad difficult flag")
    return text == "1"


# ------------------------------------------------------------------------------------------------
# The format
# ------------------------------------------------------------------------------------------------


def _find_splits(root: Path) -> list[str]:
    folders = (path for path in sorted(root.glob("[!.]*")) if path.is_dir())
    return _voc_sets(root) or [path.name for path in folders if _is_flat_voc(path)]


def _voc_sets(root: Path) -> list[str]:
    """The image sets of the tree in `root`; "all" for a flat folder; else none."""
    sets = [sorted(root.glob(f"{up}ImageSets/Main/*.txt")) for up in ("", "*/", "*/*/")]
    return _image_sets(next(filter(None, sets), [])) or ["all"] * _is_flat_voc(root)


def _image_sets(files: Sequence[Path]) -> list[str]:
    """The image sets among ImageSets/Main/*.txt, less those of one class ("dog_train")."""
    stems = {path.stem: path for path in files}
    return [
        stem
        for stem, path in stems.items()
        if stem.rpartition("_")[2] not in stems.keys() - {stem}
        or not re.match(r"\S+\s+-?[01]\s", read_data(path, OF_DATASET).decode("utf-8", "replace"))
    ]


def _is_flat_voc(folder: Path) -> bool:
    return folder.is_dir() and bool(files_in(annotations_of(folder), XML))


def _undivided(root: Path) -> str | None:
    return "all" if "all" in _voc_sets(root) else None


def _located(root: Path, split: str) -> tuple[Path, str]:
    """Returns the folder that a split names and its name in there, see `read_voc`."""
    if _is_flat_voc(root / split) and not _voc_sets(root):  # the second looks through the tree
        return root / split, "all"
    folder, _, name = split.rpartition("/")
    return root / folder, name


FORMAT = Format(
    read_voc,
    voc_classes,
    _find_splits,
    _undivided,
    uses=("image_sizes",),
    target=Target(write_voc, "JPEGImages", by_stem=True, flat=True),
)
