"""Finding images by the names that annotations give."""

import pytest

from data.formats.bad_annotations import Judge
from data.formats.image_files import ImageFinder, files_in, find_images
from data.records import DatasetError

pytestmark = pytest.mark.quick
PLACE = "list.txt, line 1"


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_first_folder_that_has_the_name(tmp_path):
    touch(tmp_path / "b/x.jpg", tmp_path / "c/x.jpg", tmp_path / "c/sub/y.jpg")
    finder = ImageFinder([tmp_path / "not there", tmp_path / "b", tmp_path / "c"])
    assert finder.find("x.jpg", PLACE) == tmp_path / "b/x.jpg"
    assert finder.find("sub/y.jpg", PLACE) == tmp_path / "c/sub/y.jpg"
    assert finder.find("sub\\y.jpg", PLACE) == tmp_path / "c/sub/y.jpg"
    assert finder.find(str(tmp_path / "c/x.jpg"), PLACE) == tmp_path / "c/x.jpg"


def test_another_suffix_counts_where_no_folder_has_the_name(tmp_path):
    touch(tmp_path / "a/x.png", tmp_path / "b/x.tif.jpg", tmp_path / "b/y.jpg")
    finder = ImageFinder([tmp_path / "a", tmp_path / "b"])
    assert finder.find("x.tif", PLACE) == tmp_path / "a/x.png"
    assert finder.find("x.tif.png", PLACE) == tmp_path / "b/x.tif.jpg"


@pytest.mark.parametrize("name", ["/home/someone/x.jpg", r"C:\Users\someone\x.jpg"])
def test_of_another_machines_path_the_name_counts(tmp_path, name):
    touch(tmp_path / "x.jpg")
    assert ImageFinder([tmp_path]).find(name, PLACE) == tmp_path / "x.jpg"


def test_several_of_the_stem_are_ambiguous(tmp_path):
    touch(tmp_path / "x.png", tmp_path / "x.jpg")
    assert ImageFinder([tmp_path]).find("x.jpg", PLACE) == tmp_path / "x.jpg"
    with pytest.raises(DatasetError, match=r"one image x\.\*, found x.jpg, x.png") as error:
        ImageFinder([tmp_path]).find("x.tif", PLACE)
    assert error.value.kind == "ambiguous image"


def test_a_missing_image_names_the_folders_looked_in(tmp_path):
    touch(tmp_path / "x.txt")
    with pytest.raises(DatasetError, match=r"expected the image x.jpg in .*, found none") as error:
        ImageFinder([tmp_path]).find("x.jpg", PLACE)
    assert error.value.kind == "missing image"


def test_only_images_are_listed(tmp_path):
    touch(tmp_path / "b.JPG", tmp_path / "a.png", tmp_path / "._a.png", tmp_path / "c.txt")
    assert [path.name for path in files_in(tmp_path)] == ["a.png", "b.JPG"]
    assert files_in(tmp_path / "none") == []


def test_ever_fewer_of_the_last_folders_count(tmp_path):
    """As CVAT and Linux machines of others write them; an exact place comes first."""
    touch(tmp_path / "b/1.jpg", tmp_path / "a/1.jpg", tmp_path / "1.jpg")
    finder = ImageFinder([tmp_path])
    assert finder.find("data/x/b/1.jpg", PLACE) == tmp_path / "b/1.jpg"
    assert finder.find("/home/x/a/1.jpg", PLACE) == tmp_path / "a/1.jpg"
    assert finder.find("data/c/1.jpg", PLACE) == tmp_path / "1.jpg"


def test_an_image_of_another_kind_is_named(tmp_path):
    touch(tmp_path / "x.webp")
    with pytest.raises(DatasetError, match=r"found x\.webp, which is no JPEG, PNG or BMP"):
        ImageFinder([tmp_path]).find("x.jpg", PLACE)


def test_each_name_has_a_file_of_its_own(tmp_path):
    touch(tmp_path / "1.jpg", tmp_path / "2.png")
    names = ("a/1.jpg", "b/1.jpg", "2.jpg", "3.jpg", "a/1.jpg")
    wanted = [(key, name, lambda key=key: f"line {key}") for key, name in enumerate(names)]
    judge = Judge("drop")
    found = find_images(wanted, ImageFinder([tmp_path]), judge)
    assert found == {0: tmp_path / "1.jpg", 2: tmp_path / "2.png", 4: tmp_path / "1.jpg"}
    assert [kind for kind, _ in judge.defects.messages] == [
        "ambiguous image", "image under another suffix", "missing image"
    ]  # fmt: skip
    assert "line 1: 'b/1.jpg' is" in judge.defects.messages[0][1]
    with pytest.raises(DatasetError, match="line 3: expected the image 3"):
        find_images(wanted[3:], ImageFinder([tmp_path]), Judge())
