"""Output shapes of layers: convolutions, pools, products (onnx.ai/onnx/operators, opset 7 and later)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from spinescore.runtime.bundle.networkcheck.graph import Node
from spinescore.runtime.bundle.networkcheck.inputs import Inputs, Rule, Shape, broadcast, first_shape

__all__ = ["LAYERS", "multiplications", "scratch"]


def _convolution(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    image, weights = first_shape(inputs), first_shape(inputs, 1)
    if not 3 <= len(image) <= 4 or len(weights) != len(image):
        raise ValueError(f"a convolution of {image} with {weights}")
    return [(image[0], weights[0], *_windows(node, image[2:], weights[2:]))]


def _transposed_convolution(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    image, weights = first_shape(inputs), first_shape(inputs, 1)
    if not 3 <= len(image) <= 4 or len(weights) != len(image):
        raise ValueError(f"a convolution of {image} with {weights}")
    sizes, kernel, count = image[2:], weights[2:], len(image) - 2
    strides, dilations = _per_axis(node, "strides", count, 1), _per_axis(node, "dilations", count, 1)
    pads, extra = _per_axis(node, "pads", 2 * count, 0), _per_axis(node, "output_padding", count, 0)
    padding = node.text("auto_pad", "NOTSET")
    spread = node.integers("output_shape")
    if spread is None:
        full = [strides[n] * (sizes[n] - 1) + extra[n] + (kernel[n] - 1) * dilations[n] + 1 for n in range(count)]
        if padding.startswith("SAME"):
            spread = [min(full[n], sizes[n] * strides[n]) for n in range(count)]
        else:
            spread = [full[n] - pads[n] - pads[n + count] for n in range(count)]
    return [(image[0], weights[1] * node.integer("group", 1), *spread[-count:])]


def _pool(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    image, kernel = first_shape(inputs), node.integers("kernel_shape") or []
    if not 3 <= len(image) <= 4 or len(kernel) != len(image) - 2:
        raise ValueError(f"a pool of {image} with {kernel}")
    if node.text("auto_pad", "NOTSET").startswith("SAME") and set(node.integers("dilations") or ()) - {1}:
        raise ValueError("dilations are not known here beside SAME padding")  # engines differ in the size
    return [(*image[:2], *_windows(node, image[2:], kernel))] * len(node.outputs)


def _windows(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Return the number of places that a window has along each axis."""
    count = len(sizes)
    strides, dilations = _per_axis(node, "strides", count, 1), _per_axis(node, "dilations", count, 1)
    pads, padding = _per_axis(node, "pads", 2 * count, 0), node.text("auto_pad", "NOTSET")
    if min(strides) < 1:
        raise ValueError(f"strides {strides}")
    if padding.startswith("SAME"):
        return [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
    ends = node.flag("ceil_mode")
    places = []
    for axis in range(count):
        padded = sizes[axis] + (0 if padding == "VALID" else pads[axis] + pads[axis + count])
        room = padded - dilations[axis] * (kernel[axis] - 1) - 1
        if room < 0:  # engines round the number of places in different ways
            raise ValueError(f"a window that is larger than its {padded} places")
        count_here = (-(-room // strides[axis]) if ends else room // strides[axis]) + 1
        if ends and (count_here - 1) * strides[axis] >= sizes[axis] + pads[axis]:
            count_here -= 1  # a window that begins after the picture does not count
        places.append(count_here)
    return places


def _per_axis(node: Node, name: str, count: int, default: int) -> list[int]:
    numbers = node.integers(name) or [default] * count
    if len(numbers) != count:
        raise ValueError(f"{name} {numbers} for {count} numbers")
    return numbers


def _global_pool(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    image = first_shape(inputs)
    return [(*image[:2], *[1] * (len(image) - 2))]


def _gemm(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    left, right = first_shape(inputs), first_shape(inputs, 1)
    if len(left) != 2 or len(right) != 2:
        raise ValueError(f"a product of {left} and {right}")
    return [(left[1 if node.flag("transA") else 0], right[0 if node.flag("transB") else 1])]


def _matmul(node: Node, inputs: Inputs, opset: int) -> list[Shape]:
    left, right = first_shape(inputs), first_shape(inputs, 1)
    if not left or not right or left[-1] != right[max(len(right) - 2, 0)]:
        raise ValueError(f"a product of {left} and {right}")
    return [(*broadcast(left[:-2], right[:-2]), *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))]


def multiplications(node: Node, inputs: Inputs, outputs: Sequence[Shape]) -> int:
    """Return the multiplications and additions of a layer, or the elements that an operator reads and writes."""
    moved = sum(prod(result.shape) for result in inputs if result is not None) + sum(map(prod, outputs))
    if node.operator == "Conv":
        return moved + prod(outputs[0]) * prod(first_shape(inputs, 1)[1:])
    if node.operator == "ConvTranspose":
        return moved + prod(first_shape(inputs)) * prod(first_shape(inputs, 1)[1:])
    if node.operator in ("AveragePool", "MaxPool"):
        return moved + prod(outputs[0]) * prod(node.integers("kernel_shape") or ())
    if node.operator == "Gemm":
        return moved + prod(first_shape(inputs)) * outputs[0][1]
    if node.operator == "MatMul":
        return moved + prod(outputs[0]) * first_shape(inputs)[-1]
    return moved


def scratch(node: Node, inputs: Inputs) -> int:
    """Return the elements that ONNX Runtime holds while it runs a node, beside its inputs and outputs."""
    if node.operator == "ConvTranspose":  # the product of picture and weights, before it is added up in the output
        return prod(first_shape(inputs)[2:]) * prod(first_shape(inputs, 1)[1:])
    if node.operator == "LRN":  # the squares of one picture, with channels of zeros around them
        _, channels, *sizes = first_shape(inputs)
        return (channels + node.integer("size", 1)) * prod(sizes)
    return 0


LAYERS: Mapping[str, Rule] = {
    "AveragePool": _pool,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MatMul": _matmul,
    "MaxPool": _pool,
}
