"""Class files: the two forms, and one test a way of getting them wrong."""

import pytest

from data.formats.class_files import read_class_file
from data.records import DatasetError

pytestmark = pytest.mark.quick


@pytest.fixture
def classes(tmp_path):
    def classes(text):
        path = tmp_path / "classes.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return classes


def test_name_and_id_in_any_order(classes):
    assert read_class_file(classes("cat,1\ndog,0\nbird, 2\n")) == ("dog", "cat", "bird")
    assert read_class_file(classes("dog,0")) == ("dog",)


def test_a_name_a_line(classes):
    assert read_class_file(classes("dog\n\n wine glass \ncat")) == ("dog", "wine glass", "cat")
    assert read_class_file(classes("0\n7\n")) == ("0", "7")


def test_odd_names(classes):
    text = '\ufeff"cup, small",1\r\nцифра #1,0\r\n"say ""hi""",2\r\n\r\n'
    assert read_class_file(classes(text)) == ("цифра #1", "cup, small", 'say "hi"')
    assert read_class_file(classes('"cup, small"\nä=b;c\n')) == ("cup, small", "ä=b;c")
    assert read_class_file(classes("dog,0\rcat,1\r")) == ("dog", "cat")


MAP = "item {\n  id: 7\n  name: 'dog'\n}\nitem { id: 2 name: 'cat' }\n"


@pytest.mark.parametrize("name", ["label_map.pbtxt", "LABELS.PBTXT", "classes.txt"])
def test_label_map(tmp_path, name):
    (tmp_path / name).write_text(MAP)
    assert read_class_file(tmp_path / name) == ("cat", "dog")


BAD = {
    "gap": ("dog,0\ncat,2", "line 2 ('cat'): expected an id from 0 to 1, each once, found '2'"),
    "from-one": (
        "dog,2\ncat,1",
        "line 1 ('dog'): expected an id from 0 to 1, each once, found '2'; all count from 1: "
        "subtract 1 from each, or write the names alone, a line each",
    ),
    "twice": ("dog,0\ncat,0", "line 2 ('cat'): expected an id from 0 to 1, each once, found '0'"),
    "negative": ("dog,-1", "line 1 ('dog'): expected an id from 0 to 0, each once, found '-1'"),
    "float": ("dog,0.0", "found '0.0'"),
    "endless-id": ("dog," + "9" * 5000, "found '999"),
    "header": (
        "name,id\ndog,0",
        "line 1 ('name'): expected an id from 0 to 1, each once, found 'i",
    ),
    "name-twice": ("dog\n\ndog", "line 3: class 'dog' is listed twice, first in"),
    "no-name": ("dog,0\n,1", "line 2: expected a class name, found none"),
    "no-id": ("dog,0\ncat", "line 2: expected name,id like the lines before, found 'cat'"),
    "unquoted": ("dog\ncup, small", "line 2: expected a class name like the lines before"),
    "three": ("a.jpg,1,2,3,4,dog", "line 1: expected name,id or a class name"),
    "open-quote": ('dog,0\n"cat,1', "line 2: unexpected end of data, found '\"cat,1'"),
    "empty": ("\n \n", "expected name,id lines or a class name a line, found none"),
    "latin-1": (b"dog,0\nch\xe2t,1", "line 2: expected text in UTF-8, found the byte 0xe2"),
    "nul": ("dog,0\ncat\0,1", "line 2: expected text, found a NUL character"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_class_files(classes, name):
    text, part = BAD[name]
    path = classes(text)
    with pytest.raises(DatasetError) as caught:
        read_class_file(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert part in message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize("name", ["none.csv", ".", "a\0b"])
def test_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(DatasetError, match=r"No such file|found a folder|found a NUL"):
        read_class_file(f"{tmp_path}/{name}")
