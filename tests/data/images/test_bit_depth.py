"""Bits in use of 16-bit images: found over files whose values are known, and read as found."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from data.images import bit_depth
from data.images.bit_depth import Depth, bits_of, depth_of, is_deep
from data.images.render import image_reader
from data.records import DatasetError, Defects, assemble

pytestmark = pytest.mark.quick


@pytest.fixture
def write(tmp_path):
    """Writes an image by OpenCV: values of one type, in BGR."""

    def write(name, values):
        cv2.imwrite(str(tmp_path / name), values)
        return str(tmp_path / name)

    return write


@given(st.integers(0, 65535))
def test_bits_of_a_value(value):
    bits = bits_of(value)
    assert value < 2**bits
    assert bits == 8 or value >= 2 ** (bits - 1)


def test_bits_by_hand():
    assert [bits_of(value) for value in (0, 255, 256, 1023, 1024, 4095, 4096, 65535)] == [
        8, 8, 9, 10, 11, 12, 13, 16
    ]  # fmt: skip


def deep(most, shape=(6, 8)):
    values = np.zeros(shape, np.uint16)
    values[2, 3] = most
    return values


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3)])
def test_the_largest_value_of_all_images_counts(write, shape):
    shallow = [write("a.png", np.full((6, 8), 255, np.uint8)), write("b.jpg", np.ones((6, 8)))]
    assert depth_of(shallow) is None
    images = [*shallow, write("c.png", deep(300, shape)), write("d.png", deep(4095, shape))]
    found = depth_of([*images, write("e.png", deep(7, shape))])
    assert found == Depth(3, 4095)
    assert found.bits == 12
    assert found.describe(5) == "3 of 5, values up to 4095"


def test_alpha_does_not_count(write):
    values = np.dstack([deep(1000)] * 3 + [np.full((6, 8), 65535, np.uint16)])
    assert depth_of([write("a.png", values)]) == Depth(1, 1000)


def test_a_palette_and_a_png_by_another_name(write, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(cv2.imencode(".png", deep(512))[1].tobytes())
    assert is_deep(str(path))
    assert depth_of([str(path)]).bits == 10


def test_no_image_is_decoded_after_one_that_needs_all_bits(write, monkeypatch):
    monkeypatch.setattr(bit_depth, "PORTION", 2)
    images = [write(f"{i}.png", deep(2**15 if i < 2 else 9)) for i in range(9)]
    decoded, largest = [], bit_depth.largest_value
    monkeypatch.setattr(
        bit_depth, "largest_value", lambda path: decoded.append(path) or largest(path)
    )
    found = depth_of(images)
    assert (found.num_images, found.bits) == (9, 16)
    assert found.describe(9) == "9 of 9, all 16 bits in use"
    assert sorted(decoded) == images[:2]


def test_a_file_that_cannot_be_read_is_named(write, tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.png: cannot be read \(No such file"):
        depth_of([str(tmp_path / "gone.png")])
    path = tmp_path / "cut.png"
    path.write_bytes(cv2.imencode(".png", deep(512, (60, 80)))[1].tobytes()[:60])
    with pytest.raises(DatasetError, match=r"cut\.png: truncated"):
        depth_of([str(path)])


@pytest.fixture
def warnings():
    found = []
    handle = logger.add(found.append, level="WARNING", format="{message}")
    yield found
    logger.remove(handle)


def read_all(images, bits, cache=False):
    """The pixels of images of 8x6, each at its own size."""
    sizes = [[8, 6]] * len(images)
    dataset = assemble("x", ("a",), images=images, image_ids=images, sizes=sizes, defects=Defects())
    read = image_reader(replace(dataset, bits=bits), cache)
    whole, size = np.array([0, 0, 6, 8]), np.array([6, 8])
    return [read(i, whole, size, True, 1) for i in range(len(images))]


@pytest.mark.parametrize("cache", [False, True])
def test_samples_have_the_bits_of_the_dataset(write, warnings, cache):
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 87  # up to 4089
    (found,) = read_all([write("a.png", values)], 12, cache)
    np.testing.assert_array_equal(found, np.repeat((values // 16)[..., None], 3, axis=2))
    assert not warnings


def test_values_beyond_the_bits_are_white_and_said_once(write, warnings):
    images = [write(f"{i}.png", deep(most)) for i, most in enumerate((1023, 4095, 4095))]
    found = read_all(images, 10)
    assert [image.max() for image in found] == [255, 255, 255]
    (warning,) = warnings
    assert "1.png: values up to 4095; what is above 1023 (model.bits=10) becomes white" in warning


def test_a_model_that_knows_of_no_such_images_says_what_is_lost(write, warnings):
    found = read_all([write("a.png", deep(4095)), write("b.png", deep(4095))], None)
    assert [image.max() for image in found] == [15, 15]
    (warning,) = warnings
    assert "a.png: values up to 4095 keep their high byte only; model.bits=12 uses" in warning


def test_all_bits_in_use_need_no_word(write, warnings):
    read_all([write("a.png", deep(65535))], None)
    read_all([write("a.png", deep(65535))], 16)
    assert not warnings


def test_tiffs_of_16_bits_are_deep(write):
    assert is_deep(write("a.tif", deep(300)))
    assert not is_deep(write("b.tiff", np.zeros((6, 8), np.uint8)))
    assert depth_of([write("c.tif", deep(1000, (6, 8, 3))), write("d.png", deep(9))]) == Depth(
        2, 1000
    )
