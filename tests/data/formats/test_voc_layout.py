"""Where people keep VOC's XML files, images and lists: which split each of them belongs to."""

import time

import pytest
from PIL import Image

from data.formats.voc import FORMAT, read_voc, voc_classes
from data.records import DatasetError

pytestmark = pytest.mark.quick

BOX = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>12</xmax><ymax>13</ymax></bndbox>"


@pytest.fixture
def make(tmp_path):
    """make("train/a.jpg", "train/a.xml", {"train.txt": "a"}) writes files below a folder."""

    def make(*paths, filename=""):
        for path in paths:
            if isinstance(path, dict):
                for name, text in path.items():
                    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / name).write_text(text)
                continue
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".xml":
                body = f"<filename>{filename}</filename><object><name>dog</name>{BOX}</object>"
                file.write_text(f"<annotation>{body}</annotation>")
            else:
                Image.new("RGB", (16, 16), (9, 99, 9)).save(file)
        return tmp_path

    return make


def read(root, split):
    """As training does."""
    return FORMAT.read_split(root, split, ("dog",), "error", {})


def images(root, split):
    return [image.removeprefix(f"{root}/") for image in read(root, split).images]


# ------------------------------------------------------------------------------------------------
# Folders
# ------------------------------------------------------------------------------------------------

# XML and image of a split: Roboflow, sibling folders, the TF Object Detection API, folders below
FOLDERS = [
    ("{split}/{stem}.xml", "{split}/{stem}.jpg"),
    ("{split}/annotations/{stem}.xml", "{split}/images/{stem}.jpg"),
    ("images/{split}/{stem}.xml", "images/{split}/{stem}.jpg"),
    ("annotations/{split}/{stem}.xml", "images/{split}/{stem}.jpg"),
    ("Annotations/{split}/{stem}.xml", "JPEGImages/{stem}.jpg"),
    ("{split}/Annotations/day/{stem}.xml", "{split}/JPEGImages/day/{stem}.jpg"),
]


@pytest.mark.parametrize("layout", FOLDERS)
@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_folders_are_splits(make, layout, val):
    for split, stem in (("train", "a"), ("train", "b"), (val, "c")):
        root = make(*(path.format(split=split, stem=stem) for path in layout))
    assert FORMAT.find_splits(root) == ["train", val]
    assert FORMAT.undivided(root) is None
    for split, named, stems in (("train", "train", "ab"), ("val", val, "c")):
        expected = [layout[1].format(split=named, stem=stem) for stem in stems]
        assert images(root, split) == expected
    assert read(root, "train").name == f"{root.name}/train"
    assert voc_classes(root, "val") == ("dog",)
    with pytest.raises(
        DatasetError, match=f"expected split 'test', found the folders train, {val}"
    ):
        read(root, "test")


def test_xml_beside_the_images_of_a_folder_unless_the_root_has_some(make):
    root = make("images/a.xml", "images/a.jpg")
    assert images(root, "all") == ["images/a.jpg"]
    make("b.xml", "images/b.jpg")
    (root / "images/a.jpg").unlink()
    assert images(root, "all") == ["images/b.jpg"]


def test_folders_in_capitals(make):
    root = make("Train/a.xml", "Train/a.jpg", "images/TEST/b.xml", "images/TEST/b.jpg")
    assert images(root, "train") == ["Train/a.jpg"]
    assert images(root, "test") == ["images/TEST/b.jpg"]


def test_a_folder_behind_another(make):
    root = make("mine/train/a.xml", "mine/train/a.jpg", "mine/train/b.xml", "mine/train/b.jpg")
    assert images(root, "mine/train") == ["mine/train/a.jpg", "mine/train/b.jpg"]
    assert len(read(root, "mine/train/all")) == 2
    assert len(read(root, "mine/train/val")) == 1


def test_a_flat_folder_is_undivided(make):
    root = make("a.xml", "a.jpg", "b.xml", "b.jpg", ".cache/c.xml", {"classes.txt": "dog"})
    assert FORMAT.find_splits(root) == ["all"]
    assert FORMAT.undivided(root) == "all"
    assert len(read(root, "train")) == len(read(root, "val")) == 1
    assert images(root, "all") == ["a.jpg", "b.jpg"]


def test_the_only_folder_is_undivided_unless_it_is_called_after_a_part(make):
    root = make("photos/a.xml", "photos/a.jpg", "photos/b.xml", "photos/b.jpg")
    assert FORMAT.undivided(root) == "photos"
    assert images(root, "all") == ["photos/a.jpg", "photos/b.jpg"]
    (root / "photos").rename(root / "test")
    assert FORMAT.undivided(root) is None
    with pytest.raises(DatasetError, match="expected split 'train', found the folders test"):
        read(root, "train")


def test_two_images_of_one_stem_in_two_folders_are_two(make):
    paths = [f"{top}/cam{i}/f0{suffix}" for i in (1, 2) for top, suffix in CVAT]
    root = make(*paths, "Annotations/.ipynb_checkpoints/f0.xml")
    dataset = read(root, "all")
    assert dataset.image_ids == ("cam1/f0", "cam2/f0")
    assert images(root, "all") == ["JPEGImages/cam1/f0.jpg", "JPEGImages/cam2/f0.jpg"]
    (root / "JPEGImages/cam2/f0.jpg").rename(root / "JPEGImages/f0.jpg")
    assert images(root, "all") == ["JPEGImages/cam1/f0.jpg", "JPEGImages/f0.jpg"]
    (root / "JPEGImages/cam1/f0.jpg").unlink()
    expected = "cam2/f0.xml: expected an image of its own, found .*f0.jpg, that of cam1/f0"
    with pytest.raises(DatasetError, match=expected):
        read(root, "all")


CVAT = (("Annotations", ".xml"), ("JPEGImages", ".jpg"))


def test_images_in_folders_and_xml_in_one(make):
    root = make(
        "Annotations/a.xml", "JPEGImages/x/a.jpg", "Annotations/b.xml", "JPEGImages/y/b.jpg"
    )
    make("Annotations/007.xml", "JPEGImages/y/c.jpg", filename="C:\\photos\\c.jpg")
    expected = ["JPEGImages/y/c.jpg", "JPEGImages/x/a.jpg", "JPEGImages/y/b.jpg"]
    assert images(root, "all") == expected
    make("JPEGImages/z/a.jpg")
    with pytest.raises(DatasetError, match=r"a\.xml: expected the image a\.\*"):
        read(root, "all")


def test_the_image_that_filename_says_is_the_one_in_the_folder_of_the_xml(make):
    for folder in "xy":
        make(f"Annotations/{folder}/1{folder}.xml", f"JPEGImages/{folder}/c.jpg", filename="c.jpg")
    root = make("Annotations/z/1z.xml", filename="c.jpg")
    dataset = read_voc(root, "all", on_bad_annotation="drop")
    assert dataset.image_ids == ("x/1x", "y/1y")
    assert dataset.images == tuple(str(root / f"JPEGImages/{f}/c.jpg") for f in "xy")
    assert dataset.defects.counts() == {"missing image": 1}


def test_accents_of_either_form_and_capitals(make):
    """macOS writes an accent as a character of its own."""
    root = make("a\u0308.xml", "\u00e4.jpg", "B.xml", "b.jpg", {"train.txt": "a\u0308\nB\n"})
    assert read(root, "train").image_ids == ("\u00e4", "B")
    assert images(root, "train") == ["\u00e4.jpg", "b.jpg"]
    (root / "train.txt").unlink()
    assert read(root, "all").image_ids == ("B", "\u00e4")  # none is without XML


def test_two_xml_files_of_a_stem(make):
    root = make("a.xml", "a.jpg")
    (root / "a.XML").write_text("<annotation/>")
    with pytest.raises(DatasetError, match=r"expected one XML file a\.\*, found a\.XML, a\.xml"):
        read(root, "all")


def test_cvat_s_xml_for_images_is_no_voc(make):
    text = "<?xml version='1.0'?>\n<annotations/>"
    root = make("images/annotations.jpg", {"annotations.xml": text})
    assert FORMAT.find_splits(root) == []
    (root / "annotations.xml").write_bytes("<annotations/>".encode("utf-16"))
    assert FORMAT.find_splits(root) == []
    with pytest.raises(DatasetError, match="found <annotations>: CVAT for images, not VOC"):
        read(root, "all")


# ------------------------------------------------------------------------------------------------
# Lists
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(make):
    """Annotations and JPEGImages of a, b, "c d" and "e 1", in folders of those names."""
    stems = ("a", "b", "c d", "e 1")
    return make(*(f"set/{top}/{stem}{suffix}" for stem in stems for top, suffix in CVAT)) / "set"


@pytest.mark.parametrize(
    "place",
    [
        "ImageSets/Main/{}.txt",
        "imagesets/main/{}.txt",
        "ImageSets/{}.txt",
        "ImageSets/Layout/{}.txt",
        "{}.txt",
        "{}_list.txt",
    ],
)
def test_lists_may_lie_in_other_places(tree, place):
    for split, text in (("train", "c d\na\n"), ("valid", "b\n")):
        path = tree / place.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tree / "labels.txt").write_text("dog\n")
    assert read(tree, "train").image_ids == ("c d", "a")
    assert read(tree, "val").image_ids == ("b",)
    assert len(FORMAT.find_splits(tree)) == 2
    assert FORMAT.undivided(tree) is None
    for split in ("test", "all"):
        with pytest.raises(DatasetError, match=r"\.txt: no such image set; there are train.*, val"):
            read(tree, split)


def test_two_lists_of_a_split_are_told_unless_one_is_in_main(tree, make):
    make({"set/ImageSets/train.txt": "a\n", "set/train.txt": "b\n"})
    expected = r"one list of split 'train', found .*/ImageSets/train\.txt and .*/train\.txt; keep"
    with pytest.raises(DatasetError, match=expected):
        read(tree, "train")
    make({"set/ImageSets/Layout/train.txt": "b\n"})
    with pytest.raises(DatasetError, match=r"ImageSets/train\.txt and .*/ImageSets/Layout/train\."):
        read(tree, "train")
    make({"set/ImageSets/Main/train.txt": "c d\n"})
    assert read(tree, "train").image_ids == ("c d",)


def test_a_list_in_a_flat_folder(make):
    root = make("a.xml", "a.jpg", "b.xml", "b.jpg", {"train.txt": "/content/obj/b.jpg\n"})
    assert read(root, "train").image_ids == ("b",)


def test_the_list_of_another_format_beside_folders_of_splits(make):
    """As darknet's, of images in the same folders."""
    root = make("train/a.xml", "train/a.jpg", {"train.txt": "train/a.jpg\ntrain/b.jpg\n"})
    assert FORMAT.find_splits(root) == ["train"]
    assert images(root, "train") == ["train/a.jpg"]


@pytest.mark.parametrize(
    "entry",
    [
        "{}",
        "{}.jpg",
        "{}.JPEG",
        "{}.xml",
        "./{}",
        "JPEGImages/{}.jpg",
        "./JPEGImages/{}.jpg",
        "Annotations/{}.xml",
        "/home/me/VOC2007/JPEGImages/{}.jpg",
        "C:\\data\\VOC2007\\JPEGImages\\{}.jpg",
        "JPEGImages/{}.jpg Annotations/{}.xml",
        "./JPEGImages/{}.jpg\t./Annotations/{}.xml",
        "D:\\x\\{}.jpg,D:\\x\\{}.xml",
        "{} -1",
        "{}.jpg 1",
    ],
)
def test_entries_of_every_kind(tree, make, entry):
    lines = [entry.replace("{}", stem) for stem in ("b", "c d", "e 1")]
    make({"set/ImageSets/Main/train.txt": "\n".join(lines)})
    assert read(tree, "train").image_ids == ("b", "c d", "e 1")


def test_entries_of_folders(make):
    root = make(
        *(f"{top}/{stem}{suffix}" for stem in ("x/a", "y/a", "y/b") for top, suffix in CVAT)
    )
    text = "y/a\nJPEGImages/x/a.jpg\nb\n"
    make({"ImageSets/Main/train.txt": text, "ImageSets/Main/val.txt": "y/a\na\n"})
    assert read(root, "train").image_ids == ("y/a", "x/a", "y/b")
    with pytest.raises(DatasetError, match=r"val\.txt, line 2: expected the name .*, found 'a'"):
        read(root, "val")
    make({"ImageSets/Main/val.txt": "z/b\n"})  # not the one of another folder
    with pytest.raises(DatasetError, match=r"val\.txt, line 1: expected the name .*, found 'z/b'"):
        read(root, "val")


def test_a_pair_says_which_image_it_is(make):
    root = make(
        "Annotations/1.xml", "JPEGImages/one.jpg", "Annotations/2.xml", "JPEGImages/two.jpg"
    )
    make({"ImageSets/Main/train.txt": "JPEGImages/two.jpg Annotations/1.xml\n"})
    assert images(root, "train") == ["JPEGImages/two.jpg"]
    make({"ImageSets/Main/train.txt": "Annotations/2.xml\n"})
    with pytest.raises(DatasetError, match=r"2\.xml: expected the image 2\.\*"):
        read(root, "train")


def test_an_entry_may_be_the_image_that_filename_says(make):
    root = make("Annotations/1.xml", "JPEGImages/IMG_7.jpg", filename="IMG_7.jpg")
    make({"ImageSets/Main/train.txt": "IMG_7.jpg\n"})
    assert images(root, "train") == ["JPEGImages/IMG_7.jpg"]


def test_entries_that_name_nothing_are_left_out_and_counted(tree, make):
    make({"set/ImageSets/Main/train.txt": "a\nnowhere/z.jpg\nb.png\na.xml\n"})
    dataset = read_voc(tree, "train", on_bad_annotation="drop")
    assert dataset.image_ids == ("a", "b")
    assert dataset.defects.counts() == {"missing annotation": 1, "duplicate id": 1}
    assert f"{tree}/ImageSets/Main/train.txt, line 2: " in dataset.defects.messages[0][1]
    assert "line 4: 'a' is listed twice" in dataset.defects.messages[1][1]


@pytest.mark.parametrize("name", ["default", "trainval", "all"])
def test_one_list_that_is_no_part_is_undivided(tree, make, name):
    make({f"set/ImageSets/Main/{name}.txt": "a\nb\nc d\n"})
    assert FORMAT.undivided(tree) == name
    assert sorted(read(tree, "train").image_ids + read(tree, "val").image_ids) == ["a", "b", "c d"]
    assert read(tree, "all").image_ids == ("a", "b", "c d")
    assert FORMAT.undivided(tree.parent) == name  # of the only tree in there
    assert len(read(tree.parent, "train")) == 2


def test_the_lists_of_classes_are_no_splits(tree, make):
    """As CVAT writes them: an empty one is of a class that the set has not."""
    make({"set/ImageSets/Main/default.txt": "a\nc d\n"})
    make({"set/ImageSets/Main/dog_default.txt": "c d  1\na -1\n"})
    make({"set/ImageSets/Main/cat_default.txt": ""})
    assert FORMAT.find_splits(tree) == ["default"]
    assert FORMAT.undivided(tree) == "default"
    make({"set/ImageSets/Main/my_default.txt": "a\n"})
    assert FORMAT.find_splits(tree) == ["default", "my_default"]


def test_a_tree_without_lists_is_undivided(tree):
    for folder in ("ImageSets", "ImageSets/Main"):
        (tree / folder).mkdir()
        assert FORMAT.undivided(tree) == "all"
        assert read(tree, "all").image_ids == ("a", "b", "c d", "e 1")


def test_lists_without_xml(make):
    root = make("JPEGImages/a.jpg", {"ImageSets/Main/train.txt": "a\n"})
    (root / "Annotations").mkdir()
    with pytest.raises(DatasetError, match=r"expected a VOC tree .*, found no XML file in"):
        read(root, "train")


def test_lists_that_are_not_text_and_folders_that_cannot_be_listed(tree, make):
    (tree / "train.txt").write_bytes(b"\xff\xfea\0")
    with pytest.raises(DatasetError, match=r"train\.txt, line 1: expected text in UTF-8"):
        read(tree, "train")
    (tree / "train.txt").unlink()
    (tree / "ImageSets").write_text("a file")
    assert len(read(tree, "all")) == 4


@pytest.mark.parametrize(
    "line", ["a" + " " * 2**20 + "b", "a.b " * 2**18, ".b " * 2**18 + "a.xml", "a/" * 2**19 + "a"]
)
def test_a_line_without_end_is_refused_quickly(tree, make, line):
    make({"set/train.txt": line})
    start = time.perf_counter()
    with pytest.raises(DatasetError, match=r"train\.txt, line 1: expected the name .*\.\.\.'"):
        read(tree, "train")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name", ["splits/train.txt", "ImageSets/Main/a/val.txt", "lists/test.csv"])
def test_lists_where_none_is_read_are_named(make, name):
    """Not a share by val_fraction, silently; a list of something else is none."""
    root = make("a.jpg", "a.xml", "b.jpg", "b.xml", {name: "JPEGImages/a.jpg 1\n"})
    with pytest.raises(
        DatasetError, match=f"expected lists of images in ImageSets/Main, .*/{name}"
    ):
        read(root, "train")
    (root / name).write_text("something else\n")
    assert len(read(root, "all").images) == 2


def test_images_of_another_type_are_named_where_no_other_is(make):
    root = make("Annotations/a.xml", {"JPEGImages/a.heic": "x"})
    with pytest.raises(DatasetError, match=r"found a\.heic, which is no JPEG"):
        read(root, "all")
