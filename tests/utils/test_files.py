import pytest

from utils.files import whole_file, write_text


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with pytest.raises(ZeroDivisionError), whole_file(path) as part:
        part.write_text("half")
        1 / 0  # noqa: B018
    assert list(path.parent.iterdir()) == []
    write_text(path, "é")
    with pytest.raises(ZeroDivisionError), whole_file(path) as part:
        part.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_bytes() == "é".encode()
    assert list(path.parent.iterdir()) == [path]


def test_the_part_is_hidden_beside_it_and_ends_as_it_does(tmp_path):
    with whole_file(tmp_path / "a.weights.h5") as part:
        assert part.parent == tmp_path
        assert part.name.startswith(".part-")
        assert part.name.endswith("-a.weights.h5")
        part.touch()


def test_two_writers_of_one_file_leave_that_of_the_last(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as first:
        first.write_text("first, and longer")
        with whole_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first, and longer"
    assert list(tmp_path.iterdir()) == [path]
