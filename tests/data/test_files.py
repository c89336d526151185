"""Files of a dataset that are absent, of another kind or too large, through every reader."""

import ast
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.detections.any_format import read_detections
from data.detections.project_json import JSON
from data.files import map_data, open_data, read_data, read_data_text
from data.formats.coco import read_coco
from data.formats.text_files import text_lines
from data.formats.voc_xml import parse_annotation
from data.images.bit_depth import is_deep
from data.images.decode import decode_image, read_header, read_image
from data.records import DatasetError
from data.slices import Slice, find_slice
from data.stratify import same_content

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]
READERS = {
    "open_data": lambda path: open_data(path).__enter__(),
    "read_data": lambda path: read_data(path, 9),
    "read_data_text": lambda path: read_data_text(path, 9),
    "map_data": lambda path: map_data(path, 9).__enter__(),
    "text_lines": text_lines,
    "read_image": read_image,
    "read_header": read_header,
    "is_deep": lambda path: is_deep(str(path)),
    "parse_annotation": parse_annotation,
    "read_json": lambda path: JSON.read(path, ["a"], ["cat"]),
    "same_content": lambda path: same_content([str(path)] * 2),
    "read_detections": lambda path: read_detections(path, "val", None),
}
IMAGES = ("read_image", "read_header", "is_deep")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("found", ["a named pipe", "a device"])
def test_another_kind_of_file_is_named_and_not_waited_for(tmp_path, name, found):
    """Before, dividing a dataset waited for a pipe for ever; evaluate.py found "no such file"."""
    path = tmp_path / "file"
    os.mkfifo(path) if found == "a named pipe" else path.symlink_to("/dev/null")
    with pytest.raises(DatasetError) as caught:
        READERS[name](path)
    assert str(caught.value) == f"{path}: expected a regular file, found {found}"
    assert caught.value.kind == {
        "parse_annotation": "unreadable XML",
        **dict.fromkeys(IMAGES, "unreadable image"),
    }.get(name, "unreadable")


@pytest.mark.parametrize("name", [name for name in READERS if name != "read_detections"])
def test_an_absent_file_is_named(tmp_path, name):
    path = tmp_path / "file"
    with pytest.raises(DatasetError) as caught:
        READERS[name](path)
    assert str(caught.value) == f"{path}: cannot be read (No such file or directory)"


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("path", ["a\0b", "a\ud800b"])
def test_a_path_that_no_file_can_have(name, path):
    with pytest.raises(DatasetError):
        READERS[name](path)


def test_a_file_may_be_as_large_as_is_said_and_no_larger(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"123456789")
    assert read_data(path, 9) == b"123456789"
    assert read_data_text(path, 9) == "123456789"
    with open_data(path, 9) as file:
        assert file.read() == b"123456789"
    for read in (read_data, read_data_text, lambda *args: open_data(*args).__enter__()):
        with pytest.raises(DatasetError, match="file: expected at most 8 bytes, found 9 bytes"):
            read(path, 8)


def test_what_fails_while_a_file_is_read(tmp_path):
    """A disk's error is one of the file; a mistake of the reader's own stays what it is."""
    path = tmp_path / "file"
    path.write_bytes(b"1")
    message = r"file: cannot be read \(Input/output error\)"
    with pytest.raises(DatasetError, match=message) as one, open_data(path, kind="a kind"):
        raise OSError(5, "Input/output error")
    assert one.value.kind == "a kind"
    with pytest.raises(ValueError, match=r"^mine$") as other, open_data(path):
        raise ValueError("mine")
    assert type(other.value) is ValueError


def test_the_line_of_a_bad_byte_is_the_right_one_behind_a_byte_order_mark(tmp_path):
    """Before, the mark's three bytes were not counted, so that the line before was named."""
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfa\n\xff\n")
    with pytest.raises(DatasetError, match="file, line 2: expected text in UTF-8, found the byte"):
        text_lines(path)


def test_an_instances_file_without_a_byte(tmp_path):
    (tmp_path / "train.json").touch()
    with pytest.raises(DatasetError, match=r"train\.json: not a COCO instances file"):
        read_coco(tmp_path, "train")


# ------------------------------------------------------------------------------------------------
# Images inside larger files
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path):
    """A PNG of 16 bits as a slice of a file, and the same as a file."""
    plain = tmp_path / "a.png"
    assert cv2.imwrite(str(plain), np.arange(12, dtype=np.uint16).reshape(3, 4))
    data = plain.read_bytes()
    (tmp_path / "shard").write_bytes(b"before" + data + b"behind")
    return str(Slice(str(tmp_path / "shard"), 6, len(data), "b c.png")), str(plain)


def test_a_slice_is_read_as_the_file_it_holds(image, tmp_path):
    part, plain = image
    assert part == f"{tmp_path}/shard#6+{os.path.getsize(plain)}/b c.png"
    data = Path(plain).read_bytes()
    assert read_data(part, 1000) == data
    with open_data(part) as file, map_data(part, 1000) as mapped:
        assert file.read() == data == mapped[:]
        assert file.seek(-4, os.SEEK_END) == len(data) - 4
        assert file.read(9) == data[-4:]
        assert file.seek(2) == 2
        assert file.read(3) == data[2:5]
        assert file.seek(1, os.SEEK_CUR) == file.tell() == 6
        assert file.seek(10**6) == 10**6
        assert file.read() == b""
    assert read_header(part) == read_header(plain)
    assert is_deep(part)
    np.testing.assert_array_equal(decode_image(part), decode_image(plain))
    assert same_content([part, plain]) == [[0, 1]]


def test_a_slice_of_a_text(tmp_path):
    (tmp_path / "shard").write_bytes(b"ab\ncd\xff")
    assert read_data_text(f"{tmp_path}/shard#0+4/a.txt", 9) == "ab\nc"
    with pytest.raises(DatasetError, match="line 2: expected text in UTF-8"):
        read_data_text(f"{tmp_path}/shard#0+6/a.txt", 9)


@pytest.mark.parametrize("read", [lambda path: read_data(path, 9), READERS["open_data"]])
def test_slices_that_do_not_fit(tmp_path, read):
    (tmp_path / "shard").write_bytes(b"12345")
    for place, found in (("3+3", 2), ("5+1", 0), ("99+1", 0)):
        message = rf"shard: expected \d bytes from byte \d+ on \(a\), found {found}: the file has"
        with pytest.raises(DatasetError, match=message):
            read(f"{tmp_path}/shard#{place}/a")
    with pytest.raises(DatasetError, match=r"none: cannot be read \(No such file"):
        read(f"{tmp_path}/none#0+1/a")
    with pytest.raises(DatasetError, match=": expected a regular file, found a folder"):
        read(f"{tmp_path}#0+1/a")


def test_a_slice_may_be_as_large_as_is_said_and_no_larger(tmp_path):
    (tmp_path / "shard").write_bytes(b"123456789")
    assert read_data(f"{tmp_path}/shard#1+8/a", 8) == b"23456789"
    for read in (read_data, lambda *args: open_data(*args).__enter__()):
        with pytest.raises(DatasetError, match=r"/a: expected at most 7 bytes, found 8 bytes"):
            read(f"{tmp_path}/shard#1+8/a", 7)


def test_a_real_file_of_the_whole_name_comes_first(tmp_path):
    (tmp_path / "shard").write_bytes(b"12345")
    (tmp_path / "shard#1+2").mkdir()
    real = tmp_path / "shard#1+2/a.png"
    assert read_data(real, 9) == b"23"
    real.write_bytes(b"real")
    assert read_data(real, 9) == b"real"
    assert find_slice(real) is None


@pytest.mark.parametrize("name", ["a#1.png", "a#1+2.png", "#1+2/a", "a#-1+2/b", "a#1+2/b/c", "a"])
def test_paths_that_are_no_slices(name):
    assert find_slice(name) is None


def test_readers_open_files_by_this_module_only():
    """`utils.safe_reading` raises ReadError, which no reader may drop or count as a defect."""
    for path in (ROOT / "data").glob("**/*.py"):
        modules = {
            node.module
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
        }
        assert path.name == "files.py" or "utils.safe_reading" not in modules, path
