"""The least a network can take: its convolutions at the speed of one large matrix product.

The run is that product, by TensorFlow; it says its number of operations and the network's, and the
parent turns its seconds into the network's. Nothing but convolutions is counted. A clever
convolution (Winograd) may get below.
"""

import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from benchmarks.contestants.job import Job
from configs import override
from configs.schema import Model
from core.build import build_model

SIDE = 2048  # 17 GFLOP: a tenth of a second on a few cores


def make(job: Job) -> Callable[[], dict]:
    flops = network_flops(job)
    a, b = tf.random.split([1, 2], 2)
    matrices = [tf.random.stateless_normal([SIDE, SIDE], seed) for seed in (a, b)]
    matrices = [tf.cast(matrix, job.precision) for matrix in matrices]
    multiply = tf.function(tf.matmul)

    def run() -> dict:
        multiply(*matrices).numpy()
        return {"network_flops": flops, "matmul_flops": 2 * SIDE**3}

    return run


def network_flops(job: Job) -> int:
    """Operations of the convolutions, forwards, and for training backwards, for a whole batch.

    A multiplication and an addition count as two.
    """
    network = override(Model(p6_from="p5"), {"backbone": f"resnet{job.depth}"})
    model = build_model(network, job.classes)

    @tf.function(input_signature=[tf.TensorSpec([job.batch, job.size, job.size, 3])])
    def step(images: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = model(images, training=job.task == "train")
            total = tf.add_n([tf.reduce_sum(output) for output in outputs.values()])
        return tape.gradient(total, model.trainable_variables) if job.task == "train" else total

    return convolution_flops(step.get_concrete_function().graph.as_graph_def(add_shapes=True))


def convolution_flops(graph: tf.compat.v1.GraphDef) -> int:
    """Of a GraphDef with shapes. Also in functions that it calls."""
    total = 0
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        shapes = {node.name: _shape(node) for node in nodes}
        for node in nodes:
            inputs = [shapes.get(name.split(":")[0], []) for name in node.input]
            # Each output pixel costs the filter's size; the backward passes are its mirrors.
            if node.op == "Conv2D":
                total += 2 * _volume(shapes[node.name][:3]) * _volume(inputs[1])
            elif node.op == "Conv2DBackpropInput":
                total += 2 * _volume(inputs[2][:3]) * _volume(inputs[1])
            elif node.op == "Conv2DBackpropFilter":
                total += 2 * _volume(inputs[2][:3]) * _volume(shapes[node.name])
    return total


def _shape(node: tf.compat.v1.NodeDef) -> list[int]:
    """Of its first output; empty where it has none."""
    shapes = node.attr["_output_shapes"].list.shape
    return [side.size for side in shapes[0].dim] if shapes else []


def _volume(shape: list[int]) -> int:
    assert shape, "a convolution of unknown shape"
    volume = 1
    for side in shape:
        assert side > 0, f"a convolution of unknown shape {shape}"
        volume *= side
    return volume
