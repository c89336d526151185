"""Downloads that are verified, go on after a cut, and can be replaced by a file put there by hand.

Beside a file `x`: `x.sha256`, its hash when it came, and `x.part`, what has come of it so far.
"""

import contextlib
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from loguru import logger
from rich.markup import escape

from utils.diary import progress_bar
from utils.files import write_error, write_text

if sys.platform != "win32":  # which has none
    import fcntl

TIMEOUT = 30.0  # seconds of silence
ATTEMPTS = 3
BACKOFF = 0.5  # seconds before the second attempt, twice that before the third, ...
BLOCK = 1 << 18  # bytes read at once
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
Report = Callable[[int, int | None], None]  # takes bytes done and bytes in all, if known
NETWORK_ERRORS = (OSError, http.client.HTTPException)  # URLError, timeouts and TLS are OSErrors


class DownloadError(ValueError):
    """A file could not be had, or is not the expected one."""


class _AttemptError(Exception):
    """What went wrong with an attempt, and whether another one may do better."""

    def __init__(self, what: str, *, again: bool = True):
        super().__init__(what)
        self.again = again


def fetch(url: str, path: str | Path, digest: str | None = None) -> Path:
    """Returns `path`, downloaded from `url` unless it is there already.

    digest: "sha256:<hex>", 8 digits or more, or "md5:<hex>"; None: nobody knows one, so that a
        download that was cut begins anew. A file that is there must match its recorded sha256 too.
    Raises DownloadError for a download that fails and for a file that is not the expected one.
    """
    path = Path(path)
    if path.is_dir():
        raise DownloadError(f"{path}: expected the path of a file, got a folder")
    if path.exists():
        _check_existing(url, path, digest)
        return path
    try:
        with alone_in(path.parent):
            if not path.exists():  # meanwhile, by another process
                _fetch(url, path, digest)
    except OSError as error:
        raise DownloadError(str(write_error(path, error))) from error
    return path


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Makes the folder and waits for other processes that download to it; not on Windows."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fetch(url: str, path: Path, digest: str | None) -> None:
    part = _beside(path, ".part")
    try:
        with reporter(path.name) as report:
            sha256 = _download(url, part, digest, report)
    except _AttemptError as error:
        by_hand = f"download {url} elsewhere and put it at {path.absolute()}"
        raise DownloadError(f"{url}: {error}; {by_hand}") from error
    # In this order a kill in between leaves no file that an older record contradicts.
    _record(path, sha256, is_known=sha256 == digest)
    os.replace(part, path)


# ------------------------------------------------------------------------------------------------
# Digests
# ------------------------------------------------------------------------------------------------


def _check_existing(url: str, path: Path, digest: str | None) -> None:
    """Refuses a file that is not the expected one; records the sha256 if nothing is expected."""
    record = _beside(path, ".sha256")
    expected = [digest] if digest else []
    if record.exists():
        words = record.read_text(encoding="utf-8", errors="replace").lower().split() or [""]
        if not re.fullmatch("[0-9a-f]{64}", words[0]):  # sha256sum adds the name of the file
            raise DownloadError(f"{record}: expected 64 hex digits, got {words[0]!r}; delete it")
        expected.append(f"sha256:{words[0]}")
    sha256, mismatch = _compare(path, *expected)
    if mismatch:
        raise DownloadError(
            f"{path}: {mismatch}; delete it (and {record.name}, if there is one) to download it "
            f"from {url} again"
        )
    if not expected:
        _record(path, sha256, is_known=False)


def _compare(path: Path, *expected: str) -> tuple[str, str]:
    """The file's digest "sha256:<hex>", and which of the expected ones do not match, if any."""
    found = {}
    for name in {"sha256", *(digest.partition(":")[0] for digest in expected)}:
        with path.open("rb") as file:
            new = partial(hashlib.new, name, usedforsecurity=False)
            found[name] = f"{name}:{hashlib.file_digest(file, new).hexdigest()}"
    pairs = [(digest, found[digest.partition(":")[0]]) for digest in expected]
    texts = [f"expected {a}, found {b}" for a, b in pairs if not b.startswith(a)]
    return found["sha256"], ", ".join(texts)


def _record(path: Path, sha256: str, *, is_known: bool) -> None:
    digits = sha256.removeprefix("sha256:")
    write_text(_beside(path, ".sha256"), f"{digits}\n")
    if not is_known:
        logger.info("sha256 of {} recorded: {}", path.name, digits)


# ------------------------------------------------------------------------------------------------
# Transfer
# ------------------------------------------------------------------------------------------------


def _download(url: str, part: Path, digest: str | None, report: Report) -> str:
    """Makes `part` whole and verifies it; returns its sha256. Raises _AttemptError."""
    attempt, thrown_away = 1, False
    while True:
        try:
            is_resumed = _attempt(url, part, digest is not None, report)
        except _AttemptError as error:
            if not error.again or attempt >= ATTEMPTS:
                raise
            logger.info("{}: {}; attempt {} of {} failed", url, error, attempt, ATTEMPTS)
            time.sleep(BACKOFF * attempt)
            attempt += 1
            continue
        sha256, mismatch = _compare(part, *([digest] if digest else []))
        if not mismatch:
            return sha256
        part.unlink()
        if thrown_away or not is_resumed:
            raise _AttemptError(mismatch, again=False)
        # The beginning may have been of another version, or broken: once more, all of it.
        logger.info("{}: {}; fetched once more from the start", url, mismatch)
        attempt, thrown_away = 1, True


def _attempt(url: str, part: Path, may_resume: bool, report: Report) -> bool:
    """One try at fetching what `part` lacks; returns whether it went on from an earlier one.

    may_resume: whether a digest will tell if two files were joined.
    """
    offset = part.stat().st_size if may_resume and part.exists() else 0
    response = _request(url, offset)
    start, total = _span(response)
    if start not in (0, offset):
        response.close()
        offset, response = 0, _request(url, 0)
        start, total = _span(response)
    size = start
    with response:
        if start not in (0, offset):
            raise _AttemptError("expected the file from its first byte, the server began elsewhere")
        with part.open("ab" if start else "wb") as file:
            for block in _blocks(response):
                size += file.write(block)
                report(size, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and size != total:
        raise _AttemptError(f"the connection was cut at {size} of {total} bytes")
    return start > 0


def _request(url: str, offset: int) -> http.client.HTTPResponse:
    """Asks for the file from byte `offset` on."""
    headers = {"User-Agent": "retinanet-tensorflow", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        response = error  # is a response, too
    except NETWORK_ERRORS as error:
        raise _AttemptError(_reason(error)) from error
    if response.status in (200, 206) or (response.status == 416 and offset):
        return response
    response.close()
    # A redirection to ftp:// has no status.
    again = response.status in range(500, 600)
    raise _AttemptError(f"status {response.status} {response.reason}", again=again)


def _span(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """The response's first byte, -1 if it is of no use, and the file's size, if that is known."""
    if response.status == 200:
        return 0, response.length
    match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if response.status != 206 or not match:
        return -1, None
    first, last, total = match.groups()
    return int(first), int(last) + 1 if total == "*" else int(total)


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while block := response.read1(BLOCK):
            yield block
    except NETWORK_ERRORS as error:
        raise _AttemptError(f"the connection was cut: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    error = getattr(error, "reason", error)
    return str(error) or type(error).__name__


@contextlib.contextmanager
def reporter(name: str) -> Iterator[Report]:
    """Yields a function that shows in a bar how much is done."""
    with progress_bar() as bar:
        task = bar.add_task(escape(name), total=0, text="MB")

        def report(done: int, total: int | None) -> None:
            # The bar's columns take no None.
            bar.update(task, completed=done / 1e6, total=(total or done) / 1e6)

        yield report


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
