"""Devices: where buffers live, kernels run and engines infer. The pipeline knows only the verbs of `Device`.

A device owns all that it allocates, frees it on `close`, and is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spinescore.kernels.decode import BoxSpec, CropSpec, DecodeSpec
from spinescore.kernels.warp import Source, WarpSpec
from spinescore.runtime.engines import Engine
from spinescore.runtime.errors import DeviceError

__all__ = ["DEVICES", "Buffer", "Device", "Replay", "open_device"]

DEVICES = ("auto", "cpu", "cuda")


class Buffer(Protocol):
    """Memory of the device: an array whose slices along the first axis are views of the same memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, part: slice, /) -> Any: ...


# Captured steps. A device may run more views than are asked for; what those yield is left unread.
Replay = Callable[[slice], None]


B = TypeVar("B", bound=Buffer)


class Device(Protocol[B]):
    """The verbs. Launches (`warp` .. `run`, `mark`) are queued in order; `read` and `synchronise` wait for them."""

    kind: str  # "cpu", "cuda"
    name: str  # the hardware, for reports
    precisions: tuple[str, ...]  # of networks, the preferred one first

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> B:
        """A zeroed buffer in C order, kept until `close`."""

    def write(self, buffer: B, values: NDArray[Any]) -> None:
        """Copy host values of the buffer's shape and dtype into it."""

    def read(self, buffer: B) -> NDArray[Any]:
        """A copy of the buffer on the host, after everything queued has run."""

    def upload(self, slot: int, source: Source) -> None:
        """Make `source` the image that ROIs with this source number read (0 or 1), replacing the one before."""

    def engine(self, path: Path, precision: str) -> Engine[B]:
        """Load a network. Raises `EngineError`."""

    def warp(self, rois: B, spec: WarpSpec, out: B) -> None:
        """Kernel 1: `out` (N, channels, height, width) from N ROIs of any shape."""

    def decode(self, heatmaps: B, rois: B, views: B, spec: DecodeSpec, points: B) -> None:
        """Kernel 2: the points (N, 6, 2) of N views."""

    def boxes(self, points: B, views: B, spec: BoxSpec, rois: B) -> None:
        """Kernel 2: the second pass's ROIs (N)."""

    def crops(self, points: B, views: B, spec: CropSpec, rois: B) -> None:
        """Kernel 2: the crops' ROIs (N, 6, flips)."""

    def run(self, engine: Engine[B], inputs: B, outputs: B) -> None:
        """Infer the batch in `inputs` into `outputs`."""

    def mark(self, stage: str) -> None:
        """Note the time at which everything queued before has run."""

    def marks_ms(self) -> dict[str, float]:
        """The marks of the latest replay, in milliseconds since its first one."""

    def capture(self, steps: Callable[[slice], None]) -> Replay:
        """Run `steps` for both views once, and make them replayable."""

    def synchronise(self) -> None:
        """Wait until everything queued has run."""

    def close(self) -> None:
        """Free everything. Closing twice is no error."""


def open_device(name: str = "auto", threads: int | None = None) -> Device[Any]:
    """The device of that name; `auto` takes the best that this machine has. `threads` limits a CPU's engine.

    Raises `DeviceError` where the device is not there, `ValueError` for a name that no device has.
    """
    if name == "cuda":
        raise DeviceError(
            "Device cuda is not available: this version of spinescore has no CUDA device yet. Use device cpu or auto."
        )
    if name not in DEVICES:
        raise ValueError(f"there is no device {name!r}; choose one of {', '.join(DEVICES)}")
    from spinescore.runtime.devices.host import HostDevice

    return HostDevice(threads)
