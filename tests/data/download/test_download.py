"""Whole downloads of small datasets from a real server, by the table that the command uses."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import namedtuple
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data.download.__main__ import main
from data.download.archives import ArchiveError
from data.download.sources import SOURCES, Archive
from utils import download
from utils.download import DownloadError

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[3]
PICTURE = bytes(range(256)) * 300  # no reader of images is run on it


# ------------------------------------------------------------------------------------------------
# The server and what it serves
# ------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serves `files`, {path: content}; `cuts`: bytes after which the next answers break off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts, self.asked = {}, [], []

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        first = int(re.sub(r"\D", "", self.headers["Range"] or "0"))
        self.server.asked.append((self.path, first))
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 206 if first else 200)
        content = content or b""
        self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        self.wfile.write(content[first:][:cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "BACKOFF", 0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "sets"


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def voc_tree(year, image_set, ids):
    files = {f"ImageSets/Main/{image_set}.txt": "".join(f"{name}\n" for name in ids).encode()}
    for name in ids:
        files |= {f"JPEGImages/{name}.jpg": PICTURE, f"Annotations/{name}.xml": b"<annotation/>"}
    return {f"VOCdevkit/{year}/{name}": content for name, content in files.items()}


def coco_tree():
    trees = {"annotations": {}}
    for split, ids in (("train2017", "abc"), ("val2017", "de")):
        listed = {"images": [{"id": i, "file_name": f"{i}.jpg"} for i in ids], "annotations": []}
        trees["annotations"][f"annotations/instances_{split}.json"] = json.dumps(listed).encode()
        trees[split] = {f"{split}/{i}.jpg": PICTURE for i in ids}
    return trees


def served(server, archive, content, mirrors=1):
    """The archive as it stands in the table, but with this content at addresses of the server."""
    urls = [f"/{number}/{archive.name}" for number in range(mirrors)]
    server.files |= dict.fromkeys(urls, content)
    sha256, size = hashlib.sha256(content).hexdigest(), len(content)
    urls = tuple(map(server.url, urls))
    return replace(archive, urls=urls, sha256=sha256, size=size, max_bytes=size)


@pytest.fixture
def voc(server):
    """The table's VOC 2007 with three images of trainval and two of test."""
    source = SOURCES["voc2007"]
    trainval, test = source.archives
    archives = (
        served(server, trainval, tar_of(voc_tree("VOC2007", "trainval", ["01", "02", "05"])), 2),
        served(server, test, tar_of(voc_tree("VOC2007", "test", ["03", "04"]))),
    )
    images = {"trainval": 3, "test": 2}
    return {"voc2007": replace(source, archives=archives, images=images)}


@pytest.fixture
def coco(server):
    source, trees = SOURCES["coco2017"], coco_tree()
    names = ("annotations", "val2017", "train2017")
    archives = tuple(
        served(server, archive, zip_of(trees[name]))
        for archive, name in zip(source.archives, names, strict=True)
    )
    return {"coco2017": replace(source, archives=archives, images={"train": 3, "val": 2})}


def tree(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(p.relative_to(folder).as_posix() for p in paths if p.suffix != ".extracted")


def run(sources, out, *words):
    return main([*sources, "--out", str(out), *words], sources)


# ------------------------------------------------------------------------------------------------
# Whole runs
# ------------------------------------------------------------------------------------------------


def test_voc(server, voc, out, capsys):
    run(voc, out)
    trainval = voc_tree("VOC2007", "trainval", ["01", "02", "05"])
    assert tree(out) == sorted(trainval | voc_tree("VOC2007", "test", ["03", "04"]))
    assert (out / "VOCdevkit/VOC2007/JPEGImages/04.jpg").read_bytes() == PICTURE
    screen = capsys.readouterr()
    assert "VOC2007/trainval: 3 images, 3 expected; 3 annotation files, 3 expected" in screen.err
    assert "VOC2007/test: 2 images, 2 expected; 2 annotation files, 2 expected" in screen.err
    command = f"python train.py --config configs/voc.py --set data.root={out}/VOCdevkit"
    assert screen.out.startswith(f"train with: {command}")
    assert not (out / "archives").exists()


def test_coco(server, coco, out, capsys):
    run(coco, out)
    trees = coco_tree()
    expected = {name for files in trees.values() for name in files}
    assert tree(out / "coco") == sorted(expected)
    screen = capsys.readouterr()
    assert "train2017: 3 images, 3 expected; 1 annotation files, 1 expected" in screen.err
    assert f"configs/coco.py --set data.root={out}/coco\n" in screen.out


def test_a_second_run_asks_for_nothing_and_unpacks_nothing(server, voc, out, capsys):
    run(voc, out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    asked = list(server.asked)
    run(voc, out)
    assert server.asked == asked
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    assert "VOCtest_06-Nov-2007.tar: unpacked already" in capsys.readouterr().err


def test_only_some_parts(server, coco, voc, out):
    """COCO's annotations belong to both of its parts."""
    run(coco, out, "--parts", "val", "val")
    assert sorted(path for path, _ in server.asked) == [
        "/0/annotations_trainval2017.zip", "/0/val2017.zip"
    ]  # fmt: skip
    assert sorted(os.listdir(out / "coco" / "val2017")) == ["d.jpg", "e.jpg"]
    assert not (out / "coco" / "train2017").exists()
    run(voc, out, "--parts", "test")
    assert server.asked[2:] == [("/0/VOCtest_06-Nov-2007.tar", 0)]
    with pytest.raises(ValueError, match="--parts: expected trainval or test, got 'val'"):
        run(voc, out, "--parts", "val")


def test_archives_can_be_kept(server, voc, out):
    run(voc, out, "--keep-archives")
    kept = {path.name for path in (out / "archives").iterdir() if path.suffix == ".tar"}
    assert kept == {"VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"}
    shutil.rmtree(out / "VOCdevkit")
    asked = list(server.asked)
    run(voc, out)
    assert server.asked == asked, "unpacked from what was kept"
    assert not (out / "archives").exists()


def test_what_was_deleted_comes_again(server, voc, out):
    run(voc, out)
    (out / "VOCdevkit/VOC2007/JPEGImages/03.jpg").unlink()
    run(voc, out)
    assert (out / "VOCdevkit/VOC2007/JPEGImages/03.jpg").read_bytes() == PICTURE
    assert [path for path, _ in server.asked[2:]] == ["/0/VOCtest_06-Nov-2007.tar"]


# ------------------------------------------------------------------------------------------------
# What goes wrong
# ------------------------------------------------------------------------------------------------


def test_a_cut_is_resumed_by_the_next_run(server, voc, out):
    """Both addresses break off, three times each; the next run goes on at the last byte."""
    server.cuts = [1000] * 6
    with pytest.raises(DownloadError, match=r"the connection was cut at 6000 of \d+ bytes"):
        run(voc, out, "--parts", "trainval")
    assert not (out / "VOCdevkit").exists()
    server.asked.clear()
    run(voc, out, "--parts", "trainval")
    assert server.asked == [("/0/VOCtrainval_06-Nov-2007.tar", 6000)]


@pytest.mark.parametrize("answer", [None, b"another file"])
def test_the_second_address_is_tried(server, voc, out, answer, capsys):
    """Where the first has no such file or another one of that name."""
    if answer is None:
        del server.files["/0/VOCtrainval_06-Nov-2007.tar"]
    else:
        server.files["/0/VOCtrainval_06-Nov-2007.tar"] = answer
    run(voc, out, "--parts", "trainval")
    assert [path[:3] for path, _ in server.asked] == ["/0/", "/1/"]
    assert "trying the next address" in capsys.readouterr().err


def test_what_to_do_by_hand_is_said_once(server, voc, out, capsys):
    server.files.clear()
    with pytest.raises(DownloadError, match=r"/1/.*: status 404 .*; download http.*put it at "):
        run(voc, out, "--parts", "trainval")
    told = capsys.readouterr().err
    assert "VOCtrainval_06-Nov-2007.tar: status 404" in " ".join(told.split())
    assert "trying the next address" in told
    assert "put it at" not in told


def test_a_wrong_digest(server, voc, out):
    name = "VOCtest_06-Nov-2007.tar"
    server.files[f"/0/{name}"] = server.files[f"/0/{name}"].replace(b"<anno", b"<anna")
    with pytest.raises(DownloadError, match=rf"{name}: expected sha256:\w+, found sha256:\w+;"):
        run(voc, out, "--parts", "test")
    assert tree(out) == []


def test_a_wrong_archive_put_there_by_hand_is_not_replaced(server, voc, out):
    path = out / "archives" / "VOCtrainval_06-Nov-2007.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"delete it .* from http://[^ ]*/0/"):
        run(voc, out)
    assert path.read_bytes() == b"mine"
    assert server.asked == []


def test_an_archive_larger_than_it_may_be_leaves_nothing(server, voc, out):
    source = voc["voc2007"]
    archives = [replace(archive, max_bytes=1000) for archive in source.archives]
    with pytest.raises(ArchiveError, match="expected 1000 bytes at most"):
        run({"voc2007": replace(source, archives=tuple(archives))}, out)
    assert os.listdir(out) == ["archives"]


def test_a_list_that_names_more_than_there_is(server, voc, out):
    source = voc["voc2007"]
    files = voc_tree("VOC2007", "test", ["03", "04"])
    files["VOCdevkit/VOC2007/ImageSets/Main/test.txt"] = b"03\n04\n99\n"
    archive = served(server, source.archives[1], tar_of(files))
    sources = {"voc2007": replace(source, archives=(source.archives[0], archive))}
    with pytest.raises(ValueError, match="voc2007 is not complete\nVOC2007/test: 2 missing") as e:
        run(sources, out)
    kit = out / "VOCdevkit" / "VOC2007"
    assert str(e.value).splitlines()[2:] == [
        f"  {kit}/JPEGImages/99.jpg", f"  {kit}/Annotations/99.xml"
    ]  # fmt: skip


def test_another_number_of_images_than_expected(server, voc, out):
    sources = {"voc2007": replace(voc["voc2007"], images={"trainval": 4, "test": 2})}
    with pytest.raises(ValueError, match=r"VOC2007/trainval: expected 4 images, found 3$"):
        run(sources, out)


def disk_with(monkeypatch, free):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, free))


def test_a_full_disk_is_told_before_the_download(out, monkeypatch):
    """The real table: no server is asked."""
    disk_with(monkeypatch, free=3_500_000_000)
    message = (
        r"archives: VOCtrainval_11-May-2012\.tar, with what unpacks from it, needs 4\.00 GB, "
        r"3\.50 GB are free"
    )
    with pytest.raises(ArchiveError, match=message):
        main(["voc2012", "--out", str(out)])
    assert not out.exists()


def test_what_came_already_needs_no_space(server, voc, out, monkeypatch):
    """The archive and its contents need 2 sizes, of which 1 is there after the download."""
    archive = voc["voc2007"].archives[1]
    disk_with(monkeypatch, free=archive.size)
    with pytest.raises(ArchiveError, match="are free"):
        run(voc, out, "--parts", "test")
    (out / "archives").mkdir(parents=True)
    (out / "archives" / archive.name).write_bytes(server.files[f"/0/{archive.name}"])
    run(voc, out, "--parts", "test")
    assert server.asked == []


# ------------------------------------------------------------------------------------------------
# CrowdHuman
# ------------------------------------------------------------------------------------------------


def lay_crowdhuman(out, zips, ids):
    """Zips {name: ids of the images in it} and annotation files {split: ids}."""
    folder = out / "crowdhuman"
    folder.mkdir(parents=True, exist_ok=True)
    for name, images in zips.items():
        content = zip_of({f"Images/{image}.jpg": PICTURE for image in images})
        (folder / f"{name}.zip").write_bytes(content)
    for split, names in ids.items():
        lines = [json.dumps({"ID": name, "gtboxes": []}) for name in names]
        (folder / f"annotation_{split}.odgt").write_text("\n".join(lines) + "\n")


TRAIN = {"CrowdHuman_train01": ["1,a"], "CrowdHuman_train02": ["2,b"], "CrowdHuman_train03": []}


def test_crowdhuman_says_what_to_fetch(out):
    with pytest.raises(ValueError, match="crowdhuman is not complete") as error:
        main(["crowdhuman", "--out", str(out)])
    told = str(error.value)
    assert f"val: expected {out}/crowdhuman/annotation_val.odgt" in told
    assert "\nagree to the terms on https://www.crowdhuman.org/download.html" in told
    assert f"put these files into {out}/crowdhuman and run this again" in told
    assert told.split(":\n")[1].split() == [
        "CrowdHuman_train01.zip", "CrowdHuman_train02.zip", "CrowdHuman_train03.zip",
        "CrowdHuman_val.zip", "annotation_train.odgt", "annotation_val.odgt",
    ]  # fmt: skip


def test_crowdhuman_asks_only_for_what_is_not_there(out, capsys):
    lay_crowdhuman(out, {"CrowdHuman_train01": ["1,a"]}, {"train": ["1,a", "2,b", "3,c"]})
    with pytest.raises(ValueError, match=r"train: 2 missing\n.*2,b.jpg\n.*3,c.jpg\nput") as error:
        main(["crowdhuman", "--out", str(out), "--parts", "train"])
    assert (out / "crowdhuman/CrowdHuman_train01/Images/1,a.jpg").read_bytes() == PICTURE
    asked = str(error.value).split(":\n")[1].split()
    assert asked == ["CrowdHuman_train02.zip", "CrowdHuman_train03.zip"]
    assert "train: 1 images, 15000 expected" in capsys.readouterr().err


def test_crowdhuman_whole(out, capsys):
    """The number of images is said; another one than its authors' is no error."""
    ids = {"train": ["2,b", "1,a"], "val": ["4,d"]}
    lay_crowdhuman(out, TRAIN | {"CrowdHuman_val": ["4,d"]}, ids)
    main(["crowdhuman", "--out", str(out)])
    screen = capsys.readouterr()
    assert "train: 2 images, 15000 expected" in screen.err
    assert "val: 1 images, 4370 expected" in screen.err
    assert f"configs/crowdhuman.py --set data.root={out}/crowdhuman\n" in screen.out
    assert (out / "crowdhuman/CrowdHuman_val.zip").exists(), "what came by hand is not deleted"
    for archive in (out / "crowdhuman").glob("*.zip"):
        archive.unlink()
    main(["crowdhuman", "--out", str(out)])


def test_crowdhuman_unpacked_by_hand(out):
    lay_crowdhuman(out, {}, {"val": ["4,d"]})
    (out / "crowdhuman" / "Images").mkdir()
    (out / "crowdhuman" / "Images" / "4,d.jpg").write_bytes(PICTURE)
    main(["crowdhuman", "--out", str(out), "--parts", "val"])


def test_crowdhuman_unpacked_by_hand_but_for_one_image(out):
    """First the image; and no archive of train, which is whole."""
    lay_crowdhuman(out, {}, {"train": ["1,a"], "val": ["4,d", "5,e"]})
    folder = out / "crowdhuman" / "Images"
    folder.mkdir()
    for name in ("1,a", "4,d"):
        (folder / f"{name}.jpg").write_bytes(PICTURE)
    with pytest.raises(ValueError, match="crowdhuman is not complete") as error:
        main(["crowdhuman", "--out", str(out)])
    lines = str(error.value).splitlines()
    assert lines[1:3] == ["val: 1 missing", f"  {folder}/5,e.jpg"]
    assert lines[3].startswith("put the missing files in their places, or agree to the terms on")
    assert lines[4:] == ["  CrowdHuman_val.zip"]


def test_crowdhuman_many_missing_are_not_all_named(out):
    lay_crowdhuman(out, TRAIN, {"train": [f"{number},x" for number in range(12)]})
    with pytest.raises(ValueError, match="train: 12 missing") as error:
        main(["crowdhuman", "--out", str(out), "--parts", "train"])
    lines = str(error.value).splitlines()
    assert len(lines) == 2 + 10 + 1
    assert lines[-1] == "  and 2 more"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("annotation_val.odgt", '{"ID": "4,d"}\n<html>', "annotation_val.odgt, line 2: "),
        ("annotation_val.odgt", '{"id": "4,d"}\n', "annotation_val.odgt, line 1: .*ID"),
        ("CrowdHuman_val.zip", "<html>", "CrowdHuman_val.zip: broken or cut"),
    ],
)
def test_a_page_saved_in_place_of_a_file(out, name, text, message):
    lay_crowdhuman(out, {"CrowdHuman_val": ["4,d"]}, {"val": ["4,d"]})
    (out / "crowdhuman" / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        main(["crowdhuman", "--out", str(out), "--parts", "val"])


# ------------------------------------------------------------------------------------------------
# The table and the command
# ------------------------------------------------------------------------------------------------


def archives():
    return [a for source in SOURCES.values() for a in source.archives if not source.by_hand]


@pytest.mark.parametrize("archive", archives(), ids=lambda archive: archive.name)
def test_the_table(archive: Archive):
    assert re.fullmatch("[0-9a-f]{64}", archive.sha256)
    assert [url.rpartition("/")[2] for url in archive.urls] == [archive.name] * 2
    assert all(url.startswith(("http://", "https://")) for url in archive.urls)
    assert archive.max_bytes >= archive.size


def test_parts_of_archives_and_splits_agree():
    for source in SOURCES.values():
        needed = {part for archive in source.archives for part in archive.parts}
        assert needed == set(source.images)
        assert (ROOT / source.config).is_file()


def test_as_a_command(out):
    command = [sys.executable, "-m", "data.download", "crowdhuman", "--out", str(out)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert process.stderr.startswith("error: crowdhuman is not complete\n")
    assert "CrowdHuman_train01.zip" in process.stderr
