"""Detection results in the JSON of the COCO evaluation server, as pycocotools' `loadRes` reads it.

https://cocodataset.org/#format-results, "object detection".
Boxes in memory are xyxy, in the file [x, y, width, height]; both are absolute pixels, continuous
and counted from 0. Numbers are written with all their digits: what is read back is what was
written, up to the rounding of x + (x2 - x) (about 1e-13 pixels).
Letters: M images, D detections, K classes.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from reprlib import repr as short

import msgspec

from data.detections.common import (
    XYWH,
    Row,
    checked_table,
    index_of,
    json_list,
    parse_json,
    write_files,
)
from data.detections.image_names import ids_shown, images_by_name
from data.files import read_data
from data.formats.text_files import OF_DATASET, number_or_text
from data.records import DatasetError
from utils.detections import DetectionTable


class _Entry(msgspec.Struct, gc=False):
    image_id: int | str
    category_id: int | str
    bbox: tuple[float, float, float, float]
    score: float
    file_name: str = ""


def write_coco_results(
    path: str | Path,
    table: DetectionTable,
    category_ids: Sequence[int | str],
    text_ids: bool = False,
) -> None:
    """Writes one entry a detection, in the table's order; one line an entry.

    path: file to write or replace; it is never left half-written.
    category_ids, text_ids: K different ids of the classes, and whether all image ids are strings,
        usually the ground truth's.

    The file is a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}. An
    image id that is how a number is written ("139", not "000139") becomes that number, as it was in
    the annotations, unless text_ids; another stays a string.

    Raises ValueError for category ids that do not fit the classes, OSError if the disk refuses.
    """
    ids = _checked_ids(category_ids, table.classes)
    write_files({Path(path): json_list(_entries(table, ids, text_ids))})


def read_coco_results(
    path: str | Path,
    image_ids: Sequence[str],
    classes: Sequence[str],
    category_ids: Sequence[int | str],
    files: Sequence[str] = (),
) -> DetectionTable:
    """Reads detections in COCO's format, ours or another program's, in the order of the file.

    image_ids, classes, category_ids, files: what the results are of, usually the ground truth's;
        they give the indices. An image id may be a number or a string in the file, or the name of
        the image's file, see `images_by_name`.
    The file does not say which images were looked at: one without an entry has no detections.

    Returns a table with float64 boxes and scores and int64 indices. Raises DatasetError naming
    file, entry (from 0), expected and found: what is no list of such entries, an unknown image or
    category, a number that is not finite, a negative side. Raises ValueError for category ids that
    do not fit the classes.
    """
    ids = _checked_ids(category_ids, classes)
    entries = parse_json(read_data(path, OF_DATASET), list[_Entry], str(path))
    found = {entry.image_id: entry.file_name for entry in entries}
    images = images_by_name(path, found, image_ids, files)
    one_of = f"image_id to be one of {ids_shown(image_ids)}"
    label_of = {
        key: label for label, i in enumerate(ids) for key in (str(i), number_or_text(str(i)))
    }
    rows = []
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        image = index_of(entry.image_id, images, where, one_of)
        label = label_of.get(entry.category_id, -1)
        rows.append(Row(where, image, label, entry.score, entry.bbox))
    strange = [number for number, row in enumerate(rows) if row.label < 0]
    if strange:
        raise _unknown_category(path, ids, entries, strange)
    return checked_table(rows, image_ids, classes, XYWH)


def _checked_ids(category_ids: Sequence[int | str], classes: Sequence[str]) -> list[int | str]:
    ids = [i if isinstance(i, str) else int(i) for i in category_ids]
    if len(ids) != len(classes) or len(set(map(str, ids))) != len(ids):
        raise ValueError(
            f"category_ids: expected {len(classes)} different ids, one a class, found {ids}"
        )
    return ids


def _entries(
    table: DetectionTable, category_ids: Sequence[int | str], text_ids: bool
) -> Iterable[dict]:
    image_ids = table.image_ids if text_ids else list(map(number_or_text, table.image_ids))
    image, labels, scores = table.image.tolist(), table.labels.tolist(), table.scores.tolist()
    boxes = XYWH.write(table.boxes).tolist()
    for index, label, box, score in zip(image, labels, boxes, scores, strict=True):
        yield {
            "image_id": image_ids[index],
            "category_id": category_ids[label],
            "bbox": box,
            "score": score,
        }


def _unknown_category(
    path: str | Path, ids: Sequence[int | str], entries: Sequence[_Entry], rows: Sequence[int]
) -> DatasetError:
    """The error for entries (at `rows`) of other categories than `ids`.

    A file of all of COCO's classes judged on some of them is rather a mistake than a wish.
    """
    first = rows[0]
    others = {entries[row].category_id for row in rows}
    return DatasetError(
        f"{path}, entry {first}: expected category_id to be one of {ids}, "
        f"found {short(entries[first].category_id)}; {len(rows)} of {len(entries)} entries are of "
        f"{len(others)} categories that are not judged here: leave them out of the file, or judge "
        "all its classes"
    )
