"""The container of a JPEG: its segments, and what can be mended in it.

ITU-T T.81, https://www.w3.org/Graphics/JPEG/itu-t81.pdf.
"""

import io
import re
from collections.abc import Iterator

from PIL import JpegImagePlugin

from data.images.exif import Buffer, exif_orientation, uint

START, END = b"\xff\xd8\xff", b"\xff\xd9"
STRAY = b"\r\n"  # what some tools write before the file
MOST_STRAY = 16  # bytes of it
STRAY_BREAK = "line break before a JPEG"
NO_END = "JPEG without its end marker"

APP0, APP1, APP15, SCAN, END_MARKER = 0xE0, 0xE1, 0xEF, 0xDA, 0xD9
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
# In compressed data a byte FF is followed by 00 or a restart marker; before a marker it is fill.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_COEFFICIENTS = 64  # of a block
_LAST_BYTES = 8  # of the file, that decoding has to use: else something was put behind the pixels
# Decoders put 0 in place of missing bits. These begin with 1, and make long codes of large values:
# of 5848 JPEGs cut by 3 to 29 bytes, of qualities from 30 to 100, both together found all.
_OTHER_BITS = (bytes(0xFE - 37 * i % 127 for i in range(64)), b"\xf7\xbf\xdf\xfb" * 16)


def mended(data: Buffer) -> tuple[Buffer, tuple[str, ...]]:
    """The file without line breaks before it and with an end marker, and what was done.

    What follows the end of a whole JPEG stays.
    """
    notes: tuple[str, ...] = ()
    if data[:1] in (b"\r", b"\n"):
        start = bytes(data[:MOST_STRAY]).lstrip(STRAY)
        data, notes = start + data[MOST_STRAY:], (STRAY_BREAK,)
    # A whole file mostly ends with the marker: only others are looked through.
    if data[-2:] != END and all(marker != END_MARKER for marker, _ in segments(data)):
        data, notes = data[:] + END, (*notes, NO_END)
    return data, notes


def segments(data: Buffer) -> Iterator[tuple[int, int]]:
    """Yields (marker, offset of its length field), past thumbnails inside segments.

    Ends with the first end marker: behind it may be another's, of a motion photo's video.
    """
    position, marker = 2, 0
    while marker != END_MARKER and (match := _MARKER.search(data, position)):
        marker, start = match[0][1], match.end()
        yield marker, start
        position = start + uint(data, start, 2, "big")


def parse(data: Buffer) -> tuple[int, int, int]:
    """(stored width, stored height, orientation); 0x0 if there is no frame.

    Raises ValueError for another count of bands than 1, 3 or 4.
    """
    orientation = None
    for marker, start in segments(data):
        if marker == APP1 and orientation is None and data[start + 2 : start + 8] == b"Exif\0\0":
            orientation = exif_orientation(data[start + 8 : start + uint(data, start, 2, "big")])
        elif marker in FRAMES:
            width, height = uint(data, start + 5, 2, "big"), uint(data, start + 3, 2, "big")
            bands = uint(data, start + 7, 1)
            if bands not in (1, 3, 4):
                raise ValueError(f"expected 1, 3 or 4 bands, found {bands}")
            return width, height, orientation or 1
    return 0, 0, 1


def is_whole(data: bytes) -> bool:
    """Whether a `mended` file lacked its end marker only, and no pixels.

    Decoders fill up with grey what is missing, and libjpeg says so to nobody. Here the file is
    decoded with other bits behind it: if that changes a pixel, some are missing. If other bits in
    place of its last ones change none, it was filled up with something else, such as zeros.
    """
    image = _bare(data)
    pixels = _pixels(image)
    if pixels is None or not _has_all_scans(image):
        return False
    image = image.removesuffix(END).removesuffix(b"\xff")  # perhaps the marker's first half
    if any(pixels != _pixels(_continued(image, bits)) for bits in _OTHER_BITS):
        return False
    return any(pixels != _pixels(_continued(image[:-_LAST_BYTES], bits)) for bits in _OTHER_BITS)


def _bare(data: bytes) -> bytes:
    """The file without the segments of applications, such as EXIF."""
    kept, end = [], 0
    for marker, start in segments(data):
        if APP0 <= marker <= APP15:
            kept.append(data[end : start - 2])
            end = start + uint(data, start, 2, "big")
    return b"".join((*kept, data[end:]))


def _has_all_scans(data: bytes) -> bool:
    """Whether the scans hold each coefficient of each band to its last bit."""
    is_progressive, bands, found = False, 0, set()
    for marker, start in segments(data):
        if marker in FRAMES:
            is_progressive, bands = marker in _PROGRESSIVE, uint(data, start + 7, 1)
        elif marker == SCAN:
            count = uint(data, start + 2, 1)
            first, last, bit = data[start + 3 + 2 * count :][:3].ljust(3, b"\0")
            if not is_progressive:
                first, last, bit = 0, _COEFFICIENTS - 1, 0
            if not bit & 15:  # the lowest bit that the scan holds
                names = data[start + 3 : start + 3 + 2 * count : 2]
                found |= {(n, k) for n in names for k in range(first, min(last, 63) + 1)}
    return len(found) == bands * _COEFFICIENTS


def _continued(image: bytes, bits: bytes) -> bytes:
    """The file with bits behind it that a decoder takes for pixels where it still expects some.

    Restart markers are among them, the first the one that comes next.
    """
    restarts = _RESTART.findall(image)
    following = int(restarts[-1][1]) + 1 if restarts else 0
    marks = (b"\xff" + bytes([0xD0 + (following + i) % 8]) for i in range(8))
    return image + bits + b"".join(mark + bits for mark in marks) + END


def _pixels(data: bytes) -> bytes | None:
    """By Pillow, which says nothing on stderr of bytes that are none of the image's."""
    try:
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError):
        return None
    return image.tobytes()
