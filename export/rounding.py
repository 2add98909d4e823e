"""What FP16 does to activations, measured on the CPU.

ONNX Runtime's CPU provider computes an FP16 graph in FP32 and elides the casts between its nodes, so running the FP16
file there shows the rounding of weights and ends alone. `round_like_half` rounds every tensor by casts of its own, that
are kept: products and sums in FP32, each result stored as half, as a GPU's tensor cores do it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from spinescore.export.half import LayerMax, float_names
from spinescore.export.sessions import open_session

__all__ = ["largest_activations", "round_like_half"]


def round_like_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the FP32 `model` in which inputs, weights and every node's result are rounded to half."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    graph = rounded.graph
    floats = _float_tensors(model) - float_names(graph)
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    for name in [tensor.name for tensor in graph.initializer] + [value.name for value in graph.input]:
        if name in floats:
            renamed[name] = f"{name}.rounded"
            nodes.extend(_rounding(name, renamed[name]))
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        outputs = [name for name in node.output if name in floats]
        for index, name in enumerate(node.output):
            if name in floats:
                node.output[index] = f"{name}.exact"
        nodes.append(node)
        for name in outputs:
            nodes.extend(_rounding(f"{name}.exact", name))
    _replace_nodes(graph, nodes)
    return rounded


def largest_activations(model: onnx.ModelProto, batches: Iterable[NDArray[np.float32]]) -> list[LayerMax]:
    """The largest magnitude that each node's result takes over `batches` of images, in the graph's order."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    graph = probed.graph
    floats = _float_tensors(model)
    values = [name for node in graph.node for name in node.output if name in floats]
    for name in values:
        graph.node.append(helper.make_node("Abs", [name], [f"{name}.abs"]))
        graph.node.append(helper.make_node("ReduceMax", [f"{name}.abs"], [f"{name}.max"], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(f"{name}.max", TensorProto.FLOAT, []))
    session = open_session(probed)
    largest = np.zeros(len(values))
    for batch in batches:
        found = session.run([f"{name}.max" for name in values], {graph.input[0].name: batch})
        largest = np.maximum(largest, np.array([float(value) for value in found]))
    return [LayerMax(name, float(value)) for name, value in zip(values, largest, strict=True)]


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all float32 tensors: initializers, inputs and nodes' results."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    described = (*graph.input, *graph.output, *graph.value_info)
    found = {value.name for value in described if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


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
