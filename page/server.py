"""What answers the page: bytes of a picture in, detections out, one picture at a time.

The browser draws and filters by itself; only a picture's bytes go to /detect, and from there
through `Detector.detect` as any file does. Nothing is kept. For one person on one machine: no
accounts, no encryption.
"""

import ipaddress
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import numpy as np
from flask import Flask, Response, abort, make_response, render_template, request
from loguru import logger
from werkzeug.exceptions import ClientDisconnected, HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from data.images.decode import check_inflation, image_size
from data.records import DatasetError
from detector import Detector
from utils.draw import class_colors, write_image

WAITING = 4  # pictures that may wait for the one at work; the next is sent away
SILENCE = 30  # seconds without a byte after which a connection is given up
PATIENCE = 120  # seconds in which a request has to be here, however it trickles
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """What is looked at: millions of bytes of a file, of pixels once it is decoded."""

    megabytes: float = 20
    megapixels: float = 40


class Handler(WSGIRequestHandler):
    """Gives up on who is silent or slow, and leaves the log to the app."""

    timeout = SILENCE

    def handle(self) -> None:
        watch = threading.Timer(PATIENCE, self.stop_reading)
        watch.daemon = True
        watch.start()
        try:
            super().handle()
        finally:
            watch.cancel()

    def stop_reading(self) -> None:
        """Ends what comes in; the answer still goes out."""
        with suppress(OSError):  # the other side has gone
            self.connection.shutdown(socket.SHUT_RD)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def listen(app: Flask, host: str, port: int) -> BaseWSGIServer:
    """A server whose `serve_forever` answers from a thread a request; port 0: any that is free.

    Raises OSError naming the address where it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:  # bound here: werkzeug would end the process where that fails
        bound = socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(f"--host {host} --port {port}: {error.strerror or error}") from error
    with bound:  # the server has a copy of its own
        return make_server(
            host, port, app, threaded=True, request_handler=Handler, fd=bound.fileno()
        )


def warm_up(detector: Detector) -> None:
    """Detects on a grey picture, so that the first visitor does not wait for the tracing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grey.png"
        write_image(path, np.full((480, 640, 3), 127, np.uint8))
        detector.detect([path])


def create_app(
    detector: Detector, *, name: str, host: str = "127.0.0.1", limits: Limits | None = None
) -> Flask:
    """The page and its one service.

    name: what the page calls the detector. host: the address it is served at, see `is_ours`.
    GET / is the page. POST /detect takes the bytes of an image file and answers with the JSON of
    `detect`. Anything else, and all that goes wrong, is {"error": message} with its status: 403
    for a request from another site, 408 for half a picture, 413 beyond `limits`, 415 for no image,
    400 for a damaged one, 503 when `WAITING` wait already.
    """
    limits = limits or Limits()
    app = Flask(__name__, static_folder=None, template_folder=str(Path(__file__).parent))
    places, turn = threading.Semaphore(1 + WAITING), threading.Lock()
    settings = page_settings(detector, name, limits)

    @app.before_request
    def guard() -> None:
        refuse_strangers(host)

    @app.get("/")
    def index() -> Response:
        nonce = secrets.token_urlsafe(16)
        response = make_response(render_template("index.html", nonce=nonce, settings=settings))
        response.headers["Content-Security-Policy"] = page_policy(nonce)
        return response

    @app.post("/detect")
    def detections() -> dict:
        with uploaded(limits) as path:  # first: who sends slowly takes no place
            if not places.acquire(blocking=False):
                message = f"expected at most {WAITING} pictures waiting, found one more: try again"
                abort(503, message)
            try:
                with turn:
                    return detect(detector, path, limits)
            finally:
                places.release()

    app.register_error_handler(HTTPException, explain)
    app.after_request(add_headers)
    return app


def page_settings(detector: Detector, name: str, limits: Limits) -> dict:
    """What the page has to know: JSON-ready."""
    colors = class_colors(len(detector.classes))
    return {
        "name": name,
        "classes": detector.classes,
        "colors": [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colors.tolist()],
        "lowest": detector.config.detect.score_threshold,
        "megabytes": limits.megabytes,
        "megapixels": limits.megapixels,
    }


def page_policy(nonce: str) -> str:
    """The page's own script and style, pictures from the browser's memory, and nothing else."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


@contextmanager
def uploaded(limits: Limits) -> Iterator[Path]:
    """The bytes of the request as a file, for as long as it is needed."""
    length = request.content_length
    if not length:
        abort(400, "expected a picture, its length in the header Content-Length, found none")
    if length > limits.megabytes * 1e6:
        abort(413, f"expected at most {limits.megabytes:g} MB, found {length / 1e6:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        try:
            with open(path, "wb") as file:
                shutil.copyfileobj(request.stream, file)
        except ClientDisconnected:
            abort(408, f"expected {length} bytes within {PATIENCE} s, found fewer")
        yield path


def detect(detector: Detector, path: Path, limits: Limits) -> dict:
    """Detections of a picture, best first, JSON-ready.

    Returns width, height in pixels after EXIF orientation; detections: a list of box (xyxy in these
    pixels), label, name, score; milliseconds for decoding and detecting.
    Raises HTTPException saying what was expected and found.
    """
    start = time.perf_counter()
    try:
        width, height = image_size(path)
    except DatasetError as error:
        abort(415, _problem(error, path))
    if width * height > limits.megapixels * 1e6:
        found = f"{width * height / 1e6:.1f} ({width}x{height})"
        abort(413, f"expected at most {limits.megapixels:g} megapixels, found {found}")
    try:
        check_inflation(path)
        table = detector.detect([path])
    except DatasetError as error:
        abort(400, _problem(error, path))
    rows = zip(table.boxes.tolist(), table.labels.tolist(), table.scores.tolist(), strict=True)
    milliseconds = 1000 * (time.perf_counter() - start)
    logger.info("{}x{}: {} detections, {:.0f} ms", width, height, len(table), milliseconds)
    return {
        "width": width,
        "height": height,
        "detections": [
            {"box": box, "label": label, "name": table.classes[label], "score": score}
            for box, label, score in rows
        ],
        "milliseconds": milliseconds,
    }


def _problem(error: DatasetError, path: Path) -> str:
    """The message without the file's name, which is of no use to who sent it."""
    return str(error).removeprefix(f"{path}: ")


# --------------------------------------------------------------------------------------------------
# Who may ask, and what they get beside the answer
# --------------------------------------------------------------------------------------------------


def refuse_strangers(host: str) -> None:
    """Refuses what a page of another site may have sent through the visitor's browser.

    Either under a name that was made to lead here (DNS rebinding), or openly, to another origin
    than its own. Raises Forbidden.
    """
    if not is_ours(_parsed(f"//{request.host}").hostname, host):
        names = f"localhost or {host}"
        if is_unspecified(host):
            names = "localhost, an address or the machine's name (--host NAME for another)"
        abort(403, f"Host: expected {names}, found {request.headers.get('Host')!r}")
    origin = request.headers.get("Origin")
    if origin is not None and _parsed(origin).netloc != request.host:
        abort(403, f"Origin: expected this page's, found {origin!r}")


def _parsed(address: str) -> SplitResult:
    """Its parts; none of what cannot be taken apart."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def is_ours(asked: str | None, host: str) -> bool:
    """Whether `asked`, of a Host header, names a server at the address `host`.

    A name that others gave is none. At all addresses at once any address will do, since no name
    had to be looked up for it, and the machine's own name.
    """
    if not asked:
        return False
    if asked in ("localhost", "127.0.0.1", "::1", host.lower()):
        return True
    return is_unspecified(host) and (asked == socket.gethostname().lower() or _is_address(asked))


def is_unspecified(host: str) -> bool:
    """Whether it stands for all addresses of this machine: 0.0.0.0 or ::."""
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def explain(error: HTTPException) -> tuple[dict, int]:
    """Any error as JSON; one of the program itself is a 500, and the terminal has its trace."""
    return {"error": error.description}, error.code or 500
