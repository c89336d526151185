"""What is kept of decoded images, and which of them are taken for the same."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data.doctor.findings import Shown
from data.doctor.pixels import (
    decoded,
    file_findings,
    read_facts,
    same_across,
    same_files,
    same_within,
)
from data.records import DatasetError, Defects, assemble
from data.slices import Slice

pytestmark = pytest.mark.quick


def picture(seed, contrast=255, size=(96, 128)):
    """(H, W, 3) uint8: a smooth random pattern."""
    small = np.random.default_rng(seed).uniform(0, contrast, (6, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.fixture
def dataset_of(tmp_path):
    """dataset_of({name: (pixels, boxes)}, **save options) writes the images and packs them."""

    def dataset_of(images, **options):
        for name, (pixels, _) in images.items():
            Image.fromarray(pixels).save(tmp_path / name, **options)
        boxes = [box for _, found in images.values() for box in found]
        index = [i for i, (_, found) in enumerate(images.values()) for _ in found]
        return assemble(
            "set",
            ("cat",),
            images=[str(tmp_path / name) for name in images],
            image_ids=list(images),
            sizes=np.array([pixels.shape[1::-1] for pixels, _ in images.values()]),
            image_index=np.array(index, int),
            boxes=boxes,
            labels=np.zeros(len(boxes)),
            defects=Defects(),
        )

    return dataset_of


def facts_of(dataset):
    return read_facts(dataset.images, "decoding")


def leaks(train, val):
    return same_across(train, val, decoded(facts_of(train)), decoded(facts_of(val)))


def test_facts_keep_the_order_and_the_errors(dataset_of, tmp_path):
    data = dataset_of({f"{i}.png": (picture(i), []) for i in range(9)})
    (tmp_path / "4.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    facts = facts_of(data)
    assert [isinstance(one, DatasetError) for one in facts] == [i == 4 for i in range(9)]
    for i in (0, 8):
        expected = picture(i).reshape(16, 6, 16, 8, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(facts[i].thumbnail, expected, atol=1)
    (found,) = file_findings(data, facts, "val")
    assert (found.severity, found.stops, found.file) == ("error", True, str(tmp_path / "4.png"))


@pytest.mark.parametrize(
    ("mode", "colours"),
    [
        ("RGB", None),
        ("L", "grayscale"),
        ("1", "grayscale"),
        ("LA", "grayscale with alpha"),
        ("P", "palette"),
        ("RGBA", "RGB with alpha"),
        ("I;16", "16 bits a value"),
    ],
)
def test_colours(dataset_of, tmp_path, mode, colours):
    data = dataset_of({"a.png": (picture(0), [])})
    image = Image.fromarray(picture(0))
    if mode == "I;16":
        image = Image.fromarray(picture(0)[..., 0].astype(np.uint16) * 256)
    else:
        image = image.convert(mode)
    for name in ("a.png", "a.tif"):
        image.save(tmp_path / name)
        data = replace(data, images=(str(tmp_path / name),))
        found = file_findings(data, facts_of(data), "train")
        assert [f.kind for f in found] == (["not plain RGB"] if colours else []), name
        assert all(f": {colours}: " in f.message for f in found)


def test_colours_of_webp_and_gif(dataset_of, tmp_path):
    data = dataset_of({"a.png": (picture(0), [])})
    rgb = Image.fromarray(picture(0))
    for name, image, colours in (
        ("a.webp", rgb, []),
        ("b.webp", Image.fromarray(picture(0)[..., [0, 1, 2, 0]]), ["RGB with alpha"]),
        ("c.gif", rgb.convert("P"), ["palette"]),
    ):
        image.save(tmp_path / name)
        data = replace(data, images=(str(tmp_path / name),))
        found = file_findings(data, facts_of(data), "train")
        assert [f.message.split(": ")[1] for f in found] == colours


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.jpg", "JPEG"), ("a.jpeg", "PNG"), ("a.JPG", "BMP"), ("a.png", "WebP"), ("a.gif", "TIFF")],
)
def test_suffixes_that_lie(dataset_of, tmp_path, name, kind):
    data = dataset_of({name: (picture(0), [])})
    Image.fromarray(picture(0)).save(tmp_path / name, format=kind)
    found = file_findings(data, facts_of(data), "train")
    assert [f.kind for f in found] == ([] if kind == "JPEG" else ["mislabelled image file"])
    assert all(f"is a {kind} file" in f.message for f in found)


def test_what_a_record_calls_its_image_is_no_suffix_of_a_file(dataset_of, tmp_path):
    data = dataset_of({"a.png": (picture(0), [])})
    part = Slice(str(tmp_path / "a.png"), 0, (tmp_path / "a.png").stat().st_size, "a.jpg")
    data = replace(data, images=(str(part),))
    assert file_findings(data, facts_of(data), "train") == []


def test_a_size_that_the_annotations_only_state(dataset_of):
    """Where a reader does not look at the images, as COCO's may."""
    data = dataset_of({"a.png": (picture(0), [[0, 0, 9, 9]])})
    data = replace(data, sizes=np.array([[96, 128]], np.int32))
    (found,) = file_findings(data, facts_of(data), "train")
    assert (found.kind, found.severity) == ("size disagrees with the image", "warning")
    assert "expected 128x96 as the image has, found 96x128" in found.message


def test_the_same_pixels_in_another_file(dataset_of):
    """PNG and BMP: other bytes."""
    box = [1, 1, 9, 9]
    data = dataset_of(
        {
            "a.png": (picture(0), [box, [2, 2, 30, 30]]),
            "b.bmp": (picture(0), [[2, 2, 30, 30], box]),
            "c.png": (picture(0), [box]),
            "d.png": (picture(1), [box]),
        }
    )
    found = same_within(data, decoded(facts_of(data)), "train")
    assert [(f.kind, f.severity) for f in found] == [
        ("identical images", "note"),
        ("identical images, different boxes", "warning"),
    ]
    assert found[1].shown == (Shown("train", 0), Shown("train", 2))


def test_pixels_of_another_shape_are_others(dataset_of):
    flat = np.full((8, 32, 3), 90, np.uint8)
    data = dataset_of({"a.png": (flat, []), "b.png": (flat.reshape(16, 16, 3), [])})
    assert same_within(data, decoded(facts_of(data)), "train") == []


def test_leaks(dataset_of):
    """A copy, a smaller and coarser one; another picture and a cropped one are none."""
    train = dataset_of({f"t{i}.png": (picture(i), []) for i in range(5)})
    smaller = np.asarray(Image.fromarray(picture(3)).resize((64, 48), Image.Resampling.BOX))
    val = dataset_of(
        {
            "v0.bmp": (picture(2), []),
            "v1.jpg": (smaller, []),
            "v2.png": (picture(9), []),
            "v3.png": (picture(4)[:, 32:], []),
        }
    )
    found = leaks(train, val)
    assert [(f.kind, f.shown) for f in found] == [
        ("image in train and val", (Shown("train", 2), Shown("val", 0))),
        ("near-identical image in train and val", (Shown("train", 3), Shown("val", 1))),
    ]
    assert train.images[2] in found[0].message
    assert same_files(train, val) == []


def test_images_with_nothing_on_them_are_not_taken_for_the_same(dataset_of):
    """As near to each other as re-encoded ones, but as far as they are from their own mean."""
    train = dataset_of({"t.png": (picture(0, contrast=4), [])})
    val = dataset_of({"v.png": (picture(1, contrast=4), [])})
    assert leaks(train, val) == []


def test_the_shape_counts(dataset_of):
    """A picture squeezed to a square has the same thumbnail."""
    train = dataset_of({"t.png": (picture(0), [])})
    squeezed = np.asarray(Image.fromarray(picture(0)).resize((96, 96), Image.Resampling.BICUBIC))
    assert leaks(train, dataset_of({"v.png": (squeezed, [])})) == []


def test_a_nearer_one_of_another_shape_hides_nothing(dataset_of):
    """The thumbnail of the squeezed picture is the same, that of the coarser copy only near."""
    squeezed = np.asarray(Image.fromarray(picture(3)).resize((96, 96), Image.Resampling.BOX))
    coarser = np.asarray(Image.fromarray(picture(3)).resize((16, 12), Image.Resampling.BOX))
    train = dataset_of({"squeezed.png": (squeezed, []), "coarser.png": (coarser, [])})
    val = dataset_of({"v.png": (picture(3), [])})
    rms = [
        np.square(one.thumbnail.astype(float) - facts_of(val)[0].thumbnail).mean()
        for one in facts_of(train)
    ]
    assert rms[0] < rms[1], "else nothing is tested"
    (found,) = leaks(train, val)
    assert found.kind == "near-identical image in train and val"
    assert found.shown == (Shown("train", 1), Shown("val", 0))
