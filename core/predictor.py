"""Prediction from a graph of its own, in which the weights are constants.

TensorFlow can then fold what does not change and keep each kernel in the layout its convolution
wants, and a batch norm that uses its statistics becomes part of the convolution before it. Making
such a graph takes seconds, so it pays for many images, and in half precision; its weights are those
of that moment.
"""

from collections.abc import Callable
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

Tensors = dict[str, tf.Tensor]
GraphDef: TypeAlias = tf.compat.v1.GraphDef
NodeDef: TypeAlias = tf.compat.v1.NodeDef


def frozen(
    step: Callable[[Tensors], Tensors], model: keras.Model, element_spec: dict[str, tf.TensorSpec]
) -> Callable[[Tensors], Tensors]:
    """`step(batch)` -> tensors by name, with the model's present weights built in.

    The same numbers as `step` itself, but for rounding; in half precision that moves scores, so
    that detections near the threshold come and go.
    """
    graph_def, inputs, captured, outputs = _with_constants(step, model, element_spec)
    fold_batch_norms(graph_def)

    def run(batch: Tensors) -> Tensors:
        values = dict(zip(inputs, tf.nest.flatten(batch), strict=True))
        # A node each, because only nodes of this graph can be given to the imported one.
        values |= {name: tf.identity(tensor) for name, tensor in captured.items()}
        found = tf.graph_util.import_graph_def(graph_def, values, list(outputs.values()), name="")
        return dict(zip(outputs, found, strict=True))

    # Traced here, so that nothing but the graph keeps the weights.
    return tf.function(run, [element_spec], autograph=False).get_concrete_function()


def _with_constants(
    step: Callable[[Tensors], Tensors], model: keras.Model, element_spec: dict[str, tf.TensorSpec]
) -> tuple[GraphDef, list[str], Tensors, dict[str, str]]:
    """The step's GraphDef; names of its inputs, in the batch's order; tensors that it uses beside
    them and the weights, by name; names of its outputs by their own."""
    weights = [(variable, variable.numpy()) for variable in model.variables]

    def traced(batch: Tensors) -> Tensors:
        values = [(variable, tf.constant(array)) for variable, array in weights]
        with keras.StatelessScope(state_mapping=values):
            return step(batch)

    function = tf.function(traced, [element_spec], autograph=False).get_concrete_function()
    names = [tensor.name for tensor in function.inputs]
    size = len(tf.nest.flatten(element_spec))
    captured = dict(zip(names[size:], function.captured_inputs, strict=True))
    outputs = {name: tensor.name for name, tensor in function.structured_outputs.items()}
    return function.graph.as_graph_def(), names[:size], captured, outputs


def fold_batch_norms(graph_def: GraphDef) -> int:
    """Makes convolution + batch norm of constants into convolution + bias, in place -> how many.

    gamma (w * x - mean) / sqrt(variance + epsilon) + beta is a convolution by w times a factor a
    channel, and an offset. Factors are multiplied in float64, before a cast to half precision.
    A convolution that something else uses too, or whose kernel is shared, is left as it is.
    """
    nodes = {node.name: node for node in graph_def.node}
    uses = _count_uses(graph_def)
    # Whose statistics something takes: "name:1" is the mean, "name:2" the variance.
    is_asked = {name.split(":")[0] for node in graph_def.node for name in node.input if ":" in name}

    def source(name: str, passing: tuple[str, ...] = ("Identity", "Cast")) -> tuple[NodeDef, bool]:
        """The node that a value comes from, and whether nothing else takes it from there."""
        node = nodes[name.split(":")[0]]
        is_alone = uses[node.name] == 1
        while node.op in passing:
            node = nodes[node.input[0].split(":")[0]]
            is_alone &= uses[node.name] == 1
        return node, is_alone

    folded = 0
    for norm in [node for node in graph_def.node if node.op == "FusedBatchNormV3"]:
        conv, is_alone = source(norm.input[0], passing=())
        if conv.op != "Conv2D" or not is_alone or norm.attr["is_training"].b:
            continue
        if norm.name in is_asked or any(name.startswith("^") for name in norm.input):
            continue
        kernel, is_alone = source(conv.input[1])
        constants = [source(name)[0] for name in norm.input[1:5]]
        if not is_alone or {node.op for node in (kernel, *constants)} != {"Const"}:
            continue
        gamma, beta, mean, variance = (_value(node).astype(np.float64) for node in constants)
        factor = gamma / np.sqrt(variance + norm.attr["epsilon"].f)
        _set_value(kernel, _value(kernel) * factor, kernel.attr["dtype"].type)
        offset = graph_def.node.add(op="Const", name=f"{norm.name}/offset")
        _set_value(offset, beta - mean * factor, norm.attr["T"].type)
        norm.op = "BiasAdd"
        norm.input[1:] = [offset.name]
        for name in set(norm.attr) - {"T", "data_format"}:
            del norm.attr[name]
        folded += 1
    return folded


def _count_uses(graph_def: GraphDef) -> dict[str, int]:
    uses = dict.fromkeys((node.name for node in graph_def.node), 0)
    for node in graph_def.node:
        for name in node.input:
            uses[name.lstrip("^").split(":")[0]] += 1
    return uses


def _value(const: NodeDef) -> np.ndarray:
    return tf.make_ndarray(const.attr["value"].tensor)


def _set_value(const: NodeDef, array: np.ndarray, dtype: int) -> None:
    const.attr["dtype"].type = dtype
    array = array.astype(tf.dtypes.as_dtype(dtype).as_numpy_dtype)
    const.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))
