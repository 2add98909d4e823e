"""Measures on the CPU how FP16 changes activations.

ONNX Runtime's CPU provider computes an FP16 graph in FP32 and removes the casts between its nodes, so running the FP16
file there shows the rounding of weights and ends alone. `rounded_graph` adds casts that are kept: products and sums
are FP32, and each result is stored as half, as on a GPU's tensor cores.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from spinescore.export.averaged import Images
from spinescore.export.graph import without_initializers, without_weights
from spinescore.export.sessions import map_batches, open_session
from spinescore.runtime.engines.half import LayerMax, float_names

__all__ = ["largest_activations", "open_rounded", "rounded_graph"]

# Their results are values of their inputs, or 0.
_CHOOSING = ("Flatten", "Identity", "MaxPool", "Relu", "Reshape", "Transpose")


def open_rounded(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a session of the FP32 `model` that rounds its input, weights and every node's result to half."""
    graph, floats = rounded_graph(model)
    return open_session(graph, model, partial(_rounded, floats))


def rounded_graph(model: onnx.ModelProto) -> tuple[onnx.ModelProto, set[str]]:
    """Return a copy that rounds, without initializers, and the names of those that must be rounded too.

    Two kinds of results need no cast: those of operators that only choose among halves, and those that only a ReLU
    reads, since rounding before or after a ReLU is the same. So a convolution and its ReLU stay one operation, as
    engines run them.
    """
    rounded = without_initializers(model)
    graph = rounded.graph
    floats = _float_tensors(model) - float_names(graph)
    later = _rounded_later(graph, floats)
    entries = [value.name for value in graph.input if value.name in floats]
    nodes = [cast for name in entries for cast in _rounding(name, f"{name}.rounded")]
    renamed = {name: f"{name}.rounded" for name in entries}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        chosen = node.op_type in _CHOOSING and node.input[0] not in later
        outputs = [name for name in node.output if name in floats and name not in later and not chosen]
        for index, name in enumerate(node.output):
            if name in outputs:
                node.output[index] = f"{name}.exact"
        nodes.append(node)
        for name in outputs:
            nodes.extend(_rounding(f"{name}.exact", name))
    _replace_nodes(graph, nodes)
    return rounded, floats


def largest_activations(model: onnx.ModelProto, images: Images, label: str = "") -> list[LayerMax]:
    """Return the largest magnitude of each node's result over `images` (N, C, H, W), in the graph's order.

    A result that an operator such as ReLU chooses from an earlier result is left out: it is no larger.
    """
    probed = without_initializers(model)
    graph = probed.graph
    floats = _float_tensors(model)
    values = _computed(graph, floats)
    ends = [f"{name}.{end}" for name in values for end in ("min", "max")]
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:  # each result is reduced at once, so that it can be forgotten
        nodes.append(node)
        for name in (name for name in node.output if name in values):
            nodes.append(helper.make_node("ReduceMin", [name], [f"{name}.min"], keepdims=0))
            nodes.append(helper.make_node("ReduceMax", [name], [f"{name}.max"], keepdims=0))
    _replace_nodes(graph, nodes)
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in ends)
    session, entry = open_session(probed, model), graph.input[0].name

    def run(image: NDArray[np.floating]) -> NDArray[np.float32]:
        magnitudes = np.abs(session.run(ends, {entry: image})).reshape(len(values), 2)
        largest_of_each: NDArray[np.float32] = magnitudes.max(axis=1)
        return largest_of_each

    by_image = map_batches(run, images, label, most=1)  # all activations of an image take 200 MB
    largest = np.max([np.zeros(len(values), np.float32), *by_image], axis=0)
    return [LayerMax(name, value) for name, value in zip(values, largest.tolist(), strict=True)]


def _computed(graph: onnx.GraphProto, floats: set[str]) -> list[str]:
    """Return the names of float32 results that are not chosen from the values of an earlier result."""
    results: set[str] = set()
    computed = []
    for node in graph.node:
        if not (node.op_type in _CHOOSING and node.input[0] in results):
            computed += [name for name in node.output if name in floats]
        results.update(name for name in node.output if name in floats)
    return computed


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Return the names of all float32 tensors: initializers, inputs and nodes' results."""
    graph = onnx.shape_inference.infer_shapes(without_weights(model)).graph
    described = (*graph.input, *graph.output, *graph.value_info)
    values = {value.name for value in described if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return values | {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _rounded_later(graph: onnx.GraphProto, floats: set[str]) -> set[str]:
    """Return the names of results that only ReLUs read and that are no output of the graph."""
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    outputs = {value.name for value in graph.output}
    results = {name for node in graph.node for name in node.output if name in floats} - outputs
    return {name for name in results if readers.get(name) == {"Relu"}}


def _rounded(floats: set[str], tensor: TensorProto) -> TensorProto:
    """Return `tensor` rounded to half if its name is one of `floats`."""
    if tensor.name not in floats:
        return tensor
    with np.errstate(over="ignore", under="ignore"):
        values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
    return numpy_helper.from_array(values, tensor.name)


def _rounding(source: str, target: str) -> list[onnx.NodeProto]:
    middle = f"{target}.as_half"
    return [
        helper.make_node("Cast", [source], [middle], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [middle], [target], to=TensorProto.FLOAT),
    ]


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]
