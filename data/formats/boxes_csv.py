"""CSV files with one box a line -> Dataset.

`path,x1,y1,x2,y2,class` without a header row, as yhenon and fizyr write, or columns in any order
under a header row, as TensorFlow's tutorials and DeepForest do. Which of them a file is shows in
its first lines.
Coordinates are taken as they stand, as continuous pixels: x1 = 0 is the left edge of the first
pixel, x2 = width the right edge of the last, x2 - x1 the width of the box. Nothing is subtracted
from files whose tool copied VOC's corners, counted from 1: how much is right, no file says.
Letters: T objects.
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from data.formats.bad_annotations import Judge
from data.formats.class_files import read_class_file
from data.formats.class_names import class_label, fit_names
from data.formats.format import SHARES, Format, Target
from data.formats.image_files import (
    ImageFinder,
    check_size,
    files_below,
    files_in,
    find_images,
    require_folder,
)
from data.formats.text_files import csv_fields, decimal, number_in, text_lines
from data.images.decode import ImageHeader, read_header
from data.records import Dataset, DatasetError
from data.writers.boxes_csv import write_csv

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "blank": " ", "pipe": "|"}
NAMES = (
    "{}.csv",
    "{}_labels.csv",
    "annotations_{}.csv",
    "{}_annotations.csv",
    "{}/_annotations.csv",
    "annotations/{}.csv",
)  # of the file of a split, in the order they are looked for; then with .txt
_IMAGE = "filename file imagepath imagename image imgpath imgname img filepath path imageid imgid"
COLUMNS = {
    "image": tuple(_IMAGE.split()),
    "x1": ("xmin", "x1", "left"),
    "y1": ("ymin", "y1", "top"),
    "x2": ("xmax", "x2", "right"),
    "y2": ("ymax", "y2", "bottom"),
    "class": ("class", "classname", "label", "labelname", "category", "categoryname", "name"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
}  # what header rows call them, less case, blanks, "_" and "-"; the first that is there counts
NEEDED = tuple(COLUMNS)[:6]
MAX_PATH = 1000  # characters of an image's path

_USUAL_SPLITS = (*SHARES, "trainval", "valid", "validation", "test")


class _Row(NamedTuple):
    """The texts of a line, trimmed and unchecked; "" where there is none."""

    line: int
    image: str
    corners: tuple[str, ...]  # x1 y1 x2 y2
    name: str
    size: tuple[str, ...]  # width and height of the image


def read_csv(
    root: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    images: Sequence[str | Path] = (),
    on_bad_annotation: str = "error",
    delimiter: str = "",
    header: bool | None = None,
) -> Dataset:
    """Reads one split of a dataset annotated in CSV, one box a line.

    root: the folder of the dataset.
    split: a name, whose file is one of `NAMES` with .csv or .txt; or the path of a .csv or .txt
      file, relative to root or absolute.
    classes: names in label order; None takes those found in this split, sorted (see `csv_classes`).
    images: folders, relative to root or absolute, looked through after the file's own and before
      <split>, images, images/<split> and JPEGImages beside the file, and root.
    delimiter: of the values of `DELIMITERS`; "" finds out. Between blanks, paths may have blanks in
      them.
    header: whether the first line names the columns, see `COLUMNS`; None finds out. Without, they
      are path, x1, y1, x2, y2, class.

    Order: images as they first occur, in an image its lines. A line with a path, but no
    coordinates or 0,0,0,0, says that the image has no objects. width and height, where they are
    filled in, must be the image's. An image id is the path without suffix; of an absolute one what
    is below the file's folder, else the name. It keeps what it takes to tell two images apart.
    For on_bad_annotation and errors see `Format`.
    """
    judge, root = Judge(on_bad_annotation), Path(root)
    path, rows = _rows_of_split(root, split, judge, delimiter, header)
    name = f"{root.resolve().name}/{_name(split)}"
    if classes is None:
        classes = _class_names(rows)
    found = _find_images(rows, path, _image_folders(root, path, _name(split), images), judge)
    ids = _image_ids(list(found), path.parent)
    index_of = {image: index for index, image in enumerate(found)}
    rows, boxes, labels = _objects([r for r in rows if r.image in found], classes, path, judge)
    return judge.assemble(
        name,
        classes,
        {ids[image]: place for image, place in found.items()},
        lambda row: _where(path, rows[row]),
        image_index=[index_of[row.image] for row in rows],
        boxes=boxes,
        labels=labels,
    )


def csv_classes(root: str | Path, split: str, **layout: Any) -> tuple[str, ...]:
    """The class names in one split, sorted; arguments and errors as `read_csv`.

    Looks at names only: a line that cannot be read is left for `read_csv` to report.
    """
    return _class_names(_rows_of_split(Path(root), split, Judge("drop"), **layout)[1])


# ------------------------------------------------------------------------------------------------
# Which file, which lines
# ------------------------------------------------------------------------------------------------


def _rows_of_split(
    root: Path, split: str, judge: Judge, delimiter: str = "", header: bool | None = None
) -> tuple[Path, list[_Row]]:
    """The file of a split, and its lines."""
    if delimiter not in ("", *DELIMITERS.values()):
        choices = ", ".join(map(repr, DELIMITERS.values()))
        expected = f"expected '' (find out), {choices}"
        raise ValueError(f"delimiter: {expected}, found {delimiter!r}")
    path = _annotation_file(root, split)
    return path, _read_rows(path, delimiter, header, judge)


def _annotation_file(root: Path, split: str) -> Path:
    """The file with a split's boxes."""
    require_folder(root)
    if _is_path(split):
        if not (root / split).is_file():
            raise DatasetError(f"{root / split}: no such file; {_listing(root)}")
        return root / split
    names = list(_file_names(split))
    found = next((root / name for name in names if (root / name).is_file()), None)
    if found is None:
        shared = f" or, for {', '.join(SHARES)}, a single CSV of no split's name"
        raise DatasetError(f"{root}: expected {', '.join(names)}{shared}; {_listing(root)}")
    return found


def _undivided(root: Path) -> str | None:
    """The only CSV, class files aside, where none has a split's name."""
    of_splits = {name for split in _USUAL_SPLITS for name in _file_names(split)}
    if any((root / name).is_file() for name in of_splits):
        return None
    files = [path.name for path in files_in(root, (".csv",)) if not _is_classes(path)]
    return files[0] if len(files) == 1 else None


def _is_path(split: str) -> bool:
    return split.lower().endswith((".csv", ".txt"))


def _name(split: str) -> str:
    return Path(split).stem if _is_path(split) else split


def _file_names(split: str) -> Iterator[str]:
    for suffix in (".csv", ".txt"):
        for name in NAMES:
            yield name.format(split).removesuffix(".csv") + suffix


def _is_classes(path: Path) -> bool:
    """Whether a CSV is a list of classes: boxes between blanks would do as names, too."""
    try:
        return bool(read_class_file(path)) and _likely_delimiter(text_lines(path)) is None
    except DatasetError:
        return False


def _listing(root: Path) -> str:
    names = [path.name for path in files_in(root, (".csv", ".txt"))]
    return f"there are {', '.join(names)}" if names else "there is no .csv or .txt"


# ------------------------------------------------------------------------------------------------
# Lines -> texts
# ------------------------------------------------------------------------------------------------


def _read_rows(path: Path, delimiter: str, header: bool | None, judge: Judge) -> list[_Row]:
    lines = text_lines(path)
    numbers = [number for number, line in enumerate(lines) if line.strip()]
    if not numbers:
        raise DatasetError(f"{path}: expected a box a line, found an empty file")
    delimiter = delimiter or _likely_delimiter(lines) or ","
    columns, width = {column: place for place, column in enumerate(NEEDED)}, len(NEEDED)
    first = _try_fields(lines[numbers[0]], delimiter)
    if header or (header is None and _is_header(first)):
        columns, width = _columns(first, f"{path}, line {numbers.pop(0) + 1}"), len(first)
    rows = []
    for number in numbers:
        try:
            fields = _fields(lines[number], delimiter, width, f"{path}, line {number + 1}")
            if any(fields):
                rows.append(_row(fields, columns, number + 1, path))
        except DatasetError as error:
            judge.reject(error)
    return rows


def _likely_delimiter(lines: Sequence[str]) -> str | None:
    """The delimiter between which one of the first lines makes sense; None if none does."""
    for line in [line for line in lines[:100] if line.strip()][:20]:
        for delimiter in DELIMITERS.values():
            if _is_header(_try_fields(line, delimiter)) or _is_box(_try_fields(line, delimiter, 6)):
                return delimiter
    return None


def _try_fields(line: str, delimiter: str, width: int = 0) -> list[str]:
    """The fields of a line, none where the quotes are wrong.

    width: so many at most between blanks, the first of which has the blanks to spare; 0: no limit.
    """
    try:
        return _split(line, delimiter, width)
    except csv.Error:
        return []


def _split(line: str, delimiter: str, width: int) -> list[str]:
    return line.strip().rsplit(None, width - 1) if delimiter == " " else csv_fields(line, delimiter)


def _is_box(fields: Sequence[str]) -> bool:
    corners = fields[1:5]
    return len(fields) == 6 and (
        not any(corners) or all(np.isfinite(decimal(corner)) for corner in corners)
    )


def _is_header(fields: Sequence[str]) -> bool:
    """Whether these are columns' names; a single one may as well be a class, say "left"."""
    names = set(map(_plain, fields))
    return sum(not names.isdisjoint(aliases) for aliases in COLUMNS.values()) > 1


def _columns(fields: Sequence[str], where: str) -> dict[str, int]:
    """{column: its place in a line}; width and height only where there are both."""
    names = [_plain(field) for field in fields]
    columns: dict[str, int] = {}
    for column, aliases in COLUMNS.items():
        places = [names.index(alias) for alias in aliases if alias in names]
        columns |= {column: places[0]} if places else {}
    if not {"width", "height"} <= columns.keys():
        columns = {column: place for column, place in columns.items() if column in NEEDED}
    missing = [f"{name} ({', '.join(COLUMNS[name])})" for name in NEEDED if name not in columns]
    if missing:
        found = ", ".join(fields)[:300]
        raise DatasetError(f"{where}: expected columns for {', '.join(missing)}, found {found}")
    return columns


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def _fields(line: str, delimiter: str, width: int, where: str) -> list[str]:
    """The fields of a line, as many as `width`."""
    problem = f"found {line[:60]!r}"
    try:
        fields = _split(line, delimiter, width)
    except csv.Error as error:
        fields, problem = [], f"{error}, {problem}"
    if len(fields) != width:
        expected = f"expected {width} fields between {delimiter!r}"
        raise DatasetError(f"{where}: {expected}, found {len(fields)}: {problem}", "malformed line")
    return fields


def _row(fields: Sequence[str], columns: dict[str, int], line: int, path: Path) -> _Row:
    image = fields[columns["image"]]
    if not 0 < len(image) <= MAX_PATH:
        expected = f"expected the path of an image, of at most {MAX_PATH} characters"
        message = f"{path}, line {line}: {expected}, found {image[:60]!r}"
        raise DatasetError(message, "missing image")
    corners = tuple(fields[columns[name]] for name in NEEDED[1:5])
    size = tuple(fields[columns[name]] for name in ("width", "height") if name in columns)
    return _Row(line, image, corners, fields[columns["class"]], size)


def _class_names(rows: Sequence[_Row]) -> tuple[str, ...]:
    return fit_names(row.name for row in rows if any(row.corners) and not _is_zero(row))


def _is_zero(row: _Row) -> bool:
    return all(decimal(corner) == 0 for corner in row.corners)


# ------------------------------------------------------------------------------------------------
# Images
# ------------------------------------------------------------------------------------------------


def _image_folders(root: Path, path: Path, split: str, images: Sequence[str | Path]) -> list[Path]:
    """Where images may be; a file's name counts without what `NAMES` puts around the split's."""
    split = re.sub(r"^annotations_|_(labels|annotations)$", "", split)
    usual = (split, "images", f"images/{split}", "JPEGImages")
    given = (root / folder for folder in images)
    return [path.parent, *given, *(path.parent / folder for folder in usual), root]


def _find_images(
    rows: Sequence[_Row], path: Path, folders: Sequence[Path], judge: Judge
) -> dict[str, tuple[Path, ImageHeader]]:
    """{path as the file has it: image}, in the order they first occur; dropped ones left out."""
    lines: dict[str, dict[tuple[str, ...], int]] = {}  # of each image: sizes stated and where first
    for row in rows:
        lines.setdefault(row.image, {}).setdefault(row.size, row.line)
    wanted = (
        (name, name, lambda sizes=sizes: f"{path}, line {next(iter(sizes.values()))}")
        for name, sizes in lines.items()
    )
    found = find_images(wanted, ImageFinder(folders), judge)
    return judge.load(lambda name: (found[name], _header(found[name], lines[name], path)), found)


def _header(image: Path, sizes: dict[tuple[str, ...], int], path: Path) -> ImageHeader:
    """Reads an image's header and checks the sizes stated; those left empty or 0 state nothing."""
    header = read_header(image)
    for size, line in sizes.items():
        if set(size) <= {"", "0"}:
            continue
        where = f"{path}, line {line}, width and height"
        width, height = (decimal(text) for text in size)
        if not (math.isfinite(width) and math.isfinite(height)):
            found = " x ".join(repr(text[:60]) for text in size)
            raise DatasetError(f"{where}: expected two numbers, found {found}", "bad number")
        check_size((width, height), header, where)
    return header


def _image_ids(names: Sequence[str], folder: Path) -> dict[str, str]:
    """{path: id}: the shortest of its forms that is no form of another, else the path."""
    forms = {name: _forms(name, folder.absolute()) for name in names}
    counts = Counter(form for several in forms.values() for form in set(several))
    return {
        name: next((form for form in several if counts[form] == 1), name)
        for name, several in forms.items()
    }


def _forms(name: str, folder: Path) -> tuple[str, str, str]:
    """A path without suffix, with it, and as the file has it."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_relative_to(folder):
        path = path.relative_to(folder)
    elif path.is_absolute() or PureWindowsPath(name).drive:
        path = PurePosixPath(path.name)
    return _without_suffix(str(path)), str(path), name


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    return str(path).removesuffix(path.suffix)


# ------------------------------------------------------------------------------------------------
# Texts -> objects
# ------------------------------------------------------------------------------------------------


def _objects(
    rows: Sequence[_Row], classes: Sequence[str], path: Path, judge: Judge
) -> tuple[list[_Row], np.ndarray, np.ndarray]:
    """The lines that hold objects, their (T, 4) float64 boxes and (T,) labels."""
    label_of = {name: label for label, name in enumerate(classes)}
    objects, kept, labels = [], [], []
    for row in rows:
        box = [decimal(corner) for corner in row.corners]
        if not any(row.corners):
            if row.name:
                message = f"{_where(path, row)}: expected coordinates for a class, found none"
                judge.reject(DatasetError(message, "class without coordinates"))
            continue
        if box == [0, 0, 0, 0]:
            message = f"{_where(path, row)}: found 0 0 0 0, taken for an image without objects"
            judge.defects.add("zero box taken as no object", message)
            continue
        try:
            for column, text in zip(NEEDED[1:5], row.corners, strict=True):
                number_in(text, f"{_where(path, row)}, {column}")
            labels.append(class_label(row.name, label_of, f"{path}, line {row.line}, class"))
        except DatasetError as error:
            judge.reject(error)
            continue
        objects.append(row)
        kept.append(box)
    return objects, np.array(kept, np.float64).reshape(-1, 4), np.array(labels, np.int32)


def _where(path: Path, row: _Row) -> str:
    return f"{path}, line {row.line} ({row.name[:60]!r})"


# ------------------------------------------------------------------------------------------------
# The format
# ------------------------------------------------------------------------------------------------


def _find_splits(root: Path) -> list[str]:
    return [
        file for file in files_below(root, "*.csv", "*/_annotations.csv") if _has_boxes(root, file)
    ]


def _has_boxes(root: Path, file: str) -> bool:
    """Whether a CSV holds boxes, not classes or something else; also one that cannot be read."""
    try:
        return bool(csv_classes(root, file))
    except DatasetError:
        return True


FORMAT = Format(
    read_csv,
    csv_classes,
    _find_splits,
    _undivided,
    uses=("images", "delimiter", "header"),
    target=Target(write_csv, "images"),
)
