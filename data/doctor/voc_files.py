"""What VOC folders hold beside what is read: names that lie, sizes not filled in, stray files."""

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

from data.doctor.findings import Finding, Shown, image_named
from data.files import read_data
from data.formats.finding import files_in, in_threads
from data.formats.texts import OF_ONE_IMAGE
from data.formats.voc import ANNOTATION_FOLDERS, IMAGE_FOLDERS, Annotation, parse_annotation
from data.records import Dataset, DatasetError

XML = (".xml",)
_PATH = re.compile(r"<path>\s*([^<]*?)\s*</path>")


def voc_findings(datasets: dict[str, Dataset], reported: Sequence[str]) -> list[Finding]:
    """Findings of the folders that the splits' images lie in, each folder looked at once.

    datasets: split -> what was read of it. reported: files that findings exist of already.
    """
    images = {
        Path(path): (split, index)
        for split, dataset in datasets.items()
        for index, path in enumerate(dataset.images)
    }
    found: list[Finding] = []
    for folder in dict.fromkeys(path.parent for path in images):
        annotations = _annotation_folder(folder)
        xml = {path.stem: path for path in files_in(annotations, XML)}
        pairs = [(xml[p.stem], p) for p in images if p.parent == folder and p.stem in xml]
        parsed = in_threads(parse_annotation, [pair[0] for pair in pairs])
        for annotation, (_, image) in zip(parsed, pairs, strict=True):
            if not isinstance(annotation, DatasetError):
                found += _of_annotation(annotation, image, *images[image])
        found += _of_folder(folder, annotations, xml, {*reported, *map(str, images)})
    return found


def _annotation_folder(images: Path) -> Path:
    """Where the reader takes the XML of the images in a folder from."""
    roots = [images.parent, images] if images.name.lower() in IMAGE_FOLDERS else [images]
    for root in roots:
        folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
        for folder in (*(folders[name] for name in ANNOTATION_FOLDERS if name in folders), root):
            if files_in(folder, XML):
                return folder
    return images


def _of_annotation(
    annotation: Annotation, image: Path, split: str, index: int
) -> Iterator[Finding]:
    path = str(annotation.path)

    def note(kind: str, field: str, text: str) -> Finding:
        message, shown = f"{path}, {field}: {text}", (Shown(split, index),)
        return Finding(kind, "note", split, path, field, message, shown=shown, image=str(image))

    if annotation.size != (None, None) and all(side in ("", "0") for side in annotation.size):
        yield note("size not filled in", "size", "expected the image's, found 0x0 or nothing")
    stated = _PATH.search(read_data(annotation.path, OF_ONE_IMAGE).decode("utf-8", "replace"))
    for field, text in (
        ("filename", annotation.filename),
        ("path", html.unescape(stated[1]) if stated else None),
    ):
        name = PureWindowsPath(text or "").name
        if name and image.stem not in (name, PureWindowsPath(name).stem):
            yield note("another file is named", field, f"expected {image.name}, found {name!r}")


def _of_folder(
    folder: Path, annotations: Path, xml: dict[str, Path], known: set[str]
) -> Iterator[Finding]:
    """Images without XML, XML without an image, and files that are neither.

    known: files that were read, or reported.
    """
    images = files_in(folder)
    stems = {path.stem for path in images}
    for path in images:
        expected = annotations / f"{path.stem}.xml"
        if path.stem not in xml and not {str(path), str(expected)} & known:
            yield _of_file("image without annotation", path, f"expected {expected}, found none")
    for stem, path in xml.items():
        if stem not in stems and str(path) not in known and not _named_image(path, images):
            text = f"expected an image {stem}.* in {folder}, found none"
            yield _of_file("annotation without image", path, text)
    ours = {*images, *xml.values()}
    for path in files_in(annotations, ("",)):
        if path.is_file() and path not in ours:
            yield _of_file("stray file", path, "neither an annotation nor an image: not read")


def _named_image(path: Path, images: Sequence[Path]) -> bool:
    """Whether `<filename>` names one of the images, as the reader's pairing has it."""
    try:
        name = PureWindowsPath(parse_annotation(path).filename or "").name
    except DatasetError:
        return False
    return any(name == image.name for image in images)


def _of_file(kind: str, path: Path, text: str) -> Finding:
    return Finding(kind, "note", "", str(path), "", f"{path}: {text}", image=image_named(str(path)))
