"""label_map.pbtxt of the TF Object Detection API in the spellings that tools give it."""

import pytest

from data.formats.label_map import MAX_BYTES, read_items, read_label_map
from data.records import DatasetError

pytestmark = pytest.mark.quick


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "map.pbtxt").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_label_map(tmp_path / "map.pbtxt")

    return read


@pytest.mark.parametrize(
    "text",
    [
        "item {\n  id: 1\n  name: 'cat'\n}\n\nitem {\n  id: 7\n  name: 'dog'\n}\n",
        'item {\n  name: "cat",\n  id: 1,\n  display_name: "Cat"\n}\nitem {name: "dog", id: 7}',
        "\ufeff# by hand\r\nitem: < id: 0x1; name: \"c\" 'at' # cat\r\n>,item{id:7 name:'dog'};",
        "item { id: 0 name: 'background' } item { name: 'cat' id: 1 } item { id: 7 name: 'dog' }",
        "item { id: 1 name: 'cat' keypoints { id: 2 label: 'name: }' } ancestor_ids: [3, 4] "
        "frequency: RARE } item { id: 7 display_name: 'dog' }",
        r"item { id: 1 name: '\x63\141t' } item { id: 7 name: 'd\u006fg' }",
    ],
    ids=["usual", "commas", "other signs", "background", "other fields", "escapes"],
)
def test_spellings(read, text):
    assert read(text) == {1: "cat", 7: "dog"}


def test_names_that_are_not_ascii(read):
    """Python's protobuf writes them as octal bytes of UTF-8, people as they are."""
    assert read(r"item { id: 2 name: 'caf\303\251' } item { id: 1 name: '猫' }") == {
        2: "café",
        1: "猫",
    }


def test_items_say_their_line_and_display_name(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(
        "\nitem { id: 1 name: '/m/01g317'\n display_name: 'person' }\n"
        "item { id: 2 name: 'b' display_name: 'B' }"
    )
    assert [(*item, item.title) for item in read_items(path)] == [
        (2, 1, "/m/01g317", "person", "person"),
        (4, 2, "b", "B", "b"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected items of a label map, found none"),
        ("\ncat,0\n", r"line 2: expected item \{ id: 1 name: 'cat' \}, found 'cat'"),
        ("cat\n", r"line 1: expected item \{ id: 1 name: 'cat' \}, found 'cat'"),
        ("item { id: 1 name: 'a }", r"line 1: expected item .*, found \"item \{ id: 1"),
        ("item", r"line 1: expected \{, found the end of the file"),
        ("item 3", r"line 1: expected \{, found '3'"),
        ("item {\nid: 1\nname: 'a'", r"line 1: expected a field or \}, found the end of the file"),
        ("item { id: 1 name: 'a' >", r"line 1: expected a field or \}, found '>'"),
        ("item { id: 1\nname: }", r"line 2: expected a value of name, found '\}'"),
        ("item { id: 1\nname: cat }", r"line 2: expected a value of name, found 'cat'"),
        ("item { id:", "line 1: expected a value of id, found the end of the file"),
        ("item { id: '1' name: 'a' }", r"line 1: expected a value of id, found '1'"),
        ("\nitem { name: 'a' }", r"line 2: expected an item with an id from 1 on, found none"),
        ("item { id: -1 name: 'a' }", r"expected an item with an id from 1 on, found '-1'"),
        ("item { id: 1.5 name: 'a' }", r"expected an item with an id from 1 on, found '1.5'"),
        ("item { id: 4294967295 name: 'a' }", r"with an id from 1 on, found '4294967295'"),
        ("item { id: 1 }", "line 1: expected an item with a name, found none"),
        ("item { id: 1 id: 2 name: 'a' }", "line 1: expected id once in an item, found 'id'"),
        ("item { id: 1 name: 'a' }\nitem { id: 1 name: 'b' }",
         "line 2: id '1' is given twice, first in line 1"),
        ("item { id: 1 name: 'a' }\nitem { id: 2 name: 'a' }",
         "line 2: name 'a' is given twice, first in line 1"),
        ("item { id: 1 name: 'a' } item { id: 2 name: '/m/0x' display_name: 'a' }",
         "line 1: name 'a' is given twice, first in line 1"),
        ("item { id: 1 name: 'a' keypoints { id: 1", "expected the end of a message, found"),
        (b"item { id: 1 name: '\xff' }", "line 1: expected text in UTF-8"),
        (r"item { id: 1 name: '\377' }", "line 1: expected text in UTF-8"),
        (r"item { id: 1 name: 'a\nb' }", "line 1: "),
        ("item { id: 1 name: 'a' x" + "{" * 100_000, "expected the end of a message"),
        (" " * (MAX_BYTES + 1), "expected at most 16 MiB"),
    ],
)  # fmt: skip
def test_what_is_no_label_map_is_refused_with_its_line(read, text, message):
    with pytest.raises(DatasetError, match=message):
        read(text)
