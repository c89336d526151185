"""A detector that says what it is told to, pictures to give it, and a tiny real one."""

import struct
import threading
import zlib

import cv2
import keras
import numpy as np
import pytest

import configs
from core.build import build_model
from detector import Detector
from page.server import Limits, create_app, listen
from utils.detections import DetectionTable

CLASSES = ("cell", "star")
# xyxy, label, score; all inside a picture of 200 x 100 pixels.
FOUND = [
    ((20, 30, 60, 90), 1, 0.9),
    ((100, 20, 180, 70), 0, 0.5),
    ((110, 40, 130, 60), 1, 0.35),
    ((150, 75, 190, 95), 0, 0.1),
]
TINY = {
    "model.neck_width": 8,
    "model.head_width": 8,
    "model.head_depth": 1,
    "model.prior": 0.4,  # so that an untrained model detects something
}


class Told:
    """Finds FOUND in any picture, once it `may_go`; counts how many callers are in at once."""

    def __init__(self):
        self.classes, self.config = CLASSES, configs.preset("shapes").model
        self.may_go, self.lock = threading.Event(), threading.Lock()
        self.may_go.set()
        self.calls, self.inside, self.most, self.error = [], 0, 0, None

    def detect(self, images):
        with self.lock:
            self.calls.extend(images)
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            assert self.may_go.wait(20)
            if self.error:
                raise self.error
        finally:
            with self.lock:
                self.inside -= 1
        boxes, labels, scores = map(np.array, zip(*FOUND, strict=True))
        image = np.zeros(len(FOUND), int)
        return DetectionTable(("it",), self.classes, image, boxes.astype(float), scores, labels)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def served(told):
    """A real server with the detector that does as it is told; files of up to a million bytes."""
    with listen(create_app(told, name="cells", limits=Limits(1, 40)), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        told.may_go.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def tiny():
    """A function: resize rule by its settings -> a real detector of random weights."""

    def make(**resize):
        changes = TINY | {f"model.resize{name}": value for name, value in resize.items()}
        config = configs.preset("shapes", changes).model
        keras.utils.set_random_seed(0)
        return Detector(build_model(config, len(CLASSES)), CLASSES, config)

    return make


@pytest.fixture(scope="session")
def picture():
    """A function: width, height, suffix, EXIF orientation -> the bytes of a picture of blocks."""
    return make_picture


@pytest.fixture(scope="session")
def chunk():
    """A function: type, contents -> a chunk of a PNG."""
    return png_chunk


def make_picture(width=200, height=100, suffix=".png", orientation=None):
    colors = np.random.default_rng(0).integers(60, 250, (4, 4, 3), np.uint8)
    pixels = cv2.resize(colors, (width, height), interpolation=cv2.INTER_NEAREST)
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    if orientation is None:
        return data
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    if suffix == ".png":
        after = 8 + 12 + 13  # signature, IHDR
        return data[:after] + png_chunk(b"eXIf", tiff) + data[after:]
    segment = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + data[2:]


def png_chunk(kind, contents):
    checksum = zlib.crc32(kind + contents)
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", checksum)
