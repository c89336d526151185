"""JPEGs that lack their end marker or follow a line break: whole ones are read, others refused."""

import io

import numpy as np
import pytest
from PIL import Image

from data.images.decode import decode_image, read_header, read_image
from data.images.jpeg import NO_END, STRAY_BREAK
from data.records import DatasetError

pytestmark = pytest.mark.quick

H, W = 96, 128
RNG = np.random.default_rng(0)
# Blurred noise above, one colour below: the rows that a decoder makes up look like real ones.
PHOTO = np.kron(RNG.integers(0, 256, (H // 8, W // 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
PHOTO[H // 2 :] = 128


def encode(mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


KINDS = {
    "plain": encode(),
    "best": encode(quality=100, subsampling=0),
    "optimized": encode(optimize=True),
    "grey": encode("L"),
    "cmyk": encode("CMYK"),
    "progressive": encode(progressive=True),
    "grey progressive": encode("L", progressive=True),
    "restart markers": encode(restart_marker_blocks=5),
    "restart markers by row": encode("L", restart_marker_rows=1),
}


@pytest.fixture
def decoded(tmp_path):
    """A function: bytes -> pixels, or the message that refuses them."""

    def decoded(data):
        path = tmp_path / "image.jpg"
        path.write_bytes(data)
        try:
            return decode_image(path)
        except DatasetError as error:
            return str(error)

    return decoded


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_marker_is_read(kind, missing, decoded, tmp_path):
    expected = decoded(KINDS[kind])
    np.testing.assert_array_equal(decoded(KINDS[kind][:-missing]), expected)
    header = read_header(tmp_path / "image.jpg")
    assert (header.width, header.height, header.notes) == (W, H, (NO_END,))
    halved = read_image(tmp_path / "image.jpg").values(2)
    assert halved.shape == (H // 2, W // 2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_lacks_pixels_too_is_refused(kind, decoded):
    """Only where not a pixel is lost, it may be read: some bits are nothing but fill."""
    data = KINDS[kind]
    expected, first = decoded(data), data.index(b"\xff\xda")
    lengths = np.unique(np.linspace(first, len(data) - 3, 40).astype(int)).tolist()
    refused = 0
    for length in [*lengths, *range(len(data) - 20, len(data) - 3)]:
        found = decoded(data[:length])
        if isinstance(found, str):
            assert found.endswith(f"truncated: the image data ends early ({length} bytes)")
            refused += 1
        else:
            np.testing.assert_array_equal(found, expected)
    assert refused > 50


def test_zeros_in_place_of_the_last_pixels_are_refused(decoded):
    """As a download leaves them whose file was made in full size first: they decode to an image."""
    buffer = io.BytesIO()
    noise = RNG.integers(0, 256, (H, W, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", quality=100, subsampling=0)
    data = buffer.getvalue()
    for length in (len(data) // 2, len(data) * 3 // 4, len(data) - 500):
        zeros = bytes(len(data) - length)
        assert isinstance(decoded(data[:length] + zeros + b"\xff\xd9"), np.ndarray)
        assert "truncated" in decoded(data[:length] + zeros)


@pytest.mark.parametrize("num_blocks", range(2, 18))
def test_a_missing_last_stretch_between_restart_markers_is_refused(num_blocks, decoded):
    """Decoders fill it up without a look at what follows, but for the marker that comes next."""
    buffer = io.BytesIO()
    image = Image.fromarray(RNG.integers(0, 256, (8, 8 * num_blocks), np.uint8))
    image.save(buffer, "JPEG", restart_marker_blocks=1)
    data = buffer.getvalue()
    last = data.rindex(bytes([0xFF, 0xD0 + (num_blocks - 2) % 8]))
    for end in (last, last + 2):
        assert "truncated" in decoded(data[:end])
    np.testing.assert_array_equal(decoded(data[:-2]), decoded(data))


def test_a_progressive_jpeg_without_its_last_scans_is_refused(decoded):
    """Each scan is whole: what lacks is the last bit of some coefficients."""
    for kind in ("progressive", "grey progressive"):
        data = KINDS[kind]
        scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
        tables = [data.rfind(b"\xff\xc4", 0, scan) for scan in scans]
        assert len(scans) >= 6
        for table in tables[1:]:
            assert "truncated" in decoded(data[:table])


@pytest.mark.parametrize("stray", [b"\n", b"\r\n", b"\n\n"])
def test_a_line_break_before_a_jpeg_is_passed_over(stray, decoded, tmp_path):
    data = KINDS["plain"]
    np.testing.assert_array_equal(decoded(stray + data), decoded(data))
    decoded(stray + data)
    assert read_header(tmp_path / "image.jpg").notes == (STRAY_BREAK,)
    np.testing.assert_array_equal(decoded(stray + data[:-2]), decoded(data))
    decoded(stray + data[:-2])
    assert read_header(tmp_path / "image.jpg").notes == (STRAY_BREAK, NO_END)
    assert "truncated" in decoded(stray + data[:-100])


def test_other_bytes_before_a_jpeg_are_refused(decoded):
    for stray in (b" ", b"\n" * 16, b"\0"):
        assert "expected a JPEG" in decoded(stray + KINDS["plain"])


def test_what_follows_a_whole_jpeg_changes_nothing(decoded, tmp_path):
    data = KINDS["plain"]
    for tail in (b"\0" * 100, b"junk", data):
        np.testing.assert_array_equal(decoded(data + tail), decoded(data))
        decoded(data + tail)
        assert read_header(tmp_path / "image.jpg").notes == ()
