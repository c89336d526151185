"""CSV files with one box a line -> Dataset.

`path,x1,y1,x2,y2,class` without a header row, as yhenon and fizyr write, columns in any order under
a header row, as TensorFlow's tutorials and DeepForest do, or another tool's layout, see
csv_layouts.py. Which of them a file is shows in its first lines.
Coordinates are taken as they stand, as continuous pixels: x1 = 0 is the left edge of the first
pixel, x2 = width the right edge of the last, x2 - x1 the width of the box. Nothing is subtracted
from files whose tool copied VOC's corners, counted from 1: how much is right, no file says.
Letters: T objects.
"""

import csv
import math
import re
import unicodedata
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from data.formats.bad_annotations import Judge
from data.formats.class_files import read_class_file
from data.formats.class_names import class_label, fit_names
from data.formats.csv_layouts import (
    PLAIN,
    Layout,
    Row,
    has_sets,
    is_header,
    is_image,
    require_readable,
    told_by_header,
    told_by_line,
)
from data.formats.format import SHARES, Format, Target, names_of
from data.formats.image_files import (
    ImageFinder,
    check_size,
    files_below,
    files_in,
    find_images,
    require_folder,
)
from data.formats.text_files import csv_fields, decimal, has_no_value, number_in, quoted, text_lines
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
    "{}-annotations-bbox.csv",
    "oidv6-{}-annotations-bbox.csv",
)  # of the file of a split, in the order they are looked for; then with .txt
FIRST_LINES = 20  # in which a file shows its layout

_USUAL_SPLITS = (*SHARES, "trainval", "valid", "validation", "test")
_SEP = re.compile(r"\"?sep=([,;\t| ])[\",;\t|\s]*", re.IGNORECASE)  # first line of files for Excel


class _File(NamedTuple):
    """An annotation file: the lines of a split, and what their fields are."""

    path: Path
    layout: Layout
    rows: list[Row]


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
      file, relative to root or absolute. A single CSV that says of each line whether it is of
      train, val or test (AutoML's) has these splits.
    classes: names in label order; None takes those found in this split, sorted (see `csv_classes`).
    images: folders, relative to root or absolute, looked through after the file's own and before
      <split>, images, images/<split> and JPEGImages beside the file, and root.
    delimiter: of the values of `DELIMITERS`; "" finds out. Between blanks, paths may have blanks in
      them.
    header: whether the first line names the columns; None finds out. See data/formats/csv_layouts.

    Order: images as they first occur, in an image its lines. A line with a path, but no
    coordinates (empty, nan, None, null, NA) or 0,0,0,0, says that the image has no objects. width
    and height of the image, where they are filled in, must be the image's. An image id is the path
    without suffix; of an absolute one what is below the file's folder, else the name. It keeps what
    it takes to tell two images apart.
    For on_bad_annotation and errors see `Format`.
    """
    judge, root = Judge(on_bad_annotation), Path(root)
    needs_class = classes is None or len(classes) != 1
    path, layout, rows = _open(root, split, judge, delimiter, header, needs_class)
    name = f"{root.resolve().name}/{_name(split)}"
    if classes is None:
        classes = _class_names(rows)
    rows, found = _find_images(rows, path, _image_folders(root, path, _name(split), images), judge)
    ids = _image_ids(list(found), path.parent)
    index_of = {image: index for index, image in enumerate(found)}
    rows = [row for row in rows if row.image in found]
    rows, labels = _objects(rows, layout, classes, path, judge)
    image_index = np.array([index_of[row.image] for row in rows], np.int64)
    boxes = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
    if layout.is_fractions:
        sizes = np.array([(header.width, header.height) for _, header in found.values()])
        boxes *= np.tile(sizes.reshape(-1, 2), 2)[image_index]
    return judge.assemble(
        name,
        classes,
        {ids[image]: place for image, place in found.items()},
        lambda row: _where(path, rows[row]),
        image_index=image_index,
        boxes=boxes,
        written=layout.written,
        labels=labels,
        difficult=[row.is_difficult for row in rows],
        ignore=[row.is_group for row in rows],
    )


def csv_classes(root: str | Path, split: str, **layout: Any) -> tuple[str, ...]:
    """The class names in one split, sorted; arguments and errors as `read_csv`.

    Looks at names only: a line that cannot be read is left for `read_csv` to report.
    """
    return _class_names(_open(Path(root), split, Judge("drop"), **layout).rows)


# ------------------------------------------------------------------------------------------------
# Which file, which lines
# ------------------------------------------------------------------------------------------------


def _open(
    root: Path,
    split: str,
    judge: Judge,
    delimiter: str = "",
    header: bool | None = None,
    needs_class: bool = True,
) -> _File:
    """The file of a split, and its lines."""
    if delimiter not in ("", *DELIMITERS.values()):
        choices = ", ".join(map(repr, DELIMITERS.values()))
        expected = f"expected '' (find out), {choices}"
        raise ValueError(f"delimiter: {expected}, found {delimiter!r}")
    require_folder(root)
    path = _annotation_file(root, split)
    file = _read_file(path or _single(root, split), delimiter, header, judge, needs_class)
    return file if path else _part(file, split, judge)


def _annotation_file(root: Path, split: str) -> Path | None:
    """The file with a split's boxes, None if it has none of its own."""
    if _is_path(split):
        if not (root / split).is_file():
            raise DatasetError(f"{root / split}: no such file; {_listing(root)}")
        return root / split
    names = _file_names(split)
    return next((root / name for name in names if (root / name).is_file()), None)


def _single(root: Path, split: str) -> Path:
    """The only CSV, class files aside, where none has a split's name; it says whose a line is."""
    single = _only_file(root)
    if single is None or not _says_parts(single):
        shared = f" (or .txt) or, for {', '.join(SHARES)}, a single CSV of no split's name"
        names = ", ".join(name.format(split) for name in NAMES)
        raise DatasetError(f"{root}: expected {names}{shared}; {_listing(root)}")
    return single


def _part(file: _File, split: str, judge: Judge) -> _File:
    """The lines of a split of a file that says whose each line is; those of nobody are train's."""
    part = "val" if split in ("valid", "validation") else split
    rows = [row for row in file.rows if part in ("all", row.part or "train")]
    if not rows:
        found = ", ".join(sorted({row.part or "train" for row in file.rows})) or "none"
        message = f"{file.path}: expected lines of the set {split} (AutoML), found {found}"
        raise DatasetError(message)
    for row in rows if part == "train" else ():
        if not row.part:
            message = f"{_where(file.path, row)}: expected a set, found none: taken for train"
            judge.defects.add("line of no set taken for train", message)
    return file._replace(rows=rows)


def _undivided(root: Path) -> str | None:
    """The only CSV, unless its lines are of several sets."""
    single = _only_file(root)
    return None if single is None or _says_parts(single) else single.name


def _only_file(root: Path) -> Path | None:
    """The only CSV, class files aside, where none has a split's name."""
    of_splits = {name for split in _USUAL_SPLITS for name in _file_names(split)}
    if any((root / name).is_file() for name in of_splits):
        return None
    files = [path for path in files_in(root, (".csv",)) if not _is_classes(path)]
    return files[0] if len(files) == 1 else None


def _says_parts(path: Path) -> bool:
    """Whether the lines of a file are of more sets than one, train, val and test."""
    lines = text_lines(path)
    likely = _likely(lines, "", path)
    if likely is None:
        return False
    header = _try_fields(next(line for line in lines if line.strip()), likely[0])
    if "set" not in likely[1].columns and not has_sets(header):
        return False
    rows = _read_file(path, "", None, Judge("drop")).rows
    return len({row.part for row in rows} - {""}) > 1


def _is_path(split: str) -> bool:
    return split.lower().endswith((".csv", ".txt"))


def _name(split: str) -> str:
    return Path(split).stem if _is_path(split) else split


def _file_names(split: str) -> Iterator[str]:
    for alias in names_of(split):
        for suffix in (".csv", ".txt"):
            for name in NAMES:
                yield name.format(alias).removesuffix(".csv") + suffix


def _is_classes(path: Path) -> bool:
    """Whether a CSV is a list of classes: boxes between blanks would do as names, too."""
    if "class-descriptions" in path.name:
        return True
    try:
        return bool(read_class_file(path)) and _likely(text_lines(path), "", path) is None
    except DatasetError:
        return False


def _listing(root: Path) -> str:
    names = files_below(root, "*.csv", "*.txt", "*/*.csv")
    return f"there are {', '.join(names)}" if names else "there is no .csv or .txt"


# ------------------------------------------------------------------------------------------------
# Lines -> texts
# ------------------------------------------------------------------------------------------------


def _read_file(
    path: Path, delimiter: str, header: bool | None, judge: Judge, needs_class: bool = True
) -> _File:
    lines = text_lines(path, reject=judge.reject)
    numbers = [number for number, line in enumerate(lines) if line.strip()]
    if numbers and (sep := _SEP.fullmatch(lines[numbers[0]])):
        delimiter = delimiter or sep[1]
        numbers.pop(0)
    if not numbers:
        raise DatasetError(f"{path}: expected a box a line, found an empty file")
    delimiter, layout = _likely([lines[n] for n in numbers], delimiter, path) or (
        delimiter or ",",
        PLAIN,
    )
    first = _try_fields(lines[numbers[0]], delimiter)
    if header or (header is None and is_header(first)):
        layout = told_by_header(first, f"{path}, line {numbers.pop(0) + 1}", needs_class)
    rows = []
    for number in numbers:
        try:
            fields = _fields(lines[number], delimiter, layout)
            if any(fields):
                rows.append(layout.row(number + 1, fields))
        except DatasetError as error:
            judge.reject(DatasetError(f"{path}, line {number + 1}: {error}", error.kind))
    if layout.is_fractions and "group" in layout.columns:
        names = _descriptions(path.parent)
        rows = [row._replace(name=names.get(row.name, row.name)) for row in rows]
    return _File(path, layout, rows)


def _likely(lines: Sequence[str], delimiter: str, path: Path) -> tuple[str, Layout] | None:
    """The delimiter between which one of the first lines makes sense, and the layout it shows.

    None if none does; PLAIN for a header. Raises DatasetError for a layout that is not read.
    """
    delimiters = (delimiter,) if delimiter else tuple(DELIMITERS.values())
    for line in [line for line in lines[: 5 * FIRST_LINES] if line.strip()][:FIRST_LINES]:
        for between in delimiters:
            fields = _try_fields(line, between)
            require_readable(fields, str(path))
            if is_header(fields):
                return between, PLAIN
            layout = told_by_line(_try_fields(line, between, PLAIN.width))
            if layout:
                return between, layout
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


def _fields(line: str, delimiter: str, layout: Layout) -> list[str]:
    """The fields of a line, as many as the layout has; of a mere path all others are empty."""
    width, problem = layout.width, f"found {line[:60]!r}"
    try:
        fields = _split(line, delimiter, width)
    except csv.Error as error:
        fields, problem = [], f"{error}, {problem}"
    if fields and layout.columns["image"] == 0 and not any(fields[1:]) and is_image(fields[0]):
        fields = (fields + [""] * width)[:width]
    if len(fields) != width:
        message = f"expected {width} fields between {delimiter!r}, found {len(fields)}: {problem}"
        raise DatasetError(message, "malformed line")
    return fields


def _descriptions(folder: Path) -> dict[str, str]:
    """{id: name} of the classes of OpenImages, if their file lies in the folder."""
    files = sorted(folder.glob("*class-descriptions*.csv"))
    if not files:
        return {}
    fields = [_try_fields(line, ",") for line in text_lines(files[0])]
    return {pair[0]: pair[1] for pair in fields if len(pair) == 2}


def _class_names(rows: Sequence[Row]) -> tuple[str, ...]:
    names = {row.name for row in rows if row.box and not math.isnan(sum(row.box)) and any(row.box)}
    return fit_names(name for name in names if not has_no_value(name))


# ------------------------------------------------------------------------------------------------
# Images
# ------------------------------------------------------------------------------------------------


def _image_folders(root: Path, path: Path, split: str, images: Sequence[str | Path]) -> list[Path]:
    """Where images may be; a file's name counts without what `NAMES` puts around the split's."""
    split = re.sub(r"^(annotations_|oidv6-)|[_-](labels|annotations|annotations-bbox)$", "", split)
    usual = (split, "images", f"images/{split}", "JPEGImages")
    given = (root / folder for folder in images)
    return [path.parent, *given, *(path.parent / folder for folder in usual), root]


class _Finder(ImageFinder):
    """Looks for each name once."""

    def __init__(self, folders: Sequence[str | Path]):
        super().__init__(folders)
        self.found: dict[str, Path] = {}

    def find(self, name: str, where: str | Callable[[], str]) -> Path:
        if name not in self.found:
            self.found[name] = super().find(name, where)
        return self.found[name]


def _find_images(
    rows: list[Row], path: Path, folders: Sequence[Path], judge: Judge
) -> tuple[list[Row], dict[str, tuple[Path, ImageHeader]]]:
    """The lines, and {path as the file has it: image}, in the order they first occur.

    Dropped images are left out. Where a file has several names the first one is that of all lines.
    """
    finder, first_line = _Finder(folders), {}
    for row in rows:
        if row.image not in first_line:
            first_line[row.image] = row.line
    same = _other_names(first_line, finder)
    for name, first in same.items():
        message = f"{path}, line {first_line[name]}: {name!r} is the file of {first!r}"
        judge.defects.add("image under two names, taken as one", message)
    if same:
        rows = [row._replace(image=same.get(row.image, row.image)) for row in rows]
    sizes: dict[str, dict[tuple[str, ...], int]] = {name: {} for name in first_line}
    for row in rows:
        sizes[row.image].setdefault(row.size, row.line)
    wanted = (
        (name, name, lambda line=line: f"{path}, line {line}")
        for name, line in first_line.items()
        if name not in same
    )
    found = find_images(wanted, finder, judge)
    images = judge.load(lambda name: (found[name], _header(found[name], sizes[name], path)), found)
    return rows, images


def _other_names(names: Iterable[str], finder: ImageFinder) -> dict[str, str]:
    """{name: the first name of its file} where one of the two ends with the other, as x/a with a.

    Of other names nobody knows: x/a and y/a were two images once.
    """
    first_of: dict[Path, str] = {}
    others = {}
    for name in names:
        try:
            first = first_of.setdefault(finder.find(name, ""), name)
        except DatasetError:  # reported by find_images
            continue
        if first != name and _end_alike(first, name):
            others[name] = first
    return others


def _end_alike(name: str, other: str) -> bool:
    short, long = sorted((_parts(name), _parts(other)), key=len)
    if not (short[-1].partition(".")[2] and long[-1].partition(".")[2]):  # one without a suffix
        short[-1], long[-1] = PurePosixPath(short[-1]).stem, PurePosixPath(long[-1]).stem
    return long[-len(short) :] == short


def _parts(name: str) -> list[str]:
    name = unicodedata.normalize("NFC", urllib.parse.unquote(name)).casefold()
    return list(PurePosixPath(name.replace("\\", "/")).parts) or [""]


def _header(image: Path, sizes: dict[tuple[str, ...], int], path: Path) -> ImageHeader:
    """Reads an image's header and checks the sizes stated; empty, nan and 0 state nothing."""
    header = read_header(image)
    for size, line in sizes.items():
        if all(text == "0" or has_no_value(text) for text in size):
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
    path = PurePosixPath(re.sub(r"^\w+://[^/]*/", "", name).replace("\\", "/"))
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
    rows: Sequence[Row], layout: Layout, classes: Sequence[str], path: Path, judge: Judge
) -> tuple[list[Row], list[int]]:
    """The lines that hold objects, and their labels."""
    label_of = {name: label for label, name in enumerate(classes)}
    objects, labels = [], []
    for row in rows:
        if row.is_group or row.shape or row.has_comma:
            _count_reading(row, path, judge)
        if not row.box:
            _judge_class_alone(row, label_of, path, judge)
            continue
        if not any(row.box):
            message = f"{_where(path, row)}: found 0 0 0 0, taken for an image without objects"
            judge.defects.add("zero box taken as no object", message)
            continue
        try:
            if math.isnan(sum(row.box)):
                _raise_bad_number(row, layout, path)
            name = row.name if "class" in layout.columns else classes[0]
            labels.append(_label(name, label_of, f"{path}, line {row.line}, class"))
        except DatasetError as error:
            judge.reject(error)
            continue
        objects.append(row)
    return objects, labels


def _count_reading(row: Row, path: Path, judge: Judge) -> None:
    """Counts what is taken in another way than it is written."""
    where = _where(path, row)
    if row.is_group:
        judge.defects.add("group taken as region to ignore", f"{where}: IsGroupOf is 1")
    if row.has_comma:
        found = ", ".join(map(quoted, row.texts))
        judge.defects.add("decimal comma", f"{where}: expected decimal points, found {found}")
    if row.shape and row.box:
        message = f"{where}: expected a rect, found a {row.shape}"
        judge.defects.add(f"{row.shape} taken as its box", message)
    elif row.shape:
        message = f"{where}: expected a shape with an area, found {quoted(row.shape)}"
        judge.defects.add("point or line left out", message)


def _label(name: str, label_of: Mapping[str, int], where: str) -> int:
    if name not in label_of and has_no_value(name):
        expected = "expected a class name, found none"
        if name:
            expected += f" but {quoted(name)}; if that is a class, put it in data.classes"
        raise DatasetError(f"{where}: {expected}", "missing name")
    return class_label(name, label_of, where)


def _judge_class_alone(row: Row, label_of: Mapping[str, int], path: Path, judge: Judge) -> None:
    """A class without a box is an error, unless it says that there is none: "no finding"."""
    message = f"{_where(path, row)}: expected coordinates for a class, found none"
    if row.name in label_of:
        judge.reject(DatasetError(message, "class without coordinates"))
    elif row.name:
        message += "; no box has the class: taken for an image without objects"
        judge.defects.add("class without coordinates taken as no object", message)


def _raise_bad_number(row: Row, layout: Layout, path: Path) -> None:
    for column, text in zip(layout.form, row.texts, strict=True):
        if math.isnan(decimal(text.replace(",", ".", 1))):
            number_in(text, f"{_where(path, row)}, {column}")


def _where(path: Path, row: Row) -> str:
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
