"""Detecting again and again takes no more memory than detecting a few times.

What is measured runs in a process of its own: what tests before it left behind in the heap makes
it grow by tens of MB where nothing leaks.
"""

import functools
import gc
import multiprocessing
import os
import weakref
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

import configs
from core.build import build_model
from core.layers import Conv2D
from detector import Detector
from tests.test_detector import SMALL

pytestmark = pytest.mark.full
CLASSES = ("circle", "square")
SHORT_LONG = {"resize": "short_long", "resize.short": 64, "resize.long": 96}


class Plain(keras.layers.Layer):
    """A backbone of one convolution, so that thousands of calls take a minute."""

    def __init__(self):
        super().__init__(name="backbone")
        self.conv = Conv2D(8, 3, 8, name="conv")

    def call(self, x, training=False):
        x = self.conv(x)
        return [x, x[:, ::2, ::2], x[:, ::4, ::4]]


@functools.cache
def detector(rule):
    """One for each kind of resizing rule."""
    changes = {"canvas": {}, "short_long": SHORT_LONG}[rule]
    config = configs.preset("shapes", SMALL | {"model.backbone": Plain}).model
    config = configs.override(config, changes)
    return Detector(build_model(config, len(CLASSES)), CLASSES, config)


@pytest.fixture(scope="module")
def process():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        yield executor


def resident():
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growths(rule, kind, folder, first, num_calls, num_windows):
    """MB that each of the windows of `num_calls` calls takes."""
    call = calls(detector(rule), kind, folder)
    for number in range(first):
        call(number)
    found = []
    for window in range(num_windows):
        gc.collect()
        before = resident()
        for number in range(num_calls):
            call(first + window * num_calls + number)
        gc.collect()
        found.append((resident() - before) / 1e6)
    return found


def frame(number, size=(480, 640)):
    """Pixels that nobody has seen before."""
    return np.full((*size, 3), number % 251, np.uint8)


def calls(detector, kind, folder):
    """A function of a number that detects once, in one of the ways there are."""
    sizes = np.random.default_rng(0).integers(40, 500, [10**4, 2])
    path = folder / "photo.png"
    cv2.imwrite(str(path), frame(3))
    of_video = detector.array_detector(10**2)
    ways = {
        "arrays": lambda number: detector.detect_arrays([frame(number)]),
        "video": lambda number: of_video([frame(number)]),
        "file": lambda number: detector.detect([path]),
    }
    if kind == "each":  # one way after another
        return lambda number: list(ways.values())[number % len(ways)](number)
    ways["sizes"] = lambda number: detector.detect_arrays([frame(number, sizes[number])])
    return ways[kind]


@pytest.mark.parametrize("kind", ["arrays", pytest.param("file", marks=pytest.mark.slow)])
def test_four_hundred_images_take_no_memory(kind, process, tmp_path):
    """The median of windows, so that what the heap takes once does not count. Of images of many
    sizes it takes more than can be told from a leak within 400."""
    found = process.submit(growths, "canvas", kind, tmp_path, 60, 80, 5).result()
    assert np.median(found) < 20 * 80 / 5000, found


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "kind"), [("canvas", "each"), ("short_long", "sizes")])
def test_five_thousand_images_take_less_than_20_mb(rule, kind, process, tmp_path):
    """A third of that where three ways share the calls."""
    (found,) = process.submit(growths, rule, kind, tmp_path, 200, 5000, 1).result()
    assert found < {"each": 20 / 3, "sizes": 20}[kind]


def test_nothing_keeps_an_image_that_was_detected_on():
    for several in (1, 6):
        images = [frame(number) for number in range(several)]
        references = [weakref.ref(image) for image in images]
        detector("canvas").detect_arrays(images)
        del images
        gc.collect()
        assert [reference() for reference in references] == [None] * several
