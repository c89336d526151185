"""The classes of a dataset that is converted, and what becomes of each."""

import argparse
import csv
import os
from pathlib import Path

from data.convert.reading import Source
from data.formats import FORMATS
from data.formats.class_files import read_class_file
from data.formats.class_names import require_known
from data.formats.text_files import csv_fields, numbered_lines
from data.records import DatasetError


def source_classes(source: Source) -> tuple[str, ...]:
    """The names in all splits, in the order of `Format.joint_classes`."""
    return FORMATS[source.format].joint_classes(source.root, source.splits.values(), {})


def class_mapping(args: argparse.Namespace, source: Source) -> dict[str, str]:
    """{class: its new name, "" to leave it out}, in the order of the new labels.

    Raises ValueError for a class chosen or mapped that the source lacks, and one the map lacks.
    """
    found = source_classes(source)
    mapping = {name: name for name in FORMATS[source.format].default_classes or found}
    if args.classes:
        require_known(args.classes, found, f"--classes: {source.root}")
        if len(set(args.classes)) < len(args.classes):
            raise ValueError(f"--classes: expected each once, found {', '.join(args.classes)}")
        mapping = {name: name for name in args.classes}
    elif args.class_map:
        mapping = read_class_map(args.class_map)
        require_known(mapping, found, f"{args.class_map}: class")
        missing = [name for name in found if name not in mapping]
        if missing:
            expected = f"a line for each class of {source.root} ('{missing[0]},' to leave it out)"
            raise DatasetError(f"{args.class_map}: expected {expected}, found no {missing[0]!r}")
    return mapping | {name: "" for name in found if name not in mapping}


def read_class_map(path: str | Path) -> dict[str, str]:
    """{old: new} of lines `old,new`, new "" where nothing follows the comma.

    A name with a comma is in double quotes. Raises DatasetError, naming the line, for anything else
    and for a class given twice.
    """
    mapping: dict[str, str] = {}
    for number, line in numbered_lines(path):
        try:
            fields = csv_fields(line)
        except csv.Error:
            fields = []
        if len(fields) != 2 or not fields[0]:
            raise DatasetError(f"{path}, line {number}: expected old,new, found {line[:60]!r}")
        if fields[0] in mapping:
            raise DatasetError(f"{path}, line {number}: class {fields[0]!r} is there twice")
        mapping[fields[0]] = fields[1]
    return mapping


def names_given(given: str) -> list[str]:
    """Different names, by comma or from a class file. Raises ValueError for none or one twice."""
    if os.path.isfile(given):
        return list(read_class_file(given))
    names = [name.strip() for name in given.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"--names: expected different names by comma or a file, found {given!r}")
    return names
