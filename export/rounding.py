"""Converts a network to half precision, and measures on the CPU how that changes its activations.

ONNX Runtime's CPU provider computes an FP16 graph in FP32 and removes the casts between its nodes, so running the FP16
file there shows the rounding of weights and ends alone. `rounded_graph` adds casts that are kept: products and sums
are FP32, and each result is stored as half, as on a GPU's tensor cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from spinescore.export.sessions import Images, map_batches, open_session, run_session
from spinescore.runtime.acceptance.comparison import difference_of_range
from spinescore.runtime.engines.half import HALF_MAX, HalfReport, LayerMax, float_names, to_half
from spinescore.runtime.engines.onnxgraph import without_initializers, without_weights
from spinescore.runtime.errors import CheckpointError

__all__ = [
    "HalfResult",
    "PreparedHalf",
    "largest_activations",
    "open_rounded",
    "prepare_half",
    "rounded_graph",
    "try_half",
]

_SAMPLE = 8  # images on which the largest activations are measured
_FILE_SAMPLE = 2  # images for the FP16 file itself: each image uses all weights
_FILE_TOLERANCE = 0.05  # of the range: rounding stays far below, a wrong file far above

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


@dataclass(frozen=True, eq=False)
class HalfResult:
    """The FP16 graph and its outputs for the golden inputs; both are None if there is none, as `fault` explains.

    `weights` and `largest_activation` are None if the graph cannot be converted at all.
    """

    model: onnx.ModelProto | None
    output: NDArray[np.float32] | None  # every tensor rounded to half, products and sums in FP32
    weights: HalfReport | None
    largest_activation: LayerMax | None
    fault: str | None = None


@dataclass(frozen=True, eq=False)
class PreparedHalf:
    """All that is made without the FP32 outputs: the FP16 graph, its output for the first images, an open session."""

    model: onnx.ModelProto
    weights: HalfReport
    largest_activation: LayerMax
    first_output: NDArray[np.float32]
    rounded: onnxruntime.InferenceSession


def prepare_half(model: onnx.ModelProto, images: Images) -> PreparedHalf | HalfResult:
    """Convert the FP32 `model` to half precision; return the result at once if it cannot be converted.

    This runs mostly on one core, so that the FP32 network can run at the same time.
    """
    try:
        half, weights = to_half(model)
    except CheckpointError as error:
        return HalfResult(None, None, None, None, str(error))
    largest = max(largest_activations(model, images[:_SAMPLE]), key=_magnitude)
    if weights.overflowed:
        first = weights.overflowed[0]
        fault = f"{first.count} of {first.total} weights of layer {first.layer} exceed {HALF_MAX:.0f}"
        return HalfResult(None, None, weights, largest, fault)
    first_output = run_session(open_session(half, optimised=False), images[:_FILE_SAMPLE])
    return PreparedHalf(half, weights, largest, first_output, open_rounded(model))


def try_half(
    prepared: PreparedHalf, model: onnx.ModelProto, images: Images, reference: NDArray[np.float32], name: str
) -> HalfResult:
    """Try half precision on `images`; `reference` has the outputs of the FP32 `model`."""
    weights, largest = prepared.weights, prepared.largest_activation
    output = run_session(prepared.rounded, images, f"{name}: half precision")
    if not np.isfinite(output).all() or _magnitude(largest) > HALF_MAX:
        activations = largest_activations(model, images, f"{name}: looking for the overflow")
        above = [layer for layer in activations if _magnitude(layer) > HALF_MAX]
        first_over = above[0] if above else max(activations, key=_magnitude)
        fault = f"the output of layer {first_over.layer} reaches {first_over.value:.3g}, half ends at {HALF_MAX:.0f}"
        return HalfResult(None, None, weights, first_over, fault)
    of_file = np.concatenate([prepared.first_output, reference[_FILE_SAMPLE:]])
    difference = difference_of_range(reference, of_file)
    if difference > _FILE_TOLERANCE:
        fault = f"ONNX Runtime's result for the FP16 file is {difference:.3f} of the range off"
        return HalfResult(None, None, weights, largest, fault)
    return HalfResult(prepared.model, output, weights, largest)


def _magnitude(layer: LayerMax) -> float:
    return layer.value if np.isfinite(layer.value) else float("inf")
