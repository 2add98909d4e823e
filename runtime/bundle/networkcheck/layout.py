"""Output shapes of operators that compute element by element or rearrange elements.

Source: the operators' documentation (onnx.ai/onnx/operators), opset 7 and later. Operators whose result's size depends
on a picture's values (NonZero, Unique, ..), and operators that hold graphs, have no rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, prod

import numpy as np

from spinescore.runtime.bundle.networkcheck.graph import TEXT, Node, Tensor
from spinescore.runtime.bundle.networkcheck.inputs import (
    Inputs,
    Rule,
    Shape,
    all_axes,
    broadcast,
    first_shape,
    integers,
    known_values,
    one_axis,
)

__all__ = ["LAYOUTS", "constant_of", "shape_part", "slices"]

_MOST_DIMENSIONS = 16
_LARGEST = (2**31 - 1, 2**63 - 1)


def _same(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    return [first_shape(inputs)] * len(node.outputs)


def _cast(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    if node.integer("to", 1) % 2**32 == TEXT:
        raise ValueError("it makes texts")
    return [first_shape(inputs)]


def _elementwise(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    return [broadcast(*(result.shape for result in inputs if result is not None))]


def _reshape(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape, target = first_shape(inputs), integers(node, inputs, "shape", 1) or []
    if not node.flag("allowzero"):
        target = [shape[n] if size == 0 and n < len(shape) else size for n, size in enumerate(target)]
    rest = prod(size for size in target if size != -1)
    if target.count(-1) == 1 and rest:
        target = [prod(shape) // rest if size == -1 else size for size in target]
    if prod(target) != prod(shape):
        raise ValueError(f"{shape} does not fit into {target}")
    return [tuple(target)]


def _flatten(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape = first_shape(inputs)
    axis = node.integer("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return [(prod(shape[:axis]), prod(shape[axis:]))]


def _transpose(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape = first_shape(inputs)
    order = node.integers("perm") or list(range(len(shape)))[::-1]
    if sorted(order) != list(range(len(shape))):
        raise ValueError(f"the order {order} for {shape}")
    return [tuple(shape[axis] for axis in order)]


def _squeeze(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape = first_shape(inputs)
    axes = integers(node, inputs, "axes", 1)
    gone = [n for n, size in enumerate(shape) if size == 1] if axes is None else all_axes(axes, len(shape))
    return [tuple(size for n, size in enumerate(shape) if n not in gone)]


def _unsqueeze(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape, axes = first_shape(inputs), integers(node, inputs, "axes", 1) or []
    rank = len(shape) + len(axes)
    places, sizes = all_axes(axes, rank) if rank <= _MOST_DIMENSIONS else [], iter(shape)
    return [tuple(1 if n in places else next(sizes, 1) for n in range(rank))]


def _concat(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shapes = [result.shape for result in inputs if result is not None]
    axis = one_axis(node.integer("axis", 0), len(shapes[0]))
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise ValueError("its inputs do not fit")
    return [(*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])]


def _split(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape, parts = first_shape(inputs), len(node.outputs)
    axis = one_axis(node.integer("axis", 0), len(shape))
    sizes = integers(node, inputs, "split", 1)
    if sizes is None:
        each = -(-shape[axis] // parts)
        sizes = [max(0, min(each, shape[axis] - each * n)) for n in range(parts)]
    if len(sizes) != parts or sum(sizes) != shape[axis]:
        raise ValueError(f"the parts {sizes} of {shape}")
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def slices(node: Node, inputs: Inputs) -> list[slice]:
    shape = first_shape(inputs)
    starts, ends = integers(node, inputs, "starts", 1) or [], integers(node, inputs, "ends", 2) or []
    axes = all_axes(integers(node, inputs, "axes", 3) or range(len(starts)), len(shape))
    steps = integers(node, inputs, "steps", 4) or [1] * len(starts)
    parts = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:  # ONNX begins within the tensor, Python before it; and ONNX Runtime reads the largest end as none
            parts[axis] = slice(max(start, -shape[axis]), None if end in _LARGEST else end, step)
        else:
            parts[axis] = slice(start, end, step)
    return parts


def _slice(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape = first_shape(inputs)
    parts = zip(shape, slices(node, inputs), strict=True)
    return [tuple(len(range(*part.indices(size))) for size, part in parts)]


def _gather(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape, places = first_shape(inputs), first_shape(inputs, 1)
    axis = one_axis(node.integer("axis", 0), len(shape))
    return [(*shape[:axis], *places, *shape[axis + 1 :])]


def _pad(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape, pads = first_shape(inputs), integers(node, inputs, "pads", 1) or []
    axes = all_axes(integers(node, inputs, "axes", 3) or range(len(shape)), len(shape))
    if len(pads) != 2 * len(axes):
        raise ValueError(f"pads {pads} for {shape}")
    sizes = list(shape)
    for n, axis in enumerate(axes):
        sizes[axis] += pads[n] + pads[n + len(axes)]
    return [tuple(sizes)]


def _resize(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape = first_shape(inputs)
    if node.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise ValueError("tf_crop_and_resize is not known here")
    place = 2 if node.operator == "Resize" and opset >= 11 else 1
    scales, sizes = known_values(inputs, place, "scales"), integers(node, inputs, "sizes", 3)
    axes = all_axes(node.integers("axes") or range(len(shape)), len(shape))
    if scales is None and node.operator == "Upsample" and "scales" in node.attributes:
        scales = np.array(node.attributes["scales"], np.float64)
    resized = list(shape)
    if sizes is not None and len(sizes) == len(axes):
        if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise ValueError("a policy of aspect ratios is not known here")
        for axis, size in zip(axes, sizes, strict=True):
            resized[axis] = size
    elif scales is not None and len(scales) == len(axes) and np.isfinite(scales).all():
        for axis, scale in zip(axes, scales, strict=True):
            resized[axis] = floor(shape[axis] * float(scale))
    else:
        raise ValueError("neither scales nor sizes fit")
    return [tuple(resized)]


def _expand(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    return [broadcast(first_shape(inputs), tuple(integers(node, inputs, "shape", 1) or ()))]


def _tile(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape, repeats = first_shape(inputs), integers(node, inputs, "repeats", 1) or []
    return [tuple(size * count for size, count in zip(shape, repeats, strict=True))]


def _filled(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    return [tuple(integers(node, inputs, "shape", 0) or ())]


def _range(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    start, limit, delta = (_one(inputs, index) for index in range(3))
    if not delta or not np.isfinite([start, limit, delta]).all():
        raise ValueError("its steps have no end")
    return [(max(ceil((limit - start) / delta), 0),)]


def _one(inputs: Inputs, index: int) -> float:
    value = known_values(inputs, index, "range")
    if value is None or value.size != 1:
        raise ValueError("its range is no number")
    return float(value[0])


def _shape(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    return [(len(shape_part(node, inputs)),)]


def shape_part(node: Node, inputs: Inputs) -> Shape:
    shape = first_shape(inputs)
    return shape[node.integer("start", 0) : node.integer("end", len(shape))]


def _scalar(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    return [()]


def _reduce(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    shape = first_shape(inputs)
    axes = integers(node, inputs, "axes", 1)
    if not axes and node.flag("noop_with_empty_axes"):
        return [shape]
    gone = all_axes(axes or range(len(shape)), len(shape))
    kept = [1 if n in gone else size for n, size in enumerate(shape)]
    return [tuple(size for n, size in enumerate(kept) if node.flag("keepdims", True) or n not in gone)]


def _blocks(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    (batch, channels, height, width), side = first_shape(inputs), node.integer("blocksize", 0)
    if side < 1:
        raise ValueError(f"blocks of {side}")
    if node.operator == "DepthToSpace":
        return [(batch, channels // side**2, height * side, width * side)]
    return [(batch, channels * side**2, height // side, width // side)]


def _constant(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    return [constant_of(node).shape]


def constant_of(node: Node) -> Tensor:
    if len(node.attributes) != 1:
        raise ValueError("a constant without a value")
    ((name, value),) = node.attributes.items()
    if isinstance(value, Tensor):
        return value
    if name not in ("value_int", "value_ints", "value_float", "value_floats"):
        raise ValueError(f"a constant with {name}")
    values = np.array(value, np.int64 if name.startswith("value_int") else np.float32)
    return Tensor(values.shape, values)


_SAME = (
    "Abs BatchNormalization Ceil Celu Clip DequantizeLinear Dropout Elu Erf Exp Floor Gelu GroupNormalization "
    "HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Log LogSoftmax LpNormalization "
    "LRN Mish Neg Not QuantizeLinear Reciprocal Relu Round Selu Sigmoid Sign Softmax Softplus Softsign Sqrt "
    "Swish Tanh ThresholdedRelu"
)
_ELEMENTWISE = (
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor"
)
_REDUCE = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

LAYOUTS: Mapping[str, Rule] = {
    **dict.fromkeys(_SAME.split(), _same),
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **{f"Reduce{name}": _reduce for name in _REDUCE.split()},
    "Cast": _cast, "Concat": _concat, "Constant": _constant, "ConstantOfShape": _filled, "DepthToSpace": _blocks,
    "Expand": _expand, "Flatten": _flatten, "Gather": _gather, "Pad": _pad, "Range": _range, "Reshape": _reshape,
    "Resize": _resize, "Shape": _shape, "Size": _scalar, "Slice": _slice, "SpaceToDepth": _blocks, "Split": _split,
    "Squeeze": _squeeze, "Tile": _tile, "Transpose": _transpose, "Unsqueeze": _unsqueeze, "Upsample": _resize,
}  # fmt: skip
