"""Golden networks and small ONNX files for the tests of the exporters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from golden.packing import FOLDER, contents
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from spinescore.runtime.phantom import write_study

IMAGES = np.random.default_rng(152).integers(0, 256, (2, 3, 64, 64), np.uint8)  # as make_networks.py draws them

HRNETS = ("hrnet-legacy.pth", "hrnet-zip.pth")
TORCH_RESNETS = ("resnet152-corners4.pth", "resnet50-corner4.pth", "resnet50-bridge.pth", "resnet50-grades.pth")
KERAS_RESNETS = (
    "keras-resnet152-corners4.h5",
    "keras-resnet50-corner4.h5",
    "keras-resnet50-bridge.h5",
    "keras-resnet50-grades-softmax.h5",
)

# What the networks of `write_inputs` take; an ONNX file does not say how its input is normalised.
SIZES = {kind: {"input": {"height": 64, "width": 64}} for kind in ("localizer", "grader")}
SMALL = {kind: {"input": {**fields["input"], "preprocessing": "imagenet"}} for kind, fields in SIZES.items()}


def unpacked(name: str, folder: Path) -> Path:
    """The golden checkpoint `name` as its framework wrote it, in `folder`."""
    path = folder / name
    path.write_bytes(contents(f"networks-{_framework(name)}")[name])
    return path


def _framework(name: str) -> str:
    return "keras" if name.startswith("keras") else "torch"


def golden_run(name: str, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The input of the golden network `name`, as make_networks.py normalises it, and its framework's output."""
    with np.load(FOLDER / f"networks-{_framework(name)}.npz") as archive:
        outputs = archive[name]
    return ((IMAGES[: len(outputs), :channels] / 255 - 0.5) / 0.25).astype(np.float32), outputs


def model_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[np.generic]],
    inputs: tuple[object, ...],
    outputs: tuple[object, ...],
    ends: tuple[str, str] = ("x", "y"),
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of one input and one output, as another exporter might have written it."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(ends[0], kind, inputs)],
        [helper.make_tensor_value_info(ends[1], kind, outputs)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def mean_grader(
    outputs: int = 8,
    layout: str = "NCHW",
    batch: object = "N",
    last: str | None = None,
    size: tuple[object, object] = ("h", "w"),
) -> onnx.ModelProto:
    """Logits that are affine in the means of a picture's 3 channels."""
    rng = np.random.default_rng(5)
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("Gemm", ["mean", "w", "b"], ["dense" if last else "y"]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["dense"], ["y"]))
    shape = (batch, 3, *size) if layout == "NCHW" else (batch, *size, 3)
    constants = {
        "w": rng.normal(size=(3, outputs)).astype(np.float32),
        "b": rng.normal(size=outputs).astype(np.float32),
    }
    return model_of(nodes, constants, shape, (batch, outputs))


def pool_localizer(joints: int = 12) -> onnx.ModelProto:
    """Heatmaps that mix the three channels of 4x4 blocks, each joint in its own way."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["p", "mix"], ["y"]),
    ]
    mix = np.random.default_rng(6).normal(size=(joints, 3, 1, 1)).astype(np.float32)
    return model_of(nodes, {"mix": mix}, ("N", 3, "h", "w"), ("N", joints, "a", "b"))


def write_inputs(folder: Path) -> None:
    """An export's inputs: small ONNX networks, the manifest's fields that fit them, radiographs of a phantom study."""
    onnx.save(pool_localizer(), str(folder / "localizer.onnx"))
    onnx.save(mean_grader(), str(folder / "grader.onnx"))
    write_study(41, folder / "study")
    (folder / "small.json").write_text(json.dumps(SMALL), encoding="utf-8")
    (folder / "sizes.json").write_text(json.dumps(SIZES), encoding="utf-8")


def pooled(order: tuple[int, ...], size: int = 8) -> onnx.ModelProto:
    """Heatmaps that are means of a picture's blocks, in another order of axes."""
    nodes = [helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[32 // size] * 2, strides=[32 // size] * 2)]
    nodes.append(helper.make_node("Transpose", ["p"], ["y"], perm=order))
    return model_of(nodes, {}, ("N", 3, 32, 32), ("N", "a", "b", "c"))


def saved(model: onnx.ModelProto, folder: Path, **options: Any) -> Path:
    path = folder / "net.onnx"
    onnx.save(model, str(path), **options)
    return path


def images(layout: str = "NCHW") -> NDArray[np.float32]:
    drawn = np.random.default_rng(1).random((3, 3, 32, 32), np.float32)
    return drawn if layout == "NCHW" else np.ascontiguousarray(drawn.transpose(0, 2, 3, 1))
