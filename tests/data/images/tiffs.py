"""TIFF files written by hand, of any layout, for the tests of the decoder."""

import struct
import zlib

import numpy as np

TAGS = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262}
TAGS |= {"orientation": 274, "bands": 277, "planar": 284, "predictor": 317, "palette": 320}
TAGS |= {"fill_order": 266, "extra": 338, "format": 339}


def tiff(pixels, bits, photometric, *, order="<", rows=None, tile=None, big=False, **tags):
    """A file of one page.

    pixels: (H, W, S) uint8 or uint16; of less than 8 bits the packed bytes (H, bytes, 1), with the
    tag width. bits: a number or a list. rows: of a strip; tile: its side. compression: 1 or 8.
    tags: a value or several, by the names of TAGS.
    """
    height, width, bands = pixels.shape
    compression = tags.setdefault("compression", 1)
    array = pixels.astype(pixels.dtype.newbyteorder(order))
    planes = [array]
    if tags.get("planar") == 2:
        planes = [array[..., i : i + 1] for i in range(bands)]
    parts = []
    for plane in planes:
        if tile:
            for y in range(0, height, tile):
                for x in range(0, width, tile):
                    part = plane[y : y + tile, x : x + tile]
                    below, right = tile - part.shape[0], tile - part.shape[1]
                    parts.append(np.pad(part, ((0, below), (0, right), (0, 0)), "edge"))
        else:
            parts += [plane[y : y + (rows or height)] for y in range(0, height, rows or height)]
    if tags.get("predictor") == 2:
        parts = [np.diff(part, axis=1, prepend=part.dtype.type(0)) for part in parts]
        parts = [part.astype(array.dtype) for part in parts]
    packed = [part.tobytes() for part in parts]
    packed = [zlib.compress(part) if compression == 8 else part for part in packed]
    body, offsets = b"", []
    for part in packed:
        offsets.append((16 if big else 8) + len(body))
        body += part + bytes(len(part) % 2)
    sizes = [len(part) for part in packed]
    values = {
        "width": width,
        "height": height,
        "bits": bits if isinstance(bits, list) else [bits] * bands,
        "bands": bands,
    }
    values = {TAGS.get(name, name): value for name, value in (values | tags).items()}
    values[262] = photometric
    if tile:
        values |= {322: tile, 323: tile, 324: offsets, 325: sizes}
    else:
        values |= {278: rows or height, 273: offsets, 279: sizes}
    return directory(body, values, order, big)


def directory(body, values, order="<", big=False, following=0):
    """Pixels and {tag: value or values} -> a file; a value above 65535 takes 4 bytes."""
    start = (16 if big else 8) + len(body)
    head, entry = (f"{order}Q", f"{order}HHQ") if big else (f"{order}H", f"{order}HHI")
    size, pointer = (8, f"{order}Q") if big else (4, f"{order}I")
    length = struct.calcsize(head) + len(values) * (struct.calcsize(entry) + size) + size
    packed, behind = struct.pack(head, len(values)), b""
    for tag in sorted(values):
        numbers = values[tag] if isinstance(values[tag], list) else [values[tag]]
        kind, letter = (3, "H") if max(numbers) < 2**16 else (4, "I")
        data = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        packed += struct.pack(entry, tag, kind, len(numbers))
        if len(data) <= size:
            packed += data.ljust(size, b"\0")
        else:
            packed += struct.pack(pointer, start + length + len(behind))
            behind += data + bytes(len(data) % 2)
    mark = b"II" if order == "<" else b"MM"
    version = struct.pack(f"{order}HHHQ", 43, 8, 0, start) if big else None
    version = version or struct.pack(f"{order}HI", 42, start)
    return mark + version + body + packed + struct.pack(pointer, following) + behind
