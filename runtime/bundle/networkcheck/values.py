"""Values of small tensors that are in the file or follow from shapes; other sizes depend on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.bundle.networkcheck.graph import FEW_VALUES, Node, Tensor
from spinescore.runtime.bundle.networkcheck.inputs import Inputs, Shape, first_shape, integers
from spinescore.runtime.bundle.networkcheck.layout import constant_of, shape_part, slices

__all__ = ["values_of"]

Values = NDArray[Any]
_ARITHMETIC = ("Add", "Div", "Mul", "Neg", "Range", "ReduceProd", "Sub")
_KINDS = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}  # TensorProto.DataType


def values_of(node: Node, inputs: Inputs, shapes: Sequence[Shape]) -> Values | None:
    """Return the values of a node's only output, None if there are many, or if they depend on the picture."""
    if len(shapes) != 1 or prod(shapes[0]) > FEW_VALUES:
        return None
    if node.operator == "Shape":
        return np.array(shape_part(node, inputs), np.int64)
    if node.operator == "Size":
        return np.array(prod(first_shape(inputs)), np.int64)
    if node.operator == "Constant":
        return constant_of(node).values
    known = [result.values for result in inputs if result is not None and result.values is not None]
    if node.operator not in _COMPUTED or not known or len(known) != len(inputs):
        return None
    if node.operator in _ARITHMETIC and any(map(_is_huge, known)):  # engines overflow in different ways
        return None
    if node.operator == "Range" and known[0].dtype.kind == "f":  # ONNX Runtime adds the steps up, with other roundings
        return None
    with np.errstate(all="ignore"):
        values = np.asarray(_COMPUTED[node.operator](node, inputs, known, shapes[0]))
    if values.shape != shapes[0]:
        raise ValueError(f"its values have the shape {values.shape}, not {shapes[0]}")
    return values


def _is_huge(values: Values) -> bool:
    return values.dtype.kind in "iu" and bool((abs(values.astype(np.float64)) >= 2.0**31).any())


def _quotient(left: Values, right: Values) -> Values:
    if left.dtype.kind not in "iu":
        return np.asarray(left / right)
    if not right.all():
        raise ValueError("it divides by zero")
    return np.asarray(np.sign(left) * np.sign(right) * (abs(left) // abs(right)))  # towards zero, as C++ has it


def _cast(node: Node, inputs: Inputs, operands: list[Values], shape: Shape) -> Values:
    kind = _KINDS.get(node.integer("to", 0))
    if kind is None:
        raise ValueError("its kind of number is not one of sizes")
    return operands[0].astype(kind)


def _gathered(node: Node, inputs: Inputs, operands: list[Values], shape: Shape) -> Values:
    axis = node.integer("axis", 0)
    places = operands[1].astype(np.int64)
    if places.size and not -operands[0].shape[axis] <= places.min() <= places.max() < operands[0].shape[axis]:
        raise ValueError("it takes an element that is not there")
    return np.take(operands[0], places, axis)


def _filled(node: Node, inputs: Inputs, operands: list[Values], shape: Shape) -> Values:
    value = node.attributes.get("value", Tensor((1,), np.zeros(1, np.float32)))
    if not isinstance(value, Tensor) or value.values is None or value.values.size != 1:
        raise ValueError("its value is no number")
    return np.full(shape, value.values.reshape(-1)[0])


def _product(node: Node, inputs: Inputs, operands: list[Values], shape: Shape) -> Values:
    axes = integers(node, inputs, "axes", 1)
    if abs(np.prod(operands[0].astype(np.float64))) >= 2.0**31:
        raise ValueError("its product is too large")
    return np.asarray(np.prod(operands[0], axis=tuple(axes) if axes else None)).reshape(shape)


def _range(node: Node, inputs: Inputs, operands: list[Values], shape: Shape) -> Values:
    return np.asarray(operands[0] + operands[2] * np.arange(prod(shape), dtype=operands[0].dtype))


def _plain(function: Callable[..., Any]) -> Callable[[Node, Inputs, list[Values], Shape], Any]:
    return lambda node, inputs, operands, shape: function(*operands)


def _arranged(node: Node, inputs: Inputs, operands: list[Values], shape: Shape) -> Values:
    return operands[0].reshape(shape)


_COMPUTED: Mapping[str, Callable[[Node, Inputs, list[Values], Shape], Any]] = {
    "Add": _plain(np.add),
    "Cast": _cast,
    "Ceil": _plain(np.ceil),
    "Concat": lambda node, inputs, operands, shape: np.concatenate(operands, node.integer("axis", 0)),
    "ConstantOfShape": _filled,
    "Div": _plain(_quotient),
    "Equal": _plain(np.equal),
    "Expand": lambda node, inputs, operands, shape: np.broadcast_to(operands[0], shape),
    "Floor": _plain(np.floor),
    "Gather": _gathered,
    "Greater": _plain(np.greater),
    "Identity": _plain(np.asarray),
    "Less": _plain(np.less),
    "Max": lambda node, inputs, operands, shape: np.maximum.reduce(np.broadcast_arrays(*operands)),
    "Min": lambda node, inputs, operands, shape: np.minimum.reduce(np.broadcast_arrays(*operands)),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Range": _range,
    "ReduceProd": _product,
    "Reshape": _arranged,
    "Slice": lambda node, inputs, operands, shape: operands[0][tuple(slices(node, inputs))],
    "Squeeze": _arranged,
    "Sub": _plain(np.subtract),
    "Unsqueeze": _arranged,
    "Where": _plain(np.where),
}
