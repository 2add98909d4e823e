"""FP32 graphs to FP16: initializers and activations half, strongly typed, no casts.

TensorRT 11 has no FP16 flag: the precision of every tensor is what the ONNX file says. Converters put a cast around
each Resize; here its scales, which ONNX wants in float32, stay as they are and its data is half like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from spinescore.runtime.engines.onnxgraph import check_graph, without_initializers
from spinescore.runtime.errors import CheckpointError

__all__ = ["HALF_MAX", "HalfReport", "LayerCount", "LayerMax", "float_names", "store_half", "to_half"]

HALF_MAX = 65504.0  # the largest finite half; magnitudes from 65520 on round to infinity
_MAGNITUDE, _INFINITY, _SMALLEST_NORMAL = 0x7FFF, 0x7C00, 0x0400  # bits of a half: without sign, infinite, 2**-14
_FLOAT_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}  # inputs that ONNX defines as float32: roi and scales
_STORED = ".half"
_SMALL = 256  # elements; smaller initializers are not worth a Cast


@dataclass(frozen=True)
class LayerCount:
    """`count` of the `total` weights of a layer."""

    layer: str
    count: int
    total: int


@dataclass(frozen=True)
class LayerMax:
    """The largest magnitude in a layer."""

    layer: str
    value: float


@dataclass(frozen=True)
class HalfReport:
    """The weights that half precision changes, by layer.

    `overflowed` become infinite; `flushed` were not zero and become zero; `subnormal` keep fewer than 11 bits, and
    hardware that flushes subnormals makes them zero.
    """

    largest_weight: LayerMax
    overflowed: tuple[LayerCount, ...]
    flushed: tuple[LayerCount, ...]
    subnormal: tuple[LayerCount, ...]


def to_half(model: onnx.ModelProto) -> tuple[onnx.ModelProto, HalfReport]:
    """Return a copy of the FP32 `model` with every float32 tensor as float16, ends included, and a report.

    Weights that overflow become infinite; the report names them, and the caller decides. The copy has no casts of
    `store_half` either.
    Raises `CheckpointError` for graphs with control flow, whose inner graphs are not converted, and for operators
    that take no half.
    """
    half = without_initializers(model)
    graph = half.graph
    _refuse_inner_graphs(graph)
    _drop_casts_of_stored(graph, {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16})
    keep = float_names(graph)
    for tensor in model.graph.initializer:
        is_converted = tensor.data_type == TensorProto.FLOAT and tensor.name not in keep
        graph.initializer.append(_half_tensor(tensor) if is_converted else tensor)
    for node in graph.node:
        if not keep.intersection(node.output):
            _convert_attributes(node)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name not in keep:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    try:
        check_graph(half)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckpointError(f"the graph {graph.name} is not valid in half precision: {error}") from error
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type in floats and tensor.name not in keep]
    return half, _report(graph, weights)


def store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of the FP32 `model` with its large weights as float16, each followed by a Cast to float32.

    The file has half the size; engines fold the casts when they load it, and all arithmetic stays FP32. Initializers
    with a magnitude that half cannot hold stay float32.
    """
    small = without_initializers(model)
    casts = []
    for tensor in model.graph.initializer:
        is_large = tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= _SMALL
        if not is_large or np.abs(numpy_helper.to_array(tensor)).max() > HALF_MAX:
            small.graph.initializer.append(tensor)
            continue
        stored = _half_tensor(tensor)
        stored.name = tensor.name + _STORED
        small.graph.initializer.append(stored)
        name = f"{tensor.name}.cast"
        casts.append(helper.make_node("Cast", [stored.name], [tensor.name], name=name, to=TensorProto.FLOAT))
    nodes = [*casts, *small.graph.node]
    del small.graph.node[:]
    small.graph.node.extend(nodes)
    check_graph(small)
    return small


def _half_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    with np.errstate(over="ignore", under="ignore"):
        return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)


def _refuse_inner_graphs(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if any(
            attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in node.attribute
        ):
            raise CheckpointError(
                f"node {node.name or node.op_type} ({node.op_type}) holds an inner graph, which is not converted to "
                "FP16; export the network without control flow"
            )


def _drop_casts_of_stored(graph: onnx.GraphProto, stored: set[str]) -> None:
    """Remove casts of float16 initializers to float32: in a half graph the nodes read the initializers themselves."""
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        is_stored = node.op_type == "Cast" and node.input[0] in stored
        if is_stored and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    for node in kept:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    if renamed:
        del graph.node[:]
        graph.node.extend(kept)
        described = [value for value in graph.value_info if value.name not in renamed]
        del graph.value_info[:]
        graph.value_info.extend(described)


def float_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the roi and scales of Resize nodes, and of all values that they are computed from."""
    needed = {
        node.input[index]
        for node in graph.node
        for index in _FLOAT_INPUTS.get(node.op_type, ())
        if index < len(node.input) and node.input[index]
    }
    for node in reversed(graph.node):  # ONNX stores nodes in topological order
        if needed.intersection(node.output):
            needed.update(name for name in node.input if name)
    shared = [n for n in graph.node if needed.intersection(n.input) and not _reads_as_float(n, needed)]
    if shared:
        raise CheckpointError(
            f"node {shared[0].name or shared[0].op_type} reads a tensor that also scales a Resize; it cannot be half "
            "and float32 at once. Export the network with constant Resize scales"
        )
    return needed


def _reads_as_float(node: onnx.NodeProto, needed: set[str]) -> bool:
    if needed.intersection(node.output) or node.op_type == "Shape":
        return True
    places = [index for index, name in enumerate(node.input) if name in needed]
    return all(index in _FLOAT_INPUTS.get(node.op_type, ()) for index in places)


def _convert_attributes(node: onnx.NodeProto) -> None:
    """Convert constants inside a node, and casts to float32, to half."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(_half_tensor(attribute.t))
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16


def _report(graph: onnx.GraphProto, weights: Sequence[onnx.TensorProto]) -> HalfReport:
    layers = {name: node.name or node.output[0] for node in graph.node for name in node.input}
    halves = {tensor.name: tensor for tensor in graph.initializer}
    largest = LayerMax("", 0.0)
    counts: dict[str, list[LayerCount]] = {"overflowed": [], "flushed": [], "subnormal": []}
    for tensor in weights:
        layer, value = layers.get(tensor.name, tensor.name), numpy_helper.to_array(tensor)
        magnitude = float(max(value.max(), -value.min())) if value.size else 0.0
        if magnitude > largest.value:
            largest = LayerMax(layer, magnitude)
        bits = numpy_helper.to_array(halves[tensor.name]).view(np.uint16) & _MAGNITUDE  # integers compare faster
        hits = (bits == _INFINITY, (bits == 0) & (value != 0), (bits > 0) & (bits < _SMALLEST_NORMAL))
        for layers_hit, hit in zip(counts.values(), hits, strict=True):
            if count := int(np.count_nonzero(hit)):
                layers_hit.append(LayerCount(layer, count, value.size))
    return HalfReport(largest, *map(tuple, counts.values()))
