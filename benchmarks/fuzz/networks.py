"""Hostile networks: small graphs with changed operators, sizes, attributes, names and bytes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["mutant", "parents"]

_SIZES = (0, 1, -1, 2, 3, 5, 7, 2**16, 2**31, 2**32, 2**62, -(2**63), 2**63 - 1, 13, 64)
_FLOATS = (0.0, 1.0, -1.0, 0.5, 2.0, 1e9, 1e300, float("nan"), float("inf"))
_OPERATORS = (
    "ConstantOfShape", "Expand", "Tile", "Resize", "Pad", "Range", "Reshape", "Conv", "ConvTranspose", "MaxPool",
    "Slice", "Gather", "Concat", "Split", "Shape", "Mul", "Div", "Cast", "ReduceSum", "Unsqueeze", "Squeeze", "Loop",
    "Transpose", "If", "NonZero", "Where", "MatMul", "Gemm", "Flatten", "DepthToSpace", "QuantizeLinear", "Max",
    "Equal", "Einsum",
)  # fmt: skip


def parents() -> list[onnx.ModelProto]:
    """Return networks as exporters write them: a small convolutional one, one with computed sizes, one in INT8."""
    return [_convolutional(), _sized(), _int8()]


def mutant(good: Sequence[onnx.ModelProto], rng: random.Random) -> bytes:
    """Return one of the networks with a few changes in its graph or its bytes."""
    model = onnx.ModelProto()
    model.CopyFrom(rng.choice(good))
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change(rng, model.graph)
    data: bytes = model.SerializeToString()
    for _ in range(rng.choice((0, 0, 0, 0, 0, 0, 1, 4))):
        at = rng.randrange(len(data) + 1)
        data = data[:at] + rng.randbytes(rng.randint(0, 3)) + data[at + rng.randint(0, 3) :]
    return data


def _change(rng: random.Random, graph: onnx.GraphProto) -> None:
    """Change a tensor's values or shape, a node's operator, inputs, outputs or attributes, or the nodes."""
    kind = rng.randrange(8)
    node = rng.choice(graph.node) if graph.node else None
    names = [*(name for each in graph.node for name in each.output), *(tensor.name for tensor in graph.initializer), ""]
    if kind <= 1 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        values = np.frombuffer(tensor.raw_data, np.int64).copy() if tensor.data_type == TensorProto.INT64 else None
        if values is not None and values.size and kind == 0:
            values[rng.randrange(values.size)] = rng.choice(_SIZES)
            tensor.raw_data = values.tobytes()
        elif len(tensor.dims):
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_SIZES)
    elif node is None:
        return
    elif kind == 2:
        node.op_type = rng.choice(_OPERATORS)
    elif kind == 3 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif kind == 4:
        _change_attribute(rng, node)
    elif kind == 5:
        node.input.append(rng.choice(names))
    elif kind == 6:
        graph.node.add().CopyFrom(node)
    else:
        graph.node.remove(node)


def _change_attribute(rng: random.Random, node: onnx.NodeProto) -> None:
    numbers = [rng.choice(_SIZES) for _ in range(rng.choice((1, 2, 4)))]
    if node.attribute and rng.random() < 0.7:
        attribute = rng.choice(node.attribute)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = numbers[0]
        elif attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f = min(rng.choice(_FLOATS), 3e38)
        else:
            attribute.i = numbers[0]
    else:
        name = rng.choice(("axes", "axis", "pads", "strides", "dilations", "group", "kernel_shape", "perm", "to"))
        node.attribute.append(helper.make_attribute(name, numbers[0] if name in ("axis", "group", "to") else numbers))


def _model(nodes: Sequence[onnx.NodeProto], tensors: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 16, 12])],
        [helper.make_empty_tensor_value_info("out")],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _convolutional() -> onnx.ModelProto:
    ones = np.ones((4, 1, 3, 3), np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["c", "", "scales"], ["d"], mode="nearest"),
        helper.make_node("Add", ["b", "d"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "v"], ["out"]),
    ]
    scales = np.array([1, 1, 2, 2], np.float32)
    return _model(nodes, {"w": ones, "scales": scales, "v": np.ones((4, 8), np.float32)})


def _sized() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Shape", ["image"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Concat", ["n", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["image", "t"], ["a"]),
        helper.make_node("Slice", ["a", "zero", "end", "axis"], ["b"]),
        helper.make_node("Pad", ["b", "pads"], ["c"]),
        helper.make_node("Expand", ["c", "shape"], ["d"]),
        helper.make_node("Tile", ["d", "repeats"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["out"], axes=[2], keepdims=0),
    ]
    sizes = {"zero": [0], "rest": [4, -1], "end": [20], "axis": [2], "pads": [0, 0, 1, 0, 0, 2], "shape": [1, 4, 23],
             "repeats": [1, 2, 1]}  # fmt: skip
    return _model(nodes, {name: np.array(values, np.int64) for name, values in sizes.items()})


def _int8() -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "nil"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "nil"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "nil"], ["b"]),
        helper.make_node("Conv", ["a", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Softmax", ["c"], ["out"], axis=1),
    ]
    scale, nil = np.array(0.1, np.float32), np.array(0, np.int8)
    return _model(nodes, {"scale": scale, "nil": nil, "w": np.ones((4, 1, 3, 3), np.int8)})
