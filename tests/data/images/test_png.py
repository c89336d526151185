"""Chunks and sizes of PNG files against files built by hand and against zlib."""

import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.images import png
from data.images.decode import MAX_BYTES, check_inflation, decode_image, image_size
from data.records import DatasetError

pytestmark = pytest.mark.quick

MIB = 2**20


def chunk(kind, contents):
    body = kind + contents
    return struct.pack(">I", len(contents)) + body + struct.pack(">I", zlib.crc32(body))


def file(width, height, pixels, bits=8, color_type=2, interlace=0, before=b"", after=b""):
    """A PNG of compressed `pixels`, one IDAT chunk for each of a list."""
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlace)
    parts = [pixels] if isinstance(pixels, bytes) else pixels
    body = b"".join(chunk(b"IDAT", part) for part in parts)
    return png.SIGNATURE + chunk(b"IHDR", header) + before + body + chunk(b"IEND", b"") + after


def zeros(num_bytes):
    """So many zero bytes, whole MiB, compressed: a thousandth of them, the same for each MiB."""
    packer = zlib.compressobj(9, wbits=-15)
    one = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    end = struct.pack(">I", num_bytes % 65521 << 16 | 1)  # Adler-32 of zeros
    return b"\x78\xda" + one * (num_bytes // MIB) + b"\x03\0" + end


RAW = b"".join(b"\0" + bytes([row] * 30) for row in range(10))  # 10x10 RGB, no filter
PIXELS = np.repeat(np.arange(10, dtype=np.uint8), 30).reshape(10, 10, 3)
GOOD = zlib.compress(RAW)


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "image.png"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize(
    ("width", "height", "bits", "color_type", "expected"),
    [
        (10, 10, 8, 2, 10 * 31),
        (10, 10, 16, 2, 10 * 61),
        (10, 10, 8, 0, 10 * 11),
        (10, 10, 1, 0, 10 * 3),  # two bytes of bits and the filter's
        (10, 10, 4, 3, 10 * 6),
        (10, 10, 16, 4, 10 * 41),
        (10, 10, 8, 6, 10 * 41),
    ],
)
def test_bytes_of_pixels_by_hand(width, height, bits, color_type, expected):
    assert png.parse(file(width, height, b"", bits, color_type)).raw_bytes == expected


def test_bytes_of_interlaced_pixels_by_hand():
    """8x8 grey: passes of 1x1, 1x1, 2x1, 2x2, 4x2, 4x4 and 8x4 pixels, a filter byte a row."""
    rows = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]
    expected = sum(height * (1 + width) for width, height in rows)
    assert png.parse(file(8, 8, b"", 8, 0, interlace=1)).raw_bytes == expected
    # Of 1x1 only the first pass has a pixel.
    assert png.parse(file(1, 1, b"", 8, 0, interlace=1)).raw_bytes == 2


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("deep", [False, True])
def test_bytes_of_pixels_agree_with_what_opencv_writes(channels, deep):
    shape = (13, 7, channels)
    dtype = np.uint16 if deep else np.uint8
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    data = cv2.imencode(".png", values)[1].tobytes()
    packed = b"".join(
        data[start : start + length] for kind, start, length in png.chunks(data) if kind == b"IDAT"
    )
    found = png.parse(data)
    assert found.raw_bytes == len(zlib.decompress(packed))
    assert found.packed_bytes == len(packed)
    assert (found.bits, found.is_complete, found.has_texts) == (16 if deep else 8, True, False)
    assert not png.inflates_beyond(data, found.raw_bytes)
    assert png.inflates_beyond(data, found.raw_bytes - 1)


@given(count=st.integers(0, 5000), limit=st.integers(0, 5000), cuts=st.lists(st.integers(0, 6000)))
@settings(max_examples=50, deadline=None)
def test_inflating_stops_where_the_limit_says(count, limit, cuts):
    packed = zlib.compress(bytes(i % 251 for i in range(count)))
    ends = [0, *sorted(cut for cut in cuts if cut < len(packed)), len(packed)]
    parts = [packed[start:end] for start, end in itertools.pairwise(ends)]
    assert png.inflates_beyond(file(10, 10, parts), limit) == (count > limit)


def test_the_bomb_of_these_tests_is_what_it_says():
    assert zlib.decompress(zeros(3 * MIB)) == bytes(3 * MIB)


def test_a_small_picture_of_gigabytes_is_refused_unread(write):
    """Before, OpenCV inflated all of it: 1 GiB took 7 s."""
    path = write(file(10, 10, zeros(2**30)))
    with pytest.raises(DatasetError, match=r"image\.png: expected 310 bytes of pixels, found more"):
        decode_image(path)


def test_what_strangers_send_is_inflated_no_further_than_promised(write):
    """The header promises enough for the compressed bytes to be possible."""
    path = write(file(1000, 300, zeros(200 * MIB)))
    with pytest.raises(DatasetError, match=r"expected 900300 bytes of pixels, found more"):
        check_inflation(path)
    check_inflation(write(file(10, 10, GOOD)))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_compressed_texts_are_not_inflated(write, kind, monkeypatch):
    """libpng inflates each to 7 MiB: 500 of them, a file of 4 MB, took 22 s."""
    method = b"\0\0" if kind == b"zTXt" else b"\0\1\0\0\0"
    texts = chunk(kind, b"x" + method + zeros(7 * MIB)) * 500
    path = write(file(10, 10, GOOD, before=texts, after=b"behind the end"))
    decoded = []
    decode = cv2.imdecode
    monkeypatch.setattr(
        cv2, "imdecode", lambda data, flags: decoded.append(bytes(data)) or decode(data, flags)
    )
    np.testing.assert_array_equal(decode_image(path), PIXELS)
    assert decoded == [file(10, 10, GOOD)]


def test_pixels_in_many_chunks_and_bytes_behind_the_end(write):
    parts = [GOOD[at : at + 1] for at in range(len(GOOD))]
    path = write(file(10, 10, [*parts, *[b""] * 1000], after=bytes(MIB)))
    np.testing.assert_array_equal(decode_image(path), PIXELS)


def test_millions_of_chunks_are_refused(write, monkeypatch):
    monkeypatch.setattr(png, "MAX_CHUNKS", 100)
    np.testing.assert_array_equal(decode_image(write(file(10, 10, [GOOD] + [b""] * 97))), PIXELS)
    with pytest.raises(DatasetError, match=r"image\.png: expected at most 100 chunks, found more"):
        decode_image(write(file(10, 10, [GOOD] + [b""] * 99)))


def test_a_colour_type_that_does_not_exist_is_named(write):
    with pytest.raises(DatasetError, match="expected the colour type 0, 2, 3, 4 or 6, found 5"):
        image_size(write(file(10, 10, GOOD, color_type=5)))


def test_a_file_of_more_bytes_than_an_image_has_is_not_read(write, tmp_path):
    path = tmp_path / "huge.png"
    with open(path, "wb") as sparse:
        sparse.write(file(10, 10, GOOD))
        sparse.truncate(MAX_BYTES + 1)
    for function in (decode_image, image_size):
        with pytest.raises(
            DatasetError, match=r"huge\.png: expected at most 1024 MiB, found 1,024.0 MiB"
        ):
            function(path)
