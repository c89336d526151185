"""Every writer followed by its reader gives back the same bits, as far as the format holds them."""

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from data.convert import __main__ as convert
from data.formats import TARGETS
from data.formats.boxes_csv import read_csv
from data.formats.coco import read_coco
from data.formats.labelme import read_labelme
from data.formats.plausibility import FRACTION
from data.formats.tfrecord import read_tfrecord
from data.formats.voc import read_voc
from data.formats.yolo import read_yolo
from data.records import OF_OBJECTS
from data.writers.images import place
from data.writers.voc import write_voc

pytestmark = pytest.mark.full

READERS = {
    "voc": read_voc, "coco": read_coco, "csv": read_csv, "yolo": read_yolo,
    "tfrecord": read_tfrecord, "labelme": read_labelme,
}  # fmt: skip
WHOLE = ("coco", "tfrecord", "labelme")  # hold all arrays, labelme but the areas
SIZES = ((40, 30), (1000, 777), (641, 427))


def intervals(side, shortest):
    """(low, high) in 0..side, often at the border, at least `shortest` apart."""
    ends = st.one_of(
        st.sampled_from([0.0, float(side)]),
        st.integers(0, side).map(float),
        st.integers(0, 100 * side).map(lambda hundredths: hundredths / 100),
        st.floats(0, side),
    )
    pairs = st.tuples(ends, ends).map(sorted)
    return pairs.filter(lambda pair: pair[1] - pair[0] >= shortest)


@st.composite
def objects(draw, shortest):
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        image = draw(st.integers(0, 2))
        x, y = (draw(intervals(side, shortest)) for side in SIZES[image])
        assume(max(x[1], y[1]) > FRACTION)  # else they might be fractions
        flags = draw(st.sampled_from([(False, False), (True, False), (False, True)]))
        area = draw(st.one_of(st.none(), st.floats(2**-10, 10**6)))
        rows.append((image, (x[0], y[0], x[1], y[1]), draw(st.integers(0, 3)), *flags, area))
    return rows


def in_float32(image, box, label, difficult, ignore, area):
    """An object with coordinates of 1/1024 px, and an area of the digits that float32 has."""
    box = tuple(round(round(value * 1024) / 1024, 9) for value in box)
    return image, box, label, difficult, ignore, area and float(str(np.float32(area)))


def round_trip(toolbox, name, dataset):
    """(what is read of what was written, the losses)."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        losses = target.write(dataset, folder, "train", toolbox.names)
        for image, file in zip(toolbox.images, toolbox.names, strict=True):
            if target.image_folder is not None:
                place(image, Path(folder, target.image_folder.format(split="train"), file), False)
        return READERS[name](folder, "train", toolbox.classes), losses


def held(dataset, name):
    """The arrays of a dataset that a format can hold, by name."""
    arrays = {field: getattr(dataset, field) for field in ("row_splits", "sizes", *OF_OBJECTS)}
    if name == "labelme":
        arrays["areas"] = (dataset.boxes[:, 2:] - dataset.boxes[:, :2]).prod(axis=1)
    if name in WHOLE:
        return arrays
    if name == "voc":
        arrays["difficult"] = arrays["difficult"] | arrays["ignore"]
    else:
        kept = ~dataset.ignore
        arrays |= {field: arrays[field][kept] for field in OF_OBJECTS}
        counts = np.bincount(dataset.image_index[kept], minlength=len(dataset))
        arrays["row_splits"] = np.concatenate([[0], np.cumsum(counts)])
        arrays["difficult"] = np.zeros_like(arrays["difficult"])
    arrays["ignore"] = np.zeros_like(arrays["ignore"])
    boxes = arrays["boxes"]
    arrays["areas"] = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return arrays


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_bits_survive(toolbox, name, data):
    rows = data.draw(objects(shortest=1.01 if name == "voc" else 2**-9))
    # A CSV without any number above 1 is taken for fractions.
    kept = [max(box) for _, box, _, _, is_ignored, _ in rows if not is_ignored]
    assume(name != "csv" or not kept or max(kept) > 1)
    if name == "tfrecord":
        rows = [in_float32(*row) for row in rows]
    dataset = toolbox.dataset(rows)
    found, losses = round_trip(toolbox, name, dataset)
    assert [Path(image).name for image in found.images] == list(toolbox.names)
    assert found.classes == toolbox.classes
    assert found.defects.counts() == {}
    assert losses == [] or name != "tfrecord"
    for field, expected in held(dataset, name).items():
        array = getattr(found, field)
        assert array.dtype == expected.dtype, field
        np.testing.assert_array_equal(array, expected, err_msg=field)
    ignored, difficult = dataset.ignore.sum(), (dataset.difficult & ~dataset.ignore).sum()
    told = [int(loss.split()[0]) for loss in losses if "ignore" in loss or "flag" in loss]
    flags = [difficult] if name in ("csv", "yolo") else []
    regions = [] if name in WHOLE else [ignored]
    assert told == [count for count in flags + regions if count]


def test_a_chain_of_formats_loses_nothing(toolbox, tmp_path, capsys):
    """VOC -> TFRecord -> COCO -> labelme -> VOC gives the files that VOC -> VOC gives."""
    objects = [
        (0, (1, 2, 20, 12), 0, True, False, None),
        (0, (3.5, 4.25, 10.75, 11.125), 2, False, False, None),
        (2, (0, 0, 641, 427), 3, False, False, None),
        (2, (100, 7, 333, 426), 1, False, False, None),
    ]
    root, _ = toolbox.written(write_voc, toolbox.dataset(objects), "JPEGImages")
    convert.main([str(root), "--to", "voc", "--out", str(tmp_path / "direct")])
    source = root
    for name in ("tfrecord", "coco", "labelme", "voc"):
        convert.main([str(source), "--to", name, "--out", str(tmp_path / name)])
        source = tmp_path / name
    lost = re.findall(r"lost: (.*)", capsys.readouterr().err)
    assert lost == ["train: 3 image ids: COCO's are numbers; the names are kept in file_name"]
    expected = files_below(tmp_path / "direct")
    assert len(expected) == 3 + 3 + 1
    assert files_below(source) == expected


def files_below(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
