"""GIFs against the pixels they were made of, and their blocks written by hand."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from data.images import gif
from data.images.decode import MAX_PIXELS, decode_image, image_size, read_header
from data.records import DatasetError

pytestmark = pytest.mark.quick

H, W = 21, 37
RNG = np.random.default_rng(0)
INDEX = RNG.integers(0, 16, (H, W)).astype(np.uint8)
PALETTE = RNG.integers(0, 256, (16, 3)).astype(np.uint8)


def picture(index=INDEX):
    image = Image.fromarray(index, "P")
    image.putpalette(PALETTE.tobytes())
    return image


def encode(*frames, **options):
    buffer = io.BytesIO()
    options |= {"save_all": True, "append_images": frames[1:]} if frames[1:] else {}
    frames[0].save(buffer, "GIF", **options)
    return buffer.getvalue()


# Of 2x1 pixels, black and white, the codes clear, 0, 1, end in 3 bits each: the specification's.
PIXELS = b"\x02" + b"\x02" + struct.pack("<H", 4 | 0 << 3 | 1 << 6 | 5 << 9) + b"\0"
COLORS = bytes([9, 8, 7, 250, 251, 252])


def screen(width, height, background=0, colors=COLORS):
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, background, 0) + colors


def frame(x, y, width=2, height=1, pixels=PIXELS, colors=b""):
    flags = 0x80 if colors else 0
    return b"," + struct.pack("<HHHHB", x, y, width, height, flags) + colors + pixels


@pytest.fixture
def write(tmp_path):
    def write(data, name="image.gif"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("options", [{}, {"interlace": 1}, {"interlace": 0}, {"transparency": 3}])
def test_pixels_are_exact_and_transparent_ones_keep_their_colour(options, write):
    path = write(encode(picture(), **options), "wrong.jpg")
    np.testing.assert_array_equal(decode_image(path), PALETTE[INDEX])
    header = read_header(path)
    assert (header.width, header.height, header.format, header.notes) == (W, H, "GIF", ())


def test_grey_pixels(write):
    grey = RNG.integers(0, 256, (H, W), np.uint8)
    found = decode_image(write(encode(Image.fromarray(grey))))
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))


def test_the_first_of_several_frames_is_read_and_noted(write):
    path = write(encode(picture(), picture(INDEX[::-1]), picture(INDEX[:, ::-1]), loop=0))
    np.testing.assert_array_equal(decode_image(path), PALETTE[INDEX])
    assert read_header(path).notes == (gif.FIRST_FRAME,)


def test_a_file_written_by_hand(write):
    path = write(screen(2, 1) + frame(0, 0) + b";")
    np.testing.assert_array_equal(decode_image(path), [[[9, 8, 7], [250, 251, 252]]])
    own = bytes([1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(
        decode_image(write(screen(2, 1) + frame(0, 0, colors=own) + b";")), [[[1, 2, 3], [4, 5, 6]]]
    )


def test_beside_a_smaller_first_frame_is_the_background(write):
    path = write(screen(4, 2, background=1) + frame(1, 1) + b";")
    expected = np.full((2, 4, 3), [250, 251, 252], np.uint8)
    expected[1, 1] = 9, 8, 7
    np.testing.assert_array_equal(decode_image(path), expected)


def test_a_screen_grows_with_its_first_frame_as_in_browsers(write):
    path = write(screen(1, 1) + frame(1, 2) + b";")
    assert image_size(path) == (3, 3)
    assert decode_image(path).shape == (3, 3, 3)


def test_a_missing_trailer_is_nothing(write):
    data = screen(2, 1) + frame(0, 0)
    np.testing.assert_array_equal(decode_image(write(data)), [[[9, 8, 7], [250, 251, 252]]])


def test_extensions_before_the_frame_and_after_it(write):
    note = b"!\xfe\x03abc\x02de\0"
    path = write(screen(2, 1) + note * 3 + frame(0, 0) + note + b";")
    assert decode_image(path).shape == (1, 2, 3)
    assert read_header(path).notes == ()
    path = write(screen(2, 1) + note + frame(0, 0) + note + frame(0, 0))
    assert read_header(path).notes == (gif.FIRST_FRAME,)


def test_blocks_are_counted(write, monkeypatch):
    monkeypatch.setattr(gif, "MAX_BLOCKS", 10)
    empty = b"!\xfe" + b"\1a" * 8 + b"\0"
    image_size(write(screen(2, 1) + empty + frame(0, 0)))
    many = b"!\xfe" + b"\1a" * 11 + b"\0"
    for data in (many + frame(0, 0), frame(0, 0, pixels=b"\x02" + b"\1a" * 11 + b"\0")):
        with pytest.raises(DatasetError, match="expected at most 10 blocks, found more"):
            image_size(write(screen(2, 1) + data))


def test_frames_without_end_are_not_walked(write):
    path = write(screen(2, 1) + frame(0, 0) * 10**5)
    assert decode_image(path).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (screen(2, 1) + b";", "expected a GIF with a frame, found none"),
        (screen(2, 1), "expected a GIF with a frame, found none"),
        (b"GIF89a", "expected a GIF with a frame, found none"),
        (screen(2, 1) + frame(0, 0, 0, 1), "expected a GIF with a frame, found none"),
        (screen(65535, 65535) + frame(0, 0), f"1 to {MAX_PIXELS} pixels, found 65535x65535"),
        (screen(2, 1) + frame(0, 0)[:-2], "truncated: the image data ends early"),
        (screen(2, 1) + frame(0, 0)[:10], "truncated: the image data ends early"),
        (screen(2, 1) + frame(0, 0, 2, 9), "cannot be decoded (image file is truncated"),
        (screen(2, 1) + frame(0, 0, pixels=b"\x02\x02\xff\xff\0"), "cannot be decoded ("),
        (screen(2, 1) + frame(0, 0, pixels=b"\x63\x02\xff\xff\0"), "cannot be decoded ("),
    ],
)
def test_damaged_files_are_refused(data, problem, write):
    with pytest.raises(DatasetError) as caught:
        decode_image(write(data))
    assert problem in str(caught.value)


def test_truncated_files_are_refused_at_every_length(write):
    data = encode(picture())
    for length in (20, 100, len(data) // 2, len(data) - 2):
        with pytest.raises(DatasetError):
            decode_image(write(data[:length]))
