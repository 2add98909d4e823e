"""The verbs of a device: it holds buffers, runs kernels, and infers with engines. The pipeline calls nothing else.

A device owns the memory that it allocates, and frees it on `close`. One thread at a time may use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spinescore.kernels.average import AverageSpec
from spinescore.kernels.decode import BoxSpec, CropSpec, DecodeSpec
from spinescore.kernels.warp import Source, WarpSpec
from spinescore.runtime.engines import Engine

__all__ = ["LARGEST_IMAGE_PX", "Buffer", "Device", "Replay", "loading"]

LARGEST_IMAGE_PX = 5120 * 5120  # a GPU first allocates memory for images of this size


class Buffer(Protocol):
    """Memory of the device: an array whose slices along the first axis are views of the same memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, part: slice, /) -> Any: ...


# Captured steps. A device may run more views than are asked for; nobody reads their results.
Replay = Callable[[slice], None]


B = TypeVar("B", bound=Buffer)


class Device(Protocol[B]):
    """The verbs. Launches (`warp` .. `run`, `mark`) are queued in order; `read` and `synchronise` wait for them."""

    kind: str  # "cpu", "cuda"
    name: str  # the hardware, for reports
    precisions: tuple[str, ...]  # of networks, the preferred one first
    warnings: tuple[str, ...]  # for every report

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> B:
        """Return a zeroed buffer in C order, kept until `close`."""

    def write(self, buffer: B, values: NDArray[Any]) -> None:
        """Copy host values of the buffer's shape and dtype into it."""

    def read(self, buffer: B) -> NDArray[Any]:
        """Return a copy of the buffer on the host, after everything queued has run."""

    def fetch(self, buffer: B) -> None:
        """Queue the copy to the host. A `read` of the buffer then takes it, if nothing else is queued in between."""

    def upload(self, slot: int, source: Source) -> None:
        """Make `source` the image that ROIs with this source number read (0 or 1), replacing the one before."""

    def forget(self) -> None:
        """Drop the references to the caller's pixels. No verb reads the images until others are uploaded."""

    def engines(
        self,
        networks: Sequence[tuple[Path, str]],
        before: Callable[[str], None] | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[Engine[B]]:
        """Load networks, given as files with their precisions. The engines are closed with the device.

        `rows` has the number of pictures of each network for one view, if it is known; a batch is of whole views.
        `before` is called with a sentence for each network, maybe from several threads. Raises `EngineError`, and the
        errors of `before`.
        """

    def warp(self, rois: B, spec: WarpSpec, out: B) -> None:
        """Kernel 1: `out` (N, channels, height, width) from N ROIs of any shape."""

    def decode(self, heatmaps: B, rois: B, views: B, spec: DecodeSpec, points: B) -> None:
        """Kernel 2: the points (N, 6, 2) of N views."""

    def boxes(self, points: B, views: B, spec: BoxSpec, rois: B) -> None:
        """Kernel 2: the second pass's ROIs (N)."""

    def crops(self, points: B, views: B, spec: CropSpec, rois: B) -> None:
        """Kernel 2: the crops' ROIs (N, 6, flips)."""

    def mirror(self, images: B, out: B) -> None:
        """Kernel 3: `out` (N, channels, height, width) are the images with their last axis reversed."""

    def average(self, heatmaps: Sequence[B], spec: AverageSpec, out: B) -> None:
        """Kernel 3: `out` (N, joints, h, w) is the mean of all runs' heatmaps (N, joints, h_r, w_r)."""

    def run(self, engine: Engine[B], inputs: B, outputs: B) -> None:
        """Infer the batch in `inputs` into `outputs`."""

    def mark(self, stage: str) -> None:
        """Note the time at which everything queued before has run."""

    def marks_ms(self) -> dict[str, float]:
        """Return the marks of the latest replay, in milliseconds since its first one."""

    def capture(self, steps: Callable[[slice], None]) -> Replay:
        """Return `steps` as a replay. A GPU first runs them once for both views; engines may allocate in that run."""

    def synchronise(self) -> None:
        """Wait until everything queued has run."""

    def close(self) -> None:
        """Free everything. Closing twice is no error."""


def loading(path: Path, precision: str) -> str:
    """Return the sentence that `Device.engines` says before it loads a network."""
    return f"loading network {path.name} ({precision})"
