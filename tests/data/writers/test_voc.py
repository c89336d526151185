import numpy as np
import pytest
from lxml import etree

from data.formats.voc import read_voc
from data.writers.voc import write_voc

pytestmark = pytest.mark.quick

BOX = (1, 2, 12, 13)


def test_the_files_of_one_split(toolbox):
    dataset = toolbox.dataset([(1, (0, 0.5, 12, 13.25), 0, True, False, None)])
    root, losses = toolbox.written(write_voc, dataset, "JPEGImages")
    assert losses == []
    assert (root / "ImageSets/Main/train.txt").read_text("utf-8") == "a#t=1\nz 1\nété, là\n"
    tree = etree.parse(str(root / "Annotations" / "z 1.xml"))
    assert tree.findtext("filename") == "z 1.png"
    assert [tree.findtext(f"size/{tag}") for tag in ("width", "height")] == ["1000", "777"]
    (item,) = tree.findall("object")
    assert [item.findtext(tag) for tag in ("name", "difficult")] == ["chat, noir", "1"]
    corners = [item.findtext(f"bndbox/{c}") for c in ("xmin", "ymin", "xmax", "ymax")]
    assert corners == ["1", "1.5", "12", "13.25"]
    assert not etree.parse(str(root / "Annotations" / "a#t=1.xml")).findall("object")


def test_what_voc_cannot_hold_is_told(toolbox):
    rows = [
        (0, BOX, 1, False, True, None),
        (0, BOX, 2, True, True, 7),
        (0, BOX, 3, False, False, None),
    ]
    dataset = toolbox.dataset(rows, category_ids=(5, 6, 7, 8))
    root, losses = toolbox.written(write_voc, dataset, "JPEGImages")
    assert losses == [
        "2 regions to ignore: became difficult objects; train with data.train_on_difficult=False",
        "1 areas other than their box's: VOC has no areas",
        "4 category ids: VOC has none",
    ]
    assert read_voc(root, "train", toolbox.classes).difficult.tolist() == [True, True, False]


def test_boxes_a_reader_finds_empty_are_left_out(toolbox):
    boxes = [(5, 5, 6, 9), (5, 5, 9, 5.5), (0, 0, 1.0001, 9)]
    dataset = toolbox.dataset([(0, box, 0, False, False, None) for box in boxes])
    root, losses = toolbox.written(write_voc, dataset, "JPEGImages")
    assert len(losses) == 1
    assert losses[0].startswith("2 boxes at most 1 px wide or high: left out")
    found = read_voc(root, "train", toolbox.classes)
    np.testing.assert_array_equal(found.boxes, boxes[2:])


def test_an_image_of_two_splits_has_the_same_objects_in_both(toolbox):
    dataset = toolbox.dataset([(0, BOX, 1, False, False, None)])
    root, _ = toolbox.written(write_voc, dataset, "JPEGImages")
    write_voc(dataset, root, "again", toolbox.names)
    with pytest.raises(ValueError, match=r"a#t=1\.xml: another split has the image with other obj"):
        write_voc(toolbox.dataset([]), root, "val", toolbox.names)
