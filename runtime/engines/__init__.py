"""Engines run networks. `ENGINES` is the one table of them; each has a module in this package.

To add an engine, write its module and its row in `ENGINES`. The module has the function
`open_on_cpu(path, precision, threads, callers, rows)` or `open_on_gpu(path, precision, queue, target)`, or both; it is
imported only when the engine is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import DTypeLike

__all__ = [
    "ENGINES",
    "ONNX_RUNTIME",
    "OPENVINO",
    "PRECISIONS",
    "TENSORRT",
    "CudaQueue",
    "DeviceMemory",
    "Engine",
    "EngineName",
    "EngineRow",
    "Framework",
    "Gpu",
    "PrecisionName",
    "gpu_of",
]

B = TypeVar("B", contravariant=True)

EngineName = Literal["onnxruntime", "openvino", "tensorrt"]
ONNX_RUNTIME: EngineName = "onnxruntime"
OPENVINO: EngineName = "openvino"
TENSORRT: EngineName = "tensorrt"
PrecisionName = Literal["fp32", "bf16", "fp16", "int8"]
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)

# Network files for each precision, the preferred precision first. BF16 is arithmetic on FP32 files. A network that the
# bundle does not have in INT8 runs in FP32 beside the others.
_FILES: dict[str, tuple[str, ...]] = {
    "fp32": ("fp32",),
    "bf16": ("fp32",),
    "fp16": ("fp16",),
    "int8": ("int8", "fp32"),
}


@dataclass(frozen=True)
class Framework:
    """A Python package that runs an engine's networks; `extra` of spinescore installs it, if there is one."""

    title: str
    extra: str | None = None


@dataclass(frozen=True)
class EngineRow:
    """One row of `ENGINES`.

    `precisions` has the precisions for each kind of device, in the order in which they are tried. `frameworks` are by
    import name; one of them is enough. A `prebuilt` engine runs files that were built for one GPU and lie in
    `engines/<target>/` of the bundle; the others run the bundle's ONNX files.
    """

    precisions: Mapping[str, tuple[str, ...]]
    frameworks: Mapping[str, Framework]
    files: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _FILES)
    prebuilt: bool = False

    @property
    def title(self) -> str:
        return next(iter(self.frameworks.values())).title


ENGINES: dict[str, EngineRow] = {
    ONNX_RUNTIME: EngineRow(
        {"cpu": ("fp32", "fp16", "int8"), "cuda": ("fp16", "fp32")},
        {"onnxruntime": Framework("ONNX Runtime")},
        {**_FILES, "fp16": ("fp16", "fp32")},  # on a GPU an FP32 file is converted when it is loaded
    ),
    OPENVINO: EngineRow({"cpu": ("fp32", "bf16", "fp16", "int8")}, {"openvino": Framework("OpenVINO", "openvino")}),
    TENSORRT: EngineRow(
        {"cuda": ("fp32", "fp16", "int8")},
        {
            "tensorrt": Framework("TensorRT", "tensorrt"),
            "tensorrt_lean": Framework("TensorRT lean runtime", "tensorrt-lean"),
            "tensorrt_rtx": Framework("TensorRT-RTX", "tensorrt-rtx"),
        },
        {"fp32": ("fp32",), "fp16": ("fp16", "fp32"), "int8": ("int8", "fp16", "fp32")},
        prebuilt=True,
    ),
}


class Engine(Protocol[B]):
    """A loaded network with one input `image` and one output; shapes are without the batch.

    Height and width are 0 if the network takes pictures of any size that its strides allow.

    On a GPU, `run` only queues work on the device's stream. Its `inputs` and `outputs` are then `DeviceMemory`, whose
    addresses stay the same from the first run, outside of a capture, to the captured run.
    """

    framework: str  # with its version, for reports
    precision: str
    name: str  # of the loaded file, for messages
    file: Path  # the loaded file: a network, or an engine that was built from it

    @property
    def rows(self) -> int:
        """Return the number of which every batch is a multiple."""

    @property
    def capturable(self) -> bool:
        """Return whether `run` may be recorded into a CUDA graph; if not, the device runs it between two graphs."""

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...
    def run(self, inputs: B, outputs: B) -> None:
        """Infer a batch (N, *input_shape) into (N, *output_shape). Raises `EngineError`."""

    def close(self) -> None:
        """Free the network; the device calls this with its CUDA context current. Closing twice is no error."""


class Gpu(NamedTuple):
    """A kind of GPU, as far as engines are tied to it. Every Jetson Orin has one name, but not one size."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int

    def __str__(self) -> str:
        """Return the hardware's name in acceptance records and plans."""
        return f"{self.name} with {self.multiprocessors} multiprocessors"


class DeviceMemory(Protocol):
    """Contiguous memory of a GPU, in C order."""

    @property
    def address(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nbytes(self) -> int: ...


class CudaQueue(Protocol):
    """The GPU that an engine is opened on. Its CUDA context is current in every call to an engine."""

    name: str
    index: int  # as CUDA counts devices
    compute_capability: tuple[int, int]
    multiprocessors: int

    @property
    def stream_handle(self) -> int:
        """The CUstream on which all work is queued."""

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceMemory:
        """Return zeroed memory. The device frees it when it closes, after its engines."""


def gpu_of(queue: CudaQueue) -> Gpu:
    return Gpu(queue.name, queue.compute_capability, queue.multiprocessors)
