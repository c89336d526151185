"""Files of detections with an entry an image: what the project's JSON and CrowdHuman's share.

Letters: M images.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import msgspec
import numpy as np

from data.detections.common import BoxConvention, checked_table, index_of
from data.records import DatasetError
from utils.detections import DetectionTable


@dataclass(frozen=True)
class PerImage:
    """A format with an entry an image.

    entry: a msgspec.Struct of image_id, width, height and detections, which the file may call
    otherwise; detection: one of label, score and box. image_id, detections, label: their names in
    the file. numbers_too: a label may also be a class's place in the list, from 1 on.
    """

    entry: type[msgspec.Struct]
    detection: type[msgspec.Struct]
    convention: BoxConvention
    image_id: str
    detections: str
    label: str
    numbers_too: bool = False

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

    def entries(self, table: DetectionTable, sizes: np.ndarray) -> Iterable[dict]:
        """An entry for each image, also one without detections; sizes: (M, 2) width, height.

        Raises ValueError for another shape of sizes.
        """
        sizes, num_images = np.asarray(sizes), len(table.image_ids)
        if sizes.shape != (num_images, 2):
            raise ValueError(f"sizes: expected shape ({num_images}, 2), found {sizes.shape}")
        columns = zip(table.image_ids, sizes.tolist(), self.detections_by_image(table), strict=True)
        return (
            {self.image_id: name, "width": width, "height": height, self.detections: found}
            for name, (width, height), found in columns
        )

    def table(
        self,
        path: str | Path,
        entries: Iterable[tuple[str, Any]],
        image_ids: Sequence[str],
        classes: Sequence[str],
    ) -> DetectionTable:
        """The table of a file's entries, each with its place in the file for the messages.

        Raises DatasetError for what is not as it should be. Images must be exactly `image_ids`: one
        that is not in the file was not run, which is not the same as having no detections.
        """
        images = {image_id: index for index, image_id in enumerate(image_ids)}
        known: dict[int | str, int] = {name: label for label, name in enumerate(classes)}
        expected = f"{self.label} to be one of {list(classes)}"
        if self.numbers_too:
            known |= {label + 1: label for label in range(len(classes))}
            expected += f" or a number from 1 to {len(classes)}"
        seen: set[int] = set()
        image, labels, found, places = [], [], [], []
        for where, entry in entries:
            one_of = f"{self.image_id} to be one of the {len(images)} images"
            index = index_of(entry.image_id, images, where, one_of)
            if index in seen:
                where = f"{where} ({self.image_id} {entry.image_id!r})"
                raise DatasetError(f"{where}: expected each image once, found it twice")
            seen.add(index)
            self.size(where, entry)
            for place, detection in enumerate(entry.detections):
                places.append(f"{where}, {self.detections}[{place}]")
                labels.append(index_of(detection.label, known, places[-1], expected))
            image += [index] * len(entry.detections)
            found += entry.detections
        missing = [image_id for image_id, index in images.items() if index not in seen]
        if missing:
            raise DatasetError(
                f"{path}: expected an entry for each of {len(images)} images, with an empty list "
                f"if nothing was detected; found none for {len(missing)}, the first {missing[0]!r}"
            )
        return checked_table(
            image_ids,
            classes,
            image=image,
            boxes=[detection.box for detection in found],
            scores=[detection.score for detection in found],
            labels=labels,
            convention=self.convention,
            where=places.__getitem__,
        )

    def sizes(self, entries: Iterable[tuple[str, Any]]) -> dict[str, tuple[int, int]]:
        """{image id: (width, height)} of a file's entries, as `table` takes them."""
        return {entry.image_id: self.size(where, entry) for where, entry in entries}

    def size(self, where: str, entry: Any) -> tuple[int, int]:
        """Width and height of an entry. Raises DatasetError for what is none."""
        if not all(0 < side < 2**31 for side in (entry.width, entry.height)):
            where = f"{where} ({self.image_id} {short(entry.image_id)})"
            found = f"{short(entry.width)} x {short(entry.height)}"
            raise DatasetError(f"{where}: expected width and height in pixels, found {found}")
        return entry.width, entry.height
