"""Which files are a Pascal VOC dataset's: folders, lists of splits, and XML paired with images.

An id is the path of an XML file below its folder, without suffix, in NFC: "a", "cam1/a".
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from data.files import open_data
from data.formats.bad_annotations import Judge
from data.formats.format import VAL
from data.formats.image_files import (
    NO_IMAGES,
    ImageFinder,
    files_in,
    folders_below,
    folders_in,
    names_in,
    require_folder,
)
from data.formats.text_files import numbered_lines, quoted
from data.formats.voc_xml import parse_annotation
from data.images.decode import IMAGE_SUFFIXES
from data.records import DatasetError

XML = (".xml",)
IMAGE_FOLDERS = ("jpegimages", "images")
ANNOTATION_FOLDERS = ("annotations", "annots", "labels")
DIVIDED = ("train", "training", *VAL, "test", "testing")  # names of a part of a dataset

_SUFFIXES = (*IMAGE_SUFFIXES, *NO_IMAGES, *XML)  # that lists add to an id
# Lists in ImageSets may have any name; in the root lie classes.txt and notes as well.
_LIST_IN_ROOT = re.compile(r"(?:\w+_)?(?:train|trainval|val|valid|validation|test)(?:_list)?")
_PAIR = re.compile(r"(?P<image>.+\.\w+)[\s,;]+(?P<xml>.+\.xml)", re.IGNORECASE)
MAX_ENTRY = 2**13  # characters of a line that can name two files


class VocFiles(NamedTuple):
    """The files of a dataset or of one folder of it.

    name: of the folder. annotation_folder: where ids begin. annotations: XML files by id.
    named: id -> path below the image folder, of images that have another stem or folder.
    unlabelled: the other images by the id they would have. are_listed: whether a list names them.
    """

    name: str
    annotation_folder: Path
    annotations: dict[str, Path]
    named: dict[str, str]
    unlabelled: dict[str, Path]
    finder: ImageFinder
    are_listed: bool = False


def find_files(root: Path, split: str, judge: Judge) -> tuple[VocFiles, list[str]]:
    """The files of a dataset and the ids of a split, in order and each once; see `read_voc`.

    Raises DatasetError where there is no such split, and for a list's entries that name nothing or
    what another has named.
    """
    folder, _, name = split.rpartition("/")
    base = _tree(root / folder)
    annotations, images = annotations_of(base), _images_of(base)
    has_xml = _holds(annotations, XML, annotations != base)
    lists = [_list_file(base, part.strip()) for part in name.split("+")]
    if has_xml and any(lists):
        files = _pair(base, annotations, images, judge)._replace(are_listed=True)
        return files, _listed(base, files, dict(zip(name.split("+"), lists, strict=True)), judge)
    if inner := _split_folder(base, name):
        files = _pair(base, *inner, judge)
        if inner[1] == images:  # those without XML may belong to another split
            return files, sorted(files.annotations)
    elif has_xml and name == "all" and not _lists(base):
        files = _pair(base, annotations, images, judge)
    else:
        raise _no_split(base, name, annotations)
    return files, sorted(files.annotations | files.unlabelled)


def find_splits(root: Path) -> list[str]:
    """The lists of a tree in or below `root`; else its folders; "all" of one that has neither."""
    trees = [root] if _is_tree(root) else _trees_below(root)
    lists = [path for tree in trees for path in _lists(tree)]
    base = trees[0] if len(trees) == 1 else root
    if lists or _is_voc(base):
        lists = lists or _lists(base)
        return _image_sets(lists) or _divided(annotations_of(base)) or ["all"]
    return _voc_folders(root)


def undivided(root: Path) -> str | None:
    """The only split, where it is not called after a part of a dataset: CVAT's default, "all".

    Raises DatasetError for lists in a place where none is read: the set is divided, not whole.
    """
    splits = find_splits(root)
    if len(splits) != 1 or splits[0].lower() in DIVIDED:
        return None
    if splits == ["all"] and (lists := _lists_elsewhere(root)):
        found = ", ".join(str(path) for path in lists[:4])
        raise DatasetError(f"{root}: expected lists of images in ImageSets/Main, found {found}")
    return splits[0]


def _lists_elsewhere(root: Path) -> list[Path]:
    """Files called as lists of a split, up to two folders down, that begin with a known image."""
    folders = [root, *folders_in(root)]
    folders += [inner for folder in folders[1:] for inner in folders_in(folder)]
    folders += folders_in(root / "ImageSets/Main")
    files = [path for folder in folders for path in files_in(folder, (".txt", ".lst", ".csv"))]
    named = [path for path in files if _LIST_IN_ROOT.fullmatch(path.stem)]
    below = _walk(annotations_of(root), XML, deep=True) if named else ()
    stems = {os.path.splitext(name)[0] for _, names in below for name in names}
    return [path for path in named if _first_stem(path) in stems]


def _first_stem(path: Path) -> str:
    """The stem of what the first line of a list names."""
    try:
        _, line = next(iter(numbered_lines(path)), (0, ""))
    except DatasetError:
        return ""
    return Path(re.split(r"[\s,;]", line.replace("\\", "/"))[0]).stem


# ------------------------------------------------------------------------------------------------
# Folders
# ------------------------------------------------------------------------------------------------


def annotations_of(root: Path) -> Path:
    """The folder that the XML files are in, `root` or one in it."""
    found = _subfolder(root, ANNOTATION_FOLDERS, XML)
    if found == root and not names_in(root, XML):
        return _subfolder(root, IMAGE_FOLDERS, XML)  # beside the images
    return found


def _images_of(root: Path) -> Path:
    return _subfolder(root, IMAGE_FOLDERS, (*IMAGE_SUFFIXES, *NO_IMAGES))


def _subfolder(root: Path, names: Sequence[str], suffixes: Sequence[str]) -> Path:
    """The folder in `root` of one of these names, in any case, with such files; else `root`."""
    folders = {path.name.lower(): path for path in folders_in(root)}
    named = [folders[name] for name in names if name in folders]
    return next((folder for folder in named if _holds(folder, suffixes)), root)


def _inside(root: Path, name: str) -> Path:
    """The folder of this name in one, in any capitals."""
    if (root / name).is_dir():
        return root / name
    alike = (path for path in folders_in(root) if path.name.lower() == name.lower())
    return next(alike, root / name)


def _holds(folder: Path, suffixes: Sequence[str], deep: bool = True) -> bool:
    """Whether such a file is in a folder or, if `deep`, below it."""
    return any(names for _, names in _walk(folder, suffixes, deep))


def _walk(folder: Path, suffixes: Sequence[str], deep: bool) -> Iterator[tuple[str, list[str]]]:
    """(path below the folder, such files in there) of a folder and, if `deep`, those below it."""
    for place in folders_below(folder) if deep else [str(folder)]:
        yield os.path.relpath(place, folder), names_in(place, suffixes)


def _is_tree(folder: Path) -> bool:
    return _inside(folder, "Annotations").is_dir() and _inside(folder, "ImageSets").is_dir()


def _trees_below(root: Path) -> list[Path]:
    """VOC trees one or two levels down: VOCdevkit, or the folder that holds it."""
    children = folders_in(root)
    trees = [*filter(_is_tree, children)]
    return trees or [path for child in children for path in folders_in(child) if _is_tree(path)]


def _tree(root: Path) -> Path:
    """The VOC tree in or below a folder; without one the folder."""
    require_folder(root)
    trees = [root] if _is_tree(root) else _trees_below(root)
    if len(trees) > 1:
        found = ", ".join(str(tree) for tree in trees)
        raise DatasetError(f"{root}: expected one VOC tree, found {len(trees)}; name one: {found}")
    return trees[0] if trees else root


def _split_folder(base: Path, name: str) -> tuple[Path, Path] | None:
    """Where the XML and the images of a split lie that has a folder of its own.

    train/ with both in it; images/train and annotations/train; or images/train with both.
    """
    annotations, images = annotations_of(base), _images_of(base)
    for alias in _aliases(name):
        folder = _inside(base, alias)
        if _holds(inner := annotations_of(folder), XML):
            return inner, _images_of(folder)
        if _holds(folder := _inside(annotations, alias), XML):
            beside = _inside(images, alias)
            return folder, beside if beside.is_dir() else images
    return None


def _aliases(name: str) -> list[str]:
    """The name of a split, and others that tools give it; none for no name."""
    return [*dict.fromkeys([name, *VAL])] if name in VAL else [name] if name else []


def _divided(annotations: Path) -> list[str]:
    """The folders in one of XML files, if all XML is in such that are called after a part."""
    if names_in(annotations, XML):
        return []
    names = [path.name for path in folders_in(annotations) if _holds(path, XML)]
    return names if all(name.lower() in DIVIDED for name in names) else []


def _voc_folders(root: Path) -> list[str]:
    return [path.name for path in folders_in(root) if _is_voc(path)]


def _is_voc(folder: Path) -> bool:
    """Whether XML files are in a folder or one in it that are not CVAT's for images."""
    annotations = annotations_of(folder)
    for inner, names in _walk(annotations, XML, annotations != folder):
        if names:
            with open_data(annotations / inner / names[0]) as file:
                return b"<annotations" not in file.read(1024).replace(b"\0", b"")
    return False


def _no_split(base: Path, name: str, annotations: Path) -> DatasetError:
    has_xml = _holds(annotations, XML, annotations != base)
    if has_xml and (lists := _lists(base)):
        there = ", ".join(sorted(path.stem for path in lists))
        path = lists[0].parent / f"{name}.txt"
        return DatasetError(f"{path}: no such image set; there are {there}")
    if folders := _divided(annotations) if has_xml else _voc_folders(base):
        found = f"found the folders {', '.join(folders)}"
        return DatasetError(f"{base}: expected split {name!r}, {found}")
    if has_xml:
        expected = "expected split 'all' in a folder without ImageSets/Main"
        return DatasetError(f"{base}: {expected}, found {name!r}")
    return DatasetError(
        f"{base}: expected a VOC tree (Annotations, JPEGImages, ImageSets/Main) or a folder of "
        f"images and XML files, found no XML file in {annotations}"
    )


# ------------------------------------------------------------------------------------------------
# XML and images
# ------------------------------------------------------------------------------------------------


def _pair(base: Path, annotation_folder: Path, image_folder: Path, judge: Judge) -> VocFiles:
    """Pairs the images of a folder with its XML. Folders below `base` are looked through wholly."""
    found = _by_id(annotation_folder, XML, annotation_folder != base)
    images = _by_id(image_folder, IMAGE_SUFFIXES, image_folder != base)
    for key, names in found.items():
        if len(names) > 1:
            expected = f"{annotation_folder}: expected one XML file {key}.*, found"
            judge.reject(DatasetError(f"{expected} {', '.join(names)}", "ambiguous annotation"))
    annotations = {key: annotation_folder / names[0] for key, names in found.items()}
    named = named_images(annotations, images)
    known = annotations.keys() | {os.path.splitext(name)[0] for name in named.values()}
    unlabelled = {key: image_folder / n[0] for key, n in images.items() if key not in known}
    finder = ImageFinder([image_folder])
    return VocFiles(base.resolve().name, annotation_folder, annotations, named, unlabelled, finder)


def _by_id(folder: Path, suffixes: Sequence[str], deep: bool) -> dict[str, list[str]]:
    """{id: paths below the folder} of such files."""
    found: dict[str, list[str]] = {}
    for inner, names in _walk(folder, suffixes, deep):
        prefix = "" if inner == "." else f"{inner}/"
        for name in names:
            key = unicodedata.normalize("NFC", prefix + os.path.splitext(name)[0])
            found.setdefault(key, []).append(prefix + name)
    return found


def named_images(
    annotations: Mapping[str, Path], images: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """{id: its image} of those whose image is not the one of the same id.

    images: paths below their folder by id. It is the only one of the stem, in another folder or in
    other capitals; else the one that `<filename>` says. `<filename>` and `<path>` often lie: the
    first counts where no image has the stem, and only for an image that no other XML belongs to.
    """
    spare: dict[str, set[str]] = {}  # by name, and by stem
    for key, names in images.items():
        for name in names if key not in annotations else ():
            for part in _last_parts(key, name):
                spare.setdefault(part, set()).add(name)
    named: dict[str, str] = {}
    for key, path in annotations.items():
        if key in images or not spare:
            continue
        folder, stem = os.path.split(key)
        found = spare.get(stem.casefold())
        if not found:
            try:
                name = PureWindowsPath(parse_annotation(path).filename or "").name
            except DatasetError:
                continue  # reported when its turn comes
            found = spare.get(name.casefold(), set())
            found = {os.path.join(folder, name)} & found or found
        if len(found) == 1:
            named[key] = image = next(iter(found))
            for part in _last_parts(os.path.splitext(image)[0], image):
                spare.get(part, set()).discard(image)
    return named


def _last_parts(*paths: str) -> list[str]:
    return [os.path.basename(path).casefold() for path in paths]


# ------------------------------------------------------------------------------------------------
# Lists
# ------------------------------------------------------------------------------------------------


def _list_folders(root: Path) -> list[Path]:
    """Where lists may lie: ImageSets/Main, ImageSets, its other folders, `root`."""
    sets = _inside(root, "ImageSets")
    main = _inside(sets, "Main")
    return [main, sets, *(path for path in folders_in(sets) if path != main), root]


def _lists(root: Path) -> list[Path]:
    """The lists in the first folder that has any."""
    for folder in _list_folders(root):
        names = [name for name in names_in(folder, (".txt",)) if folder != root or _is_list(name)]
        if names:
            return [folder / name for name in names]
    return []


def _is_list(name: str) -> bool:
    return bool(_LIST_IN_ROOT.fullmatch(os.path.splitext(name)[0]))


def _list_file(root: Path, split: str) -> Path | None:
    """The list of a split. That in ImageSets/Main counts; raises DatasetError for two elsewhere."""
    folders = _list_folders(root)
    for alias in _aliases(split):
        paths = [folder / f"{alias}.txt" for folder in folders]
        found = [path for path in [*paths, root / f"{alias}_list.txt"] if path.is_file()]
        if len(found) > 1 and found[0] != paths[0]:
            expected = f"expected one list of split {split!r}, found"
            message = f"{root}: {expected} {' and '.join(map(str, found))}"
            raise DatasetError(f"{message}; keep the right one, or put it into ImageSets/Main")
        if found:
            return found[0]
    return None


def _image_sets(lists: Sequence[Path]) -> list[str]:
    """The names of lists, less those of one class ("dog_train")."""
    stems = {path.stem: path for path in lists}
    return [
        stem
        for stem, path in stems.items()
        if stem.rpartition("_")[2] not in stems.keys() - {stem} or not _is_of_class(path)
    ]


def _is_of_class(path: Path) -> bool:
    with open_data(path) as file:
        first = file.readline(MAX_ENTRY)
    return not first or bool(re.search(rb"\s-?[01]\s*$", first))


def _listed(
    base: Path, files: VocFiles, lists: Mapping[str, Path | None], judge: Judge
) -> list[str]:
    """The ids in the lists of several splits.

    An entry is an id, an image or an XML file, with or without folders of this or another machine;
    or an image and its XML. Of a pair with two stems the image is noted in `files.named`.
    """
    id_of = {key: key for key in (*files.annotations, *files.unlabelled)}
    for key, image in files.named.items():
        id_of.setdefault(os.path.splitext(image)[0], key)
    bare: dict[str, str | None] = {}
    for key in id_of:
        name = os.path.basename(key)
        bare[name] = None if name in bare else id_of[key]
    ids: dict[str, str] = {}
    for name, path in lists.items():
        if path is None:
            raise _no_split(base, name.strip(), files.annotation_folder)
        for number, line in numbered_lines(path):
            text = unicodedata.normalize("NFC", line)  # macOS writes accents apart
            here, image_id = f"{path}, line {number}", _entry_id(text, id_of, bare)
            if image_id is None:
                expected = f"expected the name of an XML file in {files.annotation_folder}"
                message = f"{here}: {expected}, found {quoted(text)}, and no image of that name"
                judge.reject(DatasetError(message, kind="missing annotation"))
            elif image_id in ids:
                message = f"{here}: {image_id!r} is listed twice, first in {ids[image_id]}"
                judge.reject(DatasetError(message, kind="duplicate id"))
            else:
                ids[image_id] = here
                if pair := _pair_in(text):
                    files.named.setdefault(image_id, _plain(pair["image"]))
    return list(ids)


def _entry_id(text: str, id_of: Mapping[str, str], bare: Mapping[str, str | None]) -> str | None:
    """The id that an entry of a list names; None if there is none.

    bare: last part of an id -> the id, None where several end so.
    """
    if text in id_of:  # a name may hold blanks, end in " 1" or in a suffix
        return id_of[text]
    if len(text) > MAX_ENTRY:
        return None
    entries, fields = [text], text.rsplit(maxsplit=1)
    if pair := _pair_in(text):
        entries = [pair["xml"]]
    elif len(fields) == 2 and fields[1] in ("-1", "0", "1"):  # of a class: absent, difficult, there
        entries.append(fields[0])
    for path in map(_plain, entries):
        stem, suffix = os.path.splitext(path)
        for name in [stem, path] if suffix.lower() in _SUFFIXES else [path]:
            rest = name if name.rpartition("/")[2] in bare else ""
            while rest:
                if rest in id_of:
                    return id_of[rest]
                rest = rest.partition("/")[2]
            if only := bare.get(name):
                return only
    return None


def _pair_in(text: str) -> re.Match[str] | None:
    """An image and its XML, where a line names both."""
    return _PAIR.fullmatch(text) if text[-4:].lower() == ".xml" else None


def _plain(path: str) -> str:
    """A path of any machine, with slashes and without "./"."""
    return "/".join(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))
