"""The GPU and its primary context, which is current inside the device's verbs and nowhere else.

`drv` is pycuda's driver module, passed in by the device that imports it.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from spinescore.runtime.devices.cudadriver import LEAST_DRIVER, CudaDriver, cuda_version, explained
from spinescore.runtime.errors import DeviceError

__all__ = ["NOT_AVAILABLE", "PrimaryContext", "first_gpu", "is_coherent", "translated"]

NOT_AVAILABLE = "Device cuda is not available"
_COHERENT = ("INTEGRATED", "CAN_MAP_HOST_MEMORY", "PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES")


def first_gpu(drv: Any, index: int) -> Any:
    """Return pycuda's device. Raises `DeviceError` if there is none, or its driver is too old."""
    with translated(drv, NOT_AVAILABLE):
        drv.init()
        if not drv.Device.count():
            raise explained("no CUDA-capable device is detected", NOT_AVAILABLE)
        version = drv.get_driver_version()
        if version < LEAST_DRIVER:
            raise DeviceError(
                f"{NOT_AVAILABLE}: the NVIDIA driver supports CUDA {cuda_version(version)}, at least "
                f"{cuda_version(LEAST_DRIVER)} is needed; update the driver, or use device cpu."
            )
        return drv.Device(index)


def is_coherent(drv: Any, gpu: Any) -> bool:
    """Return whether the GPU is integrated and caches the host's memory, so that it reads it as fast as its own.

    CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES says so (CUDA for Tegra, section 2.2). The answer
    is no if pycuda or the driver is too old to know one of the attributes.
    """
    try:
        return all(gpu.get_attribute(getattr(drv.device_attribute, name)) for name in _COHERENT)
    except (AttributeError, drv.LogicError):
        return False


@contextmanager
def translated(drv: Any, where: str) -> Iterator[None]:
    """Turn pycuda's errors into `DeviceError`."""
    try:
        yield
    except drv.Error as error:
        traceback.clear_frames(error.__traceback__)  # a stream that a frame holds would outlive the context
        raise explained(str(error), where) from error


class PrimaryContext:
    """The GPU's primary context, which all libraries of the process share. Any thread may use it, one at a time."""

    def __init__(self, drv: Any, gpu: Any, where: str) -> None:
        self._drv, self._where = drv, where
        self._driver = CudaDriver(where)
        self._lock, self._depth = threading.RLock(), 0
        with translated(drv, where):
            self._context = gpu.retain_primary_context()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the context current, and reserve the device for this thread. Raises `DeviceError` if it is in use."""
        if not self._lock.acquire(blocking=False):
            raise DeviceError(
                f"{self._where} is in use by another thread; share a Scorer, whose calls wait for each other, or open "
                "a device for each thread."
            )
        try:
            if self._context is None:
                raise DeviceError(f"{self._where} is closed; open it again.")
            with translated(self._drv, self._where), self._current():
                yield
        finally:
            self._lock.release()

    @contextmanager
    def last_use(self) -> Iterator[ExitStack | None]:
        """Yield a stack of calls that free the rest, run in reverse before the context is released.

        Yields None if the context was released before.
        """
        with self._lock:
            context, self._context = self._context, None
            if context is None:
                yield None
                return
            handle = context.handle
            context.push()
            with ExitStack() as last:  # every step runs, even if one before it failed
                last.callback(self._driver.forget_context, handle)
                last.callback(context.detach)
                yield last

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._depth += 1
        if self._depth == 1:
            self._context.push()
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._drv.Context.pop()
