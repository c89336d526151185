"""The entries of COCO's instances files: their strict types, and what is mended to fit them.

A mender takes an entry as the file has it, changes in place what is plain though it is of another
type, and yields (kind of defect, what was found and taken) for each change that is to be counted.
https://cocodataset.org/#format-data
"""

import math
import re
from collections.abc import Callable, Iterator
from reprlib import repr as short
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct
from pycocotools import mask

from data.formats.text_files import decimal, flag
from data.images.decode import MAX_PIXELS

Change = tuple[str, str]

_Text = Annotated[str, Meta(min_length=1)]
_Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | str
_Side = Annotated[int, Meta(ge=1, le=MAX_PIXELS)]
_Flag = Annotated[int, Meta(ge=0, le=1)] | bool

_Polygons = list[Annotated[list[float], Meta(min_length=4)]]


class Category(Struct, frozen=True, gc=False):
    id: _Id
    name: _Text
    supercategory: str | None = None


class Image(Struct, frozen=True, gc=False):
    """width, height: None where the file does not say them."""

    id: _Id
    file_name: _Text
    width: _Side | None = None
    height: _Side | None = None


class Annotation(Struct, frozen=True, gc=False):
    """bbox: x, y, width, height, continuous and 0-based. difficult: VOC's flag, not COCO's own.

    ignore: a flag of other tools, which pycocotools overwrites with iscrowd.
    """

    image_id: _Id
    category_id: _Id
    bbox: tuple[float, float, float, float]
    area: Annotated[float, Meta(ge=0)] | None = None
    iscrowd: _Flag = 0
    difficult: _Flag = 0
    ignore: _Flag = 0


class _Runs(Struct):
    """A mask, column by column, as the lengths of runs, or their text. size: height, width.

    The text's pattern is what pycocotools decodes without reading past its end.
    """

    size: tuple[_Side, _Side]
    counts: (
        list[Annotated[int, Meta(ge=0, lt=2**32)]] | Annotated[str, Meta(pattern=r"^[0-o]*[0-O]\Z")]
    )


def _mend_category(entry: dict) -> Iterator[Change]:
    name = entry.get("name")
    entry["id"] = _whole(entry.get("id"))
    if isinstance(name, int | float) and not isinstance(name, bool):
        entry["name"] = str(name)
        yield "class name as number", f"name: expected text, found {name}: taken as text"
    if not isinstance(entry.get("supercategory"), str):
        entry.pop("supercategory", None)


def _mend_image(entry: dict) -> Iterator[Change]:
    """Sizes that are none become None: the reader counts them with those that are absent."""
    url = entry.get("coco_url")
    if not entry.get("file_name") and isinstance(url, str) and url:
        # As LVIS's own readers: http://images.cocodataset.org/val2017/000000397133.jpg
        entry["file_name"] = "/".join(re.split(r"[?#]", url)[0].split("/")[-2:])
        found = f"found none: took {short(entry['file_name'])} of coco_url"
        yield "image name of coco_url", f"file_name: expected a name, {found}"
    for field in ("id", "width", "height"):
        entry[field] = _whole(entry.get(field))
    for side in ("width", "height"):
        if type(entry[side]) is not int or not 1 <= entry[side] <= MAX_PIXELS:
            entry[side] = None


def _mend_annotation(entry: dict) -> Iterator[Change]:
    box = None if "bbox" in entry else segmentation_box(entry.get("segmentation"))
    if box:
        entry["bbox"] = box
        yield "box of the segmentation", "bbox: expected one, found none: took the segmentation's"
    for field in _there(entry, "image_id", "category_id"):
        entry[field] = _whole(entry[field])
    for field in _there(entry, "iscrowd", "difficult", "ignore"):
        found = entry[field]
        entry[field] = flag = _flag(found)
        if found is None or (isinstance(found, str) and flag != found):
            message = f"{field}: expected 0 or 1, found {short(found)}: taken as {flag}"
            yield "flag that is no number", message
    for field in _there(entry, "bbox", "area"):
        found = entry[field]
        is_list = isinstance(found, list)
        numbers = list(map(_number, found if is_list else [found]))
        if numbers != (found if is_list else [found]):
            entry[field] = numbers if is_list else numbers[0]
            yield "number as text", f"{field}: expected numbers, found {short(found)}: read"


MENDERS: dict[Any, Callable[[dict], Iterator[Change]]] = {
    Category: _mend_category,
    Image: _mend_image,
    Annotation: _mend_annotation,
}


def _there(entry: dict, *fields: str) -> list[str]:
    return [field for field in fields if field in entry]


def _whole(value: Any) -> Any:
    """3 for 3.0; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: Any) -> Any:
    """2.5 for "2.5"; anything else as it is."""
    number = decimal(value.strip()) if isinstance(value, str) else math.nan
    return value if math.isnan(number) else number


def _flag(value: Any) -> Any:
    """0 or 1 for what says it in another type, null for 0; anything else as it is."""
    is_set = flag(value) if value is None or isinstance(value, str) else None
    return _whole(value) if is_set is None else int(is_set)


def segmentation_box(segmentation: object) -> list[float] | None:
    """x, y, width, height of the hull of polygons, or of a run-length mask's pixels.

    None where there is nothing, or what is there is neither.
    """
    try:
        if isinstance(segmentation, dict):
            runs = msgspec.convert(segmentation, _Runs)
            encoded = {"size": list(runs.size), "counts": runs.counts}
            if isinstance(runs.counts, list):
                encoded = mask.frPyObjects(encoded, *runs.size)
            x, y, width, height = mask.toBbox(encoded).tolist()
            return [x, y, width, height] if width and height else None
        polygons = msgspec.convert(segmentation, _Polygons)
    except msgspec.ValidationError:
        return None
    if not polygons or any(len(polygon) % 2 for polygon in polygons):
        return None
    points = np.concatenate(polygons).reshape(-1, 2)
    corner = points.min(axis=0)
    return [*corner.tolist(), *(points.max(axis=0) - corner).tolist()]
