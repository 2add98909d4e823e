"""FP32 graphs to INT8 by static quantization, with QuantizeLinear and DequantizeLinear around the 8-bit layers.

Weights are signed and symmetric, one scale per output channel; biases are left alone. An activation that is never
negative is unsigned with zero point 0, so that an engine drops the ReLU before it; any other is unsigned with zero
point 128, which is the symmetric signed form. ONNX Runtime's and OpenVINO's kernels on x86 are fast for just these
(the arithmetic: Jacob et al. 2018, doi 10.1109/CVPR.2018.00286). TensorRT takes signed activations with zero point 0
alone: `to_tensorrt` brings a file to them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from spinescore.export.graph import empty_model
from spinescore.export.sessions import Images, map_batches, open_session
from spinescore.runtime.engines.half import to_half
from spinescore.runtime.engines.onnxgraph import check_graph, without_initializers

__all__ = ["RULES", "Ranges", "calibrate", "layers", "quantize", "sample_first", "to_tensorrt"]

RULES = ("extremes", "percentile", "least-squares")  # by which an activation's range is taken

_COMPUTED = ("Conv", "Gemm", "Add")  # in 8 bits
_CARRIED = ("Resize", "MaxPool")  # hand values on: the output has the scale of the input
_SAMPLES = 2048  # values of an activation that are kept of each image, to choose its range
_PERCENTILE = 99.99
_CUTS = np.linspace(0.2, 1.0, 33)  # shares of the largest magnitude
_LEVELS, _SIGNED_LEVELS = 255, 127
_MIDDLE = 128
_SMALLEST_SCALE = np.float32(2.0**-14)  # half's smallest normal number, so that scales survive in half
_HALF_SCALES_OPSET, _HALF_SCALES_IR = 19, 9  # from which on scales may be half

Array = NDArray[np.float32]
Ranges = dict[str, tuple[float, float]]  # activation -> least and greatest value


def layers(model: onnx.ModelProto, *operators: str) -> list[str]:
    """Return the layers that can run in 8 bits, in the graph's order; only those of `operators`, if any are given.

    A layer goes by the name of its result, since ready graphs need not name their nodes. Convolutions and dense layers
    count only if their weights are stored in the file as float32.
    """
    stored = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    nodes = [node for node in model.graph.node if node.op_type in (operators or _COMPUTED)]
    return [node.output[0] for node in nodes if node.op_type == "Add" or node.input[1] in stored]


def calibrate(model: onnx.ModelProto, images: Images) -> dict[str, Ranges]:
    """Return the ranges of all activations of the FP32 `model` over `images` (N, C, H, W), by each of the `RULES`.

    `extremes` takes all values, `percentile` 99.99 % of their magnitudes, and `least-squares` cuts at the magnitude
    that makes the mean squared error of rounding and cutting least.
    """
    probed = without_initializers(model)
    graph = probed.graph
    names = [node.output[0] for node in graph.node if node.op_type in (*_COMPUTED, *_CARRIED, "Relu")]
    outputs = {value.name for value in graph.output}
    graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names if n not in outputs)
    session = open_session(probed, model)
    entry = graph.input[0].name

    def look(image: NDArray[np.floating]) -> list[tuple[float, float, Array]]:
        """Return, for the input and each activation, its least and greatest value and some of its values."""
        flats = [value.ravel() for value in (image, *session.run(names, {entry: image}))]
        return [(float(flat.min()), float(flat.max()), flat[:: flat.size // _SAMPLES | 1].copy()) for flat in flats]

    by_image = map_batches(look, images, most=1)  # all activations of a full-size network take 200 MB
    ranges: dict[str, Ranges] = {rule: {} for rule in RULES}
    for name, seen in zip((entry, *names), zip(*by_image, strict=True), strict=True):
        low, high = min(least for least, _, _ in seen), max(greatest for _, greatest, _ in seen)
        pooled = np.concatenate([sample for _, _, sample in seen])
        limits = (np.inf, float(np.percentile(np.abs(pooled), _PERCENTILE)), _least_squares(pooled, low, high))
        for rule, limit in zip(RULES, limits, strict=True):
            ranges[rule][name] = (max(low, -limit), min(high, limit))
    return ranges


def _least_squares(values: Array, low: float, high: float) -> float:
    """Return the magnitude at which cutting `values` off gives the least mean squared error in 8 bits."""
    largest = max(abs(low), abs(high))
    errors = []
    for limit in largest * _CUTS:
        scale, zero = _scale(max(low, -limit), min(high, limit))
        rounded = (np.clip(np.rint(values / scale) + zero, 0, _LEVELS) - zero) * scale
        errors.append(float(np.square(rounded - values).mean()))
    return float(largest * _CUTS[int(np.argmin(errors))])


def sample_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of the FP32 `model` that gives the same values, with fewer 1x1 convolutions that skip pixels.

    If all readers of a value are 1x1 convolutions with the same stride (the blocks of a ResNet in Keras' layout), one
    pooling of single pixels takes the samples, and the convolutions get stride 1. OpenVINO would make the same change
    by itself, but between an activation and its quantization: the convolutions would then leave 8-bit arithmetic.
    """
    sampled = onnx.ModelProto()
    sampled.CopyFrom(model)
    graph = sampled.graph
    strides: dict[str, set[tuple[int, ...] | None]] = {}  # of all that reads a value
    for node in graph.node:
        for name in node.input:
            strides.setdefault(name, set()).add(_strides_of_point(node))
    samplings: dict[str, onnx.NodeProto] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        source = node.input[0] if node.input else ""
        stride = next(iter(strides[source])) if len(strides.get(source, ())) == 1 else None
        if stride is not None and stride != (1, 1):
            if source not in samplings:
                name = f"{source}.sampled"
                samplings[source] = helper.make_node(
                    "MaxPool", [source], [name], name=name, kernel_shape=[1, 1], strides=stride
                )
                nodes.append(samplings[source])
            node.input[0] = samplings[source].output[0]
            next(a for a in node.attribute if a.name == "strides").ints[:] = [1, 1]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(sampled, full_check=True)
    return sampled


def _strides_of_point(node: onnx.NodeProto) -> tuple[int, ...] | None:
    """Return the strides of a 1x1 convolution without padding; None for any other node."""
    attributes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    point = node.op_type == "Conv" and attributes.get("kernel_shape") == [1, 1]
    return tuple(attributes.get("strides", [])) or None if point and not any(attributes.get("pads", [])) else None


def quantize(model: onnx.ModelProto, ranges: Ranges, keep: Collection[str]) -> onnx.ModelProto:
    """Return a copy of the FP32 `model` whose convolutions, dense layers and sums, except `keep`, run in 8 bits.

    `ranges` are the activations' (least, greatest). The input, the output and the weights of `keep` stay float32.
    """
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    computed = set(layers(model)) - set(keep)
    scales = _scales(graph, ranges, computed)
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, onnx.TensorProto] = {}
    if graph.input[0].name in scales:
        nodes += _pair(graph.input[0].name, scales, constants)
    for node in graph.node:
        if node.op_type != "Add" and node.output[0] in computed:
            if f"{node.input[1]}.int8" not in constants:  # layers may share their weights
                nodes.append(_packed(node, weights, constants))
            node.input[1] = f"{node.input[1]}.dequantized"
        if node.output[0] in computed or node.op_type in _CARRIED:  # layers in FP32 read values that were not rounded
            node.input[:] = [f"{name}.dequantized" if name in scales else name for name in node.input]
        nodes.append(node)
        if node.output[0] in scales:
            nodes += _pair(node.output[0], scales, constants)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    quantized = empty_model(graph.name)
    quantized.graph.node.extend(nodes)
    quantized.graph.input.extend(graph.input)
    quantized.graph.output.extend(graph.output)
    quantized.graph.initializer.extend([*kept, *constants.values()])
    check_graph(quantized)
    return quantized


def to_tensorrt(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of an INT8 graph in TensorRT's form: signed activations, and half precision for all the rest.

    An activation that is never negative then has 127 steps instead of 255.
    """
    signed = onnx.ModelProto()
    signed.CopyFrom(model)
    signed.opset_import[0].version, signed.ir_version = _HALF_SCALES_OPSET, _HALF_SCALES_IR
    tensors = {tensor.name: tensor for tensor in signed.graph.initializer}
    for name, tensor in tensors.items():
        if not name.endswith(".zero") or tensor.data_type != TensorProto.UINT8:
            continue
        if not int(numpy_helper.to_array(tensor)):
            scale = tensors[f"{name.removesuffix('.zero')}.scale"]
            wider = numpy_helper.to_array(scale) * np.float32(_LEVELS / _SIGNED_LEVELS)
            scale.CopyFrom(numpy_helper.from_array(wider.astype(np.float32), scale.name))
        tensor.CopyFrom(numpy_helper.from_array(np.array(0, np.int8), name))
    return to_half(signed)[0]


def _scales(graph: onnx.GraphProto, ranges: Ranges, computed: Collection[str]) -> dict[str, tuple[float, int]]:
    """Return (scale, zero point) of each activation that is quantized.

    These are the activations that a layer of `computed`, in 8 bits, reads. The result of a sum or convolution that only
    a ReLU reads is not one of them: it exists only inside of the layer.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def is_read(name: str) -> bool:
        return any(
            node.output[0] in computed or (node.op_type in _CARRIED and is_read(node.output[0]))
            for node in readers.get(name, ())
        )

    scales: dict[str, tuple[float, int]] = {}
    producers = {node.output[0]: node for node in graph.node}
    for name in [graph.input[0].name, *producers]:
        producer = producers.get(name)
        if name not in ranges or not is_read(name):
            continue
        if producer is not None and producer.op_type in _CARRIED and producer.input[0] in scales:
            scales[name] = scales[producer.input[0]]
        else:
            scales[name] = _scale(*ranges[name])
    return scales


def _scale(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero point of an unsigned activation."""
    scale, zero = (high / _LEVELS, 0) if low >= 0 else (max(-low, high) / _SIGNED_LEVELS, _MIDDLE)
    return max(scale, float(_SMALLEST_SCALE)), zero


def _pair(
    name: str, scales: Mapping[str, tuple[float, int]], constants: dict[str, onnx.TensorProto]
) -> Iterable[onnx.NodeProto]:
    """Return the nodes that quantize `name` and dequantize it again."""
    scale, zero = scales[name]
    parameters = [f"{name}.scale", f"{name}.zero"]
    constants[parameters[0]] = numpy_helper.from_array(np.array(scale, np.float32), parameters[0])
    constants[parameters[1]] = numpy_helper.from_array(np.array(zero, np.uint8), parameters[1])
    small, back = f"{name}.quantized", f"{name}.dequantized"
    return (
        helper.make_node("QuantizeLinear", [name, *parameters], [small], name=small),
        helper.make_node("DequantizeLinear", [small, *parameters], [back], name=back),
    )


def _packed(
    node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], constants: dict[str, onnx.TensorProto]
) -> onnx.NodeProto:
    """Store a layer's weights in 8 bits in `constants`; return the node that dequantizes them."""
    name = node.input[1]
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    axis = 0 if node.op_type == "Conv" or transposed else 1  # of the output channels
    values = numpy_helper.to_array(weights[name]).astype(np.float32)
    others = tuple(number for number in range(values.ndim) if number != axis)
    largest = np.abs(values).max(axis=others)
    scale = np.maximum(largest / np.float32(_SIGNED_LEVELS), _SMALLEST_SCALE)
    spread = scale.reshape([-1 if number == axis else 1 for number in range(values.ndim)])
    small = np.clip(np.rint(values / spread), -_SIGNED_LEVELS, _SIGNED_LEVELS).astype(np.int8)
    parts = {f"{name}.int8": small, f"{name}.scale": scale, f"{name}.zero": np.zeros(len(scale), np.int8)}
    constants.update({part: numpy_helper.from_array(array, part) for part, array in parts.items()})
    back = f"{name}.dequantized"
    return helper.make_node("DequantizeLinear", list(parts), [back], name=back, axis=axis)
