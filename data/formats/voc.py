"""Pascal VOC annotations -> Dataset: the VOC2007/2012 tree, or a flat folder of images and XML.

What is wrong is either an error that names file, object, field, expected and found, or dropped and
counted; which of the two is the caller's choice. Nothing is skipped silently.
Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, and its devkit.
Letters: G boxes of one image.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from lxml import etree

from data.files import read_data
from data.formats.finding import check_size, files_in, in_threads, share
from data.formats.format import Format, Target
from data.formats.judge import MAX_OVERSHOOT, Judge
from data.formats.texts import (
    OF_DATASET,
    OF_ONE_IMAGE,
    class_label,
    decimal,
    fit_names,
    numbered_lines,
    quoted,
)
from data.images.decode import IMAGE_SUFFIXES, MAX_PIXELS, ImageHeader, read_header
from data.records import Dataset, DatasetError, Record, pack
from data.writers.voc import write_voc

FLAT = ("*.xml", "[Aa]nnotations/*.xml", "annots/*.xml", "labels/*.xml")
CORNERS = ("xmin", "ymin", "xmax", "ymax")

IMAGE_FOLDERS = ("jpegimages", "images")
ANNOTATION_FOLDERS = ("annotations", "annots", "labels")

# The second column of a class's image set file ("dog_train.txt"): absent, difficult, present.
_PRESENCE = re.compile(r"\s+(?:-1|0|1)$")


@dataclass(frozen=True)
class VocObject:
    """The texts of one `<object>`, unchecked; None where the element is missing.

    number: 1 for the first object of the file. corners: by name, 1-based and inclusive.
    """

    number: int
    name: str | None
    difficult: str | None
    corners: dict[str, str | None]


@dataclass(frozen=True)
class Annotation:
    """The texts of one VOC XML file, unchecked; None where the element is missing."""

    path: Path
    filename: str | None
    size: tuple[str | None, str | None]
    objects: tuple[VocObject, ...]


@dataclass(frozen=True)
class _Folder:
    """The files of a dataset: by stem, and the folders they were looked for in."""

    root: Path
    annotations: dict[str, Path]
    images: dict[str, Path | DatasetError]
    annotation_folder: Path
    image_folder: Path
    image_sets: Path | None  # None: a flat folder, split by hash


def read_voc(
    root: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    on_bad_annotation: str = "error",
    val_fraction: float = 0.2,
    seed: int = 0,
    image_sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Dataset:
    """Reads one split of a dataset annotated in Pascal VOC XML.

    root: a VOC tree (Annotations, JPEGImages, ImageSets/Main), a folder that holds exactly one such
      tree, or a flat folder: images and XML side by side or in sibling folders.
    split: in a tree, the name of an image set or several joined by "+" ("train+val"). In a flat
      folder "train", "val" or "all": a file's side depends on nothing but its stem and the seed.
    classes: names in label order; None takes those found in this split, sorted (see
      `discover_classes` for splits that must share one list).
    on_bad_annotation: "error" raises at the first defect; "drop" leaves the object out, or the
      image where the defect is the image's, and counts it in the dataset's `defects`.
    val_fraction, seed: of the split of a flat folder.
    image_sizes: id -> (width, height), for judging detections that were made elsewhere: an image
      need then not be there, and what is not among the sizes is as `<size>` says.

    Order: the image set's; by stem in a flat folder. 1-based inclusive corners become
    (xmin - 1, ymin - 1, xmax, ymax), as the devkit measures them. Up to 2 px outside the image are
    clipped and counted whatever `on_bad_annotation` says.
    Raises DatasetError for defects and for a folder or split that is not there, ValueError for an
    argument that makes no sense.
    """
    reader = _Reader(on_bad_annotation)
    folder = _find_folder(Path(root))
    ids = _list_split(folder, split, val_fraction, seed, reader)
    loaded = in_threads(lambda image_id: _load(folder, image_id, image_sizes), ids)
    name = f"{folder.root.resolve().name}/{split}"
    if classes is None:
        classes = _class_names([parts[0] for parts in loaded if isinstance(parts, tuple)])
    label_of = {name: label for label, name in enumerate(classes)}
    records = [
        reader.record(image_id, parts, label_of)
        for image_id, parts in zip(ids, loaded, strict=True)
    ]
    if not classes and any(isinstance(parts, tuple) for parts in loaded):
        raise DatasetError(f"{name}: no object in the split to take the classes from")
    return pack(name, classes, [r for r in records if r is not None], reader.defects)


def discover_classes(
    root: str | Path, splits: Sequence[str], *, val_fraction: float = 0.2, seed: int = 0
) -> tuple[str, ...]:
    """The class names in the annotations of several splits, sorted; arguments as `read_voc`.

    Looks at names only: a file that cannot be read is left for `read_voc` to report.
    """
    folder = _find_folder(Path(root))
    listing = Judge("drop")
    ids = [i for split in splits for i in _list_split(folder, split, val_fraction, seed, listing)]
    paths = [folder.annotations[i] for i in dict.fromkeys(ids) if i in folder.annotations]
    parsed = in_threads(parse_annotation, paths)
    return _class_names([a for a in parsed if isinstance(a, Annotation)])


# ------------------------------------------------------------------------------------------------
# Which files
# ------------------------------------------------------------------------------------------------


def _find_folder(root: Path) -> _Folder:
    """Finds out which of the known layouts `root` has, and pairs its images with its XML."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    trees = [root] if _is_tree(root) else _trees_below(root)
    if len(trees) > 1:
        found = ", ".join(str(tree) for tree in trees)
        raise DatasetError(f"{root}: expected one VOC tree, found {len(trees)}; name one: {found}")
    if trees:
        root = trees[0]
    annotation_folder = _subfolder(root, ANNOTATION_FOLDERS, (".xml",))
    image_folder = _subfolder(root, IMAGE_FOLDERS, IMAGE_SUFFIXES)
    annotations = {path.stem: path for path in files_in(annotation_folder, (".xml",))}
    if not annotations:
        raise DatasetError(
            f"{root}: expected a VOC tree (Annotations, JPEGImages, ImageSets/Main) or a folder of "
            f"images and XML files, found no XML file in {annotation_folder}"
        )
    images = _pair(annotations, files_in(image_folder))
    image_sets = root / "ImageSets" / "Main" if trees else None
    return _Folder(root, annotations, images, annotation_folder, image_folder, image_sets)


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


def _pair(annotations: dict[str, Path], images: list[Path]) -> dict[str, Path | DatasetError]:
    """Finds the image of each annotation: by stem, as `<filename>` and `<path>` often lie.

    `<filename>` counts where no image has the stem, and only for an image no other XML belongs to.
    The result has the stems of images without annotation too.
    """
    pairs: dict[str, Path | DatasetError] = {}
    for path in images:
        if path.stem in pairs:
            pairs[path.stem] = DatasetError(
                f"{path}: expected one image with the stem {path.stem!r}, found another in "
                f"{path.parent}",
                kind="ambiguous image",
            )
        else:
            pairs[path.stem] = path
    spare = {path.name: path.stem for path in images if path.stem not in annotations}
    for stem, path in annotations.items():
        if stem in pairs or not spare:
            continue
        try:
            filename = parse_annotation(path).filename
        except DatasetError:
            continue  # reported when its turn comes
        image_stem = spare.pop(PureWindowsPath(filename or "").name, None)
        if image_stem is not None:
            pairs[stem] = pairs.pop(image_stem)
    return pairs


def _list_split(
    folder: _Folder, split: str, val_fraction: float, seed: int, judge: Judge
) -> list[str]:
    """The ids of a split, in order and each once."""
    if folder.image_sets is not None:
        return _list_image_sets(folder.image_sets, folder.annotations, split, judge)
    if split not in ("train", "val", "all"):
        raise DatasetError(
            f"{folder.root}: expected split 'train', 'val' or 'all' in a folder without "
            f"ImageSets/Main, found {split!r}"
        )
    if not 0 <= val_fraction <= 1:
        raise ValueError(f"val_fraction: expected a number from 0 to 1, found {val_fraction}")
    stems = sorted(folder.annotations.keys() | folder.images.keys())
    if split == "all":
        return stems
    ids = [s for s in stems if (share(s, seed) < val_fraction) == (split == "val")]
    if not ids:
        raise DatasetError(
            f"{folder.root}: split {split!r} is empty: with val_fraction="
            f"{val_fraction} none of the {len(stems)} files falls into it; change data.val_fraction"
        )
    return ids


def _list_image_sets(
    image_sets: Path, annotations: Collection[str], split: str, judge: Judge
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

    Children may come in any order. `<part>` boxes of the person layout task are no objects.
    Raises DatasetError if it is no regular file of up to OF_ONE_IMAGE bytes, is not XML, declares a
    document type (which VOC does not need, and entity attacks do), or has a root other than
    `<annotation>`.
    """
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
    objects = (_parse_object(n, element) for n, element in enumerate(root.findall("object"), 1))
    fields, size = _texts(root), _texts(root.find("size"))
    sides = size.get("width"), size.get("height")
    return Annotation(Path(path), fields.get("filename"), sides, tuple(objects))


def _parse_object(number: int, element: etree._Element) -> VocObject:
    fields, corners = _texts(element), _texts(element.find("bndbox"))
    return VocObject(
        number=number,
        name=fields.get("name"),
        difficult=fields.get("difficult"),
        corners={corner: corners.get(corner) for corner in CORNERS},
    )


def _texts(element: etree._Element | None) -> dict[str, str]:
    """{tag: text} of the direct children."""
    if element is None:
        return {}
    return {child.tag: (child.text or "").strip() for child in element}


def _load(
    folder: _Folder, image_id: str, image_sizes: Mapping[str, tuple[int, int]] | None
) -> tuple[Annotation, Path, ImageHeader]:
    """What the files of one image say."""
    image = folder.images.get(image_id)
    if image_id not in folder.annotations:
        missing = folder.annotation_folder / f"{image_id}.xml"
        found = "neither it nor an image of that name"
        if isinstance(image, Path):  # unlabelled or empty? Only its owner knows
            found = (
                f"only the image {image}; an image without objects needs an XML without <object>"
            )
        raise DatasetError(f"{missing}: expected the file, found {found}", "missing annotation")
    annotation = parse_annotation(folder.annotations[image_id])
    if image is None and image_sizes is not None:
        width, height = image_sizes.get(image_id) or _stated_size(annotation)
        if not (width >= 1 <= height and width * height <= MAX_PIXELS):
            message = f"{annotation.path}, size: expected the image's, found {width:g}x{height:g}"
            raise DatasetError(message, kind="size disagrees with the image")
        header = ImageHeader(int(width), int(height), orientation=1)
        return annotation, Path(f"{image_id}.jpg"), header
    if isinstance(image, DatasetError):
        raise image
    if image is None:
        expected = f"expected an image {image_id}.* in {folder.image_folder}, found none"
        message = f"{annotation.path}: {expected}, nor a free one named {annotation.filename!r}"
        raise DatasetError(message, kind="missing image")
    return annotation, image, read_header(image)


def _class_names(annotations: Sequence[Annotation]) -> tuple[str, ...]:
    return fit_names(item.name for annotation in annotations for item in annotation.objects)


# ------------------------------------------------------------------------------------------------
# Texts -> records
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reader(Judge):
    """Judges what an XML file says, in its own words and numbers."""

    def record(
        self,
        image_id: str,
        parts: tuple[Annotation, Path, ImageHeader] | DatasetError,
        label_of: dict[str, int],
    ) -> Record | None:
        """The record of one image, None if the image is dropped."""
        try:
            if isinstance(parts, DatasetError):
                raise parts
            annotation, image, header = parts
            _check_size(annotation, header)
        except DatasetError as error:
            self.reject(error)
            return None
        rows = []
        for item in annotation.objects:
            where = f"{annotation.path}, object {item.number} ({quoted(item.name)})"
            try:
                label = class_label(item.name, label_of, f"{where}, name")
                box = self.inside(_corners(item, where), header, where)
                rows.append((box, label, _difficult(item.difficult, where)))
            except DatasetError as error:
                self.reject(error)
        return Record(
            image=str(image),
            image_id=image_id,
            width=header.width,
            height=header.height,
            boxes=np.array([box for box, _, _ in rows], np.float64).reshape(-1, 4),
            labels=np.array([label for _, label, _ in rows], np.int32),
            difficult=np.array([difficult for _, _, difficult in rows], bool),
        )

    def inside(self, corners: Sequence[float], header: ImageHeader, where: str) -> np.ndarray:
        """VOC corners, 1-based and inclusive -> xyxy inside the image.

        Raises DatasetError if the box is outside by more than MAX_OVERSHOOT or leaves nothing.
        """
        xmin, ymin, xmax, ymax = corners
        width, height = header.width, header.height
        box = np.array([xmin - 1, ymin - 1, xmax, ymax])
        if xmin >= 1 and ymin >= 1 and xmax <= width and ymax <= height:
            return box
        mended = box.clip(0, [width, height, width, height])
        overshoot = np.abs(mended - box)
        found = " ".join(f"{value:g}" for value in corners)
        message = f"{where}, bndbox: expected corners in 1..{width} x 1..{height}, found {found}"
        if overshoot.max() > MAX_OVERSHOOT or (mended[:2] >= mended[2:]).any():
            raise DatasetError(message, kind="box outside the image")
        # Tools that count from 0 leave every box a pixel up and left of the truth: worth knowing.
        from_zero = (box < 0) & (box >= -1)
        if from_zero.any():
            self.defects.add("corner counted from 0, clipped", message)
        if (overshoot[~from_zero] > 0).any():
            self.defects.add("box clipped to the image", message)
        return mended


def _check_size(annotation: Annotation, header: ImageHeader) -> None:
    """Refuses a `<size>` that is filled in and not the image's: its boxes are another image's."""
    if all(text in (None, "", "0") for text in annotation.size):
        return
    check_size(_stated_size(annotation), header, f"{annotation.path}, size")


def _stated_size(annotation: Annotation) -> tuple[float, float]:
    names, where = ("width", "height"), f"{annotation.path}, size"
    sides = [_number(s, f"{where}/{n}") for n, s in zip(names, annotation.size, strict=True)]
    return sides[0], sides[1]


def _corners(item: VocObject, where: str) -> list[float]:
    """xmin, ymin, xmax, ymax as the file gives them; judged before anything is clipped."""
    values = [_number(item.corners[name], f"{where}, bndbox/{name}") for name in CORNERS]
    for low, high in ((0, 2), (1, 3)):
        if values[high] <= values[low]:
            expected = f"a number > {CORNERS[low]} = {values[low]:g}"
            found = quoted(item.corners[CORNERS[high]])
            message = f"{where}, bndbox/{CORNERS[high]}: expected {expected}, found {found}"
            raise DatasetError(message, kind="empty or inverted box")
    return values


def _difficult(text: str | None, where: str) -> bool:
    if text not in (None, "", "0", "1"):
        message = f"{where}, difficult: expected 0 or 1, found {quoted(text)}"
        raise DatasetError(message, kind="bad difficult flag")
    return text == "1"


def _number(text: str | None, where: str) -> float:
    value = decimal(text)
    if math.isnan(value):
        raise DatasetError(f"{where}: expected a number, found {quoted(text)}", kind="bad number")
    return value


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
    return any(path.is_file() for pattern in FLAT for path in folder.glob(pattern))


def _located(root: Path, split: str) -> tuple[Path, str]:
    """Returns root and split for `read_voc`.

    A split may name its folder ("VOC2007/train"), or be a flat folder, which is read whole.
    """
    if _is_flat_voc(root / split) and not _voc_sets(root):  # the second looks through the tree
        return root / split, "all"
    folder, _, name = split.rpartition("/")
    return root / folder, name


def _read(root: Path, split: str, classes: Sequence[str] | None, **options: Any) -> Dataset:
    return read_voc(*_located(root, split), classes, **options)


def _find_classes(root: Path, split: str, **options: Any) -> tuple[str, ...]:
    root, split = _located(root, split)
    return discover_classes(root, [split], **options)


FORMAT = Format(
    _read,
    _find_classes,
    _find_splits,
    uses=("val_fraction", "image_sizes"),
    target=Target(write_voc, "JPEGImages", by_stem=True, flat=True),
)
