"""What VOC folders hold beside what is read: names that lie, sizes not filled in, stray files."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

from data.doctor.findings import Finding, Shown, image_named
from data.formats.bad_annotations import Judge
from data.formats.image_files import ImageFinder, files_in
from data.formats.voc_layout import IMAGE_FOLDERS, XML, annotations_of, named_images
from data.formats.voc_xml import Annotation, parse_annotation
from data.records import Dataset


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
        image_of = {xml[p.stem]: p for p in images if p.parent == folder and p.stem in xml}
        for path, annotation in Judge("drop").load(parse_annotation, image_of).items():
            image = image_of[path]
            found += _of_annotation(annotation, image, *images[image])
        found += _of_folder(folder, annotations, xml, {*reported, *map(str, images)})
    return found


def _annotation_folder(images: Path) -> Path:
    """Where the reader takes the XML of the images in a folder from."""
    for top in (images, *images.parents):
        if top.name.lower() in IMAGE_FOLDERS:
            inner = images.relative_to(top)
            folders = (annotations_of(top.parent) / inner, annotations_of(top) / inner)
            return next((folder for folder in folders if files_in(folder, XML)), images)
    return annotations_of(images)


def _of_annotation(
    annotation: Annotation, image: Path, split: str, index: int
) -> Iterator[Finding]:
    path = annotation.path

    def note(kind: str, field: str, text: str) -> Finding:
        message, shown = f"{path}, {field}: {text}", (Shown(split, index),)
        return Finding(kind, "note", split, path, field, message, shown=shown, image=str(image))

    if annotation.size != (None, None) and all(side in ("", "0") for side in annotation.size):
        yield note("size not filled in", "size", "expected the image's, found 0x0 or nothing")
    for field, text in (("filename", annotation.filename), ("path", annotation.image_path)):
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
    names = ImageFinder([]).listing(str(folder))
    paired = names.keys() | named_images(xml, names).keys()
    for path in images:
        expected = annotations / f"{path.stem}.xml"
        if path.stem not in xml and not {str(path), str(expected)} & known:
            yield _of_file("image without annotation", path, f"expected {expected}, found none")
    for stem, path in xml.items():
        if stem not in paired and str(path) not in known:
            text = f"expected an image {stem}.* in {folder}, found none"
            yield _of_file("annotation without image", path, text)
    ours = {*images, *xml.values()}
    for path in files_in(annotations, ("",)):
        if path.is_file() and path not in ours:
            yield _of_file("stray file", path, "neither an annotation nor an image: not read")


def _of_file(kind: str, path: Path, text: str) -> Finding:
    return Finding(kind, "note", "", str(path), "", f"{path}: {text}", image=image_named(str(path)))
