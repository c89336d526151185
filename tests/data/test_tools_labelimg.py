"""LabelImg's files in its modes PascalVOC and YOLO are read as docs/datasets.md says."""

import numpy as np
import pytest
from PIL import Image

from tests.data.documented_tools import splits_of

pytestmark = pytest.mark.quick

XML = """<annotation><folder>photos</folder><filename>{name}</filename>
<path>C:\\Users\\me\\photos\\{name}</path><source><database>Unknown</database></source>
<size><width>40</width><height>40</height><depth>3</depth></size><segmented>0</segmented>
<object><name>cat</name><pose>Unspecified</pose><truncated>1</truncated>
<difficult>{difficult}</difficult><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>25</ymax>
</bndbox></object></annotation>"""
STEMS = [f"IMG_{number}" for number in range(8)]


@pytest.fixture
def photos(tmp_path):
    """photos("images") makes eight of different bytes in such a folder; returns the root."""

    def photos(folder):
        (tmp_path / folder).mkdir(exist_ok=True)
        for number, stem in enumerate(STEMS):
            Image.new("RGB", (40, 40), (9 * number,) * 3).save(tmp_path / folder / f"{stem}.JPG")
        return tmp_path

    return photos


def assert_shared_out(splits):
    """A quarter of the photos is val; each shows a cat at 10, 5, 30, 25."""
    assert (len(splits["train"]), len(splits["val"])) == (6, 2)
    assert sorted(splits["train"].image_ids + splits["val"].image_ids) == STEMS
    for split in splits.values():
        np.testing.assert_allclose(split.boxes, [[10, 5, 30, 25]] * len(split))
        assert split.classes[split.labels[0]] == "cat"
        assert split.defects.counts() == {}


@pytest.mark.parametrize(("images", "annotations"), [("", ""), ("images", "annotations")])
def test_pascal_voc(photos, images, annotations):
    root = photos(images)
    (root / annotations).mkdir(exist_ok=True)
    (root / "predefined_classes.txt").write_text("dog\ncat\n")
    for number, stem in enumerate(STEMS):
        text = XML.format(name=f"{stem}.JPG", difficult=int(number == 3))
        (root / annotations / f"{stem}.xml").write_text(text)
    splits = splits_of("LabelImg", "voc", root)
    assert_shared_out(splits)
    difficult = [name for s in splits.values() for name in np.array(s.image_ids)[s.difficult]]
    assert difficult == ["IMG_3"]
    (root / annotations / "IMG_5.xml").unlink()
    counts = [split.defects.counts() for split in splits_of("LabelImg", "voc", root).values()]
    assert counts == [{"image without XML": 1}] * 2, "each split says what the whole has"


def test_yolo(photos):
    root = photos("")
    (root / "classes.txt").write_text("dog\ncat\n")
    for stem in STEMS:
        (root / f"{stem}.txt").write_text("1 0.500000 0.375000 0.500000 0.500000\n")
    assert_shared_out(splits_of("LabelImg", "yolo", root))
