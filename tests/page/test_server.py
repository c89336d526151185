"""What answers the page: exact detections, refused requests, one picture at a time."""

import ctypes
import gc
import http.client
import os
import re
import select
import socket
import threading
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

import page.__main__ as program
import page.server as served_by
from page.server import WAITING, Limits, create_app, is_ours, listen, warm_up

pytestmark = pytest.mark.full


CANVAS = {"": "canvas", ".height": 64, ".width": 64}


@pytest.fixture
def client(told):
    return create_app(told, name="cells").test_client()


def send(client, data, **headers):
    return client.post("/detect", data=data, headers=headers)


# ------------------------------------------------------------------------------------------------
# Detections
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "resize",
    [
        {"": "canvas", ".height": 64, ".width": 96},
        {"": "short_long", ".short": 64, ".long": 96},
    ],
    ids=["canvas", "short_long"],
)
def test_answers_are_those_of_the_detector_to_the_digit_without_a_trace_more(
    resize, tiny, picture, tmp_path
):
    detector = tiny(**resize)
    warm_up(detector)
    client = create_app(detector, name="tiny").test_client()
    sizes = {  # (width, height, suffix, orientation) -> as it is seen
        (200, 100, ".png", None): (200, 100),
        (90, 120, ".bmp", None): (90, 120),
        (610, 403, ".jpg", 6): (403, 610),  # turned, and decoded at a reduced size
        (64, 80, ".png", 8): (80, 64),
        (1, 300, ".png", None): (1, 300),
    }
    for given, (width, height) in sizes.items():
        file = tmp_path / f"photo{given[2]}"
        file.write_bytes(picture(*given))
        answer = send(client, file.read_bytes()).json
        table = detector.detect([file])
        assert (answer["width"], answer["height"]) == (width, height)
        assert len(table) == len(answer["detections"]) > 0
        found = answer["detections"]
        assert [row["box"] for row in found] == table.boxes.tolist()
        assert [row["score"] for row in found] == table.scores.tolist()
        assert [row["label"] for row in found] == table.labels.tolist()
        assert {(row["label"], row["name"]) for row in found} <= {(0, "cell"), (1, "star")}
        assert answer["milliseconds"] > 0
    assert detector._compiled.experimental_get_tracing_count() == 1


def test_the_uploaded_file_is_gone_afterwards(client, told, picture):
    assert send(client, picture()).status_code == 200
    assert send(client, picture()).status_code == 200
    assert len(set(told.calls)) == 2
    assert not any(Path(path).parent.exists() for path in told.calls)


# ------------------------------------------------------------------------------------------------
# What is no picture, or too much of one
# ------------------------------------------------------------------------------------------------


def test_what_is_no_picture_is_refused_with_what_was_found(client, told):
    answer = send(client, b"hello, world")
    assert answer.status_code == 415
    assert answer.json == {
        "error": "expected a JPEG, PNG, BMP, WebP, TIFF or GIF image, found b'hello, world'"
    }
    assert send(client, b"").status_code == 400
    assert "found none" in send(client, b"").json["error"]
    assert not told.calls


def test_a_damaged_picture_is_refused(tiny, picture):
    client = create_app(tiny(), name="tiny").test_client()
    answer = send(client, picture(suffix=".jpg")[:-500])
    assert answer.status_code == 400
    assert answer.json["error"].startswith("truncated: the image data ends early")
    data = picture()
    middle = data.index(b"IDAT") + 20
    answer = send(client, data[:middle] + bytes(60) + data[middle + 60 :])
    assert (answer.status_code, answer.json) == (
        400, {"error": "cannot be decoded: corrupt image data"}
    )  # fmt: skip
    assert send(client, data).status_code == 200


def test_limits_hold_to_the_byte_and_pixel_before_anything_is_decoded(told, picture):
    data = picture(200, 100, ".bmp")
    exact = Limits(len(data) / 1e6, 0.02)
    assert send(create_app(told, name="x", limits=exact).test_client(), data).status_code == 200
    told.calls.clear()
    fewer_bytes, fewer_pixels = Limits((len(data) - 1) / 1e6, 1), Limits(1, 0.0199)
    answer = send(create_app(told, name="x", limits=fewer_bytes).test_client(), data)
    assert answer.status_code == 413
    assert answer.json["error"] == "expected at most 0.060053 MB, found 0.1"
    answer = send(create_app(told, name="x", limits=fewer_pixels).test_client(), data)
    assert answer.status_code == 413
    assert answer.json["error"] == "expected at most 0.0199 megapixels, found 0.0 (200x100)"
    assert not told.calls


def test_a_header_that_claims_a_giant_is_refused(client, told, picture):
    """30,000 x 1,400 pixels in a file of 200 bytes."""
    data = bytearray(picture())
    data[16:24] = (30_000).to_bytes(4, "big") + (1400).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    answer = send(client, bytes(data))
    assert answer.status_code == 413
    assert answer.json["error"] == "expected at most 40 megapixels, found 42.0 (30000x1400)"
    assert not told.calls


def test_a_picture_that_inflates_beyond_its_header_is_refused_at_once(tiny, picture, chunk):
    """10 x 10 pixels, of which 200 KB inflate to 200 million bytes."""
    client = create_app(tiny(), name="tiny").test_client()
    data, packer = picture(10, 10), zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()
    start = data.index(b"IDAT") - 4
    bomb = data[:start] + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    before, began = resident(), time.process_time()
    answer = send(client, bomb)
    assert time.process_time() - began < 0.3  # inflating takes longer
    assert answer.status_code == 400
    assert answer.json["error"].startswith("expected 310 bytes of pixels, found more")
    assert resident() - before < 50e6
    assert send(client, data).status_code == 200


def resident():
    """Bytes of memory that the process holds and cannot give back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def grows(client, num_pictures):
    """Bytes by which the process grows while it detects in pictures that are never the same."""
    rng, warm = np.random.default_rng(0), num_pictures // 2
    for i in range(num_pictures):
        if i == warm:
            before = resident()
        pixels = cv2.resize(rng.integers(0, 256, [8, 8, 3], np.uint8), (160, 120))
        assert send(client, cv2.imencode(".bmp", pixels)[1].tobytes()).status_code == 200
    return resident() - before


@pytest.mark.slow
def test_the_page_does_not_grow(tiny):
    """200 pictures after as many; a pipeline of tf.data for each would leave 0.8 MB."""
    client = create_app(tiny(**CANVAS), name="tiny").test_client()
    assert grows(client, 400) < 0.4e6


def test_a_picture_that_inflates_beyond_its_header_is_refused(client, told, picture):
    """Of 1000x300 pixels, whose bytes might be many: 200 MiB of zeros follow."""
    packer = zlib.compressobj(9, wbits=-15)
    one = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    header = b"IHDR" + (1000).to_bytes(4, "big") + (300).to_bytes(4, "big") + b"\x08\2\0\0\0"
    data = picture()[:8]
    for chunk in (header, b"IDAT\x78\xda" + one * 200 + b"\x03\0" + bytes(4), b"IEND"):
        data += (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    answer = send(client, data)
    assert (answer.status_code, answer.json) == (
        400, {"error": "expected 900300 bytes of pixels, found more: refused unread"}
    )  # fmt: skip
    assert not told.calls


def test_a_length_must_be_told(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("POST", "/detect", iter([b"a", b"b"]), encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, b"Content-Length" in answer.read()) == (400, True)
    connection.close()


# ------------------------------------------------------------------------------------------------
# Who may ask
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "host", "expected"),
    [
        ("localhost", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("evil.example", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("192.168.0.7", "127.0.0.1", False),
        ("192.168.0.7", "192.168.0.7", True),
        ("192.168.0.7", "0.0.0.0", True),
        ("2001:db8::7", "::", True),
        (socket.gethostname().lower(), "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
        ("gpu.lan", "gpu.lan", True),
        (None, "127.0.0.1", False),
        ("", "0.0.0.0", False),
    ],
)
def test_names_under_which_the_page_may_be_asked_for(asked, host, expected):
    assert is_ours(asked, host) is expected


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "[::1", "127.0.0.1.nip.io"])
def test_a_name_that_was_made_to_lead_here_is_refused(host, client, told, picture):
    for answer in (
        client.get("/", headers={"Host": host}), send(client, picture(), Host=host)
    ):  # fmt: skip
        assert answer.status_code == 403
        assert answer.json["error"].startswith("Host: expected localhost or 127.0.0.1, found ")
    assert not told.calls


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_at_all_addresses_a_name_that_is_refused_hears_how_to_allow_it(host, told):
    client = create_app(told, name="cells", host=host).test_client()
    answer = client.get("/", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert answer.json["error"] == (
        "Host: expected localhost, an address or the machine's name "
        "(--host NAME for another), found 'evil.example'"
    )


def test_only_the_page_itself_may_post(client, told, picture):
    for origin in (
        "https://evil.example",
        "null",
        "http://localhost:9999",
        "http://localhost.evil",
        "http://[",
    ):
        answer = send(client, picture(), Host="localhost:8000", Origin=origin)
        assert answer.status_code == 403
        assert answer.json["error"] == f"Origin: expected this page's, found {origin!r}"
    assert not told.calls
    tunnel = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}  # another port: ssh -L
    assert send(client, picture(), **tunnel).status_code == 200


def test_every_answer_has_its_headers_and_the_page_a_nonce_of_its_own(client):
    first, second = client.get("/"), client.get("/")
    for answer in (first, send(client, b"x"), client.get("/nothing")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "Access-Control-Allow-Origin" not in answer.headers
    nonces = [re.findall(r"nonce-([\w-]{20,})'", a.headers["Content-Security-Policy"]) for a in
              (first, second)]  # fmt: skip
    assert len({*nonces[0], *nonces[1]}) == 2
    assert first.text.count(f'nonce="{nonces[0][0]}"') == 2
    assert "unsafe" not in first.headers["Content-Security-Policy"]
    assert client.get("/nothing").status_code == 404
    assert client.get("/detect").status_code == 405


def test_the_page_names_no_other_server_and_no_class_can_add_to_it(told):
    told.classes = ("</script><b>", 'a"b')
    text = create_app(told, name="<i>runs</i>").test_client().get("/").text
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"\s//\s", "", text))
    assert text.count("</script>") == 1
    assert "<b>" not in text
    assert "<i>" not in text


# ------------------------------------------------------------------------------------------------
# Many at once, and what goes wrong
# ------------------------------------------------------------------------------------------------


def post(server, data):
    """(status, body) of a picture sent to a server."""
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}/detect", data)
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_one_picture_at_a_time_a_few_waiting_and_the_next_sent_away(served, told, picture):
    told.may_go.clear()
    with ThreadPoolExecutor(WAITING + 2) as pool:
        posts = [pool.submit(post, served, picture()) for _ in range(WAITING + 2)]
        done, _ = wait(posts, timeout=20, return_when=FIRST_COMPLETED)
        status, body = done.pop().result()
        assert (status, b"pictures waiting" in body) == (503, True)
        told.may_go.set()
        statuses = sorted(p.result()[0] for p in posts)
    assert statuses == [200] * (WAITING + 1) + [503]
    assert told.most == 1
    assert len(told.calls) == WAITING + 1
    assert post(served, picture())[0] == 200


def begun(server):
    """A connection that says it sends 1000 bytes, and has sent one."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(b"POST /detect HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n.")
    return connection


def test_who_has_not_sent_the_picture_yet_takes_no_place(served, picture):
    with ExitStack() as stack:
        for _ in range(WAITING + 1):
            stack.enter_context(begun(served))
        time.sleep(0.3)  # by then all are being read
        assert post(served, picture())[0] == 200


def test_who_sends_a_byte_now_and_then_is_given_up(served, told, monkeypatch):
    monkeypatch.setattr(served_by, "PATIENCE", 0.5)
    with begun(served) as connection:
        end = time.monotonic() + 10
        while time.monotonic() < end and not select.select([connection], [], [], 0.1)[0]:
            connection.sendall(b".")
        assert time.monotonic() < end
        assert connection.recv(100).split()[1] == b"408"
    assert not told.calls


def test_who_ends_early_hears_of_it(served, told):
    with begun(served) as connection:
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert answer.split()[1] == b"408"
    assert b"expected 1000 bytes within 120 s, found fewer" in answer
    assert not told.calls


def test_a_picture_that_came_in_time_may_wait_longer(served, told, picture, monkeypatch):
    monkeypatch.setattr(served_by, "PATIENCE", 0.2)
    told.may_go.clear()
    threading.Timer(0.6, told.may_go.set).start()
    assert post(served, picture())[0] == 200


def test_a_failure_of_the_program_gives_its_place_back_and_says_little(served, told, picture):
    told.error = RuntimeError("secret of the house")
    for _ in range(WAITING + 2):
        status, body = post(served, picture())
        assert status == 500
        assert b"error" in body
        assert b"secret" not in body
    told.error = None
    assert post(served, picture())[0] == 200


def test_a_port_that_is_taken_is_named(served, told):
    app = create_app(told, name="cells")
    with pytest.raises(OSError, match=f"--host 127.0.0.1 --port {served.port}: .*in use"):
        listen(app, "127.0.0.1", served.port)
    with pytest.raises(OSError, match=r"--host no\.such\.invalid --port 0: "):
        listen(app, "no.such.invalid", 0)


# ------------------------------------------------------------------------------------------------
# The command line
# ------------------------------------------------------------------------------------------------


def test_the_command_serves_a_run_until_it_is_stopped(tiny, tmp_path, monkeypatch, picture):
    detector = tiny(**{"": "canvas", ".height": 64, ".width": 64})
    detector.save(tmp_path / "cells" / "checkpoints" / "best.npz")
    servers, is_up = [], threading.Event()

    def listening(*args):
        servers.append(listen(*args))
        is_up.set()
        return servers[0]

    monkeypatch.setattr(program, "listen", listening)
    given = [str(tmp_path / "cells"), "--port", "0", "--max-megapixels", "0.5",
             "--set", "model.detect.max_detections=3"]  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(program.main, given)
        assert is_up.wait(60), running.exception(0)
        try:
            address = f"http://127.0.0.1:{servers[0].port}/"
            assert "<h1>cells</h1>" in urllib.request.urlopen(address, timeout=20).read().decode()
            status, body = post(servers[0], picture())
            assert (status, body.count(b'"box"')) == (200, 3)
            assert post(servers[0], picture(1000, 501, ".jpg"))[0] == 413
        finally:
            servers[0].shutdown()
        running.result(20)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=20)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--port", "70000"], "--port: expected 0 to 65535, found 70000"),
        (["--max-megabytes", "0"], "--max-megabytes: expected above 0, found 0"),
        (["--max-megabytes", "nan"], "--max-megabytes: expected above 0, found nan"),
        (["--max-megapixels", "0"], "--max-megapixels: expected above 0 to 268.435, found 0"),
        (["--max-megapixels", "nan"], "--max-megapixels: expected above 0 to 268.435, found nan"),
        (["--max-megapixels", "300"], "--max-megapixels: expected above 0 to 268.435, found 300"),
        (
            ["--set", "model.detect.max_detections=3", "train.epochs=3"],
            "--set: expected settings of the model (model.*), found 'train.epochs=3'",
        ),
    ],
)
def test_options_that_make_no_sense(given, message, capsys):
    with pytest.raises(SystemExit):
        program.parse_arguments(given)
    assert message in capsys.readouterr().err
