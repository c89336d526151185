"""Files of detections with an entry an image: what the project's JSON and CrowdHuman's share.

Letters: M images.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import msgspec
import numpy as np

from data.detections.common import (
    BoxConvention,
    Row,
    checked_table,
    index_of,
    json_list,
    parse_json,
    write_files,
)
from data.detections.image_names import ids_shown, images_by_name
from data.files import read_data
from data.formats.text_files import OF_DATASET
from data.records import DatasetError
from utils.detections import DetectionTable


@dataclass(frozen=True)
class PerImage:
    """A format with an entry an image, also for one without detections.

    entries: what msgspec makes of the file, or with is_lines of each line: a list of Structs, or a
    Struct, of image_id, width, height and detections, which the file may call otherwise.
    detection: one of label, score and box. image_id, detections, label: their names in the file.
    numbers_too: a label may also be a class's place in the list, from 1 on.
    """

    entries: Any
    detection: type[msgspec.Struct]
    convention: BoxConvention
    image_id: str
    detections: str
    label: str
    is_lines: bool = False
    numbers_too: bool = False

    def write(self, path: str | Path, table: DetectionTable, sizes: np.ndarray) -> None:
        """Writes the images in the order of the table, and of each its detections in that order.

        path: file to write or replace; it is never left half-written.
        sizes: (M, 2) int, width and height of the images in pixels.

        Raises ValueError for a wrong shape of sizes, OSError if the disk refuses.
        """
        sizes, num_images = np.asarray(sizes), len(table.image_ids)
        if sizes.shape != (num_images, 2):
            raise ValueError(f"sizes: expected shape ({num_images}, 2), found {sizes.shape}")
        found = self.detections_by_image(table)
        entries = (
            {self.image_id: name, "width": width, "height": height, self.detections: detections}
            for name, (width, height), detections in zip(
                table.image_ids, sizes.tolist(), found, strict=True
            )
        )
        lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        write_files({Path(path): lines if self.is_lines else json_list(entries)})

    def detections_by_image(self, table: DetectionTable) -> Iterator[list[dict]]:
        """The detections of each image, in the table's order, as the file has them."""
        boxes = self.convention.write(table.boxes).tolist()
        scores, names = table.scores.tolist(), [table.classes[k] for k in table.labels.tolist()]
        for rows in table.rows_by_image():
            found = [
                self.detection(label=names[row], score=scores[row], box=boxes[row])
                for row in rows.tolist()
            ]
            yield msgspec.to_builtins(found)

    def read(
        self,
        path: str | Path,
        image_ids: Sequence[str],
        classes: Sequence[str],
        files: Sequence[str] = (),
    ) -> DetectionTable:
        """Reads a file, ours or another program's.

        image_ids, classes, files: what the results are of, usually the ground truth's; they give
            the indices. An image may be named by its file, see `images_by_name`.

        Raises DatasetError naming file, place, expected and found. Images must be exactly
        `image_ids`: one that is not in the file was not run, which is not the same as having no
        detections.
        """
        entries = list(self._read(path))
        images = images_by_name(path, {e.image_id: "" for _, e in entries}, image_ids, files)
        one_of = f"{self.image_id} to be one of {ids_shown(image_ids)}"
        known: dict[int | str, int] = {name: label for label, name in enumerate(classes)}
        expected = f"{self.label} to be one of {list(classes)}"
        if self.numbers_too:
            known |= {label + 1: label for label in range(len(classes))}
            expected += f" or a number from 1 to {len(classes)}"
        seen: set[int] = set()
        rows = []
        for where, entry in entries:
            index = index_of(entry.image_id, images, where, one_of)
            if index in seen:
                where = f"{where} ({self.image_id} {entry.image_id!r})"
                raise DatasetError(f"{where}: expected each image once, found it twice")
            seen.add(index)
            self._size(where, entry)
            for number, detection in enumerate(entry.detections):
                place = f"{where}, {self.detections}[{number}]"
                label = index_of(detection.label, known, place, expected)
                rows.append(Row(place, index, label, detection.score, detection.box))
        missing = [name for index, name in enumerate(image_ids) if index not in seen]
        if missing:
            raise DatasetError(
                f"{path}: expected an entry for each of {len(image_ids)} images, with an empty "
                f"list if nothing was detected; found none for {len(missing)}, "
                f"the first {missing[0]!r}"
            )
        return checked_table(rows, image_ids, classes, self.convention)

    def read_sizes(self, path: str | Path) -> dict[str, tuple[int, int]]:
        """{image id: (width, height)} of the images of a file. Errors as `read`."""
        return {entry.image_id: self._size(where, entry) for where, entry in self._read(path)}

    def _read(self, path: str | Path) -> Iterator[tuple[str, Any]]:
        """The entries of a file, each with its place in it for the messages."""
        data = read_data(path, OF_DATASET)
        if not self.is_lines:
            for number, entry in enumerate(parse_json(data, self.entries, str(path))):
                yield f"{path}, entry {number}", entry
            return
        for number, text in enumerate(data.split(b"\n"), start=1):
            if text.strip():
                where = f"{path}, line {number}"
                yield where, parse_json(text, self.entries, where)

    def _size(self, where: str, entry: Any) -> tuple[int, int]:
        if not all(0 < side < 2**31 for side in (entry.width, entry.height)):
            where = f"{where} ({self.image_id} {short(entry.image_id)})"
            found = f"{short(entry.width)} x {short(entry.height)}"
            raise DatasetError(f"{where}: expected width and height in pixels, found {found}")
        return entry.width, entry.height
