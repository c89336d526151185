"""WebPs against the pixels they were made of, and their containers taken apart by hand."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from data.images import webp
from data.images.decode import decode_image, image_size, read_header
from data.images.gif import FIRST_FRAME
from data.records import DatasetError

pytestmark = pytest.mark.quick

H, W = 21, 37
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (H, W, 3), np.uint8)
RGBA = RNG.integers(0, 256, (H, W, 4), np.uint8)


def encode(pixels, *others, **options):
    buffer = io.BytesIO()
    frames = [Image.fromarray(frame) for frame in others]
    options |= {"save_all": True, "append_images": frames} if frames else {}
    Image.fromarray(pixels).save(buffer, "WEBP", **options)
    return buffer.getvalue()


def chunk(kind, contents):
    return kind + struct.pack("<I", len(contents)) + contents + bytes(len(contents) % 2)


def riff(*chunks):
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def three(*numbers):
    return b"".join(number.to_bytes(3, "little") for number in numbers)


def canvas(width, height, flags=0):
    return chunk(b"VP8X", bytes([flags, 0, 0, 0]) + three(width - 1, height - 1))


PICTURE = encode(RGB, lossless=True)[12:]  # a chunk VP8L


def frame(x, y, picture=PICTURE):
    return chunk(b"ANMF", three(x // 2, y // 2, W - 1, H - 1, 40) + b"\0" + picture)


@pytest.fixture
def write(tmp_path):
    def write(data, name="image.webp"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def test_lossless_pixels_are_exact_and_alpha_is_dropped(write):
    for pixels in (RGB, RGBA):
        path = write(encode(pixels, lossless=True, exact=True), "wrong.jpg")
        np.testing.assert_array_equal(decode_image(path), pixels[..., :3])
        header = read_header(path)
        assert (header.width, header.height, header.format, header.notes) == (W, H, "WebP", ())


@pytest.mark.parametrize("has_alpha", [False, True])
def test_lossy_pixels_are_those_of_pillow(has_alpha, write):
    pixels = np.kron(RGBA if has_alpha else RGB, np.ones((4, 4, 1), np.uint8))
    data = encode(pixels, quality=80)
    expected = np.asarray(Image.open(io.BytesIO(data)))[..., :3]
    np.testing.assert_array_equal(decode_image(write(data)), expected)


@pytest.mark.parametrize("before", [True, False])
def test_exif_counts_only_where_the_header_says_so(before, write):
    """As for libwebp; the chunk may lie behind the picture."""
    block = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, 6, 0, 0)
    chunks = [PICTURE, chunk(b"EXIF", block)]
    if before:
        chunks.reverse()
    path = write(riff(canvas(W, H, flags=8), *chunks))
    assert image_size(path) == (H, W)
    np.testing.assert_array_equal(decode_image(path), np.rot90(RGB, -1))
    path = write(riff(canvas(W, H), *chunks))
    np.testing.assert_array_equal(decode_image(path), RGB)


def test_the_first_of_several_frames_is_read_and_noted(write):
    path = write(encode(RGB, 255 - RGB, RGB[::-1], lossless=True))
    np.testing.assert_array_equal(decode_image(path), RGB)
    assert read_header(path).notes == (FIRST_FRAME,)


def test_a_first_frame_that_is_smaller_than_the_canvas(write):
    anim = chunk(b"ANIM", bytes(6))
    path = write(riff(canvas(W + 9, H + 5, flags=2), anim, frame(4, 2)))
    expected = np.zeros((H + 5, W + 9, 3), np.uint8)
    expected[2 : 2 + H, 4 : 4 + W] = RGB
    np.testing.assert_array_equal(decode_image(path), expected)
    assert read_header(path).notes == ()
    path = write(riff(canvas(W + 3, H, flags=2), anim, frame(4, 0)))
    with pytest.raises(DatasetError, match=f"expected a picture of {W + 3}x{H} pixels, found"):
        decode_image(path)


def test_frames_without_end_are_counted_as_far_as_two(write):
    """Each is a picture to decode; libwebp keeps two canvases beside."""
    path = write(riff(canvas(W, H, flags=2), *[frame(0, 0)] * 1000))
    np.testing.assert_array_equal(decode_image(path), RGB)
    assert read_header(path).notes == (FIRST_FRAME,)


def test_files_that_promise_another_picture_or_none(write):
    tall = struct.pack("<I", 16382 | 16382 << 14)
    cases = {
        "expected a WebP with a picture, found none": riff(),
        "expected a WebP with a picture, found none ": riff(canvas(W, H)),
        f"expected a picture of {W}x{H + 1} pixels, found {W}x{H}": riff(canvas(W, H + 1), PICTURE),
        "pixels, found 0x0": riff(chunk(b"VP8 ", bytes(20))),
        "pixels, found 16777216x16777216": riff(
            canvas(2**24, 2**24, flags=2), chunk(b"ANMF", bytes(16) + PICTURE)
        ),
        "cannot be decoded": riff(chunk(b"VP8L", b"\x2f" + tall + bytes(20))),
        "cannot be decoded: corrupt": riff(chunk(b"VP8L", PICTURE[8:30] + bytes(len(PICTURE)))),
    }
    for problem, data in cases.items():
        with pytest.raises(DatasetError) as caught:
            decode_image(write(data))
        assert problem.strip() in str(caught.value)


def test_chunks_are_counted(write, monkeypatch):
    monkeypatch.setattr(webp, "MAX_CHUNKS", 10)
    texts = [chunk(b"XMP ", b"")] * 9
    image_size(write(riff(canvas(W, H), *texts[:8], PICTURE)))
    with pytest.raises(DatasetError, match="expected at most 10 chunks, found more"):
        image_size(write(riff(canvas(W, H), *texts, PICTURE)))


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 90}])
def test_truncated_files_are_refused_at_every_length(options, write):
    data = encode(np.kron(RGB, np.ones((3, 3, 1), np.uint8)), **options)
    decode_image(write(data))
    padding = data[-1] == 0 and struct.unpack_from("<I", data, 16)[0] % 2
    for length in (20, 30, len(data) // 2, len(data) * 9 // 10, len(data) - 1 - padding):
        with pytest.raises(DatasetError):
            decode_image(write(data[:length]))
