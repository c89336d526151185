"""Good archives come out whole; hostile and broken ones leave nothing behind."""

import io
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from data.download.archives import ArchiveError, extract, extracted, require_space

pytestmark = pytest.mark.full

FILES = {"a/one.txt": b"one", "a/b/two.txt": b"two" * 50, "three.txt": b""}
NAMES = {"a": ["one.txt"], "a/b": ["two.txt"], ".": ["three.txt"]}
LIMITS = {"max_bytes": 10_000, "max_files": 20}


def add(tar, name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content))


def make_tar(path, files=FILES, then=lambda tar: None):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            add(tar, name, content)
        then(tar)
    return path


def make_zip(path, files=FILES, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


MAKERS = {"x.tar": make_tar, "x.zip": make_zip}


def tree(folder):
    """{path: content} of the files below a folder, markers left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".extracted")
    }


def refuse(archive, folder, message, **limits):
    """Extraction fails with the message and changes nothing, in the folder and around it."""
    around = folder.parent
    before = sorted(around.rglob("*"))
    with pytest.raises(ArchiveError, match=message) as error:
        extract(archive, folder, **LIMITS | limits)
    assert archive.name in str(error.value)
    after = [path for path in sorted(around.rglob("*")) if path != folder]
    assert after == [path for path in before if path != folder]


@pytest.fixture
def folder(tmp_path):
    """To unpack to: below a folder of its own, so that what escapes is seen."""
    return tmp_path / "around" / "out"


@pytest.fixture(autouse=True)
def around(folder):
    folder.parent.mkdir()


# ------------------------------------------------------------------------------------------------
# Good archives
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_files_come_out_and_a_marker_says_so(tmp_path, folder, name):
    extract(MAKERS[name](tmp_path / name), folder, **LIMITS)
    assert tree(folder) == FILES
    assert sorted(os.listdir(folder)) == [f".{name}.extracted", "a", "three.txt"]
    assert json.loads((folder / f".{name}.extracted").read_text()) == NAMES
    assert extracted(name, folder)


@pytest.mark.parametrize("name", MAKERS)
def test_the_second_time_nothing_is_read(tmp_path, folder, name):
    archive = MAKERS[name](tmp_path / name)
    extract(archive, folder, **LIMITS)
    archive.unlink()
    extract(archive, folder, **LIMITS)
    assert tree(folder) == FILES


def test_a_file_that_went_makes_it_unpack_again(tmp_path, folder):
    archive = make_tar(tmp_path / "x.tar")
    extract(archive, folder, **LIMITS)
    (folder / "a/b/other.txt").write_bytes(b"of the user")
    (folder / "a/b/two.txt").unlink()
    assert not extracted("x.tar", folder)
    extract(archive, folder, **LIMITS)
    assert tree(folder) == FILES | {"a/b/other.txt": b"of the user"}


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", "3", '{"a": 3}', '{"nowhere": ["x"]}'])
def test_a_marker_that_is_none(folder, text):
    folder.mkdir()
    (folder / ".x.tar.extracted").write_text(text)
    assert not extracted("x.tar", folder)


def test_two_archives_fill_one_tree(tmp_path, folder):
    first = make_tar(tmp_path / "1.tar", {"kit/VOC/1.xml": b"1", "kit/VOC/set/a.txt": b"a"})
    second = make_tar(tmp_path / "2.tar", {"kit/VOC/2.xml": b"2", "kit/VOC/set/b.txt": b"b"})
    extract(first, folder, **LIMITS)
    extract(second, folder, **LIMITS)
    assert sorted(tree(folder)) == [
        "kit/VOC/1.xml", "kit/VOC/2.xml", "kit/VOC/set/a.txt", "kit/VOC/set/b.txt"
    ]  # fmt: skip
    assert extracted("1.tar", folder)
    assert extracted("2.tar", folder)


def test_a_file_of_the_same_size_is_replaced_another_is_not(tmp_path, folder):
    archive = make_tar(tmp_path / "x.tar")
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/one.txt").write_bytes(b"ONE")
    (folder / "a/b/two.txt").write_bytes(b"mine")
    refuse(archive, folder, "two.txt is there with 4 bytes, the archive's has 150")
    assert tree(folder) == {"a/one.txt": b"ONE", "a/b/two.txt": b"mine"}
    (folder / "a/b/two.txt").unlink()
    extract(archive, folder, **LIMITS)
    assert tree(folder) == FILES


@pytest.mark.parametrize(
    ("there", "is_folder"), [("a", False), ("a/one.txt", True), ("a/b", False)]
)
def test_a_file_where_a_folder_goes_and_the_other_way_round(tmp_path, folder, there, is_folder):
    (folder / there).parent.mkdir(parents=True)
    (folder / there).mkdir() if is_folder else (folder / there).write_bytes(b"mine")
    refuse(make_tar(tmp_path / "x.tar"), folder, f"{there} is there and is of another kind")


def test_rights_are_those_of_new_files(tmp_path, folder):
    def then(tar):
        add(tar, "tool", b"#!", mode=0o6777)
        add(tar, "folder", type=tarfile.DIRTYPE, mode=0o700)

    archive = make_tar(tmp_path / "x.tar", then=then)
    extract(archive, folder, **LIMITS)
    (folder / "new").touch()
    assert (folder / "tool").stat().st_mode == (folder / "new").stat().st_mode
    assert (folder / "folder").stat().st_mode == folder.stat().st_mode


def test_what_a_killed_run_left_is_no_obstacle(tmp_path, folder):
    archive = make_zip(tmp_path / "x.zip")
    (folder / ".part-x.zip" / "a").mkdir(parents=True)
    (folder / ".part-x.zip" / "a" / "one.txt").write_bytes(b"o")
    assert not extracted("x.zip", folder)
    extract(archive, folder, **LIMITS)
    assert tree(folder) == FILES


def test_a_run_killed_while_files_are_moved_is_repeated(tmp_path, folder, monkeypatch):
    archive = make_tar(tmp_path / "x.tar")
    moves, replace = [], os.replace

    def die(source, target):
        moves.append(source)
        if len(moves) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, folder, **LIMITS)
    monkeypatch.undo()
    assert not extracted("x.tar", folder)
    extract(archive, folder, **LIMITS)
    assert tree(folder) == FILES


def test_processes_that_unpack_the_same_take_turns(tmp_path, folder):
    """The second one waits and finds it done."""
    archive = make_zip(tmp_path / "x.zip", {f"d/{n}": bytes(1000) for n in range(2000)})
    code = (
        "import sys; from pathlib import Path; from data.download.archives import extract; "
        "extract(*map(Path, sys.argv[1:]), max_bytes=10**7, max_files=10**4)"
    )
    command = [sys.executable, "-c", code, str(archive), str(folder)]
    root = Path(__file__).parents[3]
    processes = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE) for _ in range(2)]
    said = b"".join(process.communicate()[1] for process in processes)
    assert [process.returncode for process in processes] == [0, 0], said
    assert said.count(b"2000 files unpacked") == 1
    assert len(tree(folder)) == 2000


def test_folders_and_odd_but_harmless_names(tmp_path, folder):
    def then(tar):
        add(tar, "./", type=tarfile.DIRTYPE)
        add(tar, "./empty/", type=tarfile.DIRTYPE)
        add(tar, "./d/..e/it's 1:2 é.txt", b"x")

    extract(make_tar(tmp_path / "x.tar", {}, then), folder, **LIMITS)
    assert tree(folder) == {"d/..e/it's 1:2 é.txt": b"x"}
    assert (folder / "empty").is_dir()


# ------------------------------------------------------------------------------------------------
# Names and kinds
# ------------------------------------------------------------------------------------------------


OUTSIDE = [
    "/etc/evil", "//evil", "../evil", "a/../../evil", "a/..", "..\\evil", "a\\b", "C:/evil",
    "C:evil", "a/C:/evil", ".", "d/" * 40 + "deep",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_leave_the_folder(tmp_path, folder, name):
    archive = make_tar(tmp_path / "x.tar", {"good": b"good", name: b"bad"})
    refuse(archive, folder, "expected a path that stays in the folder")


@pytest.mark.parametrize("name", [*OUTSIDE, "a\0b"])
def test_names_of_a_zip_that_leave_the_folder(tmp_path, folder, name):
    info = zipfile.ZipInfo("good")
    info.filename = name  # the constructor would mend it
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("good", "good")
        file.writestr(info, "bad")
    refuse(tmp_path / "x.zip", folder, "expected a path that stays in the folder")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "../.."}, "found a link"),
        ({"type": tarfile.SYMTYPE, "linkname": "good"}, "found a link"),
        ({"type": tarfile.LNKTYPE, "linkname": "good"}, "found a link"),
        ({"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, "found a link"),
        ({"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, "found type b'3'"),
        ({"type": tarfile.BLKTYPE}, "found type b'4'"),
        ({"type": tarfile.FIFOTYPE}, "found type b'6'"),
    ],
)
def test_only_files_and_folders_come_out_of_a_tar(tmp_path, folder, fields, message):
    def then(tar):
        add(tar, "link", **fields)
        add(tar, "link/through", b"bad")

    refuse(make_tar(tmp_path / "x.tar", {"good": b"good"}, then), folder, f"'link'.*{message}")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_only_files_and_folders_come_out_of_a_zip(tmp_path, folder, kind):
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    make_zip(tmp_path / "x.zip", {"good": b"good"})
    with zipfile.ZipFile(tmp_path / "x.zip", "a") as file:
        file.writestr(info, "../..")
        file.writestr("link/through", "bad")
    refuse(tmp_path / "x.zip", folder, "'link'.*found a link or device")


@pytest.mark.parametrize("second", ["a/one.txt", "./a/one.txt", "a/b"])
def test_a_member_that_is_there_twice(tmp_path, folder, second):
    def then(tar):
        add(tar, second, b"other")

    refuse(make_tar(tmp_path / "x.tar", then=then), folder, "is in the archive twice")


def test_a_file_that_is_a_folder_too(tmp_path, folder):
    archive = make_tar(tmp_path / "x.tar", {"a": b"file", "a/b": b"in it"})
    refuse(archive, folder, "cannot be unpacked to .*a")


# ------------------------------------------------------------------------------------------------
# Sizes
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("limit", "works"), [(153, True), (152, False)])
def test_bytes_are_bounded(tmp_path, folder, name, limit, works):
    archive = MAKERS[name](tmp_path / name)
    if works:
        extract(archive, folder, **LIMITS | {"max_bytes": limit})
    else:
        refuse(archive, folder, "two.txt.: expected 152 bytes at most, now 153", max_bytes=limit)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("limit", "works"), [(3, True), (2, False)])
def test_files_are_bounded(tmp_path, folder, name, limit, works):
    archive = MAKERS[name](tmp_path / name)
    if works:
        extract(archive, folder, **LIMITS | {"max_files": limit})
    else:
        refuse(archive, folder, "expected 2 files and folders at most", max_files=limit)


def test_folders_count_as_files(tmp_path, folder):
    def then(tar):
        for number in range(4):
            add(tar, f"d{number}", type=tarfile.DIRTYPE)

    archive = make_tar(tmp_path / "x.tar", {}, then)
    refuse(archive, folder, "expected 3 files and folders", max_files=3)


def patched_zip(path, patch, content=b"\0" * 100_000):
    """A zip of one file `bomb`, patch(data, offset of its central header) applied."""
    make_zip(path, {"bomb": content})
    data = bytearray(path.read_bytes())
    patch(data, data.rindex(b"PK\1\2"))
    path.write_bytes(data)
    return path


def test_a_zip_that_understates_what_it_holds(tmp_path, folder):
    """Declared: 10 bytes; inside: 100,000. With the right checksum for 10 it is just that file."""

    def understate(data, central):
        struct.pack_into("<I", data, central + 24, 10)

    refuse(patched_zip(tmp_path / "x.zip", understate), folder, "'bomb'.*broken or cut.*CRC")

    def understate_well(data, central):
        understate(data, central)
        struct.pack_into("<I", data, central + 16, zipfile.crc32(bytes(10)))

    extract(patched_zip(tmp_path / "y.zip", understate_well), folder, **LIMITS)
    assert tree(folder) == {"bomb": bytes(10)}


def test_a_zip_that_overstates(tmp_path, folder):
    def overstate(data, central):
        struct.pack_into("<I", data, central + 24, 5000)

    archive = patched_zip(tmp_path / "x.zip", overstate, b"\0" * 4000)
    refuse(archive, folder, "'bomb'")


def test_overlapping_members(tmp_path, folder):
    """Two names for the same bytes: the second entry of the central directory is the first's."""
    files = {"a": b"\0" * 3000, "b": b"\0" * 3000}
    archive = make_zip(tmp_path / "x.zip", files)
    data = bytearray(archive.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\1\2") + 42, 0)
    archive.write_bytes(data)
    refuse(archive, folder, "'a' and 'b' overlap")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (-512, "0 or more, found -512"),
        (-1, "0 or more, found -1"),
        (1 << 60, "10000 bytes at most"),
    ],
)
def test_a_tar_with_an_impossible_size(tmp_path, folder, size, message):
    """Negative sizes send a reader backwards, round and round."""
    info = tarfile.TarInfo("bad")
    info.size = size
    good = make_tar(tmp_path / "good.tar").read_bytes().rstrip(b"\0")
    good += bytes(-len(good) % 512)
    archive = tmp_path / "x.tar"
    archive.write_bytes(good + info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    refuse(archive, folder, f"'bad': expected .*{message}")


def test_a_sparse_file_is_refused(tmp_path, folder):
    def then(tar):
        add(tar, "holes", type=tarfile.GNUTYPE_SPARSE)

    refuse(make_tar(tmp_path / "x.tar", then=then), folder, "'holes'.*found type b'S'")


# ------------------------------------------------------------------------------------------------
# Broken archives
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_cut_anywhere(tmp_path, folder, name):
    """Between two files of a tar no cut shows: there its digest must tell."""
    whole = MAKERS[name](tmp_path / name).read_bytes()
    end = len(whole) - 1 if name == "x.zip" else len(whole.rstrip(b"\0"))
    for size in range(0, end, 13):
        if name == "x.tar" and size % 512 == 0 and size:
            continue
        (tmp_path / name).write_bytes(whole[:size])
        refuse(tmp_path / name, folder, "broken or cut")


def test_a_broken_header_is_not_the_end(tmp_path, folder):
    archive = make_tar(tmp_path / "x.tar")
    data = bytearray(archive.read_bytes())
    data[1024 + 3] ^= 1  # in the name of the second file: the header's checksum tells
    archive.write_bytes(data)
    refuse(archive, folder, "broken or cut .expected a header or the end at byte 1024")


def test_a_broken_byte_in_a_zip(tmp_path, folder):
    archive = make_zip(tmp_path / "x.zip", method=zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"twotwo", b"towtwo"))
    refuse(archive, folder, "'a/b/two.txt': broken or cut .Bad CRC-32")


def test_an_encrypted_zip(tmp_path, folder):
    def encrypt(data, central):
        data[central + 8] |= 1

    refuse(patched_zip(tmp_path / "x.zip", encrypt), folder, "'bomb': expected no encryption")


def test_an_unknown_compression(tmp_path, folder):
    archive = make_zip(tmp_path / "x.zip", method=zipfile.ZIP_BZIP2)
    refuse(archive, folder, "'a/one.txt': expected stored or deflated, found method 12")


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.tar", "No such file"), ("x.zip", "No such file"), ("x.rar", "expected a .tar or .zip")],
)
def test_no_archive(tmp_path, folder, name, message):
    refuse(tmp_path / name, folder, message)


@pytest.mark.parametrize("name", MAKERS)
def test_random_damage_is_told_or_harmless(tmp_path, folder, name):
    """Whatever the bytes are, nothing but ArchiveError comes out, and nothing leaves the folder."""
    whole, rng = MAKERS[name](tmp_path / name).read_bytes(), random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(min(len(data), 4000))] = rng.choice([0, 0xFF, rng.randrange(256)])
        (tmp_path / name).write_bytes(data)
        try:
            extract(tmp_path / name, folder, **LIMITS)
        except ArchiveError:
            assert not folder.exists() or os.listdir(folder) == []
        assert os.listdir(folder.parent) in ([], ["out"])
        shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------------------------------------
# Disk
# ------------------------------------------------------------------------------------------------


def disk_with(free):
    usage = namedtuple("usage", "total used free")
    return lambda path: usage(10**12, 10**12 - free, free)


@pytest.mark.parametrize("name", MAKERS)
def test_a_full_disk_is_told_before(tmp_path, folder, name, monkeypatch):
    archive = MAKERS[name](tmp_path / name)
    monkeypatch.setattr(shutil, "disk_usage", disk_with(free=152))
    refuse(archive, folder, f"unpacking {name} needs 0.00 GB, 0.00 GB are free")


def test_the_space_needed_and_free(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", disk_with(free=2_500_000_000))
    require_space(tmp_path / "not" / "there", 2_500_000_000, "this")
    with pytest.raises(ArchiveError, match=r"x: this needs 19\.30 GB, 2\.50 GB are free"):
        require_space(Path("x"), 19_300_000_000, "this")


def test_a_folder_that_cannot_be_written(tmp_path, folder):
    folder.write_text("a file")
    with pytest.raises(ArchiveError, match=r"x\.tar: cannot be unpacked to .*out"):
        extract(make_tar(tmp_path / "x.tar"), folder, **LIMITS)
