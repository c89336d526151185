"""Which jobs there are, and what becomes of their times."""

import re

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.contestants.floor import convolution_flops
from benchmarks.contestants.job import Job, images_of, objects_of
from benchmarks.interleave import Times
from benchmarks.models import chosen, jobs_of, parse_arguments, row
from benchmarks.startup import FIRST_STEP, FIRST_VALIDATION, plain, seconds_until

pytestmark = pytest.mark.quick

JOB = Job("torchvision", "train", "float32", "as it comes", 50, 416, 20, "")


def test_default_is_the_headline():
    jobs = jobs_of(parse_arguments([]))
    assert {job.group[:3] for job in jobs} == {(50, 416, 20)}
    assert {job.group[3:] for job in jobs} == {
        (task, precision)
        for task in ("inference", "train")
        for precision in ("float32", "bfloat16")
    }
    assert [job.task for job in jobs if job.variant == "eager"] == ["train"]
    assert {job.task for job in jobs if job.variant == "frozen"} == {"inference"}


def test_all_is_the_grid():
    networks = {job.group[:3] for job in jobs_of(parse_arguments(["--all"]))}
    assert len(networks) == 2 * 3 * 2
    some = {job.group[:3] for job in jobs_of(parse_arguments(["--all", "--size", "64"]))}
    assert {size for _, size, _ in some} == {64}


def test_only_keeps_what_others_are_compared_to():
    jobs = chosen(jobs_of(parse_arguments([])), "as it comes")
    assert [(job.task, job.name) for job in jobs] == [
        ("inference", "ours, frozen"),
        ("inference", "torchvision, as it comes"),
        ("inference", "ours, frozen"),
        ("train", "ours, compiled"),
        ("train", "torchvision, as it comes"),
        ("train", "ours, compiled"),
    ]


def test_row():
    times = Times({"ours, compiled": [1.0, 2.0, 2.0], JOB.name: [3.0, 4.0, 6.0]})
    times.memory = {"ours, compiled": {"above_imports": 100}, JOB.name: {"above_imports": 150}}
    found = row(JOB, times, "ours, compiled")
    assert found["ratios"]["minima"] == 3.0
    assert found["ratios"]["medians"] == 2.0
    assert (found["memory"], found["memory_ratio"]) == (150, 1.5)


def test_row_of_the_floor():
    """A product of 2 GFLOP in half a second is 4 GFLOP/s, at which 8 take two seconds."""
    floor = Job("floor", "inference", "float32", "speed", 50, 416, 20, "")
    times = Times({"ours, compiled": [4.0, 4.0], floor.name: [0.5, 0.5]})
    times.outputs = {floor.name: {"network_flops": 8e9, "matmul_flops": 2e9}}
    found = row(floor, times, first="ours, compiled")
    assert found["seconds"] == [2.0, 2.0]
    assert (found["gflops"], found["gflops_a_second"]) == (8.0, 4.0)
    assert found["ratios"]["medians"] == 0.5
    assert "memory" not in found


def test_convolution_flops():
    """Forward, by the image and by the kernel: each 2 * (2 * 4 * 4 pixels) * (3 * 3 * 5 * 7)."""
    kernel = tf.ones([3, 3, 5, 7])

    @tf.function(input_signature=[tf.TensorSpec([2, 8, 8, 5])])
    def step(images):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            outputs = tf.nn.conv2d(images, kernel, 2, "SAME")
        return tape.gradient(outputs, [images, kernel])

    graph = step.get_concrete_function().graph.as_graph_def(add_shapes=True)
    assert convolution_flops(graph) == 3 * 2 * (2 * 4 * 4) * (3 * 3 * 5 * 7)


def test_inputs():
    images, (boxes, labels) = images_of(JOB), objects_of(JOB, 5)
    assert images.shape == (2, 416, 416, 3)
    assert images.dtype == np.uint8
    assert boxes.shape == (2, 5, 4)
    assert (boxes[..., 2:] - boxes[..., :2] >= 416 / 16).all()
    assert boxes.min() >= 0
    assert boxes.max() <= 416
    assert labels.shape == (2, 5)
    assert set(labels.ravel()) <= set(range(20))


# ------------------------------------------------------------------------------------------------
# Start-up
# ------------------------------------------------------------------------------------------------


def test_seconds_until_it_is_shown():
    """On a terminal, whose colours do not hide the text; what comes after is not waited for."""
    script = "\\033[1mep\\033[0moch 1/4 loss 1.250 = class 1"
    command = ["bash", "-c", f"test -t 1 && printf '{script}' && sleep 100"]
    assert 0 < seconds_until(FIRST_STEP, command, timeout=30) < 30


def test_a_command_that_never_shows_it():
    with pytest.raises(RuntimeError, match=r"(?s)never showed .loss.*error: no data"):
        seconds_until("loss", ["bash", "-c", "echo error: no data; exit 1"], timeout=30)


def test_the_diary_as_it_is_shown():
    line = "12:00:00 epoch 1, loss 2.5 = class 1.2 + box 1.3, data wait 1%, val loss 2.1, mAP 0.1"
    assert re.search(FIRST_VALIDATION, plain(line))
    assert not re.search(FIRST_VALIDATION, line.split(", val")[0])
