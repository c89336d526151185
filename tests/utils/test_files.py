import pytest

from utils.files import whole_file, write_text


def write_half(path):
    with whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with pytest.raises(RuntimeError):
        write_half(path)
    assert list(path.parent.iterdir()) == []
    write_text(path, "é")
    with pytest.raises(RuntimeError):
        write_half(path)
    assert path.read_bytes() == "é".encode()
    assert list(path.parent.iterdir()) == [path]


def test_the_part_is_hidden_beside_it_and_ends_as_it_does(tmp_path):
    path = tmp_path / "a.weights.h5"
    with whole_file(path) as part:
        part.touch()
        assert list(tmp_path.glob(".part-*-a.weights.h5")) == [part]
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_writers_of_one_file_the_last_to_end_wins(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as first:
        first.write_text("first, and longer")
        with whole_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first, and longer"
    assert list(tmp_path.iterdir()) == [path]
