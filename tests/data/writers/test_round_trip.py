"""Every writer followed by its reader gives back the same bits, as far as the format holds them."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from data.formats import TARGETS
from data.formats.boxes_csv import read_csv
from data.formats.coco import read_coco
from data.formats.plausibility import FRACTION
from data.formats.voc import read_voc
from data.formats.yolo import read_yolo
from data.records import OF_OBJECTS
from data.writers.images import place

pytestmark = pytest.mark.full

READERS = {"voc": read_voc, "coco": read_coco, "csv": read_csv, "yolo": read_yolo}
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


def round_trip(toolbox, name, dataset):
    """(what is read of what was written, the losses)."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        losses = target.write(dataset, folder, "train", toolbox.names)
        for image, file in zip(toolbox.images, toolbox.names, strict=True):
            place(image, Path(folder, target.image_folder.format(split="train"), file), False)
        return READERS[name](folder, "train", toolbox.classes), losses


def held(dataset, name):
    """The arrays of a dataset that a format can hold, by name."""
    arrays = {field: getattr(dataset, field) for field in ("row_splits", "sizes", *OF_OBJECTS)}
    if name == "coco":
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
    dataset = toolbox.dataset(rows)
    found, losses = round_trip(toolbox, name, dataset)
    assert [Path(image).name for image in found.images] == list(toolbox.names)
    assert found.classes == toolbox.classes
    assert found.defects.counts() == {}
    for field, expected in held(dataset, name).items():
        array = getattr(found, field)
        assert array.dtype == expected.dtype, field
        np.testing.assert_array_equal(array, expected, err_msg=field)
    ignored, difficult = dataset.ignore.sum(), (dataset.difficult & ~dataset.ignore).sum()
    told = [int(loss.split()[0]) for loss in losses if "ignore" in loss or "flag" in loss]
    flags = [difficult] if name in ("csv", "yolo") else []
    regions = [] if name == "coco" else [ignored]
    assert told == [count for count in flags + regions if count]
