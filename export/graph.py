"""A small ONNX builder: the handful of operators that HRNet and ResNet are made of.

Opset 17 and IR version 8, which ONNX Runtime 1.20 and TensorRT 10.3 both read. Only the batch is symbolic: the bundle
fixes the height and width of a network, unless it runs at several scales (`free_size`). Nodes and initializers have the
names of their layers in the checkpoint, so that messages about them can be traced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from spinescore.runtime.engines.onnxgraph import check_graph, without_initializers
from spinescore.runtime.errors import CheckpointError

__all__ = ["IR_VERSION", "OPSET", "Graph", "empty_model", "free_size", "with_weights_apart"]

OPSET = 17
IR_VERSION = 8
_SMALL = 256  # elements; the shapes, scales and axes that shape inference reads are smaller
_PLAIN_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8)  # as NumPy holds them

FloatArray = NDArray[np.floating]


def empty_model(name: str) -> onnx.ModelProto:
    """Return a model with this module's opset and IR version, whose graph `name` has no nodes yet.

    It is filled in place: ONNX's own helpers copy every weight twice more.
    """
    opset = [helper.make_opsetid("", OPSET)]
    return onnx.ModelProto(
        ir_version=IR_VERSION, producer_name="spinescore", opset_import=opset, graph=onnx.GraphProto(name=name)
    )


def free_size(model: onnx.ModelProto) -> None:
    """Make height and width of the ends symbolic, in place, so that one file serves every scale.

    The sizes inside follow the input, so the shapes in the file, which hold for one size, are dropped.
    """
    for end, names in ((model.graph.input[0], ("height", "width")), (model.graph.output[0], ("rows", "columns"))):
        for dimension, name in zip(end.type.tensor_type.shape.dim[2:], names, strict=True):
            dimension.dim_param = name
    del model.graph.value_info[:]
    check_graph(model)


def with_weights_apart(
    model: onnx.ModelProto,
    weights: onnx.ModelProto,
    change: Callable[[TensorProto], TensorProto] | None = None,
) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """Return a copy of `model` with the initializers of `weights`, and the values of the large ones by name.

    In the copy the large ones are marked as external data. An engine that takes values from memory need not be given
    the graph as one long message. `change` makes another tensor of each initializer.
    """
    light, values = without_initializers(model), {}
    inputs = {value.name for value in model.graph.input}  # an initializer of the same name is an input's default
    for original in weights.graph.initializer:
        tensor = change(original) if change else original
        is_large = np.prod(tensor.dims) > _SMALL and tensor.HasField("raw_data")
        if not is_large or tensor.data_type not in _PLAIN_TYPES or tensor.name in inputs:
            light.graph.initializer.append(tensor)
            continue
        values[tensor.name] = numpy_helper.to_array(tensor)
        place = {"location": "memory", "offset": 0, "length": values[tensor.name].nbytes}
        entries = [onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in place.items()]
        light.graph.initializer.add(
            name=tensor.name,
            data_type=tensor.data_type,
            dims=tensor.dims,
            data_location=TensorProto.EXTERNAL,
            external_data=entries,
        )
    return light, values


class Graph:
    """A graph in the order its nodes are added. Values go by name; `shapes` has each one's (channels, height, width).

    The input is `image`, float32 (N, channels, height_px, width_px).
    """

    def __init__(self, name: str, channels: int, height_px: int, width_px: int) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {"image": (channels, height_px, width_px)}
        self._model = empty_model(name)
        self._constants: set[str] = set()

    def _add(self, operator: str, inputs: Sequence[str], name: str, shape: tuple[int, ...], **attributes: Any) -> str:
        self._model.graph.node.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        self.shapes[name] = shape
        return name

    def _constant(self, name: str, value: FloatArray) -> str:
        if name not in self._constants:
            self._constants.add(name)
            data = np.ascontiguousarray(value, np.float32).tobytes()
            self._model.graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=value.shape, raw_data=data)
        return name

    def conv(self, x: str, weight: FloatArray, bias: FloatArray, *, name: str, stride: int = 1) -> str:
        """Add a convolution with `weight` (out, in, k, k), k odd, and zero padding k // 2 on every side."""
        channels, height, width = self.shapes[x]
        if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or weight.shape[2] % 2 == 0:
            raise CheckpointError(f"{name}: its weight has shape {weight.shape}; expected (out, in, k, k) with odd k")
        if weight.shape[1] != channels:
            raise CheckpointError(
                f"{name}: its weight takes {weight.shape[1]} channels, but {channels} arrive there; "
                "the checkpoint is of another architecture (grouped convolutions are not read)"
            )
        if bias.shape != weight.shape[:1]:
            raise CheckpointError(f"{name}: {weight.shape[0]} output channels, but its bias has shape {bias.shape}")
        pad = weight.shape[2] // 2
        shape = (weight.shape[0], (height - 1) // stride + 1, (width - 1) // stride + 1)
        inputs = [x, self._constant(f"{name}.weight", weight), self._constant(f"{name}.bias", bias)]
        kernel = list(weight.shape[2:])
        return self._add("Conv", inputs, name, shape, kernel_shape=kernel, strides=[stride] * 2, pads=[pad] * 4)

    def relu(self, x: str) -> str:
        return self._add("Relu", [x], f"{x}.relu", self.shapes[x])

    def add(self, x: str, y: str, *, name: str) -> str:
        if self.shapes[x] != self.shapes[y]:
            raise CheckpointError(
                f"{name}: shapes {self.shapes[x]} and {self.shapes[y]} cannot be added; the input's height and width "
                "must be multiples of 32, and the checkpoint's widths must agree"
            )
        return self._add("Add", [x, y], name, self.shapes[x])

    def upsample(self, x: str, factor: int, *, name: str) -> str:
        """Repeat each pixel `factor` times in both directions."""
        channels, height, width = self.shapes[x]
        scales = self._constant(f"upsample.scales{factor}", np.array([1, 1, factor, factor], np.float32))
        shape = (channels, height * factor, width * factor)
        modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self._add("Resize", [x, "", scales], name, shape, **modes)

    def max_pool(self, x: str, *, name: str) -> str:
        """Add a 3x3 maximum, stride 2, padding 1. After a ReLU, padding with zeros or with nothing is the same."""
        channels, height, width = self.shapes[x]
        shape = (channels, (height - 1) // 2 + 1, (width - 1) // 2 + 1)
        return self._add("MaxPool", [x], name, shape, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

    def global_mean(self, x: str, *, name: str) -> str:
        channels = self.shapes[x][0]
        pooled = self._add("GlobalAveragePool", [x], name, (channels, 1, 1))
        return self._add("Flatten", [pooled], f"{name}.flat", (channels,))

    def dense(self, x: str, weight: FloatArray, bias: FloatArray, *, name: str) -> str:
        """Add x @ weight + bias, with `weight` (in, out)."""
        if weight.ndim != 2 or self.shapes[x] != weight.shape[:1]:
            raise CheckpointError(f"{name}: its weight has shape {weight.shape}, but {self.shapes[x]} features arrive")
        if bias.shape != weight.shape[1:]:
            raise CheckpointError(f"{name}: {weight.shape[1]} outputs, but its bias has shape {bias.shape}")
        inputs = [x, self._constant(f"{name}.weight", weight), self._constant(f"{name}.bias", bias)]
        return self._add("Gemm", inputs, name, (int(weight.shape[1]),))

    def model(self, value: str, output: str) -> onnx.ModelProto:
        """Finish and return the model, whose only output is `value` under the name `output`."""
        graph = self._model.graph
        if graph.node[-1].output[0] != value:
            raise ValueError(f"{value} is not the last node's value")
        graph.node[-1].output[0] = output
        graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *self.shapes["image"]]))
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", *self.shapes[value]]))
        check_graph(self._model)
        return self._model
