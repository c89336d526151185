"""Which images a file of detections means: by their ids, else by the names of their files."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from reprlib import repr as short

from loguru import logger

from data.formats.text_files import number_or_text
from data.records import DatasetError

Name = int | str
SHOWN = 4  # ids of the dataset in a message


def images_by_name(
    path: object, found: Mapping[Name, str], image_ids: Sequence[str], files: Sequence[str]
) -> dict[Name, int]:
    """{image id of a file of detections: index in the dataset}, without those that are not there.

    path: of the file, for messages. found: the ids in it, and for each the name of the image's
    file, "" where it does not say it. image_ids, files: the dataset's.
    All are ids of the dataset, 1 for "1" too, or all are taken for file names: with folders or
    without, then by the stem alone, which for 7 may be 000007. A name that the file says beside an
    id of another image counts. Matching by names is logged; raises DatasetError for a name of two
    images, and two names of one.
    """
    known = {key: n for n, name in enumerate(image_ids) for key in (name, number_or_text(name))}
    by_id = {name: known[name] for name in found if name in known}
    is_complete = len(by_id) == len(found)
    if is_complete and not all(found.values()):
        return by_id
    names = {name: stated or str(name) for name, stated in found.items()}
    by_name = _matched(str(path), names, files, not is_complete)
    if len(by_name) < len(found) or by_name == by_id:
        return by_id
    name, index = next(pair for pair in by_name.items() if by_id.get(pair[0]) != pair[1])
    message = "{}: {} images matched by the names of their files, not by ids: {} is {}"
    logger.warning(message, path, len(found), short(name), files[index])
    return by_name


def ids_shown(image_ids: Sequence[str]) -> str:
    """Some ids for a message: "the 6 images (1, 2, 3, 4, ...)"."""
    more = ", ..." if len(image_ids) > SHOWN else ""
    ids = ", ".join(short(name)[1:-1] for name in image_ids[:SHOWN])
    return f"the {len(image_ids)} images ({ids}{more})"


def _matched(
    path: str, names: Mapping[Name, str], files: Sequence[str], is_strict: bool
) -> dict[Name, int]:
    """{id: index} of those whose name is that of a file; is_strict: raises for two of one."""
    parts_of = [file.replace("\\", "/").split("/") for file in files]
    same: dict[Name, list[int]] = defaultdict(list)  # by file name, by stem, by the stem's number
    for index, (*_, file) in enumerate(parts_of):
        for key in _keys(file):
            same[key].append(index)
    matched: dict[Name, int] = {}
    name_of: dict[int, str] = {}
    for key, name in names.items():
        *folders, file = name.replace("\\", "/").split("/")
        near = next((same[k] for k in _keys(file) if k in same), [])
        for count in range(1, len(folders) + 1) if len(near) > 1 else ():
            end = folders[-count:]
            near = [n for n in near if parts_of[n][-1 - count : -1] == end] or near
        if len(near) == 1 and name_of.setdefault(near[0], name) == name:
            matched[key] = near[0]
        elif near and is_strict:
            found = " and ".join(files[index] for index in near[:2])
            if len(near) == 1:
                raise DatasetError(f"{path}: {name_of[near[0]]!r} and {name!r} are both {found}")
            raise DatasetError(f"{path}: expected the name of one image, {name!r} is {found}")
    return matched


def _keys(file: str) -> list[Name]:
    """A file's name, its stem, and the stem's number where it is one."""
    stem = file.rpartition(".")[0] or file
    is_number = stem.isascii() and stem.isdigit() and len(stem) < 19
    return [*dict.fromkeys((file, stem)), *([int(stem)] if is_number else [])]
