"""The decoder against known pixels and against Pillow, an independent reference."""

import io
import os
import re
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data.images import decode
from data.images.decode import (
    IMAGE_TYPES,
    MAX_PIXELS,
    decode_image,
    image_size,
    in_8_bits,
    read_header,
)
from data.records import DatasetError
from tests.data.images.tiffs import tiff

pytestmark = pytest.mark.full

H, W = 24, 40
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (H, W, 3), np.uint8)
GREY = RGB[..., 0]
ALPHA = RNG.integers(0, 256, (H, W), np.uint8)
DEEP = RNG.integers(0, 65536, (H, W, 3), np.uint16)
INDEX = RNG.integers(0, 16, (H, W)).astype(np.uint8)
PALETTE = RNG.integers(0, 256, (16, 3)).astype(np.uint8)
# Flat quarters of 16 px blocks: what JPEG keeps nearly as it is; no two corners are alike.
QUARTERS = np.kron(
    np.array([[[200, 30, 40], [20, 180, 60]], [[30, 60, 220], [240, 240, 20]]], np.uint8),
    np.ones((16, 32, 1), np.uint8),
)


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def encode_cv2(array):
    return cv2.imencode(".png", array)[1].tobytes()


def palette_image():
    image = Image.fromarray(INDEX, "P")
    image.putpalette(PALETTE.tobytes())
    return image


def grey3(plane):
    return np.repeat(plane[..., None], 3, axis=2)


def bmp_top_down():
    """A BMP whose negative height says that rows run from the top down."""
    pixels = RGB[:, :, ::-1].tobytes()  # W * 3 is a multiple of 4: no padding
    info = struct.pack("<IiiHHIIiiII", 40, W, -H, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + info + pixels


def bmp_os2():
    pixels = RGB[::-1, :, ::-1].tobytes()
    info = struct.pack("<IHHHH", 12, W, H, 1, 24)
    return b"BM" + struct.pack("<IHHI", 26 + len(pixels), 0, 0, 26) + info + pixels


PNG, BMP, JPEG = (encode(Image.fromarray(QUARTERS), f) for f in ("PNG", "BMP", "JPEG"))
BLACK_WHITE = GREY > 127

LOSSLESS = {
    "png": (encode(Image.fromarray(RGB), "PNG"), RGB),
    "png-grey": (encode(Image.fromarray(GREY), "PNG"), grey3(GREY)),
    "png-1bit": (encode(Image.fromarray(BLACK_WHITE), "PNG"), grey3(BLACK_WHITE * np.uint8(255))),
    "png-grey-alpha": (
        encode(Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), "PNG"),
        grey3(GREY),
    ),
    "png-rgba": (encode(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG"), RGB),
    "png-palette": (encode(palette_image(), "PNG"), PALETTE[INDEX]),
    "png-palette-transparent": (encode(palette_image(), "PNG", transparency=3), PALETTE[INDEX]),
    "png-palette-alpha": (
        encode(palette_image(), "PNG", transparency=bytes(range(0, 160, 10))),
        PALETTE[INDEX],
    ),
    "png-16bit": (encode_cv2(DEEP[..., ::-1]), (DEEP >> 8).astype(np.uint8)),
    "png-16bit-grey": (encode_cv2(DEEP[..., 0]), grey3((DEEP[..., 0] >> 8).astype(np.uint8))),
    "bmp": (encode(Image.fromarray(RGB), "BMP"), RGB),
    "bmp-grey": (encode(Image.fromarray(GREY), "BMP"), grey3(GREY)),
    "bmp-1bit": (encode(Image.fromarray(BLACK_WHITE), "BMP"), grey3(BLACK_WHITE * np.uint8(255))),
    "bmp-palette": (encode(palette_image(), "BMP"), PALETTE[INDEX]),
    "bmp-rgba": (encode(Image.fromarray(np.dstack([RGB, ALPHA])), "BMP"), RGB),
    "bmp-top-down": (bmp_top_down(), RGB),
    "bmp-os2": (bmp_os2(), RGB),
}
JPEGS = {
    "rgb": JPEG,
    "progressive": encode(Image.fromarray(QUARTERS), "JPEG", progressive=True),
    "cmyk": encode(Image.fromarray(QUARTERS).convert("CMYK"), "JPEG"),
    "trailing-bytes": JPEG + b"\xff\xda a motion photo's video \xff\xda",
}


@pytest.fixture
def write(tmp_path):
    def write(data, name="image.jpg"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("name", LOSSLESS)
def test_decodes_exactly_whatever_the_file_is_called(write, name):
    data, expected = LOSSLESS[name]
    path = write(data, "wrong.jpg")
    image = decode_image(path)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)
    assert image_size(path) == (W, H)


@pytest.mark.parametrize("name", JPEGS)
def test_decodes_jpeg(write, name):
    path = write(JPEGS[name], "wrong.png")
    image = decode_image(path)
    assert image_size(path) == (64, 32)
    for y, x in ((8, 8), (8, 56), (24, 8), (24, 56)):  # the middle of each quarter
        np.testing.assert_allclose(image[y, x].astype(int), QUARTERS[y, x], atol=6)


def test_decodes_grey_jpeg(write):
    image = decode_image(write(encode(Image.fromarray(QUARTERS[..., 0]), "JPEG")))
    assert image.shape == (32, 64, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    assert abs(int(image[8, 8, 0]) - 200) <= 3


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_applies_exif_orientation(write, orientation, file_format):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(Image.fromarray(QUARTERS), file_format, exif=exif, **options)
    path = write(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    image = decode_image(path)
    assert image.flags.c_contiguous
    np.testing.assert_allclose(image.astype(int), expected, atol=3)
    assert image_size(path) == (expected.shape[1], expected.shape[0])
    assert read_header(path).orientation == orientation
    assert read_header(path).swaps_sides == (orientation >= 5)


def chunk(kind, contents):
    body = kind + contents
    return struct.pack(">I", len(contents)) + body + struct.pack(">I", zlib.crc32(body))


def exif_block(orientation, order=">"):
    mark = b"MM" if order == ">" else b"II"
    entry = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    return mark + struct.pack(order + "HIH", 42, 8, 1) + entry + bytes(4)


@pytest.mark.parametrize("order", [">", "<"])
def test_finds_exif_after_the_pixels_of_a_png(write, order):
    path = write(PNG[:-12] + chunk(b"eXIf", exif_block(6, order)) + PNG[-12:])
    assert image_size(path) == (32, 64)
    np.testing.assert_array_equal(decode_image(path), np.rot90(QUARTERS, -1))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_ignores_an_orientation_that_does_not_exist(write, orientation):
    path = write(PNG[:33] + chunk(b"eXIf", exif_block(orientation)) + PNG[33:])
    np.testing.assert_array_equal(decode_image(path), QUARTERS)
    assert image_size(path) == (64, 32)


def test_paths_of_any_kind(write):
    for name in ("a b#t=1.jpg", "grün 图像.png", "100% [x]*?.bmp", "no_suffix"):
        path = write(PNG, name)
        np.testing.assert_array_equal(decode_image(str(path)), QUARTERS)
        assert image_size(str(path)) == (64, 32)


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "thumbnail", "png", "bmp", "bmp-palette"])
def test_truncated_files_are_refused_at_every_length(write, kind):
    noise = Image.fromarray(np.kron(RGB, np.ones((4, 4, 1), np.uint8)))
    exif = Image.Exif()
    exif[274], exif[0x927C] = 1, JPEG  # a whole JPEG, end marker included, inside the first segment
    data = {
        "jpeg": encode(noise, "JPEG"),
        "progressive": encode(noise, "JPEG", progressive=True),
        "thumbnail": encode(noise, "JPEG", exif=exif),
        "png": encode(noise, "PNG"),
        "bmp": encode(noise, "BMP"),
        "bmp-palette": encode(noise.quantize(16), "BMP"),
    }[kind]
    decode_image(write(data))
    # A JPEG without its end marker is mended: tests/data/images/test_jpeg.py.
    last = len(data) - 1 if kind in ("png", "bmp", "bmp-palette") else len(data) - 10
    for length in (last, len(data) * 9 // 10, len(data) // 2, len(data) // 10, 20):
        path = write(data[:length], "cut.jpg")
        with pytest.raises(DatasetError, match=r"cut\.jpg: ") as caught:
            decode_image(path)
        assert "\n" not in str(caught.value)
        assert caught.value.kind == "unreadable image"
        if length >= len(data) // 2 and "bmp" not in kind:
            assert "cut.jpg: truncated" in str(caught.value)


def test_files_that_are_no_images(write, tmp_path):
    cases = {
        tmp_path: "expected a regular file, found a folder",
        tmp_path / "missing.jpg": "No such file",
        write(b"", "empty.jpg"): "the file is empty",
        write(b"version https://git-lfs", "lfs.jpg"): "found b'version http'",
        write(b"RIFF\x10\0\0\0WEBPVP8 ", "webp.jpg"): "expected a WebP with a picture, found none",
        write(b"RIFF\x10\0\0\0WAVEfmt ", "sound.jpg"): f"expected a {IMAGE_TYPES} image",
        write(b"\xff\xd8\xff\xd9", "bare.jpg"): "found 0x0",
    }
    for path, problem in cases.items():
        for function in (decode_image, image_size):
            with pytest.raises(DatasetError) as caught:
                function(path)
            assert str(caught.value).startswith(f"{path}: ")
            assert problem.lower() in str(caught.value).lower()


def test_corrupt_pixels_are_refused(write):
    data = bytearray(encode(Image.fromarray(RGB), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DatasetError, match=r"image\.jpg: cannot be decoded"):
        decode_image(write(bytes(data)))


def test_size_of_the_header_is_checked_against_the_pixels(write, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"image\.jpg: expected 64x32 pixels, found 6x5 pixels"):
        decode_image(write(JPEG))


def test_absurd_headers_are_refused_before_decoding(write):
    png = PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**20, 2**20, 8, 2, 0, 0, 0)) + PNG[33:]
    bmp = BMP[:18] + struct.pack("<ii", 2**20, -(2**20)) + BMP[26:]
    frame = JPEG.index(b"\xff\xc0")
    jpeg = JPEG[: frame + 5] + b"\xff\xff\xff\xff" + JPEG[frame + 9 :]
    for data in (png, bmp, jpeg):
        for function in (decode_image, image_size):
            with pytest.raises(DatasetError, match=rf"expected .* {MAX_PIXELS} pixels, found \d+x"):
                function(write(data))


def test_the_first_header_of_a_png_counts(write):
    """As for libpng: a second one, of another size, must not hide what will be decoded."""
    small = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0))
    assert image_size(write(PNG[:-12] + small + PNG[-12:])) == image_size(write(PNG))


@settings(max_examples=200, deadline=None)
@given(
    data=st.sampled_from([PNG, BMP, JPEG, JPEGS["progressive"]]),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    length=st.integers(0, 8000),
)
def test_damaged_files_give_an_image_or_a_dataset_error(tmp_path_factory, data, edits, length):
    damaged = bytearray(data[:length])
    for at, value in edits:
        if damaged:
            damaged[at % len(damaged)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    path.write_bytes(damaged)
    try:
        image = decode_image(path)
    except DatasetError:
        return
    assert image_size(path) == (image.shape[1], image.shape[0])


FRAMES = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
MUTATED = {
    "webp": encode(FRAMES[0], "WEBP", quality=80),
    "webp, lossless": encode(FRAMES[0], "WEBP", lossless=True, exif=exif_block(6)),
    "webp, animated": encode(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES),
    "gif": encode(palette_image(), "GIF"),
    "gif, animated": encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES),
    "tiff": encode(FRAMES[0], "TIFF"),
    "tiff, lzw": encode(FRAMES[0], "TIFF", compression="tiff_lzw"),
    "tiff, palette": encode(palette_image(), "TIFF", compression="packbits"),
    "tiff, tiles": tiff(DEEP, 16, 2, compression=8, tile=16, predictor=2, order=">"),
    "jpeg without its end": JPEG[:-2],
}


@pytest.mark.parametrize("kind", MUTATED)
def test_300_mutations_each_end_soon_in_pixels_or_a_dataset_error(kind, write):
    rng = np.random.default_rng(0)
    values = (b"\0", b"\1", b"\x7f", b"\xff", b"\0\0\0\0", b"\0\0\1\0", b"\xff\xff\xff\xff")
    outcomes = set()
    for _ in range(300):
        data = bytearray(MUTATED[kind])
        for _ in range(rng.integers(1, 5)):
            # Containers are mostly at the beginning, TIFF's at the end.
            at = int(rng.integers(min(len(data), 120 if rng.random() < 0.7 else len(data))))
            at = len(data) - 1 - at if "tiff" in kind else at
            if rng.random() < 0.8:
                value = values[rng.integers(len(values))]
                data[at : at + len(value)] = value
            else:
                del data[at : at + int(rng.integers(1, 40))]
        path, start = write(bytes(data)), time.process_time()
        try:
            image = decode_image(path)
        except DatasetError:
            outcomes.add("refused")
        else:
            assert image_size(path) == (image.shape[1], image.shape[0])
            outcomes.add("read")
        assert time.process_time() - start < 5
    assert outcomes == {"refused", "read"}


def test_sizes_of_real_images_agree_with_pillow_and_the_decoder(shared_data):
    folders = ["plates/images", "nuts_voc2007/JPEGImages", "tiny_coco/val2017", "trees_csv"]
    paths = [
        p for f in folders for p in (shared_data / f).glob("*") if p.suffix in (".jpg", ".png")
    ]
    assert len(paths) >= 6
    for path in paths:
        with Image.open(path) as image:
            assert image_size(path) == ImageOps.exif_transpose(image).size
        height, width, _ = decode_image(path).shape
        assert image_size(path) == (width, height)


def jpeg_of_scans(num_scans):
    """A progressive JPEG of 64x32 whose last scan comes so often that there are `num_scans`."""
    jpeg = JPEGS["progressive"]
    starts = [match.start() for match in re.finditer(rb"\xff\xda", jpeg)]
    return jpeg[:-2] + jpeg[starts[-1] : -2] * (num_scans - len(starts)) + jpeg[-2:]


def test_scans_of_a_jpeg_are_counted_against_its_pixels(write, monkeypatch):
    """Each goes over all pixels: 200 empty ones of 40 megapixels, 65 bytes each, took 20 s."""
    decode_image(write(jpeg_of_scans(200)))  # 2048 pixels: nothing
    monkeypatch.setattr(decode, "MAX_SCANNED", 30 * 64 * 32)
    decode_image(write(jpeg_of_scans(30)))
    with pytest.raises(DatasetError, match="expected at most 30 scans of 64x32 pixels, found 31"):
        decode_image(write(jpeg_of_scans(31)))
    monkeypatch.setattr(decode, "MAX_SCANNED", 64 * 32)  # what encoders write is always taken
    decode_image(write(JPEGS["progressive"]))


@pytest.mark.parametrize("bands", [2, 5])
def test_other_counts_of_bands_are_named(write, bands):
    frame = JPEG.index(b"\xff\xc0")
    path = write(JPEG[: frame + 9] + bytes([bands]) + JPEG[frame + 10 :])
    for function in (decode_image, image_size):
        with pytest.raises(DatasetError, match=rf"jpg: expected 1, 3 or 4 bands, found {bands}"):
            function(path)


def test_pipes_and_devices_are_not_read(tmp_path):
    """Before, a pipe was waited for and /dev/zero read until the memory was full."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    for name, found in (("pipe", "a named pipe"), ("endless", "a device")):
        for function in (decode_image, image_size):
            with pytest.raises(DatasetError, match=rf"{name}\.jpg: expected .* {found}"):
                function(tmp_path / f"{name}.jpg")


# 12-bit values in a file of 16 bits, and what becomes of them by hand.
DEEP_GREY = np.array([[0, 15, 16, 255], [256, 1023, 4094, 4095]], np.uint16)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (None, [[0, 0, 0, 0], [1, 3, 15, 15]]),
        (16, [[0, 0, 0, 0], [1, 3, 15, 15]]),
        (12, [[0, 0, 1, 15], [16, 63, 255, 255]]),
        (10, [[0, 3, 4, 63], [64, 255, 255, 255]]),
        (8, [[0, 15, 16, 255], [255, 255, 255, 255]]),
    ],
)
def test_bits_in_use_of_a_file_of_16_bits(write, bits, expected):
    path = write(encode_cv2(DEEP_GREY))
    assert read_header(path).bits == 16
    image = decode_image(path, bits)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, grey3(np.array(expected, np.uint8)))
    # RGB, the bands in their order, alpha dropped
    rgb = np.dstack([DEEP_GREY, DEEP_GREY[::-1], DEEP_GREY[:, ::-1]])
    expected = np.array(expected, np.uint8)
    expected = np.dstack([expected, expected[::-1], expected[:, ::-1]])
    np.testing.assert_array_equal(decode_image(write(encode_cv2(rgb[..., ::-1])), bits), expected)
    rgba = np.dstack([rgb[..., ::-1], np.full((2, 4), 7, np.uint16)])
    np.testing.assert_array_equal(decode_image(write(encode_cv2(rgba)), bits), expected)


@given(values=st.lists(st.integers(0, 65535), min_size=1), bits=st.integers(8, 16))
@settings(max_examples=50, deadline=None)
def test_the_highest_8_of_the_bits_in_use_are_kept(values, bits):
    expected = [min(value // 2 ** (bits - 8), 255) for value in values]
    array = np.array(values, np.uint16)
    np.testing.assert_array_equal(in_8_bits(array, bits), expected)
    np.testing.assert_array_equal(array, values)


def test_8_bit_files_are_read_as_they_are_whatever_the_bits(write):
    for name, (encoded, expected) in LOSSLESS.items():
        if "16bit" not in name:
            assert read_header(write(encoded)).bits == 8
            np.testing.assert_array_equal(decode_image(write(encoded), 12), expected)
