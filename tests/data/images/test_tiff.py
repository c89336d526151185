"""TIFFs written by hand against the pixels they were made of, and by Pillow and OpenCV."""

import io
import itertools
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from data.images import tiff as tiffs_read
from data.images.decode import decode_image, image_size, read_header, read_image
from data.records import DatasetError
from tests.data.images.tiffs import directory, tiff

pytestmark = pytest.mark.quick

H, W = 21, 37
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (H, W, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (H, W, 3), np.uint16)
WHITE_IS_0, BLACK_IS_0, COLORS, INDEX = range(4)


@pytest.fixture
def write(tmp_path):
    def write(data, name="image.tif"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def values_of(path):
    return read_image(path).values()


def grey3(plane):
    return np.repeat(plane[..., None], 3, axis=2)


LAYOUTS = {
    "one strip": {},
    "strips": {"rows": 5},
    "tiles": {"tile": 16},
    "deflate": {"compression": 8, "rows": 5},
    "deflate, tiles": {"compression": 8, "tile": 16},
    "predictor": {"compression": 8, "rows": 5, "predictor": 2},
    "predictor, tiles": {"compression": 8, "tile": 16, "predictor": 2},
    "BigTIFF": {"big": True, "rows": 5},
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_pixels_it_was_made_of(layout, order, write):
    options = LAYOUTS[layout] | {"order": order}
    for array, bits in ((RGB, 8), (DEEP, 16)):
        grey, alpha = array[..., :1], array[..., 1:2]
        for pixels, photometric, expected in (
            (array, COLORS, array),
            (np.dstack([array, alpha]), COLORS, array),  # alpha is dropped, not blended
            (grey, BLACK_IS_0, grey3(array[..., 0])),
            (grey, WHITE_IS_0, 2**bits - 1 - grey3(array[..., 0])),
            (np.dstack([grey, alpha]), BLACK_IS_0, grey3(array[..., 0])),
        ):
            path = write(tiff(pixels, bits, photometric, extra=2, **options))
            found = values_of(path)
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, expected)
            header = read_header(path)
            assert (header.width, header.height, header.bits) == (W, H, bits)
            assert (header.format, header.notes) == ("TIFF", ())


def test_alpha_of_any_kind_is_dropped(write):
    for extra in (0, 1, 2):
        pixels = np.dstack([RGB, RGB[..., 0]])
        np.testing.assert_array_equal(values_of(write(tiff(pixels, 8, COLORS, extra=extra))), RGB)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("tile", [None, 16])
def test_values_of_less_than_a_byte(bits, tile, write):
    values = RNG.integers(0, 2**bits, (16, 32), np.uint8)
    packed = np.zeros((16, 32 * bits // 8, 1), np.uint8)
    for x in range(32):  # the first pixel in the highest bits
        packed[:, x * bits // 8, 0] |= values[:, x] << (8 - bits - x * bits % 8)
    by_strip = tiff(packed, bits, BLACK_IS_0, width=32, rows=3)
    scale = {1: 255, 2: 85, 4: 17}[bits]
    np.testing.assert_array_equal(values_of(write(by_strip)), grey3(values * scale))
    inverted = tiff(packed, bits, WHITE_IS_0, width=32)
    np.testing.assert_array_equal(values_of(write(inverted)), grey3(255 - values * scale))
    odd = tiff(packed, bits, BLACK_IS_0, width=31)  # its last bits are fill
    np.testing.assert_array_equal(values_of(write(odd)), grey3(values * scale)[:, :31])
    if tile:
        tiles = [packed[:, :, 0][:, i * 2 * bits : (i + 1) * 2 * bits] for i in range(2)]
        body = b"".join(t.tobytes() for t in tiles)
        size = len(body) // 2
        tags = {256: 32, 257: 16, 258: bits, 262: 1, 322: 16, 323: 16}
        tags |= {324: [8, 8 + size], 325: [size, size]}
        found = values_of(write(directory(body, tags)))
        np.testing.assert_array_equal(found, grey3(values * scale))


@pytest.mark.parametrize("order", "<>")
def test_palettes_of_8_and_of_16_bits(order, write):
    palette = RNG.integers(0, 65536, (3, 256))
    index = RGB[..., :1]
    found = values_of(write(tiff(index, 8, INDEX, palette=palette.ravel().tolist(), order=order)))
    np.testing.assert_array_equal(found, (palette.T >> 8).astype(np.uint8)[index[..., 0]])
    small = (palette >> 8).ravel().tolist()
    found = values_of(write(tiff(index, 8, INDEX, palette=small, order=order)))
    np.testing.assert_array_equal(found, (palette.T >> 8).astype(np.uint8)[index[..., 0]])
    path = write(tiff(index, 8, INDEX, palette=small[:-1], order=order))
    with pytest.raises(DatasetError, match=r"expected 768 values .* found 767"):
        decode_image(path)


@pytest.mark.parametrize("method", [None, "tiff_lzw", "tiff_deflate", "packbits"])
def test_what_pillow_writes(method, write):
    image = Image.fromarray(np.kron(RGB, np.ones((3, 3, 1), np.uint8)))
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1"):
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, "TIFF", **({"compression": method} if method else {}))
        expected = np.asarray(image.convert(mode).convert("RGBA").convert("RGB"))
        if mode == "RGBA":
            expected = np.asarray(image)
        np.testing.assert_array_equal(decode_image(write(buffer.getvalue())), expected)


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("method", [1, 5, 8, 32773, 32946])
def test_what_opencv_writes(method, predictor, write):
    flags = [cv2.IMWRITE_TIFF_COMPRESSION, method, cv2.IMWRITE_TIFF_PREDICTOR, predictor]
    for pixels in (RGB, DEEP, RGB[..., 0], DEEP[..., 0]):
        bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
        data = cv2.imencode(".tif", np.ascontiguousarray(bgr), flags)[1].tobytes()
        found = values_of(write(data))
        assert found.dtype == pixels.dtype
        np.testing.assert_array_equal(found, pixels if pixels.ndim == 3 else grey3(pixels))


def test_bits_in_use(write):
    pixels = np.array([[0, 15, 16, 255], [256, 1023, 4094, 4095]], np.uint16)[..., None]
    found = decode_image(write(tiff(pixels, 16, BLACK_IS_0)), 12)
    np.testing.assert_array_equal(
        found, grey3(np.array([[0, 0, 1, 15], [16, 63, 255, 255]], np.uint8))
    )


def test_the_first_of_several_pages_is_read_and_noted(write):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB[:5])]
    buffer = io.BytesIO()
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    path = write(buffer.getvalue())
    np.testing.assert_array_equal(decode_image(path), RGB)
    assert read_header(path).notes == (tiffs_read.FIRST_PAGE,)
    assert image_size(path) == (W, H)


def test_a_directory_that_leads_to_itself_ends_nothing(write):
    tags = {256: 2, 257: 1, 258: 8, 262: 1, 273: 8, 279: 2}
    path = write(directory(b"\x07\x09", tags, following=10))
    np.testing.assert_array_equal(decode_image(path), [[[7] * 3, [9] * 3]])
    assert read_header(path).notes == (tiffs_read.FIRST_PAGE,)


FOUR = np.dstack([RGB, RGB[..., 0]])
REFUSED = {
    "grey, RGB or a palette, found CMYK": tiff(FOUR, 8, 5),
    "grey, RGB or a palette, found YCbCr": tiff(RGB, 8, 6),
    "grey, RGB or a palette, found Lab": tiff(RGB, 8, 8),
    "unsigned values, found floating point": tiff(DEEP, 16, COLORS, format=3),
    "unsigned values, found signed": tiff(DEEP, 16, COLORS, format=2),
    "8, 16 bits a value, found 32": tiff(DEEP, 32, COLORS),
    "1, 2, 4, 8, 16 bits a value, found 12": tiff(DEEP[..., :1], 12, BLACK_IS_0),
    "1, 3 or 4 bands, found 5 of RGB": tiff(np.dstack([RGB, RGB[..., :2]]), 8, COLORS),
    "1, 3 or 4 bands, found 3 of grey": tiff(RGB, 8, BLACK_IS_0),
    "all bands of a pixel together, found one band after another": tiff(RGB, 8, COLORS, planar=2),
    "no compression, LZW, deflate or PackBits, found JPEG": tiff(RGB, 8, COLORS, compression=7),
    "no compression, LZW, deflate or PackBits, found CCITT": tiff(RGB, 8, COLORS, compression=4),
    "the predictor 1 or 2, found 3": tiff(RGB, 8, COLORS, compression=8, predictor=3),
    "bytes that begin with their highest bit, found others": tiff(RGB, 8, COLORS, fill_order=2),
    "as many bits in all bands, found others": tiff(RGB, [8, 8, 16], COLORS),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_is_not_read_is_refused_by_name_and_with_a_way_out(problem, write):
    path = write(REFUSED[problem])
    for function in (decode_image, image_size):
        with pytest.raises(DatasetError) as caught:
            function(path)
        expected = f"{path}: expected a TIFF with {problem}; convert it to PNG"
        assert str(caught.value) == expected
        assert caught.value.kind == "unreadable image"


# ------------------------------------------------------------------------------------------------
# Damaged and hostile files
# ------------------------------------------------------------------------------------------------

TAGS = {256: 4, 257: 2, 258: 8, 262: 1, 278: 1, 273: [8, 12], 279: [4, 4]}
BODY = bytes(range(8))


def test_the_small_file_that_is_damaged_below_is_read(write):
    found = decode_image(write(directory(BODY, TAGS)))
    np.testing.assert_array_equal(found[..., 0], [[0, 1, 2, 3], [4, 5, 6, 7]])


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ({273: [8, 2**32 - 1]}, "truncated: the image data ends early"),
        ({279: [4, 2**32 - 1]}, "truncated: the image data ends early"),
        ({279: [4, 3]}, "truncated: a strip or tile has fewer bytes than its pixels"),
        ({273: [8]}, "expected 2 values in an entry of the directory, found 1"),
        ({278: 0}, "expected a TIFF in strips or tiles, found some of 4x0"),
        ({322: 0, 323: 16}, "expected a TIFF in strips or tiles, found some of 0x16"),
        ({256: 2**20, 257: 2**20, 278: 2**20}, "pixels, found 1048576x1048576"),
        ({256: 0}, "pixels, found 0x2"),
        ({257: 2**18}, "expected at most 131072 strips or tiles, found 262144"),
        ({322: 2**16, 323: 2**16}, "expected tiles of at most 536870912 pixels in all, found 1 of"),
    ],
)
def test_directories_that_promise_what_is_not_there(tags, problem, write):
    path = write(directory(BODY, TAGS | tags))
    with pytest.raises(DatasetError) as caught:
        decode_image(path)
    assert problem in str(caught.value)


def test_bounds_of_the_directory(write):
    none = "expected a TIFF with a directory of 1 to 4096 entries in it"
    whole = directory(BODY, TAGS)
    for data in (
        whole[:4] + struct.pack("<I", 2**31) + whole[8:],
        whole[:4] + struct.pack("<I", len(whole)) + whole[8:],
        whole[:16] + b"\0\0" + whole[18:],
        whole[:16] + b"\xff\xff" + whole[18:] + bytes(2**20),
        whole[:30],
        b"II*\0",
        b"MM\0+" + bytes(20),
    ):
        with pytest.raises(DatasetError, match=none):
            image_size(write(data))


def test_an_entry_of_more_values_than_the_file_has_is_not_waited_for(write):
    entry = struct.pack("<HHII", 258, 3, 2**31, 8)
    data = b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    with pytest.raises(DatasetError, match="truncated: an entry of the directory reaches beyond"):
        image_size(write(data))


@pytest.mark.parametrize(
    ("method", "fill"), [("tiff_lzw", b"\0"), ("tiff_adobe_deflate", b"\0"), ("packbits", b"\x80")]
)
def test_corrupt_or_missing_pixels_are_refused(method, fill, write):
    """OpenCV leaves them black and says nothing."""
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "TIFF", compression=method)
    data = buffer.getvalue()
    entry = struct.pack("<HHI", 273, 4, 1)
    [offset] = struct.unpack_from("<I", data, data.index(entry) + len(entry))
    start = offset + 20
    with pytest.raises(DatasetError, match=r"image\.tif: cannot be decoded"):
        decode_image(write(data[:start] + fill * 600 + data[start + 600 :]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_truncated_files_are_refused_at_every_length(layout, write):
    data = tiff(RGB, 8, COLORS, **LAYOUTS[layout])
    decode_image(write(data))
    for length in itertools.chain(range(4, 60, 7), range(60, len(data) - 1, 199), [len(data) - 8]):
        with pytest.raises(DatasetError):
            decode_image(write(data[:length]))
