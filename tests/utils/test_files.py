import errno
import os
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from utils import files
from utils.files import (
    WriteError,
    naming,
    spare,
    whole_file,
    whole_folder,
    write_bytes,
    write_error,
    write_text,
)

pytestmark = pytest.mark.quick
FULL = "No space left on device"
ROOT = Path(__file__).parents[2]
PROGRAMS = (
    "train.py", "evaluate.py", "visualize.py", "export.py", "data/check.py", "data/preview.py",
    "data/convert/__main__.py", "data/download/__main__.py", "data/formats/shapes.py",
    "core/weights/__main__.py", "compare_runs.py",
)  # fmt: skip


def write_half(path, error=RuntimeError):
    with whole_file(path) as part:
        part.write_text("half")
        raise error


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


@pytest.mark.parametrize("name", [(), ("part",), ("elsewhere/a.txt", None, "part")])
def test_a_full_disk_names_the_file_whatever_the_error_names(tmp_path, name):
    """A write names none, opening the part, copying the source first and the part second."""
    path = tmp_path / "a.txt"
    with pytest.raises(WriteError) as raised, whole_file(path) as part:
        raise OSError(errno.ENOSPC, FULL, *(str(part) if n == "part" else n for n in name))
    error = raised.value
    assert (error.errno, error.filename) == (errno.ENOSPC, str(path))
    pattern = rf"{path}: cannot be written: {FULL}; [\d,]+\.\d MB are free in {tmp_path}; free .*"
    assert re.fullmatch(pattern, str(error))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert list(tmp_path.iterdir()) == []


def test_the_older_file_stays_and_the_error_says_so(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "older")
    with pytest.raises(WriteError, match="; the older file is still whole; free"):
        write_half(path, OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_another_file_is_left_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, whole_file(tmp_path / "a.txt"):
        (tmp_path / "source.txt").read_text()
    assert raised.value.filename == str(tmp_path / "source.txt")


def test_of_two_files_in_each_other_the_one_that_failed_is_named(tmp_path):
    with pytest.raises(WriteError) as raised, whole_file(tmp_path / "outer.txt"):
        write_half(tmp_path / "inner.txt", OSError(errno.ENOSPC, FULL))
    assert raised.value.filename == str(tmp_path / "inner.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_names_the_file(tmp_path, monkeypatch):
    def replace(source, target):
        raise OSError(errno.ENOSPC, FULL, str(source), None, str(target))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(WriteError, match=re.escape(f"{tmp_path / 'a'}: cannot be written: {FULL}")):
        write_text(tmp_path / "a", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "folder").write_text("")
    for path in (tmp_path / "folder" / "a.txt", tmp_path / "folder" / "deeper" / "a.txt"):
        with pytest.raises(WriteError) as raised:
            write_text(path, "text")
        assert str(raised.value).startswith(f"{path}: cannot be written: ")
        assert "a file is in the place of a folder: remove it" in str(raised.value)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(WriteError, match=r"a\.txt: .*; a folder is in the place of the file"):
        write_text(tmp_path / "a.txt", "text")


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(args[0]))

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.raises(WriteError) as raised:
        write_bytes(tmp_path / "a", b"")
    assert f": make {tmp_path} writable" in str(raised.value).replace("; make", ": make")


@pytest.mark.parametrize("name", ["é" * 127, "a" * 255, "画" * 80 + ".png"])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path, name):
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_reasons_of_libraries_without_a_number():
    """TensorFlow's errors hold the text of the error number in a longer one."""
    error = RuntimeError(f"/runs/.part-1/variables; {FULL} [Op:SaveV2]\nand more")
    found = write_error("a", error)
    assert found.errno == errno.ENOSPC
    assert str(found).startswith(f"a: cannot be written: {FULL}; ")
    unknown = write_error("a", RuntimeError("encoder -2\nmore"))
    assert unknown.errno is None
    assert str(unknown).startswith("a: cannot be written: encoder -2; ")
    assert " MB are free in " in str(unknown)
    assert str(write_error("a", "expected 2 frames")).startswith("a: expected 2 frames; ")


def test_a_program_adds_how_to_go_on():
    error = write_error("a", OSError(errno.EROFS, "Read-only file system"))
    before = str(error)
    assert str(error.also("go on with --resume a")) == f"{before}; go on with --resume a"


def test_a_durable_file_is_synced_before_it_takes_its_place_and_the_folder_after(
    tmp_path, monkeypatch
):
    sync, replace, calls = os.fsync, os.replace, []

    def synced(handle):
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file"
        calls.append(kind)
        sync(handle)

    def replaced(*args):
        calls.append("rename")
        replace(*args)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_text(tmp_path / "a", "text", durable=True)
    assert calls == ["file", "rename", "folder"] or sys.platform != "linux"
    calls.clear()
    write_text(tmp_path / "a", "text")
    assert calls == ["rename"]


def test_a_disk_that_fails_at_the_sync_keeps_the_older_file(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "older")

    def fail(handle):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WriteError, match="a: cannot be written: Disk quota exceeded"):
        write_text(tmp_path / "a", "newer", durable=True)
    assert (tmp_path / "a").read_text() == "older"


def test_a_folder_is_whole_or_not_there_and_errors_name_the_file_in_it(tmp_path):
    path = tmp_path / "set"
    with whole_folder(path) as part:
        write_text(part / "sub" / "a.txt", "a")
    assert [file.name for file in path.rglob("*")] == ["sub", "a.txt"]
    for culprit in ("sub/b.txt", ""):
        with (
            pytest.raises(WriteError) as raised,
            whole_folder(tmp_path / "new") as part,
            naming(part / culprit, part / culprit),
        ):
            raise OSError(errno.ENOSPC, FULL)
        wanted = tmp_path / "new" / culprit
        assert raised.value.filename == str(wanted)
        assert str(raised.value).startswith(f"{wanted}: cannot be written: {FULL}; ")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["set"]


@pytest.fixture
def older(tmp_path):
    """A folder that is there, the only thing in its folder."""
    write_text(tmp_path / "model" / "a.txt", "older")
    write_text(tmp_path / "model" / "b.txt", "of the older one alone")
    return tmp_path / "model"


def contents(folder):
    """Relative path -> text of every file, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


OLDER = {"model/a.txt": "older", "model/b.txt": "of the older one alone"}


def test_a_folder_replaces_an_older_one_whole(older):
    with whole_folder(older, replace=True) as part:
        write_text(part / "a.txt", "newer")
        assert contents(older) == {"a.txt": "older", "b.txt": "of the older one alone"}
    assert contents(older.parent) == {"model/a.txt": "newer"}
    assert list(older.parent.iterdir()) == [older]


def test_a_folder_replaces_an_older_one_only_if_told_to(older):
    with pytest.raises(WriteError, match="not empty"), whole_folder(older) as part:
        write_text(part / "a.txt", "newer")
    assert contents(older.parent) == OLDER


def test_a_folder_replaces_no_file(tmp_path):
    write_text(tmp_path / "model", "a file")
    with (
        pytest.raises(WriteError, match="a file is in the place of a folder"),
        whole_folder(tmp_path / "model", replace=True) as part,
    ):
        write_text(part / "a.txt", "newer")
    assert contents(tmp_path) == {"model": "a file"}


def test_a_link_to_the_older_folder_stays_a_link(older):
    link = older.with_name("link")
    link.symlink_to("model")
    with whole_folder(link, replace=True) as part:
        write_text(part / "a.txt", "newer")
    assert link.is_symlink()
    assert contents(older) == {"a.txt": "newer"}
    assert sorted(older.parent.iterdir()) == [link, older]


def test_of_two_writers_of_one_folder_the_last_to_end_wins(older):
    with whole_folder(older, replace=True) as first:
        write_text(first / "a.txt", "first")
        with whole_folder(older, replace=True) as second:
            write_text(second / "a.txt", "second")
            assert first.is_dir()
        assert contents(older) == {"a.txt": "second"}
    assert contents(older.parent) == {"model/a.txt": "first"}
    assert list(older.parent.iterdir()) == [older]


def test_a_folder_that_comes_between_the_two_renames_is_replaced_too(older, monkeypatch):
    """Another writer finds the place empty, and is done before this one goes on."""
    replace = os.replace

    def slow(source, target):
        replace(source, target)
        if source == older:
            monkeypatch.setattr(os, "replace", replace)
            with whole_folder(older, replace=True) as part:
                write_text(part / "a.txt", "another's")

    monkeypatch.setattr(os, "replace", slow)
    with whole_folder(older, replace=True) as part:
        write_text(part / "a.txt", "this one's")
    assert contents(older.parent) == {"model/a.txt": "this one's"}
    assert list(older.parent.iterdir()) == [older]


def test_many_writers_of_one_folder_at_once_leave_one_whole(older):
    def write(number):
        for _ in range(20):
            with whole_folder(older, replace=True) as part:
                for name in "abc":
                    write_text(part / name, f"{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    found = contents(older)
    assert sorted(found) == ["a", "b", "c"]
    assert len(set(found.values())) == 1
    assert list(older.parent.iterdir()) == [older]


def test_an_older_folder_stays_if_writing_the_new_one_fails(older):
    with (
        pytest.raises(RuntimeError),
        whole_folder(older, replace=True) as part,
    ):
        write_half(part / "a.txt")
    assert contents(older.parent) == OLDER
    assert list(older.parent.iterdir()) == [older]


@pytest.mark.parametrize(
    "failing", [["model"], ["model", ".old-"], [".part-"], [".part-", ".old-"]]
)
def test_an_older_folder_stays_if_a_rename_fails(older, monkeypatch, failing):
    """failing: which renames do, by how the names of what is renamed begin."""

    def replace(source, target, move=os.replace):
        if source.parent == older.parent and source.name.startswith(tuple(failing)):
            raise OSError(errno.ENOSPC, FULL, str(source), None, str(target))
        move(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.chdir(older.parent)  # the user's name of the folder is a relative one
    with (
        pytest.raises(WriteError, match=f"^model: cannot be written: {FULL}; ") as raised,
        whole_folder("model", replace=True) as part,
    ):
        write_text(part / "a.txt", "newer")
    (kept,) = older.parent.iterdir()
    if failing == [".part-", ".old-"]:
        assert str(raised.value).endswith(f"; the older folder is now {kept}")
        kept.rename(older)
    else:
        assert "now" not in str(raised.value)
    assert contents(older.parent) == OLDER


def test_an_older_folder_stays_if_a_rename_is_interrupted(older, monkeypatch):
    def replace(source, target, move=os.replace):
        move(source, target)
        if source == older:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt), whole_folder(older, replace=True) as part:
        write_text(part / "a.txt", "newer")
    assert contents(older.parent) == OLDER
    assert list(older.parent.iterdir()) == [older]


def test_a_relative_folder_keeps_its_name_in_messages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WriteError, match=r"^new/a/b: cannot"), whole_folder("new") as part:
        (part / "a" / "b").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_what_is_spare_is_a_warning(tmp_path, messages):
    with spare("the curves"):
        write_half(tmp_path / "curves.png", OSError(errno.ENOSPC, FULL))
    (line,) = messages
    assert line.startswith(f"{tmp_path / 'curves.png'}: cannot be written: {FULL}; ")
    assert line.endswith("; goes on without the curves\n")
    with pytest.raises(ValueError, match="a bug"), spare("the curves"):
        raise ValueError("a bug")


def test_the_free_space_is_that_of_the_nearest_folder_that_is_there(tmp_path, monkeypatch):
    free = type("Usage", (), {"free": 1_250_000})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: free)
    error = WriteError(errno.ENOSPC, FULL, tmp_path / "not" / "there" / "a.txt")
    assert f"; 1.2 MB are free in {tmp_path}; " in str(error)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_that_writes_ends_with_the_line_of_the_error(program):
    assert "run_program(" in (ROOT / program).read_text(encoding="utf-8")
