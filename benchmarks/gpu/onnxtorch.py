"""ONNX graphs of this package's exporter as PyTorch modules. An operator that the exporter never writes is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.fx import Graph, GraphModule, Node
from torch.nn import functional

from spinescore.runtime.errors import EngineError

__all__ = ["OPERATORS", "module_of"]

Attributes = dict[str, Any]  # of one ONNX node; a reader takes out what it understands
Reader = Callable[["_Reading", list[str], Attributes], Node]


def module_of(model: onnx.ModelProto, name: str) -> GraphModule:
    """Return the graph as a module for inference: images (N, C, H, W) in, the graph's one output out.

    Arithmetic and parameters are float32. Raises `EngineError` that names the operators and attributes of the network
    `name` that cannot be read.
    """
    unknown = sorted({node.op_type for node in model.graph.node} - {*OPERATORS, "Cast"})
    if unknown:
        raise EngineError(f"Network {name} has operators that are not run on PyTorch here: {', '.join(unknown)}.")
    reading = _Reading(model, name)
    for node in model.graph.node:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "Cast":
            reading.cast(node.input[0], node.output[0], attributes)
        else:
            reading.values[node.output[0]] = OPERATORS[node.op_type](reading, list(node.input), attributes)
        if attributes:
            raise EngineError(f"Network {name}: node {node.name} ({node.op_type}) has {attributes}, which is not read.")
    reading.graph.output(reading.values[model.graph.output[0].name])
    return GraphModule(reading.root, reading.graph).eval()


class _Reading:
    """The module so far. `values` has the tensors that depend on the image, `constants` those of the file."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        self.name, self.graph, self.root = name, Graph(), nn.Module()
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        images = [value.name for value in model.graph.input if value.name not in self.constants]
        self.values = {image: self.graph.placeholder("image") for image in images}
        self._weights = 0

    def cast(self, source: str, target: str, attributes: Attributes) -> None:
        """Read weights that the file stores as float16. Other casts are refused."""
        if attributes.pop("to") != onnx.TensorProto.FLOAT or source not in self.constants:
            raise EngineError(f"Network {self.name}: the cast of {source} is not one of stored weights to float32.")
        self.constants[target] = self.constants[source]

    def weight(self, constant: str) -> Node:
        """Add a tensor of the file to the module."""
        attribute = f"weight{self._weights}"
        self._weights += 1
        values = torch.from_numpy(np.array(self.constants[constant], np.float32))
        self.root.register_parameter(attribute, nn.Parameter(values, requires_grad=False))
        return self.graph.get_attr(attribute)

    def refuse(self, reason: str) -> EngineError:
        return EngineError(f"Network {self.name}: {reason}; this is not run on PyTorch here.")


def _window(reading: _Reading, attributes: Attributes) -> dict[str, tuple[int, ...]]:
    """Return stride and padding as PyTorch takes them."""
    top, left, bottom, right = attributes.pop("pads", [0] * 4)
    if (top, left) != (bottom, right):
        raise reading.refuse(f"the padding {top, left, bottom, right} differs between opposite sides")
    return {"stride": tuple(attributes.pop("strides", (1, 1))), "padding": (top, left)}


def _conv(reading: _Reading, inputs: list[str], attributes: Attributes) -> Node:
    attributes.pop("kernel_shape", None)  # the weight's
    image, *weights = inputs
    arguments = (reading.values[image], *map(reading.weight, weights))
    return reading.graph.call_function(functional.conv2d, arguments, _window(reading, attributes))


def _max_pool(reading: _Reading, inputs: list[str], attributes: Attributes) -> Node:
    arguments = (reading.values[inputs[0]], tuple(attributes.pop("kernel_shape")))
    return reading.graph.call_function(functional.max_pool2d, arguments, _window(reading, attributes))


def _resize(reading: _Reading, inputs: list[str], attributes: Attributes) -> Node:
    """Repeat each pixel; `inputs` are image, nothing and scales."""
    repeated = {"mode": b"nearest", "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
    scales = reading.constants[inputs[-1]].tolist() if len(inputs) == 3 and not inputs[1] else []
    settings = {name: attributes.pop(name, None) for name in repeated}
    if settings != repeated or scales[:2] != [1, 1] or any(scale % 1 for scale in scales):
        raise reading.refuse(f"a Resize by {scales} with {settings} does not repeat pixels")
    factors = {"scale_factor": tuple(scales[2:]), "mode": "nearest"}
    return reading.graph.call_function(functional.interpolate, (reading.values[inputs[0]],), factors)


def _gemm(reading: _Reading, inputs: list[str], attributes: Attributes) -> Node:
    features, weight, bias = inputs
    return reading.graph.call_function(
        torch.addmm, (reading.weight(bias), reading.values[features], reading.weight(weight))
    )


def _plain(function: Callable[..., Any], *more: Any) -> Reader:
    """Return a reader of an operator without attributes, all of whose inputs depend on the image."""

    def read(reading: _Reading, inputs: list[str], attributes: Attributes) -> Node:
        return reading.graph.call_function(function, (*(reading.values[name] for name in inputs), *more))

    return read


OPERATORS: dict[str, Reader] = {
    "Add": _plain(torch.add),
    "Conv": _conv,
    "Flatten": _plain(torch.flatten, 1),
    "Gemm": _gemm,
    "GlobalAveragePool": _plain(functional.adaptive_avg_pool2d, 1),
    "MaxPool": _max_pool,
    "Relu": _plain(torch.relu),
    "Resize": _resize,
}
