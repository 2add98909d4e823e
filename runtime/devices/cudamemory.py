"""Memory of a GPU: what it holds, the pinned host memory beside it, and the places of the radiographs.

`drv` is pycuda's driver module, handed in by the device that imports it. The CUDA context must be current.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels import launch
from spinescore.kernels.warp import Source

__all__ = ["MOST_TABLE_ENTRIES", "NON_BLOCKING", "CudaBuffer", "Memory", "Slot"]

MOST_TABLE_ENTRIES = 2**16
NON_BLOCKING = 1  # of a stream: it does not wait for the default stream, on which other libraries work
_MOST_PIXEL_BYTES = 2


class Memory:
    """Device memory and pinned host memory from which it is filled; `mapped`: the host memory as the GPU sees it.

    Host memory beside device memory is allocated by `pin`, or when it is first asked for.
    """

    def __init__(self, drv: Any, nbytes: int, mapped: bool = False) -> None:
        self._drv, self.nbytes = drv, nbytes
        self._host: NDArray[np.uint8] | None = None
        self._device: Any = None
        if mapped:
            self.address = int(self._pinned(drv.host_alloc_flags.DEVICEMAP).base.get_device_pointer())
        else:
            self._device = drv.mem_alloc(nbytes)
            self.address = int(self._device)

    @property
    def host(self) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self._pinned(0)
        return found

    def pin(self) -> Memory:
        """Allocate the host memory now."""
        self._pinned(0)
        return self

    def _pinned(self, flags: int) -> Any:
        if self._host is None:
            self._host = self._drv.pagelocked_empty(self.nbytes, np.uint8, mem_flags=flags)
        return self._host

    def clear(self, stream: Any) -> None:
        if self._device is None:
            self.host[...] = 0
        else:
            self._drv.memset_d8_async(self.address, 0, self.nbytes, stream)

    def send(self, start: int, stop: int, stream: Any) -> None:
        if self._device is not None:
            self._drv.memcpy_htod_async(self.address + start, self.host[start:stop], stream)

    def fetch(self, start: int, stop: int, stream: Any) -> None:
        if self._device is not None:
            self._drv.memcpy_dtoh_async(self.host[start:stop], self.address + start, stream)

    def free(self) -> None:
        pinned: Any = self._host
        for held in (self._device, None if pinned is None else pinned.base):
            if held is not None:
                held.free()
        self._device = self._host = None


@dataclass(frozen=True, eq=False)
class CudaBuffer:
    """A contiguous part of device memory as an array; slices along the first axis are views of the same memory."""

    memory: Memory
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def address(self) -> int:
        return self.memory.address + self.offset

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, part: slice, /) -> CudaBuffer:
        start, stop, step = part.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"device memory is sliced in steps of 1, not {step}")
        row = prod(self.shape[1:]) * self.dtype.itemsize
        return replace(self, offset=self.offset + start * row, shape=(max(stop - start, 0), *self.shape[1:]))


class Slot:
    """Memory for one radiograph with its tables, the stream that uploads it, and the event of its arrival."""

    def __init__(self, drv: Any, largest_image_px: int, mapped: bool, keep: Callable[[Memory], Memory]) -> None:
        self.pixels = keep(Memory(drv, largest_image_px * _MOST_PIXEL_BYTES, mapped)).pin()
        self.tables = keep(Memory(drv, launch.TABLES * MOST_TABLE_ENTRIES * 4, mapped)).pin()
        self.stream = drv.Stream(NON_BLOCKING)
        self.arrived = drv.Event(drv.event_flags.DISABLE_TIMING)

    def fill(self, source: Source) -> tuple[NDArray[np.void], int, int]:
        """Bring a source into the host memory: its record, and how many bytes of pixels and tables are filled."""
        dtype = source.pixels.dtype.newbyteorder("=")
        nbytes = source.pixels.size * dtype.itemsize
        self.pixels.host[:nbytes].view(dtype).reshape(source.pixels.shape)[...] = source.pixels
        greys, placed = self.tables.host.view(np.float32), 0
        places: dict[int, tuple[int, int]] = {}
        for table in source.tables:
            if id(table) not in places:
                greys[placed : placed + len(table)] = table
                places[id(table)] = (self.tables.address + 4 * placed, len(table))
                placed += len(table)
        tables = [places[id(table)] for table in source.tables]
        pitch = source.pixels.shape[1] * dtype.itemsize
        shape = (source.pixels.shape[0], source.pixels.shape[1])
        record = launch.source_record(self.pixels.address, pitch, shape, dtype, source.stored_min, tables)
        return record, nbytes, 4 * placed

    def let_go(self) -> None:
        """Streams and events are destroyed with the last reference to them."""
        self.stream = self.arrived = None
