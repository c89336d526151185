"""Downloads from a real server that can be told to misbehave."""

import copy
import hashlib
import io
import re
import socket
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from loguru import logger
from rich.console import Console

from utils import diary, download
from utils.download import DownloadError, fetch

pytestmark = pytest.mark.full

CONTENT = bytes(range(256)) * 4000  # some blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
CUT = 300_000  # bytes a cut connection lets through
GOOD, WRONG = f"sha256:{SHA256}", "sha256:" + "0" * 64


class Server(ThreadingHTTPServer):
    """Serves `content`; `script` holds what to do instead, a function of the handler a request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.script, self.asked, self.sent = [], [], []
        self.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/files/net.bin?v=1"

    def handle_error(self, request, client_address):
        """A connection broken on purpose is nothing to print."""

    def ranges(self):
        return [headers["Range"] for headers in self.asked]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(copy.copy(self.headers))
        self.server.sent.append(0)
        script = self.server.script
        (script.pop(0) if script else serve)(self)

    def start(self, status, length, content_range=None):
        self.send_response(status)
        for name, value in (("Content-Length", length), ("Content-Range", content_range)):
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()

    def send(self, body):
        self.server.sent[-1] += len(body)
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *args):
        pass


def serve(handler, limit=None):
    """What a good server does; with a limit the body ends after that many bytes."""
    content, asked = handler.server.content, handler.headers["Range"]
    if asked is None:
        handler.start(200, len(content))
        return handler.send(content[:limit])
    first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
    if first >= len(content):
        return handler.start(416, 0, f"bytes */{len(content)}")
    handler.start(206, len(content) - first, f"bytes {first}-{len(content) - 1}/{len(content)}")
    return handler.send(content[first:][:limit])


def cut(handler):
    serve(handler, limit=CUT)


def reset(handler):
    """The connection breaks instead of ending."""
    cut(handler)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stall(handler):
    cut(handler)
    handler.server.ended.wait(20)


def hang_up(handler):
    """Ends before the first byte of an answer."""


def cut_chunk(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.send(f"{len(CONTENT):x}\r\n".encode() + CONTENT[:CUT])


def ignore_range(handler):
    handler.start(200, len(handler.server.content))
    handler.send(handler.server.content)


def range_from(first):
    """A server that sends another range than the one it was asked for."""

    def send(handler):
        content = handler.server.content
        size = len(content)
        handler.start(206, size - first, f"bytes {first}-{size - 1}/{size}")
        handler.send(content[first:])

    return send


def without_length(handler):
    handler.start(200, None)
    handler.send(handler.server.content)


def status(code):
    return lambda handler: handler.start(code, 0)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "BACKOFF", 0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def said():
    """What was logged at INFO or above."""
    lines = []
    sink = logger.add(lambda line: lines.append(line.rstrip()), format="{message}", level="INFO")
    yield lines
    logger.remove(sink)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights" / "net.bin"


def files(path):
    return sorted(file.name for file in path.parent.iterdir())


def lay_part(path, content):
    path.parent.mkdir(exist_ok=True)
    path.with_name("net.bin.part").write_bytes(content)


def assert_whole(path, content=CONTENT):
    assert path.read_bytes() == content
    record = path.with_name("net.bin.sha256").read_text().strip()
    assert record == hashlib.sha256(content).hexdigest()
    assert files(path) == ["net.bin", "net.bin.sha256"]


# ------------------------------------------------------------------------------------------------
# Whole downloads
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", [None, GOOD, f"sha256:{SHA256[:8]}", f"md5:{MD5}"])
def test_a_good_file(server, path, said, digest):
    assert fetch(server.url, str(path), digest) == path
    assert_whole(path)
    headers = server.asked[0]
    assert headers["User-Agent"] == "retinanet-tensorflow"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Range"] is None
    assert said == ([] if digest == GOOD else [f"sha256 of net.bin recorded: {SHA256}"])


@pytest.mark.parametrize("answer", [serve, without_length])
def test_an_empty_file(server, path, answer):
    server.content, server.script = b"", [answer]
    fetch(server.url, path)
    assert_whole(path, b"")


def test_the_answer_may_lead_elsewhere(server, path):
    """Release files are behind a redirection, which has to pass on the range."""

    def redirect(handler):
        handler.send_response(302)
        handler.send_header("Location", "/elsewhere")
        handler.end_headers()

    server.script = [redirect, cut, redirect]
    fetch(server.url, path, digest=GOOD)
    assert_whole(path)
    assert server.ranges() == [None, None, f"bytes={CUT}-", f"bytes={CUT}-"]


@pytest.mark.parametrize("answer", [serve, without_length])
@pytest.mark.parametrize("terminal", [True, False])
def test_progress(server, path, monkeypatch, answer, terminal):
    """On a terminal, for a length that is known or not, and a name that looks like markup."""
    screen = io.StringIO()
    monkeypatch.setattr(
        diary, "console", Console(file=screen, force_terminal=terminal, width=100, _environ={})
    )
    path = path.with_name("net[bold].bin")
    server.script = [answer]
    fetch(server.url, path, digest=GOOD)
    assert path.read_bytes() == CONTENT
    assert ("net[bold].bin" in screen.getvalue()) == terminal
    assert ("1/1" in screen.getvalue()) == terminal


# ------------------------------------------------------------------------------------------------
# Cuts
# ------------------------------------------------------------------------------------------------


def test_what_is_cut_for_good_is_resumed_later(server, path):
    server.script = [hang_up, hang_up, cut]
    with pytest.raises(DownloadError, match=f"cut at {CUT} of {len(CONTENT)} bytes") as error:
        fetch(server.url, path, digest=GOOD)
    assert str(error.value).endswith(f"download {server.url} elsewhere and put it at {path}")
    assert len(server.asked) == 3
    assert files(path) == ["net.bin.part"]
    assert path.with_name("net.bin.part").read_bytes() == CONTENT[:CUT]
    fetch(server.url, path, digest=GOOD)
    assert_whole(path)
    assert server.asked[3]["Range"] == f"bytes={CUT}-"
    assert server.sent[3] == len(CONTENT) - CUT, "only the rest was sent"


def test_a_cut_is_resumed_within_a_call(server, path, said):
    server.script = [cut, cut]
    fetch(server.url, path, digest=GOOD)
    assert_whole(path)
    assert server.ranges() == [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"]
    assert server.sent == [CUT, CUT, len(CONTENT) - 2 * CUT]
    assert [line.rpartition("; ")[2] for line in said] == [
        "attempt 1 of 3 failed", "attempt 2 of 3 failed"
    ]  # fmt: skip


@pytest.mark.parametrize("answer", [reset, stall, hang_up, cut_chunk, status(503)])
def test_other_failures_that_may_pass(server, path, said, monkeypatch, answer):
    server.script = [answer]
    monkeypatch.setattr(download, "TIMEOUT", 0.2 if answer is stall else 30)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    fetch(server.url, path, digest=GOOD)
    assert_whole(path)
    assert len(server.asked) == 2
    assert ("timed out" in said[0]) == (answer is stall)


def test_the_number_of_attempts(server, path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    server.script = [status(503)] * 9
    with pytest.raises(DownloadError, match="status 503 Service Unavailable"):
        fetch(server.url, path)
    assert len(server.asked) == 2
    assert files(path) == []


@pytest.mark.parametrize(("digest", "is_resumed"), [(None, False), (GOOD, True)])
def test_only_a_digest_tells_that_two_parts_are_of_one_file(server, path, digest, is_resumed):
    lay_part(path, CONTENT[:100])
    server.script = [cut]
    fetch(server.url, path, digest)
    assert_whole(path)
    assert server.ranges() == (
        ["bytes=100-", f"bytes={100 + CUT}-"] if is_resumed else [None, None]
    )


# ------------------------------------------------------------------------------------------------
# Starting over
# ------------------------------------------------------------------------------------------------


def test_a_server_that_ignores_ranges(server, path):
    server.script = [cut, ignore_range]
    fetch(server.url, path, digest=GOOD)
    assert_whole(path)
    assert server.ranges() == [None, f"bytes={CUT}-"]


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_part_as_long_as_the_file_or_longer(server, path, extra, monkeypatch):
    """The server answers 416; not even the one attempt is used up by that."""
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    lay_part(path, CONTENT + extra)
    fetch(server.url, path, digest=GOOD)
    assert_whole(path)
    assert server.ranges() == [f"bytes={len(CONTENT + extra)}-", None]


def test_416_whatever_is_asked(server, path):
    lay_part(path, CONTENT[:CUT])
    server.script = [status(416)] * 9
    with pytest.raises(DownloadError, match="status 416"):
        fetch(server.url, path, digest=GOOD)
    assert server.ranges() == [f"bytes={CUT}-", None]


@pytest.mark.parametrize("first", [CUT - 1, CUT + 1])
def test_a_range_that_was_not_asked_for(server, path, first):
    lay_part(path, CONTENT[:CUT])
    server.script = [range_from(first)]
    fetch(server.url, path, digest=GOOD)
    assert_whole(path)
    assert server.ranges() == [f"bytes={CUT}-", None]


def test_a_server_that_never_begins_at_the_beginning(server, path):
    server.script = [range_from(CUT)] * 99
    with pytest.raises(DownloadError, match="expected the file from its first byte"):
        fetch(server.url, path)
    assert files(path) == []
    lay_part(path, CONTENT[:CUT])
    server.script = [range_from(CUT - 1)] * 99
    with pytest.raises(DownloadError, match="expected the file from its first byte"):
        fetch(server.url, path, digest=GOOD)
    assert path.with_name("net.bin.part").read_bytes() == CONTENT[:CUT], "nothing was joined to it"


# ------------------------------------------------------------------------------------------------
# Digests
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digest", "found"),
    [
        (WRONG, f"sha256:{SHA256}"),
        (f"sha256:{SHA256[:7]}x".replace("x", "0" if SHA256[7] != "0" else "1"), "sha256:"),
        (f"sha256:{SHA256[1:]}", "sha256:"),  # a part of it, but not the beginning
        ("md5:" + "0" * 32, f"md5:{MD5}"),
    ],
)
def test_a_wrong_digest_leaves_nothing(server, path, digest, found):
    """What came whole is not asked for again."""
    with pytest.raises(DownloadError) as error:
        fetch(server.url, path, digest)
    message = str(error.value)
    assert message.startswith(f"{server.url}: expected {digest}, found {found}")
    assert message.endswith(f"download {server.url} elsewhere and put it at {path}")
    assert files(path) == []
    assert len(server.asked) == 1


def test_a_part_that_was_broken_is_fetched_whole(server, path):
    lay_part(path, b"x" * CUT)
    server.script = [serve, cut]
    fetch(server.url, path, digest=GOOD)
    assert_whole(path)
    assert server.ranges() == [f"bytes={CUT}-", None, f"bytes={CUT}-"]


def test_a_broken_part_costs_no_attempt(server, path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    lay_part(path, b"x" * CUT)
    server.script = [hang_up, serve, hang_up]
    fetch(server.url, path, digest=GOOD)
    assert_whole(path)
    assert len(server.asked) == 4


def test_a_broken_part_of_a_wrong_file(server, path):
    """Fetched once more, and no more than that, though a cut makes that one a resumed one too."""
    lay_part(path, b"x" * CUT)
    server.script = [serve, cut]
    with pytest.raises(DownloadError, match=rf"expected {WRONG}, found sha256:{SHA256}"):
        fetch(server.url, path, digest=WRONG)
    assert files(path) == []
    assert len(server.asked) == 3


# ------------------------------------------------------------------------------------------------
# No file to be had
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [403, 404])
def test_a_refusal_is_final(server, path, code):
    server.script = [status(code)]
    with pytest.raises(DownloadError, match=f"status {code}") as error:
        fetch(server.url, path)
    assert str(error.value).endswith(f"download {server.url} elsewhere and put it at {path}")
    assert len(server.asked) == 1
    assert files(path) == []


def test_no_server(path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "BACKOFF", 0)
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/net.bin"
        with pytest.raises(DownloadError, match="refused") as error:
            fetch(url, path)
    assert str(error.value).startswith(url)
    assert str(error.value).endswith(f"download {url} elsewhere and put it at {path}")


def test_no_network(path, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "BACKOFF", 0)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match="Name or service not known; download https://host/x"):
        fetch("https://host/x", path)


def test_a_relative_path_is_told_in_full(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.script = [status(404)]
    with pytest.raises(DownloadError, match=f"put it at {tmp_path / 'net.bin'}$"):
        fetch(server.url, "net.bin")


def test_a_folder_is_no_file(server, tmp_path):
    with pytest.raises(DownloadError, match="got a folder"):
        fetch(server.url, tmp_path)


# ------------------------------------------------------------------------------------------------
# A file that is there already
# ------------------------------------------------------------------------------------------------


def test_a_file_that_came_is_not_asked_for_again(server, path, said):
    fetch(server.url, path)
    said.clear()
    assert fetch(server.url, path) == path
    assert fetch(server.url, path, digest=GOOD) == path
    assert fetch(server.url, path, digest=f"md5:{MD5}") == path
    assert len(server.asked) == 1
    assert said == []


@pytest.mark.parametrize("digest", [None, f"sha256:{SHA256[:8]}", f"md5:{MD5}"])
def test_a_file_put_there_by_hand(server, path, said, digest):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    fetch(server.url, path, digest)
    assert server.asked == []
    if digest:
        assert files(path) == ["net.bin"], "a known file may lie where nobody can write"
    else:
        assert_whole(path)
        assert said == [f"sha256 of net.bin recorded: {SHA256}"]


def test_a_wrong_file_is_refused_and_left_alone(server, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    with pytest.raises(DownloadError) as error:
        fetch(server.url, path, digest=WRONG)
    expected = f"{path}: expected {WRONG}, found sha256:{SHA256}; delete it"
    assert str(error.value).startswith(expected)
    assert server.asked == []
    assert path.read_bytes() == CONTENT
    assert files(path) == ["net.bin"]


def test_a_file_that_changed_since_it_was_recorded(server, path):
    fetch(server.url, path)
    path.write_bytes(b"changed")
    changed = f"sha256:{hashlib.sha256(b'changed').hexdigest()}"
    for digest in (None, changed):
        with pytest.raises(DownloadError, match=f"expected {GOOD}, found {changed}"):
            fetch(server.url, path, digest)
    assert path.read_bytes() == b"changed"
    assert len(server.asked) == 1
    path.write_bytes(CONTENT)
    with pytest.raises(DownloadError, match=f"expected {WRONG}, found {GOOD}"):
        fetch(server.url, path, digest=WRONG)
    path.unlink()  # as the message says
    fetch(server.url, path)
    assert_whole(path)


@pytest.mark.parametrize(
    ("text", "good"),
    [(SHA256, True), (f"{SHA256.upper()}  net.bin\n", True), ("", False), (SHA256[:8], False)],
)
def test_a_record_written_by_hand(server, path, text, good):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    path.with_name("net.bin.sha256").write_text(text)
    if good:
        assert fetch(server.url, path) == path
    else:
        with pytest.raises(DownloadError, match=r"net\.bin\.sha256: expected 64 hex digits"):
            fetch(server.url, path)


def test_processes_that_want_the_same_file_take_turns(server, path):
    """The second one waits, finds the file and asks the server nothing."""
    code = "import sys; from utils.download import fetch; fetch(*sys.argv[1:])"
    command = [sys.executable, "-c", code, server.url, str(path)]
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert len(server.asked) == 1
    assert_whole(path)


def test_a_folder_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"net\.bin: cannot be written"):
        fetch(server.url, tmp_path / "file" / "net.bin")
