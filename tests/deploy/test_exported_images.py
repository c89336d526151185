"""The images that an exported detector takes, and what it says to everything else."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import data.images.decode
from data.inputs import as_stored
from deploy.exported import ExportedDetector, to_rgb

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)
RGB = cv2.resize(RNG.integers(0, 256, [5, 7, 3], np.uint8), (70, 50))
GRAY = np.ascontiguousarray(RGB[..., 1])
ONE = "expected a path, an array (H, W, 3) uint8 RGB or (H, W) gray, or a PIL image, found "


def looking(bits=None):
    """A detector that finds one box, with the mean of the pixels in place of a score."""

    def run(image):
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
        height, width = image.shape[:2]
        return {
            "boxes": np.array([[0, 0, width, height]], np.float32),
            "scores": np.array([image.astype(np.float64) @ [1, 2, 3]]).mean((1, 2)),
            "labels": np.zeros(1, np.int32),
        }

    about = {"version": 1, "classes": ["cat"], "outputs": "detections", "bits": bits}
    return ExportedDetector(run, about)


def mean(pixels):
    return (pixels.astype(np.float64) @ [1, 2, 3]).mean()


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), RGB[..., ::-1])
    return path


def test_one_image_of_each_kind_gives_a_tuple(photo):
    gray = np.repeat(GRAY[..., None], 3, axis=2)
    rgba = np.dstack([RGB, GRAY])
    for image, expected in (
        (photo, RGB),
        (str(photo), RGB),
        (RGB, RGB),
        (np.asfortranarray(RGB), RGB),
        (RGB[::-1, ::-1], RGB[::-1, ::-1]),
        (GRAY, gray),
        (GRAY[..., None], gray),
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(rgba, "RGBA"), RGB),
        (Image.fromarray(GRAY), gray),
        (Image.open(photo), RGB),
        (Image.fromarray(GRAY).convert("P"), gray),
        (Image.fromarray(np.dstack([GRAY, GRAY]), "LA"), gray),
        (Image.fromarray(GRAY > 99), np.repeat(255 * (GRAY > 99)[..., None], 3, axis=2)),
    ):
        found = looking().detect(image)
        assert isinstance(found, tuple)
        boxes, scores, labels, names = found
        assert boxes.tolist() == [[0, 0, 70, 50]]
        assert scores[0] == pytest.approx(mean(expected), abs=1e-9)
        assert names == ["cat"]
        assert labels.tolist() == [0]


def test_several_images_give_a_list_in_their_order(photo):
    several = [photo, RGB[:20], Image.fromarray(RGB[:30]), GRAY[:10], str(photo)]
    heights = [50, 20, 30, 10, 50]
    for images in (several, tuple(several), iter(several)):
        found = looking().detect(images)
        assert [boxes[0, 3] for boxes, *_ in found] == heights
    for images in (photo.parent.glob("*.png"), np.array([str(photo)]), [RGB]):
        (found,) = looking().detect(images)
        assert found[1][0] == pytest.approx(mean(RGB))


class Tensor:
    """As TensorFlow's and torch's are: with a length, a shape and `numpy`."""

    shape, dtype = (50, 70, 3), "uint8"

    def __iter__(self):
        raise AssertionError

    def numpy(self):
        raise AssertionError


BAD = {
    "none": (None, f"image: {ONE}None, which cv2.imread returns for a file it cannot read"),
    "none among": ([RGB, None], f"image 1: {ONE}None, which cv2.imread"),
    "number": (3, f"image: {ONE}int"),
    "bytes": (b"abc", f"image: {ONE}bytes"),
    "dict": ({"a": RGB}, f"image: {ONE}dict"),
    "nested": ([[RGB]], f"image 0: {ONE}list"),
    "numbers": ([1, 2], f"image 0: {ONE}int"),
    "tensor": (Tensor(), f"image: {ONE}Tensor: for a tensor say .numpy()"),
    "tensors": ([Tensor()], f"image 0: {ONE}Tensor: for a tensor say .numpy()"),
    "empty": ([], "images: expected one or more, found an empty list"),
    "empty array": (np.array([]), "images: expected one or more, found an empty ndarray"),
    "batch": (RGB[None], "found (1, 50, 70, 3) of uint8: for a batch say list(images)"),
    "float": (RGB / 255, "found (50, 70, 3) of float64: bring values to 0-255, then .astype"),
    "bool": (RGB > 9, "found (50, 70, 3) of bool"),
    "16 bits": (RGB.astype(np.uint16), "found (50, 70, 3) of uint16"),
    "objects": (np.full([2, 2, 3], None), "found (2, 2, 3) of object"),
    "no pixel": (RGB[:0], "image: expected (H, W, 3) uint8 RGB or (H, W) uint8 gray, found (0, 70"),
    "scalar": (np.uint8(3), f"image: {ONE}uint8"),
    "RGBA": (np.dstack([RGB, GRAY]), "found 4, (50, 70, 4): for RGBA say image[..., :3]"),
    "2 bands": (RGB[..., :2], "expected 3 bands (RGB) or 1 (gray), found 2, (50, 70, 2)"),
    "13 bands": (np.zeros([9, 9, 13], np.uint8), "expected 3 bands (RGB) or 1 (gray), found 13"),
    "channels first": (RGB.transpose(2, 0, 1), "found 70, (3, 50, 70)"),
    "PIL I": (Image.new("I", (9, 9)), "expected a PIL image of 8 bits, found mode I: bring the"),
    "PIL I;16": (Image.new("I;16", (9, 9)), "expected a PIL image of 8 bits, found mode I;16"),
    "PIL F": (Image.new("F", (9, 9)), "expected a PIL image of 8 bits, found mode F"),
    "PIL empty": (Image.new("RGB", (0, 9)), "expected a PIL image with pixels, found size (0, 9)"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_refused_in_one_line(kind):
    image, message = BAD[kind]
    with pytest.raises(ValueError, match=r"^image(s| \d)?: ") as caught:
        looking().detect(image)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------
# Files
# ------------------------------------------------------------------------------------------------


def cut_jpeg(path):
    """Without its last bytes, but with the end mark of the thumbnail in its EXIF block."""
    thumbnail = b"Exif\0\0" + cv2.imencode(".jpg", RGB[:9, :9])[1].tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    data = cv2.imencode(".jpg", RGB)[1].tobytes()
    path.write_bytes((data[:2] + segment + data[2:])[:-300])


def cut_png(path):
    path.write_bytes(cv2.imencode(".png", RGB)[1].tobytes()[:-200])


def a_giant(path):
    """A header of a PNG that claims 60,000 x 60,000 pixels."""
    data = bytearray(cv2.imencode(".png", RGB)[1].tobytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


BAD_FILES = {
    "absent": (lambda path: None, "cannot be read: No such file"),
    "text": (lambda path: path.write_text("hello"), "expected an image file, found none that can"),
    "empty": (lambda path: path.touch(), "expected an image file, found none that can be decoded"),
    "folder": (lambda path: path.mkdir(), "expected an image file, found a folder or device"),
    "pipe": (os.mkfifo, "expected an image file, found a folder or device"),
    "endless": (lambda path: path.symlink_to("/dev/zero"), "found a folder or device"),
    "cut JPEG": (cut_jpeg, "truncated: the image data ends early ("),
    "cut PNG": (cut_png, "truncated: the image data ends early ("),
    "a giant": (a_giant, "expected an image file, found "),
    "numbers": (
        lambda path: path.write_bytes(cv2.imencode(".hdr", RGB.astype(np.float32))[1]),
        "expected values of 8 or 16 bits, found float32",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_named_in_one_line(kind, tmp_path):
    path = tmp_path / "photo"
    make, message = BAD_FILES[kind]
    make(path)
    for image in (path, [RGB, str(path)]):
        with pytest.raises(ValueError, match=r"photo: ") as caught:
            looking().detect(image)
        assert str(caught.value).startswith(f"{path}: ")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_damaged_pil_image_is_refused(tmp_path):
    data = io.BytesIO()
    Image.fromarray(RGB).save(data, "JPEG")
    image = Image.open(io.BytesIO(data.getvalue()[:-300]))
    with pytest.raises(ValueError, match=r"^image 0: expected an image, found one that PIL cannot"):
        looking().detect([image])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_and_pil_images_are_turned_as_by_the_pipeline(orientation, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    for suffix in (".png", ".jpg", ".webp"):
        path = tmp_path / f"turned{suffix}"
        Image.fromarray(RGB).save(path, exif=exif)
        expected = data.images.decode.decode_image(path)
        np.testing.assert_array_equal(to_rgb(path, "", 16), expected)
        np.testing.assert_array_equal(to_rgb(Image.open(path), "", 16), expected)


def with_exif(path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(RGB).save(path, exif=exif)
    return Image.open(path)


def with_xmp_alone(path):
    """As editors write it; PNG holds it as text."""
    xmp = '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    if path.suffix == ".png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp)
        Image.fromarray(RGB).save(path, pnginfo=text)
    else:
        Image.fromarray(RGB).save(path, xmp=xmp.encode())
    image = Image.open(path)
    assert image.getexif()[274] == 6
    return image


def set_in_memory(path):
    Image.fromarray(RGB).save(path)
    image = Image.open(path)
    image.getexif()[274] = 6
    return image


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(
    ("make", "size"), [(with_exif, (70, 50)), (with_xmp_alone, (50, 70)), (set_in_memory, (50, 70))]
)
def test_an_opened_image_is_turned_as_its_file_is_here_and_by_the_detector(
    make, size, suffix, tmp_path
):
    path = tmp_path / f"photo{suffix}"
    expected = data.images.decode.orient(*as_stored(make(path), 0))
    assert expected.shape[:2] == size
    np.testing.assert_array_equal(to_rgb(make(path), "", 16), expected)
    np.testing.assert_array_equal(to_rgb(path, "", 16), data.images.decode.decode_image(path))
    np.testing.assert_array_equal(to_rgb(path, "", 16), expected)


BLOCKS = {
    "nothing": b"",
    "no TIFF": b"Exif\0\0ab",
    "little endian": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0",
    "big endian": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0",
    "nine": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
    "cut": b"II*\0\x08\0\0\0\xff\xff",
    "far away": b"II*\0\xff\xff\xff\xff\x01\0",
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_an_exif_block_says_the_same_here_and_to_the_detector(kind):
    image = Image.fromarray(RGB)
    image.info["exif"] = BLOCKS[kind]
    pixels, orientation = as_stored(image, 0)
    assert orientation == (6 if "endian" in kind else 1)
    np.testing.assert_array_equal(
        to_rgb(image, "", 16), data.images.decode.orient(pixels, orientation)
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_pixels_of_files_are_those_of_the_pipeline(suffix, tmp_path):
    for i, pixels in enumerate((RGB, GRAY, np.dstack([RGB, GRAY]))):
        if suffix == ".jpg" and i == 2:
            continue
        path = tmp_path / f"{i}{suffix}"
        cv2.imwrite(str(path), pixels)
        np.testing.assert_array_equal(to_rgb(path, "", 16), data.images.decode.decode_image(path))


def test_what_opencv_decodes_otherwise_is_refused_by_name(tmp_path):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / "a.tif")
    frames[0].save(tmp_path / "a.gif")
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    for name, kind in (("a.tif", "a TIFF"), ("a.gif", "a GIF"), ("a.webp", "an animated WebP")):
        expected = f"expected a JPEG, PNG, BMP or WebP, found {kind}: pass its pixels instead"
        with pytest.raises(ValueError, match=expected):
            to_rgb(tmp_path / name, "", 16)


def test_cmyk_is_converted_as_by_the_pipeline(tmp_path):
    ink = Image.fromarray(RNG.integers(0, 256, [9, 8, 4], np.uint8), "CMYK")
    ink.save(tmp_path / "a.jpg", quality=100, subsampling=0)
    expected = data.images.decode.decode_image(tmp_path / "a.jpg")
    assert abs(to_rgb(tmp_path / "a.jpg", "", 16).astype(int) - expected).max() == 0
    found = to_rgb(Image.open(tmp_path / "a.jpg"), "", 16)
    assert abs(found.astype(int) - expected).max() <= 2  # of two decoders


@pytest.mark.parametrize("bits", [None, 8, 10, 12, 16])
@pytest.mark.parametrize("bands", [1, 3])
def test_of_16_bits_those_in_use_are_seen(bits, bands, tmp_path):
    """By hand: of 12 bits 4095 is 255, 2048 is 128, 15 is 0, and what is beyond is 255."""
    used = bits or 16
    top = 2**used - 1
    values = np.array([0, 2 ** (used - 8) - 1, 2 ** (used - 1), top, min(top + 1, 65535)])
    expected = [0, 0, 128, 255, 255]
    pixels = np.repeat(values[None, :, None], bands, axis=2).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    found = []

    def run(image):
        found.append(image)
        return {"boxes": np.zeros([0, 4]), "scores": np.zeros(0), "labels": np.zeros(0, int)}

    about = {"version": 1, "classes": ["cat"], "outputs": "detections", "bits": bits}
    ExportedDetector(run, about).detect(tmp_path / "a.png")
    np.testing.assert_array_equal(found[0][0], np.repeat(np.array(expected)[:, None], 3, axis=1))
    pixels = RNG.integers(0, 65536, [40, 30, bands], np.uint16) >> RNG.integers(0, 9, [40, 30, 1])
    cv2.imwrite(str(tmp_path / "a.png"), pixels.astype(np.uint16))
    expected = data.images.decode.decode_image(tmp_path / "a.png", bits)
    np.testing.assert_array_equal(to_rgb(tmp_path / "a.png", "", used), expected)
    assert expected.std() > 20


def test_colours_of_16_bits_keep_their_order(tmp_path):
    pixels = RGB.astype(np.uint16) << 4
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    np.testing.assert_array_equal(to_rgb(tmp_path / "a.png", "", 12), RGB)


def test_an_image_of_any_shape_is_taken():
    for height, width in ((1, 1), (1, 3000), (3000, 1)):
        boxes, *_ = looking().detect(np.zeros([height, width], np.uint8))
        assert boxes.tolist() == [[0, 0, width, height]]
