"""Reads a ready ONNX file in place of a checkpoint, and brings it to the form of bundles.

Files from torch.onnx and tf2onnx differ in names, in layout (tf2onnx keeps TensorFlow's NHWC), in whether the weights
lie in a second file, and in whether a softmax ends the network. What can be brought to `image` (NCHW, symbolic batch,
float32) -> `heatmaps` or `logits` without a guess is accepted; everything else is refused with the change to make.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from spinescore.export.ends import ORDINARY, check_heatmaps, cut_to_logits, probe_pictures, rename_value
from spinescore.export.graph import free_size
from spinescore.export.onnxfile import load_model
from spinescore.export.sessions import run_model
from spinescore.export.untrusted import naming
from spinescore.runtime.errors import CheckpointError

__all__ = ["Ready", "read_ready"]

_NEWEST_OPSET, _NEWEST_IR = 21, 10  # what ONNX Runtime 1.20, the oldest supported, reads
_STANDARD = ("", "ai.onnx")
_ENDLESS = ("Loop", "Scan")
_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
_GRADES = {8: 4}  # number of outputs -> grades of a corner, if that is not all of them
_SAME = 1e-3  # of the output's range: how far a picture's answer may differ with the batch that it comes in
_FREE_BATCH = (
    "Export it with a free batch: torch.onnx.export(model, (image,), 'net.onnx', dynamic_shapes=({0: "
    "torch.export.Dim('batch')},), dynamo=True) after model.eval(), or in Keras with keras.Input(shape) that states no "
    "batch_size"
)


@dataclass(frozen=True)
class Ready:
    """A graph in the bundle's form, its channels and outputs (joints or logits), and what was changed to get there.

    `sha256` and `bytes` are those of the file as it was read.
    """

    model: onnx.ModelProto
    channels: int
    outputs: int
    notes: tuple[str, ...]
    sha256: str
    bytes: int


def read_ready(
    path: Path,
    output: Literal["heatmaps", "logits"],
    channels: int | None,
    height_px: int,
    width_px: int,
    confidence_stated: bool = False,
    other_sizes: Sequence[tuple[int, int]] = (),
) -> Ready:
    """Read `path` and check that it maps (N, channels, height, width) to `heatmaps` or `logits`.

    If `channels` is None, the number comes from the file's input shape. If `confidence_stated`, the manifest sets the
    least confidence of a point, so heatmaps that end in a sigmoid or softmax are taken as they are. `other_sizes` are
    further heights and widths at which the network runs.
    Raises `CheckpointError` if the file is no FP32 ONNX graph of standard operators, for more than one input or output,
    for shapes that do not fit, and for probabilities that cannot be cut back to logits.
    """
    model, content = load_model(path)
    with naming(path.name):
        notes: list[str] = []
        _check_operators(model)
        rename_value(model.graph, _only_input(model, path.name), "image")
        rename_value(model.graph, model.graph.output[0].name, output)
        channels = channels or _channels(model.graph)
        image = (channels, height_px, width_px)
        _settle_input(model.graph, image, notes)
        del model.graph.value_info[:]  # shapes noted at export hold the batch of that time
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
        probes = probe_pictures(*image)
        answers = _answers(model, probes)
        outputs = _settle_output(model, output, image, answers, notes)
        if output == "logits":
            grades = _GRADES.get(outputs, outputs)
            notes[:0] = cut_to_logits(model, answers, grades, lambda: run_model(model, probes))
        else:
            notes += check_heatmaps(answers, confidence_stated)
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise CheckpointError(f"not a valid ONNX graph: {error}") from error
        if other_sizes:
            _free_size(model, channels, other_sizes)
        return Ready(model, channels, outputs, tuple(notes), hashlib.sha256(content).hexdigest(), len(content))


def _free_size(model: onnx.ModelProto, channels: int, sizes: Sequence[tuple[int, int]]) -> None:
    """Make height and width of a localizer symbolic, and check that it runs at all `sizes`."""
    outputs = _dimensions(model.graph.output[0])[1]
    free_size(model)
    for height, width in sizes:
        try:
            shape = run_model(model, probe_pictures(channels, height, width)[:1]).shape[1:]
        except Exception:  # ONNX Runtime's exceptions share no base class of its own
            shape = ()
        if shape != (outputs, height // 4, width // 4):
            raise CheckpointError(
                f"does not take pictures of {height}x{width} pixels, as localizer.test_time.scales asks. "
                "Export it with free height and width: torch.onnx.export(model, (image,), 'net.onnx', "
                "dynamic_shapes=({0: torch.export.Dim('batch'), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},), "
                "dynamo=True) after model.eval(), or leave scales at [1.0]"
            )


def _only_input(model: onnx.ModelProto, name: str) -> str:
    """Return the name of the one input. Refuses several inputs or outputs, and ends that are not float32."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    outputs = list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        names = ", ".join(value.name for value in (*inputs, *outputs))
        first = inputs[0].name if inputs else "INPUT"
        raise CheckpointError(
            f"has {len(inputs)} inputs and {len(outputs)} outputs, not one of each; found {names}. "
            f'Cut out the one that is needed: python -c "import onnx; onnx.utils.extract_model('
            f"'{name}', 'one.onnx', ['{first}'], ['OUTPUT'])\" with its name for OUTPUT"
        )
    for value in (inputs[0], outputs[0]):
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            raise CheckpointError(
                f"{value.name} is {kind}; give the float32 graph, the other precisions are written here"
            )
    return str(inputs[0].name)


def _answers(model: onnx.ModelProto, probes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the outputs for `probes`; check that they are finite, and the same for a picture alone."""
    batch = len(probes)
    try:
        answers = run_model(model, probes)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; export it again") from error
    except Exception as error:  # ONNX Runtime's exceptions share no base class of its own
        raise CheckpointError(
            f"does not run on a batch of {batch} pictures {probes.shape[1:]}: {error}. {_FREE_BATCH}"
        ) from error
    if answers.ndim < 2 or len(answers) != batch:
        raise CheckpointError(f"a batch of {batch} pictures gives {answers.shape}, not one answer each. {_FREE_BATCH}")
    if not np.isfinite(answers[:ORDINARY]).all():
        raise CheckpointError("gives NaN or infinity for ordinary pictures; are its weights those after training?")
    for number in range(0, ORDINARY, 2):
        try:
            alone = run_model(model, probes[number : number + 1])
        except Exception as error:
            raise CheckpointError(f"does not run on one picture: {error}. {_FREE_BATCH}") from error
        off = np.abs(alone[0] - answers[number]).max() if alone[0].shape == answers[number].shape else np.inf
        if not off <= _SAME * max(float(np.ptp(answers[:ORDINARY])), 1e-6):
            raise CheckpointError(
                "answers the same picture differently alone and in a batch, as a Dropout or "
                "BatchNormalization in training mode does, or a softmax over the batch; export it after model.eval()"
            )
    return answers


def _check_operators(model: onnx.ModelProto) -> None:
    if not model.graph.node:
        raise CheckpointError("the ONNX file holds no nodes; it is empty or another kind of file")
    for node in model.graph.node:
        if node.op_type in _ENDLESS and node.domain in _STANDARD:
            raise CheckpointError(
                f"node {node.name or node.op_type} is a {node.op_type}, which can run without end and is "
                "in no HRNet or ResNet; export the network without it"
            )
        if node.domain not in _STANDARD:
            raise CheckpointError(
                f"node {node.name or node.op_type} is {node.domain}.{node.op_type}, which is no standard "
                "ONNX operator; export without contrib or quantized operators"
            )
    opset = max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=0)
    if not 11 <= opset <= _NEWEST_OPSET:
        raise CheckpointError(
            f"opset {opset}; read is opset 11 to {_NEWEST_OPSET}. Export it again with opset_version=17 "
            "(torch.onnx.export) or --opset 17 (tf2onnx)"
        )
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = min(max(model.ir_version, 4), _NEWEST_IR)


def _dimensions(value: onnx.ValueInfoProto) -> list[int]:
    """Return the shape, with 0 for symbolic dimensions."""
    return [int(dim.dim_value) if dim.HasField("dim_value") else 0 for dim in value.type.tensor_type.shape.dim]


def _channels(graph: onnx.GraphProto) -> int:
    shape = _dimensions(next(value for value in graph.input if value.name == "image"))
    fitting = [shape[axis] for axis in (1, 3) if len(shape) == 4 and shape[axis] in (1, 3)]
    if len(fitting) != 1:
        raise CheckpointError(
            f"its input has shape {shape} (0 is free), which does not tell the channels; set the "
            "network's input.channels in the manifest"
        )
    return fitting[0]


def _fits(shape: list[int], expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(a in (0, b) for a, b in zip(shape, expected, strict=True))


def _settle_input(graph: onnx.GraphProto, image: tuple[int, int, int], notes: list[str]) -> None:
    """Make the input NCHW with a symbolic batch, by a Transpose if the network takes NHWC."""
    value = next(value for value in graph.input if value.name == "image")
    shape = _dimensions(value)
    channels, height, width = image
    is_nhwc = not _fits(shape[1:], image)
    if is_nhwc and not _fits(shape[1:], (height, width, channels)):
        raise CheckpointError(
            f"its input has shape {shape} (0 is free); the bundle wants "
            f"(N, {channels}, {height}, {width}) or the same as NHWC. Set the network's input in the manifest, "
            "or export it with that size"
        )
    if is_nhwc:
        for node in graph.node:
            node.input[:] = ["image.nhwc" if name == "image" else name for name in node.input]
        transpose = helper.make_node("Transpose", ["image"], ["image.nhwc"], name="to_nhwc", perm=_TO_NHWC)
        graph.node.insert(0, transpose)
        notes.append("the input is NHWC: a Transpose was put before it")
    value.CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *image]))


def _settle_output(
    model: onnx.ModelProto,
    output: str,
    image: tuple[int, int, int],
    answers: NDArray[np.float32],
    notes: list[str],
) -> int:
    """Check the shape of the answers, and declare it; return the number of outputs."""
    graph = model.graph
    shape = answers.shape[1:]
    if output == "heatmaps":
        height, width = image[1] // 4, image[2] // 4
        if shape[:2] == (height, width) and len(shape) == 3 and shape[1:] != (height, width):
            rename_value(graph, output, f"{output}.nhwc")
            graph.node.append(
                helper.make_node("Transpose", [f"{output}.nhwc"], [output], name="to_nchw", perm=_TO_NCHW)
            )
            notes.append("the heatmaps are NHWC: a Transpose was put behind them")
            shape = (shape[2], height, width)
        fits = len(shape) == 3 and shape[1:] == (height, width)
        expected = f"(N, joints, {height}, {width})"
    else:
        fits, expected = len(shape) == 1, "(N, outputs)"
    if not fits:
        raise CheckpointError(f"its output has shape {('N', *shape)}; the bundle wants {expected}")
    graph.output[0].CopyFrom(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", *shape]))
    return int(shape[0])
