"""Files that may be anything: one line that names the file, in little time and memory."""

import os
import re
import time

import pytest

from utils.safe_reading import MOST_BYTES, MOST_LEVELS, read_bytes, read_json, read_text

pytestmark = pytest.mark.quick


def nested(levels, opening="[", closing="]"):
    """A JSON object with so many levels, itself the first."""
    return '{"a":' + opening * (levels - 1) + closing * (levels - 1) + "}"


def refused(path, read=read_json):
    start = time.process_time()
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}") as caught:
        read(path)
    assert time.process_time() - start < 5
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.removeprefix(str(path))


def test_what_is_written_comes_back(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"ä": [1, {"b": null}], "c": "[[{\\\\\\"[["}', encoding="utf-8")
    assert read_json(path) == {"ä": [1, {"b": None}], "c": '[[{\\"[['}
    assert read_bytes(path).decode() == read_text(path)
    path.write_text(nested(MOST_LEVELS).replace("[]", "[7]"))
    value = read_json(path)["a"]
    for _ in range(MOST_LEVELS - 2):
        (value,) = value
    assert value == [7]


BROKEN = {
    "null": (": expected a JSON object, found null", "null"),
    "list": (": expected a JSON object, found list", "[{}]"),
    "cut": (", line 2: expected JSON, found ", '{"a":\n[1, '),
    "empty": (", line 1: expected JSON, found Expecting value", ""),
    "twice": (": expected each key once, found 'a' twice", '{"a": 1, "b": 2, "a": 3}'),
    "nan": (": expected JSON, which has no NaN", '{"a": NaN}'),
    "infinity": (": expected JSON, which has no -Infinity", '{"a": [-Infinity]}'),
    "digits": (": Exceeds the limit (4300 digits)", '{"a": ' + "9" * 5000 + "}"),
    "65 levels": (": expected at most 64 levels of nesting", nested(MOST_LEVELS + 1)),
    "levels of both": (": expected at most 64 levels", nested(10**4, '[{"b":', "}]")),
    "levels without end": (": expected at most 64 levels", '{"a":' * 10**4),
    "levels after a quote": (": expected at most 64 levels", '{"\\"": ' + "[" * 10**4),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_json_object_is_named_in_one_line(name, tmp_path):
    message, text = BROKEN[name]
    path = tmp_path / "a.json"
    path.write_text(text)
    assert refused(path).startswith(message)


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{\n"a": "\xff"}')
    for read in (read_json, read_text):
        assert refused(path, read) == ", line 2: expected text in UTF-8, found the byte 0xff"


def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, found in (("pipe", "a named pipe"), ("link", "a device"), ("", "a folder")):
        assert refused(tmp_path / name) == f": expected a regular file, found {found}"
    assert refused(tmp_path / "absent") == ": cannot be read (No such file or directory)"
    assert refused(tmp_path / ("x" * 300)) == ": cannot be read (File name too long)"


def test_a_file_of_a_gigabyte_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    with open(path, "wb") as file:
        file.truncate(2**30)  # takes no room on the disk
    assert refused(path) == f": expected at most {MOST_BYTES // 2**20} MiB, found 1,024.0 MiB"
    assert refused(path, lambda path: read_bytes(path, 2**19)).startswith(": expected at most 0.5")
