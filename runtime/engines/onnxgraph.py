"""Copies and checks of ONNX graphs that leave the weights where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

__all__ = ["check_graph", "without_initializers", "without_weights"]

_SMALL = 256  # elements; the shapes, scales and axes that shape inference reads are smaller


def check_graph(model: onnx.ModelProto) -> None:
    """Check a graph as ONNX does, with shape inference. Raises the errors of `onnx.checker`.

    Large weights are taken for inputs of the same shape: the checker would copy them twice.
    """
    onnx.checker.check_model(without_weights(model), full_check=True)


def without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` without initializers.

    Their memory would stay with the copy, even after they are replaced: a message frees its parts as one.
    """
    copy = onnx.ModelProto()
    _copy_fields(model, copy, left_out="graph")
    _copy_fields(model.graph, copy.graph, left_out="initializer")
    return copy


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose large initializers are inputs of the same type and shape, to read the graph alone."""
    light = without_initializers(model)
    inputs = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) <= _SMALL:
            light.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def _copy_fields(source: Any, target: Any, left_out: str) -> None:
    for field, value in source.ListFields():
        if field.name == left_out:
            continue
        if hasattr(value, "CopyFrom"):
            getattr(target, field.name).CopyFrom(value)
        elif hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        else:
            setattr(target, field.name, value)
