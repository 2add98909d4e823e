"""A ready ONNX file in place of a checkpoint: checked, and brought to the form that bundles have.

Files from torch.onnx and tf2onnx differ in names, in layout (tf2onnx keeps TensorFlow's NHWC), in whether the weights
lie in a second file, and in whether a softmax ends the network. What can be brought to `image` (NCHW, symbolic batch,
float32) -> `heatmaps` or `logits` without a guess is; everything else is refused with what to change.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, external_data_helper, helper

from spinescore.export.sessions import run_model
from spinescore.runtime.errors import CheckpointError

__all__ = ["Ready", "read_ready"]

_NEWEST_OPSET, _NEWEST_IR = 21, 10  # what ONNX Runtime 1.20, the oldest supported, reads
_STANDARD = ("", "ai.onnx")
_ITEM_BYTES = {TensorProto.FLOAT: 4, TensorProto.DOUBLE: 8, TensorProto.INT64: 8, TensorProto.INT32: 4}
_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class Ready:
    """A graph in the bundle's form, its channels and outputs (joints or logits), and what was changed to get there."""

    model: onnx.ModelProto
    channels: int
    outputs: int
    notes: tuple[str, ...]


def read_ready(
    path: Path, output: Literal["heatmaps", "logits"], channels: int | None, height_px: int, width_px: int
) -> Ready:
    """Reads `path` and checks that it maps (N, channels, height, width) to `heatmaps` or `logits`.

    `channels` None takes the file's own, where its shape tells them.
    Raises `CheckpointError` for a file that is no FP32 ONNX graph of standard operators, for more than one input or
    output, and for shapes that do not fit.
    """
    model = _load(path)
    notes: list[str] = []
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _check_operators(model, path)
    inputs = _real_inputs(model.graph)
    if len(inputs) != 1 or len(model.graph.output) != 1:
        names = ", ".join(value.name for value in (*inputs, *model.graph.output))
        raise CheckpointError(f"{path.name}: expected one input and one output; found {names}. Export only those")
    for value in (inputs[0], model.graph.output[0]):
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            raise CheckpointError(
                f"{path.name}: {value.name} is {kind}; give the float32 graph, the other precisions are written here"
            )
    if output == "logits":
        _cut_softmax(model.graph, path, notes)
    _rename(model.graph, inputs[0].name, "image")
    _rename(model.graph, model.graph.output[0].name, output)
    channels = channels or _channels(model.graph, path)
    _settle_input(model.graph, path, (channels, height_px, width_px), notes)
    outputs = _settle_output(model, path, output, (channels, height_px, width_px), notes)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckpointError(f"{path.name}: not a valid ONNX graph: {error}") from error
    return Ready(model, channels, outputs, tuple(notes))


def _load(path: Path) -> onnx.ModelProto:
    """The model with its weights inlined. Weights in a second file must lie beside `path`, under a plain name."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # protobuf's DecodeError; its class is not public
        raise CheckpointError(f"{path.name}: not an ONNX file, or truncated: {error}") from error
    for tensor in model.graph.initializer:
        if not external_data_helper.uses_external_data(tensor):
            continue
        location = external_data_helper.ExternalDataInfo(tensor).location
        plain = location not in ("", ".", "..") and PurePosixPath(location).name == PureWindowsPath(location).name
        if not plain or PurePosixPath(location).name != location or (path.parent / location).is_symlink():
            raise CheckpointError(
                f"{path.name}: tensor {tensor.name} lies in {location!r}; only a file beside the model is read"
            )
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except Exception as error:  # a missing or short file gives OSError, ValueError or a checker's error
            raise CheckpointError(
                f"{path.name}: tensor {tensor.name} cannot be read from {location}: {error}"
            ) from error
        expected = int(np.prod(tensor.dims)) * _ITEM_BYTES.get(tensor.data_type, 0)
        if expected and len(tensor.raw_data) != expected:
            raise CheckpointError(
                f"{path.name}: tensor {tensor.name} cannot be read from {location}: {len(tensor.raw_data)} bytes "
                f"instead of {expected}; copy both files again"
            )
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return model


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    if not model.graph.node:
        raise CheckpointError(f"{path.name}: the ONNX file holds no nodes; it is empty or another kind of file")
    for node in model.graph.node:
        if node.domain not in _STANDARD:
            raise CheckpointError(
                f"{path.name}: node {node.name or node.op_type} is {node.domain}.{node.op_type}, which is no standard "
                "ONNX operator; export without contrib or quantized operators"
            )
    opset = max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=0)
    if not 11 <= opset <= _NEWEST_OPSET:
        raise CheckpointError(f"{path.name}: opset {opset}; export with opset 11 to {_NEWEST_OPSET}, best 17")
    standard = [entry for entry in model.opset_import if entry.domain in _STANDARD]
    del model.opset_import[:]
    model.opset_import.append(standard[0])
    model.ir_version = min(max(model.ir_version, 4), _NEWEST_IR)


def _real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def _cut_softmax(graph: onnx.GraphProto, path: Path, notes: list[str]) -> None:
    """Removes a last Softmax (its input is the raw logits); refuses a Sigmoid."""
    name = graph.output[0].name
    last = next((node for node in graph.node if name in node.output), None)
    if last is None or last.op_type not in ("Softmax", "LogSoftmax", "Sigmoid"):
        return
    if last.op_type == "Sigmoid" or sum(name in node.input for node in graph.node):
        raise CheckpointError(
            f"{path.name}: the network ends in {last.op_type} ({last.name}); export it so that it gives raw logits"
        )
    axis = next((int(attribute.i) for attribute in last.attribute if attribute.name == "axis"), -1)
    rank = len(graph.output[0].type.tensor_type.shape.dim)
    if axis % rank != rank - 1:
        raise CheckpointError(f"{path.name}: {last.op_type} ({last.name}) over axis {axis}; export raw logits")
    graph.output[0].name = last.input[0]
    described = [value for value in graph.value_info if value.name != last.input[0]]
    graph.node.remove(last)
    del graph.value_info[:]
    graph.value_info.extend(described)
    notes.append(f"the last {last.op_type} was removed: bundles hold raw logits")


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """`old` becomes `new` everywhere; a tensor that bears `new` already makes way."""
    if old == new:
        return
    for source, target in ((new, f"{new}.before"), (old, new)):
        for node in graph.node:
            node.input[:] = [target if name == source else name for name in node.input]
            node.output[:] = [target if name == source else name for name in node.output]
        for named in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            if named.name == source:
                named.name = target


def _dimensions(value: onnx.ValueInfoProto) -> list[int]:
    """The shape with 0 for what is symbolic."""
    return [int(dim.dim_value) if dim.HasField("dim_value") else 0 for dim in value.type.tensor_type.shape.dim]


def _channels(graph: onnx.GraphProto, path: Path) -> int:
    found = _dimensions(next(value for value in graph.input if value.name == "image"))
    fitting = [found[axis] for axis in (1, 3) if len(found) == 4 and found[axis] in (1, 3)]
    if len(fitting) != 1:
        raise CheckpointError(
            f"{path.name}: its input has shape {found} (0 is free), which does not tell the channels; set the "
            "network's input.channels in the manifest"
        )
    return fitting[0]


def _fits(found: list[int], wanted: tuple[int, ...]) -> bool:
    return len(found) == len(wanted) and all(a in (0, b) for a, b in zip(found, wanted, strict=True))


def _settle_input(graph: onnx.GraphProto, path: Path, image: tuple[int, int, int], notes: list[str]) -> None:
    """Makes the input NCHW with a symbolic batch, by a Transpose where the network wants NHWC."""
    value = next(value for value in graph.input if value.name == "image")
    found = _dimensions(value)
    channels, height, width = image
    if _fits(found[1:], image):
        layout_nhwc = False
    elif _fits(found[1:], (height, width, channels)):
        layout_nhwc = True
    else:
        raise CheckpointError(
            f"{path.name}: its input has shape {found} (0 is free); the bundle wants "
            f"(N, {channels}, {height}, {width}) or the same as NHWC. Set the network's input in the manifest, "
            "or export it with that size"
        )
    if layout_nhwc:
        for node in graph.node:
            node.input[:] = ["image.nhwc" if name == "image" else name for name in node.input]
        transpose = helper.make_node("Transpose", ["image"], ["image.nhwc"], name="to_nhwc", perm=_TO_NHWC)
        graph.node.insert(0, transpose)
        notes.append("the input is NHWC: a Transpose was put before it")
    value.CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *image]))


def _settle_output(
    model: onnx.ModelProto, path: Path, output: str, image: tuple[int, int, int], notes: list[str]
) -> int:
    """Runs the graph on two images, checks what comes, and declares it; returns the number of outputs."""
    graph = model.graph
    del graph.value_info[:]  # shapes noted at export hold the batch of that time
    graph.output[0].CopyFrom(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    probe = np.random.default_rng(0).random((2, *image), np.float32)
    try:
        found = run_model(model, probe)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of its own
        raise CheckpointError(
            f"{path.name}: does not run on a batch of two {image}: {error}. Export it with a free batch dimension"
        ) from error
    if not np.isfinite(found).all() or len(found) != 2:
        raise CheckpointError(
            f"{path.name}: a batch of two images gives {found.shape} with NaN or infinity, or one batch"
        )
    shape = found.shape[1:]
    if output == "heatmaps":
        height, width = image[1] // 4, image[2] // 4
        if shape[:2] == (height, width) and len(shape) == 3 and shape[1:] != (height, width):
            graph.node[-1].output[:] = [f"{output}.nhwc" if n == output else n for n in graph.node[-1].output]
            graph.node.append(
                helper.make_node("Transpose", [f"{output}.nhwc"], [output], name="to_nchw", perm=_TO_NCHW)
            )
            notes.append("the heatmaps are NHWC: a Transpose was put behind them")
            shape = (shape[2], height, width)
        fits = len(shape) == 3 and shape[1:] == (height, width)
        wanted = f"(N, joints, {height}, {width})"
    else:
        fits, wanted = len(shape) == 1, "(N, outputs)"
    if not fits:
        raise CheckpointError(f"{path.name}: its output has shape {('N', *shape)}; the bundle wants {wanted}")
    graph.output[0].CopyFrom(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", *shape]))
    return int(shape[0])
