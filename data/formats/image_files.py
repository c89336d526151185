"""Image files: found by the names that annotations give, listed, of the size that is stated."""

import os
import re
import unicodedata
import urllib.parse
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from data.formats.bad_annotations import Judge
from data.images.decode import IMAGE_SUFFIXES, IMAGE_TYPES, ImageHeader
from data.records import DatasetError

Key = TypeVar("Key", bound=Hashable)

_UPLOADED = re.compile("^[0-9a-f]{8}-")
_HIDDEN = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN")  # of macOS, Synology and Windows

NO_IMAGES = (".heic", ".avif", ".jp2", ".dng")  # that are none to our decoder


def check_size(stated: tuple[float, float], header: ImageHeader, where: str) -> None:
    """Refuses a stated (width, height) that is not the image's: its boxes are another image's.

    where: file and field, for the message of the DatasetError.
    """
    width, height = stated
    if (width, height) == (header.width, header.height):
        return
    message = f"{where}: expected {header.width}x{header.height} as the image has, "
    message += f"found {width:g}x{height:g}"
    if header.swaps_sides and (width, height) == (header.height, header.width):
        message += (
            f"; the image carries EXIF orientation {header.orientation} and the boxes were drawn "
            "before it was applied"
        )
    raise DatasetError(message, kind="size disagrees with the image")


class ImageFinder:
    """Finds images by the names that annotations give, in several folders.

    folders: looked through in order; those that are not there are passed over.
    """

    def __init__(self, folders: Sequence[str | Path]):
        self.folders = list(dict.fromkeys(str(folder) for folder in folders))
        self._names: dict[str, dict[str, list[str]]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str, where: str | Callable[[], str]) -> Path:
        """The image file `name`: a path below one of the folders, or an absolute one.

        If a path is not there, its last parts are searched for, ever fewer: files come from other
        machines. If no file has the name, the one of the same stem is taken: "a.*" is the one that
        has the stem "a"; then one whose stem differs in capitals; then what the name is an address
        of: "a%20b.jpg", "/data/?d=folder/a.jpg". where: the place of the name, for messages. Raises
        DatasetError of kind "missing image" or "ambiguous image".
        """
        for spelling in _spellings(name):
            found = self._find(spelling, where)
            if found is not None:
                return found
        inner, file = os.path.split(name.replace("\\", "/"))
        stem = os.path.splitext(file)[0]
        looked, name = ", ".join(self.folders), name if len(name) <= 200 else f"{name[:197]}..."
        others = [n for place in self._places(inner) for n in names_in(place, NO_IMAGES)]
        other = next((n for n in others if os.path.splitext(n)[0] == stem), "none")
        hint = "" if other == "none" else f", which is no {IMAGE_TYPES}"
        message = f"{_text(where)}: expected the image {name} in {looked}, found {other}{hint}"
        raise DatasetError(message, "missing image")

    def _find(self, name: str, where: str | Callable[[], str]) -> Path | None:
        inner, file = os.path.split(name.replace("\\", "/"))  # a Path takes ten times longer
        for place in self._places(inner):
            if file in self.listing(place).get(os.path.splitext(file)[0], ()):
                return Path(place, file)
        file = _composed(file)
        stem = os.path.splitext(file)[0]
        tests: tuple[Callable[[str], bool], ...] = (
            lambda other: _composed(other) == file,
            lambda other: os.path.splitext(_composed(other))[0] == stem,
            lambda other: True,
        )
        for is_meant in tests:
            for place in self._places(inner):
                alike = self._alike(place).get(stem.casefold(), ())
                found = [other for other in alike if is_meant(other)]
                if len(found) > 1:
                    expected = f"expected one image {stem}.*"
                    message = f"{_text(where)}: {expected}, found {', '.join(found)} in {place}"
                    raise DatasetError(message, kind="ambiguous image")
                if found:
                    return Path(place, found[0])
        return None

    def _places(self, inner: str) -> Iterator[str]:
        parts = inner.split("/") if inner else []
        yield from (os.path.join(folder, inner) for folder in self.folders)
        if not inner.isascii():
            forms = {unicodedata.normalize(form, inner) for form in ("NFC", "NFD")} - {inner}
            yield from (os.path.join(folder, form) for form in forms for folder in self.folders)
        for start in range(1, len(parts) + 1):
            rest = "/".join(parts[start:])
            yield from (os.path.join(folder, rest) for folder in self.folders)

    def listing(self, folder: str) -> dict[str, list[str]]:
        """{stem: names} of the image files in a folder, listed once."""
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            for name in names_in(folder):
                names.setdefault(os.path.splitext(name)[0], []).append(name)
            self._names[folder] = names
        return self._names[folder]

    def _alike(self, folder: str) -> dict[str, list[str]]:
        """{stem in small letters, composed: names} of the image files in a folder."""
        if folder not in self._stems:
            stems: dict[str, list[str]] = {}
            for stem, names in self.listing(folder).items():
                stems.setdefault(_composed(stem).casefold(), []).extend(names)
            self._stems[folder] = stems
        return self._stems[folder]


def _composed(name: str) -> str:
    """A name in the form NFC: macOS writes letters and their accents apart."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _spellings(name: str) -> Iterator[str]:
    """A name as it stands; if it is an address, without its escapes and without its query.

    Label Studio's "/data/local-files/?d=folder/a.jpg" names a file in the query, and it puts eight
    digits before the names of files that are uploaded.
    """
    yield name
    plain = urllib.parse.unquote(name)
    if plain != name:
        yield plain
    inner, _, file = plain.replace("\\", "/").rpartition("/")
    if without := _UPLOADED.sub("", file):
        yield f"{inner}/{without}" if inner else without
    path, is_query, query = plain.partition("?")
    if is_query:
        yield query.removeprefix("d=").partition("&")[0]
        yield path


def _text(where: str | Callable[[], str]) -> str:
    return where if isinstance(where, str) else where()


def find_images(
    wanted: Iterable[tuple[Key, str, Callable[[], str]]], finder: ImageFinder, judge: Judge
) -> dict[Key, Path]:
    """{key: file} of (key, name, function that says where it stands, for messages).

    Rejected are images that are not found, and a second name for a file; taking a file of another
    suffix is counted.
    """
    found: dict[Key, Path] = {}
    name_of: dict[Path, str] = {}
    for key, name, where in wanted:
        try:
            path = finder.find(name, where)
        except DatasetError as error:
            judge.reject(error)
            continue
        other = name_of.setdefault(path, name)
        if other != name:
            message = f"{where()}: {name!r} is {path}, as is {other!r}: expected one name"
            judge.reject(DatasetError(message, "ambiguous image"))
            continue
        found[key] = path
        suffix = os.path.splitext(name)[1]
        if not _composed(name).endswith(_composed(path.name)) and suffix:
            is_same = name.lower().endswith(path.suffix.lower())
            what = "spelling" if is_same else "suffix"
            message = f"{where()}: expected the image {name}, took {path}"
            judge.defects.add(f"image under another {what}", message)
    return found


def require_folder(root: Path) -> None:
    """Raises DatasetError where no folder is."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")


def first_file(root: Path, names: Sequence[str], none: str, *patterns: str) -> Path:
    """The first of these files that is there.

    none: what the message says was found where no file of these patterns, which it lists, is.
    """
    require_folder(root)
    for name in names:
        if (root / name).is_file():
            return root / name
    found = ", ".join(sorted(files_below(root, *patterns))) or none
    raise DatasetError(f"{root}: expected {' or '.join(names)}, found {found}")


def files_below(root: Path, *patterns: str) -> list[str]:
    """Files of these patterns, one pattern after another, as paths relative to root."""
    paths = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    return [path.relative_to(root).as_posix() for path in paths if path.is_file()]


def files_in(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Paths of `names_in` a folder."""
    return [folder / name for name in names_in(folder, suffixes)]


def folders_in(folder: str | Path) -> list[Path]:
    """The folders in one, in order, without hidden ones; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:  # of a flat dataset, perhaps 100,000 files
            names = [entry.name for entry in entries if entry.is_dir()]
    except (OSError, ValueError):
        return []
    return [Path(folder, name) for name in sorted(names) if not _is_hidden(name)]


def folders_below(folder: str | Path) -> Iterator[str]:
    """The folder and all below it, the upper ones first, without hidden ones."""
    for place, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not _is_hidden(name))
        yield place


def _is_hidden(name: str) -> bool:
    """Whether a folder is none of a dataset's: .ipynb_checkpoints, what macOS adds to archives."""
    return name.startswith(".") or name in _HIDDEN


def names_in(folder: str | Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[str]:
    """Files of these suffixes directly in a folder, in order; none where it cannot be listed.

    Names that begin with a dot are what macOS leaves in archives.
    """
    suffixes = tuple(suffixes)
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):  # ValueError: a name that no folder can have
        return []
    return sorted(n for n in names if n.lower().endswith(suffixes) and not n.startswith("."))
