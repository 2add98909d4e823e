"""Memory of a GPU, the pinned host memory beside it, and arrays in it.

`drv` is pycuda's driver module, passed in by the device that imports it. The CUDA context must be current.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NON_BLOCKING", "CudaBuffer", "Memory"]

NON_BLOCKING = 1  # of a stream: it does not wait for the default stream, on which other libraries work


class Memory:
    """Device memory, and pinned host memory from which it is filled.

    The host memory is allocated with the device memory if `pinned` is true, else when it is first needed. With `mapped`
    there is host memory only, and the GPU reads and writes that. If either cannot be allocated, neither is kept.
    """

    def __init__(self, drv: Any, nbytes: int, *, mapped: bool = False, pinned: bool = False) -> None:
        self._drv, self.nbytes = drv, nbytes
        self._host: NDArray[np.uint8] | None = None
        self._device: Any = None
        if mapped:
            self.address = int(self._pinned(drv.host_alloc_flags.DEVICEMAP).base.get_device_pointer())
        else:
            self._device = drv.mem_alloc(nbytes)
            self.address = int(self._device)
            try:
                self._host = self._pinned(0) if pinned else None
            except BaseException:
                self.free()
                raise

    @property
    def host(self) -> NDArray[np.uint8]:
        memory: NDArray[np.uint8] = self._pinned(0)
        return memory

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
