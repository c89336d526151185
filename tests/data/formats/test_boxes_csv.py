"""The CSV reader: the forms boxes are written in, and one test a way of getting them wrong."""

import csv

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.formats.boxes_csv import FORMAT, _image_ids, csv_classes, read_csv
from data.formats.voc import read_voc
from data.records import DatasetError

pytestmark = pytest.mark.full

W, H = 40, 30
BOX = "a.jpg,2,3,12,13,dog"


def write_image(path, size=(W, H), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path, **options)


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def folder(tmp_path):
    """folder(text, "c d.png") makes a folder with train.csv and a.jpg, b.jpg, "c d.png"."""

    def folder(text, *images, file="train.csv"):
        root = tmp_path / "set"
        for name in ("a.jpg", "b.jpg", *images):
            write_image(root / name)
        write_text(root / file, text)
        return root

    return folder


def assert_defect(root, kind, *parts, num_images=1, num_boxes=1, classes=("dog",), **options):
    """One defect: "error" raises a line with `parts`; "drop" counts the same line under `kind`."""
    with pytest.raises(DatasetError) as caught:
        read_csv(root, "train", classes, **options)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    assert len(message) < 1000
    assert caught.value.kind == kind
    dataset = read_csv(root, "train", classes, on_bad_annotation="drop", **options)
    assert dataset.defects.messages == [(kind, message)]
    assert (len(dataset), len(dataset.labels)) == (num_images, num_boxes)


# ------------------------------------------------------------------------------------------------
# Forms
# ------------------------------------------------------------------------------------------------


def test_without_header(folder):
    root = folder("b.jpg,1,2,10.5,12,dog\na.jpg,,,,,\nb.jpg,0,0,40,30,cat\n")
    dataset = read_csv(root, "train")
    assert dataset.name == "set/train"
    assert dataset.classes == ("cat", "dog")
    assert dataset.image_ids == ("b", "a")
    assert dataset.images == (str(root / "b.jpg"), str(root / "a.jpg"))
    np.testing.assert_array_equal(dataset.sizes, [[W, H]] * 2)
    np.testing.assert_array_equal(dataset.boxes, [[1, 2, 10.5, 12], [0, 0, 40, 30]])
    np.testing.assert_array_equal(dataset.labels, [1, 0])
    np.testing.assert_array_equal(dataset.row_splits, [0, 2, 2])
    assert dataset.defects.counts() == {}
    assert csv_classes(root, "train") == ("cat", "dog")
    assert read_csv(root, "train", ["dog", "cat"]).labels.tolist() == [0, 1]


ROWS = {"tensorflow": "a.jpg,40,30,dog,2,3,12,13"}
HEADERS = {
    "tensorflow": ("filename,width,height,class,xmin,ymin,xmax,ymax", ROWS["tensorflow"]),
    "deepforest": ("image_path,xmin,ymin,xmax,ymax,label", BOX),
    "corners": ("label,y2,x2,y1,x1,path", "dog,13,12,3,2,a.jpg"),
    "sides": ("Image, Left, Top, Right, Bottom, Category Name", "a.jpg, 2, 3, 12, 13, dog"),
    "mixed": ('"X_Min","Y-Min",XMAX,ymax,IMAGE_ID,"Name"', '2,3,"12",13,a.jpg,"dog"'),
    "unknown-columns": (",img,x1,y1,x2,y2,class,score", "0,a.jpg,2,3,12,13,dog,x"),
    "two-of-a-kind": ("image_id,filename,x1,y1,x2,y2,name,class", "7,a.jpg,2,3,12,13,Rex,dog"),
    "xywh": ("image_name,label,x,y,width,height", "a.jpg,dog,2,3,10,10"),
    "short": ("img,x,y,w,h,class", "a.jpg,2,3,10,10,dog"),
    "short-and-size": ("img,x,y,w,h,class,width,height", "a.jpg,2,3,10,10,dog,40,30"),
    "corner-and-sides": ("filename,xmin,ymin,width,height,class", "a.jpg,2,3,10,10,dog"),
    "sides-and-size": (
        "filename,xmin,ymin,width,height,class,image_width,image_height",
        "a.jpg,2,3,10,10,dog,40,30",
    ),
    "corners-and-two-sizes": (
        "filename,width,height,class,xmin,ymin,xmax,ymax,image_width,image_height",
        "a.jpg,10,10,dog,2,3,12,13,40,30",
    ),
    "corners-and-a-point": ("filename,x,y,xmin,ymin,xmax,ymax,class", "a.jpg,7,8,2,3,12,13,dog"),
    "center": ("image,x_center,y_center,width,height,class", "a.jpg,7,8,10,10,dog"),
    "makesense": (
        "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height",
        "dog,2,3,10,10,a.jpg,40,30",
    ),
    "traffic-signs": ("Filename,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId", "a.jpg,2,3,12,13,dog"),
    "width-only": ("filename,width,x1,y1,x2,y2,class", "a.jpg,40,2,3,12,13,dog"),
}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " "])
@pytest.mark.parametrize("name", HEADERS)
def test_with_header(folder, name, delimiter):
    header, row = HEADERS[name]
    if delimiter == " " and ({" ", '"'} & set(header + row) or header.startswith(",")):
        return
    text = f"{header}\n{row}\n".replace(",", delimiter)
    for options in ({}, {"header": True}, {"delimiter": delimiter}):
        dataset = read_csv(folder(text), "train", **options)
        np.testing.assert_array_equal(dataset.boxes, [[2, 3, 12, 13]])
        assert dataset.image_ids == ("a",)
        assert dataset.classes == ("dog",)
        assert dataset.defects.counts() == {}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " "])
@pytest.mark.parametrize("first", ["", "\n", " \r\n", "\ufeff"])
def test_delimiters_without_header(folder, delimiter, first):
    text = first + BOX.replace(",", delimiter)
    for options in ({}, {"header": False, "delimiter": delimiter}):
        dataset = read_csv(folder(text), "train", **options)
        np.testing.assert_array_equal(dataset.boxes, [[2, 3, 12, 13]])


@pytest.mark.parametrize("first", ["a.jpg,1,2,3", "a.jpg;x;2;3;4;dog", 'a".jpg,"1'])
def test_a_bad_first_line_does_not_hide_the_delimiter(folder, first):
    root = folder(f"{first}\na.jpg;2;3;12;13;dog")
    dataset = read_csv(root, "train", ["dog"], on_bad_annotation="drop")
    assert len(dataset.labels) == 1
    assert len(dataset.defects.messages) == 1


def test_a_class_called_like_a_column_makes_no_header(folder):
    root = folder("a.jpg,1,2,9,9,left\na.jpg,1,2,9,9,right\n")
    assert read_csv(root, "train").classes == ("left", "right")
    with pytest.raises(DatasetError, match=r"line 1: expected columns for image \(filename, file,"):
        read_csv(root, "train", header=True)
    assert read_csv(folder("img,1,2,9,9,left", "img.jpg"), "train").image_ids == ("img",)


def test_blanks_between_fields_and_in_paths(folder):
    text = "my cat 1.jpg 2 3 12 13 dog\n  sub dir/x,y.jpg   0 0\t9 9   cat \na.jpg 0 0 0 0 dog\n"
    root = folder(text, "my cat 1.jpg", "sub dir/x,y.jpg")
    dataset = read_csv(root, "train")
    assert dataset.image_ids == ("my cat 1", "sub dir/x,y", "a")
    np.testing.assert_array_equal(dataset.boxes, [[2, 3, 12, 13], [0, 0, 9, 9]])
    assert dataset.classes == ("cat", "dog")


def test_odd_names(folder):
    names = ["a b.jpg", "x,1.jpg", "k=#1.jpg", 'say "hi".jpg', "кот 猫.jpg", "it's.jpg", "p;q.jpg"]
    root = folder("", *names)
    with open(root / "train.csv", "w", newline="", encoding="utf-8-sig") as file:
        rows = [[name, 1, 2, 9, 9, f"c,{name[0]}"] for name in names]
        csv.writer(file).writerows(rows)  # ends lines with CRLF
    dataset = read_csv(root, "train")
    assert dataset.images == tuple(str(root / name) for name in names)
    assert dataset.image_ids == tuple(name.removesuffix(".jpg") for name in names)
    assert dataset.classes == tuple(sorted(f"c,{name[0]}" for name in names))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ends_of_lines_and_blank_lines(folder, end):
    text = end.join(["", BOX, "", "  ", ",,,,,", "b.jpg,,,,,", ""])
    dataset = read_csv(folder(text), "train")
    np.testing.assert_array_equal(dataset.row_splits, [0, 1, 1])


def test_windows_paths(folder):
    dataset = read_csv(folder("sub\\x.y.jpg,1,2,9,9,dog\n", "sub/x.y.jpg"), "train")
    assert dataset.image_ids == ("sub/x.y",)
    assert dataset.images[0].endswith("/set/sub/x.y.jpg")


def test_images_without_objects(folder):
    text = f"{BOX}\nb.jpg,,,,,\na.jpg,0,0,0,0,dog\nc.jpg,0.0,0,0,-0,\n"
    root = folder(text, "c.jpg")
    dataset = read_csv(root, "train")
    np.testing.assert_array_equal(dataset.row_splits, [0, 1, 1, 1])
    kind = "zero box taken as no object"
    assert dataset.defects.counts() == {kind: 2}
    line = f"{root}/train.csv, line 3 ('dog'): found 0 0 0 0, taken for an image without objects"
    assert dataset.defects.messages[0] == (kind, line)
    with pytest.raises(DatasetError, match="set/train: no object in the split to take the class"):
        read_csv(folder("a.jpg,,,,,\nb.jpg,0,0,0,0,dog"), "train")
    assert read_csv(folder("a.jpg,,,,,"), "train", ["dog"]).boxes.shape == (0, 4)
    assert csv_classes(folder("a.jpg,,,,,cat\nb.jpg,0,0,0,0,dog\n" + BOX), "train") == ("dog",)


NOTHING = ["nan", "NaN", "None", "none", "null", "NULL", "NA", "N/A", "<NA>", ""]


@pytest.mark.parametrize("policy", ["error", "drop"])
@pytest.mark.parametrize("text", NOTHING)
def test_nothing_is_no_object_whatever_it_is_called(folder, text, policy):
    """In corners, in the class or in both."""
    lines = [f"b.jpg,{text},{text},{text},{text},{text}", f"c.jpg,,,,,{text}"]
    lines += [f"d.jpg,{text},{text},{text},{text},", f"e.jpg,0,0,0,0,{text}"]
    for first in ([], ["filename,xmin,ymin,xmax,ymax,class"]):
        root = folder("\n".join([*first, *lines, BOX]), "c.jpg", "d.jpg", "e.jpg")
        dataset = read_csv(root, "train", on_bad_annotation=policy)
        assert dataset.classes == csv_classes(root, "train") == ("dog",)
        assert dataset.image_ids == ("b", "c", "d", "e", "a")
        np.testing.assert_array_equal(dataset.row_splits, [0, 0, 0, 0, 0, 1])
        assert dataset.defects.counts() == {"zero box taken as no object": 1}


def test_a_box_without_a_class_is_an_error_and_none_may_be_a_class(folder):
    root = folder(f"{BOX}\nb.jpg,2,3,12,13,none")
    part = "line 2, class: expected a class name, found none but 'none'; if that is a class, put it"
    assert_defect(root, "missing name", part, num_images=2)
    assert csv_classes(root, "train") == ("dog",)
    assert read_csv(root, "train", ["dog", "none"]).labels.tolist() == [0, 1]


def test_a_class_without_a_box(folder):
    """An object that lost its box is an error; a class that never has one says there is none."""
    root = folder(f"{BOX}\nb.jpg,,,,,dog\nc.jpg,nan,nan,nan,nan,No finding", "c.jpg")
    with pytest.raises(DatasetError, match=r"line 2 \('dog'\): expected coordinates for a class"):
        read_csv(root, "train")
    dataset = read_csv(root, "train", on_bad_annotation="drop")
    assert dataset.classes == ("dog",)
    assert dataset.defects.counts() == {
        "class without coordinates": 1,
        "class without coordinates taken as no object": 1,
    }
    assert len(dataset) == 3


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "sep=;;;;;;", "sep=;\r"])
@pytest.mark.parametrize("policy", ["error", "drop"])
def test_the_first_line_of_excel_names_the_delimiter(folder, first, policy):
    lines = [first, "filename;xmin;ymin;xmax;ymax;class", BOX.replace(",", ";")]
    dataset = read_csv(folder("\n".join(lines)), "train", on_bad_annotation=policy)
    np.testing.assert_array_equal(dataset.boxes, [[2, 3, 12, 13]])
    assert dataset.image_ids == ("a",)
    assert dataset.classes == ("dog",)
    assert dataset.defects.counts() == {}
    with pytest.raises(DatasetError, match="expected a box a line, found an empty file"):
        read_csv(folder("sep=,\n"), "train")


@pytest.mark.parametrize("line", ["a.jpg;2,5;3;12,25;13;dog", 'a.jpg,"2,5",3,"12,25",13,dog'])
def test_decimal_commas_are_read_and_counted(folder, line):
    root = folder(f"{line}\n{line}")
    dataset = read_csv(root, "train")
    np.testing.assert_array_equal(dataset.boxes, [[2.5, 3, 12.25, 13]] * 2)
    assert dataset.defects.counts() == {"decimal comma": 2}
    root = folder(f"{line}\n{line.replace('2,5', '2,5,1')}")
    with pytest.raises(DatasetError, match=r"line 2 \('dog'\), x1: expected a number, found '2,5,"):
        read_csv(root, "train")


def test_a_header_in_the_middle_of_a_file_makes_no_class(folder):
    root = folder(f"filename,xmin,ymin,xmax,ymax,class\n{BOX}\nfilename,xmin,ymin,xmax,ymax,class")
    assert csv_classes(root, "train") == ("dog",)
    assert_defect(root, "missing image", "line 3: expected the image filename")


# ------------------------------------------------------------------------------------------------
# Which file
# ------------------------------------------------------------------------------------------------

FILES = [
    "train.csv", "train_labels.csv", "annotations_train.csv", "train_annotations.csv",
    "train/_annotations.csv", "annotations/train.csv", "train.txt", "train_labels.txt",
    "train/_annotations.txt",
]  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_files_of_a_split(tmp_path, file):
    write_text(tmp_path / file, BOX)
    write_text(tmp_path / "val.csv", "a.jpg,,,,,")
    write_image(tmp_path / "a.jpg")
    for split in ("train", file, str(tmp_path / file)):
        dataset = read_csv(tmp_path, split)
        assert len(dataset.labels) == 1
        stem = file.rpartition("/")[2][:-4]
        assert dataset.name == f"{tmp_path.name}/{'train' if split == 'train' else stem}"


def test_a_split_without_file_names_those_looked_for_and_those_there(folder):
    root = folder(BOX)
    write_text(root / "classes.csv", "dog,0")
    for split in ("val", "all", "test"):
        with pytest.raises(DatasetError) as caught:
            read_csv(root, split)  # train.csv is another's: a share of it would be in both
        message = str(caught.value)
        assert message.startswith(f"{root}: expected {split}.csv, {split}_labels.csv, annotations_")
        assert message.endswith("a single CSV of no split's name; there are classes.csv, train.csv")
    with pytest.raises(DatasetError, match=r"none\.csv: no such file; there are classes\.csv"):
        read_csv(root, "none.csv")
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        read_csv(root / "nowhere", "train")
    (root / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"; there is no \.csv or \.txt$"):
        read_csv(root / "empty", "train")


def test_a_single_csv_is_undivided(folder, tmp_path):
    """Class files are none; with a file of a split's name, or two, every split names its file."""
    root = folder(BOX, file="my_boxes.csv")
    write_text(root / "names.csv", "dog,0")
    write_text(root / "more names.csv", "dog\ncat")
    assert FORMAT.undivided(root) == "my_boxes.csv"
    with pytest.raises(DatasetError, match=r"expected test\.csv"):
        read_csv(root, "test")
    write_text(root / "val.csv", BOX)
    assert FORMAT.undivided(root) is None
    (root / "val.csv").rename(root / "other.csv")
    assert FORMAT.undivided(root) is None
    with pytest.raises(DatasetError, match=r"more names\.csv, my_boxes\.csv, names\.csv, other\.c"):
        read_csv(root, "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": "!"}, r"delimiter: expected '' \(find out\), .* found '!'"),
        ({"on_bad_annotation": "skip"}, "on_bad_annotation: expected 'error' or 'drop'"),
    ],
)
def test_arguments_that_make_no_sense(folder, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_csv(folder(BOX, file="boxes.csv"), "train", **options)
    assert not isinstance(caught.value, DatasetError)


# ------------------------------------------------------------------------------------------------
# Images
# ------------------------------------------------------------------------------------------------


PLACES = ["lists", "extra", "lists/train", "lists/images", "lists/images/train"]


@pytest.mark.parametrize("place", [*PLACES, "lists/JPEGImages", ""])
@pytest.mark.parametrize("file", ["lists/train.csv", "lists/train_labels.csv"])
def test_places_of_images(tmp_path, place, file):
    write_text(tmp_path / file, "sub/a.jpg,2,3,12,13,dog")
    write_image(tmp_path / place / "sub/a.jpg")
    for extra in ("extra", tmp_path / "extra"):
        dataset = read_csv(tmp_path, file, images=("none", extra))
        assert dataset.images == (str(tmp_path / place / "sub/a.jpg"),)
        assert dataset.image_ids == ("sub/a",)


def test_the_folder_of_the_file_comes_first_then_those_given(folder):
    root = folder("a.jpg,,,,,\nc.jpg,,,,,", "train/a.jpg", "train/c.jpg", "x/a.jpg", "x/c.jpg")
    dataset = read_csv(root, "train", ["dog"], images=["x"])
    assert dataset.images == (str(root / "a.jpg"), str(root / "x/c.jpg"))


def test_absolute_paths(folder, tmp_path):
    write_image(tmp_path / "elsewhere/deep/c.jpg")
    below, beyond = tmp_path / "set/train/x.jpg", tmp_path / "elsewhere/deep/c.jpg"
    root = folder(f"{below},,,,,\n{beyond},,,,,", "train/x.jpg")
    dataset = read_csv(root, "train", ["dog"])
    assert dataset.images == (str(below), str(beyond))
    assert dataset.image_ids == ("train/x", "c")


def test_ids_that_would_clash(folder, tmp_path):
    write_image(tmp_path / "other/b.jpg")
    listed = ["a.jpg", "a.png", "a.jpg.png", "b.jpg", f"{tmp_path}/other/b.jpg", "sub/a.jpg"]
    root = folder("\n".join(f"{name},,,,," for name in listed), *listed[1:3], "sub/a.jpg")
    dataset = read_csv(root, "train", ["dog"])
    assert dataset.image_ids == (
        "a.jpg", "a.png", "a.jpg.png", "b.jpg", f"{tmp_path}/other/b.jpg", "sub/a"
    )  # fmt: skip


@settings(suppress_health_check=list(HealthCheck), max_examples=50, deadline=None)
@given(
    st.sets(
        st.builds(
            "".join,
            st.tuples(
                st.sampled_from(["", "d/", "/x/", "C:\\"]),
                st.sampled_from(["a", "a.jpg", "b"]),
                st.sampled_from(["", ".jpg", ".png"]),
            ),
        )
    )
)
def test_ids_are_always_different(tmp_path, names):
    ids = _image_ids(sorted(names), tmp_path)
    assert len(set(ids.values())) == len(names)


def test_an_image_under_another_suffix_is_taken_and_counted(folder):
    root = folder("c.tif,1,2,9,9,dog\nc.tif,1,2,9,9,dog\nb,1,2,9,9,dog\n", "c.png")
    dataset = read_csv(root, "train")
    assert dataset.images == (str(root / "c.png"), str(root / "b.jpg"))
    message = f"{root}/train.csv, line 1: expected the image c.tif, took {root}/c.png"
    assert dataset.defects.messages == [("image under another suffix", message)]


SAME = [
    "./c.jpg",
    "sub/c.jpg",
    "Sub\\c.jpg",
    "%63.jpg",
    "C.JPG",
    "D:\\data\\sub\\c.jpg",
    "/data/set/sub/c.jpg",
    "c",
]


@pytest.mark.parametrize("second", SAME)
def test_two_names_of_one_image_are_one(folder, second):
    root = folder(f"c.jpg,2,3,12,13,dog\na.jpg,,,,,\n{second},1,2,9,9,cat", "sub/c.jpg")
    if second == "./c.jpg":
        (root / "sub/c.jpg").rename(root / "c.jpg")
    dataset = read_csv(root, "train", images=["sub"])
    assert dataset.image_ids == ("c", "a")
    np.testing.assert_array_equal(dataset.boxes, [[2, 3, 12, 13], [1, 2, 9, 9]])
    np.testing.assert_array_equal(dataset.row_splits, [0, 2, 2])
    message = f"{root}/train.csv, line 3: {second!r} is the file of 'c.jpg'"
    assert dataset.defects.messages == [("image under two names, taken as one", message)]


def test_names_alike_of_two_files_are_two_images(folder):
    root = folder(f"{BOX}\nsub/a.jpg,1,2,9,9,dog", "sub/a.jpg")
    assert read_csv(root, "train").image_ids == ("a", "sub/a")


def test_two_images_once_are_not_taken_for_one(folder):
    """Of x/a.jpg and y/a.jpg only one is left, in another folder: nobody knows which."""
    root = folder("x/a.jpg,2,3,12,13,dog\ny/a.jpg,1,2,9,9,dog")
    parts = (f"train.csv, line 2: 'y/a.jpg' is {root}/a.jpg, as is 'x/a.jpg'",)
    assert_defect(root, "ambiguous image", *parts)


def test_images_that_are_missing_or_broken(folder):
    root = folder(f"{BOX}\nc.jpg,1,2,3,4,dog\nc.jpg,5,6,7,8,dog")
    parts = (f"{root}/train.csv, line 2: expected the image c.jpg in {root}, ", "found none")
    assert_defect(root, "missing image", *parts)
    root = folder(f"{BOX}\nd.tif,1,2,3,4,dog", "d.jpg", "d.png")
    assert_defect(root, "ambiguous image", "line 2: expected one image d.*, found d.jpg, d.png")
    root = folder(f"{BOX}\nb.jpg,1,2,3,4,dog")
    write_text(root / "b.jpg", b"")
    assert_defect(root, "unreadable image", f"{root}/b.jpg: the file is empty")


SIZED = "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,40,30,dog,2,3,12,13\n"


@pytest.mark.parametrize("size", [",", "0,0", "40.0,3e1", ",0", "nan,nan", "None,"])
def test_sizes_may_be_left_out(folder, size):
    assert len(read_csv(folder(f"{SIZED}b.jpg,{size},dog,1,2,3,4"), "train").labels) == 2


def test_sizes_of_another_image(folder):
    rows = "b.jpg,40,30,dog,1,2,3,4\nb.jpg,80,60,dog,1,2,3,4\nb.jpg,80,60,dog,1,2,3,4"
    parts = ("train.csv, line 4, width and height: expected 40x30 as the image has, found 80x60",)
    assert_defect(folder(SIZED + rows), "size disagrees with the image", *parts)
    root = folder(f"{SIZED}b.jpg,wide,60,dog,1,2,3,4")
    parts = ("line 3, width and height: expected two numbers, found 'wide' x '60'",)
    assert_defect(root, "bad number", *parts)
    root = folder(f"{SIZED}b.jpg,40,30,dog,1,2,3,4")
    exif = Image.Exif()
    exif[274] = 6
    write_image(root / "b.jpg", exif=exif)
    parts = ("expected 30x40", "found 40x30; the image carries EXIF orientation 6")
    assert_defect(root, "size disagrees with the image", *parts)


# ------------------------------------------------------------------------------------------------
# Lines
# ------------------------------------------------------------------------------------------------

BAD_LINES = {
    "few": ("a.jpg,1,2,3,dog", "malformed line", ": expected 6 fields between ',', found 5: found"),
    "path-alone": ("a", "malformed line", "found 1: found 'a'"),
    "many": ("x,y.jpg,1,2,3,4,dog", "malformed line", "found 7: found 'x,y.jpg,1,2,3,4,dog'"),
    "open-quote": ('"a.jpg,1,2,3,4,dog', "malformed line", "unexpected end of data"),
    "nul": ("a.jpg,1,\0,3,4,dog", "malformed line", "expected text, found a NUL character"),
    "inner-quote": ('"a"b.jpg,1,2,3,4,dog', "malformed line", "',' expected after '\"'"),
    "endless": ("a" * 200_000 + ",1,2,3,4,dog", "malformed line", "field larger than field limit"),
    "no-image": (",1,2,3,4,dog", "missing image", "expected the path of an image, of at most 1000"),
    "long-image": ("a" * 5000 + ",1,2,3,4,dog", "missing image", "expected the path of an image"),
    "one-empty": ("a.jpg,1,,3,4,dog", "bad number", " ('dog'), y1: expected a number, found ''"),
    "nan": ("a.jpg,nan,2,3,4,dog", "bad number", ", x1: expected a number, found 'nan'"),
    "infinite": ("a.jpg,1,2,inf,4,dog", "bad number", ", x2: expected a number, found 'inf'"),
    "overflow": ("a.jpg,1,2,3,1e999,dog", "bad number", ", y2: expected a number, found '1e999'"),
    "underscore": ("a.jpg,1_0,2,30,4,dog", "bad number", "found '1_0'"),
    "wide-digits": ("a.jpg,1,2,3,4,dog".replace("4", "４"), "bad number", "found '４'"),
    "long-number": (
        f"a.jpg,{'9' * 5000},2,3,4,dog",
        "bad number",
        "x1: expected a number, found '9",
    ),
    "no-class": (
        "a.jpg,1,2,3,4, ",
        "missing name",
        "line 2, class: expected a class name, found no",
    ),
    "unknown": (
        "a.jpg,1,2,3,4,dogg",
        "unknown class",
        "class: expected one of dog, found 'dogg'; d",
    ),
    "unlike": ("a.jpg,1,2,3,4,x", "unknown class", "line 2, class: expected one of dog, found 'x'"),
    "no-width": (
        "a.jpg,3,2,3,4,dog",
        "empty or inverted box",
        "('dog'): expected a box with x1 < x",
    ),
    "inverted": ("a.jpg,1,9,3,4,dog", "empty or inverted box", "found 1 9 3 4"),
    "sliver": ("a.jpg,1,2,1.00000001,4,dog", "empty or inverted box", "found 1 2 1 4"),
    "right": (
        "a.jpg,1,2,43,4,dog",
        "box outside the image",
        "expected a box inside 0 0 40 30, fou",
    ),
    "left": ("a.jpg,-3,2,3,4,dog", "box outside the image", "found -3 2 3 4"),
    "absurd": ("a.jpg,1,2,1e300,4,dog", "box outside the image", "expected a box inside 0 0 40 30"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_an_error_or_dropped_alone(folder, name):
    bad, kind, part = BAD_LINES[name]
    root = folder(f"{BOX}\n{bad}\n{BOX}\n")
    assert_defect(root, kind, f"{root}/train.csv, line 2", part, num_boxes=2)


def test_a_bad_line_between_blanks(folder):
    text = BOX.replace(",", " ")
    root = folder(f"{text}\n1 2 3 4 dog\n{text}\n")
    assert_defect(root, "malformed line", "expected 6 fields between ' ', found 5", num_boxes=2)
    root = folder(f"b.jpg 1 2 3 4 big dog\n{text}\n")  # between blanks a class has none
    with pytest.raises(DatasetError, match=r"line 1 \('dog'\), y2: expected a number, found 'big'"):
        read_csv(root, "train", ["dog"])


def test_an_image_whose_only_object_is_dropped_stays(folder):
    root = folder(f"{BOX}\nb.jpg,5,5,5,5,dog")
    assert_defect(root, "empty or inverted box", "line 2", num_images=2)


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_up_to_two_pixels_outside_are_clipped_and_counted(folder, policy):
    root = folder("a.jpg,-2,-0.5,42,30,dog")
    dataset = read_csv(root, "train", on_bad_annotation=policy)
    np.testing.assert_array_equal(dataset.boxes, [[0, 0, 40, 30]])
    assert dataset.defects.counts() == {"box clipped to the image": 1}


WHOLE_FILES = {
    "empty": ("\n \n", "train.csv: expected a box a line, found an empty file"),
    "latin-1": (
        f"{BOX}\n".encode() + b"ch\xe2t.jpg,,,,,",
        "line 2: expected text in UTF-8, found the",
    ),
    "utf-16": (BOX.encode("utf-16"), "line 1: expected text in UTF-8, found the byte 0xff"),
    "no-class-column": (
        "filename,xmin,ymin,xmax,ymax,id\na.jpg,1,2,3,4,dog",
        "line 1: expected columns for class (classname, labelname, categoryname, class, label, "
        "category, name, classid), found filename, xmin, ymin, xmax, ymax, id; a single class",
    ),
    "no-height": (
        "filename,class,x,y,width\na.jpg,dog,1,2,3",
        "line 1: expected columns for h (bboxheight, boxheight, bboxh, bh, h), found filename, cl",
    ),
    "one-corner": (
        "filename,class,xmin,ymin\na.jpg,dog,1,2",
        "line 1: expected columns for x2 (xmax, x2, right, bboxxmax, roix2), y2 (ymax, y2, bot",
    ),
    "header-only": ("filename,class,x1,y1,x2,y2\n", "set/train: no images left to read"),
}


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_files_that_are_no_box_lists(folder, name):
    text, part = WHOLE_FILES[name]
    root = folder(text)
    for policy in ("error", "drop"):
        with pytest.raises(DatasetError) as caught:
            read_csv(root, "train", on_bad_annotation=policy)
        assert part in str(caught.value)


# ------------------------------------------------------------------------------------------------
# Real data
# ------------------------------------------------------------------------------------------------


def test_trees(shared_data):
    root = shared_data / "trees_csv"
    assert FORMAT.undivided(root) == "OSBS_029.csv"
    dataset = read_csv(root, "OSBS_029.csv")
    assert dataset.image_ids == ("OSBS_029",)
    assert dataset.images == (str(root / "OSBS_029.png"),)
    assert dataset.classes == ("Tree",)
    lines = (root / "OSBS_029.csv").read_text().splitlines()[1:]
    expected = [[float(text) for text in line.split(",")[1:5]] for line in lines]
    np.testing.assert_array_equal(dataset.boxes, expected)
    assert dataset.defects.counts() == {"image under another suffix": 1}


@pytest.mark.parametrize("split", ["train", "test"])
def test_microcontrollers_agree_with_their_xml(shared_data, split):
    """The CSV's tool copied VOC's corners: x1 and y1 lie a pixel further in than the XML says."""
    dataset = read_csv(shared_data / "microcontroller", split)
    voc = read_voc(shared_data / "microcontroller" / split, "all")
    assert dataset.classes == voc.classes
    assert dataset.defects.counts() == {}
    assert sorted(dataset.images) == sorted(voc.images)
    for index, image in enumerate(dataset.images):
        same = voc.images.index(image)
        assert dataset.image_ids[index] == voc.image_ids[same]
        np.testing.assert_array_equal(dataset.sizes[index], voc.sizes[same])
        np.testing.assert_array_equal(
            dataset.labels[dataset.rows(index)], voc.labels[voc.rows(same)]
        )
        np.testing.assert_array_equal(
            dataset.boxes[dataset.rows(index)], voc.boxes[voc.rows(same)] + [1, 1, 0, 0]
        )


# ------------------------------------------------------------------------------------------------
# Columns beside the box
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["split", "set", "Subset"])
def test_a_column_that_says_the_split_divides_the_file(folder, column):
    text = f"filename,xmin,ymin,xmax,ymax,class,{column}\na.jpg,1,2,3,4,dog,train\n"
    root = folder(text + "b.jpg,1,2,3,4,dog,Val\n", file="boxes.csv")
    assert FORMAT.undivided(root) is None
    assert [read_csv(root, split).image_ids for split in ("train", "val")] == [("a",), ("b",)]


def test_a_column_of_other_sets_divides_nothing(folder):
    text = "filename,xmin,ymin,xmax,ymax,class,split\na.jpg,1,2,3,4,dog,0\nb.jpg,1,2,3,4,dog,1\n"
    assert FORMAT.undivided(folder(text, file="boxes.csv")) == "boxes.csv"


def test_flags_in_columns(folder):
    header = "filename,xmin,ymin,xmax,ymax,class,difficult,iscrowd\n"
    rows = [
        f"a.jpg,{x},2,{x + 2},9,dog,{flags}" for x, flags in ((1, "yes,0"), (2, "0,1"), (3, ","))
    ]
    dataset = read_csv(folder(header + "\n".join(rows)), "train")
    assert dataset.difficult.tolist() == [True, False, False]
    assert dataset.ignore.tolist() == [False, True, False]


@pytest.mark.parametrize("line", ["b.jpg", "b.jpg,", "b.jpg,,,,"])
def test_a_path_alone_is_an_image_without_objects(folder, line):
    dataset = read_csv(folder(BOX + f"\n{line}\n"), "train")
    assert dataset.image_ids == ("a", "b")
    assert dataset.row_splits.tolist() == [0, 1, 1]


def test_polygons_of_four_corners_are_named(folder):
    text = "filename,x1,y1,x2,y2,x3,y3,x4,y4,class\na.jpg,2,3,9,4,8,9,1,8,dog\n"
    with pytest.raises(
        DatasetError, match="CSV of polygons of four corners is not read; write the"
    ):
        read_csv(folder(text), "train")


def test_a_name_counts_before_a_number(folder):
    text = "filename,xmin,ymin,xmax,ymax,label,label_name\na.jpg,1,2,3,4,1,dog\n"
    assert read_csv(folder(text), "train").classes == ("dog",)


@pytest.mark.parametrize("name", ["valid.csv", "validation_labels.csv", "valid/_annotations.csv"])
def test_val_is_found_under_its_other_names(folder, name):
    root = folder(BOX)
    write_image(root / "valid/a.jpg")
    write_text(root / name, BOX)
    assert len(read_csv(root, "val")) == 1
