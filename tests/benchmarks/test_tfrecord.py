"""What the benchmark of records compares is the same dataset twice."""

import numpy as np
import pytest

from benchmarks.tfrecord import OBJECTS, SHARDS, generate, markdown
from configs.schema import Data
from data.datasets import class_names, read_split
from data.files import read_data

pytestmark = pytest.mark.full


def test_records_and_files_hold_the_same(tmp_path):
    size = generate(tmp_path, SHARDS + 1)
    assert 15_000 < size < 25_000
    records, files = (
        read_split(data, "train", class_names(data))
        for data in (
            Data(format=form, root=str(tmp_path / name), val="train")
            for form, name in (("tfrecord", "records"), ("coco", "files"))
        )
    )
    assert len(records) == len(files) == SHARDS + 1
    assert len(records.boxes) == OBJECTS * len(files)
    np.testing.assert_array_equal(records.boxes, files.boxes)
    for ours, theirs in zip(records.images, files.images, strict=True):
        assert ours.rpartition("/")[2] == theirs.rpartition("/")[2]
        assert read_data(ours, 10**6) == read_data(theirs, 10**6)
    names = [[d.classes[label] for label in d.labels] for d in (records, files)]
    assert names[0] == names[1]


def test_the_report():
    report = {
        "images": 1000,
        "bytes": 20_000,
        "index": [2.0, 1.0, 9.0],
        "start": {"records": [1.0, 3.0, 2.0], "files": [4.0, 4.0, 4.0]},
        "input": {"records": [90.0], "files": [100.0]},
    }
    text = markdown(report)
    assert "| first indexing | 2.0 s |  | 500 images/s |" in text
    assert "| start | 2.00 s | 4.00 s | 0.50 x files |" in text
    assert "| input | 90.00 images/s | 100.00 images/s | 0.90 x files |" in text
