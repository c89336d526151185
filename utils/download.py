"""Downloads that are verified, go on after a cut, and can be replaced by a file put there by hand.

Beside a file `x`: `x.sha256`, its hash when it came; `x.part`, what has come of it so far, and
`x.part.etag`, which version of the file on the server that is a part of.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from loguru import logger
from rich.markup import escape

from utils.diary import progress_bar
from utils.files import write_error, write_text

if sys.platform != "win32":  # which has none
    import fcntl

BACKOFF = 0.5  # seconds before the second attempt, twice that before the third, ...
BLOCK = 1 << 18  # bytes read at once
DIGEST = re.compile(r"sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{32}")
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


def fetch(
    url: str,
    path: str | Path,
    *,
    digests: Sequence[str] = (),
    timeout: float = 30.0,
    attempts: int = 3,
    progress: bool = True,
) -> Path:
    """Returns `path`, downloaded from `url` unless it is there already.

    `digests` are "md5:<hex>" or "sha256:<hex>", the latter 8 digits or more, and all must match; a
    file that is there must match its recorded sha256 too. `timeout` is in seconds of silence.
    Raises DownloadError for a download that fails and for a file that is not the expected one;
    ValueError for arguments it cannot take.
    """
    path, digests = Path(path), [digest.lower() for digest in digests]
    _check_arguments(url, path, digests, timeout, attempts)
    if path.exists():
        _check_existing(url, path, digests)
        return path
    try:
        with alone_in(path.parent):
            if not path.exists():  # meanwhile, by another process
                _fetch(url, path, digests, timeout, attempts, progress)
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


def _fetch(
    url: str, path: Path, digests: list[str], timeout: float, attempts: int, progress: bool
) -> None:
    part = _beside(path, ".part")
    try:
        with reporter(path.name, progress) as report:
            sha256 = _download(url, part, digests, attempts, timeout, report)
    except _AttemptError as error:
        by_hand = f"download {url} elsewhere and put it at {path.absolute()}"
        raise DownloadError(f"{url}: {error}; {by_hand}") from error
    # In this order a kill in between leaves no file that an older record contradicts.
    _record(path, sha256, known=f"sha256:{sha256}" in digests)
    os.replace(part, path)
    _beside(part, ".etag").unlink(missing_ok=True)


def _check_arguments(
    url: str, path: Path, digests: list[str], timeout: float, attempts: int
) -> None:
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"expected an address http://... or https://..., got {url!r}")
    for digest in digests:
        if not DIGEST.fullmatch(digest):
            expected = "sha256:<8 to 64 hex digits> or md5:<32 hex digits>"
            raise ValueError(f"{url}: expected the digest {expected}, got {digest!r}")
    if timeout <= 0 or attempts < 1:
        raise ValueError(
            f"{url}: expected a timeout above 0 and 1 attempt or more, got {timeout} and {attempts}"
        )
    if path.is_dir():
        raise ValueError(f"{path}: expected the path of a file, got a folder")


# ------------------------------------------------------------------------------------------------
# Digests
# ------------------------------------------------------------------------------------------------


def _check_existing(url: str, path: Path, digests: list[str]) -> None:
    """Refuses a file that is not the expected one; records the sha256 if nothing is expected."""
    record = _beside(path, ".sha256")
    recorded = []
    if record.exists():
        words = record.read_text(encoding="utf-8", errors="replace").lower().split() or [""]
        if not re.fullmatch("[0-9a-f]{64}", words[0]):  # sha256sum adds the name of the file
            raise DownloadError(f"{record}: expected 64 hex digits, got {words[0]!r}; delete it")
        recorded = [f"sha256:{words[0]}"]
    sha256, mismatch = _compare(path, digests + recorded)
    if mismatch:
        raise DownloadError(
            f"{path}: {mismatch}; delete it (and {record.name}, if there is one) to download it "
            f"from {url} again"
        )
    if not digests and not recorded:
        _record(path, sha256, known=False)


def _compare(path: Path, digests: list[str]) -> tuple[str, str]:
    """The file's sha256, and which digests do not match it: nothing if all do. Reads it once."""
    hashes = {"sha256": hashlib.sha256()}
    if any(digest.startswith("md5:") for digest in digests):
        hashes["md5"] = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            for value in hashes.values():
                value.update(block)
    found = {name: f"{name}:{value.hexdigest()}" for name, value in hashes.items()}
    wrong = {digest: found[digest.partition(":")[0]] for digest in digests}
    texts = [f"expected {a}, found {b}" for a, b in wrong.items() if not b.startswith(a)]
    return hashes["sha256"].hexdigest(), ", ".join(texts)


def _record(path: Path, sha256: str, *, known: bool) -> None:
    write_text(_beside(path, ".sha256"), f"{sha256}\n")
    if not known:
        logger.info("sha256 of {} recorded: {}", path.name, sha256)


# ------------------------------------------------------------------------------------------------
# Transfer
# ------------------------------------------------------------------------------------------------


def _download(
    url: str, part: Path, digests: list[str], attempts: int, timeout: float, report: Report
) -> str:
    """Makes `part` whole and verifies it; returns its sha256. Raises _AttemptError."""
    attempt, thrown_away = 1, False
    while True:
        try:
            resumed = _attempt(url, part, bool(digests), timeout, report)
        except _AttemptError as error:
            if not error.again or attempt >= attempts:
                raise
            logger.info("{}: {}; attempt {} of {} failed", url, error, attempt, attempts)
            time.sleep(BACKOFF * attempt)
            attempt += 1
            continue
        sha256, mismatch = _compare(part, digests)
        if not mismatch:
            return sha256
        part.unlink()
        _beside(part, ".etag").unlink(missing_ok=True)
        if thrown_away or not resumed:
            raise _AttemptError(mismatch, again=False)
        # The beginning may have been of another version, or broken: once more, all of it.
        logger.info("{}: {}; fetched once more from the start", url, mismatch)
        attempt, thrown_away = 1, True


def _attempt(url: str, part: Path, verified: bool, timeout: float, report: Report) -> bool:
    """One try at fetching what `part` lacks; returns whether it went on from an earlier one."""
    etag = _beside(part, ".etag")
    version = etag.read_text(encoding="utf-8").strip() if etag.exists() else ""
    # Unless version or digest can tell, two files might be joined.
    offset = part.stat().st_size if part.exists() and (version or verified) else 0
    response = _request(url, offset, version, timeout)
    start, total = _span(response, version)
    if start not in (0, offset):
        response.close()
        offset, response = 0, _request(url, 0, "", timeout)
        start, total = _span(response, "")
    size = start
    with response:
        if start not in (0, offset):
            raise _AttemptError("expected the file from its first byte, the server began elsewhere")
        with part.open("ab" if start else "wb") as file:
            if not start:  # the part is emptied by now: old bytes never get a new version's name
                write_text(etag, _version(response))
            for block in _blocks(response):
                size += file.write(block)
                report(size, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and size != total:
        raise _AttemptError(f"the connection was cut at {size} of {total} bytes")
    return start > 0


def _request(url: str, offset: int, version: str, timeout: float) -> http.client.HTTPResponse:
    """Asks for the file from byte `offset` on, if it is still that version, else for all of it."""
    headers = {"User-Agent": "retinanet-tensorflow", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if version:
            headers["If-Range"] = version
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=timeout)
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


def _span(response: http.client.HTTPResponse, version: str) -> tuple[int, int | None]:
    """The response's first byte, -1 if it is of no use, and the file's size, if that is known."""
    if response.status == 200:
        return 0, response.length
    match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    # Some servers ignore If-Range and send the rest of a file that has changed.
    if response.status != 206 or not match or (version and _version(response) not in ("", version)):
        return -1, None
    first, last, total = match.groups()
    return int(first), int(last) + 1 if total == "*" else int(total)


def _version(response: http.client.HTTPResponse) -> str:
    """What If-Range takes: the ETag unless it is a weak one, else the time of the last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


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
def reporter(name: str, progress: bool) -> Iterator[Report]:
    """Yields a function that shows in a bar how much is done."""
    bar = progress_bar()
    bar.disable = bar.disable or not progress
    with bar:
        task = bar.add_task(escape(name), total=0, text="MB")

        def report(done: int, total: int | None) -> None:
            # The bar's columns take no None.
            bar.update(task, completed=done / 1e6, total=(total or done) / 1e6)

        yield report


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
