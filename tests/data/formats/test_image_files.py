"""Finding images by the names that annotations give."""

import unicodedata

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


@pytest.mark.parametrize(
    "name",
    [
        "/data/local-files/?d=sub/a b.jpg",
        "/data/local-files/?d=sub%2Fa%20b.jpg",
        "?d=a%20b.jpg&x=1",
        "http://localhost:8080/data/upload/3/a%20b.jpg",
        "https://storage.example.com/bucket/a%20b.jpg?X-Signature=abc",
        "a%20b.png",
        "/content/drive/My Drive/SUB/A b.JPG",
        "..\\..\\media\\a b.jpg",
        "upload/3f2a9c1b-a b.jpg",
    ],
)
def test_addresses_and_paths_of_elsewhere(tmp_path, name):
    touch(tmp_path / "sub/a b.jpg")
    assert ImageFinder([tmp_path, tmp_path / "sub"]).find(name, PLACE).name == "a b.jpg"


def test_a_file_of_the_very_name_comes_first(tmp_path):
    touch(tmp_path / "a%20b.jpg", tmp_path / "a b.jpg", tmp_path / "A b.jpg")
    finder = ImageFinder([tmp_path])
    for name in ("a%20b.jpg", "a b.jpg", "A b.jpg"):
        assert finder.find(name, PLACE) == tmp_path / name
    assert finder.find("a b.png", PLACE) == tmp_path / "a b.jpg"
    with pytest.raises(DatasetError, match=r"one image A B\.\*, found A b\.jpg, a b\.jpg"):
        finder.find("A B.jpg", PLACE)


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_letters_with_accents_in_either_form(tmp_path, written):
    """The last "e" of "cafe" with its accent in one code point, or in two."""
    files = {form: unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")}
    assert len(files["NFC"]) == 4
    assert len(files["NFD"]) == 5
    touch(tmp_path / files[written] / f"{files[written]}.jpg")
    for name in files.values():
        found = ImageFinder([tmp_path]).find(f"{name}/{name}.jpg", PLACE)
        assert found == tmp_path / files[written] / f"{files[written]}.jpg"


def test_another_spelling_is_counted(tmp_path):
    touch(tmp_path / "a b.jpg", tmp_path / "c.png")
    judge = Judge()
    wanted = [(name, name, lambda: PLACE) for name in ("a%20b.jpg", "c.jpg")]
    assert len(find_images(wanted, ImageFinder([tmp_path]), judge)) == 2
    counts = {"image under another spelling": 1, "image under another suffix": 1}
    assert judge.defects.counts() == counts


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
    touch(tmp_path / "x.heic")
    with pytest.raises(
        DatasetError, match=r"found x\.heic, which is no JPEG, PNG, BMP, WebP, TIFF or GIF"
    ):
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
