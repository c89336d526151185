"""The list of published weights, and fetching them from a server on this machine."""

import dataclasses
import functools
import hashlib
import http.server
import re
import shutil
import socket
import threading

import keras
import numpy as np
import pytest

from core.weights import published
from core.weights.published import PUBLISHED, Published, download, find, open_weights
from core.weights.torch_and_keras_files import WeightsError
from utils import download as downloads
from utils.download import DownloadError

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with one file of weights, as keras.applications publishes them."""
    folder = tmp_path_factory.mktemp("site")
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None, include_top=False)
    model.save(folder / "resnet50_notop.h5")
    return folder


@pytest.fixture
def server(site):
    """The site on 127.0.0.1; its `requests` are the paths asked for."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            self.server.requests.append(self.path)

    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.requests = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "BACKOFF", 0)
    return tmp_path / "cache"


@pytest.fixture
def entry(site, server, monkeypatch):
    """The one entry of the list: the site's file, by its MD5 as Keras gives it."""
    digest = hashlib.md5((site / "resnet50_notop.h5").read_bytes()).hexdigest()
    url = f"http://127.0.0.1:{server.server_port}/resnet50_notop.h5"
    entry = Published("imagenet-resnet50", url, f"md5:{digest}", 90.0, "Apache-2.0")
    monkeypatch.setattr(published, "PUBLISHED", (entry,))
    return entry


# ------------------------------------------------------------------------------------------------
# The list
# ------------------------------------------------------------------------------------------------


def test_names_and_files_are_each_their_own():
    assert len({one.name for one in PUBLISHED}) == len(PUBLISHED)
    assert len({one.file for one in PUBLISHED}) == len(PUBLISHED), "they share a cache"


@pytest.mark.parametrize("one", PUBLISHED, ids=lambda one: one.name)
def test_hashes_are_the_publishers(one):
    """torch's are in the names of its files; Keras's are in the installed package."""
    if "pytorch" in one.url:
        assert one.digest == "sha256:" + re.search(r"-([0-9a-f]{8})\.pth$", one.file)[1]
    elif "keras-applications" in one.url:
        from keras.src.applications.resnet import BASE_WEIGHTS_PATH, WEIGHTS_HASHES

        backbone = one.name.removeprefix("imagenet-keras-")
        assert one.digest == f"md5:{WEIGHTS_HASHES[backbone][1]}"
        assert one.url.startswith(BASE_WEIGHTS_PATH)
    else:
        assert one.digest is None, "nobody published one"


@pytest.mark.parametrize(
    ("name", "backbone", "found"),
    [
        ("coco", "resnet50", "coco-torchvision-v2"),
        ("coco", "resnet18", "coco-torchvision-v2"),
        ("imagenet", "resnet18", "imagenet-resnet18"),
        ("imagenet", "resnet152", "imagenet-resnet152"),
        ("imagenet-keras-resnet101", "resnet18", "imagenet-keras-resnet101"),
    ],
)
def test_short_names(name, backbone, found):
    assert find(name, backbone).name == found


def test_no_such_name():
    assert find("imagenet", lambda: None) is None, "a backbone of one's own has none"
    assert find("coco-yolo") is None
    with pytest.raises(WeightsError, match=r"coco-yolo: expected a file, a run or one of coco, im"):
        open_weights("coco-yolo")


def test_imagenet_is_for_backbones_of_ours():
    with pytest.raises(WeightsError, match="imagenet: expected a ResNet of ours"):
        open_weights("imagenet", lambda: None)


def test_braces_in_a_path_are_only_braces():
    with pytest.raises(WeightsError, match=r"runs/\{mine\}: expected a file, a run or one of"):
        open_weights("runs/{mine}")


def test_torch_is_asked_for_before_the_download(cache, monkeypatch):
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"coco: .*5905b1c5\.pth can only be read with torch"):
        open_weights("coco")
    assert not cache.exists()


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path / "a"))
    assert published.cache_folder() == tmp_path / "a"
    monkeypatch.delenv("RETINANET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert published.cache_folder() == tmp_path / "retinanet-tensorflow"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert published.cache_folder() == tmp_path / "home" / ".cache" / "retinanet-tensorflow"


# ------------------------------------------------------------------------------------------------
# From a server
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_name_is_downloaded_once_and_imported(entry, server, cache):
    first = open_weights("imagenet", "resnet50")
    second = open_weights("imagenet-resnet50")
    assert server.requests == ["/resnet50_notop.h5"]
    assert first.kind == "backbone"
    assert first.model.normalization == "caffe"
    assert first.origin["file"] == "resnet50_notop.h5"
    for place, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[place])
    written = (cache / "resnet50_notop.h5.sha256").read_text().split()[0]
    assert first.origin["sha256"] == written


def test_a_file_of_another_hash_is_refused_and_not_kept(entry, cache, monkeypatch):
    wrong = dataclasses.replace(entry, digest="sha256:0123456789")
    monkeypatch.setattr(published, "PUBLISHED", (wrong,))
    with pytest.raises(DownloadError, match="expected sha256:0123456789, found sha256:"):
        open_weights("imagenet", "resnet50")
    assert list(cache.iterdir()) == []


def test_offline_the_error_says_which_file_to_put_where_and_then_it_works(
    entry, site, cache, monkeypatch
):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/resnet50_notop.h5"
    monkeypatch.setattr(published, "PUBLISHED", (dataclasses.replace(entry, url=url),))
    place = cache / "resnet50_notop.h5"
    with pytest.raises(DownloadError, match=f"download {url} elsewhere and put it at {place}"):
        open_weights("imagenet", "resnet50")
    shutil.copy(site / "resnet50_notop.h5", place)
    assert open_weights("imagenet", "resnet50").kind == "backbone"


def test_a_missing_file_is_told(entry, cache, monkeypatch):
    moved = dataclasses.replace(entry, url=entry.url.replace("notop", "moved"))
    monkeypatch.setattr(published, "PUBLISHED", (moved,))
    with pytest.raises(DownloadError, match=r"resnet50_moved\.h5: status 404"):
        open_weights("imagenet", "resnet50")


def test_an_unknown_hash_is_recorded_at_the_first_download(entry, cache, monkeypatch):
    unknown = dataclasses.replace(entry, digest=None)
    path = download(unknown)
    recorded = (cache / "resnet50_notop.h5.sha256").read_text().split()[0]
    assert recorded == hashlib.sha256(path.read_bytes()).hexdigest()
    with open(path, "r+b") as file:
        file.write(b"x")
    with pytest.raises(DownloadError, match=f"expected sha256:{recorded}, found sha256:"):
        download(unknown)


# ------------------------------------------------------------------------------------------------
# From a path
# ------------------------------------------------------------------------------------------------


def test_a_path_is_a_file_of_another_project_or_one_of_ours(site, tmp_path):
    theirs = open_weights(str(site / "resnet50_notop.h5"))
    theirs.save(tmp_path / "imported" / "weights.npz")
    for path in (tmp_path / "imported", tmp_path / "imported" / "weights.npz"):
        ours = open_weights(str(path))
        assert ours.model == theirs.model
        assert ours.origin == theirs.origin
