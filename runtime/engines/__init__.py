"""Engines: what runs a network. One module per framework, imported only by the device that uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["CudaQueue", "DeviceMemory", "Engine"]

B = TypeVar("B", contravariant=True)


class Engine(Protocol[B]):
    """A loaded network with one input `image` and one output; shapes are without the batch.

    Height and width are 0 where the network takes pictures of any size that its strides allow.

    On a GPU `run` only queues work on the device's stream, and `inputs` and `outputs` are `DeviceMemory` whose
    addresses stay the same from the first run, outside of a capture, to the captured one.
    """

    framework: str  # and its version, for reports
    precision: str
    name: str  # the model's file, for messages
    file: Path  # that was loaded: the network's, or the engine built from it

    @property
    def capturable(self) -> bool:
        """Whether `run` may be recorded into a CUDA graph; where not, the device runs it between two graphs."""

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...
    def run(self, inputs: B, outputs: B) -> None:
        """Infer a batch (N, *input_shape) into (N, *output_shape). Raises `EngineError`."""

    def close(self) -> None:
        """Free what the engine holds; called by its device, with the CUDA context current. Twice is no error."""


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
    """What an engine needs of the GPU that it is opened on; the CUDA context is current in every call to an engine."""

    name: str  # the GPU's
    index: int  # of the device, as CUDA counts
    compute_capability: tuple[int, int]

    @property
    def stream_handle(self) -> int:
        """The CUstream on which everything is queued."""

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceMemory:
        """Zeroed memory that the device frees when it closes, after its engines."""
