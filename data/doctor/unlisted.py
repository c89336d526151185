"""Image files beside those of the splits that no split names: forgotten, or another split's."""

import os
from collections.abc import Mapping, Sequence

from data.doctor.findings import Finding
from data.formats.image_files import names_in
from data.records import Dataset

MAX_NAMED = 5  # in a message


def unlisted_images(datasets: Mapping[str, Dataset], reported: Sequence[str]) -> list[Finding]:
    """A note for each folder that images were read from and others lie in, with their number.

    datasets: split -> what was read of it. reported: files that findings exist of already.
    """
    read = [image for dataset in datasets.values() for image in dataset.images]
    known, found = {*read, *reported}, []
    for folder in dict.fromkeys(os.path.dirname(image) for image in read):
        others = [name for name in names_in(folder) if os.path.join(folder, name) not in known]
        if others:
            more = f" and {len(others) - MAX_NAMED} more" if len(others) > MAX_NAMED else ""
            named = ", ".join(others[:MAX_NAMED]) + more
            text = f"{folder}: {len(others)} images beside those of {' + '.join(datasets)}"
            kind = "images that no split names"
            found.append(Finding(kind, "note", "", folder, "", f"{text}: {named}"))
    return found
